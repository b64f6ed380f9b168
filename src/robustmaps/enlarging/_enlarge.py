"""The function `enlarge`: a new network with larger maps, and a record of its cost."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import fitting, network_logits
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.finite import predictions
from robustmaps.engine.modes import check_changeable, check_values, copy_of, evaluating
from robustmaps.engine.numbers import by, check_at_least, check_whole
from robustmaps.enlarging._activation import check_activation
from robustmaps.enlarging._advice import advise, nothing_to_relax
from robustmaps.enlarging._attempts import Attempts, View, check_images, check_smooth
from robustmaps.enlarging._enlargement import Enlargement, Side, Step
from robustmaps.enlarging._surgery import Upsampling
from robustmaps.models import UPSAMPLE_MODES, Activation, Smooth

Where = str | int | Sequence[int]
"""``"first"``, ``"last"``, a step's number (negative from the end), or several numbers."""

_UNDECIDED = "NaN or infinite logits"


class EnlargeWarning(UserWarning):
    """An enlargement that the theory does not support, or that shrinks the receptive field below the image."""


def enlarge(
    model: nn.Module,
    example: Tensor,
    *,
    upsample: float = 1,
    upsample_mode: str = "nearest",
    factor: int | None = None,
    where: Where | None = None,
    dilate: bool = False,
    smooth: Smooth | None = None,
    activation: Activation | None = None,
    labels: Tensor | None = None,
    latency_runs: int = 5,
) -> tuple[nn.Module, Enlargement]:
    """Return a copy of a network with a larger last map and the same weights; the network itself is unchanged.

    The network is traced, so it may contain any modules, functional calls and branches. The state dict keeps its names
    and values.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> larger, enlargement = enlarge(network, torch.rand(1, 3, 32, 32), factor=2, where="last")
    >>> enlargement.before.cost.map_size, enlargement.after.cost.map_size
    ((16, 16), (32, 32))

    Args:
        model: an image classifier that returns logits (N, classes), alone or as an entry ``logits``.
        example: images (N, C, H, W) as the network will get them. The first is traced and timed; all are classified if
            ``dilate`` or ``labels`` asks for a comparison.
        upsample: factor by which images are enlarged before the network.
        upsample_mode: one of `models.UPSAMPLE_MODES`.
        factor: divisor of the chosen steps' strides; 2 if only ``where`` is given.
        where: the downsampling steps to relax: ``"first"`` or ``"last"`` of those that can be, a number, or several.
            Optional if only one can be relaxed.
        dilate: dilate all later convolutions and pools, so that the original values remain in the larger map and a
            trained network keeps its function.
        smooth: the chosen steps keep the size of their maps: at the smaller stride, they are averaged down to it, over
            windows as large as the factor (``average``) or by a triangle filter (``blur``, arXiv 1904.11486).
        activation: what takes the place of every ReLU, module or call: ``silu`` (arXiv 1702.03118). Maps do not grow by
            it. ReLU6 and other variants of ReLU stay.
        labels: (N,), to report accuracy before and after.
        latency_runs: passes to time; 0 for none.

    Returns:
        The new network and a record of the changes.

    Raises:
        InputError: nothing is asked for, nothing can be enlarged, or steps must be named; the message lists them.
            Or the network has no ReLU for ``activation`` to replace, or a label is not among the network's classes.

    Warns:
        EnlargeWarning: the theory does not apply, or the receptive field no longer covers the image.
    """
    factor = _check(example, upsample, upsample_mode, factor, where, dilate=dilate, smooth=smooth)
    check_activation(activation)
    check_changeable(model)
    study = Attempts(model, example[:1], max(factor, 2), smooth, activation)
    if factor == 1 and upsample == 1 and activation is None:
        raise InputError(f"nothing to do: set upsample=2, or where to one or several of\n{_listing(study.steps)}")
    chosen = _choose(study, where) if factor > 1 else ()
    upsampling = Upsampling(upsample, upsample_mode) if upsample != 1 else None
    changes = study.changes(chosen, factor, dilate=dilate, upsampled=upsampling is not None)
    rehearsal = study.rehearse(changes, upsampling)
    if isinstance(rehearsal, str):
        raise InputError(f"{type(model).__name__} can't be enlarged this way: {rehearsal}")
    enlarged = study.perform(rehearsal)
    before = _side(study, model, study.view, latency_runs)
    after = _side(study, enlarged, rehearsal.view, latency_runs)
    enlargement = Enlargement(
        network=type(model).__name__,
        image_size=study.trace.image_size,
        upsample=upsample,
        upsample_mode=upsample_mode,
        factor=factor,
        where=tuple(chosen),
        dilate=dilate,
        smooth=smooth,
        activation=activation,
        relus=len(study.relus),
        head=study.view.kind,
        steps=tuple(study.steps),
        before=before,
        after=after,
        resized=rehearsal.fitting.resized,
        spread=study.spreads(chosen, factor) if dilate and chosen else True,
    )
    texts = advise(enlargement, study.not_spread(chosen, factor) if dilate else ())
    enlargement = replace(enlargement, warnings=tuple(texts))
    if dilate or labels is not None:
        enlargement = with_decisions(enlargement, model, enlarged, example, labels)
    for text in enlargement.warnings:
        warnings.warn(text, EnlargeWarning, stacklevel=2)
    return enlarged, enlargement


def on_larger_images(
    model: nn.Module, example: Tensor, larger: Tensor, *, labels: Tensor | None = None, latency_runs: int = 5
) -> tuple[nn.Module, Enlargement]:
    """Return a copy of a network that is to take larger images, and a record of what that changes.

    Where images have more pixels than the network was trained on, their maps are larger without upsampling.

    Args:
        model: an image classifier, as for `enlarge`.
        example: images (N, C, H, W) as the network was trained on them.
        larger: the same images, with more pixels.
        labels: (N,), to report accuracy before and after.
        latency_runs: passes to time; 0 for none.

    Raises:
        InputError: the images are not larger, or the network can't take them; or a label is not among its classes.

    Warns:
        EnlargeWarning: the theory does not apply, or the receptive field does not cover the larger image.
    """
    for images in (example, larger):
        check_images(images)
    sizes = [(images.shape[2], images.shape[3]) for images in (example, larger)]
    if min(now - was for was, now in zip(*sizes, strict=True)) < 0 or sizes[0] == sizes[1]:
        raise InputError(f"images of {by(sizes[1])} instead of {by(sizes[0])}: expected larger ones")
    was = Attempts(model, example[:1], 2)
    try:
        now = Attempts(model, larger[:1], 2)
    except InputError as error:
        raise InputError(f"{type(model).__name__} can't take images of {by(sizes[1])}: {error}") from error
    enlargement = Enlargement(
        network=type(model).__name__,
        image_size=sizes[0],
        upsample=1,
        upsample_mode="nearest",
        factor=1,
        where=(),
        dilate=False,
        head=was.view.kind,
        steps=tuple(was.steps),
        before=_side(was, model, was.view, latency_runs),
        after=_side(now, model, now.view, latency_runs),
        larger_images=sizes[1],
    )
    enlargement = replace(enlargement, warnings=tuple(advise(enlargement, ())))
    copy = copy_of(model)
    if labels is not None:
        enlargement = with_decisions(enlargement, model, copy, example, labels, larger)
    for text in enlargement.warnings:
        warnings.warn(text, EnlargeWarning, stacklevel=2)
    return copy, enlargement


def with_decisions(
    enlargement: Enlargement,
    model: nn.Module,
    enlarged: nn.Module,
    example: Tensor,
    labels: Tensor | None,
    larger: Tensor | None = None,
) -> Enlargement:
    """The record with what both networks decide on images: their agreement, and their accuracy where there are labels.

    Args:
        enlargement: the record.
        model: the network before.
        enlarged: the network after.
        example: images (N, C, H, W).
        labels: (N,); None if they have none.
        larger: the images for the network after, if they have more pixels.

    Raises:
        InputError: a label is not among the networks' classes.
    """
    old = _decisions(model, example, labels)
    new = _decisions(enlarged, example if larger is None else larger, labels)
    undecided = [
        f"{int((found < 0).sum())} of {len(example)} images have {_UNDECIDED} {when}; they count as wrong"
        for when, found in (("before", old), ("after", new))
        if (found < 0).any()
    ]
    warned = [text for text in enlargement.warnings if _UNDECIDED not in text]
    done = replace(enlargement, agreement=_share(old, new), warnings=(*warned, *undecided))
    if labels is None:
        return done
    return replace(
        done,
        before=replace(done.before, accuracy=_share(old, labels)),
        after=replace(done.after, accuracy=_share(new, labels)),
    )


def _check(
    example: Tensor,
    upsample: float,
    mode: str,
    factor: int | None,
    where: Where | None,
    *,
    dilate: bool,
    smooth: Smooth | None,
) -> int:
    """Refuse contradictory arguments; return the factor, 1 for none."""
    check_images(example)
    check_at_least("upsample", upsample, 1)
    if mode not in UPSAMPLE_MODES:
        raise unknown("upsample mode", mode, UPSAMPLE_MODES)
    if factor is None:
        factor = 1 if where is None else 2
    check_whole("factor", factor, 1)
    if factor == 1 and where is not None:
        raise InputError(f"where={where!r} with factor=1: expected a factor of at least 2")
    if factor == 1 and dilate:
        raise InputError("dilate=True without a step to relax: set factor=2 and where")
    check_smooth(smooth, dilate=dilate)
    if smooth is not None and factor == 1:
        raise InputError(f"smooth={smooth!r} without a step to smooth: set where, such as 'last'")
    return factor


def _listing(steps: Sequence[Step]) -> str:
    lines = (f"  {step}" + (f" (can't: {step.obstacle})" if step.obstacle else "") for step in steps)
    return "\n".join(lines) or "  no steps: the network has none"


def _choose(study: Attempts, where: Where | None) -> tuple[int, ...]:
    """The numbers of the requested steps, in order.

    Raises:
        InputError: no step can be relaxed, a requested one can't, or steps must be named.
    """
    steps = study.steps
    free = [step.index for step in steps if step.obstacle is None]
    if not free:
        raise InputError(nothing_to_relax(type(study.model).__name__, steps, study.view.kind))
    listing = _listing(steps)
    if where is None:
        if len(free) > 1:
            raise InputError(f"where is needed: {len(free)} steps can be relaxed; name one or several of\n{listing}")
        where = free[0]
    if isinstance(where, str):
        if where not in ("first", "last"):
            raise InputError(f"where={where!r}: expected 'first', 'last', or numbers of\n{listing}")
        return (free[0 if where == "first" else -1],)
    numbers = [where] if isinstance(where, int) else list(where)
    chosen: set[int] = set()
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not -len(steps) <= number < len(steps):
            raise InputError(f"where={where!r}: there is no step {number!r}; expected numbers of\n{listing}")
        step = steps[number]
        if step.obstacle is not None:
            raise InputError(f"step {step.index} can't be relaxed: {step.obstacle}; the steps are\n{listing}")
        chosen.add(step.index)
    if not chosen:
        raise InputError(f"where={where!r}: expected at least one of\n{listing}")
    return tuple(sorted(chosen))


def _side(study: Attempts, model: nn.Module, view: View, latency_runs: int) -> Side:
    cost = replace(study.cost(model, latency_runs), map_size=view.map_size)
    return Side(cost=cost, effective_stride=view.stride, field_px=view.field_px)


@torch.no_grad()
def _decisions(model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    check_values(model)
    with evaluating(model):
        logits = network_logits(model, images)
    return predictions(logits if labels is None else fitting(logits, labels))


def _share(a: Tensor, b: Tensor) -> float:
    return ((a == b.to(a.device)) & (a >= 0)).float().mean().item()
