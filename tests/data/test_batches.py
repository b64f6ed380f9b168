import mmap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.data import Augmentation, Dataset, Extra, ImageSet, ResizedCrop, batches, place
from robustmaps.data import memory_map as rows


def numbered(count: int) -> ImageSet:
    """Images that hold their own number, labelled with it."""
    labels = torch.arange(count)
    return ImageSet(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 4, 4).contiguous(), labels)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 50), size=st.integers(1, 20), data=st.data())
def test_an_epoch_entered_late_equals_the_uninterrupted_one(count: int, size: int, data: st.DataObject) -> None:
    images = ImageSet(torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8), torch.arange(count))
    settings_ = {"seed": 1, "epoch": 2, "augmentation": Augmentation(pad=2, flip=True)}
    whole = list(batches(images, size, **settings_))
    start = data.draw(st.integers(0, len(whole)))
    rest = list(batches(images, size, start_step=start, **settings_))
    assert len(rest) == len(whole) - start
    for (x, y), (x_whole, y_whole) in zip(rest, whole[start:], strict=True):
        assert torch.equal(x, x_whole)
        assert torch.equal(y, y_whole)


def test_every_image_comes_once_with_its_label_in_another_order_each_epoch() -> None:
    images = numbered(25)
    orders = []
    for epoch in range(2):
        epochs = list(batches(images, 8, seed=0, epoch=epoch))
        assert [len(y) for _, y in epochs] == [8, 8, 8, 1]
        order = torch.cat([y for _, y in epochs])
        pixels = torch.cat([x for x, _ in epochs])
        assert pixels.dtype == torch.float32
        assert torch.equal((pixels[:, 0, 0, 0] * 255).round().long(), order)
        assert torch.equal(order.sort().values, torch.arange(25))
        orders.append(order)
    assert not torch.equal(*orders)


def test_seed_decides_and_augmentation_leaves_the_order_alone() -> None:
    def order(seed: int, augmentation: Augmentation | None = None) -> list[int]:
        return [int(n) for _, y in batches(numbered(20), 6, seed=seed, epoch=0, augmentation=augmentation) for n in y]

    assert order(0) == order(0, Augmentation(pad=1, flip=True)) != order(1)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 50),
    size=st.integers(1, 20),
    workers=st.integers(1, 4),
    share=st.sampled_from([None, 0.3, 0.7]),
    data=st.data(),
)
def test_workers_change_nothing(count: int, size: int, workers: int, share: float | None, data: st.DataObject) -> None:
    extra = None if share is None or size < 3 else Extra(numbered(90), share, "extra")
    settings_ = {"seed": 3, "epoch": 1, "augmentation": Augmentation(pad=1, flip=True), "extra": extra}
    start = data.draw(st.integers(0, -(-count // size)))
    expected = list(batches(numbered(count), size, start_step=start, **settings_))
    found = list(batches(numbered(count), size, start_step=start, workers=workers, **settings_))
    assert len(found) == len(expected)
    for (x, y), (x_expected, y_expected) in zip(found, expected, strict=True):
        assert torch.equal(x, x_expected)
        assert torch.equal(y, y_expected)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 20),
    workers=st.integers(0, 2),
    share=st.sampled_from([None, 0.3, 0.7]),
    crop=st.booleans(),
    data=st.data(),
)
def test_some_rows_of_a_batch_are_those_of_the_whole_batch(
    count: int, size: int, workers: int, share: float | None, crop: bool, data: st.DataObject
) -> None:
    extra = None if share is None or size < 3 else Extra(numbered(90), share, "extra")
    augmentation = ResizedCrop(3) if crop else Augmentation(pad=1, flip=True)
    settings_ = {"seed": 3, "epoch": 1, "augmentation": augmentation, "extra": extra}
    rows = {
        n: torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
        for n in {min(size, count), count % size} - {0}
    }
    found = list(batches(numbered(count), size, workers=workers, own=rows.__getitem__, **settings_))
    expected = list(batches(numbered(count), size, **settings_))
    assert len(found) == len(expected)
    for (x, y), (x_expected, y_expected) in zip(found, expected, strict=True):
        assert torch.equal(x, x_expected[rows[len(y_expected)]])
        assert torch.equal(y, y_expected[rows[len(y_expected)]])


def test_an_epoch_that_is_left_early_leaves_no_thread_at_work() -> None:
    before = threading.active_count()
    epoch = batches(numbered(100), 5, seed=0, epoch=0, workers=3)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_entering_late_reads_nothing_that_comes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    images = numbered(1000)
    order = torch.cat([y for _, y in batches(images, 10, seed=0, epoch=0)])
    read: list[int] = []

    original = torch.index_select

    def counting(rows: torch.Tensor, dim: int, index: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        if rows is images.images:
            read.extend(index.tolist())
        return original(rows, dim, index, out=out)

    monkeypatch.setattr(torch, "index_select", counting)
    for workers in (0, 2):
        read.clear()
        late = [y for _, y in batches(images, 10, seed=0, epoch=0, start_step=98, workers=workers)]
        assert torch.equal(torch.cat(late), order[980:])
        assert sorted(read) == sorted(order[980:].tolist())


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system takes no hints about memory maps")
def test_workers_ask_for_whole_images_before_they_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(rows, "_madvise", lambda *call: asked.append(call))
    images = torch.zeros(40, 3, 50, 50, dtype=torch.uint8)[:, :, 5:45, 5:45]  # a cropped view, as without crops
    epoch = batches(ImageSet(images, torch.arange(40)), 8, seed=0, epoch=0, workers=1)
    _, labels = next(epoch)
    epoch.close()
    begins = [images[label].data_ptr() for label in labels.sort().values]
    (everything, _, advice), *ahead = asked
    assert advice == mmap.MADV_RANDOM
    assert everything <= images.data_ptr()
    for begin, (address, size, advice) in zip(begins, ahead, strict=False):
        assert advice == mmap.MADV_WILLNEED
        assert address % mmap.PAGESIZE == 0
        assert begin - mmap.PAGESIZE < address <= begin
        assert address + size == begin + 2 * 50 * 50 + 39 * 50 + 40


def test_hints_change_nothing_of_a_memory_map(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (30, 3, 50, 50), dtype=np.uint8)
    with rows.RowFile(tmp_path / "x.npy") as file:
        file.append(expected)
    images = torch.from_numpy(rows.map_rows(tmp_path / "x.npy"))
    images[29] = torch.from_numpy(expected[3])  # stays in this process
    expected[29] = expected[3]
    rows.expect_random_reads(images)
    rows.read_ahead(images, torch.arange(30).flip(0))
    assert np.array_equal(images.numpy(), expected)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(3, 60), size=st.integers(3, 20), share=st.floats(0.2, 0.8), data=st.data())
def test_every_batch_has_its_share_of_extra_images(count: int, size: int, share: float, data: st.DataObject) -> None:
    own = ImageSet(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count))
    extra = Extra(ImageSet(torch.full((7, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(1000, 1007)), share, "white")
    whole = list(batches(own, size, seed=1, epoch=2, extra=extra))
    assert [len(y) for _, y in whole] == [len(y) for _, y in batches(own, size, seed=1, epoch=2)]
    for x, y in whole:
        assert int((y >= 1000).sum()) == round(share * len(y))
        assert torch.equal(y >= 1000, x[:, 0, 0, 0] == 1)
    seen = torch.cat([y[y < 1000] for _, y in whole])
    assert len(seen.unique()) == len(seen)
    start = data.draw(st.integers(0, len(whole)))
    rest = list(batches(own, size, seed=1, epoch=2, extra=extra, start_step=start))
    assert all(torch.equal(y, expected) for (_, y), (_, expected) in zip(rest, whole[start:], strict=True))


def test_other_epochs_see_other_images_and_other_extra_images() -> None:
    extra = Extra(numbered(200), 0.5, "extra")
    first, second = (
        torch.cat([y for _, y in batches(numbered(40), 8, seed=0, epoch=epoch, extra=extra)]) for epoch in range(2)
    )
    assert not torch.equal(first.sort().values, second.sort().values)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    extra = Extra(numbered(4), 0.05, "extra")
    with pytest.raises(ValueError, match=r"with a share of 0\.05, batches of 8 contain only one kind of image"):
        batches(numbered(40), 8, seed=0, epoch=0, extra=extra)
    with pytest.raises(ValueError, match=r"share=1: expected a share"):
        Extra(numbered(4), 1, "extra")


def test_crops_give_batches_of_their_own_size() -> None:
    x, _ = next(batches(numbered(10), 6, seed=0, epoch=0, augmentation=ResizedCrop(2), workers=1))
    assert x.shape == (6, 3, 2, 2)


def test_what_is_larger_than_its_share_of_memory_is_streamed(make_dataset: Callable[..., Dataset]) -> None:
    data, cpu = make_dataset(), torch.device("cpu")
    assert not place(data, cpu, 0.5).streamed
    assert place(data, cpu, 0).streamed
    assert place(data, cpu, 1e-12).streamed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_yields_the_order_of_the_cpu() -> None:
    images = numbered(40)
    expected = [y for _, y in batches(images, 9, seed=0, epoch=0)]
    for source in (images, images.to("cuda")):
        found = list(batches(source, 9, seed=0, epoch=0, augmentation=Augmentation(1, flip=True), device="cuda"))
        assert all(x.is_cuda and torch.equal(y.cpu(), e) for (x, y), e in zip(found, expected, strict=True))


def test_drop_last() -> None:
    assert [len(y) for _, y in batches(numbered(20), 8, seed=0, epoch=0, drop_last=True)] == [8, 8]


def test_values_are_exactly_bytes_over_255() -> None:
    images = numbered(256)
    x = torch.cat([x for x, _ in batches(images, 256, seed=0, epoch=0)])
    assert torch.equal(x[:, 0, 0, 0].sort().values, torch.arange(256) / 255)


def test_bad_arguments_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="batch_size=0: expected a whole number of at least 1"):
        batches(numbered(4), 0, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"start_step=3: expected 0 to 2, the number of steps in an epoch of 4 images"):
        batches(numbered(4), 2, seed=0, epoch=0, start_step=3)
