import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.data import Augmentation, ImageSet, batches
from robustmaps.data.batches import _gather_ahead


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


def test_images_elsewhere_arrive_in_the_same_order() -> None:
    images, rows = numbered(30), list(torch.randperm(30).split(7))
    for (x, y), expected in zip(_gather_ahead(images, rows, torch.device("cpu")), rows, strict=True):
        assert torch.equal(y, expected)
        assert torch.equal(x[:, 0, 0, 0].long(), expected)


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
    with pytest.raises(ValueError, match=r"batch_size=0: expected at least 1"):
        batches(numbered(4), 0, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"start_step=3: expected 0 to 2, the steps of an epoch of 4 images"):
        batches(numbered(4), 2, seed=0, epoch=0, start_step=3)
