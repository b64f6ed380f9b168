"""``robustmaps train``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustmaps.cli._terminal._shared import Output, parse, stop_on_signal, take_option
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import RunConfig, read_config, read_recipe, to_mapping
from robustmaps.engine.errors import InputError, Interrupted

DESCRIPTION = """Train a network in a run folder of its own. Every option is also a key of the YAML file that --config
names, and --recipe takes such a file that comes with the package (robustmaps recipes); --config wins over --recipe,
and options on the command line over both. --resume goes on where the run of this configuration stopped (and starts it
if there is none); --resume RUN does so for the run in that folder."""


@dataclass(frozen=True)
class Arguments:
    """Options of training.

    Attributes:
        run: what decides the run.
        config: a YAML file with any of the options below.
        recipe: the name of a recipe, such as at-resnet18-1122.
        out: the folder that holds the runs.
        resume: go on with a run instead of refusing to overwrite it: a run folder, or nothing for the run that the
            other options name.
        json: print the result as one JSON object.
    """

    run: RunConfig = field(default_factory=RunConfig)
    config: Path | None = None
    recipe: str | None = None
    out: Path = Path("runs")
    resume: str | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    rest, config = take_option(arguments, "--config")
    rest, recipe = take_option(rest, "--recipe")
    rest, resume = take_option(rest, "--resume")
    if config == "":
        raise InputError("--config: expected a YAML file, such as --config run.yaml")
    if recipe == "":
        raise InputError("--recipe: expected a name, such as --recipe at-resnet18-1122; robustmaps recipes lists them")
    _, weights = take_option(rest, "--init-from")
    default = Arguments(
        run=_defaults(recipe, config, None if resume else weights),
        recipe=recipe,
        config=None if config is None else Path(config),
    )
    if resume:
        run_config = Path(resume) / "config.yaml"
        if not run_config.exists():
            raise InputError(f"--resume {resume}: not a run folder, it has no config.yaml")
        default = Arguments(run=read_config(run_config), out=Path(resume).resolve().parent)
    given = parse(Arguments, rest, "train", DESCRIPTION, default)
    _train(given, resume)


def _defaults(recipe: str | None, config: str | None, weights: str | None) -> RunConfig:
    """What holds where the command line is silent: a YAML file, else the weights to begin with, else a recipe."""
    run = RunConfig() if recipe is None else read_recipe(recipe)
    if weights == "":
        raise InputError("--init-from: expected a run folder, a weights file or a folder that robustmaps enlarge saved")
    if weights is not None:
        from robustmaps.networks import starting_from

        run = starting_from(weights, run)
    if config is None:
        return run
    from robustmaps.networks import complete

    return read_config(config, run, complete)


def _train(given: Arguments, resume: str | None) -> None:
    from robustmaps.networks import resolve
    from robustmaps.runs import folder_of, train

    config = resolve(given.run)
    folder = folder_of(config, given.out)
    if resume and folder.resolve() != Path(resume).resolve():
        raise InputError(f"--resume {resume}: the other options name another run, {folder.name}; leave them out")
    with stop_on_signal() as should_stop, watching() as watch:
        try:
            done = train(
                config,
                given.out,
                resume=resume is not None,
                watcher=watch,
                decoding=watch.decoding,
                should_stop=should_stop,
            )
        except Interrupted as place:
            raise Interrupted(f"stopped at {place}; go on with:\n  robustmaps train --resume {folder}") from None
    best = done.fit.history[done.fit.best_epoch - 1]
    values = {
        "run": str(done.folder),
        "config": to_mapping(done.config),
        "best_epoch": done.fit.best_epoch,
        "seconds": done.fit.seconds,
        "best": dict(best),
        "last": dict(done.fit.history[-1]),
    }
    figures = ", ".join(
        f"{name} {100 * best[f'validation_{name}_accuracy']:.1f} %"
        for name in ("clean", "robust")
        if f"validation_{name}_accuracy" in best
    )
    Output(given.json).result(
        values,
        f"Trained in {done.fit.seconds:.0f} s. Best epoch {done.fit.best_epoch}"
        + (f": validation accuracy {figures}." if figures else "."),
        f"Run folder: {done.folder}",
        f"Next: robustmaps evaluate {done.folder}",
    )
