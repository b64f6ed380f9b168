"""``robustmaps advise``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro

from robustmaps.cli._terminal._begin import Sources, begin, check_data_named
from robustmaps.cli._terminal._executor import Execution, shares
from robustmaps.cli._terminal._parsing import DEFENCES, Names, parse, parse_known, typed_model
from robustmaps.cli._terminal._shared import Output, stop_on_signal, tell
from robustmaps.cli._verbs._search import SHOWN
from robustmaps.cli._verbs._sweep import plan_line, showing
from robustmaps.config import RunConfig, flat_values, needs_trust
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.numbers import counted, human
from robustmaps.engine.tables import table
from robustmaps.engine.text import shell
from robustmaps.training import TrainOptions

if TYPE_CHECKING:
    from robustmaps.studies import Advice, AdvicePlan

DESCRIPTION = """Say what to spend a budget on. The same training operations are spent in different ways: on the given
network for longer, on larger maps, on other networks. All ways get a third of the budget at first; those that do best
on validation images get all of it, with several seeds, and are compared on test images with the given training and
with training longer. The answer may be to train longer. Give any other key of training in a file: --config."""

GIVEN = RunConfig(training=TrainOptions(epochs=10, schedule="one-cycle"))


@dataclass(frozen=True)
class Arguments:
    """Options of the advice.

    Attributes:
        model: name of a network, e.g. resnet8, or what to begin with, such as a run; as in `robustmaps train`
        budget: cost of training one network: 4x the given training, operations (1e15flop) or a time (2h)
        upsamples: factors of upsampling to try, with commas
        networks: other networks to try, with commas, such as a deeper one
        seeds: seeds of every way that is confirmed
        finalists: ways that are confirmed beside training longer
        samples: test images that judge (default: all)
        config: YAML file with any options of training (default: 10 epochs, one-cycle)
        jobs: runs at once (default: a core each, at most eight; one where a GPU does the work)
        out: folder for the runs, advice.json and advice.png (default: runs/advise-MODEL)
        dry_run: show the ways and what they cost, and write nothing
        json: print the result as one JSON object
    """

    model: tyro.conf.Positional[str]
    budget: str = "4x"
    upsamples: tuple[float, ...] = (1.0, 2.0)
    networks: Names = ()
    seeds: int = 5
    finalists: int = 2
    samples: int | None = None
    run: RunConfig = GIVEN
    config: Path | None = None
    jobs: int | None = None
    execution: Execution = field(default_factory=Execution)
    out: Path | None = None
    dry_run: bool = False
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    hidden = frozenset(flat_values(GIVEN)) - SHOWN
    default = Arguments(cast("str", tyro.MISSING_NONPROP))
    sources = parse_known(Sources, arguments, "advise")
    begun = begin(sources, GIVEN, typed_model(Arguments, arguments, "advise", default, hidden=hidden))
    default = replace(default, run=begun.run)
    given = parse(Arguments, arguments, "advise", DESCRIPTION, default, rows=DEFENCES, hidden=hidden)
    given.run.check(GIVEN)
    check_data_named(given.run, sources)
    from robustmaps.engine.numbers import check_whole
    from robustmaps.networks import load_data
    from robustmaps.studies import TrainingBudget, advise, plan_advice

    for name in ("jobs", "samples"):
        if getattr(given, name) is not None:
            check_whole(name, getattr(given, name), 1)
    executor = given.execution.on_cluster(given.jobs)
    budget, resolver = TrainingBudget.of(given.budget), begun.resolver()
    resolver.resolve(given.run)  # before time is spent on images
    shared = shares(executor, given.jobs)
    plan = plan_advice(
        given.run,
        load_data(given.run.data),
        given.out or Path("runs") / f"advise-{Path(given.model).name}",
        budget=budget,
        upsamples=given.upsamples,
        networks=given.networks,
        seeds=given.seeds,
        finalists=given.finalists,
        samples=given.samples,
        **shared,
        resolver=resolver,
    )
    output = Output(given.json)
    if given.dry_run:
        output.result(plan.to_dict(), _planned(plan), _price(plan))
        return
    tell(_price(plan))
    tell(plan_line(plan.screening))
    with stop_on_signal() as should_stop, showing() as show:
        try:
            advice = advise(plan, **shared, executor=executor, resolver=resolver, watcher=show, should_stop=should_stop)
        except Interrupted as place:
            raise Interrupted(f"{place}; the same command continues from here") from None
    output.result({**advice.to_dict(), "file": str(plan.out / "advice.json")}, *_texts(advice))


def _planned(plan: "AdvicePlan") -> object:
    rows = [(way.name, f"{way.relative:.2f}x", f"{way.spent:.2f}x") for way in plan.ways]
    return table(("way", "cost of an epoch", "spent"), rows, words=1)


def _price(plan: "AdvicePlan") -> str:
    operations = human(plan.total_flops, "FLOP")
    return (
        f"{counted(len(plan.ways), 'way')} of spending {plan.times:.3g} x the given training. To find out takes at "
        f"most {plan.total:.3g} x the given training ({operations}), and evaluations."
    )


def _texts(advice: "Advice") -> list[object]:
    best, plan = advice.winner, advice.plan
    columns = ("way", "spent", "operations", "validation", "robust, test [95 %]", "against training longer")
    listed = table(columns, list(_rows(advice)), words=1)
    permission = ["--allow-code"] * needs_trust(best.way.config)
    again = shell("robustmaps", "train", "--config", best.folders[0] / "config.yaml", "--out", "runs", *permission)
    return [
        listed,
        "* the advice. validation: after a third of the budget, one seed; test: the whole budget, "
        f"{counted(plan.seeds, 'seed')}; both by a3. Spent: {'time of ' * plan.by_time}training, as a multiple of the "
        "given one.",
        advice.sentence(),
        f"It is trained already: {best.folders[0]}. Again: {again}",
        f"Written: {plan.out / 'advice.json'}, {plan.out / 'advice.png'}. "
        f"Next: {shell('robustmaps', 'report', plan.out / 'confirmed')}",
    ]


def _rows(advice: "Advice") -> Iterator[tuple[str, ...]]:
    of, longer = {one.way.name: one for one in advice.confirmed}, advice.confirmed[1].way.name
    versus = {one.b: str(one) for one in advice.differences if one.a == longer}
    for way in advice.plan.ways:
        yield (
            ("* " if way is advice.winner.way else "") + way.name,
            f"{way.spent:.2f}x",
            human(way.flops * advice.plan.training_flops, "FLOP"),
            str(advice.screened.get(way.name, "")),
            str(of[way.name].robust) if way.name in of else "",
            versus.get(way.name, ""),
        )
