"""Networks that are no runs: a user's own, one of ours or of another library, with weights from any program's file."""

import re
from collections.abc import Sequence
from pathlib import Path

from robustmaps import models
from robustmaps.config import DataConfig, images_needed, parse_surgery, read_evaluated
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.trust import names_code
from robustmaps.evaluation import weights_sha256
from robustmaps.models import Pool
from robustmaps.networks._checkpoints import parted
from robustmaps.networks._data import load_data
from robustmaps.networks._libraries import Fit
from robustmaps.networks._open_model import open_model
from robustmaps.networks._subject import check_built_in
from robustmaps.networks._takes import check_strides, check_takes
from robustmaps.networks._weights import UNKNOWN_BUDGET, Checkpoint


def open_network(
    spec: str,
    weights: str | Path | None = None,
    *,
    strides: str | None = None,
    pool: Pool | None = None,
    enlarge: str | None = None,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    classes: str | None = None,
    random: bool = False,
    watcher: Watcher = ignore,
) -> Checkpoint:
    """A network that is no run, with weights from a file of any program.

    Args:
        spec: ``package.module:function``, which names a function or class that takes no arguments and returns an
            `nn.Module` (the current folder is searched too); a name of ours; or one of another library, as in
            `open_model`.
        weights: see `checkpoints.fill`; None where the network brings its own.
        strides: of a network of ours.
        pool: likewise.
        enlarge: what to change once the weights are filled in, as ``train --enlarge``.
        data: the images; all but a function of the user's are made for their classes, channels and statistics.
        image_size: see `DataConfig`.
        channels: likewise.
        classes: see `Checkpoint`.
        random: whether random weights will do; without ``data`` the network is then made for no particular images.
        watcher: called while a data set is decoded for the first time.

    Raises:
        InputError: no such network, it has no weights, or they don't fit it.
    """
    check_built_in(spec, strides, pool)
    if data is None and (random or (names_code(spec) and enlarge is None)):
        opened = open_model(spec, Fit(strides=strides, pool=pool), weights)
        size = (opened.image_px, opened.image_px)
    else:
        if data is None:
            raise images_needed(spec)
        images = DataConfig(data=data, classes=classes, image_size=image_size, channels=channels)
        loaded = load_data(images, watcher)
        check_strides(spec, strides, loaded.image_size, loaded.name)
        opened = open_model(spec, Fit.to_data(loaded, strides=strides, pool=pool), weights)
        size = loaded.image_size
        check_takes(opened.model, spec, loaded)
    if not opened.trained and not random:
        raise InputError(f"{spec}: its weights would be random; give --weights FILE, or train it first")
    digest = weights_sha256(opened.model) if opened.filled is None else opened.filled.sha256
    notes = () if opened.filled is None else (*opened.filled.notes, *_assumed(spec, strides))
    if enlarge is not None:
        surgery = parse_surgery(enlarge)
        opened, enlarge = opened.enlarged(surgery, size), surgery.short
    name = _name(spec, weights, (strides, pool, enlarge))
    path = None if weights is None else Path(weights)
    architecture = spec.partition(":")[2] if names_code(spec) else spec
    about = (architecture, opened.model, None, *UNKNOWN_BUDGET, digest, classes)
    folder = _place(Path("evaluation") / name, (spec, opened.fit.strides, opened.enlarge, opened.fit.pool), digest)
    if names_code(spec) and not folder.exists() and enlarge is None:
        folder = _earlier(folder.with_name(_name(spec, None, ())), digest) or folder
    return Checkpoint(path, folder, folder.name, *about, notes=notes, opened=opened)


def _place(folder: Path, mine: tuple[str | None, ...], digest: str) -> Path:
    """The folder for its results, or one with a number at its end if that has those of another network.

    The same network may have other weights since, and the same weights may have code of another name.
    """
    number, place = 1, folder
    while (found := read_evaluated(place)) is not None:
        if found.checkpoint_sha256 == digest or (found.model, found.strides, found.enlarge, found.pool) == mine:
            break
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place


def _earlier(folder: Path, digest: str) -> Path | None:
    """The folder of results of these weights by earlier versions, which did not name the file of weights in it."""
    try:
        present = read_json(folder / ".network.json").get("checkpoint_sha256")
    except (OSError, ValueError):
        return None
    return folder if present == digest else None


def _assumed(spec: str, strides: str | None) -> tuple[str, ...]:
    """What a file of weights does not tell."""
    if ":" in spec or strides is not None:
        return ()
    return (f"strides {models.default_strides(spec)} assumed, which the weights don't show; --strides sets others",)


def _name(spec: str, weights: str | Path | None, changes: Sequence[str | None]) -> str:
    """A name for people and for a folder."""
    key = None if weights is None else parted(weights)[1]
    stem = None if weights is None else parted(weights)[0].stem
    parts = [spec.partition(":")[2] if names_code(spec) else spec, *changes, stem, key]
    return _for_a_file("-".join(part for part in parts if part))


def _for_a_file(text: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", text)
