"""The loss of every published defence on a linear network, against the same arithmetic in NumPy, step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustmaps.defenses import ALP, AT, AWP, DAJAT, FAT, MART, TRADES, FriendlyTRADES, Standard

Array = NDArray[np.float64]

WEIGHTS = np.array([[1.0, -0.5, 0.25, 2.0], [0.5, 1.5, -1.0, 0.0], [-1.0, 0.75, 0.5, 1.0]])
BIAS = np.array([0.1, -0.2, 0.3])
IMAGES = np.array([[0.1, 0.9, 0.4, 0.6], [0.8, 0.2, 0.5, 0.3], [0.5, 0.5, 0.7, 0.1]])
ATTACKED = np.array([[0.2, 0.8, 0.5, 0.5], [0.7, 0.3, 0.6, 0.2], [0.4, 0.6, 0.6, 0.2]])
LABELS = np.array([0, 1, 1])


@dataclass(frozen=True)
class Given:
    """Leads to the attacked images, whatever the network."""

    eps: float = 0.1
    norm = "linf"
    name = "given"

    def __call__(self, model: object, x: Tensor, y: Tensor, *, generator: object = None) -> Tensor:
        return images(ATTACKED)


class Friendly(FAT):
    """FAT whose attack is given."""

    def inner(self, model: object, x: Tensor, y: Tensor, generator: object) -> Tensor:  # type: ignore[override]
        return images(ATTACKED)


class FriendlyPair(FriendlyTRADES):
    """FAT for TRADES whose attack is given."""

    def inner(self, model: object, x: Tensor, y: Tensor, generator: object) -> Tensor:  # type: ignore[override]
        return images(ATTACKED)


def images(values: Array) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 2, 2)


def network() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(WEIGHTS))
        model[1].bias.copy_(torch.tensor(BIAS))
    return model


def logits(weights: Array, x: Array) -> Array:
    return x @ weights.T + BIAS


def softmax(z: Array) -> Array:
    shares = np.exp(z - z.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def entropy(z: Array) -> float:
    return float(-np.log(softmax(z)[np.arange(3), LABELS]).mean())


def divergence(p: Array, q: Array) -> Array:
    """KL(p || q) of each row."""
    return (p * (np.log(p) - np.log(q))).sum(1)


def standard(weights: Array) -> float:
    return entropy(logits(weights, IMAGES))


def at(weights: Array) -> float:
    return entropy(logits(weights, ATTACKED))


def alp(weights: Array) -> float:
    clean, attacked = logits(weights, IMAGES), logits(weights, ATTACKED)
    return entropy(clean) + entropy(attacked) + 0.5 * float(((clean - attacked) ** 2).mean())


def trades(weights: Array) -> float:
    clean, attacked = logits(weights, IMAGES), logits(weights, ATTACKED)
    return entropy(clean) + 6 * float(divergence(softmax(clean), softmax(attacked)).mean())


def mart(weights: Array, *, published: bool) -> float:
    clean, attacked = softmax(logits(weights, IMAGES)), softmax(logits(weights, ATTACKED))
    wrong = np.where(np.arange(3) == LABELS[:, None], 0, attacked).max(1)
    boost = 1.0001 - wrong if published else np.log(1.0001 - wrong)
    pair = divergence(attacked, clean) if published else divergence(clean, attacked)
    unsure = 1 - clean[np.arange(3), LABELS]
    return at(weights) - float(boost.mean()) + 5 * float((pair * unsure).mean())


def perturbed(loss: Callable[[Array], float], gamma: float) -> float:
    """The loss at weights moved along its gradient, which central differences give, by gamma times their norm."""
    gradient = np.zeros_like(WEIGHTS)
    for place in np.ndindex(*WEIGHTS.shape):
        step = np.zeros_like(WEIGHTS)
        step[place] = 1e-6
        gradient[place] = (loss(WEIGHTS + step) - loss(WEIGHTS - step)) / 2e-6
    return loss(WEIGHTS + gamma * np.linalg.norm(WEIGHTS) * gradient / np.linalg.norm(gradient))


@pytest.mark.parametrize(
    ("defense", "expected"),
    [
        (Standard(), standard(WEIGHTS)),
        (AT(Given()), at(WEIGHTS)),
        (ALP(Given(), beta=0.5), alp(WEIGHTS)),
        (TRADES(Given(), beta=6.0), trades(WEIGHTS)),
        (AWP(AT(Given()), gamma=0.01), perturbed(at, 0.01)),
        (AWP(TRADES(Given(), beta=6.0), gamma=0.005), perturbed(trades, 0.005)),
        (MART(Given(), beta=5.0), mart(WEIGHTS, published=False)),
        (MART(Given(), beta=5.0, form="published"), mart(WEIGHTS, published=True)),
        (Friendly(), at(WEIGHTS)),
        (FriendlyPair(beta=6.0), trades(WEIGHTS)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_loss_is_that_of_the_arithmetic(defense: Any, expected: float) -> None:
    model = network()
    loss = defense.loss(model, images(IMAGES), torch.tensor(LABELS))
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(model[1].weight, torch.tensor(WEIGHTS, dtype=torch.float32))  # type: ignore[index]


def test_the_joint_loss_of_dajat_is_that_of_the_arithmetic() -> None:
    second, third = IMAGES[::-1].copy(), IMAGES**2
    pairs = [(IMAGES, ATTACKED), (second, second + 0.05), (third, third + 0.03)]
    clean = [softmax(logits(WEIGHTS, x)) for x, _ in pairs]
    moved = [softmax(logits(WEIGHTS, x_adv)) for _, x_adv in pairs]
    losses = [
        entropy(logits(WEIGHTS, x)) + 11 * float(divergence(p, q).mean())
        for (x, _), p, q in zip(pairs, clean, moved, strict=True)
    ]
    mixture = np.mean(clean, axis=0)
    shannon = np.mean([divergence(p, mixture).mean() for p in clean])
    examples = tuple((images(x), images(x_adv)) for x, x_adv in pairs)
    loss = DAJAT().outer(network(), images(IMAGES), examples, torch.tensor(LABELS))
    assert float(loss.value.detach()) == pytest.approx(float(np.mean(losses) + 2 * shannon), rel=1e-5)
