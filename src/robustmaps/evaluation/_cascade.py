"""The cascade: each attack works on the samples that withstood the ones before, and its results are verified."""

import time
import warnings as python_warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmaps.attacks import Attack, check_labels
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.finite import predictions, undecided
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation._result import ROBUST, WRONG
from robustmaps.evaluation._sharing._batches import Attacked, Attackers, Batch
from robustmaps.evaluation._state import AttackStage, Found, image_checksum


@dataclass
class Cascade:
    """One running evaluation.

    Attributes:
        attackers: who attacks the batches.
        plain: the network itself, for the verdicts without an attack.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        names: the verdicts of the samples that each attack breaks, in order, and what they are called for people.
        device: the network's device.
        found: the results so far, kept up to date.
        adversarials: like ``x``; receives the adversarial images. None to discard them.
        every: attack misclassified samples too.
        keep: called after every batch.
        watcher: receives progress reports.
    """

    attackers: Attackers
    plain: AttackView
    x: Tensor
    y: Tensor
    names: Mapping[str, str]
    device: torch.device
    found: Found
    adversarials: Tensor | None
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
            try:
                self._attack(attack, position, stage)
            except (RuntimeError, MemoryError) as error:
                if self.found.batch_size == 1 or not is_out_of_memory(error):
                    raise
                self._halve(min(self.found.batch_size, len(stage.rows) - stage.done))

    def _attack(self, attack: Attack, position: int, stage: AttackStage) -> None:
        """Attack the samples that are left, and record and keep the results of each batch."""
        rows, size, began = stage.rows[stage.done :], self.found.batch_size, time.perf_counter()
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]

        def batch(part: list[int]) -> Batch:
            return Batch(attack, position, part, self.x[part].float(), self.y[part], size)

        def ahead(images: float) -> None:
            self._report(stage, images, time.perf_counter() - began)

        try:
            with closing(self.attackers.attacked(parts, batch, ahead)) as results:
                for attacked in results:
                    self._record(attacked)
                    stage.seconds += time.perf_counter() - began
                    self._report(stage, 0.0, 0.0)
                    self.keep()
                    began = time.perf_counter()
        finally:  # what memory did not suffice for took its time too
            stage.seconds += time.perf_counter() - began

    def _halve(self, size: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.found.batch_size = size // 2 or 1
        self.warn(f"out of memory: batch size halved to {self.found.batch_size}")

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
            self._halve(min(self.found.batch_size, len(part)))

    def _record(self, attacked: Attacked) -> None:
        """Record the results of a batch."""
        stage = self.found.stages[attacked.position]
        self.found.gradients += attacked.passes.backward
        self.found.mended += attacked.mended
        if stage.passes is not None:
            stage.passes += attacked.passes
        for index, row in enumerate(attacked.rows):
            if attacked.broken[index] and self.found.verdicts[row] != WRONG:
                self.found.undecided += attacked.undecided[index]
                self.found.verdicts[row], self.found.distances[row] = stage.name, attacked.distances[index]
                if self.found.perturbations is not None:
                    self.found.perturbations[row] = attacked.sizes[index]
                stage.broken += 1
            if self.adversarials is not None and index in attacked.images:
                self.adversarials[row] = attacked.images[index].to(self.adversarials)
                self.found.images[str(row)] = image_checksum(self.adversarials[row])
        stage.done += len(attacked.rows)
        for text in attacked.warnings:
            self.warn(text)

    def _standing(self) -> list[int]:
        return [row for row, verdict in enumerate(self.found.verdicts) if verdict == ROBUST]

    def _all_but_broken(self, *, first: bool) -> list[int]:
        """The unbroken samples, and the misclassified ones for the first attack."""
        kept = (ROBUST, WRONG) if first else (ROBUST,)
        return [row for row, verdict in enumerate(self.found.verdicts) if verdict in kept]

    def _batch(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return self.x[rows].float().to(self.device), self.y[rows].to(self.device)

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
