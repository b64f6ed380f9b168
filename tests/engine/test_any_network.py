"""Networks that a fast path could change or break: the view is the network, or says what was given up."""

import collections
import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
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


def _exported() -> nn.Module:
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
    "exported": (_exported, NOTHING),
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
    lines = [str(w.message) for w in caught if "attacks run" in str(w.message)]
    assert len(lines) == (line != NOTHING), lines
    assert not line or re.search(line, lines[0]), lines
    return logits, gradient


# PyTorch's own, in passes without gradients.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
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
        for member in hidden_modules(model).values():
            member.eval()
    if not isinstance(model, torch.fx.GraphModule):
        model.eval()
        expected, expected_gradient = reference(model, x)
        assert torch.allclose(plain_logits, expected, atol=1e-5)
        assert torch.allclose(plain_gradient, expected_gradient, atol=1e-6)
        assert torch.allclose(logits, expected, atol=1e-4)
        assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def bright(images: Tensor) -> tuple[Tensor, Tensor]:
    return images, (images.mean((1, 2, 3)) > 0.5).long()


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=3),
        PGD("l2", eps=0.5, steps=2, restarts=2, early_stop=True, loss="kl", start="normal"),
        APGD("linf", eps=0.1, steps=5),
        APGD("linf", eps=0.1, steps=5, loss="dlr-t", targets=2),
        FAB("l2", eps=0.5, steps=5),
        Square(eps=0.1, queries=20),
        Square("l2", eps=0.5, queries=20),
    ],
    ids=lambda attack: f"{attack.name} {attack.norm}",
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_networks_work_in_their_own_precision(attack: Any, dtype: torch.dtype, make_images: Images) -> None:
    seen: set[torch.dtype] = set()

    class Noting(Net):
        def forward(self, x: Tensor) -> Tensor:
            if isinstance(x, Tensor):  # not while it is traced
                seen.add(x.dtype)
            return super().forward(x)  # type: ignore[no-any-return]

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Noting().to(dtype)
    x = make_images(8, 3)
    for images in (x, x.to(dtype)):
        x_adv = attack(model, images, LABELS)
        assert x_adv.dtype in (torch.float32, torch.float64)
    found = evaluate(model, x, LABELS, [attack])
    with plain_view(model) as plain:
        assert plain(x).dtype == (dtype if dtype is torch.float64 else torch.float32)
        right = plain(x).argmax(1) == LABELS
    assert found.clean_accuracy.value == float(right.float().mean())
    assert seen == {dtype}


def test_the_verdict_is_the_networks_own(make_images: Images) -> None:
    """A lead of 1e-12 is one in float64; in float32 the logits are equal, and the first class would win."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lead = nn.Parameter(torch.tensor(1e-12, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            one = x.flatten(1).sum(1) * 0 + 1
            return torch.stack([one, one + self.lead], dim=1)

    x = make_images(4)
    assert evaluate(Narrow(), x, torch.ones(4, dtype=torch.int64), []).clean_accuracy.value == 1.0


def _in_place(kind: str) -> Callable[[Tensor], Tensor]:
    def setitem(x: Tensor) -> Tensor:
        x[:] = (x - 0.5) * 4
        return x

    return {
        "sub": lambda x: x.sub_(0.5).mul_(4),
        "setitem": setitem,
        "clamp": lambda x: x.clamp_(0.3, 0.7),
        "relu": lambda x: F.relu(x.neg_(), inplace=True),
        "data": lambda x: x.data.mul_(0.5) + 0 * x,
    }[kind]


@pytest.mark.parametrize("kind", ["sub", "setitem", "clamp", "relu", "data"])
def test_the_callers_images_are_never_overwritten(kind: str, make_images: Images) -> None:
    change = _in_place(kind)

    class Changing(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(change(x))  # type: ignore[no-any-return]

    class Honest(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(change(x.clone()))  # type: ignore[no-any-return]

    results = []
    for make in (Changing, Honest):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = make()
        x = make_images(8, 3)
        kept = x.clone()
        with plain_view(model) as plain:
            y = plain(x).argmax(1)
        found = evaluate(model, x, y, [PGD(eps=0.02, steps=3), Square(eps=0.02, queries=30)])
        assert torch.equal(x, kept)
        results.append((found.clean_accuracy.value, found.verdicts))
        loss = TRADES().loss(model, x, y, generator=torch.Generator().manual_seed(0))
        assert torch.equal(x, kept)
        results[-1] += (loss.value.item(),)
    assert results[0] == results[1]
    assert results[0][0] == 1.0


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())  # type: ignore[no-any-return]


class WithoutGradients(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # type: ignore[no-any-return]


class Integers(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 255).long().float() / 255)  # type: ignore[no-any-return]


class Numpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.numpy() * 2))  # type: ignore[no-any-return]


class InInferenceMode(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(x)  # type: ignore[no-any-return]


class IntegerLogits(Net):
    def forward(self, x: Tensor) -> Tensor:
        return (100 * super().forward(x)).long()  # type: ignore[no-any-return]


class Votes(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(super().forward(x).argmax(1), 5) > 0


class HalfPrecisionAnswers(WithoutGradients):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half()


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)).eval(), {nn.Linear}
        )


@pytest.mark.parametrize(
    "make",
    [
        *(Detached, WithoutGradients, Integers, Numpy, _quantised),
        *(InInferenceMode, IntegerLogits, Votes, HalfPrecisionAnswers),
    ],
)
def test_without_a_gradient_square_works_and_gradient_attacks_say_why_not(
    make: Callable[[], nn.Module], make_images: Images
) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, x = make(), make_images(8, 3)
    y = network_logits(model.eval(), x.clone()).argmax(1)
    for square in (Square(eps=0.1, queries=20), Square("l2", eps=0.5, queries=20)):
        assert evaluate(model, x, y, square).clean_accuracy.value == 1.0
    for attack in (PGD(eps=0.1, steps=2), APGD("linf", eps=0.1, steps=2), AutoAttack(eps=0.1)):
        with pytest.raises(NoGradientError, match=r"no gradient with respect to the images .*; use square"):
            evaluate(model, x, y, attack)


def test_an_error_of_the_objective_is_not_taken_for_a_missing_gradient(make_images: Images) -> None:
    def wrong(_: Tensor) -> Tensor:
        raise RuntimeError("of its own")

    with plain_view(Net()) as view, pytest.raises(RuntimeError, match="of its own"):
        view.gradient(make_images(2, 3), wrong)


@pytest.mark.parametrize("make", [Auxiliary, Pair, FeaturesFirst, ViewAfterConvolution, Ensemble, Recomputing, Volume])
@pytest.mark.filterwarnings("ignore:attacks run without channels-last:UserWarning")
@pytest.mark.parametrize(
    "defense", [AT(PGD(eps=0.1, steps=2)), TRADES(PGD(eps=0.1, steps=2, loss="kl", start="normal"))]
)
def test_any_network_is_trained_as_its_plain_twin(
    make: Callable[[], Net], defense: Any, make_dataset: Callable[..., Dataset]
) -> None:
    """The twin flattens, returns logits, and has no fast path to differ from."""

    class Small(make):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6 * 36, 2)
            if isinstance(self, Ensemble):
                self.members, self.more = [], {"last": (nn.Sequential(nn.Flatten(), nn.Linear(36, 2)),)}

    data = make_dataset(train=24)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Small()
    before = copy.deepcopy(model)
    hidden = "the network keeps more"
    with pytest.warns(UserWarning, match=hidden) if make is Ensemble else warnings.catch_warnings():
        fit(model, data, defense, OPTIONS)
    assert not torch.equal(before.head.weight, model.head.weight)
    assert not torch.equal(before.conv.weight, model.conv.weight)
    assert all(p.is_contiguous() for p in model.parameters())
    evaluate(model, *data.test.tensors(), defense.attack if defense.name == "at" else [])


def test_what_cannot_be_trained_or_run_says_why(
    make_dataset: Callable[..., Dataset], make_images: Images, make_cnn: Make
) -> None:
    data, x = make_dataset(), make_images(4)
    frozen = make_cnn(1, 6, 2).requires_grad_(False)
    with pytest.raises(InputError, match="no parameter to train: all are frozen"):
        fit(frozen, data, AT(PGD(eps=0.1, steps=1)), OPTIONS)
    evaluate(frozen, *data.test.tensors(), PGD(eps=0.1, steps=1))
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    meta = make_cnn().to("meta")
    for model, match in ((lazy, "1.weight is lazy and has no shape yet"), (meta, "0.weight is on the meta device")):
        for verb in (
            lambda model=model: evaluate(model, x, torch.zeros(4, dtype=torch.int64), []),
            lambda model=model: fit(model, data, AT(PGD(eps=0.1, steps=1)), OPTIONS),
            lambda model=model: PGD(steps=1)(model, x, torch.zeros(4, dtype=torch.int64)),
        ):
            with pytest.raises(InputError, match=match):
                verb()


def test_one_rule_for_logits() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 7)
    for result in (a, (a, b), [a, None], {"logits": a, "features": b}, {"only": a}, Gives(a, b, None)):
        assert logits_of(result) is a
    assert logits_of(collections.namedtuple("Output", ["loss", "logits"])(b, a)) is a
    with pytest.raises(InputError, match="expected an entry 'logits'"):
        logits_of({"features": b, "classes": a})
    for result in (None, (), torch.rand(2), {"logits": torch.rand(2, 3, 1)}, "text"):
        with pytest.raises(InputError, match=r"expected logits \(N, classes\)"):
            logits_of(result)


@pytest.mark.parametrize("how", ["raises", "differs", "backward"])
def test_compilation_that_fails_is_given_up(how: str, make_cnn: Make, make_images: Images, monkeypatch: Any) -> None:
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, logits: Tensor) -> Tensor:
            return logits.clone()

        @staticmethod
        def backward(_: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("no backward kernel")

    def compile_(module: nn.Module, **_: object) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if how == "raises":
                raise RuntimeError("no kernel")
            if how == "differs":
                return module(x).flip(1)  # type: ignore[no-any-return]
            return Backward.apply(module(x))  # type: ignore[no-any-return, no-untyped-call]

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr("robustmaps.engine.view.require_compiler", lambda: None)
    model, x = make_cnn(3), make_images(8, 3)
    engine = AttackEngine(model, ViewOptions(compile=True))
    with engine.view(x) as view:
        with pytest.warns(UserWarning, match="attacks run without compilation: "):
            view.gradient(x, objective)
        logits, _, gradient = view.gradient(x, objective)  # warned once
    expected, expected_gradient = reference(model, x)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def test_a_fast_path_that_fails_later_is_given_up(make_images: Images) -> None:
    """On images unlike the first ones."""

    class Late(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            return self.head(y.view(len(x), -1) if x.mean() < 0.2 else y.flatten(1))  # type: ignore[no-any-return]

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, x = Late().eval(), make_images(8, 3)
    engine = AttackEngine(model)
    with engine.view(x) as view:
        view(x)
        with pytest.warns(UserWarning, match="attacks run on the network itself from here on: view size"):
            view(x / 10)
        assert torch.equal(view(x), model(x))
        _, _, gradient = view.gradient(x / 10, objective)
    assert torch.allclose(gradient, reference(model, x / 10)[1], atol=1e-6)


class WithExtraState(Net):
    def __init__(self, state: object) -> None:
        super().__init__(1)
        self.state, self.head = state, nn.Linear(6 * 36, 2)

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


def test_extra_state_is_kept_or_refused(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    data, defense = make_dataset(train=16), AT(PGD(eps=0.1, steps=1))
    for state in ({"calls": [1, 2]}, torch.arange(3)):
        model = WithExtraState(state)
        fit(model, data, defense, OPTIONS)
        evaluate(model, *data.test.tensors(), PGD(eps=0.1, steps=1))
    fit(WithExtraState(torch.arange(3)), data, defense, OPTIONS, out=tmp_path / "tensor")
    with pytest.raises(InputError, match="_extra_state is dict: weights files hold only tensors"):
        fit(WithExtraState({"calls": 1}), data, defense, OPTIONS, out=tmp_path / "other")


def test_an_exported_program_is_evaluated_and_not_trained(make_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(InputError, match="an exported program, whose mode is fixed"):
        fit(_exported(), make_dataset(), AT(PGD(eps=0.1, steps=1)), OPTIONS)
