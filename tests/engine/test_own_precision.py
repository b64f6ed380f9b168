"""Networks work in their own precision, on images that stay the caller's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import evaluate
from robustmaps.attacks import APGD, FAB, PGD, Square
from robustmaps.defenses import TRADES
from robustmaps.engine.view import plain_view
from tests.helpers.any_network import LABELS, Net

Make = Callable[..., nn.Sequential]
Images = Callable[..., Tensor]


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=3),
        PGD("l2", eps=0.5, steps=2, restarts=2, early_stop=True, loss="kl", start="normal"),
        APGD("linf", eps=0.1, steps=5),
        APGD("linf", eps=0.1, steps=5, loss="dlr-t", targets=2),
        FAB("l2", eps=0.5, steps=5),
        Square(eps=0.1, queries=20),
        Square("l2", eps=0.5, queries=20),
    ],
    ids=lambda attack: f"{attack.name} {attack.norm}",
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_networks_work_in_their_own_precision(attack: Any, dtype: torch.dtype, make_images: Images) -> None:
    seen: set[torch.dtype] = set()

    class Noting(Net):
        def forward(self, x: Tensor) -> Tensor:
            if isinstance(x, Tensor):  # not while it is traced
                seen.add(x.dtype)
            return super().forward(x)  # type: ignore[no-any-return]

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Noting().to(dtype)
    x = make_images(8, 3)
    for images in (x, x.to(dtype)):
        x_adv = attack(model, images, LABELS)
        assert x_adv.dtype in (torch.float32, torch.float64)
    found = evaluate(model, x, LABELS, [attack])
    with plain_view(model) as plain:
        assert plain(x).dtype == (dtype if dtype is torch.float64 else torch.float32)
        right = plain(x).argmax(1) == LABELS
    assert found.clean_accuracy.value == float(right.float().mean())
    assert seen == {dtype}


def test_the_verdict_is_the_networks_own(make_images: Images) -> None:
    """A lead of 1e-12 is one in float64; in float32 the logits are equal, and the first class would win."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lead = nn.Parameter(torch.tensor(1e-12, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            one = x.flatten(1).sum(1) * 0 + 1
            return torch.stack([one, one + self.lead], dim=1)

    x = make_images(4)
    assert evaluate(Narrow(), x, torch.ones(4, dtype=torch.int64), []).clean_accuracy.value == 1.0


def _in_place(kind: str) -> Callable[[Tensor], Tensor]:
    def setitem(x: Tensor) -> Tensor:
        x[:] = (x - 0.5) * 4
        return x

    return {
        "sub": lambda x: x.sub_(0.5).mul_(4),
        "setitem": setitem,
        "clamp": lambda x: x.clamp_(0.3, 0.7),
        "relu": lambda x: F.relu(x.neg_(), inplace=True),
        "data": lambda x: x.data.mul_(0.5) + 0 * x,
    }[kind]


@pytest.mark.parametrize("kind", ["sub", "setitem", "clamp", "relu", "data"])
def test_the_callers_images_are_never_overwritten(kind: str, make_images: Images) -> None:
    change = _in_place(kind)

    class Changing(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(change(x))  # type: ignore[no-any-return]

    class Honest(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(change(x.clone()))  # type: ignore[no-any-return]

    results = []
    for make in (Changing, Honest):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = make()
        x = make_images(8, 3)
        kept = x.clone()
        with plain_view(model) as plain:
            y = plain(x).argmax(1)
        found = evaluate(model, x, y, [PGD(eps=0.02, steps=3), Square(eps=0.02, queries=30)])
        assert torch.equal(x, kept)
        results.append((found.clean_accuracy.value, found.verdicts))
        loss = TRADES().loss(model, x, y, generator=torch.Generator().manual_seed(0))
        assert torch.equal(x, kept)
        results[-1] += (loss.value.item(),)
    assert results[0] == results[1]
    assert results[0][0] == 1.0
