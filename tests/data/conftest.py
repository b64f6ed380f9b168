import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(folder))
    return folder


@pytest.fixture
def write_images(tmp_path: Path) -> Writer:
    """Writes numbered PNGs of random pixels below a folder: ``write_images({"train/cat": 3})``."""

    def write(counts: dict[str, int], size: tuple[int, int] = (8, 6), mode: str = "RGB", root: str = "pets") -> Path:
        rng = np.random.default_rng(0)
        height, width = size
        for folder, count in counts.items():
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                shape = (height, width, 3) if mode == "RGB" else (height, width)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / root / folder / f"{number}-{mode}-{width}.png")
        return tmp_path / root

    return write


@pytest.fixture
def pets(write_images: Writer) -> Path:
    """Two classes with a train and a test split."""
    return write_images({"train/cat": 10, "train/dog": 8, "test/cat": 2, "test/dog": 3})


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Packs a folder's content into an archive beside it."""

    def write(folder: Path, name: str, mode: str) -> Path:
        if name.endswith(".zip"):
            with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as packed:
                for path in sorted(folder.rglob("*")):
                    packed.write(path, path.relative_to(folder))
            return tmp_path / name
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(folder, arcname=".")
        return tmp_path / name

    return write
