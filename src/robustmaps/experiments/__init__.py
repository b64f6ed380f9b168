"""Layer 5: runs from a configuration, and what is made of several."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.experiments._analysis import AnalyzedNetwork, analyze_network
    from robustmaps.experiments._architectures import Fit
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
    )
    from robustmaps.experiments._corruptions import CorruptedRun, evaluate_corrupted
    from robustmaps.experiments._datasets import load_data
    from robustmaps.experiments._defenses import create_defense
    from robustmaps.experiments._demo import DemoResult, demo
    from robustmaps.experiments._diagnosis import DiagnosedRun, diagnose_checkpoint
    from robustmaps.experiments._enlarging import EnlargedNetwork, enlarge_network, save_enlarged
    from robustmaps.experiments._evaluation import (
        EvaluatedCurve,
        EvaluatedRun,
        Options,
        evaluate_checkpoint,
        evaluate_curve,
    )
    from robustmaps.experiments._export import ExportedRun, export
    from robustmaps.experiments._filter import parse_where
    from robustmaps.experiments._flat import to_mapping
    from robustmaps.experiments._listing import RUN_COLUMNS, as_row, choose_evaluation, differing, list_runs
    from robustmaps.experiments._networks import open_model
    from robustmaps.experiments._opened import OpenedNetwork
    from robustmaps.experiments._planning import PlannedNetwork, parse_budget, plan_network
    from robustmaps.experiments._recipes import describe_recipe, read_recipe, recipe_names
    from robustmaps.experiments._records import RunRecord, read_run, read_runs
    from robustmaps.experiments._reporting import Report, report
    from robustmaps.experiments._run import TrainedRun, folder_of, train
    from robustmaps.experiments._search import SearchResult, Trial, search
    from robustmaps.experiments._start import resolve, starting_from
    from robustmaps.experiments._statistics import Statistics, statistics_by_part, statistics_of
    from robustmaps.experiments._study import EvaluationConfig, Point, Study, read_study
    from robustmaps.experiments._surgery import Surgery
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
    "CorruptedRun",
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
    "create_defense",
    "demo",
    "describe_recipe",
    "diagnose_checkpoint",
    "differing",
    "enlarge_network",
    "evaluate_checkpoint",
    "evaluate_corrupted",
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
    "read_recipe",
    "read_run",
    "read_runs",
    "read_study",
    "recipe_names",
    "report",
    "resolve",
    "save_enlarged",
    "search",
    "starting_from",
    "statistics_by_part",
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
        "_architectures": ["Fit"],
        "_attacks": ["create_attacks"],
        "_candidates": ["Candidate", "find_candidates", "within"],
        "_checkpoints": ["Checkpoint", "open_checkpoint", "open_network"],
        "_comparing": ["ComparedRuns", "compare_runs"],
        "_config": [
            "AttackConfig",
            "DataConfig",
            "DefenseConfig",
            "ModelConfig",
            "RunConfig",
            "from_mapping",
            "read_config",
        ],
        "_corruptions": ["CorruptedRun", "evaluate_corrupted"],
        "_datasets": ["load_data"],
        "_defenses": ["create_defense"],
        "_demo": ["DemoResult", "demo"],
        "_diagnosis": ["DiagnosedRun", "diagnose_checkpoint"],
        "_enlarging": ["EnlargedNetwork", "enlarge_network", "save_enlarged"],
        "_evaluation": ["EvaluatedCurve", "EvaluatedRun", "Options", "evaluate_checkpoint", "evaluate_curve"],
        "_export": ["ExportedRun", "export"],
        "_filter": ["parse_where"],
        "_flat": ["to_mapping"],
        "_listing": ["RUN_COLUMNS", "as_row", "choose_evaluation", "differing", "list_runs"],
        "_networks": ["open_model"],
        "_opened": ["OpenedNetwork"],
        "_planning": ["PlannedNetwork", "parse_budget", "plan_network"],
        "_recipes": ["describe_recipe", "read_recipe", "recipe_names"],
        "_records": ["RunRecord", "read_run", "read_runs"],
        "_reporting": ["Report", "report"],
        "_run": ["TrainedRun", "folder_of", "train"],
        "_search": ["SearchResult", "Trial", "search"],
        "_start": ["resolve", "starting_from"],
        "_statistics": ["Statistics", "statistics_by_part", "statistics_of"],
        "_study": ["EvaluationConfig", "Point", "Study", "read_study"],
        "_surgery": ["Surgery"],
        "_sweep": ["RunsFailed", "SweepResult", "sweep"],
        "_sweep_plan": ["PlannedRun", "SweepPlan", "evaluation_names", "plan_sweep"],
        "_sweep_state": ["SweepState"],
        "_theory": ["TheoryResult", "theory"],
    },
)
