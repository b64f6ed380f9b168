"""On the road from the command line to the run nothing is opened twice; options that others imply are taken over."""

import importlib
import json
from collections import Counter

import pytest

from robustmaps.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
QUICK = ["--batch-size", "256", "--epochs", "1", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main(["train", "--defense", "standard", "--strides", "112", "--eps", "0.1", *QUICK, "--out", str(out)]) == 0
    return str(next(out.iterdir()))


@pytest.fixture
def opened(monkeypatch):
    """Counts what is opened."""
    counted: Counter[str] = Counter()

    def count(module, name, what):
        real = getattr(importlib.import_module(f"robustmaps.networks.{module}"), name)

        def counting(*arguments, **options):
            counted[what] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(f"robustmaps.networks.{module}.{name}", counting)

    count("_data", "load", "data")
    count("_weights", "read_weights", "weights")
    for module in ("_open_model", "_opened"):
        count(module, "make_architecture", "networks")
    return counted


@pytest.mark.parametrize(
    ("options", "networks", "weights"),
    [
        ("--defense standard", 1, 0),
        ("--defense standard --enlarge last", 1, 0),
        ("--defense standard --init-from RUN", 1, 1),
        ("--defense standard --init-from RUN --enlarge last,dilate", 1, 1),
        ("--defense hat --steps 1 --helper RUN", 2, 1),
        ("--defense hat --steps 1 --helper RUN --init-from RUN", 1, 1),
    ],
)
def test_training_opens_everything_once(run, opened, options, networks, weights, tmp_path):
    line = [word.replace("RUN", run) for word in options.split()]
    assert main(["train", *line, *QUICK, "--out", str(tmp_path)]) == 0
    assert opened == Counter(data=1, networks=networks, weights=weights)


@pytest.mark.parametrize("line", ["evaluate RUN --attack fgsm", "evaluate RUN --attack fgsm --eps 0.01,0.02"])
def test_evaluation_opens_everything_once(run, opened, line):
    assert main([*line.replace("RUN", run).split(), "--samples", "20", "--device", "cpu"]) == 0
    assert opened == Counter(data=1, networks=1, weights=1)


@pytest.mark.parametrize(
    "line", ["analyze RUN --samples 4 --steps 1", "plan RUN --samples 4", "enlarge RUN --where last"]
)
def test_a_look_at_a_run_opens_it_once(run, opened, line):
    assert main(line.replace("RUN", run).split()) == 0
    assert opened == Counter(data=1, networks=1, weights=1)


@pytest.mark.parametrize("option", ["--init-from", "--init_from"])
def test_weights_bring_network_data_and_budget(run, option, tmp_path, capsys):
    line = ["train", option, run, "--defense", "standard", *QUICK, "--out", str(tmp_path), "--json"]
    assert main(line) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["strides"], config["eps"], config["data"]) == ("112", 0.1, "digits")


def test_a_search_takes_over_what_its_weights_bring(run, opened, monkeypatch):
    found = []
    monkeypatch.setattr("robustmaps.studies.find_candidates", lambda base, *_, **__: found.append(base))
    monkeypatch.setattr("robustmaps.studies.search", lambda *_, **__: 1 / 0)
    main(["search", "resnet8", "--init_from", run, "--defense", "standard"])
    assert (found[0].model.strides, found[0].defense.eps) == ("112", 0.1)
    assert opened == Counter(data=1, networks=1, weights=1)


def test_a_run_that_is_resumed_has_its_own_configuration(run, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("epochs: 3")
    for option in (["--config", str(tmp_path / "x.yaml")], ["--recipe", "at-resnet18-1122"]):
        assert main(["train", *option, "--resume", run]) == 2
        assert f"leave {option[0]} out" in capsys.readouterr().err
