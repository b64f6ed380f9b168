"""A3: short, in the ball, and as strong as it is said to be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import A3, AutoAttack, norms
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import plain_view

BUDGETS = [("linf", 0.15), ("l2", 0.8)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def broken(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).argmax(1) != y


@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
def test_images_are_in_the_ball_and_wrong_ones_stay(
    norm: Any, eps: float, robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = (part[:40] for part in digits_test)
    x_adv = A3(norm, eps)(robust_network, x, y, generator=generator())
    assert float(norms(x_adv - x, norm).max()) <= eps * (1 + 1e-5)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    wrong = broken(robust_network, x, y)
    assert torch.equal(x_adv[wrong], x[wrong])
    # Starts don't depend on how samples are grouped; products round differently.
    grouped = A3(norm, eps, batch_size=7)(robust_network, x, y, generator=generator())
    assert int((broken(robust_network, x_adv, y) != broken(robust_network, grouped, y)).sum()) <= 1


@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
def test_it_finds_what_the_standard_version_finds(
    norm: Any, eps: float, robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = (part[:60] for part in digits_test)
    with plain_view(robust_network) as view:
        short = broken(robust_network, A3(norm, eps)(view, x, y, generator=generator()), y)
        gradients = view.passes.backward
    whole = broken(robust_network, AutoAttack(norm, eps)(robust_network, x, y, generator=generator()), y)
    assert abs(int(short.sum()) - int(whole.sum())) <= 2
    assert gradients < 352 * int((~short).sum()) + 100 * int(short.sum())


@pytest.mark.parametrize(("norm", "eps"), BUDGETS)
def test_a_linear_network_is_broken_exactly_where_it_can_be(norm: Any, eps: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    x = torch.rand(200, 3, 4, 4) * 0.4 + 0.3  # far from 0 and 1 for this budget
    eps = eps / 4
    with torch.no_grad():
        network[1].bias.sub_(network(x).mean(0))
        logits = network(x)
    y = logits.argmax(1)
    slope = (network[1].weight[0] - network[1].weight[1]).detach()
    reach = eps * float(slope.abs().sum() if norm == "linf" else slope.norm())
    margin = (logits[:, 0] - logits[:, 1]).abs().detach()
    found = broken(network, A3(norm, eps)(network, x, y, generator=generator()), y)
    clear = (margin - reach).abs() > 0.01 * reach
    assert torch.equal(found[clear], (margin < reach)[clear])
    assert 0 < int(found.sum()) < 200


def test_every_round_for_every_image(robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:40] for part in digits_test)
    counts = []
    for discard in (True, False):
        with plain_view(robust_network) as view:
            A3(eps=0.1, discard=discard)(view, x, y, generator=generator())
            counts.append(view.passes.backward)
    assert counts[0] < counts[1]
    assert AutoAttack(version="a3", patience=None).stages == (A3(discard=False),)
    assert AutoAttack(version="a3").stages == (A3(),)


def test_it_reports_its_progress(robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:10] for part in digits_test)
    reports = []
    A3(eps=0.1)(robust_network, x, y, generator=generator(), watcher=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (done[-1], reports[-1].phase) == (reports[-1].total, "a3")


@pytest.mark.parametrize("classes", [2, 3])
def test_few_and_masked_classes(classes: int, make_cnn: Callable[..., nn.Module], make_images: Any) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = make_cnn(classes=classes).eval()

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(self.inside(x), (0, 2), value=-float("inf"))

    network, x = Masked(), make_images(8)
    y = network(x).argmax(1)
    for each in (network, network.inside):
        found = A3(eps=0.3)(each, x, y, generator=generator())
        assert bool(found.isfinite().all())
        assert int(broken(each, found, y).sum()) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [({"norm": "l1", "eps": 2.0}, "a3 has linf and l2"), ({"batch_size": 0}, "batch_size=0"), ({"eps": 8}, "8/255")],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        A3(**values)
