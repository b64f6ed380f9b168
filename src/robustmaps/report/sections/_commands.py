"""The commands that repeat runs and evaluations."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from robustmaps.attacks import listed, takes
from robustmaps.config import AttackConfig, needs_trust
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.engine.text import shell
from robustmaps.evaluation import Evaluation, attack_settings
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
    if evaluation.split == "validation":
        options += ["--split", "validation"]
    options += [
        "--samples",
        str(len(evaluation.verdicts)),
        *(["--seed", str(evaluation.seed)] * (evaluation.seed != 0)),
    ]
    return shell("robustmaps", "evaluate", folder, *options, *permission(run))


def _attack_options(evaluation: Evaluation) -> list[str] | None:
    """The options for exactly these attacks; None if there are none."""
    expected = [dict(attack) for attack in evaluation.attacks]
    rounded = [attack.pop("eight_bit", False) for attack in expected]
    try:
        found = next(_matching(expected, evaluation), None)
        return None if found is None else [*found, *(["--eight-bit"] if any(rounded) else [])]
    except Exception:  # noqa: BLE001 - an attack that is not installed here, or settings that none has
        return None


def _matching(expected: list[dict[str, Any]], evaluation: Evaluation) -> Iterator[list[str]]:
    for config in _candidates(expected):
        try:
            made = attack_settings(create_attacks(config, evaluation.norm, evaluation.eps))
        except (InputError, ImportError):
            continue
        if list(made) == expected:
            yield _as_options(config)


def _candidates(attacks: Sequence[dict[str, Any]]) -> Iterator[AttackConfig]:
    """Possible configurations of some attacks: one that combines several, or the attacks by name."""
    for name, row in listed(warn=False).items():
        for version in _VERSIONS if "version" in row.parameters else ():
            for exhaustive in (False, True):
                yield AttackConfig(name, version=version, exhaustive=exhaustive)
    options = {item.name for item in fields(AttackConfig)}
    settings: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for attack in attacks:
        for key in takes(attack["name"]) & set(attack):
            if attack[key] is not None:
                (settings if key in options else further)[key] = attack[key]
    named = AttackConfig(
        ",".join(str(attack["name"]) for attack in attacks),
        **settings,
        attack_parameters=",".join(f"{key}={value}" for key, value in further.items()) or None,
    )
    yield named
    yield replace(named, exhaustive=True)


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
