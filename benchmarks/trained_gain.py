"""Does a network that was trained with larger maps have the smaller perturbation gain, relative to its margin?

The same network is trained with its own strides, with a smaller last stride and with upsampled images, with several
seeds, and the gain of the margin is measured on test images. Ratios to the network with its own strides are taken on
the images that all variants of a seed classify right, and are medians over images, then geometric means over seeds;
their 95 % intervals come from resampling seeds and images. Runs are kept in the folder and not repeated.

    python benchmarks/trained_gain.py --data digits --eps 0.15 --out runs/trained-gain
    python benchmarks/trained_gain.py --data PATH/cifar10 --eps 8/255 --train 4000 --epochs 8 --out runs/trained-cifar

Without --data it takes what the environment variable ROBUSTMAPS_CIFAR10 names, and the digits where it is not set.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from robustmaps.analysis import MarginGain, margin_gains
from robustmaps.config import DataConfig, DefenseConfig, ModelConfig, RunConfig
from robustmaps.data import Dataset, load
from robustmaps.engine.device import device_name, resolve_device
from robustmaps.engine.files import write_json
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.runs import train
from robustmaps.training import TrainOptions

RESAMPLES = 2000


def variants(model: str, default: str, shrunk: str) -> dict[str, ModelConfig]:
    """The network as it is, with a smaller stride, with larger images."""
    return {
        default: ModelConfig(model=model, strides=default),
        shrunk: ModelConfig(model=model, strides=shrunk),
        f"{default}, images x2": ModelConfig(model=model, strides=default, upsample=2),
    }


def measured(config: RunConfig, data: Dataset, arguments: argparse.Namespace) -> MarginGain:
    """Train, or take the finished run, and measure on test images."""
    run = train(config, arguments.out, resume=True, data=data)
    x, y = data.test.subset(arguments.test).tensors()
    file = run.folder / f"gain-{len(x)}.json"
    if file.exists():
        return MarginGain(**{key: tuple(value) for key, value in json.loads(file.read_text()).items()})
    gains = margin_gains(run.model, x, y, eps=arguments.eps, steps=arguments.steps)
    write_json(file, {"margin": gains.margin, "first_order": gains.first_order, "reached": gains.reached})
    return gains


def ratio_over_seeds(
    variant: list[NDArray[np.float64]], default: list[NDArray[np.float64]]
) -> tuple[float, tuple[float, float], list[float]]:
    """Geometric mean over seeds of the ratio of medians, its interval, and each seed's ratio."""

    def of(pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
        return float(np.exp(np.mean([np.log(np.median(a) / np.median(b)) for a, b in pairs])))

    pairs = list(zip(variant, default, strict=True))
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(RESAMPLES):
        chosen = [pairs[i] for i in generator.integers(len(pairs), size=len(pairs))]
        rows = [generator.integers(len(a), size=len(a)) for a, _ in chosen]
        resampled.append(of([(a[row], b[row]) for (a, b), row in zip(chosen, rows, strict=True)]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return of(pairs), (float(low), float(high)), [of([pair]) for pair in pairs]


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ROBUSTMAPS_CIFAR10", "digits"))
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--strides", nargs=2, default=["122", "112"], metavar=("DEFAULT", "SHRUNK"))
    parser.add_argument("--defense", choices=["standard", "at"], default="at")
    parser.add_argument("--eps", type=parse_number, default=0.15)
    parser.add_argument("--train-steps", type=int, default=5, help="steps of the training attack")
    parser.add_argument("--steps", type=int, default=20, help="steps of PGD in the measurement")
    parser.add_argument("--train", type=int, help="training images, all if left out")
    parser.add_argument("--validation", type=int, default=300, help="images to choose the best epoch by")
    parser.add_argument("--test", type=int, default=400, help="test images to measure on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/trained-gain"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = load(arguments.data)
    data = replace(data, validation=data.validation.subset(arguments.validation))
    if arguments.train is not None:
        data = replace(data, train=data.train.subset(arguments.train))
    print(json.dumps(report(data, arguments)) if arguments.json else text(report(data, arguments)))


def report(data: Dataset, arguments: argparse.Namespace) -> dict[str, object]:
    """Everything that was measured."""
    configs = variants(arguments.model, *arguments.strides)
    found: dict[str, list[MarginGain]] = {name: [] for name in configs}
    for seed in range(arguments.seeds):
        for name, model in configs.items():
            options = TrainOptions(
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                schedule="one-cycle",
                seed=seed,
                precision="fp32",
                device="cpu",
            )
            defense = DefenseConfig(defense=arguments.defense, eps=arguments.eps, steps=arguments.train_steps)
            config = RunConfig(model, DataConfig(data=arguments.data), defense, options)
            found[name].append(measured(config, data, arguments))
    together = [np.all([found[name][s].right for name in configs], axis=0) for s in range(arguments.seeds)]
    first = next(iter(configs))
    rows = {}
    for name, gains in found.items():
        reached = [g.relative(reached=True, among=m) for g, m in zip(gains, together, strict=True)]
        linear = [g.relative(among=m) for g, m in zip(gains, together, strict=True)]
        base = [
            [g.relative(reached=kind, among=m) for g, m in zip(found[first], together, strict=True)]
            for kind in (False, True)
        ]
        rows[name] = {
            "accuracy": [float(g.right.mean()) for g in gains],
            "robust_accuracy": [float(np.mean(np.array(g.margin) > np.array(g.reached))) for g in gains],
            "gain": [float(np.median(np.array(g.first_order)[m])) for g, m in zip(gains, together, strict=True)],
            "margin": [float(np.median(np.array(g.margin)[m])) for g, m in zip(gains, together, strict=True)],
            "relative": [float(np.median(values)) for values in linear],
            "relative_reached": [float(np.median(values)) for values in reached],
            "ratio": ratio_over_seeds(linear, base[0]),
            "ratio_reached": ratio_over_seeds(reached, base[1]),
        }
    return {
        "data": data.name,
        "train": len(data.train),
        "test": len(found[first][0].margin),
        "together": [int(m.sum()) for m in together],
        "eps": arguments.eps,
        "defense": arguments.defense,
        "epochs": arguments.epochs,
        "device": device_name(resolve_device("cpu")),
        "torch": torch.__version__,
        "rows": rows,
    }


def text(found: dict) -> str:
    """A table in Markdown and what it holds."""

    def spread(values: list[float]) -> str:
        return f"{np.mean(values):.3g} ({', '.join(f'{value:.3g}' for value in values)})"

    def with_interval(value: tuple) -> str:
        middle, (low, high), seeds = value
        return f"{middle:.2f} [{low:.2f}, {high:.2f}] ({', '.join(f'{seed:.2f}' for seed in seeds)})"

    columns = ("", "clean accuracy", "robust, PGD", "gain", "margin", "gain / margin", "ratio", "ratio, PGD")
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for name, row in found["rows"].items():
        cells = [
            *(f"{100 * np.mean(row[key]):.1f} %" for key in ("accuracy", "robust_accuracy")),
            *(spread(row[key]) for key in ("gain", "margin", "relative")),
            *(with_interval(row[key]) for key in ("ratio", "ratio_reached")),
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    about = (
        f"{found['data']}, {found['defense']}, eps {as_fraction(found['eps'])}, {found['train']} training images, "
        f"{found['epochs']} epochs; {found['test']} test images, of which all variants classify "
        f"{', '.join(map(str, found['together']))} right (by seed). In brackets after a value: each seed."
    )
    return "\n".join([*lines, "", about, f"PyTorch {found['torch']}, {found['device']}"])


if __name__ == "__main__":
    main()
