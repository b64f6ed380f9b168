"""What the theory measures, along training: of the checkpoints that runs write while they are trained.

    python benchmarks/along_training.py copy STUDY COPIES      # beside `robustmaps sweep`, until it is stopped
    python benchmarks/along_training.py measure STUDY COPIES --csv along.csv

``copy`` keeps the weights that are validated (the averaged ones, if any) after each eighth of the epochs, or at the
first checkpoint behind it. ``measure`` takes robust accuracy in training and validation from the runs, and measures on
test images the features' gain, the margin's gain relative to the margin, the alignment of gradients, and aliasing; see
predictors.py and docs/what-predicts-the-gain.md. It prints means over seeds.
"""

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from predictors import aliased, alignment
from robustmaps.analysis import feature_gain, margin_gains
from robustmaps.networks import create_network, resolve
from robustmaps.networks._data import load_data
from robustmaps.runs import RunRecord, read_runs

PARTS = 8
IMAGES = 128
MEASURES = (
    "robust in training",
    "robust in validation",
    "features' gain",
    "margin's gain over the margin",
    "alignment of gradients",
    "aliasing",
)


def copy(study: Path, copies: Path) -> None:
    """Copy the weights of runs in progress, until interrupted."""
    seen: dict[Path, int] = {}
    while True:
        for last in study.glob("*/last.pt"):
            changed = last.stat().st_mtime_ns
            if seen.get(last) == changed:
                continue
            seen[last] = changed
            checkpoint = torch.load(last, weights_only=True)
            epoch, folder = checkpoint["state"]["epoch"], copies / last.parent.name
            part = epoch * PARTS // int(checkpoint["settings"]["epochs"])
            if part and not (folder / f"{part}.pt").exists():
                folder.mkdir(parents=True, exist_ok=True)
                weights = checkpoint["average" if checkpoint["average_steps"] else "model"]
                torch.save({"epoch": epoch, "weights": weights}, folder / f"{part}.pt")
        time.sleep(5.0)


def measured(run: RunRecord, file: Path) -> dict[str, float]:
    """The measures of one copy."""
    saved, config = torch.load(file, weights_only=True), run.config
    data = load_data(config.data)
    model = create_network(resolve(config), data).model
    model.load_state_dict(saved["weights"])
    model.eval()
    x, y = data.test.subset(IMAGES).tensors()
    budget = {"eps": config.defense.eps, "norm": config.defense.norm}
    margins = margin_gains(model, x, y, **budget)
    before = [record for record in run.history if record["epoch"] <= saved["epoch"]]
    validated = [record["validation_robust_accuracy"] for record in before if "validation_robust_accuracy" in record]
    values = (
        before[-1]["train_robust_accuracy"],
        validated[-1] if validated else float("nan"),
        feature_gain(model, x, **budget).value,
        float(np.median(margins.relative(among=margins.right))),
        alignment(model, x, y, config.defense.eps),
        aliased(model, x),
    )
    return {"epoch": saved["epoch"], **dict(zip(MEASURES, values, strict=True))}


def measure(study: Path, copies: Path) -> list[dict[str, object]]:
    """A row per copy: the network, the schedule and epochs of the run, its seed, the part of it, and the measures."""
    rows: list[dict[str, object]] = []
    for run in read_runs(study, skipped=lambda *_: None):
        model, training = run.config.model, run.config.training
        change = ("plain" if model.strides is None else model.strides) + f" x{model.upsample:g}" * (model.upsample != 1)
        for file in sorted((copies / run.folder.name).glob("*.pt")):
            row = {"network": change, "schedule": training.schedule, "epochs": training.epochs}
            row |= {"seed": training.seed, "part": int(file.stem)}
            rows.append({**row, **measured(run, file)})
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Means over seeds by network, schedule, length of the run and part of it."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["network"], row["schedule"], row["epochs"], row["part"]].append(row)
    lines = [
        "| network | schedule | epochs | after | seeds | " + " | ".join(MEASURES) + " |",
        "| --- " * (5 + len(MEASURES)) + "|",
    ]
    for (network, schedule, epochs, part), some in sorted(groups.items(), key=str):
        means = [np.mean([row[name] for row in some]) for name in MEASURES]
        shown = " | ".join(f"{mean:.3g}" for mean in means)
        lines.append(f"| {network} | {schedule} | {epochs} | {part}/{PARTS} | {len(some)} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Copy, or measure what was copied."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("copy", "measure"))
    parser.add_argument("study", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--csv", type=Path, help="a table of all copies to write")
    given = parser.parse_args()
    if given.what == "copy":
        copy(given.study, given.copies)
    rows = measure(given.study, given.copies)
    print(f"\n{table(rows)}")
    if given.csv is not None:
        with given.csv.open("x", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
