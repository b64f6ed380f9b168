"""Damage to the files of a run, by kind: what disks, editors, other programs and other people leave."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LARGE = "9" * 5000


def _gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _pipe(path: Path) -> None:
    _gone(path)
    os.mkfifo(path)


def _socket(path: Path) -> None:
    _gone(path)
    before = Path.cwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    _gone(path)
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    _gone(path)
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    _gone(path)
    path.mkdir()


def _holes(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def written(text: str | bytes) -> Damage:
    """Replaces the contents."""

    def damage(path: Path) -> None:
        _gone(path)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


ANY_FILE: dict[str, Damage] = {
    "pipe": _pipe,
    "socket": _socket,
    "device": _device,
    "loop": _loop,
    "folder": _folder,
    "holes": _holes,
    "bytes": written(b"\xff\xfe\x00\x80"),
    "zeros": written(bytes(4096)),
    "deep": written("[" * 100_000),
}
"""To any file that is read as text."""

YAML: dict[str, Damage] = {
    "list": written("- 1\n- 2\n"),
    "bomb": written(BOMB),
    "itself": written("&a [*a]"),
    "large": written(f"epochs: {LARGE}\n"),
    "twice": written("epochs: 1\nepochs: 2\n"),
    "tag": written("epochs: !!bool maybe\n"),
    "object": written("epochs: !!python/object/apply:os.getcwd []\n"),
    "epochs": written("epochs: -3\n"),
    "eps": written("eps: x\n"),
    "nan": written("eps: .nan\n"),
    "mapping": written("data: {a: b}\n"),
    "many": written("data: [" + "a," * 100_000 + "]\n"),
}

JSON: dict[str, Damage] = {
    "list": written("[1, 2]"),
    "empty": written("{}"),
    "text": written('"x"'),
    "large": written(f'{{"flops": {LARGE}}}'),
    "infinite": written('{"eps": 1e999}'),
    "nan": written('{"flops": NaN}'),
    "twice": written('{"flops": 1, "flops": 2}'),
    "half": written('{"norm": "\\ud800"}'),
}

WRONG: tuple[Any, ...] = (None, True, -1, 10**9, 1e300, "x", [], [[]], {}, {"a": [1]})
"""Values of which few are of any one field."""


def with_field(name: str, value: Any) -> Damage:
    """Replaces a field of a JSON file; its checksum goes, so that only the value is wrong."""

    def damage(path: Path) -> None:
        values = json.loads(path.read_text())
        values.pop("checksum", None)
        path.write_text(json.dumps({**values, name: value}))

    return damage


def fields(path: Path) -> Iterator[tuple[str, Any]]:
    """Each field of a JSON file with each wrong value."""
    for name in json.loads(path.read_text()):
        if name not in ("checksum", "format"):
            for value in WRONG:
                yield name, value
