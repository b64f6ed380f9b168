"""The verbs that look at networks and enlarge them: analyze, enlarge, plan, theory."""

import json
import shlex

import pytest

from robustmaps.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
QUICK = "--data digits --samples 10 --steps 1 --device cpu"


def run(line, capsys):
    code = main(shlex.split(line))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", ["analyze", "enlarge", "plan", "theory"])
def test_they_explain_themselves(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_analyze_prints_tables(capsys):
    code, out, _ = run(f"analyze resnet8 {QUICK} --eps 8/255", capsys)
    assert code == 0
    for part in ("ResNet-8, images of 8x8 px; l_inf, eps 8/255 on 10 images", "conv 3x3 / 2", "group3", "kFLOP"):
        assert part in out
    assert "the weights are random" in out


def test_analyze_before_and_after_as_json_with_pictures(capsys, tmp_path):
    code, out, _ = run(f"analyze resnet8 {QUICK} --upsample 2 --out {tmp_path} --json", capsys)
    assert code == 0
    found = json.loads(out)
    assert [found[side]["cost"]["map_size"] for side in ("before", "after")] == [[2, 2], [4, 4]]
    assert found["enlargement"]["recipe"] == {"upsample": 2.0, "upsample_mode": "nearest"}
    assert len(found["after"]["margin"]["images"]["first_order"]) == 10
    assert json.loads((tmp_path / "analysis.json").read_text())["before"] == found["before"]
    for name in ("gain.png", "maps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_enlarge_saves_what_analyze_opens(capsys, tmp_path):
    save = tmp_path / "larger"
    code, out, _ = run(f"enlarge resnet8 --where last --data digits --samples 4 --save {save}", capsys)
    assert code == 0
    assert "strides of step 1 divided by 2" in out
    assert str(save / "recipe.json") in out
    code, out, _ = run(f"analyze {save} {QUICK} --json", capsys)
    assert code == 0
    assert [stage["map_size"] for stage in json.loads(out)["stages"]] == [[8, 8], [4, 4]]
    assert run(f"enlarge resnet8 --where last --save {save}", capsys)[0] == 2


def test_plan_lists_the_front(capsys, tmp_path):
    line = f"plan resnet8 --data digits --budget 3.0x --samples 10 --device cpu --out {tmp_path / 'plan.png'}"
    code, out, _ = run(line, capsys)
    assert code == 0
    assert "* no other one within 3x flops has as small a gain at the same or a lower cost" in out
    assert "gain: how far the perturbation moves the pooled features to first order" in " ".join(out.split())
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("plan resnet8 --budget 2 --gain none --upsamples 1 --json", capsys)
    options = json.loads(out)["options"]
    assert [option["upsample"] for option in options] == [1] * len(options)
    assert all(option["relative"] <= 2 for option in options)


def test_theory_writes_figure_and_numbers(capsys, tmp_path):
    code, out, _ = run(f"theory --draws 2 --networks 2 --epochs 1 --out {tmp_path}", capsys)
    assert code == 0
    assert "trained weights" in out
    found = json.loads((tmp_path / "theory.json").read_text())
    assert {series["pool"] for series in found["series"]} == {"average", "max"}
    assert (tmp_path / "theory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("analyze resnt8", "did you mean 'resnet8'"),
        ("analyze nowhere:fun --data digits", "no module"),
        ("analyze resnet8 --eps 8", "did you mean 8/255"),
        ("analyze resnet8 --where middle", "expected first, last, or numbers"),
        ("enlarge resnet8", "nothing to do: set upsample=2"),
        ("enlarge resnet8 --where 7", "there is no step 7"),
        ("plan resnet8 --budget 0.5x", "budget=0.5: expected a number of at least 1"),
        ("plan resnet8 --budget much", "budget='much'"),
        ("theory --networks 1", "networks=1: a single network gives no interval"),
        ("theory --draws 0", "draws=0"),
    ],
)
def test_bad_input_is_code_2_and_says_why(line, message, capsys):
    code, _, err = run(line, capsys)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("verb", "file", "message"),
    [
        ("plan resnet8 --data digits --out {}/plan.png", "plan.png", "plan.png already exists"),
        ("plan resnet8 --data digits --out {}/plan", "other", "expected a picture's name, such as plan.png"),
        ("analyze resnet8 --data digits --out {}", "gain.png", "gain.png already exists"),
        ("theory --out {}", "theory.json", "theory.json already exists"),
    ],
)
def test_nothing_is_overwritten(verb, file, message, capsys, tmp_path):
    (tmp_path / file).write_text("mine")
    code, _, err = run(verb.format(tmp_path), capsys)
    assert code == 2
    assert message in err
    assert (tmp_path / file).read_text() == "mine"
