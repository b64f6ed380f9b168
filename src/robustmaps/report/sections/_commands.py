"""The commands that repeat runs and evaluations."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from robustmaps.attacks import listed, takes
from robustmaps.config import AttackConfig, needs_trust
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.engine.registry import written
from robustmaps.engine.text import shell
from robustmaps.evaluation import ALONE, Evaluation, attack_settings
from robustmaps.runs import RunRecord, create_attacks

# None is the standard one.
_VERSIONS = (None, *get_args(get_args(get_type_hints(AttackConfig)["version"])[0]))
AGAIN = Path("again")
"""The folder for repeated runs, separate from the existing ones."""


def permission(*runs: RunRecord) -> list[str]:
    """The option that a command needs if the networks of these runs are made by code that their files name."""
    return ["--allow-code"] if any(needs_trust(run.config) for run in runs) else []


def repeat_commands(folder: Path, runs: Sequence[RunRecord], evaluations: Sequence[Evaluation | None]) -> list[str]:
    """The commands that train runs again, evaluate them in the same way, and write the report.

    Args:
        folder: the folder of the report's runs.
        runs: some of the runs in it.
        evaluations: per run the reported evaluation.
    """
    lines = []
    for run, evaluation in zip(runs, evaluations, strict=True):
        lines.append(
            shell("robustmaps", "train", "--config", run.folder / "config.yaml", "--out", AGAIN, *permission(run))
        )
        if evaluation is not None:
            # Training names the folder after the configuration, whatever its name here.
            lines.append(evaluate_command(AGAIN / run.config.name, run, evaluation))
    plan = folder / "study.yaml"
    if plan.is_file():
        lines.append("# or the whole study:")
        lines.append(shell("robustmaps", "sweep", plan, "--out", AGAIN, *permission(*runs)))
    return [*lines, shell("robustmaps", "report", AGAIN, *permission(*runs))]


def evaluate_command(folder: Path, run: RunRecord, evaluation: Evaluation) -> str:
    """The command that evaluates the network of a run, made again in ``folder``, in the same way."""
    attack = _attack_options(evaluation)
    if attack is None:  # made from Python or by another version
        return "# The command line has no options for this evaluation; its settings are below."
    options = ["--norm", evaluation.norm, "--eps", _exact(evaluation.eps), *attack]
    if evaluation.split not in (None, "test"):
        options += ["--split", str(evaluation.split)]
    if evaluation.weights is not None:
        options += ["--weights", evaluation.weights]
    if evaluation.misclassified is not None:
        options.append("--consistent")
    options += [
        "--samples",
        str(len(evaluation.verdicts)),
        *(["--seed", str(evaluation.seed)] * (evaluation.seed != 0)),
    ]
    return shell("robustmaps", "evaluate", folder, *options, *permission(run))


def attack_label(evaluation: Evaluation) -> str:
    """The attacks of an evaluation in a few words, as on the command line."""
    options = _attack_options(evaluation)
    words = " + ".join(str(attack["name"]) for attack in evaluation.attacks)
    if options is not None:
        given = [option.removeprefix("--") for option in options[2:] if option not in ("--each", "--attack-parameters")]
        words = options[1].replace(",", ", ") + (f" ({' '.join(given)})" if given else "")
    alone = any(ALONE in attack for attack in evaluation.attacks)
    words = f"worst case of {words}" if alone else words
    return words if evaluation.weights is None else f"{words}, {evaluation.weights} weights"


def _attack_options(evaluation: Evaluation) -> list[str] | None:
    """The options for exactly these attacks; None if there are none."""
    expected = [dict(attack) for attack in evaluation.attacks]
    marks = {name: [attack.pop(name, False) for attack in expected] for name in ("eight_bit", ALONE)}
    try:
        found = next(_matching(expected, evaluation), None)
        if found is None:
            return None
        return [*found, *(["--eight-bit"] * any(marks["eight_bit"])), *(["--each"] * any(marks[ALONE]))]
    except Exception:  # noqa: BLE001 - an attack that is not installed here, or settings that none has
        return None


def _matching(expected: list[dict[str, Any]], evaluation: Evaluation) -> Iterator[list[str]]:
    for config in _candidates(expected, evaluation):
        if _settings_of(config, evaluation) == expected:
            yield _as_options(config)


def _settings_of(config: AttackConfig, evaluation: Evaluation) -> list[dict[str, Any]] | None:
    """What an evaluation records of a configuration's attacks; None where they can't be made."""
    try:
        return attack_settings(create_attacks(config, evaluation.norm, evaluation.eps))
    except (InputError, ImportError):
        return None


def _whole(evaluation: Evaluation) -> Iterator[tuple[AttackConfig, list[dict[str, Any]]]]:
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
            if (settings := _settings_of(config, evaluation)) is not None:
                yield config, settings


def _candidates(attacks: Sequence[dict[str, Any]], evaluation: Evaluation) -> Iterator[AttackConfig]:
    """Possible configurations of some attacks."""
    whole = list(_whole(evaluation))
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
    for attack in attacks:
        recorded = {**attack, **attack.get("options", {})}
        for key in (name for name in recorded if name in takes(attack["name"]) and recorded[name] is not None):
            if apart:
                further[f"{attack['name']}.{key}"] = recorded[key]
            else:
                (settings if key in options else further)[key] = recorded[key]
    return AttackConfig(
        ",".join(str(attack["name"]) for attack in attacks),
        **settings,
        attack_parameters=",".join(f"{key}={written(value)}" for key, value in further.items()) or None,
    )


def _as_options(config: AttackConfig) -> list[str]:
    """The options that differ from their defaults, and always the attack."""
    usual, options = AttackConfig(), ["--attack", config.attack]
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name == "attack" or value == getattr(usual, item.name):
            continue
        name = f"--{item.name.replace('_', '-')}"
        options += [name] if value is True else [name, _exact(value) if isinstance(value, float) else str(value)]
    return options


def _exact(number: float) -> str:
    fraction = as_fraction(number)
    return fraction if parse_number(fraction) == number else repr(number)
