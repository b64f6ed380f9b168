"""Whatever a user calls a network opens, and says clearly why it does not."""

import functools
import importlib.util
import json
import shutil
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps import models
from robustmaps.config import DataConfig, DefenseConfig, ModelConfig, RunConfig, Surgery
from robustmaps.data import load
from robustmaps.engine.errors import InputError
from robustmaps.enlarging import EnlargeWarning
from robustmaps.networks import (
    EnlargedNetwork,
    Fit,
    OpenedNetwork,
    analyze_network,
    enlarge_network,
    open_model,
    plan_network,
    resolve,
    save_enlarged,
)
from robustmaps.networks._initial import create_network
from robustmaps.runs import train
from robustmaps.training import TrainOptions, load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
IMAGE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@functools.cache
def torchvision_operators():
    """The schemas that torchvision's Python code expects of its compiled part, which loads beside CUDA builds only."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@pytest.fixture
def torchvision():
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    torchvision_operators()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, digits):
    config = RunConfig(
        data=DataConfig(data="digits"),
        defense=DefenseConfig(eps=0.1, steps=1),
        training=TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32"),
    )
    return train(config, tmp_path_factory.mktemp("runs"), data=digits).folder


def test_a_name_of_ours_is_drawn_from_its_seed():
    one, again, other = (open_model("resnet8", Fit(seed=seed)).model for seed in (0, 0, 1))
    assert torch.equal(one(IMAGE), again(IMAGE))
    assert not torch.equal(one(IMAGE), other(IMAGE))
    assert not one.training
    assert open_model("resnet8", Fit(strides="112", in_channels=1, num_classes=7)).model(IMAGE[:, :1]).shape == (2, 7)


def test_a_run_brings_its_weights_data_and_budget(run_folder):
    opened = open_model(str(run_folder))
    assert opened.trained
    assert opened.data.data == "digits"
    assert opened.budget == ("linf", 0.1)
    assert opened.fit.in_channels == 1
    with pytest.raises(InputError, match="has strides of its own"):
        analyze_network(str(run_folder), strides="112")
    with pytest.raises(InputError, match=r"pool=max: .* has a pool of its own"):
        analyze_network(str(run_folder), pool="max")


@pytest.mark.parametrize("network", ["resnet18", "googlenet"])
def test_torchvision(torchvision, network):
    opened = open_model(f"torchvision:{network}", Fit(num_classes=10, in_channels=1))
    assert opened.model(IMAGE[:, :1].repeat(1, 1, 2, 2)).shape == (2, 10)
    with pytest.raises(InputError, match="torchvision has no network 'resnet1'; it has"):
        open_model("torchvision:resnet1")
    with pytest.raises(InputError, match="the network could not be made"):
        open_model("torchvision:resnet18@NOWEIGHTS")


def test_a_torchvision_network_to_be_trained(torchvision):
    data = load("digits", image_size=32)
    config = resolve(RunConfig(ModelConfig(model="torchvision:resnet18", enlarge="upsample=2,last")))
    network, twice = (create_network(config, data) for _ in range(2))
    again = OpenedNetwork.from_description(json.loads(json.dumps(network.describe())))
    again.model.load_state_dict(network.model.state_dict())
    x = data.test.tensors()[0][:2]
    assert network.model(x).shape == (2, 10)
    assert torch.equal(again.model(x), network.model(x))
    assert torch.equal(twice.model(x), network.model(x))


@pytest.mark.slow
def test_a_torchvision_network_before_and_after(torchvision):
    done = analyze_network(
        "torchvision:resnet50",
        Surgery(where="last"),
        data="digits",
        image_size=64,
        samples=2,
        steps=1,
        directions=1,
        device="cpu",
    )
    before, after = done.result.before, done.result.after
    assert [report.stage.name.rpartition(".")[2] for report in before.stages] == [
        *("relu", "layer1", "layer2", "layer3", "layer4")
    ]
    assert [report.stage.map_size for report in before.stages] == [(side, side) for side in (32, 16, 8, 4, 2)]
    assert [report.stage.map_size for report in after.stages] == [(side, side) for side in (32, 16, 8, 4, 4)]
    assert [report.stage.field_px[0] for report in before.stages] == [7, 35, 91, 267, 427]
    assert before.cost.flops < after.cost.flops < 2 * before.cost.flops


def test_timm(torchvision):
    pytest.importorskip("timm")
    opened = open_model("timm:resnet10t", Fit(num_classes=5))
    assert opened.model(IMAGE).shape == (2, 5)
    assert opened.image_px == 176
    with pytest.raises(InputError, match="expected timm:resnet10t or timm:resnet10t@pretrained"):
        open_model("timm:resnet10t@weights")
    with pytest.raises(InputError, match="timm has no network"):
        open_model("timm:resnet10x")


def test_transformers_from_a_folder(torchvision, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    network = transformers.ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "image_processor_type": "ConvNextImageProcessor"})
    )
    opened = open_model(f"hf:{tmp_path}")
    assert opened.trained
    with torch.no_grad():
        assert torch.allclose(opened.model(IMAGE), network((IMAGE - 0.5) / 0.25).logits, atol=1e-6)
    with pytest.raises(InputError, match="the network could not be made"):
        open_model(f"hf:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("spec", "board"),
    [
        ("robustbench:Wong2020Fast", ("Wong2020Fast", "cifar10", "Linf")),
        ("robustbench:cifar100/L2/Wong2020Fast", ("Wong2020Fast", "cifar100", "L2")),
    ],
)
def test_robustbench_makes_its_networks_by_its_own_loader(spec, board, monkeypatch):
    """Its package is large; what is called is `robustbench.utils.load_model`, by name."""
    made, asked = models.create("resnet8"), []

    def load_model(*, model_name, dataset, threat_model):
        asked.append((model_name, dataset, threat_model))
        return made

    module = types.ModuleType("robustbench.utils")
    module.load_model = load_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustbench", types.ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.utils", module)
    opened = open_model(spec)
    assert (opened.model, opened.trained, asked) == (made, True, [board])
    with pytest.raises(InputError, match="expected robustbench:NAME"):
        open_model("robustbench:cifar10/Wong2020Fast")


def test_a_function_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def nothing():\n    return 3\n"
    )
    assert open_model("my_nets:small").model(IMAGE).shape == (2, 4)
    assert str(tmp_path) not in sys.path
    with pytest.raises(InputError, match="did you mean 'small'"):
        open_model("my_nets:smal")
    with pytest.raises(InputError, match="expected an nn"):
        open_model("my_nets:nothing")
    with pytest.raises(InputError, match="no module"):
        open_model("your_nets:small")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet9", "did you mean 'resnet8'.*torchvision:NAME"),
        ("missing.safetensors", "unknown model"),
        ("runs/gone/best.safetensors", "no such file or folder"),
    ],
)
def test_unknown_names(spec, message):
    with pytest.raises(InputError, match=message):
        open_model(spec)


def test_a_missing_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm is not installed; pip install timm"):
        open_model("timm:resnet18")


@pytest.mark.parametrize(
    "surgery", [Surgery(where="last", dilate=True), Surgery(upsample=2), Surgery(upsample=2, factor=2, where="0")]
)
def test_a_saved_enlargement_opens_as_it_was(run_folder, tmp_path, surgery):
    enlarged = enlarge_network(str(run_folder), surgery, samples=20, latency_runs=0)
    assert enlarged.enlargement.before.accuracy is not None
    weights, recipe = save_enlarged(enlarged, tmp_path / "larger")
    assert weights.exists()
    assert json.loads(recipe.read_text())["model"]["name"] == "resnet8"
    again = open_model(str(tmp_path / "larger"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.model(x), enlarged.model.eval()(x))
    assert (again.trained, again.budget) == (True, ("linf", 0.1))


def test_an_enlargement_of_an_enlargement(tmp_path):
    once = enlarge_network("resnet8", Surgery(where="last"), latency_runs=0)
    assert once.enlargement.agreement is None
    save_enlarged(once, tmp_path / "once")
    twice = enlarge_network(str(tmp_path / "once"), Surgery(upsample=2), latency_runs=0)
    save_enlarged(twice, tmp_path / "twice")
    assert torch.equal(open_model(str(tmp_path / "twice")).model(IMAGE), twice.model.eval()(IMAGE))


def test_weights_that_do_not_fit_their_description(tmp_path):
    weights, recipe = save_enlarged(enlarge_network("resnet8", Surgery(upsample=2), latency_runs=0), tmp_path / "a")
    values, about = load_weights(weights)[0], json.loads(recipe.read_text())
    save_weights(
        weights, values, {"robustmaps": json.dumps({**about, "model": {**about["model"], "name": "resnet20"}})}
    )
    with pytest.raises(InputError, match="don't fit resnet20"):
        open_model(str(tmp_path / "a"))
    for damaged in ("{}", "[", json.dumps({**about, "model": {"name": "resnet8", "colour": 3}})):
        save_weights(weights, values, {"robustmaps": damaged})
        with pytest.raises(InputError, match="does not describe a network"):
            open_model(str(tmp_path / "a"))


def test_labels_follow_the_classes_that_the_network_was_trained_on(run_folder, digits, tmp_path):
    x, y = digits.test.images.permute(0, 2, 3, 1).numpy(), digits.test.labels.numpy()
    accuracies = []
    for name, order in (("same", range(10)), ("turned", range(9, -1, -1)), ("as text", (3, 1, 4, 0, 5, 9, 2, 6, 8, 7))):
        labels, classes = np.argsort(order)[y], np.array([str(number) for number in order])
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=labels, x_test=x, y_test=labels, classes=classes)
        found = enlarge_network(
            str(run_folder), Surgery(where="last"), data=str(tmp_path / f"{name}.npz"), samples=None
        )
        accuracies.append(found.enlargement.before.accuracy)
    assert len(set(accuracies)) == 1
    assert accuracies[0] > 0.12  # better than chance
    x, y = x[y < 9], y[y < 9]
    np.savez(tmp_path / "fewer.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.warns(UserWarning, match=r"has 9 classes .* was trained on 10 classes .* says nothing"):
        enlarge_network(str(run_folder), Surgery(where="last"), data=str(tmp_path / "fewer.npz"), samples=20)


@pytest.fixture
def imported(run_folder, tmp_path):
    """The run's weights as another program's file, and images whose class numbers are in the order of text."""
    torch.save(load_weights(run_folder / "best.safetensors")[0], tmp_path / "plain.pt")
    data = load("digits")
    names = [str(number) for number in range(5, 15)]
    x, y = data.test.images.permute(0, 2, 3, 1).numpy(), data.test.labels.numpy()
    for label in range(10):
        for number, image in enumerate(x[y == label][:12]):
            path = tmp_path / "images" / "test" / names[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
    shutil.copytree(tmp_path / "images" / "test", tmp_path / "images" / "train")
    return {"data": str(tmp_path / "images"), "weights": str(tmp_path / "plain.pt"), "strides": "122"}, ",".join(names)


@pytest.mark.parametrize("verb", [analyze_network, plan_network, functools.partial(enlarge_network, samples=None)])
def test_labels_follow_the_order_that_is_given_for_imported_weights(verb, imported):
    options, names = imported
    if verb is not plan_network:
        options["surgery"] = Surgery(where="last")

    def found(**more):
        done = verb("resnet8", **options, **more)
        return done.enlargement.before.accuracy if isinstance(done, EnlargedNetwork) else done.to_dict()

    with pytest.warns(UserWarning, match=r"numbers in the order of text \(10, 11, 12, ...\).* with --classes"):
        unknown = found()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", EnlargeWarning)
        known = found(classes=names)
    assert known != unknown or verb is plan_network  # most images are classified wrong, which gives no gain
    with pytest.raises(InputError, match="classes: '10' of the data is missing"):
        found(classes="5,6,7")


def test_classes_without_images_are_refused():
    with pytest.raises(InputError, match=r"classes=a,b: no images are classified; give data, or leave classes out"):
        enlarge_network("resnet8", Surgery(where="last"), classes="a,b")


def test_plans_measure_what_fits(run_folder):
    options = {"budget": 3, "upsamples": (1,), "samples": 20, "device": "cpu"}
    trained = plan_network(str(run_folder), **options, dilate=True)
    assert "margin" in trained.gain
    assert "eps 0.1" in trained.gain
    untrained = plan_network("resnet8", data="digits", **options)
    assert "features" in untrained.gain
    assert [option.gain is not None for option in untrained.plan.options] == [True] * 3
    assert len({option.gain for option in untrained.plan.options}) == 3
    without = plan_network("resnet8", data="digits", gain="none", **options)
    assert [option.gain for option in without.plan.options] == [None] * 3
    with pytest.raises(InputError, match="leave the picture out"):
        plan_network("resnet8", gain="none", out="plan.png", **options)
