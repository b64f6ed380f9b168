"""``enlarge`` on the architectures of other libraries: what it finds is written down here, network by network.

The networks have random weights and run with shapes only, so a network costs seconds at most.
"""

import pytest
import torch

from robustmaps.engine.errors import InputError
from robustmaps.enlarging import enlarge
from tests.helpers.last_map import last_map, randomise
from tests.helpers.zoo import build, build_with_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's networks, other people's warnings

ALL = None

# By name: how many downsampling steps there are, which of them can be relaxed, and the size of the last map.
QUICK = {
    "pytorchcv:alexnet": (4, ALL, (6, 6)),
    "pytorchcv:bn_vgg11": (5, ALL, (7, 7)),
    "pytorchcv:nin_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:preresnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:resnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:ror3_56_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:shakeshakeresnet20_2x16d_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:squeezenet_v1_0": (4, ALL, (13, 13)),
    "torchvision:alexnet": (4, ALL, (6, 6)),
    "torchvision:resnet18": (5, ALL, (7, 7)),
    "torchvision:squeezenet1_0": (4, ALL, (13, 13)),
    "timm:vgg11": (5, ALL, (1, 1)),
}
SLOW = {
    "transformers:mobilenet_v1": (5, ALL, (7, 7)),
    "pytorchcv:airnet50_1x64d_r2": (5, (0, 1), (7, 7)),
    "pytorchcv:bagnet9": (3, ALL, (27, 27)),
    "pytorchcv:bam_resnet18": (5, ALL, (7, 7)),
    "pytorchcv:bninception": (5, ALL, (7, 7)),
    "pytorchcv:cbam_resnet18": (5, ALL, (7, 7)),
    "pytorchcv:darknet53": (5, ALL, (7, 7)),
    "pytorchcv:darknet_ref": (6, ALL, (3, 3)),
    "pytorchcv:darknet_tiny": (4, ALL, (14, 14)),
    "pytorchcv:densenet121": (5, ALL, (7, 7)),
    "pytorchcv:densenet40_k12_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:diaresnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:diracnet18v2": (5, ALL, (7, 7)),
    "pytorchcv:dla34": (5, ALL, (7, 7)),
    "pytorchcv:dpn68": (5, ALL, (7, 7)),
    "pytorchcv:drnc26": (3, ALL, (28, 28)),
    "pytorchcv:drnd22": (3, ALL, (28, 28)),
    "pytorchcv:efficientnet_b0": (5, ALL, (7, 7)),
    "pytorchcv:efficientnet_b0b": (5, ALL, (7, 7)),
    "pytorchcv:fbnet_cb": (5, ALL, (7, 7)),
    "pytorchcv:fractalnet_cifar10": (5, ALL, (1, 1)),
    "pytorchcv:ghostnet": (5, ALL, (7, 7)),
    "pytorchcv:hardnet39ds": (5, ALL, (7, 7)),
    "pytorchcv:hrnet_w18_small_v1": (5, (0, 1), (7, 7)),
    "pytorchcv:ibn_resnet50": (5, ALL, (7, 7)),
    "pytorchcv:inceptionv3": (5, ALL, (8, 8)),
    "pytorchcv:inceptionv4": (5, ALL, (8, 8)),
    "pytorchcv:menet108_8x1_g3": (5, ALL, (7, 7)),
    "pytorchcv:mixnet_s": (5, ALL, (7, 7)),
    "pytorchcv:mnasnet_b1": (5, ALL, (7, 7)),
    "pytorchcv:mobilenet_w1": (5, ALL, (7, 7)),
    "pytorchcv:mobilenetv2_w1": (5, ALL, (7, 7)),
    "pytorchcv:mobilenetv3_large_w1": (5, ALL, (7, 7)),
    "pytorchcv:msdnet22": (7, ALL, (2, 2)),
    "pytorchcv:octresnet10_ad2": (5, (0, 1), (7, 7)),
    "pytorchcv:peleenet": (5, ALL, (7, 7)),
    "pytorchcv:preresnet18": (5, ALL, (7, 7)),
    "pytorchcv:proxylessnas_cpu": (5, ALL, (7, 7)),
    "pytorchcv:pyramidnet110_a48_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:regnetx002": (5, ALL, (7, 7)),
    "pytorchcv:regnety002": (5, ALL, (7, 7)),
    "pytorchcv:resattnet56": (5, (0, 1), (7, 7)),
    "pytorchcv:resdropresnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:resnesta18": (5, ALL, (7, 7)),
    "pytorchcv:resnet10": (5, ALL, (7, 7)),
    "pytorchcv:resnet18": (5, ALL, (7, 7)),
    "pytorchcv:resneta10": (5, ALL, (7, 7)),
    "pytorchcv:resnetd50b": (3, ALL, (28, 28)),
    "pytorchcv:resnext50_32x4d": (5, ALL, (7, 7)),
    "pytorchcv:revnet38": (2, ALL, (56, 56)),
    "pytorchcv:rir_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:scnet50": (9, (0, 1, 3, 5, 7), (7, 7)),
    "pytorchcv:selecsls42": (6, ALL, (4, 4)),
    "pytorchcv:senet28": (5, ALL, (7, 7)),
    "pytorchcv:sepreresnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:seresnet20_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:seresnet50": (5, ALL, (7, 7)),
    "pytorchcv:shufflenet_g1_w1": (5, ALL, (7, 7)),
    "pytorchcv:shufflenetv2_w1": (5, ALL, (7, 7)),
    "pytorchcv:sknet50": (5, ALL, (7, 7)),
    "pytorchcv:spnasnet": (5, ALL, (7, 7)),
    "pytorchcv:squeezeresnet_v1_1": (4, ALL, (13, 13)),
    "pytorchcv:vgg16": (5, ALL, (7, 7)),
    "pytorchcv:vovnet27s": (5, ALL, (7, 7)),
    "pytorchcv:wrn16_10_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:wrn20_10_1bit_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:wrn50_2": (5, ALL, (7, 7)),
    "pytorchcv:xception": (5, ALL, (10, 10)),
    "pytorchcv:xdensenet40_2_k24_bc_cifar10": (2, ALL, (8, 8)),
    "pytorchcv:zfnet": (5, ALL, (6, 6)),
    "timm:convnext_atto": (4, ALL, (7, 7)),
    "timm:cspdarknet53": (5, ALL, (8, 8)),
    "timm:cspresnet50": (5, ALL, (8, 8)),
    "timm:eca_resnet33ts": (5, ALL, (8, 8)),
    "timm:edgenext_xx_small": (4, ALL, (8, 8)),
    "timm:ese_vovnet19b_dw": (5, ALL, (7, 7)),
    "timm:gernet_s": (5, ALL, (7, 7)),
    "timm:hardcorenas_a": (5, ALL, (7, 7)),
    "timm:hgnet_tiny": (5, ALL, (7, 7)),
    "timm:inception_next_atto": (4, ALL, (7, 7)),
    "timm:lcnet_050": (5, ALL, (7, 7)),
    "timm:mobilenetv4_conv_small": (5, ALL, (7, 7)),
    "timm:nasnetalarge": (5, ALL, (11, 11)),
    "timm:nfnet_f0": (5, ALL, (6, 6)),
    "timm:rdnet_tiny": (4, ALL, (7, 7)),
    "timm:repghostnet_050": (5, ALL, (7, 7)),
    "timm:repvgg_a0": (5, ALL, (7, 7)),
    "timm:res2net50_26w_4s": (5, ALL, (7, 7)),
    "timm:resnest14d": (5, ALL, (7, 7)),
    "timm:resnet50d": (5, ALL, (7, 7)),
    "timm:resnetaa50": (5, ALL, (7, 7)),
    "timm:resnetblur50": (5, ALL, (7, 7)),
    "timm:resnetv2_50": (5, ALL, (7, 7)),
    "timm:rexnet_100": (5, ALL, (7, 7)),
    "timm:seresnext26d_32x4d": (5, ALL, (7, 7)),
    "timm:skresnet18": (5, ALL, (7, 7)),
    "timm:starnet_s1": (5, ALL, (7, 7)),
    "timm:tf_efficientnet_b0": (5, ALL, (7, 7)),
    "timm:tinynet_e": (5, ALL, (4, 4)),
    "torchvision:convnext_tiny": (4, ALL, (7, 7)),
    "torchvision:densenet121": (5, ALL, (7, 7)),
    "torchvision:efficientnet_b0": (5, ALL, (7, 7)),
    "torchvision:efficientnet_v2_s": (5, ALL, (7, 7)),
    "torchvision:googlenet": (5, ALL, (7, 7)),
    "torchvision:inception_v3": (5, ALL, (8, 8)),
    "torchvision:mnasnet0_5": (5, ALL, (7, 7)),
    "torchvision:mobilenet_v2": (5, ALL, (7, 7)),
    "torchvision:mobilenet_v3_small": (5, ALL, (7, 7)),
    "torchvision:regnet_x_400mf": (5, ALL, (7, 7)),
    "torchvision:regnet_y_400mf": (5, ALL, (7, 7)),
    "torchvision:resnext50_32x4d": (5, ALL, (7, 7)),
    "torchvision:shufflenet_v2_x1_0": (5, ALL, (7, 7)),
    "torchvision:vgg11_bn": (5, ALL, (7, 7)),
    "torchvision:wide_resnet50_2": (5, ALL, (7, 7)),
    "transformers:bit": (5, ALL, (7, 7)),
    "transformers:convnext": (4, ALL, (7, 7)),
    "transformers:convnextv2": (4, ALL, (7, 7)),
    "transformers:efficientnet": (5, ALL, (18, 18)),
    "transformers:focalnet": (4, ALL, (7, 7)),
    "transformers:hgnet_v2": (5, ALL, (7, 7)),
    "transformers:mobilenet_v2": (5, ALL, (7, 7)),
    "transformers:mobilevit": (5, ALL, (8, 8)),
    "transformers:mobilevitv2": (5, ALL, (8, 8)),
    "transformers:pvt": (6, (0, 2, 4, 5), (7, 7)),
    "transformers:vit": (1, ALL, (14, 14)),
    "transformers:poolformer": (4, ALL, (7, 7)),
    "transformers:pp_lcnet": (5, ALL, (7, 7)),
    "transformers:regnet": (5, ALL, (7, 7)),
    "transformers:resnet": (5, ALL, (7, 7)),
    "transformers:segformer": (6, (0, 2, 4, 5), (7, 7)),
    "transformers:swiftformer": (5, ALL, (7, 7)),
    "transformers:textnet": (6, (0, 1, 2, 3, 4), (7, 7)),
}
# Weights for a fixed number of patches, or cells whose branches are cropped by fixed amounts.
REFUSED = {
    "pytorchcv:nasnet_4a1056": "no downsampling step of NASNet can be relaxed",
    "timm:botnet26t_256": "no downsampling step",
    "timm:coatnet_nano_rw_224": "no downsampling step",
    "timm:mixer_s32_224": "no downsampling step",
    "torchvision:maxvit_t": "no downsampling step",
    "torchvision:vit_b_16": "through attention or a single token",
}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_last_step_that_can_be_relaxed(name: str) -> None:
    network, image = build(name)
    count, relaxable, last = (QUICK | SLOW)[name]
    larger, enlargement = enlarge(network, image, factor=2, where="last", latency_runs=0)
    free = tuple(step.index for step in enlargement.steps if step.obstacle is None)
    assert len(enlargement.steps) == count
    assert free == (tuple(range(count)) if relaxable is ALL else relaxable)
    assert enlargement.where == free[-1:]
    assert enlargement.before.cost.map_size == last
    # A convolution as large as its map becomes one that slides over the larger map, which then more than doubles.
    assert all(new >= 2 * old - 1 for old, new in zip(last, enlargement.after.cost.map_size, strict=True))
    assert enlargement.after.cost.activation_bytes > enlargement.before.cost.activation_bytes
    assert list(larger.state_dict()) == list(network.state_dict())
    assert bool(enlargement.resized) == (name in ("transformers:pvt", "transformers:vit"))


@pytest.mark.parametrize("name", ["pytorchcv:nin_cifar10", "torchvision:alexnet"])
def test_upsampling(name: str) -> None:
    network, image = build(name)
    _, enlargement = enlarge(network, image, upsample=2, latency_runs=0)
    assert enlargement.after.cost.map_size[0] >= 2 * enlargement.before.cost.map_size[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_enlarged(name: str) -> None:
    network, image = build(name)
    with pytest.raises(InputError, match=REFUSED[name]):
        enlarge(network, image, factor=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("densenet40_k12_cifar10", "nin_cifar10", "preresnet20_cifar10", "rir_cifar10", "ror3_56_cifar10"),
        *("shakeshakeresnet20_2x16d_cifar10", "wrn16_10_cifar10", "xdensenet40_2_k24_bc_cifar10"),
    ],
)
def test_dilation_keeps_the_old_map(name: str) -> None:
    network, size = build_with_weights(f"pytorchcv:{name}")
    image = torch.rand(1, 3, *size)
    larger, enlargement = enlarge(randomise(network), image, factor=2, where="first", dilate=True, latency_runs=0)
    old, new = last_map(network, image), last_map(larger, image)
    assert torch.allclose(new[:, :, ::2, ::2], old, rtol=1e-3, atol=1e-4 * float(old.abs().max()))
    assert enlargement.after.field_px == enlargement.before.field_px
