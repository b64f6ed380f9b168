"""The computed parts of a report: attacked images, feature maps and the gain along the depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustmaps.analysis import Analysis, analyze, feature_maps, short_names
from robustmaps.attacks import PGD
from robustmaps.data import Dataset, ImageSet
from robustmaps.engine.device import resolve_device
from robustmaps.engine.finite import predictions
from robustmaps.engine.numbers import budget_text
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.text import shell
from robustmaps.engine.view import plain_view
from robustmaps.figures import png_of_change, png_of_image, png_of_map
from robustmaps.networks import open_evaluated
from robustmaps.report._blocks import Block, Gallery, Missing, Text, Tile
from robustmaps.report.charts._depth import DepthSeries, depth_chart
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.runs import RunRecord
from robustmaps.studies import Variant

_SHOWN, _ANALYSED = 8, 32
_STEPS = 20
_ABOUT_MAPS = """Maps: an image and the last map of each stage, as root mean square over channels. Clean and attacked
map share a scale of brightness; the change has its own, and the figure below it is its relative size."""


@dataclass(frozen=True)
class _Pictures:
    """Blocks of the report that need the networks.

    Attributes:
        images: attacked images with the perturbation and the predictions.
        inside: the gain along the depth, and feature maps.
    """

    images: tuple[Block, ...]
    inside: tuple[Block, ...]


@dataclass(frozen=True)
class _Opened:
    name: str
    model: nn.Module
    norm: str
    eps: float

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        """The images after a short deterministic attack."""
        pgd = PGD(norm=self.norm, eps=self.eps, steps=_STEPS, loss="margin", start="none")  # type: ignore[arg-type]
        return pgd(self.model, x, y)

    def guesses(self, x: Tensor, classes: Sequence[str]) -> list[str]:
        """The predicted classes."""
        with plain_view(self.model) as view, torch.no_grad():
            found: list[int] = predictions(view(x)).tolist()
        return [classes[label] if label >= 0 else "no class" for label in found]


def images(material: Material) -> tuple[Block, ...]:
    """Images under a short attack."""
    drawn = material.once(_drawn)
    return drawn.images if isinstance(drawn, _Pictures) else _left_out(material, drawn)


def inside(material: Material) -> tuple[Block, ...]:
    """The gain along the depth, and feature maps."""
    drawn = material.once(_drawn)
    return drawn.inside if isinstance(drawn, _Pictures) else _left_out(material, drawn)


def _left_out(material: Material, reason: str) -> tuple[Block, ...]:
    text = reason or "Omitted, or the network or its images are not available here. If both are, this adds it:"
    return (Missing(text, shell("robustmaps", "report", material.study.folder, *permission(*material.study.runs))),)


def _drawn(material: Material) -> _Pictures | str:
    """Pictures of the best configuration and its reference, if any; else the reason, empty if nothing went wrong."""
    data, study = material.data, material.study
    if data is None or not material.pictures:
        return ""
    chosen = [
        (variant.name, run)
        for variant in (study.reference, study.best)
        if variant is not None and (run := _finished(variant)) is not None
    ]
    # Networks trained on other images would need other pictures.
    alike = [(name, run.folder) for name, run in chosen if run.config.data == chosen[-1][1].config.data]
    if not alike:
        return ""
    try:
        return _draw(alike, data, study.tints, material.device, material.watcher)
    except Exception as error:  # noqa: BLE001 - unreadable weights, untrusted or failing code, out of memory
        reason = str(error).partition("\n")[0]
        return f"The network could not be opened or attacked: {reason}. Afterwards, this adds it:"


def _finished(variant: Variant) -> RunRecord | None:
    return next((run for run in variant.runs if run.status in ("finished", "evaluated")), None)


def _draw(
    runs: Sequence[tuple[str, Path]], data: Dataset, tints: Mapping[str, int], device: str, watcher: Watcher
) -> _Pictures:
    checkpoints = [(name, open_evaluated(path)) for name, path in runs]
    at = resolve_device(device)
    # The budget of the last for all, so that they can be compared.
    norm, eps = checkpoints[-1][1].norm, checkpoints[-1][1].eps
    opened = [_Opened(name, checkpoint.model.to(at).eval(), norm, eps) for name, checkpoint in checkpoints]
    x, y = (values.to(at) for values in _first_of_classes(data).tensors())
    budget = f"{budget_text(norm, eps)}"
    pictures: list[Block] = [
        Text(
            f"The first test image of each class under PGD with {_STEPS} steps, {budget}. Perturbation: grey is no "
            "change, black and white are the whole budget down and up."
        )
    ]
    for number, one in enumerate(opened):
        watcher(Progress(f"pictures of {one.name}", number, len(opened), "networks"))
        pictures.append(_attacked(one, x, y, data))
    few, labels = (values.to(at) for values in data.test.subset(min(_ANALYSED, len(data.test))).tensors())
    analyses: list[Analysis] = []
    for one in opened:
        like = [report.stage for report in analyses[0].stages] if analyses else []
        analyses.append(
            analyze(
                one.model,
                few,
                labels,
                eps=eps,
                norm=norm,
                steps=_STEPS,
                latency_runs=0,
                like=like,
                watcher=watcher,
            )
        )
    maps = [_maps(one, analysis, x[:1], y[:1], data) for one, analysis in zip(opened, analyses, strict=True)]
    return _Pictures(tuple(pictures), (*_depth(opened, analyses, tints), Text(_ABOUT_MAPS), *maps))


def _first_of_classes(data: Dataset) -> ImageSet:
    """The first test image of each of the first classes, to avoid any selection."""
    labels = data.test.labels
    present = [label for label in range(data.num_classes) if bool((labels == label).any())][:_SHOWN]
    return data.test.subset(torch.stack([(labels == label).nonzero()[0, 0] for label in present]))


def _attacked(one: _Opened, x: Tensor, y: Tensor, data: Dataset) -> Gallery:
    x_adv = one.attack(x, y)
    before, after = one.guesses(x, data.classes), one.guesses(x_adv, data.classes)
    truths = y.tolist()
    clean, change, attacked = [], [], []
    for number, truth in enumerate(truths):
        name = data.classes[truth]
        image, adversarial = (batch[number].cpu().numpy() for batch in (x, x_adv))
        clean.append(_guess_tile(png_of_image(image), before[number], name, "clean"))
        change.append(Tile(png_of_change(adversarial - image, one.eps), f"perturbation of the {name}, magnified"))
        attacked.append(_guess_tile(png_of_image(adversarial), after[number], name, "attacked"))
    return Gallery(
        one.name,
        (
            ("Clean, with the prediction", tuple(clean)),
            ("Perturbation, magnified", tuple(change)),
            ("Attacked, with the prediction", tuple(attacked)),
        ),
    )


def _guess_tile(png: bytes, guess: str, truth: str, state: str) -> Tile:
    verdict = "correctly" if guess == truth else "wrongly"
    return Tile(png, f"{state} image of {truth}, {verdict} classified as {guess}", note=guess, right=guess == truth)


def _depth(opened: Sequence[_Opened], analyses: Sequence[Analysis], tints: Mapping[str, int]) -> tuple[Block, ...]:
    if len({len(analysis.stages) for analysis in analyses}) > 1:
        analyses, opened = analyses[-1:], opened[-1:]  # stages that don't match can't share an axis
    relative = all(report.gain.spread for analysis in analyses for report in analysis.stages)
    series = [
        DepthSeries(
            one.name,
            tuple(r.gain.relative if relative else r.gain.first_order for r in analysis.stages),
            tuple(r.gain.relative_reached if relative else r.gain.reached for r in analysis.stages),
            tuple("x".join(map(str, report.stage.map_size)) for report in analysis.stages),
        )
        for one, analysis in zip(opened, analyses, strict=True)
    ]
    unit = "spread of the features over images" if relative else "units of the features"
    first = analyses[0]
    text = (
        f"On {first.images} test images, {budget_text(first.norm, first.eps)}. The perturbation gain is the "
        "largest change of a stage's pooled features within the budget: to first order, and by an attack."
    )
    return (Text(text), depth_chart(short_names(first), series, unit, first.steps, tints))


def _maps(one: _Opened, analysis: Analysis, x: Tensor, y: Tensor, data: Dataset) -> Gallery:
    """One image and its maps, clean and attacked, as the root mean square over channels."""
    x_adv = one.attack(x, y)
    stages = [report.stage for report in analysis.stages]
    clean, attacked = ([m[0].cpu().numpy() for m in feature_maps(one.model, images, stages)] for images in (x, x_adv))
    guesses = [one.guesses(images, data.classes)[0] for images in (x, x_adv)]
    truth = data.classes[int(y)]
    image, adversarial = x[0].cpu().numpy(), x_adv[0].cpu().numpy()
    rows = [
        [replace(_guess_tile(png_of_image(image), guesses[0], truth, "clean"), title="image")],
        [_guess_tile(png_of_image(adversarial), guesses[1], truth, "attacked")],
        [Tile(png_of_change(adversarial - image, one.eps), "perturbation, magnified")],
    ]
    for name, stage, before, after in zip(short_names(analysis), stages, clean, attacked, strict=True):
        size = "x".join(map(str, stage.map_size))
        length = float(np.linalg.norm(before))
        share = f"{100 * float(np.linalg.norm(after - before)) / length:.3g} %" if length else "-"
        pictures = [np.sqrt((values**2).mean(0)) for values in (before, after, after - before)]
        brightest = max(float(picture.max()) for picture in pictures[:2])
        tops = (brightest, brightest, float(pictures[2].max()))
        for row, picture, top, state in zip(rows, pictures, tops, ("clean", "attacked", "change of the"), strict=True):
            note = share if row is rows[2] else ""
            title = f"{name} {size}" if row is rows[0] else ""
            row.append(Tile(png_of_map(picture, top), f"{state} map of {name}, {size}", title, note))
    return Gallery(
        f"Feature maps of {one.name}",
        tuple((name, tuple(row)) for name, row in zip(("Clean", "Attacked", "Change"), rows, strict=True)),
    )


ROWS = (
    SectionRow(name="images", title="Images under attack", order=60, blocks=images),
    SectionRow(name="inside", title="Inside the network", order=70, blocks=inside),
)
