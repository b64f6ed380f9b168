"""Checkpoints written beside training: a copy of the state in host memory, and one thread that writes it."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor, nn

from robustmaps.engine import ranks
from robustmaps.training._run_folder import RunFolder, kept_epochs
from robustmaps.training._state import State
from robustmaps.training._weights import copied_state

T = TypeVar("T")

_SAVING_SHARE = 0.02


def on_host(state: T, *, copied: bool = True) -> T:
    """A state in host memory, for a thread to write while training goes on.

    A tensor with two names, such as a tied weight, is one there, too. The thread itself must not use a GPU: it would
    wait for the steps under way, and break the capture of a CUDA graph.

    Args:
        state: dictionaries, lists and tuples of tensors and plain values.
        copied: whether later steps may change it, so that tensors in host memory have to be copied as well.
    """
    made: dict[tuple[Any, ...], Tensor] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if place not in made:
                made[place] = value.detach().to("cpu", copy=copied)
            return made[place]
        if isinstance(value, dict):
            other = copy.copy(value)  # PyTorch keeps versions of layers as an attribute of its dictionaries
            other.update((key, moved(each)) for key, each in value.items())
            return other
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(moved, value))
        if isinstance(value, list | tuple):
            return type(value)(map(moved, value))
        return copy.deepcopy(value) if copied else value

    result: T = moved(state)
    return result


class Saver:
    """Does one piece of work at a time beside the training loop; to be entered before the first.

    An error of the work is raised by whatever of `start`, `poll` and `wait` comes next. Leaving the block waits for the
    work, whatever ended the block: nothing is written after that, and what was being written is written to its end. If
    the block ended with an error of its own, one of the work becomes a note to it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._work: Future[None] | None = None
        self._after: list[Callable[[], None]] = []

    def start(self, work: Callable[[], None]) -> None:
        """Begin with a piece of work, once the one before has ended."""
        self.wait()
        self._work = self._thread.submit(work)

    def after(self, call: Callable[[], None]) -> None:
        """Call something once the work under way has succeeded: in `start`, `poll` or `wait`, or now without any."""
        self._after.append(call)
        self.poll()

    def poll(self) -> None:
        """Notice that the work has ended, if it has."""
        if self._work is None or self._work.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the work to end."""
        if self._work is not None:
            self._work.result()
            self._work = None
        while self._after:
            self._after.pop(0)()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()
        failed = self._work.exception() if self._work is not None else None
        try:
            self.wait()
        except Exception as late:
            if error is None:
                raise
            if late is failed and late is not error:
                error.add_note(f"the last checkpoint was not written: {late}")
            elif late is not error:
                error.add_note(str(late))


class Checkpoints(Saver):
    """The checkpoints of a run, which rank 0 writes, and the weights that it keeps; to be entered before the first.

    Args:
        folder: where they go; None for nowhere.
        description: strings for the headers of the weights' files.
        epochs: of the whole run.
        every_s: seconds between two checkpoints within an epoch.

    Attributes:
        best: the weights of the best epoch so far.
        clean: those with the highest clean accuracy; the same tensors, where that epoch is the best.
        place: epoch and step of the last checkpoint.
    """

    def __init__(self, folder: RunFolder | None, description: Mapping[str, str], epochs: int, every_s: float) -> None:
        super().__init__()
        self._folder, self._description, self._epochs, self._every_s = folder, description, epochs, every_s
        self.best: dict[str, Tensor] = {}
        self.clean: dict[str, Tensor] = {}
        self.place: tuple[int, int] | None = None
        self._saved, self._took_s, self._best_saved = time.monotonic(), 0.0, True

    def due(self) -> bool:
        """Whether it is time for one within an epoch."""
        return time.monotonic() - self._saved >= self._every_s

    def due_after(self, epoch: int) -> bool:
        """Whether it is time for one after this epoch, from 1.

        Every epoch has one, unless epochs are so short that writing would take a noticeable share of the time.
        """
        pause = min(self._every_s, self._took_s / _SAVING_SHARE)
        return epoch == self._epochs or time.monotonic() - self._saved >= pause

    def judge(self, state: State, score: list[float], clean: float, network: nn.Module) -> None:
        """Keep the network's weights, if the epoch that has just ended is the best in either respect, or the last."""
        if score > state.best_score or (state.epoch == self._epochs and not state.best_epoch):
            state.best_epoch, state.best_score = state.epoch, score
            self.best = copied_state(network)
            self._best_saved = False
        if clean > state.best_clean:
            state.best_clean = clean
            self.clean = self.best if state.best_epoch == state.epoch else copied_state(network)

    def save(self, state: State, make: Callable[[], dict[str, Any]], judged: str) -> None:
        """Begin to write a checkpoint, once the one before is written.

        Args:
            state: the run's, as it is.
            make: returns everything but the weights that are kept, in host memory.
            judged: the key, in what it returns, of the weights that are validated.
        """
        if self._folder is None:
            return
        self.place = (state.epoch, state.step)
        if ranks.is_main():
            self.wait()  # before the copy, so that there is never a second one
            began = time.monotonic()
            # Copies already; better weights take their place, and never change them.
            settled = on_host({"best_weights": self.best, "clean_weights": self.clean}, copied=False)
            checkpoint, kept = {**make(), **settled}, dict[str, Mapping[str, Tensor]]()
            if not self._best_saved or state.epoch == self._epochs:
                kept = self._kept(settled["best_weights"], settled["clean_weights"], checkpoint[judged], state.epoch)
            self.start(partial(self._write, self._folder, checkpoint, kept, began))
            self._best_saved = True
        self._saved = time.monotonic()

    def load(self, checkpoint: Mapping[str, Any], state: State, network: nn.Module) -> None:
        """Go on from a checkpoint.

        Args:
            checkpoint: as it was read.
            state: the run's, from the checkpoint.
            network: the one that is validated, with its weights.
        """
        assert self._folder is not None  # noqa: S101 - for the type checker
        self.place = (state.epoch, state.step)
        self.best, self.clean = checkpoint["best_weights"], checkpoint.get("clean_weights", {})
        if not self.clean and state.best_epoch:  # of an earlier version
            clean = [record.get("validation_clean_accuracy", -1.0) for record in state.history]
            state.best_clean = max(clean)
            if clean.index(state.best_clean) + 1 == state.best_epoch and state.best_clean >= 0:
                self.clean = self.best
        # Write both again: a crash may have happened after the checkpoint and before them.
        self._folder.write_history(state.history)
        if state.best_epoch:
            kept = self._kept(self.best, self.clean, network.state_dict(), state.epoch)
            self._write_weights(self._folder, kept, state.history, state.best_epoch)

    def _kept(
        self, best: Mapping[str, Tensor], clean: Mapping[str, Tensor], last: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Mapping[str, Tensor]]:
        """The best weights by the name of their file, and at the end the others that are kept, be they the same."""
        return {"best": best, "best-clean": clean, "last": last} if epoch == self._epochs else {"best": best}

    def _write(
        self, folder: RunFolder, checkpoint: Mapping[str, Any], kept: Mapping[str, Mapping[str, Tensor]], began: float
    ) -> None:
        """Write a checkpoint and what follows from it; in the saver's thread."""
        state = checkpoint["state"]
        self._write_weights(folder, kept, state["history"], state["best_epoch"])
        folder.save_last(checkpoint)
        folder.write_history(state["history"])
        self._took_s = time.monotonic() - began

    def _write_weights(
        self,
        folder: RunFolder,
        kept: Mapping[str, Mapping[str, Tensor]],
        history: Sequence[Mapping[str, Any]],
        best_epoch: int,
    ) -> None:
        epochs = {**kept_epochs(history), "best": best_epoch}
        for which, weights in kept.items():
            if weights and which in epochs:
                folder.save_weights(which, weights, {**self._description, "epoch": str(epochs[which])})
