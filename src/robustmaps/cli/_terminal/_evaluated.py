"""Evaluations on the terminal: tables, and the same as JSON."""

from typing import TYPE_CHECKING, Any

from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.tables import table

if TYPE_CHECKING:
    from robustmaps.evaluation import Evaluation
    from robustmaps.runs import CorruptedRun, EvaluatedColumns, EvaluatedCurve, EvaluatedRun, EvaluatedTransfer

    Done = EvaluatedRun | EvaluatedCurve | EvaluatedColumns | EvaluatedTransfer | CorruptedRun

_NORMS = ("linf", "l2", "l1")


def _print_corrupted(done: "CorruptedRun", as_json: bool) -> None:
    figures = done.figures

    def short(rate: dict[str, Any]) -> str:
        return f"{100 * rate['value']:.1f}"

    def full(rate: dict[str, Any]) -> str:
        low, high = rate["interval"]
        return f"{short(rate)} [{100 * low:.1f}, {100 * high:.1f}]"

    rows = [
        (name, *(short(rate) for rate in of["severities"]), full(of["mean"]))
        for name, of in figures["corruptions"].items()
    ]
    rows.append(("all", *map(short, figures["severities"]), full(figures["mean_corruption_accuracy"])))
    Output(as_json).result(
        {**figures, "file": str(done.path)},
        table(("% at severity", *map(str, range(1, 6)), "mean [95 %]"), rows, words=1),
        f"{figures['images']} images, each with 5 severities of {len(rows) - 1} corruptions, not attacked.",
        f"{'Evaluated before' if done.before else 'With the interval of every accuracy'}: {done.path}",
        *(f"Note: {warning}" for warning in figures.get("warnings", ())),
    )


def show(done: "Done", as_json: bool) -> None:
    """Print what was evaluated, as tables or as JSON."""
    from robustmaps.runs import CorruptedRun, EvaluatedColumns, EvaluatedRun, EvaluatedTransfer

    if isinstance(done, CorruptedRun):
        _print_corrupted(done, as_json)
        return
    output = Output(as_json)
    if isinstance(done, EvaluatedRun):
        output.result(_values(done), _stages(done), *_summary(done))
        return
    if isinstance(done, EvaluatedTransfer):
        output.result(*_transfer(done))
        return
    if isinstance(done, EvaluatedColumns):
        output.result(_values_of_each(done), *_each(done), *_warnings(done.worst[-1]))
        return
    first = done.runs[0].evaluation
    consistent = first.consistent_accuracy is not None
    rows = [("0", str(first.clean_accuracy), *([""] * consistent), "")]
    rows += [
        (
            _fraction(run),
            str(run.evaluation.robust_accuracy),
            *([str(run.evaluation.consistent_accuracy)] * consistent),
            run.path.name,
        )
        for run in done.runs
    ]
    columns = (f"eps, {first.norm}", "accuracy [95 %]", *(["consistent [95 %]"] * consistent), "verdicts")
    output.result(
        {"curve": [_values(run) for run in done.runs], "file": str(done.path), "plot": str(done.plot)},
        table(columns, rows, words=1),
        f"{_images(first)}. Curve: {done.path}\nPlot: {done.plot}",
        *_warnings(done.runs[-1]),
    )


def _transfer(done: "EvaluatedTransfer") -> list[Any]:
    """The figures, then a matrix of accuracies and one of shares that transfer."""
    figures = done.figures
    numbered = [f"{number}: {name}" for number, name in enumerate(done.names, 1)]
    columns = ("made on", *(f"tried on {number}" for number in range(1, len(numbered) + 1)))
    accuracy = [(name, *map(_percent, row)) for name, row in zip(numbered, figures["accuracy"], strict=True)]
    clean = ("not attacked", *map(_percent, figures["clean_accuracy"]))
    shares = [(name, *map(_percent, row)) for name, row in zip(numbered, figures["transferred"], strict=True)]
    kind = "training" if figures["split"] == "train" else figures["split"]
    return [
        {**figures, "file": str(done.path), "plot": str(done.plot)},
        "Accuracy under attack [95 %]:",
        table(columns, [clean, *accuracy], words=1),
        "Share that breaks the other network, of the images that broke the one they were made on and that the other "
        "classifies correctly when clean [95 %]:",
        table(columns, shares, words=1),
        f"{figures['samples']} {kind} images, {figures['norm']}, eps {as_fraction(figures['eps'])}, seed "
        f"{figures['seed']}. Every attack makes all its steps, on every image.",
        f"Matrix: {done.path}\nPlot: {done.plot}",
        *(f"Note: {warning}" for warning in figures["warnings"]),
    ]


def _percent(share: dict[str, Any] | None) -> str:
    if share is None:
        return "none"
    low, high = (100 * bound for bound in share["interval"])
    return f"{100 * share['value']:.1f} [{low:.1f}, {high:.1f}]"


def _values_of_each(done: "EvaluatedColumns") -> dict[str, Any]:
    return {
        "columns": {
            name: [_values(run) for run in column] for name, column in zip(done.names, done.columns, strict=True)
        },
        "worst_case": [_values(run) for run in done.worst],
    }


def _each(done: "EvaluatedColumns") -> list[object]:
    """A row per attack and radius, with its figures over all images, then the worst case."""
    first = done.worst[0].evaluation
    consistent = first.consistent_accuracy is not None
    rows: list[tuple[str, ...]] = []
    for at, worst in enumerate(done.worst):
        rows.append(("clean", _fraction(worst), str(first.clean_accuracy), *([""] * consistent), "", "", "", ""))
        runs = [
            *((name, column[at]) for name, column in zip(done.names, done.columns, strict=True)),
            ("worst case", worst),
        ]
        for name, run in runs:
            found = run.evaluation
            means = (str(found.mean_distances[norm]) if norm in found.mean_distances else "" for norm in _NORMS)
            kept = [str(found.consistent_accuracy)] * consistent
            rows.append((name, _fraction(run), str(found.robust_accuracy), *kept, *means, f"{found.seconds:.1f} s"))
    kept = ["consistent [95 %]"] * consistent
    columns = ("attack", f"eps, {first.norm}", "accuracy [95 %]", *kept, *(f"mean {norm}" for norm in _NORMS), "time")
    files = ", ".join(run.path.name for column in done.columns for run in column)
    worst_files = ", ".join(str(run.path) for run in done.worst)
    return [
        table(columns, rows, words=1),
        f"{_images(first)}, seed {first.seed}; each attack by itself on all of them. Means: distances of the images "
        "that broke their samples. Brackets: 95 % intervals.",
        f"Verdicts: {files}\nWorst case: {worst_files}",
    ]


def _values(done: "EvaluatedRun") -> dict[str, Any]:
    adversarials = {"adversarials": str(done.adversarials)} if done.adversarials is not None else {}
    return {**done.evaluation.to_dict(), "file": str(done.path), **adversarials}


def _stages(done: "EvaluatedRun") -> object:
    """A row per attack, with what was left after it."""
    evaluation = done.evaluation
    standing = evaluation.clean_accuracy.successes
    rows = [("clean", "", str(standing), str(evaluation.clean_accuracy), "")]
    for stage in evaluation.stages:
        standing -= stage["broken"]
        share = f"{100 * standing / len(evaluation.verdicts):.1f} %"
        rows.append((stage["name"], str(stage["attacked"]), str(standing), share, f"{stage['seconds']:.1f} s"))
    robust = evaluation.robust_accuracy
    rows.append(("robust", "", str(robust.successes), str(robust), f"{evaluation.seconds:.1f} s"))
    kept, others = evaluation.consistent_accuracy, evaluation.misclassified
    if kept is not None and others is not None:
        wrong = str(len(others.verdicts))
        rows.append(("consistent", wrong, str(kept.successes), str(kept), f"{others.seconds:.1f} s"))
    return table(("attack", "attacked", "survivors", "accuracy [95 %]", "time"), rows, words=1)


def _images(evaluation: "Evaluation") -> str:
    if evaluation.split == "train":
        return f"{len(evaluation.verdicts)} training images, which say nothing about new ones"
    return f"{len(evaluation.verdicts)} {evaluation.split} images"


def _summary(done: "EvaluatedRun") -> list[str]:
    evaluation = done.evaluation
    lines = [
        f"{_images(evaluation)}, {evaluation.norm}, eps {_fraction(done)}, seed {evaluation.seed}.",
        f"{'Evaluated before' if done.before else 'Verdicts'}: {done.path}",
    ]
    if means := evaluation.mean_distances:
        shown = ", ".join(f"{norm} {mean}" for norm, mean in means.items())
        lines.append(f"Mean distance of the images that broke their samples [95 %]: {shown}.")
    if done.adversarials is not None:
        lines.append(f"Adversarial images: {done.adversarials}")
    if (saved := evaluation.saved) is not None:
        lines.append(
            f"Saved as 8-bit PNG, {saved['misleading_at_8_bits']} of the {saved['images']} images still mislead the "
            f"network, {saved['within_budget_at_8_bits']} of them within the budget."
        )
    return [*lines, *_warnings(done)]


def _warnings(done: "EvaluatedRun") -> list[str]:
    return [f"Note: {warning}" for warning in done.evaluation.warnings]


def _fraction(done: "EvaluatedRun") -> str:
    return as_fraction(done.evaluation.eps)
