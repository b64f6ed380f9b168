"""Weights that other programs saved: found in their nesting, and fitted to a network by the names of its layers."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular
from robustmaps.engine.reading.binary import load_tensors, read_whole
from robustmaps.models import Rename
from robustmaps.training import enlargements, read_weights

_DEPTH = 4
_MOST_LISTED = 16
_SHOWN = 3
_WRAPPERS = ("module", "_orig_mod")
_AVERAGED = re.compile(r"ema|avg|average|swa")
_MEAN, _STD = ("mean", "mu"), ("std", "sigma")
_MOST_CHANNELS = 64
_DEPEND_ON_DATA = 3
"""Tensors whose shape follows from the images' channels and classes: the first layer, and two of the last."""


@dataclass(frozen=True)
class Filled:
    """What was read into a network.

    Attributes:
        sha256: of the file, and of the key in it where one was given.
        notes: what was recognised or assumed, for people.
    """

    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """How the names of a file are those of a network.

    Attributes:
        weights: the tensors by the network's names.
        missing, left: names that only the network, and only the file has.
        shapes: names with the file's and the network's shape, where they differ.
        notes: see `Filled`.
        named: from names of the network to those of the file, where they differ.
    """

    weights: Mapping[str, Tensor]
    missing: Sequence[str]
    left: Sequence[str]
    shapes: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]]
    notes: tuple[str, ...]
    named: Mapping[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.left) + len(self.shapes)


def fill(model: nn.Module, weights: str | Path, spec: str) -> Filled:
    """Read weights into a network.

    Files are safetensors, or what `torch.save` wrote, of which only tensors are read. A state dict may lie in other
    mappings (``state_dict``, ``model``, ``ema``, ...), its names may begin with what wrappers add (``module.``,
    ``_orig_mod.``, ``1.``), and for networks of ours they may be those of the published code or of torchvision. The
    mean and standard deviation of a wrapper that normalises are taken, too.

    Args:
        model: changed in place.
        weights: the file; ``FILE#KEY`` takes the weights under that key.
        spec: the network's name, as in `open_model`.

    Raises:
        InputError: no such file, it can't be read, or its weights don't fit the network.
    """
    path, key = parted(weights)
    found, digest = _chosen(path, key)
    fits = {where: _fit(model, tensors, _rename(spec)) for where, tensors in found.items()}
    fitting = [where for where, fit in fits.items() if not fit.faults]
    if not fitting and key is None:
        several = {where: _fit(model, tensors, _rename(spec)) for where, tensors in _apart(found).items()}
        fitting = [where for where, fit in several.items() if not fit.faults]
        fits |= {where: several[where] for where in fitting}
    if not fitting:
        where, fewest = min(fits.items(), key=lambda item: item[1].faults)
        under = f" under {where!r}" if where else ""
        raise InputError(f"{path}: the weights{under} don't fit {spec}: {_misfit(fewest)}{_suggestion(spec, found)}")
    taken = fitting[0]
    copy_values(model, fits[taken].weights, path)
    notes = list(fits[taken].notes)
    if taken and key is None:
        notes.insert(0, f"weights found under {taken!r}")
    if len(fitting) > 1:
        notes.insert(1, f"others under {', '.join(map(repr, fitting[1:]))} ({path}#{fitting[1]} takes those)")
    return Filled(digest, tuple(notes))


def file_digest(weights: str | Path) -> str:
    """The hash of what `fill` would read.

    Raises:
        InputError: there are no weights in the file that can be read.
    """
    return _chosen(*parted(weights))[1]


def _chosen(path: Path, key: str | None) -> tuple[dict[str, dict[str, Tensor]], str]:
    """The state dicts of a file, or the one under a key, and their hash."""
    found, digest = _read(path)
    if key is None:
        return found, digest
    under = _apart(found) | found
    if key not in under:
        named = found if any(found) else under
        raise InputError(f"{path}: no weights under {key!r}; expected one of {', '.join(filter(None, named))}")
    # Weights under different keys of one file are different weights.
    return {key: under[key]}, hashlib.sha256(f"{digest}#{key}".encode()).hexdigest()


def copy_values(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a network that has their names and shapes.

    PyTorch would take the real part of complex weights, and the codes of quantised ones without their scale.

    Raises:
        InputError: a tensor has no values that the network's tensor can take.
    """
    expected = model.state_dict()
    for name, tensor in weights.items():
        kind = _other_kind(tensor, expected[name]) if name in expected else None
        if kind is not None:
            raise InputError(f"{path}: {name} is {kind}; expected a plain tensor of {expected[name].dtype}")
    model.load_state_dict(weights)


def _other_kind(tensor: Tensor, expected: Tensor) -> str | None:
    """What keeps a tensor's values from being another's; floats may have any precision, and counters may be floats."""
    if tensor.layout is not torch.strided:
        return "sparse"
    if tensor.is_meta:
        return "without values, on the meta device"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_complex() != expected.is_complex():
        return f"of type {tensor.dtype}"
    if expected.is_floating_point() and not tensor.is_floating_point():
        return f"of type {tensor.dtype}"
    return None


def networks_that_fit(weights: str | Path) -> list[str]:
    """The networks of ours that have the layers of a file, whatever their strides.

    Raises:
        InputError: see `fill`.
    """
    return _fitting(_read(parted(weights)[0])[0])


def parted(weights: str | Path) -> tuple[Path, str | None]:
    """The file and the key of ``FILE#KEY``."""
    path, sign, key = str(weights).rpartition("#")
    return (Path(path), key) if sign and not Path(weights).exists() else (Path(weights), None)


def _read(path: Path) -> tuple[dict[str, dict[str, Tensor]], str]:
    """The state dicts of a file by where they lie in it, averaged ones last, and the file's hash."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    check_regular(path, "a weights file")
    if path.suffix == ".safetensors":
        loaded = read_weights(path)
        if enlargements(loaded.description):
            raise InputError(
                f"{path}: weights of an enlarged network, which compute something else in the plain one; give {path} "
                "itself as the network, without the name of another"
            )
        return {"": loaded.tensors}, loaded.sha256
    data = read_whole(path, "a weights file")
    try:
        contents = load_tensors(data)
    except Exception as error:  # of many types for files that are damaged or something else
        raise InputError(f"{path}: {_unreadable(data, error)}") from error
    found = dict(_state_dicts(contents, "", _DEPTH))
    if not found:
        raise InputError(f"{path}: found no weights in it; expected a state dict, or one under a key such as 'model'")
    return _averaged_last(found), hashlib.sha256(data).hexdigest()


def _averaged_last(found: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    ordered = sorted(found, key=lambda where: bool(_AVERAGED.search(where.lower())))
    return {where: found[where] for where in ordered}


def _apart(found: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """The parts of each state dict by the first component of their names: it may hold a teacher's weights as well."""
    parts: dict[str, dict[str, Tensor]] = {}
    for where, tensors in found.items():
        shared = where and f"{where}."
        names = [name.split(".") for name in tensors]
        columns = zip(*(name[:-1] for name in names), strict=False)
        same = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
        for name, tensor in zip(names, tensors.values(), strict=True):
            if len(name) > same + 1:
                part = shared + ".".join(name[: same + 1])
                parts.setdefault(part, {})[".".join(name[same + 1 :])] = tensor
    return _averaged_last(parts)


def _unreadable(data: bytes, error: Exception) -> str:
    """Why a file can't be read as tensors, in a line; PyTorch's own words are long, and advise to run its code."""
    held = re.search(r"GLOBAL ([\w.]+)", str(error))
    if held:
        return (
            f"it holds {held[1]} objects, and only tensors are read; where you trust the file, save what is needed: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW), or model.state_dict()"
        )
    if not data.startswith((b"PK", b"\x80")):
        return "not a file of weights; expected safetensors, or what torch.save wrote of model.state_dict()"
    return "damaged, or not written by torch.save; expected what it wrote of model.state_dict()"


def _state_dicts(value: Any, where: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if isinstance(value, list | tuple):
        value = {str(number): each for number, each in enumerate(value[:_MOST_LISTED])}
    if not isinstance(value, Mapping):
        return
    named = {key: each for key, each in value.items() if isinstance(key, str)}
    tensors = {key: each for key, each in named.items() if isinstance(each, Tensor)}
    # Beside them may be a number of epochs, or what a layer has of extra state.
    if tensors and not any(isinstance(each, Mapping | list | tuple) for each in named.values()):
        yield where, tensors
    elif depth:
        for key, each in named.items():
            yield from _state_dicts(each, f"{where}.{key}" if where else key, depth - 1)


def _rename(spec: str) -> Rename | None:
    try:
        return models.architecture(spec).renamed
    except InputError:  # a network from elsewhere
        return None


def _fit(model: nn.Module, given: Mapping[str, Tensor], renamed: Rename | None) -> _Fit:
    """The best of the ways in which the names can be understood."""
    expected = model.state_dict()
    if set(given) == set(expected):
        return _compared(expected, dict(given), ())
    # A network's own layers may have names such as `mean`, too.
    whole = _fit_named(expected, given, renamed, (_core(expected), _core(given)), ({}, (), ()))
    if not whole.faults:
        return whole
    cores = tuple(_core({n: t for n, t in names.items() if not _is_beside(n, t)}) for names in (expected, given))
    return _fit_named(expected, given, renamed, (cores[0], cores[1]), _normalisation(expected, given))


def _fit_named(
    expected: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    renamed: Rename | None,
    cores: tuple[dict[str, str], dict[str, str]],
    normalisation: tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]],
) -> _Fit:
    """The best of the ways in which the layers' names can be understood, beside a normalisation."""
    ours, theirs = cores
    values, left, said = normalisation
    ways: list[tuple[dict[str, str], str]] = [(dict(zip(theirs, theirs, strict=True)), "")]
    if renamed is not None:
        ways.append((renamed(theirs), "layer names of the published code or torchvision"))
    fits = []
    for names, how in ways:
        named = {ours.get(names[core], names[core]): name for core, name in theirs.items()}
        found = {name: given[full] for name, full in named.items()}
        twice = ("several names of one layer",) * (len(theirs) - len(found))
        for name, tensor in expected.items():  # not counted by old versions of PyTorch
            if name.endswith("num_batches_tracked"):
                found.setdefault(name, tensor)
        notes = (*_wrapped(given, theirs), *([how] if how else ()), *said)
        fit = _compared(expected, {**values, **found}, notes)
        fits.append(replace(fit, left=[*(named.get(name, name) for name in fit.left), *left, *twice], named=named))
    return min(fits, key=lambda fit: fit.faults)


def _compared(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], notes: tuple[str, ...]) -> _Fit:
    shapes = [
        (name, tuple(tensor.shape), tuple(expected[name].shape))
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    missing = [name for name in expected if name not in found]
    return _Fit(found, missing, [name for name in found if name not in expected], shapes, notes)


def _core(names: Mapping[str, Tensor]) -> dict[str, str]:
    """Names without what wrappers add, by which they are the same in both; the names as they are."""
    plain = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in names}
    if len(plain) < len(names):  # then these are no wrappers
        return {name: name for name in names}
    while plain and len({name.partition(".")[0] for name in plain}) == 1 and all("." in name for name in plain):
        plain = {name.partition(".")[2]: full for name, full in plain.items()}
    return plain


def _is_beside(name: str, tensor: Tensor) -> bool:
    """Whether it belongs to a wrapper: how many averages were taken, or the mean or deviation of images."""
    last = name.rpartition(".")[2]
    return last == "n_averaged" or (last in (*_MEAN, *_STD) and tensor.numel() <= _MOST_CHANNELS)


def _wrapped(given: Mapping[str, Tensor], core: Mapping[str, str]) -> tuple[str, ...]:
    added = {full.removesuffix(name) for name, full in core.items() if full != name and full.endswith(name)}
    kept = sorted(prefix for prefix in added if prefix)
    wrappers = sorted({part for name in given for part in name.split(".") if part in _WRAPPERS})
    if kept:
        return (f"names without their beginning {', '.join(map(repr, kept[:_SHOWN]))}",)
    return (f"names without {', '.join(map(repr, wrappers))}",) if wrappers else ()


def _normalisation(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The network's normalisation, with the values of the file where it has any.

    Returns:
        The values, names of the file that can't be taken, and what was assumed.
    """
    values: dict[str, Tensor] = {}
    left: list[str] = []
    said: list[str] = []
    for kinds in (_MEAN, _STD):
        targets = {n: t for n, t in expected.items() if _is_beside(n, t) and _last(n) in kinds}
        sources = {n: t for n, t in given.items() if _is_beside(n, t) and _last(n) in kinds}
        values |= targets
        sizes = {1, *(tensor.numel() for tensor in targets.values())}
        fits = len(sources) == len(targets) == 1 and {tensor.numel() for tensor in sources.values()} <= sizes
        if sources and not fits:
            left += sources
        elif sources:
            (name, own), (theirs,) = next(iter(targets.items())), sources.values()
            values[name] = theirs.flatten().expand(own.numel()).reshape(own.shape).to(own.dtype)
            if not own.is_meta and not torch.allclose(values[name], own, atol=1e-3):
                shown = ", ".join(f"{value:.4g}" for value in values[name].flatten().tolist())
                said.append(f"{kinds[0]} of its own normalisation: {shown}")
        elif targets and kinds is _MEAN:
            said.append("no normalisation in it: mean and standard deviation are those of the data or the network")
    return values, tuple(left), tuple(said)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _misfit(fit: _Fit) -> str:
    """Why weights don't fit, by the names in the file."""
    if fit.shapes and not fit.missing and not fit.left:
        name, theirs, ours = fit.shapes[-1]
        return f"{fit.named.get(name, name)} has the shape {theirs}, expected {ours}"
    parts = []
    for names, one, several in (
        (fit.missing, "of its layers' tensors is missing", "of its layers' tensors are missing"),
        (fit.left, "is unknown to it", "are unknown to it"),
    ):
        listed = f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        parts += [f"{len(names)} {one if len(names) == 1 else several} ({listed})"] * bool(names)
    return "; ".join(parts)


def _suggestion(spec: str, found: Mapping[str, Mapping[str, Tensor]]) -> str:
    others = [name for name in _fitting(found) if name != spec]
    return f"; they fit {' and '.join(others)}" if others else ""


def _fitting(found: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    counts = {_count(tensors) for tensors in found.values()}
    fitting = []
    for name in models.names():
        if _count_of(name) not in counts:
            continue
        with torch.device("meta"):
            model = models.create(name)
        fits = (_fit(model, tensors, _rename(name)) for tensors in found.values())
        if any(not fit.missing and not fit.left and len(fit.shapes) <= _DEPEND_ON_DATA for fit in fits):
            fitting.append(name)
    return fitting


@cache
def _count_of(name: str) -> int:
    with torch.device("meta"):
        return _count(models.create(name).state_dict())


def _count(tensors: Mapping[str, Tensor]) -> int:
    """The number of tensors but for a normalisation and the counters of batch-norms, which not all files have."""
    return sum(
        not name.endswith("num_batches_tracked") and not _is_beside(name, tensor) for name, tensor in tensors.items()
    )
