"""Checks of the network's answers against the labels, without a further pass."""

from collections.abc import Iterator

import torch
from torch import Tensor

from robustmaps.evaluation._checks._doubt import Doubt, Seen
from robustmaps.evaluation._checks._finding import exceeds, percent
from robustmaps.evaluation._rates import at_least

_FEWEST_IMAGES = 10
# Above chance by less than this, and not significantly, accuracy counts as chance.
_NEAR_CHANCE, _FEWEST_NEAR_CHANCE = 0.05, 20

# Another order of the labels counts only if it gains this much accuracy, and chance is as unlikely a cause as this.
_GAIN = 0.1
_SIGNIFICANCE = 1e-3
_GOOD = 0.4
# The best order among more classes takes seconds to find.
_MOST_CLASSES = 2000


def answers(seen: Seen) -> Iterator[Doubt]:
    """Is accuracy at chance, and would another order of the labels explain the answers far better?"""
    # Images without a prediction have a warning of their own.
    if len(seen.y) < _FEWEST_IMAGES or bool((seen.predictions < 0).any()):
        return
    order = label_order(seen.predictions, seen.y.cpu(), seen.logits.shape[1])
    if order is not None:
        yield order
    right, total, classes = int(seen.correct.sum()), len(seen.y), seen.logits.shape[1]
    if len(set(seen.predictions.tolist())) == 1 < len(set(seen.y.tolist())):
        yield Doubt(
            "chance",
            f"the network answers class {int(seen.predictions[0])} for all {total} images",
            "check its weights and what happens to images in front of it",
        )
    elif right * classes <= total or (
        total >= _FEWEST_NEAR_CHANCE
        and right / total <= 1 / classes + _NEAR_CHANCE
        and not exceeds(right, total, 1 / classes)
    ):
        yield Doubt(
            "chance",
            f"{right} of {total} images are classified correctly without an attack, no more than by chance "
            f"({percent(1, classes)} of {classes} classes)",
            "check that the weights are the trained ones, and the labels and images those of its training",
        )


def label_order(predictions: Tensor, y: Tensor, classes: int) -> Doubt | None:
    """Whether answers agree far better with the labels in another order, such as shifted by one.

    Args:
        predictions: the network's answers (N,), int64.
        y: the labels (N,), int64.
        classes: number of classes, K.
    """
    right = predictions == y
    for name, mapped in (("shift", _shifted(predictions, y, classes)), ("order", _reordered(predictions, y, classes))):
        if mapped is None:
            continue
        agree = predictions == mapped
        moved = agree & (mapped != y)
        if len(set(y[moved].tolist())) < 2 or not clearly_better(agree, right):
            continue
        # Untrained networks, too, tell classes apart a little: 25 % of ten; of two, often 30 or 70 %.
        if int(agree.sum()) < (_GOOD + (1 - _GOOD) * 1.5 / classes) * len(y):
            continue
        pairs = sorted({(int(label), int(answer)) for label, answer in zip(y[moved], predictions[moved], strict=True)})
        shown = ", ".join(f"{label} is answered as {answer}" for label, answer in pairs[:3])
        shift = (pairs[0][1] - pairs[0][0] + classes // 2) % classes - classes // 2
        how = f"shifted by {shift:+d}" if name == "shift" else "in another order"
        return Doubt(
            "label-order",
            f"{percent(int(right.sum()), len(y))} of the answers agree with the labels, but "
            f"{percent(int(agree.sum()), len(y))} with the labels {how} ({shown}{', ...' if len(pairs) > 3 else ''})",
            "number the classes as in the network's training",
        )
    return None


def clearly_better(after: Tensor, before: Tensor) -> bool:
    """Whether more images are right, (N,), by a wide margin and not by chance (exact McNemar test)."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    if gained - lost < _GAIN * len(after):
        return False
    return at_least(gained, gained + lost, 0.5) < _SIGNIFICANCE


def _shifted(predictions: Tensor, y: Tensor, classes: int) -> Tensor:
    """The labels plus the commonest difference of answers from labels."""
    return (y + (predictions - y).remainder(classes).bincount().argmax()) % classes


def _reordered(predictions: Tensor, y: Tensor, classes: int) -> Tensor | None:
    """The labels in the order that fits answers best; each half of the images gets the order that fits the other.

    None if there are too many classes, or if no order can fit clearly better than their own.
    """
    if classes > _MOST_CLASSES:
        return None
    # Every other image of each class.
    half = torch.zeros(len(y), dtype=torch.int64)
    for label in set(y.tolist()):
        rows = (y == label).nonzero().squeeze(1)
        half[rows] = torch.arange(len(rows)) % 2
    cells = y * classes + predictions
    tables = [cells[half == side].bincount(minlength=classes**2).view(classes, classes) for side in (0, 1)]
    most = sum(int(table.max(1).values.sum()) for table in tables)
    if most - int((predictions == y).sum()) < _GAIN * len(y):
        return None  # no order can be clearly better
    from scipy.optimize import linear_sum_assignment  # not above, since it takes long to import

    mapped = y.clone()
    for side, other in ((0, 1), (1, 0)):
        # Where nothing speaks for another class, a label keeps its own.
        score = tables[other].double() + 0.5 * torch.eye(classes)
        order = torch.from_numpy(linear_sum_assignment(score.numpy(), maximize=True)[1])
        mapped[half == side] = order[y[half == side]]
    return mapped
