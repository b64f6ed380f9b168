"""The run folder knows its files and its best epoch, without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robustmaps.engine.checked import Damaged
from robustmaps.training import RunFolder, best_epoch, is_chosen


def epoch(clean: float, robust: float | None = None) -> dict[str, float]:
    return {"validation_clean_accuracy": clean, **({} if robust is None else {"validation_robust_accuracy": robust})}


@pytest.mark.parametrize(
    ("history", "epochs", "expected"),
    [
        ([], 3, None),
        ([{}, {}], 3, None),  # nothing validated, and not the last
        ([{}, {}, {}], 3, 3),  # without validation images the last is kept
        ([epoch(0.5), epoch(0.7), epoch(0.6)], 3, 2),
        ([epoch(0.9, 0.2), epoch(0.5, 0.3)], 3, 2),  # under attack first
        ([epoch(0.5, 0.3), epoch(0.6, 0.3), epoch(0.6, 0.3)], 5, 2),  # then clean, then the earlier
    ],
)
def test_the_best_epoch(history: list[dict[str, float]], epochs: int, expected: int | None) -> None:
    assert best_epoch(history, epochs) == expected


def test_a_run_folder_needs_no_torch() -> None:
    code = (
        "import sys; from robustmaps.training import RunFolder; f = RunFolder('run'); "
        "print([p.name for p in (f.best, f.last, f.config, f.metrics, f.error, f.cost, f.environment)], "
        "'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = [
        "best.safetensors",
        "last.pt",
        "config.yaml",
        "metrics.jsonl",
        "error.txt",
        "cost.json",
        "environment.json",
    ]
    assert found.strip() == f"{names} False"


def test_the_environment_of_earlier_sessions_is_kept(tmp_path):
    folder = RunFolder(tmp_path)
    for threads in (1, 1, 2, 2, 4):
        folder.write_environment({"torch": "2", "threads": threads})
        assert threads > 1 or "before" not in json.loads(folder.environment.read_text())
    found = json.loads(folder.environment.read_text())
    assert found["threads"] == 4
    assert [each["threads"] for each in found["before"]] == [1, 2]


@pytest.mark.parametrize(("chosen", "word"), [(True, "best"), (False, "last")])
def test_the_last_line_says_how_the_epoch_of_the_weights_was_chosen(tmp_path: Path, chosen: bool, word: str) -> None:
    folder = RunFolder(tmp_path)
    folder.log_finish(3, chosen=chosen)
    assert (tmp_path / "log.txt").read_text().endswith(f"finished; {word} epoch 3\n")
    folder.best.write_bytes(b"")
    with pytest.raises(Damaged):
        folder.check_whole([{}], 3)
    record = {"validation_clean_accuracy": 0.5} if chosen else {}
    assert is_chosen([record, {}]) is chosen
