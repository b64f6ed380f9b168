"""Transfer, corrupted images and features in the plane: what the trained networks are opened for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.tables import Cell, percent_cell, table
from robustmaps.evaluation import over_seeds
from robustmaps.figures import plot_lines, plot_planes, plot_transfer
from robustmaps.networks import load_data
from robustmaps.report.ready._made import Made, Rendered
from robustmaps.runs import evaluate_corrupted, evaluate_transfer
from robustmaps.studies import corrupted_test_images, features_in_plane

_CORRUPTED = "corrupted-images"


def transfer(made: Made) -> Rendered:
    """A matrix of networks that attacks are made on and tried on."""
    folders = [variant.runs[0].folder for variant in made.variants]
    names = [variant.name for variant in made.variants]
    found = evaluate_transfer(folders, made.wanted.attack, made.options(made.variants[0]))
    accuracy = found.figures["accuracy"]
    rows = [(name, *(_percent(cell) for cell in cells)) for name, cells in zip(names, accuracy, strict=True)]
    clean = [_percent(cell) for cell in found.figures["clean_accuracy"]]
    what = f"{made.wanted.attack.attack}, eps {as_fraction(found.figures['eps'])}, {found.figures['samples']:,} images"
    return Rendered(
        table(
            ("attack made on", *names), [*rows, ("no attack", *clean)], f"Accuracy of each network (columns), {what}"
        ),
        lambda path: plot_transfer(path, names, accuracy, f"{made.title}: accuracy (%)\n{what}"),
        f"Accuracy under attacks made on the network of the row; {what}.",
    )


def _percent(cell: Mapping[str, Any]) -> Cell:
    return percent_cell(_measured(cell))


def _measured(cell: Mapping[str, Any]) -> Measured:
    low, high = cell["interval"]
    return Measured(float(cell["value"]), float(low), float(high), percent=True)


def corruptions(made: Made) -> Rendered:
    """Accuracy on corrupted images by severity."""
    folder = made.corruptions
    if folder is None:
        folder = corrupted_test_images(load_data(made.variants[0].config.data), made.plan.out / _CORRUPTED)
    lines: dict[str, list[tuple[float, Measured]]] = {}
    rows = []
    for variant in made.variants:
        options = replace(made.options(variant), batch_size=None)
        figures = [evaluate_corrupted(run.folder, folder, options).figures for run in variant.runs]
        mean = _over([each["mean_corruption_accuracy"] for each in figures])
        severities = [_over([each["severities"][number] for each in figures]) for number in range(5)]
        lines[variant.name] = [(number, one) for number, one in enumerate(severities, 1)]
        rows.append((variant.name, percent_cell(variant.clean), percent_cell(mean), *map(percent_cell, severities)))
    names = ", ".join(figures[0]["corruptions"])
    columns = ("configuration", "clean", "mean", *(f"severity {number}" for number in range(1, 6)))
    caption = f"{made.title}: accuracy, mean over {names}"
    return Rendered(
        table(columns, rows, caption),
        lambda path: plot_lines(path, lines, "severity", made.title),
        f"Mean accuracy over {names}. Bands: 95 % intervals.",
    )


def _over(cells: Sequence[Mapping[str, Any]]) -> Measured:
    """One seed's figure, or the mean over seeds."""
    each = [_measured(cell) for cell in cells]
    if len(each) == 1:
        return each[0]
    mean = over_seeds([one.value for one in each])
    return Measured(mean.value, max(mean.low, 0.0), min(mean.high, 1.0), percent=True)


def plane(made: Made) -> Rendered:
    """Features before and after an attack."""
    found = {
        variant.name: features_in_plane(variant.runs[0].folder, made.wanted, device=variant.config.training.device)
        for variant in made.variants
    }
    rows = [
        (
            name,
            Cell(str(len(plane.labels)), len(plane.labels)),
            *(percent_cell(Measured.share(int(right.sum()), len(right))) for right in plane.right),
            Cell(f"{plane.shift:.2f}", plane.shift),
            Cell(f"{100 * plane.variance:.0f} %", 100 * plane.variance),
        )
        for name, plane in found.items()
    ]
    columns = ("configuration", "images", "clean", "attacked", "shift", "variance in the plane")
    first = next(iter(found.values()))
    caption = (
        f"{made.title}: {made.wanted.attack.attack} on classes {', '.join(first.classes.values())}; shift: "
        "median way of the features under the attack, over the mean distance of the classes' centres"
    )
    planes = {
        name: {f"principal components ({100 * p.variance:.0f} % of the variance)": p.components, "t-SNE": p.neighbours}
        for name, p in found.items()
    }
    labels = {name: plane.labels for name, plane in found.items()}
    return Rendered(
        table(columns, rows, caption),
        lambda path: plot_planes(path, planes, labels, first.classes, made.title),
        "Pooled features. Dots are clean images, crosses the same images under attack; colours are true classes.",
    )
