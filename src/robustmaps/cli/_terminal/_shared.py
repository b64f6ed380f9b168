"""What the verbs share: parsing, output, stopping."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import as_fraction, parse_number

if TYPE_CHECKING:
    from robustmaps.networks import Checkpoint

T = TypeVar("T")
_UNLIMITED = 10_000


def parse(kind: type[T], arguments: Sequence[str], verb: str, description: str, default: T | None = None) -> T:
    """Read a verb's arguments into its dataclass; exits with code 2 and a hint where they don't fit."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_float_rule)
    registry.primitive_rule(_floats_rule)
    with registry:
        given: T = tyro.cli(
            kind,
            prog=f"robustmaps {verb}",
            description=description,
            args=list(arguments),
            default=tyro.MISSING_NONPROP if default is None else default,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
        )
    return given


def take_option(arguments: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """Take ``flag VALUE``, ``flag=VALUE`` or a bare ``flag`` out of the arguments.

    Returns:
        The other arguments, and the value: None where the flag is not there, empty where it stands alone.
    """
    rest: list[str] = []
    value: str | None = None
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if argument == flag:
            value = remaining.pop(0) if remaining and not remaining[0].startswith("-") else ""
        elif argument.startswith(f"{flag}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    return rest, value


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
    if info.type != tuple[float, ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT[,FLOAT...]",
        instance_from_str=lambda args: tuple(parse_number(part) for part in args[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(as_fraction, value)) or "none"],
    )


def open_given(run: Path | None, model_from: str | None, weights: Path | None) -> "Checkpoint":
    """The network of the verbs that take a run or ``--model-from``.

    Raises:
        InputError: neither or both are given, or what is given can't be opened.
    """
    from robustmaps.networks import open_checkpoint, open_network

    if model_from is not None:
        if run is not None:
            raise InputError(f"{run} and --model-from {model_from}: give one of the two")
        return open_network(model_from, weights)
    if run is None:
        raise InputError("expected a run folder, or --model-from package.module:function")
    if weights is not None:
        raise InputError(f"--checkpoint {weights}: needs --model-from package.module:function")
    return open_checkpoint(run)


class Output:
    """Where results go: one JSON object or text on standard output. All else goes to standard error.

    Args:
        as_json: whether ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(soft_wrap=True, highlight=False)

    def result(self, values: Mapping[str, Any], *texts: object) -> None:
        """Print the result: ``values`` as JSON, or the texts, of which tables may be some."""
        if self._as_json:
            print(json.dumps(values, allow_nan=False))
            return
        for text in texts:
            if isinstance(text, RichTable):
                text.width = self._width(text)
                self._console.print(text, soft_wrap=False, crop=False)
            else:
                self._console.print(str(text), markup=False)

    def _width(self, table: RichTable) -> int:
        """What the table takes; on a terminal no more than that has, as long as figures need not be cut off."""
        needed = Measurement.get(self._console, self._console.options.update(width=_UNLIMITED), table)
        room = self._console.width if self._console.is_terminal else _UNLIMITED
        return needed.maximum if needed.minimum > room else min(needed.maximum, room)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> RichTable:
    """A table for the terminal: the first ``texts`` columns hold words, which may be broken, the others figures."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=index >= texts, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C and SIGTERM ask for a stop instead of raising; a second one raises KeyboardInterrupt."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("robustmaps: stopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
