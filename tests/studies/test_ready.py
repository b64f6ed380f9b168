"""Ready studies: their cost as the list has it, corrupted images, and features in the plane."""

import numpy as np
import pytest
import torch

from robustmaps.config import AttackConfig, DataConfig, DefenseConfig, EvaluationConfig, RunConfig, ready_studies
from robustmaps.data import open_corruptions
from robustmaps.engine.errors import InputError
from robustmaps.runs import train
from robustmaps.studies import corrupted_test_images, features_in_plane
from robustmaps.training import TrainOptions
from tests.helpers.ready_flops import ready_flops

CHEAP = [("transfer", "full"), ("cost", "cpu")]
OTHERS = [(name, scale) for name in ready_studies() for scale in ("full", "cpu") if (name, scale) not in CHEAP]


@pytest.mark.parametrize(
    ("name", "scale"), [*CHEAP, *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS)]
)
def test_operations_are_as_counted(name, scale):
    study = ready_studies()[name]
    assert study.operations[scale] == pytest.approx(ready_flops(study, scale), rel=0.01)


def test_corrupted_images_have_the_form_of_cifar_10_c(digits, tmp_path):
    folder = corrupted_test_images(digits, tmp_path / "c")
    found = open_corruptions(folder)
    assert len(found.names) == 4
    assert found.labels[: len(digits.test)].equal(digits.test.labels)
    clean = digits.test.images.double()
    for name in found.names:
        change = (found.images(name).double() - clean).abs().mean((1, 2, 3, 4)).tolist()
        assert change == sorted(change), name
        assert change[0] > 0, name
    before = found.fingerprint()
    corrupted_test_images(digits, tmp_path / "c")
    assert open_corruptions(folder).fingerprint() == before


def test_corrupted_images_replace_nothing_else(digits, tmp_path):
    (tmp_path / "mine.npy").write_bytes(b"mine")
    with pytest.raises(InputError, match="is not a folder of corrupted images"):
        corrupted_test_images(digits, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    options = TrainOptions(epochs=1, batch_size=64, lr=0.1, device="cpu", precision="fp32")
    config = RunConfig(
        data=DataConfig(train_samples=500), defense=DefenseConfig("standard", eps=0.15), training=options
    )
    return train(config, tmp_path_factory.mktemp("runs")).folder


def test_features_before_and_after_an_attack(trained):
    wanted = EvaluationConfig(AttackConfig("pgd", steps=5, restarts=1), samples=80)
    plane = features_in_plane(trained, wanted, device="cpu")
    count = len(plane.labels)
    assert set(plane.labels) == set(plane.classes) == {0, 1, 2, 3}
    assert plane.components.shape == plane.neighbours.shape == (2, count, 2)
    assert plane.right[1].sum() < plane.right[0].sum()
    # The mean of the components of the features that they are fitted to is 0, and the first has the larger variance.
    clean = plane.components[0]
    assert np.abs(clean.mean(0)).max() < 1e-6
    assert clean[:, 0].var() >= clean[:, 1].var()
    assert 0 < plane.variance <= 1
    assert plane.shift > 0
    again = features_in_plane(trained, wanted, device="cpu")
    assert np.array_equal(again.components, plane.components)
    tiny = EvaluationConfig(AttackConfig("pgd", steps=5, restarts=1, eps=(1e-6,)), samples=80)
    assert features_in_plane(trained, tiny, device="cpu").shift < plane.shift / 100
    assert torch.is_grad_enabled()
