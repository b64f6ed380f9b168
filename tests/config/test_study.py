"""Studies: which runs a file asks for."""

import re
from pathlib import Path

import pytest

from robustmaps.config import read_study, to_mapping
from robustmaps.engine.errors import InputError


@pytest.fixture
def study(tmp_path):
    def write(text):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return read_study(path)

    return write


def test_every_combination_but_the_excluded_ones(study):
    found = study("""
axes:
  network: [{strides: 122}, {strides: 112}, {upsample: 2, epochs: 3}]
  defense: [standard, at]
  seed: [0, 1]
fixed: {eps: 8/255, batch-size: 32}
exclude:
  - {defense: standard, strides: [112, 111]}
  - {eps: 4/255}
evaluation:
  - {attack: pgd, steps: 3, samples: 50}
  - {attack: a3, eps: "4/255, 8/255", split: validation}
""")
    assert found.name == "study"
    assert found.keys == ("strides", "upsample", "epochs", "defense", "seed")
    assert len(found.points) == 3 * 2 * 2 - 2
    kinds = {(p.config.model.strides, p.config.model.upsample, p.config.defense.defense) for p in found.points}
    assert ("112", 1.0, "standard") not in kinds
    assert ("112", 1.0, "at") in kinds
    assert {p.config.training.epochs for p in found.points if p.config.model.upsample == 2} == {3}
    assert {p.config.training.batch_size for p in found.points} == {32}
    assert found.points[0].values == {"strides": 122, "defense": "standard", "seed": 0}
    first, second = found.evaluations
    assert (first.attack.steps, first.samples, first.split) == (3, 50, "test")
    assert (second.attack.eps, second.attack.version, second.split) == ((4 / 255, 8 / 255), None, "validation")
    assert found.notes == ("2 combinations excluded", "exclude: {'eps': '4/255'} matches no combination")


def test_the_same_run_is_made_once(study):
    found = study("axes: {eps: [8/255, 8/255, 0.1]}")
    assert [to_mapping(point.config)["eps"] for point in found.points] == ["8/255", 0.1]
    assert found.notes == ("1 combination left out: the same run as another",)


def test_the_documented_study_is_one(study):
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    assert len(study(example[1]).points) == 2 * 3 * 2 * 3


def test_without_axes_there_is_one_run(study):
    found = study("fixed: {epochs: 3}")
    assert len(found.points) == len(found.evaluations) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis: {seed: [0]}", "unknown key in .*'axis'; did you mean 'axes'"),
        ("axes: {sed: [0]}", "unknown key in .*'sed'; did you mean 'seed'"),
        ("axes: {net: [{stride: 122}]}", "did you mean 'strides'"),
        ("axes: {seed: 3}", r"axes: seed: expected a list of values, such as \[0, 1, 2\]"),
        ("axes: {seed: []}", "expected a list"),
        ("axes: {seed: [0, {seed: 1}]}", "all plain or all with keys"),
        ("axes: {seed: [0]}\nfixed: {seed: 1}", "seed given twice"),
        ("axes: {a: [{seed: 0}], seed: [1]}", "seed given twice"),
        ("axes: {eps: [8]}", r"eps=8.0: expected a value in \(0, 1\]"),
        ("axes: {epochs: [1, x]}", r"axes \(epochs: x\): epochs='x': expected a whole number"),
        ("axes: {seed: [0]}\nexclude: [{seed: 0}]", "every combination is excluded"),
        ("exclude: [{sed: 0}]", "did you mean 'seed'"),
        ("exclude: 3", "exclude: expected keys and values"),
        ("evaluation: {atack: pgd}", "did you mean 'attack'"),
        ("evaluation: {samples: 0}", "samples=0: expected at least 1"),
        ("evaluation: {split: training}", "split"),
        ("- a", "expected keys and values"),
    ],
)
def test_bad_studies_are_refused_with_the_reason(study, text, message):
    with pytest.raises(InputError, match=message):
        study(text)


def test_recipes_are_an_axis_and_what_is_fixed_wins(study):
    found = study("""
        axes:
          recipe: [at-resnet18-1222, trades-resnet18-1222, standard-vgg16-11222]
          seed: [0, 1]
        fixed: {epochs: 3}
        exclude: [{recipe: standard-vgg16-11222, seed: 1}]
        """)
    assert found.keys == ("recipe", "seed")
    rows = [
        (p.config.origin.recipe, p.config.defense.defense, p.config.model.strides, p.config.training.epochs)
        for p in found.points
    ]
    assert rows == [
        ("at-resnet18-1222", "at", "1222", 3),
        ("at-resnet18-1222", "at", "1222", 3),
        ("trades-resnet18-1222", "trades", "1222", 3),
        ("trades-resnet18-1222", "trades", "1222", 3),
        ("standard-vgg16-11222", "standard", "11222", 3),
    ]
    assert found.points[2].config.defense.step_size == 0.007
    assert "5 runs not as in their recipes any more: other epochs" in found.notes


def test_the_protocol_is_a_key_of_a_study(study):
    found = study("axes: {strides: [122, 112]}\nfixed: {protocol: published, epochs: 3}")
    assert [p.config.data.validation for p in found.points] == [0, 0]
    found = study("axes: {protocol: [published, null], strides: [122]}")
    assert [p.config.training.precision for p in found.points] == ["fp32", "auto"]
    with pytest.raises(InputError, match=r"ema=0\.9: the published protocol keeps the weights of the last epoch"):
        study("axes: {ema: [0, 0.9]}\nfixed: {protocol: published}")
    with pytest.raises(InputError, match="the recipe at-resnet18-1222 is one of at; take trades-resnet18-1222"):
        study("axes: {recipe: [at-resnet18-1222], defense: [trades]}")
