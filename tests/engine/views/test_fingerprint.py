"""A view follows whatever decides what the network computes, not the registered weights alone."""

import collections
import copy
import functools
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from robustmaps import models
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.engine.views.fingerprint import attributes

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@dataclass
class Settings:
    scale: float = 1.0


class Scale:
    """Called like a function, and copied with the network as no function is."""

    def __init__(self):
        self.factor = 1.0

    def __call__(self, x):
        return x * self.factor

    apply = __call__


class Slots:
    __slots__ = ("factor",)

    def __init__(self):
        self.factor = 1.0


class Odd(nn.Module):
    """Computes with attributes of many kinds, and with members that are not registered."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(8, 5)
        self.scale = 1.0
        self.table = {"shift": [0.0, 1.0]}
        self.settings = Settings()
        self.members = [nn.Linear(8, 5)]
        self.mask = torch.ones(5)
        self.double = False
        self.scaling, self.method, self.slots = Scale(), Scale().apply, Slots()
        self.partial = functools.partial(torch.mul, other=torch.ones(5))
        self.array, self.queue, self.bytes = np.ones(5, dtype=np.float32), collections.deque([1.0]), bytearray([1])

    def forward(self, x):
        features = self.body(x)
        logits = self.scale * self.settings.scale * self.head(features) + self.table["shift"][0]
        logits = logits + self.members[0](features) if not self.double else logits * 2
        logits = self.partial(self.method(self.scaling(logits))) * self.slots.factor * torch.from_numpy(self.array)
        return logits * self.mask * self.queue[0] * self.bytes[0]


def change_weight_of_member(net):
    with torch.no_grad():
        net.members[0].weight.add_(1)


def replace_forward(net):
    net.head.forward = lambda x: x[:, :5] * 3


CHANGES = {
    "number": lambda net: setattr(net, "scale", 0.2),
    "flag": lambda net: setattr(net, "double", True),
    "number in a list in a dictionary": lambda net: net.table["shift"].__setitem__(0, 2.0),
    "number in an object": lambda net: setattr(net.settings, "scale", 3.0),
    "plain tensor replaced": lambda net: setattr(net, "mask", torch.zeros(5)),
    "plain tensor changed": lambda net: net.mask.mul_(0.5),
    "weights in a plain list": change_weight_of_member,
    "member of a plain list": lambda net: net.members.__setitem__(0, nn.Linear(8, 5)),
    "member added": lambda net: setattr(net, "members", [nn.Linear(8, 5)] * 2),
    "layer replaced": lambda net: setattr(net, "head", nn.Linear(8, 5)),
    "forward of a layer": replace_forward,
    "epsilon of a batch-norm": lambda net: setattr(net.body[1], "eps", 3.0),
    "stride": lambda net: setattr(net.body[0], "stride", (2, 2)),
    "object that is called": lambda net: setattr(net.scaling, "factor", 2.0),
    "object of a method": lambda net: setattr(net.method.__self__, "factor", 2.0),
    "object with slots": lambda net: setattr(net.slots, "factor", 2.0),
    "argument of a partial function": lambda net: net.partial.keywords.update(other=torch.arange(5.0)),
    "NumPy array": lambda net: net.array.__setitem__(0, 5.0),
    "number in a queue": lambda net: net.queue.__setitem__(0, 4.0),
    "byte": lambda net: net.bytes.__setitem__(0, 7),
    "plain tensor through data": lambda net: net.mask.data.mul_(3),
    "plain tensor through NumPy": lambda net: net.mask.numpy().__setitem__(0, 9.0),
    "hook": lambda net: net.head.register_forward_hook(lambda *given: given[2] * 5),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fold", [True, False])
def test_a_view_follows_a_changed_attribute(change, fold):
    net = Odd().eval()
    engine = AttackEngine(net, ViewOptions(fold=fold))
    with engine.view(X) as view, plain_view(net) as plain:
        assert torch.allclose(view(X), plain(X), atol=1e-5)
    CHANGES[change](net)
    with engine.view(X) as view, plain_view(net) as plain:
        assert torch.allclose(view(X), plain(X), atol=1e-5)


def test_weights_and_modes_make_no_new_copy():
    net = Odd()
    engine = AttackEngine(net)
    with engine.view(X) as view:
        pass
    with torch.no_grad():
        net.head.weight.add_(1)
    net.train()(X)
    net.body[1].momentum = 0.0
    with engine.view(X) as again, plain_view(net) as plain:
        assert again is view
        assert torch.allclose(again(X), plain(X), atol=1e-5)


def test_a_network_that_changes_at_each_pass_runs_directly(monkeypatch):
    monkeypatch.setattr("robustmaps.engine.view._MOST_RENEWALS", 2)
    net = Odd().eval()
    engine = AttackEngine(net)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(6):
            net.scale = float(number)
            with engine.view(X) as view, plain_view(net) as plain:
                assert torch.allclose(view(X), plain(X), atol=1e-5)
    assert [str(one.message)[:40] for one in caught] == ["attributes of the network change between"]


def test_networks_that_contain_themselves_end():
    net = Odd()
    net.loop = [net.table]
    net.table["me"] = net.loop
    net.parents = [net, net.body, net.head.weight]
    before = attributes(net)
    with torch.no_grad():
        net.head.weight.add_(1)
    assert attributes(net) == before, "what is registered is copied anyway"
    assert attributes(copy.deepcopy(net)) != before, "other objects"


def test_it_costs_little():
    net = models.create("resnet18")
    attributes(net)
    began = time.process_time()
    attributes(net)
    assert time.process_time() - began < 0.1
