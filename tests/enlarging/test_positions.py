"""Learned positions of vision transformers: interpolated in the enlarged network, untouched in the original."""

import copy
import inspect
import json

import pytest
import torch
from torch import Tensor, nn

from robustmaps.config import Surgery
from robustmaps.engine.errors import InputError
from robustmaps.enlarging import EnlargeWarning, Positions, enlarge, plan, resample
from robustmaps.networks import allow_code, enlarge_network, open_model, save_enlarged
from tests.helpers.zoo import build, build_with_weights, define_torchvision_operators

pytestmark = pytest.mark.filterwarnings("ignore")


class Transformer(nn.Module):
    """A vision transformer with positions in one of several forms, whose constructor fixes the image size."""

    def __init__(self, form: str = "first", *, average: bool = False, image_size: int = 16, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.average, self.image_size = form, average, image_size
        side, width = image_size // 4, 6
        self.num_patches = side * side
        self.embed = nn.Conv2d(channels, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        tokens = self.num_patches + (form in ("first", "last"))
        if form == "table":
            self.positions: nn.Module | nn.Parameter = nn.Embedding(self.num_patches, width)
            self.register_buffer("numbers", torch.arange(self.num_patches)[None], persistent=False)
        elif form == "map":
            self.positions = nn.Parameter(torch.randn(1, width, side, side))
        else:
            self.positions = nn.Parameter(torch.randn(1, tokens, width))
        self.blocks = nn.TransformerEncoderLayer(width, 2, 12, 0.0, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"images of {self.image_size} pixels expected")
        x = self.embed(x)
        if self.form == "map":
            x = x + self.positions
        x = x.reshape(x.shape[0], x.shape[1], self.num_patches).transpose(1, 2)
        token = self.token.expand(x.shape[0], -1, -1)
        if self.form == "table":
            x = x + self.positions(self.numbers)
        elif self.form in ("first", "last"):
            x = torch.cat([token, x] if self.form == "first" else [x, token], 1) + self.positions
        elif self.form == "patches":
            x = torch.cat([token, x + self.positions], 1)
        x = self.blocks(x)
        return self.head(x.mean(1) if self.average else x[:, -1 if self.form == "last" else 0])


class Unfolded(nn.Module):
    """Patches by reshaping and a linear layer, as with einops, with positions that are cut to the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, 9, 6))
        self.blocks = nn.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        count, height, width = x.shape[0], x.shape[2] // 4, x.shape[3] // 4
        x = x.reshape(count, 3, height, 4, width, 4).permute(0, 2, 4, 1, 3, 5).reshape(count, height * width, 48)
        x = torch.cat([self.token.expand(count, -1, -1), self.embed(x)], 1)
        x = self.blocks(x + self.positions[:, : height * width + 1])
        return self.head(x[:, 0])


IMAGE = torch.rand(1, 3, 16, 16)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("form", ["first", "last", "patches", "map", "table"])
def test_only_positions_change_and_only_in_the_copy(form: str, average: bool) -> None:
    network = Transformer(form, average=average).eval()
    before = copy.deepcopy(network)
    larger, enlargement = enlarge(network, IMAGE, upsample=2, latency_runs=0)
    assert all(torch.equal(value, state(before)[name]) for name, value in state(network).items())
    assert torch.equal(network(IMAGE), before(IMAGE))
    assert list(larger.state_dict()) == list(network.state_dict())
    resized = {one.positions.name for one in enlargement.resized}
    assert resized == ({"positions.weight", "numbers"} if form == "table" else {"positions"})
    for name, value in state(larger).items():
        assert name in resized or torch.equal(value, state(network)[name])
    # 4 x 4 patches become 8 x 8, each with 6 numbers more.
    added = sum(p.numel() for p in larger.parameters()) - sum(p.numel() for p in network.parameters())
    assert added == (64 - 16) * 6
    assert enlargement.after.cost.parameters - enlargement.before.cost.parameters == added
    assert enlargement.before.cost.map_size == (4, 4)
    assert enlargement.after.cost.map_size == (8, 8)


@pytest.mark.parametrize("form", ["first", "last", "patches", "map", "table"])
def test_the_copy_computes_what_a_network_made_for_the_larger_images_does(form: str) -> None:
    network = Transformer(form).eval()
    larger, _ = enlarge(network, IMAGE, upsample=2, latency_runs=0)
    made = Transformer(form, image_size=32).eval()
    made.load_state_dict(larger.state_dict())
    images = IMAGE.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(larger(IMAGE), made(images))


@pytest.mark.parametrize(("form", "token"), [("first", 0), ("last", -1)])
def test_ramps_stay_ramps_and_the_token_keeps_its_position(form: str, token: int) -> None:
    network = Transformer(form).eval()
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    ramp = (3 * rows - 2 * columns).reshape(1, 16, 1).expand(1, 16, 6)
    own = torch.full((1, 1, 6), 7.0)
    network.positions = nn.Parameter(torch.cat([own, ramp] if token == 0 else [ramp, own], 1))
    larger, _ = enlarge(network, IMAGE, upsample=2, latency_runs=0)
    found = larger.positions.detach()
    assert torch.equal(found[:, token], own[:, 0])
    patches = (found[:, 1:] if token == 0 else found[:, :-1]).reshape(8, 8, 6)
    # The centre of new patch i is at (i + 0.5) / 2 - 0.5 of the old ones; three at each border lack neighbours.
    at = (torch.arange(8) + 0.5) / 2 - 0.5
    expected = 3 * at[:, None] - 2 * at
    torch.testing.assert_close(patches[3:5, 3:5, 0], expected[3:5, 3:5])
    assert (patches[:, :, 0].diff(dim=0) > 0).all()
    assert (patches[:, :, 0].diff(dim=1) < 0).all()


def test_constants_stay_constant_also_by_a_factor_that_is_not_whole() -> None:
    network = Transformer(image_size=32).eval()
    nn.init.constant_(network.positions, 0.3)
    larger, enlargement = enlarge(network, torch.rand(1, 3, 32, 32), upsample=1.25, latency_runs=0)
    assert enlargement.resized[0].grid == (10, 10)
    torch.testing.assert_close(larger.positions, torch.full((1, 101, 6), 0.3))


@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 8)), ((3, 5), (7, 9)), ((4, 4), (4, 4))])
def test_interpolation_agrees_with_timms(old: tuple[int, int], new: tuple[int, int]) -> None:
    define_torchvision_operators()
    layers = pytest.importorskip("timm.layers")
    values = torch.randn(1, 1 + old[0] * old[1], 12)
    ours = resample(values, Positions("positions", 1, False, old, 1, 0), new)
    theirs = layers.resample_abs_pos_embed(values, list(new), list(old), num_prefix_tokens=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    if old == new:
        assert torch.equal(ours, values)


def test_patches_without_a_convolution() -> None:
    torch.manual_seed(0)
    network = Unfolded().eval()
    image = torch.rand(1, 3, 8, 16)  # 2 x 4 patches
    larger, enlargement = enlarge(network, image, upsample=2, latency_runs=0)
    assert str(enlargement.resized[0]) == "positions 2x4 to 4x8"
    assert larger.positions.shape == (1, 33, 6)
    assert torch.equal(larger.positions[:, 0], network.positions[:, 0])


def test_gradients_reach_interpolated_positions_and_images() -> None:
    larger, _ = enlarge(Transformer(), IMAGE, upsample=2, latency_runs=0)
    image = IMAGE.clone().requires_grad_()
    larger.train()(image).square().sum().backward()
    assert larger.positions.grad is not None
    assert (larger.positions.grad.abs().amax(-1) > 0).all()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    torch.optim.SGD(larger.parameters(), 0.1).step()


def test_the_change_is_said_and_recorded() -> None:
    _, enlargement = enlarge(Transformer(), IMAGE, upsample=2, latency_runs=0)
    assert "Learned positions interpolated (bicubic) in the enlarged network only: positions 4x4 to 8x8." in str(
        enlargement
    )
    recorded = json.loads(json.dumps(enlargement.to_dict()))["positions"]
    assert recorded == [{"name": "positions", "before": [4, 4], "after": [8, 8]}]


def test_the_theory_is_said_not_to_apply_to_a_class_token() -> None:
    with pytest.warns(EnlargeWarning, match="through attention or a single token: the theory of average pooling does"):
        _, enlargement = enlarge(Transformer(), IMAGE, upsample=2, latency_runs=0)
    assert enlargement.before.field_px == (float("inf"), float("inf"))
    assert "through attention or a single token" in str(plan(Transformer(), IMAGE, budget=20))
    averaged = enlarge(Transformer("patches", average=True), IMAGE, upsample=2, latency_runs=0)[1]
    assert not any("single token" in warning for warning in averaged.warnings)


def test_a_network_is_enlarged_twice() -> None:
    network = Transformer().eval()
    once, _ = enlarge(network, IMAGE, upsample=2, latency_runs=0)
    twice, enlargement = enlarge(once, IMAGE, upsample=2, latency_runs=0)
    assert enlargement.after.cost.map_size == (16, 16)
    assert twice.positions.shape == (1, 257, 6)


def test_smaller_strides_of_patches_interpolate_positions_too() -> None:
    larger, enlargement = enlarge(Transformer(), IMAGE, factor=2, where=0, latency_runs=0)
    assert [str(one) for one in enlargement.resized] == ["positions 4x4 to 8x8"]
    assert larger.image_size == 16
    assert larger(IMAGE).shape == (1, 5)


def make() -> nn.Module:
    return Transformer()


def test_a_saved_network_is_opened_again(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with allow_code():
        enlarged = enlarge_network(f"{__name__}:make", Surgery(upsample=2), image_size=16, latency_runs=0)
        save_enlarged(enlarged, tmp_path / "larger")
        opened = open_model(str(tmp_path / "larger"))
    assert torch.equal(opened.model(IMAGE), enlarged.model.eval()(IMAGE))
    assert opened.model.positions.shape == (1, 65, 6)


def make_grey() -> nn.Module:
    grey = Transformer(image_size=8, channels=1)
    grey.head = nn.Linear(6, 10)
    return grey


def test_a_users_network_for_grey_images_is_opened_again(tmp_path: object) -> None:
    with allow_code():
        enlarged = enlarge_network(f"{__name__}:make_grey", Surgery(upsample=2), data="digits", latency_runs=0)
        save_enlarged(enlarged, tmp_path / "larger")
        opened = open_model(str(tmp_path / "larger"))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(opened.model(image), enlarged.model.eval()(image))


def test_exporters_see_the_signature_of_the_network() -> None:
    larger, _ = enlarge(Transformer(), IMAGE, upsample=2, latency_runs=0)
    assert inspect.signature(larger.forward) == inspect.signature(Transformer().forward)
    program = torch.export.export(
        larger.eval(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.testing.assert_close(program.module()(IMAGE), larger(IMAGE))


LARGER = {
    "timm:deit3_small_patch16_224": ["pos_embed 14x14 to 28x28"],
    "torchvision:vit_b_16": ["encoder.pos_embedding 14x14 to 28x28"],
    "transformers:vit": ["vit.embeddings.position_embeddings 14x14 to 28x28"],
    "transformers:clip": [
        "vision_model.embeddings.position_embedding.weight 7x7 to 14x14",
        "vision_model.embeddings.position_ids 7x7 to 14x14",
    ],
    "transformers:pvt": [
        f"pvt.encoder.patch_embeddings.{stage}.position_embeddings {side}x{side} to {2 * side}x{2 * side}"
        for stage, side in enumerate((56, 28, 14, 7))
    ],
    "timm:vit_small_r26_s32_224": ["pos_embed 7x7 to 14x14"],
    "timm:pit_ti_224": ["pos_embed 27x27 to 55x55"],
    # These interpolate by themselves, or have none.
    "transformers:dinov2": [],
    "torchvision:swin_t": [],
}
KEPT = {
    "timm:botnet26t_256": "AssertionError, at stages.2.1.self_attn.qkv",
    "timm:coatnet_nano_rw_224": "attention, which adds relative positions for a grid of fixed size",
    "timm:mixer_s32_224": "blocks.0.mlp_tokens.fc1: linear, a layer across a fixed number of patches",
    "torchvision:maxvit_t": "at blocks.0.layers.0.layers.window_attention.departition_op: reshape",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_upsampling_in_front_of_other_libraries_transformers(name: str) -> None:
    network, image = build(name)
    larger, enlargement = enlarge(network, image, upsample=2, latency_runs=0)
    assert [str(one) for one in enlargement.resized] == LARGER[name]
    assert list(larger.state_dict()) == list(network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_transformers_that_stay_as_they_are(name: str) -> None:
    network, image = build(name)
    with pytest.raises(InputError, match=KEPT[name]):
        enlarge(network, image, upsample=2, latency_runs=0)


@pytest.mark.slow
def test_timms_own_network_for_the_larger_images_computes_the_same() -> None:
    network, _ = build_with_weights("timm:vit_tiny_patch16_224")
    timm = pytest.importorskip("timm")
    image = torch.rand(1, 3, 224, 224)
    larger, _ = enlarge(network, image, upsample=2, latency_runs=0)
    made = timm.create_model("vit_tiny_patch16_224", img_size=448).eval()
    weights = timm.models.vision_transformer.checkpoint_filter_fn(dict(network.state_dict()), made)
    made.load_state_dict(weights)
    with torch.no_grad():
        theirs = made(image.repeat_interleave(2, 2).repeat_interleave(2, 3))
        torch.testing.assert_close(larger(image), theirs, rtol=1e-3, atol=1e-5)
