"""Any network is trained as its plain twin, or the reason why not is said."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps import evaluate, fit
from robustmaps.attacks import PGD
from robustmaps.data import Dataset
from robustmaps.defenses import AT, TRADES
from robustmaps.engine.errors import InputError
from robustmaps.training import TrainOptions
from tests.helpers.any_network import (
    Auxiliary,
    Ensemble,
    FeaturesFirst,
    Net,
    Pair,
    Recomputing,
    ViewAfterConvolution,
    Volume,
    exported,
)

Make = Callable[..., nn.Sequential]
Images = Callable[..., Tensor]
OPTIONS = TrainOptions(epochs=1, batch_size=8, lr=0.05, schedule="constant", device="cpu", precision="fp32")


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


def test_anexported_program_is_evaluated_and_not_trained(make_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(InputError, match="an exported program, whose mode is fixed"):
        fit(exported(), make_dataset(), AT(PGD(eps=0.1, steps=1)), OPTIONS)
