"""Runs whose network is enlarged late: as folders, resumed, evaluated, priced, and begun with weights."""

import json
from pathlib import Path

import pytest
import torch

from robustmaps.config import AttackConfig, RunConfig, from_mapping, make_study, read_config
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.networks import complete, open_model
from robustmaps.runs import Options, evaluate_checkpoint, read_run, train
from robustmaps.studies import plan_sweep

KEYS = {
    "epochs": 4,
    "batch_size": 256,
    "defense": "standard",
    "eps": 0.1,
    "device": "cpu",
    "precision": "fp32",
    "upsample": 1.5,
    "enlarge_at": 0.5,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    return train(from_mapping(KEYS), tmp_path_factory.mktemp("runs"), data=digits)


def test_the_folder_names_the_schedule_and_holds_the_large_network(run):
    assert "up1.5-late0.5" in run.folder.name
    record = read_run(run.folder)
    assert record.config == read_config(run.folder / "config.yaml")
    assert record.config.model.enlarge_at == "0.5"
    assert [epoch.get("before_enlarging") for epoch in record.history] == [1, 1, None, None]
    assert record.best_epoch in (3, 4)
    assert record.best_epoch == run.fit.best_epoch
    opened = open_model(str(run.folder))
    assert opened.fit.upsample == 1.5
    assert torch.equal(opened.model(torch.ones(1, 1, 8, 8)), run.model(torch.ones(1, 1, 8, 8)))
    done = evaluate_checkpoint(run.folder, AttackConfig(attack="fgsm"), Options(samples=30, device="cpu"))
    assert len(done.evaluation.verdicts) == 30


def test_the_cost_counts_operations_on_both_sides(run, digits, tmp_path):
    stored = json.loads((run.folder / "cost.json").read_text())
    fixed = {key: value for key, value in KEYS.items() if key not in ("upsample", "enlarge_at")}
    ways = [{"upsample": 1}, {"upsample": 1.5}, {"upsample": 1.5, "enlarge_at": 0.5}]
    study = make_study({"axes": {"way": ways}, "fixed": fixed}, Path("study.yaml"))
    plain, early, late = plan_sweep(study, tmp_path, timed=False).runs
    small, large = plain.estimate.image_flops, early.estimate.image_flops
    assert small < large
    assert stored["flops"] == large == late.estimate.image_flops
    assert stored["mean_flops"] == (small + large) / 2
    assert late.estimate.training_flops == pytest.approx(
        (plain.estimate.training_flops + early.estimate.training_flops) / 2
    )
    assert read_run(run.folder).recorded_cost["mean_flops"] == stored["mean_flops"]
    assert late.title == "ResNet-8 ×1.5, after 50 % of the epochs"


@pytest.mark.parametrize("steps", [3, 11, 13])
def test_a_run_is_resumed_before_and_after_the_switch(run, digits, tmp_path, steps):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == steps

    with pytest.raises(Interrupted):
        train(from_mapping(KEYS), tmp_path, data=digits, should_stop=stop)
    folder = next(tmp_path.iterdir())
    again = train(read_config(folder / "config.yaml"), tmp_path, resume=True, data=digits)
    assert again.folder.name == run.folder.name
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_weights_of_a_run_are_trained_on_before_they_are_enlarged(run, digits, tmp_path):
    """Begins with a network that upsamples already, and relaxes its last stride late."""
    keys = {"init_from": str(run.folder), "enlarge": "last", "enlarge_at": "0.5", "epochs": 2, "lr": 0.01}
    done = train(complete(keys, RunConfig(training=from_mapping(KEYS).training)), tmp_path, data=digits)
    assert done.config.model.upsample == 1.5
    stored = json.loads((done.folder / "cost.json").read_text())
    assert stored["mean_flops"] == (json.loads((run.folder / "cost.json").read_text())["flops"] + stored["flops"]) / 2
    assert done.fit.best_epoch == 2


def test_the_activation_may_change_late(digits, tmp_path):
    keys = {**KEYS, "upsample": 1, "enlarge": "silu", "epochs": 2}
    whole = train(from_mapping(keys), tmp_path / "whole", data=digits)
    assert "activation_silu-late0.5" in whole.folder.name
    assert [epoch.get("before_enlarging") for epoch in read_run(whole.folder).history] == [1, None]
    network = open_model(str(whole.folder)).model
    assert sum(isinstance(module, torch.nn.SiLU) for module in network.modules()) == 7
    early = train(from_mapping({**keys, "enlarge_at": None}), tmp_path / "early", data=digits)
    assert not all(torch.equal(one, early.model.state_dict()[name]) for name, one in whole.model.state_dict().items())
    count = iter(range(8))  # the last one comes after the switch
    with pytest.raises(Interrupted):
        train(from_mapping(keys), tmp_path, data=digits, should_stop=lambda: next(count) == 7)
    again = train(from_mapping(keys), tmp_path, resume=True, data=digits)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_several_shares_are_for_upsampling_alone(digits, tmp_path):
    keys = {**KEYS, "enlarge": "silu", "enlarge_at": "0.3,0.6"}
    with pytest.raises(InputError, match=r"strides and activations change at once; give one share"):
        train(from_mapping(keys), tmp_path, data=digits)
    assert not list(tmp_path.iterdir())


def test_too_few_epochs_are_refused_before_anything_is_written(digits, tmp_path):
    with pytest.raises(InputError, match=r"enlarge_at=0\.8 with 2 epochs"):
        train(from_mapping({**KEYS, "enlarge_at": 0.8, "epochs": 2}), tmp_path, data=digits)
    assert not list(tmp_path.iterdir())
