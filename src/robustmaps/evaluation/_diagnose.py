"""Is this robustness real? Checks for networks on which attacks fail although they are not robust."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import call
from robustmaps.engine.device import device_name, device_of
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import write_json
from robustmaps.engine.modes import check_values
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.random import derive_seed
from robustmaps.engine.view import AttackView, plain_view
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation._agreement import Computed
from robustmaps.evaluation._checks import (
    CHECKS,
    NORMS,
    CheckedNetwork,
    Finding,
    SkippedError,
    Surrogate,
    WithGradients,
    state_restored,
)
from robustmaps.evaluation._fingerprints import images_sha256
from robustmaps.evaluation._trial import try_batches

_FORMAT = 1


@dataclass(frozen=True)
class Diagnosis:
    """The results of all checks.

    Attributes:
        findings: one per check.
        norm: the norm of the budget.
        eps: its radius, in units of images in [0, 1].
        images: number of images.
        images_sha256: hash of images and labels.
        seed: seed of all random draws.
        seconds: wall time.
        checkpoint_sha256: hash of the weights' file; None for a network in memory.
        environment: device and PyTorch version.
        computes: what the network computes on a few fixed images; None if not recorded.
    """

    findings: tuple[Finding, ...]
    norm: str
    eps: float
    images: int
    images_sha256: str
    seed: int
    seconds: float
    checkpoint_sha256: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    computes: Computed | None = None

    @property
    def suspects(self) -> tuple[Finding, ...]:
        """The findings that cast doubt on the network's robustness."""
        return tuple(finding for finding in self.findings if finding.verdict == "suspect")

    def __getitem__(self, name: str) -> Finding:
        """The finding of a check, by name.

        Raises:
            KeyError: there is no such check.
        """
        return {finding.name: finding for finding in self.findings}[name]

    def __str__(self) -> str:
        return "\n".join(f"{one.name:<22}  {one.verdict:<7}  {one.text}" for one in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": _FORMAT,
            "suspects": [finding.name for finding in self.suspects],
            "findings": [finding.to_dict() for finding in self.findings],
            "norm": self.norm,
            "eps": self.eps,
            "images": self.images,
            "images_sha256": self.images_sha256,
            "seed": self.seed,
            "seconds": self.seconds,
            "checkpoint_sha256": self.checkpoint_sha256,
            "environment": dict(self.environment),
            "computes": list(self.computes) if isinstance(self.computes, tuple) else self.computes,
        }

    def save(self, path: str | Path) -> None:
        """Write the diagnosis as JSON, atomically; an earlier diagnosis is replaced.

        Raises:
            InputError: another file is in the way.
        """
        claim(path, ours=json_with("format", "findings", "images_sha256"))
        write_json(path, self.to_dict())


def diagnose(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    eps: float,
    surrogate: Surrogate | None = None,
    seed: int = 0,
    batch_size: int = 128,
    watcher: Watcher = ignore,
) -> Diagnosis:
    """Look for signs that attacks fail on a network for other reasons than its robustness.

    Checks run on the network itself, which is restored afterwards. About two hundred images of all classes are enough.
    Each finding names the page that explains its check.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K), on any device, in the mode in which it is used.
        x: images (N, C, H, W); one of the checks is whether they are in [0, 1].
        y: labels (N,), int64.
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the budget that the network is claimed to withstand, in units of images in [0, 1].
        surrogate: another network for the same classes, on the same device, for the transfer check; or a function that
            returns one, called only if needed.
        seed: seed of all random draws.
        batch_size: images per batch.
        watcher: receives progress reports, with the check's name as phase.

    Raises:
        InputError: shapes, labels or settings are invalid, or the network's parameters have no values.
    """
    _check(x, y, norm, eps, batch_size)
    check_values(model)
    began = time.perf_counter()
    device = device_of(model)
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        images, labels = (values.detach().clone().to(device) for values in (x, y))
        images = images.float() if images.is_floating_point() else images
        if images.is_floating_point():
            with state_restored(model), torch.enable_grad():
                try_batches(model, images, alone=False)
        attacked, view = stack.enter_context(_opened(model, images))
        subject = CheckedNetwork(
            model, attacked, view, modes, images, labels, norm, eps, seed, batch_size, watcher, surrogate
        )
        findings = tuple(_run(name, subject) for name in CHECKS)
    return Diagnosis(
        findings,
        norm,
        eps,
        len(x),
        images_sha256(x, y),
        seed,
        time.perf_counter() - began,
        environment={"device": device_name(device), "torch": torch.__version__},
    )


@contextmanager
def _opened(model: nn.Module, x: Tensor) -> Iterator[tuple[nn.Module, AttackView]]:
    """The network to attack and its view, in evaluation mode; modes, weights and buffers are restored afterwards."""
    with state_restored(model), plain_view(model) as view:
        if not _fails_without_gradients(model, x):
            yield model, view
            return
        wrapped = WithGradients(model).eval()
        with plain_view(wrapped) as view:
            yield wrapped, view


def _run(name: str, subject: CheckedNetwork) -> Finding:
    # Each check has its own random stream, so that checks don't affect each other.
    torch.manual_seed(derive_seed(subject.seed, "diagnose", name))
    subject.check = name
    subject.report(0, 1, "check")
    try:
        suspect, text = CHECKS[name](subject)
    except SkippedError as reason:
        finding = Finding(name, "skipped", str(reason))
    else:
        finding = Finding(name, "suspect" if suspect else "ok", text)
    subject.report(1, 1, "check")
    return finding


def _fails_without_gradients(model: nn.Module, x: Tensor) -> bool:
    """Whether the network runs only with gradients turned on, for example because it computes some itself."""
    if not x.is_floating_point():
        return False
    try:
        with torch.no_grad():
            call(model, x[:2])
    except RuntimeError:
        with torch.enable_grad():
            call(model, x[:2])
        return True
    return False


def _check(x: Tensor, y: Tensor, norm: str, eps: float, batch_size: int) -> None:
    """Refuse anything but a batch; doubtful batches are left to the checks."""
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    check_eps(eps, norm)
    check_whole("batch_size", batch_size, 1)
    if x.dim() != 4 or len(x) == 0:
        raise InputError(f"x has shape {tuple(x.shape)}: expected images (N, C, H, W), at least one")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise InputError(f"y has shape {tuple(y.shape)} and type {y.dtype}: expected int64 labels of shape ({len(x)},)")
