"""``robustmaps data list|prepare|show``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, rich_table
from robustmaps.cli._terminal._watch import watching
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.progress import decoding

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
class PrepareArguments:
    """Options of preparing.

    Attributes:
        data: name or path of a data set; see `robustmaps data list`
        image_size: side length in pixels to resize the images to (default: the data set's own)
        augment: augmentation to prepare for; resized-crop needs images an eighth larger
        refresh: decode again what is cached already
        json: print the result as one JSON object
    """

    data: tyro.conf.Positional[str]
    image_size: int | None = None
    augment: Literal["auto", "resized-crop"] = "auto"
    refresh: bool = False
    json: bool = False


@dataclass(frozen=True)
class ShowArguments:
    """Options of showing.

    Attributes:
        data: name or path of a data set; see `robustmaps data list`
        image_size: side length in pixels to resize the images to (default: the data set's own)
        augment: augmentation to show the images for; resized-crop needs images an eighth larger
        classes: names of the classes in the order of the labels, with commas, or a text file with one a line (default:
            the data set's own; of folders, as text: 10 before 2)
        validation: part of the training images held out; a fraction, or a number
        picture: PNG to write, with some test images of each class (default: no picture)
        json: print the result as one JSON object
    """

    data: tyro.conf.Positional[str]
    image_size: int | None = None
    augment: Literal["auto", "resized-crop"] = "auto"
    classes: str | None = None
    validation: float = 0.1
    picture: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    actions = {"list": _list, "prepare": _prepare, "show": _show}
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: robustmaps data {list,prepare,show} [options]\n")
        print("\n".join(f"  {action:<8} {what}" for action, what in DESCRIPTION.items()))
        if not arguments:
            raise InputError(f"data: expected an action, one of {', '.join(actions)}")
        return
    action, *rest = arguments
    if action not in actions:
        raise unknown("action of data", action, actions)
    actions[action](rest)


def _list(arguments: Sequence[str]) -> None:
    given = parse(ListArguments, arguments, "data list", DESCRIPTION["list"])
    from robustmaps.data import KNOWN, forms

    rows = [(name, s.title, str(s.classes), f"{s.train:,}", f"{s.test:,}", s.size) for name, s in KNOWN.items()]
    values = {
        name: {"title": s.title, "classes": s.classes, "train": s.train, "test": s.test, "size": s.size}
        for name, s in KNOWN.items()
    }
    Output(given.json).result(
        {"known": values, "forms": forms()},
        rich_table(("--data", "what", "classes", "train", "test", "pixels"), rows, texts=2),
        rich_table(("or", "what"), list(forms().items()), texts=2),
    )


def _prepare(arguments: Sequence[str]) -> None:
    given = parse(PrepareArguments, arguments, "data prepare", DESCRIPTION["prepare"])
    from robustmaps.data import prepare

    with watching() as watch:
        stored = prepare(given.data, **_stored_size(given), refresh=given.refresh, progress=decoding(watch))
    sizes = {split: len(images) for split, images in stored.splits.items()}
    about = {"images": sizes, "classes": stored.classes, "fingerprint": stored.fingerprint, "notes": stored.notes}
    Output(given.json).result(
        {"data": given.data, **about},
        f"{given.data} is ready: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " images",
        *(f"Note: {note}" for note in stored.notes),
    )


def _stored_size(given: PrepareArguments | ShowArguments) -> dict[str, Any]:
    return {"image_size": given.image_size, "resized_crop": True if given.augment == "resized-crop" else None}


def _show(arguments: Sequence[str]) -> None:
    given = parse(ShowArguments, arguments, "data show", DESCRIPTION["show"])
    from robustmaps.data import describe, load

    with watching() as watch:
        options = {**_stored_size(given), "validation": given.validation, "classes": given.classes}
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
        rich_table(("class", *splits), rows),
        f"Per channel, in [0, 1]: {statistics}",
        f"Training images are {data.augmentation}.",
        *(f"Note: {note}" for note in data.notes),
        *written,
    )
