"""The defences by name. No PyTorch here: a list of them is read from the source."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from robustmaps.engine.errors import InputError
from robustmaps.engine.registry import Listed, Registry, check_taken

if TYPE_CHECKING:
    from robustmaps.attacks import Attack
    from robustmaps.defenses._base import Defense

_OF_THE_ATTACK = ("steps", "step_size")


@dataclass(frozen=True, kw_only=True)
class DefenseRow:
    """What is known of a defence beside its class: as ``ROW``, or several as ``ROWS``, in the same module.

    What it costs is counted in real steps, and need not be written down.

    Attributes:
        name: the name on the command line.
        summary: what it is, in a line; with the paper.
        kind: its class, which takes ``attack``, where there is one, and its parameters by name.
        attack: makes the attack that it trains against, from ``norm``, ``eps`` and, where they are parameters,
            ``steps`` and ``step_size``; None for training without one.
        parameters: what each option that it takes means, beside ``norm`` and ``eps``.
        fixed_steps: the attack's number of steps where it is no parameter.
        networks: parameters that are networks, given as a run or its weights.
        awp_gamma: the usual size of a perturbation of the weights around it, which makes it known as ``NAME-awp`` too;
            None for none.
        title: its name in reports, as papers write it; the name itself if empty.
    """

    name: str
    summary: str
    kind: type[Any]
    attack: Callable[..., "Attack"] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    fixed_steps: int | None = None
    networks: tuple[str, ...] = ()
    awp_gamma: float | None = None
    title: str = ""


_AWP_SUFFIX = "-awp"
_AWP_PARAMETERS = {
    "awp_gamma": "relative size of the weight perturbation",
    "awp_warmup": "share of training before weights are perturbed, such as 10/200 (default: 0)",
}


def _around(row: Listed) -> Iterator[Listed]:
    """The row, and what it is called where weights are perturbed around it."""
    yield row
    usual = row.values.get("awp_gamma")
    if usual is not None:
        gamma = f"{_AWP_PARAMETERS['awp_gamma']} (default: {usual:g})"
        yield replace(
            row,
            name=f"{row.name}{_AWP_SUFFIX}",
            summary=f"{row.name} with adversarial weight perturbation (arXiv 2004.05884)",
            parameters={**row.parameters, **_AWP_PARAMETERS, "awp_gamma": gamma},
            values={**row.values, "title": f"{row.values.get('title') or row.name}-AWP"},
        )


_REGISTRY = Registry("robustmaps.defenses", "defense", DefenseRow, _around)
register, listed, find = _REGISTRY.register, _REGISTRY.listed, _REGISTRY.find


def title_of(name: str) -> str:
    """The name of a defence as papers write it, such as ``TRADES``; the name itself of one that is not known."""
    row = listed(warn=False).get(name)
    return name if row is None else str(row.values.get("title") or name)


def is_attacked(name: str) -> bool:
    """Whether a defence trains against an attack.

    Raises:
        InputError: an unknown defence, or its module can't be imported.
    """
    return _REGISTRY.row(name.removesuffix(_AWP_SUFFIX)).attack is not None


def check_parameters(name: str, given: Mapping[str, object]) -> None:
    """Refuse options that a defence does not take; does not import it.

    Raises:
        InputError: an unknown defence, or an option without effect.
    """
    row = find(name)
    steps = row.values.get("fixed_steps")
    if steps is not None and "step_size" in given and "step_size" not in row.parameters:
        raise InputError(f"step_size={given['step_size']!r}: {name} has a step of its own; leave it out")
    if steps is not None and "steps" in given:
        raise InputError(f"steps={given['steps']}: {name} has steps of its own ({steps}); leave it out")
    check_taken([row], given, ("norm", "eps"))


def create(name: str, norm: str, eps: float, **parameters: Any) -> "Defense":
    """The defence of that name.

    Args:
        name: see `listed`.
        norm: the norm of the training attack's budget.
        eps: its radius.
        parameters: some of those that its row lists; networks as modules.

    Raises:
        InputError: an unknown defence, a parameter that it does not take, or a value out of its range.
    """
    check_parameters(name, parameters)
    plain = name.removesuffix(_AWP_SUFFIX)
    row = _REGISTRY.row(plain)
    given = dict(parameters)
    perturbation = {key.removeprefix("awp_"): given.pop(key) for key in _AWP_PARAMETERS if key in given}
    if row.attack is not None:
        own = {key: given.pop(key) for key in _OF_THE_ATTACK if key in given}
        given["attack"] = row.attack(norm=norm, eps=eps, **own)
    defense: Defense = row.kind(**given)
    if plain == name:
        return defense
    from robustmaps.defenses._awp import AWP

    try:
        return AWP(defense, **{"gamma": row.awp_gamma, **perturbation})  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"awp_{error}") from error
