"""A study: which runs and evaluations a YAML file asks for. No PyTorch here."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from robustmaps import defenses
from robustmaps.config._attack import AttackConfig
from robustmaps.config._flat_keys import parse_mapping, read_mapping, read_yaml, section_from_mapping, to_mapping
from robustmaps.config._recipes import differing
from robustmaps.config._run import FromMapping, RunConfig, check_images_named, field_names, from_mapping, trusted
from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import counted
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json

STUDY = "study.json"
"""The file in a study's folder that lists its runs."""
_MEND = "sweep the study again to write it again"
Split = Literal["test", "validation", "train"]
"""A split of a data set; figures on training images are no measure of new ones."""
_KEYS = ("axes", "fixed", "exclude", "evaluation")


@dataclass(frozen=True)
class EvaluationConfig:
    """One evaluation of every run of a study.

    Attributes:
        attack: what to attack with.
        samples: how many images, drawn evenly from the classes; all where None.
        split: which images.
        each: attack all images with each attack by itself, too, and take the worst case.
        consistent: attack misclassified images too, for the consistent accuracy.
        attack_seed: of the attack's random draws.
        weights: which of a run's weights: best, best-clean or last.
        batch_size: images at once. It has one value for all, since the figures depend on it.
    """

    attack: AttackConfig = field(default_factory=AttackConfig)
    samples: int | None = None
    split: Split = "test"
    attack_seed: int = 0
    batch_size: int = 256
    each: bool = False
    consistent: bool = False
    weights: Literal["best", "best-clean", "last"] = "best"

    def to_dict(self) -> dict[str, Any]:
        """Flat keys and plain values."""
        flat = asdict(self)
        return {**flat.pop("attack"), **flat}


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Attributes:
        config: what is run.
        values: the value of each axis' keys, as written in the study.
    """

    config: RunConfig
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """What a study file asks for.

    Attributes:
        name: the file's name without its ending.
        text: the file.
        keys: configuration keys that differ between runs, in the order of the file.
        points: the runs, each once.
        evaluations: of each run.
        notes: what the reader has to know.
    """

    name: str
    text: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    evaluations: tuple[EvaluationConfig, ...]
    notes: tuple[str, ...] = ()


def read_study(path: str | Path, make: FromMapping = from_mapping) -> Study:
    """Read a study.

    .. code-block:: yaml

        axes:                     # every combination is a run
          defense: [standard, at]
          network: [{strides: 122}, {strides: 112}, {upsample: 2}]    # keys that go together; recipe can be one
          seed: [0, 1, 2]
        fixed: {data: digits, eps: 0.15, epochs: 10}
        exclude:
          - {defense: standard, upsample: 2}
        evaluation:               # one, or a list
          {attack: pgd, steps: 20, samples: 500}

    Raises:
        InputError: the file can't be read, holds unknown keys, bad values, a key twice or no runs, or names code that
            is not trusted.
    """
    file = Path(path)
    text = read_yaml(file)
    return make_study(parse_mapping(text, file), file, text, trusted(make))


def make_study(
    values: Mapping[Any, Any], file: Path, text: str | None = None, make: FromMapping = from_mapping
) -> Study:
    """A study from what a file holds.

    Args:
        values: the parts of a study and what stands under them.
        file: for the study's name and for messages.
        text: the file; made from the values where None.
        make: what makes a configuration of flat keys.

    Raises:
        InputError: as `read_study`.
    """
    for key in values:
        if key not in _KEYS:
            raise unknown(f"key in {file}", key, _KEYS)
    axes = _axes(values.get("axes") or {}, file)
    fixed = _mapping(values.get("fixed") or {}, f"{file}: fixed")
    keys = tuple(dict.fromkeys(key for options in axes for option in options for key in option))
    twice = [key for key in keys if key in fixed or sum(any(key in o for o in options) for options in axes) > 1]
    if twice:
        raise InputError(f"{file}: {', '.join(twice)} given twice; a key belongs to one axis, or to fixed")
    exclusions = [_exclusion(*entry) for entry in _entries(values, "exclude", file)]
    evaluations = tuple(_evaluation(*entry) for entry in _entries(values, "evaluation", file))
    notes: list[str] = []
    points = _points(axes, fixed, exclusions, file, notes, make)
    _check_options(points, file)
    if not points:
        raise InputError(f"{file}: every combination is excluded; nothing is left to run")
    text = yaml.safe_dump(values, sort_keys=False) if text is None else text
    return Study(file.stem, text, keys, points, evaluations or (EvaluationConfig(AttackConfig("a3")),), tuple(notes))


def _points(
    axes: list[list[dict[str, Any]]],
    fixed: dict[str, Any],
    exclusions: list["_Exclusion"],
    file: Path,
    notes: list[str],
    make: FromMapping,
) -> tuple[Point, ...]:
    make(fixed, None, f"{file}: fixed")
    used = [False] * len(exclusions)
    points: dict[str, Point] = {}
    excluded = double = 0
    for combination in product(*axes):
        values = {key: value for option in combination for key, value in option.items()}
        shown = ", ".join(f"{key}: {value}" for key, value in values.items())
        # Both at once: what is fixed overrides a recipe among the axes.
        given = {**fixed, **values}
        config = make(given, None, f"{file}: axes ({shown})")
        check_images_named(config, given)
        matching = [index for index, exclusion in enumerate(exclusions) if exclusion.matches(config)]
        for index in matching:
            used[index] = True
        if matching:
            excluded += 1
        elif config.hash in points:
            double += 1
        else:
            points[config.hash] = Point(config, values)
    if excluded:
        notes.append(f"{counted(excluded, 'combination')} excluded")
    if changed := [each for point in points.values() if (each := differing(point.config))]:
        keys = ", ".join({key: None for each in changed for key in each})
        notes.append(f"{counted(len(changed), 'run')} not as in their recipes any more: other {keys}")
    if double:
        notes.append(f"{counted(double, 'combination')} left out: the same run as another")
    notes += [f"exclude: {one.text} matches no combination" for one, u in zip(exclusions, used, strict=True) if not u]
    return tuple(points.values())


def _check_options(points: tuple[Point, ...], file: Path) -> None:
    """Refuse options of defences that none of the runs takes; one that some take may be there for all."""
    defended = {point.config.defense: None for point in points}
    for defense in defended:
        defenses.find(defense.defense)
    for key in {key: None for defense in defended for key in defense.given}:
        having = [defense for defense in defended if key in defense.given]
        if not any(key in defenses.find(defense.defense).parameters for defense in having):
            try:
                defenses.check_parameters(having[0].defense, {key: having[0].given[key]})
            except InputError as error:
                raise InputError(f"{file}: {error}") from error


def _axes(values: Any, file: Path) -> list[list[dict[str, Any]]]:
    """Each axis as a list of the keys and values that it sets."""
    axes = []
    for name, options in _mapping(values, f"{file}: axes").items():
        if not isinstance(options, list) or not options:
            raise InputError(f"{file}: axes: {name}: expected a list of values, such as [0, 1, 2]")
        coupled = [isinstance(option, dict) for option in options]
        if all(coupled):
            axes.append([_mapping(option, f"{file}: axes: {name}") for option in options])
            for option in axes[-1]:
                _known(option, f"{file}: axes: {name}")
        elif any(coupled):
            raise InputError(f"{file}: axes: {name}: expected values of one kind, all plain or all with keys")
        else:
            axes.append([{_plain(name): option} for option in options])
            _known(axes[-1][0], f"{file}: axes")
    return axes


@dataclass(frozen=True)
class _Exclusion:
    """Runs that agree with all of ``accepted``; per key the configurations' values that count."""

    text: str
    accepted: Mapping[str, list[Any]]

    def matches(self, config: RunConfig) -> bool:
        flat = to_mapping(config)
        return all(flat[key] in options for key, options in self.accepted.items())


def _exclusion(entry: Any, where: str) -> _Exclusion:
    given = _mapping(entry, where)
    _known(given, where)
    accepted = {}
    for key, value in given.items():
        options = value if isinstance(value, list) else [value]
        # As the configuration would hold them: 1122 is text there, 8/255 a number.
        accepted[key] = [to_mapping(from_mapping({key: option}, where=where))[key] for option in options]
    return _Exclusion(str(given), accepted)


def _evaluation(entry: Any, where: str) -> EvaluationConfig:
    given = _mapping(entry, where)
    ours = [item.name for item in fields(EvaluationConfig) if item.name != "attack"]
    names = [item.name for item in fields(AttackConfig)]
    for key in given:
        if key not in (*names, *ours):
            raise unknown(f"key in {where}", key, [*names, *ours])
    attack = section_from_mapping(AttackConfig(), {k: v for k, v in given.items() if k in names}, where)
    rest: EvaluationConfig = section_from_mapping(
        EvaluationConfig(), {k: v for k, v in given.items() if k in ours}, where
    )
    for name in ("samples", "batch_size"):
        value = getattr(rest, name)
        if value is not None and value < 1:
            raise InputError(f"{where}: {name}={value}: expected at least 1")
    try:
        attack.check()
        if rest.each:
            attack.columns()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return replace(rest, attack=attack)


def _entries(values: Mapping[Any, Any], key: str, file: Path) -> Iterator[tuple[Any, str]]:
    """What stands under the key, one or a list, each with where it stands."""
    value = values.get(key)
    if value is None:
        return
    if not isinstance(value, dict | list):
        raise InputError(f"{file}: {key}: expected keys and values, or a list of them")
    for entry in value if isinstance(value, list) else [value]:
        yield entry, f"{file}: {key}"


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected keys and values, not {value!r}")
    return {_plain(key): each for key, each in value.items()}


def _plain(key: Any) -> str:
    return str(key).replace("-", "_")


def _known(given: Mapping[str, Any], where: str) -> None:
    names = field_names()
    for key in given:
        if key not in names:
            raise unknown(f"key in {where}", key, names)


@dataclass(frozen=True)
class _ListedRun:
    """A run in the list of a study."""

    folder: str


@dataclass(frozen=True)
class _Listed:
    """What is read of a study's record."""

    runs: tuple[_ListedRun, ...]


def asked_for(folder: Path) -> set[str] | None:
    """The run folders that the study in a folder lists, None where there is no study.

    Raises:
        InputError: the list is damaged.
    """
    try:
        return {run.folder for run in declared(_Listed, read_json(folder / STUDY, _MEND)).runs}
    except OSError:
        return None
    except Damaged:
        raise
    except InputError as error:
        raise InputError(f"{folder / STUDY}: not the list of a study ({error}); {_MEND}") from error


def study_text(folder: Path) -> str | None:
    """The file of the study in a folder, None where there is none.

    Raises:
        InputError: it is not the study of which `study_record` was written beside it.
    """
    path = folder / "study.yaml"
    if not path.is_file():
        return None
    values = read_mapping(path)
    try:
        written = read_json(folder / STUDY, _MEND).get("study")
    except OSError:
        return read_yaml(path)
    if written is not None and json.loads(json.dumps(values)) != written:  # as JSON keeps them: its keys are texts
        raise Damaged(f"{path}: damaged or edited: another study than in {folder / STUDY}; {_MEND}")
    return read_yaml(path)


def study_record(study: Study, folders: Mapping[str, str]) -> dict[str, Any]:
    """For ``study.json`` in the study's folder, from which alone it can be reported.

    Args:
        study: what is run.
        folders: by a configuration's hash the name of its run folder.
    """
    return {
        "format": 1,
        "name": study.name,
        "keys": list(study.keys),
        "evaluations": [evaluation.to_dict() for evaluation in study.evaluations],
        "runs": [{"folder": folders[point.config.hash], "values": dict(point.values)} for point in study.points],
        "study": yaml.safe_load(study.text),
    }
