"""One call that makes the most of a few minutes on a GPU: is it right, how fast is it, what does enlarging buy?

    PYTHONPATH=src python benchmarks/gpu.py cifar10.tar.xz --minutes 9 --out gpu
    PYTHONPATH=src python benchmarks/gpu.py --smoke --out /tmp/gpu    # the same in miniature, also on a CPU

First things come first, and the call ends itself in time. After every step ``gpu.json`` and ``gpu.md`` in the folder
are up to date; the same call goes on where the last one ended. Beside them lies what is needed to go on elsewhere with
the training under way, in pieces of at most 15 MiB. Everything else is in the folder's neighbour, ``FOLDER-work``.

It needs PyTorch, NumPy, SciPy, scikit-learn, Pillow, PyYAML, safetensors, filelock and rich, and nothing to be
installed: the package's source on PYTHONPATH is enough. With several GPUs, torchrun shares the trainings, and measures
how a training step scales:

    PYTHONPATH=src torchrun --nproc-per-node 8 benchmarks/gpu.py cifar10.tar.xz --minutes 9 --out gpu

docs/gpu.md has more.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from gpu_parts import gains, right, speed
from gpu_parts.record import PARTS, Part, Record, Step
from gpu_parts.setting import Setting, full, miniature
from gpu_parts.tables import markdown
from gpu_parts.together import Together
from robustmaps.engine import ranks
from robustmaps.engine.device import device_name, resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.ranks.joining import LIMIT, joined

# How much longer than the call ranks wait for rank 0, which may still end its last step.
_GRACE_S = 600.0


def steps(setting: Setting, record: Record) -> Iterator[Step]:
    """All steps, the most telling first: what compiles for minutes comes after the first networks are trained."""
    pair, others = gains.steps(setting, record)
    yield from right.first_steps(setting)
    yield from speed.first_steps(setting, record)
    yield from pair
    yield from right.compiled_steps(setting, 1)
    yield from others
    yield from right.other_steps(setting)
    yield from speed.other_steps(setting, record)
    yield from right.compiled_steps(setting, setting.compiled)


def estimate(setting: Setting, record: Record, only: tuple[Part, ...]) -> Iterator[str]:
    """How long each part takes: from operations and the measured ceiling where it is training, as set where not."""
    for part in only:
        if part == "gains":
            yield "  gains, from operations, the ceiling and the share of it that a step reaches:"
            for run in gains.runs(setting):
                seconds, flops = gains.train_seconds(setting, record, run), gains.train_flops(setting, run)
                time_s = "unknown without a ceiling" if seconds is None else f"about {seconds:.0f} s"
                yield f"    {run.label}: {flops / 1e15:.3g} PFLOP, {time_s}, and its evaluation"
        else:
            left = {s.name: s.seconds for s in steps(setting, record) if s.part == part and record.get(s.name) is None}
            yield f"  {part}: {len(left)} steps, set at {sum(left.values()):.0f} s"


def main() -> None:
    """Measure what is not measured yet, as far as time allows."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="CIFAR-10 as a folder or archive of class folders; digits with --smoke")
    parser.add_argument("--minutes", type=float, default=9.0, help="the length of this call (default: 9)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="the folder of the results (default: gpu)")
    parser.add_argument("--only", choices=PARTS, help="one of the three parts")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1 or cpu (default: auto)")
    parser.add_argument("--smoke", action="store_true", help="everything in miniature, in two minutes on two cores")
    parser.add_argument("--retry", action="store_true", help="make steps again that failed before")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.smoke:
        parser.error("give CIFAR-10 as a folder or archive of class folders, or --smoke")
    # A rank that hangs in a shared step ends it with the call, not half an hour later.
    os.environ.setdefault(LIMIT, str(60 * max(arguments.minutes, 1.0)))
    try:
        with joined():
            _measure(arguments, began)
    except InputError as error:
        parser.error(str(error))


def _measure(arguments: argparse.Namespace, began: float) -> None:
    """Make the steps, on rank 0; follow it, on the others."""
    device = resolve_device(arguments.device)
    if device.type != "cuda" and not arguments.smoke:
        raise InputError(f"no CUDA device here ({device_name(device)}); --smoke tries everything in miniature")
    if arguments.smoke and device.type == "cpu":
        torch.set_num_threads(1)  # networks this small gain nothing from more
    together = Together(60 * arguments.minutes + _GRACE_S)
    work = arguments.out.with_name(f"{arguments.out.name}-work")
    setting = together.first(lambda: (miniature if arguments.smoke else full)(arguments.data, device, work))
    record = Record(arguments.out, work, device, began + 60 * arguments.minutes, markdown)
    if ranks.is_main():
        try:
            _lead(arguments, setting, record, together)
        finally:
            together.end()
        print(f"{record.out / 'gpu.md'} after {(time.monotonic() - began) / 60:.1f} minutes")
    else:
        together.follow(lambda: (step for step in steps(setting, record) if step.shared), record)


def _lead(arguments: argparse.Namespace, setting: Setting, record: Record, together: Together) -> None:
    """Make the steps that are due, alone or with the other ranks, and record them."""
    device = device_name(setting.device) + (f", {ranks.size()} ranks" if ranks.size() > 1 else "")
    print(f"{device}; {setting.dataset.name}, {len(setting.dataset.train):,} training images")
    record.run(together.led([speed.ceilings(setting)], record), retry=arguments.retry)
    only: tuple[Part, ...] = (arguments.only,) if arguments.only else PARTS
    print("Estimated:")
    for line in estimate(setting, record, only):
        print(line, flush=True)
    due = (step for step in steps(setting, record) if step.part in only)
    record.run(together.led(due, record), retry=arguments.retry)
    record.values["comparisons"] = gains.comparisons(setting, record)
    record.save()


if __name__ == "__main__":
    main()
