"""Temporary files and folders, which are removed when their process has died; and full disks."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from robustmaps.engine.errors import DiskFull

if sys.platform != "win32":  # where leftovers stay
    import fcntl

SUFFIX = ".robustmaps.tmp"
_MASK = Lock()
# Names may have 255 bytes; a character takes up to four.
_LONGEST = 50
_FULL = {errno.ENOSPC: "", errno.EDQUOT: "the quota is used up", errno.EFBIG: "it is larger than allowed here"}
# What libraries raise instead of an OSError: PyTorch, NumPy, safetensors.
_FULL_TEXTS = ("No space left", "file write failed", "failed writing file", "unexpected pos", " requested and ")


@contextmanager
def temporary(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """A new file or folder beside ``target``, to be renamed to it; whatever is still there afterwards is removed.

    A living process holds a lock on it (flock), which ends with the process however that ends. So the leftovers of dead
    processes beside ``target`` are recognised and removed first, and those of living ones never.
    """
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        path, lock = _create(target, folder)
        try:
            yield path
        finally:
            _remove(path)
            os.close(lock)


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes left in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f".*{SUFFIX}"):
            _remove_if_dead(path)


def is_leftover(path: Path) -> bool:
    """Whether it has the name of a temporary file or folder."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Within the block, whatever is raised because the disk is full becomes an error that says so.

    Raises:
        DiskFull: the disk or the quota is full, or the file is larger than allowed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or (reason := why_full(error)) is None:
            raise
        raise DiskFull(path, reason) from error


def why_full(error: BaseException | None) -> str | None:
    """Why an error means that there is no space left: what it adds to that, or None if it means something else."""
    while error is not None:
        if isinstance(error, DiskFull):
            return error.reason
        if isinstance(error, OSError) and error.errno in _FULL:
            return _FULL[error.errno]
        if any(text in str(error) for text in _FULL_TEXTS):
            return ""
        error = error.__cause__ or error.__context__
    return None


def _mask() -> int:
    """What new files may not permit. Elsewhere than on Linux it can be read only by setting it, for all threads."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    with _MASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _create(target: Path, folder: bool) -> tuple[Path, int]:
    prefix = f".{target.name[:_LONGEST]}."
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(SUFFIX, prefix, target.parent))
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
        else:
            handle, name = tempfile.mkstemp(SUFFIX, prefix, target.parent)
            path = Path(name)
        with contextlib.suppress(OSError):  # a file system without locks, where leftovers stay
            _lock(handle)
        # Another process may have taken it for a leftover before it was locked.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(handle)):
                # It was made private; give it the permissions of anything new.
                path.chmod((0o777 if folder else 0o666) & ~_mask())
                return path, handle
        os.close(handle)


def _lock(handle: int, *, wait: bool = True) -> None:
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _remove_if_dead(path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        # Not through a link, and without waiting for the other end of a FIFO.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        _lock(handle, wait=False)
        _remove(path)
    except OSError:  # alive, or locks are unknown here
        pass
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
