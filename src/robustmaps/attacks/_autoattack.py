"""AutoAttack: attacks in a fixed order, each on the samples that withstood the ones before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from robustmaps.attacks._a3 import A3
from robustmaps.attacks._apgd import APGD
from robustmaps.attacks._batching import fork, seeds
from robustmaps.attacks._fab import FAB
from robustmaps.attacks._patience import PATIENCE, check_patience, patience
from robustmaps.attacks._registry import AttackRow, passes
from robustmaps.attacks._square import Square
from robustmaps.attacks._watched import Batch, WatchedAttack
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import check_at_least

Make = Callable[["AutoAttack"], WatchedAttack]


def _apgd(
    attack: "AutoAttack",
    loss: Literal["ce", "dlr", "dlr-t"],
    *,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    eot: int = 1,
) -> WatchedAttack:
    return APGD(
        attack.norm,
        attack.eps,
        steps,
        restarts,
        loss,
        targets,
        eot=eot,
        batch_size=attack.batch_size,
        # Averages over few passes of a randomised network are too noisy to predict a run's outcome.
        patience=attack.patience if eot == 1 else None,
    )


def _fab(attack: "AutoAttack", *, targeted: bool, restarts: int = 1) -> WatchedAttack:
    return FAB(
        attack.norm,
        attack.eps,
        restarts=restarts,
        targeted=targeted,
        batch_size=attack.batch_size,
        patience=attack.patience,
    )


def _a3(attack: "AutoAttack") -> WatchedAttack:
    return A3(attack.norm, attack.eps, batch_size=attack.batch_size, discard=attack.patience is not None)


def _square(attack: "AutoAttack") -> WatchedAttack:
    return Square(attack.norm, attack.eps, patience=attack.patience)


# The published parameters (arXiv 2003.01690, for l1 arXiv 2103.01208): 100 steps, 5000 queries, at most 9 targets.
PARTS: dict[str, Make] = {
    "apgd-ce": partial(_apgd, loss="ce"),
    "apgd-dlr": partial(_apgd, loss="dlr"),
    "apgd-t": partial(_apgd, loss="dlr-t"),
    "fab": partial(_fab, targeted=False),
    "fab-t": partial(_fab, targeted=True),
    "square": _square,
}

_STANDARD: tuple[Make, ...] = tuple(PARTS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square"))

VERSIONS: dict[str, tuple[Make, ...]] = {
    "standard": _STANDARD,
    "plus": (
        partial(_apgd, loss="ce", restarts=5),
        partial(_apgd, loss="dlr", restarts=5),
        partial(_fab, targeted=False, restarts=5),
        _square,
        PARTS["apgd-t"],
        PARTS["fab-t"],
    ),
    # For randomised networks: gradients averaged over 20 passes.
    "rand": (partial(_apgd, loss="ce", eot=20), partial(_apgd, loss="dlr", eot=20)),
    "a3": (_a3,),
}

# For l1 the published standard version has more restarts and fewer targets (arXiv 2103.01208, section 4).
_STANDARD_L1: tuple[Make, ...] = (
    partial(_apgd, loss="ce", restarts=5),
    partial(_apgd, loss="dlr-t", targets=5),
    PARTS["fab-t"],
    _square,
)


@dataclass(frozen=True)
class AutoAttack(WatchedAttack):
    """AutoAttack (Croce & Hein, arXiv 2003.01690): attacks in order, each on the samples that withstood the others.

    >>> [stage.name for stage in AutoAttack(eps=8 / 255).stages]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius, in units of images in [0, 1].
        version: ``standard``; ``plus``, which takes several times as long; ``rand``, for randomised networks;
            ``a3``, about an eighth of the passes for everyday use, see `A3`; or names of attacks:
            ``("apgd-ce", "square")``.
        batch_size: parallel runs over samples, targets and restarts; None: 64 on a CPU, 512 on a GPU.
        patience: stop runs early that cannot succeed, see `APGD`; None makes every step of the published attack.

    Raises:
        InputError: a value is out of range or a name unknown.
    """

    version: str | Sequence[str] = "standard"
    batch_size: int | None = None
    patience: float | None = PATIENCE

    name = "autoattack"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None:
            check_at_least("batch_size", self.batch_size, 1)
        check_patience(self.patience)
        if isinstance(self.version, str):
            if self.version == "rapid":
                raise InputError("version='rapid': a3 has taken its place; it breaks more images")
            if self.version not in VERSIONS:
                raise unknown("version", self.version, VERSIONS)
            return
        object.__setattr__(self, "version", tuple(self.version))
        if not self.version:
            raise InputError(f"version=(): expected one of {', '.join(VERSIONS)}, or names of attacks")
        for name in self.version:
            if name not in PARTS:
                raise unknown("attack", name, PARTS)

    @property
    def stages(self) -> tuple[WatchedAttack, ...]:
        """The attacks in order; when called, they lower their number of targets to fit the network's classes."""
        if not isinstance(self.version, str):
            makers = tuple(PARTS[name] for name in self.version)
        elif self.version == "standard" and self.norm == "l1":
            makers = _STANDARD_L1
        else:
            makers = VERSIONS[self.version]
        return tuple(make(self) for make in makers)

    @property
    def caveat(self) -> str | None:
        """A caution to print beside every figure of this version: that of its attacks, if any."""
        return next((text for stage in self.stages if (text := getattr(stage, "caveat", None))), None)

    def _attacked(self, batch: Batch) -> Tensor:
        view, x, y = batch.view, batch.x, batch.y
        result, standing = x.clone(), batch.standing.nonzero().squeeze(1)
        stages = self.stages
        for stage, seed in zip(stages, seeds(len(stages), batch.generator), strict=True):
            if len(standing) == 0:
                break
            x_adv = stage(view, x[standing], y[standing], generator=fork(seed, x.device), watcher=batch.watcher)
            broken = ~is_right(view(x_adv), y[standing])
            result[standing[broken]] = x_adv[broken]
            standing = standing[~broken]
        return result


def _for_evaluation(*, exhaustive: bool = False, **settings: Any) -> AutoAttack:
    return AutoAttack(**settings, patience=patience(exhaustive))


def _passes(attack: AutoAttack) -> float | None:
    each = [passes(stage) for stage in attack.stages]
    known = [one for one in each if one is not None]
    return sum(known) if len(known) == len(each) else None


ROW = AttackRow(
    name="autoattack",
    title="AutoAttack",
    summary="four attacks in a fixed order, the usual yardstick (arXiv 2003.01690)",
    kind=AutoAttack,
    create=_for_evaluation,
    parameters={
        "version": "standard, plus, rand (for randomised networks) or a3, which takes about an eighth of the passes",
        "exhaustive": "make every step, even in runs that cannot succeed",
    },
    passes=_passes,
)
