"""Trained networks from files: our own, which describe themselves, and weights for a user's network."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from robustmaps.config import DataConfig, images_needed
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.reading.plain import loads
from robustmaps.engine.trust import names_code
from robustmaps.networks._checkpoints import copy_values, networks_that_fit
from robustmaps.networks._data import load_data
from robustmaps.networks._opened import OpenedNetwork
from robustmaps.networks._program._choice import WEIGHTS, program_beside, with_program
from robustmaps.networks._program._file import PROGRAM_FILE
from robustmaps.networks._same_run import check_same_run
from robustmaps.networks._takes import check_takes
from robustmaps.training import DESCRIPTION, RUN_WEIGHTS, RunFolder, other_weights, read_weights

UNKNOWN_BUDGET = ("linf", 8 / 255)
"""What is attacked with where nobody says, and where nobody knows what the network was trained for."""
NAME_ORDER = "name the classes in the order of the outputs with --classes"
"""What to do about an order of outputs that is not recorded."""
_MOST_WITHOUT_WEIGHTS = 1000
_LONGEST_SIDE_PX = 1 << 14


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, and what is known of it.

    Attributes:
        path: the weights' file; None for a network that brings its own.
        folder: where its evaluations are written.
        name: for people.
        architecture: the network's name.
        model: the network, on the CPU.
        data: the images it was trained on, as a configuration; None where unknown.
        norm, eps: the budget it was trained for.
        sha256: of the weights' file, or of the weights.
        classes: the names of its outputs, in order, as in `DataConfig`; None for the order of the data set.
        trained_classes, trained_size: names of the classes, and height and width of the images, that it was trained
            on; None where unknown.
        notes: what was recognised or assumed of another program's weights.
        weights: which of a run's weights, if not the best.
        opened: the network as it was opened, with how it is made again; None for one made by hand.
    """

    path: Path | None
    folder: Path
    name: str
    architecture: str
    model: nn.Module
    data: DataConfig | None
    norm: str
    eps: float
    sha256: str
    classes: str | None = None
    trained_classes: tuple[str, ...] | None = None
    trained_size: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    weights: str | None = None
    opened: OpenedNetwork | None = None

    @property
    def is_run(self) -> bool:
        """Whether a run folder contains it, with its configuration."""
        return self.path is not None and RunFolder(self.path.parent).config.exists()

    @property
    def knows_budget(self) -> bool:
        """Whether norm and eps are known, and not those that are attacked with where nobody knows."""
        return self.opened is None or self.opened.budget is not None

    def __str__(self) -> str:
        """Its weights' file, for messages."""
        return self.name if self.path is None else str(self.path)


def data_for(
    checkpoint: Checkpoint,
    data: str | Dataset | None,
    watcher: Watcher = ignore,
    *,
    image_size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """The images that are given, or those that the network was trained on.

    Args:
        checkpoint: the network.
        data: a spec, or loaded images; None for those that it was trained on.
        watcher: called while a data set is decoded for the first time.
        image_size: pixels a side to resize the images to; where None, as those that it was trained on.
        channels: of the images, 1 or 3; likewise.

    Raises:
        InputError: none are given, and none are known; or they have other classes or another size than those that the
            network was trained on.
    """
    given = DataConfig(image_size=image_size, channels=channels)
    loaded = data if isinstance(data, Dataset) else load_data(_config_for(checkpoint, data, given), watcher)
    _check_fits(checkpoint, loaded)
    check_takes(checkpoint.model, checkpoint.name, loaded)
    return loaded


def _config_for(checkpoint: Checkpoint, data: str | None, given: DataConfig) -> DataConfig:
    if data is None and checkpoint.data is None:
        raise images_needed(checkpoint.name)
    config = checkpoint.data or DataConfig()
    return replace(
        config,
        data=data or config.data,
        classes=checkpoint.classes or config.classes,
        image_size=given.image_size or config.image_size,
        channels=given.channels or config.channels,
    )


def _check_fits(checkpoint: Checkpoint, data: Dataset) -> None:
    """Refuse images that the network was not trained for.

    Raises:
        InputError: other classes, or another size.
    """
    ours, theirs = checkpoint.trained_classes, tuple(data.classes)
    if ours is not None and not same_classes(ours, theirs):
        order = "; these are the same in another order" if sorted(ours) == sorted(theirs) else ""
        raise InputError(
            f"data={data.name}: has {listed(theirs)}; {checkpoint.name} was trained on {listed(ours)}{order}; give "
            "images of those classes, or say their order with --classes"
        )
    size = checkpoint.trained_size
    if size is not None and tuple(size) != tuple(data.image_size):
        was, now = (" x ".join(map(str, each)) for each in (size, data.image_size))
        raise InputError(
            f"data={data.name}: images of {now} pixels; {checkpoint.name} was trained on {was}; {_resized(size)}"
        )


def _resized(size: Sequence[int]) -> str:
    height, width = size
    return f"--image-size {height} resizes them" if height == width else "resize the images"


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether names agree; numbers, as in sources without names, stand for any names that are not numbers."""
    if len(ours) != len(theirs):
        return False
    if [all(name.isdecimal() for name in names) for names in (ours, theirs)] in ([True, False], [False, True]):
        return True
    return [re.sub(r"[\W_]+", "", name).casefold() for name in ours] == [
        re.sub(r"[\W_]+", "", name).casefold() for name in theirs
    ]


def unknown_order(data: Dataset, trained_on: DataConfig | None) -> str | None:
    """Why labels may not agree with the outputs of trained weights that do not record their order; None if they do.

    Args:
        data: the images, in no given order of classes.
        trained_on: those that the network was trained on, if that is known.
    """
    numbers = [name for name in data.classes if name.isdecimal()]
    if numbers == sorted(numbers, key=int) or (trained_on is not None and trained_on.data == data.spec):
        return None
    return (
        f"the classes of {data.name} are numbers in the order of text ({', '.join(data.classes[:3])}, ...), and the "
        "weights do not record the order of the network's outputs"
    )


def listed(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def weights_file(path: str | Path, which: str = RUN_WEIGHTS[0]) -> Path:
    """The weights of a run folder, or of one that `save_enlarged` wrote; the file itself where it is one.

    Args:
        path: the folder or file.
        which: of `RUN_WEIGHTS`, for a run folder.

    Raises:
        InputError: there is none.
    """
    if which not in RUN_WEIGHTS:
        raise InputError(
            f"weights={which}: expected {', '.join(RUN_WEIGHTS)} of {path}; weights of a file go with the "
            f"name of its network, such as resnet18 --weights {which}"
        )
    weights_path = _weights_in(Path(path), which) if Path(path).is_dir() else Path(path)
    if which != RUN_WEIGHTS[0] and not Path(path).is_dir():
        raise InputError(f"weights={which}: {path} is a file; give the run folder")
    if not weights_path.exists():
        if Path(path).is_dir():
            raise InputError(f"{path}: not a finished run; train it to the end first (expected {weights_path.name})")
        raise InputError(f"{path}: no such file or folder; expected a run folder or a weights file")
    check_regular(weights_path, "a run folder or a weights file")
    return weights_path


def open_weights(path: str | Path, which: str = RUN_WEIGHTS[0]) -> tuple[OpenedNetwork, Path, str]:
    """The network of a run folder, of a folder that `save_enlarged` wrote, or of a weights file of either.

    Args:
        path: the folder or file.
        which: see `weights_file`.

    Returns:
        The network, the weights' file, and the hash of the bytes that were read from it.

    Raises:
        InputError: no such file, it does not describe its network, the weights don't fit that, or the configuration
            beside them is damaged or another run's.

    Warns:
        UserWarning: the network of somebody's own function is opened from the program beside it, with the reason.
    """
    weights_path = weights_file(path, which)
    if weights_path.suffix != ".safetensors":
        raise InputError(f"{weights_path}: not weights of a run{_of_a_network(weights_path)}")
    loaded = read_weights(weights_path)

    def described(program: nn.Module | None) -> OpenedNetwork:
        opened = OpenedNetwork.from_description(about, weights_path, program)
        _fill(opened.model, loaded.tensors, weights_path, opened.recipe.spec)
        return opened

    try:
        about = loads(loaded.description[DESCRIPTION])
        _check_size(about, sum(tensor.numel() for tensor in loaded.tensors.values()))
        spec, program = str(about["model"]["name"]), program_beside(weights_path)
        if program is not None and names_code(spec):
            opened = with_program(described, spec, loaded, weights_path, program)
        else:
            opened = _by_code(described, spec)
    except InputError:
        raise
    except Exception as error:  # whatever libraries raise for arguments that nobody wrote
        raise InputError(
            f"{weights_path}: its header does not describe a network written by robustmaps{_of_a_network(weights_path)}"
        ) from error
    if opened.program is not None:
        text = f"{weights_path.parent}: opened from its program, as the network was when saved: {opened.program}"
        warnings.warn(text, stacklevel=2)
    if weights_path.stem in RUN_WEIGHTS:
        check_same_run(weights_path, opened)
    return opened, weights_path, loaded.sha256


def _by_code(described: Callable[[nn.Module | None], OpenedNetwork], spec: str) -> OpenedNetwork:
    """What the header describes, made by code; for somebody's own, an error says that there is no other way."""
    try:
        return described(None)
    except InputError as error:
        if names_code(spec):
            error.add_note(
                f"note: {PROGRAM_FILE}, from which it would open without {spec}, is not beside it; it is written for "
                "networks that torch.export can follow"
            )
        raise


def _of_a_network(path: Path) -> str:
    """How the weights of another program are opened."""
    try:
        names = networks_that_fit(path)
    except InputError as error:
        return f" ({error})"
    name = names[0] if names else "mine:network"
    return f"; give the name of its network and the file as its weights, such as {name} --weights {path}"


def _check_size(about: Any, values: int) -> None:
    """Refuse sizes that no network with so many values in its weights has, before memory is taken for them."""
    sizes = [about["model"].get("num_classes", 1), about["model"].get("in_channels", 1)]
    if any(size > max(values, _MOST_WITHOUT_WEIGHTS) for size in sizes):
        raise ValueError(f"num_classes, in_channels={sizes}: more than its {values:,} weights")
    if any(side > _LONGEST_SIDE_PX for change in about.get("enlarge", ()) for side in change["image_size"]):
        raise ValueError(f"image_size: more than {_LONGEST_SIDE_PX} pixels")


def open_checkpoint(path: str | Path, which: str = RUN_WEIGHTS[0], *, classes: str | None = None) -> Checkpoint:
    """Read weights of a run folder, or a weights file of ours.

    Args:
        path: the folder or file.
        which: see `weights_file`.
        classes: see `Checkpoint`.

    Raises:
        InputError: no such file, or it does not describe its network.
    """
    opened, weights_path, digest = open_weights(path, which)
    run = weights_path.resolve().parent
    folder = RunFolder(weights_path.parent).evaluations_of(weights_path)
    spec, (norm, eps) = opened.recipe.spec, opened.budget or UNKNOWN_BUDGET
    about = (classes, opened.classes, opened.image_size)
    other = other_weights(weights_path)
    name = run.name if other is None else f"{run.name}, {other} weights"
    known = (weights_path, folder, name, spec, opened.model, opened.data, norm, eps, digest, *about)
    return Checkpoint(*known, weights=other, opened=opened)


def _weights_in(folder: Path, which: str) -> Path:
    """A run folder has its weights under several names, a saved enlargement under one."""
    saved = folder / WEIGHTS
    if not saved.exists():
        return RunFolder(folder).weights(which)
    if which != RUN_WEIGHTS[0]:
        raise InputError(f"weights={which}: {folder} is no run, and has one set of weights; leave weights out")
    return saved


def _fill(model: nn.Module, weights: Any, path: Path, name: str) -> None:
    try:
        copy_values(model, weights, path)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights don't fit {name} ({error})") from error
