"""A view of any network is the network, or says what was given up."""

import collections
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps.engine.calling import logits_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import hidden_modules
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from tests.helpers.any_network import (
    NETWORKS,
    NOTHING,
    Ensemble,
    Gives,
    Net,
    objective,
    reference,
)

Make = Callable[..., nn.Sequential]
Images = Callable[..., Tensor]


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
