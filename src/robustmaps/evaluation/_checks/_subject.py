"""The network under examination: its logits, its gradients, and the images that withstand an attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from robustmaps.attacks import APGD, FGSM, PGD, Attack, WatchedAttack, check_labels, project
from robustmaps.engine.errors import InputError, NoGradientError
from robustmaps.engine.finite import is_right, largest_difference, largest_finite
from robustmaps.engine.modes import modes_restored
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackView, Objective
from robustmaps.evaluation._checks._finding import SkippedError
from robustmaps.evaluation._checks._modules import state_restored

Surrogate = nn.Module | Callable[[], nn.Module]

# The largest difference by rounding between logits of the same images, relative to the largest logit.
ROUNDING = 1e-4

# Forward passes whose logits are averaged to judge a randomised network.
_PASSES = 8

# The gradient attacks that others are compared with: PGD, then APGD with five targets. On honest networks Square then
# breaks at most 3 of 190 images, against 13 after PGD with two losses and 8 after untargeted APGD with three restarts;
# nine targets or more steps find nothing more (ResNet-8 and a small CNN on digits, l_inf 0.15 and l2 1.0).
STEPS, _TARGETED_STEPS, _TARGETS = 100, 20, 5


@dataclass
class CheckedNetwork:
    """A network in evaluation mode, and images on its device.

    Attributes:
        model: the network.
        attacked: the network, wrapped if it needs gradients to run at all.
        view: a view of ``attacked``.
        modes: every module and whether it was originally in training mode.
        x: images (N, C, H, W).
        y: labels (N,).
        norm, eps: the budget.
        seed: seed of all random draws.
        batch_size: images per batch.
        watcher: receives progress reports.
        surrogate: another network, or a function that returns one.
        check: the running check.
    """

    model: nn.Module
    attacked: nn.Module
    view: AttackView
    modes: Sequence[tuple[nn.Module, bool]]
    x: Tensor
    y: Tensor
    norm: str
    eps: float
    seed: int
    batch_size: int
    watcher: Watcher
    surrogate: Surrogate | None = None
    check: str = field(default="", init=False)

    def logits(self, x: Tensor) -> Tensor:
        """Float32 logits (N, K), without gradients."""
        with torch.no_grad():
            return torch.cat([self.view(part) for part in torch.split(x, self.batch_size)])

    def logits_as_handed_in(self, x: Tensor) -> Tensor:
        """Logits in the network's original modes; its statistics are restored."""
        with modes_restored(self.model), state_restored(self.model):
            for module, training in self.modes:
                module.training = training
            return self.logits(x)

    @cached_property
    def clean(self) -> Tensor:
        """Logits (N, K) of the images.

        Raises:
            InputError: the labels are invalid, or there is only one class.
        """
        if not self.x.is_floating_point() or not bool(self.x.isfinite().all()):
            raise SkippedError("the images are not finite floats")
        logits = self.logits(self.x)
        if logits.shape[1] < 2:
            raise InputError(
                f"the network returned logits of shape {tuple(logits.shape)}; expected at least two classes"
            )
        check_labels(self.y, logits.shape[1])
        return logits

    def know(self, clean: Tensor) -> None:
        """Take these logits (N, K) for those of the images, and the network for deterministic.

        If no image is classified correctly, the checks look at all of them.
        """
        right = is_right(clean, self.y).nonzero().squeeze(1)
        # Where the cached properties keep their values.
        vars(self).update(clean=clean, stochastic=False)
        vars(self).update(correct=right if len(right) else torch.arange(len(self.y), device=self.y.device))

    @cached_property
    def stochastic(self) -> bool:
        """Whether a second pass gives different logits."""
        return distance(self.logits(self.x), self.clean) > ROUNDING

    @cached_property
    def correct(self) -> Tensor:
        """Indices of the correctly classified images, (M,).

        Raises:
            SkippedError: there are none.
        """
        rows = self._stand(self.x, self.y).nonzero().squeeze(1)
        if len(rows) == 0:
            raise SkippedError("no image is classified correctly")
        return rows

    def gradient(self, x: Tensor, objective: Objective) -> Tensor:
        """The gradient (N, C, H, W) of an objective at some images."""
        return self.view.gradient(x, objective)[2]

    @cached_property
    def gradient_error(self) -> str | None:
        """The reason why attacks get no gradient; None if they do."""
        try:
            self.gradient(self.x[:2], lambda logits: logits.sum(1))
        except NoGradientError as error:
            return error.reason[:120]
        except RuntimeError as error:
            return str(error).partition("\n")[0][:120]
        return None

    def require_attackable(self) -> None:
        """Require that gradient attacks can run.

        Raises:
            SkippedError: the images are outside [0, 1], or no gradient reaches them.
        """
        self.require_images()
        if self.gradient_error is not None:
            raise SkippedError("no gradient reaches the images")

    def require_images(self) -> None:
        """Require images in [0, 1].

        Raises:
            SkippedError: the images are outside [0, 1].
        """
        _ = self.clean
        low, high = self.x.aminmax()
        if low < 0 or high > 1:
            raise SkippedError("the images are outside [0, 1], which attacks require")

    def stands(self, attack: Attack, rows: Tensor, on: nn.Module | None = None) -> Tensor:
        """Which of these images are classified correctly after an attack, as booleans in their order.

        Args:
            attack: the attack on ``on``; its images are classified by the network itself.
            rows: indices of images.
            on: another network to attack; None for the network itself.
        """
        standing = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            x, y = self.x[part], self.y[part]
            generator = stream(self.seed, "diagnose", attack.name, start, device=x.device)
            if isinstance(attack, WatchedAttack):
                x_adv = attack(on or self.view, x, y, generator=generator, watcher=self._relay)
            else:
                x_adv = attack(on or self.view, x, y, generator=generator)
            standing[start : start + len(part)] = self._stand(project(x_adv, x, attack.eps, attack.norm), y)
            self.report(start + len(part), len(rows), "images")
        return standing

    def single_step(self) -> Attack:
        """One step of the whole budget's length."""
        return FGSM(norm=self.norm, eps=self.eps)  # type: ignore[arg-type]

    def steps(self, count: int, *, eps: float | None = None, loss: str = "ce", to_the_end: bool = False) -> Attack:
        """PGD with ``count`` steps, which stops at the first error unless ``to_the_end``; in l1, APGD."""
        radius = self.eps if eps is None else eps
        if self.norm == "l1":
            return APGD("l1", radius, count, batch_size=self.batch_size)
        # A single error of a randomised network does not make an adversarial example.
        stop = not (to_the_end or self.stochastic)
        return PGD(self.norm, radius, count, loss=loss, early_stop=stop)  # type: ignore[arg-type]

    @cached_property
    def after_steps(self) -> Tensor:
        """Which of the correct images withstand many steps along cross-entropy's gradient, (M,)."""
        return self.stands(self.steps(STEPS), self.correct)

    @cached_property
    def left(self) -> Tensor:
        """Indices of the images that withstand all gradient attacks; all correct ones if none can run."""
        if self.gradient_error is not None:
            return self.correct
        rows = self.correct[self.after_steps]
        return rows[self.stands(self._strong(), rows)] if len(rows) else rows

    def _strong(self) -> Attack:
        if self.clean.shape[1] >= 4:
            return APGD(self.norm, self.eps, _TARGETED_STEPS, loss="dlr-t", targets=_TARGETS)  # type: ignore[arg-type]
        attack = self.steps(_TARGETED_STEPS, loss="margin")
        return replace(attack, restarts=5)  # type: ignore[type-var]

    def _stand(self, x: Tensor, y: Tensor) -> Tensor:
        passes = _PASSES if self.stochastic else 1
        total = self.logits(x)
        for _ in range(passes - 1):
            total = total + self.logits(x)
        return is_right(total, y)

    def report(self, done: int, total: int, unit: str) -> None:
        """Report the progress of the running check."""
        self.watcher(Progress(self.check, done, total, unit))

    def _relay(self, progress: Progress) -> None:
        self.watcher(replace(progress, phase=self.check))


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of entries, relative to the largest entry of ``b``."""
    return float(largest_difference(a, b) / largest_finite(b).clamp(min=torch.finfo(b.dtype).tiny))
