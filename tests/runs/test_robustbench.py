"""Entries for RobustBench: measured figures, and what only the authors know."""

import json
from dataclasses import replace

import pytest

from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError
from robustmaps.runs import Options, evaluate_checkpoint, robustbench_entry, train
from robustmaps.runs._robustbench import _had_more_data
from tests.helpers.studies import configuration

PAPER = {
    "name": "Understanding Feature Maps",
    "authors": "Cong Xu, Wei Zhang",
    "venue": "TNNLS 2025",
    "link": "https://arxiv.org/abs/2202.12435",
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    trained = train(configuration(), tmp_path_factory.mktemp("runs"))
    of = (AttackConfig("autoattack", eps=(0.3,)), AttackConfig("fgsm"))
    return [evaluate_checkpoint(trained.folder, attack, Options(samples=10, device="cpu")) for attack in of]


def test_an_entry_has_figures_and_authors(evaluated, tmp_path):
    full = evaluated[0]
    path = robustbench_entry(full.path, tmp_path, **PAPER)
    assert path == tmp_path / "model_info" / "digits" / "Linf" / "Xu_resnet8.json"
    entry = json.loads(path.read_text())
    assert {key: entry[key] for key in PAPER} == PAPER
    assert entry["autoattack_acc"] == f"{100 * full.evaluation.robust_accuracy.value:.2f}"
    assert entry["additional_data"] is False
    assert set(entry) == {
        *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
        *("eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"),
    }
    again = robustbench_entry(full.path, tmp_path, **{**PAPER, "venue": "Unpublished"}, additional_data=True)
    assert json.loads(again.read_text())["venue"] == "Unpublished"
    assert json.loads(again.read_text())["additional_data"] is True
    with pytest.raises(InputError, match="already exists"):
        robustbench_entry(full.path, tmp_path, **{**PAPER, "name": "Another paper"})


@pytest.mark.parametrize(
    ("change", "message"),
    [({"authors": " "}, "authors=' '"), ({"venue": ""}, "venue=''"), ({"link": "arxiv"}, "link='arxiv': expected the")],
)
def test_what_is_missing_is_named(evaluated, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        robustbench_entry(evaluated[0].path, tmp_path, **{**PAPER, **change})
    assert not list(tmp_path.iterdir())


def test_only_autoattack_counts(evaluated, tmp_path):
    with pytest.raises(InputError, match="RobustBench takes AutoAttack's standard version on test images"):
        robustbench_entry(evaluated[1].path, tmp_path, **PAPER)


def test_extra_images_are_additional_data(evaluated, tmp_path, monkeypatch):
    from robustmaps.networks import open_checkpoint
    from robustmaps.runs import _robustbench

    checkpoint = open_checkpoint(evaluated[0].path.parents[1])
    assert not _had_more_data(checkpoint)
    config = configuration()
    more = replace(config, data=replace(config.data, extra_data="more.npz"))
    monkeypatch.setattr(_robustbench, "read_run_config", lambda _: more)
    assert _had_more_data(checkpoint)
