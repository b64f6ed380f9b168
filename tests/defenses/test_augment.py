"""Strong augmentation: inside [0, 1], by name of the generator, one operation an image."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.defenses._augment import strongly_augmented


@given(st.integers(1, 40), st.sampled_from([1, 3]), st.integers(4, 12), st.integers(4, 12), st.integers(0, 1000))
def test_images_stay_images(count: int, channels: int, height: int, width: int, seed: int) -> None:
    x = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))
    kept = x.clone()
    once, again = (strongly_augmented(x, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert once.shape == x.shape
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    assert torch.equal(once, again)
    assert torch.equal(x, kept)


def test_most_images_change_and_a_few_stay() -> None:
    x = torch.rand(2600, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    same = (strongly_augmented(x, torch.Generator().manual_seed(1)) == x).flatten(1).all(1).float().mean()
    # One of 13 operations is none; a few others, such as a stretch of what is stretched, change nothing either.
    assert 1 / 13 - 0.03 < float(same) < 1 / 13 + 0.06


def test_geometry_moves_in_black() -> None:
    x = torch.ones(500, 1, 9, 9)
    result = strongly_augmented(x, torch.Generator().manual_seed(0))
    assert bool((result == 0).any())
