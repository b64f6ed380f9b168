"""Each attack by itself on all images, and the worst case of all."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustmaps.config import AttackConfig, EvaluationConfig, read_run_config, to_mapping
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.writing.outputs import claim
from robustmaps.evaluation import Evaluation, worst_case
from robustmaps.networks import Checkpoint, open_checkpoint
from robustmaps.runs._evaluation import (
    EvaluatedRun,
    Options,
    Work,
    curve,
    evaluate_checkpoint,
    evaluate_curve,
)
from robustmaps.runs._evaluation_files import is_verdicts, spelled_as_before
from robustmaps.runs._identity import place_for
from robustmaps.training import RUN_WEIGHTS, RunFolder, TrainOptions, kept_epochs
from robustmaps.training.loggers import log_final

_HASH = re.compile(r"-[0-9a-f]{8}(-\d+)?$")
"""Of the settings, at the end of the name of a file of verdicts."""


@dataclass(frozen=True)
class EvaluatedColumns:
    """Several attacks, each by itself on all images.

    Attributes:
        names: the attacks, in order.
        columns: per attack one evaluation per radius, in ascending order: the files of the attack by itself.
        worst: per radius the worst case of all attacks.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[EvaluatedRun, ...], ...]
    worst: tuple[EvaluatedRun, ...]


def evaluate_each(
    checkpoint: str | Path | Checkpoint,
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedColumns:
    """Evaluate with each attack by itself, and combine them: an image is robust if it withstands all.

    Every column is the evaluation that its attack alone would make, in the same file, so that none is made twice.
    Several radii make a curve for each attack.

    Args:
        checkpoint: see `evaluate_checkpoint`.
        attack: two or more attacks.
        options: images, device and so on.
        out: the file of the worst case; by default named after the settings. The columns are always in the folder of
            evaluations.

    Raises:
        InputError: as `evaluate_checkpoint`, or ``attack`` is a single one, or ``out`` is given with several radii.
    """
    configs = attack.columns()
    work = Work(checkpoint, options or Options())
    radii = sorted(attack.eps) or [work.checkpoint.eps]
    if out is not None:
        if len(radii) > 1:
            raise InputError(f"out={out}: expected one radius, since every radius has a worst case of its own")
        claim(Path(out), ours=is_verdicts)
    for one in configs:  # before the first of them works
        for number, eps in enumerate(radii):
            work.files(one, eps, radii[:number]).claim()
    columns = tuple(curve(work, one).runs if len(radii) > 1 else (work.run(one, radii[0]),) for one in configs)
    worst = tuple(_worst(work, attack, [column[at] for column in columns], radii[:at], out) for at in range(len(radii)))
    return EvaluatedColumns(tuple(work.called(attack, radii[-1])), columns, worst)


def evaluate_wanted(
    checkpoint: str | Path | Checkpoint,
    wanted: EvaluationConfig,
    training: TrainOptions,
    *,
    data: Dataset,
    watcher: Watcher = ignore,
) -> Evaluation:
    """Make an evaluation of a study, and return that at its largest radius, with ``each`` the worst case.

    Args:
        checkpoint: see `evaluate_checkpoint`.
        wanted: the evaluation.
        training: how the run was trained, whose device and precision the evaluation takes.
        data: the images.
        watcher: receives progress reports.

    Raises:
        InputError: see `evaluate_each`, `evaluate_curve` and `evaluate_checkpoint`.
    """
    options = replace(Options.of(wanted, training, watcher), data=data, consistent=wanted.consistent)
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint, wanted.weights)
    if wanted.each:
        done = evaluate_each(checkpoint, wanted.attack, options).worst
    elif len(wanted.attack.eps) > 1:
        done = evaluate_curve(checkpoint, wanted.attack, options).runs
    else:
        done = (evaluate_checkpoint(checkpoint, wanted.attack, options),)
    if training.loggers and checkpoint.path is not None:
        _log(RunFolder(checkpoint.path.parent), training, done)
    return done[-1].evaluation


def _log(folder: RunFolder, training: TrainOptions, done: Sequence[EvaluatedRun]) -> None:
    """Hand the accuracies to the run's loggers, with the ends of their intervals."""
    history = folder.read_history()
    record: dict[str, float] = {"epoch": kept_epochs(history)[done[-1].evaluation.weights or RUN_WEIGHTS[0]]}
    for one in done:
        name = _HASH.sub("", one.path.stem)
        for kind in ("robust", "clean"):
            rate, each = getattr(one.evaluation, f"{kind}_accuracy"), f"{name}/{kind}_accuracy"
            record |= {each: rate.value, f"{each}_low": rate.low, f"{each}_high": rate.high}
    settings = {key: str(value) for key, value in to_mapping(read_run_config(folder.config)).items()}
    log_final(training.loggers, folder.path, settings, history, record)


def _worst(
    work: Work, attack: AttackConfig, columns: list[EvaluatedRun], smaller: list[float], out: str | Path | None
) -> EvaluatedRun:
    found = worst_case([column.evaluation for column in columns])
    # Columns of a curve go on from its smaller radii, so that they are others than those of one radius.
    decisive = [list(found.attacks), found.seed, found.images_sha256, found.checkpoint_sha256]
    digest = short_hash([*decisive, smaller] if smaller else decisive)
    budget = as_fraction(found.eps).replace("/", "_")
    name = f"{work.names_of(attack, found.eps)}-each-{found.norm}-{budget}"
    named = spelled_as_before(work.folder / f"{name}-{found.split}{len(found.verdicts)}-{digest}.json")
    path = Path(out) if out is not None else place_for(named, work.network, lambda _: [])
    claim(path, ours=is_verdicts)
    known = Evaluation.load(path) if path.exists() else None
    before = known is not None and known.to_dict() == found.to_dict()
    if not before:
        found.save(path)
    return EvaluatedRun(found, path, before=before)
