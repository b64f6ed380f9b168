"""One run: training, evaluation, diagnosis, reproduction, export and listing."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.runs._attack_options import attack_options
    from robustmaps.runs._attacks import create_attacks, same_values
    from robustmaps.runs._corruptions import CorruptedRun, evaluate_corrupted
    from robustmaps.runs._defenses import create_defense
    from robustmaps.runs._diagnosis import DiagnosedRun, diagnose_checkpoint
    from robustmaps.runs._evaluation import EvaluatedCurve, EvaluatedRun, Options, evaluate_checkpoint, evaluate_curve
    from robustmaps.runs._export import ExportedRun, export
    from robustmaps.runs._listing import RUN_COLUMNS, as_row, choose_evaluation, differing, list_runs
    from robustmaps.runs._loaded._hub import from_pretrained, push_to_hub
    from robustmaps.runs._loaded._load import LoadedNetwork, load
    from robustmaps.runs._loaded._result import read_result
    from robustmaps.runs._record import (
        RunRecord,
        is_result_folder,
        outdated_result,
        read_run,
        read_runs,
    )
    from robustmaps.runs._reproduction import NotReproduced, Reproduction, reproduce
    from robustmaps.runs._robustbench import robustbench_entry
    from robustmaps.runs._tables._each import EvaluatedColumns, evaluate_each, evaluate_wanted
    from robustmaps.runs._tables._transfer import EvaluatedTransfer, evaluate_transfer
    from robustmaps.runs._train import TrainedRun, folder_of, train
    from robustmaps.runs._where import SHARES, parse_condition
    from robustmaps.runs._yardstick import Yardstick

__all__ = [
    "RUN_COLUMNS",
    "SHARES",
    "CorruptedRun",
    "DiagnosedRun",
    "EvaluatedColumns",
    "EvaluatedCurve",
    "EvaluatedRun",
    "EvaluatedTransfer",
    "ExportedRun",
    "LoadedNetwork",
    "NotReproduced",
    "Options",
    "Reproduction",
    "RunRecord",
    "TrainedRun",
    "Yardstick",
    "as_row",
    "attack_options",
    "choose_evaluation",
    "create_attacks",
    "create_defense",
    "diagnose_checkpoint",
    "differing",
    "evaluate_checkpoint",
    "evaluate_corrupted",
    "evaluate_curve",
    "evaluate_each",
    "evaluate_transfer",
    "evaluate_wanted",
    "export",
    "folder_of",
    "from_pretrained",
    "is_result_folder",
    "list_runs",
    "load",
    "outdated_result",
    "parse_condition",
    "push_to_hub",
    "read_result",
    "read_run",
    "read_runs",
    "reproduce",
    "robustbench_entry",
    "same_values",
    "train",
]

__getattr__, __dir__ = lazy(__name__, __file__)
