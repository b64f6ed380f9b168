"""Batches that fit into memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustmaps.engine import memory
from robustmaps.engine.device import is_out_of_memory
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
        for images in (1, 2, 5, 8, 100, 1000):
            monkeypatch.setattr(memory, "free_bytes", lambda device, n=images: 4 * n * each)
            batches[images] = memory.fitting_batch(view, make_images(2))
        monkeypatch.setattr(memory, "free_bytes", lambda device: None)
        assert memory.fitting_batch(view, make_images(2)) == 256
    assert batches == {1: 1, 2: 2, 5: 4, 8: 8, 100: 64, 1000: 256}  # small images, so more than the usual 64


@pytest.mark.parametrize(("pixels", "batch"), [(8, 256), (48, 256), (64, 128), (96, 64)])
def test_small_images_come_in_larger_batches_since_they_leave_the_caches_room(
    pixels: int, batch: int, make_images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**12)
    # 17 numbers a pixel are kept: the image, and the ReLU's output.
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with plain_view(network) as view:
        assert memory.fitting_batch(view, make_images(2, size=pixels)) == batch


def _write_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("membership", "root", "limit", "usage", "prefix"),
    [
        ("0::/job/step", ".", "max", "current", ""),
        ("3:cpu:/else\n4:memory:/job/step\n0::/", "memory", "limit_in_bytes", "usage_in_bytes", "total_"),
    ],
)
def test_free_memory_is_what_the_tightest_group_leaves_and_files_in_memory_take_none(
    membership: str, root: str, limit: str, usage: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    (tmp_path / "membership").write_text(membership)
    stat = f"anon 7\n{prefix}active_file 100\n{prefix}inactive_file 20"
    _write_group(tmp_path / root / "job", **{limit: 1000, usage: 700, "stat": stat})
    _write_group(
        tmp_path / root / "job" / "step", **{limit: "max" if root == "." else 1 << 62, usage: 650, "stat": stat}
    )
    assert memory.free_bytes(CPU) == 1000 - 700 + 120

    _write_group(tmp_path / root / "job" / "step", **{limit: 600})
    assert memory.free_bytes(CPU) == 600 - 650 + 120
    _write_group(tmp_path / root / "job" / "step", **{limit: 500})
    assert memory.free_bytes(CPU) == 0

    # A container sees its own group at the root, under the name it has outside.
    (tmp_path / "membership").write_text(membership.replace("/job/step", "/docker/0123"))
    _write_group(tmp_path / root, **{limit: 300, usage: 200, "stat": stat})
    assert memory.free_bytes(CPU) == 300 - 200 + 120

    (tmp_path / "membership").unlink()
    assert (memory.free_bytes(CPU) or 1 << 20) >= 1 << 20


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
    assert is_out_of_memory(error) is answer
