"""Networks that were evaluated without being runs: recorded beside their results, and opened again from there."""

from dataclasses import asdict, replace
from pathlib import Path

from robustmaps.config import (
    EVALUATED,
    DataConfig,
    EvaluatedNetwork,
    folder_of_evaluated,
    read_evaluated,
    section_from_mapping,
)
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.trust import check_from_file, names_code
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.models import Pool
from robustmaps.networks._cost import image_cost
from robustmaps.networks._open_network import open_network
from robustmaps.networks._opened import found_anywhere
from robustmaps.networks._weights import Checkpoint, open_checkpoint
from robustmaps.training import RUN_WEIGHTS


def write_evaluated(
    checkpoint: Checkpoint, data: Dataset, *, image_size: int | None = None, channels: int | None = None
) -> None:
    """Record a network that is no run in the folder of its evaluations.

    Args:
        checkpoint: the network.
        data: the images it was evaluated on.
        image_size: as they were loaded, see `DataConfig`.
        channels: likewise.

    Raises:
        InputError: another file is in the way.
    """
    if checkpoint.opened is None or checkpoint.is_run:
        return
    path, found = checkpoint.folder / EVALUATED, read_evaluated(checkpoint.folder)
    if found is not None and found.checkpoint_sha256 == checkpoint.sha256:
        return
    opened, spec = checkpoint.opened, checkpoint.opened.recipe.spec
    norm, eps = opened.budget or (None, None)
    weights = None if checkpoint.path is None else str(checkpoint.path.resolve())
    describes_itself = weights is not None and opened.filled is None
    record = EvaluatedNetwork(
        # As it was typed, such as timm:NAME@pretrained; the recipe has no weights.
        model=spec if describes_itself or names_code(spec) else checkpoint.architecture,
        checkpoint_sha256=checkpoint.sha256,
        weights=None if describes_itself else weights,
        strides=opened.fit.strides,
        enlarge=opened.enlarge,
        saved=weights if describes_itself else None,
        pool=opened.fit.pool,
        data=asdict(
            DataConfig(
                data=found_anywhere(data.spec), classes=checkpoint.classes, image_size=image_size, channels=channels
            )
        ),
        norm=norm,
        eps=eps,
        cost=image_cost(checkpoint.model, data).to_dict(),
    )
    claim(path, ours=json_with("model", "checkpoint_sha256"))
    write_json(path, asdict(record))


def open_trained(
    model: str | Path,
    weights: str | None = None,
    *,
    strides: str | None = None,
    pool: Pool | None = None,
    enlarge: str | None = None,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    classes: str | None = None,
    random: bool = False,
) -> Checkpoint:
    """Open what a user calls a trained network: a run, a file, a folder with results, or any name of `open_network`.

    Args:
        model: the path or name.
        weights: of a run, one of `training.RUN_WEIGHTS`; else a file with weights.
        strides: see `open_network`.
        pool: likewise.
        enlarge: likewise.
        data: likewise.
        image_size: likewise.
        channels: likewise.
        classes: likewise.
        random: likewise.

    Raises:
        InputError: it can't be opened, or is trained as it is.
    """
    name = str(model)
    if not Path(name).exists() and ("/" not in name or ":" in name):
        return open_network(
            name,
            weights,
            strides=strides,
            pool=pool,
            enlarge=enlarge,
            data=data,
            image_size=image_size,
            channels=channels,
            classes=classes,
            random=random,
        )
    for option, value in (("strides", strides), ("pool", pool), ("enlarge", enlarge)):
        if value is not None:
            raise InputError(f"{option}={value}: {name} is trained as it is; leave {option} out")
    if weights is None and classes is None and not (Path(name) / "config.yaml").exists():
        return open_evaluated(Path(name))
    return open_checkpoint(name, weights or RUN_WEIGHTS[0], classes=classes)


def open_evaluated(folder: Path) -> Checkpoint:
    """Open the network of a run, or one that was evaluated without being a run, from the folder of its results.

    Raises:
        InputError: it can't be opened, it is made by code that is not trusted, or its weights have changed since.
    """
    place = folder_of_evaluated(folder)
    record = None if place is None else read_evaluated(place)
    if record is None or place is None:
        return open_checkpoint(folder)
    where = place / EVALUATED
    data = None if record.data is None else section_from_mapping(DataConfig(), record.data, str(where))
    if record.saved is not None:
        # The folder may have been moved since, with its weights.
        beside = place.parent / Path(record.saved).name
        opened = open_checkpoint(
            beside if beside.exists() else record.saved, classes=None if data is None else data.classes
        )
    else:
        check_from_file(record.model, where)
        opened = open_network(
            record.model,
            record.weights,
            strides=record.strides,
            pool=record.pool,
            enlarge=record.enlarge,
            data=None if data is None else data.data,
            image_size=None if data is None else data.image_size,
            channels=None if data is None else data.channels,
            classes=None if data is None else data.classes,
        )
    if opened.sha256 != record.checkpoint_sha256:
        raise InputError(f"{where}: {record.model} has other weights now; evaluate it again")
    return replace(opened, folder=place, data=data)
