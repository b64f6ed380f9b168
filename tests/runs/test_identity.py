"""Results belong to the network that computed them: other code with the same weights is another network."""

import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustmaps.attacks import FGSM
from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.evaluation import Evaluation, Identity, agree, evaluate
from robustmaps.networks import open_checkpoint, open_network
from robustmaps.runs import Options, evaluate_checkpoint, evaluate_corrupted, read_run
from robustmaps.training import read_weights, save_weights

SHAPE = (1, 8, 8)
MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(FORWARD)

def make():
    return Net()
"""
OPTIONS = Options(data="digits", samples=40, device="cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.scale, self.members = nn.Linear(64, 10), 1.0, [nn.Linear(64, 10)]
        self.own = torch.Generator().manual_seed(0)
        self.draws = None

    def forward(self, x):
        x = x.flatten(1)
        if self.draws == "torch":
            x = x + torch.randn_like(x)
        elif self.draws == "numpy":
            x = x + torch.from_numpy(np.random.rand(*x.shape)).float()
        elif self.draws == "own":
            x = x + torch.rand(x.shape, generator=self.own)
        return self.scale * self.fc(x) + self.members[0](x)


def identity(net):
    return Identity.of(net, SHAPE)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "scale", 0.9),
        lambda net: setattr(net, "members", [nn.Linear(64, 10)]),
        lambda net: setattr(net, "forward", lambda x: net.fc(0.2 + 0.6 * x.flatten(1))),
        lambda net: setattr(net, "forward", lambda x: net.fc(x.flatten(1)) * torch.inf),
        lambda net: setattr(net, "draws", "torch"),
        lambda net: setattr(net, "draws", "own"),
    ],
)
def test_the_same_weights_with_another_function_are_another_network(change):
    net, other = Net(), Net()
    assert identity(net).matches(identity(other).computes)
    change(other)
    assert identity(other).weights == identity(net).weights
    assert not identity(net).matches(identity(other).computes)


def only_in(low, high):
    def change(net):
        net.forward = lambda x: (
            torch.where(((x.mean((1, 2, 3)) > low) & (x.mean((1, 2, 3)) < high))[:, None], -1.0, 1.0)
            * Net.forward(net, x)
        )

    return change


@pytest.mark.parametrize("change", [only_in(0, 0.3), only_in(0.4, 0.6), only_in(0.7, 1)])
def test_a_function_that_changes_for_some_images_only(change):
    net, other = Net(), Net()
    change(other)
    assert not identity(net).matches(identity(other).computes)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "scale", 0.9),
        lambda net: setattr(net.fc, "mode", "mirrored"),
        lambda net: setattr(net, "members", [nn.Linear(64, 10)]),
        lambda net: setattr(type(net), "shared", 2),
    ],
)
def test_outputs_that_cannot_be_repeated_leave_code_and_attributes(change):
    class Counting(Net):
        shared = 1

        def forward(self, x):
            self.passes = getattr(self, "passes", 0) + 1
            return self.passes * super().forward(x)

    net, other = Counting(), Counting()
    recorded = identity(net)
    assert identity(net).matches(recorded.computes), "its count is no part of it"
    change(other)
    assert not identity(other).matches(recorded.computes)


FACTOR, TABLE = 1.0, {"factor": [1.0]}


def by_global(x):
    return FACTOR * x


def by_table(x):
    return TABLE["factor"][0] * x


def by_closure(factor):
    return lambda x: factor * x


class Step:
    def __init__(self, factor):
        self.factor = torch.tensor(factor)

    def __call__(self, x):
        return self.factor * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (by_closure(1.0), by_closure(0.9)),
        (functools.partial(torch.mul, other=1.0), functools.partial(torch.mul, other=0.9)),
        (lambda x: x, lambda x: 0.9 * x),
        (Step(1.0), Step(0.9)),
        (Step(1.0).__call__, Step(0.9).__call__),
        ([Step(1.0)][0], by_global),
        (by_global, by_table),
    ],
)
def test_functions_behind_outputs_that_cannot_be_repeated(one, other):
    def made(step):
        net = Net()
        net.draws, net.step = "own", step
        return net

    assert identity(made(one)).matches(identity(made(one)).computes)
    assert not identity(made(one)).matches(identity(made(other)).computes)


@pytest.mark.parametrize("step", [by_global, by_table, lambda x: by_global(by_table(x))])
def test_globals_behind_outputs_that_cannot_be_repeated(step, monkeypatch):
    net = Net()
    net.draws, net.step = "own", step
    before = identity(net)
    monkeypatch.setitem(globals(), "FACTOR", 0.9)
    monkeypatch.setitem(TABLE, "factor", [0.9])
    assert not identity(net).matches(before.computes)


def test_hooks_behind_outputs_that_cannot_be_repeated():
    net, other = Net(), Net()
    net.draws = other.draws = "own"
    other.fc.register_forward_hook(lambda module, inputs, output: 0.9 * output)
    assert not identity(net).matches(identity(other).computes)


def test_code_has_the_same_hash_in_every_process(tmp_path):
    (tmp_path / "randomly.py").write_text(
        "import torch\nfrom torch import nn\nSCALES = {'a', 'b', 'c', 'd'}\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.own, self.kinds = torch.Generator(), {str, int, float}\n"
        "    def forward(self, x):\n"
        "        return torch.rand(len(x), len(SCALES), generator=self.own) if 'a' in {'a', 'b', 'z'} else x\n"
        "from robustmaps.evaluation import Identity\n"
        "print(Identity.of(Net(), (1, 8, 8)).computes)\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, tmp_path / "randomly.py"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert next(iter(printed)).startswith("code ")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.detach(),
        lambda x: 0.5 * x + 0.5 * x.detach(),
        lambda x: x.where(x > 0, 0.3),
        lambda x: x.where(x < 1, 0.7),
        lambda x: x.clamp(max=0.99),
    ],
)
def test_what_shows_in_gradients_or_at_pixels_of_0_and_1_alone(change):
    net, other = Net(), Net()
    other.forward = lambda x: Net.forward(other, change(x))
    assert not identity(net).matches(identity(other).computes)


def test_a_record_of_an_earlier_version_is_compared_by_its_logits():
    net, other = Net(), Net()
    earlier = identity(net).computes[:32]
    assert identity(net).matches(earlier)
    other.scale = 0.9
    assert not identity(other).matches(earlier)


@pytest.mark.parametrize("draws", ["torch", "numpy", "own"])
def test_a_random_network_has_an_identity_and_draws_as_before(draws):
    net = Net()
    net.draws = draws
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy()
    first, again = identity(net), identity(net)
    assert first.matches(again.computes)
    assert isinstance(first.computes, str) == (draws == "own"), "by its code where outputs can't be repeated"
    assert torch.equal(torch.rand(2), expected)
    assert (np.random.get_state()[1] == before).all()


def test_rounding_makes_no_other_network():
    values = identity(Net()).computes
    assert agree(values, [value * (1 + 1e-5) for value in values])
    assert not agree(values, [value * 1.01 for value in values])
    assert not agree(values, values[:-1])
    net = Net().double().float()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert identity(net).matches(values)
    finally:
        torch.set_num_threads(threads)


def test_results_without_a_record_belong_to_built_in_networks_alone():
    assert identity(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).matches(None)
    assert not identity(Net()).matches(None)


def test_a_state_of_another_function_is_refused(digits_test, tmp_path):
    x, y = digits_test[0][:16], digits_test[1][:16]
    net = Net()
    evaluate(net, x, y, FGSM(eps=0.1), state=tmp_path)
    net.scale = -1.0
    with pytest.raises(InputError, match="its weights are the same, but it computes something else"):
        evaluate(net, x, y, FGSM(eps=0.1), state=tmp_path)


def test_a_smaller_evaluation_is_of_the_same_network(digits_test):
    x, y = digits_test[0][:16], digits_test[1][:16]
    net = Net()
    smaller = evaluate(net, x, y, FGSM(eps=0.01))
    net.scale = -1.0
    with pytest.raises(InputError, match="of another network"):
        evaluate(net, x, y, FGSM(eps=0.1), smaller=smaller)


def test_other_conditions_of_a_resumed_evaluation_are_recorded(digits_test, tmp_path):
    x, y = digits_test[0][:16], digits_test[1][:16]
    net = Net()
    evaluate(net, x, y, FGSM(eps=0.1), state=tmp_path, precision="fp32")
    done = evaluate(net, x, y, FGSM(eps=0.1), state=tmp_path, precision="bf16")
    assert [one["precision"] for one in done.environment["sessions"]] == ["fp32", "bf16"]
    assert "precision fp32, then bf16" in done.warnings[-1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Returns a checkpoint of a network whose code reads as given; the weights are the same each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    save_weights("w.safetensors", {f"fc.{k}": v for k, v in nn.Linear(64, 10).state_dict().items()}, {})
    count = 0

    def make(forward):
        nonlocal count
        count += 1
        name = f"own_code_{os.getpid()}_{count}"
        (tmp_path / f"{name}.py").write_text(MODULE.replace("FORWARD", forward))
        return open_network(f"{name}:make", "w.safetensors")

    return make


def test_edited_code_is_evaluated_again_and_both_are_kept(own):
    attack = AttackConfig(attack="fgsm", eps=(0.1,))
    plain, edited = "x.flatten(1)", "0.2 + 0.6 * x.flatten(1)"
    first = evaluate_checkpoint(own(plain), attack, OPTIONS)
    assert evaluate_checkpoint(own(plain), attack, OPTIONS).before
    second = evaluate_checkpoint(own(edited), attack, OPTIONS)
    assert not second.before
    assert second.path.stem == f"{first.path.stem}-2"
    again = evaluate_checkpoint(own(plain), attack, OPTIONS)
    assert (again.before, again.path) == (True, first.path)
    with pytest.raises(InputError, match="contains another evaluation"):
        evaluate_checkpoint(own(edited), attack, OPTIONS, out=first.path)
    assert first.evaluation.data["name"] == "digits"


def test_an_old_record_of_one_s_own_network_is_not_credited(own):
    attack = AttackConfig(attack="fgsm", eps=(0.1,))
    first = evaluate_checkpoint(own("x.flatten(1)"), attack, OPTIONS)
    old = json.loads(first.path.read_text())
    del old["computes"]
    first.path.write_text(json.dumps(old))
    assert not evaluate_checkpoint(own("x.flatten(1)"), attack, OPTIONS).before


def test_corruptions_of_edited_code_are_classified_again(own, tmp_path):
    folder = tmp_path / "corrupted"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "labels.npy", rng.integers(0, 10, 20))
    np.save(folder / "noise.npy", rng.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8))
    first = evaluate_corrupted(own("x.flatten(1)"), folder, OPTIONS)
    assert evaluate_corrupted(own("x.flatten(1)"), folder, OPTIONS).before
    second = evaluate_corrupted(own("1 - x.flatten(1)"), folder, OPTIONS)
    assert not second.before
    assert second.path != first.path
    assert second.figures["corruptions"] != first.figures["corruptions"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    from robustmaps.config import RunConfig
    from robustmaps.runs import train
    from robustmaps.training import TrainOptions

    config = RunConfig(training=TrainOptions(epochs=1, device="cpu", precision="fp32"))
    folder = train(config, tmp_path_factory.mktemp("runs")).folder
    evaluate_checkpoint(folder, AttackConfig(attack="fgsm"), OPTIONS)
    return folder


@pytest.fixture
def run(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / evaluated.name)


def test_an_older_epoch_s_evaluation_is_not_credited_whatever_the_times(run):
    assert len(read_run(run).evaluations) == 1
    loaded = read_weights(run / "best.safetensors")
    changed = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in loaded.tensors.items()}
    save_weights(run / "best.safetensors", changed, loaded.description)
    os.utime(run / "best.safetensors", (0, 0))
    reasons = []
    assert read_run(run, skipped=lambda _, reason: reasons.append(reason)).evaluations == {}
    assert "weights that are no longer in the run" in reasons[0]


def test_a_list_credits_the_present_function_alone(run):
    (file,) = [f for f in (run / "evaluation").glob("*.json") if "model_info" not in f.name and f.name[0] != "."]
    other = read_json(file)
    present = {"checkpoint_sha256": other["checkpoint_sha256"], "computes": other["computes"], "built_in": True}
    write_json(run / "evaluation" / ".network.json", present)
    other["computes"] = [2 * value for value in other["computes"]]
    write_json(file.with_name("other.json"), other)
    reasons = []
    found = read_run(run, skipped=lambda path, reason: reasons.append((path.name, reason))).evaluations
    assert list(found) == [file.stem]
    assert reasons[0][0] == "other.json"
    assert "computed something else" in reasons[0][1]


def test_an_old_evaluation_of_a_built_in_network_stays_valid(run):
    (file,) = [f for f in (run / "evaluation").glob("*.json") if "model_info" not in f.name and f.name[0] != "."]
    old = read_json(file)
    del old["computes"], old["data"]
    write_json(file, old)
    assert Evaluation.load(file).computes is None
    assert evaluate_checkpoint(run, AttackConfig(attack="fgsm"), OPTIONS).before
    assert len(read_run(run).evaluations) == 1


def test_weights_are_hashed_as_they_are_loaded(run, monkeypatch):
    """Replaced between reading and hashing, a file would lend its hash to other weights."""
    from robustmaps.networks import _opened

    file = run / "best.safetensors"
    expected, make = read_weights(file).sha256, _opened.Recipe.make

    def replacing(recipe):
        file.write_bytes(file.read_bytes() + b" ")
        return make(recipe)

    monkeypatch.setattr(_opened.Recipe, "make", replacing)
    assert open_checkpoint(run).sha256 == expected
