"""Run a study, resuming after any interruption."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustmaps.config import STUDY, EvaluationConfig, RunConfig, study_record, write_run_config
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.files import remove, short_hash, write_json, write_text
from robustmaps.engine.numbers import counted
from robustmaps.engine.progress import Progress
from robustmaps.engine.trust import Trust, allow_code, names_code, present_trust, trusting
from robustmaps.engine.writing.outputs import alone, claim, json_with
from robustmaps.networks import load_data
from robustmaps.runs import evaluate_wanted, read_run, train
from robustmaps.studies._plan import SweepPlan
from robustmaps.studies._processes import Executor, LocalExecutor, Worker
from robustmaps.studies._progress import Board, SweepState
from robustmaps.training import RunFolder, enclosing_run

_COPY = "study.yaml"


class RunsFailed(RuntimeError):  # noqa: N818 - named after what happened
    """Some runs of a study failed; the message names them."""

    @classmethod
    def of(cls, failed: Mapping[Path, str], what: str = "run") -> "RunsFailed":
        """The error by run folder, in words.

        Args:
            failed: as in `SweepResult`.
            what: what a run is called.
        """
        listed = "\n".join(f"  {path}: {text}" for path, text in failed.items())
        return cls(f"{counted(len(failed), what)}; the same command tries them again:\n{listed}")


@dataclass(frozen=True)
class RunTask:
    """Train and evaluate one run of a study, unless done before, in its own process.

    Attributes:
        config: the run; its network was trusted when the study was read.
        out: the folder of the runs.
        evaluations: the evaluations of the run.
        trust: what the process that made the task trusts.
    """

    config: RunConfig
    out: Path
    evaluations: tuple[EvaluationConfig, ...]
    trust: Trust = field(default_factory=present_trust)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / self.config.name

    @property
    def runs_code(self) -> bool:
        """Whether it may call a function of the user's."""
        return self.trust.everything or bool(self.trust.names) or names_code(self.config.model.model)

    def claim(self) -> None:
        """Refuse a folder with other people's files."""
        RunFolder(self.folder).claim()

    def below(self, out: Path) -> "RunTask":
        """The same run in another folder of runs."""
        return replace(self, out=out)

    def __call__(self, worker: Worker) -> dict[str, float]:
        """Returns clean and robust accuracy in the first evaluation, at the largest radius."""
        folder = self.folder
        self.claim()
        # So that a run that fails before it starts counts as failed, not as an unrelated folder.
        if not (folder / "config.yaml").exists():
            write_run_config(folder / "config.yaml", self.config)
        remove(RunFolder(folder).error)
        try:
            with trusting(self.trust), allow_code(self.config.model.model):
                return self._work(folder, worker)
        except Interrupted:
            raise
        except Exception as error:
            write_text(RunFolder(folder).error, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
            raise

    def _is_trained(self, folder: Path) -> bool:
        """Whether it is, and has the weights to evaluate, which earlier versions did not all keep."""
        if not (folder / "config.yaml").exists() or read_run(folder, skipped=lambda *_: None).status != "finished":
            return False
        try:
            return all(RunFolder(folder).weights(wanted.weights).exists() for wanted in self.evaluations)
        except InputError:
            return False

    def _work(self, folder: Path, worker: Worker) -> dict[str, float]:
        def watch(progress: Progress) -> None:
            worker.watch(progress)
            if worker.should_stop():
                raise Interrupted("stopped between two batches")

        data = load_data(self.config.data)
        if not self._is_trained(folder):
            train(self.config, self.out, resume=True, data=data, watcher=worker.watch, should_stop=worker.should_stop)
        figures: dict[str, float] = {}
        for wanted in self.evaluations:
            evaluation = evaluate_wanted(folder, wanted, self.config.training, data=data, watcher=watch)
            figures = figures or {
                "robust_accuracy": evaluation.robust_accuracy.value,
                "clean_accuracy": evaluation.clean_accuracy.value,
            }
        return figures


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
        out: the folder of the runs.
        made: folders of the runs started or resumed in this call.
        before: number of runs that were already finished.
        failed: the error by run folder.
        seconds: wall time of this call.
    """

    out: Path
    made: tuple[Path, ...]
    before: int
    failed: Mapping[Path, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            "out": str(self.out),
            "made": [str(path) for path in self.made],
            "before": self.before,
            "failed": {str(path): text for path, text in self.failed.items()},
            "seconds": self.seconds,
        }


def sweep(
    plan: SweepPlan,
    *,
    executor: Executor | None = None,
    watcher: Callable[[SweepState], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SweepResult:
    """Make the missing runs of a study. The same call resumes after a stop, a kill or a failure.

    Each run is trained and evaluated in a folder named after its configuration. If a run fails, its error is written to
    ``error.txt`` there and the others continue; a later sweep tries it again.

    Args:
        plan: a plan by `plan_sweep`.
        executor: runs the tasks, such as a `RayExecutor`; by default in processes on this machine.
        watcher: receives progress reports.
        should_stop: if True, saves all runs and raises `Interrupted`.

    Raises:
        InputError: another sweep is running in the folder, or other files are in the way of its own.
        Interrupted: ``should_stop`` returned True.
    """
    began = time.monotonic()
    missing = plan.missing
    claim_study(plan)
    with alone(plan.out / ".sweep.lock", "running a sweep there"):
        _record(plan)
        board = Board(plan, watcher)
        tasks = [RunTask(run.point.config, plan.out, plan.study.evaluations) for run in missing]
        outcomes = (executor or LocalExecutor(plan.jobs, plan.threads)).run(
            tasks, watcher=board.watch, finished=board.finished, should_stop=should_stop, noted=board.noted
        )
    failed = {}
    for run, outcome in zip(missing, outcomes, strict=True):
        if outcome.error is not None and not isinstance(outcome.error, Interrupted):
            failed[run.folder] = f"{type(outcome.error).__name__}: {outcome.error}"
            if not RunFolder(run.folder).error.exists():  # the process died before it could write it
                with contextlib.suppress(OSError):  # a file is in the way of the folder
                    write_text(RunFolder(run.folder).error, failed[run.folder] + "\n")
    if any(isinstance(outcome.error, Interrupted) for outcome in outcomes):
        raise Interrupted(f"stopped with {board.state.done} of {board.state.total} runs done")
    made = tuple(run.folder for run in missing if run.folder not in failed)
    return SweepResult(plan.out, made, len(plan.runs) - len(missing), failed, time.monotonic() - began)


def check_apart(out: Path) -> None:
    """Refuse the folder of a run, or one in it, for other runs.

    Raises:
        InputError: it is one.
    """
    outer = enclosing_run(out / "run")
    if outer is not None:
        raise InputError(f"{out}: is inside the run {outer}; choose a folder of its own for the new runs")


def claim_study(plan: SweepPlan, *others: Path) -> None:
    """Refuse a folder in which other files are in the way, before the work.

    Args:
        plan: the plan; its runs are checked one by one as they begin.
        others: further files to write, which are ours if the folder has a study's record.

    Raises:
        InputError: one of the files is not ours, or the folder is in that of a run.
    """
    check_apart(plan.out)
    record, copy = plan.out / STUDY, plan.out / _COPY
    ours = json_with("format", "keys", "evaluations", "runs", "study")
    claim(record, ours=ours)
    claim(*others, ours=lambda _: ours(record))
    claim(copy, ours=lambda _: ours(record) or copy.read_bytes() == plan.study.text.encode())


def _record(plan: SweepPlan) -> None:
    """Save the study in the folder, for reports on its runs alone; an earlier study's file is moved aside."""
    copy = plan.out / _COPY
    before = copy.read_text(encoding="utf-8") if copy.exists() else None
    folders = {run.point.config.hash: run.folder.name for run in plan.runs}
    write_json(plan.out / STUDY, study_record(plan.study, folders))
    if before == plan.study.text:
        return
    if before is not None:
        write_text(plan.out / f"study-{short_hash(before)}.yaml", before)
    write_text(copy, plan.study.text)
