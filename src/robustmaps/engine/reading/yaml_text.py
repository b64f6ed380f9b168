"""Plain values from YAML that may be anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from robustmaps.engine.reading.plain import DEEPEST, check_depth

# Eight times as fast where PyYAML was built with libyaml.
_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_NODES = 50_000


def load_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        ValueError: it is not YAML, gives a key twice, is nested too deep, or is too long with its aliases written out.
    """
    try:
        _check_limits(text)
        values = yaml.load(text, _SAFE)  # noqa: S506 - both loaders are the safe ones
        check_depth(values)
    except ValueError:
        raise
    except Exception as error:  # PyYAML raises many types for odd scalars
        raise ValueError(str(error) or type(error).__name__) from error
    return values


@dataclass
class _Collection:
    """A mapping or a list that is open.

    Attributes:
        began: number of nodes before it.
        anchor: the name by which aliases refer to it.
        is_mapping: whether its nodes are keys and values.
        nodes: number of nodes directly in it.
        keys: the keys of a mapping.
    """

    began: int = 0
    anchor: str | None = None
    is_mapping: bool = False
    nodes: int = 0
    keys: set[str] = field(default_factory=set)


def _check_limits(text: str) -> None:
    """Go through a text without building anything: a short one with aliases can mean a huge value."""
    around, sizes, total = [_Collection()], dict[str, int](), 0
    for event in yaml.parse(text, Loader=_SAFE):
        if isinstance(event, yaml.CollectionEndEvent):
            ended = around.pop()
            if ended.anchor is not None:
                sizes[ended.anchor] = total - ended.began
        if not isinstance(event, yaml.NodeEvent):
            continue
        inside = around[-1]
        if isinstance(event, yaml.ScalarEvent):
            event.value.encode()  # half of a surrogate pair can't be printed
            if inside.is_mapping and inside.nodes % 2 == 0:
                if event.value in inside.keys:
                    raise ValueError(f"the key {event.value[:40]!r} is given twice")
                inside.keys.add(event.value)
        inside.nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(_Collection(total, event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
            sizes[event.anchor] = 1
        total += _written_out(event, sizes) if isinstance(event, yaml.AliasEvent) else 1
        if total > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES:,} values, aliases written out")
        if len(around) > DEEPEST + 1:
            raise ValueError(f"nested more than {DEEPEST} levels deep")


def _written_out(alias: yaml.AliasEvent, sizes: Mapping[str, int]) -> int:
    name = str(alias.anchor)
    if name not in sizes:
        raise ValueError(f"the alias *{name} refers to nothing, or to what it is in")
    return sizes[name]
