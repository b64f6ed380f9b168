"""Single steps of training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustmaps.defenses import create
from robustmaps.engine.view import AttackEngine
from robustmaps.training import Trainee, TrainOptions
from robustmaps.training._state import Sums
from robustmaps.training._stepper import BatchTrainer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["at", "trades", "at-awp"])
def test_a_step_does_not_wait_for_the_gpu(
    name: str, make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model, x, y = make_cnn(3).cuda(), make_images(16, 3).cuda(), (torch.arange(16) % 10).cuda()
    engine = AttackEngine(model)
    engine.settle(x[:8])
    options = TrainOptions(batch_size=16, device="cuda", precision="fp32")
    trainee = Trainee(model, "fp32", False, 16).train()
    trainer = BatchTrainer(trainee, engine, create(name, "linf", 8 / 255), options, 10, None)
    sums = Sums(torch.device("cuda"))
    trainer(x, y, 16, 0, 0, 2, sums)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer(x, y, 16, 0, 1, 2, sums)
    finally:
        torch.cuda.set_sync_debug_mode("default")
