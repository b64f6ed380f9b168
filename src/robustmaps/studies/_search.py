"""Search for enlargements worth their cost: successive halving (arXiv 1502.07943, 1810.05934) by Optuna."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmaps.config import EvaluationConfig, read_run_config
from robustmaps.data import Dataset
from robustmaps.engine.errors import DiskFull, InputError, Interrupted
from robustmaps.engine.files import write_json
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Progress
from robustmaps.engine.random import derive_seed
from robustmaps.engine.trust import allow_code
from robustmaps.engine.writing.outputs import alone, claim, json_with
from robustmaps.runs import evaluate_wanted, train
from robustmaps.studies._candidates import Candidate
from robustmaps.training import RunFolder


@dataclass(frozen=True)
class Trial:
    """One candidate and its training.

    Attributes:
        candidate: the configuration and its cost.
        folder: the run folder.
        epochs: number of epochs trained.
        score: its best accuracy on the validation images so far, under attack if trained adversarially.
        kept: whether it was trained to the end.
        best: whether it is on the Pareto front of cost and score among the candidates trained to the end.
        clean, robust: accuracy on the test images, if best.
        error: why it could not be trained or evaluated; None if it could.
    """

    candidate: Candidate
    folder: Path
    epochs: int
    score: float
    kept: bool
    best: bool = False
    clean: Measured | None = None
    robust: Measured | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            **self.candidate.to_dict(),
            "folder": str(self.folder),
            "epochs": self.epochs,
            "validation_accuracy": self.score,
            "kept": self.kept,
            "best": self.best,
            "clean_accuracy": None if self.clean is None else self.clean.to_dict(),
            "robust_accuracy": None if self.robust is None else self.robust.to_dict(),
            **({} if self.error is None else {"error": self.error}),
        }


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        trials: one per candidate, cheapest first.
        path: the JSON file of the result.
    """

    trials: tuple[Trial, ...]
    path: Path

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that could not be trained or evaluated."""
        return tuple(trial for trial in self.trials if trial.error is not None)

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials on the Pareto front of cost and validation accuracy."""
        return tuple(trial for trial in self.trials if trial.best)

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            "front": [trial.candidate.title for trial in self.front],
            "trials": [trial.to_dict() for trial in self.trials],
        }


@dataclass
class _Halving:
    """Optuna's successive halving over candidates that are trained one after the other.

    All state is in the run folders: a resumed search reads the epochs of its runs there and repeats the same decisions.
    """

    optuna: Any
    study: Any

    def trial(self) -> Any:
        return self.study.ask()

    def judge(self, trial: Any, history: Sequence[Mapping[str, Any]], seen: int) -> bool:
        """Report the epochs after the first ``seen``; returns whether to stop the candidate early."""
        for number in range(seen + 1, len(history) + 1):
            trial.report(_score(history[:number]), number)
            if trial.should_prune():
                return True
        return False


def search(
    candidates: Sequence[Candidate],
    out: str | Path,
    *,
    data: Dataset,
    evaluation: EvaluationConfig | None = None,
    least_epochs: int = 1,
    reduction: int = 3,
    seed: int = 0,
    watcher: Callable[[str, Progress], None] = lambda _, __: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Train candidates on their proxy schedule, stop unpromising ones early, and find the Pareto front.

    The first candidate, the original network, is always trained to the end as a reference for the others. Decisions
    use validation images; test images are used only once, for the candidates on the front. Each candidate has one
    seed: to confirm differences of a few points, run a sweep over seeds.

    Args:
        candidates: the candidates, all with the same number of epochs.
        out: folder for the runs and ``search.json``.
        data: the images.
        evaluation: the evaluation for candidates on the front.
        least_epochs: minimum number of epochs for every candidate.
        reduction: 1 in ``reduction`` candidates survives each rung, with ``reduction`` times the epochs.
        seed: seed of the order in which candidates are tried.
        watcher: receives a candidate's title and progress reports.
        should_stop: if True, saves the run and raises `Interrupted`; the same call resumes.

    Raises:
        InputError: Optuna is not installed, the settings are invalid, another file is in the way, or another process
            is searching in the folder.
        Interrupted: ``should_stop`` returned True.
    """
    check_whole("least_epochs", least_epochs, 1)
    check_whole("reduction", reduction, 2)
    for one in candidates:
        if (share := one.config.model.enlarge_at) is not None:
            raise InputError(
                f"enlarge_at={share}: a search compares networks after few epochs, before a late enlargement begins; "
                "leave it out, or compare runs in a sweep"
            )
    if len(data.validation) == 0:
        raise InputError(f"{data.name}: the search needs validation images; set validation above 0")
    optuna = _optuna()
    path = Path(out) / "search.json"
    claim(path, ours=json_with("front", "trials"))
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=least_epochs, reduction_factor=reduction)
    halving = _Halving(optuna, optuna.create_study(direction="maximize", pruner=pruner))
    given, *others = candidates
    order = [given, *sorted(others, key=lambda one: derive_seed(seed, "order", one.config.name))]
    with alone(path.parent / ".search.lock", "searching there"):
        trials = []
        for candidate in order:
            spare = candidate is given
            trials.append(_try(candidate, Path(out), halving, data, watcher, should_stop, spare=spare))
        trials.sort(key=lambda trial: trial.candidate.relative)
        judged = tuple(_judged(trial, trials, data, evaluation, watcher, should_stop) for trial in trials)
        result = SearchResult(judged, path)
        write_json(result.path, result.to_dict())
    return result


def _try(
    candidate: Candidate,
    out: Path,
    halving: _Halving,
    data: Dataset,
    watcher: Callable[[str, Progress], None],
    should_stop: Callable[[], bool],
    *,
    spare: bool,
) -> Trial:
    """Train one candidate to the end, or until the pruner stops it; one that fails does not end the search."""
    trial = halving.trial()
    try:
        return _train(candidate, out, halving, trial, data, watcher, should_stop, spare=spare)
    except (Interrupted, DiskFull):
        raise
    except Exception as error:  # noqa: BLE001 - such as a damaged run folder, which is left as it is
        halving.study.tell(trial, state=halving.optuna.trial.TrialState.FAIL)
        return Trial(candidate, out / candidate.config.name, 0, 0.0, kept=False, error=_reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _train(
    candidate: Candidate,
    out: Path,
    halving: _Halving,
    trial: Any,
    data: Dataset,
    watcher: Callable[[str, Progress], None],
    should_stop: Callable[[], bool],
    *,
    spare: bool,
) -> Trial:
    folder = RunFolder(out / candidate.config.name)
    if os.path.lexists(folder.config):
        read_run_config(folder.config)  # a damaged one shows that other files may be damaged, too
    seen, given_up = 0, False

    def stop() -> bool:
        nonlocal seen, given_up
        history = folder.read_history()
        if len(history) > seen:
            given_up = halving.judge(trial, history, seen) and not spare
            seen = len(history)
        return given_up or should_stop()

    epochs = candidate.config.training.epochs
    if not stop() and seen < epochs:
        try:
            train(
                candidate.config,
                out,
                resume=True,
                data=data,
                watcher=lambda progress: watcher(candidate.title, progress),
                should_stop=stop,
            )
        except Interrupted:
            if not given_up:
                raise
        else:
            stop()
    elif not given_up and should_stop():
        raise Interrupted("stopped between two candidates")
    history = folder.read_history()
    score = _score(history)
    pruned = halving.optuna.trial.TrialState.PRUNED
    halving.study.tell(trial, state=pruned) if given_up else halving.study.tell(trial, score)
    return Trial(candidate, folder.path, len(history), score, len(history) >= epochs)


def _score(history: Sequence[Mapping[str, Any]]) -> float:
    """The best validation accuracy so far, under attack if measured."""
    scores = [r.get("validation_robust_accuracy", r.get("validation_clean_accuracy")) for r in history]
    return max((score for score in scores if score is not None), default=0.0)


def _judged(
    trial: Trial,
    trials: Sequence[Trial],
    data: Dataset,
    evaluation: EvaluationConfig | None,
    watcher: Callable[[str, Progress], None],
    should_stop: Callable[[], bool],
) -> Trial:
    def beats(other: Trial) -> bool:
        mine, theirs = ((t.candidate.relative, -t.score) for t in (trial, other))
        return other.kept and theirs != mine and theirs[0] <= mine[0] and theirs[1] <= mine[1]

    if not trial.kept or any(beats(other) for other in trials):
        return trial

    def watch(progress: Progress) -> None:
        watcher(trial.candidate.title, progress)
        if should_stop():
            raise Interrupted("stopped between two batches")

    config, wanted = trial.candidate.config, evaluation or EvaluationConfig()
    try:
        with allow_code(config.model.model):  # it was trusted when the candidates were made
            done = evaluate_wanted(trial.folder, wanted, config.training, data=data, watcher=watch)
    except (Interrupted, DiskFull):
        raise
    except Exception as error:  # noqa: BLE001 - such as damaged weights
        return replace(trial, best=True, error=_reason(error))
    return replace(trial, best=True, clean=done.clean_accuracy, robust=done.robust_accuracy)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("search: needs Optuna; pip install 'robustmaps[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
