"""Class names in a given order, so that labels agree with the outputs of a network trained elsewhere."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from robustmaps.data.store import Stored
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import read_limited

_LARGEST_BYTES = 1 << 20


def in_order(stored: Stored, classes: str | Sequence[str]) -> Stored:
    """The same images, with labels that count in the order of these class names.

    Args:
        stored: the data set.
        classes: names, also of classes without images; as a text, with commas, or a file with one a line.

    Raises:
        InputError: a name is missing or given twice, or the file can't be read.
    """
    names = _names(classes)
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times != 1:
        raise InputError(f"classes: {name!r} is given {times} times; expected each name once")
    place = {name: number for number, name in enumerate(names)}
    missing = [name for name in stored.classes if name not in place]
    if missing:
        raise InputError(f"classes: {missing[0]!r} of the data is missing; expected all of {', '.join(stored.classes)}")
    order = torch.tensor([place[name] for name in stored.classes])
    without = len(names) - len(stored.classes)
    note = f"classes: in the given order ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
    return replace(
        stored,
        splits={split: replace(images, labels=order[images.labels]) for split, images in stored.splits.items()},
        classes=names,
        notes=(
            *(note for note in stored.notes if not note.startswith("classes:")),
            f"{note}; {without} of {len(names)} have no image" if without else note,
        ),
        fingerprint=hashlib.sha256(json.dumps([stored.fingerprint, names]).encode()).hexdigest()
        if names != stored.classes
        else stored.fingerprint,
    )


def _names(classes: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(classes, str):
        return tuple(classes)
    path = Path(classes).expanduser()
    if "," in classes and not path.exists():
        return tuple(name.strip() for name in classes.split(","))
    text = read_limited(path, _LARGEST_BYTES, "class names with commas, or a text file with one a line")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
