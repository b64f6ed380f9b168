"""Are AutoAttack's verdicts those of independent implementations? Image by image, on networks and images given.

    python benchmarks/verdicts.py --data cifar10-jpeg.tar.xz --run runs/RUN --eps 8/255 --peer torchattacks

The peers: torchattacks' AutoAttack, given the published 100 steps, against our standard version; ART's APGD with both
losses and Square, against the same three of ours. A peer's verdicts are kept in ``--keep`` and not computed again.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchattacks
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from robustmaps import data
from robustmaps.attacks import AutoAttack
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.evaluation import evaluate, images_sha256, weights_sha256
from robustmaps.networks import open_checkpoint

OURS = {"torchattacks": "standard", "art": ("apgd-ce", "apgd-dlr", "square")}
Attack = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Compare, and print one row per peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ROBUSTMAPS_CIFAR10", "cifar10"))
    parser.add_argument("--run", required=True, help="a run folder of ours, or its weights file")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=parse_number, default=8 / 255)
    parser.add_argument("--peer", choices=OURS, nargs="+", default=list(OURS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exhaustive", action="store_true", help="ours without giving up runs")
    parser.add_argument("--keep", type=Path, default=Path("verdicts"))
    options = parser.parse_args()

    dataset = data.load(options.data)
    network = open_checkpoint(options.run).model.eval()
    x, y = dataset.test.subset(options.images).tensors()
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().squeeze(1)
    print(f"{len(x)} images, {len(right)} right; {options.norm}, eps {as_fraction(options.eps)}", flush=True)
    for peer in options.peer:
        theirs = _peer(peer, network, x, y, right, options)
        patience = None if options.exhaustive else AutoAttack().patience
        attack = AutoAttack(options.norm, options.eps, OURS[peer], patience=patience)
        evaluation = evaluate(network, x, y, attack, seed=options.seed)
        ours = set(evaluation.robust_correct.nonzero()[0].tolist())
        rates = [Measured.share(len(robust), len(x)) for robust in (ours, theirs)]
        print(f"{peer}: ours {rates[0]}, theirs {rates[1]}; {evaluation.seconds:.0f} s")
        print(f"  robust to ours alone {sorted(ours - theirs)}, to theirs alone {sorted(theirs - ours)}", flush=True)


def _peer(peer: str, network: nn.Module, x: Tensor, y: Tensor, right: Tensor, options: argparse.Namespace) -> set[int]:
    """The images that withstand a peer, computed once."""
    key = f"{peer}-{options.norm}-{options.eps:.6f}-{weights_sha256(network)[:8]}-{images_sha256(x, y)[:8]}.json"
    file = options.keep / key
    if not file.exists():
        standing = right
        for attack in _attacks(peer, network, options):
            if len(standing) == 0:
                break
            x_adv = attack(x[standing], y[standing])
            with torch.no_grad():
                standing = standing[network(x_adv).argmax(1) == y[standing]]
            print(f"  {peer}: {len(standing)} left", flush=True)
        options.keep.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(standing.tolist()))
    return set(json.loads(file.read_text()))


def _attacks(peer: str, network: nn.Module, options: argparse.Namespace) -> list[Attack]:
    if peer == "torchattacks":
        names = {"linf": "Linf", "l2": "L2"}
        whole = torchattacks.AutoAttack(network, norm=names[options.norm], eps=options.eps, n_classes=10, seed=0)
        stages = list(whole._autoattack.attacks)
        for stage in stages:
            if hasattr(stage, "steps"):
                stage.steps = 100
        return [_in_parts(stage) for stage in stages]
    classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0.0, 1.0))
    norm, eps = (np.inf if options.norm == "linf" else 2), options.eps
    settings = {"norm": norm, "eps": eps, "batch_size": 64}
    climbs = [
        AutoProjectedGradientDescent(
            classifier, **settings, eps_step=2 * eps, max_iter=100, nb_random_init=1, loss_type=loss, verbose=False
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]
    search = SquareAttack(classifier, **settings, max_iter=5000, nb_restarts=1, verbose=False)
    return [_in_parts(_of_arrays(attack.generate)) for attack in (*climbs, search)]


def _of_arrays(generate: Callable[..., np.ndarray]) -> Attack:
    return lambda x, y: torch.from_numpy(generate(x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]))


def _in_parts(attack: Attack) -> Attack:
    """Both peers take a batch whole, which for hundreds of images is slower."""
    return lambda x, y: torch.cat([attack(x[i : i + 64], y[i : i + 64]) for i in range(0, len(x), 64)])


if __name__ == "__main__":
    main()
