"""The recipes: products of networks, enlargements, defences and data sets. Plain values, no PyTorch here."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class RecipeRow(NamedTuple):
    """One sentence and the keys of a configuration."""

    description: str
    values: dict[str, Any]


# The model, what it is called, its own strides, and those shrunk to the paper's larger feature maps.
_PAPER_NETWORKS = {
    "alexnet": ("alexnet", "AlexNet", "2222", "1122"),
    "vgg16": ("vgg16_bn", "VGG-16 with batch-norm", "22222", "11222"),
    "resnet18": ("resnet18", "ResNet-18", "1222", "1122"),
    "preactresnet18": ("preactresnet18", "PreActResNet-18", "1222", "1122"),
}
_PAPER_DEFENSES = ("standard", "at", "alp", "trades", "at-awp", "trades-awp")
_PAPER_DATA = {"cifar10": ("", "CIFAR-10"), "cifar100": ("-cifar100", "CIFAR-100")}

_SGD = {"batch_size": 128, "lr": 0.1, "weight_decay": 5e-4}
_PAPER_STANDARD = {"epochs": 164, "schedule": "step:82,123", **_SGD}
_PAPER_ADVERSARIAL = {
    "eps": "8/255",
    "steps": 10,
    "step_size": "2/255",
    "epochs": 110,
    "schedule": "step:100,105",
    **_SGD,
}

_TITLES = {
    "standard": "standard training",
    "at": "AT",
    "alp": "ALP",
    "trades": "TRADES",
    "mart": "MART",
    "fat": "friendly AT",
    "at-awp": "AT-AWP",
    "trades-awp": "TRADES-AWP",
    "dajat-awp": "DAJAT with AWP",
    "fast-at": "fast AT",
    "n-fgsm": "N-FGSM",
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
    "fast-at": {"eps": 0.15},
    "n-fgsm": {"eps": 0.15},
    "free-at": {"eps": 0.15, "epochs": 5},
    "dajat-awp": {"eps": 0.15, "ema": 0.99},
}

_DAJAT = RecipeRow(
    "ResNet-18, strides 1222, DAJAT with AWP, CIFAR-10: the strongest recipe without extra data (arXiv 2210.15318).",
    {
        "model": "resnet18",
        "strides": "1222",
        "data": "cifar10",
        "validation": 1000,
        "defense": "dajat-awp",
        "eps": "8/255",
        "beta": 11,
        "awp_gamma": 0.005,
        "awp_warmup": 0.05,
        "ema": 0.9996,
        "epochs": 200,
        "schedule": "cosine",
        **_SGD,
        "lr": 0.2,
    },
)


def all_recipes() -> dict[str, RecipeRow]:
    """Every recipe by its name, in the order of the names."""
    return dict(sorted([*_paper(), *_small(), ("dajat-awp-resnet18-1222", _DAJAT)]))


def _paper() -> Iterator[tuple[str, RecipeRow]]:
    """The grid of arXiv 2202.12435."""
    for network, (model, title, own, shrunk) in _PAPER_NETWORKS.items():
        variants: dict[str, tuple[str, dict[str, Any]]] = {
            own: (f"strides {own}", {"strides": own}),
            shrunk: (f"strides shrunk to {shrunk}", {"strides": shrunk}),
            "up2": ("images upsampled by 2", {"strides": own, "upsample": 2}),
        }
        for variant, (how, size) in variants.items():
            for defense in _PAPER_DEFENSES:
                budget: Mapping[str, Any] = _PAPER_STANDARD if defense == "standard" else _PAPER_ADVERSARIAL
                for data, (ending, called) in _PAPER_DATA.items():
                    yield (
                        f"{defense}-{network}-{variant}{ending}",
                        RecipeRow(
                            f"{title}, {how}, {_TITLES[defense]}, {called} (arXiv 2202.12435).",
                            {"model": model, **size, "data": data, "validation": 1000, "defense": defense, **budget},
                        ),
                    )


def _small() -> Iterator[tuple[str, RecipeRow]]:
    """Of ResNet-8, sized for a CPU."""
    for ending, (what, keys) in _SMALL_DATA.items():
        for variant in _RESNET8:
            for defense in _SMALL_DEFENSES:
                yield _resnet8(defense, variant, ending, what, keys)
    for defense, own in _DIGITS_DEFENSES.items():
        yield _resnet8(defense, "122", "digits", _DIGITS, _DIGITS_KEYS | own)


def _resnet8(defense: str, variant: str, ending: str, what: str, keys: Mapping[str, Any]) -> tuple[str, RecipeRow]:
    how, size = _RESNET8[variant]
    return (
        f"{defense}-resnet8-{variant}-{ending}",
        RecipeRow(
            f"ResNet-8, {how}, {_TITLES[defense]}: {what}.", {"model": "resnet8", **size, "defense": defense, **keys}
        ),
    )
