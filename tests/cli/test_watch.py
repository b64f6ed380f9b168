"""Progress where there is no terminal."""

import pytest

from robustmaps.cli._terminal import _watch
from robustmaps.cli._terminal._watch import Watch, clock
from robustmaps.engine.progress import Progress


@pytest.mark.parametrize("seconds", [1, 11])
def test_every_phase_is_told_when_it_ends(seconds, capsys, monkeypatch):
    now = iter(range(0, 1000, seconds))
    monkeypatch.setattr(_watch.time, "monotonic", lambda: float(next(now)))
    watch = Watch(None)
    for phase in ("epoch 1/2", "epoch 2/2"):
        for done in (0, 1, 2, 2):
            watch(Progress(phase, done, 2, "steps"))
    lines = capsys.readouterr().err.splitlines()
    for phase in ("epoch 1/2", "epoch 2/2"):
        assert f"{phase}: 2/2 steps" in lines
        assert (f"{phase}: 1/2 steps" in lines) == (seconds > 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (59.6, "1:00"),
        (3661, "1:01:01"),
        (200_000, "55:33:20"),
        (259_200, "3 days"),
        (11_221_406, "130 days"),
    ],
)
def test_long_times_are_days(seconds, text):
    assert clock(seconds) == text
