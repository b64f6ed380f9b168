"""What predicts the gain of an enlargement? Measured gains of runs beside what can be known before and after training.

    python benchmarks/predictors.py RUNS [RUNS ...] --csv pairs.csv

RUNS hold what `robustmaps sweep` made of studies such as those in benchmarks/comparisons. A pair is a network and the
same one enlarged, trained alike; its gain is the mean difference of robust accuracy over the seeds that both have.
For each predictor: Spearman's rank correlation with the gain over all pairs, its 95 % interval by resampling networks
(all pairs of a network and a defence together, since they share their plain network), and a test by permutation of
the gains among pairs, two-sided, corrected for the number of predictors (Holm). The test takes pairs for independent,
which those of one network are not, so the interval counts where both differ.
"""

import argparse
import copy
import csv
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from comparison import families, short, title_of
from robustmaps import models
from robustmaps.analysis import feature_gain, feature_maps, margin_gains
from robustmaps.analysis._stages import find_stages
from robustmaps.config import ModelConfig
from robustmaps.enlarging import EnlargeWarning, plan
from robustmaps.evaluation import holm
from robustmaps.networks import allow_code, create_network, open_checkpoint, resolve
from robustmaps.networks._data import load_data
from robustmaps.runs import RunRecord, read_runs
from robustmaps.studies import statistics_of
from robustmaps.tracing import trace

IMAGES = 128
RESAMPLES = 2000


@dataclass(frozen=True)
class Pair:
    """A network and the same one enlarged.

    Attributes:
        network: data, network and defence.
        change: the enlarged network's name.
        gain: mean difference of robust accuracy over seeds.
        seeds: how many.
        values: by predictor, the mean over seeds.
    """

    network: str
    change: str
    gain: float
    seeds: int
    values: dict[str, float]


def known_before(plain: RunRecord, larger: RunRecord, x: Tensor) -> dict[str, float]:
    """What can be measured before the enlarged network is trained; ratios as logarithms, enlarged to plain."""
    eps, norm = plain.config.defense.eps, plain.config.defense.norm
    data = load_data(plain.config.data)
    small, large = (create_network(resolve(run.config), data).model for run in (plain, larger))
    budget = {"eps": eps, "norm": norm}
    found = {"gain of features, random weights": _ratio(feature_gain, small, large, x, **budget)}
    trained = open_checkpoint(plain.folder).model
    moved = copy.deepcopy(open_checkpoint(larger.folder).model)
    moved.load_state_dict(trained.state_dict())
    found["gain of features, the plain network's weights"] = _ratio(feature_gain, trained, moved, x, **budget)
    found["aliasing, the plain network's weights"] = aliased(moved, x) - aliased(trained, x)
    sizes = [plan(model, x[:1], upsamples=(1,), budget=1).options[0] for model in (trained, moved)]
    before, after = (option.field_share for option in sizes)
    if before is not None and after is not None:
        found["share of the image that the last map sees, at most 1"] = min(after, 1.0) - min(before, 1.0)
        found["share of the image that the last map sees"] = np.log(after / before)
    found["operations"] = np.log(_flops(larger) / _flops(plain))
    found["robust accuracy of the plain network"] = _robust(plain)
    found["rise of the plain network in the last third of its epochs"] = _rise(plain)
    return {name: float(value) for name, value in found.items()}


def known_after(plain: RunRecord, larger: RunRecord, x: Tensor, y: Tensor) -> dict[str, float]:
    """What the two trained networks tell."""
    eps, norm = plain.config.defense.eps, plain.config.defense.norm
    small, large = (open_checkpoint(run.folder).model for run in (plain, larger))
    budget = {"eps": eps, "norm": norm}
    margins = [margin_gains(model, x, y, **budget) for model in (small, large)]
    right = margins[0].right & margins[1].right
    first = [np.log(np.median(each.relative(among=right))) for each in margins]
    return {
        "gain of features, trained": _ratio(feature_gain, small, large, x, **budget),
        "gain of the margin over the margin, trained": float(first[1] - first[0]),
        "alignment of gradients, trained": alignment(large, x, y, eps) - alignment(small, x, y, eps),
        "aliasing, trained": aliased(large, x) - aliased(small, x),
    }


def aliased(model: nn.Module, x: Tensor) -> float:
    """Of the energy of the maps before each downsampling step, the share above the Nyquist limit behind it, summed.

    A map of which every s-th value is taken keeps frequencies up to 1 / (2 s) cycles a pixel.
    """
    stages = find_stages(trace(model, x[:1]))
    total = 0.0
    for stage, after, maps in zip(stages[:-1], stages[1:], feature_maps(model, x, stages[:-1]), strict=True):
        factor = [late / early for late, early in zip(after.stride, stage.stride, strict=True)]
        maps = maps - maps.mean((2, 3), keepdim=True)
        energy = torch.fft.fft2(maps).abs().square().sum((0, 1))
        rows, columns = (torch.fft.fftfreq(size).abs() for size in energy.shape)
        above = (rows[:, None] > 0.5 / factor[0]) | (columns > 0.5 / factor[1])
        total += float(energy[above].sum() / energy.sum().clamp(min=1e-12))
    return total


def alignment(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Mean cosine of the loss gradients at the image and at a random corner of its l_inf ball (arXiv 2007.02617)."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.empty_like(x).uniform_(-1, 1, generator=draw).sign() * eps
    gradients = [_gradient(model, each, y).flatten(1) for each in (x, (x + noise).clamp(0, 1))]
    return float(nn.functional.cosine_similarity(*gradients).mean())


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y, reduction="sum"), x)
    return gradient


def _ratio(gain: Callable[..., object], small: nn.Module, large: nn.Module, x: Tensor, **budget: object) -> float:
    low, high = (gain(model, x, **budget).value for model in (small, large))  # type: ignore[attr-defined]
    return float(np.log(high / low))


def _flops(run: RunRecord) -> float:
    return float((run.recorded_cost or {})["flops"])


def _robust(run: RunRecord) -> float:
    (evaluation, *_) = run.evaluations.values()
    return float(evaluation.robust_accuracy.value)


def _rise(run: RunRecord) -> float:
    key = "validation_robust_accuracy"
    curve = [record[key] for record in run.history if key in record]
    third = max(1, len(curve) // 3)
    return float(np.mean(curve[-third:]) - np.mean(curve[-2 * third : -third]))


def pairs_of(folders: Sequence[Path]) -> list[Pair]:
    """All pairs in the folders."""
    found = []
    for folder in folders:
        for records in families(read_runs(folder, skipped=lambda *_: None)):
            statistics = statistics_of(records, folder)
            if len(statistics.compared) < 2:
                continue
            plain, *others = statistics.families[0]
            if not _is_plain(plain.config.model):  # such as studies of late enlargement, whose plain runs are longer
                continue
            x, y = load_data(plain.config.data).test.subset(IMAGES).tensors()
            for variant in others:
                values = defaultdict(list)
                for small, large in _same_seeds(plain.runs, variant.runs):
                    with allow_code(small.config.model.model):
                        known = {**known_before(small, large, x), **known_after(small, large, x, y)}
                    for name, value in known.items():
                        values[name].append(value)
                network, change = f"{title_of(plain.config)}: {short(plain.name)}", short(variant.name)
                gain = statistics.gains[variant.name].value
                means = {name: float(np.mean(each)) for name, each in values.items()}
                found.append(Pair(network, change, gain, len(variant.evaluated), means))
                print(f"{network} -> {change}: {100 * gain:+.1f}", flush=True)
    return found


def _is_plain(model: ModelConfig) -> bool:
    usual = None if ":" in model.model else str(models.default_strides(model.model))
    return (model.upsample, model.enlarge) == (1, None) and model.strides in (None, usual)


def _same_seeds(plain: Sequence[RunRecord], larger: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    by_seed = {run.config.training.seed: run for run in plain}
    return [(by_seed[run.config.training.seed], run) for run in larger if run.config.training.seed in by_seed]


def table(pairs: Sequence[Pair]) -> str:
    """The predictors, those with the strongest correlations first."""
    names = sorted({name for pair in pairs for name in pair.values})
    rows = [(name, *correlated([pair for pair in pairs if name in pair.values], name)) for name in names]
    rows = sorted((row for row in rows if not np.isnan(row[2])), key=lambda row: -abs(row[2]))
    lines = ["| predictor | pairs | rank correlation with the gain | p |", "| --- " * 4 + "|"]
    for (name, count, value, low, high, _), chance in zip(rows, holm([row[-1] for row in rows]), strict=True):
        lines.append(f"| {name} | {count} | {value:+.2f} [{low:+.2f}, {high:+.2f}] | {chance:.3f} |")
    return "\n".join(lines)


def correlated(pairs: Sequence[Pair], name: str) -> tuple[int, float, float, float, float]:
    """Number of pairs, rank correlation of predictor and gain, its interval, and how often chance does as much."""
    draw = np.random.default_rng(0)
    values, gains = np.array([pair.values[name] for pair in pairs]), np.array([pair.gain for pair in pairs])
    value = _rank(values, gains)
    if np.isnan(value):  # it is the same for all pairs
        return len(pairs), value, value, value, value
    networks = sorted({pair.network for pair in pairs})
    members = [np.flatnonzero([pair.network == network for pair in pairs]) for network in networks]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[one] for one in draw.integers(len(members), size=len(members))])
        drawn.append(_rank(values[chosen], gains[chosen]))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    shuffled = [abs(_rank(values, draw.permutation(gains))) for _ in range(RESAMPLES)]
    chance = (1 + sum(one >= abs(value) - 1e-12 for one in shuffled)) / (1 + RESAMPLES)
    return len(pairs), value, float(low), float(high), chance


def _rank(values: np.ndarray, gains: np.ndarray) -> float:
    if len(set(values)) < 2 or len(set(gains)) < 2:
        return float("nan")
    return float(spearmanr(values, gains).statistic)


def main() -> None:
    """Print the pairs and the predictors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--csv", type=Path, help="a table of the pairs to write")
    given = parser.parse_args()
    warnings.simplefilter("ignore", EnlargeWarning)  # what the measurements say
    pairs = pairs_of(given.runs)
    print(f"\n{len(pairs)} pairs of {len({pair.network for pair in pairs})} networks\n\n{table(pairs)}")
    if given.csv is not None:
        names = sorted({name for pair in pairs for name in pair.values})
        with given.csv.open("x", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["network", "change", "gain", "seeds", *names])
            writer.writerows(
                [pair.network, pair.change, pair.gain, pair.seeds, *(pair.values.get(name) for name in names)]
                for pair in pairs
            )


if __name__ == "__main__":
    main()
