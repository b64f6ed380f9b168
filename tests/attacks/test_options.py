"""Options of attacks reach them, presets decide some, and what an attack does not take is refused."""

import warnings

import pytest
import torch

from robustmaps.attacks import PGD, Foolbox, create, from_settings, listed, takes
from robustmaps.attacks._foolbox import METHODS
from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError
from robustmaps.engine.registry import written
from robustmaps.evaluation import attack_settings
from robustmaps.runs import create_attacks
from tests.helpers.attack_oracles import TwoPlanes, images, shortest

with warnings.catch_warnings():  # it uses a name that SciPy gave up
    warnings.simplefilter("ignore")
    import foolbox

# A value of each option that is not the default, and what foolbox calls it.
VALUES = {
    "steps": 3,
    "step_size": 0.03,
    "relative_step": 0.3,
    "overshoot": 1.3,
    "candidates": 2,
    "learning_rate": 0.03,
    "differences": "crossentropy",
    "decision_rule": "EN",
    "regularization": 0.3,
    "constant": 0.3,
    "confidence": 0.3,
    "search_steps": 3,
    "abort_early": False,
    "random_start": None,
    "quantile": 0.3,
    "momentum": 0.3,
    "learning_rate_decay": 0.3,
    "learning_rate_decays": 3,
}


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in METHODS for option in ("steps", *METHODS[name].options)]
)
def test_every_option_of_a_foolbox_attack_reaches_its_class(name, option, monkeypatch):
    given = {}
    norm, kind = next(iter(METHODS[name].classes.items()))
    value = name == "slide" if option == "random_start" else VALUES[option]

    class Idle:
        def __init__(self, **settings):
            given.update(settings)

        def run(self, model, x, y, **_):
            return x

    monkeypatch.setattr(foolbox.attacks, kind, Idle)
    # A walk along the boundary starts at a misclassified image, which takes long to find by noise.
    monkeypatch.setattr(foolbox.attacks, "LinearSearchBlendedUniformNoiseAttack", lambda directions: Idle())
    network, x = TwoPlanes(36), images(4, low=0.3, high=0.7)
    config = AttackConfig(name, attack_parameters=f"{option}={written(value)}")
    (attack,) = create_attacks(config, norm, 0.2)
    attack(network, x, (network.value(x) < 0).long())
    argument = METHODS[name].options.get(option, option)
    assert given[argument] == value
    assert option in takes(name)


def test_the_options_listed_are_those_of_the_methods():
    for name, method in METHODS.items():
        assert takes(name) == {"steps", *method.options}


def test_overshoot_is_the_distance_beyond_the_boundary():
    network, x = TwoPlanes(36), images(6, low=0.4, high=0.6)
    y = (network.value(x) < 0).long()
    for overshoot in (0.05, 0.5):
        attack = create("deepfool", "l2", 5.0, overshoot=overshoot)
        found = (attack(network, x, y) - x).flatten(1).norm(dim=1)
        assert torch.allclose(found, (1 + overshoot) * shortest(network, x, "l2"), rtol=1e-3)


@pytest.mark.parametrize(("name", "steps"), [("pgd-20", 20), ("pgd-100", 100)])
def test_presets_are_the_attack_with_its_options(name, steps):
    preset = create(name, "linf", 8 / 255)
    by_hand = create_attacks(AttackConfig("pgd", steps=steps, relative_step=0.25, restarts=1), "linf", 8 / 255)[0]
    assert preset == by_hand
    assert isinstance(preset, PGD)
    assert (preset.steps, preset.restarts) == (steps, 1)
    assert preset.step_length == pytest.approx(2 / 255)
    assert from_settings(attack_settings(preset)[0]) == preset


def test_the_step_grows_with_the_radius():
    lengths = [create("pgd-20", "linf", eps).step_length for eps in (4 / 255, 8 / 255)]
    assert lengths == pytest.approx([1 / 255, 2 / 255])


def test_settings_of_earlier_versions_are_still_the_same():
    assert set(attack_settings(create("pgd", "linf", 0.1))[0]) == {
        *("name", "norm", "eps", "steps", "step_size", "restarts", "loss", "start", "early_stop", "tau")
    }
    assert set(attack_settings(Foolbox("cw", "l2", 0.1))[0]) == {"name", "attack", "norm", "eps", "steps", "minimal"}
    assert attack_settings(create("cw", "l2", 0.1, step_size=0.1))[0]["options"] == {"step_size": 0.1}


def test_options_of_pgd_leave_deepfool_as_it_is():
    deepfool, pgd = create_attacks(AttackConfig("deepfool,pgd", loss="margin", restarts=2, step_size=0.1), "linf", 0.1)
    assert deepfool.options == {}
    assert (pgd.loss, pgd.step_size) == ("margin", 0.1)


def test_one_attack_of_several_has_options_of_its_own():
    config = AttackConfig("deepfool, pgd", steps=7, attack_parameters="deepfool.steps=3,deepfool.overshoot=0.1")
    deepfool, pgd = create_attacks(config, "linf", 0.1)
    assert (deepfool.steps, deepfool.options, pgd.steps) == (3, {"overshoot": 0.1}, 7)
    assert create_attacks(config.alone("deepfool"), "linf", 0.1) == [deepfool]
    assert create_attacks(config.alone("pgd"), "linf", 0.1) == [pgd]
    assert config.alone("pgd") == AttackConfig("pgd", steps=7)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            AttackConfig("pgd", attack_parameters="overshoot=0.1"),
            "leave it out, or use deepfool or brendel",
        ),
        (AttackConfig("deepfool", attack_parameters="oversoot=0.1"), "did you mean overshoot"),
        (AttackConfig("deepfool", attack_parameters="overshoot=0.1,overshoot=0.2"), "overshoot is given twice"),
        (AttackConfig("pgd,cw", attack_parameters="cw.step-size=0.1, cw.step_size=0.2"), "cw.step_size is given twice"),
        (AttackConfig("pgd", steps=4, attack_parameters="steps=3"), "steps=4 and attack_parameters='steps=3'"),
        (
            AttackConfig("deepfool", step_size=0.1),
            "leave it out, or use .*cw or .*deepfool takes",
        ),
        (AttackConfig("fgsm", steps=3), "fgsm has no such parameter"),
        (AttackConfig("fgsm", relative_step=0.3), "fgsm has no such parameter"),
        (AttackConfig("pgd-20", steps=3), "pgd-20 is pgd with steps=20, relative_step=0.25, restarts=1; leave it out"),
        (AttackConfig("pgd-20,fgsm", restarts=3), "or use pgd instead"),
        (AttackConfig("pgd-200"), "did you mean 'pgd-20'"),
        (AttackConfig("pgd", attack_parameters="fgsm.steps=3"), "unknown attack .* 'fgsm'.*Choices: pgd"),
        (AttackConfig("pgd,fgsm", attack_parameters="fgsm.steps=3"), "steps=3: fgsm has no such parameter"),
        (AttackConfig("pgd", relative_step=0.3, step_size=0.1), "expected one of the two"),
        (AttackConfig("pgd", relative_step=-0.3), "relative_step=-0.3: expected a number above 0"),
        (AttackConfig("slide", norm="l1", relative_step=0.3, step_size=0.1), "expected one of the two"),
        (AttackConfig("ead", norm="l1", attack_parameters="decision_rule=L2"), "decision_rule='L2': expected EN or L1"),
        (AttackConfig("ead", norm="l1", attack_parameters="abort_early=1"), "abort_early=1: expected True or False"),
        (AttackConfig("deepfool", attack_parameters="overshoot=-1"), "overshoot=-1: expected a number of at least 0"),
        (AttackConfig("deepfool", attack_parameters="candidates=1"), "candidates=1: expected a whole number"),
        (
            AttackConfig("slide", norm="l1", attack_parameters="quantile=1.5"),
            "quantile=1.5: expected a number from 0 to",
        ),
        (AttackConfig("cw", norm="l2", attack_parameters="confidence=much"), "confidence='much': expected a number"),
    ],
)
def test_bad_options(config, message):
    with pytest.raises(InputError, match=message):
        create_attacks(config, "linf", 0.1)


def test_a_preset_names_an_attack_and_options_that_it_takes():
    import importlib

    registry = importlib.import_module("robustmaps.attacks._registry")._REGISTRY
    presets = [row for row in map(registry.row, listed()) if row.preset_of]
    assert {row.name for row in presets} >= {"pgd-20", "pgd-100"}
    for row in presets:
        assert takes(row.preset_of) >= row.preset.keys() | row.parameters.keys()
        assert not row.preset.keys() & row.parameters.keys()
