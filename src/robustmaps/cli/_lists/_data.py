"""``robustmaps data list|prepare|show``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching
from robustmaps.engine.progress import decoding
from robustmaps.engine.tables import table
from robustmaps.engine.writing.outputs import claim, is_picture

DESCRIPTION = {
    "list": "List the data sets that have a name, and the other forms that --data takes.",
    "prepare": "Decode a data set into the cache, so that training starts immediately.",
    "show": "Show a data set's sizes, classes and statistics; with --picture, write a PNG of some images.",
}


@dataclass(frozen=True)
class ListArguments:
    """Options of the list.

    Attributes:
        json: print the list as one JSON object
    """

    json: bool = False


@dataclass(frozen=True)
class ChosenData:
    """The images as the cache stores them.

    Attributes:
        data: name or path of a data set; see `robustmaps data list`
        image_size: side length in pixels to resize the images to (default: the data set's own)
        channels: channels of the images: 1 turns colours grey, 3 repeats grey (default: the data set's own)
        augment: augmentation that will be used; resized-crop needs images an eighth larger
        json: print the result as one JSON object
    """

    data: tyro.conf.Positional[str]
    image_size: int | None = None
    channels: int | None = None
    augment: Literal["auto", "resized-crop"] = "auto"
    json: bool = False

    @property
    def size(self) -> dict[str, Any]:
        """What decides the shape in which the images are stored."""
        crop = True if self.augment == "resized-crop" else None
        return {"image_size": self.image_size, "channels": self.channels, "resized_crop": crop}


@dataclass(frozen=True)
class PrepareArguments(ChosenData):
    """Options of preparing.

    Attributes:
        refresh: decode again what is cached already
    """

    refresh: bool = False


@dataclass(frozen=True)
class ShowArguments(ChosenData):
    """Options of showing.

    Attributes:
        classes: names of the classes in the order of the labels, with commas, or a text file with one a line (default:
            the data set's own; of folders, as text: 10 before 2)
        validation: part of the training images held out; a fraction, or a number
        picture: PNG to write, with some test images of each class (default: no picture)
    """

    classes: str | None = None
    validation: float = 0.1
    picture: Path | None = None


Arguments = (
    Annotated[ListArguments, tyro.conf.subcommand("list", description=DESCRIPTION["list"])]
    | Annotated[PrepareArguments, tyro.conf.subcommand("prepare", description=DESCRIPTION["prepare"])]
    | Annotated[ShowArguments, tyro.conf.subcommand("show", description=DESCRIPTION["show"])]
)


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    match parse(cast("type[Any]", Arguments), arguments, "data", "List, prepare or show data sets."):
        case ListArguments() as given:
            _list(given)
        case PrepareArguments() as given:
            _prepare(given)
        case ShowArguments() as given:
            _show(given)


def _list(given: ListArguments) -> None:
    from robustmaps.data import KNOWN, forms

    rows = [(name, s.title, str(s.classes), f"{s.train:,}", f"{s.test:,}", s.size) for name, s in KNOWN.items()]
    values = {
        name: {"title": s.title, "classes": s.classes, "train": s.train, "test": s.test, "size": s.size}
        for name, s in KNOWN.items()
    }
    Output(given.json).result(
        {"known": values, "forms": forms()},
        table(("--data", "what", "classes", "train", "test", "pixels"), rows, words=2),
        table(("or", "what"), list(forms().items()), words=2),
    )


def _prepare(given: PrepareArguments) -> None:
    from robustmaps.data import prepare

    with watching() as watch:
        stored = prepare(given.data, **given.size, refresh=given.refresh, progress=decoding(watch))
    sizes = {split: len(images) for split, images in stored.splits.items()}
    about = {"images": sizes, "classes": stored.classes, "fingerprint": stored.fingerprint, "notes": stored.notes}
    Output(given.json).result(
        {"data": given.data, **about},
        f"{given.data} is ready: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " images",
        *(f"Note: {note}" for note in stored.notes),
    )


def _show(given: ShowArguments) -> None:
    from robustmaps.data import describe, load

    if given.picture is not None:
        claim(given.picture, ours=is_picture)
    with watching() as watch:
        options = {**given.size, "validation": given.validation, "classes": given.classes}
        data = load(given.data, **options, progress=decoding(watch))
    about: dict[str, Any] = describe(data)
    written = []
    if given.picture is not None:
        from robustmaps.figures import plot_samples

        plot_samples(given.picture, data)
        about["picture"] = str(given.picture)
        written = [f"Picture: {given.picture}"]
    splits = list(about["images"])
    rows = [(name, *(f"{count:,}" for count in counts.values())) for name, counts in about["classes"].items()]
    rows.append(("all", *(f"{count:,}" for count in about["images"].values())))
    statistics = "; ".join(f"{name} {', '.join(f'{v:.4f}' for v in about[name])}" for name in ("mean", "std"))
    Output(given.json).result(
        about,
        f"{data.name}: {data.in_channels} x {about['height_px']} x {about['width_px']}, {data.num_classes} classes",
        table(("class", *splits), rows, words=1),
        f"Per channel, in [0, 1]: {statistics}",
        f"Training images are {data.augmentation}.",
        *(f"Note: {note}" for note in data.notes),
        *written,
    )
