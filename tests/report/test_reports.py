"""Reports of runs and studies: the answer is what the verdicts say, and no more."""

import json
import shlex
import shutil
from dataclasses import replace

import pytest

from robustmaps.cli import main
from robustmaps.config import AttackConfig, DataConfig, DefenseConfig, OriginConfig, RunConfig
from robustmaps.data import load
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import sha256, write_json
from robustmaps.networks import name_configurations
from robustmaps.report import Chart, Code, Gallery, Listing, Missing, report
from robustmaps.runs import Options, evaluate_checkpoint, evaluate_corrupted, evaluate_transfer, train
from robustmaps.studies import compare_runs, corrupted_test_images
from robustmaps.training import TrainOptions
from tests.helpers.studies import configuration, write_run


def blocks(page, kind):
    return [block for section in page.sections for block in section.blocks if isinstance(block, kind)]


def leaderboard(page):
    table = next(block.table for block in blocks(page, Listing) if block.name == "leaderboard")
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.fixture
def study(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "study", configuration(1, seed), 30 + seed)
        write_run(tmp_path / "study", configuration(2, seed), 60 + seed, flops=4000)
    return tmp_path / "study"


def test_the_answer(study):
    done = report(study, pictures=False)
    first, gain = done.page.answer
    assert first.startswith("ResNet-8 ×2 is the most robust of 2 configurations: 61.0 % of the test images")
    assert "ResNet-8 ×2 is 30.0 points more robust than ResNet-8" in gain
    assert "3 seeds x 100 images" in gain
    assert "; for one image, " in gain  # whatever training took, such as more epochs
    assert gain.endswith("takes 4 times the operations of ResNet-8.")
    best, plain = leaderboard(done.page)
    assert (best["robust"].value, plain["robust"].value) == pytest.approx((61, 31))
    assert best["gain (points)"].value == pytest.approx(30)
    assert plain["gain (points)"] == "-"
    assert done.runs == 6
    names = {chart.name for chart in blocks(done.page, Chart)}
    assert names == {"trade-off", "differences", "training", "cascade", "radius"}


def test_no_stronger_than_the_data(tmp_path):
    write_run(tmp_path, configuration(1), 50)
    write_run(tmp_path, configuration(2), 52, flops=4000)
    answer = report(tmp_path, pictures=False).page.answer
    assert answer[0].endswith("; its lead is within chance.")
    assert answer[1].startswith(
        "ResNet-8 ×2 is 2.0 points higher in robust accuracy than ResNet-8, within chance (95 % interval"
    )
    assert "other seeds may differ" in answer[1]


def test_robust_overfitting_is_named(study):
    page = report(study, pictures=False).page
    texts = [block.text for section in page.sections for block in section.blocks if hasattr(block, "kind")]
    assert any("by -10.0 points. Even without overfitting, the best of many" in text for text in texts)


def test_epochs_before_a_late_enlargement_are_no_best_ones(study):
    """They were those of a smaller network, whose weights are not kept."""
    for file in study.glob("*/metrics.jsonl"):
        first, last = map(json.loads, file.read_text().splitlines())
        file.write_text("".join(json.dumps(epoch) + "\n" for epoch in (first | {"before_enlarging": 1}, last)))
    page = report(study, pictures=False).page
    (falls,) = (each.table for each in blocks(page, Listing) if each.name == "overfitting")
    assert [[cell.text for cell in row[1:]] for row in falls.rows] == [["40.0 %", "40.0 %", "+0.0"]] * 2
    texts = [block.text for section in page.sections for block in section.blocks if hasattr(block, "kind")]
    assert any(text.startswith("No robust overfitting") for text in texts)
    (curves,) = (each for each in blocks(page, Chart) if each.name == "training")
    marks = [mark for series in curves.plot.series for mark in series.marks if mark.label]
    assert [(mark.x, mark.y, mark.label) for mark in marks] == [(2, 40.0, "enlarged")] * 2


def test_what_is_missing_names_its_command(tmp_path):
    path = write_run(tmp_path, configuration(), None)
    page = report(path, pictures=False).page
    assert page.kind == "Report of a run"
    assert page.answer == ("No run has been evaluated yet.",)
    commands = " ".join(block.command for block in blocks(page, Missing))
    for verb in ("evaluate", "diagnose", "report"):
        assert f"robustmaps {verb} {path}" in commands
    assert "1 run of 1 is stopped." in page.warnings


def test_runs_that_differ_and_ones_that_lack_something(study):
    write_run(study, configuration(1, 0, model="vgg11"), None)
    (study / "notes").mkdir()
    (study / "notes" / "ideas.txt").touch()
    page = report(study, pictures=False).page
    rows = leaderboard(page)
    assert [row["configuration"] for row in rows] == ["ResNet-8 ×2", "ResNet-8", "VGG-11 122"]
    assert rows[2]["robust"] == "-"
    assert any(warning.startswith("1 of 7 runs have not been evaluated with PGD, l_inf") for warning in page.warnings)
    assert any(warning.startswith("notes: ") for warning in page.warnings)
    again = report(study, pictures=False).page
    assert again == page  # the report in the folder is no run of it


def test_parts_that_cannot_be_compared(study):
    fashion = DataConfig(data="/sets/fashion-mnist")
    for seed in range(3):
        for upsample, robust in ((1, 40), (2, 20)):
            config = replace(configuration(upsample, seed), data=fashion)
            write_run(study, config, robust, of=200, images="others", flops=1000 * upsample)
    write_run(study, replace(configuration(1.5), data=fashion), None)
    page = report(study, pictures=False).page
    assert [part.title for part in page.parts] == ["fashion-mnist", "digits"]
    assert page.kind == "Report of a study: 5 configurations, 13 runs in 2 parts with different images or attacks"
    (fashion_rows, digit_rows) = [b.table.rows for b in blocks(page, Listing) if b.name.endswith("-leaderboard")]
    assert [row[0] for row in fashion_rows] == ["ResNet-8", "ResNet-8 ×2", "ResNet-8 ×1.5"]
    assert [row[0] for row in digit_rows] == ["ResNet-8 ×2", "ResNet-8"]
    assert page.answer[0].startswith("fashion-mnist: ResNet-8 is the most robust of 2 configurations: 20.0 %")
    assert any(text.startswith("digits: ResNet-8 ×2 is the most robust of 2") for text in page.answer)
    names = [block.name for kind in (Chart, Listing) for block in blocks(page, kind)]
    assert len(set(names)) == len(names)
    assert (study / "report" / "tables" / "part2-leaderboard.csv").exists()


def test_radii_trained_for_are_parts_of_their_own(tmp_path):
    for seed in range(2):
        for eps in (0.1, 0.2):
            config = replace(configuration(1, seed), defense=replace(configuration().defense, eps=eps))
            path = write_run(tmp_path, config, 40)
            (path / "evaluation" / f"pgd-linf-{0.3 - eps:g}.json").unlink()
    page = report(tmp_path, pictures=False).page
    assert {part.title for part in page.parts} == {"PGD, l_inf 0.1", "PGD, l_inf 0.2"}


def test_the_most_robust_has_to_be_shown_against_every_other(tmp_path):
    """The lead over the next, whose seeds agree, is sure; over the third, whose seeds are far apart, it is not."""
    figures = {1: (50, 50, 50), 2: (70, 70, 70), 1.5: (20, 50, 65)}
    for upsample, robust in figures.items():
        for seed, count in enumerate(robust):
            write_run(tmp_path, configuration(upsample, seed), count, of=400)
    first = report(tmp_path, pictures=False).page.answer[0]
    assert first.startswith("ResNet-8 ×2 has the highest robust accuracy of 3")
    assert "its lead is within chance" in first
    for seed, count in enumerate((45, 46, 44)):
        path = tmp_path / configuration(1.5, seed).name
        shutil.rmtree(path)
        write_run(tmp_path, configuration(1.5, seed), count, of=400)
    assert "within chance" not in report(tmp_path, pictures=False).page.answer[0]


def test_a_study_is_reported_as_it_stands(study):
    listed = [{"folder": configuration(2, seed).name} for seed in range(3)]
    (study / "study.json").write_text(json.dumps({"runs": listed}))
    done = report(study, pictures=False)
    assert done.runs == 3
    assert any(warning.startswith("3 runs in the folder that ") for warning in done.page.warnings)
    (study.parent / "study.yaml").write_text("axes: {}")
    assert report(study.parent / "study.yaml", pictures=False).path == done.path


def test_a_report_that_was_cut_off_is_written_again(study, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robustmaps.engine.tables.Table.to_latex", fail)
        with pytest.raises(KeyboardInterrupt):
            report(study, pictures=False)
    done = report(study, pictures=False)
    assert not list((study / "report").glob(".tables.*"))
    assert (done.path.parent / "tables" / "leaderboard.tex").exists()


def test_diagnoses_are_shown(study):
    (run, *_) = sorted(study.iterdir())
    findings = [{"name": "transfer", "verdict": "suspect", "text": "3 of 10", "page": "x"}]
    (run / "evaluation" / "diagnosis-linf.json").write_text(json.dumps({"findings": findings}))
    page = report(study, pictures=False).page
    assert any("transfer is suspicious" in warning for warning in page.warnings)
    (table,) = [block.table for block in blocks(page, Listing) if block.name == "diagnostics"]
    assert table.rows[0][2:] == ("transfer", "suspect", "3 of 10")


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        ({"checkpoint_sha256": "0" * 64}, "it is of weights that are no longer in the run"),
        ({"computes": [2.0, 1.0]}, "with these weights, the network has computed something else since"),
    ],
)
def test_diagnoses_of_another_network_are_not_shown(study, recorded, reason):
    (run, *_) = sorted(study.iterdir())
    (run / "best.safetensors").write_bytes(b"weights")
    present = sha256(run / "best.safetensors")
    known = {"checkpoint_sha256": present, "computes": [1.0, 2.0]}
    write_json(run / "evaluation" / ".network.json", {**known, "built_in": True})
    findings = [{"name": "transfer", "verdict": "ok", "text": "fine", "page": "x"}]
    (run / "evaluation" / "diagnosis-linf.json").write_text(json.dumps({"findings": findings, **known, **recorded}))
    page = report(study, pictures=False).page
    (table,) = [block.table for block in blocks(page, Listing) if block.name == "diagnostics"]
    assert table.rows[0][3] == "outdated"
    assert any(f"diagnosis-linf.json: {reason}; diagnose again" in warning for warning in page.warnings)


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        report(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no runs; expected a run folder"):
        report(tmp_path)


def test_a_real_pair_with_pictures_and_classes(tmp_path):
    for upsample in (1, 2):
        run = train(configuration(upsample), tmp_path)
        evaluate_checkpoint(run.folder, AttackConfig("fgsm"), Options(samples=60, device="cpu"))
    done = report(tmp_path, device="cpu")
    charts = {chart.name: chart for chart in blocks(done.page, Chart)}
    assert len(charts["classes"].data.rows) == 10
    assert {row[0] for row in charts["depth"].data.rows} == {"ResNet-8", "ResNet-8 ×2"}
    titles = [gallery.title for gallery in blocks(done.page, Gallery)]
    assert sorted(titles) == [
        "Feature maps of ResNet-8",
        "Feature maps of ResNet-8 ×2",
        "ResNet-8",
        "ResNet-8 ×2",
    ]
    assert report(tmp_path, tmp_path / "other", device="cpu").path.read_text() == done.path.read_text()


def test_compare(study):
    runs = {upsample: study / configuration(upsample).name for upsample in (1, 2)}
    done = compare_runs(runs[1], runs[2])
    assert done.sentence().startswith("ResNet-8 ×2 is 30.0 points more robust than ResNet-8")
    assert done.yardstick.eps == 0.1
    assert done.settings.rows == (("upsample", "1.0", "2.0"),)
    assert json.dumps(done.to_dict(), allow_nan=False)
    assert compare_runs(runs[2], runs[1]).sentence().startswith("ResNet-8 ×2 is 30.0 points more robust than ResNet-8")
    with pytest.raises(InputError, match="is the same network twice, so nothing can differ"):
        compare_runs(runs[1], runs[1])
    with pytest.raises(InputError, match="are the same network twice"):
        compare_runs(runs[1], runs[1].parent / "." / runs[1].name / ".." / runs[1].name)
    other = write_run(study, configuration(1, 7), None)
    with pytest.raises(InputError, match="have no evaluation in common; evaluate both"):
        compare_runs(runs[1], other)


def test_configurations_are_named_by_no_more_than_tells_them_apart():
    digits, other = RunConfig(), RunConfig(data=DataConfig(data="cifar10"), training=TrainOptions(epochs=5, lr=0.3))
    larger = replace(digits, model=replace(digits.model, enlarge="where=0"))
    trades = replace(digits, defense=DefenseConfig(defense="trades", eps=0.1))
    longer = replace(trades, training=TrainOptions(epochs=7, lr=0.2))
    assert name_configurations([digits, other]) == ["ResNet-8 · digits", "ResNet-8 · cifar10"]
    assert name_configurations([digits, larger]) == ["ResNet-8", "ResNet-8, step 0"]
    assert name_configurations([digits, trades, longer]) == [
        "ResNet-8 · AT · epochs 110",
        "ResNet-8 · TRADES · epochs 110",
        "ResNet-8 · TRADES · epochs 7",
    ]
    other_network = replace(trades, model=replace(digits.model, model="resnet20", upsample=2.0))
    assert name_configurations([digits, other_network]) == ["ResNet-8 · AT", "ResNet-20 ×2 · TRADES"]
    # Where the values come from makes no other configuration.
    labelled = replace(digits, origin=OriginConfig("at-resnet8-122-digits", "published"))
    assert labelled.hash == digits.hash
    assert name_configurations([digits, labelled]) == ["ResNet-8 (digits) #1", "ResNet-8 (digits) #2"]


def commands(page):
    return next(block.text for block in blocks(page, Code) if block.title == "Commands").splitlines()


@pytest.mark.parametrize(
    "attack",
    [
        AttackConfig("pgd", eps=(0.05,), steps=2, restarts=1, loss="kl"),
        AttackConfig("fgsm", norm="l2"),
        AttackConfig("autoattack", version="plus", exhaustive=True),
        AttackConfig("apgd-ce,square"),
        AttackConfig("pgd-20,fgsm"),
        AttackConfig("pgd-20,square", exhaustive=True),
        AttackConfig("deepfool,autoattack", version="plus", steps=9, attack_parameters="deepfool.overshoot=0.1"),
    ],
    ids=lambda attack: attack.attack,
)
def test_the_commands_repeat_it(tmp_path, monkeypatch, capsys, attack):
    """A run in a folder of any name: the commands, as a shell reads them, train and evaluate the same."""
    monkeypatch.chdir(tmp_path)
    trained = train(configuration(), tmp_path / "runs")
    folder = trained.folder.rename(tmp_path / "<i>&x y")
    options = Options(samples=12, split="validation", seed=3, device="cpu")
    first = evaluate_checkpoint(folder, attack, options).evaluation
    for command in commands(report(folder, pictures=False).page)[:2]:
        assert main([*shlex.split(command)[1:], "--json"]) == 0, capsys.readouterr().err
        again = json.loads(capsys.readouterr().out)
    assert again["attacks"] == [dict(each) for each in first.attacks]
    assert (again["images_sha256"], again["seed"]) == (first.images_sha256, 3)
    assert (again["norm"], again["eps"]) == (first.norm, first.eps)


def test_other_results_of_a_run_are_shown_and_repeated(tmp_path, monkeypatch, capsys):
    """Corrupted images and a transfer matrix: the commands make the same figures of the run made again."""
    monkeypatch.chdir(tmp_path)
    base = replace(configuration(), training=TrainOptions(epochs=1, device="cpu", precision="fp32"))
    base = replace(base, data=DataConfig(data="digits", train_samples=64))
    a, b = (train(replace(base, model=replace(base.model, upsample=n)), "runs").folder for n in (1, 2))
    images = corrupted_test_images(load("digits"), tmp_path / "white noise")
    options = Options(samples=20, device="cpu", eight_bit=True)
    figures = [
        evaluate_corrupted(a, images, replace(options, eight_bit=False)).figures,
        evaluate_transfer([a, b], AttackConfig("pgd", steps=2, restarts=1, eps=(0.05,)), options).figures,
    ]
    capsys.readouterr()
    done = report(a, "page", pictures=False).page
    tables = {block.name: block.table for block in blocks(done, Listing)}
    assert tables["corrupted"].rows[0][2].value == pytest.approx(100 * figures[0]["mean_corruption_accuracy"]["value"])
    assert not [text for text in done.warnings if "unreadable" in text]
    again = []
    for command in commands(done)[:3]:
        assert main([*shlex.split(command)[1:], "--json"]) == 0, capsys.readouterr().err
        again.append(json.loads(capsys.readouterr().out))
    for before, after in zip(sorted(figures, key=len), sorted(again[1:], key=len), strict=True):
        for name in ("mean_corruption_accuracy", "fingerprint", "attacks", "accuracy", "images_sha256"):
            assert before.get(name) == after.get(name), name


def test_a_study_is_repeated_from_its_plan(study):
    (study / "study.yaml").write_text("axes: {}")
    assert f"robustmaps sweep {study / 'study.yaml'} --out again" in commands(report(study, pictures=False).page)


def test_a_curve_holds_evaluations_that_differ_in_eps_alone(tmp_path):
    """Two attacks of one name at one radius are no two seeds."""
    folder = write_run(tmp_path, configuration(), 60)
    weaker = json.loads((folder / "evaluation" / "pgd-linf-0.1.json").read_text())
    weaker["attacks"][0]["steps"] = 1
    (folder / "evaluation" / "a-weaker-one.json").write_text(json.dumps(weaker))
    chart = next(c for c in blocks(report(folder, pictures=False).page, Chart) if c.name == "radius")
    assert [row[2].interval for row in chart.data.rows if row[1].value == 0.1] == [
        pytest.approx((50.2, 69.1), abs=0.1)  # Wilson's of one evaluation
    ]


def test_a_failed_run_says_why(study):
    folder = write_run(study, configuration(1, 9), None)
    (folder / "error.txt").write_text("Diverged: the loss became nan\n\nTraceback ...")
    warnings = report(study, pictures=False).page.warnings
    assert f"{folder.name} failed: Diverged: the loss became nan" in warnings
    assert "1 run of 7 failed." in warnings
