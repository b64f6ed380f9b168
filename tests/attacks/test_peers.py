"""FGSM, PGD, C&W and DeepFool beside independent implementations; skipped where these are not installed."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, Foolbox
from tests.helpers.attack_oracles import broken

IMAGES = 16
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


@pytest.fixture(scope="module")
def some() -> tuple[nn.Module, Tensor, Tensor]:
    """A network and images that it gets right."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)).eval()
        x = torch.rand(IMAGES, 1, 8, 8)
    return model, x, model(x).argmax(1)


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


def test_fgsm_gives_the_images_of_torchattacks(torchattacks, some) -> None:
    model, x, y = some
    agree(FGSM("linf", 0.1)(model, x, y), torchattacks.FGSM(model, eps=0.1)(x, y))


def test_fgsm_gives_the_images_of_art(art, some) -> None:
    model, x, y = some
    theirs = art.FastGradientMethod(of_art(model, x), eps=0.1).generate(x.numpy(), y.numpy())
    agree(FGSM("linf", 0.1)(model, x, y), torch.from_numpy(theirs))


@pytest.mark.parametrize(("norm", "eps", "step"), [("linf", 0.15, 0.03), ("l2", 0.7, 0.15)])
def test_pgd_gives_the_images_of_torchattacks(norm: Any, eps: float, step: float, torchattacks, some) -> None:
    model, x, y = some
    peer = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    theirs = peer(model, eps=eps, alpha=step, steps=7, random_start=False)(x, y)
    agree(PGD(norm, eps, 7, step, start="none")(model, x, y), theirs)


def test_pgd_gives_the_images_of_art(art, some) -> None:
    model, x, y = some
    theirs = art.ProjectedGradientDescent(
        of_art(model, x), norm="inf", eps=0.15, eps_step=0.03, max_iter=7, verbose=False
    ).generate(x.numpy(), y.numpy())
    agree(PGD("linf", 0.15, 7, 0.03, start="none")(model, x, y), torch.from_numpy(theirs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_deepfool_is_as_near_as_that_of_torchattacks(torchattacks, some) -> None:
    model, x, y = some
    ours = Foolbox("deepfool", "l2", FAR, minimal=True)(model, x, y)
    theirs = torchattacks.DeepFool(model, steps=50, overshoot=0.02)(x, y)
    as_near(model, x, y, ours, theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_carlini_wagner_is_as_near_as_that_of_torchattacks(torchattacks, some) -> None:
    model, x, y = some[0], some[1][:8], some[2][:8]
    ours = Foolbox("cw", "l2", FAR, steps=60, minimal=True)(model, x, y)
    theirs = torchattacks.CW(model, c=1, steps=200, lr=0.01)(x, y)  # one constant, where ours searches for it
    as_near(model, x, y, ours, theirs)


def as_near(model: nn.Module, x: Tensor, y: Tensor, ours: Tensor, theirs: Tensor) -> None:
    """Ours breaks each image, and lies as near as theirs where that breaks it too."""
    assert broken(model, ours, y).all()
    both = broken(model, theirs, y)
    assert float(both.float().mean()) > 0.5
    ratios = lengths(ours, x)[both] / lengths(theirs, x)[both]
    assert float(ratios.median()) == pytest.approx(1, abs=0.02)
    assert float(ratios.max()) < 1.1
