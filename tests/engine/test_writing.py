"""Outputs replace nothing but our own, the dead leave nothing, and a full disk is called one."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustmaps.engine.errors import DiskFull, InputError
from robustmaps.engine.files import append_line, atomic, write_json, write_text
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.writing.outputs import (
    LOCK,
    alone,
    claim,
    claim_folder,
    discard,
    is_picture,
    json_with,
    publish,
    tensors_with,
)
from robustmaps.engine.writing.temporaries import SUFFIX, temporary, why_full

HOLD = """
import sys, time
from pathlib import Path
from robustmaps.engine.writing.temporaries import temporary
with temporary(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as made:
    print(made, flush=True)
    time.sleep(60)
"""


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(f".*{SUFFIX}"))


@pytest.mark.parametrize("make", ["file", "folder", "link", "nothing at the end of a link"])
def test_what_exists_is_refused(make, tmp_path):
    path, other = tmp_path / "out.json", tmp_path / "other"
    if make == "file":
        path.write_text("{}")
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to(other)
        other.touch() if make == "link" else None
    for ours in (None, json_with("verdicts")):
        with pytest.raises(InputError, match=r"out.json already exists.*; choose another path or remove it"):
            claim(path, ours=ours)


def test_ours_may_be_replaced(tmp_path):
    path = tmp_path / "out.json"
    for text, same in [
        ('{"a": 1, "b": 2}', True),
        ('{"a": 1}', False),
        ('{"a": 3, "b": 2}', False),
        ("[" * 9999, False),
    ]:
        path.write_text(text)
        assert json_with("b", a=1)(path) is same
    path.write_bytes(b"\xff" * 20)
    assert not json_with()(path)
    assert not tensors_with()(path)
    save_file({"x": torch.zeros(1)}, path, {"norm": "linf"})
    assert tensors_with(norm="linf")(path)
    assert not tensors_with(norm="l2")(path)
    assert not tensors_with("eps")(path)
    assert not is_picture(path)


def test_two_outputs_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="would be the name of two outputs"):
        claim(tmp_path / "a.png", (tmp_path / "a.json").with_suffix(".png"))


def test_a_place_that_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is not a folder"):
        claim(tmp_path / "file" / "out.json")
    if sys.platform == "linux":
        with pytest.raises(InputError, match=r"/proc/new/out.json: can't be written \(.*\); choose another path"):
            claim("/proc/new/out.json")


def test_a_folder_is_claimed_when_new_empty_or_ours(tmp_path):
    folder = tmp_path / "out"
    claim_folder(folder)
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / f".page.abc{SUFFIX}").touch()
    claim_folder(folder)
    (folder / "notes.txt").touch()
    claim_folder(folder, beside=["notes.txt"])
    claim_folder(folder, lambda path: (path / "notes.txt").exists())
    with pytest.raises(InputError, match="out: already exists; name another folder"):
        claim_folder(folder)
    with pytest.raises(InputError, match="exists and is not a report"):
        claim_folder(folder, lambda _: False, "a report")


def test_discarding_leaves_the_files_of_others(tmp_path):
    folder = tmp_path / "k.partial"
    folder.mkdir()
    for name in ("state.json", "mine.txt", f".state.json.abc{SUFFIX}"):
        (folder / name).touch()
    discard(folder, ["state.json", "absent"])
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    discard(folder, [])
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_dead_leave_nothing_and_the_living_keep_theirs(kind, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "k.json"), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    made = Path(process.stdout.readline().strip())
    if kind == "folder":
        (made / "half.npy").write_bytes(b"half")
    write_text(tmp_path / "other.json", "{}")
    assert made.exists()
    process.kill()
    process.communicate()
    assert leftovers(tmp_path) == [made]
    write_text(tmp_path / "other.json", "{}")
    assert not leftovers(tmp_path)


def test_strangers_with_similar_names_stay(tmp_path):
    kept = [tmp_path / ".k.json.abc.tmp", tmp_path / f"k{SUFFIX}"]
    for path in kept:
        path.touch()
    (tmp_path / f".link{SUFFIX}").symlink_to(kept[0])
    os.mkfifo(tmp_path / f".fifo{SUFFIX}")
    write_text(tmp_path / "k.json", "{}")
    assert all(path.exists() for path in kept)


def test_a_file_is_replaced_or_left_alone(tmp_path):
    path = tmp_path / f"{'ü' * 120}.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError), atomic(path, "w") as file:
        print("half", file=file, end=0)
    assert read_json(path) == {"a": 1}
    assert not leftovers(tmp_path)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_only_one_process_at_a_time(tmp_path):
    lock = tmp_path / "out" / LOCK
    with alone(lock, "writing this"), pytest.raises(InputError, match=r"out: another process is writing this; wait"):
        alone(lock, "writing this").__enter__()
    assert not lock.parent.exists()


def test_a_name_taken_meanwhile_is_kept(tmp_path):
    target = tmp_path / "export"
    with temporary(target, folder=True) as made:
        (made / "mine").touch()
        target.mkdir()
        (target / "theirs").touch()
        with pytest.raises(InputError, match=r"export: contains another result \(only one has mine\)"):
            publish(made, target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["export", "theirs"]


def raised_by(write, path: Path) -> BaseException:
    with pytest.raises(DiskFull) as raised, atomic(path) as file:
        write(file)
    return raised.value


@pytest.mark.parametrize("writer", ["bytes", "torch", "numpy"])
def test_a_full_disk_is_called_that_whoever_finds_it(writer, tmp_path):
    """Files may not be larger than 64 KiB here, which to a program is as if the disk were full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes = {
        "bytes": lambda file: file.write(bytes(1 << 20)),
        "torch": lambda file: torch.save({"x": torch.zeros(1 << 18)}, file),
        "numpy": lambda file: np.save(file, np.zeros(1 << 18)),
    }
    path = tmp_path / "last.pt"
    path.write_text("before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        error = raised_by(writes[writer], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"no space left to write {path}" in str(error)
    assert path.read_text() == "before"
    assert not leftovers(tmp_path)


def test_a_line_that_does_not_fit_is_called_that(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(DiskFull, match="no space left to write /dev/full"):
        append_line("/dev/full", "epoch 1")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError("262144 requested and 8176 written"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (ValueError("loss is NaN"), False),
    ],
)
def test_what_means_that_the_disk_is_full(error, full):
    assert (why_full(error) is not None) is full
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    assert (why_full(wrapped) is not None) is full


def test_many_writers_of_one_file_end_in_one_good_file(tmp_path):
    """Cleaning never takes a file from a living writer."""
    code = (
        "import sys\nfrom robustmaps.engine.files import write_json\n"
        "for n in range(150): write_json(sys.argv[1], {'n': n})"
    )
    path = tmp_path / "k.json"
    began = time.monotonic()
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0], time.monotonic() - began
    assert read_json(path) == {"n": 149}
    assert not leftovers(tmp_path)


def test_writers_in_several_threads_leave_the_permissions_of_new_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask, which can be read only by setting it, is that of all threads."""
    mask, before = os.umask, os.umask(0o027)

    def slowly(value: int) -> int:
        found = mask(value)
        time.sleep(0.01)
        return found

    monkeypatch.setattr(os, "umask", slowly)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda n: write_text(tmp_path / str(n), "x"), range(12)))
        assert mask(0o027) == 0o027
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        mask(before)
