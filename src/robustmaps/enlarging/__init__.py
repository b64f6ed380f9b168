"""Surgery that enlarges any network's feature maps."""

from robustmaps.enlarging._enlarge import EnlargeWarning, enlarge, on_larger_images, with_decisions
from robustmaps.enlarging._enlargement import Enlargement, Side, Step
from robustmaps.enlarging._plan import Option, Plan, plan
from robustmaps.enlarging._positions import Positions, Resized, resample

__all__ = [
    "EnlargeWarning",
    "Enlargement",
    "Option",
    "Plan",
    "Positions",
    "Resized",
    "Side",
    "Step",
    "enlarge",
    "on_larger_images",
    "plan",
    "resample",
    "with_decisions",
]
