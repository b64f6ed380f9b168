"""Networks that a fast path could change or break: the view is the network, or says what was given up."""

import collections
import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustmaps import evaluate, fit
from robustmaps.attacks import APGD, FAB, PGD, AutoAttack, Square
from robustmaps.data import Dataset
from robustmaps.defenses import AT, TRADES
from robustmaps.engine.calling import logits_of, network_logits
from robustmaps.engine.errors import InputError, NoGradientError
from robustmaps.engine.modes import hidden_modules
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.training import TrainOptions

Make = Callable[..., nn.Sequential]
Images = Callable[..., Tensor]
LABELS = torch.arange(8) % 5
OPTIONS = TrainOptions(epochs=1, batch_size=8, lr=0.05, schedule="constant", device="cpu", precision="fp32")


def objective(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, LABELS, reduction="none")


def reference(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and input gradient by the plainest code; the gradient is what any block gives with trainable weights."""
    x = x.clone().requires_grad_()
    logits = logits_of(model.eval()(x * 1.0))
    objective(logits).sum().backward()
    assert x.grad is not None
    model.zero_grad()
    return logits.detach(), x.grad


class Net(nn.Module):
    """Two convolutions and a head, with something between them that subclasses decide."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6 * 64, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.bn(self.conv(x))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x).flatten(1))


class ViewAfterConvolution(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(len(x), -1))


class ViewWithFreshHead(ViewAfterConvolution):
    """The features' order has no effect until training moves the head."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.as_strided(self.body(x), (len(x), 384), (384, 1)))


class ReadsMemory(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(torch.as_strided(y, (len(y), 384), (384, 1)))


class Volume(Net):
    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Conv3d(1, 1, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return self.volume(super().body(x)[:, None])[:, 0]


class LooksAtItsNeighbour(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return self.second(F.relu(y) if isinstance(self.bn, nn.BatchNorm2d) else torch.tanh(y))


class InsistsOnItsNeighbour(Net):
    def body(self, x: Tensor) -> Tensor:
        if type(self.bn) is not nn.BatchNorm2d:
            raise KeyError("a batch-norm")
        return super().body(x)


class Ensemble(Net):
    def __init__(self) -> None:
        super().__init__()
        self.members = [Net(), Net().train()]
        self.more = {"last": (Net(),)}

    def forward(self, x: Tensor) -> Tensor:
        members = [*self.members, *self.more["last"]]
        return super().forward(x) + torch.stack([member(x) for member in members]).mean(0)


class InsistsOnTensors(Net):
    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor)
        assert x.is_contiguous()
        return super().forward(x)


class Reentrant(Net):
    def body(self, x: Tensor) -> Tensor:
        return checkpoint(super().body, x, use_reentrant=True)


class Recomputing(Net):
    def body(self, x: Tensor) -> Tensor:
        return checkpoint(super().body, x, use_reentrant=False)


class _Invertible(torch.autograd.Function):
    """As reversible networks do: the block runs again in the backward pass, which differentiates its weights too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Callable[[Tensor], Tensor], *weights: Tensor) -> Tensor:
        ctx.x, ctx.block, ctx.weights = x.detach(), block, weights
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            x = ctx.x.detach().requires_grad_()
            found = torch.autograd.grad(ctx.block(x), (x, *ctx.weights), grad)
        return found[0], None, *found[1:]


class Reversible(Net):
    def body(self, x: Tensor) -> Tensor:
        weights = [self.conv.weight, self.second.weight]
        return _Invertible.apply(x, super().body, *weights)  # type: ignore[no-any-return, no-untyped-call]


class BackwardHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second.register_full_backward_hook(lambda *_: None)


class InPlace(Net):
    def body(self, x: Tensor) -> Tensor:
        x.sub_(0.5).mul_(2)
        x[:, :, 0] = 0
        return super().body(F.relu(x, inplace=True))


class Refuses(Net):
    def __deepcopy__(self, memo: object) -> "Refuses":
        raise LookupError("not me")


Gives = collections.namedtuple("Gives", ["logits", "aux_logits2", "aux_logits1"])


class Auxiliary(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return Gives(logits, -logits, None) if self.training else logits


class Pair(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits, x


class FeaturesFirst(Net):
    def forward(self, x: Tensor) -> Any:
        return {"features": x.flatten(1), "logits": super().forward(x)}


def _spectral() -> nn.Module:
    model = Net()
    nn.utils.parametrizations.spectral_norm(model.conv)
    return model


def _weight_norm_hook() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 5))


def _spectral_hook() -> nn.Module:
    conv = nn.utils.spectral_norm(nn.Conv2d(3, 6, 3))
    return nn.Sequential(conv, nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 5))


def _tied() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
    return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.Flatten(), nn.Linear(192, 5))


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 5)))


def _exported() -> nn.Module:
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Net().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},)).module()


NOTHING, ALL = "", "attacks run on"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "view": (ViewAfterConvolution, "without channels-last order: view size"),
    "fresh head": (ViewWithFreshHead, "without channels-last order: its"),
    "memory": (ReadsMemory, "without channels-last order: its"),
    "volume": (Volume, NOTHING),
    "neighbour": (LooksAtItsNeighbour, "without folded batch-norms: its"),
    "insists": (InsistsOnItsNeighbour, "without folded batch-norms: 'a batch-norm'"),
    "ensemble": (Ensemble, NOTHING),
    "tensors": (InsistsOnTensors, "without channels-last order: AssertionError"),
    "reentrant": (Reentrant, NOTHING),
    "recomputing": (Recomputing, NOTHING),
    "reversible": (Reversible, NOTHING),
    "hook": (BackwardHook, NOTHING),
    "in place": (InPlace, NOTHING),
    "refuses": (Refuses, "can't be copied .not me., so attacks run on it directly"),
    "auxiliary": (Auxiliary, NOTHING),
    "pair": (Pair, NOTHING),
    "dictionary": (FeaturesFirst, NOTHING),
    "spectral norm": (_spectral, NOTHING),
    "spectral norm by hook": (_spectral_hook, NOTHING),
    "weight norm by hook": (_weight_norm_hook, NOTHING),
    "tied": (_tied, NOTHING),
    "scripted": (_scripted, NOTHING),
    "exported": (_exported, "can't be copied"),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, str]:
    make, line = NETWORKS[request.param]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return make(), line


def opened(engine: AttackEngine, x: Tensor, line: str) -> tuple[Tensor, Tensor]:
    """Logits and gradient of the first view, which gives that warning and no other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with engine.view(x) as view:
            logits, _, gradient = view.gradient(x, objective)
    assert [str(w.message) for w in caught if "attacks run" in str(w.message)] == [str(w.message) for w in caught]
    assert len(caught) == (line != NOTHING), [str(w.message) for w in caught]
    if line:
        import re

        assert re.search(line, str(caught[0].message)), caught[0].message
    return logits, gradient


@pytest.mark.parametrize("training", [False, True])
def test_a_view_of_any_network_is_the_network(
    network: tuple[nn.Module, str], training: bool, make_images: Images
) -> None:
    (model, line), x = network, make_images(8, 3)
    if training and not isinstance(model, torch.fx.GraphModule):
        model.train()
    modes = [module.training for module in model.modules()]
    kept = x.clone()
    engine = AttackEngine(model)
    logits, gradient = opened(engine, x, line)
    assert torch.equal(x, kept)
    with engine.view(x) as view:  # warned once
        assert torch.allclose(view(x), logits, atol=1e-6)
    with plain_view(model) as view:
        plain_logits, _, plain_gradient = view.gradient(x, objective)
    assert torch.equal(x, kept)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    if isinstance(model, Ensemble):
        assert [member.training for member in model.members] == [True, True]
        for member in model.members:
            member.eval()
    if not isinstance(model, torch.fx.GraphModule):
        model.eval()
        expected, expected_gradient = reference(model, x)
        assert torch.allclose(plain_logits, expected, atol=1e-5)
        assert torch.allclose(plain_gradient, expected_gradient, atol=1e-6)
        assert torch.allclose(logits, expected, atol=1e-4)
        assert torch.allclose(gradient, expected_gradient, atol=1e-5)
