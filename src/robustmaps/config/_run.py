"""The configuration of a run: one flat set of keys, the same on the command line and in YAML. No PyTorch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from robustmaps.config._enlarge_option import parse_surgery
from robustmaps.config._flat_keys import read_mapping, section_from_mapping, to_mapping
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import short_hash
from robustmaps.engine.numbers import check_eps
from robustmaps.training import INCIDENTAL, TrainOptions

Fraction = Annotated[float, "a number or a fraction such as 8/255"]
"""A float that is written as a fraction on the command line and in YAML."""

DefenseName = Literal[
    "standard",
    "at",
    "alp",
    "trades",
    "mart",
    "fat",
    "hat",
    "dajat",
    "at-awp",
    "alp-awp",
    "trades-awp",
    "mart-awp",
    "fat-awp",
    "hat-awp",
    "dajat-awp",
    "fast-at",
    "n-fgsm",
    "free-at",
]


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        model: a network's name, see `robustmaps models`; or torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION.
        strides: of a network of ours, the stride of each downsampling step, such as 1122; its own if left out.
        upsample: of a network of ours, the factor by which images are enlarged before it.
        upsample_mode: how they are enlarged.
        enlarge: what else to enlarge, on any network: upsample=2, first, last, or numbers of downsampling steps such
            as 0,2; dilate keeps what a trained network computes. Several with commas: last,dilate. See `robustmaps
            enlarge MODEL`.
        init_from: begin with the weights of a run, a weights file, or a folder that `robustmaps enlarge` saved;
            network, data and budget are those of these weights if left out.
        init_sha256: the hash of these weights, filled in where left out; others are then refused.

    Raises:
        InputError: ``enlarge`` can't be read.
    """

    model: str = "resnet8"
    strides: str | None = None
    upsample: float = 1.0
    upsample_mode: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    enlarge: str | None = None
    init_from: str | None = None
    init_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.enlarge is not None and parse_surgery(self.enlarge).is_none:
            raise InputError(f"enlarge={self.enlarge!r}: changes nothing; expected such as upsample=2, or last,dilate")


@dataclass(frozen=True)
class DataConfig:
    """The images.

    Attributes:
        data: digits, cifar10, hf:OWNER/NAME, or the path of a folder, archive, IDX folder or .npz; see
            `robustmaps data list`.
        validation: the part of the training images held out for choosing the best epoch; a fraction, or a number.
        train_samples: train on so many images, drawn evenly from the classes; on all if left out.
        image_size: resize images to this many pixels a side; what is usual for a named set if left out.
        augment: what suits the data set (shifts and flips, or random resized crops), none, or resized-crop for random
            resized crops of image_size pixels; the other splits then get the centre of images an eighth larger.
        extra_data: an .npz of extra training images, such as generated ones: image, uint8, (N, H, W, C), and label.
        extra_share: the share of every batch that is drawn from them; an epoch stays as long as it is without.
    """

    data: str = "digits"
    validation: float = 0.1
    train_samples: int | None = None
    image_size: int | None = None
    augment: Literal["auto", "none", "resized-crop"] = "auto"
    extra_data: str | None = None
    extra_share: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.extra_share < 1:
            raise InputError(f"extra_share={self.extra_share!r}: expected a share of each batch above 0 and below 1")


@dataclass(frozen=True)
class DefenseConfig:
    """The defence, and the attack that it trains against.

    Attributes:
        defense: standard; at (adversarial training), alp, trades, mart, fat (friendly), hat (with a helper network) or
            dajat, each also with -awp for weight perturbation; or a cheap one: fast-at, n-fgsm, free-at.
        norm: the norm of the budget.
        eps: its radius, for images in [0, 1].
        steps: steps of the training attack; leave it out for the cheap ones, which make one, and for dajat's five.
        step_size: length of a step; 2.5 * eps / steps if left out, 1.25 * eps for fast-at.
        beta: weight of the pairing or of the divergence; alp 0.5, trades 6, mart 5, hat 2.5, dajat 11 if left out.
        awp_gamma: relative size of the weight perturbation; 0.01 for at-awp, 0.005 for the others if left out.
        awp_warmup: share of training before weights are perturbed, such as 10/200.
        tau: steps that fat still makes after an error; 0, 1 and 2 as training goes on if left out.
        replays: steps that free-at makes on a batch; 8 if left out.
        helper: of hat, the run folder or weights file of a network that was trained with --defense standard.
        helper_sha256: the hash of its weights, filled in where left out; others are then refused.
    """

    defense: DefenseName = "at"
    norm: Literal["linf", "l2"] = "linf"
    eps: Fraction = 8 / 255
    steps: int = 10
    step_size: Fraction | None = None
    beta: float | None = None
    awp_gamma: float | None = None
    awp_warmup: Fraction | None = None
    tau: int | None = None
    replays: int | None = None
    helper: str | None = None
    helper_sha256: str | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)


@dataclass(frozen=True)
class AttackConfig:
    """Attacks for evaluation; what is left out comes from the run's own configuration.

    Attributes:
        attack: pgd, fgsm or autoattack; a part of it: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square; from foolbox: cw,
            deepfool, ead, slide, brendel-bethge, pgd-l1; or several with commas, each on what the ones before left.
        version: of autoattack. rapid takes a few percent of the time.
        norm: the norm of the budget.
        eps: its radius, for images in [0, 1]; several with commas for a curve.
        steps: gradient steps per restart, of pgd (20 if left out) and of foolbox's attacks.
        step_size: length of a step of pgd; 2.5 * eps / steps if left out.
        restarts: independent random starts of pgd; the worst case counts.
        loss: what pgd climbs.
        exhaustive: make every step of autoattack, also in runs that are without prospect.
    """

    attack: str = "pgd"
    version: Literal["standard", "plus", "rand", "rapid"] = "standard"
    norm: Literal["linf", "l2", "l1"] | None = None
    eps: tuple[float, ...] = ()
    steps: int | None = None
    step_size: Fraction | None = None
    restarts: int = 5
    loss: Literal["ce", "margin", "kl"] = "ce"
    exhaustive: bool = False


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    defense: DefenseConfig = field(default_factory=DefenseConfig)
    training: TrainOptions = field(default_factory=TrainOptions)

    @property
    def name(self) -> str:
        """The name of the run's folder: readable, and different for every configuration.

        >>> RunConfig().name.rpartition("-")[0]
        'digits-resnet8-at-seed0'
        """
        model, defense = self.model, self.defense
        source = Path(self.data.data.removeprefix("hf:")).name.partition(".")[0]
        parts = [
            _for_a_file(source),
            _for_a_file(model.model) + (f"-{model.strides}" if model.strides else ""),
            *(
                [f"up{model.upsample:g}{'' if model.upsample_mode == 'nearest' else model.upsample_mode}"]
                * (model.upsample != 1)
            ),
            *([] if model.enlarge is None else [_for_a_file(model.enlarge)]),
            *([] if model.init_from is None else ["tuned"]),
            defense.defense,
            f"seed{self.training.seed}",
            self.hash,
        ]
        return "-".join(parts)

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits that follow from everything that decides where the run ends up.

        What is as in the default configuration is left out, so that a new option renames no run. Of weights to begin
        with, and of a helper's, their hash counts, not where they lie; without extra images their share says nothing.
        """
        usual = to_mapping(RunConfig())
        incidental = INCIDENTAL | ({"init_from"} if self.model.init_sha256 else frozenset())
        incidental |= {"helper"} if self.defense.helper_sha256 else frozenset()
        incidental |= frozenset() if self.data.extra_data else {"extra_share"}
        decisive = {k: v for k, v in to_mapping(self).items() if k not in incidental and v != usual[k]}
        return short_hash(decisive)


def _for_a_file(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in text)


def from_mapping(values: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration") -> RunConfig:
    """A configuration from flat keys; what is not given stays as in ``base``.

    Nothing is opened: what weights in ``init_from`` decide is filled in by `networks.complete`.

    Raises:
        InputError: an unknown key, with the nearest match; or a value of the wrong type or out of its range.
    """
    base = base or RunConfig()
    sections = {item.name: getattr(base, item.name) for item in fields(base)}
    owner = {item.name: section for section, value in sections.items() for item in fields(value)}
    given: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in owner:
            raise unknown(f"key in {where}", key, owner)
        given[owner[name]][name] = value
    return RunConfig(
        **{section: section_from_mapping(value, given[section], where) for section, value in sections.items()}
    )


FromMapping = Callable[[Mapping[str, Any], RunConfig | None, str], RunConfig]
"""`from_mapping`, or what completes its result."""


def field_names() -> list[str]:
    """All keys of a run's configuration."""
    return list(to_mapping(RunConfig()))


def read_config(path: str | Path, base: RunConfig | None = None, make: FromMapping = from_mapping) -> RunConfig:
    """Read a YAML file of flat keys.

    Args:
        path: the file.
        base: where the file is silent.
        make: `networks.complete`, where the file may name weights to begin with and leave out what they decide.

    Raises:
        InputError: the file is missing, is no mapping, or holds unknown keys or bad values.
    """
    return make(read_mapping(path), base, str(path))


def write_config(config: RunConfig) -> str:
    """The configuration as YAML that `read_config` reads back to the same."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)
