"""The classes of the foolbox library with their arguments, and calls of them: quiet, seeded, with finite logits."""

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks._batching import fork
from robustmaps.attacks._pgd import PGD
from robustmaps.engine.errors import InputError, NoGradientError
from robustmaps.engine.finite import finite_gradient, is_right
from robustmaps.engine.numbers import check_at_least, check_whole
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class Method:
    """An attack's classes in foolbox and their settings; settings that are not named keep foolbox's defaults.

    Attributes:
        classes: the name of its class in ``foolbox.attacks``, by norm.
        options: arguments of the class by the names of our options, besides ``steps``.
        settings: arguments of the class that differ from foolbox's defaults.
        fixed: whether it works at a given ``eps`` instead of searching for the smallest perturbation.
        started: whether it walks from a misclassified image towards the clean one.
    """

    classes: Mapping[str, str]
    options: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False
    started: bool = False


_CONSTANTS = {name: name for name in ("confidence", "abort_early")} | {
    "constant": "initial_const",
    "search_steps": "binary_search_steps",
}
_STEP_SIZES = {"step_size": "abs_stepsize", "relative_step": "rel_stepsize", "random_start": "random_start"}

METHODS: dict[str, Method] = {
    # Carlini & Wagner, arXiv 1608.04644: 9 constants with at most 10,000 steps each.
    "cw": Method({"l2": "L2CarliniWagnerAttack"}, {**_CONSTANTS, "step_size": "stepsize"}),
    # Moosavi-Dezfooli et al., arXiv 1511.04599: at most 50 steps, the 10 likeliest classes.
    "deepfool": Method(
        {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"},
        {"overshoot": "overshoot", "candidates": "candidates", "differences": "loss"},
    ),
    # Chen et al., arXiv 1709.04114: as C&W, with an l1 penalty of 0.01; the shortest in l1 is kept.
    "ead": Method(
        {"l1": "EADAttack"},
        {
            **_CONSTANTS,
            "step_size": "initial_stepsize",
            "regularization": "regularization",
            "decision_rule": "decision_rule",
        },
        {"decision_rule": "L1"},
    ),
    # Tramer & Boneh, arXiv 1904.13000: 10 steps along the largest 1 % of the gradient's entries.
    "slide": Method({"l1": "SparseL1DescentAttack"}, {**_STEP_SIZES, "quantile": "quantile"}, fixed=True),
    # Brendel et al., arXiv 1907.01003: 1000 steps along the decision boundary.
    "brendel-bethge": Method(
        {"linf": "LinfinityBrendelBethgeAttack", "l2": "L2BrendelBethgeAttack", "l1": "L1BrendelBethgeAttack"},
        {
            "overshoot": "overshoot",
            "learning_rate": "lr",
            "learning_rate_decay": "lr_decay",
            "learning_rate_decays": "lr_num_decay",
            "momentum": "momentum",
            "search_steps": "binary_search_steps",
        },
        started=True,
    ),
    # Madry et al., arXiv 1706.06083, in the l1 ball: 50 steps from a random start.
    "pgd-l1": Method({"l1": "L1ProjectedGradientDescentAttack"}, _STEP_SIZES, fixed=True),
}


def _one_of(*choices: object) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
            raise InputError(f"{name}={value!r}: expected {' or '.join(map(str, choices))}")

    return check


def _share(name: str, value: Any) -> None:
    check_at_least(name, value, 0)
    if value > 1:
        raise InputError(f"{name}={value!r}: expected a number from 0 to 1")


def _above_zero(name: str, value: Any) -> None:
    check_at_least(name, value, 0, exclusive=True)


CHECKS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("step_size", "relative_step", "learning_rate", "constant", "learning_rate_decay"), _above_zero),
    **dict.fromkeys(("overshoot", "confidence", "regularization"), partial(check_at_least, least=0)),
    **dict.fromkeys(("search_steps", "learning_rate_decays"), partial(check_whole, least=1)),
    **dict.fromkeys(("quantile", "momentum"), _share),
    **dict.fromkeys(("abort_early", "random_start"), _one_of(True, False)),
    "candidates": partial(check_whole, least=2),
    "differences": _one_of("logits", "crossentropy"),
    "decision_rule": _one_of("EN", "L1"),
}
"""What the options may be, whatever the attack."""


# If this many draws of noise are classified correctly, further draws almost always are.
_NOISE_DRAWS = 100

# Logits this far apart never meet within an image's range, and float32 still resolves their differences.
_FAR = 1e4


@dataclass
class Attempt:
    """One call of a foolbox attack.

    Attributes:
        name: the attack's name in messages.
        kind: the name of its class in ``foolbox.attacks``.
        settings: arguments of the class.
        eps: the radius, for attacks at a fixed one.
        started: whether it walks from a misclassified image towards the clean one.
        view: the network.
        seed: seed of foolbox's random draws.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    eps: float | None
    started: bool
    view: AttackView
    seed: int

    def __post_init__(self) -> None:
        with _quiet():
            self.library = _load()

    def run(self, x: Tensor, y: Tensor) -> Tensor:
        """Foolbox's unverified result for images that are classified as ``y``."""
        with _quiet(), _seeded(self.seed, x.device):
            network = self.library.PyTorchModel(_Network(self.view).eval(), bounds=(0, 1), device=x.device)
            if self.started:
                return self._from_starts(network, x, y)
            return self._call(network, x, y, **({} if self.eps is None else {"epsilon": self.eps}))

    def _call(self, network: Any, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        try:
            attack = getattr(self.library.attacks, self.kind)(**self.settings)
        except ImportError as error:
            raise _missing(f"the attack {self.name!r}", "numba", error) from error
        with torch.enable_grad():
            found: Tensor = attack.run(network, x, y, **options)
        return found.detach()

    def _from_starts(self, network: Any, x: Tensor, y: Tensor) -> Tensor:
        starts = self._starts(network, x, y)
        rows = torch.arange(len(x), device=x.device)
        # Repeat whenever the batch changes: it may affect the last bit of the logits, and foolbox is strict.
        while not (broken := self._broken(starts[rows], y[rows])).all():
            rows = rows[broken]
        if len(rows) < len(x):
            warnings.warn(
                f"{self.name}: found no misclassified image to start from for {len(x) - len(rows)} of "
                f"{len(x)} images; they are returned unchanged",
                stacklevel=5,
            )
        result = x.clone()
        if len(rows) > 0:
            result[rows] = self._call(network, x[rows], y[rows], starting_points=starts[rows])
        return result

    def _starts(self, network: Any, x: Tensor, y: Tensor) -> Tensor:
        """The clean images blended with noise, as foolbox does, or moved along the gradient if that fails."""
        noise = self.library.attacks.LinearSearchBlendedUniformNoiseAttack(directions=_NOISE_DRAWS)
        starts: Tensor = noise.run(network, x, y)
        left = ~self._broken(starts, y)
        if left.any():
            far = PGD("linf", 1.0, steps=50, loss="margin", early_stop=True)
            starts[left] = far(self.view, x[left], y[left], generator=fork(self.seed, x.device))
        return starts

    def _broken(self, x: Tensor, y: Tensor) -> Tensor:
        return ~is_right(self.view(x), y)


class _Network(nn.Module):
    """A view as the module that foolbox expects: with finite logits, since its loops would never end on NaN."""

    def __init__(self, view: AttackView) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: finite_gradient(gradient)[0])  # type: ignore[no-untyped-call]
        logits = self.view(x)
        if x.requires_grad and not logits.requires_grad:
            raise NoGradientError
        known = logits.isfinite()
        if bool(known.all()):
            return logits
        # Far above or below the others, so that infinite logits keep their order and masked classes are never near.
        finite = torch.where(known, logits.detach(), 0.0)
        low, high = finite.amin(1, keepdim=True) - _FAR, finite.amax(1, keepdim=True) + _FAR
        bounded = torch.where(logits > 0, high, torch.where(logits.isnan(), 0.0, low))
        return torch.where(known, logits, bounded)


def _load() -> Any:
    # Foolbox imports GitPython, whose import fails without git unless this is set.
    refresh = os.environ.get("GIT_PYTHON_REFRESH")
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    try:
        return importlib.import_module("foolbox")
    except ImportError as error:
        raise _missing("this attack", "foolbox", error) from error
    finally:
        if refresh is None:
            del os.environ["GIT_PYTHON_REFRESH"]
        else:
            os.environ["GIT_PYTHON_REFRESH"] = refresh


def _missing(what: str, package: str, error: ImportError) -> InputError:
    return InputError(f"{what} needs the package {package!r}; pip install 'robustmaps[foolbox]' ({error})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence foolbox's warnings, and keep its first message from setting up logging for the whole program."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="foolbox|eagerpy|numba")
            yield
    finally:
        logging.root.removeHandler(handler)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that foolbox draws from; restore them afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []), torch.cuda.device(device) if cuda else nullcontext():
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
