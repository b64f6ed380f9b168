import pytest
import torch
import torchattacks
from torch import nn

from robustmaps.attacks import Square, norms
from robustmaps.attacks._windows import bump, windows
from robustmaps.engine.errors import InputError
from tests.helpers.attack_oracles import PEER_NORMS, TwoPlanes, broken, images, shortest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("norm", "margin"), [("linf", 1.15), ("l2", 1.8), ("l1", 3.0)])
def test_succeeds_where_the_margin_allows_and_nowhere_else(norm, margin):
    network, x = TwoPlanes(36), images(10)
    y = (network.value(x) < 0).long()
    distance = shortest(network, x, norm)
    eps = float(distance.median())
    x_adv = Square(norm, eps, queries=3000)(network, x, y, generator=generator())
    wrong = broken(network, x_adv, y)
    assert wrong[distance * margin < eps].all()
    assert not wrong[distance > eps * (1 + 1e-4)].any()
    assert torch.all(norms(x_adv - x, norm) <= eps * (1 + 1e-5))
    assert 0 <= x_adv.min() <= x_adv.max() <= 1


def test_asks_for_logits_only_and_no_oftener_than_allowed():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            if self.seen < 0:  # a flow that depends on values, so that nothing is traced
                raise AssertionError
            self.seen += len(x)
            return torch.stack([x.mean((1, 2, 3)) + 9, x.mean((1, 2, 3))], dim=1)

    network = Counting()
    Square(eps=0.1, queries=50)(network, images(3), torch.zeros(3, dtype=torch.int64), generator=generator())
    assert network.seen <= 3 * (50 + 3)  # the clean images, and what finds out how the network can be run


def test_windows_shrink_and_stay_inside():
    drawn = list(windows(10_000, torch.Size([1, 3, 32, 32]), 0.8, 1, False, generator()))
    sizes = [window.size_px for window in drawn]
    assert sizes == sorted(sizes, reverse=True)
    assert [sizes[i] for i in (0, 30, 100, 300, 700, 1500, 3000, 5000, 7000, 9000)] == [
        29,
        20,
        14,
        10,
        7,
        5,
        4,
        3,
        2,
        1,
    ]
    for rows, columns in (window.first for window in drawn):
        assert 0 <= rows.start < rows.stop <= 32
        assert 0 <= columns.start < columns.stop <= 32
    assert {window.first[0].stop for window in drawn if window.size_px == 1} == set(range(1, 33))


def test_bumps_have_unit_norm_and_two_signs():
    for size in (1, 3, 7, 8):
        assert bump(size, 2.0).norm().item() == pytest.approx(1)
        assert bump(size, 1.0).abs().sum().item() == pytest.approx(1)
    assert torch.all(bump(7, 2.0)[:3] > 0)
    assert torch.all(bump(7, 2.0)[3:] < 0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.9), ("l1", 6.0)])
def test_a_sample_does_not_depend_on_how_the_others_fare(norm, eps, robust_network, digits_test):
    x, y = digits_test[0][:20], digits_test[1][:20]
    mixed = torch.where(torch.arange(20) % 2 == 0, y, (y + 1) % 10)
    attack = Square(norm, eps, queries=200)
    whole, half = (attack(robust_network, x, labels, generator=generator()) for labels in (y, mixed))
    assert torch.equal(broken(robust_network, whole, y)[::2], broken(robust_network, half, y)[::2])


def test_restarts_add_to_what_is_broken(robust_network, digits_test):
    x, y = digits_test[0][:60], digits_test[1][:60]
    one, two = (
        broken(robust_network, Square(eps=0.15, queries=20, restarts=r)(robust_network, x, y, generator=generator()), y)
        for r in (1, 6)
    )
    assert torch.all(two >= one)
    assert two.sum() > one.sum()


def test_bad_values():
    for values, message in (
        ({"norm": "l3"}, "unknown norm"),
        ({"queries": 0}, "queries=0"),
        ({"p_init": 0}, "p_init=0"),
    ):
        with pytest.raises(InputError, match=message):
            Square(**values)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.9)])
def test_as_strong_as_torchattacks(norm, eps, robust_network, digits_test):
    x, y = digits_test[0][:80], digits_test[1][:80]
    ours = Square(norm, eps, queries=500)(robust_network, x, y, generator=generator())
    peer = torchattacks.Square(robust_network, norm=PEER_NORMS[norm], eps=eps, n_queries=500)
    difference = broken(robust_network, ours, y).sum() - broken(robust_network, peer(x, y), y).sum()
    # Another seed moves either by up to three of these images; the peer never changes the last row and column.
    assert difference >= -3
