"""The worked examples of CONTRIBUTING.md, in a package of their own: one file each, known everywhere."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from robustmaps import attacks, defenses, models
from robustmaps.cli import main
from robustmaps.config import DataConfig, RunConfig
from robustmaps.data import load, sources
from robustmaps.engine.errors import InputError
from robustmaps.networks import load_data, resolve
from robustmaps.report import sections
from robustmaps.studies._costs import forward_flops

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
KINDS = ("attacks._", "defenses._", "models._", "data.sources.", "report.sections._")
REGISTRIES = [importlib.import_module(f"robustmaps.{kind}registry")._REGISTRY for kind in KINDS]
FAST = ["--eps", "0.1", "--batch-size", "256", "--device", "cpu", "--precision", "fp32", "--epochs", "1"]


def install(folder: Path, name: str, modules: dict[str, str], entry_points: dict[str, dict[str, str]]) -> None:
    """Lay a package out as pip does."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in entry_points.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages, from which the registries read anew."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for registry in REGISTRIES:
        monkeypatch.delitem(registry.__dict__, "_plugins", raising=False)
        monkeypatch.setattr(registry, "_registered", {})
    yield folder
    for registry in REGISTRIES:
        registry.__dict__.pop("_plugins", None)
    for module in [name for name, each in sys.modules.items() if str(folder) in str(getattr(each, "__file__", ""))]:
        del sys.modules[module]


@pytest.fixture
def toys(site):
    guide = GUIDE.read_text(encoding="utf-8")
    sources = re.findall(r"\(`(\w+)\.py`\):\n\n```python\n(.*?)```", guide, re.DOTALL)
    (points,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    install(site, "toys", dict(sources), tomllib.loads(points)["project"]["entry-points"])
    return site


def answer(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_toys_are_listed_without_pytorch(toys):
    code = (
        "import sys; from robustmaps.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    listed = {
        ("train", "mixed: clean and attacked images", "--defense-parameters share=VALUE"),
        ("train", "mixed-awp: mixed with adversarial weight perturbation", "--awp-gamma"),
        ("evaluate", "nudge: random corners of the l_inf ball", "--attack-parameters tries=VALUE"),
    }
    for verb, *texts in listed:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(toys), *sys.path])}
        command = [sys.executable, "-c", code, verb, "--help"]
        out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
        assert all(text in out for text in texts), out
        assert out.endswith("False\n")


def test_the_toys_train_and_evaluate_and_are_reported(toys, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", *FAST, "--defense", "mixed", "--steps", "2", "--defense-parameters", "share=0.3"]
    run = answer(capsys, *train)["run"]
    evaluate = ["evaluate", run, "--attack", "nudge", "--attack-parameters", "tries=3", "--samples", "40"]
    first = answer(capsys, *evaluate, "--device", "cpu")
    assert [(attack["name"], attack["tries"]) for attack in first["attacks"]] == [("nudge", 3)]
    assert first["attacks"][0]["eps"] == 0.1
    page = Path(answer(capsys, "report", run, "--no-pictures")["page"]).read_text(encoding="utf-8")
    assert "nudge" in page
    assert "mixed" in page
    assert "--attack nudge --attack-parameters tries=3" in page
    perturbed = defenses.create("mixed-awp", "linf", 0.1, steps=1, share=0.2)
    assert (perturbed.name, perturbed.gamma, perturbed.defense.share) == ("mixed-awp", 0.005, 0.2)


def test_a_toy_network_and_source_are_listed_trained_and_evaluated_and_a_section_shown(
    toys, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    listed = {entry["name"]: entry for entry in answer(capsys, "models")["models"]}
    assert (listed["tiny"]["strides"], listed["tiny"]["map_size"]) == ("12", [16, 16])
    assert answer(capsys, "data", "list")["forms"]["stripes"] == "stripes across and along"
    plan = answer(capsys, "plan", "tiny", "--data", "stripes", "--device", "cpu", "--budget", "2")
    assert plan["options"]
    train = ["train", *FAST, "--data", "stripes", "--model", "tiny", "--strides", "11", "--steps", "1"]
    run = answer(capsys, *train)["run"]
    shown = answer(capsys, "evaluate", run, "--attack", "fgsm", "--samples", "40", "--device", "cpu")
    assert len(shown["verdicts"]) == 40
    answer(capsys, "report", run, "--no-pictures", "--out", "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    effort = r"## Training\n.*## Effort\n\nTraining took \d+ s for 1 networks\..*## Under attack"
    assert re.search(effort, text, re.DOTALL)
    assert 'id="effort"' in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_misspelt_toys_are_recognised(toys):
    with pytest.raises(InputError, match="unknown model 'tinny'; did you mean 'tiny'"):
        models.create("tinny")
    with pytest.raises(InputError, match="unknown data set 'stripe'; did you mean 'stripes'"):
        load("stripe")


def test_a_study_knows_what_the_toys_cost(toys, tmp_path, capsys):
    costs = []
    for tries in (10, 20):
        study = tmp_path / f"study{tries}.yaml"
        study.write_text(
            "axes: {defense: [mixed]}\n"
            "fixed: {eps: 0.1, steps: 1, epochs: 1, device: cpu}\n"
            f"evaluation: {{attack: nudge, samples: 100, attack_parameters: tries={tries}}}\n"
        )
        (run,) = answer(capsys, "sweep", str(study), "--dry-run")["runs"]
        costs.append(run["flops"])
    data = load_data(DataConfig())
    (forward,) = forward_flops(resolve(RunConfig()), data)
    assert costs[1] - costs[0] == pytest.approx(10 * 100 * forward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "nudge", "--steps", "3"], "steps=3: nudge has no such parameter.*nudge takes norm, eps, tries"),
        (["--attack", "pgd", "--attack-parameters", "tries=3"], "tries=3: pgd has no such parameter"),
        (["--attack", "nudge", "--attack-parameters", "tries"], "expected NAME=VALUE"),
        (["--attack", "nugde"], "did you mean 'nudge'"),
    ],
)
def test_what_the_toys_do_not_take_is_refused(toys, options, message, capsys):
    assert main(["evaluate", "nowhere", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_broken_package_is_named_and_stops_nobody_else(toys, capsys):
    install(toys, "broken", {"broken": "import nothing_of_that_name\n"}, {"robustmaps.attacks": {"crash": "broken"}})
    reason = r"the package broken 1.0 has attacks in broken, which can't be used \(ModuleNotFoundError: No module"
    assert attacks.create("pgd", "linf", 0.1).name == "pgd"
    assert attacks.create("nudge", "linf", 0.1).name == "nudge"
    with pytest.raises(InputError, match=reason):
        attacks.create("crash", "linf", 0.1)
    with pytest.warns(UserWarning, match=reason):
        assert {"pgd", "nudge"} <= set(attacks.listed())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--help"])
    assert stop.value.code == 0
    captured = capsys.readouterr()
    assert "nudge: random corners" in captured.out
    assert re.search(f"robustmaps: warning: {reason}", captured.err)
    with pytest.raises(InputError, match="did you mean 'nudge'") as unknown:
        attacks.create("nugde", "linf", 0.1)
    assert any(re.search(reason, note) for note in unknown.value.__notes__)


def test_a_broken_package_stops_no_network_source_or_section(site, tmp_path):
    groups = ("models", "sources", "sections")
    install(site, "bad", {"bad": "ROW = 3\n"}, {f"robustmaps.{group}": {"bad": "bad"} for group in groups})
    assert models.create("resnet8")
    with pytest.warns(UserWarning, match=r"the package bad 1.0 has models in bad, which can't be used \(TypeError"):
        assert "resnet8" in models.names()
    with pytest.warns(UserWarning, match=r"has sources in bad, which can't be used"):
        assert len(load("digits").test) == 449
    with pytest.warns(UserWarning, match=r"has sources in bad"), pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nothing")


def test_a_row_that_is_listed_but_can_not_be_imported_stops_nobody_else(site):
    source = "import nothing_of_that_name\nROW = Architecture(name='bad', family='Bad')\n"
    install(site, "bad", {"bad": source}, {"robustmaps.models": {"bad": "bad"}})
    reason = r"the package bad 1.0 has models in bad, which can't be used \(ModuleNotFoundError"
    with pytest.warns(UserWarning, match=reason):
        assert models.names()[-1] == "wrn34_20"
    with pytest.raises(InputError, match=reason):
        models.create("bad")


def test_a_package_takes_no_name_of_ours(site):
    source = "from robustmaps.models import Architecture\nROW = Architecture('resnet8', 'Mine', (1,), 'one', None)\n"
    install(site, "mine", {"mine": source}, {"robustmaps.models": {"mine": "mine"}})
    with pytest.warns(UserWarning, match=r"model 'resnet8' of the package mine 1.0: the name is taken"):
        models.names()
    assert models.architecture("resnet8").family == "ResNet"


def test_a_program_registers_a_network_a_source_and_a_section(toys, tmp_path):
    import effort
    import stripes
    import tiny

    assert models.register(replace(tiny.ROW, name="smaller")).name == "smaller"
    assert models.create("smaller", strides="22")
    (tmp_path / "some.stripes").touch()
    row = sources.SourceRow(
        name="stripes-file", summary="", at=lambda path: stripes.Stripes() if path.suffix == ".stripes" else None
    )
    sources.register(row)
    assert load(tmp_path / "some.stripes").classes == ("across", "along")
    assert sections.register(replace(effort.ROW, name="more-effort")).order == 35
    with pytest.raises(InputError, match="section 'leaderboard': the name is taken"):
        sections.register(replace(effort.ROW, name="leaderboard"))


def test_a_program_registers_a_row(toys):
    import nudge

    row = attacks.AttackRow(**{**vars(nudge.ROW), "name": "shove"})
    assert attacks.register(row) is attacks.register(row)
    assert attacks.create("shove", "linf", 0.1, tries=2) == nudge.Nudge(eps=0.1, tries=2)
    assert attacks.listed()["shove"].parameters == {"tries": "corners for each image (default: 10)"}
    for name in ("pgd", "shove"):
        other = attacks.AttackRow(**{**vars(nudge.ROW), "name": name, "summary": "another one"})
        with pytest.raises(InputError, match=f"attack '{name}': the name is taken"):
            attacks.register(other)
    with pytest.raises(InputError, match="expected a value of AttackRow"):
        attacks.register(nudge.Nudge())
