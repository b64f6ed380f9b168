"""Runs of one's own network open without its code, from a list of operations that is checked and never run as code."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustmaps import enlarge, evaluate, fit, plan
from robustmaps.attacks import FGSM, PGD
from robustmaps.cli import main
from robustmaps.data import load
from robustmaps.defenses import AT
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.trust import allow_code
from robustmaps.engine.view import AttackEngine
from robustmaps.evaluation import Identity, weights_sha256
from robustmaps.networks import open_checkpoint
from robustmaps.networks._program._exporting import export_program
from robustmaps.networks._program._file import read_program
from robustmaps.networks._program._graph import Graph
from robustmaps.networks._program._module import Program
from robustmaps.networks._program._operations import OF_NUMBERS, OPERATIONS, operation
from robustmaps.runs import load as load_run
from robustmaps.training import load_weights, save_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*opened from its program", "ignore::robustmaps.EnlargeWarning"),
]
SHAPE = (1, 8, 8)
MODULE = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
TRAIN = ["--data", "digits", "--epochs", "1", "--steps", "1", "--train-samples", "200", "--device", "cpu"]
QUICK = ["--attack", "fgsm", "--samples", "60", "--device", "cpu"]


class Odd(nn.Module):
    """Shared weights, a buffer that is not saved, constants, branches, slices, sizes of the batch, a mapping."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second = self.first
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(32, 10))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.rand(1, 8, 1, 1), persistent=False)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x.sub_(torch.tensor(0.5)))), inplace=True)
        x = torch.cat([self.first(x) * self.scale, self.second(functional.gelu(x))], 1)
        x = functional.max_pool2d(functional.interpolate(x, scale_factor=2), 4)
        half = x[:, ::2].chunk(2, 1)[0] + x.std((2, 3), keepdim=True)[:, :4]
        x = self.drop(torch.cat([x, half, half + torch.zeros(x.shape[0], 12, 1, 1)[:, :4]], 1))
        return {"logits": self.head(x.mean(2).view(x.shape[0], -1)[:, :32]), "features": x}


def opened(network, shape=SHAPE):
    graph, constants = export_program(network, shape, "mine:make")
    return Program(graph, {**network.state_dict(), **constants}, "the test says so")


@pytest.fixture
def odd():
    torch.manual_seed(0)
    return Odd().eval()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of a module's network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    (tmp_path / "own_module.py").write_text(MODULE)
    assert main(["train", "own_module:make", *TRAIN]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    yield folder
    sys.modules.pop("own_module", None)


def forget(name="own_module"):
    sys.modules.pop(name, None)
    Path(f"{name}.py").unlink()


def test_a_program_computes_what_its_network_does(odd):
    program = opened(odd)
    x = torch.rand(7, *SHAPE)
    for count in (1, 2, 7):
        torch.testing.assert_close(program(x[:count].clone()), odd(x[:count].clone())["logits"])
    assert Identity.of(odd, SHAPE).matches(Identity.of(program, SHAPE).computes)
    assert weights_sha256(program) == weights_sha256(odd)
    assert {*program.state_dict()} == {*odd.state_dict()}
    y = torch.arange(7) % 10
    attack = PGD(eps=0.1, steps=2)
    assert evaluate(program, x, y, attack).verdicts == evaluate(odd, x, y, attack).verdicts


def test_a_program_takes_other_weights_of_its_network(odd):
    program, other = opened(odd), Odd().eval()
    other.scale = odd.scale
    program.load_state_dict(other.state_dict())
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(program(x.clone()), other(x.clone())["logits"])
    assert program.first.weight is program.second.weight


class Shared(nn.Module):
    """Batch-norms that can't be folded: one of a shared convolution, one of a convolution that is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.last, self.plain = nn.Conv2d(8, 8, 1, dilation=1, stride=2), nn.BatchNorm2d(8, affine=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.first(x)
        x = self.norms[0](x) + x
        x = self.norms[2](self.second(self.norms[1](self.second(x)).relu()))
        return self.head(self.plain(self.last(self.norms[3](x))).mean((2, 3)))


@pytest.mark.parametrize(("make", "pairs"), [(Odd, 1), (Shared, 1)])
def test_attacks_on_a_program_fold_the_same_batch_norms(make, pairs):
    torch.manual_seed(0)
    network = make()
    network(torch.rand(20, *SHAPE))  # statistics
    program = opened(network.eval())
    x, y = torch.rand(8, *SHAPE), torch.arange(8)
    folded = []
    for each in (network, program):
        engine = AttackEngine(each)
        with engine.view(x) as view, torch.no_grad():
            folded.append(engine.folded)
            torch.testing.assert_close(view(x.clone()), network_logits(network, x.clone()), rtol=1e-4, atol=1e-5)
    assert folded[0] == folded[1]
    assert len(folded[0]) == pairs
    assert weights_sha256(program) == weights_sha256(network)
    assert [*program.state_dict()] == [*network.state_dict()]
    assert evaluate(program, x, y, FGSM(eps=0.1)).verdicts == evaluate(network, x, y, FGSM(eps=0.1)).verdicts


def test_a_program_is_neither_changed_nor_trained_nor_given_other_images(odd):
    program = opened(odd)
    for change in (
        lambda: enlarge(program, torch.rand(1, *SHAPE), upsample=2),
        lambda: plan(program, torch.rand(1, *SHAPE)),
        lambda: fit(program, load("digits"), AT(FGSM(eps=0.1))),
        lambda: program.train()(torch.rand(1, *SHAPE)),
    ):
        with pytest.raises(InputError, match=r"\(the test says so\).* mine:make itself is needed"):
            change()
    with pytest.raises(InputError, match=r"\(1, 9, 9\): this program takes \(1, 8, 8\)"):
        program.eval()(torch.rand(1, 1, 9, 9))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.round()

    @staticmethod
    def backward(_, gradient):
        return gradient


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if x.mean() > 0.5 else -super().forward(x.flatten(1))


class Rounding(nn.Linear):
    def forward(self, x):
        return super().forward(StraightThrough.apply(4 * x.flatten(1)))


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1) + torch.randn_like(x.flatten(1)))


class Counting(nn.Linear):
    def forward(self, x):
        return super().forward(x.view(len(x), -1))


class Transforming(nn.Linear):
    def forward(self, x):
        return (
            super().forward(x.flatten(1).fft_)
            if hasattr(x, "fft_")
            else torch.fft.fft(super().forward(x.flatten(1))).real
        )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Branching, "torch.export can't follow it"),
        (Rounding, "gradients|can't follow"),
        (Noisy, "randn_like"),
        (Counting, r"as len\(x\) does"),
        (Transforming, "fft_fft.default is not among the operations"),
    ],
)
def test_what_has_no_program_says_why(kind, reason):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=reason):
        export_program(kind(64, 10).eval(), SHAPE, "mine:make")


def test_a_run_says_that_it_needs_its_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = MODULE.replace("def make", "class Net(nn.Linear):\n    def forward(self, x):\n        x = x.flatten(1)\n"
        "        return super().forward(x) if x.sum() > 0 else -super().forward(x)\n\ndef other")  # fmt: skip
    Path("needed_module.py").write_text(f"{text}\ndef make():\n    return Net(64, 10)\n")
    assert main(["train", "needed_module:make", *TRAIN]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    said = capsys.readouterr().err
    assert "note: this run opens only where needed_module:make is at hand: torch.export can't follow it" in said
    assert "opens only where needed_module:make is at hand" in (folder / "log.txt").read_text()
    assert not (folder / "program.safetensors").exists()
    forget("needed_module")
    with allow_code(), pytest.raises(InputError, match="no module named 'needed_module'"):
        open_checkpoint(folder)


def test_a_run_opens_without_its_code_with_the_same_results(run, capsys):
    assert main(["evaluate", str(run), *QUICK, "--allow-code"]) == 0
    with allow_code():
        before = open_checkpoint(run)
    forget()
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", str(run), *QUICK, "--allow-code"]) == 0
    said = capsys.readouterr()
    assert "opened from its program" in said.err
    assert "no module named 'own_module'" in said.err
    assert "Evaluated before" in said.out
    for which in ("best", "last"):
        with pytest.warns(UserWarning, match="own_module:make is not run without --allow-code"):
            opened = open_checkpoint(run, which)
        assert opened.opened.program is not None
    assert open_same(run).sha256 == before.sha256
    x = torch.rand(4, *SHAPE)
    torch.testing.assert_close(open_same(run).model(x), before.model.eval()(x))
    assert main(["train", "--init-from", str(run), *TRAIN]) == 2
    assert "own_module:make itself is needed" in capsys.readouterr().err


def open_same(run):
    with pytest.warns(UserWarning, match="opened from its program"):
        return open_checkpoint(run)


def test_a_run_whose_code_changed_opens_as_it_was_trained(run):
    with allow_code():
        before = open_checkpoint(run).model.eval()
    Path("own_module.py").write_text(MODULE.replace("nn.ReLU()", "nn.Sigmoid()"))
    sys.modules.pop("own_module")
    with allow_code(), pytest.warns(UserWarning, match="own_module:make makes another network now"):
        after = open_checkpoint(run).model
    x = torch.rand(4, *SHAPE)
    torch.testing.assert_close(after(x), before(x))
    Path("own_module.py").write_text("raise RuntimeError('no licence')\n")
    sys.modules.pop("own_module")
    with allow_code(), pytest.warns(UserWarning, match="no licence"):
        assert open_checkpoint(run).opened.program.endswith("no licence")


def test_the_program_of_an_enlarged_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("enlarged_module.py").write_text(MODULE)
    assert main(["train", "enlarged_module:make", "--enlarge", "upsample=2", *TRAIN]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    with allow_code():
        expected = open_checkpoint(folder).model.eval()(torch.ones(2, *SHAPE))
    torch.testing.assert_close(open_same(folder).model(torch.ones(2, *SHAPE)), expected)


BRANCHING = """
from torch import nn

class make(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(1, 8, 3, 2, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x):
        return self.head(self.map(x)) if x.sum() > 0 else -self.head(self.map(x))
"""
ENLARGED = ["enlarge", "saved_module:make", "--enlarge", "upsample=2", "--data", "digits", "--samples", "20", "--save"]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The folder of a module's enlarged network, whose weights are the same each time, as trained ones are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "saved_module", raising=False)
    made = MODULE.replace("    return", "    torch.manual_seed(0)\n    return")
    (tmp_path / "saved_module.py").write_text(f"import torch\n{made}")
    assert main([*ENLARGED, "larger"]) == 0
    yield tmp_path / "larger"
    sys.modules.pop("saved_module", None)


def test_a_saved_enlargement_opens_without_its_code(saved, capsys):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert {*files} == {"weights.safetensors", "recipe.json", "program.safetensors"}
    assert main([*ENLARGED, "larger"]) == 0  # the same again
    assert "Written before: larger/program.safetensors" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files
    with allow_code():
        expected = open_checkpoint(saved).model.eval()(torch.ones(2, *SHAPE))
    forget("saved_module")
    for place in (saved, saved / "weights.safetensors"):
        torch.testing.assert_close(open_same(place).model(torch.ones(2, *SHAPE)), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", str(saved), "--data", "digits", *QUICK]) == 0
    assert "saved_module:make is not run without --allow-code" in capsys.readouterr().err
    assert main(["enlarge", str(saved), "--enlarge", "upsample=2", "--data", "digits", "--allow-code"]) == 2
    assert "saved_module:make itself is needed" in capsys.readouterr().err


def test_a_saved_enlargement_without_a_program_says_what_is_missing(saved, capsys):
    Path("branching_module.py").write_text(BRANCHING)
    line = [word.replace("saved_module", "branching_module") for word in ENLARGED]
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*line, "other"]) == 0
    said = capsys.readouterr()
    assert "other opens only where branching_module:make is at hand: torch.export can't follow it" in said.err
    assert "def forward" not in said.err  # what PyTorch prints
    assert {path.name for path in Path("other").iterdir()} == {"weights.safetensors", "recipe.json"}
    forget("branching_module")
    for permission, reason in (([], "a function whose code would be run"), (["--allow-code"], "no module named")):
        assert main(["evaluate", "other", "--data", "digits", *QUICK, *permission]) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert "program.safetensors, from which it would open without branching_module:make, is not beside it" in said


def rewritten(run, change):
    path = run / "program.safetensors"
    tensors, about = load_weights(path)
    plain = json.loads(about["program"])
    change(plain)
    save_weights(path, tensors, {"program": json.dumps(plain)})


def first_step(name, *args, **kwargs):
    return lambda plain: plain["steps"].__setitem__(0, [name, list(args), kwargs])


HOSTILE = {
    "a file": first_step("from_file.default", "own_module.py", True, 10),
    "a file of results": first_step("save.default", {"result": 0}, "x"),
    "a namespace": first_step("__class__.default", {"result": 0}),
    "a function of Python": first_step("operator.attrgetter", "__class__"),
    "memory": first_step("zeros.default", [1 << 40]),
    "memory here": first_step("zeros.default", [1 << 40], device="cpu"),
    "memory by repetition": first_step("repeat.default", {"result": 0}, [1, 1 << 20, 1 << 20, 1]),
    "an output of others": first_step("add.out", {"result": 0}, {"result": 0}, out={"tensor": "7.weight"}),
    "a later result": first_step("relu.default", {"result": 5}),
    "a tensor of nobody": first_step("relu.default", {"tensor": "none"}),
    "another kind of value": first_step("relu.default", {"pickle": "x"}),
    "another format": lambda plain: plain.update(format=2),
    "no steps": lambda plain: plain.pop("steps"),
    "steps of another type": lambda plain: plain.update(steps=5),
    "tensors of another network": lambda plain: plain["parameters"].append("more.weight"),
    "names of the module itself": lambda plain: plain.update(
        parameters=[*plain["parameters"][:-1], "forward"], aliases={plain["parameters"][-1]: "forward"}
    ),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_program_is_refused(change, run_of_nobody):
    rewritten(run_of_nobody, change)
    with pytest.raises(InputError, match=r"program\.safetensors"):
        open_checkpoint(run_of_nobody)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nobody")
    (folder / "module_of_nobody.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "module_of_nobody:make", *TRAIN]) == 0
    return folder


@pytest.fixture
def run_of_nobody(template, tmp_path):
    shutil.copytree(template / "runs", tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_a_damaged_program_is_noticed(run_of_nobody):
    path = run_of_nobody / "program.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"relu", b"tanh", 1))
    with pytest.raises(InputError, match="damaged or edited"):
        read_program(path)


def test_a_program_is_not_torch_s_archive_and_holds_no_pickle(run_of_nobody):
    data = (run_of_nobody / "program.safetensors").read_bytes()
    assert not data.startswith(b"PK")
    graph, constants = read_program(run_of_nobody / "program.safetensors")
    assert isinstance(graph, Graph)
    assert constants == {}


def test_operations_exist_and_neither_open_files_nor_draw():
    for name in OPERATIONS:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            schema = str(getattr(packet, overload)._schema)
            assert "filename" not in schema, schema
            assert "Storage" not in schema, schema
    assert not [name for name in OPERATIONS if "rand" in name or "save" in name or "load" in name or "file" in name]
    for name in OF_NUMBERS:
        assert callable(operation(name))


@pytest.mark.slow
def test_another_process_gets_the_same_accuracy_and_verdicts(run):
    assert main(["evaluate", str(run), *QUICK, "--allow-code"]) == 0
    (path,) = (file for file in (run / "evaluation").glob("fgsm*.json") if "info" not in file.name)
    before = json.loads(path.read_text())
    path.unlink()
    forget()
    program = (
        "import json, sys, robustmaps\n"
        "network = robustmaps.load(sys.argv[1])\n"
        "x, y = network.data.test.tensors()\n"
        "print(json.dumps(int((network(x).argmax(1) == y).sum())))\n"
    )
    options = {"capture_output": True, "text": True, "check": True}
    right = json.loads(subprocess.run([sys.executable, "-c", program, str(run)], **options).stdout)  # type: ignore[call-overload]
    line = [sys.executable, "-m", "robustmaps", "evaluate", str(run), *QUICK]
    assert "opened from its program" in subprocess.run(line, **options).stderr  # type: ignore[call-overload]
    after = json.loads(path.read_text())
    for name in ("verdicts", "clean_accuracy", "robust_accuracy", "checkpoint_sha256", "computes"):
        assert after[name] == before[name], name
    network = load_run_quietly(run)
    x, y = network.data.test.tensors()
    assert right == int((network(x).argmax(1) == y).sum())


def load_run_quietly(run):
    with pytest.warns(UserWarning, match="opened from its program"):
        return load_run(run)
