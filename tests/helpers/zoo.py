"""Networks of other libraries, with random weights, made without computing any (on the ``meta`` device).

A name is ``library:network``; the libraries are pytorchcv, torchvision, timm and transformers.
"""

import functools
import importlib.util

import pytest
import torch
from torch import nn


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network and an image for it, on the ``meta`` device; skips the test where the library is missing."""
    try:
        with torch.device("meta"):
            network, size = build_with_weights(name)
    except NotImplementedError:  # a network whose initialisation looks at values
        network, size = build_with_weights(name)
    return network.to("meta"), torch.empty(1, 3, *size, device="meta")


def build_with_weights(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """The network and the height and width of its images."""
    library, _, network = name.partition(":")
    module = {"pytorchcv": "pytorchcv.model_provider"}.get(library, library)
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    define_torchvision_operators()
    model, size = _BUILDERS[library](pytest.importorskip(module), network)
    return model.eval(), size


@functools.cache
def define_torchvision_operators() -> torch.library.Library:
    """The schemas that torchvision's Python code expects of its compiled part, which loads beside CUDA builds only."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _pytorchcv(provider: object, name: str) -> tuple[nn.Module, tuple[int, int]]:
    model = provider.get_model(name)
    return model, model.in_size


def _torchvision(library: object, name: str) -> tuple[nn.Module, tuple[int, int]]:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    models = pytest.importorskip("torchvision.models")
    return models.get_model(name, weights=None, **options), ((299, 299) if name == "inception_v3" else (224, 224))


def _timm(library: object, name: str) -> tuple[nn.Module, tuple[int, int]]:
    model = library.create_model(name, pretrained=False)
    return model, model.default_cfg["input_size"][1:]


def _transformers(library: object, name: str) -> tuple[nn.Module, tuple[int, int]]:
    config = library.AutoConfig.for_model(name)
    size = getattr(config, "image_size", 224)
    model = library.AutoModelForImageClassification.from_config(config)
    return model, (size, size) if isinstance(size, int) else (224, 224)


_BUILDERS = {"pytorchcv": _pytorchcv, "torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
