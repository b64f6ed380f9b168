"""Defences by their names on the command line."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from robustmaps import defenses
from robustmaps.config import DataConfig, DefenseConfig, RunConfig
from robustmaps.defenses import AWP, listed
from robustmaps.engine.errors import InputError
from robustmaps.networks import resolve
from robustmaps.runs import create_defense, folder_of, train
from robustmaps.training import TrainOptions

CONFIG = DefenseConfig(eps=0.1)
NAMES = [name for name in listed() if "hat" not in name]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_its_defence_with_the_budget(name: Any) -> None:
    defense = create_defense(replace(CONFIG, defense=name, norm="l2"))
    assert defense.name == name
    if name != "standard":
        assert (defense.attack.norm, defense.attack.eps) == ("l2", 0.1)


def test_parameters_left_out_are_those_of_the_papers() -> None:
    made = {name: create_defense(DefenseConfig(defense=name)) for name in NAMES}  # type: ignore[arg-type]
    plain = {
        "at": defenses.AT(),
        "alp": defenses.ALP(),
        "trades": defenses.TRADES(),
        "mart": defenses.MART(),
        "fat": defenses.FAT(),
        "dajat": defenses.DAJAT(),
        "fast-at": defenses.FastAT(),
        "n-fgsm": defenses.NFGSM(),
        "liet": defenses.LIET(),
        "free-at": defenses.FreeAT(),
        "standard": defenses.Standard(),
    }
    for name, defense in plain.items():
        assert repr(made[name]) == repr(defense), name
    assert made["at-awp"] == AWP(defenses.AT(), gamma=0.01)
    assert made["trades-awp"] == AWP(defenses.TRADES(), gamma=0.005)


def test_parameters_reach_the_defence() -> None:
    made = create_defense(replace(CONFIG, defense="trades-awp", steps=4, beta=3.0, awp_gamma=0.02, awp_warmup=0.1))
    attack = defenses.TRADES().attack.__class__(eps=0.1, steps=4, loss="kl", start="normal")
    assert made == AWP(defenses.TRADES(attack, beta=3.0), gamma=0.02, warmup=0.1)
    assert create_defense(replace(CONFIG, defense="free-at", replays=4)).replays == 4  # type: ignore[attr-defined]
    assert create_defense(replace(CONFIG, defense="fat", tau=2)).tau == 2  # type: ignore[attr-defined]
    assert create_defense(replace(CONFIG, defense="fast-at", step_size=0.07)).attack.step_size == 0.07  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"defense": "at", "beta": 2.0}, r"beta=2\.0: at has no such parameter; leave it out"),
        ({"defense": "trades", "awp_gamma": 0.1}, r"awp_gamma=0\.1: trades has no such parameter"),
        ({"defense": "trades", "helper": "runs/x"}, "helper='runs/x': trades has no such parameter"),
        ({"defense": "n-fgsm", "step_size": 0.01}, "step_size=0.01: n-fgsm has a step of its own"),
        ({"defense": "fast-at", "steps": 7}, r"steps=7: fast-at has steps of its own \(1\); leave it out"),
        ({"defense": "dajat-awp", "steps": 3}, r"steps=3: dajat-awp has steps of its own \(5\)"),
        ({"defense": "at-awp", "awp_gamma": -1.0}, r"awp_gamma=-1\.0: expected"),
        ({"defense": "at-awp", "awp_warmup": 10.0}, r"awp_warmup=10\.0: expected a share of training in \[0, 1\)"),
        ({"defense": "hat"}, "helper: hat needs the run of a network trained with --defense standard"),
        ({"defense": "trade"}, "did you mean 'trades'"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_defense(replace(CONFIG, **values))


def test_a_helper_is_a_run_of_ours(tmp_path) -> None:
    options = TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32")
    standard = RunConfig(defense=DefenseConfig(defense="standard"), training=options)
    helper = train(standard, tmp_path)
    defense = replace(CONFIG, defense="hat", steps=1, helper=str(helper.folder))
    run = train(replace(standard, defense=defense), tmp_path)
    assert "hat" in run.folder.name
    made = create_defense(defense)
    for p, q in zip(made.helper.parameters(), helper.model.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(p, q.cpu())
        assert not p.requires_grad
    other = replace(standard, defense=defense, data=DataConfig(image_size=16))
    with pytest.raises(
        InputError, match=r"was trained on images of 8 x 8 pixels in 10 classes .* but these are of 16 x 16"
    ):
        train(other, tmp_path)
    assert not (tmp_path / other.name).exists()


def test_a_helper_is_known_by_its_weights(tmp_path, monkeypatch) -> None:
    options = TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32")
    standard = RunConfig(defense=DefenseConfig(defense="standard"), training=options)
    folders = [train(replace(standard, training=replace(options, seed=seed)), tmp_path).folder for seed in (0, 1)]
    hat = replace(standard, defense=DefenseConfig(defense="hat", helper=str(folders[0])))
    monkeypatch.chdir(tmp_path)
    near = replace(standard, defense=DefenseConfig(defense="hat", helper=folders[0].name))
    assert folder_of(near, "runs") == folder_of(hat, "runs")
    written = resolve(near).config
    monkeypatch.chdir("/")
    assert resolve(written).config == written
    other = replace(written, defense=replace(written.defense, helper=str(folders[1])))
    with pytest.raises(InputError, match="expected the same weights"):
        resolve(other)


def test_a_helper_with_a_defence_is_said(tmp_path) -> None:
    options = TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32")
    base = RunConfig(data=DataConfig(train_samples=64), training=options)
    helper = train(replace(base, defense=DefenseConfig(defense="n-fgsm")), tmp_path)
    with pytest.warns(UserWarning, match=r"was trained with --defense n-fgsm; hat expects a helper"):
        train(replace(base, defense=DefenseConfig(defense="hat", steps=1, helper=str(helper.folder))), tmp_path)


def test_a_defence_that_is_none_is_refused_before_images_are_loaded(tmp_path) -> None:
    config = RunConfig(data=DataConfig(data=str(tmp_path / "missing")), defense=DefenseConfig(defense="at", beta=6.0))
    with pytest.raises(InputError, match="at has no such parameter"):
        train(config, tmp_path)


def test_a_known_data_set_is_not_a_folder_of_that_name(tmp_path, monkeypatch) -> None:
    from robustmaps.networks import open_checkpoint

    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    options = TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32")
    run = train(RunConfig(defense=DefenseConfig(defense="standard"), training=options), "digits")
    assert open_checkpoint(run.folder).data.data == "digits"


def test_a_budget_that_is_nothing_for_l2_is_said() -> None:
    with pytest.warns(UserWarning, match="very small for l_2; 128/255 is usual"):
        create_defense(DefenseConfig(norm="l2"))
    create_defense(DefenseConfig(norm="l2", eps=0.5))
