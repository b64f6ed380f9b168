"""Estimates of the cost of runs: operations from shapes, hours from a few timed steps."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from robustmaps import attacks
from robustmaps.config import EvaluationConfig, RunConfig, last_epochs
from robustmaps.data import Dataset
from robustmaps.defenses import Defense, ReplayingDefense, at, validation_attack
from robustmaps.engine.calling import network_logits
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.modes import evaluating
from robustmaps.engine.numbers import counted
from robustmaps.engine.view import plain_view
from robustmaps.models import count_flops
from robustmaps.networks import ResolvedRun, create_earlier, create_network, image_cost
from robustmaps.runs import create_attacks, create_defense
from robustmaps.studies._processes import LocalExecutor, Worker
from robustmaps.training import choose_forms, fit

_QUARTERS = (0.125, 0.375, 0.625, 0.875)
_TIMED_STEPS = 3
_TIMED_S = 3.0
_TIMED_PASSES = 5
_TIMED_FLOPS = 5e9


@dataclass(frozen=True)
class RunEstimate:
    """The estimated cost of a run.

    Attributes:
        image_flops: operations of a forward pass of one image.
        training_flops: operations of training, including validation.
        evaluation_flops: operations of all evaluations if every image withstood every attack; None if the number of
            passes is not known.
        seconds_per_flop: measured time per operation; None if not measured.
        start_s: measured time before a run's second step that operations do not explain.
        measured: how the time was measured, in words.
    """

    image_flops: int
    training_flops: float
    evaluation_flops: float | None
    seconds_per_flop: float | None = None
    measured: str = "not measured"
    start_s: float = 0.0

    @property
    def flops(self) -> float:
        """Operations of the whole run, with evaluations as far as known."""
        return self.training_flops + (self.evaluation_flops or 0.0)

    @property
    def seconds(self) -> float | None:
        """Time of the run in its own worker; None if not measured."""
        return None if self.seconds_per_flop is None else self.start_s + self.flops * self.seconds_per_flop


def estimate_run(
    run: ResolvedRun, data: Dataset, evaluations: Sequence[EvaluationConfig], forward: Sequence[int], passes: float
) -> RunEstimate:
    """Estimate the operations of a run.

    Args:
        run: the run.
        data: its images.
        evaluations: its evaluations.
        forward: operations of a forward pass of one image, by each network that is trained; see `forward_flops`.
        passes: cost of training on one image, in forward passes; see `training_passes`.

    Raises:
        InputError: an attack does not exist.
    """
    config, options = run.config, run.config.training
    validated, training, ends = _validation_passes(run), 0.0, [*last_epochs(config.model.enlarge_at, options.epochs)]
    for flops, first, last in zip(forward, [0, *ends], [*ends, options.epochs], strict=True):
        validations = last // options.validate_every - first // options.validate_every
        validations += last == options.epochs and last % options.validate_every > 0
        training += flops * (last - first) * len(data.train) * passes
        training += flops * validations * len(data.validation) * validated
    known: float | None = 0.0
    for evaluation in evaluations:
        images = len(getattr(data, evaluation.split))
        each = _evaluation_passes(config, evaluation)
        known = None if each is None or known is None else known + each * min(evaluation.samples or images, images)
    return RunEstimate(forward[-1], training, None if known is None else forward[-1] * known)


def forward_flops(run: ResolvedRun, data: Dataset) -> tuple[int, ...]:
    """Operations of a forward pass of one image, by each network that is trained; the last one is kept.

    Raises:
        InputError: the network can't be created, or can't take the images.
    """
    networks = [*(one.model for one in create_earlier(run, data)), create_network(run, data).model]
    return tuple(image_cost(network, data).flops for network in networks)


def training_passes(run: ResolvedRun, data: Dataset, progress: Sequence[float] = _QUARTERS) -> float:
    """The cost of training on one image in forward passes, including the attack, counted in real steps.

    Args:
        run: the run; the result depends mostly on the defence, hardly on the network.
        data: its images.
        progress: points of training, in [0, 1], to average over, since some defences change.

    Raises:
        InputError: the network or the defence can't be created.
    """
    model = create_network(run, data).model.train()
    defense = create_defense(run.config.defense, run.helper)
    x = data.train.subset(min(2, len(data.train))).tensors()[0].contiguous()  # see `trains_in_channels_last`
    with torch.no_grad(), plain_view(model) as plain:
        y = plain(x).argmax(1)  # a wrong label would end some attacks at once
    counted = {phase: _step_flops(model, phase, x, y) for phase in {at(defense, share) for share in progress}}
    total = sum(counted[at(defense, share)] for share in progress)
    return total / (len(progress) * len(x) * image_cost(model, data).flops)


def _step_flops(model: torch.nn.Module, defense: Defense, x: torch.Tensor, y: torch.Tensor) -> int:
    def step(images: torch.Tensor) -> None:
        F.cross_entropy(network_logits(model, images), y).backward()  # type: ignore[no-untyped-call]

    with count_flops() as counter:
        if isinstance(defense, ReplayingDefense):
            defense.replay(x, None, step)
        else:
            defense.loss(model, x, y).value.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return counter.total


def _validation_passes(run: ResolvedRun) -> float:
    attack = validation_attack(create_defense(run.config.defense, run.helper).attack)
    return 1 + (0.0 if attack is None else attacks.passes(attack) or 0.0)


def _evaluation_passes(config: RunConfig, evaluation: EvaluationConfig) -> float | None:
    total = 1.0
    for eps in evaluation.attack.eps or (config.defense.eps,):
        for attack in create_attacks(evaluation.attack, config.defense.norm, eps):
            each = attacks.passes(attack)
            if each is None:
                return None
            total += each
    return total


def time_steps(run: ResolvedRun, data: Dataset, threads: int) -> tuple[float, float] | None:
    """Seconds per training operation, from a few timed steps after a warm-up, and until that; nothing is kept.

    Args:
        run: the run.
        data: images for a few steps.
        threads: threads of a worker.

    Returns:
        None if a step fails; the run itself will report why.
    """
    config, moments, began = run.config, list[float](), time.perf_counter()

    def enough() -> bool:
        moments.append(time.perf_counter())
        return len(moments) > _TIMED_STEPS or moments[-1] - moments[0] > _TIMED_S

    few = data.train.subset(min(len(data.train), config.training.batch_size * (_TIMED_STEPS + 1)))
    none = replace(data.validation, images=data.validation.images[:0], labels=data.validation.labels[:0])
    # The learning rate does not affect the time, but the steps would end if it were too large.
    options = replace(config.training, epochs=_TIMED_STEPS + 1, schedule="constant", lr=1e-9)
    options = replace(options, tensorboard=False, log=None)
    model, defense = create_network(run, data).model, create_defense(config.defense, run.helper)
    with _threads(threads), suppress(Interrupted, RuntimeError, MemoryError):
        model.to(device := resolve_device(options.device))
        x = few.subset(min(len(few), config.training.batch_size)).tensors()[0].to(device)
        forms = choose_forms(model, data, defense, config.training, validation_attack(defense.attack), x)
        fit(
            model,
            replace(data, train=few, validation=none),
            defense,
            options,
            should_stop=enough,
            forms=forms,
        )
    if len(moments) < 2:
        return None
    step_s = (moments[-1] - moments[0]) / (len(moments) - 1)
    images = min(config.training.batch_size, len(few))
    per_flop = step_s / (images * training_passes(run, data, (0.0,)) * image_cost(model, data).flops)
    return per_flop, max(0.0, moments[0] - began - step_s)


def batch_to_time(run: ResolvedRun, data: Dataset) -> int:
    """The images of a pass to time: a batch, or fewer if their operations suffice to be timed."""
    batch = min(run.config.training.batch_size, len(data.train))
    return max(1, min(batch, int(_TIMED_FLOPS / max(1, forward_flops(run, data)[-1]))))


def time_passes(run: ResolvedRun, data: Dataset, images: int) -> tuple[float, ...]:
    """Seconds of a forward pass on the CPU, the best of a few, by each network that is trained."""
    x = data.train.subset(images).tensors()[0].contiguous()
    networks = [*(one.model for one in create_earlier(run, data)), create_network(run, data).model]
    return tuple(_pass_s(network, x) for network in networks)


def _pass_s(network: torch.nn.Module, x: torch.Tensor) -> float:
    def seconds() -> float:
        began = time.perf_counter()
        network_logits(network, x)
        return time.perf_counter() - began

    with torch.no_grad(), evaluating(network):
        seconds()
        return min(seconds() for _ in range(_TIMED_PASSES))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_all(
    estimates: Mapping[RunConfig, RunEstimate],
    runs: Mapping[RunConfig, ResolvedRun],
    data: Callable[[RunConfig], Dataset],
    *,
    threads: int,
    budget_s: float = 20.0,
) -> dict[RunConfig, RunEstimate]:
    """Add times to estimates by timing one run of each kind of network and defence, within a time limit.

    Kinds that were not timed get the speed of the others, per operation.
    """
    began = time.monotonic()
    speeds: dict[object, tuple[float, float]] = {}
    for config in sorted(estimates, key=lambda c: estimates[c].image_flops):
        if _kind(config) not in speeds and time.monotonic() - began < budget_s:
            speed = time_steps(runs[config], data(config), threads)
            if speed is not None:
                speeds[_kind(config)] = speed
    known = list(speeds.values()) or [(0.0, 0.0)]
    mean = tuple(sum(each) / len(known) for each in zip(*known, strict=True))
    timed = f"{_TIMED_STEPS} timed steps with {counted(threads, 'thread')}"
    return {
        config: replace(
            estimate,
            seconds_per_flop=speeds.get(_kind(config), mean)[0] or None,
            start_s=speeds.get(_kind(config), mean)[1],
            measured=timed if _kind(config) in speeds else "the speed of similar runs",
        )
        for config, estimate in estimates.items()
    }


@dataclass(frozen=True)
class _Nothing:
    """A task that only imports what a run needs."""

    def __call__(self, worker: Worker) -> None:
        """Do nothing."""


def time_process_start() -> float:
    """Seconds until a worker process can begin with its first run."""
    began = time.perf_counter()
    LocalExecutor(1, 1).run([_Nothing()], watcher=lambda *_: None, finished=lambda *_: None, should_stop=lambda: False)
    return time.perf_counter() - began


def _kind(config: RunConfig) -> object:
    training = config.training
    return config.model, config.defense.defense, config.data, training.batch_size, training.precision, training.device
