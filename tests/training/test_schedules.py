"""Learning-rate schedules against tables worked out by hand."""

import pytest

from robustmaps.engine.errors import InputError
from robustmaps.training import TrainOptions
from robustmaps.training._schedule import parse_schedule


@pytest.mark.parametrize(
    ("spec", "epochs", "table"),
    [
        # The published schedule: 110 epochs, divided by 10 at 100 and 105.
        ("step", 110, {0: 1, 50: 1, 99: 1, 99.99: 1, 100: 0.1, 104.99: 0.1, 105: 0.01, 109.9: 0.01}),
        ("step", 22, {0: 1, 19.9: 1, 20: 0.1, 20.9: 0.1, 21: 0.01}),
        ("step:100,150", 200, {99.9: 1, 100: 0.1, 149: 0.1, 150: 0.01, 199: 0.01}),
        ("step:82,123", 164, {81: 1, 82: 0.1, 123: 0.01}),
        ("step:60,120,160@0.2", 200, {59: 1, 60: 0.2, 120: 0.04, 160: 0.008}),
        ("step:75,90,100", 120, {74: 1, 75: 0.1, 90: 0.01, 100: 0.001, 119: 0.001}),
        ("step:58,88,108@0.1,0.01,0.005", 120, {57.9: 1, 58: 0.1, 88: 0.01, 107.9: 0.01, 108: 0.005, 119: 0.005}),
        ("step:73@0.1", 85, {72.9: 1, 73: 0.1, 84: 0.1}),
        ("step:5", 10, {4.9: 1, 5: 0.1}),
        ("cosine", 100, {0: 1, 25: 0.8535534, 50: 0.5, 75: 0.1464466, 100: 0}),
        # Up over the first three tenths, down over the rest.
        ("one-cycle", 10, {0: 0, 1.5: 0.5, 3: 1, 6.5: 0.5, 10: 0}),
        ("constant", 10, {0: 1, 9.9: 1}),
    ],
)
def test_schedules(spec: str, epochs: int, table: dict[float, float]) -> None:
    schedule = parse_schedule(spec, epochs)
    assert {epoch: schedule(epoch) for epoch in table} == pytest.approx(table, abs=1e-7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cosin", "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("cosine:3", "unknown schedule 'cosine:3'"),
        ("step:100,50", "schedule='step:100,50': expected ascending epochs"),
        ("step:a,b", "expected ascending epochs"),
        ("step:0,5", "expected ascending epochs"),
        ("step:5@2", r"one factor in \(0, 1\)"),
        ("step:5,6@0.1,2", r"one factor in \(0, 1\) or one per epoch"),
        ("step:5,6,7@0.1,0.01", "or one per epoch"),
        ("step:5@", None),
    ],
)
def test_what_is_no_schedule_is_refused(spec: str, message: str | None) -> None:
    if message is None:
        assert parse_schedule(spec, 10)(6) == 0.1
        return
    with pytest.raises(InputError, match=message):
        TrainOptions(schedule=spec)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs=1.5: expected a whole number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": 0}, "lr=0: expected a number above 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": -1}, "momentum=-1"),
        ({"momentum": 5}, r"momentum=5: expected a number in \[0, 1\)"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"ema": 1}, r"ema=1: expected a decay in \[0, 1\)"),
        ({"seed": -1}, "seed=-1"),
        ({"validate_every": 0}, "validate_every=0"),
        ({"checkpoint_every_s": -1}, "checkpoint_every_s=-1"),
        ({"optimizer": "adm"}, "unknown optimizer 'adm'; did you mean 'adam'"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(**values)  # type: ignore[arg-type]
