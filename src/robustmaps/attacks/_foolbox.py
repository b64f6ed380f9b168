"""Attacks of the foolbox library, called like the built-in ones."""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._base import check_batch, check_labels
from robustmaps.attacks._batching import fork, seeds
from robustmaps.attacks._geometry import norms, project
from robustmaps.attacks._pgd import PGD
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.attacks._watched import NORMS
from robustmaps.engine.errors import InputError, NoGradientError, unknown
from robustmaps.engine.finite import finite_gradient, is_right
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.engine.view import AttackView, plain_view


@dataclass(frozen=True)
class Method:
    """An attack's classes in foolbox and their settings; settings that are not named keep foolbox's defaults.

    Attributes:
        classes: the name of its class in ``foolbox.attacks``, by norm.
        settings: arguments of the class besides ``steps``.
        fixed: whether it works at a given ``eps`` instead of searching for the smallest perturbation.
        started: whether it walks from a misclassified image towards the clean one.
    """

    classes: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False
    started: bool = False


METHODS: dict[str, Method] = {
    # Carlini & Wagner, arXiv 1608.04644: 9 constants with at most 10,000 steps each.
    "cw": Method({"l2": "L2CarliniWagnerAttack"}),
    # Moosavi-Dezfooli et al., arXiv 1511.04599: at most 50 steps, the 10 likeliest classes.
    "deepfool": Method({"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}),
    # Chen et al., arXiv 1709.04114: as C&W, with an l1 penalty of 0.01; the shortest in l1 is kept.
    "ead": Method({"l1": "EADAttack"}, {"decision_rule": "L1"}),
    # Tramer & Boneh, arXiv 1904.13000: 10 steps along the largest 1 % of the gradient's entries.
    "slide": Method({"l1": "SparseL1DescentAttack"}, fixed=True),
    # Brendel et al., arXiv 1907.01003: 1000 steps along the decision boundary.
    "brendel-bethge": Method(
        {"linf": "LinfinityBrendelBethgeAttack", "l2": "L2BrendelBethgeAttack", "l1": "L1BrendelBethgeAttack"},
        started=True,
    ),
    # Madry et al., arXiv 1706.06083, in the l1 ball: 50 steps from a random start.
    "pgd-l1": Method({"l1": "L1ProjectedGradientDescentAttack"}, fixed=True),
}

# If this many draws of noise are classified correctly, further draws almost always are.
_NOISE_DRAWS = 100

# Logits this far apart never meet within an image's range, and float32 still resolves their differences.
_FAR = 1e4


@dataclass(frozen=True)
class Foolbox:
    """An attack of the foolbox library (Rauber et al., arXiv 1707.04131).

    Results are verified: images are returned finite, in [0, 1], misclassified and within ``eps``, or unchanged.

    >>> Foolbox("deepfool", "l2", 0.5).name
    'deepfool'

    Attributes:
        attack: ``cw`` (l2), ``deepfool`` (linf, l2), ``ead`` (l1), ``slide`` (l1), ``brendel-bethge`` (linf, l2, l1) or
            ``pgd-l1`` (l1).
        norm: one of the attack's norms.
        eps: the radius, in units of images in [0, 1]. Images found farther away are projected onto the ball, and count
            if still misclassified.
        steps: maximum number of gradient steps, for C&W and EAD per constant; None: foolbox's default.
        minimal: return the smallest perturbation found even if longer than ``eps``; not for ``slide`` and ``pgd-l1``,
            which don't search for it.

    Raises:
        InputError: the attack is unknown, does not support the norm, or a value is out of range.
    """

    attack: str
    norm: Literal["linf", "l2", "l1"]
    eps: float
    steps: int | None = None
    minimal: bool = False

    def __post_init__(self) -> None:
        if self.attack not in METHODS:
            raise unknown("attack", self.attack, METHODS)
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        if self.norm not in self.method.classes:
            possible = " or ".join(repr(norm) for norm in self.method.classes)
            raise InputError(f"norm={self.norm!r}: {self.attack} needs norm={possible}")
        check_eps(self.eps, self.norm)
        if self.steps is not None:
            check_whole("steps", self.steps, 1)
        if self.minimal and self.method.fixed:
            raise InputError(f"minimal=True: {self.attack} works at a fixed eps; use minimal=False")

    @property
    def name(self) -> str:
        """The attack's name."""
        return self.attack

    @property
    def method(self) -> Method:
        """The attack's classes in foolbox and their settings."""
        return METHODS[self.attack]

    def __call__(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images for ``x``, shape (N, C, H, W); unbroken ones are returned unchanged.

        Args:
            model: a network, used in evaluation mode and restored afterwards, or a view of one.
            x: images (N, C, H, W) in [0, 1].
            y: true labels (N,).
            generator: source of the seed for foolbox's random draws.

        Raises:
            InputError: images or labels are invalid, or foolbox is not installed.
        """
        check_batch(x, y)
        with plain_view(model) as view, torch.no_grad():
            # Copies, since tensors made in inference mode can't be differentiated.
            result, y = view.prepared(x).clone(), y.clone()
            logits = view(result)
            check_labels(y, logits.shape[1])
            (seed,) = seeds(1, generator)
            standing = is_right(logits, y).nonzero().squeeze(1)
            if len(standing) > 0:
                result[standing] = self._attacked(view, result[standing], y[standing], seed)
            return result

    def _attacked(self, view: AttackView, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """The images ``x``, all classified as ``y``, with the broken ones replaced."""
        with _quiet():
            found = _Attempt(self, _load(), view, seed).run(x, y).to(x.dtype)
        # C&W and EAD return a black image if they find nothing.
        valid = found.isfinite().flatten(1).all(1) & found.flatten(1).any(1)
        found = torch.where(valid[:, None, None, None], found, x).clamp_(0.0, 1.0)
        far = norms(found - x, self.norm) > self.eps
        if far.any() and not self.minimal:
            found[far] = project(found[far], x[far], self.eps, self.norm)
        broken = ~is_right(view(found), y)
        return torch.where(broken[:, None, None, None], found, x)


@dataclass
class _Attempt:
    """One call of a foolbox attack."""

    attack: Foolbox
    library: Any
    view: AttackView
    seed: int

    def run(self, x: Tensor, y: Tensor) -> Tensor:
        """Foolbox's unverified result for images that are classified as ``y``."""
        network = self.library.PyTorchModel(_Network(self.view).eval(), bounds=(0, 1), device=x.device)
        with _seeded(self.seed, x.device):
            if self.attack.method.started:
                return self._from_starts(network, x, y)
            options = {"epsilon": self.attack.eps} if self.attack.method.fixed else {}
            return self._call(network, x, y, **options)

    def _call(self, network: Any, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        method = self.attack.method
        steps = {} if self.attack.steps is None else {"steps": self.attack.steps}
        try:
            make = getattr(self.library.attacks, method.classes[self.attack.norm])
            attack = make(**method.settings, **steps)
        except ImportError as error:
            raise _missing(f"the attack {self.attack.name!r}", "numba", error) from error
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
                f"{self.attack.name}: found no misclassified image to start from for {len(x) - len(rows)} of "
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


def _passes(attack: Foolbox) -> float | None:
    return None if attack.steps is None else GRADIENT * attack.steps


_PARAMETERS = {"steps": "maximum number of gradient steps, for cw and ead per constant (default: foolbox's)"}
ROWS = (
    AttackRow(
        name="cw",
        summary="Carlini & Wagner, l2, from foolbox (arXiv 1608.04644)",
        kind=Foolbox,
        create=partial(Foolbox, "cw"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="deepfool",
        summary="DeepFool, linf and l2, from foolbox (arXiv 1511.04599)",
        kind=Foolbox,
        create=partial(Foolbox, "deepfool"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="ead",
        summary="elastic-net attack, l1, from foolbox (arXiv 1709.04114)",
        kind=Foolbox,
        create=partial(Foolbox, "ead"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="slide",
        summary="sparse l1 descent, from foolbox (arXiv 1904.13000)",
        kind=Foolbox,
        create=partial(Foolbox, "slide"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="brendel-bethge",
        summary="walk along the decision boundary, from foolbox (arXiv 1907.01003)",
        kind=Foolbox,
        create=partial(Foolbox, "brendel-bethge"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="pgd-l1",
        summary="projected gradient descent in the l1 ball, from foolbox (arXiv 1706.06083)",
        kind=Foolbox,
        create=partial(Foolbox, "pgd-l1"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
)
