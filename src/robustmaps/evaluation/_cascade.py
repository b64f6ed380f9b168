"""The cascade: each attack works on the samples that withstood the ones before, and its results are verified."""

import inspect
import time
import warnings as python_warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from robustmaps.attacks import Attack, check_labels, norms, project
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import is_right, predictions, undecided
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation._eight_bit import TOLERANCE, towards_clean
from robustmaps.evaluation._result import NORMS, ROBUST, WRONG
from robustmaps.evaluation._state import AttackStage, Found, image_checksum


@dataclass
class Cascade:
    """One running evaluation.

    Attributes:
        view: the fast view, for the attacks.
        plain: the network itself, for the verdicts.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        names: the verdicts of the samples that each attack breaks, in order, and what they are called for people.
        device: the network's device.
        seed: seed of all random draws.
        found: the results so far, kept up to date.
        adversarials: like ``x``; receives the adversarial images. None to discard them.
        eight_bit: round adversarial images to 8 bits, towards the clean image.
        every: attack misclassified samples too, and put the image of each attacked sample into ``adversarials``.
        keep: called after every batch.
        watcher: receives progress reports.
    """

    view: AttackView
    plain: AttackView
    x: Tensor
    y: Tensor
    names: Mapping[str, str]
    device: torch.device
    seed: int
    found: Found
    adversarials: Tensor | None
    eight_bit: bool
    every: bool
    keep: Callable[[], None]
    watcher: Watcher

    def classify(self) -> tuple[Tensor, Tensor]:
        """Find the samples that are misclassified without an attack.

        Returns:
            The network's answers (N,) on the CPU, and its logits for the first batch (B, K).
        """
        answers: list[Tensor] = []
        first: list[Tensor] = []

        def look(rows: list[int]) -> None:
            x, y = self._batch(rows)
            logits = self.plain(x)
            check_labels(y, logits.shape[1])
            if not first:
                first.append(logits)
            answer = predictions(logits)
            answers.append(answer.cpu())
            nameless = undecided(logits).tolist()
            for row, right, odd in zip(rows, (answer == y).tolist(), nameless, strict=True):
                if not right:
                    self.found.verdicts[row] = WRONG
                self.found.undecided += odd

        rows = list(range(len(self.x)))
        while rows:
            rows = rows[self._as_fits(look, rows) :]
        return torch.cat(answers), first[0]

    def run(self, attack: Attack, position: int) -> None:
        """Attack the unbroken samples; ``position`` in the order gives the attack its own random draws."""
        if position == len(self.found.stages):
            rows = self._all_but_broken(first=position == 0) if self.every else self._standing()
            self.found.stages.append(AttackStage(list(self.names)[position], rows, passes=Passes()))
        stage = self.found.stages[position]
        self._report(stage, 0.0, 0.0)
        while stage.done < len(stage.rows):
            began = time.perf_counter()
            attacked = self._as_fits(lambda rows: self._attack(attack, position, rows), stage.rows[stage.done :])
            stage.done += attacked
            stage.seconds += time.perf_counter() - began
            self._report(stage, 0.0, 0.0)
            self.keep()

    def _as_fits(self, work: Callable[[list[int]], None], rows: list[int]) -> int:
        """Work on as many of the rows as memory allows, and return their number."""
        while True:
            part = rows[: self.found.batch_size]
            try:
                work(part)
            except (RuntimeError, MemoryError) as error:
                if self.found.batch_size == 1 or not is_out_of_memory(error):
                    raise
            else:
                return len(part)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.found.batch_size = min(self.found.batch_size, len(part)) // 2 or 1
            self.warn(f"out of memory: batch size halved to {self.found.batch_size}")

    def _attack(self, attack: Attack, position: int, rows: list[int]) -> None:
        """Attack these samples, and record the broken ones."""
        stage = self.found.stages[position]
        x, y = self._batch(rows)
        passes, mended = self._counted()
        with self._reporting(stage, len(rows)) as watcher:
            x_adv, broken, distance, odd = self._attempt(attack, position, self.view, x, y, rows[0], watcher)
            disputed = broken.new_zeros(len(rows)) if self.view is self.plain else self._disputed(x_adv, y, broken)
            if disputed.any():
                again = disputed.nonzero().squeeze(1)
                x_adv[again], broken[again], distance[again], odd[again] = self._attempt(
                    attack, position, self.plain, x[again], y[again], rows[0], watcher
                )
        # Read at once: each value by itself would make a GPU wait.
        fallen, distances, nameless = broken.tolist(), distance.tolist(), odd.tolist()
        sizes = torch.stack([norms(x_adv - x, norm) for norm in NORMS], 1).tolist()
        passes, mended = self._counted()[0] - passes, self._counted()[1] - mended
        self.found.gradients, self.found.mended = self.found.gradients + passes.backward, self.found.mended + mended
        if stage.passes is not None:
            stage.passes += passes
        wrong = [self.found.verdicts[row] == WRONG for row in rows]
        fallen = [broken and not before for broken, before in zip(fallen, wrong, strict=True)]
        for index, row in enumerate(rows):
            if fallen[index]:
                self.found.undecided += nameless[index]
                self.found.verdicts[row], self.found.distances[row] = stage.name, distances[index]
                if self.found.perturbations is not None:
                    self.found.perturbations[row] = tuple(sizes[index])
            if self.adversarials is not None and (fallen[index] or self.every):
                self.adversarials[row] = x_adv[index].to(self.adversarials)
                self.found.images[str(row)] = image_checksum(self.adversarials[row])
        stage.broken += sum(fallen)

    def _attempt(
        self, attack: Attack, position: int, view: AttackView, x: Tensor, y: Tensor, first: int, watcher: Watcher
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images within the budget, whether the plain network misclassifies them, distances, and the `undecided`."""
        purpose = "view" if view is self.view else "plain"
        generator = stream(self.seed, attack.name, position, purpose, first, device=self.device)
        call = cast(Callable[..., Tensor], _fitted(attack, self.found.batch_size))
        more = {"watcher": watcher} if "watcher" in inspect.signature(call).parameters else {}
        x_adv = self._inside(attack, x, call(view, x, y, generator=generator, **more))
        logits = self.plain(x_adv)
        return x_adv, ~is_right(logits, y), norms(x_adv - x, attack.norm), undecided(logits)

    def _disputed(self, x_adv: Tensor, y: Tensor, broken: Tensor) -> Tensor:
        """Samples that are broken for the view but not for the plain network."""
        return ~is_right(self.view(x_adv), y) & ~broken

    def _inside(self, attack: Attack, x: Tensor, x_adv: Tensor) -> Tensor:
        """The attack's images, projected into the budget and [0, 1], and rounded if asked."""
        if x_adv.shape != x.shape or not bool(x_adv.isfinite().all()):
            raise InputError(
                f"attack {attack.name!r} returned images of shape {tuple(x_adv.shape)}, finite: "
                f"{bool(x_adv.isfinite().all())}; expected finite images of shape {tuple(x.shape)}"
            )
        excess = float((norms(x_adv - x, attack.norm) - attack.eps).max())
        outside = float((x_adv - x_adv.clamp(0, 1)).abs().max())
        if max(excess, outside) > TOLERANCE:
            self.warn(
                f"attack {attack.name!r} exceeded its budget by {max(excess, outside):.3g}; its images were cut back"
            )
        inside = project(x_adv.detach().to(x.dtype), x, attack.eps, attack.norm)
        return towards_clean(inside, x) if self.eight_bit else inside

    def _counted(self) -> tuple[Passes, int]:
        """The passes so far, and how many images' gradients were not finite."""
        views = {self.view, self.plain}
        return sum((view.passes for view in views), Passes()), sum(view.mended for view in views)

    def _standing(self) -> list[int]:
        return [row for row, verdict in enumerate(self.found.verdicts) if verdict == ROBUST]

    def _all_but_broken(self, *, first: bool) -> list[int]:
        """The unbroken samples, and the misclassified ones for the first attack."""
        kept = (ROBUST, WRONG) if first else (ROBUST,)
        return [row for row, verdict in enumerate(self.found.verdicts) if verdict in kept]

    def _batch(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return self.x[rows].float().to(self.device), self.y[rows].to(self.device)

    @contextmanager
    def _reporting(self, stage: AttackStage, images: int) -> Iterator[Watcher]:
        """A watcher that turns an attack's own reports on a batch of images into the stage's."""
        began = time.perf_counter()

        def hear(progress: Progress) -> None:
            part = images * progress.done / max(progress.total, 1)
            self._report(stage, part, time.perf_counter() - began)

        yield hear

    def _report(self, stage: AttackStage, ahead: float, seconds: float) -> None:
        """Report to the watcher, with a batch under way that counts as ``ahead`` finished images."""
        done, seconds, total = stage.done + ahead, stage.seconds + seconds, len(stage.rows)
        standing = self.found.verdicts.count(ROBUST)
        figures = {
            "attacked": total,
            "survivors": standing,
            "robust_accuracy": standing / len(self.found.verdicts),
            "elapsed_s": seconds,
        }
        remaining = 0.0 if done >= total else seconds / done * (total - done) if done else None
        self.watcher(Progress(self.names[stage.name], int(done), total, "images", figures, remaining))

    def warn(self, message: str, category: type[Warning] = UserWarning) -> None:
        """Record a reason to doubt the figures, and give a Python warning the first time."""
        if message not in self.found.warnings:
            self.found.warnings.append(message)
            python_warnings.warn(message, category, stacklevel=3)


def _fitted(attack: Any, batch_size: int) -> Any:
    """The attack with the evaluation's batch size, unless it sets its own."""
    if is_dataclass(attack) and not isinstance(attack, type) and getattr(attack, "batch_size", 0) is None:
        return replace(attack, batch_size=batch_size)
    return attack
