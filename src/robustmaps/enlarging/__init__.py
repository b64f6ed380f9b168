"""Surgery that enlarges any network's feature maps."""

from robustmaps.enlarging._enlarge import EnlargeWarning, enlarge
from robustmaps.enlarging._enlargement import Enlargement, Side, Step
from robustmaps.enlarging._plan import Option, Plan, plan

__all__ = ["EnlargeWarning", "Enlargement", "Option", "Plan", "Side", "Step", "enlarge", "plan"]
