"""The cascade: each attack works on the samples that are still standing, and no attack is taken at its word."""

import hashlib
import time
import warnings as python_warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack, check_batch, check_labels, norms, project
from robustmaps.engine.device import device_name, device_of, resolve_precision
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackEngine, AttackView, ViewOptions, plain_view
from robustmaps.evaluation._evaluation import ROBUST, WRONG, Evaluation

# Rounding of float32 images and distances; an excess above it is the attack's fault, and is cut off and reported.
_BUDGET_TOLERANCE = 1e-5


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack | Sequence[Attack],
    *,
    batch_size: int = 256,
    seed: int = 0,
    precision: str = "auto",
    compile: bool = False,  # noqa: A002
    engine: AttackEngine | None = None,
    watcher: Watcher = ignore,
) -> Evaluation:
    """Attack a network and return a verdict per sample.

    Attacks run on a fast view of the network. A sample counts as broken only when the plain network, in float32 and
    evaluation mode, misclassifies an image that lies within the budget and within [0, 1]. Where the view and the plain
    network disagree, the sample is attacked again on the plain one. The network is left as it was.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K), on any device.
        x: images (N, C, H, W) in [0, 1], float; batches are moved to the network's device.
        y: labels (N,), int64.
        attack: one attack, or several that are tried in order on what is left; an empty list finds clean accuracy.
        batch_size: images attacked at once.
        seed: of every random draw.
        precision: of the view: ``auto``, ``fp32`` or ``bf16``.
        compile: run the view through ``torch.compile``.
        engine: an engine for ``model`` to use instead of a new one; ``precision`` and ``compile`` are then its own.
        watcher: called as the work goes on.

    Raises:
        InputError: bad images, labels or settings; or attacks with different budgets.
    """
    began = time.perf_counter()
    attacks = _as_list(attack)
    check_batch(x, y)
    device = device_of(model)
    if engine is None:
        options = ViewOptions(precision=resolve_precision(precision, device), compile=compile)
        engine = AttackEngine(model, options)
    with ExitStack() as stack:
        # The view first: its copy is made while the network is as the caller left it.
        view = stack.enter_context(engine.view(x[:8].to(device)))
        plain = stack.enter_context(plain_view(model))
        stack.enter_context(torch.no_grad())
        cascade = _Cascade(view, plain, x, y, device, batch_size, seed, watcher)
        cascade.classify()
        for position, stage in enumerate(attacks):
            cascade.run(stage, position)
    return Evaluation(
        verdicts=tuple(cascade.verdicts),
        distances=tuple(cascade.distances),
        norm=attacks[0].norm if attacks else "none",
        eps=attacks[0].eps if attacks else 0.0,
        attacks=tuple(_settings(stage.name, stage) for stage in attacks),
        images_sha256=_fingerprint(x, y),
        seed=seed,
        seconds=time.perf_counter() - began,
        warnings=tuple(cascade.warnings),
        environment={
            "device": device_name(device),
            "torch": torch.__version__,
            "precision": engine.options.precision,
        },
    )


@dataclass
class _Cascade:
    """The state of one evaluation."""

    view: AttackView
    plain: AttackView
    x: Tensor
    y: Tensor
    device: torch.device
    batch_size: int
    seed: int
    watcher: Watcher

    def __post_init__(self) -> None:
        self.verdicts = [ROBUST] * len(self.x)
        self.distances: list[float | None] = [None] * len(self.x)
        self.warnings: list[str] = []

    def classify(self) -> None:
        """Find the samples that are wrong without an attack."""
        for rows, x, y in self._batches(list(range(len(self.x)))):
            logits = self.plain(x)
            check_labels(y, logits.shape[1])
            if rows[0] == 0 and _are_probabilities(logits):
                self._warn(
                    "the network seems to return probabilities: losses saturate and attacks look weaker than they are; "
                    "return logits"
                )
            for row, wrong in zip(rows, (logits.argmax(1) != y).tolist(), strict=True):
                if wrong:
                    self.verdicts[row] = WRONG

    def run(self, attack: Attack, position: int) -> None:
        """Attack the samples that still stand; the attack's place in the order tells its random draws from others'."""
        standing = [row for row, verdict in enumerate(self.verdicts) if verdict == ROBUST]
        began, done = time.perf_counter(), 0
        for rows, x, y in self._batches(standing):
            for row, distance in zip(rows, self._attack_batch(attack, position, rows, x, y), strict=True):
                if distance is not None:
                    self.verdicts[row], self.distances[row] = attack.name, distance
            done += len(rows)
            elapsed = time.perf_counter() - began
            rate = self.verdicts.count(ROBUST) / len(self.verdicts)
            self.watcher(
                Progress(
                    attack.name,
                    done,
                    len(standing),
                    "images",
                    {"robust_accuracy": rate, "images_per_s": done / elapsed},
                    elapsed / done * (len(standing) - done),
                )
            )

    def _attack_batch(self, attack: Attack, position: int, rows: list[int], x: Tensor, y: Tensor) -> list[float | None]:
        """Per sample the distance at which it is broken, or None."""

        def attempt(view: AttackView, keep: Tensor, purpose: str) -> tuple[Tensor, Tensor, Tensor]:
            generator = stream(self.seed, attack.name, position, purpose, rows[0], device=self.device)
            x_adv = self._inside(attack, x[keep], attack(view, x[keep], y[keep], generator=generator))
            broken = self.plain(x_adv).argmax(1) != y[keep]
            claimed = view(x_adv).argmax(1) != y[keep] if view is not self.plain else broken
            return broken, claimed & ~broken, norms(x_adv - x[keep], attack.norm)

        everything = torch.arange(len(x), device=x.device)
        broken, disputed, distance = attempt(self.view, everything, "view")
        if disputed.any():
            again = everything[disputed]
            broken[again], _, distance[again] = attempt(self.plain, again, "plain")
        return [d if b else None for b, d in zip(broken.tolist(), distance.tolist(), strict=True)]

    def _inside(self, attack: Attack, x: Tensor, x_adv: Tensor) -> Tensor:
        """The attack's images, forced into the budget and into [0, 1]."""
        if x_adv.shape != x.shape or not bool(x_adv.isfinite().all()):
            raise InputError(
                f"attack {attack.name!r} returned images of shape {tuple(x_adv.shape)}, finite: "
                f"{bool(x_adv.isfinite().all())}; expected finite images of shape {tuple(x.shape)}"
            )
        excess = float((norms(x_adv - x, attack.norm) - attack.eps).max())
        outside = float((x_adv - x_adv.clamp(0, 1)).abs().max())
        if max(excess, outside) > _BUDGET_TOLERANCE:
            self._warn(
                f"attack {attack.name!r} left its budget by {max(excess, outside):.3g}; its images were cut back"
            )
        return project(x_adv.detach().float(), x, attack.eps, attack.norm)

    def _batches(self, rows: list[int]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            yield part, self.x[part].float().to(self.device), self.y[part].to(self.device)

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            python_warnings.warn(message, stacklevel=4)


def _as_list(attack: Attack | Sequence[Attack]) -> list[Attack]:
    attacks = list(attack) if isinstance(attack, Sequence) else [attack]
    budgets = {(stage.norm, stage.eps) for stage in attacks}
    if len(budgets) > 1:
        raise InputError(f"attacks with budgets {sorted(budgets)}: expected one budget for all")
    return attacks


def _are_probabilities(logits: Tensor) -> bool:
    return bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all())


def _settings(name: str, attack: Any) -> dict[str, Any]:
    return {"name": name, **(asdict(attack) if is_dataclass(attack) else {})}  # type: ignore[arg-type]


def _fingerprint(x: Tensor, y: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(x.shape)).encode())
    digest.update(x.detach().cpu().float().contiguous().numpy().tobytes())
    digest.update(y.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
