"""What may be written: new files, and those that this package wrote before; and one process at a time.

Every path that is written is claimed before the work that leads to it. A file is one of ours if its content has the
form of the same kind of result: the keys of a JSON file or of a safetensors header. Folders are ours by a file in them.
"""

import contextlib
import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from robustmaps.engine.errors import Busy, InputError
from robustmaps.engine.writing.durable import sync_folder
from robustmaps.engine.writing.temporaries import full_disk_named, is_leftover, remove_leftovers, why_full
from robustmaps.engine.writing.writer import is_silent

Ours = Callable[[Path], bool]

LOCK = ".lock"
SOFTWARE = "robustmaps"
"""What the pictures of this package say that they were made with."""
_PICTURES = (
    (b"\x89PNG", b"tEXtSoftware\0" + SOFTWARE.encode()),
    (b"%PDF", b"/Creator (" + SOFTWARE.encode() + b")"),
    (b"<?xml", b"<dc:title>" + SOFTWARE.encode() + b"</dc:title>"),
)
"""How pictures of this package begin, and what they say of their maker."""
_EARLIER = "an earlier result of this kind"
# Longer than another process holds a lock to check whether it is free.
_LOCK_S = 0.5
# Larger than the verdicts of ten million images.
_LARGEST_JSON_BYTES = 1 << 30
_LARGEST_HEADER_BYTES = 100 << 20


def claim(*outputs: str | Path, ours: Ours | None = None) -> None:
    """Refuse outputs that would replace something, before the work that leads to them.

    Args:
        outputs: the files to write, each with those named after it.
        ours: recognises, by content, an earlier result of the same kind, which may be replaced; None if none may.

    Raises:
        InputError: one of the paths exists and is not ours, two are the same, or nothing can be written there.
    """
    paths = [Path(output) for output in outputs if not is_silent(output)]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{path}: would be the name of two outputs; choose a name with another suffix")
        if os.path.lexists(path) and not (ours is not None and path.is_file() and ours(path)):
            what = "" if ours is None else f" and is not {_EARLIER}"
            raise InputError(f"{path} already exists{what}; choose another path or remove it")
        _check_place(path)


def claim_folder(
    folder: str | Path,
    ours: Ours | None = None,
    what: str = "",
    *,
    beside: Collection[str] = (),
    option: str = "--out",
) -> None:
    """Refuse a folder with other people's files, before the work that leads to it.

    Args:
        folder: the folder: new, empty, or one of ours.
        ours: recognises a folder that was written before, and may be written again; None if none may.
        what: what ours is called, such as ``a report``.
        beside: names of files that are ours even in a folder that is not recognised yet.
        option: the option that names the folder, for the error.

    Raises:
        InputError: the folder contains something else, or nothing can be written there.
    """
    path = Path(folder)
    if is_silent(path):
        return
    if os.path.lexists(path):
        if not path.is_dir():
            raise InputError(f"{path} already exists and is not a folder; choose another one or remove it")
        names = {child.name for child in path.iterdir() if not is_leftover(child)}
        if not names <= {LOCK, *beside} and not (ours is not None and ours(path)):
            found = "already exists" if ours is None else f"exists and is not {what}"
            raise InputError(f"{path}: {found}; name another folder with {option}, or delete it")
    _check_place(path)


def _check_place(path: Path) -> None:
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{path}: can't be written, since {above} is not a folder")
    with full_disk_named(path):
        try:
            with tempfile.TemporaryFile(dir=above):  # permissions alone do not tell
                pass
        except OSError as error:
            if why_full(error) is not None:
                raise
            raise InputError(f"{path}: can't be written ({error.strerror}); choose another path") from error


def json_with(*keys: str, **values: object) -> Ours:
    """Recognises JSON objects that have these keys, and these values of others."""

    def ours(path: Path) -> bool:
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_JSON_BYTES:
                return False
            return _has(json.loads(path.read_text(encoding="utf-8")), keys, values)
        except (OSError, ValueError, RecursionError):
            return False

    return ours


def tensors_with(*keys: str, **values: str) -> Ours:
    """Recognises safetensors files whose header has these keys, and these values of others, in its description."""

    def ours(path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size <= _LARGEST_HEADER_BYTES else None
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(header, dict) and _has(header.get("__metadata__"), keys, values)

    return ours


def is_picture(path: Path) -> bool:
    """Recognises PNG, PDF and SVG files by `robustmaps.figures`."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(1 << 12)
            file.seek(max(0, path.stat().st_size - (1 << 16)))
            end = file.read(1 << 16)
    except OSError:
        return False
    return any(start.startswith(kind) and mark in start + end for kind, mark in _PICTURES)


def _has(found: Any, keys: Collection[str], values: Mapping[str, object]) -> bool:
    if not isinstance(found, dict) or not found.keys() >= {*keys, *values}:
        return False
    return all(found[key] == value for key, value in values.items())


@contextmanager
def alone(lock: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Within the block, this is the only process that has the lock; its file is removed at the end.

    Args:
        lock: the lock's file.
        doing: what the other process does, for the error.
        wait: wait for the other process instead of raising.

    Raises:
        Busy: another process has the lock.
    """
    if is_silent(lock):
        yield
        return
    held = FileLock(lock)
    while not held.is_locked:
        with full_disk_named(lock), contextlib.suppress(FileNotFoundError):  # the folder was discarded just now
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.acquire(timeout=-1 if wait else _LOCK_S)
            except Timeout:
                raise Busy(f"{lock.parent}: another process is {doing}; wait for it or stop it") from None
    try:
        yield
    finally:
        # While it is still held; a process that waits for it looks whether it is still there.
        discard(lock.parent, [lock.name])
        held.release()


def claim_published(
    folder: str | Path, files: Mapping[str, Ours], *, optional: Mapping[str, Ours] | None = None, option: str = "--out"
) -> None:
    """Refuse a folder that `publish` can't give to a finished one, before the work that leads to it.

    Args:
        folder: the folder: new, empty, or with an earlier result of the same kind, which may turn out to be this one.
        files: names of the files in it, with what recognises an earlier one.
        optional: likewise, of files that only some results of this kind have.
        option: the option that names the folder, for the error.

    Raises:
        InputError: the folder contains something else, is a link, or nothing can be written there.
    """
    path = Path(folder)
    if path.is_symlink():
        raise InputError(f"{path}: a link, which a new folder can't replace; name the folder that it leads to")
    present = {child.name for child in path.iterdir() if not is_leftover(child)} if path.is_dir() else set()
    known = {**(optional or {}), **files}

    def ours(_: Path) -> bool:
        return set(files) <= present <= set(known) and all(known[name](path / name) for name in present)

    claim_folder(path, ours, _EARLIER, option=option)


def publish(made: Path, folder: Path, *, replace: bool = False) -> bool:
    """Give a finished temporary folder its name.

    Args:
        made: the temporary folder.
        folder: its name; nothing, an empty folder or one with the same contents has it yet.
        replace: remove an earlier folder of ours of that name.

    Returns:
        Whether it is new; false if the same was there before, such as after a kill at the very end.

    Raises:
        InputError: there is something else of that name by now.
    """
    if replace:
        remove_folder(folder)
    try:
        made.rename(folder)
    except OSError as error:
        if not os.path.lexists(folder):
            raise
        if (differs := _first_difference(made, folder)) is not None:
            raise InputError(
                f"{folder}: contains another result ({differs}); name another folder, or delete it"
            ) from error
        return False
    sync_folder(folder.parent)
    return True


def _first_difference(made: Path, folder: Path) -> str | None:
    """How the files directly in two folders differ; None if they don't."""
    if not folder.is_dir():
        return "not a folder"
    ours, theirs = ({child.name for child in each.iterdir() if not is_leftover(child)} for each in (made, folder))
    if ours != theirs:
        return f"only one has {min(ours ^ theirs)}"
    _, different, unread = filecmp.cmpfiles(made, folder, sorted(ours), shallow=False)
    return next((f"{name} differs" for name in (*different, *unread)), None)


def remove_folder(folder: Path) -> None:
    """Remove a folder in the cache with all that is in it; its name, with a hash, tells that it is ours."""
    shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path, names: Collection[str]) -> None:
    """Remove these files of ours and what dead processes left, and the folder if nothing else is in it."""
    if is_silent(folder):
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)
    remove_leftovers(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()
