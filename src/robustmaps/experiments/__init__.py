"""Layer 5: runs from a configuration, and what is made of several."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.experiments._analysis import AnalyzedNetwork, analyze_network
    from robustmaps.experiments._attacks import create_attacks
    from robustmaps.experiments._checkpoints import Checkpoint, open_checkpoint, open_network
    from robustmaps.experiments._comparing import ComparedRuns, compare_runs
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
    from robustmaps.experiments._diagnosis import DiagnosedRun, diagnose_checkpoint
    from robustmaps.experiments._enlarging import EnlargedNetwork, Surgery, enlarge_network, save_enlarged
    from robustmaps.experiments._evaluation import (
        EvaluatedCurve,
        EvaluatedRun,
        Options,
        evaluate_checkpoint,
        evaluate_curve,
    )
    from robustmaps.experiments._export import ExportedRun, export
    from robustmaps.experiments._networks import Fit, OpenedNetwork, open_model
    from robustmaps.experiments._planning import PlannedNetwork, parse_budget, plan_network
    from robustmaps.experiments._records import RunRecord, read_run, read_runs
    from robustmaps.experiments._reporting import Report, report
    from robustmaps.experiments._run import TrainedRun, folder_of, resolve, train
    from robustmaps.experiments._theory import TheoryResult, theory

__all__ = [
    "AnalyzedNetwork",
    "AttackConfig",
    "Checkpoint",
    "ComparedRuns",
    "DataConfig",
    "DefenseConfig",
    "DemoResult",
    "DiagnosedRun",
    "EnlargedNetwork",
    "EvaluatedCurve",
    "EvaluatedRun",
    "ExportedRun",
    "Fit",
    "ModelConfig",
    "OpenedNetwork",
    "Options",
    "PlannedNetwork",
    "Report",
    "RunConfig",
    "RunRecord",
    "Surgery",
    "TheoryResult",
    "TrainedRun",
    "analyze_network",
    "compare_runs",
    "create_attacks",
    "demo",
    "diagnose_checkpoint",
    "enlarge_network",
    "evaluate_checkpoint",
    "evaluate_curve",
    "export",
    "folder_of",
    "from_mapping",
    "open_checkpoint",
    "open_model",
    "open_network",
    "parse_budget",
    "plan_network",
    "read_config",
    "read_run",
    "read_runs",
    "report",
    "resolve",
    "save_enlarged",
    "theory",
    "to_mapping",
    "train",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_analysis": ["AnalyzedNetwork", "analyze_network"],
        "_enlarging": ["EnlargedNetwork", "Surgery", "enlarge_network", "save_enlarged"],
        "_planning": ["PlannedNetwork", "parse_budget", "plan_network"],
        "_theory": ["TheoryResult", "theory"],
        "_networks": ["Fit", "OpenedNetwork", "open_model"],
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
        "_diagnosis": ["DiagnosedRun", "diagnose_checkpoint"],
        "_attacks": ["create_attacks"],
        "_checkpoints": ["Checkpoint", "open_checkpoint", "open_network"],
        "_evaluation": ["EvaluatedCurve", "EvaluatedRun", "Options", "evaluate_checkpoint", "evaluate_curve"],
        "_records": ["RunRecord", "read_run", "read_runs"],
        "_comparing": ["ComparedRuns", "compare_runs"],
        "_reporting": ["Report", "report"],
        "_export": ["ExportedRun", "export"],
        "_run": ["TrainedRun", "folder_of", "resolve", "train"],
    },
)
