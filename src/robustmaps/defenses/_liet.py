"""Single-step adversarial training from starts that tell little about the label."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import FGSM, project, steepest, uniform_in_ball
from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least
from robustmaps.engine.ranks.sharing import by_image
from robustmaps.engine.view import AttackView, plain_view

# Above it, the released settings have more noise and less weight, and don't project the step; that of l_2 is ours.
_LARGE_BUDGET = {"linf": 8 / 255, "l2": 0.5}


@dataclass(frozen=True)
class LIET(Minimax[tuple[Tensor, Tensor]]):
    """Label information elimination (Pan et al., ICCV 2025, pages 2991 to 3000).

    A step of ``eps`` from a start that is the sign of the gradient at a grey image with the same label, plus or minus,
    of which a random part is replaced by noise. The loss is the cross-entropy with smoothed labels at the image after
    the step, plus a weight times the Jensen-Shannon divergence between the answers before and after it. The weight
    grows linearly during training. That is to keep the network from reading the label off the perturbation, by which,
    according to the paper, single-step training collapses.

    As in the released code, budgets above 8/255 have starts with more noise and steps that are not projected. Other
    than there, the step is computed in evaluation mode, the grey image's gradient in every step, and labels are
    smoothed evenly, which is the mean of the released random smoothing.

    Attributes:
        attack: the budget; the paper's are l_inf.
        beta: weight of the divergence at the end of training (default: 100; 20 above 8/255).
        smoothing: share of the target spread over the other classes (default: 0.6; 0.4 above 8/255).
        progress: the share of the training that is done, in [0, 1].

    Raises:
        InputError: a value is out of range.
    """

    attack: FGSM = field(default_factory=FGSM)
    beta: float | None = None
    smoothing: float | None = None
    progress: float = field(default=1.0, repr=False)

    name = "liet"
    single_step = True

    def __post_init__(self) -> None:
        for name, usual in (("beta", 20.0 if self._large else 100.0), ("smoothing", 0.4 if self._large else 0.6)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
            check_at_least(name, getattr(self, name), 0)
        if self.smoothing is not None and self.smoothing >= 1:
            raise InputError(f"smoothing={self.smoothing!r}: expected a share in [0, 1), such as 0.6")

    @property
    def _large(self) -> bool:
        return self.attack.eps > _LARGE_BUDGET[self.attack.norm]

    def at(self, progress: float) -> "LIET":
        """The defence after a share of the training."""
        return replace(self, progress=min(progress, 1.0))

    def inner(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Images before and after the step, each in the shape of ``x``."""
        norm, eps = self.attack.norm, self.attack.eps
        with plain_view(model) as view, torch.no_grad():
            x = view.prepared(x)
            labels, position = torch.unique(y, return_inverse=True)
            grey = torch.full_like(x[:1], 0.5).expand(len(labels), *x.shape[1:])
            telling = eps * steepest(self._gradient(view, grey, labels), norm)[position]
            noise = uniform_in_ball(x, 2 * eps if self._large else eps, norm, generator)
            least, most = (0.0, 1.0) if self._large else (0.1, 0.5)
            share, side = torch.rand(2, generator=generator, device=x.device)
            where = by_image(x, lambda whole: torch.empty_like(whole).uniform_(generator=generator), generator)
            replaced = where < least + (most - least) * share
            start = torch.where(replaced, noise, telling) * torch.where(side < 0.5, -1.0, 1.0)
            start = (x + start).clamp(0.0, 1.0)
            after = start + eps * steepest(self._gradient(view, start, y), norm)
            return start, after.clamp(0.0, 1.0) if self._large else project(after, x, eps, norm)

    def outer(
        self,
        model: nn.Module,
        x: Tensor,  # noqa: ARG002
        examples: tuple[Tensor, Tensor],
        y: Tensor,
        targets: Tensor | None = None,
    ) -> Loss:
        """Smoothed cross-entropy after the step, plus the divergence of the answers from those before it."""
        before, after = (network_logits(model, images) for images in examples)
        targets = self._targets(y, after.shape[1]).to(after) if targets is None else targets
        value = cross_entropy(after, y, targets) + self.progress * (self.beta or 0.0) * _divergence(before, after)
        return Loss(value, robust_correct=count_correct(after, y))

    def _targets(self, y: Tensor, classes: int) -> Tensor:
        """Probabilities (N, K) of smoothed labels."""
        smoothing = self.smoothing or 0.0
        return F.one_hot(y, classes) * (1 - smoothing - smoothing / (classes - 1)) + smoothing / (classes - 1)

    def _gradient(self, view: AttackView, x: Tensor, y: Tensor) -> Tensor:
        def objective(logits: Tensor) -> Tensor:
            return -(self._targets(y, logits.shape[1]) * _unmasked(logits).log_softmax(1)).sum(1)

        return view.gradient(x, objective)[2]


def _divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of the predictions, a scalar."""
    log_p, log_q = (_unmasked(each.float()).log_softmax(1) for each in (logits, other))
    p, q = log_p.exp(), log_q.exp()
    middle = ((p + q) / 2).clamp_min(torch.finfo(p.dtype).tiny).log()
    return ((p * (log_p - middle) + q * (log_q - middle)).sum(1) / 2).mean()


def _unmasked(logits: Tensor) -> Tensor:
    """The logits with a finite value for classes that the network masks, so that gradients are finite."""
    return logits.masked_fill(logits == -float("inf"), torch.finfo(logits.dtype).min / 4)


ROW = DefenseRow(
    name="liet",
    title="LIET",
    summary="one step from a start without information on the label (Pan et al., ICCV 2025)",
    kind=LIET,
    attack=FGSM,
    parameters={"beta": "weight of the divergence at the end of training (default: 100; 20 above 8/255)"},
    fixed_steps=1,
)
