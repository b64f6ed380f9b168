"""What a pass keeps in memory, how many images fit at once, and how to tell that they did not."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from robustmaps.engine.view import AttackView

# On a CPU larger batches leave the caches: of 16 to 256 on a ResNet-8, 64 and 128 were fastest, by a fifth against 256.
# A GPU wants to be filled.
_CPU_BATCH, _GPU_BATCH = 64, 512

# What an attack holds besides: its own images and what backward passes allocate.
_PART = 4

# Where Linux tells which control groups a process is in, and where the groups' files are.
_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usual_batch(device: torch.device) -> int:
    """The batch that suits a device where memory is no matter."""
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


def fitting_batch(view: AttackView, x: Tensor) -> int:
    """The largest power of two, up to the usual batch, whose gradients take a quarter of the free memory.

    Args:
        view: the network, on the device of ``x``.
        x: a few images (N, C, H, W) in [0, 1]; the first is used.
    """
    batch, free = usual_batch(x.device), free_bytes(x.device)
    if free is None:
        return batch
    each = max(_kept_bytes(view, x[:1].repeat(2, 1, 1, 1)) - _kept_bytes(view, x[:1]), 1)
    while batch > 1 and batch * each * _PART > free:
        batch //= 2
    return batch


@contextmanager
def saved_bytes(told: Callable[[int], None], *known: Tensor) -> Iterator[None]:
    """Within the block, tell of what is saved for backward passes: the bytes of each storage, once and whole.

    Args:
        told: called with the bytes of a storage as soon as it is saved.
        known: tensors whose storages don't count.
    """
    # By the address of the storage object: on the meta device its data has none. Kept, so that none is used again.
    seen = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in known)}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = storage
            told(storage.nbytes())
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, within the limits of a container or job; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return max(min([free, *_left_in_groups()]), 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _left_in_groups() -> Iterator[int]:
    """What each control group around this process, of a container or of a cluster's job, still lets it take.

    A group is charged for files that its processes read, too; the system drops those from memory when it needs room.
    """
    try:
        memberships = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if "memory" in controllers.split(","):
            root, limit, usage, prefix = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        elif not controllers:
            root, limit, usage, prefix = _GROUPS, "memory.max", "memory.current", ""
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # the root has no limit, and not every group sets one
                most, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
                lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                statistics = dict(line.split() for line in lines)
                cached = sum(int(statistics[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
                yield most - used + cached
            if folder == root:
                break


def _kept_bytes(view: AttackView, x: Tensor) -> int:
    """What a forward pass keeps for the backward pass, weights included."""
    kept: list[int] = []
    with saved_bytes(kept.append):
        view.gradient(x, lambda logits: logits.sum(1))
    return sum(kept)
