"""Copies of an image are found, and never stand on both sides of a split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustmaps import data
from robustmaps.data import occur_in
from robustmaps.data.copies import copies, keep_together
from robustmaps.data.splits import held_out


def some_images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_copies_are_found_however_alike_others_are() -> None:
    images = some_images(8)
    images[3] = images[6] = images[1]
    images[4] = images[1]
    images[4, 0, 0, 0] += 1  # the same middle row
    images[7] = images[0]
    assert sorted(copies(images)) == [[0, 7], [1, 3, 6]]
    assert occur_in(images[3:6], images[:3]).tolist() == [True, False, False]
    assert copies(some_images(2000)) == []


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.data())
def test_a_group_is_held_out_together_or_not_at_all(kinds: list[int], draw: st.DataObject) -> None:
    groups = [[row for row, kind in enumerate(kinds) if kind == each] for each in range(5)]
    groups = [group for group in groups if len(group) > 1]
    chosen = torch.tensor(draw.draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds))))
    kept = keep_together(chosen, groups)
    assert all(len({bool(kept[row]) for row in group}) == 1 for group in groups)
    alone = [row for row in range(len(kinds)) if not any(row in group for group in groups)]
    assert torch.equal(kept[alone], chosen[alone])


def test_without_copies_a_choice_is_what_it_was() -> None:
    labels = torch.arange(100) % 5
    plain = held_out(labels, 20, seed=3, purpose="test")
    assert torch.equal(plain, held_out(labels, 20, seed=3, purpose="test", groups=[]))
    assert torch.equal(plain, held_out(labels, 20, seed=3, purpose="test", groups=[plain[:2].tolist()]))


@pytest.mark.parametrize("times", [2, 5])
def test_copies_in_a_source_stay_on_one_side(times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    images = some_images(40).permute(0, 2, 3, 1).numpy()
    labels = np.arange(40) % 4
    path = tmp_path / "copies.npz"
    np.savez(path, images=np.concatenate([images] * times), labels=np.concatenate([labels] * times))
    for _ in range(2):  # decoded, then from the cache
        loaded = data.load(path, validation=0.2)
        splits = (loaded.train.images, loaded.validation.images, loaded.test.images)
        assert sum(map(len, splits)) == 40 * times
        assert all(len(split) and len(split) % times == 0 for split in splits)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not occur_in(splits[one], splits[other]).any()
