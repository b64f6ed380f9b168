import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.data import Augmentation
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
