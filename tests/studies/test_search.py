"""The search: candidates within a budget, halved, and a front that no other candidate beats."""

import json
from dataclasses import replace

import pytest

from robustmaps.cli import main
from robustmaps.config import AttackConfig, DefenseConfig, EvaluationConfig, ModelConfig, RunConfig
from robustmaps.engine.errors import Busy, InputError, Interrupted
from robustmaps.engine.writing.outputs import alone
from robustmaps.studies import find_candidates, search, within
from robustmaps.training import TrainOptions
from tests.helpers.damages import ANY_FILE
from tests.helpers.studies import Here

BASE = RunConfig(
    defense=DefenseConfig(defense="standard"),
    training=TrainOptions(epochs=2, batch_size=256, device="cpu", precision="fp32", schedule="constant", lr=0.02),
)
EVALUATION = EvaluationConfig(AttackConfig("fgsm"), samples=40)


def test_candidates_stay_within_the_budget(digits):
    found = find_candidates(BASE, digits, budget=4)
    assert [one.title for one in found] == ["ResNet-8", "ResNet-8 121", "ResNet-8 112", "ResNet-8 ×2"]
    assert found[0].relative == 1
    assert [one.relative for one in found] == sorted(one.relative for one in found)
    assert all(one.cost.flops == pytest.approx(one.relative * found[0].cost.flops) for one in found)
    by_memory = find_candidates(BASE, digits, budget=1.6, measure="memory")
    assert all(one.cost.activation_bytes <= 1.6 * by_memory[0].cost.activation_bytes for one in by_memory)
    by_latency = find_candidates(BASE, digits, budget=50, measure="latency")
    assert all(one.cost.latency_s > 0 for one in by_latency)


def test_a_budget_that_leaves_nothing_is_refused(digits):
    with pytest.raises(InputError, match="leaves only the original network"):
        find_candidates(BASE, digits, budget=1)
    with pytest.raises(InputError, match="number of at least 1"):
        within([BASE, BASE], digits, budget=0.5)


def test_a_stopped_search_ends_as_an_uninterrupted_one(digits, tmp_path):
    candidates = find_candidates(BASE, digits, budget=3)
    options = {"evaluation": EVALUATION, "reduction": 2}
    whole = search(candidates, tmp_path / "whole", **options, jobs=2)
    assert whole.trials[0].kept
    assert [trial.candidate for trial in whole.trials] == candidates
    assert all(trial.kept or trial.epochs == 1 for trial in whole.trials)
    assert any(not trial.kept for trial in whole.trials)
    assert all((trial.robust is not None) == trial.best for trial in whole.trials)
    for one in whole.front:
        assert not any(
            other.kept and other.candidate.relative <= one.candidate.relative and other.score > one.score
            for other in whole.trials
        )

    def trained(name):
        return (path for path in (tmp_path / name).glob("*/metrics.jsonl") if path.read_text().strip())

    saved = json.loads(whole.path.read_text())
    assert saved["front"] == [trial.candidate.title for trial in whole.front]

    options["executor"] = Here()
    with pytest.raises(Interrupted):
        search(candidates, tmp_path / "parts", **options, should_stop=lambda: len(list(trained("parts"))) > 1)
    parts = search(candidates, tmp_path / "parts", **options)
    assert [(t.candidate, t.score, t.epochs, t.robust) for t in parts.trials] == [
        (t.candidate, t.score, t.epochs, t.robust) for t in whole.trials
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    search(candidates, tmp_path / "whole", **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_two_searches_do_not_share_a_folder(digits, tmp_path):
    with (
        alone(tmp_path / "out/.search.lock", "searching there"),
        pytest.raises(Busy, match="another process is searching"),
    ):
        search(find_candidates(BASE, digits, budget=3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_candidates_are_evaluated_as_they_were_trained(digits, tmp_path):
    config = replace(BASE, training=replace(BASE.training, epochs=1, precision="bf16"))
    candidates = find_candidates(config, digits, budget=1.6, measure="memory")
    options = {"evaluation": EVALUATION, "executor": Here()}
    trained = []

    def stop_once_evaluated():
        trained[:] = tmp_path.glob("*/evaluation")
        return bool(trained)

    with pytest.raises(Interrupted, match="stopped"):
        search(candidates, tmp_path, **options, should_stop=stop_once_evaluated)
    search(candidates, tmp_path, **options)
    done = [
        json.loads(path.read_text())
        for path in tmp_path.glob("*/evaluation/*test40*.json")
        if "verdicts" in path.read_text()
    ]
    assert {one["environment"]["precision"] for one in done} == {"bf16"}


def test_the_command_takes_a_study(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text("""
axes: {network: [{strides: 122}, {strides: 121}, {upsample: 4}]}
fixed: {defense: standard, epochs: 1, batch-size: 256, device: cpu, precision: fp32}
evaluation: {attack: fgsm, samples: 30}
""")
    assert main(["search", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [trial["title"] for trial in found["trials"]] == ["ResNet-8", "ResNet-8 121"]
    assert found["file"] == str(tmp_path / "study-search" / "search.json")
    with pytest.raises(SystemExit):
        main(["search", str(path), "--no-such-option"])
    assert main(["search", str(path), "--epochs", "3"]) == 2
    assert "write the options of training there" in capsys.readouterr().err
    path.write_text(path.read_text().replace("defense: standard, ", "").replace("axes: {", "axes: {seed: [0, 1], "))
    assert main(["search", str(path)]) == 2
    assert "candidates of a search differ in their network alone; give one value for seed" in capsys.readouterr().err


def test_networks_of_others_are_enlarged_by_surgery(digits, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from robustmaps import models\n"
        "def net():\n"
        "    return models.create('resnet8', num_classes=10, in_channels=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    base = replace(BASE, model=ModelConfig(model="own:net"))
    found = find_candidates(base, digits, budget=4)
    assert [candidate.config.model.enlarge for candidate in found] == [None, "where=1", "where=0", "upsample=2"]
    assert found[-1].relative == pytest.approx(4, abs=0.1)
    with pytest.raises(InputError, match="the search chooses the enlargement itself"):
        find_candidates(replace(base, model=replace(base.model, enlarge="last")), digits, budget=4)


def test_a_damaged_run_does_not_end_the_search(digits, tmp_path):
    candidates = find_candidates(BASE, digits, budget=3)
    options = {"evaluation": EVALUATION, "reduction": 2, "executor": Here()}
    whole = search(candidates, tmp_path, **options)
    spoilt = next(trial for trial in whole.trials if (trial.kept and not trial.best) or not trial.kept)
    for file in (spoilt.folder / "metrics.jsonl", spoilt.folder / "config.yaml"):
        before = file.read_bytes()
        ANY_FILE["pipe"](file)
        again = search(candidates, tmp_path, **options)
        ANY_FILE["folder"](file)
        file.rmdir()
        file.write_bytes(before)
        (failed,) = again.failed
        assert failed.folder == spoilt.folder
        assert f"{file}: a pipe, socket or device" in failed.error
        assert not failed.kept
        assert {t.folder: t.score for t in again.trials if t != failed} == {
            t.folder: t.score for t in whole.trials if t.folder != spoilt.folder
        }
        assert json.loads(again.path.read_text())["trials"]


def test_two_ways_to_write_one_network_are_one_candidate(digits):
    written = [{"enlarge": text} for text in ("0", "0,dilate", "upsample=2")]
    changes = [{}, {"strides": "112"}, {"upsample": 2.0}, *written]
    configs = [replace(RunConfig(), model=ModelConfig(**change)) for change in changes]
    found = within(configs, digits, budget=None)
    assert [one.same for one in found if one.same] == [
        ("strides 122, enlarge where=0",),
        ("strides 122, enlarge upsample=2",),
    ]
    assert len(found) == 4
