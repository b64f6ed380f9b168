"""Shuffled, augmented batches of one epoch, which can start at any step."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation, Part, ResizedCrop
from robustmaps.data.memory_map import expect_random_reads, read_ahead
from robustmaps.data.sets import Extra, ImageSet, to_unit
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.random import stream

_Rows = tuple[Tensor, Tensor | None]


def batches(
    images: ImageSet,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation | ResizedCrop | None = None,
    extra: Extra | None = None,
    device: torch.device | str = "cpu",
    start_step: int = 0,
    drop_last: bool = False,
    workers: int = 0,
    own: Callable[[int], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over one epoch.

    The order comes from the seed's stream ``("order", epoch)`` and the augmentation of step k from
    ``("augment", epoch, k)``. So starting at ``start_step`` yields what an uninterrupted epoch would have, without
    reading earlier images. The location of the images and the number of workers don't affect the result.

    A set on ``device`` is gathered and augmented there. With workers, or if the set is elsewhere because it is too
    large, threads gather some batches ahead, and the device augments them.

    ``extra`` does not change the number of steps or images of an epoch, but only ``1 - extra.share`` of each batch is
    from ``images``, each at most once an epoch. The rest is drawn with replacement from the extra images, by the stream
    ``("extra", epoch, k)``, and comes last in the batch.

    Args:
        images: the split; move it to the device first (``images.to(device)``) if it fits.
        batch_size: images in a batch; the last one may be smaller.
        seed: the run's seed.
        epoch: counted from 0.
        augmentation: applied to the bytes, on the device.
        extra: images that a share of each batch is drawn from; on the device of ``images``.
        device: the device of the batches.
        start_step: the first step to yield, counted from 0.
        drop_last: omit an incomplete last batch.
        workers: threads that gather ahead; with 0, one thread does so only for images on another device.
        own: for a size of batch, the rows of it that are wanted, int64, (n,), ascending. Only these are read and
            augmented, as they would be in the whole batch, and yielded. Default: all.

    Returns:
        Pairs of images, float32 in [0, 1], (B, C, H, W), and labels, int64, (B,).

    Raises:
        InputError: at the call: a size or step is out of range, or a batch is too small for its extra images.
    """
    check_whole("batch_size", batch_size, 1)
    check_whole("workers", workers, 0)
    steps = len(images) // batch_size if drop_last else -(-len(images) // batch_size)
    if not 0 <= start_step <= steps:
        raise InputError(
            f"start_step={start_step}: expected 0 to {steps}, the number of steps in an epoch of {len(images)} images"
        )
    if extra is not None and not 0 < extra.count(batch_size) < batch_size:
        raise InputError(
            f"extra images: with a share of {extra.share:g}, batches of {batch_size} contain only one kind of image; "
            "choose larger batches or another share"
        )
    device = torch.device(device)
    sizes = [min(batch_size, len(images) - step * batch_size) for step in {0, steps - 1} if 0 <= step < steps]
    parts = {size: Part(size, (own or torch.arange)(size)) for size in sizes}
    rows = _rows(images, extra, batch_size, (seed, epoch), range(start_step, steps), parts)
    here = images.images.device == torch.empty(0, device=device).device
    sources = (images, None if extra is None else extra.images)
    gathered = _gather(sources, rows) if here and not workers else _gather_ahead(sources, rows, device, workers or 1)
    at = range(start_step, steps)
    return _finish(zip(at, gathered, strict=True), len(images), batch_size, augmentation, (seed, epoch), device, parts)


def _finish(
    gathered: Iterator[tuple[int, tuple[Tensor, Tensor]]],
    total: int,
    batch_size: int,
    augmentation: Augmentation | ResizedCrop | None,
    seed_epoch: tuple[int, int],
    device: torch.device,
    parts: Mapping[int, Part],
) -> Iterator[tuple[Tensor, Tensor]]:
    seed, epoch = seed_epoch
    parts = {size: Part(size, part.rows.to(device)) for size, part in parts.items()}
    for step, (x, y) in gathered:
        if augmentation is not None:
            part = parts[min(batch_size, total - step * batch_size)]
            x = augmentation(x, stream(seed, "augment", epoch, step, device=device), part)
        yield to_unit(x), y


def _rows(
    images: ImageSet,
    extra: Extra | None,
    batch_size: int,
    seed_epoch: tuple[int, int],
    steps: range,
    parts: Mapping[int, Part],
) -> Iterator[_Rows]:
    """The rows of the images and of the extra images, for each step and the part of its batch."""
    seed, epoch = seed_epoch
    order = torch.randperm(len(images), generator=stream(seed, "order", epoch))
    full = batch_size if extra is None else batch_size - extra.count(batch_size)
    for step in steps:
        size = min(batch_size, len(images) - step * batch_size)
        part = parts[size].rows
        if extra is None:
            yield order[step * full : step * full + size][part], None
            continue
        drawn = extra.count(size)
        generator = stream(seed, "extra", epoch, step)
        own = order[step * full : step * full + size - drawn]
        others = torch.randint(len(extra.images), (drawn,), generator=generator)
        yield own[part[part < len(own)]], others[part[part >= len(own)] - len(own)]


def _gather(sources: tuple[ImageSet, ImageSet | None], rows: Iterator[_Rows]) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in rows:
        for source, index in zip(sources, chosen, strict=True):
            if source is not None and index is not None:
                source.verify(index)
        parts = [
            (
                torch.index_select(source.images, 0, index.to(source.images.device)),
                source.labels.index_select(0, index.to(source.images.device)),
            )
            for source, index in zip(sources, chosen, strict=True)
            if source is not None and index is not None
        ]
        yield parts[0] if len(parts) == 1 else (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _gather_ahead(
    sources: tuple[ImageSet, ImageSet | None], rows: Iterator[_Rows], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    shape = sources[0].images.shape[1:]
    for source in sources:
        if source is not None:
            expect_random_reads(source.images)

    def gather(chosen: _Rows) -> tuple[Tensor, Tensor]:
        pairs = [(s, index) for s, index in zip(sources, chosen, strict=True) if s is not None and index is not None]
        x = torch.empty(
            (sum(len(index) for _, index in pairs), *shape), dtype=torch.uint8, pin_memory=device.type == "cuda"
        )
        begin = 0
        for source, index in pairs:
            read_ahead(source.images, index)
            source.verify(index)
            torch.index_select(source.images, 0, index, out=x[begin : begin + len(index)])
            begin += len(index)
        return x, torch.cat([source.labels.index_select(0, index) for source, index in pairs])

    with ThreadPoolExecutor(max_workers=workers) as threads:
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            pending.extend(threads.submit(gather, chosen) for chosen in islice(rows, 2 * workers))
            while pending:
                x, y = pending.popleft().result()
                pending.extend(threads.submit(gather, chosen) for chosen in islice(rows, 1))
                yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        finally:
            for future in pending:
                future.cancel()
