"""The theory's advice about an enlargement, in words."""

from collections.abc import Iterator, Sequence

from robustmaps.engine.numbers import by, stride_text
from robustmaps.engine.reading.pages import explain
from robustmaps.enlarging._enlargement import Enlargement, Step
from robustmaps.tracing import HeadKind

_THEORY = explain("theory")


def advise(enlargement: Enlargement, not_spread: Sequence[str]) -> Iterator[str]:
    """Reasons against an enlargement.

    Args:
        enlargement: the enlargement.
        not_spread: calls that dilation can't be carried through.
    """
    if not_spread:
        more = f" and {len(not_spread) - 1} more" if len(not_spread) > 1 else ""
        yield f"dilation can't be carried through {not_spread[0]}{more}: after it the function is kept roughly at best"
    if enlargement.grows or enlargement.larger_images is not None:  # else the last map is as large as before
        yield from against_head(enlargement.network, enlargement.head)
        yield from _stride(enlargement)
    yield from _field(enlargement)


def nothing_to_relax(network: str, steps: Sequence[Step], head: HeadKind | None) -> str:
    """Explain why no step of a network can be relaxed."""
    if not steps:
        return (
            f"{network} has no downsampling step: its effective stride is already 1, where the gain of average pooling "
            f"has reached its floor, so a larger map costs more without any benefit ({_THEORY})"
        )
    reasons = "\n".join(f"  {step}: {step.obstacle}" for step in steps)
    attention = (
        f"\n{network} reads its last map through attention or a single token, so the theory of average pooling would "
        f"not apply anyway ({_THEORY})"
    )
    return (
        f"no downsampling step of {network} can be relaxed without breaking it:\n{reasons}"
        f"{attention if head == 'other' else ''}"
    )


def against_head(network: str, head: HeadKind | None) -> Iterator[str]:
    """The reason why a larger map in front of such a head gains less, or nothing."""
    last = {
        "max": "takes the maximum over its last map: the gradient passes through one position per channel whatever "
        "the size of the map, so a larger map does not reduce the effect of a perturbation",
        "flatten": "flattens its last map into weights of a fixed size: the larger map is averaged down to that size, "
        "which helps less than the law for an average over the whole map predicts",
        "other": "does not average its last map but reads it through attention or a single token: the theory of "
        "average pooling does not apply",
    }.get(head or "none")
    if head is None:
        last = "has no last map that could be found: the theory of average pooling does not apply"
    if last is not None:
        yield f"{network} {last} ({_THEORY})"


def _stride(enlargement: Enlargement) -> Iterator[str]:
    before, after = enlargement.before.effective_stride, enlargement.after.effective_stride
    if before is None or after is None:
        return
    if max(before) <= 1:
        yield (
            f"the effective stride is already {stride_text(before)}: the gain of average pooling has reached its "
            f"floor, so a larger map costs more without any benefit ({_THEORY})"
        )
    elif max(after) < 1:
        yield (
            f"the effective stride falls from {stride_text(before)} to {stride_text(after)}: below 1 a larger map "
            f"costs more without any benefit ({_THEORY})"
        )


def _field(enlargement: Enlargement) -> Iterator[str]:
    before, after, image = enlargement.before.field_px, enlargement.after.field_px, enlargement.image_size
    if enlargement.larger_images is not None:
        larger = enlargement.larger_images
        if after is not None and any(after[axis] < larger[axis] for axis in (0, 1)):
            yield f"the receptive field of {by(after)} px does not cover the image of {by(larger)} px"
        return
    if before is None or after is None or not any(after[a] < min(before[a], image[a]) for a in (0, 1)):
        return
    covered = all(before[axis] >= image[axis] for axis in (0, 1))
    what = "no longer covers the image" if covered else "covers even less of the image"
    remedy = "; dilate=True keeps it" if enlargement.where and not enlargement.dilate else ""
    yield f"the receptive field shrinks from {by(before)} to {by(after)} px and {what} of {by(image)} px{remedy}"
