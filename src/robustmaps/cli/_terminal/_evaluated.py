"""Evaluations on the terminal: tables, and the same as JSON."""

import warnings
from typing import TYPE_CHECKING, Any

from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._streams import Warned
from robustmaps.engine.numbers import as_fraction, budget_text, norm_text
from robustmaps.engine.tables import table
from robustmaps.engine.views.passes import Passes

if TYPE_CHECKING:
    from robustmaps.evaluation import Evaluation
    from robustmaps.runs import CorruptedRun, EvaluatedColumns, EvaluatedCurve, EvaluatedRun, EvaluatedTransfer

    Done = EvaluatedRun | EvaluatedCurve | EvaluatedColumns | EvaluatedTransfer | CorruptedRun

_NORMS = ("linf", "l2", "l1")
_PASSES = "Passes: forward + backward per attacked image, with those of the verdicts."


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
    columns = (f"eps, {norm_text(first.norm)}", "accuracy [95 %]", *(["consistent [95 %]"] * consistent), "verdicts")
    output.result(
        {"curve": [_values(run) for run in done.runs], "file": str(done.path), "plot": str(done.plot)},
        table(columns, rows, words=1),
        f"{_images(first)}. Curve: {done.path}\nPlot: {done.plot}",
        *_warnings(done.runs[-1]),
    )


def _transfer(done: "EvaluatedTransfer") -> list[Any]:
    """The figures, then a matrix of accuracies and one of shares that transfer."""
    figures = done.figures
    names = done.titles
    columns = ("made on", *(f"tried on {name}" for name in names))
    accuracy = [(name, *map(_percent, row)) for name, row in zip(names, figures["accuracy"], strict=True)]
    clean = ("not attacked", *map(_percent, figures["clean_accuracy"]))
    shares = [(name, *map(_percent, row)) for name, row in zip(names, figures["transferred"], strict=True)]
    networks = ", ".join(f"{short} is {name}" for short, name in zip(names, done.names, strict=True) if short != name)
    kind = "training" if figures["split"] == "train" else figures["split"]
    return [
        {**figures, "file": str(done.path), "plot": str(done.plot)},
        "Accuracy under attack [95 %]:",
        table(columns, [clean, *accuracy], words=1),
        "Share that breaks the other network, of the images that broke the one they were made on and that the other "
        "classifies correctly when clean [95 %]:",
        table(columns, shares, words=1),
        f"{figures['samples']} {kind} images, {budget_text(figures['norm'], figures['eps'])}, seed "
        f"{figures['seed']}. Every attack makes all its steps, on every image.",
        *([f"Networks: {networks}."] if networks else []),
        f"Matrix: {done.path}\nPlot: {done.plot}",
        *(f"Note: {warning}" for warning in figures["warnings"]),
    ]


def _percent(share: dict[str, Any] | None) -> str:
    if share is None:
        return "none"
    low, high = (100 * bound for bound in share["interval"])
    return f"{100 * share['value']:.1f} % [{low:.1f}, {high:.1f}]"


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
        rows.append(("clean", _fraction(worst), str(first.clean_accuracy), *([""] * consistent), *[""] * 5))
        runs = [
            *((name, column[at]) for name, column in zip(done.names, done.columns, strict=True)),
            ("worst case", worst),
        ]
        for name, run in runs:
            found = run.evaluation
            means = (str(found.mean_distances[norm]) if norm in found.mean_distances else "" for norm in _NORMS)
            kept = [str(found.consistent_accuracy)] * consistent
            cost = (found.passes.text(found.attacked) if found.passes else "", f"{found.seconds:.1f} s")
            rows.append((name, _fraction(run), str(found.robust_accuracy), *kept, *means, *cost))
    kept = ["consistent [95 %]"] * consistent
    means = (f"mean {norm_text(norm)}" for norm in _NORMS)
    columns = ("attack", f"eps, {norm_text(first.norm)}", "accuracy [95 %]", *kept, *means, "passes", "time")
    files = ", ".join(run.path.name for column in done.columns for run in column)
    worst_files = ", ".join(str(run.path) for run in done.worst)
    return [
        table(columns, rows, words=1),
        f"{_images(first)}, seed {first.seed}; each attack by itself on all of them. Means: distances of the images "
        f"that broke their samples. {_PASSES} Brackets: 95 % intervals.",
        f"Verdicts: {files}\nWorst case: {worst_files}",
    ]


def _values(done: "EvaluatedRun") -> dict[str, Any]:
    adversarials = {"adversarials": str(done.adversarials)} if done.adversarials is not None else {}
    return {**done.evaluation.to_dict(), "file": str(done.path), **adversarials}


def _stages(done: "EvaluatedRun") -> object:
    """A row per attack, with what was left after it."""
    from robustmaps.evaluation import shown_names

    evaluation = done.evaluation
    standing = evaluation.clean_accuracy.successes
    shown = shown_names(evaluation.attacks)
    rows = [("clean", "", str(standing), str(evaluation.clean_accuracy), "", "")]
    for stage in evaluation.stages:
        standing -= stage["broken"]
        share = f"{100 * standing / len(evaluation.verdicts):.1f} %"
        counted, attacked = Passes.of(stage), stage["attacked"]
        cost = (counted.text(attacked) if counted else "", f"{stage['seconds']:.1f} s")
        rows.append((shown.get(stage["name"], stage["name"]), str(attacked), str(standing), share, *cost))
    robust = evaluation.robust_accuracy
    passes = evaluation.passes.text(evaluation.attacked) if evaluation.passes else ""
    rows.append(("robust", "", str(robust.successes), str(robust), passes, f"{evaluation.seconds:.1f} s"))
    kept, others = evaluation.consistent_accuracy, evaluation.misclassified
    if kept is not None and others is not None:
        wrong, counted = str(len(others.verdicts)), Passes.of_all(others.stages)
        passes = counted.text(others.stages[0]["attacked"]) if counted else ""
        rows.append(("consistent", wrong, str(kept.successes), str(kept), passes, f"{others.seconds:.1f} s"))
    return table(("attack", "attacked", "survivors", "accuracy [95 %]", "passes", "time"), rows, words=1)


def _images(evaluation: "Evaluation") -> str:
    if evaluation.split == "train":
        return f"{len(evaluation.verdicts)} training images, which say nothing about new ones"
    return f"{len(evaluation.verdicts)} {evaluation.split} images"


def _summary(done: "EvaluatedRun") -> list[str]:
    evaluation = done.evaluation
    lines = [
        f"{_images(evaluation)}, {budget_text(evaluation.norm, evaluation.eps)}, seed {evaluation.seed}. {_PASSES}",
        f"{'Evaluated before' if done.before else 'Verdicts'}: {done.path}",
    ]
    if means := evaluation.mean_distances:
        shown = ", ".join(f"{norm_text(norm)} {mean}" for norm, mean in means.items())
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
    """Those that were not printed as they came."""
    printed = warnings.showwarning.texts if isinstance(warnings.showwarning, Warned) else ()
    return [f"Note: {text}" for text in done.evaluation.warnings if text not in printed]


def _fraction(done: "EvaluatedRun") -> str:
    return as_fraction(done.evaluation.eps)
