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
from robustmaps.engine import ranks
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import is_right, predictions, undecided
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.random import stream
from robustmaps.engine.ranks.agreeing import gather
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.passes import Passes
from robustmaps.engine.views.shadow import differing, repeats
from robustmaps.evaluation._eight_bit import TOLERANCE, towards_clean
from robustmaps.evaluation._result import NORMS, ROBUST, WRONG
from robustmaps.evaluation._state import AttackStage, Found, image_checksum


@dataclass(frozen=True)
class _Attacked:
    """What became of a batch, as plain values that ranks send to each other.

    Attributes:
        position: the attack's place in the order.
        rows: the samples.
        fallen: whether it was broken, of each.
        distances: how far its image is away, of each.
        undecided: whether the network had no answer to it, of each.
        sizes: its distances in all of `NORMS`, of each.
        images: those to keep, by index.
        passes: through the network.
        mended: gradients that were not finite.
    """

    position: int
    rows: list[int]
    fallen: list[bool]
    distances: list[float]
    undecided: list[bool]
    sizes: list[tuple[float, float, float]]
    images: dict[int, Tensor]
    passes: Passes
    mended: int


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
            stage.done += self._round(attack, position, stage.rows[stage.done :])
            stage.seconds += time.perf_counter() - began
            self._report(stage, 0.0, 0.0)
            self.keep()

    def _round(self, attack: Attack, position: int, rows: list[int]) -> int:
        """Attack a batch on each rank, and return how many of the rows all have done together.

        Draws belong to a batch, so that whole ones are shared out, which are those that a single process would make.
        """
        if ranks.size() == 1:
            return self._as_fits(lambda part: self._record(self._attack(attack, position, part)), rows)
        size = self.found.batch_size
        part = rows[ranks.rank() * size : (ranks.rank() + 1) * size]
        here: list[_Attacked] = []
        failed = False
        try:
            here += [self._attack(attack, position, part)] if part else []
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            failed = True
        told = gather((failed, here, self.found.warnings))
        for _, _, warnings in told:
            self.found.warnings += [text for text in warnings if text not in self.found.warnings]
        if any(failed for failed, _, _ in told):
            self._halve(min(size, len(rows)))
            return 0
        for _, attacked, _ in told:
            for each in attacked:
                self._record(each)
        return min(len(rows), ranks.size() * size)

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

    def _attack(self, attack: Attack, position: int, rows: list[int]) -> "_Attacked":
        """Attack these samples."""
        stage = self.found.stages[position]
        x, y = self._batch(rows)
        passes, mended = self._counted()
        with self._reporting(stage, len(rows)) as watcher:
            x_adv, logits, distance = self._attempt(attack, position, self.view, x, y, rows[0], watcher)
            if self.view is not self.plain and (disputed := self._disputed(x_adv, y, logits)).any():
                again = disputed.nonzero().squeeze(1)
                x_adv[again], logits[again], distance[again] = self._attempt(
                    attack, position, self.plain, x[again], y[again], rows[0], watcher
                )
        broken, odd = ~is_right(logits, y), undecided(logits)
        # Read at once: each value by itself would make a GPU wait.
        fallen, distances, nameless = broken.tolist(), distance.tolist(), odd.tolist()
        each = torch.stack([norms(x_adv - x, norm) for norm in NORMS], 1).tolist()
        sizes = [(linf, l2, l1) for linf, l2, l1 in each]
        wrong = [self.found.verdicts[row] == WRONG for row in rows]
        fallen = [broken and not before for broken, before in zip(fallen, wrong, strict=True)]
        images = {
            index: x_adv[index].to(self.adversarials)
            for index in range(len(rows) if self.adversarials is not None else 0)
            if fallen[index] or self.every
        }
        passes, mended = self._counted()[0] - passes, self._counted()[1] - mended
        return _Attacked(position, rows, fallen, distances, nameless, sizes, images, passes, mended)

    def _record(self, attacked: "_Attacked") -> None:
        """Record what became of a batch."""
        stage, rows, fallen = self.found.stages[attacked.position], attacked.rows, attacked.fallen
        self.found.gradients += attacked.passes.backward
        self.found.mended += attacked.mended
        if stage.passes is not None:
            stage.passes += attacked.passes
        for index, row in enumerate(rows):
            if fallen[index]:
                self.found.undecided += attacked.undecided[index]
                self.found.verdicts[row], self.found.distances[row] = stage.name, attacked.distances[index]
                if self.found.perturbations is not None:
                    self.found.perturbations[row] = attacked.sizes[index]
            if self.adversarials is not None and index in attacked.images:
                self.adversarials[row] = attacked.images[index]
                self.found.images[str(row)] = image_checksum(self.adversarials[row])
        stage.broken += sum(fallen)

    def _attempt(
        self, attack: Attack, position: int, view: AttackView, x: Tensor, y: Tensor, first: int, watcher: Watcher
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images within the budget, the plain network's logits, and distances."""
        purpose = "view" if view is self.view else "plain"
        generator = stream(self.seed, attack.name, position, purpose, first, device=self.device)
        call = cast(Callable[..., Tensor], _fitted(attack, self.found.batch_size))
        more = {"watcher": watcher} if "watcher" in inspect.signature(call).parameters else {}
        x_adv = self._inside(attack, x, call(view, x, y, generator=generator, **more))
        return x_adv, self.plain(x_adv).detach(), norms(x_adv - x, attack.norm)

    def _disputed(self, x_adv: Tensor, y: Tensor, exact: Tensor) -> Tensor:
        """Samples that are broken for the view but not for the plain network, or that it computes something else for.

        A network may branch on the images or their number, so that a copy that agreed with it on a few differs here.
        """
        logits, standing = self.view(x_adv), is_right(exact, y)
        broken = ~is_right(logits, y)
        differs = differing(logits, exact) & standing & ~broken
        if differs.any() and not repeats(self.plain(x_adv), exact):  # it draws at random
            differs = torch.zeros_like(differs)
        if differs.any():
            self.warn("the fast copy of the network differs from it for some images: attacked again on the network")
        return (broken | differs) & standing

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
