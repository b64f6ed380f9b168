"""Columns of the tables in files: each attack by itself, consistent accuracy, training images, and transfer."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robustmaps import data
from robustmaps.cli import main
from robustmaps.config import AttackConfig, RunConfig, from_mapping
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.networks import open_checkpoint
from robustmaps.report import Code, report
from robustmaps.runs import (
    Options,
    Yardstick,
    evaluate_checkpoint,
    evaluate_each,
    evaluate_transfer,
    read_run,
    train,
)
from robustmaps.studies import compare_runs
from robustmaps.training import load_weights, save_weights

FEW = Options(samples=40, device="cpu", precision="fp32")
SEVERAL = AttackConfig("fgsm, pgd-20, pgd", steps=3, restarts=1)
SHORT = {"eps": 0.1, "steps": 1, "schedule": "one-cycle", "lr": 0.2, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    made = [{"epochs": 2, "defense": "at"}, {"epochs": 2, "defense": "standard"}]
    return tuple(train(from_mapping({**SHORT, **each}, RunConfig()), root).folder for each in made)


def without_time(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, seconds=0.0, stages=(), misclassified=None)


def test_each_attack_by_itself_is_the_evaluation_of_that_attack(runs):
    done = evaluate_each(runs[0], SEVERAL, FEW)
    assert done.names == ("fgsm", "pgd-20", "pgd")
    for (column,), config in zip(done.columns, SEVERAL.columns(), strict=True):
        alone = evaluate_checkpoint(runs[0], config, FEW)
        assert alone.before
        assert alone.path == column.path
        assert alone.evaluation == column.evaluation
        assert alone.evaluation.stages[0]["attacked"] == alone.evaluation.clean_accuracy.successes
    (worst,) = done.worst
    robust = np.array([column.evaluation.robust_correct for (column,) in done.columns])
    assert worst.evaluation.robust_correct.tolist() == robust.all(0).tolist()
    assert Evaluation.load(worst.path) == worst.evaluation
    again = evaluate_each(runs[0], SEVERAL, FEW)
    assert again.worst[0].before
    assert again.worst[0].path == worst.path


@pytest.mark.parametrize(
    ("attack", "spelled"),
    [
        ("pgd-20", {"attack": "pgd", "steps": 20, "relative_step": 0.25, "restarts": 1}),
        ("pgd-20", {"attack": "pgd", "steps": 20, "step_size": 0.025, "restarts": 1}),
        ("pgd-100", {"attack": "pgd", "steps": 100, "step_size": 0.025, "restarts": 1, "loss": "ce"}),
        ("pgd", {"attack": "pgd", "steps": 20, "relative_step": 0.125, "restarts": 5}),
        ("fgsm,pgd-20", {"attack": "fgsm,pgd", "steps": 20, "step_size": 0.025, "restarts": 1}),
    ],
)
def test_attacks_of_the_same_values_are_one_evaluation_however_they_are_spelled(runs, attack, spelled):
    options = replace(FEW, samples=20, seed=11)
    first = evaluate_checkpoint(runs[0], AttackConfig(**spelled, eps=(0.1,)), options)
    again = evaluate_checkpoint(runs[0], AttackConfig(attack, eps=(0.1,)), options)
    assert again.before
    assert again.path == first.path
    assert Yardstick.of(first.evaluation).label == attack.replace(",", " + ")


def test_an_evaluation_that_was_named_by_another_spelling_is_found_and_finished(runs):
    config, options = AttackConfig("pgd-20", eps=(0.1,)), replace(FEW, samples=20, seed=12)
    done = evaluate_checkpoint(runs[0], config, options)
    assert done.path.name.startswith("pgd-20-")
    earlier = done.path.with_name(done.path.name.replace("pgd-20-", "pgd-", 1))
    done.path.rename(earlier)
    assert evaluate_checkpoint(runs[0], config, options).path == earlier

    def stop(progress):
        if progress.phase == "pgd-20" and progress.done:
            raise KeyboardInterrupt

    spelled = AttackConfig("pgd", steps=20, step_size=0.025, restarts=1, eps=(0.1,))
    stopped = replace(FEW, samples=20, seed=13, batch_size=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate_checkpoint(runs[0], spelled, replace(stopped, watcher=stop))
    partial = {path.name for path in (runs[0] / "evaluation").glob("*.partial")}
    assert evaluate_checkpoint(runs[0], config, stopped).path.with_suffix(".partial").name in partial


def test_each_with_several_radii_makes_a_curve_of_each_and_their_worst_cases(runs):
    config = AttackConfig("fgsm,pgd-20", eps=(0.2, 0.05))
    done = evaluate_each(runs[0], config, FEW)
    assert [run.evaluation.eps for run in done.worst] == [0.05, 0.2]
    assert len({run.path for run in done.worst}) == 2
    assert len(list((runs[0] / "evaluation").glob("curve-*.json"))) >= 2
    with pytest.raises(InputError, match="expected one radius"):
        evaluate_each(runs[0], config, FEW, out=runs[0] / "x.json")


def test_a_worst_case_of_a_curve_is_not_that_of_one_radius(runs):
    options = replace(FEW, samples=20, seed=14)
    curve = evaluate_each(runs[0], AttackConfig("fgsm,pgd-20", eps=(0.2, 0.05)), options)
    single = evaluate_each(runs[0], AttackConfig("fgsm,pgd-20", eps=(0.2,)), options)
    assert single.worst[0].path != curve.worst[1].path
    assert single.columns[0][0].path != curve.columns[0][1].path
    page = code_of(report(runs[0], runs[0].parent / "page-of-curve", pictures=False).page, "Commands").splitlines()
    assert len(set(page)) == len(page)
    mine = [line.partition("--eps ")[2].partition(" --samples")[0] for line in page if line.endswith("--seed 14")]
    assert {"0.05,0.2 --attack fgsm,pgd-20 --each", "0.2 --attack fgsm,pgd-20 --each"} <= set(mine)
    assert {"0.05,0.2 --attack pgd-20", "0.2 --attack pgd-20"} <= set(mine)


def code_of(page, title: str) -> str:
    blocks = (block for section in page.sections for block in section.blocks)
    return next(block.text for block in blocks if isinstance(block, Code) and block.title == title)


@pytest.mark.parametrize("attack", ["pgd", "fgsm,fgsm"])
def test_each_needs_several_attacks(runs, attack):
    with pytest.raises(InputError, match="expected two or more attacks, each once, such as fgsm,pgd-20"):
        evaluate_each(runs[0], AttackConfig(attack), FEW)


def test_nothing_is_written_where_one_attack_cannot_be_made(runs, tmp_path):
    before = sorted(runs[0].rglob("*"))
    options = replace(FEW, samples=30)
    with pytest.raises(InputError, match="cw needs norm='l2'"):
        evaluate_each(runs[0], AttackConfig("fgsm,cw"), options)
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(InputError, match=r"e\.json"):
        evaluate_each(runs[0], AttackConfig("fgsm,pgd-20"), options, out=tmp_path / "e.json")
    assert sorted(runs[0].rglob("*")) == before
    assert (tmp_path / "e.json").read_text() == "{}"


def test_consistent_accuracy_is_added_to_an_evaluation_and_changes_no_verdict(runs, tmp_path):
    config, out = AttackConfig("pgd-20"), tmp_path / "e.json"
    plain = evaluate_checkpoint(runs[0], config, FEW, out=out).evaluation
    phases = []
    options = replace(FEW, consistent=True, watcher=lambda progress: phases.append(progress.phase))
    added = evaluate_checkpoint(runs[0], config, options, out=out)
    assert {phase for phase in phases if "decoding" not in phase} == {"pgd-20, misclassified"}
    assert not added.before
    assert replace(added.evaluation, misclassified=None) == plain
    assert Evaluation.load(out) == added.evaluation
    assert evaluate_checkpoint(runs[0], config, options, out=out).before
    at_once = evaluate_checkpoint(runs[0], config, options, out=tmp_path / "f.json").evaluation
    assert at_once.misclassified.verdicts == added.evaluation.misclassified.verdicts
    # Independently: of the predictions on clean images, those that a hand-written attack changes are not consistent.
    x, _ = data.load("digits").test.subset(40).tensors()
    model = open_checkpoint(runs[0]).model.eval()
    predicted = model(x).argmax(1)
    steps = x.clone()
    for _ in range(20):
        steps.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(steps), predicted, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, steps)
        steps = (x + (steps.detach() + 0.025 * gradient.sign() - x).clamp(-0.1, 0.1)).clamp(0, 1)
    by_hand = (model(steps).argmax(1) == predicted).float().mean().item()
    assert added.evaluation.consistent_accuracy.value == pytest.approx(by_hand, abs=0.1)


def test_a_consistency_that_was_stopped_goes_on(runs, tmp_path):
    def stop(progress):
        if "misclassified" in progress.phase and progress.done:
            raise KeyboardInterrupt

    options = replace(FEW, samples=60, consistent=True, batch_size=4)
    out = tmp_path / "e.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate_checkpoint(runs[0], AttackConfig("fgsm"), replace(options, watcher=stop), out=out)
    assert (tmp_path / "e.misclassified.partial" / "state.json").exists()
    found = evaluate_checkpoint(runs[0], AttackConfig("fgsm"), options, out=out).evaluation
    whole = evaluate_checkpoint(runs[0], AttackConfig("fgsm"), options, out=tmp_path / "f.json").evaluation
    assert found.misclassified.verdicts == whole.misclassified.verdicts
    assert not list(tmp_path.glob("*.partial"))


def test_training_images_are_said_to_be_training_images(runs, capsys):
    words = ["evaluate", str(runs[0]), "--attack", "fgsm", "--samples", "40", "--split", "train", "--device", "cpu"]
    assert main([*words, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["split"] == "train"
    assert not any("copied" in warning for warning in done["warnings"])
    x, y = data.load("digits").train.subset(40).tensors()
    with torch.no_grad():
        right = (open_checkpoint(runs[0]).model.eval()(x).argmax(1) == y).float().mean().item()
    assert done["clean_accuracy"]["value"] == pytest.approx(right)
    assert main(words) == 0
    assert "40 training images, which say nothing about new ones" in capsys.readouterr().out
    evaluation = next(e for e in read_run(runs[0]).evaluations.values() if e.split == "train")
    assert Yardstick.of(evaluation).text.endswith("40 training images")


def test_a_split_that_does_not_exist(runs):
    with pytest.raises(InputError, match=r"unknown split 'training'.*Choices: test, validation, train"):
        evaluate_checkpoint(runs[0], AttackConfig("fgsm"), replace(FEW, split="training"))


def test_transfer_is_the_accuracy_of_each_network_on_the_images_made_on_the_others(runs, tmp_path):
    config = AttackConfig("pgd-20")
    done = evaluate_transfer(runs, config, FEW, out=tmp_path / "t.json")
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["names"] == list(done.names) == [run.name for run in runs]
    assert done.plot.read_bytes().startswith(b"\x89PNG")
    x, y = data.load("digits").test.subset(40).tensors()
    models = [open_checkpoint(run).model.eval() for run in runs]
    with torch.no_grad():
        clean = [(model(x).argmax(1) == y) for model in models]
        for source, file in enumerate(written["made_on"]):
            images = load_file(Path(file).with_suffix(".safetensors"))["image"]
            assert float((images - x).abs().max()) <= 0.1 + 1e-5
            right = [(model(images).argmax(1) == y) for model in models]
            for target in range(2):
                share = (clean[target] & right[target]).float().mean().item()
                assert written["accuracy"][source][target]["value"] == pytest.approx(share)
                broken = clean[source] & ~right[source] & clean[target]
                moved = written["transferred"][source][target]
                assert (moved["successes"], moved["total"]) == (
                    int((broken & ~right[target]).sum()),
                    int(broken.sum()),
                )
    assert all(written["transferred"][at][at]["value"] == 1 for at in range(2))
    assert not read_run(runs[0]).evaluations.keys() & {Path(file).stem for file in written["made_on"]}


def test_transfer_attacks_no_network_twice(runs, tmp_path):
    config, heard = AttackConfig("fgsm"), []
    options = replace(FEW, watcher=lambda progress: heard.append(progress.phase))
    first = evaluate_transfer(runs, config, options, out=tmp_path / "t.json")
    assert "fgsm" in heard
    heard.clear()
    again = evaluate_transfer(runs[::-1], config, options, out=tmp_path / "u.json")
    assert "fgsm" not in heard
    assert again.figures["accuracy"][-1][::-1] == first.figures["accuracy"][0]


def test_a_transfer_that_was_stopped_goes_on_to_the_same_images(runs, tmp_path):
    def stop(progress):
        if progress.phase == "pgd-20" and progress.done:
            raise KeyboardInterrupt

    options = replace(FEW, batch_size=8, seed=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate_transfer(runs, AttackConfig("pgd-20"), replace(options, watcher=stop), out=tmp_path / "t.json")
    assert list((runs[0] / "evaluation").glob("transfer-*.partial/state.json"))
    found = evaluate_transfer(runs, AttackConfig("pgd-20"), options, out=tmp_path / "t.json").figures
    for file in found["made_on"]:
        Path(file).unlink()
        Path(file).with_suffix(".safetensors").unlink()
    assert evaluate_transfer(runs, AttackConfig("pgd-20"), options, out=tmp_path / "t.json").figures == found
    assert not list(runs[0].glob("evaluation/*.partial"))


@pytest.mark.filterwarnings("ignore")
def test_what_is_doubtful_about_an_evaluation_is_said_of_matrices_and_comparisons(runs, tmp_path, capsys):
    nan = Path(shutil.copytree(runs[0], tmp_path / runs[0].name, ignore=shutil.ignore_patterns("evaluation")))
    weights, header = load_weights(nan / "best.safetensors")
    name = next(name for name in reversed(weights) if name.endswith("bias"))
    save_weights(nan / "best.safetensors", {**weights, name: weights[name] * float("nan")}, header)
    said = f"{nan.name}: 20 of 20 images have logits without a prediction"
    line = f"evaluate {nan} --attack fgsm --samples 20 --device cpu --transfer {runs[1]} --out {tmp_path / 't.json'}"
    assert main(line.split()) == 0
    assert f"Note: {said}" in capsys.readouterr().out
    assert any(text.startswith(said) for text in json.loads((tmp_path / "t.json").read_text())["warnings"])
    for run in (nan, runs[1]):
        evaluate_checkpoint(run, AttackConfig("fgsm"), replace(FEW, samples=20))
    (found,) = (text for text in compare_runs(runs[1], nan).warnings if "prediction" in text)
    assert found.startswith("B: 20 of 20 images")
    assert main(["compare", str(nan), str(runs[1])]) == 0
    assert "Note: A: 20 of 20 images have logits without a prediction" in capsys.readouterr().out


def test_what_does_not_transfer(runs, tmp_path):
    with pytest.raises(InputError, match="expected two or more networks"):
        evaluate_transfer(runs[:1], AttackConfig("fgsm"), FEW)
    with pytest.raises(InputError, match="expected one radius for a transfer matrix"):
        evaluate_transfer(runs, AttackConfig("fgsm", eps=(0.1, 0.2)), FEW)
    config = from_mapping({**SHORT, "epochs": 1, "image_size": 12, "defense": "standard"}, RunConfig())
    other = train(config, tmp_path).folder
    with pytest.raises(InputError, match=r"40 test images are not those of .*expected networks with the same data"):
        evaluate_transfer([runs[0], other], AttackConfig("fgsm"), FEW)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match=r"t\.json"):
        evaluate_transfer(runs, AttackConfig("fgsm"), FEW, out=tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == "{}"


@pytest.mark.parametrize("option", ["--each", "--consistent", "--save-adversarials"])
def test_options_without_use_beside_transfer(runs, option, capsys):
    words = ["evaluate", str(runs[0]), "--attack", "fgsm,pgd", "--transfer", str(runs[1]), option]
    assert main(words) == 2
    assert f"--transfer: a matrix of networks has no use for {option}" in capsys.readouterr().err


def test_the_report_shows_every_evaluation(runs, tmp_path, capsys):
    words = ["evaluate", str(runs[0]), "--attack", "fgsm,autoattack,deepfool", "--version", "a3", "--each"]
    words += ["--consistent", "--samples", "20", "--device", "cpu", "--attack-parameters", "deepfool.overshoot=0.1"]
    assert main([*words, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert set(done["columns"]) == {"fgsm", "autoattack", "deepfool"}
    evaluate_checkpoint(runs[0], AttackConfig("fgsm", norm="l2", eps=(0.5,)), FEW)
    text = (report(runs[0], tmp_path / "page", pictures=False).path.parent / "report.md").read_text()
    record = read_run(runs[0])
    rows = (tmp_path / "page" / "tables" / "evaluations.csv").read_text().splitlines()
    assert len(rows) == 1 + len({Yardstick.of(evaluation) for evaluation in record.evaluations.values()})
    for label in (
        "| DeepFool (overshoot=0.1) |",
        "| A3 |",
        "| worst case of FGSM + A3 + DeepFool (overshoot=0.1) |",
        "| l_2 | 0.5 | 40 test images |",
    ):
        assert label in text
    worst = done["worst_case"][0]
    assert f"{100 * worst['consistent_accuracy']['value']:.1f} %" in text


def test_a_comparison_has_consistent_accuracy_and_every_common_evaluation(runs):
    options = replace(FEW, samples=50, consistent=True)
    for run in runs:
        evaluate_checkpoint(run, AttackConfig("fgsm"), options)
        evaluate_checkpoint(run, AttackConfig("fgsm", eps=(0.02,)), options)
    found = compare_runs(*runs)
    assert found.consistent is not None
    each = [next(e for e in read_run(run).evaluations.values() if Yardstick.of(e) == found.yardstick) for run in runs]
    rates = [evaluation.consistent_accuracy.value for evaluation in each]
    assert found.consistent.value == pytest.approx(rates[1] - rates[0])
    figures = [str(row[0]) for row in found.table.rows]
    assert "consistent accuracy" in figures
    assert "robust: FGSM, l_inf 0.02, 50 test images" in figures
    assert found.to_dict()["consistent_difference"]["value"] == found.consistent.value


def test_networks_of_one_run_and_of_one_name_have_names_of_their_own(runs, tmp_path):
    best, last = (open_checkpoint(runs[0], which) for which in ("best", "last"))
    done = evaluate_transfer([best, last], AttackConfig("fgsm"), replace(FEW, samples=20), out=tmp_path / "t.json")
    assert done.names == (runs[0].name, f"{runs[0].name}, last weights")
    elsewhere = Path(shutil.copytree(runs[0], tmp_path / "elsewhere" / runs[0].name))
    done = evaluate_transfer([best, elsewhere], AttackConfig("fgsm"), replace(FEW, samples=20), out=tmp_path / "u.json")
    assert done.names == (str(runs[0] / "best.safetensors"), str(elsewhere / "best.safetensors"))
    with pytest.raises(InputError, match=r"best\.safetensors is given twice"):
        evaluate_transfer([best, runs[0]], AttackConfig("fgsm"), FEW, out=tmp_path / "t.json")
