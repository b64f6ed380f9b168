"""Data sets of the Hugging Face hub, or folders in its forms (Parquet), through ``datasets``."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustmaps.data.decode import Encoded, decode_blocks
from robustmaps.data.known import KNOWN, HubId
from robustmaps.data.source import SPLIT_NAMES, UNSPLIT, Contents, Progress
from robustmaps.data.sources.registry import SourceRow
from robustmaps.engine.errors import InputError

_PREFIX = "hf:"
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


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
        return f"hub {self.id} {digest.hexdigest() if files else ''}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Download what isn't yet, and decode."""
        where = f"hf:{self.id.repository}"
        splits = self._load(where)
        names = {SPLIT_NAMES[name]: name for name in splits if name in SPLIT_NAMES}
        if not names:
            raise InputError(f"{where}: no split called train; found {', '.join(splits)}")
        features = splits[names.get("train", next(iter(names.values())))].features
        image, label = find_columns(where, features, self.id.label)
        classes = features[label].names if hasattr(features[label], "names") else None
        targets = {UNSPLIT: "train"} if list(names) == ["train"] else names
        encoded = _encoded(where, {split: splits[name] for split, name in targets.items()}, image, label, classes)
        return Contents(where, decode_blocks(encoded, image_size, progress), tuple(classes) if classes else None)

    def _load(self, where: str) -> dict[str, Any]:
        try:
            import datasets
        except ImportError as error:
            raise InputError(f"{where}: needs the package 'datasets'; pip install 'robustmaps[hub]'") from error
        options = {"revision": self.id.revision, "data_dir": self.id.data_dir}
        given = {key: value for key, value in options.items() if value}
        try:
            return dict(datasets.load_dataset(self.id.repository, self.id.config, **given))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{where}: can't be loaded ({error})") from error


def find_columns(where: str, features: Any, label: str | None = None) -> tuple[str, str]:
    """The names of the one image column and the one label column.

    Raises:
        InputError: there is none, or there are several.
    """
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(images) != 1:
        raise InputError(f"{where}: expected one column of images, found {images} among {list(features)}")
    if label is None:
        labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        labels = labels if len(labels) == 1 else [name for name in _LABEL_NAMES if name in features][:1]
        if not labels:
            raise InputError(f"{where}: no label column; expected a ClassLabel or one of {', '.join(_LABEL_NAMES)}")
        label = labels[0]
    if label not in features:
        raise InputError(f"{where}: no column {label!r} among {list(features)}")
    return images[0], label


def _encoded(
    where: str, splits: dict[str, Any], image: str, label: str, classes: list[str] | None
) -> Iterator[Encoded]:
    import datasets

    for split, rows in splits.items():
        # Images stay encoded here, so that they are decoded in threads and resized as those of every other source.
        raw = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        for number, row in enumerate(raw):
            value, picture = row[label], row[image]
            if value is None or (classes is not None and not 0 <= value < len(classes)):
                raise InputError(f"{where}: {split} row {number}: label {value} out of range")
            data = picture["bytes"] if picture["bytes"] is not None else Path(picture["path"])
            yield Encoded(f"{where}: {split} row {number}", data, split, classes[value] if classes else str(value))


def _named(spec: str) -> Hub | None:
    known = KNOWN.get(spec)
    if known is not None and known.hub is not None:
        return Hub(spec, known.hub)
    if not spec.startswith(_PREFIX):
        return None
    text = spec.removeprefix(_PREFIX)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return Hub(folder.resolve().name, HubId(str(folder.resolve())))
    repository, _, revision = text.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"{spec}: expected hf:owner/name, hf:owner/name@revision or hf:FOLDER")
    return Hub(repository.split("/")[1], HubId(repository, revision=revision or None))


ROW = SourceRow(
    name="hub",
    form="hf:OWNER/NAME",
    summary="any image classification set of the Hugging Face hub",
    named=_named,
)
