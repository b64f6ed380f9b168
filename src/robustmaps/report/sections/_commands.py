"""The commands that repeat runs and evaluations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustmaps.config import needs_trust
from robustmaps.engine.numbers import exact
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.text import shell
from robustmaps.evaluation import ALONE, Evaluation
from robustmaps.runs import RunRecord, Yardstick, attack_options

AGAIN = Path("again")
"""The folder for repeated runs, separate from the existing ones."""


def permission(*runs: RunRecord) -> list[str]:
    """The option that a command needs if the networks of these runs are made by code that their files name."""
    return ["--allow-code"] if any(needs_trust(run.config) for run in runs) else []


More = Callable[[Path, RunRecord], Iterable[str]]
"""From the folder of a run made again, and the run, to the commands of its other results."""


def repeat_commands(
    folder: Path, runs: Sequence[RunRecord], evaluations: Sequence[Evaluation | None], more: Sequence[More] = ()
) -> list[str]:
    """The commands that train runs again, evaluate them in the same way, and write the report.

    Args:
        folder: the folder of the report's runs.
        runs: some of the runs in it.
        evaluations: per run the reported evaluation, which comes first of all its evaluations.
        more: what repeats other results of a run.
    """
    lines = []
    for run, evaluation in zip(runs, evaluations, strict=True):
        again, curves = run.folder, curve_radii(run)
        if run.status != "evaluated":
            lines.append(
                shell("robustmaps", "train", "--config", run.folder / "config.yaml", "--out", AGAIN, *permission(run))
            )
            # Training names the folder after the configuration, whatever its name here.
            again = AGAIN / run.config.name
        mine = sorted(run.evaluations.items(), key=lambda item: item[1] is not evaluation)
        lines += dict.fromkeys(evaluate_command(again, run, one, _radii(one, name, run, curves)) for name, one in mine)
        lines += dict.fromkeys(line for made in more for line in made(again, run))
    plan = folder / "study.yaml"
    if plan.is_file():
        lines.append("# or the whole study:")
        lines.append(shell("robustmaps", "sweep", plan, "--out", AGAIN, *permission(*runs)))
    trained = any(run.status != "evaluated" for run in runs)
    return [*lines, shell("robustmaps", "report", AGAIN if trained else folder, *permission(*runs))]


def curve_radii(run: RunRecord) -> dict[str, tuple[float, ...]]:
    """By the name of an evaluation the radii of its curve: each goes on with the images that the smaller one left."""
    found: dict[str, tuple[float, ...]] = {}
    for path in sorted(run.results.rglob("curve-*.json")):
        try:
            curve = declared(_Curve, read_json(path))
        except (OSError, ValueError):  # damaged, as lists of runs tell
            continue
        found |= {Path(point.file).stem: tuple(each.eps for each in curve.points) for point in curve.points}
    return found


@dataclass(frozen=True)
class _Point:
    """A radius of a curve, and the file of its evaluation."""

    eps: float
    file: str


@dataclass(frozen=True)
class _Curve:
    """What is read of a curve's file."""

    points: tuple[_Point, ...]


def _radii(
    evaluation: Evaluation, name: str, run: RunRecord, curves: Mapping[str, tuple[float, ...]]
) -> tuple[float, ...]:
    """The radii that a command has to give for an evaluation to be the same; a worst case has those of its columns."""
    names = [name]
    if Yardstick.of(evaluation).alone:
        # What a smaller radius broke is not attacked again.
        if not any(stage["attacked"] < evaluation.clean_accuracy.successes for stage in evaluation.stages[:1]):
            return (evaluation.eps,)
        same = (evaluation.eps, evaluation.images_sha256, evaluation.seed, evaluation.weights)
        columns = ((n, e) for n, e in run.evaluations.items() if (e.eps, e.images_sha256, e.seed, e.weights) == same)
        parts = [{k: v for k, v in attack.items() if k != ALONE} for attack in evaluation.attacks]
        names = [n for n, e in columns if all(dict(attack) in parts for attack in e.attacks)]
    return next((curves[stem] for stem in (n.rpartition("/")[2] for n in names) if stem in curves), (evaluation.eps,))


def evaluate_command(folder: Path, run: RunRecord, evaluation: Evaluation, radii: Sequence[float]) -> str:
    """The command that evaluates the network of a run, made again in ``folder``, in the same way."""
    attack = attack_options(evaluation)
    if attack is None:  # made from Python or by another version
        return "# The command line has no options for this evaluation; its settings are below."
    options = ["--norm", evaluation.norm, "--eps", ",".join(map(exact, radii)), *attack]
    if evaluation.split not in (None, "test"):
        options += ["--split", str(evaluation.split)]
    if evaluation.weights is not None:
        options += ["--weights", evaluation.weights]
    if evaluation.misclassified is not None:
        options.append("--consistent")
    options += [
        "--samples",
        str(len(evaluation.verdicts)),
        *(["--seed", str(evaluation.seed)] * (evaluation.seed != 0)),
    ]
    return shell("robustmaps", "evaluate", folder, *options, *permission(run))
