"""FGSM, PGD, C&W and DeepFool beside independent implementations; skipped where these are not installed."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, Foolbox
from tests.helpers.attack_oracles import broken

IMAGES = 64
# Far enough for the smallest perturbation of every image.
FAR = 30.0


@pytest.fixture(scope="module")
def torchattacks() -> Any:
    return pytest.importorskip("torchattacks", reason="needs torchattacks: pip install --group peers")


@pytest.fixture(scope="module")
def art() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "art.attacks.evasion", reason="needs ART: pip install adversarial-robustness-toolbox"
        )


@pytest.fixture
def images(digits_test: tuple[Tensor, Tensor], robust_network: nn.Module) -> tuple[Tensor, Tensor]:
    """Images that the network gets right."""
    x, y = digits_test
    right = ~broken(robust_network, x, y)
    return x[right][:IMAGES], y[right][:IMAGES]


def of_art(model: nn.Module, x: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def lengths(x_adv: Tensor, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm((x_adv - x).flatten(1), dim=1)


def agree(ours: Tensor, theirs: Tensor) -> None:
    """The same images, but for pixels whose gradient is so small that rounding decides its sign."""
    assert float(((ours - theirs).abs() < 1e-5).float().mean()) > 0.995


def test_fgsm_gives_the_images_of_torchattacks_and_art(torchattacks, art, robust_network, images) -> None:
    x, y = images
    ours = FGSM("linf", 0.1)(robust_network, x, y)
    agree(ours, torchattacks.FGSM(robust_network, eps=0.1)(x, y))
    theirs = art.FastGradientMethod(of_art(robust_network, x), eps=0.1).generate(x.numpy(), y.numpy())
    agree(ours, torch.from_numpy(theirs))


@pytest.mark.parametrize(("norm", "eps", "step"), [("linf", 0.15, 0.03), ("l2", 0.7, 0.15)])
def test_pgd_gives_the_images_of_torchattacks_and_art(
    norm: Any, eps: float, step: float, torchattacks, art, robust_network, images
) -> None:
    x, y = images
    ours = PGD(norm, eps, 7, step, start="none")(robust_network, x, y)
    settings = {"eps": eps, "alpha": step, "steps": 7, "random_start": False}
    peer = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    agree(ours, peer(robust_network, **settings)(x, y))
    order = {"linf": "inf", "l2": 2}[norm]
    theirs = art.ProjectedGradientDescent(
        of_art(robust_network, x), norm=order, eps=eps, eps_step=step, max_iter=7, verbose=False
    ).generate(x.numpy(), y.numpy())
    agree(ours, torch.from_numpy(theirs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_deepfool_is_as_near_as_that_of_torchattacks(torchattacks, robust_network, images) -> None:
    x, y = images
    ours = Foolbox("deepfool", "l2", FAR, minimal=True)(robust_network, x, y)
    theirs = torchattacks.DeepFool(robust_network, steps=50, overshoot=0.02)(x, y)
    both = broken(robust_network, ours, y) & broken(robust_network, theirs, y)
    assert float(both.float().mean()) > 0.95
    mine, other = lengths(ours, x)[both], lengths(theirs, x)[both]
    assert float(mine.median() / other.median()) == pytest.approx(1, abs=0.05)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_carlini_wagner_is_as_near_as_that_of_art(art, robust_network, images) -> None:
    x, y = (values[:24] for values in images)
    ours = Foolbox("cw", "l2", FAR, steps=100, minimal=True)(robust_network, x, y)
    attack = art.CarliniL2Method(
        of_art(robust_network, x), max_iter=100, binary_search_steps=9, learning_rate=0.01, batch_size=24, verbose=False
    )
    theirs = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    mine, other = (broken(robust_network, x_adv, y) for x_adv in (ours, theirs))
    assert mine.all()
    both = mine & other
    assert float(both.float().mean()) > 0.8
    assert float(lengths(ours, x)[both].median() / lengths(theirs, x)[both].median()) == pytest.approx(1, abs=0.15)
