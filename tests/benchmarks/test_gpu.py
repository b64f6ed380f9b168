"""The script for a GPU, in miniature on a CPU: every step works, none is made twice, a training can be carried away."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import robustmaps

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from gpu_parts import carried  # noqa: E402

# Installed for other purposes; a machine that is lent for minutes has none of them.
ABSENT = ("tyro", "matplotlib", "jinja2", "torchattacks", "foolbox", "datasets", "tensorboard")
BLOCKER = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


# A rank that fails at its fifth training step, before the reduction that the others wait in.
FAILING = """
import os
if os.environ.get("RANK") == "1":
    from robustmaps.training._stepper import BatchTrainer
    inner, calls = BatchTrainer.__call__, []
    def step(self, *given):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("out of luck")
        return inner(self, *given)
    BatchTrainer.__call__ = step
"""


def run(folder: Path, *arguments: str, ranks: int = 1, begin: str = BLOCKER) -> subprocess.CompletedProcess[str]:
    """The script's end, with a program that each of its processes begins with."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(begin)
    source = Path(robustmaps.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{source}"}
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    script = [str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--out", str(folder / "gpu"), *arguments]
    return subprocess.run([sys.executable, *several, *script], env=environment, capture_output=True, text=True)


def call(folder: Path, *arguments: str, ranks: int = 1) -> str:
    done = run(folder, *arguments, ranks=ranks)
    done.check_returncode()
    return done.stdout


def steps_of(folder: Path) -> dict[str, dict[str, Any]]:
    return json.loads((folder / "gpu" / "gpu.json").read_text())["steps"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_step_works_without_the_optional_libraries_and_none_is_made_twice(tmp_path: Path) -> None:
    first = call(tmp_path, "--smoke", "--minutes", "14")
    record = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    compiler = torch.cuda.is_available() or "compiled view of resnet8: failed" not in first
    unfinished = {name: step for name, step in record["steps"].items() if step["status"] != "done"}
    assert set(unfinished) <= (set() if compiler else {"compiled view of resnet8"}), unfinished
    parts = {step["part"] for step in record["steps"].values()}
    assert parts == {"right", "speed", "gains"}
    checks = [step["values"] for step in record["steps"].values() if "ok" in step.get("values", {})]
    assert len(checks) >= 20
    assert all(values["ok"] for values in checks)
    assert record["comparisons"]
    page = (tmp_path / "gpu" / "gpu.md").read_text()
    for text in ("## Is it right?", "| resnet8 | together |", "view, bf16", "AutoAttack", "images/s"):
        assert text in page
    assert ": done" not in call(tmp_path, "--smoke", "--minutes", "14")


@pytest.mark.slow
def test_a_training_goes_on_from_its_pieces_on_another_machine(tmp_path: Path) -> None:
    # Time ends within the first training: 15 s are kept back for the end.
    here = call(tmp_path, "--smoke", "--only", "gains", "--minutes", "0.75")
    record = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert record["steps"], here
    (tmp_path / "gpu-work").rename(tmp_path / "given-back")
    there = call(tmp_path, "--smoke", "--only", "gains", "--minutes", "10")
    record = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert all(step["status"] == "done" for name, step in record["steps"].items() if name.startswith("train")), there


@pytest.mark.slow
def test_two_processes_share_the_trainings_and_one_records(tmp_path: Path) -> None:
    here = call(tmp_path, "--smoke", "--only", "gains", "--minutes", "10", ranks=2)
    made = steps_of(tmp_path)
    trained = {name: step for name, step in made.items() if name.startswith("train")}
    assert len(trained) == 4
    assert all(step["status"] == "done" for step in made.values()), here
    assert all(step["values"]["ranks"] == [2] for step in trained.values())
    assert here.count("Estimated:") == 1
    assert "(2 ranks)" in (tmp_path / "gpu" / "gpu.md").read_text()
    assert ": done" not in call(tmp_path, "--smoke", "--only", "gains", "--minutes", "10", ranks=2)
    call(tmp_path, "--smoke", "--only", "speed", "--minutes", "10", ranks=2)
    (shared,) = (step["values"] for name, step in steps_of(tmp_path).items() if name.startswith("step on 2 ranks"))
    rates = {label: row["images_per_s"] for label, row in shared["rows"].items()}
    assert list(rates) == ["one rank, batch 32", "2 ranks, batch 32 each", "2 ranks, batch 32"]
    each = shared["rows"]["2 ranks, batch 32 each"]
    assert each["efficiency"] == pytest.approx(rates["2 ranks, batch 32 each"] / 2 / rates["one rank, batch 32"])
    assert "| 2 ranks, batch 32 each |" in (tmp_path / "gpu" / "gpu.md").read_text()


@pytest.mark.slow
def test_a_rank_that_fails_is_recorded_by_the_first_and_the_call_goes_on_with_one(tmp_path: Path) -> None:
    failed = run(tmp_path, "--smoke", "--only", "gains", "--minutes", "5", ranks=2, begin=FAILING)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    entry = steps_of(tmp_path)["train at resnet8 122, 1 epochs, seed 0"]
    assert (entry["status"], entry["error"]) == ("failed", "rank 1: RuntimeError: out of luck")
    assert "Traceback" in entry["traceback"]
    assert len([name for name in steps_of(tmp_path) if name.startswith("train")]) == 1
    call(tmp_path, "--smoke", "--only", "gains", "--minutes", "10", "--retry")
    trained = [step for name, step in steps_of(tmp_path).items() if name.startswith("train")]
    assert len(trained) == 4
    assert all(step["status"] == "done" for step in trained)


@pytest.mark.slow
def test_an_error_before_the_first_step_ends_both_processes_and_is_said_once(tmp_path: Path) -> None:
    failed = run(tmp_path, "missing.npz", "--smoke", ranks=2)
    assert failed.returncode == 1
    assert failed.stderr.count("gpu.py: error: missing.npz") == 1, failed.stderr
    assert not (tmp_path / "gpu").exists()


def checkpoint(path: Path) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    weights = {"conv": torch.randn(8, 4, 3, 3, generator=generator), "bias": torch.randn(8, generator=generator)}
    weights["steps"] = torch.tensor(7)
    average = {name: value + 0.01 if value.is_floating_point() else value for name, value in weights.items()}
    state = {
        "model": weights,
        "average": average,
        "best_weights": {},
        "optimizer": {"state": {0: {"momentum_buffer": weights["conv"]}}, "param_groups": [{"lr": 0.1}]},
        "state": {"epoch": 3},
    }
    torch.save(state, path)
    return state


def test_pieces_give_the_checkpoint_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "PIECE_BYTES", 1000)
    state = checkpoint(tmp_path / "last.pt")
    (tmp_path / "out").mkdir()
    manifest = carried.write(tmp_path / "last.pt", tmp_path / "out", "a run")
    assert len(manifest["pieces"]) > 1
    assert all((tmp_path / "out" / name).stat().st_size <= 1000 for name in manifest["pieces"])
    back = carried.read(tmp_path / "out", manifest)
    assert back["state"] == state["state"]
    assert back["optimizer"] == {"state": {}, "param_groups": [{"lr": 0.1}]}
    for name in ("model", "average"):
        assert torch.equal(back[name]["bias"], state[name]["bias"])
        assert torch.equal(back[name]["steps"], state[name]["steps"])
        torch.testing.assert_close(back[name]["conv"], state[name]["conv"], atol=1e-3, rtol=1e-3)
    # Newer pieces take the place of older ones.
    again = carried.write(tmp_path / "last.pt", tmp_path / "out", "a run")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(again["pieces"])


def test_missing_and_damaged_pieces_are_noticed(tmp_path: Path) -> None:
    checkpoint(tmp_path / "last.pt")
    (tmp_path / "out").mkdir()
    manifest = carried.write(tmp_path / "last.pt", tmp_path / "out", "a run")
    piece = tmp_path / "out" / manifest["pieces"][0]
    damaged = bytearray(piece.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    piece.write_bytes(damaged)
    with pytest.raises(ValueError, match="the pieces of a run are damaged"):
        carried.read(tmp_path / "out", manifest)
    piece.unlink()
    with pytest.raises(ValueError, match=f"{piece.name} missing"):
        carried.read(tmp_path / "out", manifest)


def test_a_call_without_a_gpu_or_data_says_what_to_do(tmp_path: Path) -> None:
    for arguments, text in (([], "give CIFAR-10"), (["digits"], "--smoke tries everything in miniature")):
        failed = run(tmp_path, *arguments)
        assert failed.returncode == 2
        assert text in failed.stderr
