"""An epoch of shuffled, augmented batches that can be entered anywhere."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation
from robustmaps.data.sets import ImageSet, to_unit
from robustmaps.engine.errors import InputError
from robustmaps.engine.random import stream

_AHEAD = 2


def batches(
    images: ImageSet,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
    start_step: int = 0,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over one epoch.

    The order is drawn from the stream ``("order", epoch)`` of the seed and step k is augmented from the stream
    ``("augment", epoch, k)``, so an epoch entered at ``start_step`` yields what an uninterrupted one would have.

    A set on ``device`` is gathered and augmented there. One that is elsewhere (too large for the device) is gathered by
    a thread, two batches ahead, in ascending order of its rows within a batch, and augmented on the device.

    Args:
        images: the split; move it to the device first (``images.to(device)``) where it fits.
        batch_size: images in a batch; the last one may be smaller.
        seed: of the run.
        epoch: counted from 0.
        augmentation: applied to the bytes, on the device.
        device: where the batches are wanted.
        start_step: the first step to yield, counted from 0.
        drop_last: leave out a last batch that is not full.

    Returns:
        Pairs of images, float32 in [0, 1], (B, C, H, W), and labels, int64, (B,).

    Raises:
        InputError: at the call, a size or step out of range.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected at least 1 image")
    steps = len(images) // batch_size if drop_last else -(-len(images) // batch_size)
    if not 0 <= start_step <= steps:
        raise InputError(
            f"start_step={start_step}: expected 0 to {steps}, the steps of an epoch of {len(images)} images"
        )
    device = torch.device(device)
    order = torch.randperm(len(images), generator=stream(seed, "order", epoch))
    rows = [order[step * batch_size : (step + 1) * batch_size] for step in range(start_step, steps)]
    here = images.images.device == torch.empty(0, device=device).device
    gathered = _gather(images, rows) if here else _gather_ahead(images, rows, device)
    return _finish(gathered, start_step, augmentation, (seed, epoch), device)


def _finish(
    gathered: Iterator[tuple[Tensor, Tensor]],
    start_step: int,
    augmentation: Augmentation | None,
    seed_epoch: tuple[int, int],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    seed, epoch = seed_epoch
    for step, (x, y) in enumerate(gathered, start_step):
        if augmentation is not None:
            x = augmentation(x, stream(seed, "augment", epoch, step, device=device))
        yield to_unit(x), y


def _gather(images: ImageSet, rows: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in rows:
        index = chosen.to(images.images.device)
        yield images.images.index_select(0, index), images.labels.index_select(0, index)


def _gather_ahead(images: ImageSet, rows: list[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    def gather(chosen: Tensor) -> tuple[Tensor, Tensor]:
        # Ascending rows turn the reads of a memory map into one sweep over the file; the batch is put back in order.
        ascending, position = chosen.sort()
        x = torch.empty((len(chosen), *images.images.shape[1:]), dtype=torch.uint8, pin_memory=device.type == "cuda")
        x[position] = images.images.index_select(0, ascending)
        return x, images.labels.index_select(0, chosen)

    with ThreadPoolExecutor(max_workers=1) as thread:
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque(thread.submit(gather, chosen) for chosen in rows[:_AHEAD])
        for upcoming in [*rows[_AHEAD:], *[None] * min(_AHEAD, len(rows))]:
            x, y = pending.popleft().result()
            if upcoming is not None:
                pending.append(thread.submit(gather, upcoming))
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)
