"""The progress of a sweep, for watchers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from robustmaps.engine.errors import Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.studies._plan import SweepPlan, remaining_s
from robustmaps.studies._processes import TaskOutcome


@dataclass(frozen=True)
class SweepState:
    """The progress of a sweep.

    Attributes:
        total: number of runs in the study.
        done: number of finished runs, including those of earlier calls.
        failed: number of runs that failed in this call.
        running: title and latest report of each active run.
        best: title and robust accuracy of the best run so far, if any.
        remaining_s: estimated seconds until the end; None if unknown.
        event: the latest event, in words; None for mere progress.
        warnings: what a run that has just ended warned of, with its title.
    """

    total: int
    done: int = 0
    failed: int = 0
    running: Mapping[str, Progress] = field(default_factory=dict)
    best: tuple[str, float] | None = None
    remaining_s: float | None = None
    event: str | None = None
    warnings: tuple[str, ...] = ()


class Board:
    """Tracks the progress of a sweep."""

    def __init__(self, plan: SweepPlan, watcher: Callable[[SweepState], None]) -> None:
        self._runs, self._jobs, self._watcher = plan.missing, plan.jobs, watcher
        self._began: dict[int, float] = {}
        # In seconds; in operations if nothing was timed, which finished runs turn into seconds.
        self._timed = any(run.estimate.seconds is not None for run in self._runs)
        self._left = {
            index: run.estimate.seconds if self._timed else run.estimate.flops or None
            for index, run in enumerate(self._runs)
        }
        self._took = self._expected = 0.0  # of the finished runs
        there = [(run.title, run.robust) for run in plan.runs if run.robust is not None]
        best = max(there, key=lambda each: each[1], default=None)
        self.state = SweepState(len(plan.runs), len(plan.runs) - len(self._runs), best=best)
        self._tell(f"{self.state.done} of {self.state.total} runs are done already" if self.state.done else None)

    def watch(self, index: int, progress: Progress) -> None:
        """Record a report of a run."""
        if index not in self._left:  # a late report, after the end of the run
            return
        self._began.setdefault(index, time.monotonic())
        self.state = replace(self.state, running={**self.state.running, self._runs[index].title: progress})
        self._tell(None)

    def noted(self, index: int, text: str) -> None:
        """Pass on what happened to a run."""
        self._tell(f"{self._runs[index].title}: {text}")

    def finished(self, index: int, outcome: TaskOutcome[dict[str, float]]) -> None:
        """Record the end of a run."""
        run = self._runs[index]
        state = self.state
        expected = self._left.pop(index)
        if outcome.error is None and expected is not None and index in self._began:
            self._took += time.monotonic() - self._began[index]
            self._expected += expected
        running = {title: progress for title, progress in state.running.items() if title != run.title}
        if isinstance(outcome.error, Interrupted):
            self.state, event = replace(state, running=running), f"stopped: {run.title}"
        elif outcome.error is not None:
            self.state = replace(state, running=running, failed=state.failed + 1)
            event = f"failed: {run.title}: {outcome.error}"
        else:
            robust = (outcome.value or {}).get("robust_accuracy")
            best = state.best
            if robust is not None and (best is None or robust > best[1]):
                best = (run.title, robust)
            self.state = replace(state, running=running, done=state.done + 1, best=best)
            figures = ", ".join(
                f"{name.split('_')[0]} {100 * value:.1f} %" for name, value in (outcome.value or {}).items()
            )
            event = f"done: {run.title}: {figures}"
        self._tell(event, tuple(f"{run.title}: {text}" for text in outcome.warnings))

    def _tell(self, event: str | None, warnings: tuple[str, ...] = ()) -> None:
        self._watcher(replace(self.state, remaining_s=self._remaining_s(), event=event, warnings=warnings))

    def _remaining_s(self) -> float | None:
        """The estimate for the remaining runs, corrected by its error on the finished ones."""
        now = time.monotonic()
        if not self._timed and not self._expected:
            return None if self._left else 0.0
        wrong = self._took / self._expected if self._expected else 1.0
        left = [
            None if seconds is None else max(seconds * wrong - (now - self._began.get(index, now)), 0.0)
            for index, seconds in self._left.items()
        ]
        return remaining_s(left, self._jobs)
