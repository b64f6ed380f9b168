"""The one place where the command line is parsed: dataclasses as options, by tyro."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from robustmaps import attacks, defenses
from robustmaps.cli._terminal import _code
from robustmaps.config import AttackConfig, DefenseConfig, Fraction, RunConfig
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.engine.registry import Listed

T = TypeVar("T")

_CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.HelptextFromCommentsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
FILE_ONLY = frozenset({"init_sha256", "helper_sha256", "checkpoint_every_s", "awp_warmup", "tensorboard"})
"""Keys of a configuration that a run fills in itself, or that nearly nobody sets: a file may give them."""
ADVANCED = frozenset(
    {
        *("upsample_mode", "extra_data", "extra_share", "defense_parameters"),
        *("ema", "swa", "label_smoothing", "cutmix", "eps_warmup", "clip_grad", "accumulate"),
        *("compile", "validate_every", "memory_share", "workers", "log"),
    }
)
"""Keys of a configuration that few need; the help lists them last, under a heading of their own."""


@dataclass(frozen=True)
class Rows:
    """What can be chosen by name, listed where a verb explains itself.

    Attributes:
        title: what these are.
        listed: the rows.
        config: the dataclass whose fields are the options of their parameters.
        further: the option of parameters that are no field.
    """

    title: str
    listed: Callable[[], Mapping[str, Listed]]
    config: type[Any]
    further: str

    def text(self, hidden: Collection[str]) -> str:
        """A line for each, with keys that are no options of the verb apart."""
        lines = [f"{self.title}, each with the options that it takes:"]
        for name, row in self.listed().items():
            own = [each for each in row.parameters if hasattr(self.config, each)]
            options = [f"--{each.replace('_', '-')}" for each in own if each not in hidden]
            in_files = [each for each in own if each in hidden]
            options += [f"in a file: {' '.join(in_files)}"] if in_files else []
            further = ",".join(f"{each}=VALUE" for each in row.parameters if not hasattr(self.config, each))
            options += [f"{self.further} {further}"] if further else []
            lines.append(f"  {name}: {row.summary}" + (f"; {' '.join(options)}" if options else ""))
        return "\n".join(lines)

    def check(self, arguments: Sequence[str], known: Collection[str], hidden: Collection[str]) -> None:
        """Refuse a parameter that has no option of its own, and name what takes it.

        Args:
            arguments: what follows the verb.
            known: the verb's own options, and keys of a configuration.
            hidden: keys that are no options of the verb.

        Raises:
            InputError: there is one.
        """
        for word in arguments:
            option, equals, value = word.partition("=")
            name = option.removeprefix("--").replace("-", "_")
            if not option.startswith("--"):
                continue
            if name in known and name in hidden and name != "model":  # which is an argument
                line = f"{name}: {value if equals else 'VALUE'}"
                raise InputError(f"{option}: no option of this verb; give it in a file, --config FILE, as {line}")
            if name in known:
                continue
            takers = [row.name for row in self.listed().values() if name in row.parameters]
            if takers:
                raise InputError(
                    f"{option}: {' and '.join(takers)} take{'s' * (len(takers) == 1)} it as "
                    f"{self.further} {name}={value if equals else 'VALUE'}"
                )


ATTACKS = Rows("Attacks", attacks.listed, AttackConfig, "--attack-parameters")
DEFENCES = Rows("Defences", defenses.listed, DefenseConfig, "--defense-parameters")


def parse(
    kind: type[T],
    arguments: Sequence[str],
    verb: str,
    description: str,
    default: T | None = None,
    *,
    rows: Rows | None = None,
    hidden: Collection[str] = FILE_ONLY,
) -> T:
    """Read a verb's arguments into its dataclass; exits with code 2 and a hint where they don't fit.

    Args:
        kind: the dataclass.
        arguments: what follows the verb.
        verb: its name, or nothing for all verbs in one.
        description: what it does.
        default: what holds where the arguments are silent.
        rows: what is listed by name below the description.
        hidden: keys of a configuration that are no options of this verb.
    """
    if {"-h", "--help"} & set(arguments):  # listing rows takes time that nothing else needs
        parts = [description, *([_code.HELP] if verb in _code.OPENING else []), *([rows.text(hidden)] if rows else [])]
        description = "\n\n".join(parts)
    elif rows:
        rows.check(arguments, set(_names(kind)), hidden)
    with _registry(hidden):
        given: T = tyro.cli(
            kind,
            prog=f"robustmaps {verb}".strip(),
            description=description,
            args=list(arguments),
            default=tyro.MISSING_NONPROP if default is None else default,
            config=_CONFIG,
        )
    return given


def _names(kind: Any) -> Iterator[str]:
    """The fields of a dataclass, and of those in it."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        yield item.name
        if is_dataclass(hints[item.name]):
            yield from _names(hints[item.name])


def parse_known(kind: type[T], arguments: Sequence[str], verb: str) -> T:
    """A first reading, for the options that decide what the others are by default; all others are passed over."""
    with _registry(()):
        given, _ = tyro.cli(
            kind,
            prog=f"robustmaps {verb}",
            args=list(arguments),
            config=_CONFIG,
            add_help=False,
            return_unknown_args=True,
        )
    return given


def typed_model(
    kind: type[Any],
    arguments: Sequence[str],
    verb: str,
    default: Any,
    *,
    hidden: Collection[str] = FILE_ONLY,
    name: str = "model",
) -> str | None:
    """A first reading of all arguments, for the network among them; None where there is none.

    Args:
        kind: the dataclass.
        arguments: what follows the verb.
        verb: its name.
        default: what holds where the arguments are silent.
        hidden: see `parse`.
        name: the field of the network.
    """
    if {"-h", "--help"} & set(arguments):
        return None
    return cast("str | None", getattr(parse(kind, arguments, verb, "", default, rows=DEFENCES, hidden=hidden), name))


OptionalValue = Annotated[
    str | None,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[RUN]",
        instance_from_str=lambda args: _one_or_none(args),
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [value] if value else [],
    ),
]
"""An option that may stand alone, which is an empty text; None where it is not given."""


Names = Annotated[
    tuple[str, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR[,STR...]",
        instance_from_str=lambda args: tuple(part.strip() for part in args[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value) or "none"],
    ),
]
"""Several names, written with commas."""


def _one_or_none(words: Sequence[str]) -> str:
    if len(words) > 1:  # the parser takes all words that follow
        raise ValueError(f"expected one value, not {' '.join(words)}; write what else there is in front of this option")
    return words[0] if words else ""


def _registry(hidden: Collection[str]) -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.primitive_rule(_float_rule)
    registry.primitive_rule(_floats_rule)
    registry.primitive_rule(_choice_rule)
    registry.struct_rule(lambda info: _struct(info, hidden))
    return registry


def _float_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float] | None:
    """Any float may be written as a fraction."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda args: parse_number(args[0]),
        is_instance=lambda value: isinstance(value, float | int),
        str_from_instance=lambda value: [as_fraction(value)],
    )


def _floats_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[float, ...]] | None:
    """Several floats are written with commas."""
    if get_origin(info.type) is not tuple or get_args(info.type) not in ((float, ...), (Fraction, ...)):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT[,FLOAT...]",
        instance_from_str=lambda args: tuple(parse_number(part) for part in args[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(as_fraction, value)) or "none"],
    )


def _choice_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str] | None:
    """One of several words, or nothing: leaving the option out is the way to give nothing."""
    several = next((one for one in get_args(info.type) if get_origin(one) is Literal), None)
    if several is None or type(None) not in get_args(info.type):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(get_args(several))}}}",
        instance_from_str=lambda args: args[0],
        is_instance=lambda value: value is None or value in get_args(several),
        str_from_instance=lambda value: [str(value)],
        choices=get_args(several),
    )


def _struct(info: StructTypeInfo, hidden: Collection[str]) -> StructConstructorSpec | None:
    """A dataclass of ours as options, without what is hidden; the rare ones of a run's configuration come last."""
    kind = info.type
    if not is_dataclass(kind) or not kind.__module__.startswith("robustmaps."):
        return None
    instance = info.default if isinstance(info.default, kind) else None
    if kind is RunConfig:
        return _run_config(instance if isinstance(instance, RunConfig) else RunConfig(), hidden)
    apart = {*hidden, *ADVANCED} if kind in _sections().values() else set()
    kept = {name: getattr(instance, name) for name in apart if instance is not None and hasattr(instance, name)}
    hints, help_lines = get_type_hints(kind, include_extras=True), attribute_lines(cast("type[Any]", kind))
    specs = [
        _option(item, hints[item.name], help_lines.get(item.name, ""), instance)
        for item in fields(kind)
        if item.name not in apart
    ]
    return StructConstructorSpec(lambda **given: kind(**{**kept, **given}), tuple(specs))


def _run_config(base: RunConfig, hidden: Collection[str]) -> StructConstructorSpec:
    sections = {item.name: getattr(base, item.name) for item in fields(base)}
    owner = {item.name: section for section, value in sections.items() for item in fields(value)}
    rare = _advanced(tuple(name for name in owner if name in ADVANCED and name not in hidden))
    values = {item.name: getattr(sections[owner[item.name]], item.name) for item in fields(rare)}

    def make(advanced: Any = None, **given: Any) -> RunConfig:
        for name, value in vars(advanced).items() if advanced is not None else ():
            given[owner[name]] = replace(given[owner[name]], **{name: value})
        return RunConfig(**{**sections, **given})

    specs = [
        StructFieldSpec(name, type(value), value, inspect.cleandoc(type(value).__doc__ or "").partition("\n")[0])
        for name, value in sections.items()
        if {item.name for item in fields(value)} - {*hidden, *ADVANCED}
    ]
    if values:
        specs.append(StructFieldSpec("advanced", rare, rare(**values), "Rarely needed."))
    return StructConstructorSpec(make, tuple(specs))


def _sections() -> dict[str, type[Any]]:
    return cast("dict[str, type[Any]]", get_type_hints(RunConfig))


@cache
def _advanced(names: tuple[str, ...]) -> type[Any]:
    """A dataclass of the rare keys of a configuration."""
    items: list[tuple[str, Any, Field[Any]]] = []
    for kind in _sections().values():
        hints, help_lines = get_type_hints(kind, include_extras=True), attribute_lines(kind)
        items += [
            (item.name, hints[item.name], field(default=item.default, metadata={"help": help_lines[item.name]}))
            for item in fields(kind)
            if item.name in names
        ]
    return make_dataclass("Advanced", items, frozen=True, namespace={"__module__": __name__})


def _option(item: Field[Any], hint: Any, text: str, instance: object) -> StructFieldSpec:
    """A field; where None is its default, the help says in words what that means."""
    default = (
        getattr(instance, item.name)
        if instance is not None
        else item.default_factory()
        if item.default_factory is not MISSING
        else tyro.MISSING_NONPROP
        if item.default is MISSING
        else item.default
    )
    if is_dataclass(kind := hint):
        hint = Annotated[hint, tyro.conf.arg(name="")] if hint is RunConfig else hint
        about = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
        return StructFieldSpec(item.name, cast("Any", hint), default, about)
    text = item.metadata.get("help", text)
    plain = hint
    while get_origin(plain) is Annotated and plain != Fraction:
        plain = get_args(plain)[0]
    options = [one for one in get_args(plain) if one is not type(None)]
    if type(None) in get_args(plain) and not any(isinstance(x, PrimitiveConstructorSpec) for x in get_args(hint)):
        (one,) = options
        choices = get_args(one) if get_origin(one) is Literal else ()
        metavar = f"{{{','.join(choices)}}}" if choices else "FLOAT" if one == Fraction else _METAVARS[one]
        if tyro.conf.Positional in get_args(hint):
            metavar = f"[{item.name.upper()}]"
        hint = Annotated[hint, tyro.conf.arg(metavar=metavar)]
    if default is None or default is False or default == () or (isinstance(default, str) and "(default" in text):
        hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="")]
    return StructFieldSpec(item.name, hint, default, text)


def attribute_lines(kind: type[Any]) -> dict[str, str]:
    """What the docstrings of a dataclass and of those it extends say of each field."""
    lines: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
        lines.update({name: " ".join(text.split()) for name, text in entries})
    return lines
