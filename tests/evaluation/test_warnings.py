"""An evaluation warns by itself where its figures can't be trusted, and leaves honest networks in peace."""

import copy
import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustmaps import TrainOptions, fit, models
from robustmaps.attacks import FGSM, PGD, Attack, Square
from robustmaps.data import Dataset
from robustmaps.defenses import Standard
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.pages import page
from robustmaps.evaluation import Evaluation, EvaluationWarning, evaluate
from robustmaps.evaluation._checks._answers import label_order
from tests.conftest import DIGITS_EPS, small_cnn
from tests.helpers.doubtful import DOUBTFUL, HONEST, Around
from tests.helpers.zoo import build_with_weights

OPTIONS = TrainOptions(epochs=6, batch_size=64, lr=0.05, schedule="one-cycle", precision="fp32", device="cpu")
# Gradient attacks can't run on them at all.
WITHOUT_GRADIENT = {"thermometer", "JPEG", "detached", "one-hot", "constant"}

Images = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def images(digits: Dataset) -> Images:
    return digits.test.subset(200).tensors()


@pytest.fixture(scope="module")
def standard_network(digits: Dataset) -> nn.Module:
    network = small_cnn(seed=3)
    fit(network, digits, Standard(), OPTIONS)
    return network.eval()


def names(evaluation: Evaluation) -> list[str]:
    return [text.partition(":")[0] for text in evaluation.warnings]


def quickly(network: nn.Module, images: Images, attack: Attack | None = None) -> Evaluation:
    return evaluate(network, *images, [attack or FGSM(eps=DIGITS_EPS)], batch_size=64)


@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_are_left_in_peace(
    name: str, robust_network: nn.Module, standard_network: nn.Module, images: Images
) -> None:
    for network in (robust_network, standard_network):
        assert quickly(HONEST[name](network).eval(), images).warnings == ()


@pytest.mark.filterwarnings("ignore:attacks run without")
@pytest.mark.parametrize("trained", ["standard_network", pytest.param("robust_network", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DOUBTFUL)
def test_doubtful_networks_are_warned_of(
    name: str, trained: str, images: Images, request: pytest.FixtureRequest
) -> None:
    make, expected = DOUBTFUL[name]
    attack = Square(eps=DIGITS_EPS, queries=3) if name in WITHOUT_GRADIENT else FGSM(eps=DIGITS_EPS)
    network = copy.deepcopy(request.getfixturevalue(trained))
    with pytest.warns(EvaluationWarning):
        evaluation = quickly(make(network).eval(), images, attack)
    assert expected in names(evaluation)
    for text in evaluation.warnings:
        told, _, name = text.removesuffix(")").rpartition(" (robustmaps explain ")
        assert page(name).diagnosis
        assert any(character.isdigit() for character in told.partition(":")[2]), text


@pytest.mark.parametrize("eps", [1e-4, 1 / 255, 0.5, 1.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_any_budget_of_an_honest_network(norm: str, eps: float, robust_network: nn.Module, images: Images) -> None:
    assert quickly(robust_network, images, PGD(norm=norm, eps=eps, steps=1)).warnings == ()


@pytest.mark.parametrize("count", [1, 3, 10, 30])
def test_few_images_of_an_honest_network(count: int, robust_network: nn.Module, digits: Dataset) -> None:
    for batch_size in (1, 64):
        evaluation = evaluate(
            robust_network, *digits.test.subset(count).tensors(), FGSM(eps=0.1), batch_size=batch_size
        )
        assert evaluation.warnings == ()


def test_the_double_normalisation_of_a_network_of_ours(digits: Dataset, images: Images) -> None:
    network = models.create("resnet8", num_classes=10, in_channels=1, mean=digits.mean, std=digits.std)
    fit(network, digits, Standard(), replace(OPTIONS, epochs=2))
    assert quickly(network.eval(), images).warnings == ()
    twice = nn.Sequential(models.Normalize(1, digits.mean, digits.std), network).eval()
    evaluation = quickly(twice, images)
    assert "preprocessing" in names(evaluation)
    assert "as if normalised twice" in " ".join(evaluation.warnings)


def test_training_mode(standard_network: nn.Module, images: Images) -> None:
    network = nn.Sequential(nn.Dropout(0.3), copy.deepcopy(standard_network)).train()
    state = copy.deepcopy(network.state_dict())
    evaluation = quickly(network, images)
    assert names(evaluation) == ["training-mode"]
    assert network[0].training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert quickly(network.eval(), images).warnings == ()


def test_images_that_were_divided_by_255_twice(standard_network: nn.Module, images: Images) -> None:
    x, y = images
    found = names(quickly(standard_network, (x / 255, y)))
    assert {"input-range", "preprocessing", "chance"} <= set(found)


def test_an_untrained_network_is_at_chance(make_cnn: Callable[..., nn.Module], images: Images) -> None:
    evaluation = quickly(make_cnn().eval(), images)
    assert names(evaluation) == ["chance"]
    assert "of 200 images" in evaluation.warnings[0]


@pytest.mark.filterwarnings("ignore:attacks run without folded batch-norms")
def test_a_network_that_learns_while_it_is_used(standard_network: nn.Module, images: Images) -> None:
    class Counting(Around):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.network[1].running_mean.add_(1e-9)
            return super().forward(x)

    evaluation = quickly(Counting(copy.deepcopy(standard_network)).eval(), images)
    assert "parameters and buffers (network.1.running_mean)" in " ".join(evaluation.warnings)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_in_another_order(classes: int) -> None:
    y = torch.arange(20 * classes) % classes
    generator = torch.Generator().manual_seed(classes)
    noise = torch.randint(classes, y.shape, generator=generator)
    answers = torch.where(torch.rand(y.shape, generator=generator) < 0.3, noise, y)
    assert label_order(answers, y, classes) is None
    assert label_order(noise, y, classes) is None
    shifted = label_order((answers + 1) % classes, y, classes)
    assert shifted is not None
    assert "shifted by" in shifted.text
    order = torch.randperm(classes, generator=generator)
    if classes > 2:
        assert "in another order" in label_order(order[answers], y, classes).text


def test_one_image_of_each_class_is_enough_to_see_a_shift() -> None:
    y = torch.arange(1000)
    assert "shifted by -1" in label_order((y - 1) % 1000, y, 1000).text
    assert label_order(torch.randint(1000, (1000,), generator=torch.Generator().manual_seed(0)), y, 1000) is None


def test_it_costs_a_tenth_of_the_cheapest_attack(standard_network: nn.Module, digits: Dataset) -> None:
    class Counting(Around):
        seen = 0

        def forward(self, x: Tensor) -> Tensor:
            # Copies of the network count in the same place. With gradients, a pass has a way back.
            Counting.seen += len(x) * (2 if torch.is_grad_enabled() else 1)
            return super().forward(x)

    def cost(checks: bool) -> int:
        Counting.seen = 0
        evaluate(Counting(standard_network).eval(), *images, FGSM(eps=0.1), batch_size=64, checks=checks)
        return Counting.seen

    images = digits.test.subset(100).tensors()
    assert 0 < cost(True) - cost(False) < 0.15 * cost(False)


def test_nothing_else_changes(standard_network: nn.Module, images: Images, tmp_path: Path) -> None:
    attack = PGD(eps=DIGITS_EPS, steps=3, restarts=2)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error", EvaluationWarning)
        without, with_checks = (
            evaluate(standard_network, *images, attack, checks=checks, state=tmp_path / str(checks))
            for checks in (False, True)
        )
    assert without.verdicts == with_checks.verdicts
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert not any(module._forward_pre_hooks for module in standard_network.modules())


def test_warnings_survive_a_resumed_evaluation_and_the_disk(
    standard_network: nn.Module, images: Images, tmp_path: Path
) -> None:
    network = Around(standard_network, after=lambda z: 1000 * z).eval()
    first = evaluate(network, *images, FGSM(eps=0.1), state=tmp_path / "state")
    again = evaluate(network, *images, FGSM(eps=0.1), state=tmp_path / "state")
    assert names(first) == ["zero-gradients"]
    assert again.warnings == first.warnings
    first.save(tmp_path / "result.json")
    assert Evaluation.load(tmp_path / "result.json").warnings == first.warnings


def test_attacks_that_share_a_name_are_told_apart(make_cnn: Callable[..., nn.Module], digits: Dataset) -> None:
    class Named:
        norm, eps = "linf", 0.1

        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(
            self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
        ) -> Tensor:
            return x

    x, y = digits.test.subset(10).tensors()
    attacks = [Named(name) for name in ("a", "a", "a#2", "a", "b")]
    stages = evaluate(make_cnn(), x, y, attacks).stages
    found = [stage["name"] for stage in stages]
    assert len(set(found)) == 5
    assert (found[0], found[2], found[4]) == ("a", "a#2", "b")
    for name in ("robust", "wrong"):
        with pytest.raises(InputError, match=f"attack '{name}': the name stands for a verdict"):
            evaluate(make_cnn(), x, y, [Named(name)])


LIBRARIES = [
    *("timm:resnet18", "timm:mobilenetv3_small_050", "timm:convnext_atto", "timm:vit_tiny_patch16_224"),
    *("torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5", "torchvision:densenet121"),
    *("pytorchcv:resnet10", "pytorchcv:mobilenet_wd4", "transformers:resnet", "transformers:mobilenet_v2"),
]


class Scores(nn.Module):
    """The logits of a network of another library."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out = self.network(x)
        return out if isinstance(out, Tensor) else out.logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_other_libraries_are_left_in_peace(name: str) -> None:
    """Random weights; the labels are what the network answers, so that accuracy is no reason for a warning."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network, size = build_with_weights(name)
    network = Scores(network).eval()
    generator = torch.Generator().manual_seed(0)
    x = nn.functional.interpolate(torch.rand(12, 3, 8, 8, generator=generator), size).clamp(0, 1)
    with torch.no_grad():
        y = network(x).argmax(1)
    found = names(evaluate(network, x, y, FGSM(eps=8 / 255), batch_size=4))
    assert [name for name in found if name != "chance"] == []
