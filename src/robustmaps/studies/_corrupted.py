"""Corrupted test images of a small data set, in the form of CIFAR-10-C: a stand-in that needs no download."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.data import Dataset
from robustmaps.engine.files import atomic
from robustmaps.engine.random import stream
from robustmaps.engine.writing.outputs import claim_folder

_SEVERITIES = (1, 2, 3, 4, 5)


def _noise(x: Tensor, severity: int) -> Tensor:
    return x + 0.06 * severity * torch.randn(x.shape, generator=stream(0, "noise", severity))


def _blur(x: Tensor, severity: int) -> Tensor:
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.lerp(x, blurred, severity / 5)


def _contrast(x: Tensor, severity: int) -> Tensor:
    return 0.5 + (x - 0.5) * (1 - 0.16 * severity)


def _brightness(x: Tensor, severity: int) -> Tensor:
    return x + 0.08 * severity


_CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "gaussian_noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
}


def corrupted_test_images(data: Dataset, folder: Path) -> Path:
    """Write the test images under four corruptions at five severities each, unless they are there.

    Args:
        data: the images.
        folder: where to; see `robustmaps.data.open_corruptions` for its form.

    Raises:
        InputError: the folder contains something else.
    """
    names = {f"{name}.npy" for name in (*_CORRUPTIONS, "labels")}
    claim_folder(folder, lambda path: {file.name for file in path.iterdir()} <= names, "a folder of corrupted images")
    x, y = data.test.tensors()
    for name, corrupt in _CORRUPTIONS.items():
        images = torch.cat([corrupt(x, severity).clamp(0, 1) for severity in _SEVERITIES])
        _write(folder / f"{name}.npy", (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1))
    _write(folder / "labels.npy", y.repeat(len(_SEVERITIES)))
    return folder


def _write(path: Path, values: Tensor) -> None:
    with atomic(path) as file:
        np.save(file, values.contiguous().numpy(), allow_pickle=False)
