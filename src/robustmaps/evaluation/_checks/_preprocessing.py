"""A check of what happens to images in front of the network: would it do far better on other values?"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from robustmaps.engine.finite import predictions
from robustmaps.evaluation._checks._answers import clearly_better
from robustmaps.evaluation._checks._doubt import Doubt, Seen, evenly
from robustmaps.evaluation._checks._finding import percent
from robustmaps.evaluation._checks._structure import range_of

# Networks with higher accuracy see the images that they were trained on.
_GOOD = 0.8
# Normalised once, even binary images have a standard deviation below 2.2 (0.5 / 0.225); normalised twice, those of
# natural images and digits have 2.6 to 16. Networks that take bytes minus their mean see more than 50.
_LOW_MEAN, _WIDE_STD = -0.5, (2.3, 20.0)
_FEWEST_WRONG = 4
_CONFIRMING = 64
_STATISTICS = 512


def image_range(seen: Seen) -> Iterator[Doubt]:
    """Do the images use [0, 1], in which eps is given?"""
    suspect, text = range_of(seen.x)
    if suspect:
        yield Doubt("input-range", text, "divide bytes by 255 exactly once")


def preprocessing(seen: Seen) -> Iterator[Doubt]:
    """Are images scaled, normalised or ordered otherwise than in training?"""
    twice = _normalised_twice(seen)
    if twice is not None:
        yield twice
        return
    wrong = (~seen.correct).nonzero().squeeze(1)
    if len(wrong) < _FEWEST_WRONG or len(wrong) <= (1 - _GOOD) * len(seen.y):
        return
    few = evenly(wrong, len(seen.few()))
    changes = _changes(seen.x)
    mended = {name: int(_right(seen, few, change).sum()) for name, change in changes.items()}
    best = max(mended, key=lambda name: mended[name])
    if 2 * mended[best] < len(few):
        return
    rows = evenly(torch.arange(len(seen.y)), _CONFIRMING)
    before, after = seen.correct[rows], _right(seen, rows, changes[best])
    if clearly_better(after, before):
        yield Doubt(
            "preprocessing",
            f"{percent(int(before.sum()), len(rows))} of {len(rows)} images are classified correctly, but "
            f"{percent(int(after.sum()), len(rows))} once they are {best}",
            "give the network the images as in its training",
        )


def _normalised_twice(seen: Seen) -> Doubt | None:
    """Do the images arrive at the first layer with weights as after two normalisations?"""
    arrived: list[tuple[float, float]] = []

    def keep(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if arrived or not any(True for _ in module.parameters(recurse=False)):
            return
        maps = [value.detach().float() for value in inputs if isinstance(value, Tensor) and value.dim() == 4]
        with suppress(RuntimeError):  # under `torch.vmap` tensors have no values to look at
            arrived.extend((float(each.mean()), float(each.std())) for each in maps)

    # Scripted modules take no hooks.
    modules = [module for module in seen.model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        seen.plain(seen.images(seen.few()))
    finally:
        for handle in handles:
            handle.remove()
    if not arrived:
        return None
    mean, std = arrived[0]
    if not (mean < _LOW_MEAN and _WIDE_STD[0] < std < _WIDE_STD[1]):
        return None
    return Doubt(
        "preprocessing",
        f"pixels reach the first layer with mean {mean:.2g} and standard deviation {std:.2g}, as if normalised twice; "
        "once gives about 0 and 1",
        "remove one of the two normalisations",
    )


def _right(seen: Seen, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    try:
        answers = predictions(seen.plain(change(seen.images(rows)))).cpu()
    except Exception:  # noqa: BLE001 - networks may refuse such values, in any way
        return torch.zeros(len(rows), dtype=torch.bool)
    return answers == seen.y[rows].cpu()


def _changes(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Undoing or repeating the usual steps, by their effect on the images."""
    some = x[evenly(torch.arange(len(x)), _STATISTICS)].float()
    mean, std = some.mean((0, 2, 3), keepdim=True), some.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "multiplied by 255 (were they divided by 255 twice?)": lambda x: 255 * x,
        "divided by 255 (does the network expect smaller values?)": lambda x: x / 255,
        "normalised (is the network's normalisation missing?)": lambda x: (x - mean.to(x)) / std.to(x),
        "scaled to [-1, 1] (is the network's normalisation missing?)": lambda x: 2 * x - 1,
        "normalised once less (does the network normalise twice?)": lambda x: x * std.to(x) + mean.to(x),
        "scaled to [0.5, 1] (does the network scale to [-1, 1] twice?)": lambda x: (x + 1) / 2,
        "inverted": lambda x: 1 - x,
    }
    if x.shape[1] == 3:
        changes["in reversed order of channels (RGB or BGR)"] = lambda x: x.flip(1)
    if x.shape[2] == x.shape[3]:
        changes["transposed"] = lambda x: x.transpose(2, 3).contiguous()
    return changes
