"""Masked robustness is noticed, honest networks are left in peace, and the network is left as it was."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import TrainOptions, fit
from robustmaps.attacks import FGSM
from robustmaps.data import Dataset
from robustmaps.defenses import Standard
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import Diagnosis, diagnose, evaluate

ROOT = Path(__file__).parent.parent.parent
EPS = 0.15
OPTIONS = TrainOptions(epochs=6, batch_size=64, lr=0.05, schedule="one-cycle", precision="fp32", device="cpu")
CHECKS = [
    *("input-range", "training-mode", "stochastic", "probabilities", "test-time-optimisation", "zero-gradients"),
    *("non-differentiable", "large-eps", "more-steps", "black-box", "transfer"),
]
# Warnings of evaluations alone.
WARNINGS = ["batch-dependence", "chance", "label-order", "preprocessing", "unfinished-run", "copied-images"]

Images = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def images(digits: Dataset) -> Images:
    return digits.test.subset(60).tensors()


@pytest.fixture(scope="module")
def standard_network(digits: Dataset) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    fit(network, digits, Standard(), OPTIONS)
    return network.eval()


class Masked(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.before = before
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


def same(x: Tensor) -> Tensor:
    return x


def quantised(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * (levels - 1)).round() / (levels - 1)


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.round(x.detach().numpy() * 7) / 7)


def names(diagnosis: Diagnosis) -> list[str]:
    return [finding.name for finding in diagnosis.suspects]


# Honest networks.


def test_an_adversarially_trained_network_is_clean(
    robust_network: nn.Module, standard_network: nn.Module, images: Images
) -> None:
    diagnosis = diagnose(robust_network, *images, norm="linf", eps=EPS, surrogate=standard_network)
    assert [finding.name for finding in diagnosis.findings] == CHECKS
    assert {finding.verdict for finding in diagnosis.findings} == {"ok"}, str(diagnosis)
    assert "that the gradient attacks leave of" in diagnosis["black-box"].text


def test_a_standard_network_without_a_robust_image_is_clean(standard_network: nn.Module, images: Images) -> None:
    def never() -> nn.Module:
        raise AssertionError("there is no image to try a surrogate on")

    diagnosis = diagnose(standard_network, *images, norm="linf", eps=0.3, surrogate=never)
    assert {finding.verdict for finding in diagnosis.findings} == {"ok"}, str(diagnosis)
    assert "attacks break all" in diagnosis["black-box"].text


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.0), ("l1", 4.0), ("linf", 1.0), ("linf", 1e-4)])
def test_other_budgets_are_clean_too(norm: str, eps: float, robust_network: nn.Module, images: Images) -> None:
    assert names(diagnose(robust_network, *images, norm=norm, eps=eps)) == []


def test_a_linear_network_of_two_classes_is_clean(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(train=200)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    nn.init.zeros_(network[1].weight)
    fit(network, data, Standard(), OPTIONS)
    x, y = data.test.tensors()
    for norm, eps in (("linf", 0.05), ("l2", 0.3), ("l1", 1.0)):
        diagnosis = diagnose(network, x, y, norm=norm, eps=eps, surrogate=network)
        assert names(diagnosis) == [], str(diagnosis)


def test_a_rugged_network_is_judged_as_in_an_evaluation(standard_network: nn.Module, images: Images) -> None:
    """Random steps disagree with the gradient of both; only behind the steeper sine do attacks suffer from it."""
    for size, doubtful in ((0.005, False), (0.01, True)):
        model = Masked(standard_network, lambda x, size=size: x + size * torch.sin(200 * x), same).eval()
        finding = diagnose(model, *images, norm="linf", eps=EPS)["non-differentiable"]
        assert (finding.verdict == "suspect") == doubtful, finding
        assert ("the network is only rugged" in finding.text) == (not doubtful)
        warned = any("non-differentiable" in text for text in evaluate(model, *images, FGSM(eps=EPS)).warnings)
        assert warned == doubtful


def test_pixels_that_keep_their_value_at_black_are_seen_as_in_an_evaluation(
    standard_network: nn.Module, images: Images
) -> None:
    model = Masked(standard_network, F.relu, same).eval()
    diagnosis = diagnose(model, *images, norm="linf", eps=EPS)
    assert "of the pixels that are exactly 0 or 1" in diagnosis["zero-gradients"].text
    assert any("zero-gradients" in text for text in evaluate(model, *images, FGSM(eps=EPS)).warnings)


def test_log_probabilities_are_as_good_as_logits(robust_network: nn.Module, images: Images) -> None:
    model = Masked(robust_network, same, lambda z: z.log_softmax(1)).eval()
    diagnosis = diagnose(model, *images, norm="linf", eps=EPS)
    assert names(diagnosis) == []
    assert "log-probabilities" in diagnosis["probabilities"].text


# Masked networks.


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (quantised(4), same, {"zero-gradients", "non-differentiable", "large-eps", "black-box", "transfer"}),
        (quantised(8), same, {"zero-gradients", "non-differentiable", "large-eps", "black-box", "transfer"}),
        (through_numpy, same, {"non-differentiable", "black-box", "transfer"}),
        (lambda x: x + 0.02 * torch.sin(400 * x), same, {"non-differentiable", "black-box", "more-steps"}),
        (same, lambda z: 1e3 * z, {"zero-gradients"}),
        (same, lambda z: 1e6 * z, {"zero-gradients"}),
        (same, lambda z: z.softmax(1), {"probabilities"}),
        (same, lambda z: (20 * z).softmax(1), {"probabilities", "zero-gradients"}),
        (lambda x: x + 0.1 * torch.randn_like(x), same, {"stochastic"}),
        (lambda x: F.dropout(x, 0.2), same, {"stochastic"}),
    ],
    ids=["4 levels", "8 levels", "numpy", "sine", "x 1e3", "x 1e6", "softmax", "sharp softmax", "noise", "dropout"],
)
def test_masks_are_seen(
    before: Callable[[Tensor], Tensor],
    after: Callable[[Tensor], Tensor],
    expected: set[str],
    standard_network: nn.Module,
    images: Images,
) -> None:
    model = Masked(standard_network, before, after).eval()
    diagnosis = diagnose(model, *images, norm="linf", eps=EPS, surrogate=standard_network)
    assert expected <= set(names(diagnosis)), str(diagnosis)


def test_what_stands_in_the_gradients_way_is_named_and_bridged(standard_network: nn.Module, images: Images) -> None:
    class Quantise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 7).round() / 7

    model = nn.Sequential(nn.Identity(), Quantise(), *standard_network)
    text = diagnose(model.eval(), *images, norm="linf", eps=EPS)["non-differentiable"].text
    assert "round in 1" in text
    broken, left = (int(word) for word in text.replace("the ", "").split("attack breaks ")[1].split() if word.isdigit())
    assert broken > 0.8 * left > 30


def test_a_network_without_gradients_says_why(standard_network: nn.Module, images: Images) -> None:
    model = Masked(standard_network, through_numpy, same).eval()
    diagnosis = diagnose(model, *images, norm="linf", eps=EPS)
    assert "does not require grad" in diagnosis["non-differentiable"].text
    assert "detach in" in diagnosis["non-differentiable"].text
    for name in ("zero-gradients", "large-eps", "more-steps"):
        assert diagnosis[name].verdict == "skipped"
        assert diagnosis[name].text == "no gradient reaches the images"


def test_saturated_logits_are_told_from_flat_ones(standard_network: nn.Module, images: Images) -> None:
    saturated = Masked(standard_network, same, lambda z: 1e4 * z).eval()
    flat = Masked(standard_network, quantised(8), same).eval()
    few = images[0][:20], images[1][:20]
    texts = [diagnose(m, *few, norm="linf", eps=EPS)["zero-gradients"].text for m in (saturated, flat)]
    assert "logit margin's at 0" in texts[0]
    assert "whatever the loss" in texts[1]


# Networks that learn or count while they are used.


class Ascending(Masked):
    """Makes itself surer of what it sees before it says it."""

    def forward(self, x: Tensor) -> Tensor:
        probe = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.network(probe).logsumexp(1).sum(), probe)
        return self.network(x + 0.02 * gradient.sign())


class Counting(Masked):
    """Keeps count in a buffer that it replaces."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, same, same)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + len(x)
        return self.network(x)


def test_gradients_within_a_pass(standard_network: nn.Module, images: Images) -> None:
    model = Ascending(standard_network, same, same).eval()
    text = diagnose(model, *images, norm="linf", eps=EPS)["test-time-optimisation"].text
    assert text == "a pass computes gradients itself, in 1 call"


def test_weights_that_a_pass_changes(standard_network: nn.Module, images: Images) -> None:
    model = Counting(standard_network).eval()
    finding = diagnose(model, *images, norm="linf", eps=EPS)["test-time-optimisation"]
    assert (finding.verdict, finding.text) == ("suspect", "a pass in evaluation mode changes seen")
    assert float(model.seen) == 0


def test_statistics_of_the_batch(standard_network: nn.Module, images: Images) -> None:
    model = copy.deepcopy(standard_network)
    model[1].track_running_stats, model[1].running_mean, model[1].running_var = False, None, None
    finding = diagnose(model, *images, norm="linf", eps=EPS)["test-time-optimisation"]
    assert finding.verdict == "suspect"
    assert "with the other images of its batch" in finding.text


# What it is given.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x - 0.3) / 0.3, "normalisation belongs inside"),
        (lambda x: x * 255, "divide by 255"),
        (lambda x: x / 255, "divided by 255 twice"),
        (lambda x: (x * 255).byte(), "uint8: expected floats"),
        (lambda x: x * float("nan"), "values are NaN"),
        (lambda x: torch.full_like(x, 0.5), "same value in every pixel"),
        (lambda x: 0.5 + 0.05 * x, "less than a tenth"),
    ],
)
def test_images_that_are_no_images(
    change: Callable[[Tensor], Tensor], message: str, standard_network: nn.Module, images: Images
) -> None:
    x = change(images[0])
    diagnosis = diagnose(standard_network, x, images[1], norm="linf", eps=EPS)
    assert diagnosis["input-range"].verdict == "suspect"
    assert message in diagnosis["input-range"].text
    usable = x.is_floating_point() and bool(((x >= 0) & (x <= 1)).all())
    assert (diagnosis["large-eps"].verdict == "skipped") != usable


def test_a_network_in_training_mode(standard_network: nn.Module, images: Images) -> None:
    model = nn.Sequential(nn.Dropout(0.3), copy.deepcopy(standard_network)).train()
    finding = diagnose(model, *images, norm="linf", eps=EPS)["training-mode"]
    assert finding.verdict == "suspect"
    assert "8 layers in training mode" in finding.text
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    finding = diagnose(plain, *images, norm="linf", eps=EPS)["training-mode"]
    assert (finding.verdict, finding.text) == ("ok", "2 layers in training mode, which does not change the logits")


def test_nothing_classified_correctly_is_no_reason_to_fail(standard_network: nn.Module, images: Images) -> None:
    with torch.no_grad():
        wrong = (standard_network(images[0]).argmax(1) + 1) % 10
    diagnosis = diagnose(standard_network, images[0], wrong, norm="linf", eps=EPS, surrogate=standard_network)
    assert names(diagnosis) == []
    assert diagnosis["more-steps"].text == "no image is classified correctly"


def test_one_image_is_enough(robust_network: nn.Module, images: Images) -> None:
    diagnosis = diagnose(robust_network, images[0][:1], images[1][:1], norm="linf", eps=EPS, surrogate=robust_network)
    assert names(diagnosis) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l0"}, "unknown norm 'l0'"),
        ({"eps": 8.0}, "did you mean 8/255"),
        ({"y": torch.zeros(3)}, "expected int64 labels"),
        ({"x": torch.zeros(3, 64)}, r"expected images \(N, C, H, W\)"),
        ({"y": torch.full((60,), 10)}, "the network has 10 classes"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_is_refused(
    changes: dict[str, object], message: str, standard_network: nn.Module, images: Images
) -> None:
    given = {"x": images[0], "y": images[1], "norm": "linf", "eps": EPS, **changes}
    with pytest.raises(InputError, match=message):
        diagnose(standard_network, **given)


def test_a_surrogate_for_other_classes_is_refused(robust_network: nn.Module, images: Images) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(InputError, match="the surrogate has 3 classes; expected 10 as the network"):
        diagnose(robust_network, *images, norm="linf", eps=EPS, surrogate=other)


# Repetition, and no trace.


def test_the_network_is_left_as_it_was(standard_network: nn.Module, images: Images) -> None:
    model = nn.Sequential(nn.Dropout(0.3), copy.deepcopy(standard_network)).train()
    model[1][0].eval()
    model[1][0].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = diagnose(model, *images, norm="linf", eps=EPS)
    assert torch.equal(state, torch.get_rng_state())
    for (name, module), (_, kept) in zip(model.named_modules(), before.named_modules(), strict=True):
        assert module.training == kept.training, name
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for (name, value), kept in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(value, kept), name
        assert value.requires_grad == kept.requires_grad
        assert value.grad is None
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before.buffers(), strict=True))
    again = diagnose(model, *images, norm="linf", eps=EPS)
    assert first.findings == again.findings


def test_progress_names_the_checks(robust_network: nn.Module, images: Images) -> None:
    reports: list[Progress] = []
    diagnose(robust_network, images[0][:20], images[1][:20], norm="linf", eps=EPS, watcher=reports.append)
    assert list(dict.fromkeys(report.phase for report in reports)) == CHECKS
    assert all(0 <= report.done <= report.total for report in reports)


def test_a_diagnosis_as_json_and_as_text(robust_network: nn.Module, images: Images, tmp_path: Path) -> None:
    model = Masked(robust_network, same, lambda z: z.softmax(1)).eval()
    diagnosis = diagnose(model, images[0][:20], images[1][:20], norm="linf", eps=EPS)
    diagnosis.save(tmp_path / "diagnosis.json")
    saved = json.loads((tmp_path / "diagnosis.json").read_text())
    assert saved["suspects"] == names(diagnosis) == ["probabilities"]
    assert [finding["name"] for finding in saved["findings"]] == CHECKS
    assert saved["images"] == 20
    assert str(diagnosis).splitlines()[3].split()[:2] == ["probabilities", "suspect"]
    with pytest.raises(KeyError):
        diagnosis["nonsense"]


# The pages.


def test_every_check_has_its_page(robust_network: nn.Module, images: Images) -> None:
    diagnosis = diagnose(robust_network, images[0][:1], images[1][:1], norm="linf", eps=EPS)
    index = (ROOT / "docs/diagnose/README.md").read_text(encoding="utf-8")
    for finding in diagnosis.findings:
        page = (ROOT / finding.page).read_text(encoding="utf-8")
        assert page.startswith(f"# {finding.name}\n")
        assert "arxiv.org/abs/" in page
        assert f"({Path(finding.page).name})" in index
    for name in WARNINGS:
        page = (ROOT / f"docs/diagnose/{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {name}\n")
        assert "arxiv.org/abs/" in page
        assert f"({name}.md)" in index
    assert {path.stem for path in (ROOT / "docs/diagnose").glob("*.md")} == {"README", *CHECKS, *WARNINGS}
