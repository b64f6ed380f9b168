"""Evaluate a checkpoint on a folder of corrupted images, and write the accuracies."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmaps.data import CorruptedImages, open_corruptions
from robustmaps.engine.checked import Damaged
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash, write_json
from robustmaps.engine.ranks.agreeing import from_main
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.writing.outputs import LOCK, alone, claim, claim_folder, discard
from robustmaps.evaluation import Identity, corruption_files, evaluate_corruptions, read_computed
from robustmaps.networks import Checkpoint, open_checkpoint
from robustmaps.runs._evaluation import Options
from robustmaps.runs._identity import place_for


@dataclass(frozen=True)
class CorruptedRun:
    """Accuracies on corrupted images, and their file.

    Attributes:
        figures: the file's contents.
        path: the file.
        before: whether the file already existed, with the same settings.
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

    A stopped call resumes after the last finished corruption.

    Args:
        checkpoint: a run folder, its weights file, or an opened checkpoint.
        folder: see `robustmaps.data.open_corruptions`.
        options: ``samples``, ``batch_size``, ``device`` and ``watcher`` are used.
        out: the file to write; by default named after the settings, in the run folder's ``evaluation``.

    Raises:
        InputError: the checkpoint or folder is invalid, the images don't fit the network, or another file is in the
            way.
    """
    options = options or Options()
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    corrupted = open_corruptions(folder)
    _check_size(opened, corrupted)
    samples = len(corrupted.labels) if options.samples is None else min(options.samples, len(corrupted.labels))
    decisive = [corrupted.fingerprint(), opened.sha256, samples]
    name = f"corruptions-{corrupted.folder.resolve().name}-{samples}-{short_hash(decisive)}.json"
    model = opened.model.to(resolve_device(options.device))
    network = Identity.of(model, corrupted.shape)

    def partial(path: Path) -> Path:
        # Named after the settings, so that an existing folder has the same ones.
        return path.with_name(f"{path.stem}-{short_hash(decisive)}.partial")

    def known() -> CorruptedRun | None:
        return CorruptedRun(_known(path, decisive, network), path, before=True) if path.exists() else None

    path = from_main(
        lambda: Path(out) if out else place_for(opened.folder / name, network, lambda file: [partial(file)])
    )
    if done := from_main(known):
        return done
    state, parts = partial(path), corruption_files(corrupted.names)
    claim(path)
    claim_folder(state, beside=parts)
    with alone(state / LOCK, "at this evaluation"):
        if done := from_main(known):  # another process has finished it meanwhile
            return done
        found = evaluate_corruptions(
            model,
            corrupted,
            samples=options.samples,
            batch_size=options.batch_size,
            state=state,
            watcher=options.watcher,
        )
        figures = replace(found, checkpoint_sha256=opened.sha256).to_dict()
        write_json(path, {**figures, "folder": corrupted.folder.resolve().name, "path": str(corrupted.folder)})
        discard(state, parts)
    return from_main(lambda: CorruptedRun(_known(path, decisive, network), path))


def _known(path: Path, decisive: list[Any], network: Identity) -> dict[str, Any]:
    """The file's contents, if from the same settings and network."""
    try:
        figures = read_json(path, "restore it from a copy, or delete it and evaluate again")
        found = [figures["fingerprint"], figures["checkpoint_sha256"], figures["images"]]
        same = found == decisive and network.matches(read_computed(figures.get("computes")))
    except Damaged:
        raise
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise InputError(f"{path}: contains something else; name another file with --out, or delete it")
    return figures


def _check_size(opened: Checkpoint, corrupted: CorruptedImages) -> None:
    """Refuse images of another size than the training images, if that is known."""
    size = opened.data.image_size if opened.data is not None else None
    if size is not None and corrupted.shape[1:] != (size, size):
        _, height, width = corrupted.shape
        raise InputError(
            f"{corrupted.folder}: images of {height} x {width}; {opened.name} was trained on {size} x {size}"
        )
