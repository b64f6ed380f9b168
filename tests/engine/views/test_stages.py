"""Checkpointed stages: the same values, gradients and statistics, bit for bit, with less kept for the backward pass."""

import copy
import warnings
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import TrainOptions, fit, models
from robustmaps.attacks import PGD
from robustmaps.cli import main
from robustmaps.defenses import AT
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import saved_bytes
from robustmaps.engine.view import AttackEngine, ViewOptions
from robustmaps.engine.views.stages import checkpointed, find_stages
from robustmaps.enlarging import enlarge

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)


class Block(nn.Module):
    """A residual block whose activations write into their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels, momentum=None), nn.BatchNorm2d(channels)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.relu(self.norm1(self.conv1(x))))
        return self.relu(self.norm2(self.conv2(y)) + x)


class WritesIntoItsInput(Block):
    """The same, but its first operation changes what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.elu_(x))


def tower(block: type[nn.Module]) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
    return nn.Sequential(stem, *(block(8) for _ in range(6)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def surgery() -> nn.Module:
    """Strided slices are relaxed by a mode around the module, which is not there when a stage runs again."""
    network = models.create("resnet20", num_classes=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return enlarge(network, IMAGES, where="last", smooth="blur", latency_runs=0)[0]


def step(network: nn.Module, *, stages: bool) -> tuple[list[Tensor], int]:
    """Gradients and buffers after a step with a clean and another pass, and the bytes kept for it."""
    network, kept = copy.deepcopy(network).train(), []
    found = find_stages(network, IMAGES[:1])[0] if stages else ()
    torch.manual_seed(0)
    x = IMAGES.clone().requires_grad_()
    with saved_bytes(kept.append, *network.parameters()), checkpointed(network, found) if stages else nullcontext():
        loss = F.cross_entropy(network(x + 0), LABELS) + F.cross_entropy(network(1 - x), LABELS)
    loss.backward()
    assert not any("forward" in vars(module) for module in network.modules())
    return [x.grad, loss.detach(), *(p.grad for p in network.parameters()), *network.buffers()], sum(kept)


@pytest.mark.parametrize(
    "make",
    [
        *(lambda name=name: models.create(name, num_classes=10) for name in ("resnet8", "vgg11_bn", "preactresnet18")),
        lambda: tower(Block),
        surgery,
    ],
    ids=["resnet8", "vgg11_bn", "preactresnet18", "in-place", "surgery"],
)
def test_nothing_changes_but_memory(make):
    network = make()
    expected, kept = step(network, stages=False)
    found, less = step(network, stages=True)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert less < 0.7 * kept


def test_what_changes_its_input_is_no_stage():
    network = tower(WritesIntoItsInput)
    assert find_stages(network, IMAGES[:1])[0]  # the stem
    expected, _ = step(network, stages=False)
    found, _ = step(network, stages=True)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_attacks_see_the_same_gradients():
    network = models.create("resnet8", num_classes=10)
    seen = []
    for stages in (False, True):
        with AttackEngine(network, ViewOptions(stages=stages)).view(IMAGES) as view:
            seen.append(view.gradient(IMAGES, lambda logits: F.cross_entropy(logits, LABELS, reduction="none")))
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    with pytest.raises(InputError, match="stages=True with compile"):
        ViewOptions(stages=True, compile=True)


def test_training_ends_with_the_same_weights(digits, monkeypatch):
    ended = {}
    for choice in ("off", "on", "auto"):
        torch.manual_seed(0)
        network = models.create("resnet8", num_classes=10, in_channels=1)
        options = TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32", checkpoint_stages=choice)
        if choice == "auto":
            monkeypatch.setattr("robustmaps.training._forms.free_bytes", lambda device: 1 << 20)
        with (
            pytest.warns(UserWarning, match=r"a step keeps .*, and 1.05 MB are free: \d+ stages run again")
            if (choice == "auto")
            else nullcontext()
        ):
            fit(network, digits, AT(PGD("linf", 0.1, steps=1)), options)
        ended[choice] = network.state_dict()
    for name, value in ended["off"].items():
        assert torch.equal(value, ended["on"][name])
        assert torch.equal(value, ended["auto"][name])


def test_a_network_that_cannot_be_divided_says_so(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    options = TrainOptions(epochs=1, batch_size=512, device="cpu", precision="fp32", checkpoint_stages="on")
    with pytest.warns(UserWarning, match="no stages are checkpointed: the network can't be divided"):
        fit(network, digits, AT(PGD("linf", 0.1, steps=1)), options)


def test_what_contradicts_it_is_refused(capsys):
    assert main(["train", "--checkpoint-stages", "on", "--compile"]) == 2
    assert "checkpoint_stages=on with compile" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="unknown checkpoint_stages 'yes'"):
        TrainOptions(checkpoint_stages="yes")
