"""Networks without a gradient: attacks that need none work, the others say why not."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import evaluate
from robustmaps.attacks import APGD, PGD, AutoAttack, Square
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import NoGradientError
from robustmaps.engine.view import plain_view
from tests.helpers.any_network import Net

Make = Callable[..., nn.Sequential]
Images = Callable[..., Tensor]


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
