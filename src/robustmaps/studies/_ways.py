"""The ways of spending a budget of training, each at the same cost."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from robustmaps.config import AttackConfig, EvaluationConfig, RunConfig, Study, last_epochs, make_study, to_mapping
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least, check_whole, counted, parse_number
from robustmaps.engine.reading.plain import read_json
from robustmaps.networks import ResolvedRun, Resolver
from robustmaps.studies._candidates import Candidate, enlarged, enlarged_late, mean_cost, reshaped, smoothed, within
from robustmaps.studies._costs import (
    RunEstimate,
    batch_to_time,
    estimate_run,
    forward_flops,
    measure_all,
    time_passes,
    training_passes,
)
from robustmaps.studies._plan import SweepPlan, plan_sweep

_SCREENED = 1 / 3  # of the budget, for every way; the most promising ones get all of it
_TOLERANCE = 1.05  # how far whole epochs may exceed what training longer costs
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_OF_FLOP = {"flop": 1.0, "gflop": 1e9, "tflop": 1e12, "pflop": 1e15}


@dataclass(frozen=True)
class TrainingBudget:
    """What the training of one network may cost.

    Attributes:
        amount: how much.
        unit: ``x``: times the given training; ``flop``: operations; ``s``: seconds on this machine.
    """

    amount: float
    unit: Literal["x", "flop", "s"]

    @classmethod
    def of(cls, text: str) -> "TrainingBudget":
        """Read a budget.

        >>> TrainingBudget.of("2h")
        TrainingBudget(amount=7200.0, unit='s')
        >>> TrainingBudget.of("1e15flop").unit, TrainingBudget.of("4x").unit
        ('flop', 'x')

        Raises:
            InputError: it is neither a multiple, nor operations, nor a time.
        """
        low = text.strip().lower()
        scales = {**{name: (scale, "flop") for name, scale in _OF_FLOP.items()}, "x": (1.0, "x")}
        scales |= {name: (scale, "s") for name, scale in _SECONDS.items()}
        for name in sorted(scales, key=len, reverse=True):
            if low.endswith(name):
                scale, unit = scales[name]
                with suppress(InputError):
                    amount = parse_number(low.removesuffix(name).strip(), "budget") * scale
                    check_at_least("budget", amount, 0, exclusive=True)
                    return cls(amount, unit)  # type: ignore[arg-type]
                break
        raise InputError(
            f"budget={text!r}: expected a number above 0 with its unit: a multiple of the given training such as 4x, "
            "operations such as 1e15flop, or a time such as 2h or 30min"
        )


@dataclass(frozen=True)
class Way:
    """One way of spending the budget.

    Attributes:
        name: what is done.
        config: the configuration to train, with its epochs.
        relative: the cost of an epoch, relative to one of the given network.
        spent: the cost of its training, as a multiple of the given training.
        each: the relative cost of an epoch of each network that it trains, where there are several.
        operations: its training operations, as a multiple of those of the given training, where the cost is a time.
    """

    name: str
    config: RunConfig
    relative: float
    spent: float
    each: tuple[float, ...] = ()
    operations: float | None = None

    @property
    def flops(self) -> float:
        """Its training operations, as a multiple of those of the given training."""
        return self.spent if self.operations is None else self.operations

    def spent_by(self, epoch: int) -> float:
        """The cost of the training up to an epoch, from 1, as a multiple of the given training."""
        count = self.config.training.epochs
        if not self.each:
            return self.spent * epoch / count
        ends = [*last_epochs(self.config.model.enlarge_at, count), count]
        spans = zip(self.each, [0, *ends], ends, strict=False)
        done = sum(cost * max(0, min(last, epoch) - first) for cost, first, last in spans)
        return self.spent * done / (self.relative * count)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        epochs = self.config.training.epochs
        known = {} if self.operations is None else {"operations": self.operations}
        return {"name": self.name, "epochs": epochs, "relative_cost": self.relative, "spent": self.spent, **known}


MEASURED = "measured.json"


@dataclass(frozen=True)
class Measurements:
    """What decides the epochs of all ways. Times are other ones at each measurement, so that the first is kept.

    Attributes:
        times: the budget, as a multiple of the given training.
        relative: the cost of an epoch relative to the given network, by the hash of the configuration.
        budget: the budget as it was asked for.
        given: the hash of the given configuration.
    """

    times: float
    relative: Mapping[str, float]
    budget: TrainingBudget
    given: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "relative": dict(self.relative), "budget": vars(self.budget)}


@dataclass(frozen=True)
class AdvicePlan:
    """What `advise` is going to do.

    Attributes:
        ways: the given training, training it for longer, and the others; all but the first spend the budget.
        measured: the budget and the cost of each network, relative to the given one.
        training_flops: operations of the given training.
        screening: the study that finds the most promising ways, on validation images.
        out: the folder.
        seeds: of each way that is confirmed.
        finalists: how many ways are confirmed beside training longer.
        samples: how many test images judge; all where None.
        validation: the number of validation images.
    """

    ways: tuple[Way, ...]
    measured: Measurements
    training_flops: float
    screening: SweepPlan
    out: Path
    seeds: int
    finalists: int
    samples: int | None
    validation: int

    @property
    def times(self) -> float:
        """The budget, as a multiple of the given training."""
        return self.measured.times

    @property
    def others(self) -> tuple[Way, ...]:
        """The ways beside training for longer."""
        return self.ways[2:]

    @property
    def total(self) -> float:
        """Training for the whole advice, as a multiple of the given one; at most, since finalists are not known."""
        return self._total(lambda way: way.spent)

    @property
    def total_flops(self) -> float:
        """Its operations, at most."""
        return self._total(lambda way: way.flops) * self.training_flops

    @property
    def by_time(self) -> bool:
        """Whether the budget is a time."""
        return self.measured.budget.unit == "s"

    def _total(self, of: Callable[[Way], float]) -> float:
        screened = sum(of(shortened(way)) for way in self.ways[1:])
        dearest = sorted(map(of, self.others), reverse=True)[: self.finalists]
        return screened + self.seeds * (of(self.ways[0]) + of(self.ways[1]) + sum(dearest))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "budget": {"times": self.times, "training_flops": self.times * self.training_flops},
            "ways": [way.to_dict() for way in self.ways],
            "total": self.total,
            "screening": self.screening.to_dict(),
        }


def plan_advice(
    base: RunConfig,
    data: Dataset,
    out: str | Path,
    *,
    budget: TrainingBudget,
    upsamples: Sequence[float] = (1.0, 2.0),
    networks: Sequence[str] = (),
    seeds: int = 5,
    finalists: int = 2,
    samples: int | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    timed: bool = True,
    resolver: Resolver | None = None,
) -> AdvicePlan:
    """Plan how to find what to spend a budget on; trains nothing and writes nothing.

    Each way gets as many epochs as the budget pays for, in whole epochs that exceed what training longer costs by
    at most 5 %: enlarging a network four times leaves it a quarter of the epochs that training longer gets.

    Args:
        base: the training to improve on, with its epochs.
        data: its images; validation images are needed.
        out: the folder for the runs, ``advice.json`` and ``advice.png``.
        budget: what the training of one network may cost.
        upsamples: factors of upsampling to try, with every enlargement by strides, and each late and step by step in
            training; averages and blurs in place of all strides, and other widths of ours, are tried too.
        networks: other networks to try, by name, such as a deeper one.
        seeds: of each way that is confirmed.
        finalists: how many ways are confirmed beside training longer.
        samples: how many test images judge; all where None.
        jobs: as for `plan_sweep`, like the next two.
        threads: the same.
        timed: the same.
        resolver: the resolver that completed the configuration.

    Raises:
        InputError: a value is out of range, the budget does not pay for one more epoch, or nothing could be enlarged.
    """
    check_whole("seeds", seeds, 3)  # Student's interval of two says nothing
    check_whole("finalists", finalists, 1)
    if base.model.enlarge_at is not None:
        raise InputError(
            f"enlarge_at={base.model.enlarge_at}: late enlargement is among the ways that are tried; leave it out"
        )
    if len(data.validation) == 0:
        raise InputError(f"{data.name}: advise chooses by validation images; set validation above 0")
    resolver, folder = resolver or Resolver(), Path(out)
    run = resolver.resolve(base)
    given = run.config
    estimate = estimate_run(run, data, (), forward_flops(run, data), training_passes(run, data))
    before = _measured_before(folder, budget, given)
    times = before.times if before is not None else _times(budget, estimate, run, data)
    longer = int(times * given.training.epochs + 1e-9)
    if longer <= given.training.epochs:
        raise InputError(
            f"budget: {times:.3g} x the training of {counted(given.training.epochs, 'epoch')} does not pay for one "
            "epoch more; give a larger one, or fewer epochs"
        )
    if networks and given.model.begins_with_weights:
        raise InputError(f"networks={','.join(networks)}: would begin without weights, where the given one has some")
    named = (replace(given, model=replace(given.model, model=one, strides=None, enlarge=None)) for one in networks)
    others = [resolver.resolve(one).config for one in named]
    if given in others:
        raise InputError(f"networks={','.join(networks)}: has the given network, which is tried anyway; leave it out")
    late = _long_enough(enlarged_late(run, upsamples), longer)
    larger = [*enlarged(run, data, times, "flops", upsamples), *smoothed(run, data, times), *late]
    configs = [given, *larger, *reshaped(run, upsamples), *others]
    costs = {one.config.hash: one for one in within(configs, data, budget=None, resolver=resolver)}
    relative = {name: one.relative for name, one in costs.items()}
    if budget.unit == "s":
        relative = _relative_times(costs, {} if before is None else before.relative, data, resolver)
    measured = Measurements(times, relative, budget, given.hash)
    found = [_as_measured(one, relative[name]) for name, one in costs.items()]
    for one in found:
        if one.relative > times and one.config.model.model in networks:
            raise InputError(
                f"networks={one.config.model.model}: an epoch costs {one.relative:.3g} x one of the given network, "
                f"beyond the budget of {times:.3g} x; leave it out, or give a larger budget"
            )
    counted_by = costs if budget.unit == "s" else None
    ways = _ways(sorted((one for one in found if one.relative <= times), key=_order(given)), longer, counted_by)
    if len(ways) < 3:
        raise InputError(f"budget: {times:.3g} x the given training pays for nothing but training longer")
    judged = EvaluationConfig(AttackConfig("a3"), split="validation")
    screening = study_of([shortened(way) for way in ways[1:]], 1, judged, "screening", resolver)
    plan = plan_sweep(screening, folder / "screening", jobs=jobs, threads=threads, timed=timed, resolver=resolver)
    return AdvicePlan(
        tuple(ways), measured, estimate.training_flops, plan, folder, seeds, finalists, samples, len(data.validation)
    )


def _measured_before(out: Path, budget: TrainingBudget, given: RunConfig) -> Measurements | None:
    """The measurements of an earlier call with this time as its budget; None if there was none."""
    if budget.unit != "s" or not (out / MEASURED).exists():
        return None
    found = read_json(out / MEASURED, "delete it; times are measured again")
    if (found.get("budget"), found.get("given")) != (vars(budget), given.hash):
        return None
    try:
        relative = {str(name): float(value) for name, value in found["relative"].items()}
        return Measurements(float(found["times"]), relative, budget, given.hash)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{out / MEASURED}: not what advise writes; delete it, and times are measured again") from None


def _relative_times(
    candidates: Mapping[str, Candidate], known: Mapping[str, float], data: Dataset, resolver: Resolver
) -> dict[str, float]:
    """The time of an epoch of each candidate, relative to the first one: as known, or by timed passes of batches."""
    found = dict(known)
    missing = {name: one for name, one in candidates.items() if name not in known}
    if not missing:
        return found
    first = resolver.resolve(next(iter(candidates.values())).config)
    images = batch_to_time(first, data)
    (whole,) = time_passes(first, data, images)
    for name, one in missing.items():
        run = resolver.resolve(one.config)
        each = [seconds / whole for seconds in time_passes(run, data, images)] if run != first else [1.0]
        found[name] = mean_cost(one.config, each)
    return found


def _times(budget: TrainingBudget, estimate: RunEstimate, run: ResolvedRun, data: Dataset) -> float:
    """The budget as a multiple of the given training."""
    if budget.unit == "x":
        return budget.amount
    if budget.unit == "flop":
        return budget.amount / estimate.training_flops
    timed = measure_all({run.config: estimate}, {run.config: run}, lambda _: data, threads=torch.get_num_threads())
    seconds = timed[run.config].seconds
    if not seconds:
        raise InputError("budget: the time of training could not be measured here; give a multiple such as 4x")
    return budget.amount / seconds


def _long_enough(configs: Sequence[RunConfig], longer: int) -> list[RunConfig]:
    """Those whose epochs can be shared, with as many epochs as training longer has, by which costs are averaged."""
    found = []
    for config in configs:
        with suppress(InputError):
            last_epochs(config.model.enlarge_at, longer)
            found.append(replace(config, training=replace(config.training, epochs=longer)))
    return found


def _as_measured(one: Candidate, relative: float) -> Candidate:
    """A candidate with the cost that was measured first."""
    return replace(one, relative=relative, each=tuple(cost * relative / one.relative for cost in one.each))


def _order(given: RunConfig) -> Callable[[Candidate], tuple[bool, float, str]]:
    """The given network first, then the cheapest."""
    return lambda one: (one.config != given, one.relative, one.config.hash)


def _ways(candidates: Sequence[Candidate], longer: int, operations: Mapping[str, Candidate] | None) -> list[Way]:
    """The given training, the same for ``longer`` epochs, and each other candidate for as long as these cost.

    Args:
        candidates: the given network first.
        longer: the epochs that the budget pays for.
        operations: the candidates with their operations by hash, where the cost is another one.
    """
    given, *others = candidates
    epochs = given.config.training.epochs

    def way(name: str, candidate: Candidate, count: int) -> Way:
        config = replace(candidate.config, training=replace(candidate.config.training, epochs=count))
        title = f"{name}, {counted(count, 'epoch')}"
        relative = candidate.relative_over(count)
        flops = None if operations is None else operations[candidate.config.hash].relative_over(count) * count / epochs
        return Way(title, config, relative, relative * count / epochs, candidate.each, flops)

    ways = [way("as given", given, epochs), way("longer", given, longer)]
    for one in others:
        count = round(longer / one.relative)
        with suppress(InputError):  # too few epochs, or a third of them, to enlarge during training
            while count and one.relative_over(count) * count > _TOLERANCE * longer:
                count -= 1
            if count:
                one.relative_over(_third(count))
                ways.append(way(one.title, one, count))
    return ways


def shortened(way: Way) -> Way:
    """The way with a third of its epochs, and the same schedule over them."""
    epochs = way.config.training.epochs
    count = _third(epochs)
    config = replace(way.config, training=replace(way.config.training, epochs=count))
    operations = None if way.operations is None else way.operations * count / epochs
    return replace(way, config=config, spent=way.spent * count / epochs, operations=operations)


def _third(epochs: int) -> int:
    return max(1, round(_SCREENED * epochs))


def study_of(ways: Sequence[Way], seeds: int, evaluation: EvaluationConfig, name: str, resolver: Resolver) -> Study:
    """The study that trains these ways; its file can be swept and reported like any other."""
    flat, usual, plain = [to_mapping(way.config) for way in ways], to_mapping(RunConfig()), EvaluationConfig().to_dict()
    differ = [key for key in flat[0] if len({repr(values[key]) for values in flat}) > 1]
    first = ways[0].config.training.seed
    # A recipe would decide what is left out, and images must be named for a network that is not ours.
    from_recipe = flat[0]["recipe"] is not None or flat[0]["protocol"] is not None
    written = [key for key in flat[0] if key == "data" or from_recipe or flat[0][key] != usual[key]]
    values = {
        "axes": {
            "way": [{key: values[key] for key in differ} for values in flat],
            "seed": list(range(first, first + seeds)),
        },
        "fixed": {key: flat[0][key] for key in written if key not in (*differ, "seed")},
        "evaluation": {key: value for key, value in evaluation.to_dict().items() if value != plain[key]},
    }
    return make_study(values, Path(name), make=resolver.complete)
