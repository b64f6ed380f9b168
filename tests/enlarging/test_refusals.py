"""What ``enlarge`` refuses or warns of, in words."""

import pytest
import torch
from torch import nn

from robustmaps.engine.errors import InputError
from robustmaps.enlarging import EnlargeWarning, enlarge
from tests.helpers.enlarge_networks import FixedMerge, Gated, Mixer, RelativeAttention, SharedPool, plain

IMAGE = torch.rand(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "(?s)nothing to do: set upsample=2, or where to one or several of.*0: .* to .*, stride 2"),
        ({"upsample": 0.5}, "upsample=0.5: expected a number of at least 1"),
        ({"upsample": 2, "upsample_mode": "bilinera"}, "unknown upsample mode 'bilinera'; did you mean 'bilinear'"),
        ({"factor": 2.5}, r"factor=2.5: expected a whole number"),
        ({"factor": 1, "where": "last"}, "where='last' with factor=1"),
        ({"upsample": 2, "dilate": True}, "dilate=True without a step to relax"),
        ({"factor": 2}, r"where is needed: 2 steps can be relaxed; name one or several of\n  0: 28x28 to 14x14"),
        ({"factor": 2, "where": "middle"}, "where='middle': expected 'first', 'last', or numbers"),
        ({"factor": 2, "where": 2}, r"where=2: there is no step 2; expected numbers of\n  0: "),
        ({"factor": 2, "where": [0, -3]}, r"there is no step -3"),
        ({"factor": 2, "where": []}, r"where=\[\]: expected at least one"),
        ({"factor": 3, "where": 0}, r"no downsampling step of SharedPool can be relaxed"),
    ],
)
def test_requests_that_cannot_be_meant(how: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        enlarge(SharedPool(), IMAGE, latency_runs=0, **how)


def test_examples_that_are_no_images() -> None:
    with pytest.raises(InputError, match=r"example of shape \(3, 32, 32\): expected images \(N, C, H, W\)"):
        enlarge(plain(), IMAGE[0], upsample=2)
    with pytest.raises(InputError, match=r"SharedPool can't take images of shape \(3, 64, 64\)"):
        enlarge(SharedPool(), torch.rand(1, 3, 64, 64), upsample=2)
    with pytest.raises(InputError, match=r"expected logits \(N, classes\)"):
        enlarge(nn.Conv2d(3, 8, 3), IMAGE, upsample=2)


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_labels_that_the_network_does_not_have() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images, labels = IMAGE.expand(2, -1, -1, -1), torch.tensor([1, 4])
    enlarge(network, images, factor=2, labels=labels, latency_runs=0)
    with pytest.raises(InputError, match="labels go up to 5: the network has 5 classes, 0 to 4"):
        enlarge(network, images, factor=2, labels=labels + 1, latency_runs=0)


@pytest.mark.filterwarnings("ignore:the receptive field")
def test_a_merge_at_a_fixed_scale_is_found_by_trying() -> None:
    _, enlargement = enlarge(FixedMerge(), IMAGE, factor=2, where="last", latency_runs=0)
    assert enlargement.where == (0,)
    assert enlargement.steps[1].obstacle is not None
    assert "can't be relaxed" in str(enlargement)
    with pytest.raises(InputError, match="step 1 can't be relaxed: the network fails with it"):
        enlarge(FixedMerge(), IMAGE, factor=2, where=1)


def test_a_network_of_stride_one_has_reached_the_floor() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="no downsampling step: its effective stride is already 1"):
        enlarge(network, IMAGE, factor=2)
    with pytest.warns(EnlargeWarning) as caught:
        enlarge(network, IMAGE, upsample=2, latency_runs=0)
    assert any("reached its floor" in str(warning.message) for warning in caught)


@pytest.mark.filterwarnings("ignore:the receptive field")
def test_upsampling_beyond_the_floor() -> None:
    with pytest.warns(EnlargeWarning, match="falls from 4 to 0.5: below 1 a larger map costs more without any benefit"):
        enlarge(plain(), IMAGE, upsample=8, latency_runs=0)


@pytest.mark.filterwarnings("ignore:the receptive field")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (plain(nn.AdaptiveMaxPool2d(1)), "takes the maximum over its last map"),
        (plain(nn.MaxPool2d(5)), "takes the maximum over its last map"),
        (SharedPool(), "flattens its last map into weights of a fixed size"),
    ],
)
def test_heads_that_do_not_average(network: nn.Module, message: str) -> None:
    with pytest.warns(EnlargeWarning, match=message) as caught:
        _, enlargement = enlarge(network, IMAGE, factor=2, where="last", latency_runs=0)
    assert [str(warning.message) for warning in caught] == list(enlargement.warnings)


@pytest.mark.filterwarnings("ignore:the receptive field")
def test_dilation_that_ends_at_a_layer_without_taps() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Upsample(scale_factor=2), *plain(padding=1))
    with pytest.warns(EnlargeWarning, match="dilation can't be carried through 1: interpolate: after it"):
        enlarge(network, IMAGE, factor=2, where=0, dilate=True, latency_runs=0)
    with pytest.warns(EnlargeWarning, match="dilation can't be carried through squeeze: avg_pool2d: after it"):
        enlarge(Gated(), IMAGE[:, :1], factor=2, where=0, dilate=True, latency_runs=0)


def test_attention_over_a_fixed_number_of_patches() -> None:
    with pytest.raises(InputError, match="reads its last map through attention or a single token"):
        enlarge(RelativeAttention(), IMAGE, factor=2)
    with pytest.raises(InputError, match=r"with it: .*, at attention: add, which adds relative positions for a grid"):
        enlarge(RelativeAttention(), IMAGE, upsample=2)
    with pytest.raises(InputError, match=r"with it: .*, at mix: linear, a layer across a fixed number of patches"):
        enlarge(Mixer(), IMAGE, upsample=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_network_cannot_be_enlarged() -> None:
    with pytest.raises(InputError, match="scripted"):
        enlarge(nn.Sequential(torch.jit.trace(plain().eval(), IMAGE)), IMAGE, upsample=2)
