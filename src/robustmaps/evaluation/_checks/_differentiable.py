"""Does the gradient predict how the logits change, or do operations without a derivative block it?"""

from robustmaps.evaluation._checks._finding import Outcome, exceeds
from robustmaps.evaluation._checks._gradients import EXPLAINED, explained, unseen_pixels
from robustmaps.evaluation._checks._operations import StraightThrough, find_cuts
from robustmaps.evaluation._checks._rugged import is_only_rugged
from robustmaps.evaluation._checks._subject import CheckedNetwork

# As for the other kinds of attacks.
_GAIN_SHARE = 0.02
_BRIDGED_STEPS = 50


def non_differentiable(subject: CheckedNetwork) -> Outcome:
    """Compare the gradient with finite differences, and attack with gradients straight through what blocks them."""
    _ = subject.clean
    cuts = find_cuts(subject.model, subject.x[:2])
    named = f" ({', '.join(map(str, cuts[:3]))}{', ...' if len(cuts) > 3 else ''})" if cuts else ""
    if subject.gradient_error is not None:
        return Outcome(True, f"no gradient reaches the images{named}: {subject.gradient_error}")
    subject.require_images()
    value = explained(subject)
    part = f"the gradient explains {max(value, 0.0):.2f} of the change of the logits (R2 of finite differences)"
    unseen = None if subject.stochastic else unseen_pixels(subject)
    part += f", and {unseen}" * (unseen is not None)
    unexplained = value < EXPLAINED or unseen is not None
    # Attacks on a randomised network can't be compared by how far they get.
    if unexplained and not subject.stochastic and is_only_rugged(subject):
        unexplained = False
        part += ", yet it is exact over very short steps, and attacks along it work: the network is only rugged"
    if not cuts:
        return Outcome(unexplained, part)
    before = len(subject.left)
    bridged = subject.steps(_BRIDGED_STEPS, loss="margin")
    after = int(subject.stands(bridged, subject.left, on=StraightThrough(subject.attacked)).sum())
    return Outcome(
        unexplained or exceeds(before - after, len(subject.correct), _GAIN_SHARE),
        f"{part}; operations without a derivative{named}: with gradients passed straight through, an attack breaks "
        f"{before - after} of the {before} unbroken images",
    )
