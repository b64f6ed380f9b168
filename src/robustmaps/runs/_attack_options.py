"""Attacks that evaluations recorded, as options of the command line and as labels: one spelling for the same values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from robustmaps.attacks import called, listed, takes, title_of
from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import exact
from robustmaps.engine.registry import written
from robustmaps.evaluation import ALONE, Evaluation, attack_settings
from robustmaps.runs._attacks import create_attacks, same_values

# None is the standard one.
_VERSIONS = (None, *get_args(get_args(get_type_hints(AttackConfig)["version"])[0]))
_MARKS = ("eight_bit", ALONE)
_Budget = tuple[str, float]
"""Norm and radius."""


def attack_options(evaluation: Evaluation) -> list[str] | None:
    """The options of `robustmaps evaluate` for exactly the attacks of an evaluation; None if there are none."""
    config, marks = _found(evaluation.norm, evaluation.eps, json.dumps([dict(each) for each in evaluation.attacks]))
    return None if config is None else [*words_of(config, eight_bit=marks[0]), *(["--each"] * marks[1])]


def words_of(config: AttackConfig, *, eight_bit: bool = False) -> list[str]:
    """The options of `robustmaps evaluate` for a configuration's attacks, but for norm and radius."""
    given = ((name, value) for name, value in _given(config) if name not in ("eps", "norm"))
    options = [word for name, value in given for word in ([f"--{name}", value] if value else [f"--{name}"])]
    return ["--attack", config.attack, *options, *(["--eight-bit"] * eight_bit)]


def attack_label(norm: str, eps: float, attacks: str, *, titled: bool = False) -> str:
    """Attacks in a few words, as on the command line: ``worst case of pgd-20 + autoattack (version=plus)``.

    Args:
        norm: the norm of their budget.
        eps: its radius.
        attacks: their recorded settings, as JSON.
        titled: write their names as papers do: ``worst case of PGD-20 + AutoAttack (version=plus)``.
    """
    name_of = title_of if titled else str
    config, (eight_bit, alone) = _found(norm, eps, attacks)
    each = [name_of(called(attack)) for attack in json.loads(attacks)]
    if config is not None:
        each = [_with_options(name_of(name), config.parameters(name)) for name in config.names]
    words = " + ".join(each) + " (eight-bit)" * eight_bit
    return f"worst case of {words}" if alone else words


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    given = [
        key if value is True else f"{key}={exact(value) if isinstance(value, float) else written(value)}"
        for key, value in options.items()
    ]
    return f"{name} ({', '.join(given)})" if given else name


@lru_cache(maxsize=1024)
def _found(norm: str, eps: float, attacks: str) -> tuple[AttackConfig | None, tuple[bool, bool]]:
    """The configuration that makes exactly these attacks, if any, and whether they have each of the marks."""
    expected: list[dict[str, Any]] = json.loads(attacks)
    marks = [any(attack.get(name) for attack in expected) for name in _MARKS]
    expected = [{key: value for key, value in attack.items() if key not in _MARKS} for attack in expected]
    try:
        matching = _matching(expected, (norm, eps))
        config = min(matching, key=lambda one: (len(one.names), len(list(_given(one)))), default=None)
    except Exception:  # noqa: BLE001 - an attack that is not installed here, or settings that none has
        config = None
    return config, (marks[0], marks[1])


def _matching(expected: list[dict[str, Any]], budget: _Budget) -> Iterator[AttackConfig]:
    wanted = same_values(expected)
    for config in _candidates(wanted, budget):
        if _settings_of(config, budget) == wanted:
            yield _shortest(config, budget)


def _shortest(config: AttackConfig, budget: _Budget) -> AttackConfig:
    """The same without options that hold anyway."""
    for item in fields(config):
        less = replace(config, **{item.name: getattr(AttackConfig(), item.name)})
        if item.name != "attack" and less != config and _settings_of(less, budget) == _settings_of(config, budget):
            config = less
    return config


def _settings_of(config: AttackConfig, budget: _Budget) -> list[dict[str, Any]] | None:
    """What an evaluation records of a configuration's attacks; None where they can't be made."""
    try:
        return same_values(attack_settings(create_attacks(config, *budget)))
    except (InputError, ImportError):
        return None


def _whole(budget: _Budget) -> Iterator[tuple[AttackConfig, list[dict[str, Any]]]]:
    """Attacks that have a name for several settings, or for several attacks, and what they record."""
    for name, row in listed(warn=False).items():
        configs = [AttackConfig(name)] if row.values.get("preset_of") else []
        if "version" in row.parameters:
            configs += [
                AttackConfig(name, version=version, exhaustive=exhaustive)
                for version in _VERSIONS
                for exhaustive in (False, True)
            ]
        for config in configs:
            if (settings := _settings_of(config, budget)) is not None:
                yield config, settings


def _candidates(attacks: Sequence[dict[str, Any]], budget: _Budget) -> Iterator[AttackConfig]:
    """Possible configurations of some attacks."""
    whole = list(_whole(budget))
    yield from (config for config, _ in whole)
    yield (plain := _by_name(attacks, apart=False))
    yield replace(plain, exhaustive=True)
    yield (parts := _in_parts(attacks, whole))
    yield replace(parts, exhaustive=True)


def _in_parts(
    attacks: Sequence[dict[str, Any]], whole: Sequence[tuple[AttackConfig, list[dict[str, Any]]]]
) -> AttackConfig:
    """Attacks one after the other, of which some have a name for several."""
    names, further, at = [], {}, 0
    while at < len(attacks):
        found = next(((config, made) for config, made in whole if list(attacks[at : at + len(made)]) == made), None)
        if found is None:
            config, length = _by_name(attacks[at : at + 1], apart=True), 1
            further.update(config.own)
        else:
            config, length = found[0], len(found[1])
            further.update({f"{config.attack}.{key}": value for key, value in config.given.items()})
        names.append(config.attack)
        at += length
    parameters = ",".join(f"{key}={written(value)}" for key, value in further.items()) or None
    return AttackConfig(",".join(names), attack_parameters=parameters)


def _by_name(attacks: Sequence[dict[str, Any]], *, apart: bool) -> AttackConfig:
    """Attacks with the options that they recorded, which each may have ``apart``."""
    options = {item.name for item in fields(AttackConfig)}
    settings: dict[str, Any] = {}
    further: dict[str, Any] = {}
    names = [called(attack) for attack in attacks]
    for attack, name in zip(attacks, names, strict=True):
        recorded = {**attack, **attack.get("options", {})}
        for key in (each for each in recorded if each in takes(name) and recorded[each] is not None):
            if apart:
                further[f"{name}.{key}"] = recorded[key]
            else:
                (settings if key in options else further)[key] = recorded[key]
    return AttackConfig(
        ",".join(names),
        **settings,
        attack_parameters=",".join(f"{key}={written(value)}" for key, value in further.items()) or None,
    )


def _given(config: AttackConfig) -> Iterator[tuple[str, str]]:
    """The options that differ from their defaults, with their values; a flag has none."""
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name != "attack" and value != getattr(AttackConfig(), item.name):
            text = "" if value is True else exact(value) if isinstance(value, float) else str(value)
            yield item.name.replace("_", "-"), text
