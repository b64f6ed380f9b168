"""The demonstration: the gain from larger feature maps on real images, in minutes, on any machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustmaps.config import AttackConfig, make_study
from robustmaps.data import Dataset, load
from robustmaps.engine.calling import network_logits
from robustmaps.engine.files import remove, write_json, write_text
from robustmaps.engine.finite import predictions
from robustmaps.engine.numbers import budget_text, human
from robustmaps.engine.random import stream
from robustmaps.engine.tables import Table, percent_cell, table
from robustmaps.evaluation import Comparison, compare_all
from robustmaps.figures import AttackedImage, plot_attacked, plot_curves
from robustmaps.networks import choose_images, open_checkpoint
from robustmaps.runs import Yardstick, create_attacks, read_run
from robustmaps.studies._configurations import Variant, group
from robustmaps.studies._plan import SweepPlan, evaluation_names, plan_sweep
from robustmaps.studies._progress import SweepState
from robustmaps.studies._sweep import RunsFailed, claim_study, sweep

EPS = 0.15
SEEDS = 5
_UPSAMPLES = (1, 2)
_SHOWN = 8
_FILES = ("curves.png", "attacked.png", "summary.json", "summary.md")


@dataclass(frozen=True)
class DemoResult:
    """The result of the demonstration.

    Attributes:
        folder: folder of the runs, plots and summary.
        variants: the original network, then the enlarged one, over all seeds.
        clean_gain, robust_gain: accuracy of the second minus the first, paired by image and seed.
    """

    folder: Path
    variants: tuple[Variant, ...]
    clean_gain: Comparison
    robust_gain: Comparison

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            "folder": str(self.folder),
            "variants": [
                {
                    "name": v.name,
                    "clean_accuracy": {"value": v.clean.value, "interval": v.clean.interval},
                    "robust_accuracy": {"value": v.robust.value, "interval": v.robust.interval},
                    "cost": None if v.cost is None else v.cost.to_dict(),
                    "train_s": _train_s(v),
                    "evaluate_s": _evaluate_s(v),
                }
                for v in self.variants
            ],
            "clean_gain": self.clean_gain.to_dict(),
            "robust_gain": self.robust_gain.to_dict(),
        }

    def table(self) -> Table:
        """One row per figure: both networks, then the difference."""
        costs = [v.cost for v in self.variants if v.cost is not None]

        def size(name: str, unit: str) -> tuple[str, ...]:
            before, after = (getattr(cost, name) for cost in costs)
            return human(before, unit), human(after, unit), f"x {after / before:.2f}"

        rows = [
            ("clean accuracy", *(percent_cell(v.clean) for v in self.variants), self.clean_gain),
            ("robust accuracy", *(percent_cell(v.robust) for v in self.variants), self.robust_gain),
            ("map before pooling", *("x".join(map(str, cost.map_size or ())) for cost in costs), ""),
            ("forward pass", *size("flops", "FLOP")),
            ("parameters", *size("parameters", "")),
            ("activation memory", *size("activation_bytes", "B")),
            ("training, per run", *(f"{_train_s(v):.0f} s" for v in self.variants), ""),
            ("attack, per run", *(f"{_evaluate_s(v):.0f} s" for v in self.variants), ""),
        ]
        return table(("figure", *(v.name for v in self.variants), "difference"), rows)

    def sentence(self) -> str:
        """The answer in words, no stronger than the data."""
        return self.robust_gain.as_sentence()


def demo(
    out: str | Path = "runs/demo",
    *,
    seeds: int = SEEDS,
    epochs: int = 10,
    jobs: int | None = None,
    watcher: Callable[[SweepState], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DemoResult:
    """Train ResNet-8 and its twin with inputs upsampled by 2 on the digits, attack both, and compare.

    It is a study of two configurations, so that finished runs are reused and stopped ones resumed.

    Args:
        out: folder for the runs, plots and summary.
        seeds: runs per network.
        epochs: epochs of each run.
        jobs: number of parallel runs; by default the number of cores. Each run uses one core, so results do not depend
            on it.
        watcher: receives progress reports.
        should_stop: if True, saves all runs and raises `Interrupted`.

    Raises:
        RunsFailed: a run failed; the others are kept.
    """
    study = {
        "axes": {"upsample": list(_UPSAMPLES), "seed": list(range(seeds))},
        "fixed": {
            "model": "resnet8",
            "data": "digits",
            "eps": EPS,
            "steps": 5,
            "epochs": epochs,
            "batch_size": 64,
            "schedule": "one-cycle",
            "device": "cpu",
            "precision": "fp32",
            "checkpoint_every_s": 10,
        },
        "evaluation": {"attack": "pgd", "steps": 20, "restarts": 5, "batch_size": 256},
    }
    plan = plan_sweep(make_study(study, Path("demo")), out, jobs=jobs, threads=1)
    claim_study(plan, *(plan.out / name for name in _FILES))
    done = sweep(plan, watcher=watcher, should_stop=should_stop)
    if done.failed:
        raise RunsFailed("; ".join(f"{path}: {text}" for path, text in done.failed.items()))
    result = _result(plan)
    _write(result, plan)
    return result


def _result(plan: SweepPlan) -> DemoResult:
    records = [read_run(run.folder) for run in plan.runs]
    name = evaluation_names(records[0], plan.study.evaluations[0])[-1]
    yardstick = None if name is None else Yardstick.of(records[0].evaluations[name])
    variants = tuple(sorted(group(records, yardstick), key=lambda variant: variant.config.model.upsample))
    clean, robust = (
        compare_all(
            {
                variant.name: {seed: getattr(evaluation, which) for seed, evaluation in variant.evaluated.items()}
                for variant in variants
            }
        )[0]
        for which in ("clean_correct", "robust_correct")
    )
    return DemoResult(plan.out, variants, clean, robust)


def _train_s(variant: Variant) -> float:
    return float(np.mean([run.seconds for run in variant.runs]))


def _evaluate_s(variant: Variant) -> float:
    return float(np.mean([evaluation.seconds for evaluation in variant.evaluated.values()]))


def _write(result: DemoResult, plan: SweepPlan) -> None:
    curves, attacked, record, summary = files = [result.folder / name for name in _FILES]
    for path in files:  # of earlier versions too, whose pictures are not marked
        remove(path)
    named = {variant.name: variant for variant in result.variants}
    budget = budget_text("linf", EPS)
    plot_curves(
        curves,
        {name: [run.history for run in variant.runs] for name, variant in named.items()},
        f"Adversarial training of ResNet-8 on digits ({budget}, PGD-5), {result.robust_gain.seeds} seeds",
    )
    runs = [variant.runs[0] for variant in result.variants]
    found, about = _different(result, load("digits"), plan.study.evaluations[0].attack)
    plot_attacked(attacked, found, EPS, f"{about}\n{budget}, PGD-20, 5 restarts; seed {runs[0].config.training.seed}")
    write_json(record, result.to_dict())
    write_text(summary, _markdown(result))


def _different(result: DemoResult, data: Dataset, settings: AttackConfig) -> tuple[dict[str, list[AttackedImage]], str]:
    """Test images that one network alone withstands, attacked on both, and how many there are of each kind.

    Of either kind the first ones, as many as is their share of all. Without any, the first images.
    """
    names = [variant.name for variant in result.variants]
    evaluations = [next(iter(variant.evaluated.values())) for variant in result.variants]
    x, y = choose_images(data, "test", len(evaluations[0].verdicts))
    plain, larger = (evaluation.robust_correct for evaluation in evaluations)
    clean = evaluations[0].clean_correct & evaluations[1].clean_correct
    kinds = [np.flatnonzero(clean & won & ~lost) for won, lost in ((larger, plain), (plain, larger))]
    counts = [len(rows) for rows in kinds]
    first = round(_SHOWN * counts[0] / sum(counts)) if sum(counts) else 0
    # Another random start may end otherwise; those are left out.
    rows = np.concatenate([kinds[0][: 2 * _SHOWN], kinds[1][: 2 * _SHOWN]]) if sum(counts) else np.arange(_SHOWN)
    attacked = {
        name: _attacked(variant.runs[0].folder, settings, data, x[rows], y[rows])
        for name, variant in zip(names, result.variants, strict=True)
    }
    if not sum(counts):
        return attacked, "The first test images: both networks withstand or lose the same ones"
    right = np.array([[image.predictions[1] == image.truth for image in images] for images in attacked.values()])
    as_before = [np.flatnonzero(rights[0] & ~rights[1]) for rights in (right[::-1], right)]
    chosen = [*as_before[0][:first], *as_before[1][: _SHOWN - first]] or list(range(min(_SHOWN, len(rows))))
    about = f"Only {names[1]} withstands {counts[0]} of {len(y)} test images, only {names[0]} {counts[1]}"
    return {name: [images[n] for n in chosen] for name, images in attacked.items()}, f"{about}: the first of each"


def _attacked(path: Path, settings: AttackConfig, data: Dataset, x: Tensor, y: Tensor) -> list[AttackedImage]:
    """Images before and after the attack on the network of a run."""
    checkpoint = open_checkpoint(path)
    model = checkpoint.model.eval()
    (attack,) = create_attacks(settings, checkpoint.norm, checkpoint.eps)
    x_adv = attack(model, x, y, generator=stream(0, "picture"))

    def names(batch: Tensor) -> list[str]:
        with torch.no_grad():
            labels = predictions(network_logits(model, batch)).tolist()
        return ["none" if label < 0 else data.classes[label] for label in labels]

    return [
        AttackedImage(clean.numpy(), adv.numpy(), (before, after), data.classes[label])
        for clean, adv, before, after, label in zip(x, x_adv, names(x), names(x_adv), y.tolist(), strict=True)
    ]


def _markdown(result: DemoResult) -> str:
    environment = result.variants[0].runs[0].environment
    listed = "\n".join(
        f"- {variant.name}: {', '.join(f'`{run.name}`' for run in variant.runs)}" for variant in result.variants
    )
    return f"""# The gain from larger feature maps: ResNet-8 on digits

{result.sentence()}

{result.table().to_markdown()}
Accuracies are means over {result.robust_gain.seeds} seeds on {result.robust_gain.images} test images that neither \
training nor the choice of the best epoch has seen, with 95 % intervals over seeds and images; \
differences are paired by seed and image. Robust accuracy: {budget_text("linf", EPS)}, PGD-20 with 5 restarts; \
training used PGD-5. Costs are for a forward pass of one image. Times are means per run, on one core each.

![validation accuracy over epochs](curves.png)

![attacked images](attacked.png)

Runs:

{listed}

Computed with robustmaps {environment["robustmaps"]}, PyTorch {environment["torch"]}, on {environment["device"]}.
"""
