"""Everything that reads files which may be anything, with a valid file for each; for fuzzing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from robustmaps.config import (
    RunConfig,
    asked_for,
    make_study,
    read_config,
    read_run_config,
    read_study,
    study_record,
    study_text,
    write_config,
    write_run_config,
)
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.evaluation import Evaluation, Identity
from robustmaps.evaluation._state import AttackStage, Found, StateFolder
from robustmaps.runs import Yardstick, list_runs, read_run
from robustmaps.training import RunFolder, load_weights, save_weights
from tests.helpers.studies import configuration, verdicts

STUDY = {"axes": {"seed": [0, 1], "upsample": [1, 2]}, "fixed": {"eps": "8/255"}, "evaluation": {"attack": "fgsm"}}


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
        name: the file's name in its folder.
        read: reads the folder's file.
        write: writes a valid one.
        form: what it is made of: ``json``, ``yaml``, ``lines`` or ``bytes``.
    """

    name: str
    read: Callable[[Path], object]
    write: Callable[[Path], object]
    form: str


def _evaluation() -> Evaluation:
    attack = {"name": "pgd", "norm": "linf", "eps": 0.1, "steps": 20}
    return Evaluation(verdicts(3, 8), (None,) * 8, "linf", 0.1, (attack,), "images", 0, 1.0, split="test")


def _state(folder: Path) -> StateFolder:
    return StateFolder(folder, Identity("0", (0.5, 1.0), True), {"seed": 0})


def _write_state(path: Path) -> None:
    _state(path.parent).save(Found(["robust"], [None], 8, [AttackStage("pgd", [0])]))


def _read_state(path: Path) -> None:
    found = _state(path.parent).load()
    if found is not None:
        found.doubts()
        [stage.to_dict() for stage in found.stages]


def _read_run(path: Path) -> None:
    write_run_config(path.parent / "config.yaml", RunConfig())
    record = read_run(path.parent, skipped=lambda *_: None)
    json.dumps(list_runs([record]), allow_nan=False)


def _read_plain(path: Path) -> bytes:
    return json.dumps(read_json(path), allow_nan=False, ensure_ascii=False).encode()


def _read_evaluation(path: Path) -> str:
    found = Evaluation.load(path)
    json.dumps(found.to_dict(), allow_nan=False)
    return Yardstick.of(found).text


def _write_study_record(path: Path) -> None:
    study = make_study(STUDY, Path("study"))
    write_json(path, study_record(study, {point.config.hash: point.config.name for point in study.points}))


def _write_metrics(path: Path) -> None:
    RunFolder(path.parent).write_history([{"epoch": n, "train_s": 1.5, "train_loss": 2.0} for n in (1, 2)])


def _write_checkpoint(path: Path) -> None:
    RunFolder(path.parent).save_last({"settings": {}, "state": {"epoch": 0}, "weights": torch.zeros(2)})


COST = {"flops": 1000, "parameters": 10, "activation_bytes": 100, "map_size": [2, 2], "latency_s": None}

READERS: dict[str, Reader] = {
    "configuration": Reader("c.yaml", read_config, lambda p: p.write_text(write_config(configuration())), "yaml"),
    "run configuration": Reader("config.yaml", read_run_config, lambda p: write_run_config(p, configuration()), "yaml"),
    "study": Reader("s.yaml", read_study, lambda p: p.write_text(json.dumps(STUDY)), "yaml"),
    "copied study": Reader("study.yaml", lambda p: study_text(p.parent), lambda p: p.write_text("a: 1\n"), "yaml"),
    "record of a study": Reader("study.json", lambda p: asked_for(p.parent), _write_study_record, "json"),
    "evaluation": Reader("e.json", _read_evaluation, lambda p: _evaluation().save(p), "json"),
    "state of an evaluation": Reader("state.json", _read_state, _write_state, "json"),
    "cost": Reader("cost.json", _read_run, lambda p: write_json(p, COST), "json"),
    "environment": Reader("environment.json", _read_run, lambda p: write_json(p, {"torch": "2.9"}), "json"),
    "error": Reader("error.txt", _read_run, lambda p: p.write_text("ValueError: x\n"), "bytes"),
    "any JSON": Reader("x.json", _read_plain, lambda p: write_json(p, {"a": [1, 2.5, "x", None]}), "json"),
    "epochs": Reader("metrics.jsonl", lambda p: RunFolder(p.parent).read_history(), _write_metrics, "lines"),
    "listed epochs": Reader("metrics.jsonl", _read_run, _write_metrics, "lines"),
    "weights": Reader(
        "w.safetensors", load_weights, lambda p: save_weights(p, {"a": torch.zeros(2, 3)}, {"about": "x"}), "bytes"
    ),
    "checkpoint": Reader(
        "last.pt", lambda p: RunFolder(p.parent).load_last(torch.device("cpu")), _write_checkpoint, "bytes"
    ),
}
