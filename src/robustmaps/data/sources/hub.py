"""Data sets of the Hugging Face hub, or folders in its forms (Parquet), through ``datasets``."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robustmaps.data.decode import DECODING, Encoded, decode_blocks
from robustmaps.data.known import KNOWN, HubId
from robustmaps.data.source import SPLIT_NAMES, UNSPLIT, Contents, Progress
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular
from robustmaps.engine.reading.download import downloading

_PREFIX = "hf:"
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_label", "category", "target", "y")
_OPTIONS = ("label", "config", "train", "validation", "test")
_HUB = "https://huggingface.co"
_INSTEAD = (
    "take digits, which is embedded, a folder or archive of images, or hf:FOLDER with the set's files; or run "
    "robustmaps data prepare where there is a connection, and copy the cache (ROBUSTMAPS_CACHE) here"
)
_FORM = "hf:owner/name, hf:owner/name@revision or hf:FOLDER, and after # options such as #label=fine_label,test=val"


@dataclass(frozen=True)
class Hub:
    """A data set with an image column and a label column, found from its features where they are not given."""

    name: str
    id: HubId

    def identity(self) -> str:
        """The id; of a local folder, also the names, sizes and modification times of its files."""
        folder = Path(self.id.repository)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        digest = hashlib.sha256(repr([(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode())
        where = {item.name: getattr(self.id, item.name) for item in fields(HubId) if item.name != "splits"}
        listed = ", ".join(f"{name}={value!r}" for name, value in where.items())
        # The named sets have no image that a later version decodes differently, and may not be at hand any more.
        later = "" if self.name in KNOWN else f" {self.id.splits} {DECODING}"
        return f"hub HubId({listed}) {digest.hexdigest() if files else ''}{later}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Download what isn't yet, check all labels, and decode."""
        where = f"hf:{self.id.repository}"
        splits = self._splits(where)
        features = next(iter(splits.values())).features
        tally = Tally()
        image, label = find_columns(where, features, self.id.label)
        names = tuple(features[label].names) if hasattr(features[label], "names") else None
        labels = {split: _labels(where, rows, split, label, names) for split, rows in splits.items()}
        targets = {UNSPLIT: splits["train"]} if list(splits) == ["train"] else splits
        encoded = _encoded(where, targets, image, {s: labels[s if s in labels else "train"] for s in targets})
        return Contents(where, decode_blocks(encoded, image_size, progress, tally), names, tally)

    def _splits(self, where: str) -> dict[str, Any]:
        """The splits by our names, those of training first."""
        found = self._load(where)
        names = {SPLIT_NAMES[name]: name for name in found if name in SPLIT_NAMES}
        # A split under another name is not read twice.
        chosen = dict(self.id.splits)
        names = {ours: name for ours, name in names.items() if name not in chosen.values()} | chosen
        for ours, name in chosen.items():
            if name not in found:
                raise InputError(f"{where}: {ours}={name}: no such split; found {', '.join(found)}")
        if not names:
            raise InputError(f"{where}: no split called train; found {', '.join(found)}")
        return {split: found[names[split]] for split in ("train", "validation", "test") if split in names}

    def _load(self, where: str) -> dict[str, Any]:
        try:
            import datasets
        except ImportError as error:
            raise InputError(f"{where}: needs the package 'datasets'; pip install 'robustmaps[hub]'") from error
        options = {"revision": self.id.revision, "data_dir": self.id.data_dir}
        given = {key: value for key, value in options.items() if value}
        if Path(self.id.repository).is_dir():
            return self._splits_of(datasets, where, given)
        with downloading(where, os.environ.get("HF_ENDPOINT") or _HUB, _INSTEAD):
            return self._splits_of(datasets, where, given)

    def _splits_of(self, datasets: Any, where: str, given: dict[str, str]) -> dict[str, Any]:
        try:
            return dict(datasets.load_dataset(self.id.repository, self.id.config, **given))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{where}: can't be loaded ({error})") from error


def find_columns(where: str, features: Any, label: str | None = None) -> tuple[str, str]:
    """The names of the one image column and the one label column.

    A label column has class names, or one of the usual names; one that is called ``label`` goes before others.

    Raises:
        InputError: there is none, or there are several.
    """
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(images) != 1:
        raise InputError(f"{where}: expected one column of images, found {images} among {list(features)}")
    if label is None:
        labels = [
            name
            for name, feature in features.items()
            if isinstance(feature, datasets.ClassLabel) or (name.lower() in _LABEL_NAMES and name not in images)
        ]
        if not labels:
            raise InputError(
                f"{where}: no label column among {', '.join(features)}; choose one, such as "
                f"{where}#label={next((name for name in features if name not in images), 'NAME')}"
            )
        if len(labels) > 1 and "label" not in labels:
            raise InputError(
                f"{where}: several label columns, {', '.join(labels)}; choose one, such as {where}#label={labels[0]}"
            )
        label = "label" if "label" in labels else labels[0]
    if label not in features:
        raise InputError(f"{where}: no column {label!r} among {list(features)}")
    return images[0], label


def _labels(where: str, rows: Any, split: str, label: str, names: tuple[str, ...] | None) -> list[str]:
    """The class names of a split, all checked before an image is decoded."""
    values = list(rows[label])
    if values and all(value is None or (_is_whole(value) and value < 0) for value in values):
        raise InputError(
            f"{where}: the labels of split {split} are hidden (all are {values[0]}); choose another split that has "
            f"labels, such as {where}#{split}={'train' if split == 'validation' else 'validation'}"
        )
    for number, value in enumerate(values):
        good = (_is_whole(value) and value >= 0) or (isinstance(value, str) and bool(value.strip()))
        if not good or (names is not None and (isinstance(value, str) or value >= len(names))):
            expected = f"0 to {len(names) - 1}" if names else "whole numbers from 0 on, or names"
            raise InputError(f"{where}: {split} row {number}: label {value!r} out of range; expected {expected}")
    return [names[value] if names else str(value) for value in values]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _encoded(where: str, splits: dict[str, Any], image: str, labels: dict[str, list[str]]) -> Iterator[Encoded]:
    import datasets

    for split, rows in splits.items():
        # Images stay encoded here, so that they are decoded in threads and resized as those of every other source.
        raw = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        for number, (row, label) in enumerate(zip(raw, labels[split], strict=True)):
            picture, here = row[image], f"{where}: {split} row {number}"
            if picture is None:
                raise InputError(f"{here}: no image; remove the row")
            if picture["bytes"] is None:
                check_regular(picture["path"], "an image")
            yield Encoded(here, picture["bytes"] or Path(picture["path"]), split, label)


def _named(spec: str) -> Hub | None:
    known = KNOWN.get(spec)
    if known is not None and known.hub is not None:
        return Hub(spec, known.hub)
    if not spec.startswith(_PREFIX):
        return None
    text = spec.removeprefix(_PREFIX)
    listed = ""
    if not Path(text).expanduser().is_dir():
        text, _, listed = text.partition("#")
    given = dict(part.partition("=")[::2] for part in listed.split(",") if part)
    if not all(key in _OPTIONS and value for key, value in given.items()):
        raise InputError(f"{spec}: expected {_FORM}; options: {', '.join(_OPTIONS)}")
    config, label, splits = given.pop("config", None), given.pop("label", None), tuple(sorted(given.items()))
    folder = Path(text).expanduser()
    if folder.is_dir():
        repository = str(folder.resolve())
        return Hub(folder.resolve().name, HubId(repository, config, label, splits=splits))
    repository, _, revision = text.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"{spec}: expected {_FORM}")
    return Hub(repository.split("/")[1], HubId(repository, config, label, revision or None, splits=splits))


def _at(path: Path) -> Hub | None:
    """A folder with Parquet files, at its top or in the usual folders."""
    usual = (path, path / "data", *(path / name for name in SPLIT_NAMES))
    found = path.is_dir() and any(file.is_file() for folder in usual for file in folder.glob("*.parquet"))
    return Hub(path.name, HubId(str(path))) if found else None


ROW = SourceRow(
    name="hub",
    form="hf:OWNER/NAME",
    summary="any image classification set of the Hugging Face hub, or a folder of Parquet files",
    named=_named,
    at=_at,
    order=4,
)
