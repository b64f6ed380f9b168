"""The attacks by name. No PyTorch here: a list of them is read from the source."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustmaps.engine.errors import InputError
from robustmaps.engine.registry import Registry, check_taken

if TYPE_CHECKING:
    from robustmaps.attacks._base import Attack

GRADIENT = 2.0
"""Forward passes that the gradient of an input is worth."""


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """What is known of an attack beside its class: as ``ROW``, or several as ``ROWS``, in the same module.

    Attributes:
        name: the name on the command line, which evaluations record.
        title: its name in reports, as papers write it; the name itself if empty.
        summary: what it is, in a line; with the paper.
        kind: its class.
        create: makes it for an evaluation, from ``norm``, ``eps`` and those of its parameters that are given; the
            class itself if left out.
        parameters: what each option that it takes means, beside ``norm`` and ``eps``.
        preset_of: the name of the attack of which this is a preset; empty for attacks of their own. Evaluations
            record the attack itself, so that a preset and the same options by hand are one evaluation.
        preset: the options that the preset decides.
        passes: forward passes at most that it makes for an image, a gradient being worth two; None where that is not
            known.
    """

    name: str
    summary: str
    kind: type[Any]
    create: Callable[..., "Attack"] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    preset_of: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    passes: Callable[[Any], float | None] = lambda attack: None  # noqa: ARG005


_REGISTRY = Registry("robustmaps.attacks", "attack", AttackRow)
register, listed = _REGISTRY.register, _REGISTRY.listed


def check_parameters(names: Iterable[str], given: Mapping[str, object]) -> None:
    """Refuse options that none of some attacks takes; imports none of them.

    Raises:
        InputError: an unknown attack, or an option without effect.
    """
    rows = [_REGISTRY.find(name) for name in names]
    for row in rows:
        decided: Mapping[str, Any] = row.values.get("preset") or {}
        for key in given.keys() & decided.keys():
            if not any(key in other.parameters for other in rows):
                fixed = ", ".join(f"{name}={value}" for name, value in decided.items())
                base = row.values["preset_of"]
                raise InputError(
                    f"{key}={given[key]!r}: {row.name} is {base} with {fixed}; leave it out, or use {base} instead"
                )
    check_taken(rows, given, ("norm", "eps"), lambda: {name: row.parameters for name, row in listed().items()})


def create(name: str, norm: str, eps: float, **parameters: Any) -> "Attack":
    """The attack of that name, as it is made for an evaluation.

    Args:
        name: see `listed`.
        norm: the norm of the budget.
        eps: its radius.
        parameters: some of those that its row lists.

    Raises:
        InputError: an unknown attack, a parameter that it does not take, or a value out of its range.
    """
    check_parameters([name], parameters)
    row = _REGISTRY.row(name)
    base = _REGISTRY.row(row.preset_of) if row.preset_of else row
    return (base.create or base.kind)(norm=norm, eps=eps, **row.preset, **parameters)


def from_settings(settings: Mapping[str, Any]) -> "Attack":
    """The attack whose name and fields an evaluation recorded.

    Raises:
        InputError: an unknown attack, or fields that its class does not have.
    """
    fields = {name: value for name, value in settings.items() if name != "name"}
    try:
        attack: Attack = _REGISTRY.row(str(settings["name"])).kind(**fields)
    except (KeyError, TypeError) as error:
        raise InputError(f"attack {dict(settings)}: can't be made from these settings ({error})") from error
    return attack


def called(settings: Mapping[str, Any]) -> str:
    """The name of an attack whose settings an evaluation recorded: that of its preset, if it has the values of one."""
    for name, row in listed(warn=False).items():
        preset: Mapping[str, Any] = row.values.get("preset") or {}
        if preset and row.values["preset_of"] == settings["name"]:
            given = {**settings, "relative_step": _relative_step(settings)}
            if all(given.get(key) == value for key, value in preset.items()):
                return name
    return str(settings["name"])


def _relative_step(settings: Mapping[str, Any]) -> float | None:
    size, relative = settings.get("step_size"), settings.get("relative_step")
    return float(size / settings["eps"]) if relative is None and size is not None else relative


def title_of(name: str) -> str:
    """The name of an attack as papers write it, such as ``AutoAttack``; the name itself of one that is not known."""
    row = listed(warn=False).get(name)
    return name if row is None else str(row.values.get("title") or name)


def takes(name: str) -> frozenset[str]:
    """The parameters of the attack of that name, beside ``norm`` and ``eps``.

    Raises:
        InputError: an unknown attack.
    """
    return frozenset(_REGISTRY.find(name).parameters)


def passes(attack: "Attack") -> float | None:
    """Forward passes at most that an attack makes for an image; None where that is not known."""
    try:
        row = _REGISTRY.row(attack.name)
    except InputError:
        return None
    return row.passes(attack) if isinstance(attack, row.kind) else None
