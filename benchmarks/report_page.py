"""How fast does the page of a large study open? Made-up runs, a real report, a real browser.

    python benchmarks/report_page.py --runs 200 --browser chromium

The runs are made up (only their number matters here) and are nowhere reported as results. Times are from the start of
the navigation: to the first paint, from which on the page can be read, and to the end of loading.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from robustmaps.config import DefenseConfig, ModelConfig, RunConfig
from robustmaps.config._run import write_config
from robustmaps.engine.numbers import as_fraction
from robustmaps.evaluation import Evaluation
from robustmaps.report import report
from robustmaps.training import TrainOptions

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
STRIDES = ("122", "112", "222", "111")
RADII = (2 / 255, 4 / 255, 8 / 255, 16 / 255)
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")


def make_study(folder: Path, runs: int, images: int = 200, epochs: int = 20, seeds: int = 5) -> None:
    """Folders as runs leave them, without weights."""
    for number in range(runs):
        variant, seed = divmod(number, seeds)
        config = RunConfig(
            ModelConfig(strides=STRIDES[variant % 4], upsample=1 + variant // 4 % 3),
            defense=DefenseConfig(eps=RADII[2], steps=1 + variant // 12),
            training=TrainOptions(epochs=epochs, seed=seed),
        )
        write_run(folder / config.name, config, variant, images)


def write_run(path: Path, config: RunConfig, quality: int, images: int) -> None:
    """One of these folders; the higher the quality, the more robust."""
    draw = np.random.default_rng([quality, config.training.seed])
    (path / "evaluation").mkdir(parents=True)
    (path / "config.yaml").write_text(write_config(config))
    history = [
        {
            "epoch": epoch,
            "train_robust_accuracy": min(1.0, 0.2 + 0.02 * epoch),
            "validation_clean_accuracy": 0.8,
            "validation_robust_accuracy": 0.3 + 0.01 * (quality % 10) - 0.002 * abs(epoch - 10),
            "train_s": 1.0,
        }
        for epoch in range(1, config.training.epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    cost = {"flops": 10**6 * (1 + quality), "parameters": 77_800, "activation_bytes": 40_000, "map_size": [4, 4]}
    (path / "cost.json").write_text(json.dumps(cost))
    (path / "environment.json").write_text(json.dumps({"robustmaps": "0.1.0", "device": "made up"}))
    for eps in RADII:
        strength = draw.random(images) + 0.01 * (quality % 10)
        verdicts = tuple(_verdict(value, eps, draw) for value in strength)
        evaluation = Evaluation(
            verdicts,
            tuple(eps if verdict in ATTACKS else None for verdict in verdicts),
            "linf",
            eps,
            tuple({"name": name, "norm": "linf", "eps": eps} for name in ATTACKS),
            "made-up",
            0,
            1.0,
        )
        evaluation.save(path / "evaluation" / f"autoattack-linf-{as_fraction(eps).replace('/', '_')}.json")


def _verdict(strength: float, eps: float, draw: np.random.Generator) -> str:
    if strength < 0.15:
        return "wrong"
    return "robust" if strength > 0.2 + 8 * eps else str(draw.choice(ATTACKS))


def main() -> None:
    """Make the study and its report, open the page, print a row of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--out", type=Path, help="keep the study here")
    given = parser.parse_args()
    browser = shutil.which(given.browser)
    if browser is None:
        parser.error(f"{given.browser}: not found")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary) / "study"
        make_study(folder, given.runs)
        began = time.perf_counter()
        page = report(folder, pictures=False).path
        written_s = time.perf_counter() - began
        times = [_open(page, browser) for _ in range(given.rounds)]
        paint, load = (statistics.median(each) for each in zip(*times, strict=True))
        print("| runs | report written | page | first paint | loaded |\n| " + "--- | " * 5)
        size = page.stat().st_size / 1e6
        print(f"| {given.runs} | {written_s:.1f} s | {size:.2f} MB | {paint:.2f} s | {load:.2f} s |")


def _open(page: Path, browser: str) -> tuple[float, float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        tab = started.new_page(viewport={"width": 1366, "height": 800})
        tab.goto(page.resolve().as_uri())
        milliseconds = tab.evaluate(
            "() => [performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.getEntriesByType('navigation')[0].loadEventEnd]"
        )
        started.close()
    return tuple(value / 1000 for value in milliseconds)


if __name__ == "__main__":
    main()
