"""Calls of the foolbox library: quiet, seeded, and with networks whose logits are finite."""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks._batching import fork
from robustmaps.attacks._pgd import PGD
from robustmaps.engine.errors import InputError, NoGradientError
from robustmaps.engine.finite import finite_gradient, is_right
from robustmaps.engine.view import AttackView

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
