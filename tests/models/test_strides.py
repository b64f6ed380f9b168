"""Strides: what is read, what is refused and what the refusal says."""

import re

import pytest

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.models import Strides


@pytest.mark.parametrize(
    "value", ["1122", 1122, (1, 1, 2, 2), [1, 1, 2, 2], Strides((1, 1, 2, 2)), ["1", "1", "2", "2"]]
)
def test_every_notation_reads_the_same(value):
    strides = Strides.parse(value, default=Strides((1, 2, 2, 2)), network="net", steps="one per group")
    assert strides == (1, 1, 2, 2)
    assert str(strides) == f"{strides}" == "1122"


def test_none_is_the_default():
    assert Strides.parse(None, default=Strides((1, 2)), network="net", steps="one per group") == (1, 2)


@pytest.mark.parametrize(
    ("name", "strides", "message"),
    [
        (
            "resnet18",
            "122",
            "strides='122' for resnet18: expected 4 digits from 1 to 9, one per group, "
            "such as '1222' (default) or '1122'",
        ),
        (
            "vgg16_bn",
            (2, 2, 2, 2),
            "strides=(2, 2, 2, 2) for vgg16_bn: expected 5 digits from 1 to 9, one per max pool, "
            "such as '22222' (default) or '12222'",
        ),
        (
            "alexnet",
            "11222",
            "expected 4 digits from 1 to 9, for conv1, pool1, pool2 and pool5, such as '2222' (default)",
        ),
        ("resnet8", "1222", "strides='1222' for resnet8: expected 3 digits"),
        ("wrn28_10", "102", "strides='102' for wrn28_10: expected 3 digits from 1 to 9"),
        ("resnet8", "1,2,2", "strides='1,2,2'"),
        ("resnet8", "1x2", "strides='1x2'"),
        ("resnet8", "1²2", "strides='1²2'"),
        ("resnet8", "", "strides=''"),
        ("resnet8", (1, 2, 10), "strides=(1, 2, 10)"),
        ("resnet8", (1, 2, -2), "strides=(1, 2, -2)"),
        ("resnet8", (1, 2, 2.0), "strides=(1, 2, 2.0)"),
        ("resnet8", (True, 2, 2), "strides=(True, 2, 2)"),
        ("resnet8", 1.22, "strides=1.22"),
    ],
)
def test_wrong_strides_are_refused_with_an_example(name, strides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        models.create(name, strides=strides)
