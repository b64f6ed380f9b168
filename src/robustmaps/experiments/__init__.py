"""Layer 5: runs from a configuration, and what is made of several."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.experiments._config import (
        AttackConfig,
        DataConfig,
        DefenseConfig,
        ModelConfig,
        RunConfig,
        from_mapping,
        read_config,
        to_mapping,
    )
    from robustmaps.experiments._demo import DemoResult, demo
    from robustmaps.experiments._evaluation import EvaluatedRun, evaluate_checkpoint
    from robustmaps.experiments._run import TrainedRun, folder_of, resolve, train

__all__ = [
    "AttackConfig",
    "DataConfig",
    "DefenseConfig",
    "DemoResult",
    "EvaluatedRun",
    "ModelConfig",
    "RunConfig",
    "TrainedRun",
    "demo",
    "evaluate_checkpoint",
    "folder_of",
    "from_mapping",
    "read_config",
    "resolve",
    "to_mapping",
    "train",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_config": [
            "AttackConfig",
            "DataConfig",
            "DefenseConfig",
            "ModelConfig",
            "RunConfig",
            "from_mapping",
            "read_config",
            "to_mapping",
        ],
        "_demo": ["DemoResult", "demo"],
        "_evaluation": ["EvaluatedRun", "evaluate_checkpoint"],
        "_run": ["TrainedRun", "folder_of", "resolve", "train"],
    },
)
