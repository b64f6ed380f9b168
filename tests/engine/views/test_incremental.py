import pytest
import torch
from torch import Tensor, nn

from robustmaps import models
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.engine.views.incremental import incremental


def proposals(count: int, height: int, width: int):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        size = int(torch.randint(1, 12, (), generator=generator))
        top = int(torch.randint(0, height - size + 1, (), generator=generator))
        left = int(torch.randint(0, width - size + 1, (), generator=generator))
        rows = torch.randperm(5, generator=generator)[:2]
        yield torch.rand(5, 3, size, size, generator=generator), top, left, rows


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "pools"])
@pytest.mark.parametrize("plain", [True, False])
def test_logits_equal_those_of_a_full_pass(name, plain):
    torch.manual_seed(0)
    if name == "pools":
        network = nn.Sequential(
            *(nn.Conv2d(3, 6, 5, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, stride=2)),
            *(nn.SiLU(), nn.AvgPool2d(3, 1), nn.Flatten(), nn.LazyLinear(5)),
        ).eval()
        network(torch.rand(1, 3, 33, 30))
    else:
        network = models.create(name, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    x = torch.rand(5, 3, 33, 30)
    with plain_view(network) if plain else AttackEngine(network).view(x) as view, torch.no_grad():
        known = incremental(view, x)
        assert known is not None
        assert known.cost < 0.75
        for number, (patch, top, left, rows) in enumerate(proposals(30, 33, 30)):
            window = (..., slice(top, top + patch.shape[2]), slice(left, left + patch.shape[3]))
            changed = x.clone()
            changed[window] = patch
            expected = view(changed)
            assert torch.allclose(known.propose(patch, top, left), expected, atol=1e-5)
            if number % 2:  # of some images only
                asked = torch.tensor([row for row in range(5) if row % 3 or row in rows])
                logits = known.propose(patch[asked], top, left, asked)
                assert torch.allclose(logits, expected[asked], atol=1e-5)
            known.accept(rows)
            x[rows] = changed[rows]
            if number == 20:
                known.keep(torch.tensor([4, 1, 0]))
                x = x[[4, 1, 0]]
                break
        patch = torch.rand(3, 3, 2, 2)
        x[..., 5:7, 5:7] = patch
        assert torch.allclose(known.propose(patch, 5, 5), view(x), atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "area"])
def test_nearest_upsampling_is_followed_and_the_images_stay_as_they_are(mode):
    network = models.create("resnet8", upsample=2, upsample_mode=mode).eval()
    x = torch.rand(2, 3, 16, 16)
    before = x.clone()
    with plain_view(network) as view, torch.no_grad():
        known = incremental(view, x)
        assert known is not None
        patch = torch.rand(2, 3, 3, 3)
        logits = known.propose(patch, 1, 2)
        known.accept(torch.arange(2))
        assert torch.equal(x, before)
        x[..., 1:4, 2:5] = patch
        assert torch.allclose(logits, view(x), atol=1e-5)


@pytest.mark.parametrize("reason", ["flow", "precision", "global", "bilinear"])
def test_refuses_what_it_cannot_follow(reason):
    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).amax((2, 3)) if x.sum() > 0 else self.conv(x).mean((2, 3))

    networks = {
        "flow": Flow(),
        "precision": models.create("resnet8"),
        "global": nn.Sequential(nn.InstanceNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3)),
        "bilinear": models.create("resnet8", upsample=2, upsample_mode="bilinear"),
    }
    network, x = networks[reason].eval(), torch.rand(2, 3, 16, 16)
    network(x)
    options = ViewOptions(precision="bf16" if reason == "precision" else "fp32")
    with AttackEngine(network, options).view(x) as view, torch.no_grad():
        assert incremental(view, x) is None
