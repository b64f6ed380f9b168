"""The software and hardware that a result was computed with."""

import platform

import torch

from robustmaps._version import __version__
from robustmaps.engine.device import device_name


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
