"""The figure of docs/comparison.md follows its tables, and the page counts what it shows."""

import re
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from PIL import Image

from tests.helpers.blocks import ROOT


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "website")
    import gains

    yield gains
    for name in ("gains", "pictures"):
        sys.modules.pop(name, None)


def test_the_page_counts_the_gains_of_the_figure(gains: ModuleType) -> None:
    found = list(gains.gains((ROOT / "docs/comparison-tables.md").read_text(encoding="utf-8")))
    (told,) = re.findall(r"Left: (\d+) measured gains", (ROOT / "docs/comparison.md").read_text(encoding="utf-8"))
    assert int(told) == len(found) == len({gain.label for gain in found})
    assert all(gain.low <= gain.value <= gain.high for gain in found)


def test_the_figure_is_drawn(gains: ModuleType, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gains.py", "--out", str(tmp_path / "gains.png")])
    gains.main()
    with Image.open(tmp_path / "gains.png") as drawn:
        assert min(drawn.size) > 500
