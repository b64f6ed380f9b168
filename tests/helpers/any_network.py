"""Networks that a fast path could change or break, and the plainest code that runs them."""

import collections
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustmaps.engine.calling import logits_of

LABELS = torch.arange(8) % 5


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
        conv = nn.utils.weight_norm(nn.Conv2d(3, 6, 3))
    return nn.Sequential(conv, nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 5))


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


def exported() -> nn.Module:
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Net().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},)).module()


NOTHING = ""
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "view": (ViewAfterConvolution, "without channels-last order: view size"),
    "fresh head": (ViewWithFreshHead, "without channels-last order: its"),
    "memory": (ReadsMemory, "without channels-last order: its"),
    "volume": (Volume, NOTHING),
    "neighbour": (LooksAtItsNeighbour, "without folded batch-norms: its"),
    "insists": (InsistsOnItsNeighbour, "without folded batch-norms: 'a batch-norm'"),
    "ensemble": (Ensemble, NOTHING),
    "tensors": (InsistsOnTensors, "without channels-last order: "),
    "reentrant": (Reentrant, NOTHING),
    "recomputing": (Recomputing, NOTHING),
    "reversible": (Reversible, NOTHING),
    "hook": (BackwardHook, NOTHING),
    "in place": (InPlace, NOTHING),
    "refuses": (Refuses, "can't be copied, so attacks run on it directly: .* .not me."),
    "auxiliary": (Auxiliary, NOTHING),
    "pair": (Pair, NOTHING),
    "dictionary": (FeaturesFirst, NOTHING),
    "spectral norm": (_spectral, NOTHING),
    "spectral norm by hook": (_spectral_hook, NOTHING),
    "weight norm by hook": (_weight_norm_hook, "can't be copied"),
    "tied": (_tied, NOTHING),
    "scripted": (_scripted, NOTHING),
    "exported": (exported, NOTHING),
}
