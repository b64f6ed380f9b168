"""The cache: every source is decoded once into a folder."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from robustmaps.data import store
from robustmaps.data.source import Progress, Source
from robustmaps.data.store import Stored
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import sync_folder


def cache_root(cache_dir: Path | None = None) -> Path:
    """The given folder, or ``$ROBUSTMAPS_CACHE``, or ``~/.cache/robustmaps``."""
    return Path(cache_dir or os.environ.get("ROBUSTMAPS_CACHE") or "~/.cache/robustmaps").expanduser()


def fetch(
    source: Source,
    *,
    cache_dir: Path | None = None,
    image_size: int | None = None,
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
        return _uncached(source, image_size, progress)
    root = cache_root(cache_dir)
    folder = root / _folder_name(source.name, identity, image_size)
    if not refresh and (stored := store.read(folder)):
        return stored
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not refresh and (stored := store.read(folder)):
                return stored
            _build(source, folder, image_size, progress)
    except OSError as error:
        raise InputError(
            f"{folder}: can't write the cache ({error}); set ROBUSTMAPS_CACHE to a writable folder with free space"
        ) from error
    stored = store.read(folder)
    if stored is None:
        raise OSError(f"{folder}: damaged as soon as it was written; is the disk full or failing?")
    return stored


def _folder_name(name: str, identity: str, image_size: int | None) -> str:
    key = hashlib.sha256(json.dumps([store.VERSION, identity, image_size]).encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-{key}"


def _build(source: Source, folder: Path, image_size: int | None, progress: Progress | None) -> None:
    # The lock is held, so a folder of this name was left by a killed process.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        store.write(source.read(image_size, progress), partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _uncached(source: Source, image_size: int | None, progress: Progress | None) -> Stored:
    with tempfile.TemporaryDirectory(prefix="robustmaps-") as folder:
        store.write(source.read(image_size, progress), Path(folder))
        stored = store.read(Path(folder))
    if stored is None:
        raise OSError(f"{folder}: damaged as soon as it was written; is the disk full or failing?")
    return stored
