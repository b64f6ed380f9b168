"""Many runs: sweeps, searches, statistics, and the demonstration."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.studies._advice import Advice, Confirmed, advise
    from robustmaps.studies._candidates import Candidate, find_candidates, within
    from robustmaps.studies._cluster._executor import RayExecutor
    from robustmaps.studies._configurations import Variant, bounded, by_yardstick, factors, only_enlarged
    from robustmaps.studies._corrupted import corrupted_test_images
    from robustmaps.studies._demo import DemoResult, demo
    from robustmaps.studies._plan import PlannedRun, SweepPlan, evaluation_names, plan_sweep
    from robustmaps.studies._plane import Plane, features_in_plane
    from robustmaps.studies._progress import SweepState
    from robustmaps.studies._ready import plan_ready
    from robustmaps.studies._search import SearchResult, Trial, search
    from robustmaps.studies._statistics import Statistics, statistics_by_part, statistics_of
    from robustmaps.studies._sweep import RunsFailed, SweepResult, claim_study, sweep
    from robustmaps.studies._theory import TheoryResult, theory
    from robustmaps.studies._two_runs import ComparedRuns, compare_runs
    from robustmaps.studies._ways import AdvicePlan, TrainingBudget, Way, plan_advice

__all__ = [
    "Advice",
    "AdvicePlan",
    "Candidate",
    "ComparedRuns",
    "Confirmed",
    "DemoResult",
    "Plane",
    "PlannedRun",
    "RayExecutor",
    "RunsFailed",
    "SearchResult",
    "Statistics",
    "SweepPlan",
    "SweepResult",
    "SweepState",
    "TheoryResult",
    "TrainingBudget",
    "Trial",
    "Variant",
    "Way",
    "advise",
    "bounded",
    "by_yardstick",
    "claim_study",
    "compare_runs",
    "corrupted_test_images",
    "demo",
    "evaluation_names",
    "factors",
    "features_in_plane",
    "find_candidates",
    "only_enlarged",
    "plan_advice",
    "plan_ready",
    "plan_sweep",
    "search",
    "statistics_by_part",
    "statistics_of",
    "sweep",
    "theory",
    "within",
]

__getattr__, __dir__ = lazy(__name__, __file__)
