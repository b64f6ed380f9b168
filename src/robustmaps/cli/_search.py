"""``robustmaps search``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._terminal._shared import Output, parse, rich_table, stop_on_signal
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import AttackConfig, ModelConfig, RunConfig, to_mapping
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.numbers import human
from robustmaps.training import TrainOptions

DESCRIPTION = """Find the enlargements of a network that are worth their cost: candidates within a budget are trained on
a short proxy schedule, those without prospect are given up early (successive halving), and the Pareto front of cost
against robust accuracy is printed and saved. TARGET is a network's name, or a study (robustmaps sweep) whose
combinations are the candidates, the first being the network that the budget is relative to."""


@dataclass(frozen=True)
class Arguments:
    """Options of the search.

    Attributes:
        target: a network's name, such as resnet8, or a study's YAML file.
        run: the proxy schedule and all else that the candidates share; of a study, its own.
        budget: how many times the given network's cost may be spent, such as 2.0x.
        measure: what the budget limits.
        upsamples: factors of upsampling to try, with commas.
        least_epochs: epochs that every candidate gets.
        reduction: of so many candidates one goes on, to so many times as many epochs.
        out: the folder of the runs and of search.json; runs/search-TARGET if left out, STUDY-search for a study.
        json: print the result as one JSON object.
    """

    target: tyro.conf.Positional[str]
    run: RunConfig = field(default_factory=lambda: RunConfig(training=TrainOptions(epochs=9, schedule="one-cycle")))
    budget: str = "2.0x"
    measure: Literal["flops", "memory", "latency"] = "flops"
    upsamples: tuple[float, ...] = (1.0, 2.0)
    least_epochs: int = 1
    reduction: int = 3
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "search", DESCRIPTION)
    from robustmaps.config import EvaluationConfig, read_study
    from robustmaps.networks import complete, load_data, parse_budget
    from robustmaps.studies import find_candidates, search, within

    budget = parse_budget(given.budget)
    if given.target.endswith((".yaml", ".yml")):
        study = read_study(given.target, complete)
        configs = [point.config for point in study.points]
        if given.run != Arguments("").run:
            raise InputError(
                f"{given.target}: holds all that its runs are made with; write the options of training there"
            )
        parts = [{**to_mapping(config), **dict.fromkeys(vars(ModelConfig()))} for config in configs]
        differ = [key for key in study.keys if len({str(part[key]) for part in parts}) > 1]
        if differ:
            raise InputError(
                f"{given.target}: candidates of a search differ in their network alone; give one value for "
                f"{', '.join(differ)}"
            )
        data, evaluation = load_data(configs[0].data), study.evaluations[0]
        candidates = within(configs, data, budget=budget, measure=given.measure)
        out = given.out or Path(given.target).with_name(f"{Path(given.target).stem}-search")
    else:
        base = replace(given.run, model=replace(given.run.model, model=given.target))
        data, evaluation = load_data(base.data), EvaluationConfig(AttackConfig())
        candidates = find_candidates(base, data, budget=budget, measure=given.measure, upsamples=given.upsamples)
        out = given.out or Path("runs") / f"search-{given.target}"
    with stop_on_signal() as should_stop, watching() as watch:
        try:
            result = search(
                candidates,
                out,
                data=data,
                evaluation=evaluation,
                least_epochs=given.least_epochs,
                reduction=given.reduction,
                watcher=watch.of,
                should_stop=should_stop,
            )
        except Interrupted:
            raise Interrupted("stopped; the same command goes on from here") from None
    rows = [
        (
            ("* " if trial.best else "") + trial.candidate.title,
            f"{trial.candidate.relative:.2f}x",
            human(trial.candidate.cost.flops, "FLOP"),
            f"{trial.epochs}" + ("" if trial.kept else ", given up"),
            f"{100 * trial.score:.1f} %",
            "" if trial.robust is None else str(trial.robust),
        )
        for trial in result.trials
    ]
    Output(given.json).result(
        {**result.to_dict(), "file": str(result.path)},
        rich_table(("candidate", given.measure, "forward", "epochs", "validation", "robust, test [95 %]"), rows),
        "* no other candidate is cheaper and more robust, by validation images; one seed each, so a few points of "
        "difference call for a sweep over seeds",
        f"Written: {result.path}",
    )
