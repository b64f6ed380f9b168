"""Networks on the hub: pushed with a card, opened from a folder, and without running anything from there."""

import json
import shutil
import sys
import warnings

import pytest
import torch
import yaml

import robustmaps
from robustmaps.config import AttackConfig, Surgery
from robustmaps.engine.errors import InputError
from robustmaps.networks import allow_code, enlarge_network, open_checkpoint, save_enlarged
from robustmaps.runs import Options, evaluate_checkpoint, from_pretrained, push_to_hub, train
from tests.helpers.studies import configuration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trained = train(configuration(2), tmp_path_factory.mktemp("runs"))
    evaluate_checkpoint(trained.folder, AttackConfig("fgsm"), Options(samples=50, device="cpu"))
    return trained.folder


class Hub:
    """Keeps what would be uploaded."""

    endpoint = "https://hub.example"

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id)


@pytest.fixture(scope="module")
def pushed(run, tmp_path_factory):
    hub = Hub(tmp_path_factory.mktemp("hub"))
    address = push_to_hub(run, "me/small-net", license="cc-by-4.0", private=True, api=hub)
    return hub, address, hub.folder / "me" / "small-net"


def images():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_what_is_pushed(pushed):
    hub, address, folder = pushed
    assert address == "https://hub.example/me/small-net"
    assert hub.calls == [("me/small-net", True, True)]
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "cc-by-4.0"
    assert about["model-index"][0]["results"][0]["metrics"][1]["name"] == "Robust accuracy (FGSM, l_inf 0.1)"
    assert "images ×2 (nearest)" in text  # the enlargement
    assert "| FGSM | l_inf | 0.1 | 50 test images |" in text  # attack and counts
    assert "95 % intervals" in text
    assert "defence: AT (l_inf, eps 0.1, 1 step)" in text  # protocol
    assert "data: digits" in text


def test_what_was_pushed_is_opened_again(pushed, run):
    network = robustmaps.from_pretrained(pushed[2])
    assert not network.training
    assert network.budget == ("linf", 0.1)
    with torch.no_grad():
        torch.testing.assert_close(network(images()), open_checkpoint(run).model.eval()(images()))


def test_enlarged_networks_are_rebuilt(run, tmp_path):
    larger = enlarge_network(str(run), Surgery(where="last"), samples=8, latency_runs=0)
    save_enlarged(larger, tmp_path / "larger")
    push_to_hub(tmp_path / "larger", "me/larger", api=Hub(tmp_path))
    with torch.no_grad():
        expected = open_checkpoint(tmp_path / "larger").model.eval()(images())
        torch.testing.assert_close(from_pretrained(tmp_path / "me" / "larger")(images()), expected)


OWN = """
import torch
from torch import nn

def trained():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

class Net(nn.Linear):
    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x) if x.sum() > 0 else -super().forward(x)

def branching():
    return Net(64, 10)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of a module ``hub_module`` with networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "hub_module", raising=False)
    (tmp_path / "hub_module.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("hub_module", None)


@pytest.mark.filterwarnings("ignore::robustmaps.EnlargeWarning")
@pytest.mark.parametrize("enlarged", [False, True])
def test_an_own_network_opens_without_its_code(own, enlarged):
    if enlarged:
        larger = enlarge_network("hub_module:trained", Surgery(upsample=2), data="digits", samples=8, latency_runs=0)
        save_enlarged(larger, own / "larger")
        given, expected = "larger", larger.model(images())
    else:
        given = robustmaps.load("hub_module:trained", data="digits").checkpoint
        expected = given.model(images())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "larger: opened from its program")
        push_to_hub(given, "me/own", data="digits", api=Hub(own))
    sys.modules.pop("hub_module", None)
    (own / "hub_module.py").unlink()
    folder = own / "me" / "own"
    card = (folder / "README.md").read_text()
    assert "made by `hub_module:trained`, and opens without it, from `program.safetensors`" in card
    assert "8/255" not in card  # a budget that nobody knows
    with pytest.warns(UserWarning, match="hub_module:trained is not run without --allow-code"):
        torch.testing.assert_close(from_pretrained(folder)(images()), expected)
    with pytest.warns(UserWarning, match="no module named 'hub_module'"), allow_code():
        torch.testing.assert_close(from_pretrained(folder)(images()), expected)
    (folder / "program.safetensors").unlink()
    with pytest.raises(InputError, match="a function whose code would be run") as failed:
        from_pretrained(folder)
    assert "program.safetensors, from which it would open" in failed.value.__notes__[0]


def test_an_own_network_that_has_no_program_says_so(own):
    network = robustmaps.load("hub_module:branching", data="digits")
    with pytest.warns(UserWarning, match="opens only where hub_module:branching is at hand"):
        push_to_hub(network.checkpoint, "me/own", data="digits", api=Hub(own))
    folder = own / "me" / "own"
    assert "opens only where hub_module:branching is at hand: torch.export can't" in (folder / "README.md").read_text()
    with allow_code():
        assert from_pretrained(folder)(images()).shape == (3, 10)


def test_the_licence_is_unknown_where_nobody_named_one(run, tmp_path):
    push_to_hub(run, "me/net", api=Hub(tmp_path))
    assert "license: unknown\n" in (tmp_path / "me" / "net" / "README.md").read_text()


def test_a_repository_is_downloaded_and_offline_taken_from_the_cache(pushed, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    module = __import__("importlib").import_module("robustmaps.runs._loaded._hub")
    asked = []

    def download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, sorted(allow_patterns)))
        return str(pushed[2])

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("robustmaps.engine.reading.download._answers", lambda _: False)
    assert from_pretrained("me/small-net", revision="v1").budget == ("linf", 0.1)
    assert asked == [("me/small-net", "v1", ["README.md", "config.json", "model.safetensors", "program.safetensors"])]
    monkeypatch.undo()
    monkeypatch.setattr("robustmaps.engine.reading.download._answers", lambda _: False)
    with pytest.raises(InputError, match=r"me/other: can't be.*(give a folder instead|cache)"):
        from_pretrained("me/other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nothing can be pushed while HF_HUB_OFFLINE is set"):
        push_to_hub(pushed[2], "me/net")
    assert module._hub("x", offline=True) is hub


def test_code_that_the_repository_names_is_not_run(pushed, tmp_path, monkeypatch):
    from robustmaps.networks import DESCRIPTION
    from robustmaps.training import load_weights, save_weights

    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(pushed[2], tmp_path / "net")
    weights, about = load_weights(folder / "model.safetensors")
    described = json.loads(about[DESCRIPTION])
    described["model"]["name"] = "evil:network"
    save_weights(folder / "model.safetensors", weights, {**about, DESCRIPTION: json.dumps(described)})
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match="evil"):
        from_pretrained(folder)


def test_what_is_no_such_network(pushed, run, tmp_path):
    folder = shutil.copytree(pushed[2], tmp_path / "net")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(InputError, match="damaged"):
        from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json; expected what push_to_hub or export wrote"):
        from_pretrained(folder)
    with pytest.raises(InputError, match="leave revision out"):
        from_pretrained(folder, revision="main")
    for name in ("net", "a/b/c", "me/", "me/../x"):
        with pytest.raises(InputError, match="expected a folder, or OWNER/NAME"):
            from_pretrained(name)
        with pytest.raises(InputError, match="expected a folder, or OWNER/NAME"):
            push_to_hub(run, name, api=Hub(tmp_path))


def test_nothing_is_uploaded_where_the_export_fails(tmp_path):
    hub = Hub(tmp_path)
    with pytest.raises(InputError):
        push_to_hub(tmp_path / "nothing", "me/net", api=hub)
    assert not hub.calls
