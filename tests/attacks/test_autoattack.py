import pytest
import torch
from art.attacks.evasion import AutoAttack as ArtAutoAttack
from art.estimators.classification import PyTorchClassifier
from torch import nn

from robustmaps.attacks import APGD, FAB, Attack, AutoAttack, Square, WatchedAttack, norms
from robustmaps.engine.errors import InputError
from tests.helpers.attack_oracles import broken, peer_autoattack


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_versions_have_the_published_stages():
    stages = AutoAttack("l2", 0.5, patience=None).stages
    assert stages == (APGD("l2", 0.5), APGD("l2", 0.5, loss="dlr-t"), FAB("l2", 0.5, targeted=True), Square("l2", 0.5))
    names = {version: [stage.name for stage in AutoAttack(version=version).stages] for version in ("plus", "rand")}
    assert names == {
        "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
        "rand": ["apgd-ce", "apgd-dlr"],
    }
    assert all(stage.restarts == 5 for stage in AutoAttack(version="plus").stages[:3])
    assert all(stage.eot == 20 for stage in AutoAttack(version="rand").stages)
    ce, targeted, *_ = AutoAttack("l1", 12.0).stages
    assert (ce.restarts, targeted.targets) == (5, 5)
    assert all(isinstance(stage, Attack) and isinstance(stage, WatchedAttack) for stage in stages)


def test_own_lists():
    attack = AutoAttack(version=["square", "apgd-dlr"])
    assert attack == AutoAttack(version=("square", "apgd-dlr"))
    assert [stage.name for stage in attack.stages] == ["square", "apgd-dlr"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": "standart"}, "did you mean 'standard'"),
        ({"version": ["apgd-ce", "sqare"]}, "did you mean 'square'"),
        ({"version": []}, "version="),
        ({"norm": "l0"}, "unknown norm"),
        ({"eps": 8}, "8/255"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InputError, match=message):
        AutoAttack(**values)


def test_breaks_what_any_of_its_stages_breaks(robust_network, digits_test):
    x, y = digits_test[0][:40], digits_test[1][:40]
    attack = AutoAttack(eps=0.12, version=("apgd-ce", "apgd-dlr", "fab-t"))
    heard = []
    x_adv = attack(robust_network, x, y, generator=generator(), watcher=heard.append)
    wrong = broken(robust_network, x_adv, y)
    alone = [broken(robust_network, stage(robust_network, x, y, generator=generator()), y) for stage in attack.stages]
    assert wrong.sum() >= max(int(one.sum()) for one in alone)
    assert torch.all(norms(x_adv - x, "linf") <= 0.12 + 1e-6)
    assert torch.equal(x_adv[~wrong], x[~wrong])
    assert [progress.phase for progress in heard] == sorted(
        (progress.phase for progress in heard), key=["apgd-ce", "apgd-dlr", "fab-t"].index
    )
    again = attack(robust_network, x, y, generator=generator())
    assert torch.equal(again, x_adv)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes, make_cnn, make_images):
    network, x = make_cnn(classes=classes).eval(), make_images(8)
    y = network(x).argmax(1)
    with pytest.warns(UserWarning, match=f"apgd-t.*has {classes}"):
        x_adv = AutoAttack(eps=0.01)(network, x, y, generator=generator())
    assert norms(x_adv - x, "linf").max() <= 0.01 + 1e-6
    x_adv = AutoAttack(eps=0.5, version="a3")(network, x, y, generator=generator())
    assert broken(network, x_adv, y).all()


def test_the_version_that_a3_replaced_is_named():
    with pytest.raises(InputError, match="version='rapid': a3 has taken its place"):
        AutoAttack(version="rapid")
    assert "no attack without gradients" in AutoAttack(version="a3").caveat
    assert AutoAttack().caveat is None


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.9)])
def test_same_verdicts_as_torchattacks(norm, eps, robust_network, digits_test):
    x, y = digits_test[0][:100], digits_test[1][:100]
    standing = torch.arange(100)
    for stage in peer_autoattack(robust_network, norm, eps, classes=10):
        wrong = broken(robust_network, stage(x[standing], y[standing]), y[standing])
        standing = standing[~wrong]
    ours = broken(robust_network, AutoAttack(norm, eps)(robust_network, x, y, generator=generator()), y)
    assert abs(int((~ours).sum()) - len(standing)) <= 2


@pytest.mark.slow
def test_never_weaker_than_art(robust_network, digits_test):
    x, y = digits_test[0][:50], digits_test[1][:50]
    classifier = PyTorchClassifier(
        robust_network, loss=nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, clip_values=(0.0, 1.0)
    )
    theirs = ArtAutoAttack(classifier, eps=0.12, eps_step=0.03, batch_size=64).generate(x.numpy(), y.numpy())
    robust = ~broken(robust_network, torch.from_numpy(theirs), y)
    ours = ~broken(robust_network, AutoAttack(eps=0.12)(robust_network, x, y, generator=generator()), y)
    assert ours.sum() <= robust.sum() + 1
