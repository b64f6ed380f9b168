"""The processes of one call, as torchrun starts them: rank 0 leads and records, the others wait and help.

Rank 0 makes most steps by itself. Before a step that is shared it tells the others which one, and what is recorded so
far; they wait for that in a group of their own, whose time limit is longer than the call. A shared step that fails on
any rank ends the call, since the ranks may have come to different places: rank 0 records it, and the same call goes on.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from gpu_parts.record import OutOfTime, Record, Step
from robustmaps.engine import ranks
from robustmaps.engine.ranks.present import Place

T = TypeVar("T")
_FAILED = "a rank failed"
_LOOK_S = 0.5
# For a rank to notice an error of another one by itself; a GPU's collectives do not.
_NOTICE_S = 5.0
_FAREWELL_S = 60.0
# Torchrun ends all with the first that ends: time for rank 0 to say its error.
_SPEAK_S = 2.0


@contextmanager
def by_itself() -> Iterator[None]:
    """Within the block this process shares no work, though others are there."""
    before, Place.here = Place.here, Place()
    try:
        yield
    finally:
        Place.here = before


class Together:
    """What the ranks of a call tell each other; of no effect in a process by itself.

    Args:
        limit_s: how long ranks may wait for rank 0.

    Attributes:
        broken: whether a shared step has failed, so that the call has to end.
    """

    def __init__(self, limit_s: float) -> None:
        self.broken = False
        several = ranks.size() > 1
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=limit_s)) if several else None
        self._store: Any = dist.distributed_c10d._get_default_store() if several else None

    def first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on each rank, on rank 0 before the others, which find its cache.

        Raises:
            SystemExit: on the others, if rank 0 has raised an error.
        """
        if self._group is None:
            return make()
        if ranks.is_main():
            made: list[T] = []
            try:
                with by_itself():
                    made.append(make())
            finally:
                self._tell(bool(made))
            return made[0]
        if not self._tell(None):
            time.sleep(_SPEAK_S)
            raise SystemExit(1)
        return make()

    def led(self, steps: Iterable[Step], record: Record) -> Iterator[Step]:
        """On rank 0: the steps, until a shared one fails; those that are shared are made by all ranks."""
        for step in steps:
            if self.broken:
                return
            yield step if self._group is None else replace(step, run=lambda step=step: self._lead(step, record))

    def _lead(self, step: Step, record: Record) -> dict[str, Any]:
        if not step.shared:
            with by_itself():
                return step.run()
        self._tell((step.name, record.values))
        with self._watching(step, record):
            try:
                return step.run()
            except OutOfTime:
                raise
            except BaseException:
                self.broken = True
                raise

    @contextmanager
    def _watching(self, step: Step, record: Record) -> Iterator[None]:
        """End the call if another rank fails and this one does not notice, and waits for it."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_S):
                if self._store.check([_FAILED]):
                    if not over.wait(_NOTICE_S):
                        record.give_up(step.name, self._store.get(_FAILED).decode())
                        _leave()
                    return

        watch = threading.Thread(target=look, daemon=True)
        # Torchrun ends all ranks with the first that ends; this one still has to record why, and then ends itself.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            if not self.broken:
                signal.signal(signal.SIGTERM, before)

    def follow(self, steps: Callable[[], Iterable[Step]], record: Record) -> None:
        """On the other ranks: make the shared steps that rank 0 says, until it ends the call.

        Raises:
            SystemExit: a step failed, and rank 0 was told.
        """
        while (order := self._tell(None)) is not None:
            name, record.values = order
            try:
                next(step for step in steps() if step.name == name).run()
            except OutOfTime:
                continue
            except Exception:  # noqa: BLE001 - whatever it is, rank 0 records it
                self._fail()

    def _fail(self) -> None:
        deadline = time.monotonic() + _FAREWELL_S
        try:
            self._store.set(_FAILED, f"rank {ranks.rank()}: {traceback.format_exc()}")
            while time.monotonic() < deadline:  # until rank 0, which has the store, has gone
                time.sleep(_LOOK_S)
                self._store.check([_FAILED])
        except RuntimeError:
            pass
        _leave()

    def end(self) -> None:
        """On rank 0: let the others go; where a shared step has failed, this process ends here, with exit code 1."""
        if self.broken:
            _leave()
        if self._group is not None:
            self._tell(None)

    def _tell(self, what: Any) -> Any:
        """What rank 0 says."""
        said = [what]
        dist.broadcast_object_list(said, src=0, group=self._group)
        return said[0]


def _leave() -> None:
    """End this process though others may still wait for it in a collective, which closing properly would wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
