"""``robustmaps runs``, on folders as training leaves them."""

import csv
import io
import json

import pytest

from robustmaps.cli import main
from robustmaps.config import RunConfig, from_mapping
from robustmaps.config._run import write_config


@pytest.fixture
def folder(tmp_path):
    for seed, robust in enumerate((0.3, 0.5, 0.4)):
        config: RunConfig = from_mapping({"seed": seed, "strides": 122, "epochs": 1})
        run = tmp_path / config.name
        run.mkdir()
        (run / "config.yaml").write_text(write_config(config))
        (run / "best.safetensors").write_bytes(b"")
        (run / "metrics.jsonl").write_text(
            json.dumps(
                {"epoch": 1, "train_s": 2.0, "validation_clean_accuracy": 0.9, "validation_robust_accuracy": robust}
            )
        )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "ideas.txt").touch()
    return tmp_path


def test_a_table(folder, capsys):
    assert main(["runs", str(folder), "--where", "validation_robust>0.35", "--sort", "-seed"]) == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines() if "finished" in line]
    assert [line[1] for line in lines] == ["2", "1"]
    assert "2 of 3 runs" in captured.out
    assert "notes: skipped" in captured.err


def test_csv_and_json(folder, capsys):
    assert main(["runs", str(folder), "--format", "csv", "--sort", "validation_robust"]) == 0
    printed = capsys.readouterr().out
    assert main(["runs", str(folder), "--csv", "--sort", "validation_robust"]) == 0
    assert capsys.readouterr().out == printed
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["seed"] for row in rows] == ["0", "2", "1"]
    assert rows[0]["robust"] == ""
    assert main(["runs", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["validation_robust"] for row in found["runs"]] == [0.3, 0.5, 0.4]
    assert len(found["skipped"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "robst>0"], "did you mean 'robust'"),
        (["--sort", "-robst"], "did you mean 'robust'"),
        (["--columns", "seeds"], "did you mean 'seed'"),
    ],
)
def test_unknown_columns_are_bad_input(folder, options, message, capsys):
    assert main(["runs", str(folder), *options]) == 2
    assert message in capsys.readouterr().err
    assert main(["runs", str(folder / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_narrow_terminal_cuts_nothing_off(folder, capsys, monkeypatch, terminal):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
    columns = "model,strides,defense,validation_robust,batch_size,image_size"
    assert main(["runs", str(folder), "--columns", columns]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(name in out for name in columns.split(","))
