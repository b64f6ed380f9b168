import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmaps.data import cache as cache_module
from robustmaps.data import load, prepare
from robustmaps.data.memory_map import RowFile, map_rows
from robustmaps.data.sources.folder import Folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were decoded, one entry for each time."""
    seen: list[Path] = []
    original = Folder.read

    def counted(self: Folder, *args: object) -> object:
        seen.append(self.path)
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "read", counted)
    return seen


def only_folder(cache_dir: Path) -> Path:
    (folder,) = (path for path in cache_dir.iterdir() if path.is_dir())
    return folder


def test_decoded_once(pets: Path, reads: list[Path]) -> None:
    first, second = load(pets), load(pets)
    assert len(reads) == 1
    assert torch.equal(first.train.images, second.train.images)
    assert first.fingerprint == second.fingerprint


def test_cutting_validation_never_reaches_the_cache(pets: Path) -> None:
    load(pets, validation=5, seed=1).train.images.zero_()
    assert load(pets, validation=0).train.images.any()


def test_the_cache_can_be_placed(pets: Path, tmp_path: Path, cache_dir: Path) -> None:
    load(pets, cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert not cache_dir.exists()


def test_another_image_size_is_another_folder(pets: Path, cache_dir: Path) -> None:
    assert load(pets, image_size=5).image_size == (5, 5)
    assert load(pets).image_size == (8, 6)
    assert len([path for path in cache_dir.iterdir() if path.is_dir()]) == 2


def truncate(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, corrupt, Path.unlink])
@pytest.mark.parametrize("name", ["train-images.npy", "test-labels.npy", "meta.json"])
def test_a_damaged_cache_is_rebuilt(
    damage: Callable[[Path], None], name: str, pets: Path, cache_dir: Path, reads: list[Path]
) -> None:
    expected = load(pets).train.images.clone()
    damage(only_folder(cache_dir) / name)
    assert torch.equal(load(pets).train.images, expected)
    assert len(reads) == 2 or name == "meta.json"
    load(pets)
    assert len(reads) <= 2


def test_another_version_is_rebuilt(pets: Path, cache_dir: Path, reads: list[Path]) -> None:
    load(pets)
    meta = only_folder(cache_dir) / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "version": 0}))
    load(pets)
    assert len(reads) == 2


def test_a_changed_source_is_decoded_again(pets: Path, reads: list[Path]) -> None:
    before = load(pets)
    shutil.copy(pets / "train/cat/0-RGB-6.png", pets / "train/dog/new.png")
    after = load(pets)
    os.utime(pets / "train/dog/new.png", ns=(1, 1))
    touched = load(pets)
    assert len(reads) == 3
    assert before.fingerprint != after.fingerprint == touched.fingerprint


def test_a_failed_preparation_leaves_nothing_and_destroys_nothing(
    pets: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = load(pets)
    folder = only_folder(cache_dir)
    monkeypatch.setattr(cache_module.store, "channel_statistics", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(pets, refresh=True)
    assert only_folder(cache_dir) == folder
    assert load(pets).fingerprint == good.fingerprint


def test_a_killed_preparation_is_cleared_away(pets: Path, cache_dir: Path) -> None:
    load(pets)
    folder = only_folder(cache_dir)
    folder.rename(f"{folder}.partial")
    (cache_dir / f"{folder.name}.partial" / "meta.json").unlink()
    load(pets)
    assert only_folder(cache_dir) == folder


def test_refresh_decodes_again(pets: Path, reads: list[Path]) -> None:
    prepare(pets)
    prepare(pets, refresh=True)
    assert len(reads) == 2


def test_an_unwritable_cache_says_what_to_set(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"can't write the cache .* set ROBUSTMAPS_CACHE"):
        load(pets, cache_dir=tmp_path / "file" / "cache")


def _load_in_process(folder: Path, queue: "multiprocessing.Queue[str]") -> None:
    queue.put(load(folder).fingerprint)


def test_two_at_once_decode_once(pets: Path, reads: list[Path]) -> None:
    # The lock belongs to the open file, so it separates threads as it does processes, at a fraction of the time.
    with ThreadPoolExecutor(4) as pool:
        found = {data.fingerprint for data in pool.map(load, [pets] * 4)}
    assert len(reads) == len(found) == 1


@pytest.mark.slow
def test_two_processes_at_once(pets: Path, cache_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_load_in_process, args=(pets, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert found == {load(pets).fingerprint}
    assert not list(cache_dir.glob("*.partial"))


def test_a_row_file_grows_and_widens(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)
    colour = np.arange(72, dtype=np.uint8).reshape(2, 3, 3, 4)
    with RowFile(tmp_path / "x.npy") as file:
        for images in (grey, colour, grey):
            file.append(images)
    expected = np.concatenate([grey.repeat(3, axis=1), colour, grey.repeat(3, axis=1)])
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)
    assert np.array_equal(map_rows(tmp_path / "x.npy"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_a_set_larger_than_memory_can_be_mapped(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = memory * 2 // 3072
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (rows, 3, 32, 32)})
        try:
            file.truncate(file.tell() + rows * 3072)
        except OSError:
            pytest.skip("the file system holds no sparse file of that size")
    images = map_rows(path)
    images[-1] = 7
    assert images[-1].min() == 7
    assert images[0].max() == 0
