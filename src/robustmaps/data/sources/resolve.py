"""From a spec to its source."""

import os
from pathlib import Path

from robustmaps.data.known import KNOWN, HubId
from robustmaps.data.source import Source
from robustmaps.data.sources.archive import SUFFIXES, Archive, suffix_of
from robustmaps.data.sources.digits import Digits
from robustmaps.data.sources.folder import Folder
from robustmaps.data.sources.hub import Hub
from robustmaps.data.sources.idx import Idx, is_idx_folder
from robustmaps.data.sources.npz import Npz
from robustmaps.engine.errors import InputError, unknown

_HUB_PREFIX = "hf:"


def resolve(spec: str | Path) -> Source:
    """Find the source that a spec names: a known name first, then ``hf:``, then a path.

    Raises:
        InputError: there is no such name or path, or the path is nothing that images can be read from.
    """
    text = str(spec)
    if isinstance(spec, str):
        if text in KNOWN:
            hub = KNOWN[text].hub
            return Hub(text, hub) if hub else Digits()
        if text.startswith(_HUB_PREFIX):
            return _hub(text.removeprefix(_HUB_PREFIX))
    path = Path(spec).expanduser()
    if path.exists():
        return _at_path(path.resolve())
    if isinstance(spec, Path) or os.sep in text or suffix_of(path) or path.suffix:
        raise InputError(f"{text}: no such file or folder")
    raise unknown("data set", text, [*KNOWN, "hf:owner/name", "a path"])


def _hub(text: str) -> Hub:
    folder = Path(text).expanduser()
    if folder.is_dir():
        return Hub(folder.resolve().name, HubId(str(folder.resolve())))
    repository, _, revision = text.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"hf:{text}: expected hf:owner/name, hf:owner/name@revision or hf:FOLDER")
    return Hub(repository.split("/")[1], HubId(repository, revision=revision or None))


def _at_path(path: Path) -> Source:
    if path.is_dir():
        return Idx(path) if is_idx_folder(path) else Folder(path)
    if path.suffix.lower() == ".npz":
        return Npz(path)
    if suffix_of(path):
        return Archive(path)
    raise InputError(f"{path}: not a directory, nor a file of a known kind ({', '.join(SUFFIXES)}, .npz)")
