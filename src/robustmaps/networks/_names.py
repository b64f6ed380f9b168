"""Names of networks and configurations in sentences, tables, plots and cards; every place takes them from here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustmaps.config import ModelConfig, RunConfig, parse_shares, parse_surgery, read_run_config, to_mapping
from robustmaps.defenses import title_of as defense_title
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import in_words
from robustmaps.models import ACTIVATIONS, default_strides
from robustmaps.models import title_of as network_title
from robustmaps.training import INCIDENTAL, RunFolder

ENLARGED_BY = ("strides", "upsample", "upsample_mode", "enlarge", "enlarge_at")
"""The keys of the size of the maps."""
_APART = " · "
_NAMED_APART = frozenset({"model", "seed", *ENLARGED_BY, *INCIDENTAL})
_NAMED_FIRST = ("data", "defense")


def name_network(model: ModelConfig, *, strides: bool = False) -> str:
    """Name a network and its enlargement as papers do.

    >>> name_network(ModelConfig("resnet20", upsample=2.0))
    'ResNet-20 ×2'
    >>> name_network(ModelConfig("resnet18", strides="1122", enlarge="last,dilate"))
    'ResNet-18 1122, last step, dilated'
    >>> name_network(ModelConfig("resnet20", upsample=2.0, enlarge_at="0.8"))
    'ResNet-20 ×2, after 80 % of the epochs'
    >>> name_network(ModelConfig("resnet20", enlarge="last,silu"))
    'ResNet-20 SiLU, last step'

    Args:
        model: the network.
        strides: whether strides are also given if they are the network's own.
    """
    words = [network_title(model.model)]
    if model.strides and (strides or model.strides != _own_strides(model.model)):
        words.append(model.strides)
    surgery = parse_surgery(model.enlarge or "upsample=1")
    for each in (model, surgery):
        if each.upsample != 1:
            words.append(f"×{each.upsample:g}" + f" {each.upsample_mode}" * (each.upsample_mode != "nearest"))
    words += [ACTIVATIONS[surgery.activation]] if surgery.activation else []
    changes = [] if surgery.where is None else [_steps(surgery.where)]
    changes += [f"strides ÷{surgery.factor}"] if surgery.factor not in (None, 2) else []
    changes += ["dilated"] if surgery.dilate else []
    changes += [f"smoothed ({surgery.smooth})"] if surgery.smooth else []
    changes += [_late(model.enlarge_at)] if model.enlarge_at else []
    return ", ".join([" ".join(words), *changes])


def _late(enlarge_at: str) -> str:
    """``after 80 % of the epochs`` or ``in steps after 50 and 80 % of the epochs``."""
    shares = [f"{100 * share:.3g}" for share in parse_shares(enlarge_at)]
    return f"{'in steps ' * (len(shares) > 1)}after {' and '.join(shares)} % of the epochs"


def _steps(where: str) -> str:
    """``last step``, ``step 0`` or ``steps 0+1``."""
    if where in ("first", "last"):
        return f"{where} step"
    return f"step{'s' * (',' in where)} {where.replace(',', '+')}"


def _own_strides(name: str) -> str | None:
    """The strides of a built-in network; None for any other."""
    try:
        return str(default_strides(name))
    except InputError:
        return None


def name_given(network: str) -> str:
    """Name a network by what a user gave for it: a run, or its weights, by the run's configuration."""
    path = Path(network)
    config = RunFolder(path.parent if path.is_file() else path).config
    return name_network(read_run_config(config).model) if config.is_file() else network_title(network)


def name_configurations(configs: Sequence[RunConfig]) -> list[str]:
    """Name configurations by their networks, and the other keys that distinguish them.

    >>> name_configurations([RunConfig()])
    ['ResNet-8']
    """
    flat = [to_mapping(config) for config in configs]
    known: dict[str, set[str | None]] = {}
    for config in configs:
        known.setdefault(config.model.model, set()).add(config.model.strides)
    networks = [name_network(c.model, strides=len(known[c.model.model]) > 1) for c in configs]
    keys = _telling_apart(flat, networks)
    names = [
        _APART.join([network, *(_value(key, values[key]) for key in keys if values[key] is not None)])
        for network, values in zip(networks, flat, strict=True)
    ]
    # Files with the same name in two folders need the whole path.
    longer = [
        name if names.count(name) == 1 else f"{name} ({values['data']})"
        for name, values in zip(names, flat, strict=True)
    ]
    return [
        name if longer.count(name) == 1 else f"{name} #{longer[:index].count(name) + 1}"
        for index, name in enumerate(longer)
    ]


def name_runs(configs: Sequence[RunConfig]) -> list[str]:
    """The same for runs that may differ in the seed alone."""
    plain = [replace(config, training=replace(config.training, seed=0)) for config in configs]
    different = list(dict.fromkeys(plain))
    names = dict(zip(different, name_configurations(different), strict=True)) if different else {}
    several = len({config.training.seed for config in configs}) > 1
    return [
        f"{names[one]}{_APART}seed {config.training.seed}" if several else names[one]
        for one, config in zip(plain, configs, strict=True)
    ]


def _telling_apart(flat: Sequence[Mapping[str, Any]], networks: Sequence[str]) -> list[str]:
    """Data and defence where they differ, and the keys that distinguish what all earlier keys leave equal."""
    chosen: list[str] = []
    for key in sorted((key for key in flat[0] if key not in _NAMED_APART), key=_NAMED_FIRST.__contains__, reverse=True):
        alike: dict[str, set[str]] = {}
        for network, values in zip(networks, flat, strict=True):
            known = repr([network, *(values[other] for other in chosen)])
            alike.setdefault(known, set()).add(repr(values[key]))
        named = key in _NAMED_FIRST and len({repr(values[key]) for values in flat}) > 1
        if named or any(len(each) > 1 for each in alike.values()):
            chosen.append(key)
    return chosen


def _value(key: str, value: object) -> str:
    if key == "defense":
        return defense_title(str(value))
    if key == "data":
        return Path(str(value)).name
    return f"{key.replace('_', ' ')} {in_words(value)}"
