"""Memory and time of adversarial training steps, with and without checkpointed stages, each in a process of its own.

The steps are PGD-AT on random images of 32 x 32 pixels. `memory` is the peak of the process above what it had taken
before the first step. Then both are run under a cap between their peaks, by `ulimit -v` in the process itself: one has
to fail, and the other has to end.

    python benchmarks/memory.py resnet18:1111:32 wrn28_10:112:16
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

STEPS = 2


def work(network: str, strides: str, batch: int, mode: str, cap: int) -> dict[str, Any]:
    """Train, under a cap of the address space in bytes, 0 for none."""
    from robustmaps import models
    from robustmaps.defenses import create
    from robustmaps.engine.view import AttackEngine, ViewOptions
    from robustmaps.engine.views.stages import find_stages
    from robustmaps.training import Trainee, TrainOptions
    from robustmaps.training._state import Sums
    from robustmaps.training._stepper import BatchTrainer

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = models.create(network, num_classes=10, strides=strides)
    x, y = torch.rand(batch, 3, 32, 32), torch.randint(10, (batch,))
    stages = find_stages(model, x[:1])[0] if mode == "on" else ()
    engine = AttackEngine(model, ViewOptions(stages=bool(stages)))
    engine.settle(x[:8])
    trainee = Trainee(model, "fp32", False, batch, stages=stages).train()
    options = TrainOptions(batch_size=batch, device="cpu", precision="fp32")
    trainer = BatchTrainer(trainee, engine, create("at", "linf", 8 / 255, steps=1), options, 10, None)
    if cap:
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    before, began = _peak(), time.perf_counter()
    for step in range(STEPS):
        trainer(x, y, batch, 0, step, STEPS, Sums(torch.device("cpu")))
    seconds = (time.perf_counter() - began) / STEPS
    return {"memory": _peak() - before, "seconds": seconds, "space": _space(), "weights": _hash(model)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _space() -> int:
    """The most address space that the process ever had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak"))


def _hash(model: torch.nn.Module) -> float:
    return sum(p.double().abs().sum().item() for p in model.state_dict().values())


def _in_process(what: str, mode: str, cap: int = 0) -> dict[str, Any]:
    command = [sys.executable, __file__, what, "--mode", mode, "--cap", str(cap)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="NETWORK:STRIDES:BATCH")
    parser.add_argument("--mode", choices=("off", "on"), help=argparse.SUPPRESS)
    parser.add_argument("--cap", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for case in given.cases:
        if given.mode:
            network, strides, batch = case.split(":")
            print(json.dumps(work(network, strides, int(batch), given.mode, given.cap)))
            continue
        found = {mode: _in_process(case, mode) for mode in ("off", "on", "off", "on")}
        off, on = found["off"], found["on"]
        same = "the same" if off["weights"] == on["weights"] else "OTHER"
        print(
            f"{case}: {off['memory'] / 1e9:.2f} GB and {off['seconds']:.2f} s a step; with checkpointed stages "
            f"{on['memory'] / 1e9:.2f} GB and {on['seconds']:.2f} s ({on['memory'] / off['memory']:.2f} x, "
            f"{on['seconds'] / off['seconds']:.2f} x), {same} weights"
        )
        cap = (off["space"] + on["space"]) // 2
        capped = {mode: _in_process(case, mode, cap) for mode in ("off", "on")}
        for mode, one in capped.items():
            print(f"  under ulimit -v {cap // 1024}, {mode}: {one.get('failed', 'ended')}")


if __name__ == "__main__":
    main()
