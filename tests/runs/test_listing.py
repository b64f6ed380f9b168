"""Conditions, and rows of runs."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.config import DefenseConfig, ModelConfig, RunConfig
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.runs import choose_evaluation, list_runs, parse_condition, read_runs
from robustmaps.runs._record import RunRecord
from robustmaps.studies import statistics_of
from robustmaps.training import TrainOptions
from tests.helpers.studies import configuration, write_run

ROW = {"defense": "at", "robust": 0.45, "eps": 8 / 255, "seed": 1, "strides": "122", "clean": None, "compile": True}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("defense=at and robust>0.4", True),
        ("defense = AT and robust >= 0.46", False),
        ("robust>40%", True),
        ("robust>45.5%", False),
        ("robust=45%", True),
        ("robust > 40 %", True),
        ("clean>99% or robust>=45 % and seed=1", True),
        ("eps=8/255", True),
        ("eps!=8/255 or seed==1", True),
        ("seed=0 or seed=1 and defense=standard", False),
        ("(seed=0 or seed=1) and defense!=standard", True),
        ("strides=122", True),
        ("strides='122' and compile=true", True),
        ('defense="a t"', False),
        ("clean>0 or clean<=0 or clean=0", False),
        ("clean!=0.5", True),
    ],
)
def test_conditions(text, kept):
    assert parse_condition(text, ROW)(ROW) is kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("robst>0.4", "unknown column 'robst'; did you mean 'robust'"),
        ("robust>", "a value is missing at the end"),
        ("robust", "a comparison is missing at the end"),
        ("", "a column is missing at the end"),
        ("robust>0.4 seed=1", "'seed' is unexpected"),
        ("(robust>0.4", "a bracket is not closed"),
        ("robust>'x", "can't be parsed from"),
        ("robust>high", "robust='high': expected a finite number or a fraction"),
        ("robust>40", "a share lies in .0, 1.; did you mean robust>40%"),
        ("robust>1", "did you mean robust>1%"),
        ("clean<=140 %", "clean<=140%: expected at most 100%"),
        ("defense<at", "defense is not a number; use = or !="),
        ("__import__('os')", "is missing before"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(text, ROW)(ROW)


@pytest.mark.parametrize("text", ["robust>40", "validation_clean>=40", "robust_high=200%", "clean<most"])
def test_a_condition_on_accuracies_is_checked_without_any(text):
    with pytest.raises(InputError, match=r"did you mean|at most 100%|expected a finite number"):
        list_runs([], where=text)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text):
    with contextlib.suppress(InputError):
        parse_condition(text, ROW)(ROW)


def evaluation(robust, *, eps=8 / 255, images="a"):
    verdicts = tuple("robust" if kept else "pgd" for kept in robust)
    distances = tuple(None if kept else 0.01 for kept in robust)
    return Evaluation(verdicts, distances, "linf", eps, ({"name": "pgd", "eps": eps},), images, 0, 1.0)


def record(tmp_path, strides, seed, evaluations, **training):
    config = RunConfig(
        ModelConfig(strides=strides), defense=DefenseConfig(), training=TrainOptions(seed=seed, **training)
    )
    history = ({"epoch": 1, "validation_clean_accuracy": 0.9, "train_s": 2.0},)
    return RunRecord(
        tmp_path / config.name,
        config,
        history,
        1,
        "finished",
        None,
        2.0,
        evaluations,
        {},
        {
            "flops": 10 if config.model.strides == "122" else 25,
            "parameters": 3,
            "activation_bytes": 5,
            "map_size": [2, 2],
        },
    )


@pytest.fixture
def records(tmp_path):
    rates = {("122", 0): 40, ("122", 1): 45, ("112", 0): 60, ("112", 1): 66}
    made = [
        record(tmp_path, strides, seed, {"pgd": evaluation([i < right for i in range(100)])})
        for (strides, seed), right in rates.items()
    ]
    return [*made, record(tmp_path, "111", 0, {})]


def test_rows_are_filtered_and_sorted(records):
    rows = list_runs(records, sort="-robust")
    assert [row["robust"] for row in rows] == [0.66, 0.60, 0.45, 0.40, None]
    assert [row["robust"] for row in list_runs(records, where="strides=112 and seed=1")] == [0.66]
    assert list_runs(records)[0]["validation_clean"] == 0.9
    assert (rows[0]["flops"], rows[0]["attack"], rows[0]["images"], rows[0]["eps"]) == (25, "pgd", 100, 8 / 255)
    with pytest.raises(InputError, match="unknown column 'robst'; did you mean 'robust'"):
        list_runs(records, sort="-robst")


def test_the_evaluation_that_speaks_for_a_run(tmp_path):
    found = {
        "far": evaluation([False] * 200, eps=0.5),
        "few": evaluation([False] * 10),
        "pgd": evaluation([True] * 100),
        "worst": evaluation([True] * 90 + [False] * 10),
    }
    one = record(tmp_path, "122", 0, found)
    assert choose_evaluation(one) == "worst"
    assert choose_evaluation(one, "p*") == "pgd"
    assert choose_evaluation(one, "x*") is None


def test_autoattack_is_listed_under_its_name(tmp_path):
    whole = replace(evaluation([True] * 10), attacks=({"name": "apgd-ce"}, {"name": "square"}))
    for name, expected in (
        ("autoattack-linf-0.1-test10-0", "autoattack"),
        ("autoattack-plus-linf-8_255-test10-0", "autoattack-plus"),
        ("last/autoattack-l2-0.5-test10-0", "autoattack"),
        ("mine", "apgd-ce+square"),
        ("pgd-linf-0.1-test10-0", "apgd-ce+square"),
    ):
        assert list_runs([record(tmp_path, "122", 0, {name: whole})])[0]["attack"] == expected


def test_configurations_over_seeds_and_in_words(records):
    found = statistics_of(records)
    assert [each.name for each in found.compared] == ["ResNet-8 112", "ResNet-8 122"]
    best = found.best
    assert (best.seeds, best.robust.value) == ((0, 1), pytest.approx(0.63))
    comparison = found.gains["ResNet-8 112"]
    assert comparison.a == "ResNet-8 122"  # the cheaper one
    assert (comparison.seeds, comparison.images) == (2, 100)
    (sentence,) = found.sentences()
    assert "2 seeds x 100 images" in sentence
    (note,) = found.notes
    assert "1 of 5 runs have not been evaluated with PGD, l_inf 8/255" in note
    assert json.loads(json.dumps(found.to_dict()))["sentences"] == [sentence]


def test_statistics_in_a_notebook_and_in_pandas(records):
    pytest.importorskip("pandas")
    found = statistics_of(records)
    frame = found.to_pandas().set_index("configuration")
    assert list(frame.index) == [each.name for each in found.variants]
    row = frame.loc["ResNet-8 112"]
    assert (row["robust"], row["seeds"]) == (pytest.approx(0.63), 2)
    assert row["robust_low"] < 0.63 < row["robust_high"]
    assert frame.loc["ResNet-8 111"].isna()["robust"]  # not evaluated
    assert "3 configurations, 5 runs, best ResNet-8 112: 63.0 %" in repr(found)
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert "<td>ResNet-8 112</td><td>2</td>" in page


def test_what_was_not_evaluated_alike_is_not_compared(tmp_path):
    made = [
        record(tmp_path, "122", 0, {"pgd": evaluation([True, False])}),
        record(tmp_path, "112", 0, {"pgd": evaluation([True, True], images="b")}),
        record(tmp_path, "111", 3, {"pgd": evaluation([True, True])}),
    ]
    found = statistics_of(made)
    assert found.gains == {}
    assert found.lead is None
    assert found.sentences() == []
    with pytest.raises(InputError, match="no runs"):
        statistics_of([])


@pytest.mark.parametrize("value", ["last,dilate", "'where=last,dilate=true'"])
def test_an_enlargement_is_found_as_it_was_asked_for(tmp_path, value):
    write_run(tmp_path, configuration(enlarge="where=last,dilate=true"), 60)
    write_run(tmp_path, configuration(), 30)
    assert [row["robust"] for row in list_runs(read_runs(tmp_path), where=f"enlarge={value}")] == [0.6]


def test_a_network_that_no_image_withstands_has_an_interval(tmp_path):
    made = [record(tmp_path, "122", seed, {"pgd": evaluation([False] * 120)}) for seed in (0, 1)]
    robust = statistics_of(made).best.robust
    assert (robust.value, robust.low) == (0, 0)
    assert robust.high == pytest.approx(0.031, abs=1e-3)
