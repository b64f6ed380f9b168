"""Networks without the weights of a run: ours by name, and those that other libraries or a user's function make."""

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.calling import logits_of, parameter_dtype
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.modes import set_evaluating
from robustmaps.engine.random import derive_seed
from robustmaps.engine.reading.download import downloading
from robustmaps.engine.text import first_line

FORMS = (
    "a network's name (robustmaps models), a run folder, a weights file, a folder that robustmaps enlarge saved, "
    "torchvision:NAME[@WEIGHTS], timm:NAME[@pretrained], pytorchcv:NAME, hf:OWNER/NAME, hf:FOLDER, robustbench:NAME, "
    "or MODULE:FUNCTION"
)

_HUB = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
_PYTORCH, _DRIVE = "https://download.pytorch.org", "https://drive.google.com"
_INSTEAD = {
    "hf": "hf:FOLDER with its files, or a network of robustmaps models",
    "robustbench": "a network of another library with --weights FILE, or a network of robustmaps models",
}

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
        strides, upsample, upsample_mode, pool: for networks of ours; their own strides where None.
        seed: of the weights.
        init: how the random weights of a network of ours are drawn.
    """

    num_classes: int = 10
    in_channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    strides: str | None = None
    upsample: float = 1
    upsample_mode: models.UpsampleMode = "nearest"
    seed: int = 0
    init: Literal["kaiming", "published"] = "kaiming"
    pool: models.Pool | None = None

    @staticmethod
    def to_data(data: Dataset, *, strides: str | None = None, pool: models.Pool | None = None, seed: int = 0) -> "Fit":
        """What fits a data set."""
        return Fit(data.num_classes, data.in_channels, data.mean, data.std, strides, seed=seed, pool=pool)

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Fit":
        """From values that were read from JSON."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return Fit(**plain)


@dataclass(frozen=True)
class MadeNetwork:
    """A network as its library makes it.

    Attributes:
        model: on the CPU, in evaluation mode; takes images in [0, 1] and gives logits (N, classes).
        spec: how it is made again, without weights.
        trained: whether it has weights that were learnt.
        image_px: side of the images it is made for.
    """

    model: nn.Module
    spec: str
    trained: bool
    image_px: int = 32


def make_architecture(spec: str, fit: Fit) -> MadeNetwork:
    """Make a network, with its weights where the name stands for trained ones, with ones drawn from the seed else.

    Args:
        spec: a name of ours, ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME[@pretrained]``, ``pytorchcv:NAME``,
            ``hf:OWNER/NAME``, ``hf:FOLDER``, ``robustbench:NAME``, or ``module:function``. The last two run code of
            others: whoever passes on a name from a file calls `check_from_file` first.
        fit: what a network without weights is made for.

    Raises:
        InputError: nothing of that name, a library is missing, or it can't make the network.
    """
    check_name(spec)
    kind, colon, name = spec.partition(":")
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(fit.seed, "weights"))
        if not colon:
            made = _ours(spec, fit)
        elif kind in _LIBRARIES:
            made = _LIBRARIES[kind](name, fit)
        else:
            made = MadeNetwork(make_network(spec), spec, trained=True)
    set_evaluating(made.model)
    return made


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
        normalised = self.normalize(x)
        dtype = parameter_dtype(self.network)
        if dtype not in (None, torch.float32):  # half precision, though the normalisation is in float32
            normalised = normalised.to(dtype)
        return logits_of(self.network(normalised))


def check_name(spec: str) -> None:
    """Refuse a name that no network of ours has, before time is spent on anything else.

    Raises:
        InputError: neither a path, nor a name of ours, nor one with a colon; or widths that the network can't have.
    """
    if "/" in spec and ":" not in spec and not Path(spec).exists():
        raise InputError(f"{spec}: no such file or folder")
    if ":" not in spec and not Path(spec).exists():
        if not any(spec == name or spec.startswith(f"{name}_w") for name in models.names()):
            raise InputError(f"{unknown('model', spec, models.names())}. Expected {FORMS}")
        with torch.device("meta"):
            models.create(spec)  # which may not have those widths


def make_network(function: str) -> nn.Module:
    """What ``package.module:function`` returns when it is called without arguments; the current folder is searched too.

    Raises:
        InputError: no such module or function, it raises, or it returns something else.
    """
    module, _, name = function.partition(":")
    if not module or not name:
        raise InputError(f"{function!r}: expected package.module:function")
    if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
        stem = re.sub(r"\W", "_", Path(module).name.removesuffix(".py")) or "module"
        raise InputError(
            f"{function}: expected a module that Python can import, here or on PYTHONPATH, such as {stem}:{name}"
        )
    here = str(Path.cwd())
    # A console script does not look for modules where it is called.
    sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(f"{function}: no module named {error.name!r} here or on PYTHONPATH") from error
    finally:
        sys.path.remove(here)
    make = getattr(imported, name, None)
    if not callable(make):
        names = [key for key, value in vars(imported).items() if not key.startswith("_") and callable(value)]
        raise unknown(f"function of {module}", name, names)
    network = make()
    if not isinstance(network, nn.Module):
        raise InputError(f"{function}: returned {type(network).__name__}, expected an nn.Module")
    return network


def _ours(name: str, fit: Fit) -> MadeNetwork:
    arguments = {key: value for key, value in asdict(fit).items() if key != "seed"}
    return MadeNetwork(models.create(name, **arguments), name, trained=False)


def _torchvision(given: str, fit: Fit) -> MadeNetwork:
    name, _, weights = given.partition("@")
    library = _library("torchvision.models", "torchvision", f"torchvision:{given}")
    if name not in library.list_models():
        raise _unlisted("torchvision", name, library.list_models())
    options: dict[str, Any] = {"weights": weights} if weights else {"weights": None, "num_classes": fit.num_classes}
    if not weights and name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    side = 299 if name == "inception_v3" else _IMAGENET_PX
    network = _made(f"torchvision:{given}", lambda: library.get_model(name, **options), _PYTORCH if weights else None)
    return MadeNetwork(PixelNetwork(network, *_IMAGENET), f"torchvision:{name}", bool(weights), image_px=side)


def _timm(given: str, fit: Fit) -> MadeNetwork:
    name, _, weights = given.partition("@")
    library = _library("timm", "timm", f"timm:{given}")
    if weights not in ("", "pretrained"):
        raise InputError(f"timm:{given}: expected timm:{name} or timm:{name}@pretrained")
    # Only names in timm's own list: hf-hub: and local-dir: load files that somebody else wrote.
    if ":" in name or "/" in name or not library.is_model(name):
        raise _unlisted("timm", name, library.list_models())
    options: dict[str, Any] = {"pretrained": True} if weights else {"num_classes": fit.num_classes}
    network = _made(f"timm:{given}", lambda: library.create_model(name, **options), _HUB if weights else None)
    about = network.default_cfg
    normalised = PixelNetwork(network, about.get("mean", _IMAGENET[0]), about.get("std", _IMAGENET[1]))
    side = about.get("input_size", (3, _IMAGENET_PX, _IMAGENET_PX))[1]
    return MadeNetwork(normalised, f"timm:{name}", bool(weights), image_px=side)


def _pytorchcv(name: str, fit: Fit) -> MadeNetwork:
    library = _library("pytorchcv.model_provider", "pytorchcv", f"pytorchcv:{name}")
    if name not in library._models:  # it has no public list
        raise _unlisted("pytorchcv", name, list(library._models))
    network = _made(f"pytorchcv:{name}", lambda: library.get_model(name, num_classes=fit.num_classes))
    side = getattr(network, "in_size", (_IMAGENET_PX,))[0]
    return MadeNetwork(PixelNetwork(network, *_IMAGENET), f"pytorchcv:{name}", trained=False, image_px=side)


def _transformers(name: str, fit: Fit) -> MadeNetwork:  # noqa: ARG001  # it has its own weights
    library = _library("transformers", "transformers", f"hf:{name}")

    def make() -> Any:
        # Neither the repository's code, nor kernels that its configuration names, nor pickled weights.
        config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
        if "/" in f"{config._attn_implementation}{getattr(config, '_experts_implementation', '')}":
            raise ValueError("its configuration names code on the hub, which is not run")
        return library.AutoModelForImageClassification.from_pretrained(
            name, config=config, trust_remote_code=False, use_safetensors=True
        )

    network = _made(f"hf:{name}", make, _HUB if _is_on_the_hub(name) else None)
    mean, std = _IMAGENET
    try:
        about, _ = library.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)
    except (OSError, AttributeError):  # a network without a description of its images
        about = {}
    pixels = PixelNetwork(network, about.get("image_mean", mean), about.get("image_std", std))
    side = getattr(network.config, "image_size", _IMAGENET_PX)
    side = side if isinstance(side, int) else _IMAGENET_PX
    return MadeNetwork(pixels, f"hf:{name}", trained=True, image_px=side)


def _is_on_the_hub(name: str) -> bool:
    """Whether it can be ``OWNER/NAME`` or ``NAME``, and is no folder here."""
    return not (Path(name).is_dir() or Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1)


def _robustbench(given: str, fit: Fit) -> MadeNetwork:  # noqa: ARG001  # it has its own weights
    """``NAME``, or ``DATASET/THREAT/NAME`` for another leaderboard than that of CIFAR-10 and l_inf."""
    spec = f"robustbench:{given}"
    *board, name = given.split("/")
    if len(board) not in (0, 2):
        raise InputError(
            f"{spec}: expected robustbench:NAME or robustbench:DATASET/THREAT/NAME, as in cifar100/L2/NAME"
        )
    dataset, threat = board or ("cifar10", "Linf")
    library = _library("robustbench.utils", "robustbench", spec)
    network = _made(spec, lambda: library.load_model(model_name=name, dataset=dataset, threat_model=threat), _DRIVE)
    return MadeNetwork(network, spec, trained=True, image_px=_IMAGENET_PX if dataset == "imagenet" else 32)


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


def _made(spec: str, make: Callable[[], Any], server: str | None = None) -> Any:
    """What a library makes, downloading from a server where one is given.

    Raises:
        InputError: it can't be made, or not be downloaded.
    """
    if server is not None:
        plain = spec.partition("@")[0]
        instead = _INSTEAD.get(spec.partition(":")[0], f"{plain}, which has random weights, or those of --weights FILE")
        with downloading(f"the weights of {spec}", server, f"take {instead}"):
            return _made(spec, make)
    try:
        return make()
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise InputError(f"{spec}: the network could not be made: {first_line(error)}") from error


_LIBRARIES: dict[str, Callable[[str, Fit], MadeNetwork]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _transformers,
    "pytorchcv": _pytorchcv,
    "robustbench": _robustbench,
}
