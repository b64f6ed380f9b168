"""How fast is it? Training steps and attacks against plain implementations, and what share of the hardware they use."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gpu_parts.record import Record, Step
from gpu_parts.right import quickly_trained, test_images
from gpu_parts.setting import Network, Setting
from gpu_parts.together import by_itself
from robustmaps import TrainOptions, data, evaluate
from robustmaps.attacks import PGD, AutoAttack
from robustmaps.data import batches
from robustmaps.defenses import AT
from robustmaps.engine import ranks
from robustmaps.engine.device import Precision, float32_products
from robustmaps.engine.ranks.agreeing import from_main
from robustmaps.engine.view import AttackEngine, ViewOptions, require_compiler
from robustmaps.training import Trainee
from robustmaps.training._state import Sums
from robustmaps.training._stepper import BatchTrainer
from train_step import STEP_SIZE, ours, published, published_pgd, seconds

Call = Callable[[], object]
_ROW_S, _LEAST_ROUNDS = 3.0, 2
_TUNED = "view, bf16, cudnn.benchmark"
_EAGER: dict[str, ViewOptions] = {
    "view, fp32": ViewOptions(),
    "view, tf32": ViewOptions(precision="tf32"),
    "view, bf16": ViewOptions(precision="bf16"),
    _TUNED: ViewOptions(precision="bf16"),
}
_COMPILED: dict[str, ViewOptions] = {
    "view, bf16, compiled": ViewOptions(precision="bf16", compile=True),
    "view, bf16, CUDA graphs": ViewOptions(precision="bf16", compile=True, cuda_graphs=True),
}


def ceilings(setting: Setting) -> Step:
    """What the hardware gives at best; comes before everything else, since estimates need it."""
    return Step("speed", "ceilings", lambda: _ceilings(setting))


def first_steps(setting: Setting, record: Record) -> Iterator[Step]:
    """What decides how the networks are trained."""
    for batch in setting.batches[:2]:
        yield _step_row(setting, record, setting.base, batch, compiled=False)
    if ranks.size() > 1:
        name = f"step on {ranks.size()} ranks of {setting.base.label}, batch {setting.batches[0]}"
        yield Step("speed", name, lambda: _on_ranks(setting), 5.0 if setting.smoke else 30.0, shared=True)
    yield Step("speed", "profile", lambda: _profile(setting), 15.0 if not setting.smoke else 5.0)


def other_steps(setting: Setting, record: Record) -> Iterator[Step]:
    """The other networks and batches, compiled steps, and the comparison with plain attacks."""
    yield Step("speed", "attacks against plain", lambda: _attacks(setting, record), 5.0 if setting.smoke else 240.0)
    yield Step("speed", "images", lambda: _images(setting), 5.0 if setting.smoke else 30.0)
    for network in (setting.base, setting.shrunk, setting.upsampled, setting.wide):
        for batch in setting.batches:
            yield _step_row(setting, record, network, batch, compiled=False)
    for network in (setting.base, setting.shrunk, setting.upsampled, setting.wide):
        for batch in setting.batches:
            if not setting.smoke:
                yield _step_row(setting, record, network, batch, compiled=True)


def row_name(network: Network, batch: int, *, compiled: bool) -> str:
    """What the timings of a network at a batch size are recorded under."""
    return f"{'compiled ' if compiled else ''}step of {network.label}, batch {batch}"


def chosen_batch(setting: Setting, record: Record) -> int:
    """The smallest batch within a twentieth of the highest rate in bf16; the first where nothing was measured."""
    rates = {}
    for batch in setting.batches:
        values = record.get(row_name(setting.base, batch, compiled=False))
        if values is not None and "images_per_s" in values["rows"].get("view, bf16", {}):
            rates[batch] = values["rows"]["view, bf16"]["images_per_s"]
    if not rates:
        return setting.batches[0]
    return min(batch for batch, rate in rates.items() if rate >= 0.95 * max(rates.values()))


def median_s(call: Call, device: torch.device, rounds: int) -> float:
    """The median time of that many calls, or of as many as fit into a few seconds."""
    times: list[float] = []
    while len(times) < rounds and (len(times) < _LEAST_ROUNDS or sum(times) < _ROW_S):
        times.append(seconds(call, device))
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ceilings(setting: Setting) -> dict[str, Any]:
    """FLOP/s of a large square product on random numbers, and bytes/s, read and written, of a large copy."""
    device, side = setting.device, 512 if setting.smoke else 8192
    values: dict[str, Any] = {}
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        if name == "tf32" and device.type != "cuda":
            continue
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        with float32_products(device, tf32=tf32):
            began = time.perf_counter()
            while time.perf_counter() - began < (0.05 if setting.smoke else 0.5):  # until the clocks are up
                seconds(lambda a=a, b=b: a @ b, device)
            values[name] = 2 * side**3 / median_s(lambda a=a, b=b: a @ b, device, 20)
    source = torch.empty(2**24 if setting.smoke else 2**31, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    target.copy_(source)
    values["copy"] = 2 * source.numel() / median_s(lambda: target.copy_(source), device, 5)
    return values | {"line": ", ".join(f"{name} {value / 1e12:.3g} T/s" for name, value in values.items())}


def _step_row(setting: Setting, record: Record, network: Network, batch: int, *, compiled: bool) -> Step:
    name = row_name(network, batch, compiled=compiled)
    return Step(
        "speed",
        name,
        lambda: _steps(setting, record, network, batch, compiled=compiled),
        5.0 if setting.smoke else 90.0 if compiled else 20.0,
    )


def _steps(setting: Setting, record: Record, network: Network, batch: int, *, compiled: bool) -> dict[str, Any]:
    """The seconds of each kind of step; each kind's failure, such as too little memory, is its own."""
    device = setting.device
    model = setting.make(network)
    count, channels = batch, setting.dataset.in_channels
    x = torch.rand(count, channels, *setting.dataset.image_size, device=device)
    y = torch.randint(0, setting.dataset.num_classes, (count,), device=device)
    kinds: dict[str, Callable[[], Call]] = {}
    if compiled:
        require_compiler()
        torch.compiler.reset()
    else:
        kinds["plain"] = lambda: published(copy.deepcopy(model), x, y, steps=setting.steps)
    for label, options in (_COMPILED if compiled else _EAGER).items():
        if device.type == "cuda" or (options.precision != "tf32" and label != _TUNED):
            kinds[label] = lambda options=options: ours(copy.deepcopy(model), x, y, options, steps=setting.steps)
    # Forward and input gradient in every attack step; forward, input and weight gradient in the training step.
    useful = (2 * setting.steps + 3) * setting.flops(network) * batch
    peaks = record.get("ceilings") or {}
    rows: dict[str, dict[str, Any]] = {}
    for label, make in kinds.items():
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            with _tuned(label == _TUNED):
                rows[label] = _timed(make, setting, useful, batch, peaks.get(_peak_of(label)))
        except RuntimeError as error:
            rows[label] = {"error": str(error).splitlines()[0]}
    best = max((row["images_per_s"] for row in rows.values() if "images_per_s" in row), default=0.0)
    return {"network": network.label, "batch": batch, "rows": rows, "line": f"best {best:,.0f} images/s"}


def _on_ranks(setting: Setting) -> dict[str, Any]:
    """The training step of `robustmaps.fit` on all ranks, with a batch for each and with one for all, and on one.

    The efficiency is the rate of a rank among others as a share of that of a rank by itself.
    """
    size, batch = ranks.size(), setting.batches[0]
    rows: dict[str, dict[str, float]] = {}

    def alone() -> tuple[float, int]:
        with by_itself():
            step = _fitted(setting, batch)
            step()
            median = median_s(step, setting.device, setting.rounds)
        return median, max(_LEAST_ROUNDS, min(setting.rounds, int(_ROW_S / median)))

    one_s, rounds = from_main(alone)
    rows[f"one rank, batch {batch}"] = {"median_s": one_s, "images_per_s": batch / one_s, "each": batch / one_s}
    for label, total in ((f"{size} ranks, batch {batch} each", batch * size), (f"{size} ranks, batch {batch}", batch)):
        step = _fitted(setting, total)
        step()
        # As many rounds on every rank, since each waits for the others.
        median = statistics.median(seconds(step, setting.device) for _ in range(rounds))
        rate = total / median
        rows[label] = {
            "median_s": median,
            "images_per_s": rate,
            "each": rate / size,
            "efficiency": rate / size / (batch / one_s),
        }
    best = max(row["images_per_s"] for row in rows.values())
    return {"ranks": size, "rows": rows, "line": f"best {best:,.0f} images/s in total"}


def _fitted(setting: Setting, total: int) -> Call:
    """A training step of the base network in bf16 with that many images, which the ranks share."""
    device, model = setting.device, setting.make(setting.base)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(total, setting.dataset.in_channels, *setting.dataset.image_size, generator=generator).to(device)
    y = torch.randint(0, setting.dataset.num_classes, (total,), generator=generator).to(device)
    own = -(-total // ranks.size())
    engine = AttackEngine(model, ViewOptions(precision="bf16"))
    engine.settle(x[:8])
    options = TrainOptions(batch_size=total, device=str(device), lr=1e-3, precision="bf16")
    trainee = Trainee(model.to(memory_format=torch.channels_last), "bf16", False, own).train()
    defense = AT(PGD(eps=setting.eps, steps=setting.steps, step_size=setting.eps / 4))
    trainer, sums = BatchTrainer(trainee, engine, defense, options, setting.dataset.num_classes, None), Sums(device)

    def step() -> None:
        with float32_products(device, tf32=True):
            trainer(x, y, total, 0, 0, 1, sums)

    return step


@contextmanager
def _tuned(benchmark: bool) -> Iterator[None]:
    """Within the block, cuDNN tries its algorithms and keeps the fastest one, or takes the one it expects to be."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _peak_of(label: str) -> Precision:
    return "bf16" if "bf16" in label else "fp32" if "fp32" in label else "tf32"


def _timed(make: Callable[[], Call], setting: Setting, useful: float, batch: int, peak: float | None) -> dict[str, Any]:
    device = setting.device
    step = make()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    warm_up = seconds(step, device)
    for _ in range(0 if setting.smoke or warm_up > _ROW_S else 2):
        warm_up += seconds(step, device)
    median = median_s(step, device, setting.rounds)
    row: dict[str, Any] = {"median_s": median, "images_per_s": batch / median, "warm_up_s": warm_up}
    if peak:
        row["share_of_peak"] = useful / median / peak
    if device.type == "cuda":
        row["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return row


def _profile(setting: Setting) -> dict[str, Any]:
    """The ten kernels that take longest in a step of the base network in bf16, and the time that the host takes."""
    device, batch = setting.device, setting.batches[0]
    x = torch.rand(batch, setting.dataset.in_channels, *setting.dataset.image_size, device=device)
    y = torch.randint(0, setting.dataset.num_classes, (batch,), device=device)
    step = ours(setting.make(setting.base), x, y, ViewOptions(precision="bf16"), steps=setting.steps)
    for _ in range(3):
        step()
    _wait(device)
    cuda = device.type == "cuda"
    # Without the profiler, which makes every launch dearer.
    began = time.perf_counter()
    step()
    host_s = time.perf_counter() - began  # the launches are made; the device may still work
    _wait(device)
    wall_s = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        step()
        _wait(device)
    # Ranges such as that of the optimizer's step stand beside the kernels that they contain.
    events = [
        event
        for event in profiled.key_averages()
        if (event.device_type.name == "CUDA") == cuda and not event.is_user_annotation
    ]

    def own_us(event: Any) -> float:
        return event.self_device_time_total if cuda else event.self_cpu_time_total

    total = sum(own_us(event) for event in events)
    longest = sorted(events, key=own_us, reverse=True)[:10]
    return {
        "batch": batch,
        "wall_s": wall_s,
        "host_s": host_s,
        "device_s": total / 1e6,
        "rows": [
            {"kernel": event.key, "calls": event.count, "seconds": own_us(event) / 1e6, "share": own_us(event) / total}
            for event in longest
        ],
    }


def _images(setting: Setting) -> dict[str, Any]:
    """Decoding, reading and augmenting, and bringing a view's weights up to date, each by itself."""
    dataset, device = setting.dataset, setting.device
    began = time.perf_counter()
    data.load(dataset.spec, cache_dir=setting.work / "decoded anew")
    decode_s = time.perf_counter() - began
    images, batch = dataset.train.to(device), setting.batches[0]

    def epoch() -> None:
        for _ in batches(images, batch, seed=0, epoch=0, augmentation=dataset.augmentation, device=device):
            pass

    augment_s = median_s(epoch, device, 2)
    engine = AttackEngine(setting.make(setting.base), ViewOptions(precision="bf16"))
    x, _ = test_images(setting, 10)

    def open_view() -> None:
        with engine.view(x):
            pass

    open_view()
    return {
        "decode_s": decode_s,
        "decoded": sum(len(split) for split in (dataset.train, dataset.validation, dataset.test)),
        "augmented_images_per_s": len(images) / augment_s,
        "copy_weights_s": median_s(open_view, device, setting.rounds),
    }


def _attacks(setting: Setting, record: Record) -> dict[str, Any]:
    """PGD-20 and AutoAttack through the fast view against the same through the plain network.

    The plain PGD-20 is a loop as published code has it. The plain AutoAttack is this package's own attack on a view
    without folding or channels-last, in TF32 as PyTorch has it by default. It makes every step of the published attack:
    the same attack, so verdicts can be compared.
    """
    model = quickly_trained(setting, setting.base)
    x, y = test_images(setting, setting.images)
    rows: dict[str, dict[str, Any]] = {}
    size = 50 if setting.smoke else 500

    def plain(attack: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, Tensor]:
        _wait(setting.device)
        began, broken = time.perf_counter(), []
        for rows_ in torch.arange(len(x), device=x.device).split(size):
            x_adv = attack(x[rows_], y[rows_])
            with torch.no_grad():
                broken.append(model(x_adv).argmax(1) != y[rows_])
        _wait(setting.device)
        return time.perf_counter() - began, torch.cat(broken)

    def fast(attack: Any) -> tuple[float, Tensor]:
        began = time.perf_counter()
        evaluation = evaluate(model, x, y, attack, batch_size=size)
        return time.perf_counter() - began, ~torch.tensor(evaluation.robust_correct, device=x.device)

    pgd = PGD(eps=setting.eps, steps=20, step_size=STEP_SIZE, early_stop=True)
    pairs: list[tuple[str, Callable[[Tensor, Tensor], Tensor], Any, float]] = [
        ("pgd-20", lambda a, b: published_pgd(model, a, b, eps=setting.eps, steps=20), pgd, 0.0),
        *(
            []
            if setting.smoke
            else [
                (
                    "autoattack",
                    partial(_plain_autoattack, setting, model),
                    AutoAttack(eps=setting.eps),
                    120.0,
                )
            ]
        ),
    ]
    for name, plainly, attack, needed_s in pairs:
        our_s, our_broken = fast(attack)
        rows[name] = {"ours_s": our_s, "ours_robust": 1 - float(our_broken.float().mean())}
        if record.left_s > needed_s:
            plain_s, plain_broken = plain(plainly)
            rows[name] |= {
                "plain_s": plain_s,
                "plain_robust": 1 - float(plain_broken.float().mean()),
                "differ": int((our_broken != plain_broken).sum()),
                "ratio": plain_s / our_s,
            }
    return {"images": len(x), "rows": rows}


def _plain_autoattack(setting: Setting, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    plain = ViewOptions(fold=False, channels_last=False, precision="tf32")
    with AttackEngine(model, plain).view(x) as view:
        return AutoAttack(eps=setting.eps, patience=None)(view, x, y)
