"""From the name of a network to its analysis, as values and as files."""

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from robustmaps.analysis import (
    Analysis,
    ComparedAnalyses,
    analyze,
    analyze_both,
    feature_maps,
    short_names,
)
from robustmaps.attacks import PGD
from robustmaps.config import Surgery
from robustmaps.data import Dataset
from robustmaps.engine.files import write_json
from robustmaps.engine.finite import predictions
from robustmaps.engine.numbers import budget_text
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.view import plain_view
from robustmaps.engine.writing.outputs import claim, is_picture
from robustmaps.enlarging import Enlargement, EnlargeWarning, enlarge
from robustmaps.figures import AttackedImage, AttackedMaps, plot_gains, plot_maps
from robustmaps.models import Pool
from robustmaps.networks._names import name_given
from robustmaps.networks._subject import Subject, open_subject


@dataclass(frozen=True)
class AnalyzedNetwork:
    """An analysis and what was written of it.

    Attributes:
        result: of the network, or of it and its enlarged twin.
        enlargement: what was changed, None for one network.
        notes: what the reader has to know.
        files: what was written.
    """

    result: Analysis | ComparedAnalyses
    enlargement: Enlargement | None
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.result.to_dict(),
            "enlargement": None if self.enlargement is None else self.enlargement.to_dict(),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }


def analyze_network(
    model: str,
    surgery: Surgery | None = None,
    *,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    split: Literal["test", "validation"] = "test",
    samples: int | None = 32,
    eps: float | None = None,
    norm: str | None = None,
    steps: int = 20,
    directions: int = 4,
    weights: str | None = None,
    strides: str | None = None,
    pool: Pool | None = None,
    classes: str | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    watcher: Watcher = ignore,
) -> AnalyzedNetwork:
    """Analyse a network that has a name, and its enlarged twin beside it where one is asked for.

    Args:
        model: what `open_model` takes.
        surgery: what to change for the twin; no twin where None or nothing.
        data: the images; those that the network was trained on if left out, the digits where none are known.
        image_size: resize images to this many pixels a side.
        channels: of the images, 1 or 3; the data set's own where None.
        split: which images.
        samples: how many, drawn evenly from the classes; None for all.
        eps: the budget's radius; the one the network was trained for if left out, 8/255 where none is known.
        norm: the budget's norm; likewise, l_inf where none is known.
        steps: of projected gradient descent; 0 leaves it out.
        directions: random directions along which pooled features are looked at.
        weights: a file with weights for a network that is named, see `open_model`.
        strides: of a network of ours.
        pool: likewise.
        classes: names of the network's outputs in their order, as in `DataConfig`; the recorded order if left out.
        seed: of an untrained network's weights and of the directions.
        device: where to compute.
        out: a folder for ``analysis.json``, ``gain.png`` and ``maps.png``; nothing is written where None.
        watcher: called as the work goes on.

    Raises:
        InputError: a network, data or a budget that can't be used.
    """
    if out is not None:
        record, *pictures = _paths(Path(out))
        claim(record)
        claim(*pictures, ours=is_picture)
    subject = open_subject(
        model,
        data=data,
        image_size=image_size,
        channels=channels,
        split=split,
        samples=samples,
        eps=eps,
        norm=norm,
        weights=weights,
        strides=strides,
        pool=pool,
        classes=classes,
        seed=seed,
        device=device,
        watcher=watcher,
    )
    options: dict[str, Any] = {
        "norm": subject.norm,
        "eps": subject.eps,
        "steps": steps,
        "directions": directions,
        "seed": seed,
        "watcher": watcher,
    }
    notes = list(subject.data.notes)
    if not subject.network.trained:
        notes.append("the weights are random: accuracy, margin and gain / margin say nothing about a trained network")
    network = subject.network.model
    enlargement = None
    twin = network
    if surgery is None or surgery.is_none:
        result: Analysis | ComparedAnalyses = analyze(network, subject.x, subject.y, **options)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EnlargeWarning)  # they are among the notes
            twin, enlargement = enlarge(network, subject.x[:1], **surgery.arguments(), latency_runs=0)
        notes += enlargement.warnings
        result = analyze_both(network, twin, subject.x, subject.y, **options)
        notes.append(result.note)
    before = result if isinstance(result, Analysis) else result.before
    undecided = before.margin.margin.count(-math.inf)
    if undecided:
        notes.append(f"{undecided} of {len(subject.x)} images have NaN or infinite logits; they count as wrong")
    result = _named(result, name_given(model))
    files: tuple[Path, ...] = ()
    if out is not None:
        files = _write(Path(out), result, subject, [network] if enlargement is None else [network, twin])
    return AnalyzedNetwork(result, enlargement, tuple(notes), files)


def _named(result: Analysis | ComparedAnalyses, model: str) -> Analysis | ComparedAnalyses:
    """By what the user calls the network rather than by its class."""
    if isinstance(result, Analysis):
        return replace(result, network=model)
    return ComparedAnalyses(replace(result.before, network=model), replace(result.after, network=model))


def _paths(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "analysis.json", folder / "gain.png", folder / "maps.png"


def _write(
    folder: Path, result: Analysis | ComparedAnalyses, subject: Subject, networks: list[nn.Module]
) -> tuple[Path, ...]:
    sides = [result] if isinstance(result, Analysis) else [result.before, result.after]
    names = ["as it is", "enlarged"][: len(sides)]
    record, gains, maps = _paths(folder)
    plot_gains(gains, dict(zip(names, sides, strict=True)), f"Perturbation gain: {sides[0].title}")
    shown = _shown(sides[0])
    pictures = {
        name: _attacked_maps(network, side, subject, shown)
        for name, network, side in zip(names, networks, sides, strict=True)
    }
    budget = budget_text(sides[0].norm, sides[0].eps)
    plot_maps(maps, pictures, f"Feature maps under attack: {sides[0].network}, {budget}")
    write_json(record, result.to_dict())
    return record, gains, maps


def _shown(analysis: Analysis) -> int:
    """The first image that the network classifies right, where there is one."""
    return int(analysis.margin.right.argmax())


def _attacked_maps(network: nn.Module, side: Analysis, subject: Subject, shown: int) -> AttackedMaps:
    x, y = subject.x[shown : shown + 1], subject.y[shown : shown + 1]
    attack = PGD(norm=side.norm, eps=side.eps, steps=side.steps or 20, loss="margin", start="none")  # type: ignore[arg-type]
    x_adv = attack(network, x, y)
    stages = [report.stage for report in side.stages]
    clean, attacked = (feature_maps(network, images, stages) for images in (x, x_adv))
    with plain_view(network) as view, torch.no_grad():
        guesses = [int(predictions(view(images))) for images in (x, x_adv)]
    return AttackedMaps(
        image=AttackedImage(
            x[0].cpu().numpy(),
            x_adv[0].cpu().numpy(),
            (_class(subject.data, guesses[0]), _class(subject.data, guesses[1])),
            _class(subject.data, int(y)),
        ),
        eps=side.eps,
        stages=tuple(short_names(side)),
        clean=tuple(values[0].cpu().numpy() for values in clean),
        attacked=tuple(values[0].cpu().numpy() for values in attacked),
    )


def _class(data: Dataset, label: int) -> str:
    """The class's name; its number where the network has more classes than the data."""
    if label < 0:
        return "no class"
    return data.classes[label] if label < data.num_classes else f"class {label}"
