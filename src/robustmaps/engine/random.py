"""Named random streams: each draw has its own generator, derived from a seed and the draw's purpose.

The stream ``("attack", epoch, step)`` gives the same numbers whatever was drawn before. So changing the attack does not
change the order of the data, and a resumed run draws what the uninterrupted run would have drawn.
"""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the stream of that name.

    >>> derive_seed(0, "attack", 1) == derive_seed(0, "attack", 1) != derive_seed(0, "attack", 2)
    True
    """
    text = "/".join([str(int(seed)), *map(str, name)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` for the stream of that name."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, *name))
    return generator


def global_state(device: torch.device) -> object:
    """The state of the generators that all code shares, to see whether anything has drawn from them since."""
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    numbers: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), cuda, random.getstate(), numbers[1].tobytes(), numbers[2:]
