"""Readers raise `InputError`, and nothing else, whatever is in the file, within a second.

pytest tests/faults/test_fuzz.py                 a few seconds
pytest tests/faults/test_fuzz.py -m slow         about a minute, other values each time
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustmaps.engine.errors import InputError
from tests.helpers.readers import READERS, Reader

LONG_S = 60.0
MOST_S = 10.0  # a thousand times the usual: a reader that hangs, not a slow machine

_numbers = st.integers() | st.floats() | st.sampled_from([10**30, 2**63, 1e308, float("nan"), float("inf")])
_scalars = st.none() | st.booleans() | _numbers | st.text(st.characters(exclude_categories=()), max_size=8)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
_edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)), min_size=1, max_size=4)


def _edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + length :]
    return data


def _with_values(text: str, draw: st.DataObject, form: str) -> bytes:
    """The valid file with values that are replaced, added or taken away, and without its checksum."""
    lines = text.splitlines() if form == "lines" else [text]
    made = []
    for line in lines:
        if form == "yaml":
            pairs = [one.split(": ", 1) for one in line.splitlines() if not one.startswith("#")]
            whole: Any = dict(pair for pair in pairs if len(pair) == 2)
        else:
            whole = json.loads(line)
        whole.pop("checksum", None)
        parts = [whole]  # and what is in it
        for part in parts:
            inside = part.values() if isinstance(part, dict) else part
            parts += [one for one in inside if isinstance(one, dict | list) and one]
        part = draw.draw(st.sampled_from([one for one in parts if one] or parts))
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        if keys:
            part[draw.draw(st.sampled_from(keys))] = draw.draw(_values)
        made.append(json.dumps(whole))
    return "\n".join(made).encode("utf-8", "surrogatepass")


def _contents(reader: Reader, valid: bytes, draw: st.DataObject) -> bytes:
    kinds = ["bytes", "edits"] + ([] if reader.form == "bytes" else ["values", "values", "any"])
    match draw.draw(st.sampled_from(kinds)):
        case "bytes":
            return draw.draw(st.binary(max_size=200))
        case "edits":
            return _edited(valid, draw.draw(_edits))
        case "any":
            return json.dumps(draw.draw(_values)).encode()
    return _with_values(valid.decode(), draw, reader.form)


def _fuzz(reader: Reader, examples: int, *, same_each_time: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / reader.name
        reader.write(path)
        valid = path.read_bytes()
        reader.read(path)

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=same_each_time,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def try_it(draw: st.DataObject) -> None:
            for other in path.parent.iterdir():
                other.unlink()
            path.write_bytes(_contents(reader, valid, draw))
            began = time.thread_time()
            try:
                reader.read(path)
            except InputError as error:
                assert str(error)  # noqa: PT017 - nothing need be raised
            assert time.thread_time() - began < MOST_S

        try_it()


@pytest.mark.parametrize("name", READERS)
def test_readers_raise_nothing_else(name: str) -> None:
    _fuzz(READERS[name], 40, same_each_time=True)


@pytest.mark.slow
def test_readers_raise_nothing_else_for_a_minute() -> None:
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        for reader in READERS.values():
            if time.monotonic() < end:
                _fuzz(reader, 100, same_each_time=False)
