"""Training that starts with an enlarged network, with weights of another run, or with a network of another library."""

import shutil
from dataclasses import replace

import pytest
import torch

from robustmaps.config import (
    AttackConfig,
    DataConfig,
    DefenseConfig,
    ModelConfig,
    RunConfig,
    Surgery,
    from_mapping,
    read_config,
    read_study,
)
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.networks import allow_code, complete, enlarge_network, open_model, resolve, save_enlarged, starting_from
from robustmaps.networks._initial import create_network
from robustmaps.runs import Options, evaluate_checkpoint, train
from robustmaps.training import TrainOptions

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
OPTIONS = TrainOptions(epochs=1, batch_size=256, lr=0.01, schedule="constant", device="cpu", precision="fp32")
BASE = RunConfig(
    ModelConfig(strides="221"),
    defense=DefenseConfig(defense="standard", eps=0.1),
    training=replace(OPTIONS, epochs=4, batch_size=64, lr=0.1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    return train(BASE, tmp_path_factory.mktemp("runs"), data=digits)


def tuned(run, **model):
    """The configuration of a run that goes on from the weights of ``run``."""
    start = starting_from(str(run.folder), RunConfig(training=OPTIONS))
    return replace(start, model=replace(start.model, **model))


def test_what_the_weights_decide(run):
    config = starting_from(str(run.folder))
    assert (config.model.model, config.model.strides) == ("resnet8", "221")
    assert (config.data.data, config.defense.eps) == ("digits", 0.1)
    assert len(config.model.init_sha256) == 64
    assert complete({"init_from": str(run.folder)}) == config
    assert complete({"init_from": str(run.folder), "eps": "0.2"}).defense.eps == 0.2


def test_a_file_is_completed_from_the_weights_it_names(run, tmp_path):
    (tmp_path / "run.yaml").write_text(f"init_from: {run.folder}\neps: 0.2\n")
    config = read_config(tmp_path / "run.yaml", None, complete)
    assert (config.model.strides, config.data.data, config.defense.eps) == ("221", "digits", 0.2)
    (tmp_path / "study.yaml").write_text(f"axes:\n  enlarge: [last, first]\nfixed:\n  init_from: {run.folder}\n")
    study = read_study(tmp_path / "study.yaml", complete)
    assert {(p.config.model.strides, p.config.defense.eps) for p in study.points} == {("221", 0.1)}


def test_a_mapping_alone_opens_nothing():
    config = from_mapping({"init_from": "nowhere", "eps": "0.2"})
    assert (config.model.init_from, config.model.init_sha256, config.defense.eps) == ("nowhere", None, 0.2)


def test_tuning_starts_with_the_enlarged_network(run, digits):
    x, y = digits.test.tensors()
    enlarged = enlarge_network(str(run.folder), Surgery(where="last", dilate=True), samples=None, latency_runs=0)
    network = create_network(resolve(tuned(run, enlarge="last,dilate")), digits).model
    assert torch.equal(network(x), enlarged.model.eval()(x))
    accuracy = (network(x).argmax(1) == y).float().mean()
    assert accuracy == pytest.approx(enlarged.enlargement.after.accuracy)
    assert accuracy > 0.3
    for name, value in run.model.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_a_tuned_run_opens_everywhere(run, tmp_path, digits):
    done = train(tuned(run, enlarge="last,dilate"), tmp_path, data=digits)
    assert "where_last_dilate_true-tuned" in done.folder.name
    assert read_config(done.folder / "config.yaml") == done.config
    x = digits.test.tensors()[0]
    done.model.cpu().eval()
    again = open_model(str(done.folder))
    assert torch.equal(again.model(x), done.model(x))
    assert (again.budget, again.data.data) == (("linf", 0.1), "digits")
    evaluated = evaluate_checkpoint(done.folder, AttackConfig(attack="fgsm"), Options(samples=60, device="cpu"))
    assert evaluated.evaluation.eps == 0.1
    copy = tmp_path / "alone.safetensors"
    shutil.copy(done.folder / "best.safetensors", copy)
    start = starting_from(str(copy), RunConfig(training=OPTIONS))
    twice = create_network(resolve(replace(start, model=replace(start.model, enlarge="first"))), digits)
    assert [change["where"] for change in twice.recipe.enlargements] == [[1], [0]]


def test_resumed_equals_uninterrupted(run, tmp_path, digits):
    config = tuned(run, enlarge="upsample=2")
    whole = train(config, tmp_path / "whole", data=digits)
    steps = 0

    def stop():
        nonlocal steps
        steps += 1
        return steps == 3

    with pytest.raises(Interrupted):
        train(config, tmp_path / "parts", data=digits, should_stop=stop)
    folder = next((tmp_path / "parts").iterdir())
    parts = train(read_config(folder / "config.yaml"), tmp_path / "parts", resume=True, data=digits)
    assert parts.folder == folder
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name])


def test_the_weights_decide_the_name_and_not_their_place(run, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(run.folder / "best.safetensors", copy)
    config, moved = tuned(run), resolve(starting_from(str(copy), RunConfig(training=OPTIONS))).config
    assert config.hash == moved.hash
    assert config.hash != resolve(BASE).config.hash
    assert config.hash != resolve(tuned(run, enlarge="first")).config.hash


def test_other_weights_are_refused(run, tmp_path, digits):
    config = tuned(run)
    with pytest.raises(InputError, match="expected the same weights"):
        train(replace(config, model=replace(config.model, init_sha256="0" * 64)), tmp_path, data=digits)
    assert not list(tmp_path.glob("*/last.pt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet20"}, "model=resnet20: .* contains a network with model=resnet8; leave model out"),
        ({"strides": "122"}, "strides=122: .* contains a network with strides=221"),
        ({"upsample": 2.0, "enlarge": "upsample=3"}, "upsample=2: enlarge=upsample=3 upsamples, too"),
        ({"pool": "max"}, "pool=max: .* contains a network with pool=avg"),
        ({"enlarge": "7"}, "there is no step 7"),
        ({"init_from": "nowhere"}, "nowhere"),
    ],
)
def test_what_contradicts_the_weights(run, tmp_path, digits, changes, message):
    with pytest.raises(InputError, match=message):
        train(tuned(run, **changes), tmp_path, data=digits)


def test_max_pooling_is_part_of_the_network(tmp_path, digits):
    done = train(replace(BASE, model=replace(BASE.model, pool="max")), tmp_path, data=digits)
    opened = open_model(str(done.folder))
    assert isinstance(opened.model.body.pool, torch.nn.AdaptiveMaxPool2d)
    further = resolve(starting_from(str(done.folder), RunConfig(training=OPTIONS))).config
    assert further.model.pool == "max"
    with pytest.raises(InputError, match=r"pool=avg: .* contains a network with pool=max"):
        resolve(replace(further, model=replace(further.model, pool="avg")))
    with pytest.raises(InputError, match="strides and pool are for built-in networks"):
        resolve(RunConfig(ModelConfig(model="torchvision:resnet18", pool="max")))


def test_a_saved_enlargement_is_trained(tmp_path, digits):
    enlarged = enlarge_network("resnet8", Surgery(where="last"), data="digits", latency_runs=0)
    save_enlarged(enlarged, tmp_path / "larger")
    config = starting_from(str(tmp_path / "larger"), RunConfig(training=OPTIONS))
    network = create_network(resolve(config), digits)
    assert torch.equal(network.model(torch.ones(1, 1, 8, 8)), enlarged.model.eval()(torch.ones(1, 1, 8, 8)))
    with pytest.raises(InputError, match="these are weights; begin with them through init_from"):
        resolve(RunConfig(ModelConfig(model=str(tmp_path / "larger"))))


NETWORKS = """
from torch import nn
def small():
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
def few():
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
def coloured():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


def test_a_function_of_ones_own_is_trained(tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start_networks.py").write_text(NETWORKS)
    config = replace(BASE, model=ModelConfig(model="start_networks:small", enlarge="last"))
    done = train(config, tmp_path / "runs", data=digits)
    x = digits.test.tensors()[0]
    with allow_code("start_networks:small"):
        assert torch.equal(open_model(str(done.folder)).model(x), done.model.cpu().eval()(x))
    for name, message in (
        ("few", "at least 10 classes"),
        ("coloured", "takes images of 3 channels, and these have 1; --channels 3"),
    ):
        with pytest.raises(InputError, match=message):
            train(replace(config, model=ModelConfig(model=f"start_networks:{name}")), tmp_path / "runs", data=digits)
    with pytest.raises(InputError, match="are for built-in networks"):
        resolve(RunConfig(ModelConfig(model="start_networks:small", strides="2")))


def test_a_hash_without_weights():
    with pytest.raises(InputError, match="needs init_from"):
        resolve(RunConfig(ModelConfig(init_sha256="0" * 64), DataConfig()))


def test_strides_that_leave_less_than_a_pixel_are_refused(digits):
    run = resolve(RunConfig(ModelConfig(strides="999")))
    with pytest.raises(InputError, match="strides=999: divide a side by 729, and the images of digits have 8 pixels"):
        create_network(run, digits)
    create_network(resolve(RunConfig(ModelConfig(strides="222"))), digits)
