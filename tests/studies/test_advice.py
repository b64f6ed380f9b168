"""What to spend a budget on: equal cost, choice by validation images, and a sentence no stronger than the data."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robustmaps.cli import main
from robustmaps.config import DefenseConfig, ModelConfig, RunConfig, from_mapping, read_study
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.evaluation import compare_all
from robustmaps.runs import read_run
from robustmaps.studies import Advice, Confirmed, TrainingBudget, Way, advise, plan_advice
from robustmaps.training import TrainOptions

BASE = RunConfig(
    defense=DefenseConfig(defense="fast-at", eps=0.1),
    training=TrainOptions(epochs=4, batch_size=256, device="cpu", precision="fp32"),
)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        *(("4x", 4, "x"), ("2.5X", 2.5, "x"), ("1e15flop", 1e15, "flop"), ("3 PFLOP", 3e15, "flop")),
        *(("2h", 7200, "s"), ("30min", 1800, "s"), ("90s", 90, "s"), ("1.5d", 129600, "s")),
    ],
)
def test_a_budget_is_a_multiple_operations_or_a_time(text, amount, unit):
    assert TrainingBudget.of(text) == TrainingBudget(amount, unit)


@pytest.mark.parametrize("text", ["4", "", "x", "-1x", "0h", "four x", "2 weeks", "2days", "nan x", "infs"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match=re.escape(f"budget={text!r}: expected a number above 0 with its unit")):
        TrainingBudget.of(text)


@pytest.mark.slow
def test_every_way_spends_the_same(digits, tmp_path):
    plan = plan_advice(BASE, digits, tmp_path, budget=TrainingBudget.of("4x"), networks=("resnet20",), seeds=3)
    given, longer, *others = plan.ways
    assert given.spent == 1
    assert given.config.training.epochs == 4
    assert longer.config.training.epochs == 16
    assert longer.spent == 4
    names = [way.name for way in others]
    assert any("×2" in name for name in names)
    assert any("112" in name for name in names)
    assert any("ResNet-20" in name for name in names)
    assert {name.partition(",")[0] for name in names} >= {"ResNet-8 w2", "ResNet-8 w0.5 ×2", "ResNet-8 w1-1-0.5 121"}
    assert any("×2, after 80 % of the epochs" in name for name in names)
    # A third of its eight epochs, three, is too few for three networks.
    assert not any("in steps" in name for name in names)
    for way in others:
        assert way.spent_by(way.config.training.epochs) == pytest.approx(way.spent)
        assert way.spent == pytest.approx(way.relative * way.config.training.epochs / 4)
        assert 4 - way.relative / 4 < way.spent <= 1.05 * 4
    assert len(plan.screening.runs) == len(plan.ways) - 1
    assert all(run.estimate.training_flops < 0.6 * 4 * plan.training_flops for run in plan.screening.runs)
    assert not list(tmp_path.iterdir())
    counted = plan_advice(
        BASE, digits, tmp_path, budget=TrainingBudget(4 * plan.training_flops, "flop"), networks=("resnet20",), seeds=3
    )
    assert counted.times == pytest.approx(4)
    assert counted.ways == plan.ways


def test_a_late_enlargement_costs_more_at_the_end():
    model = ModelConfig(upsample=2.0, enlarge_at="0.5,0.8")
    config = replace(BASE, model=model, training=TrainOptions(epochs=10))
    way = Way("in steps", config, relative=2.0, spent=4.0, each=(1.0, 7 / 3, 4.0))
    assert [way.spent_by(epoch) for epoch in (1, 5, 6, 8, 9, 10)] == pytest.approx(
        [0.2, 1.0, 1.0 + 1.4 / 3, 2.4, 3.2, 4.0]
    )


def test_a_schedule_of_one_s_own_is_refused(digits, tmp_path):
    late = replace(BASE, model=ModelConfig(upsample=2.0, enlarge_at="0.8"))
    with pytest.raises(InputError, match=r"enlarge_at=0\.8: late enlargement is among the ways that are tried"):
        plan_advice(late, digits, tmp_path, budget=TrainingBudget.of("4x"))


@pytest.mark.slow
def test_a_time_is_measured_once(digits, tmp_path):
    budget = TrainingBudget.of("200s")
    base = replace(BASE, training=replace(BASE.training, epochs=1))
    first = plan_advice(base, digits, tmp_path, budget=budget, upsamples=(1,), seeds=3)
    assert first.times > 1
    assert first.ways[1].config.training.epochs == int(first.times)
    assert first.ways[1].flops == first.ways[1].spent
    counted = plan_advice(base, digits, tmp_path, budget=TrainingBudget.of("8x"), upsamples=(1,), seeds=3)
    costs = {way.config.model: way.relative for way in counted.ways[1:]}
    both = [way for way in first.ways[1:] if way.config.model in costs]
    assert len(both) > 2
    for way in both:  # whatever the time, operations are counted
        assert way.flops == pytest.approx(costs[way.config.model] * way.config.training.epochs)
    changed = {**first.measured.to_dict(), "times": 5.0}
    changed["relative"] = {name: 1 + number for number, name in enumerate(changed["relative"])}
    write_json(tmp_path / "measured.json", changed)
    again = plan_advice(base, digits, tmp_path, budget=budget, upsamples=(1,), seeds=3)
    assert again.times == 5
    kept = [way.relative for way in again.ways[2:]]
    assert len(kept) > 1
    assert set(kept) <= {2, 3, 4, 5}  # what is written, and nothing that was measured again
    other = plan_advice(base, digits, tmp_path, budget=TrainingBudget.of("201s"), upsamples=(1,), seeds=3)
    assert other.times != 5


@pytest.fixture
def one_step(tmp_path, monkeypatch):
    """A network of one's own, with one step."""
    (tmp_path / "advised_network.py").write_text(
        "from torch import nn\n\n"
        "def one_step():\n"
        "    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), *head)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "advised_network:one_step"
    sys.modules.pop("advised_network", None)


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_a_network_of_ones_own_is_advised_on_the_images_that_are_named(digits, tmp_path, one_step):
    base = replace(BASE, model=ModelConfig(model=one_step))
    plan = plan_advice(base, digits, tmp_path / "out", budget=TrainingBudget.of("6x"), seeds=3, timed=False)
    assert {run.point.config.data.data for run in plan.screening.runs} == {"digits"}
    assert len(plan.screening.runs) == len(plan.ways) - 1


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_nothing_is_written_into_a_run(digits, tmp_path, one_step):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / "best.safetensors").touch()
    base = replace(BASE, model=ModelConfig(model=one_step))
    for out in (run, run / "deeper"):
        plan = plan_advice(base, digits, out, budget=TrainingBudget.of("6x"), seeds=3, timed=False)
        with pytest.raises(InputError, match=r"is inside the run .*; choose a folder of its own"):
            advise(plan)
    assert {path.name for path in run.iterdir()} == {"config.yaml", "best.safetensors"}


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_what_is_changed_in_a_recipe_stays_changed(digits, tmp_path, one_step):
    """The study would take the recipe's value for one that is changed back to the usual one."""
    usual = TrainOptions.lr
    base = from_mapping({"recipe": "at-resnet8-122-digits", "model": one_step, "strides": None, "lr": usual}, None)
    assert from_mapping({"recipe": "at-resnet8-122-digits"}, None).training.lr != usual
    base = replace(base, training=replace(base.training, epochs=4, device="cpu"))
    plan = plan_advice(base, digits, tmp_path / "out", budget=TrainingBudget.of("6x"), seeds=3, timed=False)
    assert {run.point.config.training.lr for run in plan.screening.runs} == {usual}


def test_what_cannot_be_advised_is_refused(digits, tmp_path):
    with pytest.raises(InputError, match="does not pay for one epoch more"):
        plan_advice(BASE, digits, tmp_path, budget=TrainingBudget(1.1, "x"))
    with pytest.raises(InputError, match="seeds=2"):
        plan_advice(BASE, digits, tmp_path, budget=TrainingBudget(4, "x"), seeds=2)
    with pytest.raises(InputError, match="networks=resnet8: has the given network"):
        plan_advice(BASE, digits, tmp_path, budget=TrainingBudget(4, "x"), networks=("resnet8",))
    unsplit = replace(digits, validation=digits.validation.subset(torch.arange(0)))
    with pytest.raises(InputError, match="validation above 0"):
        plan_advice(BASE, unsplit, tmp_path, budget=TrainingBudget(4, "x"))


def advice(**rates):
    """Advice about ways of which a share of 400 images withstands the attack, with five seeds."""
    draw = np.random.default_rng(0)
    luck = draw.random((5, 400))
    verdicts = {name: (luck + 0.02 * draw.standard_normal((5, 400))) < rate for name, rate in rates.items()}
    names = list(rates)
    pairs = [(names[1], name) for name in names[2:]] + [(names[0], name) for name in names[1:]]
    confirmed = tuple(Confirmed(Way(name, BASE, 1, 4), (), ()) for name in names)
    return Advice(SimpleNamespace(times=4), {}, confirmed, compare_all(verdicts, pairs=pairs))


@pytest.mark.parametrize(
    ("rates", "winner", "says"),
    [
        ({"given": 0.4, "longer": 0.5, "larger": 0.6}, "larger", "Spend it on larger: larger is 1"),
        ({"given": 0.4, "longer": 0.5, "larger": 0.45}, "longer", "longer is 9.8 points more robust than given"),
        ({"given": 0.4, "longer": 0.5, "larger": 0.501}, "longer", "No other way is shown to be better at this cost"),
        ({"given": 0.5, "longer": 0.501, "larger": 0.499}, "given", "nothing is shown to be worth 4 x as much"),
        ({"given": 0.5, "longer": 0.3, "larger": 0.3}, "given", "nothing is shown to be worth 4 x as much"),
        ({"given": 0.5, "longer": 0.3, "larger": 0.4}, "given", "Of what was tried, larger comes first: "),
        ({"given": 0.4, "longer": 0.3, "larger": 0.6}, "larger", "Spend it on larger"),
        ({"given": 0.4, "longer": 0.5, "larger": 0.6, "wider": 0.7}, "wider", "Spend it on wider"),
    ],
)
def test_the_sentence_says_what_is_shown_and_no_more(rates, winner, says):
    found = advice(**rates)
    assert found.winner.way.name == winner
    assert says in found.sentence()


@pytest.mark.slow
def test_advice_from_the_command_to_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "advise resnet8 --defense fast-at --eps 0.1 --epochs 2 --budget 3x --seeds 3 --finalists 1 --samples 60"
    line += " --upsamples 1 --device cpu"
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "runs/advise-resnet8"
    saved = json.loads((folder / "advice.json").read_text())
    assert saved["sentence"] in " ".join(out.split())
    assert (folder / "advice.png").read_bytes()[:4] == b"\x89PNG"
    given, longer, other = saved["confirmed"]
    assert (given["name"], longer["name"]) == ("as given, 2 epochs", "longer, 6 epochs")
    assert len(other["folders"]) == 3
    for run in longer["folders"]:
        (evaluation,) = read_run(run).evaluations.values()
        assert len(evaluation.robust_correct) == 60
    # Chosen by validation images, one seed each, on a study that can be swept and reported.
    for name, runs in (("screening", 6), ("confirmed", 9)):
        assert len(read_study(folder / name / "study.yaml").points) == runs
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("last.pt")}
    assert main(line.split()) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("last.pt")} == before
