"""The configuration of a run: one flat set of keys, the same on the command line and in YAML. No PyTorch here."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from robustmaps import attacks, defenses
from robustmaps.config._enlarge_option import parse_surgery
from robustmaps.config._flat_keys import (
    Fraction,
    flat_values,
    parse_mapping,
    read_yaml,
    section_from_mapping,
    to_mapping,
)
from robustmaps.config._origin import OriginConfig, check_origin, implied
from robustmaps.engine.checked import Damaged, checksum, compare_checksums
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import short_hash, write_text
from robustmaps.engine.numbers import check_eps
from robustmaps.engine.registry import parse_parameters, written
from robustmaps.engine.trust import check_from_file, names_code
from robustmaps.models import Pool, UpsampleMode
from robustmaps.training import INCIDENTAL, TrainOptions

# How `RunConfig.name` ends.
_RUN_NAME = re.compile(r"-seed\d+-[0-9a-f]{8}$")
_CHECKED = "# not to be edited: another configuration is another run; "
_MEND = "restore it from a copy, or train another configuration in a folder of its own"


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        model: name of a network, see `robustmaps models`; or torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION
        strides: strides of a built-in network's downsampling steps, e.g. 1122 (default: the architecture's own)
        upsample: factor by which images are upsampled in front of a built-in network
        upsample_mode: interpolation of the upsampled images (area differs from nearest for a factor such as 1.5)
        pool: pooling of a built-in network's last map; max is what the theory compares avg with (default:
            avg)
        enlarge: enlargement of any network: upsample=2, first, last, or numbers of downsampling steps such as 0,2;
            dilate keeps what a trained network computes; several with commas, e.g. last,dilate; see `robustmaps enlarge
            MODEL` (default: none)
        init_from: weights to begin with: a run, a weights file, or a folder that `robustmaps enlarge` saved; they
            decide network, data and budget where these are left out (default: random weights)
        init_sha256: hash of these weights, filled in where left out; others are then refused
        init: random weights of a built-in network: kaiming for all convolutions, or published for those that
            arXiv 2202.12435 draws for its family

    Raises:
        InputError: ``enlarge`` can't be read.
    """

    model: str = "resnet8"
    strides: str | None = None
    upsample: float = 1.0
    upsample_mode: UpsampleMode = "nearest"
    pool: Pool | None = None
    enlarge: str | None = None
    init_from: str | None = None
    init_sha256: str | None = None
    init: Literal["kaiming", "published"] = "kaiming"

    def check(self, base: "ModelConfig") -> None:
        """Refuse what would be without effect, where it differs from what holds already.

        Raises:
            InputError: a way of upsampling without any, or of drawing weights that are not drawn.
        """
        if self.init != base.init and (self.init_from is not None or ":" in self.model):
            drawn = "begins with the weights of init_from" if self.init_from is not None else "is no built-in network"
            raise InputError(f"init={self.init}: {self.model} {drawn}; leave init out")
        if self.upsample == 1 and self.upsample_mode != base.upsample_mode:
            raise InputError(f"upsample_mode={self.upsample_mode}: nothing is upsampled; give upsample, such as 2")

    def __post_init__(self) -> None:
        if self.enlarge is not None and parse_surgery(self.enlarge).is_none:
            raise InputError(f"enlarge={self.enlarge!r}: changes nothing; expected upsample=2, or last,dilate")


@dataclass(frozen=True)
class DataConfig:
    """The images.

    Attributes:
        data: data set: digits, cifar10, hf:OWNER/NAME, or the path of a folder, archive, IDX folder or .npz; see
            `robustmaps data list`
        classes: names of the classes in the order of the labels, with commas, or a text file with one a line (default:
            the data set's own; of folders, as text: 10 before 2)
        validation: part of the training images held out for choosing the best epoch; a fraction, or a number
        train_samples: number of training images, drawn evenly from the classes (default: all)
        image_size: side length in pixels to resize the images to (default: the data set's own)
        augment: augmentation: auto for what suits the data set (shifts and flips, or random resized crops), none,
            published (as auto, but none for svhn, mnist and fashion_mnist), or resized-crop for random resized crops of
            the given image size; the other splits then get the centre of images an eighth larger
        extra_data: npz file of extra training images, such as generated ones: image, uint8, (N, H, W, C), and label
            (default: none)
        extra_share: share of every batch that is drawn from the extra images; an epoch stays as long as without them
    """

    data: str = "digits"
    validation: float = 0.1
    train_samples: int | None = None
    image_size: int | None = None
    augment: Literal["auto", "none", "published", "resized-crop"] = "auto"
    extra_data: str | None = None
    extra_share: float = 0.7
    classes: str | None = None

    def check(self, base: "DataConfig") -> None:
        """Refuse what would be without effect, where it differs from what holds already.

        Raises:
            InputError: a share of extra images without any.
        """
        if self.extra_data is None and self.extra_share != base.extra_share:
            raise InputError(f"extra_share={self.extra_share:g}: there are no extra images; give extra_data")

    def __post_init__(self) -> None:
        if not 0 < self.extra_share < 1:
            raise InputError(f"extra_share={self.extra_share!r}: expected a share of each batch above 0 and below 1")


@dataclass(frozen=True)
class DefenseConfig:
    """The defence, and the attack that it trains against.

    Attributes:
        defense: name of the defence; see the list above
        norm: norm of the budget
        eps: radius of the budget, for images in [0, 1]
        steps: steps of the training attack; leave it out for defences with steps of their own
        step_size: length of a step (default: 2.5 * eps / steps, or 1.25 * eps for fast-at)
        beta: weight of the pairing or of the divergence (default: alp 0.5, trades 6, mart 5, hat 2.5, dajat 11)
        awp_gamma: relative size of the weight perturbation (default: 0.01 for at-awp, else 0.005)
        awp_warmup: share of training before weights are perturbed, e.g. 10/200 (default: 0)
        tau: steps that fat still makes after a misclassification (default: 0, 1 and 2 as training proceeds)
        replays: steps that free-at makes on a batch (default: 8)
        helper: run folder or weights file of hat's helper, a network trained with --defense standard
        helper_sha256: hash of the helper's weights, filled in where left out; others are then refused
        defense_parameters: parameters of the defence without an option of their own, as NAME=VALUE with commas
    """

    defense: str = "at"
    norm: Literal["linf", "l2"] = "linf"
    eps: Fraction = 8 / 255
    steps: int = 10
    step_size: Fraction | None = None
    beta: float | None = None
    awp_gamma: float | None = None
    awp_warmup: float | None = None
    tau: int | None = None
    replays: int | None = None
    helper: str | None = None
    helper_sha256: str | None = None
    defense_parameters: str | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of the defence that are not as usual."""
        further = parse_parameters(self.defense_parameters, "defense_parameters")
        return _given(self, ("defense", "norm", "eps", "helper_sha256", "defense_parameters")) | further

    def check(self, base: "DefenseConfig | None" = None) -> None:
        """Refuse what would be without effect; opens nothing.

        Args:
            base: what holds already; only what differs from it is looked at.

        Raises:
            InputError: an unknown defence, or a parameter that it does not take.
        """
        if self.helper_sha256 is not None and self.helper is None:
            raise InputError(f"helper_sha256={self.helper_sha256}: needs helper, the network whose hash it is")
        there = {} if base is None else base.given
        defenses.check_parameters(self.defense, {k: v for k, v in self.given.items() if there.get(k) != v})


@dataclass(frozen=True)
class AttackConfig:
    """The attack, or several.

    Attributes:
        attack: name of the attack, see the list above; or several with commas, each on what the ones before left
        version: version of AutoAttack; a3 takes about a tenth of the passes (default: standard)
        norm: norm of the budget (default: the run's own)
        eps: radius of the budget, for images in [0, 1]; several with commas for a curve (default: the run's own)
        steps: gradient steps per restart, for pgd and foolbox's attacks (default: 20)
        step_size: length of a step, for pgd and some of foolbox's attacks (default: 2.5 * eps / steps)
        relative_step: length of a step relative to eps, in place of step_size, e.g. 0.25
        restarts: independent random starts, for pgd; the worst case counts (default: 5)
        loss: loss that pgd maximises (default: ce)
        exhaustive: make every step, also where runs cannot succeed (autoattack) or go round in a circle (pgd)
        attack_parameters: parameters of the attacks without an option of their own, as NAME=VALUE with commas, or
            ATTACK.NAME=VALUE for one attack of several, e.g. deepfool.overshoot=0.1,cw.steps=100
    """

    attack: str = "pgd"
    version: Literal["standard", "plus", "rand", "a3"] | None = None
    norm: Literal["linf", "l2", "l1"] | None = None
    eps: tuple[Fraction, ...] = ()
    steps: int | None = None
    step_size: Fraction | None = None
    relative_step: float | None = None
    restarts: int | None = None
    loss: Literal["ce", "margin", "kl"] | None = None
    exhaustive: bool = False
    attack_parameters: str | None = None

    @property
    def names(self) -> list[str]:
        """The attacks, in order."""
        return [name.strip() for name in self.attack.split(",")]

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were given for all attacks that take them."""
        further = {name: value for name, value in self._further.items() if "." not in name}
        return _given(self, ("attack", "norm", "eps", "attack_parameters")) | further

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that were given for one attack each, as ``ATTACK.NAME``."""
        return {name: value for name, value in self._further.items() if "." in name}

    @property
    def _further(self) -> dict[str, Any]:
        return parse_parameters(self.attack_parameters, "attack_parameters")

    def parameters(self, name: str) -> dict[str, Any]:
        """The given parameters of one of the attacks: its own, and the common ones that it takes.

        Raises:
            InputError: an unknown attack.
        """
        taken = attacks.takes(name)
        own = {key.rpartition(".")[2]: each for key, each in self.own.items() if key.rpartition(".")[0] == name}
        return {key: each for key, each in self.given.items() if key in taken} | own

    def alone(self, name: str) -> "AttackConfig":
        """One of the attacks by itself, with the parameters that it takes."""
        usual, options = AttackConfig(), {item.name for item in fields(self)}
        mine = self.parameters(name)
        further = {key: value for key, value in mine.items() if key not in options}
        return replace(
            usual,
            attack=name,
            norm=self.norm,
            eps=self.eps,
            **{key: value for key, value in mine.items() if key in options},
            attack_parameters=",".join(f"{key}={written(value)}" for key, value in further.items()) or None,
        )

    def columns(self) -> list["AttackConfig"]:
        """Each of the attacks by itself, in order.

        Raises:
            InputError: there is only one, or one occurs twice.
        """
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise InputError(
                f"attack={self.attack} with each: expected two or more attacks, each once, such as "
                "fgsm,pgd-20,autoattack"
            )
        return [self.alone(name) for name in self.names]

    def check(self) -> None:
        """Refuse what would be without effect; opens nothing.

        Raises:
            InputError: an unknown attack, or a parameter that none of the attacks takes.
        """
        attacks.check_parameters(self.names, self.given)
        for key, value in self.own.items():
            owner, _, option = key.rpartition(".")
            if owner not in self.names:
                raise unknown(f"attack in attack_parameters={self.attack_parameters!r}:", owner, self.names)
            attacks.check_parameters([owner], {option: value})


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    defense: DefenseConfig = field(default_factory=DefenseConfig)
    training: TrainOptions = field(default_factory=TrainOptions)
    origin: OriginConfig = field(default_factory=OriginConfig)

    def check(self, base: "RunConfig") -> None:
        """Refuse what would be without effect; opens nothing.

        Args:
            base: what holds already; only what differs from it is looked at.

        Raises:
            InputError: an option that the others leave without effect, or that the recipe or the protocol contradicts.
        """
        if self != base:
            check_origin(self.origin, flat_values(self))
        self.model.check(base.model)
        self.data.check(base.data)
        self.defense.check(base.defense)

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
            *([] if model.pool is None else [f"{model.pool}pool"]),
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
        The values count, not the recipe or the protocol that they come from.
        """
        usual = to_mapping(RunConfig())
        incidental = INCIDENTAL | ({"init_from"} if self.model.init_sha256 else frozenset())
        incidental |= {"helper"} if self.defense.helper_sha256 else frozenset()
        incidental |= frozenset() if self.data.extra_data else {"extra_share"}
        decisive = {k: v for k, v in to_mapping(self).items() if k not in incidental and v != usual[k]}
        return short_hash(decisive)

    def may_be_called(self, folder: str) -> bool:
        """If a folder's name ends with the hash; Python callers may have given 2 for 2.0, which hashes otherwise."""
        sections = {item.name: getattr(self, item.name) for item in fields(self)}
        whole = [
            (section, item.name, value)
            for section, part in sections.items()
            for item in fields(part)
            if isinstance(value := getattr(part, item.name), float) and value.is_integer() and value != item.default
        ]
        for chosen in product((float, int), repeat=min(len(whole), 6)):
            changed = dict(sections)
            for (section, name, value), kind in zip(whole, chosen, strict=False):
                changed[section] = replace(changed[section], **{name: kind(value)})
            if folder.endswith(f"-{RunConfig(**changed).hash}"):
                return True
        return False


def _given(config: Any, apart: tuple[str, ...]) -> dict[str, Any]:
    values = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in apart}
    return {name: value for name, value in values.items() if value != getattr(type(config), name)}


def _for_a_file(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in text)


def from_mapping(values: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration") -> RunConfig:
    """A configuration from flat keys; what is not given stays as in ``base``.

    A ``recipe`` and a ``protocol`` stand for the values that they imply; keys beside them win. Nothing is opened: what
    weights in ``init_from`` decide is filled in by `networks.complete`.

    Raises:
        InputError: an unknown key, with the nearest match; a value of the wrong type or out of its range; or one that
            contradicts the recipe or the protocol.
    """
    base = base or RunConfig()
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    config = _from_flat({**implied(given, base.origin, where), **values}, base, where)
    check_origin(config.origin, flat_values(config))
    return config


def _from_flat(values: Mapping[str, Any], base: RunConfig, where: str) -> RunConfig:
    """A configuration from the flat keys themselves."""
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
_NETWORKS = ("model", "init_from", "helper")


def trusted(make: FromMapping) -> FromMapping:
    """``make`` for the keys of a file from which a run is to be made: it may not name code to run."""

    def checked(values: Mapping[str, Any], base: RunConfig | None, where: str) -> RunConfig:
        for name in _named(values):
            check_from_file(name, where)
        return make(values, base, where)

    return checked


def check_trusted(config: RunConfig, path: str | Path) -> None:
    """Refuse to make a run again from its recorded configuration if that names code to run which is not trusted.

    Raises:
        InputError: it does.
    """
    for name in _named(flat_values(config)):
        check_from_file(name, path)


def needs_trust(config: RunConfig) -> bool:
    """Whether the run can only be made or opened with ``--allow-code``, since its configuration names code to run."""
    return any(map(names_code, _named(flat_values(config))))


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    """The names of networks among the keys; what is in the file of a path is checked when that is opened."""
    for key, value in values.items():
        if str(key).replace("-", "_") in _NETWORKS and isinstance(value, str) and not Path(value).exists():
            yield value


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
        InputError: the file is missing, is no mapping, or holds unknown keys, bad values, an unknown defence, or names
            code that is not trusted.
    """
    text = read_yaml(path)
    config = trusted(make)(parse_mapping(text, path), base, str(path))
    defenses.find(config.defense.defense)
    _check_folder(config, Path(path), text)
    return config


def write_config(config: RunConfig) -> str:
    """The configuration as YAML that `read_config` reads back to the same."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def write_run_config(path: str | Path, config: RunConfig) -> None:
    """Write a run folder's configuration, with a checksum in the first line."""
    text = write_config(config)
    write_text(path, f"{_CHECKED}{checksum(text)}\n{text}")


def read_run_config(path: str | Path) -> RunConfig:
    """Read the configuration of a run folder; the package that provides its defence need not be installed.

    Raises:
        Damaged: the file, or the name of its folder, is not as it was written.
        InputError: as `read_config`.
    """
    text = read_yaml(path)
    first, _, rest = text.partition("\n")
    if first.startswith(_CHECKED):
        compare_checksums(path, checksum(rest), first.removeprefix(_CHECKED), _MEND)
    values = parse_mapping(text, path)
    try:
        config = _from_flat(values, RunConfig(), str(path))  # with the values of a recipe as it was then
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    _check_folder(config, Path(path), text)
    return config


def _check_folder(config: RunConfig, path: Path, text: str) -> None:
    """Compare the configuration with the hash in the name of its folder, if that is a run folder with its own name.

    One with its checksum is as it was written, whatever its folder is called.
    """
    folder = path.resolve().parent.name
    first, _, rest = text.partition("\n")
    if path.name != "config.yaml" or not _RUN_NAME.search(folder) or first == f"{_CHECKED}{checksum(rest)}":
        return
    if not config.may_be_called(folder):
        raise Damaged(
            f"{path}: damaged or edited: a folder of this configuration is called {config.name}, not {folder}; {_MEND}"
        )
