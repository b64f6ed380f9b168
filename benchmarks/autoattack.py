"""AutoAttack against torchattacks' one: time, and on which images the verdicts differ.

Both sides run on the same network and images, stage by stage in turn, so that a busy machine slows both. Seconds of
processor time are shown beside the clock's: they leave out what other programs took. ``--version a3`` has other stages
than the peer's standard version, beside which it runs; only the sums compare. ``--version pgd-20`` compares that
attack, as `evaluate` makes it, with torchattacks' PGD of as many steps of the same size.

    python benchmarks/autoattack.py --data cifar10-jpeg.tar.xz --checkpoint resnet8.safetensors

torchattacks' AutoAttack takes 10 steps by default where the published attack takes 100; it is given 100 here, and
``--peer-steps 10`` gives it back its default. Without ``--checkpoint`` a ResNet-8 is trained adversarially first.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
import torchattacks
from safetensors.torch import load_file
from torch import Tensor, nn

from robustmaps import attacks, data, models
from robustmaps.attacks import PGD, AutoAttack
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackEngine

PEER_NORMS = {"linf": "Linf", "l2": "L2"}


def trained(network: nn.Module, dataset: data.Dataset, epochs: int, images: int) -> None:
    """PGD-2 adversarial training, enough for a network that is worth attacking."""
    part = dataset.train.subset(images)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(part) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    attack, engine = PGD(steps=2, step_size=6 / 255), AttackEngine(network)
    for step in range(steps):
        rows = torch.randint(len(part), (128,), generator=stream(0, "batch", step))
        x, y = part.subset(rows).tensors()
        with engine.view(x) as view:
            x_adv = attack(view, x, y, generator=stream(0, "attack", step))
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x_adv), y).backward()
        optimizer.step()
        schedule.step()
    network.eval()


@dataclass
class Side:
    """One of the two implementations on its way through the stages."""

    name: str
    standing: Tensor
    clock_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    def run(self, network: nn.Module, attack: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        """Attack what stands, and judge the result on the network itself."""
        clock, processor = time.perf_counter(), time.process_time()
        x_adv = attack(x[self.standing], y[self.standing])
        self.clock_s.append(time.perf_counter() - clock)
        self.processor_s.append(time.process_time() - processor)
        with torch.no_grad():
            self.standing = self.standing[network(x_adv).argmax(1) == y[self.standing]]


def main() -> None:
    """Run both sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ROBUSTMAPS_CIFAR10", "cifar10"))
    parser.add_argument("--checkpoint", help="safetensors of the network; trained here when left out")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--norm", choices=PEER_NORMS, default="linf")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--version", default="standard", help="of ours; the peer runs its standard one")
    parser.add_argument("--peer-steps", type=int, default=100)
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    dataset = data.load(options.data)
    network = models.create(options.model, num_classes=dataset.num_classes, mean=dataset.mean, std=dataset.std).eval()
    if options.checkpoint:
        network.load_state_dict(load_file(options.checkpoint))
    else:
        trained(network, dataset, options.epochs, options.train_images)
    x, y = dataset.test.subset(options.images).tensors()
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().squeeze(1)

    ours, theirs = Side("robustmaps", right), Side("torchattacks", right)
    peer = torchattacks.AutoAttack(
        network, norm=PEER_NORMS[options.norm], eps=options.eps, n_classes=dataset.num_classes, seed=0
    )
    peers = peer._autoattack.attacks
    if options.version == "pgd-20":
        stages = (attacks.create("pgd-20", options.norm, options.eps),)
        peers = [torchattacks.PGD(network, options.eps, options.eps / 4, 20)]
        options.peer_steps = 20
    else:
        stages = AutoAttack(options.norm, options.eps, options.version).stages
    print(f"{len(x)} images, {len(right)} classified correctly; {options.threads} threads")
    print(f"{'':9}{'robustmaps':>26}{'torchattacks':>26}   ratio (clock, processor)")
    with AttackEngine(network).view(x) as view:
        for number, (stage, other) in enumerate(zip_longest(stages, peers)):
            if stage is not None:
                generator = stream(0, stage.name)
                ours.run(network, lambda x, y, s=stage, g=generator: s(view, x, y, generator=g), x, y)
            if other is not None:
                if hasattr(other, "steps"):
                    other.steps = options.peer_steps
                theirs.run(network, other, x, y)
            name = stage.name if stage is not None else ""
            print(row(name, ours, theirs, slice(number, number + 1)), flush=True)
    print(row("all", ours, theirs, slice(None)))
    for one, another in ((ours, theirs), (theirs, ours)):
        only = sorted(set(one.standing.tolist()) - set(another.standing.tolist()))
        print(f"robust to {one.name} alone: {len(only)} of {len(x)} images {only}")


def row(name: str, ours: Side, theirs: Side, part: slice) -> str:
    """Seconds by the clock, of the processor, and images left standing, for both sides."""
    cells, sums = [], []
    for side in (ours, theirs):
        clock, processor = sum(side.clock_s[part]), sum(side.processor_s[part])
        sums.append((clock, processor))
        cells.append(f"{clock:8.1f} {processor:8.1f} {len(side.standing):8}")
    (clock, processor), (other_clock, other_processor) = sums
    ratio = f"{other_clock / clock:.2f}, {other_processor / processor:.2f}" if clock and other_clock else ""
    return f"{name:9}{cells[0]}{cells[1]}   {ratio}"


if __name__ == "__main__":
    main()
