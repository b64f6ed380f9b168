"""From a checkpoint and a folder of corrupted images to accuracies in a file."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmaps.data import CorruptedImages, open_corruptions
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash, write_json
from robustmaps.evaluation import evaluate_corruptions
from robustmaps.networks import Checkpoint, open_checkpoint
from robustmaps.runs._evaluation import Options


@dataclass(frozen=True)
class CorruptedRun:
    """Accuracies on corrupted images, and where they were written.

    Attributes:
        figures: what the file holds.
        path: the file.
        before: whether it was there already, with the same settings.
    """

    figures: dict[str, Any]
    path: Path
    before: bool = False


def evaluate_corrupted(
    checkpoint: str | Path | Checkpoint,
    folder: str | Path,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> CorruptedRun:
    """Classify a folder of corrupted images with a trained network, and write the accuracies.

    A call that was stopped goes on from the last finished corruption.

    Args:
        checkpoint: a run folder, a weights file written by one, or an opened checkpoint.
        folder: see `robustmaps.data.open_corruptions`.
        options: ``samples``, ``batch_size``, ``device`` and ``watcher`` are used.
        out: the file to write; by default one named after the settings, in the run folder's ``evaluation``.

    Raises:
        InputError: a bad checkpoint or folder, images that don't fit the network, or a file that is in the way.
    """
    options = options or Options()
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    corrupted = open_corruptions(folder)
    _check_size(opened, corrupted)
    samples = len(corrupted.labels) if options.samples is None else min(options.samples, len(corrupted.labels))
    decisive = [corrupted.fingerprint(), opened.sha256, samples]
    name = f"corruptions-{corrupted.folder.resolve().name}-{samples}-{short_hash(decisive)}.json"
    path = Path(out) if out is not None else opened.folder / name
    if path.exists():
        return CorruptedRun(_known(path, decisive), path, before=True)
    # Named after the settings, so that what is found there is of the same ones.
    state = path.with_name(f"{path.stem}-{short_hash(decisive)}.partial")
    done = evaluate_corruptions(
        opened.model.to(resolve_device(options.device)),
        corrupted,
        samples=options.samples,
        batch_size=options.batch_size,
        state=state,
        watcher=options.watcher,
    )
    figures = replace(done, checkpoint_sha256=opened.sha256).to_dict()
    write_json(path, {**figures, "folder": corrupted.folder.resolve().name})
    shutil.rmtree(state, ignore_errors=True)
    return CorruptedRun(_known(path, decisive), path)


def _known(path: Path, decisive: list[Any]) -> dict[str, Any]:
    """What the file holds, if it is what would be computed now."""
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [figures["fingerprint"], figures["checkpoint_sha256"], figures["images"]]
    except (ValueError, KeyError, TypeError):
        found = []
    if found != decisive:
        raise InputError(f"{path}: contains something else; name another file with --out, or delete it")
    return figures


def _check_size(opened: Checkpoint, corrupted: CorruptedImages) -> None:
    """Refuse images of another size than those that the network was trained on, where that is known."""
    size = opened.data.image_size if opened.data is not None else None
    if size is not None and corrupted.shape[1:] != (size, size):
        _, height, width = corrupted.shape
        raise InputError(
            f"{corrupted.folder}: images of {height} x {width}; {opened.name} was trained on {size} x {size}"
        )
