"""Whether two runs are the same: their epochs, but for times, and their tensors, bit for bit."""

from typing import Any

import torch
from torch import Tensor

TIMES = {"train_s", "validation_s", "images_per_s", "data_s", "data_share"}


def timeless(history: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
