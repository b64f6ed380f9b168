"""Operations counted against the same computation as matrix products, and the size of the last map."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.models import count_flops, measure_cost

TOKENS, FEATURES, HIDDEN = 8, 16, 32
X = torch.rand(1, TOKENS, FEATURES)
PER_TOKEN = HIDDEN * (FEATURES + HIDDEN)


def counted(run: Callable[[Tensor], object], x: Tensor = X) -> int:
    with torch.no_grad(), count_flops() as counter:
        run(x)
    return counter.total


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_recurrent_layers(kind: type[nn.Module], gates: int, device: str) -> None:
    layer = kind(FEATURES, HIDDEN, batch_first=True).to(device)
    assert counted(layer, X.to(device)) == 2 * TOKENS * gates * PER_TOKEN
    both = kind(FEATURES, HIDDEN, bidirectional=True, batch_first=True).to(device)
    assert counted(both, X.to(device)) == 4 * TOKENS * gates * PER_TOKEN


def test_products_in_other_forms_count_like_matrix_products() -> None:
    matrix, product = X[0], 2 * TOKENS * FEATURES * TOKENS
    assert counted(lambda x: x[0] @ x[0].mT) == product
    assert counted(lambda x: torch.einsum("nlc,nmc->nlm", x, x)) == product
    assert counted(lambda x: torch.addbmm(matrix @ matrix.mT, x, x.mT)) == 2 * product
    assert counted(lambda x: x[0] @ x[0, 0]) == 2 * TOKENS * FEATURES
    assert counted(lambda x: x[0, 0] @ x[0, 0]) == 2 * FEATURES
    for power in (1.0, 2.0):
        assert counted(lambda x, p=power: torch.cdist(x, x, p=p)) == product  # type: ignore[misc]
    assert counted(lambda x: F.pdist(x[0])) == 2 * FEATURES * TOKENS * (TOKENS - 1) // 2
    # Like 30 x 30 products, which PyTorch computes as such.
    assert counted(lambda x: torch.cdist(x, x), torch.rand(1, 30, FEATURES)) >= 2 * 30 * 30 * FEATURES


def test_bilinear_layers_count_both_products() -> None:
    layer = nn.Bilinear(FEATURES, 12, 5)
    other = torch.rand(TOKENS, 12)
    once = 2 * TOKENS * 5 * FEATURES * 12
    assert counted(lambda x: layer(x[0], other)) == once + once // FEATURES


def test_time_convolutions_and_transforms() -> None:
    assert counted(lambda x: torch.conv_tbc(x.transpose(0, 1), torch.rand(3, FEATURES, 5), torch.rand(5))) == (
        2 * (TOKENS - 2) * 5 * 3 * FEATURES
    )
    image = torch.rand(1, 4, 8, 8)
    assert counted(torch.fft.fft2, image.to(torch.complex64)) == 5 * image.numel() * 6
    assert counted(torch.fft.rfft2, image) > 0


def test_pools_interpolation_and_pointwise_operations_do_not_count() -> None:
    image = torch.rand(1, 4, 8, 8)
    assert counted(lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0).relu() * x, image) == 0


class Tokens(nn.Module):
    """A patch embedding, attention written in several ways, and several heads."""

    def __init__(self, attention: str, head: str) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.layer = nn.MultiheadAttention(16, 4, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.qkv, self.out = nn.Linear(16, 48), nn.LazyLinear(5)
        self.attention, self.head = attention, head

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        if self.attention == "layer":
            tokens = self.layer(tokens, tokens, tokens, need_weights=False)[0]
        elif self.attention == "block":
            tokens = self.block(tokens)
        else:
            q, k, v = self.qkv(tokens).reshape(len(x), -1, 3, 4, 4).permute(2, 0, 3, 1, 4)
            heads = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2)
            tokens = heads if self.head == "heads" else heads.flatten(2)
        if self.head == "map":
            tokens = tokens.mT.reshape(len(x), 16, 8, 8).mean((2, 3))
        elif self.head == "token":
            tokens = tokens[:, 0]
        logits: Tensor = self.out(tokens.reshape(len(x), -1))
        return logits


@pytest.mark.parametrize("attention", ["layer", "block", "own"])
@pytest.mark.parametrize("head", ["map", "token", "heads"])
def test_heads_by_width_are_no_map(attention: str, head: str) -> None:
    network, image = Tokens(attention, head).eval(), torch.rand(1, 3, 32, 32)
    network(image)
    assert measure_cost(network, image).map_size == ((8, 8) if head == "map" else None)
