"""Who writes: of the ranks of a run, only the first; each for itself only in the cache of its machine."""

import os
from pathlib import Path

from robustmaps.engine.ranks import is_main
from robustmaps.engine.writing.temporaries import is_leftover


def cache_root(cache_dir: Path | None = None) -> Path:
    """The given folder, or ``$ROBUSTMAPS_CACHE``, or ``~/.cache/robustmaps``."""
    return Path(cache_dir or os.environ.get("ROBUSTMAPS_CACHE") or "~/.cache/robustmaps").expanduser()


def is_silent(path: str | Path) -> bool:
    """Whether this rank leaves a file to rank 0: neither claims nor writes, locks or removes it."""
    if is_main():
        return False
    whole = Path(path).absolute()
    # What is in a temporary folder is this process's own.
    return not any(is_leftover(part) for part in (whole, *whole.parents)) and not whole.is_relative_to(
        cache_root().absolute()
    )
