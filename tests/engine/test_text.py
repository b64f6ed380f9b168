"""Names from files can't steer a terminal, reorder a line or hide in it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.engine.text import visible


@given(st.text())
def test_nothing_that_steers_is_left(text):
    shown = visible(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") or c in "\t\n" for c in shown)
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI") for c in shown
    )
    assert visible(shown) == shown
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_other_text_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    "code", [0, 7, 8, 13, 27, 0x7F, 0x9B, 0xAD, 0x61C, 0x200B, 0x200E, 0x2028, 0x202E, 0x2066, 0xFEFF, 0xD800]
)
def test_what_hides_is_written_out(code):
    shown = visible(f"a{chr(code)}b")
    assert shown == f"a\\x{code:02x}b" if code < 0x100 else shown == f"a\\u{code:04x}b"
