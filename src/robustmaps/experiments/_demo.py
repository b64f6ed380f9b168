"""The demonstration: what does enlarging the feature maps buy on real images, in minutes, on any machine?"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustmaps.analysis import Cost, measure_cost
from robustmaps.data import Dataset, load
from robustmaps.engine.files import write_json, write_text
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, human
from robustmaps.engine.progress import Progress
from robustmaps.engine.random import stream
from robustmaps.evaluation import Comparison, Evaluation, compare_all
from robustmaps.experiments._attacks import create_attacks
from robustmaps.experiments._checkpoints import open_checkpoint
from robustmaps.experiments._config import (
    AttackConfig,
    DataConfig,
    DefenseConfig,
    ModelConfig,
    RunConfig,
)
from robustmaps.experiments._evaluation import Options, evaluate_checkpoint
from robustmaps.experiments._parallel import Worker, available_cores, run_all
from robustmaps.experiments._report_words import as_sentence
from robustmaps.experiments._run import train
from robustmaps.experiments._variants import bounded, verdicts
from robustmaps.report import AttackedImage, Table, percent_cell, plot_attacked, plot_curves, table
from robustmaps.training import RunFolder, TrainOptions

EPS = 0.15
SEEDS = 3
_VARIANTS = {"122": 1.0, "122, inputs x2": 2.0}
_ATTACK = AttackConfig(steps=20, restarts=5)
_SHOWN = 8


@dataclass(frozen=True)
class Variant:
    """One network of the demonstration, over all seeds.

    Attributes:
        name: strides and upsampling.
        clean: clean accuracy on the test images.
        robust: robust accuracy on the same images.
        cost: of the network, for one image.
        train_s: mean seconds of training.
        evaluate_s: mean seconds of attacking.
    """

    name: str
    clean: Measured
    robust: Measured
    cost: Cost
    train_s: float
    evaluate_s: float


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found.

    Attributes:
        folder: where runs, plots and summary lie.
        variants: the network as it is, then the enlarged one.
        clean_gain, robust_gain: the second minus the first, paired by image and seed.
    """

    folder: Path
    variants: tuple[Variant, ...]
    clean_gain: Comparison
    robust_gain: Comparison

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "variants": [
                {
                    "name": v.name,
                    "clean_accuracy": {"value": v.clean.value, "interval": v.clean.interval},
                    "robust_accuracy": {"value": v.robust.value, "interval": v.robust.interval},
                    "cost": v.cost.to_dict(),
                    "train_s": v.train_s,
                    "evaluate_s": v.evaluate_s,
                }
                for v in self.variants
            ],
            "clean_gain": self.clean_gain.to_dict(),
            "robust_gain": self.robust_gain.to_dict(),
        }

    def table(self) -> Table:
        """One row per figure; the networks side by side, then the difference."""
        first, second = self.variants

        def size(name: str, unit: str) -> tuple[str, ...]:
            before, after = (getattr(v.cost, name) for v in self.variants)
            return human(before, unit), human(after, unit), f"x {after / before:.2f}"

        rows = [
            ("clean accuracy", percent_cell(first.clean), percent_cell(second.clean), self.clean_gain),
            ("robust accuracy", percent_cell(first.robust), percent_cell(second.robust), self.robust_gain),
            ("map before pooling", *("x".join(map(str, v.cost.map_size or ())) for v in self.variants), ""),
            ("forward pass", *size("flops", "FLOP")),
            ("parameters", *size("parameters", "")),
            ("activation memory", *size("activation_bytes", "B")),
            ("training, per run", f"{first.train_s:.0f} s", f"{second.train_s:.0f} s", ""),
            ("attack, per run", f"{first.evaluate_s:.0f} s", f"{second.evaluate_s:.0f} s", ""),
        ]
        return table(("ResNet-8", first.name, second.name, "difference"), rows)

    def sentence(self) -> str:
        """The answer in words, no stronger than the data."""
        return as_sentence(self.robust_gain)


@dataclass(frozen=True)
class _TrainAndAttack:
    """One run of the demonstration, in a process of its own."""

    config: RunConfig
    out: Path

    def __call__(self, worker: Worker) -> tuple[Path, Path, float]:
        """Returns the run folder, its evaluation and the seconds of training."""
        run = train(self.config, self.out, resume=True, watcher=worker.watch, should_stop=worker.should_stop)
        evaluated = evaluate_checkpoint(
            run.folder, _ATTACK, Options(data=run.data, batch_size=256, device="cpu", watcher=worker.watch)
        )
        return run.folder, evaluated.path, run.fit.seconds


def demo(
    out: str | Path = "runs/demo",
    *,
    seeds: int = SEEDS,
    epochs: int = 10,
    jobs: int | None = None,
    watcher: Callable[[str, Progress], None] = lambda _, __: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DemoResult:
    """Train ResNet-8 and its twin with inputs upsampled by 2 on the digits, attack both, and compare.

    Runs that are there already are used again; ones that were stopped go on.

    Args:
        out: where runs, plots and the summary go.
        seeds: runs per network.
        epochs: of each run.
        jobs: runs at once; as many as there are cores if left out. Each run uses one core, so the figures do not
            depend on it.
        watcher: called with a run's title as the work goes on.
        should_stop: True saves all runs and raises `training.Interrupted`.
    """
    folder = Path(out)
    configs = {
        (name, seed): _config(upsample, seed, epochs)
        for (name, upsample), seed in product(_VARIANTS.items(), range(seeds))
    }
    # Longest first, so that no core waits at the end for one long run.
    order = sorted(configs, key=lambda key: -_VARIANTS[key[0]])
    results = run_all(
        [_TrainAndAttack(configs[key], folder) for key in order],
        jobs=min(jobs or available_cores(), len(order)),
        threads=1,
        watcher=lambda index, progress: watcher(f"{order[index][0]}, seed {order[index][1]}", progress),
        should_stop=should_stop,
    )
    done = dict(zip(order, results, strict=True))
    result = _summarise(folder, {name: [done[name, seed] for seed in range(seeds)] for name in _VARIANTS})
    _write(folder, result, {name: [done[name, seed][0] for seed in range(seeds)] for name in _VARIANTS})
    return result


def _config(upsample: float, seed: int, epochs: int) -> RunConfig:
    return RunConfig(
        ModelConfig(model="resnet8", upsample=upsample),
        DataConfig(data="digits"),
        DefenseConfig(eps=EPS, steps=5),
        TrainOptions(
            epochs=epochs,
            batch_size=64,
            schedule="one-cycle",
            seed=seed,
            device="cpu",
            precision="fp32",
            checkpoint_every_s=10,
        ),
    )


def _summarise(folder: Path, runs: Mapping[str, list[tuple[Path, Path, float]]]) -> DemoResult:
    evaluations = {name: [Evaluation.load(path) for _, path, _ in done] for name, done in runs.items()}
    example = load("digits").test.subset(1).tensors()[0]
    variants = tuple(
        Variant(
            name,
            bounded(evaluations[name], "clean_correct"),
            bounded(evaluations[name], "robust_correct"),
            measure_cost(open_checkpoint(done[0][0]).model, example),
            float(np.mean([seconds for _, _, seconds in done])),
            float(np.mean([e.seconds for e in evaluations[name]])),
        )
        for name, done in runs.items()
    )
    names = ("ResNet-8", "ResNet-8 with inputs upsampled by 2")
    clean, robust = (
        compare_all({n: verdicts(each, which) for n, each in zip(names, evaluations.values(), strict=True)})[0]
        for which in ("clean_correct", "robust_correct")
    )
    return DemoResult(folder, variants, clean, robust)


def _write(folder: Path, result: DemoResult, runs: Mapping[str, list[Path]]) -> None:
    histories = {name: [RunFolder(path).read_history() for path in paths] for name, paths in runs.items()}
    budget = f"l_inf, eps {as_fraction(EPS)}"
    plot_curves(
        folder / "curves.png",
        histories,
        f"Adversarial training of ResNet-8 on digits ({budget}, PGD-5), {result.robust_gain.seeds} seeds",
    )
    data = load("digits")
    plot_attacked(
        folder / "attacked.png",
        {name: _attacked(paths[0], data) for name, paths in runs.items()},
        EPS,
        f"The same test images attacked on both networks ({budget}, PGD-20, 5 restarts)",
    )
    write_json(folder / "summary.json", result.to_dict())
    write_text(folder / "summary.md", _markdown(result, runs))


def _attacked(path: Path, data: Dataset) -> list[AttackedImage]:
    """The first test image of the first classes, before and after the attack."""
    images = data.test
    rows = torch.stack([(images.labels == label).nonzero()[0, 0] for label in range(_SHOWN)])
    x, y = images.subset(rows).tensors()
    checkpoint = open_checkpoint(path)
    model = checkpoint.model.eval()
    (attack,) = create_attacks(_ATTACK, checkpoint.norm, checkpoint.eps)
    x_adv = attack(model, x, y, generator=stream(0, "picture"))

    def names(batch: Tensor) -> list[str]:
        with torch.no_grad():
            return [data.classes[label] for label in model(batch).argmax(1).tolist()]

    return [
        AttackedImage(clean.numpy(), adv.numpy(), (before, after), data.classes[label])
        for clean, adv, before, after, label in zip(x, x_adv, names(x), names(x_adv), y.tolist(), strict=True)
    ]


def _markdown(result: DemoResult, runs: Mapping[str, list[Path]]) -> str:
    environment = json.loads((next(iter(runs.values()))[0] / "environment.json").read_text(encoding="utf-8"))
    listed = "\n".join(f"- {name}: {', '.join(f'`{path.name}`' for path in paths)}" for name, paths in runs.items())
    return f"""# What larger feature maps buy: ResNet-8 on digits

{result.sentence()}

{result.table().to_markdown()}
Accuracies are means over {result.robust_gain.seeds} seeds on {result.robust_gain.images} test images that neither \
training nor the choice of the best epoch has seen, with 95 % intervals over seeds and images; \
differences are paired by seed and image. Robust accuracy: l_inf, eps {as_fraction(EPS)}, PGD-20 with 5 restarts; \
training used PGD-5. Costs are those of one image, forward. Times are means per run, one core each.

![validation accuracy over epochs](curves.png)

![attacked images](attacked.png)

Runs:

{listed}

Computed with robustmaps {environment["robustmaps"]}, PyTorch {environment["torch"]}, on {environment["device"]}.
"""
