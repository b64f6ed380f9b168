"""Opening what a user calls a network: one of ours, a run, a saved enlargement, or one of another library."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.random import derive_seed
from robustmaps.enlarging._trace import first_line, logits
from robustmaps.experiments._checkpoints import make_network, open_checkpoint
from robustmaps.experiments._config import DataConfig
from robustmaps.experiments._run import DESCRIPTION
from robustmaps.training import load_weights

FORMS = (
    "a network's name (robustmaps models), a run folder, a weights file, a folder that robustmaps enlarge saved, "
    "torchvision:NAME[@WEIGHTS], timm:NAME[@pretrained], hf:OWNER/NAME or hf:FOLDER, or MODULE:FUNCTION"
)
RECIPE = "recipe.json"

# What most networks for ImageNet are made for and trained with.
_IMAGENET_PX = 224
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Fit:
    """What a network without weights is made for.

    Attributes:
        num_classes: logits.
        in_channels: of the images.
        mean, std: of the images by channel, for networks of ours.
        strides, upsample, upsample_mode: for networks of ours; their own strides where None.
        seed: of the weights.
    """

    num_classes: int = 10
    in_channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    strides: str | None = None
    upsample: float = 1
    upsample_mode: str = "nearest"
    seed: int = 0

    @staticmethod
    def to_data(data: Dataset, *, strides: str | None = None, seed: int = 0) -> "Fit":
        """What fits a data set."""
        return Fit(data.num_classes, data.in_channels, data.mean, data.std, strides, seed=seed)

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Fit":
        """From values that were read from JSON."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return Fit(**plain)


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that takes images in [0, 1] and gives logits (N, classes).

    Attributes:
        model: on the CPU, in evaluation mode.
        spec: how the same architecture is opened again, without weights.
        fit: what it was made for.
        trained: whether it has weights that were learnt.
        data: the images it was trained on, where that is known.
        budget: norm and eps it was trained for, where that is known.
        enlargements: recipes of what was changed on that architecture, in order.
        image_px: side of the images it is made for.
    """

    model: nn.Module
    spec: str
    fit: Fit
    trained: bool
    data: DataConfig | None = None
    budget: tuple[str, float] | None = None
    enlargements: tuple[dict[str, Any], ...] = ()
    image_px: int = 32


class PixelNetwork(nn.Module):
    """A network of another library as one that takes images (N, C, H, W) in [0, 1] and gives nothing but logits.

    Attributes:
        normalize: what the library does to the pixels in front of the network.
        network: as the library made it.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = models.Normalize(len(mean), mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); grey images are repeated over the channels."""
        if x.shape[1] == 1 < len(self.normalize.mean):
            x = x.expand(-1, len(self.normalize.mean), -1, -1)
        return logits(self.network(self.normalize(x)))


def data_of(spec: str) -> DataConfig | None:
    """The images that a run or a weights file of ours was trained on, None for any other network.

    Raises:
        InputError: the weights can't be read.
    """
    return open_checkpoint(spec).data if _is_checkpoint(spec) else None


def check_name(spec: str) -> None:
    """Refuse a name that no network of ours has, before time is spent on anything else.

    Raises:
        InputError: neither a path, nor a name of ours, nor one with a colon.
    """
    if ":" not in spec and not Path(spec).exists() and spec not in models.names():
        raise InputError(f"{unknown('model', spec, models.names())}. Expected {FORMS}")


def open_model(spec: str, fit: Fit | None = None) -> OpenedNetwork:
    """Open a network, with its weights where the name stands for trained ones and with random ones else.

    Args:
        spec: a name of ours, the folder of a run or its weights file, a folder that `robustmaps enlarge` saved,
            ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME[@pretrained]``, ``hf:OWNER/NAME``, ``hf:FOLDER``, or
            ``module:function``, where the function takes no arguments and returns the network.
        fit: what a network without weights is made for.

    Raises:
        InputError: nothing of that name, a library is missing, or it can't make the network.
    """
    fit = fit or Fit()
    check_name(spec)
    if _is_checkpoint(spec):
        return _checkpoint(spec)
    if (Path(spec) / RECIPE).exists():
        from robustmaps.experiments._enlarging import open_enlarged

        return open_enlarged(spec)
    kind, colon, name = spec.partition(":")
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(fit.seed, "weights"))
        if not colon:
            opened = _ours(spec, fit)
        elif kind in _LIBRARIES:
            opened = _LIBRARIES[kind](name, fit)
        else:
            opened = _function(spec, fit)
    opened.model.eval()
    return opened


def _is_checkpoint(spec: str) -> bool:
    path = Path(spec)
    return path.is_file() or (path.is_dir() and not (path / RECIPE).exists())


def _checkpoint(spec: str) -> OpenedNetwork:
    checkpoint = open_checkpoint(spec)
    about = dict(json.loads(load_weights(checkpoint.path or spec)[1][DESCRIPTION])["model"])
    name = about.pop("name")
    fit = Fit.of(about)
    budget = (checkpoint.norm, checkpoint.eps)
    return OpenedNetwork(checkpoint.model.eval(), name, fit, True, checkpoint.data, budget)


def _ours(name: str, fit: Fit) -> OpenedNetwork:
    arguments = {key: value for key, value in asdict(fit).items() if key != "seed"}
    return OpenedNetwork(models.create(name, **arguments), name, fit, trained=False)


def _torchvision(given: str, fit: Fit) -> OpenedNetwork:
    name, _, weights = given.partition("@")
    library = _library("torchvision.models", "torchvision", f"torchvision:{given}")
    if name not in library.list_models():
        raise _unlisted("torchvision", name, library.list_models())
    options: dict[str, Any] = {"weights": weights} if weights else {"weights": None, "num_classes": fit.num_classes}
    if not weights and name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    side = 299 if name == "inception_v3" else _IMAGENET_PX
    network = _made(f"torchvision:{given}", lambda: library.get_model(name, **options))
    return OpenedNetwork(PixelNetwork(network, *_IMAGENET), f"torchvision:{name}", fit, bool(weights), image_px=side)


def _timm(given: str, fit: Fit) -> OpenedNetwork:
    name, _, weights = given.partition("@")
    library = _library("timm", "timm", f"timm:{given}")
    if weights not in ("", "pretrained"):
        raise InputError(f"timm:{given}: expected timm:{name} or timm:{name}@pretrained")
    if not library.is_model(name):
        raise _unlisted("timm", name, library.list_models())
    options: dict[str, Any] = {"pretrained": True} if weights else {"num_classes": fit.num_classes}
    network = _made(f"timm:{given}", lambda: library.create_model(name, **options))
    about = network.default_cfg
    normalised = PixelNetwork(network, about.get("mean", _IMAGENET[0]), about.get("std", _IMAGENET[1]))
    side = about.get("input_size", (3, _IMAGENET_PX, _IMAGENET_PX))[1]
    return OpenedNetwork(normalised, f"timm:{name}", fit, bool(weights), image_px=side)


def _transformers(name: str, fit: Fit) -> OpenedNetwork:
    library = _library("transformers", "transformers", f"hf:{name}")
    network = _made(f"hf:{name}", lambda: library.AutoModelForImageClassification.from_pretrained(name))
    mean, std = _IMAGENET
    try:
        about, _ = library.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)
    except (OSError, AttributeError):  # a network without a description of its images
        about = {}
    pixels = PixelNetwork(network, about.get("image_mean", mean), about.get("image_std", std))
    side = getattr(network.config, "image_size", _IMAGENET_PX)
    side = side if isinstance(side, int) else _IMAGENET_PX
    return OpenedNetwork(pixels, f"hf:{name}", fit, trained=True, image_px=side)


def _function(spec: str, fit: Fit) -> OpenedNetwork:
    return OpenedNetwork(make_network(spec), spec, fit, trained=True)


def _unlisted(library: str, name: str, names: Sequence[str]) -> InputError:
    """The error for a name that a library does not have; it has too many to list."""
    near = ", ".join(get_close_matches(name, names, n=5, cutoff=0.4)) or "none of a similar name"
    return InputError(f"{library} has no network {name!r}; it has {near}")


def _library(module: str, package: str, spec: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, package):
            raise
        raise InputError(f"{spec}: {package} is not installed; pip install {package}") from error
    except RuntimeError as error:  # its compiled part was built for another PyTorch
        raise InputError(
            f"{spec}: {package} can't be loaded beside PyTorch {torch.__version__} ({first_line(error)}); install "
            f"the torchvision that was built for it: pip install --force-reinstall torchvision"
        ) from error


def _made(spec: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise InputError(f"{spec}: the network could not be made: {first_line(error)}") from error


_LIBRARIES: dict[str, Callable[[str, Fit], OpenedNetwork]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _transformers,
}
