"""What the theory says about an enlargement, in words."""

from collections.abc import Iterator, Sequence

from robustmaps.engine.text import by, stride_text
from robustmaps.enlarging._enlargement import Enlargement, Step
from robustmaps.tracing import HeadKind

_THEORY = "docs/theory.md"


def advise(enlargement: Enlargement, not_spread: Sequence[str]) -> Iterator[str]:
    """What speaks against an enlargement.

    Args:
        enlargement: which one.
        not_spread: calls through which dilation could not be carried.
    """
    if not_spread:
        more = f" and {len(not_spread) - 1} more" if len(not_spread) > 1 else ""
        yield f"dilation can't be carried through {not_spread[0]}{more}: behind it the function is kept roughly at best"
    yield from _head(enlargement)
    yield from _stride(enlargement)
    yield from _field(enlargement)


def nothing_to_relax(network: str, steps: Sequence[Step], head: HeadKind | None) -> str:
    """Why no step of a network can be relaxed."""
    if not steps:
        return (
            f"{network} has no downsampling step: its effective stride is 1 already, where the gain of average pooling "
            f"has reached its floor, so that a larger map costs more and buys nothing ({_THEORY})"
        )
    reasons = "\n".join(f"  {step}: {step.obstacle}" for step in steps)
    attention = (
        f"\n{network} reads its last map through attention or a single token: the theory of average pooling would "
        f"promise nothing anyway ({_THEORY})"
    )
    return (
        f"no downsampling step of {network} can be relaxed without breaking it:\n{reasons}"
        f"{attention if head == 'other' else ''}"
    )


def _head(enlargement: Enlargement) -> Iterator[str]:
    last = {
        "max": "takes the maximum over its last map: the gradient runs through one position of each channel however "
        "large the map is, so a larger map does not lower what a perturbation gains",
        "flatten": "flattens its last map into weights of a fixed size: the larger map is averaged down to the size "
        "that they expect, and what that buys is less than the law for an average over the whole map says",
        "other": "does not average its last map but reads it through attention or a single token: the theory of "
        "average pooling says nothing about it",
    }.get(enlargement.head or "none")
    if enlargement.head is None:
        last = "has no last map that could be found: the theory of average pooling says nothing about it"
    if last is not None:
        yield f"{enlargement.network} {last} ({_THEORY})"


def _stride(enlargement: Enlargement) -> Iterator[str]:
    before, after = enlargement.before.effective_stride, enlargement.after.effective_stride
    if before is None or after is None:
        return
    if max(before) <= 1:
        yield (
            f"the effective stride is {stride_text(before)} already: the gain of average pooling has reached its "
            f"floor, so a larger map costs more and buys nothing ({_THEORY})"
        )
    elif max(after) < 1:
        yield (
            f"the effective stride falls from {stride_text(before)} to {stride_text(after)}: below 1 a larger map "
            f"costs more and buys nothing ({_THEORY})"
        )


def _field(enlargement: Enlargement) -> Iterator[str]:
    before, after, image = enlargement.before.field_px, enlargement.after.field_px, enlargement.image_size
    if before is None or after is None or not any(after[a] < min(before[a], image[a]) for a in (0, 1)):
        return
    covered = all(before[axis] >= image[axis] for axis in (0, 1))
    what = "no longer covers the image" if covered else "covers even less of the image"
    remedy = "; dilate=True keeps it" if enlargement.where and not enlargement.dilate else ""
    yield f"the receptive field shrinks from {by(before)} to {by(after)} px and {what} of {by(image)} px{remedy}"
