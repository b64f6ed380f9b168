"""What to change on a network, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.config import ModelConfig, Surgery
from robustmaps.config._enlarge_option import parse_surgery
from robustmaps.engine.errors import InputError

SURGERIES = st.builds(
    Surgery,
    upsample=st.sampled_from([1.0, 1.5, 2.0]),
    upsample_mode=st.sampled_from(["nearest", "bicubic"]),
    factor=st.sampled_from([None, 2, 4]),
    where=st.sampled_from([None, "first", "last", "0", "0,-1"]),
    dilate=st.booleans(),
    smooth=st.sampled_from([None, "blur"]),
    activation=st.sampled_from([None, "silu"]),
).filter(lambda surgery: not surgery.is_none)


@given(SURGERIES)
def test_text_brings_it_back(surgery):
    assert parse_surgery(str(surgery)) == surgery


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("upsample=2", Surgery(upsample=2)),
        ("first", Surgery(where="first")),
        ("where=0,1,dilate", Surgery(where="0,1", dilate=True)),
        ("where=last, dilate=true", Surgery(where="last", dilate=True)),
        ("upsample=3/2,upsample-mode=bilinear,last", Surgery(1.5, "bilinear", where="last")),
        ("factor=4,0,-1", Surgery(factor=4, where="0,-1")),
        ("silu", Surgery(activation="silu")),
        ("upsample=2,silu", Surgery(upsample=2, activation="silu")),
        ("silu,0,1,blur", Surgery(where="0,1", smooth="blur", activation="silu")),
    ],
)
def test_what_people_write(text, expected):
    assert parse_surgery(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "enlarge: ''"),
        ("middle", "enlarge: 'middle': expected first, last, numbers"),
        ("upscale=2", "did you mean 'upsample'"),
        ("upsample=2,upsample=3", "upsample is given twice"),
        ("dilate=yes", "dilate='yes': expected true or false"),
        ("factor=two", "factor='two': expected a whole number"),
        ("silu,activation=silu", "activation is given twice"),
        ("silo", "enlarge: 'silo'"),
        ("upsample=big", "upsample='big'"),
        ("upsample=1", "changes nothing"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(enlarge=text)
