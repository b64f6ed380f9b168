"""Networks that are unlike others: every verb gives a result or one clear line, never a traceback."""

import json
import re
import shlex
from pathlib import Path

import pytest

from robustmaps.cli import main

MODULE = """
import threading
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.last = nn.Linear(8, 10)
    def features(self, x):
        return self.second(self.first(x).relu()).relu().mean((2, 3))
    def forward(self, x):
        return self.last(self.features(x))

class Reentrant(Net):
    def forward(self, x):
        return self.last(checkpoint(self.features, x, use_reentrant=True))

class Listed(Net):
    def __init__(self):
        super().__init__()
        self.others = [Net()]
    def forward(self, x):
        return super().forward(x) + self.others[0](x)

class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

class Raising(Net):
    def forward(self, x):
        raise LookupError("no table")

class Colour(Net):
    def forward(self, x):
        return super().forward(x.expand(-1, 3, -1, -1))

class Worded(Net):
    def forward(self, x):
        x.mul_(0.5)
        return {"features": x, "logits": super().forward(x)}

class Nan(Net):
    def forward(self, x):
        logits = super().forward(x)
        return torch.where(x.mean((1, 2, 3))[:, None] > 0.3, logits * float("nan"), logits)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.LazyConv2d(4, 3), nn.Linear(4, 10)
    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))

def meta():
    return Net().to("meta")

def scripted():
    return torch.jit.script(Net())

def exported():
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(Net().eval(), (torch.rand(2, 1, 8, 8),), dynamic_shapes=shapes).module()

def quantised():
    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})
"""
VERBS = {
    "evaluate": "evaluate NET --data digits --samples 10 --attack square --out e.json --device cpu",
    "diagnose": "diagnose NET --data digits --samples 10 --out d.json --device cpu",
    "analyze": "analyze NET --data digits --samples 10 --steps 0 --device cpu",
    "plan": "plan NET --data digits --samples 10 --upsamples 1 --device cpu",
    "enlarge": "enlarge NET --data digits --samples 10 --upsample 2",
    "train": "train --model NET --data digits --epochs 1 --train-samples 100 --steps 1 --device cpu",
}
LOOKING = ("analyze", "plan", "enlarge")
LAZY = "first.weight is lazy and has no shape yet: call the network once on an image"
META = "first.weight is on the meta device and has no values: load the network's weights first"
COPY = "the network can't be copied (cannot pickle '_thread.lock' object)"
CASES: list[tuple[str, tuple[str, ...], str]] = [
    ("Reentrant", ("plan", "train"), ""),
    ("Worded", ("evaluate", "plan"), ""),
    ("Listed", ("train",), ""),
    ("Locked", ("train",), ""),
    ("Locked", LOOKING, COPY),
    (
        "Raising",
        ("evaluate", "diagnose"),
        "Raising can't take 1 image of shape (1, 8, 8): LookupError: no table (odd",
    ),
    ("Raising", ("train",), "odd_networks:Raising can't take images of (1, 8, 8) from digits: no table"),
    ("Colour", ("evaluate", "diagnose", *LOOKING, "train"), "expected input[1, 3, 8, 8] to have 1 channels"),
    ("Lazy", ("evaluate", "diagnose", *LOOKING), LAZY),
    ("Lazy", ("train",), ""),
    ("meta", ("evaluate", "diagnose", *LOOKING), META),
    ("scripted", ("train",), ""),
    ("exported", ("evaluate", "plan"), ""),
    ("exported", ("train",), "the network is an exported program, whose mode is fixed"),
    ("quantised", ("evaluate",), ""),
    ("quantised", ("analyze", "plan"), "the network gives no gradient with respect to the images"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_networks.py").write_text(MODULE)


def called(verb: str, network: str, *more: str) -> int:
    return main([*shlex.split(VERBS[verb].replace("NET", f"odd_networks:{network}")), *more])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("network", "verb", "message"), [(network, verb, message) for network, verbs, message in CASES for verb in verbs]
)
def test_a_result_or_a_clear_line(network: str, verb: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = called(verb, network)
    error = capsys.readouterr().err
    assert code == (2 if message else 0), error
    assert message in error
    assert "Traceback" not in error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("here")
def test_nan_logits_are_said_and_never_right(capsys: pytest.CaptureFixture[str]) -> None:
    said = re.compile(r"(\d+) of 10 images have NaN or infinite logits")
    assert called("analyze", "Nan", "--json") == 0
    (note,) = filter(said.search, json.loads(capsys.readouterr().out)["notes"])
    assert called("plan", "Nan", "--gain", "margin", "--json") == 0
    planned = said.search(json.loads(capsys.readouterr().out)["gain"])
    assert planned is not None
    assert planned[1] == said.search(note)[1]
    assert called("enlarge", "Nan", "--json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert [said.match(text)[1] for text in warnings if said.match(text)] == [said.match(note)[1]] * 2
