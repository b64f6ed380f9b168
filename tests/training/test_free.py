"""Free adversarial training against its algorithm written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustmaps.attacks import FGSM
from robustmaps.data import Dataset, batches
from robustmaps.defenses import FreeAT
from robustmaps.training import TrainOptions, fit

OPTIONS = TrainOptions(epochs=2, batch_size=32, lr=0.05, schedule="constant", device="cpu", precision="fp32")


def plain_net() -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.7)])
def test_free_training_is_its_algorithm_written_out(
    norm: Any, eps: float, make_dataset: Callable[..., Dataset]
) -> None:
    """Three steps on each batch; the perturbation, and the momentum, go on from batch to batch and epoch to epoch."""
    data = make_dataset(validation=0)
    ours, plain = plain_net(), plain_net()
    fit(ours, data, FreeAT(FGSM(norm, eps), replays=3), OPTIONS)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    carried = torch.zeros(32, 1, 6, 6)
    for epoch in range(2):
        for x, y in batches(data.train, 32, seed=0, epoch=epoch, augmentation=data.augmentation):
            n = len(x)
            for _ in range(3):
                x_adv = (x + carried[:n]).clamp(0, 1).requires_grad_()
                optimizer.zero_grad()
                F.cross_entropy(plain(x_adv), y).backward()
                optimizer.step()
                assert x_adv.grad is not None
                if norm == "linf":
                    carried[:n] = (carried[:n] + eps * x_adv.grad.sign()).clamp(-eps, eps)
                else:
                    lengths = x_adv.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
                    moved = carried[:n] + eps * x_adv.grad / lengths
                    too_long = (moved.flatten(1).norm(dim=1) / eps).clamp(min=1).view(-1, 1, 1, 1)
                    carried[:n] = moved / too_long
    assert len(data.train) % 32 > 1
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
