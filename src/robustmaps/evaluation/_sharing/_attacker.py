"""One attack on one batch: the fast view attacks, and the plain network decides."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from robustmaps.attacks import Attack, norms, project
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import is_right, undecided
from robustmaps.engine.progress import Watcher
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.passes import Passes
from robustmaps.engine.views.shadow import differing, repeats
from robustmaps.evaluation._eight_bit import TOLERANCE, towards_clean
from robustmaps.evaluation._result import NORMS
from robustmaps.evaluation._sharing._batches import Attacked, Batch


@dataclass
class Attacker:
    """Attacks batches in this process.

    Attributes:
        view: the fast view, for the attacks.
        plain: the network itself, for the verdicts.
        device: the network's device.
        seed: seed of all random draws.
        eight_bit: round adversarial images to 8 bits, towards the clean image.
        images: whether adversarial images are wanted.
        every: whether those that broke nothing are wanted too.
    """

    view: AttackView
    plain: AttackView
    device: torch.device
    seed: int
    eight_bit: bool
    images: bool
    every: bool
    _warnings: list[str] = field(default_factory=list)

    def attack(self, batch: Batch, watcher: Watcher) -> Attacked:
        """Attack a batch; the watcher receives the attack's own reports."""
        self._warnings = []
        x, y = batch.x.to(self.device), batch.y.to(self.device)
        passes, mended = self._counted()
        x_adv, logits, distance = self._attempt(batch, self.view, x, y, watcher)
        if self.view is not self.plain and (disputed := self._disputed(x_adv, y, logits)).any():
            again = disputed.nonzero().squeeze(1)
            x_adv[again], logits[again], distance[again] = self._attempt(batch, self.plain, x[again], y[again], watcher)
        broken, odd = ~is_right(logits, y), undecided(logits)
        # Read at once: each value by itself would make a GPU wait.
        fallen, distances, nameless = broken.tolist(), distance.tolist(), odd.tolist()
        each = torch.stack([norms(x_adv - x, norm) for norm in NORMS], 1).tolist()
        sizes = [(linf, l2, l1) for linf, l2, l1 in each]
        kept = [index for index, fell in enumerate(fallen) if self.images and (fell or self.every)]
        images = {index: x_adv[index].cpu() for index in kept}
        passes, mended = self._counted()[0] - passes, self._counted()[1] - mended
        warnings = tuple(dict.fromkeys(self._warnings))
        return Attacked(
            batch.position, batch.rows, fallen, distances, nameless, sizes, images, passes, mended, warnings
        )

    def _attempt(
        self, batch: Batch, view: AttackView, x: Tensor, y: Tensor, watcher: Watcher
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images within the budget, the plain network's logits, and distances."""
        attack, purpose = batch.attack, "view" if view is self.view else "plain"
        generator = stream(self.seed, attack.name, batch.position, purpose, batch.rows[0], device=self.device)
        call = cast(Callable[..., Tensor], _fitted(attack, batch.size))
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
            self._warnings.append(
                "the fast copy of the network differs from it for some images: attacked again on the network"
            )
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
            self._warnings.append(
                f"attack {attack.name!r} exceeded its budget by {max(excess, outside):.3g}; its images were cut back"
            )
        inside = project(x_adv.detach().to(x.dtype), x, attack.eps, attack.norm)
        return towards_clean(inside, x) if self.eight_bit else inside

    def _counted(self) -> tuple[Passes, int]:
        """The passes so far, and how many images' gradients were not finite."""
        views = {self.view, self.plain}
        return sum((view.passes for view in views), Passes()), sum(view.mended for view in views)


def _fitted(attack: Any, batch_size: int) -> Any:
    """The attack with the evaluation's batch size, unless it sets its own."""
    if is_dataclass(attack) and not isinstance(attack, type) and getattr(attack, "batch_size", 0) is None:
        return replace(attack, batch_size=batch_size)
    return attack
