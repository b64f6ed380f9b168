"""Memory: what a pass saves, and the batch that fits."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from robustmaps.engine.errors import NoGradientError

if TYPE_CHECKING:
    from robustmaps.engine.view import AttackView

# Larger batches overflow a CPU's caches: on a ResNet-8, of 16 to 256, 64 and 128 were fastest, a fifth faster than 256.
_CPU_BATCH, _GPU_BATCH = 64, 512

# Small images leave the caches room for more, up to this many saved bytes; gradients of 8 x 8 pixels are then 1.5 times
# as fast (ResNet-8, an AMD EPYC with 32 MB of L3). Not without limit: batches are what several processes share out.
_CPU_BYTES, _CPU_MOST = 42 * 10**6, 256

# Share of the free memory for saved tensors; the rest is for the attack's own images and its backward passes.
_PART = 4

# The control groups of this process on Linux, and the folder of their files.
_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usual_batch(device: torch.device) -> int:
    """The fastest batch size of a device, memory aside."""
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


def fitting_batch(view: "AttackView", x: Tensor) -> int:
    """The fastest batch size of a network: the device's usual one, on CPUs more for small images.

    It is halved until its gradients fit in a quarter of the free memory.

    Args:
        view: the network, on the device of ``x``.
        x: a few images (N, C, H, W) in [0, 1]; the first is used.
    """
    batch, free = usual_batch(x.device), free_bytes(x.device)
    if free is None and x.device.type != "cpu":
        return batch
    try:
        each = max(_kept_bytes(view, x[:1].repeat(2, 1, 1, 1)) - _kept_bytes(view, x[:1]), 1)
    except NoGradientError:  # so there are no gradients whose memory counts
        return batch
    while x.device.type == "cpu" and batch < _CPU_MOST and 2 * batch * each <= _CPU_BYTES:
        batch *= 2
    while batch > 1 and free is not None and batch * each * _PART > free:
        batch //= 2
    return batch


@contextmanager
def saved_bytes(told: Callable[[int], None], *known: Tensor) -> Iterator[None]:
    """Within the block, report each storage saved for backward passes, once.

    Args:
        told: called with the size in bytes of a storage when it is first saved.
        known: tensors whose storages don't count.
    """
    # Keyed by the address of the storage object, since data on the meta device has none; kept alive to stay unique.
    seen = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in known)}

    def note(tensor: Tensor) -> Tensor:
        for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
            storage = part.untyped_storage()
            if storage._cdata not in seen:
                seen[storage._cdata] = storage
                told(storage.nbytes())
        # The tensor itself would lead to the operation that saves it, which would then never be freed.
        return tensor.detach()

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, within the limits of a container or job; None where unknown."""
    if device.type == "cuda":
        # Blocks that PyTorch keeps for reuse count as used there.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
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


def _left_in_groups() -> Iterator[int]:
    """The memory left in each control group around this process (a container's or a cluster job's).

    A group's usage includes cached files, which the system drops when it needs room, so they count as free.
    """
    try:
        memberships = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
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


def _kept_bytes(view: "AttackView", x: Tensor) -> int:
    """Bytes that a forward pass saves for the backward pass, weights included."""
    kept: list[int] = []
    with saved_bytes(kept.append):
        view.gradient(x, lambda logits: logits.sum(1))
    return sum(kept)
