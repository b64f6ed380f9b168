"""A folder of tar shards in the form of WebDataset: a sample is files with one key, such as 00042.jpg and 00042.cls."""

import hashlib
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from robustmaps.data.decode import DECODING, Encoded, decode_blocks
from robustmaps.data.source import SPLIT_NAMES, UNSPLIT, Contents, Progress
from robustmaps.data.sources.content import has_image_suffix
from robustmaps.data.sources.members import MOST_BYTES, safe_parts
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.sources.tar_members import tar_members
from robustmaps.data.sources.tree import is_hidden
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError

_NAMES = "classnames.txt"
_LABEL, _TABLE, _KEYS = "cls", "json", ("label", "cls")
_MOST_LABEL_BYTES, _MOST_DIGITS = 1 << 16, 18
_DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError)


@dataclass(frozen=True)
class Shards:
    """Shards in ``FOLDER``, or in ``FOLDER/train`` and so on; else the names say the split: ``mine-train-000.tar``.

    A single shard, given as a file, is a set without splits.

    A label is the number or name in ``KEY.cls``, or under ``label`` or ``cls`` in ``KEY.json``. Numbers count from 0;
    the lines of ``classnames.txt``, if there is one, are their names.
    """

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder or file, without its ending."""
        return self.path.stem if self.path.is_file() else self.path.name

    def identity(self) -> str:
        """The path, and a hash of the names, sizes and modification times of all shards."""
        digest = hashlib.sha256()
        for file in [*_shards(self.path), *self.path.glob(_NAMES)]:
            status = file.stat()
            entry = f"{file.relative_to(self.path)} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(entry.encode(errors="surrogateescape"))
        return f"shards {self.path} {digest.hexdigest()} {DECODING}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Decode while reading, shard by shard in the order of their names."""
        names, tally = self._names(), Tally()
        splits = {
            shard: _split(shard.relative_to(self.path)) for shard in _shards(self.path)
        }  # a file to itself is "."
        apart = [shard for shard, split in splits.items() if split == UNSPLIT]
        if apart and len(apart) < len(splits):
            raise InputError(
                f"{apart[0]}: a shard of no split beside shards of {sorted(set(splits.values()) - {UNSPLIT})[0]}; "
                "put it into a folder train, validation or test, or say so in its name"
            )
        blocks = decode_blocks(self._images(splits, names, tally), image_size, progress, tally)
        return Contents(str(self.path), blocks, names or None, tally, numbered=True)

    def _names(self) -> tuple[str, ...]:
        file = self.path / _NAMES
        return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()

    def _images(self, splits: Mapping[Path, str], names: tuple[str, ...], tally: Tally) -> Iterator[Encoded]:
        for shard, split in splits.items():
            try:
                for key, files in _samples(shard):
                    where = f"{shard}: {key}"
                    images = [ending for ending in files if has_image_suffix(f"x.{ending.rpartition('.')[2]}")]
                    if not images:
                        tally.count("left out, a sample without an image", where)
                    elif len(images) > 1:
                        raise InputError(f"{where}: {len(images)} images ({', '.join(images)}); expected one a sample")
                    else:
                        yield Encoded(f"{where}.{images[0]}", files[images[0]], split, _label(where, files, names))
            except _DAMAGE as error:
                raise InputError(f"{shard}: damaged or cut off ({error}); copy or download it again") from error


def _shards(folder: Path) -> list[Path]:
    """The shards in a folder and in those of its splits, sorted by path; a shard itself is the only one."""
    if folder.is_file():
        return [folder]
    below = (child for child in folder.iterdir() if child.is_dir() and child.name.lower() in SPLIT_NAMES)
    return sorted(file for each in (folder, *below) for file in each.glob("*.tar") if file.is_file())


def _split(shard: Path) -> str:
    words = [part.lower() for part in (*shard.parts[:-1], *re.split(r"[-_.]", shard.stem))]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), UNSPLIT)


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The keys of a shard, each with its files by what follows the first dot of their names, as WebDataset has it."""
    before, files = "", dict[str, bytes]()
    for member in tar_members(shard):
        parts = safe_parts(str(shard), member)
        if member.read is None or is_hidden(parts[-1]):
            continue
        stem, _, ending = parts[-1].partition(".")
        key = "/".join((*parts[:-1], stem))
        if key != before and files:
            yield before, files
            files = {}
        before, ending = key, ending.lower()
        if ending in (_LABEL, _TABLE) or has_image_suffix(f"x.{ending.rpartition('.')[2]}"):
            most = _MOST_LABEL_BYTES if ending in (_LABEL, _TABLE) else MOST_BYTES
            if member.size > most:
                raise InputError(f"{shard}: {member.name}: {member.size:,} bytes; expected at most {most:,}")
            files[ending] = member.read(most)
    if files:
        yield before, files


def _label(where: str, files: Mapping[str, bytes], names: tuple[str, ...]) -> str:
    """The class of a sample."""
    found: object = None
    try:
        if _LABEL in files:
            found = files[_LABEL].decode().strip()
        elif _TABLE in files:
            table = json.loads(files[_TABLE])
            found = next((table[key] for key in _KEYS if key in table), None) if isinstance(table, dict) else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: its label can't be read ({error}); mend or remove the sample") from error
    text = str(found).strip() if isinstance(found, (int, str)) and not isinstance(found, bool) else ""
    if not text:
        raise InputError(f"{where}: no label; expected a number or name in {_LABEL}, or under label in {_TABLE}")
    if not re.fullmatch(r"[+-]?\d+", text):
        return text
    number = int(text) if len(text) <= _MOST_DIGITS else -1
    if number < 0 or (names and number >= len(names)):
        allowed = f"0 to {len(names) - 1}, the lines of {_NAMES}" if names else "numbers from 0 on"
        raise InputError(f"{where}: label {text[:_MOST_DIGITS]} out of range; expected {allowed}")
    return names[number] if names else str(number)


def _is_shard(file: Path) -> bool:
    """Whether a tar file begins with an image and its label under one key, in no folder."""
    try:
        key, files = next(_samples(file), ("", {}))
    except (InputError, *_DAMAGE):
        return False
    return "/" not in key and len(files) > 1 and bool({_LABEL, _TABLE} & files.keys())


def _at(path: Path) -> Shards | None:
    if path.is_file():
        return Shards(path) if path.suffix.lower() == ".tar" and _is_shard(path) else None
    if not path.is_dir() or not _shards(path):
        return None
    others = (child for child in path.iterdir() if child.is_dir() and not is_hidden(child.name))
    return None if any(child.name.lower() not in SPLIT_NAMES for child in others) else Shards(path)


ROW = SourceRow(
    name="shards",
    form="FOLDER with NAME.tar",
    summary="tar shards in the form of WebDataset: KEY.jpg and KEY.cls",
    at=_at,
    order=-1,  # before archives and folders of classes
)
