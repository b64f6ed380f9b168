"""Join the other processes of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from robustmaps.engine.errors import InputError
from robustmaps.engine.ranks.present import Place

LIMIT = "ROBUSTMAPS_RANK_LIMIT_S"
"""The environment variable with the time limit of a collective, in seconds."""
# Longer than another rank may write a checkpoint, or attack the largest batch.
_USUAL_LIMIT_S = 1800.0


@contextmanager
def joined() -> Iterator[None]:
    """Within the block, this process is the rank that torchrun's environment says; without one it is by itself.

    The CPU's collectives go through gloo, a GPU's through NCCL. A rank that is dead, or waited for longer than the time
    limit, ends the others with an error.

    Raises:
        InputError: a variable of the environment is not a number in its range, or the others can't be reached.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or _number("WORLD_SIZE", 1) == 1:
        yield
        return
    size = _number("WORLD_SIZE", 1)
    place = Place(_number("RANK", 0, size - 1), size, _number("LOCAL_WORLD_SIZE", 1, size, size))
    local, limit_s = _number("LOCAL_RANK", 0, usual=place.rank), _limit_s()
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise InputError(f"WORLD_SIZE={size}: this PyTorch has no torch.distributed; run one process")
    backend = "gloo"
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    # PyTorch imports this with the first optimizer, and it keeps the group that it finds then in its functions' default
    # arguments: the group's threads would outlive it, and abort the process if one dropped a tensor while Python ends.
    import torch.distributed.nn.functional

    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=limit_s))
    except (RuntimeError, ValueError) as error:  # also of the address and port, in their own words
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise InputError(f"rank {place.rank} can't join the {size} processes at {address}: {error}") from error
    Place.here = place
    try:
        yield
    finally:
        Place.here = Place()
        dist.destroy_process_group()


def _number(name: str, least: int, most: int | None = None, usual: int | None = None) -> int:
    text = os.environ.get(name, "" if usual is None else str(usual))
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        bound = "" if most is None else f" to {most}"
        raise InputError(f"{name}={text!r}: expected a whole number from {least}{bound}; start the ranks with torchrun")
    return int(text)


def _limit_s() -> float:
    text = os.environ.get(LIMIT, str(_USUAL_LIMIT_S))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e7:
        raise InputError(f"{LIMIT}={text!r}: expected seconds above 0, such as 1800")
    return limit
