"""The paper's networks, each with configurable strides, and the cost of any network."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.models._catalog import CatalogEntry, catalog
    from robustmaps.models._choices import (
        ACTIVATIONS,
        POOLS,
        SMOOTHED,
        UPSAMPLE_MODES,
        Activation,
        Pool,
        Smooth,
        UpsampleMode,
        align_corners,
    )
    from robustmaps.models._classifier import Architecture, Classifier
    from robustmaps.models._cost import Cost, Measure, measure_cost
    from robustmaps.models._maps import FinalPooling
    from robustmaps.models._network import Network, Normalize, feature_map_size, upsampling
    from robustmaps.models._operations import count_flops
    from robustmaps.models._other_names import Rename
    from robustmaps.models._registry import (
        architecture,
        create,
        default_strides,
        is_built_in,
        names,
        parse_strides,
        register,
        title_of,
        widened,
    )
    from robustmaps.models._strides import Strides, StridesLike

__all__ = [
    "ACTIVATIONS",
    "POOLS",
    "SMOOTHED",
    "UPSAMPLE_MODES",
    "Activation",
    "Architecture",
    "CatalogEntry",
    "Classifier",
    "Cost",
    "FinalPooling",
    "Measure",
    "Network",
    "Normalize",
    "Pool",
    "Rename",
    "Smooth",
    "Strides",
    "StridesLike",
    "UpsampleMode",
    "align_corners",
    "architecture",
    "catalog",
    "count_flops",
    "create",
    "default_strides",
    "feature_map_size",
    "is_built_in",
    "measure_cost",
    "names",
    "parse_strides",
    "register",
    "title_of",
    "upsampling",
    "widened",
]

__getattr__, __dir__ = lazy(__name__, __file__)
