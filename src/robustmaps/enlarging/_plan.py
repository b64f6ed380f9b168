"""Plans: all enlargements within a budget, and those that no other one beats."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any, get_args

from torch import Tensor, nn

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.measured import Measured
from robustmaps.engine.modes import check_changeable
from robustmaps.engine.numbers import by, check_at_least, human, stride_text
from robustmaps.engine.tables import table
from robustmaps.enlarging._activation import check_activation
from robustmaps.enlarging._advice import against_head
from robustmaps.enlarging._attempts import Attempts, View, check_images, check_smooth
from robustmaps.enlarging._enlargement import NOTHING_FOLLOWS, Step
from robustmaps.enlarging._surgery import Upsampling
from robustmaps.models import ACTIVATIONS, Activation, Cost, Measure, Smooth

MEASURES: tuple[Measure, ...] = get_args(Measure)
_LATENCY_RUNS = 5
ENOUGH = 1.0
"""The share of the image's side that the last map must see: below it no gain was found, and far below a loss
(robustmaps explain comparison)."""


@dataclass(frozen=True)
class Option:
    """One enlargement, the original network, or that with another activation alone.

    Attributes:
        upsample: factor by which images are enlarged, by nearest neighbours.
        where: the steps whose strides are halved.
        cost: the cost for one image.
        relative: the budgeted cost, relative to the original network.
        effective_stride: distance in image pixels between the fields of neighbours in the last map.
        field_share: the share of the image's side that a pixel of the last map sees, on the worse axis; at least 1 if
            it sees the whole image, None if unknown.
        gain: the gain of a perturbation; None if not measured.
        interval: its 95 % interval; None if not known.
        best: whether the last map sees the whole image, or this is the original network, and no other such option is at
            least as good in cost and gain, as far as both are printed, and better in one of them; in cost and map size
            where no gain was measured.
        spread: whether dilation changes it; not so where no window follows its steps.
        training: ``relative`` averaged over the epochs of a training that enlarges late; None where it does not.
        activation: what takes the place of ReLU; None where it stays.
    """

    upsample: float
    where: tuple[int, ...]
    cost: Cost
    relative: float
    effective_stride: tuple[float, float] | None
    field_share: float | None = None
    gain: float | None = None
    interval: tuple[float, float] | None = None
    best: bool = False
    spread: bool = True
    training: float | None = None
    activation: Activation | None = None

    @property
    def spent(self) -> float:
        """The cost that the budget limits: that of training where it enlarges late, else of the network."""
        return self.relative if self.training is None else self.training

    @property
    def sees_enough(self) -> bool:
        """Whether the last map sees the whole image."""
        return self.field_share is None or self.field_share >= ENOUGH

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {
            "upsample": self.upsample,
            "where": list(self.where),
            "cost": self.cost.to_dict(),
            "relative": self.relative,
            "effective_stride": None if self.effective_stride is None else list(self.effective_stride),
            "field_share": None if self.field_share is None or math.isinf(self.field_share) else self.field_share,
            "sees_enough": self.sees_enough,
            "gain": self.gain,
            "interval": None if self.interval is None else list(self.interval),
            "best": self.best,
            **({} if self.training is None else {"training": self.training}),
            **({} if self.activation is None else {"activation": self.activation}),
        }


@dataclass(frozen=True)
class Plan:
    """The enlargements of a network within a budget.

    Attributes:
        measure: the cost that the budget limits.
        budget: the largest cost, relative to the original network.
        dilate: whether later windows are dilated.
        smooth: how changed steps keep the size of their maps; None if these grow.
        shares: the shares of the epochs after which training enlarges; none from the beginning.
        steps: the downsampling steps of the network.
        options: the original network and its enlargements, cheapest first.
        warnings: reasons against any enlargement, in words.
        activation: what takes the place of ReLU in every option but the original network; None if it stays.
    """

    measure: Measure
    budget: float
    dilate: bool
    steps: tuple[Step, ...]
    options: tuple[Option, ...]
    warnings: tuple[str, ...] = ()
    smooth: Smooth | None = None
    shares: tuple[float, ...] = ()
    activation: Activation | None = None

    @property
    def front(self) -> tuple[Option, ...]:
        """The options that no other beats."""
        return tuple(option for option in self.options if option.best)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "measure": self.measure,
            "budget": self.budget,
            "dilate": self.dilate,
            "smooth": self.smooth,
            **({} if self.activation is None else {"activation": self.activation}),
            **({"enlarge_at": list(self.shares)} if self.shares else {}),
            "steps": [str(step) for step in self.steps],
            "options": [option.to_dict() for option in self.options],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        gains = "gain [95 %]" if any(o.interval for o in self.options) else "gain"
        late = ["training"] * bool(self.shares)
        changed = ["activation"] * (self.activation is not None)
        costs = (self.measure, *late, "map", "effective stride", "sees", "operations")
        columns = ("", "upsample", "where", *changed, *costs, gains)
        rows = []
        for o in self.options:
            where = ",".join(map(str, o.where)) or "-"
            gain = "-" if o.gain is None else str(Measured(o.gain, *(o.interval or (-math.inf, math.inf))))
            size, stride = by(o.cost.map_size), stride_text(o.effective_stride)
            operations = human(o.cost.flops, "FLOP")
            sees = _percent(o.field_share) + ("" if o.sees_enough else " !")
            trained = [] if o.training is None else [f"{o.training:.2f}x"]
            replaced = [ACTIVATIONS[o.activation] if o.activation else "ReLU"] * len(changed)
            way = ("*" if o.best else "", f"{o.upsample:g}", where, *replaced)
            rows.append((*way, f"{o.relative:.2f}x", *trained, size, stride, sees, operations, gain))
        steps = "\n".join(f"  step {step}" for step in self.steps)
        spent_for = "as small a gain" if any(o.gain is not None for o in self.options) else "as large a map"
        legend = f"* no other one within {self.budget:g}x {self.measure} has {spent_for} at the same or a lower cost"
        legend += "\n  (the given network, and those whose last map sees the whole image)"
        if self.shares:
            after = " and ".join(f"{100 * share:.3g}" for share in self.shares)
            legend += f"\ntraining: averaged over its epochs, enlarged after {after} % of them; the budget limits this"
        if not all(o.sees_enough for o in self.options):
            legend += "\n! the last map does not see the whole image: enlarge only while it does"
            legend += "" if self.dilate else ", or dilate"
        same = [",".join(map(str, o.where)) for o in self.options if self.dilate and o.where and not o.spread]
        if same:
            legend += f"\nwhere {' and '.join(dict.fromkeys(same))}: dilate {NOTHING_FOLLOWS}"
        notes = "".join(f"\nWarning: {warning}" for warning in self.warnings)
        return f"{table(columns, rows)}\n\n{legend}\n{steps}{notes}"


def plan(
    model: nn.Module,
    example: Tensor,
    *,
    budget: float = 2.0,
    measure: Measure = "flops",
    upsamples: Sequence[float] = (1, 2),
    dilate: bool = False,
    smooth: Smooth | None = None,
    activation: Activation | None = None,
    shares: Sequence[float] = (),
    gain: Callable[[nn.Module], float | Measured] | None = None,
) -> Plan:
    """All ways to halve strides and upsample within a budget.

    Options with an effective stride below 1 are omitted: they cost more without any benefit.

    Args:
        model: any image classifier; it is not changed.
        example: images (N, C, H, W); only the first is used.
        budget: the largest cost, relative to the original network.
        measure: ``flops``, ``memory`` (activations) or ``latency``.
        upsamples: factors to try.
        dilate: whether later windows are dilated.
        smooth: whether steps keep the size of their maps, and how, see `enlarge`.
        activation: what takes the place of ReLU, see `enlarge`; the network with it and nothing else is an option then.
        shares: the shares of the epochs, ascending in (0, 1), after which training enlarges: the budget then limits the
            mean cost over all epochs; with several, upsampling grows step by step, and strides are not changed.
        gain: measures the gain of a perturbation on a network, with its interval where that is known; the smaller the
            better. Called for each option.

    Raises:
        InputError: the budget is below 1, the measure unknown, or the network can't take the example; it has no ReLU
            for ``activation`` to replace; memory is to be averaged over epochs, or ReLU replaced in several steps.
    """
    check_images(example)
    check_at_least("budget", budget, 1)
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    check_smooth(smooth, dilate=dilate)
    check_activation(activation)
    check_changeable(model)
    if shares and measure == "memory":
        raise InputError("measure='memory': does not add up over epochs; expected flops or latency beside enlarge_at")
    if activation is not None and len(shares) > 1:
        raise InputError(f"activation={activation!r}: changes at once; give enlarge_at one share, such as 0.8")
    study = Attempts(model, example[:1], 2, smooth, activation)
    cost = _cost(study, model, measure)
    own = Option(1, (), cost, 1.0, study.view.stride, _share(study, study.view), *_gained(gain, model))
    own = replace(own, training=1.0 if shares else None)
    options = [own]
    for upsample in dict.fromkeys(upsamples):
        options += _within(study, own, upsample, budget, measure, gain, shares, dilate=dilate)
    options.sort(key=lambda option: option.spent)
    seeing = [option for option in options if option is own or option.sees_enough]
    marked = tuple(replace(o, best=o in seeing and not any(_beats(other, o) for other in seeing)) for o in options)
    doubts = tuple(against_head(type(model).__name__, study.view.kind))
    return Plan(measure, budget, dilate, tuple(study.steps), marked, doubts, smooth, tuple(shares), activation)


def _within(
    study: Attempts,
    own: Option,
    upsample: float,
    budget: float,
    measure: Measure,
    gain: Callable[[nn.Module], float | Measured] | None,
    shares: Sequence[float],
    *,
    dilate: bool,
) -> Iterator[Option]:
    """The options with one upsampling factor; a set of steps is tried only if all its subsets fit the budget."""
    free = [step.index for step in study.steps if step.obstacle is None] if len(shares) < 2 else []
    upsampling = None if upsample == 1 else Upsampling(upsample, "nearest")
    over: list[set[int]] = []
    for where in (chosen for count in range(len(free) + 1) for chosen in combinations(free, count)):
        grows = bool(where) or upsampling is not None
        if not (grows or study.activation) or any(beyond <= set(where) for beyond in over):
            continue
        changes = study.changes(where, 2, dilate=dilate, upsampled=upsampling is not None)
        rehearsal = study.rehearse(changes, upsampling)
        if isinstance(rehearsal, str) or (grows and _below_floor(rehearsal.view)):
            over.append(set(where))
            continue
        enlarged, view = study.perform(rehearsal), rehearsal.view
        cost = replace(_cost(study, enlarged, measure), map_size=view.map_size)
        relative = cost.of(measure) / own.cost.of(measure)
        training = _over_epochs(study, own, upsample, relative, measure, shares) if shares else None
        if (relative if training is None else training) > budget:
            over.append(set(where))
            continue
        reached = _gained(gain, enlarged)
        spread = study.spreads(where, 2) if dilate and where else True
        seen = _share(study, view)
        option = Option(upsample, where, cost, relative, view.stride, seen, *reached, spread=spread, training=training)
        yield replace(option, activation=study.activation)


def _over_epochs(
    study: Attempts, own: Option, upsample: float, relative: float, measure: Measure, shares: Sequence[float]
) -> float:
    """The relative cost averaged over the epochs: at first of the network itself, then of ever larger images."""
    between = []
    for number in range(1, len(shares)):
        upsampling = Upsampling(1 + number / len(shares) * (upsample - 1), "nearest")
        rehearsal = study.rehearse(study.changes((), 2, dilate=False, upsampled=True), upsampling)
        if isinstance(rehearsal, str):
            return math.inf
        between.append(_cost(study, study.perform(rehearsal), measure).of(measure) / own.cost.of(measure))
    starts = [0.0, *shares, 1.0]
    return sum(cost * (b - a) for cost, (a, b) in zip([1.0, *between, relative], pairwise(starts), strict=True))


def _gained(
    gain: Callable[[nn.Module], float | Measured] | None, model: nn.Module
) -> tuple[float | None, tuple[float, float] | None]:
    """The gain and its interval."""
    found = None if gain is None else gain(model)
    return (found.value, found.interval if found.is_bounded else None) if isinstance(found, Measured) else (found, None)


def _cost(study: Attempts, model: nn.Module, measure: Measure) -> Cost:
    cost = study.cost(model, latency_runs=_LATENCY_RUNS if measure == "latency" else 0)
    return replace(cost, map_size=study.view.map_size) if model is study.model else cost


def _share(study: Attempts, view: View) -> float | None:
    if view.field_px is None:
        return None
    return min(field / side for field, side in zip(view.field_px, study.image.shape[2:], strict=True))


def _percent(share: float | None) -> str:
    return "-" if share is None else "all" if math.isinf(share) else f"{100 * share:.0f} %"


def _below_floor(view: View) -> bool:
    return view.stride is not None and max(view.stride) < 1


def _beats(a: Option, b: Option) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better."""
    ours, theirs = _merits(a), _merits(b)
    return ours != theirs and all(x <= y for x, y in zip(ours, theirs, strict=True))


def _merits(option: Option) -> tuple[float, float]:
    """Cost, and what it is spent for, as they are printed: the smaller the better, and no number the worst."""
    height, width = option.cost.map_size or (0, 0)
    cost = float(f"{option.spent:.2f}")
    if option.gain is None:
        return cost, -height * width
    return cost, math.inf if math.isnan(option.gain) else float(f"{option.gain:.3g}")
