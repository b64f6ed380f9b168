"""``enlarge`` on small networks: what it finds, what it changes, and what it leaves alone."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from robustmaps import models
from robustmaps.enlarging import Enlargement, EnlargeWarning
from robustmaps.enlarging import enlarge as enlarge_and_time
from tests.helpers.enlarge_networks import Branches, Functional, Gated, OptionA, SharedPool, SpaceToDepth, plain

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def enlarge(model: nn.Module, example: torch.Tensor = IMAGES, **how: object) -> tuple[nn.Module, Enlargement]:
    return enlarge_and_time(model.eval(), example, latency_runs=0, **how)


def sizes(enlargement: Enlargement) -> list[tuple[int, int]]:
    return [step.after for step in enlargement.steps]


def test_steps_are_found_whatever_makes_them() -> None:
    _, enlargement = enlarge(Functional(), factor=2, where="last")
    assert sizes(enlargement) == [(16, 16), (8, 8), (4, 4)]
    assert [step.branches for step in enlargement.steps] == [
        ("(network): conv2d",),
        ("(network): avg_pool2d",),
        ("(network): max_pool2d",),
    ]
    assert enlargement.head == "average"
    assert enlargement.before.cost.map_size == (4, 4)
    assert enlargement.after.cost.map_size == (8, 8)
    assert enlargement.before.effective_stride == (8, 8)
    assert enlargement.after.effective_stride == (4, 4)


def test_a_step_has_all_its_branches() -> None:
    larger, enlargement = enlarge(Branches(), factor=2, where=0)
    assert len(enlargement.steps) == 1
    assert len(enlargement.steps[0].branches) == 4
    assert enlargement.after.cost.map_size == (32, 32)
    assert larger.stem(IMAGES).shape == (2, 8, 32, 32)


def test_a_strided_slice_follows_its_convolution() -> None:
    network, enlargement = enlarge(OptionA(), factor=2)  # one step, so `where` may be left out
    assert enlargement.where == (0,)
    assert enlargement.after.cost.map_size == (32, 32)
    expected = copy.deepcopy(network)
    assert network.path[0].stride == (1, 1)
    assert torch.isfinite(expected(IMAGES)).all()


def test_a_pool_used_twice_can_be_relaxed_at_one_of_its_uses() -> None:
    network = SharedPool()
    for where, steps in ((0, (0,)), (1, (1,)), ([0, 1], (0, 1)), (-1, (1,)), ("first", (0,)), ("last", (1,))):
        larger, enlargement = enlarge(network, factor=2, where=where)
        assert enlargement.where == steps
        assert larger(IMAGES).shape == (2, 10)
    assert enlargement.before.cost.map_size == (5, 5)


def test_a_fixed_head_gets_the_average_that_it_expects() -> None:
    network = SharedPool()
    larger, _ = enlarge(network, factor=2, where="last")
    x = network.pool(network.conv1(IMAGES).relu())
    x = torch.nn.functional.pad(network.conv2(x).relu(), (0, 1, 0, 1), value=-torch.inf)
    x = torch.nn.functional.adaptive_avg_pool2d(torch.max_pool2d(x, 2, 1), (5, 5))
    assert torch.equal(larger(IMAGES), network.head(x.flatten(1)))


def test_side_branches_and_stems_of_patches() -> None:
    images = torch.rand(2, 1, 32, 32)
    network = Gated()
    larger, enlargement = enlarge(network, images, factor=2, where="first")
    assert [step.stride for step in enlargement.steps] == [(4, 4), (2, 2)]
    assert larger.stem(images).shape == (2, 8, 16, 16)
    assert enlargement.after.cost.map_size == (8, 8)
    larger, enlargement = enlarge(network, images, upsample=2)
    assert enlargement.after.cost.map_size == (8, 8)
    assert larger(images).shape == (2, 10)


def test_a_stride_of_four_can_be_divided_twice_or_by_four() -> None:
    images = torch.rand(2, 1, 32, 32)
    once, _ = enlarge(Gated(), images, factor=2, where=0)
    twice, enlargement = enlarge(once, images, factor=2, where=0)
    assert enlargement.after.cost.map_size == (16, 16)
    assert twice(images).shape == (2, 10)
    with pytest.raises(ValueError, match=r"step 1 can't be relaxed: its stride \(2, 2\) is not a multiple of 4"):
        enlarge(Gated(), images, factor=4, where=1)
    at_once, enlargement = enlarge(Gated(), images, factor=4, where=0)
    assert enlargement.after.cost.map_size == (16, 16)
    at_once.load_state_dict(twice.state_dict())
    assert torch.allclose(at_once(images), twice(images), atol=1e-6)


def test_space_to_depth_becomes_overlapping() -> None:
    network = SpaceToDepth()
    larger, enlargement = enlarge(network, factor=2, where=[0, 1])
    assert sizes(enlargement) == [(16, 16), (8, 8)]
    assert len(enlargement.steps[1].branches) == 4
    assert enlargement.after.cost.map_size == (32, 32)
    assert larger(IMAGES).shape == (2, 10)


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (64, 33)])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((2, 3), 2, dilation=2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d((3, 2), (2, 1), ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
    ],
    ids=str,
)
def test_a_relaxed_pool_keeps_the_size_and_its_old_values(pool: nn.Module, size: tuple[int, int]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(1, 3, *size)
    larger, enlargement = enlarge(network, images, factor=2)
    assert enlargement.after.cost.map_size == size
    old, new = network[:2](images), larger[:2](images)
    assert new.shape[2:] == size
    stride = enlargement.steps[0].stride
    standing = new[:, :, :: stride[0], :: stride[1]][:, :, : old.shape[2], : old.shape[3]]
    assert torch.equal(standing, old)


def test_an_average_counts_only_the_map() -> None:
    network = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    larger, _ = enlarge(network, torch.ones(1, 3, 5, 5), factor=2)
    assert torch.equal(larger[0](torch.ones(1, 3, 5, 5)), torch.ones(1, 3, 5, 5))


def test_upsampling_comes_first() -> None:
    network = models.create("resnet8").eval()
    larger, enlargement = enlarge(network, upsample=2)
    by_hand = models.create("resnet8", upsample=2).eval()
    by_hand.load_state_dict(network.state_dict())
    assert torch.allclose(larger(IMAGES), by_hand(IMAGES), atol=1e-6)
    assert enlargement.after.effective_stride == (2, 2)
    assert enlargement.after.cost.map_size == (16, 16)


def test_relaxing_is_what_the_strides_argument_does() -> None:
    network = models.create("resnet8").eval()
    larger, enlargement = enlarge(network, factor=2, where="last")
    by_hand = models.create("resnet8", strides="121").eval()
    by_hand.load_state_dict(network.state_dict())
    assert torch.equal(larger(IMAGES), by_hand(IMAGES))
    assert enlargement.after.field_px == (17, 17) or enlargement.after.field_px[0] < enlargement.before.field_px[0]
    assert repr(larger) == repr(by_hand)


def test_the_given_network_is_untouched() -> None:
    network = SharedPool().train()
    network.conv1.weight.requires_grad_(False)
    before, text, state = set(vars(network)), repr(network), copy.deepcopy(network.state_dict())
    larger, _ = enlarge_and_time(network, IMAGES, factor=2, where="last", dilate=True, latency_runs=1)
    assert set(vars(network)) == before
    assert type(network) is SharedPool
    assert repr(network) == text
    assert network.training
    assert larger.training
    assert not larger.conv1.weight.requires_grad
    assert not network._forward_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
        assert torch.equal(value, larger.state_dict()[name])
        assert value.data_ptr() != larger.state_dict()[name].data_ptr()


@pytest.mark.parametrize("network", [SharedPool(), Functional(), Branches(), OptionA()], ids=lambda n: type(n).__name__)
def test_an_enlarged_network_travels(network: nn.Module) -> None:
    larger, _ = enlarge(network, factor=2, where=0, upsample=2)
    expected = larger(IMAGES)
    assert isinstance(larger, type(network))
    assert [name for name, _ in larger.named_modules()] == [name for name, _ in network.named_modules()]
    copied, pickled = copy.deepcopy(larger), pickle.loads(pickle.dumps(larger))
    file = io.BytesIO()
    torch.save(larger, file)
    file.seek(0)
    for other in (copied, pickled, torch.load(file, weights_only=False)):
        assert torch.equal(other(IMAGES), expected)
        assert type(other) is type(larger)
    assert larger.load_state_dict(network.state_dict()).missing_keys == []
    assert network.load_state_dict(larger.state_dict()).unexpected_keys == []


def test_an_enlarged_network_trains() -> None:
    larger, _ = enlarge(SharedPool(), factor=2, where=[0, 1])
    larger.train()(IMAGES).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in larger.parameters())


def test_a_network_that_looks_at_values_is_run_in_earnest() -> None:
    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = plain()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.body(x if x.max().item() < 2 else x / 255)}

    _, enlargement = enlarge(Curious(), factor=2, where="last")
    assert enlargement.after.cost.map_size[0] > enlargement.before.cost.map_size[0]


def test_calls_on_parameters_are_counted_too() -> None:
    class Tabled(SharedPool):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * self.table.view(-1)[0].view(1, 1, 1, 1))

    larger, _ = enlarge(Tabled(), factor=2, where=[0, 1])
    assert larger(IMAGES).shape == (2, 10)


def test_a_pass_with_other_calls_is_refused() -> None:
    class Auxiliary(SharedPool):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(
                x if not self.training else -self.pool(-x).repeat_interleave(2, 2).repeat(1, 1, 1, 2)
            )

    larger, _ = enlarge(Auxiliary(), factor=2, where=[0, 1])
    with pytest.raises(RuntimeError, match=r"made .*'max_pool2d': 3.* calls, but .*'max_pool2d': 2.* when"):
        larger.train()(IMAGES)


def test_a_shrinking_field_is_warned_of() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(1, 3, 7, 7)
    with pytest.warns(EnlargeWarning, match="from 7x7 to 5x5 px and no longer covers the image of 7x7"):
        enlarge(network, images, factor=2)
    _, enlargement = enlarge(network, images, factor=2, dilate=True)
    assert enlargement.after.field_px == (7, 7)
    assert enlargement.warnings == ()
