"""Damage to what was written is noticed; what was written before checksums is read as it is."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.engine.checked import Damaged, checksum, sealed, unsealed
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, write_json
from robustmaps.engine.reading.plain import read_json

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | FLOATS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
VALUES = {"eps": 8 / 255, "verdicts": ["robust", "pgd"], "nested": {"a": None, "ä": "ö"}, "n": 3}


def test_the_checksum_is_the_usual_crc32() -> None:
    assert checksum(b"12345", "6789") == "crc32:cbf43926"


@settings(max_examples=40)
@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), PLAIN, max_size=4))
def test_what_is_sealed_comes_back_through_json(values: dict[str, object]) -> None:
    assert unsealed(json.loads(json.dumps(sealed(values), indent=2)), "file") == values


def test_no_flipped_bit_and_no_cut_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, VALUES)
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    noticed = 0
    for data in [*damaged, *(whole[:end] for end in range(len(whole)))]:
        path.write_bytes(data)
        try:
            assert read_json(path) == VALUES
        except InputError as error:
            noticed += str(path) in str(error)
    assert noticed > 1.7 * len(whole)


def test_an_edited_value_is_named_with_its_file_and_mend(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", VALUES)
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace('"pgd"', '"robust"'))
    with pytest.raises(Damaged, match=r"a.json: damaged or edited: its contents have crc32:\w+, .* make it anew"):
        read_json(tmp_path / "a.json", "make it anew")
    (tmp_path / "a.json").write_text(json.dumps(json.loads(text), indent=None))
    assert read_json(tmp_path / "a.json") == VALUES  # other spaces are no other values


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(VALUES))
    assert read_json(tmp_path / "old.json") == VALUES


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, _real=real, _name=name: (calls.append(_name), _real(*given))[1])
    with atomic(tmp_path / "file") as file:
        file.write(b"text")
    assert calls == ["fsync", "replace", "fsync"]  # the last one is the folder's
