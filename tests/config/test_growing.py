"""When a network is enlarged during training."""

import pytest

from robustmaps.config import ModelConfig, RunConfig, from_mapping, last_epochs, to_mapping
from robustmaps.engine.errors import InputError
from robustmaps.networks import resolve


def earlier(**keys):
    from robustmaps.config import earlier_models

    return earlier_models(resolve(from_mapping({"epochs": 10, **keys})).config.model)


@pytest.mark.parametrize("text", ["0", "1", "1.2", "0.8,0.5", "0.5,0.5", "-0.1", "0.5,1", "80%", "0.5,", "late"])
def test_shares_ascend_within_the_run(text):
    with pytest.raises(InputError, match=f"enlarge_at={text}: expected a share of the epochs"):
        ModelConfig(upsample=2.0, enlarge_at=text)


@pytest.mark.parametrize(
    ("text", "epochs", "expected"),
    [("0.8", 10, (8,)), ("4/5", 5, (4,)), ("0.5", 3, (2,)), ("0.5,0.8", 110, (55, 88)), (None, 1, ())],
)
def test_a_network_is_enlarged_after_a_whole_epoch(text, epochs, expected):
    assert last_epochs(text, epochs) == expected


@pytest.mark.parametrize(("text", "epochs"), [("0.8", 1), ("0.8", 2), ("0.1", 4), ("0.5,0.8", 2), ("0.5,0.6", 4)])
def test_each_network_gets_an_epoch(text, epochs):
    with pytest.raises(InputError, match=f"enlarge_at={text} with {epochs} epoch.*train for more"):
        last_epochs(text, epochs)


def test_the_plain_network_comes_first():
    (plain,) = earlier(model="resnet8", strides="111", upsample=2, upsample_mode="bilinear", enlarge_at=0.8)
    assert plain == resolve(RunConfig()).config.model
    (plain,) = earlier(model="torchvision:resnet18", data="digits", enlarge="last,blur", enlarge_at=0.8)
    assert (plain.enlarge, plain.enlarge_at) == (None, None)


def test_upsampling_grows_in_equal_steps():
    grown = earlier(upsample=4, enlarge_at="0.25,0.5,0.75")
    assert [(one.upsample, one.enlarge_at) for one in grown] == [(1, None), (2, None), (3, None)]
    grown = earlier(model="torchvision:resnet18", data="digits", upsample=2, enlarge_at="0.5,0.8")
    assert [one.enlarge for one in grown] == [None, "upsample=1.5"]


@pytest.mark.parametrize(
    "keys", [{"strides": "111"}, {"strides": "111", "upsample": 2}, {"enlarge": "last"}, {"enlarge": "upsample=2,last"}]
)
def test_strides_do_not_change_step_by_step(keys):
    with pytest.raises(InputError, match=r"enlarge_at=0.5,0.8: several shares let .*give one share"):
        resolve(from_mapping({"epochs": 10, "enlarge_at": "0.5,0.8", **keys}))


def test_one_network_has_one_configuration():
    plain, late = (resolve(from_mapping({"epochs": 10, "enlarge_at": at, "strides": "122"})) for at in (None, 0.8))
    assert plain == late
    same = [from_mapping({"epochs": 10, "upsample": 2, "enlarge_at": at}) for at in (0.8, "0.80", "4/5")]
    assert len({resolve(one).config.name for one in same}) == 1


def test_the_name_and_the_file_of_a_run_tell_the_schedule():
    early, late, grown = (
        resolve(from_mapping({"epochs": 10, "upsample": 2, "enlarge_at": at})).config for at in (None, 0.8, "0.5,0.8")
    )
    assert late.name.startswith("digits-resnet8-122-up2-late0.8-at-seed0-")
    assert grown.name.startswith("digits-resnet8-122-up2-late0.5-0.8-at-seed0-")
    assert len({early.hash, late.hash, grown.hash}) == 3
    assert from_mapping(to_mapping(grown)) == grown
    assert "enlarge_at" not in early.name
