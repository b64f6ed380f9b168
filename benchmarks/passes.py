"""How many passes a verdict takes: counted, so the same on every machine.

    python benchmarks/passes.py --data digits
    python benchmarks/passes.py --data cifar10-jpeg.tar.xz --run runs/RUN --eps 8/255 --images 200

AutoAttack as we run it (``standard``) beside the published one (``--exhaustive``, every step made), in passes per
robust image and per image that an attack broke: the images are divided by the verdicts of the first, and each part is
evaluated by itself. Then ``a3`` beside both on all images, and PGD with a fixed step, with and without finishing images
whose iterates go round in a circle.
Without ``--run`` a ResNet-8 is trained adversarially first.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustmaps import TrainOptions, data, fit, models
from robustmaps.attacks import A3, PGD, Attack, AutoAttack
from robustmaps.defenses import AT
from robustmaps.engine.device import device_name
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.engine.tables import table
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation import ROBUST, WRONG, Evaluation, evaluate
from robustmaps.networks import open_checkpoint

PARTS = ("autoattack", "a3", "pgd")
STEPS = ((20, 0.125), (20, 0.25), (100, 0.025), (100, 0.1), (100, 0.25), (100, 0.5))


def main() -> None:
    """Count, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--run", help="a run folder of ours, or its weights file; trained here if left out")
    parser.add_argument("--model", default="resnet8", help="of a network that is trained here")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=parse_number, default=0.15)
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    dataset = data.load(options.data)
    network = open_checkpoint(options.run).model.eval() if options.run else trained(dataset, options)
    x, y = dataset.test.subset(options.images).tensors()
    print(
        f"{dataset.name}, {len(x)} images, {options.norm}, eps {as_fraction(options.eps)}, seed {options.seed}; "
        f"{device_name(torch.device('cpu'))}, torch {torch.__version__}"
    )
    if "autoattack" in options.part:
        autoattack(network, x, y, options)
    if "a3" in options.part:
        everyday(network, x, y, options)
    if "pgd" in options.part:
        circles(network, x, y, options)


def trained(dataset: data.Dataset, options: argparse.Namespace) -> nn.Module:
    """An adversarially trained network."""
    torch.manual_seed(options.seed)
    channels = len(dataset.mean)
    network = models.create(
        options.model, in_channels=channels, num_classes=dataset.num_classes, mean=dataset.mean, std=dataset.std
    )
    settings = TrainOptions(epochs=options.epochs, batch_size=64, lr=0.05, schedule="one-cycle", precision="fp32")
    fit(network, dataset, AT(PGD(options.norm, options.eps, steps=5)), settings)
    return network.eval()


def autoattack(network: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> None:
    """The standard version and the published one, on robust and on broken images."""
    quick = AutoAttack(options.norm, options.eps)
    verdicts = evaluated(network, x, y, quick, options).verdicts
    parts = {
        "robust": [row for row, verdict in enumerate(verdicts) if verdict == ROBUST],
        "broken": [row for row, verdict in enumerate(verdicts) if verdict not in (ROBUST, WRONG)],
    }
    rows = []
    for name, chosen in parts.items():
        if not chosen:
            continue
        sides = [
            evaluated(network, x[chosen], y[chosen], attack, options)
            for attack in (quick, replace(quick, patience=None))
        ]
        stages = [{str(stage["name"]): stage for stage in side.stages} for side in sides]
        for attack in [*stages[0], "all"]:
            cells = [
                side.passes.text(len(chosen))
                if attack == "all" and side.passes
                else Passes(**of[attack]["passes"]).text(len(chosen))
                for side, of in zip(sides, stages, strict=True)
            ]
            rows.append((name, str(len(chosen)), attack, *cells))
        robust = [side.verdicts.count(ROBUST) for side in sides]
        rows.append((name, str(len(chosen)), "robust in the end", *map(str, robust)))
    print(table(("images", "number", "passes per image", "standard", "exhaustive"), rows).to_markdown(), flush=True)


def everyday(network: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> None:
    """a3 beside the standard version: verdicts, passes and time."""
    attacks = {"standard": AutoAttack(options.norm, options.eps), "a3": A3(options.norm, options.eps)}
    made = {name: evaluated(network, x, y, attack, options) for name, attack in attacks.items()}
    whole, rows = made["standard"], []
    for name, one in made.items():
        robust = [verdict == ROBUST for verdict in one.verdicts]
        differ = [a != (b == ROBUST) for a, b in zip(robust, whole.verdicts, strict=True)]
        more = sum(a and d for a, d in zip(robust, differ, strict=True))
        passes = sum(one.passes.per_image(one.attacked)) if one.passes else 0.0
        shown = (str(one.robust_accuracy), f"{more} more, {sum(differ) - more} fewer")
        rows.append((name, *shown, f"{passes:.0f}", f"{one.seconds:.0f} s"))
    columns = ("attack", "robust accuracy", "robust images", "passes per attacked image", "time")
    print(table(columns, rows).to_markdown(), flush=True)


def circles(network: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> None:
    """PGD with a fixed step, with every step made and without those that are known."""
    rows = []
    for steps, relative_step in STEPS:
        attack = PGD("linf", options.eps, steps=steps, relative_step=relative_step, early_stop=True)
        sides = [evaluated(network, x, y, a, options) for a in (attack, replace(attack, exhaustive=True))]
        quick, whole = (sum(side.passes.per_image(side.attacked)) for side in sides if side.passes)
        differ = sum(a != b for a, b in zip(sides[0].verdicts, sides[1].verdicts, strict=True))
        apart = sum(a != b for a, b in zip(sides[0].distances, sides[1].distances, strict=True))
        saved = f"{1 - quick / whole:.0%}"
        robust = str(sides[0].verdicts.count(ROBUST))
        rows.append(
            (f"{steps} of eps * {relative_step}", f"{whole:.1f}", f"{quick:.1f}", saved, robust, f"{differ + apart}")
        )
    columns = (
        "steps",
        "passes per image, all steps",
        "without those known",
        "saved",
        "robust",
        "verdicts or distances that differ",
    )
    print(table(columns, rows).to_markdown(), flush=True)


def evaluated(network: nn.Module, x: Tensor, y: Tensor, attack: Attack, options: argparse.Namespace) -> Evaluation:
    """Without the checks before the attacks, whose passes are not counted."""
    return evaluate(network, x, y, attack, seed=options.seed, precision="fp32", checks=False)


if __name__ == "__main__":
    main()
