"""The cache: every source is decoded once into a folder."""

import hashlib
import json
import re
import tempfile
from pathlib import Path

from robustmaps.data import store
from robustmaps.data.source import Progress, Source
from robustmaps.data.sources.channels import with_channels
from robustmaps.data.store import Stored
from robustmaps.engine.errors import InputError
from robustmaps.engine.writing.outputs import alone, publish, remove_folder
from robustmaps.engine.writing.temporaries import temporary
from robustmaps.engine.writing.writer import cache_root


def fetch(
    source: Source,
    *,
    cache_dir: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Stored:
    """Open the decoded source; decode it first if it is new, has changed, or its folder is damaged.

    If two processes ask for the same source, one decodes and the other waits. A folder gets its name only when
    complete, so a failed or killed run leaves an older folder intact.

    Raises:
        InputError: the source is not a usable data set, or the cache can't be written.
    """
    identity = source.identity()
    if identity is None:
        return _uncached(source, image_size, channels, progress)
    root = cache_root(cache_dir)
    folder = root / _folder_name(source.name, identity, image_size, channels)
    if not refresh and (stored := store.read(folder)):
        return stored
    try:
        with alone(Path(f"{folder}.lock"), "decoding these images", wait=True):
            if not refresh and (stored := store.read(folder)):
                return stored
            _build(source, folder, image_size, channels, progress)
    except OSError as error:
        raise InputError(
            f"{folder}: can't write the cache ({error}); set ROBUSTMAPS_CACHE to a writable folder with free space"
        ) from error
    stored = store.read(folder)
    if stored is None:
        raise OSError(f"{folder}: damaged as soon as it was written; is the disk full or failing?")
    return stored


def decoded(
    source: Source, *, cache_dir: Path | None = None, image_size: int | None = None, channels: int | None = None
) -> Stored | None:
    """The decoded source, if it is in the cache; nothing is read of the source itself."""
    identity = source.identity()
    if identity is None:
        return None
    return store.read(cache_root(cache_dir) / _folder_name(source.name, identity, image_size, channels))


def _folder_name(name: str, identity: str, image_size: int | None, channels: int | None) -> str:
    changed = [] if channels is None else [channels]
    key = hashlib.sha256(json.dumps([store.VERSION, identity, image_size, *changed]).encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-{key}"


def _build(
    source: Source, folder: Path, image_size: int | None, channels: int | None, progress: Progress | None
) -> None:
    # The lock is held, so that no other process is at work on either folder; the first is of earlier versions.
    remove_folder(folder.with_name(f"{folder.name}.partial"))
    with temporary(folder, folder=True) as partial:
        store.write(with_channels(source.read(image_size, progress), channels), partial)
        publish(partial, folder, replace=True)


def _uncached(source: Source, image_size: int | None, channels: int | None, progress: Progress | None) -> Stored:
    with temporary(Path(tempfile.gettempdir()) / "robustmaps", folder=True) as folder:
        store.write(with_channels(source.read(image_size, progress), channels), folder)
        stored = store.read(folder)
    if stored is None:
        raise OSError(f"{folder}: damaged as soon as it was written; is the disk full or failing?")
    return stored
