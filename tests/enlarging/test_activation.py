"""SiLU in place of ReLU: every ReLU of a network, whatever computes it, and nothing else."""

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.cli import main
from robustmaps.config import parse_surgery, read_run_config
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.engine.views.incremental import incremental
from robustmaps.enlarging import enlarge as enlarge_and_time
from robustmaps.enlarging import plan
from robustmaps.models import create
from robustmaps.networks import open_checkpoint
from robustmaps.networks._program._exporting import export_program
from robustmaps.networks._program._module import Program

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2])
Function = Callable[[Tensor], Tensor]


def enlarge(model: nn.Module, **how: object):
    return enlarge_and_time(model, IMAGES, latency_runs=0, **how)


class Own(nn.ReLU):
    """A user's subclass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Net(nn.Module):
    """Two strided steps with a shortcut; a head that is read in training alone, and another activation."""

    def __init__(self, first: Function, second: Function, last: Function) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, 2, 1)
            self.norm = nn.BatchNorm2d(8)
            self.conv = nn.Conv2d(8, 8, 3, 2, 1)
            self.across = nn.Conv2d(8, 8, 1, 2)
            self.linear = nn.Linear(8, 5)
            self.beside = nn.Linear(8, 5)
        self.first, self.second, self.last = first, second, last

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(self.stem(x)))
        x = self.second(F.hardtanh(self.conv(x)) + self.across(x))
        pooled = x.mean((2, 3))
        out = self.linear(pooled)
        return out + self.last(self.beside(pooled)) if self.training else out


def ignored(x: Tensor) -> Tensor:
    """In place, with the result of the call thrown away."""
    F.relu(x, inplace=True)
    return x


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


WAYS: dict[str, Callable[[], Function]] = {
    "module": nn.ReLU,
    "module in place": lambda: nn.ReLU(inplace=True),
    "subclass": Own,
    "F.relu": lambda: F.relu,
    "F.relu by name": lambda: lambda x: F.relu(input=x),
    "F.relu in place": lambda: ignored,
    "F.relu in place by position": lambda: lambda x: F.relu(x, True),
    "torch.relu": lambda: torch.relu,
    "torch.relu_": lambda: torch.relu_,
    "Tensor.relu": lambda: Tensor.relu,
    "Tensor.relu_": lambda: Tensor.relu_,
    "aten": lambda: torch.ops.aten.relu.default,
}


def step(network: nn.Module) -> list[Tensor]:
    """Logits, and the gradients of weights and images."""
    network.zero_grad()
    x = IMAGES.clone().requires_grad_()
    logits = network(x)
    F.cross_entropy(logits, LABELS).backward()
    return [logits.detach(), x.grad, *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("way", WAYS)
def test_every_relu_is_replaced_in_evaluation_and_training(way):
    shared = WAYS[way]()
    network, by_hand = Net(shared, shared, shared), Net(silu, silu, silu)
    changed, done = enlarge(network, activation="silu")
    assert done.relus == 2
    for training in (False, True):
        for one, other in zip(step(changed.train(training)), step(by_hand.train(training)), strict=True):
            assert torch.allclose(one, other, atol=1e-6)
        assert not torch.allclose(network.train(training)(IMAGES), changed(IMAGES), atol=1e-3)
    expected = changed.eval()(IMAGES)
    for again in (copy.deepcopy(changed), enlarge(network, **done.recipe)[0]):
        again.load_state_dict(changed.state_dict())
        assert torch.equal(again.eval()(IMAGES), expected)
    assert list(changed.state_dict()) == list(network.state_dict())


def test_modules_and_calls_are_replaced_together():
    changed, done = enlarge(Net(nn.ReLU(), F.relu, nn.ReLU()), activation="silu")
    for training in (False, True):
        by_hand = Net(silu, silu, silu).train(training)
        assert torch.allclose(changed.train(training)(IMAGES), by_hand(IMAGES), atol=1e-6)
    assert "SiLU in place of ReLU (2 calls)" in str(done)
    assert "relu as SiLU" in repr(changed)
    again = pickle.loads(pickle.dumps(changed))
    assert torch.equal(again.eval()(IMAGES), changed.eval()(IMAGES))


def test_maps_and_operations_stay_and_nothing_is_warned(recwarn):
    _, done = enlarge(Net(F.relu, F.relu, F.relu), activation="silu")
    assert done.recipe == {"activation": "silu"}
    assert done.before.cost.flops == done.after.cost.flops
    assert done.before.cost.map_size == done.after.cost.map_size
    assert (done.warnings, list(recwarn)) == ((), [])


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
@pytest.mark.parametrize(
    "how",
    [{"where": "last"}, {"where": 0, "smooth": "blur"}, {"upsample": 2}, {"where": (0, 1), "dilate": True}],
    ids=["where", "blur", "upsample", "dilate"],
)
@pytest.mark.parametrize("relu", [nn.ReLU(), F.relu], ids=["module", "call"])
def test_it_goes_with_every_enlargement(relu, how):
    network, by_hand = Net(relu, relu, relu).eval(), Net(silu, silu, silu).eval()
    together, done = enlarge(network, activation="silu", **how)
    expected, known = enlarge(by_hand, **how)
    assert torch.allclose(together(IMAGES), expected(IMAGES), atol=1e-5)
    assert done.recipe == {**known.recipe, "activation": "silu"}
    assert done.after.cost.map_size == known.after.cost.map_size
    one_by_one, _ = enlarge(enlarge(network, activation="silu")[0], **how)
    assert torch.allclose(one_by_one(IMAGES), expected(IMAGES), atol=1e-5)
    other_way, _ = enlarge(enlarge(network, **how)[0], activation="silu")
    assert torch.allclose(other_way(IMAGES), expected(IMAGES), atol=1e-5)


def test_what_has_no_relu_is_refused_with_what_it_has():
    network = Net(nn.ReLU6(), F.gelu, F.relu).eval()  # the last runs in training alone
    with pytest.raises(InputError, match=r"Net has no ReLU to replace; its activations: hardtanh \(2\), gelu \(1\)"):
        enlarge(network, activation="silu")
    changed, _ = enlarge(Net(nn.ReLU(), F.relu, F.relu), activation="silu")
    with pytest.raises(InputError, match=r"has no ReLU to replace; its activations: silu \(2\)"):
        enlarge(changed, activation="silu")
    for function in (enlarge, lambda net, **how: plan(net, IMAGES, **how)):
        with pytest.raises(InputError, match=r"unknown activation 'gelu'.*silu"):
            function(network, activation="gelu")
    with pytest.raises(InputError, match="unknown activation 'swish'"):
        parse_surgery("activation=swish")
    with pytest.raises(InputError, match=r"activation='silu': changes at once"):
        plan(Net(F.relu, F.relu, F.relu), IMAGES, activation="silu", shares=(0.5, 0.8))


def test_other_activations_stay():
    changed, done = enlarge(Net(nn.ReLU6(), F.relu, F.relu), activation="silu")
    assert done.relus == 1
    by_hand = Net(nn.ReLU6(), silu, silu)
    assert torch.allclose(changed.eval()(IMAGES), by_hand.eval()(IMAGES), atol=1e-6)


@pytest.mark.parametrize("make", [lambda: create("resnet8"), lambda: Net(nn.ReLU(), F.relu, F.relu)])
def test_views_equal_the_network(make):
    torch.manual_seed(0)
    changed = enlarge(make(), activation="silu")[0]
    for norm in (module for module in changed.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.bias)
    changed.eval()
    x = IMAGES.clone().requires_grad_()
    loss = partial(F.cross_entropy, target=LABELS, reduction="none")
    logits = changed(x)
    (gradient,) = torch.autograd.grad(loss(logits).sum(), x)
    for options in (ViewOptions(), ViewOptions(fold=False, channels_last=False), ViewOptions(stages=True)):
        engine = AttackEngine(changed, options)
        with engine.view(IMAGES) as view:
            assert engine.folded or not options.fold
            assert torch.allclose(view(IMAGES), logits, atol=1e-5)
            assert torch.allclose(view.gradient(IMAGES, loss)[2], gradient, atol=1e-6)


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), F.relu, partial(F.relu, inplace=True), torch.relu_])
def test_windows_of_a_view_equal_the_network(relu):
    changed = enlarge(Net(relu, relu, relu), activation="silu")[0].eval()
    x, patch = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 4, 4)
    with plain_view(changed) as view, torch.no_grad():
        known = incremental(view, x)
        assert known is not None
        assert known.cost < 0.3
        x[..., 5:9, 5:9] = patch
        assert torch.allclose(known.propose(patch, 5, 5), changed(x), atol=1e-4)


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), F.relu, Tensor.relu_], ids=["module", "call", "in place"])
def test_a_program_computes_it(relu):
    changed = enlarge(Net(relu, relu, relu), activation="silu")[0].eval()
    graph, constants = export_program(changed, (3, 16, 16), "net")
    program = Program(graph, {**changed.state_dict(), **constants}, "net").eval()
    assert torch.allclose(program(IMAGES), changed(IMAGES), atol=1e-6)


def test_a_plan_lists_it_beside_the_given_network():
    network = Net(F.relu, F.relu, F.relu).eval()
    how = {"budget": 8, "upsamples": (1,), "gain": lambda net: net(IMAGES).std().item()}
    relu, changed = plan(network, IMAGES, **how), plan(network, IMAGES, activation="silu", **how)
    assert [option.where for option in relu.options] == [(), (1,), (0,)]
    assert [option.where for option in changed.options] == [(), *(option.where for option in relu.options)]
    assert [option.activation for option in changed.options] == [None, *["silu"] * 3]
    assert changed.options[0].gain == relu.options[0].gain
    assert changed.options[1].gain == enlarge(network, activation="silu")[0](IMAGES).std().item()
    assert changed.options[1].relative == 1
    assert changed.to_dict()["activation"] == changed.to_dict()["options"][1]["activation"] == "silu"
    assert "activation" not in relu.to_dict()
    assert (str(changed).count(" ReLU "), str(changed).count(" SiLU ")) == (1, 3)


@pytest.mark.slow
def test_it_is_trained_saved_and_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = "--train-samples 64 --batch-size 32 --epochs 1 --defense standard --device cpu --precision fp32"
    assert main(f"train resnet8 --where last --activation silu {few}".split()) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert read_run_config(run / "config.yaml").model.enlarge == "where=last,activation=silu"
    network = open_checkpoint(run).model
    assert sum(isinstance(module, nn.SiLU) for module in network.modules()) == 7
    assert main(["evaluate", str(run), "--attack", "fgsm", "--samples", "16"]) == 0
    assert main(["export", str(run), "--format", "safetensors", "--out", "exported"]) == 0
    assert "SiLU in place of ReLU" in (tmp_path / "exported" / "README.md").read_text()
    assert main(f"train resnet8 {few}".split()) == 0
    (plain,) = {*(tmp_path / "runs").iterdir()} - {run}
    capsys.readouterr()
    assert main(["enlarge", str(plain), "--enlarge", "silu", "--save", "changed"]) == 0
    assert "SiLU in place of ReLU (7 calls)" in capsys.readouterr().out
    saved = open_checkpoint(tmp_path / "changed").model
    assert sum(isinstance(module, nn.SiLU) for module in saved.modules()) == 7
    assert main(["evaluate", "changed", "--attack", "fgsm", "--samples", "16"]) == 0
    assert main(["enlarge", "changed", "--activation", "silu"]) == 2
    assert "has no ReLU to replace" in " ".join(capsys.readouterr().err.split())
    assert main(["plan", str(plain), "--activation", "silu", "--samples", "8", "--out", "plan.png"]) == 0
    assert "SiLU" in capsys.readouterr().out
