"""Analysis of a network: what its maps see, and the gain of perturbations."""

from robustmaps.analysis._analysis import Analysis, FeatureGain, MarginGain, StageReport, short_names
from robustmaps.analysis._analyze import analyze, analyze_both, feature_maps
from robustmaps.analysis._comparison import ComparedAnalyses
from robustmaps.analysis._estimate import estimate, ratio
from robustmaps.analysis._gain import first_order_gain, reached_gain
from robustmaps.analysis._receptive import effective_field_px
from robustmaps.analysis._scores import feature_gain, margin_gain, margin_gains
from robustmaps.analysis._stage_costs import Share
from robustmaps.analysis._stages import Stage
from robustmaps.analysis._theory import (
    BASIC,
    POOLS,
    Laboratory,
    Series,
    ToyGain,
    Variation,
    fit_exponent,
    laboratory,
    measure,
    standard_variations,
)
from robustmaps.analysis._theory_network import (
    Toy,
    ToyNetwork,
    Weights,
    predicted_gain,
    random_weights,
)
from robustmaps.models import Cost, measure_cost

__all__ = [
    "BASIC",
    "POOLS",
    "Analysis",
    "ComparedAnalyses",
    "Cost",
    "FeatureGain",
    "Laboratory",
    "MarginGain",
    "Series",
    "Share",
    "Stage",
    "StageReport",
    "Toy",
    "ToyGain",
    "ToyNetwork",
    "Variation",
    "Weights",
    "analyze",
    "analyze_both",
    "effective_field_px",
    "estimate",
    "feature_gain",
    "feature_maps",
    "first_order_gain",
    "fit_exponent",
    "laboratory",
    "margin_gain",
    "margin_gains",
    "measure",
    "measure_cost",
    "predicted_gain",
    "random_weights",
    "ratio",
    "reached_gain",
    "short_names",
    "standard_variations",
]
