"""Is it right? Views, attacks, defences, resuming and verdicts against references that share none of the fast paths."""

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gpu_parts.record import Step
from gpu_parts.setting import Network, Setting
from robustmaps import TrainOptions, compare, data, defenses, evaluate, fit, models
from robustmaps.attacks import APGD, FAB, FGSM, PGD, Attack, AutoAttack, NoiseFGSM, Square
from robustmaps.defenses import Defense, Minimax
from robustmaps.engine.device import float32_products
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.random import stream
from robustmaps.engine.view import AttackEngine, ViewOptions, require_compiler

# Relative to the reference's norm: float32's rounding through a hundred layers, ten bits of mantissa, eight bits.
LIMITS = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 2e-1}
# A rounding that crosses a ReLU's kink changes the whole gradient: in bf16, of 101 untrained layers, by more than its
# length, with 58 % of its signs left. Signs drawn at random would be right for half.
GRADIENT_LIMITS = {"fp32": 5e-2, "tf32": 5e-1, "bf16": float("inf")}
LEAST_SAME_SIGN = 0.55
COMPILE_S = 60.0
_FIRST = 5


def first_steps(setting: Setting) -> Iterator[Step]:
    """What the first trainings rest on."""
    full = not setting.smoke
    yield from _view_steps(setting, setting.architectures[:_FIRST])
    yield from _defense_steps(setting, ("at", "trades", "at-awp"))
    yield Step("right", "resume", lambda: _resume(setting), 20.0 if full else 5.0)
    yield Step("right", "attacks", lambda: _attacks(setting), 40.0 if full else 5.0)
    yield Step("right", "verdicts", lambda: _verdicts(setting), 60.0 if full else 5.0)


def other_steps(setting: Setting) -> Iterator[Step]:
    """The other architectures and defences."""
    yield from _defense_steps(setting, tuple(_defenses(nn.Identity())))
    yield from _view_steps(setting, setting.architectures)


def _view_steps(setting: Setting, names: tuple[str, ...]) -> Iterator[Step]:
    for name in names:
        yield Step("right", f"view of {name}", lambda name=name: _views(setting, name, _eager(setting)))


def _defense_steps(setting: Setting, names: tuple[str, ...]) -> Iterator[Step]:
    for name in names:
        yield Step("right", f"defence {name}", lambda name=name: _defense_step(setting, name))


def compiled_steps(setting: Setting, count: int) -> Iterator[Step]:
    """The compiled views of so many architectures, each of which compiles for half a minute or more."""
    for name in setting.architectures[:count]:
        yield Step(
            "right",
            f"compiled view of {name}",
            lambda name=name: _views(setting, name, _compiled(setting)),
            COMPILE_S if setting.device.type == "cuda" else 5.0,
        )


def _eager(setting: Setting) -> dict[str, ViewOptions]:
    plain = ViewOptions(fold=False, channels_last=False)
    each = {
        "plain": plain,
        "folded": replace(plain, fold=True),
        "channels-last": replace(plain, channels_last=True),
        "bf16": replace(plain, precision="bf16"),
        "together": ViewOptions(precision="bf16"),
        "together, fp32": ViewOptions(),
    }
    if setting.device.type == "cuda":
        each |= {"tf32": replace(plain, precision="tf32"), "together, tf32": ViewOptions(precision="tf32")}
    return each


def _compiled(setting: Setting) -> dict[str, ViewOptions]:
    alone = {"compiled": ViewOptions(fold=False, channels_last=False, compile=True)}
    if setting.smoke:
        return {"together, compiled": ViewOptions(precision="bf16", compile=True)}
    return alone | {
        "together, compiled": ViewOptions(precision="bf16", compile=True),
        "together, CUDA graphs": ViewOptions(precision="bf16", compile=True, cuda_graphs=True),
    }


def _views(setting: Setting, name: str, variants: dict[str, ViewOptions]) -> dict[str, Any]:
    """Logits and input gradients of each view against the plain network in float64."""
    torch.manual_seed(0)
    model = models.create(name, mean=[0.5] * 3, std=[0.25] * 3).to(setting.device)
    count = 2 if setting.smoke else 4
    x = torch.rand(count, 3, setting.side, setting.side, device=setting.device)
    y = torch.arange(count, device=setting.device)
    # Statistics as training leaves them: those of a new batch-norm are nearly the identity and hide mistakes.
    with torch.no_grad(), float32_products(setting.device, tf32=False):
        for _ in range(3):
            model.train()(torch.rand_like(x))
    model.eval()
    reference = _gradient(copy.deepcopy(model).double(), x.double(), y)
    rows: dict[str, dict[str, Any]] = {}
    for label, options in variants.items():
        if options.compile:
            torch.compiler.reset()
            require_compiler()
        engine = AttackEngine(model, options)
        row = _compared(engine, x, y, reference)
        # Weights move in place under a compiled view or a recorded graph, and the last batch is smaller.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        later = _compared(engine, x[:-1], y[:-1], _gradient(copy.deepcopy(model).double(), x[:-1].double(), y[:-1]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.div_(1.1)
        rows[label] = row | {"later": later["logits"], "ok": row["ok"] and later["ok"]}
    return {"rows": rows, "ok": all(row["ok"] for row in rows.values())}


def _compared(engine: AttackEngine, x: Tensor, y: Tensor, reference: tuple[Tensor, Tensor]) -> dict[str, Any]:
    options = engine.options
    with engine.view(x) as view:
        for _ in range(3 if options.cuda_graphs else 1):  # warmed up, recorded, replayed
            logits, _, gradient = view.gradient(x, lambda logits: F.cross_entropy(logits, y, reduction="none"))
    off, away = _distance(logits, reference[0]), _distance(gradient, reference[1])
    same_sign = float((gradient.sign() == reference[1].sign()).float().mean())
    near = off <= LIMITS[options.precision] and away <= GRADIENT_LIMITS[options.precision]
    return {
        "logits": off,
        "gradient": away,
        "same_sign": same_sign,
        "folded": len(engine.folded),
        "ok": near and same_sign >= LEAST_SAME_SIGN,
    }


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
    return logits.detach(), gradient


def _distance(value: Tensor, reference: Tensor) -> float:
    return float((value.double() - reference).norm() / reference.norm())


def quickly_trained(setting: Setting, network: Network) -> nn.Module:
    """A network that is worth attacking: N-FGSM for a few epochs, made once and kept."""
    model = setting.make(network)
    file = setting.work / "quick" / f"{network.label.replace(' ', '-')}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, map_location=setting.device, weights_only=True))
        return model.eval()
    attack = NoiseFGSM(eps=setting.eps)
    size = {"epochs": 2} if setting.smoke else {"epochs": 6, "batch_size": 512}
    options = TrainOptions(**size, schedule="one-cycle", lr=0.2, device=str(setting.device))
    fit(model, replace(setting.dataset, validation=_few(setting, 100)), defenses.NFGSM(attack), options)
    file.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def _few(setting: Setting, count: int) -> data.ImageSet:
    return setting.dataset.validation.subset(count)


def test_images(setting: Setting, count: int) -> tuple[Tensor, Tensor]:
    """So many test images, stratified, on the device."""
    x, y = setting.dataset.test.subset(count).tensors()
    return x.to(setting.device), y.to(setting.device)


def _attacks(setting: Setting) -> dict[str, Any]:
    """Whether each attack stays in its budget, breaks images that the plain network confirms, and repeats itself."""
    model = quickly_trained(setting, setting.base)
    x, y = test_images(setting, 10 if setting.smoke else 100)
    queries = 20 if setting.smoke else 500
    tried: dict[str, Attack] = {}
    budgets = {"linf": setting.eps} if setting.smoke else {"linf": setting.eps, "l2": 16 * setting.eps}
    for norm, eps in budgets.items():
        tried |= {
            f"pgd {norm}": PGD(norm, eps, setting.steps),
            f"apgd-ce {norm}": APGD(norm, eps, setting.steps),
            f"apgd-t {norm}": APGD(norm, eps, setting.steps, loss="dlr-t", targets=3),
            f"fab-t {norm}": FAB(norm, eps, steps=setting.steps, targeted=True, targets=3),
            f"square {norm}": Square(norm, eps, queries=queries),
        }
    rows: dict[str, dict[str, Any]] = {}
    for name, attack in tried.items():
        made = []
        for _ in range(2):
            with AttackEngine(model, ViewOptions()).view(x) as view:
                made.append(attack(view, x, y, generator=stream(0, name, device=x.device)))
        evaluation = evaluate(model, x, y, attack, precision="fp32")
        delta = (made[0] - x).flatten(1)
        size = delta.abs().amax(1) if attack.norm == "linf" else delta.norm(dim=1)
        inside = bool(size.max() <= attack.eps * (1 + 1e-5)) and bool((made[0] >= 0).all() and (made[0] <= 1).all())
        rows[name] = {
            "clean": evaluation.clean_accuracy.value,
            "robust": evaluation.robust_accuracy.value,
            "repeats": float((made[0] - made[1]).abs().max()),
            "ok": inside and bool(made[0].isfinite().all()) and not evaluation.warnings,
        }
    return {"rows": rows, "ok": all(row["ok"] for row in rows.values())}


def _defenses(helper: nn.Module) -> dict[str, Callable[[Setting], Defense]]:
    """Every defence, made for a setting."""

    def pgd(setting: Setting, **more: Any) -> PGD:
        return PGD(eps=setting.eps, steps=setting.steps, **more)

    def kl(setting: Setting) -> PGD:
        return pgd(setting, loss="kl", start="normal")

    inner: dict[str, Callable[[Setting], Any]] = {
        "at": lambda s: defenses.AT(pgd(s)),
        "alp": lambda s: defenses.ALP(pgd(s)),
        "trades": lambda s: defenses.TRADES(kl(s)),
        "mart": lambda s: defenses.MART(pgd(s, start="normal")),
        "fat": lambda s: defenses.FAT(pgd(s), tau=1),
        "hat": lambda s: defenses.HAT(helper, kl(s)),
        "dajat": lambda s: defenses.DAJAT(PGD(eps=s.eps)),
    }
    return {
        "standard": lambda s: defenses.Standard(),  # noqa: ARG005
        **inner,
        **{f"{name}-awp": lambda s, make=make: defenses.AWP(make(s), gamma=0.005) for name, make in inner.items()},
        "fast-at": lambda s: defenses.FastAT(PGD(eps=s.eps, steps=1)),
        "n-fgsm": lambda s: defenses.NFGSM(NoiseFGSM(eps=s.eps)),
        "liet": lambda s: defenses.LIET(FGSM(eps=s.eps)),
        "free-at": lambda s: defenses.FreeAT(FGSM(eps=s.eps)),
    }


def _defense_step(setting: Setting, name: str) -> dict[str, Any]:
    """The examples made on the device; the loss and its gradient at them against float64 on the CPU.

    Weight perturbations follow signs of tiny gradients, so their steps, and those of defences that draw on the way, are
    only checked to train: a finite loss and finite gradients for every parameter.
    """
    model, helper = setting.make(setting.base), setting.make(setting.base, seed=1).eval().requires_grad_(False)
    defense = _defenses(helper)[name](setting)
    dataset = setting.dataset.train.subset(32)
    x, y = (tensor.to(setting.device) for tensor in dataset.tensors())
    generator = stream(0, "defence", device=x.device)
    with float32_products(x.device, tf32=False):
        if isinstance(defense, Minimax) and name not in ("dajat", "free-at"):
            with AttackEngine(model).view(x) as view:
                examples = defense.inner(view, x, y, generator)
            loss, gradient = _outer(defense, model, x, examples, y)
            exact = copy.deepcopy(model).double().cpu()
            if name == "hat":
                defense = replace(defense, helper=copy.deepcopy(helper).double().cpu())  # type: ignore[type-var]
            there, expected = _outer(defense, exact, *tree_map(_exact, (x, examples, y)))
            values = {
                "loss": abs(loss - there) / max(abs(there), 1e-12),
                "gradient": _distance(gradient.cpu(), expected),
            }
            return values | {"ok": values["loss"] < 1e-4 and values["gradient"] < 1e-2}
        options = TrainOptions(epochs=1, batch_size=16, lr=0.01, device=str(setting.device), precision="fp32")
        few = replace(setting.dataset, train=dataset, validation=dataset.subset(20))
        history = fit(model, few, defense, options, validation_attack=PGD(eps=setting.eps, steps=1)).history
        finite = all(bool(p.isfinite().all()) for p in model.parameters())
    return {"loss": history[-1]["train_loss"], "ok": finite}


def _exact(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def _outer(defense: Any, model: nn.Module, x: Tensor, examples: Any, y: Tensor) -> tuple[float, Tensor]:
    loss = defense.outer(model.train(), x, examples, y).value
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])


def _resume(setting: Setting) -> dict[str, Any]:
    """How far a run that was stopped on the way ends from one that was not, beside how far two of those are apart.

    On a CPU all are the same, bit for bit. On a GPU sums are added in an order that changes from run to run unless
    cuDNN is told to be deterministic, as it is here, and even then some of PyTorch's own sums are not.
    """
    few = replace(
        setting.dataset, train=setting.dataset.train.subset(160), validation=setting.dataset.validation.subset(40)
    )
    options = TrainOptions(
        epochs=2, batch_size=16, lr=0.05, schedule="one-cycle", device=str(setting.device), ema=0.9, precision="fp32"
    )
    defense = defenses.AT(PGD(eps=setting.eps, steps=setting.steps))

    def train(name: str, stops: int) -> Tensor:
        shutil.rmtree(setting.work / "resume" / name, ignore_errors=True)
        steps_made = 0

        def should_stop() -> bool:
            nonlocal steps_made
            steps_made += 1
            return steps_made == 7

        while True:
            model = setting.make(setting.base)
            stop = should_stop if stops else (lambda: False)
            try:
                fit(model, few, defense, options, out=setting.work / "resume" / name, resume=True, should_stop=stop)
            except Interrupted:
                stops -= 1
                continue
            return torch.cat([p.detach().flatten() for p in model.parameters()])

    deterministic = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        first, second, resumed = train("first", 0), train("second", 0), train("resumed", 1)
    finally:
        torch.backends.cudnn.deterministic = deterministic
    apart, off = _distance(second, first.double()), _distance(resumed, first.double())
    limit = 0.0 if setting.device.type == "cpu" else max(3 * apart, 1e-6)
    return {"uninterrupted": apart, "resumed": off, "limit": limit, "ok": off <= limit}


def _verdicts(setting: Setting) -> dict[str, Any]:
    """The same evaluation on the device and on the CPU; without random draws an attack makes the same images."""
    model = quickly_trained(setting, setting.base)
    x, y = setting.dataset.test.subset(setting.verdicts).tensors()
    attacks: dict[str, Attack] = {
        "pgd-20 from the image": PGD(eps=setting.eps, steps=20, start="none"),
        "autoattack a3": AutoAttack(eps=setting.eps, version="a3"),
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, attack in attacks.items():
        reference = evaluate(copy.deepcopy(model).cpu(), x, y, attack, precision="fp32")
        for precision in ("fp32", "bf16"):
            there = evaluate(model, x, y, attack, precision=precision)
            differ = sum(
                (a == "robust") != (b == "robust") for a, b in zip(reference.verdicts, there.verdicts, strict=True)
            )
            comparison = compare(reference, there)
            rows[f"{name}, {precision}"] = {
                "cpu": reference.robust_accuracy.value,
                "device": there.robust_accuracy.value,
                "differ": differ,
                "p": comparison.p_value,
                "ok": differ <= max(2, len(x) // 50),
            }
    return {"rows": rows, "images": len(x), "ok": all(row["ok"] for row in rows.values())}
