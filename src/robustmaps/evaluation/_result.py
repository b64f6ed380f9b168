"""The result of an evaluation: a verdict per sample, and the rates that follow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import write_json
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, check_at_least, check_eps, check_whole
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.text import visible
from robustmaps.engine.views.passes import Passes
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation._agreement import Computed
from robustmaps.evaluation._comparison import Comparison, compare_all
from robustmaps.evaluation._rates import over_seeds

WRONG = "wrong"
ROBUST = "robust"
NORMS = ("linf", "l2", "l1")
_FORMAT = 1
_MEND = "restore it from a copy, or delete it and evaluate again"
# Of a share that was written as a decimal number.
_ROUNDING = 1e-9
# Of sums of float32 in another order.
_REORDERED = 1e-5


class EvaluationWarning(UserWarning):
    """A reason to doubt an evaluation's figures."""


@dataclass(frozen=True)
class _Rate:
    """A rate as written beside the verdicts."""

    value: float


@dataclass(frozen=True)
class Misclassified:
    """Attacks on misclassified samples, with the predicted class as label.

    Attributes:
        verdicts: per misclassified sample, in their order: ``robust`` (the prediction stayed), the name of the attack
            that changed it, or ``wrong`` (there is none, such as of NaN).
        stages: samples attacked and changed by each attack, and its time in seconds.
        seconds: wall time.
    """

    verdicts: tuple[str, ...]
    stages: tuple[Mapping[str, Any], ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdicts": list(self.verdicts),
            "stages": [dict(stage) for stage in self.stages],
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Evaluation:
    """Verdicts per sample, with the settings that led to them.

    Attributes:
        verdicts: per sample ``wrong`` (misclassified clean), ``robust``, or the name of the attack that broke it.
        distances: per sample the norm of the perturbation that broke it, if any.
        norm: the norm of the budget.
        eps: the radius of the budget, in units of images in [0, 1].
        attacks: the settings of each attack, in order.
        images_sha256: hash of images and labels; only evaluations on the same images are compared.
        seed: seed of all random draws.
        seconds: wall time.
        stages: samples attacked and broken by each attack, its time in seconds, and its passes through the network.
        warnings: reasons to doubt the figures, in words.
        checkpoint_sha256: hash of the evaluated weights' file; None for a network in memory.
        split: the split of the images, ``test``, ``validation`` or ``train``; None if unknown.
        saved: counts of the adversarial images that were saved; see `check_saved`. None if none were.
        environment: device, versions, threads and settings; ``sessions`` lists those of each, if it was resumed with
            others.
        undecided: images whose logits have no prediction, such as NaN; they count as misclassified.
        computes: what the network computes on a few fixed images, which with its weights is its identity; None if not
            recorded.
        data: name, fingerprint and image size of the data set; empty if not recorded.
        perturbations: per sample l_inf, l_2 and l_1 norm of the perturbation that broke it, if any; empty if not
            recorded.
        misclassified: whether the predictions of misclassified samples stay under attack; None if not measured.
        weights: which of a run's weights, if not the best; see `training.RUN_WEIGHTS`.
    """

    verdicts: tuple[str, ...]
    distances: tuple[float | None, ...]
    norm: str
    eps: float
    attacks: tuple[Mapping[str, Any], ...]
    images_sha256: str
    seed: int
    seconds: float
    stages: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    checkpoint_sha256: str | None = None
    split: str | None = None
    saved: Mapping[str, int] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    undecided: int = 0
    computes: Computed | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    perturbations: tuple[tuple[float, float, float] | None, ...] = ()
    misclassified: Misclassified | None = None
    weights: str | None = None

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(str(attack.get("name", "?")) for attack in self.attacks))
        budget = f"{names}, {self.norm} {as_fraction(self.eps)}, {len(self.verdicts):,} images"
        return f"Evaluation({budget}: clean {self.clean_accuracy}, robust {self.robust_accuracy})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [("clean", self.clean_accuracy), (f"under {self.norm} {as_fraction(self.eps)}", self.robust_accuracy)]
        lines = "".join(f"<tr><th>{escape(name)}</th><td>{figure}</td></tr>" for name, figure in rows)
        return f"<table><caption>{escape(visible(repr(self)))}</caption>{lines}</table>"

    @property
    def clean_correct(self) -> NDArray[np.bool_]:
        """Which samples are classified correctly without an attack, shape (N,)."""
        return np.array([verdict != WRONG for verdict in self.verdicts])

    @property
    def robust_correct(self) -> NDArray[np.bool_]:
        """Which samples withstood every attack, shape (N,)."""
        return np.array([verdict == ROBUST for verdict in self.verdicts])

    @property
    def clean_accuracy(self) -> Measured:
        """The share of samples classified correctly."""
        return Measured.share(int(self.clean_correct.sum()), len(self.verdicts))

    @property
    def robust_accuracy(self) -> Measured:
        """The share of samples that withstood every attack."""
        return Measured.share(int(self.robust_correct.sum()), len(self.verdicts))

    @property
    def consistent_correct(self) -> NDArray[np.bool_] | None:
        """Which samples' predictions withstood every attack, right or wrong, shape (N,); None if not measured."""
        if self.misclassified is None:
            return None
        kept = self.robust_correct
        kept[~self.clean_correct] = [verdict == ROBUST for verdict in self.misclassified.verdicts]
        return kept

    @property
    def consistent_accuracy(self) -> Measured | None:
        """The share of samples whose prediction withstood every attack, whatever the label; None if not measured.

        The consistent accuracy of IEEE TNNLS 36(3):4690-4702 (2025), doi 10.1109/TNNLS.2024.3360463.
        """
        kept = self.consistent_correct
        return None if kept is None else Measured.share(int(kept.sum()), len(kept))

    @property
    def attacked(self) -> int:
        """The number of samples that the first attack was tried on."""
        return int(self.stages[0]["attacked"]) if self.stages else 0

    @property
    def passes(self) -> Passes | None:
        """Passes through the network of all attacks and of the verdicts on their images; None if not recorded.

        Clean accuracy, one forward pass of each image, and the checks before the attacks are not among them.
        """
        return Passes.of_all(self.stages)

    @cached_property
    def mean_distances(self) -> dict[str, Measured]:
        """Mean l_inf, l_2 and l_1 distance of the images that broke their samples, with Student's 95 % interval.

        A single image has no interval. Empty if distances were not recorded, or no sample was broken.
        """
        found = [each for each in self.perturbations if each is not None]
        if not found:
            return {}
        each = (over_seeds(distances) for distances in zip(*found, strict=True))
        return {
            norm: replace(mean, low=max(0.0, mean.low)) if mean.is_bounded else mean
            for norm, mean in zip(NORMS, each, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        consistent, found = self.consistent_accuracy, self.perturbations
        means = {norm: mean.to_dict() for norm, mean in self.mean_distances.items()}
        passes = self.passes
        return {
            "format": _FORMAT,
            "clean_accuracy": self.clean_accuracy.to_dict(),
            "robust_accuracy": self.robust_accuracy.to_dict(),
            **({} if consistent is None else {"consistent_accuracy": consistent.to_dict()}),
            **({"mean_distances": means} if found else {}),
            "norm": self.norm,
            "eps": self.eps,
            "attacks": [dict(attack) for attack in self.attacks],
            "stages": [dict(stage) for stage in self.stages],
            "samples": len(self.verdicts),
            "undecided": self.undecided,
            "split": self.split,
            "seed": self.seed,
            "seconds": self.seconds,
            **({} if passes is None else passes.to_dict(self.attacked)),
            "warnings": list(self.warnings),
            **({} if self.saved is None else {"saved": dict(self.saved)}),
            "checkpoint_sha256": self.checkpoint_sha256,
            **({} if self.weights is None else {"weights": self.weights}),
            "images_sha256": self.images_sha256,
            "environment": dict(self.environment),
            "computes": list(self.computes) if isinstance(self.computes, tuple) else self.computes,
            "data": dict(self.data),
            "verdicts": list(self.verdicts),
            "distances": list(self.distances),
            **({"perturbations": [each and list(each) for each in found]} if found else {}),
            **({} if self.misclassified is None else {"misclassified": self.misclassified.to_dict()}),
        }

    def save(self, path: str | Path) -> None:
        """Write the evaluation as JSON, atomically; an earlier evaluation is replaced.

        Raises:
            InputError: another file is in the way.
        """
        claim(path, ours=json_with("format", "verdicts", "attacks"))
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read a file written by `save`.

        Raises:
            InputError: the file is missing or not an evaluation, or was damaged or edited.
        """
        try:
            return cls.from_dict(read_json(path, _MEND))
        except Damaged:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not an evaluation written by robustmaps ({error}); {_MEND}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Evaluation":
        """Restore the result of `to_dict`.

        Raises:
            InputError: a field is missing or invalid, or the fields contradict each other.
        """
        try:
            found = declared(cls, values)
            _check_values(found)
            _check_sense(found, values)
        except InputError as error:
            raise InputError(f"not an evaluation: {error}") from error
        return found


def _check_values(found: Evaluation) -> None:
    """Check what the types of the fields do not say.

    Raises:
        InputError: a value is out of its range, or an attack has no name.
    """
    if found.attacks:  # without any there is no budget
        if found.norm not in NORMS:
            raise unknown("norm", found.norm, NORMS)
        check_eps(found.eps, found.norm)
    check_at_least("seconds", found.seconds, 0)
    check_whole("undecided", found.undecided, 0)
    for stage in (*found.stages, *(found.misclassified.stages if found.misclassified else ())):
        if (counted := Passes.of(stage)) is not None:
            for name, count in asdict(counted).items():
                check_whole(f"stages.passes.{name}", count, 0)
    for attack in found.attacks:
        if not isinstance(attack.get("name"), str):
            raise InputError(f"attacks: name={attack.get('name')!r}: expected text")
        for name, value in (("norm", found.norm), ("eps", found.eps)):
            if attack.get(name, value) != value:
                raise InputError(f"{name}={value} contradicts {attack['name']}'s {name}={attack[name]}")


def _check_sense(found: Evaluation, values: Mapping[str, Any]) -> None:
    """Compare the verdicts with the distances and rates written beside them.

    Raises:
        InputError: they contradict each other.
    """
    samples = len(found.verdicts)
    if not samples or len(found.distances) != samples or values.get("samples", samples) != samples:
        raise InputError(
            f"samples={values.get('samples')} contradicts {samples} verdicts and {len(found.distances)} distances"
        )
    measured_distances = any(distance is not None for distance in found.distances)
    for row, (verdict, distance) in enumerate(zip(found.verdicts, found.distances, strict=True)):
        if measured_distances and (verdict in (WRONG, ROBUST)) != (distance is None):
            raise InputError(f"sample {row}: the verdict {verdict!r} contradicts the distance {distance}")
    wrong = found.verdicts.count(WRONG)
    if found.misclassified is not None and len(found.misclassified.verdicts) != wrong:
        raise InputError(
            f"misclassified: {len(found.misclassified.verdicts)} verdicts contradict {wrong} wrong samples"
        )
    for name in ("clean_accuracy", "robust_accuracy", "consistent_accuracy"):
        measured: Measured | None = getattr(found, name)
        if measured is None:
            continue
        written = declared(_Rate, values[name], f"{name}.").value if name in values else measured.value
        if abs(written - measured.value) > _ROUNDING:
            raise InputError(
                f"{name}={written:g} contradicts the verdicts: {measured.successes} of {samples} make "
                f"{measured.value:g}"
            )
    _check_perturbations(found)


def _check_perturbations(found: Evaluation) -> None:
    if found.perturbations and [each is None for each in found.perturbations] != [
        verdict in (WRONG, ROBUST) for verdict in found.verdicts
    ]:
        raise InputError("perturbations contradict the verdicts")
    for row, (sizes, distance) in enumerate(zip(found.perturbations, found.distances, strict=False)):
        if sizes is None or distance is None or found.norm not in NORMS:
            continue
        if abs(sizes[NORMS.index(found.norm)] - distance) > _REORDERED * max(1.0, distance):
            raise InputError(f"sample {row}: the {found.norm} distance {distance} contradicts the perturbation {sizes}")


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """The difference in robust accuracy of B over A, paired by image.

    Raises:
        InputError: the images or the budgets differ.
    """
    if a.images_sha256 != b.images_sha256:
        raise InputError("the evaluations were made on different images; evaluate both on the same samples")
    if (a.norm, a.eps) != (b.norm, b.eps):
        raise InputError(f"the budgets differ: {a.norm} {a.eps:g} and {b.norm} {b.eps:g}; evaluate both with the same")
    return compare_all({"A": a.robust_correct, "B": b.robust_correct})[0]
