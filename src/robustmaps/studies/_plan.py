"""The plan of a sweep: the runs of a study, which of them are missing, and their cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from robustmaps import models
from robustmaps.config import DataConfig, DefenseConfig, EvaluationConfig, ModelConfig, Point, RunConfig, Split, Study
from robustmaps.data import Dataset, NotHere
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import sha256
from robustmaps.engine.numbers import counted, in_words
from robustmaps.engine.trust import allow_code
from robustmaps.evaluation import ALONE, Evaluation, Identity, attack_settings, images_sha256
from robustmaps.networks import (
    ResolvedRun,
    Resolver,
    choose_images,
    enlargement_text,
    load_data,
    name_runs,
    open_checkpoint,
)
from robustmaps.runs import RunRecord, create_attacks, read_run, same_values
from robustmaps.studies._candidates import same_enlargements
from robustmaps.studies._costs import (
    RunEstimate,
    estimate_run,
    forward_flops,
    measure_all,
    time_process_start,
    training_passes,
)
from robustmaps.studies._processes import LocalExecutor, available_cores
from robustmaps.training import RunFolder, other_weights

_MOST_JOBS = 8

Images = Callable[[DataConfig, Split, int | None], str]
"""From data, split and samples to the hash of the images."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, and its state.

    Attributes:
        point: its configuration and its values on the study's axes.
        title: the name of its configuration, with its seed if there are several.
        folder: its folder.
        done: whether its training and all its evaluations are finished.
        robust: its robust accuracy in the study's first evaluation, if done.
        estimate: its estimated cost.
    """

    point: Point
    title: str
    folder: Path
    done: bool
    robust: float | None
    estimate: RunEstimate


@dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep.

    Attributes:
        study: the study.
        out: the folder of the runs.
        runs: all runs, in the order of the study.
        jobs: number of parallel runs.
        threads: threads of each run.
        notes: remarks for the user.
        start_s: time until the processes of the runs have started; 0 if not measured.
    """

    study: Study
    out: Path
    runs: tuple[PlannedRun, ...]
    jobs: int
    threads: int
    notes: tuple[str, ...]
    start_s: float = 0.0

    @property
    def missing(self) -> tuple[PlannedRun, ...]:
        """The missing runs, the longest first, so that no core idles at the end while one long run finishes."""
        return tuple(sorted((run for run in self.runs if not run.done), key=lambda run: -run.estimate.flops))

    @property
    def flops(self) -> float:
        """Operations of the missing runs."""
        return sum(run.estimate.flops for run in self.missing)

    @property
    def seconds(self) -> float | None:
        """Estimated time for the missing runs; None if not measured."""
        left = remaining_s([run.estimate.seconds for run in self.missing], self.jobs)
        return None if left is None else left + self.start_s

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            "study": self.study.name,
            "out": str(self.out),
            "jobs": self.jobs,
            "threads": self.threads,
            "flops": self.flops,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "runs": [
                {
                    "folder": str(run.folder),
                    "values": dict(run.point.values),
                    "done": run.done,
                    "flops": run.estimate.flops,
                    "seconds": run.estimate.seconds,
                    "measured": run.estimate.measured,
                }
                for run in self.runs
            ],
        }


def remaining_s(seconds: Sequence[float | None], jobs: int) -> float | None:
    """The time for runs with ``jobs`` in parallel; None if the time of a run is not known."""
    known = [each for each in seconds if each is not None]
    if len(known) < len(seconds):
        return None
    return max(sum(known) / max(min(jobs, len(known)), 1), max(known, default=0.0))


def plan_sweep(
    study: Study,
    out: str | Path,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    resolver: Resolver | None = None,
    dry: bool = False,
    timed: bool = True,
) -> SweepPlan:
    """Find the missing runs of a study and estimate their cost; writes nothing.

    Args:
        study: the study.
        out: the folder of the runs.
        jobs: number of parallel runs; by default one per core, at most eight, and a single one on a GPU.
        threads: threads of each run; by default the cores are shared evenly, within ``OMP_NUM_THREADS``.
        resolver: the resolver that completed the study, so that no weights are opened twice.
        dry: nothing will be run: nothing is downloaded, and runs whose images are not known here are not counted.
        timed: estimate times by a few steps on this machine; not of use if the runs are made on others.

    Raises:
        InputError: a configuration can't be run because of its network, strides, data or attack.
    """
    folder = Path(out)
    loaded = cache(lambda config: load_data(config, download=not dry))
    images = cache(lambda *key: _images(loaded(key[0]), *key[1:]))
    uncounted: dict[RunConfig, str] = {}
    flops: dict[tuple[ModelConfig, DataConfig], tuple[int, ...]] = {}
    passes: dict[DefenseConfig, float] = {}
    found: dict[RunConfig, PlannedRun] = {}
    resolver, resolved = resolver or Resolver(), dict[RunConfig, ResolvedRun]()
    for point in study.points:
        try:
            point.config.training.check()
            run = resolver.resolve(point.config)
            config, resolved[run.config] = run.config, run
            data, kind = loaded(config.data), (config.model, config.data)
            flops[kind] = flops[kind] if kind in flops else forward_flops(run, data)
            if config.defense not in passes:
                passes[config.defense] = training_passes(run, data)
            estimate = estimate_run(run, data, study.evaluations, flops[kind], passes[config.defense])
        except NotHere as error:
            uncounted[run.config] = str(error)
            estimate = RunEstimate(0, 0.0, None)
        except InputError as error:
            values = ", ".join(f"{key}: {in_words(value)}" for key, value in point.values.items())
            raise InputError(f"{study.name}: {values}: {error}; fix or exclude it") from error
        if config in found:
            continue
        path = folder / config.name
        with allow_code(config.model.model):  # it was trusted when the study was read
            robust = _finished(path, study.evaluations, images)
        planned = replace(point, config=config)
        found[config] = PlannedRun(planned, config.name, path, robust is not None, robust, estimate)
    titles = name_runs(list(found))
    found = {config: replace(one, title=title) for (config, one), title in zip(found.items(), titles, strict=True)}
    notes = list(study.notes)
    if len(found) < len(study.points):
        notes.append(f"{counted(len(study.points) - len(found), 'combination')} left out: the same run as another")
    notes += _notes_on_networks([resolved[config] for config in found if config not in uncounted], flops, loaded)
    missing = [config for config, one in found.items() if not one.done]
    notes += _notes_on_images(missing, uncounted, loaded)
    jobs = jobs or usual_jobs(missing)
    executor = LocalExecutor(jobs, threads)
    measured = measure_all(
        {config: found[config].estimate for config in missing if timed and config not in uncounted},
        resolved,
        lambda config: loaded(config.data),
        threads=executor.threads_each,
    )
    runs = tuple(replace(one, estimate=measured.get(config, one.estimate)) for config, one in found.items())
    return SweepPlan(
        replace(study, points=tuple(one.point for one in runs)),
        folder,
        runs,
        jobs,
        executor.threads_each,
        tuple(notes),
        time_process_start() if dry and measured else 0.0,
    )


def _notes_on_networks(
    runs: Sequence[ResolvedRun],
    flops: Mapping[tuple[ModelConfig, DataConfig], tuple[int, ...]],
    loaded: Callable[[DataConfig], Dataset],
) -> Iterator[str]:
    """Which enlargements are one network, so that their runs differ by chance alone."""
    kinds = {(run.config.model, run.config.data): run for run in reversed(runs)}
    for data in dict.fromkeys(data for _, data in kinds):
        of_data = [run for (_, its), run in kinds.items() if its == data][::-1]
        # The first of each kind stands for all, whatever else differs between them.
        first = [replace(run, config=replace(of_data[0].config, model=run.config.model)) for run in of_data]
        counts = {run.config: flops[run.config.model, data][-1] for run in first}
        for config, others in same_enlargements(first, counts, loaded(data)).items():
            names = " and ".join(enlargement_text(each.model) for each in (config, *others))
            yield f"{config.model.model}: {names} give the same network; one of them is enough"


def _notes_on_images(
    missing: Sequence[RunConfig], uncounted: Mapping[RunConfig, str], loaded: Callable[[DataConfig], Dataset]
) -> Iterator[str]:
    """How runs are counted whose images are not here; none where all are."""
    for text in dict.fromkeys(uncounted.values()):
        runs = counted(sum(uncounted.get(config) == text for config in missing), "run")
        yield f"{text}; {runs} not counted"
    counts = [loaded(config.data) for config in missing if config not in uncounted]
    for name in dict.fromkeys(data.name for data in counts if not data.fingerprint):
        yield f"{name} is not downloaded yet; its runs are counted by the known number and size of its images"


def usual_jobs(missing: Sequence[RunConfig]) -> int:
    """How many runs are made at once: one per core, at most eight, and a single one on a GPU."""
    if any(resolve_device(config.training.device).type != "cpu" for config in missing):
        return 1
    return max(1, min(available_cores(), len(missing), _MOST_JOBS))


def _images(data: Dataset, split: Split, samples: int | None) -> str:
    """The hash of the images; empty for those that take the place of images that are not here."""
    return data.fingerprint and images_sha256(*choose_images(data, split, samples))


def made_evaluation(folder: Path, wanted: EvaluationConfig, images: Images) -> Evaluation | None:
    """The evaluation of a run that is asked for, at its largest radius, among others; None if it was not made.

    Args:
        folder: the run folder.
        wanted: the settings of the evaluation.
        images: as for `evaluation_names`.
    """
    record = read_run(folder, skipped=lambda *_: None)
    name = evaluation_names(record, wanted, images)[-1] if record.status == "finished" else None
    return None if name is None else record.evaluations[name]


def _finished(folder: Path, evaluations: Sequence[EvaluationConfig], images: Images) -> float | None:
    """Robust accuracy in the first evaluation, at its largest radius; None if an evaluation is missing.

    A damaged run counts as missing here; it is not overwritten, and its sweep reports why.
    """
    if not (folder / "config.yaml").exists():
        return None
    try:
        return _robust(read_run(folder, skipped=lambda *_: None), evaluations, images)
    except InputError:
        return None


def _robust(record: RunRecord, evaluations: Sequence[EvaluationConfig], images: Images) -> float | None:
    if record.status != "finished":
        return None
    names = [evaluation_names(record, each, images) for each in evaluations]
    last = names[0][-1]
    if last is None or any(name is None for each in names for name in each):
        return None
    return record.evaluations[last].robust_accuracy.value


def image_hashes() -> Images:
    """The hashes of images, each computed once."""
    return cache(lambda data, split, samples: _images(load_data(data), split, samples))


def evaluation_names(record: RunRecord, wanted: EvaluationConfig, images: Images | None = None) -> list[str | None]:
    """For each radius, the names of the run's evaluations with these settings; None where there is none.

    With ``each``, those of the attacks by themselves come first, and the worst case last.

    Args:
        record: a finished run.
        wanted: the settings of the evaluation.
        images: returns the hash of the images, if the caller caches it; by default it is computed.
    """
    config = record.config
    hashed = images or image_hashes()
    radii = sorted(wanted.attack.eps) or [config.defense.eps]
    weights = RunFolder(record.folder).weights(wanted.weights)
    images_sha = hashed(config.data, wanted.split, wanted.samples)
    identity = (wanted.attack_seed, sha256(weights))
    network = _identity(record, wanted.weights)

    def name_of(settings: list[dict[str, Any]]) -> str | None:
        values = same_values(settings)
        for name, e in record.evaluations.items():
            if same_values(e.attacks) != values or (e.seed, e.checkpoint_sha256) != identity:
                continue
            if images_sha not in ("", e.images_sha256):
                continue
            if e.weights != other_weights(weights) or (wanted.consistent and e.misclassified is None):
                continue
            if network is None or network.matches(e.computes):
                return name
        return None

    names: list[str | None] = []
    for eps in radii:
        alone = wanted.attack.columns() if wanted.each else ()
        each = [attack_settings(create_attacks(one, config.defense.norm, eps)) for one in alone]
        names += map(name_of, each)
        names.append(
            name_of([{**one, ALONE: True} for settings in each for one in settings])
            if each
            else name_of(attack_settings(create_attacks(wanted.attack, config.defense.norm, eps)))
        )
    return names


def _identity(record: RunRecord, weights: str) -> Identity | None:
    """The identity of a run's network, whose code may have changed since; None if its code is built in."""
    name = record.config.model.model
    if ":" not in name and models.is_built_in(name):
        return None
    data = load_data(record.config.data)
    return Identity.of(open_checkpoint(record.folder, weights).model, (data.in_channels, *data.image_size))
