"""Which precision is asked for, and which one PyTorch is told to use."""

import pytest
import torch

from robustmaps import InputError
from robustmaps.engine.device import float32_products, resolve_precision

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def tf32_allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_products_on_cuda_are_exact_or_tf32_and_come_back(tf32: bool) -> None:
    before = tf32_allowed()
    seen = []

    def look_and_fail() -> None:
        with float32_products(CUDA, tf32=tf32):
            seen.append(tf32_allowed())
            with float32_products(CUDA, tf32=not tf32):
                seen.append(tf32_allowed())
            seen.append(tf32_allowed())
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        look_and_fail()
    assert seen == [(tf32, tf32), (not tf32, not tf32), (tf32, tf32)]
    assert tf32_allowed() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9 has one setting only")
def test_settings_by_operator_are_kept_apart() -> None:
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "ieee"
        with float32_products(CUDA, tf32=True):
            assert (convolutions.fp32_precision, products.fp32_precision) == ("tf32", "tf32")
        assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before


def test_other_devices_leave_the_settings_of_cuda_alone() -> None:
    before = tf32_allowed()
    with float32_products(CPU, tf32=not before[0]):
        assert tf32_allowed() == before


def test_tf32_is_for_cuda() -> None:
    assert resolve_precision("tf32", CUDA) == "tf32"
    with pytest.raises(InputError, match=r"precision='tf32' on cpu: only CUDA devices have it; use 'auto' or 'fp32'"):
        resolve_precision("tf32", CPU)
    with pytest.raises(InputError, match="fp16"):
        resolve_precision("fp16", CPU)
