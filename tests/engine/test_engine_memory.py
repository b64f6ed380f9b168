"""Batches that fit into memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustmaps.engine import memory
from robustmaps.engine.view import plain_view

CPU = torch.device("cpu")


def test_free_memory_is_that_of_this_machine() -> None:
    free = memory.free_bytes(CPU)
    assert free is None or 1 << 20 < free < 1 << 50


def test_the_batch_follows_what_is_free_and_what_an_image_takes(
    make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # By hand, for 8 x 8 images in float32: the input of both convolutions and both batch-norms, and of the linear
    # layer; a ReLU keeps its output, which is the next layer's input.
    each = 4 * (64 + 16 * 64 + 16 * 64 + 32 * 16 + 32 * 16)
    with plain_view(make_cnn()) as view:
        batches = {}
        for images in (1, 2, 5, 8, 100):
            monkeypatch.setattr(memory, "free_bytes", lambda device, n=images: 4 * n * each)
            batches[images] = memory.fitting_batch(view, make_images(2))
        monkeypatch.setattr(memory, "free_bytes", lambda device: None)
        assert memory.fitting_batch(view, make_images(2)) == 64
    assert batches == {1: 1, 2: 2, 5: 4, 8: 8, 100: 64}


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, answer: bool) -> None:
    assert memory.is_out_of_memory(error) is answer
