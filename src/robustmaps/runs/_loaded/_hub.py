"""Networks on the Hugging Face hub: pushed with their card, and opened without running code from there."""

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.download import downloading
from robustmaps.networks import PROGRAM_FILE, Checkpoint
from robustmaps.runs._export import CONFIG, FILES, export
from robustmaps.runs._loaded._load import LoadedNetwork, load
from robustmaps.runs._model_card import CARD

_WEIGHTS = FILES["safetensors"]
_SERVER = "https://huggingface.co"


class HubApi(Protocol):
    """What is used of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Create a repository, or find it."""

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        """Add the files of a folder as one commit."""


def push_to_hub(
    model: str | Path | Checkpoint,
    repo_id: str,
    *,
    license: str = "unknown",  # noqa: A002 - the name of the card's field
    private: bool = False,
    data: str | Dataset | None = None,
    api: HubApi | None = None,
) -> str:
    """Export a network as safetensors and put it on the hub, with a model card of what was measured.

    Args:
        model: a run folder, its weights file, or an opened network, as for `export`.
        repo_id: ``OWNER/NAME``.
        license: of the weights, by the hub's identifiers, such as ``mit``, ``cc-by-4.0`` or ``other``.
        private: whether a new repository is private.
        data: a data set for the check, instead of the training data set.
        api: a ``huggingface_hub.HfApi``, such as with a token or of another server (default: one with the token of
            ``hf auth login``).

    Returns:
        The address of the repository.

    Raises:
        InputError: the name is none of a repository, huggingface_hub is missing or offline, or as `export`.
        ExportMismatch: the exported network computes something else; nothing was uploaded.

    Warns:
        UserWarning: see `export`.
    """
    _check_repository(repo_id)
    hub = api or _hub(repo_id).HfApi()
    with tempfile.TemporaryDirectory() as made:
        folder = export(model, "safetensors", Path(made) / "network", data=data, license=license).folder
        hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message="Network and card by robustmaps")
    return f"{getattr(hub, 'endpoint', _SERVER)}/{repo_id}"


def from_pretrained(model: str | Path, *, revision: str | None = None, data: str | None = None) -> LoadedNetwork:
    """Open a network that `push_to_hub` or `export` wrote, ready to classify images.

    Only weights and plain values are read; no code of the repository is run. A network that is made by code of its
    author opens from its program (``program.safetensors``). Where it has none, as its card says, that code has to be
    installed here and allowed (``robustmaps.networks.allow_code``).

    Args:
        model: a folder, or ``OWNER/NAME`` on the hub. ``HF_HUB_OFFLINE=1`` takes what was downloaded before.
        revision: a branch, tag or commit of the repository; a commit never changes.
        data: the images to give as ``data`` (default: those it was trained on).

    Raises:
        InputError: there is no such network, it can't be downloaded, it is damaged, or it names code that is not
            trusted.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"revision={revision!r}: {folder} is a folder, not a repository; leave revision out")
    else:
        folder = _downloaded(str(model), revision)
    missing = [name for name in (_WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{model}: has no {' and no '.join(missing)}; expected what push_to_hub or export wrote")
    return load(folder / _WEIGHTS, data=data)  # whose header has a checksum and the description


def _downloaded(repo_id: str, revision: str | None) -> Path:
    _check_repository(repo_id)
    hub = _hub(repo_id, offline=True)
    server = os.environ.get("HF_ENDPOINT") or _SERVER
    names = [_WEIGHTS, CONFIG, CARD, PROGRAM_FILE]
    try:
        with downloading(repo_id, server, "give a folder instead"):
            return Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=names))
    except InputError:
        raise
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        raise InputError(f"{repo_id}: can't be had from {server} ({str(error).splitlines()[0]})") from error


def _check_repository(repo_id: str) -> None:
    owner, slash, name = repo_id.partition("/")
    if not (owner and slash and name) or not all(c.isalnum() or c in "-_." for c in owner + name):
        raise InputError(f"{repo_id!r}: expected a folder, or OWNER/NAME of a repository on the hub")


def _hub(repo_id: str, *, offline: bool = False) -> Any:
    try:
        hub = importlib.import_module("huggingface_hub")
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        raise InputError(f"{repo_id}: needs huggingface_hub; pip install 'robustmaps[hub]'") from None
    if constants.HF_HUB_OFFLINE and not offline:
        raise InputError(f"{repo_id}: nothing can be pushed while HF_HUB_OFFLINE is set; unset it")
    return hub
