"""The configuration of a run: one flat set of keys, the same on the command line and in YAML. No PyTorch here."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from robustmaps import defenses
from robustmaps.config._data import DataConfig
from robustmaps.config._defense import DefenseConfig
from robustmaps.config._flat_keys import (
    flat_values,
    parse_mapping,
    read_yaml,
    section_from_mapping,
    to_mapping,
)
from robustmaps.config._model import ModelConfig
from robustmaps.config._origin import OriginConfig, check_origin, implied
from robustmaps.engine.checked import Damaged, checksum, compare_checksums
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import short_hash, write_text
from robustmaps.engine.trust import check_from_file, names_code
from robustmaps.training import INCIDENTAL, TrainOptions

# How `RunConfig.name` ends.
_RUN_NAME = re.compile(r"-seed\d+-[0-9a-f]{8}$")
_CHECKED = "# not to be edited: another configuration is another run; "
_OF = "# of "
_MEND = "restore it from a copy, or train another configuration in a folder of its own"


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
        self.training.check()

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
            *([] if model.enlarge_at is None else [f"late{model.enlarge_at.replace(',', '-')}"]),
            *(["tuned"] if model.begins_with_weights else []),
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
        incidental = INCIDENTAL | ({"init_from", "weights"} if self.model.init_sha256 else frozenset())
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


def check_images_named(config: RunConfig, given: Collection[str]) -> None:
    """Refuse a network that is not ours with the default images, which nobody asked for.

    Args:
        config: the configuration.
        given: the keys that somebody wrote.

    Raises:
        InputError: no images were named.
    """
    named = {"data", "init_from"} & set(given) or config.origin.recipe is not None
    if ":" in config.model.model and config.data.data == DataConfig.data and not named:
        raise images_needed(config.model.model)


def images_needed(model: str) -> InputError:
    """The error for a network that is not ours, where no images are named or known."""
    return InputError(f"data: needed for {model}, such as --data photos, a folder with one folder per class")


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
        InputError: the file is missing, is no mapping, or holds unknown keys, bad values, an unknown defence or logger,
            or names code that is not trusted.
    """
    text = read_yaml(path)
    config = trusted(make)(parse_mapping(text, path), base, str(path))
    defenses.find(config.defense.defense)
    config.training.check()
    _check_folder(config, Path(path), text)
    return config


def write_config(config: RunConfig) -> str:
    """The configuration as YAML that `read_config` reads back to the same."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def write_run_config(path: str | Path, config: RunConfig) -> None:
    """Write a run folder's configuration, with a checksum in the first line and the folder's name in the second."""
    text = f"{_OF}{Path(path).resolve().parent.name}\n{write_config(config)}"
    write_text(path, f"{_CHECKED}{checksum(text)}\n{text}")


def read_run_config(path: str | Path) -> RunConfig:
    """Read the configuration of a run folder; those that provide its defence and its loggers need not be installed.

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
    """Compare the configuration with the name of its folder, if that is a run folder with a name of ours.

    One with its checksum is as it was written, whatever hash its folder's name ends with: a later version may hash
    otherwise. But it says in which folder it was written, and data, network, defence and seed in the folder's name are
    those of the run that the folder was made for.
    """
    folder = path.resolve().parent.name
    if path.name != "config.yaml" or not _RUN_NAME.search(folder):
        return
    first, _, rest = text.partition("\n")
    if first == f"{_CHECKED}{checksum(rest)}":
        written_in = rest.partition("\n")[0].removeprefix(_OF) if rest.startswith(_OF) else folder
        moved = written_in != folder and _RUN_NAME.search(written_in)
        alike = folder.rpartition("-")[0] == config.name.rpartition("-")[0]
        if (moved or not alike) and not config.may_be_called(folder):
            raise Damaged(
                f"{path}: the configuration of another run, {written_in if moved else config.name}, in the folder of "
                f"{folder}; put the files of each run back into its own folder"
            )
        return
    if not config.may_be_called(folder):
        raise Damaged(
            f"{path}: damaged or edited: a folder of this configuration is called {config.name}, not {folder}; {_MEND}"
        )
