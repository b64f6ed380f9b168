"""The machine: devices and their precisions, its description, and whether its memory ran out."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch

from robustmaps._version import __version__
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import counted
from robustmaps.engine.ranks.present import Place

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
_DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")


def resolve_device(name: str = "auto") -> torch.device:
    """Look up a device by name; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: the name is unknown, or the device is not available on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            _check_one_each(name)
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, _DEVICES) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device={name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use 'cpu' or 'auto'"
        )
    if device.type == "cuda":
        _check_one_each(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device={name!r}: not available on this machine; use 'cpu' or 'auto'")
    if device.type not in ("cpu", "cuda", "mps"):
        raise unknown("device", name, _DEVICES)
    return device


def _check_one_each(name: str) -> None:
    """Refuse more processes of a run on this machine than GPUs; each has its own, the current one."""
    processes, devices = Place.here.local_size, torch.cuda.device_count()
    if processes > devices:
        raise InputError(
            f"device={name!r}: {processes} processes on a machine with {counted(devices, 'GPU')}; start one for each, "
            "or use --device cpu"
        )
    if processes > 1 and torch.device("cuda" if name == "auto" else name).index is not None:
        raise InputError(f"device={name!r}: {processes} processes can't share a GPU; use 'cuda' or 'auto'")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Check a precision by name; ``auto`` is not one, but chosen by `robustmaps.engine.speed.choose`.

    Raises:
        InputError: the precision is unknown, or TF32 is asked for on anything but a CUDA device.
    """
    if name == "tf32" and device.type != "cuda":
        raise InputError(f"precision='tf32' on {device}: only CUDA devices have it; use 'auto' or 'fp32'")
    if name in get_args(Precision):
        return cast(Precision, name)
    raise unknown("precision", name, PRECISIONS)


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Within the block, float32 convolutions and matrix products on CUDA are exact or, with ``tf32``, use TF32.

    By default PyTorch lets cuDNN convolutions use TF32, whose mantissa of 10 bits (float32 has 23) is too coarse for a
    verdict. Other devices need no setting.
    """
    if device.type != "cuda":
        yield
        return
    before = _products()
    try:
        for (where, name), value in before.items():
            setattr(where, name, ("tf32" if tf32 else "ieee") if isinstance(value, str) else tf32)
        yield
    finally:
        for (where, name), value in before.items():
            setattr(where, name, value)


def _products() -> dict[tuple[Any, str], Any]:
    """PyTorch's settings for float32 products, by module and attribute.

    Reading the old attributes raises an error once a caller has given the new ones different values.
    """
    backends = torch.backends
    try:
        return {(where, "allow_tf32"): where.allow_tf32 for where in (backends.cudnn, backends.cuda.matmul)}
    except RuntimeError:
        operators: tuple[Any, ...] = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)  # type: ignore[attr-defined]
        return {(operator, "fp32_precision"): operator.fp32_precision for operator in operators}


def device_of(model: torch.nn.Module) -> torch.device:
    """The device of a network's first parameter or buffer; the CPU if it has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """The name of the hardware, for records: ``NVIDIA H100``, ``AMD EPYC, 2 threads``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {counted(threads, 'thread')}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Versions and machine, for records."""
    return {
        "robustmaps": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "platform": platform.platform(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }
