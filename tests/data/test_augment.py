import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.data import Augmentation, ResizedCrop
from robustmaps.engine.random import stream


def draw(augmentation: Augmentation, images: torch.Tensor, seed: int) -> torch.Tensor:
    return augmentation(images, stream(seed, "augment"))


@settings(deadline=None, max_examples=40)
@given(
    pad=st.integers(0, 3),
    flip=st.booleans(),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    seed=st.integers(0, 1000),
)
def test_every_image_is_a_window_of_the_reflect_padded_original(
    pad: int, flip: bool, height: int, width: int, seed: int
) -> None:
    images = torch.randint(0, 256, (6, 3, height, width), generator=stream(seed, "images"), dtype=torch.uint8)
    result = draw(Augmentation(pad, flip), images, seed)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    for original, augmented in zip(images.numpy(), result.numpy(), strict=True):
        padded = np.pad(original, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        windows = [
            padded[:, top : top + height, left : left + width]
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
        ]
        if flip:
            windows += [window[:, :, ::-1] for window in windows]
        assert any(np.array_equal(augmented, window) for window in windows)


def test_shifts_and_flips_are_uniform() -> None:
    ramp = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).expand(4000, 1, 5, 5)
    result = draw(Augmentation(pad=1, flip=True), ramp, 0)
    _, counts = result.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 3 * 3 * 2
    assert counts.min() > 4000 / 18 * 0.7
    assert counts.max() < 4000 / 18 * 1.3


def test_floats_are_moved_as_bytes_are() -> None:
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    augmentation = Augmentation(pad=2, flip=True)
    assert torch.equal(draw(augmentation, images.float(), 3), draw(augmentation, images, 3).float())


def test_nothing_to_do_returns_the_batch() -> None:
    images = torch.zeros(2, 1, 4, 4)
    assert draw(Augmentation(), images, 0) is images


def test_refuses_a_pad_that_cannot_be_reflected() -> None:
    with pytest.raises(ValueError, match=r"pad=4: must be smaller than the image, which is 4 x 8"):
        draw(Augmentation(pad=4), torch.zeros(1, 1, 4, 8), 0)
    with pytest.raises(ValueError, match=r"pad=-1: expected"):
        Augmentation(pad=-1)


def test_recommendation() -> None:
    assert Augmentation.recommended(3, 32, 32) == Augmentation(pad=4, flip=True)
    assert Augmentation.recommended(1, 8, 8) == Augmentation(pad=1, flip=False)
    assert Augmentation.recommended(1, 28, 28, flip=True) == Augmentation(pad=3, flip=True)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(6, 20), width=st.integers(6, 20), size=st.integers(1, 12), seed=st.integers(0, 1000))
def test_a_resized_crop_of_a_plane_is_a_plane(height: int, width: int, size: int, seed: int) -> None:
    """Bilinear resampling keeps what is linear, so the box of every crop can be read off its values."""
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float()[None].expand(height, width)
    images = torch.stack([rows, columns]).expand(8, 2, height, width)
    crop = ResizedCrop(size, flip=False, scale=(0.2, 0.6))
    result = draw(crop, images, seed)
    assert result.shape == (8, 2, size, size)
    box_width, box_height, left, top = crop._boxes(images, stream(seed, "augment"))
    centres = (torch.arange(size) + 0.5) / size
    expected_rows = ((top[:, None] + box_height[:, None] * centres) * height - 0.5).clamp(0, height - 1)
    expected_columns = ((left[:, None] + box_width[:, None] * centres) * width - 0.5).clamp(0, width - 1)
    torch.testing.assert_close(result[:, 0], expected_rows[:, :, None].expand(-1, -1, size), atol=1e-4, rtol=0)
    torch.testing.assert_close(result[:, 1], expected_columns[:, None, :].expand(-1, size, -1), atol=1e-4, rtol=0)


def test_crops_have_the_area_and_shape_asked_for() -> None:
    images = torch.zeros(4000, 1, 10, 10, dtype=torch.uint8)
    width, height, left, top = ResizedCrop(8)._boxes(images, stream(0, "augment"))
    for side, start in ((width, left), (height, top)):
        assert float(start.min()) >= 0
        assert float((start + side).max()) <= 1 + 1e-6
    assert 0.08 <= float((width * height).min()) < 0.09
    assert 0.9 < float((width * height).max()) <= 1
    assert 3 / 4 - 1e-4 <= float((width / height).min()) < 0.76
    assert 1.32 < float((width / height).max()) <= 4 / 3 + 1e-4


def test_the_whole_image_as_crop_is_the_image_or_its_mirror() -> None:
    images = torch.randint(0, 256, (200, 3, 9, 9), dtype=torch.uint8, generator=stream(0, "images"))
    whole = ResizedCrop(9, flip=False, scale=(1, 1), ratio=(1, 1))
    assert torch.equal(draw(whole, images, 0), images)
    flipped = draw(ResizedCrop(9, scale=(1, 1), ratio=(1, 1)), images, 0)
    mirrored = [torch.equal(image, original.flip(2)) for image, original in zip(flipped, images, strict=True)]
    same = [torch.equal(image, original) for image, original in zip(flipped, images, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130


def test_bad_crops() -> None:
    with pytest.raises(ValueError, match=r"size=0: expected"):
        ResizedCrop(0)
    with pytest.raises(ValueError, match=r"scale=\(0\.5, 2\): expected"):
        ResizedCrop(8, scale=(0.5, 2))
    with pytest.raises(ValueError, match=r"ratio=\(2, 1\): expected"):
        ResizedCrop(8, ratio=(2, 1))
