"""Make a run again from its configuration, and compare the two."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustmaps import attacks
from robustmaps.config import Split, check_trusted
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.files import write_json
from robustmaps.engine.numbers import counted
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.reading.plain import read_json
from robustmaps.evaluation import (
    ALONE,
    Comparison,
    Evaluation,
    compare,
    evaluate,
    images_sha256,
    with_consistency,
    worst_case,
)
from robustmaps.networks import choose_images, open_checkpoint, resolve
from robustmaps.runs._record import RunRecord, read_run
from robustmaps.runs._train import TrainedRun, train
from robustmaps.training import RUN_WEIGHTS, Forms, RunFolder, load_weights


class NotReproduced(Exception):  # noqa: N818 - nothing failed: the comparison has a result
    """The run made again differs from the recorded one."""


@dataclass(frozen=True)
class Again:
    """One evaluation, recorded and made again.

    Attributes:
        name: its file name without ``.json``.
        recorded, again: the two; ``again`` is None if it could not be made.
        reason: why it could not be made.
    """

    name: str
    recorded: Evaluation
    again: Evaluation | None
    reason: str = ""

    @property
    def different(self) -> int:
        """The number of images whose verdict differs."""
        pairs = () if self.again is None else zip(self.recorded.verdicts, self.again.verdicts, strict=True)
        return sum(a != b for a, b in pairs)

    @property
    def comparison(self) -> Comparison | None:
        """The new robust accuracy minus the recorded one, paired by image; None if no verdict differs."""
        return compare(self.recorded, self.again) if self.again is not None and self.different else None


@dataclass(frozen=True)
class Reproduction:
    """A run made again, beside the recorded one.

    Attributes:
        recorded: the folder of the recorded run.
        folder: the folder of the new one.
        epochs: the number of epochs compared.
        first_difference: the first epoch, from 1, with another figure; None if all are the same.
        largest_weight_difference: the largest difference of a weight; None if only some epochs were made again.
        evaluations: the evaluations; empty if only some epochs were made again.
        environment: what differs in software and hardware: name, recorded and new value.
    """

    recorded: Path
    folder: Path
    epochs: int
    first_difference: int | None
    largest_weight_difference: float | None
    evaluations: tuple[Again, ...]
    environment: tuple[tuple[str, Any, Any], ...]

    @property
    def identical(self) -> bool:
        """Whether all figures, weights and verdicts are the same, bit for bit."""
        verdicts = all(each.again is not None and not each.different for each in self.evaluations)
        return self.first_difference is None and not self.largest_weight_difference and verdicts

    def sentence(self) -> str:
        """The verdict in words."""
        if self.identical:
            what = [f"the figures of {counted(self.epochs, 'epoch')}"]
            if self.largest_weight_difference is not None:
                what.append("the weights")
            if self.evaluations:
                images = sum(len(each.recorded.verdicts) for each in self.evaluations)
                what.append(f"{images:,} verdicts of {counted(len(self.evaluations), 'evaluation')}")
            return f"Reproduced bit for bit: {', '.join(what)}."
        parts = []
        if self.first_difference is not None:
            parts.append(f"the figures differ from epoch {self.first_difference} on")
        if self.largest_weight_difference:
            parts.append(f"weights differ by up to {self.largest_weight_difference:.3g}")
        different = sum(each.different for each in self.evaluations)
        if different:
            parts.append(f"{counted(different, 'verdict')} differ{'s' * (different == 1)}")
        parts += [f"{each.name} was not made again: {each.reason}" for each in self.evaluations if each.again is None]
        return f"Not the same: {'; '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "identical": self.identical,
            "recorded": str(self.recorded),
            "run": str(self.folder),
            "epochs": self.epochs,
            "first_difference": self.first_difference,
            "largest_weight_difference": self.largest_weight_difference,
            "evaluations": [
                {
                    "name": each.name,
                    "different": each.different,
                    "recorded": each.recorded.robust_accuracy.to_dict(),
                    "again": None if each.again is None else each.again.robust_accuracy.to_dict(),
                    "reason": each.reason,
                }
                for each in self.evaluations
            ],
            "environment": [{"name": name, "recorded": old, "now": new} for name, old, new in self.environment],
        }


def reproduce(
    run: str | Path, out: str | Path = "reproduced", *, epochs: int | None = None, watcher: Watcher = ignore
) -> Reproduction:
    """Train a run again from its configuration, evaluate it again, and compare epochs, weights and verdicts.

    On the same machine with the same software a run on the CPU is the same bit for bit. The recorded number of threads
    is used, since sums depend on it. A killed reproduction resumes.

    Args:
        run: the run folder.
        out: the folder that receives the new run folder.
        epochs: make only the first epochs again, and compare their figures; None for the whole run.
        watcher: receives progress reports.

    Raises:
        InputError: the run has no finished epoch or fewer than ``epochs``, is unfinished and ``epochs`` is None, names
            code that is not trusted, or ``out`` holds it, or a run of this configuration that was not made here.
    """
    record = read_run(run)
    check_trusted(record.config, RunFolder(record.folder).config)
    finished = len(record.history)
    if epochs is None and record.status != "finished":
        raise InputError(f"{run}: the run is {record.status}; name its first epochs with --epochs, up to {finished}")
    if epochs is not None and not 1 <= epochs <= finished:
        raise InputError(f"epochs={epochs}: expected a number from 1 to {finished}, the epochs that {run} has finished")
    # The server that the run was logged to has it already.
    silent = replace(record.config.training, log=None, tensorboard=False)
    resolved = resolve(replace(record.config, training=silent))
    folder = RunFolder(Path(out) / resolved.config.name)
    if folder.path.resolve() == record.folder.resolve():
        raise InputError(f"--out {out}: the recorded run itself is in that folder; choose another one")
    if folder.begun and not folder.reproduction.exists():  # a copy would be compared with itself
        raise InputError(f"{folder.path}: already exists and was not made by reproduce; choose another --out")
    folder.claim()
    write_json(folder.reproduction, {"reproduces": str(record.folder)})
    recorded_forms = record.environment.get("forms")
    forms = Forms.of(recorded_forms) if isinstance(recorded_forms, Mapping) else None
    with _threads(record.environment.get("threads")):
        if epochs is None:
            done = train(resolved, out, resume=True, watcher=watcher, forms=forms)
            weights = _largest_difference(RunFolder(record.folder).best, folder.best)
            evaluations = tuple(_evaluate_again(record, done, watcher))
        else:
            weights, evaluations = None, ()
            with suppress(Interrupted):
                train(
                    resolved,
                    out,
                    resume=True,
                    watcher=watcher,
                    should_stop=lambda: len(folder.read_history()) >= epochs,
                    forms=forms,
                )
    compared = finished if epochs is None else epochs
    return Reproduction(
        record.folder,
        folder.path,
        compared,
        _first_difference(record.history[:compared], folder.read_history()[:compared]),
        weights,
        evaluations,
        _changes(record.environment, read_json(folder.environment)),
    )


@contextmanager
def _threads(recorded: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(recorded or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    # Sessions before the last one of a resumed run are not compared.
    names = [name for name in recorded if name != "before"]
    return tuple((name, recorded[name], now.get(name)) for name in names if recorded[name] != now.get(name))


def _first_difference(recorded: Iterable[Mapping[str, Any]], again: Iterable[Mapping[str, Any]]) -> int | None:
    for number, epochs in enumerate(zip(recorded, again, strict=True), 1):
        # Compared as JSON, in which NaN equals itself.
        old, new = (json.dumps({name: epoch[name] for name in epoch if not _measures_time(name)}) for epoch in epochs)
        if old != new:
            return number
    return None


def _measures_time(name: str) -> bool:
    return name.endswith("_s") or name == "data_share"


def _largest_difference(recorded: Path, again: Path) -> float:
    old, new = load_weights(recorded)[0], load_weights(again)[0]
    return max(
        0.0 if torch.equal(value, new[name]) else float((value.double() - new[name].double()).abs().max())
        for name, value in old.items()
    )


def _evaluate_again(record: RunRecord, done: TrainedRun, watcher: Watcher) -> Iterator[Again]:
    """Make each evaluation of the run's weights again; one of a curve carries on from the next smaller radius."""
    models: dict[str, torch.nn.Module] = {}
    made: dict[str, Evaluation] = {}
    for name, recorded in sorted(record.evaluations.items(), key=lambda item: (_is_combined(item[1]), item[1].eps)):
        which = recorded.weights or RUN_WEIGHTS[0]
        try:
            model = models.get(which) or models.setdefault(which, open_checkpoint(done.folder, which).model)
            mine = {key: each for key, each in made.items() if each.weights == recorded.weights}
            again = replace(_again(recorded, model, done, mine, watcher), weights=recorded.weights)
        except InputError as error:
            yield Again(name, recorded, None, str(error))
            continue
        made[name] = again
        again.save(RunFolder(done.folder).evaluations / f"{name}.json")
        yield Again(name, recorded, again)


def _is_combined(evaluation: Evaluation) -> bool:
    return any(ALONE in settings for settings in evaluation.attacks)


def _again(
    recorded: Evaluation, model: torch.nn.Module, done: TrainedRun, made: Mapping[str, Evaluation], watcher: Watcher
) -> Evaluation:
    split, count = recorded.split or "test", len(recorded.verdicts)
    chosen: Split = "validation" if split == "validation" else "train" if split == "train" else "test"
    everything = len(getattr(done.data, chosen))
    x, y = choose_images(done.data, chosen, None if count == everything else count)
    images = recorded.images_sha256
    if images_sha256(x, y) != images:
        raise InputError("its images are not those that the data set has now")
    if _is_combined(recorded):
        return _worst_again(recorded, made)
    carried = recorded.stages and recorded.stages[0]["attacked"] < int(recorded.clean_correct.sum())
    smaller = [each for each in made.values() if each.eps < recorded.eps and _of_one_curve(each, recorded)]
    if carried and not smaller:
        raise InputError("it carries on from an evaluation at a smaller radius that is not there")
    before = max(smaller, key=lambda each: each.eps) if carried else None
    eight_bit = any(settings.get("eight_bit") for settings in recorded.attacks)
    options: dict[str, Any] = {
        "batch_size": recorded.environment.get("batch_size"),
        "seed": recorded.seed,
        "precision": str(recorded.environment.get("precision", "auto")),
        "compile": bool(recorded.environment.get("compiled")),
        "eight_bit": eight_bit,
        "smaller": before,
        "watcher": watcher,
    }
    each = [
        attacks.from_settings({name: value for name, value in settings.items() if name != "eight_bit"})
        for settings in recorded.attacks
    ]
    again = replace(evaluate(model, x, y, each, **options), split=recorded.split)
    return again if recorded.misclassified is None else with_consistency(model, x, each, again, **options)


def _of_one_curve(one: Evaluation, other: Evaluation) -> bool:
    """Whether they differ in nothing but their radius, and what follows from it."""

    def attacks_of(evaluation: Evaluation) -> list[dict[str, Any]]:
        return [{k: v for k, v in each.items() if k not in ("eps", "step_size")} for each in evaluation.attacks]

    return (one.images_sha256, one.seed, attacks_of(one)) == (other.images_sha256, other.seed, attacks_of(other))


def _worst_again(recorded: Evaluation, made: Mapping[str, Evaluation]) -> Evaluation:
    """The worst case of attacks by themselves, from those of them that were made again."""
    left = [{name: value for name, value in settings.items() if name != ALONE} for settings in recorded.attacks]
    columns: list[Evaluation] = []
    wanted = (recorded.eps, recorded.images_sha256, recorded.seed)
    mine = [each for each in made.values() if (each.eps, each.images_sha256, each.seed) == wanted]
    while left:
        found = next((each for each in mine if list(each.attacks) == left[: len(each.attacks)]), None)
        if found is None:
            raise InputError("it is the worst case of attacks whose own evaluations are not there")
        columns.append(found)
        left = left[len(found.attacks) :]
    return worst_case(columns)
