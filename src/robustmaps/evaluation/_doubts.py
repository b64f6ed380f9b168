"""The warnings that an evaluation gives by itself, at the cost of a few passes over a few images."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.random import derive_seed
from robustmaps.engine.text import first_line
from robustmaps.engine.view import AttackView
from robustmaps.evaluation._checks import NORMS, Seen, answers, image_range, passes, preprocessing


def doubts(
    model: nn.Module,
    plain: AttackView,
    modes: Sequence[tuple[nn.Module, bool]],
    x: Tensor,
    y: Tensor,
    predictions: Tensor,
    logits: Tensor,
    attacks: Sequence[Attack],
    seed: int,
) -> Iterator[str]:
    """Look for reasons to doubt an evaluation before its attacks begin; the caller's random numbers are left alone.

    Args:
        model: the network, in evaluation mode.
        plain: its view.
        modes: every module and whether it was originally in training mode.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        predictions: the network's answers (N,), on the CPU.
        logits: those of the first batch, (B, K).
        attacks: the attacks to come.
        seed: seed of all random draws.
    """
    attacked = bool(attacks) and attacks[0].norm in NORMS
    norm, eps = (attacks[0].norm, attacks[0].eps) if attacked else (None, 0.0)
    seen = Seen(model, plain, modes, x, y, predictions, logits, norm, eps, seed)
    devices = [seen.device] if seen.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        for check in (image_range, answers, preprocessing, passes):
            torch.manual_seed(derive_seed(seed, "doubts", check.__name__))
            try:
                yield from map(str, check(seen))
            except Exception as error:  # noqa: BLE001 - the network may refuse fewer or other images than it is attacked on
                if is_out_of_memory(error):
                    yield f"some checks ran out of memory ({check.__name__}); use a smaller --batch-size"
                else:
                    yield f"some checks could not be made ({check.__name__}): the network raised {first_line(error)}"
