"""Checkpoints of other programs open: nesting, prefixes and layer names are recognised and said."""

import argparse
import json
import pickle
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustmaps import models
from robustmaps.cli import main
from robustmaps.engine.errors import InputError
from robustmaps.networks import open_model, open_network
from robustmaps.networks._checkpoints import fill
from tests.helpers import other_programs
from tests.helpers.other_programs import with_values

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(model):
    with torch.no_grad():
        return model(IMAGES)


@pytest.fixture(scope="module")
def resnet():
    return with_values(other_programs.ResNet())


def nested(weights, how):
    random = {name: torch.rand_like(tensor.float()) for name, tensor in weights.items()}
    return {
        "plain": weights,
        "state_dict": {"epoch": 3, "state_dict": weights, "optimizer": {"state": {0: {"momentum_buffer": None}}}},
        "deep": {"checkpoint": {"net": weights}, "args": [1, 2]},
        "beside an average": {"ema": random, "model": weights},
    }[how]


@pytest.mark.parametrize("how", ["plain", "state_dict", "deep", "beside an average"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "model.backbone.", "1."])
def test_nesting_and_prefixes(how, prefix, resnet, tmp_path):
    weights = OrderedDict((prefix + name, tensor) for name, tensor in resnet.state_dict().items())
    torch.save(nested(weights, how), tmp_path / "their.pt")
    opened = open_model("resnet8", weights=tmp_path / "their.pt")
    assert torch.allclose(logits(opened.model), logits(resnet), atol=1e-5)
    said = " ".join(opened.filled.notes)
    assert {"plain": "", "state_dict": "'state_dict'", "deep": "'checkpoint.net'", "beside an average": "'model'"}[
        how
    ] in said
    assert prefix.split(".")[0] in said
    assert ("#ema" in said) == (how == "beside an average")


def test_the_average_is_taken_where_it_is_asked_for(resnet, tmp_path):
    other = with_values(other_programs.ResNet(), seed=1)
    torch.save({"model": resnet.state_dict(), "ema": other.state_dict()}, tmp_path / "their.pt")
    assert torch.allclose(
        logits(open_model("resnet8", weights=f"{tmp_path}/their.pt#ema").model), logits(other), atol=1e-5
    )
    with pytest.raises(InputError, match="no weights under 'swa'; expected one of model, ema"):
        open_model("resnet8", weights=f"{tmp_path}/their.pt#swa")


def test_an_averaged_and_normalising_wrapper(resnet, tmp_path):
    class Normalizing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.3, 0.4, 0.5]).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
            self.model = resnet

        def forward(self, x):
            return self.model((x - self.mean) / self.std)

    averaged = torch.optim.swa_utils.AveragedModel(Normalizing())
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    opened = open_model("resnet8", weights=tmp_path / "swa.pt")
    assert torch.allclose(logits(opened.model), logits(Normalizing().eval()), atol=1e-5)
    assert "mean of its own normalisation: 0.3, 0.4, 0.5" in opened.filled.notes


@pytest.mark.parametrize(
    ("name", "strides", "theirs"),
    [
        ("resnet8", "112", lambda: other_programs.ResNet("shortcut", "linear", (1, 1, 2))),
        ("resnet8_conv_shortcut", "122", lambda: other_programs.PublishedResNet()),
        ("preactresnet18", "1122", lambda: other_programs.PreActResNet((1, 1, 2, 2))),
        ("alexnet", "1122", lambda: other_programs.alexnet("1122")),
        ("vgg11_bn", "11222", lambda: other_programs.vgg11_bn("11222")),
        ("vgg11_bn", "22222", lambda: other_programs.vgg11_bn("22222")),
    ],
)
def test_layer_names_of_the_published_code(name, strides, theirs, tmp_path):
    network = with_values(theirs())
    torch.save(network.state_dict(), tmp_path / "paras.pt")
    ours = models.create(name, strides=strides)
    assert "published code" in " ".join(fill(ours, tmp_path / "paras.pt", name).notes)
    assert torch.allclose(logits(ours.eval()), logits(network), atol=1e-4)


_BLOCK = ("conv1", "conv2", "conv3", "bn1", "bn2", "bn3")


@pytest.mark.parametrize(
    ("name", "block", "projection"),
    [
        ("resnet50", "layer{}.{}", ("downsample.0", "downsample.1")),
        ("resnext50_32x4d", "layer{}.{}", ("downsample.0", "downsample.1")),
        ("preactresnet50", "layer{}.{}", ("shortcut.0",)),
        ("wrn28_10", "block{}.layer.{}", ("convShortcut",)),
    ],
)
def test_the_table_reaches_each_layer(name, block, projection):
    with torch.device("meta"):
        expected = {key.rpartition(".")[0] for key in models.create(name).body.state_dict()}
    inside = [
        f"{block.format(group, number)}.{layer}.weight"
        for group in range(1, 5)
        for number in range(6)
        for layer in (*_BLOCK, *projection)
    ]
    renamed = models.architecture(name).renamed([*inside, "conv1.weight", "bn1.weight", "bn.weight", "fc.weight"])
    assert expected <= {here.rpartition(".")[0] for here in renamed.values()}


def test_a_module_of_one_s_own_takes_them_too(tmp_path, monkeypatch, resnet):
    (tmp_path / "own_wrapped.py").write_text(
        "from tests.helpers.other_programs import ResNet\n\n\ndef network():\n    return ResNet()\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {f"module.{k}": v for k, v in resnet.state_dict().items()}}, "their.pth.tar")
    opened = open_network("own_wrapped:network", "their.pth.tar")
    assert torch.equal(logits(opened.model), logits(resnet))
    assert len(opened.notes) == 2


def test_one_command_evaluates_a_published_checkpoint(tmp_path, monkeypatch, capsys, resnet):
    monkeypatch.chdir(tmp_path)
    torch.save(resnet.state_dict(), "paras.pt")
    line = "evaluate resnet8 --weights paras.pt --data digits --attack fgsm --eps 0.1 --samples 20"
    assert main(line.split()) == 2  # digits are grey
    message = capsys.readouterr().err
    assert "don't fit resnet8: conv1.weight has the shape (16, 3, 3, 3), expected (16, 1, 3, 3)" in message
    grey = other_programs.ResNet()
    grey.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
    torch.save(grey.state_dict(), "paras.pt")
    assert main([*line.split(), "--json"]) == 0
    found = capsys.readouterr()
    assert "paras.pt: layer names of the published code" in found.err
    assert "strides 122 assumed" in found.err
    assert json.loads(found.out)["file"].startswith("evaluation/resnet8-paras/fgsm")
    assert main([*line.split(), "--json", "--strides", "112"]) == 0
    found = capsys.readouterr()
    assert "assumed" not in found.err
    assert json.loads(found.out)["file"].startswith("evaluation/resnet8-112-paras/fgsm")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda net: net, r"it holds tests\.helpers\.other_programs\.ResNet objects"),
        (lambda net: {"model": net.state_dict(), "args": argparse.Namespace(eps=8)}, r"argparse\.Namespace objects"),
        (lambda _: {"epoch": 3}, "found no weights in it"),
        (lambda net: {"conv1.weight": net.conv1.weight.data}, r"(?s)missing \(body\.features\.stem.*"),
        (lambda net: {**net.state_dict(), "fc.weight": torch.rand(100, 64)}, r"\(100, 64\), expected \(10, 64\)"),
        (lambda _: other_programs.vgg11_bn("22222").state_dict(), "they fit vgg11_bn"),
    ],
)
def test_what_does_not_fit_says_so(contents, message, resnet, tmp_path):
    torch.save(contents(resnet), tmp_path / "their.pt")
    with pytest.raises(InputError, match=message):
        open_model("resnet8", weights=tmp_path / "their.pt")


def _head(change):
    return lambda net: {**net.state_dict(), "fc.weight": change(net.state_dict()["fc.weight"])}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (_head(torch.Tensor.to_sparse), "sparse"),
        (_head(torch.Tensor.to_sparse_csr), "sparse"),
        (_head(lambda w: w.to("meta")), "without values, on the meta device"),
        (_head(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)), "quantised"),
        (_head(lambda w: w.to(torch.complex64)), "of type torch.complex64"),
        (_head(lambda w: (w * 100).to(torch.int8)), "of type torch.int8"),
        (_head(lambda w: w > 0), "of type torch.bool"),
    ],
    ids=["COO", "CSR", "meta", "quantised", "complex", "integers", "booleans"],
)
def test_values_of_another_kind_are_refused(contents, message, resnet, tmp_path):
    torch.save(contents(resnet), tmp_path / "their.pt")
    with pytest.raises(InputError, match=f"weight is {message}; expected a plain tensor of torch.float32"):
        open_model("resnet8", weights=tmp_path / "their.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floats_of_any_precision_are_taken(dtype, resnet, tmp_path):
    torch.save({name: value.to(dtype) for name, value in resnet.state_dict().items()}, tmp_path / "their.pt")
    opened = open_model("resnet8", weights=tmp_path / "their.pt").model
    ours, theirs = opened.state_dict()["body.head.bias"], resnet.state_dict()["fc.bias"]
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs.to(dtype).float())


def test_a_file_given_as_the_network_says_which_one_it_fits(tmp_path, resnet, capsys):
    torch.save(resnet.state_dict(), tmp_path / "paras.pt")
    assert main(["evaluate", str(tmp_path / "paras.pt")]) == 2
    assert f"such as resnet8 --weights {tmp_path / 'paras.pt'}" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["evaluate resnet8 --data digits", "diagnose timm:resnet18 --data digits"])
def test_random_weights_are_not_evaluated(line, capsys):
    assert main(line.split()) == 2
    assert "would be random" in capsys.readouterr().err or "timm" in line


@settings(deadline=None, max_examples=25)
@given(place=st.integers(0, 2**16), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_weights_silently(place, bit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    torch.save({"a.weight": torch.arange(64.0)}, folder / "w.pt")
    data = bytearray((folder / "w.pt").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "w.pt").write_bytes(data)
    model = nn.Module()
    model.a = nn.Module()
    model.a.weight = nn.Parameter(torch.zeros(64))
    try:
        fill(model, folder / "w.pt", "own:net")
    except InputError:
        return
    assert torch.equal(model.a.weight.data, torch.arange(64.0))


class Scaled(nn.Module):
    """A network of a user's own whose layers have the names of a normalisation."""

    def __init__(self, value):
        super().__init__()
        self.sigma, self.mean = nn.Parameter(torch.full((3,), value)), nn.Parameter(torch.full((2,), value))
        self.fc = nn.Linear(3, 2)


def test_layers_with_the_names_of_a_normalisation_are_layers(tmp_path):
    theirs, ours = Scaled(7.0), Scaled(1.0)
    torch.save({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "w.pt")
    fill(ours, tmp_path / "w.pt", "mine:net")
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mean": torch.zeros(2, 1, 1), "std": torch.ones(2, 1, 1)}, r"2 are unknown to it \(mean, std\)"),
        ({"mean": torch.zeros(3), "norm.mean": torch.zeros(3)}, "unknown to it"),
        ({"module.conv1.weight": torch.zeros(16, 3, 3, 3)}, "unknown to it|missing"),
    ],
    ids=["other channels", "two of them", "one layer twice"],
)
def test_what_could_be_either_is_refused(more, message, resnet, tmp_path):
    torch.save({**resnet.state_dict(), **more}, tmp_path / "their.pt")
    with pytest.raises(InputError, match=message):
        open_model("resnet8", weights=tmp_path / "their.pt")


def test_one_mean_for_all_channels(resnet, tmp_path):
    torch.save({**resnet.state_dict(), "mean": torch.tensor(0.5), "std": torch.tensor(0.25)}, tmp_path / "their.pt")
    opened = open_model("resnet8", weights=tmp_path / "their.pt").model
    with torch.no_grad():
        assert torch.allclose(opened(IMAGES), resnet((IMAGES - 0.5) / 0.25), atol=1e-5)


def test_a_normalisation_that_the_network_lacks_is_refused(resnet, tmp_path):
    torch.save({**resnet.state_dict(), "mean": torch.zeros(3), "std": torch.ones(3)}, tmp_path / "their.pt")
    with pytest.raises(InputError, match=r"2 are unknown to it \(mean, std\)"):
        fill(other_programs.ResNet(), tmp_path / "their.pt", "mine:net")


def test_a_misfit_is_named_as_in_the_file(resnet, tmp_path):
    wrong = {f"module.{name}": tensor for name, tensor in resnet.state_dict().items()}
    torch.save({"net": {"state_dict": {**wrong, "module.extra.weight": torch.zeros(3)}}}, tmp_path / "their.pt")
    message = r"under 'net.state_dict' don't fit .* 1 is unknown to it \(module.extra.weight\)"
    with pytest.raises(InputError, match=message):
        open_model("resnet8", weights=tmp_path / "their.pt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not a file of weights; expected"),
        (b"PK\x03\x04 no archive", "damaged, or not written by torch.save"),
        (pickle.dumps({"weights": 1}, protocol=4)[:-1], "damaged, or not written by torch.save"),
        (b"", "not a file of weights"),
    ],
    ids=["text", "no archive", "a cut pickle", "empty"],
)
def test_what_is_no_file_of_weights_is_said_in_a_line(data, message, tmp_path):
    (tmp_path / "their.pt").write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_model("resnet8", weights=tmp_path / "their.pt")
    assert message in str(caught.value)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 120


def test_the_key_in_a_file_is_in_the_name_of_its_evaluations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grey = other_programs.ResNet()
    grey.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
    torch.save({"model": grey.state_dict(), "ema": grey.state_dict()}, "their.pt")
    names = [open_network("resnet8", f"their.pt{key}", data="digits").name for key in ("", "#ema", "#model")]
    assert names == ["resnet8-their", "resnet8-their-ema", "resnet8-their-model"]


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (lambda s: {"state_dict": _under("model", s) | _under("teacher", _other(s))}, "state_dict.model"),
        (lambda s: _under("net", s) | {"criterion.weight": torch.ones(10)}, "net"),
        (lambda s: _under("module.model", s) | _under("module.ema_model", _other(s)), "module.model"),
        (lambda s: {**s, "epoch": 3, "_extra_state": None}, ""),
        (lambda s: [s, {"lr": 0.1}], "0"),
        (lambda s: {"a": {"b": {"c": {"state_dict": s}}}}, "a.b.c.state_dict"),
    ],
)
def test_weights_among_others_are_found(wrap, told, tmp_path):
    trained, network = made(1), made(2)
    torch.save(wrap(trained.state_dict()), tmp_path / "weights.pt")
    filled = fill(network, tmp_path / "weights.pt", "resnet8")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained.state_dict().items())
    assert (f"weights found under {told!r}" in filled.notes) == bool(told)
    if told:
        fill(made(3), f"{tmp_path / 'weights.pt'}#{told}", "resnet8")


def test_of_two_networks_in_one_state_dict_the_other_is_named(tmp_path):
    trained, network = made(1).state_dict(), made(2)
    torch.save(_under("student", trained) | _under("teacher", _other(trained)), tmp_path / "weights.pt")
    notes = fill(network, tmp_path / "weights.pt", "resnet8").notes
    assert any("weights.pt#teacher takes those" in note for note in notes)
    assert torch.equal(network.state_dict()["body.head.bias"], trained["body.head.bias"])
    fill(network, f"{tmp_path / 'weights.pt'}#teacher", "resnet8")
    assert torch.equal(network.state_dict()["body.head.bias"], _other(trained)["body.head.bias"])


def made(seed):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return models.create("resnet8")


def _under(prefix, state):
    return {f"{prefix}.{name}": value for name, value in state.items()}


def _other(state):
    return {name: value + 1 for name, value in state.items()}
