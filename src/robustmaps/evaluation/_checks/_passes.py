"""Checks of the network itself in a few passes: randomness, other images of the batch, outputs, gradients."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robustmaps.engine.finite import predictions
from robustmaps.engine.progress import ignore
from robustmaps.engine.random import global_state
from robustmaps.evaluation._checks._doubt import Doubt, Seen, evenly
from robustmaps.evaluation._checks._finding import SkippedError, percent
from robustmaps.evaluation._checks._gradients import (
    CLEARLY,
    EXPLAINED,
    blocked_at_edges,
    explained,
    unseen_pixels,
    vanishing,
)
from robustmaps.evaluation._checks._rugged import is_only_rugged
from robustmaps.evaluation._checks._structure import (
    BATCH_ROUNDING,
    GradientCount,
    are_probabilities,
    resolution,
    share,
    training_mode,
)
from robustmaps.evaluation._checks._subject import ROUNDING, CheckedNetwork, distance

# Passes to see whether random draws change anything.
_REPEATS = 8
_ALONE = 32
_HALF = (torch.float16, torch.bfloat16)


def passes(seen: Seen) -> Iterator[Doubt]:
    """The checks that need passes, from those that others rest on."""
    rows = seen.few()
    x = seen.images(rows)
    before, states = global_state(seen.device), _versions(seen.model)
    with GradientCount() as gradients:
        together = seen.plain(x)
    drawn = before != global_state(seen.device)
    changed = [name for name, version in _versions(seen.model).items() if states.get(name) != version]
    yield from _adapting(gradients.count, changed, len(states))
    yield from _outputs(seen.logits)
    noisy = _stochastic(seen, together, rows, drawn)
    if noisy is not None:
        yield noisy
    else:
        yield from _batch_dependence(seen, together, rows, x)
    yield from _training_mode(seen, rows, together)
    if seen.norm is not None and bool(together.isfinite().any()) and not bool(together.isnan().any()):
        yield from _gradients(seen, rows, together, noisy is not None)


def _adapting(gradients: int, changed: Sequence[str], total: int) -> Iterator[Doubt]:
    signs = []
    if gradients:
        signs.append(f"a pass computes gradients itself ({gradients} calls)")
    if changed:
        named = changed[0] + ", ..." * (len(changed) > 1)
        signs.append(f"a pass in evaluation mode changes {len(changed)} of {total} parameters and buffers ({named})")
    if signs:
        yield Doubt(
            "test-time-optimisation",
            " and ".join(signs),
            "evaluate the network without the adaptation, too, and report the worse",
        )


def _outputs(logits: Tensor) -> Iterator[Doubt]:
    kind = are_probabilities(logits)
    if kind:
        low, high = logits.aminmax()
        yield Doubt(
            "probabilities",
            f"the network seems to return {kind} (outputs from {float(low):.3g} to {float(high):.3g}): losses saturate "
            "and attacks look weaker than they are",
            "return logits instead",
        )


def _stochastic(seen: Seen, together: Tensor, rows: Tensor, drawn: bool) -> Doubt | None:
    """Do passes over the same batch differ?"""
    loose = BATCH_ROUNDING if seen.device.type == "cuda" else ROUNDING
    if not drawn and distance(together, seen.logits[rows]) <= loose:
        return None
    batch = seen.images(torch.arange(len(seen.logits)))
    for _ in range(_REPEATS if drawn else 1):
        again = seen.plain(batch)
        moved = distance(again, seen.logits)
        if moved > max(ROUNDING, 2 * resolution(seen.logits)):
            turned = int((predictions(again) != predictions(seen.logits)).sum())
            return Doubt(
                "stochastic",
                f"two passes over the same {len(again)} images differ by up to {share(moved)} of the largest logit and "
                f"in {percent(turned, len(again))} of the answers{_still_training(seen.model)}",
                "use --attack autoattack --version rand",
            )
    return None


def _batch_dependence(seen: Seen, together: Tensor, rows: Tensor, x: Tensor) -> Iterator[Doubt]:
    """Is an image's verdict the same alone and in the batch used?"""
    size = len(seen.logits)
    if size == 1:
        return
    half = (len(rows) + 1) // 2
    alone = _one_by_one(seen, x[:half])
    moved = max(distance(together, seen.logits[rows]), distance(alone, seen.logits[rows[:half]]))
    if moved <= max(BATCH_ROUNDING, 16 * resolution(seen.logits)):
        return
    more = evenly(torch.arange(size), _ALONE)
    alone = _one_by_one(seen, seen.images(more))
    turned = int((predictions(alone) != predictions(seen.logits[more])).sum())
    moved = max(moved, distance(alone, seen.logits[more]))
    yield Doubt(
        "batch-dependence",
        f"an image's logits depend on the other images of its batch: at batch 1 and at batch {size} they differ by up "
        f"to {share(moved)} of the largest, and {turned} of {len(more)} answers change{_still_training(seen.model)}",
        "make the network treat images one by one, such as with fixed statistics in its batch-norms",
    )


def _training_mode(seen: Seen, rows: Tensor, together: Tensor) -> Iterator[Doubt]:
    if any(training for _, training in seen.modes):
        suspect, text = training_mode(_subject(seen, rows, together))
        if suspect:
            yield Doubt(
                "training-mode", text, "it was evaluated in evaluation mode; call model.eval() where you use it"
            )


def _gradients(seen: Seen, rows: Tensor, together: Tensor, stochastic: bool) -> Iterator[Doubt]:
    """Does the loss have a gradient, and is it the network's own? A suspicion is confirmed on more images."""
    subject = _subject(seen, rows, together)
    if subject.gradient_error is not None:
        yield Doubt(
            "non-differentiable",
            f"no gradient reaches any of the {len(subject.x[:2])} images tried ({subject.gradient_error})",
            "only attacks without gradients mean anything: use --attack square",
        )
        return
    zero, _ = vanishing(subject, quick=True)
    # Finite differences drown in the rounding of half precision.
    coarse = resolution(together) > ROUNDING or any(p.dtype in _HALF for p in seen.model.parameters())
    comparable = not stochastic and not coarse
    unseen = unseen_pixels(subject) if comparable else None
    fits = not comparable or (unseen is None and explained(subject, quick=True) >= CLEARLY)
    if not zero and (blocked := blocked_at_edges(subject)):
        yield Doubt(
            "zero-gradients",
            blocked,
            "use torch.clamp if that is meant, or add --attack square",
        )
    if fits and not zero:
        return
    more = seen.more()
    subject = _subject(seen, more, seen.plain(seen.images(more)))
    zero, text = vanishing(subject)
    if zero:
        yield Doubt("zero-gradients", text, "use attacks on the margin and without gradients: --attack apgd-t,square")
    if fits:
        return
    try:
        value = explained(subject)
    except SkippedError:
        return
    if (unseen is not None or value < EXPLAINED) and not is_only_rugged(subject):
        explains = (
            f"the gradient explains {max(value, 0.0):.2f} of the change of the logits (R2 of finite differences; at "
            f"least {EXPLAINED:g} in networks without tricks)"
        )
        yield Doubt(
            "non-differentiable",
            unseen or explains,
            "see what blocks it with `robustmaps diagnose`, and use --attack square",
        )


def _subject(seen: Seen, rows: Tensor, clean: Tensor) -> CheckedNetwork:
    """The network for the checks of `diagnose`, with what is known already."""
    x, y, norm = seen.images(rows), seen.y[rows].to(seen.device), seen.norm or "linf"
    network = (seen.model, seen.model, seen.plain, seen.modes)
    subject = CheckedNetwork(*network, x, y, norm, seen.eps, seen.seed, len(rows), ignore)
    subject.know(clean)
    return subject


def _one_by_one(seen: Seen, x: Tensor) -> Tensor:
    return torch.cat([seen.plain(image) for image in torch.split(x, 1)])


def _still_training(model: nn.Module) -> str:
    """A hint at layers that `eval` does not reach."""
    count = sum(module.training for module in model.modules() if not any(module.children()))
    return f" ({count} layers stay in training mode after model.eval())" if count else ""


def _versions(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of each parameter and buffer; PyTorch counts changes in place."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: (id(tensor), tensor._version) for name, tensor in tensors if not tensor.is_inference()}
