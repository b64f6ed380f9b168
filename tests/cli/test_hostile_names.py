"""Class names, run names and files from others, through the commands and into every output."""

import csv
import io
import json
import re

import numpy as np
import pytest

from robustmaps.cli import main

NAMES = (
    "=cmd|' /C calc'!A0",
    "\x1b]0;owned\x07\x1b[2Jcat",
    "</script><script>alert(1)</script>",
    "`rm -rf ~`|[x](http://evil)",
    "\u202egnp.tac\u202c[red]:bomb:",
    r"\input{/etc/passwd}$x$&#x202e;",
)
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Six classes of such names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    labels = np.arange(240) % len(NAMES)
    noise = np.random.default_rng(0).integers(0, 40, (240, 8, 8))
    images = (labels[:, None, None] * 40 + noise).astype(np.uint8)
    np.savez(tmp_path / "hostile.npz", images=images, labels=labels, classes=np.array(NAMES))
    return tmp_path


def test_names_are_shown_and_steer_nothing(hostile, capsys):
    assert main(["data", "show", "hostile.npz", "--picture", "shown.png"]) == 0
    out = "".join(capsys.readouterr())
    assert not STEERING.search(out)
    assert "[red]:bomb:" in out
    assert r"\x1b]0;owned\x07\x1b[2Jcat" in out


def test_a_name_looks_like_no_row(hostile, capsys):
    names = np.array(["cat\n all   9999", "dog"])
    np.savez(
        "rows.npz",
        images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8),
        labels=np.arange(40) % 2,
        classes=names,
    )
    assert main(["data", "show", "rows.npz"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows.count("all") == 1
    assert r"cat\n" in rows


def test_errors_and_warnings_steer_nothing(hostile, capsys):
    for line in (["runs", "gone\x1b[2J"], ["data", "show", "gone\u202e"], ["evaluate", "gone\x9b1m"], ["\x1b[31m"]):
        assert main(line) == 2
        assert not STEERING.search("".join(capsys.readouterr()))


def test_a_report_of_such_classes(hostile, capsys):
    fast = "--epochs 1 --steps 1 --eps 0.05 --batch-size 64 --device cpu --precision fp32"
    assert main(["train", "--data", "hostile.npz", *fast.split(), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert main(["evaluate", run, "--attack", "fgsm", "--device", "cpu"]) == 0
    assert main(["report", run, "--out", "report"]) == 0
    assert main(["export", run, "--format", "safetensors", "--out", "export"]) == 0
    assert not STEERING.search("".join(capsys.readouterr()))
    written = [path for folder in ("report", "export") for path in (hostile / folder).rglob("*") if path.is_file()]
    for path in written:
        if path.suffix not in (".md", ".tex", ".csv", ".html"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            assert "alert(1)</script>" not in text
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [cell for cell in cells if cell[:1] in ("=", "@")]
        if path.suffix == ".tex":
            assert r"\input" not in text
        if path.suffix == ".md":
            assert not re.search(
                r"(?<!\\)`rm|\]\(http|<script|&#x202e;", re.sub(r"^---\n.*?^---\n", "", text, flags=re.S | re.M)
            )
        assert not STEERING.search(text), path
