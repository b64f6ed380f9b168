"""Networks that `copy.deepcopy` refuses."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.data import Dataset
from robustmaps.defenses import AT, AWP, Defense
from robustmaps.engine.errors import InputError
from robustmaps.training import TrainOptions, fit

MakeData = Callable[..., Dataset]
MakeNet = Callable[..., nn.Sequential]
OPTIONS = TrainOptions(epochs=1, batch_size=8, lr=0.05, schedule="constant", device="cpu", precision="fp32")


class CannotBeCopied(nn.Module):
    """A network that holds what `copy.deepcopy` refuses."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.lock = network, threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("defense", [AT(PGD(eps=0.1, steps=2)), AWP(AT(PGD(eps=0.1, steps=2)))], ids=lambda d: d.name)
def test_a_network_that_cannot_be_copied_is_trained_all_the_same(
    defense: Defense, make_cnn: MakeNet, make_dataset: MakeData
) -> None:
    plain, wrapped_ = make_cnn(1, 6, 2), CannotBeCopied(make_cnn(1, 6, 2))
    data = make_dataset()
    fit(plain, data, defense, OPTIONS)
    with pytest.warns(UserWarning, match="can't be copied, so attacks run on it directly"):
        fit(wrapped_, data, defense, OPTIONS)
    for ours, theirs in zip(wrapped_.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)
    with pytest.raises(InputError, match="ema and swa need a network that can be copied"):
        fit(wrapped_, data, defense, replace(OPTIONS, ema=0.9))
