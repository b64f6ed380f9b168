"""What a network does in one pass, against figures worked out by hand."""

import pytest
import torch
from torch import nn

from robustmaps.tracing import Window, find_head, find_transitions, sights, trace

IMAGE = torch.zeros(1, 3, 32, 32)


def network(pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2), pool
    )


def test_fields_and_strides_of_a_chain() -> None:
    seen = trace(network(nn.Flatten()), IMAGE)
    found = {call.name: sights(seen)[call.index] for call in seen.calls if call.name in ("conv2d", "max_pool2d")}
    # The second convolution: 3 + 2 * 2 pixels; the pool adds one step of 2 pixels.
    assert (found["conv2d"].field_px, found["conv2d"].stride_px) == ((7.0, 7.0), (2.0, 2.0))
    assert (found["max_pool2d"].field_px, found["max_pool2d"].stride_px) == ((9.0, 9.0), (4.0, 4.0))


def test_the_steps_are_those_that_shrink_the_map() -> None:
    seen = trace(network(nn.Flatten()), IMAGE)
    assert [(step.before, step.after) for step in find_transitions(seen)] == [((32, 32), (16, 16)), ((16, 16), (8, 8))]


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), "average"),
        (nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)), "max"),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), "flatten"),
    ],
)
def test_what_becomes_of_the_last_map(pool: nn.Module, kind: str) -> None:
    head = find_head(trace(network(pool), IMAGE))
    assert head is not None
    assert (head.kind, head.map_size) == (kind, (8, 8))


@pytest.mark.parametrize(("ceil_mode", "positions"), [(False, 4), (True, 5)])
def test_positions_of_a_window(ceil_mode: bool, positions: int) -> None:
    window = Window((2, 2), (2, 2), ceil_mode=ceil_mode)
    assert window.positions(0, 9) == positions
    layer = nn.MaxPool2d(2, ceil_mode=ceil_mode)
    assert layer(torch.zeros(1, 1, 9, 9)).shape[-1] == positions
