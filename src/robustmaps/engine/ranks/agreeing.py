"""What ranks decide together: plain values that one sends to all, and all to each other."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

from robustmaps.engine.errors import InputError
from robustmaps.engine.ranks.present import is_main, rank, size

T = TypeVar("T")


class RankFailed(RuntimeError):  # noqa: N818 - named after the event
    """Another rank has failed, and says why itself."""


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[T | None] = [None] * size()
    with named():
        dist.all_gather_object(values, value)
    return cast(list[T], values)


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` returns on rank 0, on all ranks; or its error, on all."""
    if size() == 1:
        return make()
    import torch.distributed as dist

    sent: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_main():
        try:
            sent = [(make(), None)]
        except Exception as error:  # noqa: BLE001 - raised again, on every rank
            sent = [(None, error)]
    with named():
        dist.broadcast_object_list(sent, src=0)
    value, raised = sent[0]
    if raised is not None:
        raise raised
    return cast(T, value)


def any_rank(asked: bool) -> bool:
    """Whether any of the ranks asks for it."""
    return any(gather(asked))


def compare(what: str, values: Mapping[str, str]) -> None:
    """Refuse to go on if ranks have different values; rank 0 names them.

    Args:
        what: what the values are of, for the message.
        values: what must be the same, as text.

    Raises:
        InputError: on rank 0, with each name and both values.
        RankFailed: on the others.
    """
    everyone = gather(dict(values))
    apart = [
        f"{name}: {everyone[0].get(name)} on rank 0, {other.get(name)} on rank {number}"
        for number, other in enumerate(everyone)
        for name in sorted({*everyone[0], *other})
        if other.get(name) != everyone[0].get(name)
    ]
    if apart and is_main():
        shown = "; ".join(apart[:4]) + ("; ..." if len(apart) > 4 else "")
        raise InputError(f"the ranks of this run differ in {what} ({shown}); start all with the same")
    if apart:
        time.sleep(1.0)  # torchrun ends all with the first: let rank 0 speak
        raise RankFailed(f"rank {rank()}: differs from another rank in {what}, which rank 0 names")


@contextmanager
def named() -> Iterator[None]:
    """Errors of a collective say which rank has lost the others."""
    try:
        yield
    except RuntimeError as error:
        from robustmaps.engine.ranks.joining import LIMIT

        limit = os.environ.get(LIMIT)
        why = str(error).partition("\n")[0]
        raise RankFailed(
            f"rank {rank()}: lost another rank, which has ended or did not answer within the time limit"
            f"{'' if limit is None else f' ({LIMIT}={limit})'}: {why}"
        ) from error
