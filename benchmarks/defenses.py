"""A training step of every defence: relative to standard training, and to a plain implementation of the same loss.

The plain implementations do what published code does: float32, contiguous, attacks in evaluation mode through the
training network; `backward` in the attack, with gradients for all parameters, except for TRADES, MART, HAT and DAJAT,
which ask for that of the images alone; single steps in training mode; AWP through a second copy of the network. The
labels are those that the network predicts at the start: the cost of friendly AT depends on how many images are right.
All steps alternate within the run.

    python benchmarks/defenses.py --model resnet8 --batch-size 128 --rounds 5
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import models
from robustmaps.defenses import Defense, create, listed
from robustmaps.defenses._augment import strongly_augmented
from robustmaps.engine.device import device_name, resolve_device
from robustmaps.engine.speed import attack_pass, choose
from robustmaps.engine.view import AttackEngine, ViewOptions
from robustmaps.training import Trainee, TrainOptions
from robustmaps.training._state import Sums
from robustmaps.training._stepper import BatchTrainer
from train_step import EPS, STEP_SIZE, STEPS, seconds

PlainLoss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def ours(helper: nn.Module) -> dict[str, Defense]:
    """The defences by name, with the parameters of the papers and steps of one length."""
    usual = {"steps": STEPS, "step_size": STEP_SIZE, "tau": 0, "helper": helper}
    made = {}
    for name, row in listed().items():
        # A single step has the length of its paper.
        taken = [key for key in row.parameters if key != "step_size" or "steps" in row.parameters]
        made[name] = create(name, "linf", EPS, **{key: usual[key] for key in taken if key in usual})
    return made


def _kl(model: nn.Module, x: Tensor, x_adv: Tensor, reduction: str) -> Tensor:
    return F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction=reduction)


def _mart(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    clean, adversarial = model(x).softmax(1), model(x_adv)
    p = adversarial.softmax(1)
    wrong = p.scatter(1, y[:, None], 0).amax(1)
    weight = 1 - clean.gather(1, y[:, None]).squeeze(1)
    kl = F.kl_div((p + 1e-12).log(), clean, reduction="none").sum(1)
    return F.cross_entropy(adversarial, y) - (1.0001 - wrong).log().mean() + 5 * (kl * weight).mean()


def _alp(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    clean, adversarial = model(x), model(x_adv)
    return F.cross_entropy(clean, y) + F.cross_entropy(adversarial, y) + 0.5 * F.mse_loss(clean, adversarial)


def _trades(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, beta: float = 6) -> Tensor:
    return F.cross_entropy(model(x), y) + beta * _kl(model, x, x_adv, "batchmean")


def _dajat(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """Of batches one below the other, the simply augmented one first."""
    losses, predictions = [], []
    for some, attacked in zip(x.chunk(len(x) // len(y)), x_adv.chunk(len(x) // len(y)), strict=True):
        clean, adversarial = model(some), model(attacked)
        predictions.append(clean.softmax(1))
        divergence = F.kl_div(adversarial.log_softmax(1), predictions[-1], reduction="batchmean")
        losses.append(F.cross_entropy(clean, y) + 11 * divergence)
    mixture = (sum(predictions) / len(predictions)).clamp(min=1e-7).log()
    consistency = sum(F.kl_div(mixture, p, reduction="batchmean") for p in predictions) / len(predictions)
    return sum(losses) / len(losses) + 2 * consistency


PLAIN_LOSSES: dict[str, PlainLoss] = {
    "standard": lambda model, x, x_adv, y: F.cross_entropy(model(x), y),  # noqa: ARG005
    "at": lambda model, x, x_adv, y: F.cross_entropy(model(x_adv), y),  # noqa: ARG005
    "alp": _alp,
    "trades": _trades,
    "mart": _mart,
    "fat": lambda model, x, x_adv, y: F.cross_entropy(model(x_adv), y),  # noqa: ARG005
    "dajat": _dajat,
    "fast-at": lambda model, x, x_adv, y: F.cross_entropy(model(x_adv), y),  # noqa: ARG005
    "n-fgsm": lambda model, x, x_adv, y: F.cross_entropy(model(x_adv), y),  # noqa: ARG005
}


def plain_hat(helper: nn.Module) -> PlainLoss:
    """The loss of helper-based training."""

    def loss(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            labels = helper(x_adv).argmax(1)
        helped = F.cross_entropy(model(x + 2 * (x_adv - x)), labels)
        return F.cross_entropy(model(x), y) + 2.5 * _kl(model, x, x_adv, "batchmean") + 0.5 * helped

    return loss


def plain_attack(model: nn.Module, x: Tensor, y: Tensor, name: str) -> Tensor:
    """The attack of published code, through the training network."""
    if name == "standard":
        return x
    if name in ("fast-at", "n-fgsm"):
        return plain_single_step(model, x, y, noise=1.0 if name == "fast-at" else 2.0)
    model.eval()
    if name == "fat":
        return plain_friendly(model, x, y)
    divergence, step, count = name in ("trades", "hat", "dajat"), STEP_SIZE, STEPS
    if name == "dajat":
        step, count = EPS / 2, 5
    x_adv = x + (0.001 * torch.randn_like(x) if divergence else torch.empty_like(x).uniform_(-EPS, EPS))
    for _ in range(count):
        x_adv = x_adv.detach().requires_grad_()
        loss = _kl(model, x, x_adv, "sum") if divergence else F.cross_entropy(model(x_adv), y)
        if divergence or name == "mart":
            (gradient,) = torch.autograd.grad(loss, [x_adv])
        else:
            loss.backward()
            gradient = x_adv.grad
        x_adv = x_adv.detach() + step * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    return x_adv


def plain_friendly(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Steps for those images alone that are not yet misclassified."""
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    left = torch.arange(len(x), device=x.device)
    for _ in range(STEPS):
        some = x_adv[left].requires_grad_()
        logits = model(some)
        F.cross_entropy(logits, y[left]).backward()
        right = logits.argmax(1) == y[left]
        left = left[right]
        if not len(left):
            break
        moved = some.detach()[right] + STEP_SIZE * some.grad[right].sign()
        x_adv[left] = torch.min(torch.max(moved, x[left] - EPS), x[left] + EPS).clamp(0, 1)
    model.train()
    return x_adv


def plain_single_step(model: nn.Module, x: Tensor, y: Tensor, noise: float) -> Tensor:
    """Fast AT's step of 1.25 eps, projected, or N-FGSM's of eps, not projected."""
    start = torch.empty_like(x).uniform_(-noise * EPS, noise * EPS)
    delta = (torch.clamp(x + start, 0, 1) - x).requires_grad_()
    F.cross_entropy(model(x + delta), y).backward()
    moved = delta.detach() + (1.25 if noise == 1 else 1.0) * EPS * delta.grad.sign()
    moved = moved.clamp(-EPS, EPS) if noise == 1 else moved
    return (x + moved).clamp(0, 1)


def plain_free(model: nn.Module, x: Tensor, y: Tensor, replays: int = 8) -> Callable[[], None]:
    """Free training's steps on a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    delta = torch.zeros_like(x)

    def step() -> None:
        for _ in range(replays):
            leaf = delta.clone().requires_grad_()
            optimizer.zero_grad()
            F.cross_entropy(model((x + leaf).clamp(0, 1)), y).backward()
            optimizer.step()
            delta.add_(EPS * leaf.grad.sign()).clamp_(-EPS, EPS)

    return step


def plain(model: nn.Module, helper: nn.Module, x: Tensor, y: Tensor, name: str) -> Callable[[], None]:
    """A step as published code does it."""
    if name == "free-at":
        return plain_free(model, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    inner, awp = name.removesuffix("-awp"), name.endswith("-awp")
    loss = plain_hat(helper) if inner == "hat" else PLAIN_LOSSES[inner]
    proxy = copy.deepcopy(model) if awp else None
    gamma = 0.01 if inner == "at" else 0.005

    def step() -> None:
        images = torch.cat([x, *(strongly_augmented(x, None) for _ in range(2))]) if inner == "dajat" else x
        x_adv = plain_attack(model, images, y, inner)
        moves = {}
        if proxy is not None:
            proxy.load_state_dict(model.state_dict())
            proxy.train()
            ascent = torch.optim.SGD(proxy.parameters(), lr=0.01)
            ascent.zero_grad()
            ascended = _trades(proxy, x, x_adv[: len(x)], y, 11) if inner == "dajat" else loss(proxy, x, x_adv, y)
            (-ascended).backward()
            ascent.step()
            moved = dict(proxy.named_parameters())
            for key, old in model.named_parameters():
                if old.dim() > 1:
                    move = (moved[key] - old).detach()
                    moves[key] = gamma * old.detach().norm() / (move.norm() + 1e-20) * move
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for key, move in moves.items():
                parameters[key].add_(move)
        optimizer.zero_grad()
        loss(model, images, x_adv, y).backward()
        optimizer.step()
        with torch.no_grad():
            for key, move in moves.items():
                parameters[key].sub_(move)

    return step


def step_of(model: nn.Module, defense: Defense, x: Tensor, y: Tensor, view: ViewOptions) -> Callable[[], None]:
    """A step as `robustmaps.fit` does it."""
    model = model.to(memory_format=torch.channels_last).train()
    options = TrainOptions(lr=1e-3, batch_size=len(x), precision=view.precision, schedule="constant")
    trainee = Trainee(model, view.precision, view.compile, len(x))
    stepper = BatchTrainer(trainee, AttackEngine(model, view), defense, options, 10, None)
    sums = Sums(x.device)
    return lambda: stepper(x, y, len(x), 0, 0, 1, sums)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names of defences with commas")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    device = resolve_device(arguments.device)
    torch.manual_seed(0)
    x = torch.rand(arguments.batch_size, 3, 32, 32, device=device)
    base = models.create(arguments.model, mean=[0.5] * 3, std=[0.25] * 3).to(device)
    with torch.no_grad():
        y = base.eval()(x).argmax(1)
    base.train()
    form = choose("auto", arguments.compile, base, x, y, 1e3, what="attack", make=attack_pass(base)).form
    view = ViewOptions(precision=form.precision, compile=form.compile)
    helper = copy.deepcopy(base).eval()
    defenses = ours(helper)
    if arguments.only:
        names = arguments.only.split(",")
        if unknown := [name for name in names if name not in defenses]:
            parser.error(f"--only: no {', '.join(unknown)}; expected some of {', '.join(defenses)}")
        # With what they are compared to.
        names += ["standard", "at", *(name.removesuffix("-awp") for name in names)]
        defenses = {name: made for name, made in defenses.items() if name in names}
    steps = {name: step_of(copy.deepcopy(base), defense, x, y, view) for name, defense in defenses.items()}
    for name in defenses:
        if name.removesuffix("-awp") in (*PLAIN_LOSSES, "hat", "free-at"):
            steps[f"plain {name}"] = plain(copy.deepcopy(base), helper, x, y, name)

    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # compilation and caches
        seconds(step, device)
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, device))

    median = {name: statistics.median(each) for name, each in times.items()}
    rows = {
        name: {
            "images_per_s": arguments.batch_size / median[name],
            "times_standard": median[name] / median["standard"],
            "times_inner": median[name] / median[inner] if (inner := name.removesuffix("-awp")) != name else None,
            "times_at": median[name] / median["at"] if "at" in median else None,
            "speedup": median[f"plain {name}"] / median[name] if f"plain {name}" in median else None,
        }
        for name in defenses
    }
    if arguments.json:
        print(json.dumps({"device": device_name(device), "rows": rows}))
        return
    setting = f"{arguments.model}, batch {arguments.batch_size}, {arguments.rounds} rounds, {device_name(device)}"
    print(f"{setting}, {view.precision}, torch {torch.__version__}\n")
    print("| defence | images/s | cost / standard | cost / AT | cost / inner defence | times plain |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        cells = [row[key] for key in ("times_standard", "times_at", "times_inner", "speedup")]
        print(
            f"| {name} | {row['images_per_s']:.0f} | "
            + " | ".join("" if c is None else f"{c:.2f}" for c in cells)
            + " |"
        )


if __name__ == "__main__":
    main()
