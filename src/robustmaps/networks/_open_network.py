"""Networks that are no runs: a user's own, one of ours or of another library, with weights from any program's file."""

import re
from pathlib import Path

from robustmaps import models
from robustmaps.config import DataConfig, parse_surgery
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.trust import LIBRARIES
from robustmaps.evaluation import weights_sha256
from robustmaps.networks._checkpoints import parted
from robustmaps.networks._data import load_data
from robustmaps.networks._libraries import Fit
from robustmaps.networks._open_model import open_model
from robustmaps.networks._subject import check_built_in
from robustmaps.networks._weights import UNKNOWN_BUDGET, Checkpoint


def open_network(
    spec: str,
    weights: str | Path | None = None,
    *,
    strides: str | None = None,
    enlarge: str | None = None,
    data: str | None = None,
    classes: str | None = None,
    watcher: Watcher = ignore,
) -> Checkpoint:
    """A network that is no run, with weights from a file of any program.

    Args:
        spec: ``package.module:function``, which names a function or class that takes no arguments and returns an
            `nn.Module` (the current folder is searched too); a name of ours; or one of another library, as in
            `open_model`.
        weights: see `checkpoints.fill`; None where the network brings its own.
        strides: of a network of ours.
        enlarge: what to change once the weights are filled in, as ``train --enlarge``.
        data: the images; all but a function of the user's are made for their classes, channels and statistics.
        classes: see `Checkpoint`.
        watcher: called while a data set is decoded for the first time.

    Raises:
        InputError: no such network, it has no weights, or they don't fit it.
    """
    check_built_in(spec, strides, None)
    size = None
    if _is_own(spec) and enlarge is None:
        opened = open_model(spec, weights=weights)
    else:
        if data is None:
            raise InputError(f"data: needed for {spec}, such as --data cifar10")
        loaded = load_data(DataConfig(data=data, classes=classes), watcher)
        opened, size = open_model(spec, Fit.to_data(loaded, strides=strides), weights), loaded.image_size
    if not opened.trained:
        raise InputError(f"{spec}: its weights would be random; give --weights FILE, or train it first")
    digest = weights_sha256(opened.model) if opened.filled is None else opened.filled.sha256
    notes = () if opened.filled is None else (*opened.filled.notes, *_assumed(spec, strides))
    if enlarge is not None and size is not None:
        opened = opened.enlarged(parse_surgery(enlarge), size)
    name = _name(spec, weights, strides, enlarge)
    path = None if weights is None else Path(weights)
    architecture = spec.partition(":")[2] if _is_own(spec) else spec
    about = (architecture, opened.model, None, *UNKNOWN_BUDGET, digest, classes)
    return Checkpoint(path, Path("evaluation") / name, name, *about, notes=notes)


def _is_own(spec: str) -> bool:
    """Whether it names a user's function, whatever the images."""
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind not in LIBRARIES


def _assumed(spec: str, strides: str | None) -> tuple[str, ...]:
    """What a file of weights does not tell."""
    if ":" in spec or strides is not None:
        return ()
    return (f"strides {models.default_strides(spec)} assumed, which the weights don't show; --strides sets others",)


def _name(spec: str, weights: str | Path | None, strides: str | None, enlarge: str | None) -> str:
    """A name for people and for a folder."""
    key = None if weights is None else parted(weights)[1]
    if _is_own(spec):
        return "-".join([spec.partition(":")[2], *([] if key is None else [_for_a_file(key)])])
    parts = [spec, strides, enlarge, None if weights is None else parted(weights)[0].stem, key]
    return _for_a_file("-".join(part for part in parts if part))


def _for_a_file(text: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", text)
