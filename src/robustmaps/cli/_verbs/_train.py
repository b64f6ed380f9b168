"""``robustmaps train``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from robustmaps.cli._terminal._begin import Begun, Sources, begin, check_data_named
from robustmaps.cli._terminal._parsing import DEFENCES, FILE_ONLY, OptionalValue, parse, parse_known, typed_model
from robustmaps.cli._terminal._shared import Output, stop_on_signal, tell
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import (
    RunConfig,
    check_trusted,
    departures,
    needs_trust,
    read_run_config,
    to_mapping,
)
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.numbers import human
from robustmaps.engine.text import shell

if TYPE_CHECKING:
    from robustmaps.models import Cost

DESCRIPTION = """Train a network in a run folder of its own. Every option is also a key of the YAML file that --config
names; --recipe takes such a file from the package (robustmaps recipes), --protocol published the protocol of the
publication. --config overrides --recipe, and options on the command line override both. --resume continues the run of
this configuration, or starts it; --resume RUN continues the run in that folder."""

_HIDDEN = FILE_ONLY | {"model"}
"""Keys of a configuration that are no options: the network is an argument."""
_OVERFITTED = (
    "Robust overfitting: robust accuracy on validation images fell by {points:.1f} points after epoch {epoch}, whose "
    "weights are kept. Try fewer epochs, or more images."
)


@dataclass(frozen=True)
class Arguments:
    """Options of training.

    Attributes:
        model: name of a network, see `robustmaps models` (default: resnet8); torchvision:NAME, timm:NAME, hf:OWNER/NAME
            or MODULE:FUNCTION; or what to begin with: a run, a weights file, or a folder that `robustmaps enlarge`
            saved, with its images and budget
        config: YAML file with any of the options below
        out: folder that holds the runs
        resume: continue a run instead of refusing to overwrite it (without RUN: the one that the other options name)
        json: print the result as one JSON object
    """

    model: tyro.conf.Positional[str | None] = None
    run: RunConfig = field(default_factory=RunConfig)
    config: Path | None = None
    out: Path = Path("runs")
    resume: OptionalValue = None
    json: bool = False


@dataclass(frozen=True)
class SourcesOrRun(Sources):
    """The options that decide what the others are by default.

    Attributes:
        resume: a run that has its own configuration.
    """

    resume: OptionalValue = None


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    sources = parse_known(SourcesOrRun, arguments, "train")
    default = Arguments()
    model = typed_model(Arguments, arguments, "train", default, hidden=_HIDDEN)
    if sources.resume:
        folder = Path(sources.resume)
        if not (folder / "config.yaml").exists():
            raise InputError(f"--resume {folder}: not a run folder, it has no config.yaml")
        for name in ("config", "recipe", "protocol"):
            value = getattr(sources, name)
            if value is not None:
                raise InputError(f"--{name} {value}: the run in {folder} has its own configuration; leave --{name} out")
        default = Arguments(out=folder.resolve().parent)
        begun = Begun(read_run_config(folder / "config.yaml"))
        check_trusted(begun.run, folder / "config.yaml")
        if model not in (None, begun.run.model.model, sources.resume):
            raise InputError(f"{model}: the run in {folder} has its own network; leave {model} out")
    else:
        begun = begin(sources, default.run, model)
    default = replace(default, run=begun.run)
    given = parse(Arguments, arguments, "train", DESCRIPTION, default, rows=DEFENCES, hidden=_HIDDEN)
    given.run.check(default.run)
    if not sources.resume:
        check_data_named(given.run, sources)
    _train(given, begun)


def _operations(cost: "Cost") -> list[str]:
    """What a network cost that was enlarged during training; nothing of any other."""
    if cost.mean_flops is None:
        return []
    mean, final = human(cost.mean_flops, "FLOP"), human(cost.flops, "FLOP")
    return [f"Operations of a forward pass of one image: {mean} on average over all epochs, {final} at the end."]


def _train(given: Arguments, begun: Begun) -> None:
    from robustmaps.runs import train
    from robustmaps.training import robust_fall

    run = begun.resolver().resolve(given.run)
    folder = given.out / run.config.name
    if given.run.model.enlarge_at is not None and run.config.model.enlarge_at is None:
        raise InputError(
            f"--enlarge-at {given.run.model.enlarge_at}: nothing is enlarged; give --upsample, --strides or --enlarge, "
            "or leave --enlarge-at out"
        )
    if given.resume and folder.resolve() != Path(given.resume).resolve():
        raise InputError(f"--resume {given.resume}: the other options name another run, {folder.name}; leave them out")
    apart = departures(run.config)
    for line in apart:
        tell(f"note: {line}")
    permission = ["--allow-code"] * needs_trust(run.config)
    with stop_on_signal() as should_stop, watching() as watch:
        try:
            done = train(
                run,
                given.out,
                resume=given.resume is not None,
                watcher=watch,
                should_stop=should_stop,
            )
        except Interrupted as place:
            continued = shell("robustmaps", "train", "--resume", folder, *permission)
            raise Interrupted(f"stopped at {place}; continue with:\n  {continued}") from None
    if done.needs_code is not None:
        tell(f"note: {done.needs_code}")
    best = done.fit.history[done.fit.best_epoch - 1]
    fall = robust_fall(done.fit.history, done.fit.best_epoch, len(done.data.validation))
    values = {
        "run": str(done.folder),
        "config": to_mapping(done.config),
        "departures": apart,
        "best_epoch": done.fit.best_epoch,
        "seconds": done.fit.seconds,
        "forms": done.fit.forms.to_dict(),
        "cost": done.cost.to_dict(),
        "best": dict(best),
        "last": dict(done.fit.history[-1]),
        "robust_fall": fall,
    }
    figures = ", ".join(
        f"{name} {100 * best[f'validation_{name}_accuracy']:.1f} %"
        for name in ("clean", "robust")
        if f"validation_{name}_accuracy" in best
    )
    Output(given.json).result(
        values,
        f"Trained in {done.fit.seconds:.0f} s. "
        + (
            f"Best epoch {done.fit.best_epoch}: validation accuracy {figures}."
            if figures
            else f"The weights are those of the last epoch, {done.fit.best_epoch}, since no images were held out."
        ),
        *([] if fall is None else [_OVERFITTED.format(epoch=done.fit.best_epoch, points=100 * fall)]),
        f"Computed in {done.fit.forms}.",
        *_operations(done.cost),
        f"Run folder: {done.folder}",
        f"Next: {shell('robustmaps', 'evaluate', done.folder, *permission)}",
    )
