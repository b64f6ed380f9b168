"""Search for enlargements worth their cost: successive halving (arXiv 1502.07943)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustmaps.config import EvaluationConfig, read_run_config
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.files import write_json
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import check_whole, counted
from robustmaps.engine.progress import Progress
from robustmaps.engine.trust import allow_code
from robustmaps.engine.writing.outputs import alone, claim, json_with
from robustmaps.evaluation import Evaluation
from robustmaps.networks import load_data
from robustmaps.runs import train
from robustmaps.studies._candidates import Candidate
from robustmaps.studies._plan import image_hashes, made_evaluation, usual_jobs
from robustmaps.studies._processes import Executor, LocalExecutor, TaskOutcome, Worker
from robustmaps.studies._progress import SweepState
from robustmaps.studies._sweep import RunTask, check_apart
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


@dataclass(frozen=True)
class _Part(RunTask):
    """Train a candidate, from where it is, until it has some epochs.

    Attributes:
        until: so many.
    """

    until: int = 0

    def _work(self, folder: Path, worker: Worker) -> dict[str, float]:
        run = RunFolder(folder)
        last = self.until >= self.config.training.epochs  # which ends by itself, with its best weights

        def enough() -> bool:
            return not last and len(run.read_history()) >= self.until

        try:
            train(
                self.config,
                self.out,
                resume=True,
                data=load_data(self.config.data),
                watcher=worker.watch,
                should_stop=lambda: enough() or worker.should_stop(),
            )
        except Interrupted:
            if not enough():
                raise
        return {"validation accuracy": _score(run.read_history()[: self.until])}


@dataclass
class _Course:
    """A search under way. All that it decides by is in the run folders, so that a resumed one decides the same.

    Attributes:
        candidates: the candidates.
        out: the folder of the runs.
        executor: runs the tasks.
        watcher: receives progress reports.
        should_stop: whether to save all runs and stop.
        failed: why a candidate could not be trained or evaluated, by its number.
    """

    candidates: Sequence[Candidate]
    out: Path
    executor: Executor
    watcher: Callable[[SweepState], None]
    should_stop: Callable[[], bool]
    failed: dict[int, str] = field(default_factory=dict)
    _state: SweepState = field(init=False)

    def __post_init__(self) -> None:
        self._state = SweepState(len(self.candidates))

    def halve(self, least_epochs: int, reduction: int) -> list[int]:
        """Train the candidates in rungs, and return the numbers of those that were trained to the end."""
        epochs = self.candidates[0].config.training.epochs
        left = list(range(len(self.candidates)))
        for until in _rungs(least_epochs, reduction, epochs):
            left = self._trained(left, until)
            if until < epochs:
                best = sorted(left, key=lambda one: (-self.score(one, until), one))[: max(1, len(left) // reduction)]
                # The first one stays, since the others are compared with it.
                on = [one for one in left if one == 0 or one in best]
                self._tell(
                    f"after {counted(until, 'epoch')}, {len(on)} of {len(left)} go on: "
                    + ", ".join(self.candidates[one].title for one in on),
                    settled=len(left) - len(on),
                )
                left = on
        self._tell(None, settled=len(left))
        return left

    def _trained(self, numbers: Sequence[int], until: int) -> list[int]:
        """Those of the candidates that have so many epochs, after training those that lack some."""
        tasks: dict[int, RunTask] = {}
        for number in numbers:
            try:
                done = len(self.history(number))
            except InputError as error:  # a damaged run, which is left as it is
                self._fail(number, error)
                continue
            if done < until:
                tasks[number] = _Part(self.candidates[number].config, self.out, (), until=until)
        self._run(tasks)
        return [number for number in numbers if number not in self.failed]

    def evaluate(self, numbers: Sequence[int], wanted: EvaluationConfig) -> dict[int, tuple[Measured, Measured]]:
        """Clean and robust accuracy of these candidates on test images."""
        images = image_hashes()

        def made(number: int) -> Evaluation | None:
            with allow_code(self.candidates[number].config.model.model):  # trusted when the candidates were made
                return made_evaluation(self.folder(number), wanted, images)

        lacking = [one for one in numbers if made(one) is None]
        self._run({one: RunTask(self.candidates[one].config, self.out, (wanted,)) for one in lacking})
        found = {one: made(one) for one in numbers if one not in self.failed}
        return {one: (each.clean_accuracy, each.robust_accuracy) for one, each in found.items() if each is not None}

    def _run(self, tasks: Mapping[int, RunTask]) -> None:
        numbers = list(tasks)

        def watch(index: int, progress: Progress) -> None:
            title = self.candidates[numbers[index]].title
            self._state = replace(self._state, running={**self._state.running, title: progress})
            self._tell(None)

        def finished(index: int, outcome: TaskOutcome[dict[str, float]]) -> None:
            number = numbers[index]
            title = self.candidates[number].title
            running = {name: each for name, each in self._state.running.items() if name != title}
            self._state = replace(self._state, running=running)
            warned = tuple(f"{title}: {text}" for text in outcome.warnings)
            if outcome.error is None and outcome.value is not None:
                figures = [f"{name.replace('_', ' ')} {100 * value:.1f} %" for name, value in outcome.value.items()]
                self._tell(f"{title}: {', '.join(figures)}", warned)
            elif outcome.error is not None and not isinstance(outcome.error, Interrupted):
                self._fail(number, outcome.error)

        outcomes = self.executor.run(
            list(tasks.values()),
            watcher=watch,
            finished=finished,
            should_stop=self.should_stop,
            noted=lambda index, text: self._tell(f"{self.candidates[numbers[index]].title}: {text}"),
        )
        self._state = replace(self._state, running={})  # a report may have come after the end of its task
        if any(isinstance(outcome.error, Interrupted) for outcome in outcomes) or (not tasks and self.should_stop()):
            raise Interrupted("stopped")

    def _fail(self, number: int, error: BaseException) -> None:
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        self.failed[number] = text
        self._state = replace(self._state, failed=len(self.failed))
        self._tell(f"failed: {self.candidates[number].title}: {text}")

    def _tell(self, event: str | None, warnings: tuple[str, ...] = (), *, settled: int = 0) -> None:
        self._state = replace(self._state, done=self._state.done + settled)
        self.watcher(replace(self._state, event=event, warnings=warnings))

    def folder(self, number: int) -> Path:
        """The run folder of a candidate."""
        return self.out / self.candidates[number].config.name

    def history(self, number: int) -> list[dict[str, Any]]:
        """The epochs of a candidate so far.

        Raises:
            InputError: its folder is damaged.
        """
        folder = RunFolder(self.folder(number))
        if os.path.lexists(folder.config):
            read_run_config(folder.config)  # a damaged one shows that other files may be damaged, too
        return folder.read_history()

    def score(self, number: int, until: int) -> float:
        """Its best validation accuracy in so many epochs."""
        return _score(self.history(number)[:until])


def search(
    candidates: Sequence[Candidate],
    out: str | Path,
    *,
    evaluation: EvaluationConfig | None = None,
    least_epochs: int = 1,
    reduction: int = 3,
    jobs: int | None = None,
    executor: Executor | None = None,
    watcher: Callable[[SweepState], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Train candidates on their proxy schedule, stop unpromising ones early, and find the Pareto front.

    All candidates are trained for ``least_epochs``; 1 in ``reduction`` of them goes on to ``reduction`` times the
    epochs, and so on to the end. The first candidate, the original network, is always trained to the end as a reference
    for the others. Decisions use validation images; test images are used only once, for the candidates on the front.
    Each candidate has one seed: to confirm differences of a few points, run a sweep over seeds.

    Args:
        candidates: the candidates, all with the same images and number of epochs, the original network first.
        out: folder for the runs and ``search.json``.
        evaluation: the evaluation for candidates on the front.
        least_epochs: minimum number of epochs for every candidate.
        reduction: 1 in ``reduction`` candidates survives each rung, with ``reduction`` times the epochs.
        jobs: candidates at once, each in a process; by default a core each, at most eight, and one on a GPU.
        executor: runs the tasks, such as a `RayExecutor`; replaces ``jobs``.
        watcher: receives progress reports.
        should_stop: if True, saves the runs and raises `Interrupted`; the same call resumes, with the same result.

    Raises:
        InputError: the settings are invalid, another file is in the way, or another process is searching in the folder.
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
    data = load_data(candidates[0].config.data)
    if len(data.validation) == 0:
        raise InputError(f"{data.name}: the search needs validation images; set validation above 0")
    path = Path(out) / "search.json"
    check_apart(path.parent)
    claim(path, ours=json_with("front", "trials"))
    with ExitStack() as stack:
        stack.enter_context(alone(path.parent / ".search.lock", "searching there"))
        if executor is None:
            local = LocalExecutor(jobs or usual_jobs([one.config for one in candidates]))
            executor = stack.enter_context(local.kept())
        course = _Course(candidates, Path(out), executor, watcher, should_stop)
        kept = course.halve(least_epochs, reduction)
        front = _front(course, kept)
        judged = course.evaluate(front, evaluation or EvaluationConfig())
        result = SearchResult(tuple(_trials(course, kept, front, judged)), path)
        write_json(result.path, result.to_dict())
    return result


def _rungs(least_epochs: int, reduction: int, epochs: int) -> Iterator[int]:
    until = least_epochs
    while until < epochs:
        yield until
        until *= reduction
    yield epochs


def _front(course: _Course, kept: Sequence[int]) -> list[int]:
    """Those that no other one beats in cost and validation accuracy."""
    epochs = course.candidates[0].config.training.epochs
    values = {one: (course.candidates[one].relative, -course.score(one, epochs)) for one in kept}

    def beats(other: int, one: int) -> bool:
        (their_cost, their_loss), (cost, loss) = values[other], values[one]
        return values[other] != values[one] and their_cost <= cost and their_loss <= loss

    return [one for one in kept if not any(beats(other, one) for other in kept)]


def _trials(
    course: _Course, kept: Sequence[int], front: Sequence[int], judged: Mapping[int, tuple[Measured, Measured]]
) -> Iterator[Trial]:
    """The outcome of each candidate, cheapest first."""
    for number in sorted(range(len(course.candidates)), key=lambda one: course.candidates[one].relative):
        error = course.failed.get(number)
        spoilt = error is not None and number not in front
        history = [] if spoilt else course.history(number)
        clean, robust = judged.get(number, (None, None))
        yield Trial(
            course.candidates[number],
            course.folder(number),
            len(history),
            _score(history),
            number in kept,
            number in front,
            clean,
            robust,
            error,
        )


def _score(history: Sequence[Mapping[str, Any]]) -> float:
    """The best validation accuracy so far, under attack if measured."""
    scores = [r.get("validation_robust_accuracy", r.get("validation_clean_accuracy")) for r in history]
    return max((score for score in scores if score is not None), default=0.0)
