"""The recipes: products of networks, enlargements, defences and data sets. Plain values, no PyTorch here.

The values of the family ``published`` are the defaults of the programs of arXiv 2202.12435
(github.com/MTandHJ/rcm; those of MART, FAT and DAJAT are in its history), read from their option parsers.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

Family = Literal["published", "extension", "ours", "small"]


class Recipe(NamedTuple):
    """What a recipe is, and the keys of its configuration.

    Attributes:
        description: one sentence.
        family: ``published`` for what a published program makes with its own defaults; ``extension`` for the same
            values on a network or with images that this program does not take; ``ours`` for our variant of either;
            ``small`` for what a CPU trains in minutes.
        program: the published program whose values these are; empty for the family ``small``.
        open: what the publication leaves open, and what is chosen here.
        values: flat keys of a configuration.
    """

    description: str
    family: Family
    values: Mapping[str, Any]
    program: str = ""
    open: str = ""


class _Network(NamedTuple):
    """A network of the publication: model, title, its own strides, and those shrunk to larger feature maps."""

    model: str
    title: str
    own: str
    shrunk: str


class _Program(NamedTuple):
    """A published program: where it is, the keys that it decides, and the networks and upsampling that it takes."""

    where: str
    values: Mapping[str, Any]
    networks: tuple[str, ...] = ("vgg16", "resnet18", "preactresnet18")
    upsamples: bool = True


FAMILIES: Mapping[Family, str] = {
    "published": "the defaults of a program of arXiv 2202.12435 (github.com/MTandHJ/rcm)",
    "extension": "the same values on a network or with images that the program does not take",
    "ours": "as published, but with 1,000 images held out, averaged weights, and bf16 where it is faster",
    "small": "for a CPU, in minutes",
}
PROTOCOL: Mapping[str, Any] = {
    "validation": 0,
    "augment": "published",
    "init": "published",
    "precision": "fp32",
    "ema": 0,
    "swa": 0,
}
"""``--protocol published``: all training images, the last epoch's weights, float32, their augmentation and start."""

_NETWORKS = {
    "alexnet": _Network("alexnet", "AlexNet", "2222", "1122"),
    "vgg16": _Network("vgg16_bn", "VGG-16 with batch-norm", "22222", "11222"),
    "resnet18": _Network("resnet18", "ResNet-18", "1222", "1122"),
    "preactresnet18": _Network("preactresnet18", "PreActResNet-18", "1222", "1122"),
}
# A note of the programs names the shrunk strides for these two under "upsampling".
_OPEN_WHEN_UPSAMPLED = ("alexnet", "vgg16")
_DATA = {"cifar10": ("", "CIFAR-10"), "cifar100": ("-cifar100", "CIFAR-100")}

_ALL = ("alexnet", "vgg16", "resnet18", "preactresnet18")
_SGD = {"batch_size": 128, "optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "weight_decay": 5e-4}
_PGD = {"eps": "8/255", "steps": 10, "step_size": "2/255"}
_AT = {**_SGD, **_PGD, "epochs": 110, "schedule": "step:100,105"}
_AWP = {**_SGD, **_PGD, "epochs": 200, "schedule": "step:100,150"}
_PROGRAMS: Mapping[str, _Program] = {
    "standard": _Program(
        "Major/STD.py", {**_SGD, "epochs": 164, "schedule": "step:82,123", "weight_decay": 2e-4}, _ALL
    ),
    "at": _Program("Major/AT.py", _AT, _ALL),
    "alp": _Program("Major/ALP.py", {**_AT, "beta": 0.5}, _ALL),
    "trades": _Program("Major/TRADES.py", {**_AT, "beta": 6, "step_size": 0.007}, _ALL),
    "at-awp": _Program("AWP/AT.py", {**_AWP, "awp_gamma": 0.01}),
    "trades-awp": _Program("AWP/TRADES.py", {**_AWP, "beta": 6, "awp_gamma": 0.005, "awp_warmup": "10/200"}),
    "mart": _Program(
        "MART/train.py",
        {
            **_SGD,
            **_PGD,
            "step_size": 0.007,
            "beta": 5,
            "epochs": 120,
            "lr": 0.01,
            "schedule": "step:75,90",
            "weight_decay": 3.5e-3,
            "defense_parameters": "form=published",
        },
    ),
    "fat": _Program(
        "FAT/AT.py",
        {
            **_SGD,
            **_PGD,
            "eps": 0.031,
            "epochs": 120,
            "schedule": "step:58,88,108@0.1,0.01,0.005",
            "weight_decay": 2e-4,
            "defense_parameters": "step_noise=0.001",
        },
    ),
    "fat-trades": _Program(
        "FAT/TRADES.py",
        {**_SGD, **_PGD, "eps": 0.031, "step_size": 0.007, "beta": 6, "epochs": 85, "schedule": "step:73"},
    ),
    "dajat-awp": _Program(
        "DAJAT/train_DAJAT.py",
        {
            **_SGD,
            "eps": "8/255",
            "beta": 11,
            "awp_gamma": 0.005,
            "awp_warmup": "10/200",
            "ema": 0.9996,
            "epochs": 200,
            "lr": 0.2,
            "schedule": "cosine",
        },
        ("resnet18",),
        upsamples=False,
    ),
}
_OPEN_DAJAT = "the program holds out 1,000 training images; all are trained on here, as by the other programs"
_DAJAT_CIFAR100 = {"beta": 9, "label_smoothing": 0.1}
_OPEN_DAJAT_CIFAR100 = (
    f"{_OPEN_DAJAT}; for CIFAR-100 it has settings of its own, taken here (beta 9, smoothed labels), beside its "
    "defaults (beta 11, none)"
)

# What our family changes: a held-out split chooses the epoch, weights are averaged, bf16 where the hardware has it.
_OURS: Mapping[str, Any] = {
    "validation": 1000,
    "augment": "auto",
    "init": "kaiming",
    "precision": "auto",
    "ema": 0.999,
}

_TITLES = {
    "standard": "standard training",
    "at": "AT",
    "alp": "ALP",
    "trades": "TRADES",
    "mart": "MART",
    "fat": "friendly AT",
    "fat-trades": "friendly AT for TRADES",
    "at-awp": "AT-AWP",
    "trades-awp": "TRADES-AWP",
    "dajat-awp": "DAJAT with AWP",
    "fast-at": "fast AT",
    "n-fgsm": "N-FGSM",
    "liet": "LIET",
    "free-at": "free AT",
}

# For a CPU: ResNet-8; how the name ends, what the data are, and all keys but network and defence.
_RESNET8: Mapping[str, tuple[str, dict[str, Any]]] = {
    "122": ("strides 122", {"strides": "122"}),
    "112": ("strides 112", {"strides": "112"}),
    "up2": ("images upsampled by 2", {"strides": "122", "upsample": 2}),
}
_SMALL_DEFENSES = ("at", "trades", "at-awp")
_DIGITS = "digits, a minute or so on one core"
_DIGITS_KEYS = {"data": "digits", "epochs": 20, "lr": 0.2, "schedule": "one-cycle"}
_SMALL_DATA: Mapping[str, tuple[str, dict[str, Any]]] = {
    "digits": (_DIGITS, {**_DIGITS_KEYS, "eps": 0.15, "steps": 5}),
    "cifar10-small": (
        "a tenth of CIFAR-10, sized for a CPU",
        {
            "data": "cifar10",
            "train_samples": 5000,
            "validation": 1000,
            "eps": "8/255",
            "steps": 10,
            "epochs": 4,
            "lr": 0.1,
            "schedule": "one-cycle",
        },
    ),
    "fashion_mnist": (
        "Fashion-MNIST at 14 pixels, a few minutes on one core",
        {
            "data": "fashion_mnist",
            "image_size": 14,
            "train_samples": 6400,
            "validation": 500,
            "eps": 0.1,
            "steps": 5,
            "epochs": 8,
            "lr": 0.1,
            "schedule": "one-cycle",
        },
    ),
}
# The other defences, on digits with strides 122.
_DIGITS_DEFENSES: Mapping[str, dict[str, Any]] = {
    "standard": {},
    "alp": {"eps": 0.15, "steps": 5},
    "mart": {"eps": 0.15, "steps": 5},
    "fat": {"eps": 0.15, "steps": 5},
    "fat-trades": {"eps": 0.15, "steps": 5},
    "fast-at": {"eps": 0.15},
    "n-fgsm": {"eps": 0.15},
    "liet": {"eps": 0.15},
    "free-at": {"eps": 0.15, "epochs": 5},
    "dajat-awp": {"eps": 0.15, "ema": 0.99},
}


@cache
def all_recipes() -> Mapping[str, Recipe]:
    """Every recipe by its name, in the order of the names."""
    published = dict(_published())
    ours = {f"ours-{name}": _ours(recipe) for name, recipe in published.items()}
    return dict(sorted([*published.items(), *ours.items(), *_small()]))


def _published() -> Iterator[tuple[str, Recipe]]:
    """The grid of arXiv 2202.12435: each program with each network, and what is not published marked as such."""
    for defense, program in _PROGRAMS.items():
        for network in _ALL if len(program.networks) > 1 else program.networks:
            for variant, how, size, unclear in _variants(network):
                for data, (ending, called) in _DATA.items():
                    known = network in program.networks and (program.upsamples or "upsample" not in size)
                    further, also = _further(defense, data)
                    yield (
                        f"{defense}-{network}-{variant}{ending}",
                        Recipe(
                            f"{_NETWORKS[network].title}, {how}, {_TITLES[defense]}, {called}.",
                            "published" if known and _was_upsampled(network, size) else "extension",
                            {
                                **PROTOCOL,
                                "model": _NETWORKS[network].model,
                                **size,
                                "data": data,
                                "defense": defense,
                                **program.values,
                                **further,
                            },
                            program.where,
                            "; ".join(filter(None, (unclear, also))),
                        ),
                    )


def _variants(network: str) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """How each variant's name ends, what it is, its keys, and what is open about it."""
    _, _, own, shrunk = _NETWORKS[network]
    yield own, f"strides {own}", {"strides": own}, ""
    yield shrunk, f"strides shrunk to {shrunk}", {"strides": shrunk}, ""
    if network not in _OPEN_WHEN_UPSAMPLED:
        yield "up2", "images upsampled by 2", {"strides": own, "upsample": 2}, ""
        return
    for strides, name, other in ((own, "up2", shrunk), (shrunk, f"{shrunk}-up2", own)):
        unclear = f"whether upsampling starts from strides {own} or {shrunk}; {other} is offered too"
        yield name, f"strides {strides}, images upsampled by 2", {"strides": strides, "upsample": 2}, unclear


def _was_upsampled(network: str, size: Mapping[str, Any]) -> bool:
    """No note of the programs upsamples for PreActResNet-18."""
    return "upsample" not in size or network != "preactresnet18"


def _further(defense: str, data: str) -> tuple[Mapping[str, Any], str]:
    if defense != "dajat-awp":
        return {}, ""
    return (_DAJAT_CIFAR100, _OPEN_DAJAT_CIFAR100) if data == "cifar100" else ({}, _OPEN_DAJAT)


def _ours(published: Recipe) -> Recipe:
    """A recipe of ours beside a published one."""
    averaged = {} if published.values["ema"] == 0 else {"ema": published.values["ema"]}
    return Recipe(
        published.description,
        "ours",
        {**published.values, **_OURS, **averaged},
        published.program,
    )


def _small() -> Iterator[tuple[str, Recipe]]:
    """Of ResNet-8, sized for a CPU."""
    for ending, (what, keys) in _SMALL_DATA.items():
        for variant in _RESNET8:
            for defense in _SMALL_DEFENSES:
                yield _resnet8(defense, variant, ending, what, keys)
    for defense, own in _DIGITS_DEFENSES.items():
        yield _resnet8(defense, "122", "digits", _DIGITS, _DIGITS_KEYS | own)


def _resnet8(defense: str, variant: str, ending: str, what: str, keys: Mapping[str, Any]) -> tuple[str, Recipe]:
    how, size = _RESNET8[variant]
    values = {"model": "resnet8", **size, "defense": defense, **keys}
    return (
        f"{defense}-resnet8-{variant}-{ending}",
        Recipe(f"ResNet-8, {how}, {_TITLES[defense]}: {what}.", "small", values),
    )
