import subprocess
import sys

import pytest
import torch

from robustmaps.data import ImageSet
from robustmaps.data.statistics import channel_statistics


def test_subset_is_stratified_and_seeded() -> None:
    labels = torch.arange(4).repeat_interleave(25)
    images = ImageSet(torch.randint(0, 256, (100, 1, 2, 2), dtype=torch.uint8), labels)
    chosen = images.subset(20)
    assert chosen.labels.bincount().tolist() == [5, 5, 5, 5]
    assert torch.equal(chosen.images, images.subset(20).images)
    assert not torch.equal(chosen.images, images.subset(20, seed=1).images)
    assert images.subset(1000) is images
    assert torch.equal(images.subset(torch.tensor([3, 1])).images, images.images[[3, 1]])
    with pytest.raises(ValueError, match="count=0: expected a whole number of at least 1"):
        images.subset(0)


def test_tensors_are_floats_in_the_unit_interval() -> None:
    images = ImageSet(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.tensor([0, 1, 0]))
    x, y = images.tensors()
    assert x.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert y is images.labels


def test_refuses_what_is_no_set_of_images() -> None:
    with pytest.raises(ValueError, match=r"float32 and shape \(2, 1, 2, 2\): expected uint8"):
        ImageSet(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels .* shape \(3,\): expected int64 of shape \(2,\)"):
        ImageSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


def test_statistics_match_a_direct_computation() -> None:
    images = torch.randint(0, 256, (5000, 3, 2, 3), dtype=torch.uint8)
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    x = images.double() / 255
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist())
    assert std[:2] == pytest.approx(x.std((0, 2, 3), correction=0).tolist()[:2])
    assert std[2] == 1


def test_statistics_of_large_images_take_little_memory() -> None:
    # One zero stands for 300 images of 3 x 512 x 512: 0.2 GB as bytes, 0.9 GB as the numbers that are summed.
    program = """
import resource, torch
from robustmaps.data.statistics import channel_statistics
images = torch.zeros(1, dtype=torch.uint8).expand(300, 3, 512, 512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
channel_statistics(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 300e6
