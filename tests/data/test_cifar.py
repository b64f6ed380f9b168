"""The real data: CIFAR-10 as a tar archive of JPEG files in class folders, where there is one."""

import os
import time
from pathlib import Path

import pytest

from robustmaps.data import Augmentation, batches, load


@pytest.mark.slow
def test_cifar10_loads_and_loads_again_in_under_two_seconds(tmp_path: Path) -> None:
    archive = os.environ.get("ROBUSTMAPS_CIFAR10")
    if not archive:
        pytest.skip("ROBUSTMAPS_CIFAR10 is not set to a tar archive of CIFAR-10 in class folders")
    load(archive, cache_dir=tmp_path)
    start = time.perf_counter()
    data = load(archive, cache_dir=tmp_path)
    seconds = time.perf_counter() - start
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert data.train.labels.bincount().tolist() == [4500] * 10
    assert data.classes[:2] == ("airplane", "automobile")
    assert data.augmentation == Augmentation(pad=4, flip=True)
    assert data.mean == pytest.approx((0.4914, 0.4824, 0.4467), abs=2e-3)
    assert seconds < 2
    assert sum(len(y) for _, y in batches(data.train, 128, seed=0, epoch=0, augmentation=data.augmentation)) == 45_000
