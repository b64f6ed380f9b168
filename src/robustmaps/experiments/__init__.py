"""Layer 5: runs from a configuration, and what is made of several."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.experiments._analysis import AnalyzedNetwork, analyze_network
    from robustmaps.experiments._attacks import create_attacks
    from robustmaps.experiments._candidates import Candidate, find_candidates, within
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
    from robustmaps.experiments._filter import parse_where
    from robustmaps.experiments._listing import RUN_COLUMNS, as_row, choose_evaluation, differing, list_runs
    from robustmaps.experiments._networks import Fit, OpenedNetwork, open_model
    from robustmaps.experiments._planning import PlannedNetwork, parse_budget, plan_network
    from robustmaps.experiments._records import RunRecord, read_run, read_runs
    from robustmaps.experiments._reporting import Report, report
    from robustmaps.experiments._run import TrainedRun, folder_of, load_data, resolve, train
    from robustmaps.experiments._search import SearchResult, Trial, search
    from robustmaps.experiments._statistics import Configuration, Statistics, statistics_of
    from robustmaps.experiments._study import EvaluationConfig, Point, Study, read_study
    from robustmaps.experiments._sweep import RunsFailed, SweepResult, sweep
    from robustmaps.experiments._sweep_plan import PlannedRun, SweepPlan, evaluation_names, plan_sweep
    from robustmaps.experiments._sweep_state import SweepState
    from robustmaps.experiments._theory import TheoryResult, theory

__all__ = [
    "RUN_COLUMNS",
    "AnalyzedNetwork",
    "AttackConfig",
    "Candidate",
    "Checkpoint",
    "ComparedRuns",
    "Configuration",
    "DataConfig",
    "DefenseConfig",
    "DemoResult",
    "DiagnosedRun",
    "EnlargedNetwork",
    "EvaluatedCurve",
    "EvaluatedRun",
    "EvaluationConfig",
    "ExportedRun",
    "Fit",
    "ModelConfig",
    "OpenedNetwork",
    "Options",
    "PlannedNetwork",
    "PlannedRun",
    "Point",
    "Report",
    "RunConfig",
    "RunRecord",
    "RunsFailed",
    "SearchResult",
    "Statistics",
    "Study",
    "Surgery",
    "SweepPlan",
    "SweepResult",
    "SweepState",
    "TheoryResult",
    "TrainedRun",
    "Trial",
    "analyze_network",
    "as_row",
    "choose_evaluation",
    "compare_runs",
    "create_attacks",
    "demo",
    "diagnose_checkpoint",
    "differing",
    "enlarge_network",
    "evaluate_checkpoint",
    "evaluate_curve",
    "evaluation_names",
    "export",
    "find_candidates",
    "folder_of",
    "from_mapping",
    "list_runs",
    "load_data",
    "open_checkpoint",
    "open_model",
    "open_network",
    "parse_budget",
    "parse_where",
    "plan_network",
    "plan_sweep",
    "read_config",
    "read_run",
    "read_runs",
    "read_study",
    "report",
    "resolve",
    "save_enlarged",
    "search",
    "statistics_of",
    "sweep",
    "theory",
    "to_mapping",
    "train",
    "within",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "_analysis": ["AnalyzedNetwork", "analyze_network"],
        "_enlarging": ["EnlargedNetwork", "Surgery", "enlarge_network", "save_enlarged"],
        "_planning": ["PlannedNetwork", "parse_budget", "plan_network"],
        "_filter": ["parse_where"],
        "_listing": ["RUN_COLUMNS", "as_row", "choose_evaluation", "differing", "list_runs"],
        "_candidates": ["Candidate", "find_candidates", "within"],
        "_search": ["SearchResult", "Trial", "search"],
        "_statistics": ["Configuration", "Statistics", "statistics_of"],
        "_study": ["EvaluationConfig", "Point", "Study", "read_study"],
        "_sweep": ["RunsFailed", "SweepResult", "sweep"],
        "_sweep_plan": ["PlannedRun", "SweepPlan", "evaluation_names", "plan_sweep"],
        "_sweep_state": ["SweepState"],
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
        "_run": ["TrainedRun", "folder_of", "load_data", "resolve", "train"],
    },
)
