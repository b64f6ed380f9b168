"""The attack view against the plain network, and that the network is left as it was."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackEngine, AttackView, ViewOptions, plain_view, require_compiler

Make = Callable[..., nn.Sequential]
PLAIN = ViewOptions(fold=False, channels_last=False)


def randomise_norms(model: nn.Module) -> nn.Module:
    """Statistics and weights as training leaves them; those of a fresh batch-norm hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    with torch.no_grad():
                        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
    return model


def reference(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and input gradient by the plainest code."""
    network = copy.deepcopy(model).eval()
    x = x.clone().requires_grad_()
    logits = network(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
    return logits.detach(), gradient


def through(view: AttackView, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    logits, _, gradient = view.gradient(x, lambda z: F.cross_entropy(z, y, reduction="none"))
    return logits, gradient


def error(value: Tensor, expected: Tensor) -> float:
    """The distance relative to the expected value's norm."""
    return float((value - expected).detach().norm() / expected.detach().norm())


NETWORKS = {
    "resnet8": (16, 9),
    "vgg11_bn": (32, 8),
    "preactresnet18": (8, 8),
    "resnext50_32x4d": (8, 53),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor, int]:
    size, folded = NETWORKS[request.param]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = models.create(request.param, num_classes=10)
        x = torch.rand(3, 3, size, size)
    return randomise_norms(model), x, torch.tensor([0, 1, 9]), folded


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (PLAIN, 0.0),
        (ViewOptions(fold=True, channels_last=False), 2e-4),
        (ViewOptions(fold=False, channels_last=True), 2e-4),
        (ViewOptions(), 2e-4),
        (ViewOptions(precision="bf16"), 0.15),
    ],
    ids=["plain", "folded", "channels-last", "default", "bf16"],
)
def test_a_view_is_the_network(
    network: tuple[nn.Module, Tensor, Tensor, int], options: ViewOptions, tolerance: float
) -> None:
    model, x, y, folded = network
    engine = AttackEngine(model, options)
    with engine.view(x) as view:
        logits, gradient = through(view, x, y)
        assert view(x).dtype == logits.dtype == gradient.dtype == torch.float32
    expected, expected_gradient = reference(model, x, y)
    assert error(logits, expected) <= tolerance
    assert error(gradient, expected_gradient) <= 3 * tolerance
    assert len(engine.folded) == (folded if options.fold else 0)


class Net(nn.Module):
    """A convolution, a batch-norm and a linear head, with something between them that subclasses decide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)).mean((2, 3)))


class OutputUsedTwice(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class OutputUsedInPlaceLater(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.bn(y)
        return z * torch.sigmoid(y.mean((2, 3), keepdim=True))


class OutputThroughAView(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y.flatten(1).mean(1)[:, None, None, None]


class ConvolutionCalledTwice(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.conv(x)))


class NormCalledTwice(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.bn(self.conv(x))))


class TwoNormsRead(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) - self.other(y)


class NormAfterRelu(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.conv(x)))


class NormOnSlice(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)[:, :, 1:])


class NormInOneBranch(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        left, right = y.chunk(2)
        return torch.cat([self.bn(left), right])


class SharedWeights(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(3, 4, 3, padding=1)
        self.again.weight = self.conv.weight
        self.other = nn.BatchNorm2d(4)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.other(self.again(x.flip(3)))


class SharedModule(Net):
    def __init__(self) -> None:
        super().__init__()
        self.alias = self.bn

    def body(self, x: Tensor) -> Tensor:
        return self.alias(self.conv(x))


class WeightReadElsewhere(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1)


class NormReadElsewhere(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn.weight.mean()


class WithoutStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4, track_running_stats=False)


class SpecialConvolution(Net):
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.Standardised(3, 4, 3, padding=1)


class Parametrised(Net):
    def __init__(self) -> None:
        super().__init__()
        torch.nn.utils.parametrizations.weight_norm(self.conv)


class Hooked(Net):
    def __init__(self, where: str, kind: str) -> None:
        super().__init__()
        module = getattr(self, where)
        if kind == "forward":
            module.register_forward_hook(lambda _, args, output: 2 * output)
        else:
            module.register_forward_pre_hook(lambda _, args: (args[0] + 0.5,))


NOT_FOLDABLE: list[Callable[[], nn.Module]] = [
    OutputUsedTwice,
    OutputUsedInPlaceLater,
    OutputThroughAView,
    ConvolutionCalledTwice,
    NormCalledTwice,
    TwoNormsRead,
    NormAfterRelu,
    NormOnSlice,
    NormInOneBranch,
    SharedWeights,
    SharedModule,
    WeightReadElsewhere,
    NormReadElsewhere,
    WithoutStatistics,
    SpecialConvolution,
    Parametrised,
    *(lambda w=where, k=kind: Hooked(w, k) for where in ("conv", "bn") for kind in ("forward", "before")),
]


# What the traced pass doesn't show, so that it is found by comparison with the network, and reported.
ONLY_FOUND_BY_COMPARISON = pytest.mark.filterwarnings("ignore:attacks run without folded batch-norms")


@ONLY_FOUND_BY_COMPARISON
@pytest.mark.parametrize("make", NOT_FOLDABLE, ids=lambda make: make.__name__)
def test_what_cannot_be_folded_is_left_alone(make: Callable[[], nn.Module], make_images: Callable[..., Tensor]) -> None:
    """The engine sees the fresh network, whose batch-norms do next to nothing; training moves them afterwards."""
    model = make()
    x, y = make_images(4, 3), torch.tensor([0, 1, 2, 3])
    engine = AttackEngine(model)
    with engine.view(x) as view:
        assert error(view(x), reference(model, x, y)[0]) < 1e-5
    assert engine.folded == ()
    randomise_norms(model)
    with engine.view(x) as view:
        logits, gradient = through(view, x, y)
    expected, expected_gradient = reference(model, x, y)
    assert error(logits, expected) < 1e-5
    assert error(gradient, expected_gradient) < 1e-4


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.Conv2d(3, 6, 3, stride=2, groups=3),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2, padding_mode="reflect"),
    ],
    ids=["no bias", "groups", "circular", "reflect"],
)
@pytest.mark.parametrize("affine", [True, False])
def test_what_can_be_folded_is(conv: nn.Conv2d, affine: bool, make_images: Callable[..., Tensor]) -> None:
    channels = conv.out_channels
    model = nn.Sequential(
        copy.deepcopy(conv), nn.BatchNorm2d(channels, affine=affine), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    )
    x, y = make_images(4, 3), torch.tensor([0, 1, 2, 3])
    model(x)
    randomise_norms(model)
    engine = AttackEngine(model)
    with engine.view(x) as view:
        logits, _ = through(view, x, y)
    assert [(pair.convolution, pair.norm) for pair in engine.folded] == [("0", "1")]
    assert error(logits, reference(model, x, y)[0]) < 1e-5


@ONLY_FOUND_BY_COMPARISON
@pytest.mark.parametrize("make", [OutputUsedTwice, ConvolutionCalledTwice, TwoNormsRead, NormReadElsewhere])
def test_one_obstacle_does_not_keep_the_rest_from_being_folded(
    make: Callable[[], nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), make())
    x = make_images(4, 3)
    engine = AttackEngine(randomise_norms(model))
    with engine.view(x) as view:
        assert error(view(x), reference(model, x, torch.tensor([0, 1, 2, 3]))[0]) < 1e-5
    assert [pair.norm for pair in engine.folded] == ([] if make is NormReadElsewhere else ["1"])


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a network that a view could leave changed."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "classes": {name: type(module) for name, module in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: p.grad for name, p in model.named_parameters()},
        "values": {name: t.detach().clone() for name, t in tensors},
        "identity": {name: id(t) for name, t in tensors},
        "strides": {name: t.stride() for name, t in tensors},
        "hooks": {
            name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in model.named_modules()
        },
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    values_a, values_b = a.pop("values"), b.pop("values")
    return a == b and all(torch.equal(values_a[name], values_b[name]) for name in values_a)


class StopHere(Exception):
    pass


@pytest.mark.parametrize("how", ["engine", "plain"])
@pytest.mark.parametrize("raises", [False, True])
def test_the_network_is_left_as_it_was(
    how: str, raises: bool, make_cnn: Make, make_images: Callable[..., Tensor]
) -> None:
    model, x = make_cnn(3), make_images(4, 3)
    model.train()
    model[1].eval()  # as fine-tuning with frozen statistics does
    model[0].weight.requires_grad_(False)
    model[4].register_forward_hook(lambda *_: None)
    before = snapshot(model)
    inside = None
    try:
        with AttackEngine(model).view(x) if how == "engine" else plain_view(model) as view:
            through(view, x, torch.zeros(4, dtype=torch.int64))
            inside = view(x)
            if raises:
                raise StopHere
    except StopHere:
        pass
    assert same(before, snapshot(model))
    assert inside is not None
    assert torch.allclose(inside, copy.deepcopy(model).eval()(x), atol=1e-5)


def test_a_network_that_raises_is_left_as_it_was(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    model = make_cnn(3).train()
    before = snapshot(model)
    wrong = make_images(4, channels=1)
    for open_view in (lambda: AttackEngine(model).view(wrong), lambda: plain_view(model)):
        with pytest.raises(RuntimeError, match="channels"), open_view() as view:
            view(wrong)
    assert same(before, snapshot(model))


def test_a_view_has_the_present_weights(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    model, x, y = make_cnn(3).train(), make_images(16, 3), torch.arange(16) % 10
    engine = AttackEngine(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = []
    for _ in range(3):
        with engine.view(x) as view:
            seen.append(view(x))
        assert error(seen[-1], reference(model, x, y)[0]) < 1e-5
        F.cross_entropy(model(x), y).backward()  # moves the batch-norms' statistics as well
        optimizer.step()
        optimizer.zero_grad()
    assert len(engine.folded) == 2
    assert error(seen[0], seen[2]) > 0.01


class KeepsFunction(nn.Module):
    """A function is not copied: that of a copy calls the layers of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.block = lambda x: self.bn(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block(x)).mean((2, 3))


class CopiesAreItself(nn.Conv2d):
    def __deepcopy__(self, memo: object) -> "CopiesAreItself":
        return self


def shares_a_layer() -> nn.Module:
    return nn.Sequential(CopiesAreItself(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("make", "message"), [(KeepsFunction, "still calls layers of the network"), (shares_a_layer, "shares layers")]
)
def test_a_copy_that_is_not_apart_from_the_network_is_not_used(
    make: Callable[[], nn.Module], message: str, make_images: Callable[..., Tensor]
) -> None:
    model, x = make(), make_images(4, 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match=message), AttackEngine(model).view(x) as view:
        found = view(x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "nor its statistics"
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(found, model.eval()(x))


def test_a_network_that_cannot_be_copied_is_attacked_as_it_is(
    make_cnn: Make, make_images: Callable[..., Tensor]
) -> None:
    model, x = make_cnn(3), make_images(4, 3)
    model.scale = torch.ones(1, requires_grad=True) * 2  # a computed tensor, which deepcopy refuses
    engine = AttackEngine(model)
    with pytest.warns(UserWarning, match="the network can't be copied"), engine.view(x) as view:
        first = view(x)
    with engine.view(x) as view:  # warned once
        assert torch.equal(view(x), first)
    assert model.training
    assert torch.equal(first, model.eval()(x))


@pytest.mark.parametrize("result", ["tuple", "map", "short"])
def test_what_is_no_logits_is_refused(result: str, make_images: Callable[..., Tensor]) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> object:
            return {"tuple": (x, x), "map": x, "short": x.flatten(1)[:2]}[result]

    x = make_images(4)
    expected = r"expected logits of shape \(4, classes\)"
    with AttackEngine(Wrong()).view(x) as view, pytest.raises(InputError, match=expected):
        view(x)


def test_a_float32_view_stays_float32_under_autocast(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    model, x = make_cnn(3).eval(), make_images(4, 3)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        engine = AttackEngine(model)
        with engine.view(x) as fast, plain_view(model) as plain:
            assert torch.equal(plain(x), expected)
            assert error(fast(x), expected) < 1e-5
    assert len(engine.folded) == 2


def test_views_work_in_inference_mode(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    model, y = make_cnn(3).train(), torch.tensor([0, 1, 2, 3])
    before = snapshot(model)
    expected, expected_gradient = reference(model, make_images(4, 3), y)
    with torch.inference_mode():
        x = make_images(4, 3)
        for open_view in (AttackEngine(model).view(x), plain_view(model)):
            with open_view as view:
                logits, gradient = through(view, x, y)
            assert torch.is_inference_mode_enabled()
            assert error(logits, expected) < 1e-5
            assert error(gradient, expected_gradient) < 1e-4
    assert same(before, snapshot(model))


def test_a_compiled_view_sees_few_batch_sizes(
    make_cnn: Make, make_images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding without a compiler: what would be compiled notes the sizes it is called with."""
    sizes = set()

    def compile_(module: nn.Module, **_: object) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            sizes.add(len(x))
            return module(x)

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    model, x, y = make_cnn(3), make_images(64, 3), torch.arange(64) % 10
    engine = AttackEngine(model, ViewOptions(compile=True))
    for count in (64, 63, 40, 33, 32, 20, 9, 8, 3, 1):
        with engine.view(x[:count]) as view:
            logits, gradient = through(view, x[:count], y[:count])
        expected, expected_gradient = reference(model, x[:count], y[:count])
        assert logits.shape == expected.shape
        assert error(logits, expected) < 1e-5
        assert error(gradient, expected_gradient) < 1e-4
    assert sizes == {64, 32, 16, 8}


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        AttackEngine(nn.Linear(1, 1), ViewOptions(compile=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_view_is_the_network(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    try:
        require_compiler()
    except InputError as refusal:
        pytest.skip(str(refusal))
    model, x, y = make_cnn(3), make_images(16, 3), torch.arange(16) % 10
    engine = AttackEngine(randomise_norms(model), ViewOptions(compile=True))
    for count in (16, 13):
        with engine.view(x[:count]) as view:
            logits, gradient = through(view, x[:count], y[:count])
        expected, expected_gradient = reference(model, x[:count], y[:count])
        assert error(logits, expected) < 1e-5
        assert error(gradient, expected_gradient) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_view_folds_on_a_gpu(make_cnn: Make, make_images: Callable[..., Tensor]) -> None:
    model, x = randomise_norms(make_cnn(3)).cuda().eval(), make_images(16, 3).cuda()
    engine = AttackEngine(model)
    with engine.view(x) as view:
        assert error(view(x), model(x)) < 1e-2  # the network by itself may run its convolutions in TF32
    assert len(engine.folded) == 2


def test_cuda_graphs_need_a_compiled_view() -> None:
    with pytest.raises(InputError, match="cuda_graphs=True without compile"):
        ViewOptions(cuda_graphs=True)
