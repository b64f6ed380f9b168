"""Layer 2: surgery that enlarges the feature maps of any network."""

from robustmaps.enlarge._enlarge import EnlargeWarning, enlarge
from robustmaps.enlarge._enlargement import Enlargement, Side, Step
from robustmaps.enlarge._plan import Option, Plan, plan

__all__ = ["EnlargeWarning", "Enlargement", "Option", "Plan", "Side", "Step", "enlarge", "plan"]
