"""The commands that repeat runs and evaluations."""

from collections.abc import Sequence
from pathlib import Path

from robustmaps.config import needs_trust
from robustmaps.engine.numbers import exact
from robustmaps.engine.text import shell
from robustmaps.evaluation import Evaluation
from robustmaps.runs import RunRecord, attack_options

AGAIN = Path("again")
"""The folder for repeated runs, separate from the existing ones."""


def permission(*runs: RunRecord) -> list[str]:
    """The option that a command needs if the networks of these runs are made by code that their files name."""
    return ["--allow-code"] if any(needs_trust(run.config) for run in runs) else []


def repeat_commands(folder: Path, runs: Sequence[RunRecord], evaluations: Sequence[Evaluation | None]) -> list[str]:
    """The commands that train runs again, evaluate them in the same way, and write the report.

    Args:
        folder: the folder of the report's runs.
        runs: some of the runs in it.
        evaluations: per run the reported evaluation.
    """
    lines = []
    for run, evaluation in zip(runs, evaluations, strict=True):
        lines.append(
            shell("robustmaps", "train", "--config", run.folder / "config.yaml", "--out", AGAIN, *permission(run))
        )
        if evaluation is not None:
            # Training names the folder after the configuration, whatever its name here.
            lines.append(evaluate_command(AGAIN / run.config.name, run, evaluation))
    plan = folder / "study.yaml"
    if plan.is_file():
        lines.append("# or the whole study:")
        lines.append(shell("robustmaps", "sweep", plan, "--out", AGAIN, *permission(*runs)))
    return [*lines, shell("robustmaps", "report", AGAIN, *permission(*runs))]


def evaluate_command(folder: Path, run: RunRecord, evaluation: Evaluation) -> str:
    """The command that evaluates the network of a run, made again in ``folder``, in the same way."""
    attack = attack_options(evaluation)
    if attack is None:  # made from Python or by another version
        return "# The command line has no options for this evaluation; its settings are below."
    options = ["--norm", evaluation.norm, "--eps", exact(evaluation.eps), *attack]
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
