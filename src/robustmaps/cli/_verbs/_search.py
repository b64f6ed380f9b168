"""``robustmaps search``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro

from robustmaps.cli._terminal._begin import Begun, Sources, begin, check_data_named
from robustmaps.cli._terminal._executor import Execution
from robustmaps.cli._terminal._options import Spending
from robustmaps.cli._terminal._parsing import DEFENCES, parse, parse_known, typed_model
from robustmaps.cli._terminal._shared import Output, stop_on_signal
from robustmaps.cli._verbs._sweep import showing
from robustmaps.config import EvaluationConfig, ModelConfig, RunConfig, flat_values, to_mapping
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.numbers import human
from robustmaps.engine.tables import table
from robustmaps.training import TrainOptions

if TYPE_CHECKING:
    from robustmaps.studies import Candidate

DESCRIPTION = """Find the enlargements of a network that are worth their cost. Candidates within a budget are trained
on a short proxy schedule; those without prospects are stopped early (successive halving). The Pareto front of cost
against robust accuracy is printed and saved. TARGET is a network's name, or a study (robustmaps sweep) whose
combinations are the candidates; the budget is relative to the first. Give any other key of training in a file:
--config."""

SHOWN = frozenset(
    {
        *("strides", "init_from", "weights", "data", "image_size", "channels"),
        *("defense", "norm", "eps", "steps"),
        *("epochs", "seed", "device"),
    }
)
"""Keys of a configuration that are options of the search; a file may give the others."""
PROXY = RunConfig(training=TrainOptions(epochs=9, schedule="one-cycle"))


@dataclass(frozen=True)
class HalvingOptions:
    """Successive halving.

    Attributes:
        least_epochs: epochs that every candidate gets
        reduction: factor N of the halving: 1 in N candidates survives each rung, with N times the epochs
    """

    least_epochs: int = 1
    reduction: int = 3


@dataclass(frozen=True)
class Arguments:
    """Options of the search.

    Attributes:
        target: name of a network, e.g. resnet8, or what to begin with, such as a run; or YAML file of a study
        config: YAML file with any options of training, for all candidates (default: 9 epochs, one-cycle)
        jobs: candidates at once (default: a core each, at most eight; one where a GPU does the work)
        out: folder for the runs and search.json (default: runs/search-TARGET; STUDY-search for a study)
        json: print the result as one JSON object
    """

    target: tyro.conf.Positional[str]
    spending: Spending = field(default_factory=Spending)
    halving: HalvingOptions = field(default_factory=HalvingOptions)
    run: RunConfig = PROXY
    config: Path | None = None
    jobs: int | None = None
    execution: Execution = field(default_factory=Execution)
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    hidden = frozenset(flat_values(PROXY)) - SHOWN
    default = Arguments(cast("str", tyro.MISSING_NONPROP))
    sources = parse_known(Sources, arguments, "search")
    target = typed_model(Arguments, arguments, "search", default, hidden=hidden, name="target")
    begun = begin(sources, PROXY, None if target is None or _is_study(target) else target)
    default = replace(default, run=begun.run)
    given = parse(Arguments, arguments, "search", DESCRIPTION, default, rows=DEFENCES, hidden=hidden)
    given.run.check(PROXY)
    check_data_named(given.run, sources)
    from robustmaps.engine.numbers import check_whole
    from robustmaps.studies import RunsFailed, search

    if given.jobs is not None:
        check_whole("jobs", given.jobs, 1)
    executor = given.execution.on_cluster(given.jobs)
    if executor is not None:
        executor.runs_at_once()  # before time is spent on images, where there is no cluster
    candidates, evaluation, out = _study(given) if _is_study(given.target) else _network(given, begun)
    with stop_on_signal() as should_stop, showing() as show:
        try:
            result = search(
                candidates,
                out,
                evaluation=evaluation,
                **vars(given.halving),
                jobs=given.jobs,
                executor=executor,
                watcher=show,
                should_stop=should_stop,
            )
        except Interrupted:
            raise Interrupted("stopped; the same command continues from here") from None
    rows = [
        (
            ("* " if trial.best else "") + trial.candidate.title,
            f"{trial.candidate.relative:.2f}x",
            human(trial.candidate.cost.flops, "FLOP"),
            f"{trial.epochs}" + ("" if trial.kept or trial.error is not None else ", stopped early"),
            f"{100 * trial.score:.1f} %",
            "failed" if trial.error is not None else "" if trial.robust is None else str(trial.robust),
        )
        for trial in result.trials
    ]
    Output(given.json).result(
        {**result.to_dict(), "file": str(result.path)},
        table(
            ("candidate", given.spending.measure, "forward", "epochs", "validation", "robust, test [95 %]"),
            rows,
            words=1,
        ),
        "* no other candidate is cheaper and more robust on validation images; one seed each, so confirm differences "
        "of a few points with a sweep over seeds",
        f"Written: {result.path}",
    )
    if result.failed:
        raise RunsFailed.of({trial.folder: str(trial.error) for trial in result.failed}, "candidate")


def _is_study(target: str) -> bool:
    return target.endswith((".yaml", ".yml"))


def _study(given: Arguments) -> "tuple[list[Candidate], EvaluationConfig, Path]":
    """The combinations of a study as candidates, which decides all else too."""
    from robustmaps.config import read_study
    from robustmaps.networks import Resolver, load_data
    from robustmaps.studies import within

    resolver, spending = Resolver(), given.spending
    study = read_study(given.target, resolver.complete)
    configs = [point.config for point in study.points]
    if given.run != PROXY or given.config is not None:
        raise InputError(f"{given.target}: the study configures its runs; write the options of training there")
    if spending.upsamples != Spending.upsamples:
        raise InputError(f"{given.target}: the study lists its candidates; leave --upsamples out")
    parts = [{**to_mapping(config), **dict.fromkeys(vars(ModelConfig()))} for config in configs]
    differ = [key for key in study.keys if len({str(part[key]) for part in parts}) > 1]
    if differ:
        raise InputError(
            f"{given.target}: candidates of a search differ in their network alone; give one value for "
            f"{', '.join(differ)}"
        )
    data = load_data(configs[0].data)
    found = within(configs, data, budget=spending.times, measure=spending.measure, resolver=resolver)
    out = given.out or Path(given.target).with_name(f"{Path(given.target).stem}-search")
    return found, study.evaluations[0], out


def _network(given: Arguments, begun: Begun) -> "tuple[list[Candidate], EvaluationConfig, Path]":
    """The enlargements of a network as candidates."""
    from robustmaps.networks import load_data
    from robustmaps.studies import find_candidates

    resolver, spending = begun.resolver(), given.spending
    resolver.resolve(given.run)  # before time is spent on images
    data = load_data(given.run.data)
    found = find_candidates(
        given.run,
        data,
        budget=spending.times,
        measure=spending.measure,
        upsamples=spending.upsamples,
        resolver=resolver,
    )
    return found, EvaluationConfig(), given.out or Path("runs") / f"search-{Path(given.target).name}"
