"""Standard streams that are closed, broken or full stop nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robustmaps.cli import main

# A verb that reports, saves and prints.
WORK = """
import os, sys
import robustmaps.cli._lists._models as verb
from robustmaps.cli import main

def run(_):
    for number in range(9):
        print("progress", number, file=sys.stderr, flush=True)
    with open("saved", "w") as file:
        assert file.fileno() > 2
        os.write(2, b"a C library's warning")
        file.write("all")
    print("result")

verb.run = run
sys.exit(main(["models"]))
"""


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "work.py").write_text(WORK)
    line = line.replace("WORK", f"{sys.executable} work.py")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(exec true)"])
def test_work_goes_on_without_standard_error(streams, tmp_path):
    done = shell(f"WORK {streams}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "saved").read_text() == "all"
    assert done.stdout == ("" if ">&- 2" in streams else "result\n")


def test_results_that_can_not_be_printed_are_a_failure(tmp_path):
    done = shell("WORK > /dev/full", tmp_path)
    assert done.returncode == 1
    assert "robustmaps: failed: no space left on the disk" in done.stderr
    assert (tmp_path / "saved").read_text() == "all"


def test_a_reader_that_has_gone_is_no_news(tmp_path):
    done = shell("WORK 2>/dev/null | exec true; exit ${PIPESTATUS[0]}", tmp_path)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    assert (tmp_path / "saved").read_text() == "all"


def test_a_terminal_that_closes_asks_for_a_stop(monkeypatch, capsys):
    def hang_up(arguments):
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr("robustmaps.cli._lists._models.run", hang_up)
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert main(["models"]) == 1
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert main(["models"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "robustmaps: interrupted\n"
