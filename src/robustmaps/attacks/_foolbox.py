"""Attacks of the foolbox library, called like the built-in ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._base import check_batch, check_labels
from robustmaps.attacks._batching import seeds
from robustmaps.attacks._foolbox_calls import CHECKS, METHODS, Attempt, Method
from robustmaps.attacks._geometry import norms, project
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.attacks._watched import NORMS
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.engine.view import AttackView, plain_view


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
        options: further options of the attack by name, see ``METHODS``; those left out keep foolbox's defaults.

    Raises:
        InputError: the attack is unknown, does not support the norm or an option, or a value is out of range.
    """

    attack: str
    norm: Literal["linf", "l2", "l1"]
    eps: float
    steps: int | None = None
    minimal: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

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
        for name, value in self.options.items():
            if name not in self.method.options:
                raise unknown(f"option of {self.attack}", name, ["steps", *self.method.options])
            CHECKS[name](name, value)
        if {"step_size", "relative_step"} <= self.options.keys():
            raise InputError("step_size and relative_step: expected one of the two")

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
        method, given = self.method, {self.method.options[name]: value for name, value in self.options.items()}
        steps = {} if self.steps is None else {"steps": self.steps}
        attempt = Attempt(
            self.attack,
            method.classes[self.norm],
            {**method.settings, **steps, **given},
            self.eps if method.fixed else None,
            method.started,
            view,
            seed,
        )
        found = attempt.run(x, y).to(x.dtype)
        # C&W and EAD return a black image if they find nothing.
        valid = found.isfinite().flatten(1).all(1) & found.flatten(1).any(1)
        found = torch.where(valid[:, None, None, None], found, x).clamp_(0.0, 1.0)
        far = norms(found - x, self.norm) > self.eps
        if far.any() and not self.minimal:
            found[far] = project(found[far], x[far], self.eps, self.norm)
        broken = ~is_right(view(found), y)
        return torch.where(broken[:, None, None, None], found, x)


def _for_evaluation(attack: str, norm: Any, eps: float, *, steps: int | None = None, **options: Any) -> Foolbox:
    return Foolbox(attack, norm, eps, steps, options=options)


def _passes(attack: Foolbox) -> float | None:
    return None if attack.steps is None else GRADIENT * attack.steps


ROWS = (
    AttackRow(
        name="cw",
        title="C&W",
        summary="Carlini & Wagner, l2, from foolbox (arXiv 1608.04644)",
        kind=Foolbox,
        create=partial(_for_evaluation, "cw"),
        parameters={
            "steps": "maximum number of steps per constant (default: 10,000)",
            "step_size": "step size of Adam (default: 0.01)",
            "search_steps": "number of constants tried (default: 9)",
            "constant": "first constant (default: 0.001)",
            "confidence": "margin by which an image has to be misclassified (default: 0)",
            "abort_early": "end a constant's steps when they no longer help (default: true)",
        },
        passes=_passes,
    ),
    AttackRow(
        name="deepfool",
        title="DeepFool",
        summary="DeepFool, linf and l2, from foolbox (arXiv 1511.04599)",
        kind=Foolbox,
        create=partial(_for_evaluation, "deepfool"),
        parameters={
            "steps": "maximum number of steps (default: 50)",
            "overshoot": "share by which the boundary is overstepped (default: 0.02)",
            "candidates": "number of likeliest classes to aim at (default: 10)",
            "differences": "aim by differences of logits or crossentropy (default: logits)",
        },
        passes=_passes,
    ),
    AttackRow(
        name="ead",
        title="EAD",
        summary="elastic-net attack, l1, from foolbox (arXiv 1709.04114)",
        kind=Foolbox,
        create=partial(_for_evaluation, "ead"),
        parameters={
            "steps": "maximum number of steps per constant (default: 10,000)",
            "step_size": "first step size (default: 0.01)",
            "decision_rule": "keep the shortest image by elastic net, EN, or by l1, L1 (default: L1)",
            "regularization": "weight of the l1 penalty (default: 0.01)",
            "search_steps": "number of constants tried (default: 9)",
            "constant": "first constant (default: 0.001)",
            "confidence": "margin by which an image has to be misclassified (default: 0)",
            "abort_early": "end a constant's steps when they no longer help (default: true)",
        },
        passes=_passes,
    ),
    AttackRow(
        name="slide",
        title="SLIDE",
        summary="sparse l1 descent, from foolbox (arXiv 1904.13000)",
        kind=Foolbox,
        create=partial(_for_evaluation, "slide"),
        parameters={
            "steps": "number of steps (default: 10)",
            "step_size": "length of a step",
            "relative_step": "length of a step, relative to eps (default: 0.2)",
            "quantile": "share of the gradient's entries that a step leaves out (default: 0.99)",
            "random_start": "start at a random point of the ball (default: false)",
        },
        passes=_passes,
    ),
    AttackRow(
        name="brendel-bethge",
        title="Brendel & Bethge",
        summary="walk along the decision boundary, from foolbox (arXiv 1907.01003)",
        kind=Foolbox,
        create=partial(_for_evaluation, "brendel-bethge"),
        parameters={
            "steps": "maximum number of steps (default: 1000)",
            "learning_rate": "size of the trust region (default: 0.001)",
            "learning_rate_decay": "factor of the learning rate at each decay (default: 0.5)",
            "learning_rate_decays": "number of decays (default: 20)",
            "overshoot": "aim at the boundary, 1, or beyond it, above 1 (default: 1.1)",
            "momentum": "momentum of the estimate of the boundary (default: 0.8)",
            "search_steps": "steps of the search for a start on the boundary (default: 10)",
        },
        passes=_passes,
    ),
    AttackRow(
        name="pgd-l1",
        title="PGD-L1",
        summary="projected gradient descent in the l1 ball, from foolbox (arXiv 1706.06083)",
        kind=Foolbox,
        create=partial(_for_evaluation, "pgd-l1"),
        parameters={
            "steps": "number of steps (default: 50)",
            "step_size": "length of a step",
            "relative_step": "length of a step, relative to eps (default: 0.025)",
            "random_start": "start at a random point of the ball (default: true)",
        },
        passes=_passes,
    ),
)
