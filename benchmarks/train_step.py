"""A PGD-10 adversarial training step: ours against the published procedure, alternating in one run.

The published procedure (reference code of arXiv 2202.12435 and of the defences it builds on): float32, contiguous,
the attack in evaluation mode through the training network, whose parameters all get gradients in every attack step.
Each further row adds one thing to the one above it, so that the gain is told apart.

    python benchmarks/train_step.py --model resnet8 --batch-size 128 --rounds 7
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import models
from robustmaps.analysis import measure_cost
from robustmaps.attacks import PGD
from robustmaps.defenses import AT
from robustmaps.engine.device import device_name, float32_products, resolve_device
from robustmaps.engine.speed import Form, attack_pass, choose
from robustmaps.engine.view import AttackEngine, ViewOptions
from robustmaps.training import Trainee
from robustmaps.training._forms import TrainingPass

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10


def published_pgd(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, steps: int = STEPS) -> Tensor:
    """The attack as published code does it, with gradients of all parameters in every step."""
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        F.cross_entropy(model(x_adv), y).backward()
        x_adv = x_adv.detach() + STEP_SIZE * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
    return x_adv.detach()


def published(model: nn.Module, x: Tensor, y: Tensor, *, steps: int = STEPS) -> Callable[[], None]:
    """The step as published code does it, in float32 as PyTorch has it by default."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        model.eval()
        x_adv = published_pgd(model, x, y, steps=steps)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x_adv), y).backward()
        optimizer.step()

    return step


def ours(
    model: nn.Module, x: Tensor, y: Tensor, options: ViewOptions, training: Form | None = None, *, steps: int = STEPS
) -> Callable[[], None]:
    """The step as `robustmaps.fit` does it, with training passes in the form of the attack if none is given."""
    training = training or Form(options.precision, options.compile)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    engine = AttackEngine(model, options)
    trainee = Trainee(model, training.precision, training.compile, len(x))
    defense = AT(PGD(eps=EPS, steps=steps, step_size=STEP_SIZE))

    def step() -> None:
        with float32_products(x.device, tf32=options.precision != "fp32"):
            trainee.train()
            with engine.view(x) as view:
                loss = defense.loss(trainee, x, y, view=view)
            optimizer.zero_grad(set_to_none=True)
            loss.value.backward()
            optimizer.step()

    return step


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, with the device's work before it and its own done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the best of ten."""
    a = torch.rand(2048, 2048, device=device).to(dtype)
    best = min(seconds(lambda: a @ a, device) for _ in range(10))
    return 2 * 2048**3 / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--strides")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bf16", action="store_true", help="also where bf16 is not the faster form")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    device = resolve_device(arguments.device)
    torch.manual_seed(0)
    x = torch.rand(arguments.batch_size, 3, 32, 32, device=device)
    y = torch.randint(0, 10, (arguments.batch_size,), device=device)
    base = models.create(arguments.model, strides=arguments.strides, mean=[0.5] * 3, std=[0.25] * 3).to(device)

    fp32 = {
        "input gradients only": ViewOptions(fold=False, channels_last=False),
        "+ channels-last": ViewOptions(fold=False),
        "+ folded batch-norm": ViewOptions(),
    }
    variants = dict(fp32)
    # As for a long run.
    passes = 1e3 if arguments.no_compile else 1e6
    asked = ("auto", False, base, x, y, passes)
    attack = choose(*asked, what="attack", make=attack_pass(base))
    training = choose(*asked, what="training", make=TrainingPass(base))
    bf16 = arguments.bf16 or attack.form.precision == "bf16"
    if bf16:
        variants["+ bf16"] = ViewOptions(precision="bf16")
    if not arguments.no_compile:
        variants["+ torch.compile"] = ViewOptions(precision="bf16" if bf16 else "fp32", compile=True)
    steps = {"published procedure": published(copy.deepcopy(base), x, y)}
    steps |= {name: ours(copy.deepcopy(base), x, y, options) for name, options in variants.items()}
    options = ViewOptions(precision=attack.form.precision, compile=attack.form.compile)
    steps["`--precision auto`"] = ours(copy.deepcopy(base), x, y, options, training.form)

    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # compilation and caches
        seconds(step, device)
        seconds(step, device)
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, device))

    flops = measure_cost(base, x[:1]).flops
    peak = matmul_peak(device, torch.bfloat16 if bf16 else torch.float32)
    # Forward and input gradient in every attack step; forward, input and weight gradient in the training step.
    useful = (2 * STEPS + 3) * flops * arguments.batch_size
    reference = statistics.median(times["published procedure"])
    rows = {
        name: {
            "median_s": (median := statistics.median(each)),
            "images_per_s": arguments.batch_size / median,
            "ratio": reference / median,
            "share_of_peak": useful / median / peak,
        }
        for name, each in times.items()
    }
    if arguments.json:
        print(json.dumps({"device": device_name(device), "matmul_peak_flops": peak, "rows": rows}))
        return
    setting = f"{arguments.model}, batch {arguments.batch_size}, {arguments.rounds} rounds, {device_name(device)}"
    print(f"{setting}, torch {torch.__version__}; {'bf16' if bf16 else 'fp32'} matmul peak {peak / 1e9:.0f} GFLOP/s\n")
    print(f"auto takes for attacks {attack}, for training passes {training}\n")
    print("| step | median | images/s | times published | share of peak |\n| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(
            f"| {name} | {1000 * row['median_s']:.0f} ms | {row['images_per_s']:.0f} | "
            f"{row['ratio']:.2f} | {100 * row['share_of_peak']:.0f} % |"
        )


if __name__ == "__main__":
    main()
