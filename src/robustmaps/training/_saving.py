"""Checkpoints written beside training: a copy of the state in host memory, and one thread that writes it."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from torch import Tensor


def on_host(state: Any, *, copied: bool = True) -> Any:
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

    return moved(state)


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
