"""What does enlarging buy? The published question, trained to the end and attacked with AutoAttack."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu_parts import carried
from gpu_parts.record import OutOfTime, Record, Step
from gpu_parts.setting import Network, Setting
from gpu_parts.speed import chosen_batch, row_name
from robustmaps import Evaluation, TrainOptions, evaluate, fit
from robustmaps.attacks import PGD, AutoAttack
from robustmaps.defenses import AT, TRADES, Defense
from robustmaps.engine import ranks
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import compare_all
from robustmaps.training import RunFolder

# Left at the end of a call, for the last checkpoint, its pieces and the record.
RESERVE_S = 15.0
_CHECKPOINT_S = 60.0
# For an evaluation, which keeps what it finds batch by batch.
_LAST_S = 4.0


@dataclass(frozen=True)
class Run:
    """One training: a network, a defence, how long, and with which seed."""

    network: Network
    defense: str
    epochs: int
    seed: int

    @property
    def label(self) -> str:
        """As it is written in tables and names of steps."""
        return f"{self.defense} {self.network.label}, {self.epochs} epochs, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Its run folder's name."""
        return self.label.replace(", ", "-").replace(" ", "-")


def runs(setting: Setting) -> list[Run]:
    """In the order in which they answer the most: one pair, the same operations, then seeds, then another defence."""
    base, shrunk, upsampled, epochs = setting.base, setting.shrunk, setting.upsampled, setting.epochs
    equal = round(epochs * setting.flops(shrunk) / setting.flops(base))
    several = [(base, epochs), (shrunk, epochs), (upsampled, epochs), (base, equal)]
    return [
        Run(network, defense, length, seed)
        for defense in (("at",) if setting.smoke else ("at", "trades"))
        for seed in range(setting.seeds if defense == "at" else 1)
        for network, length in several
    ]


def steps(setting: Setting, record: Record) -> tuple[list[Step], list[Step]]:
    """The first pair of networks, and all others; each training is followed at once by its evaluation.

    On more images at the end, by the machine that trained them.
    """
    every: list[Step] = []
    for run in runs(setting):
        every.append(
            Step("gains", f"train {run.label}", partial(_train, setting, record, run), 2 * RESERVE_S, shared=True)
        )
        every.append(_evaluation(setting, record, run, setting.images))
    if len(setting.dataset.test) > setting.images and not setting.smoke:
        every += [_evaluation(setting, record, run, len(setting.dataset.test)) for run in runs(setting)]
    return every[:4], every[4:]


def train_flops(setting: Setting, run: Run) -> float:
    """Operations of the training, without validation.

    Forward and input gradient in each attack step, three passes in the step itself and, under TRADES, another three for
    the clean images.
    """
    passes = 2 * setting.steps + 3 + (3 if run.defense == "trades" else 0)
    return passes * setting.flops(run.network) * len(setting.dataset.train) * run.epochs


def train_seconds(setting: Setting, record: Record, run: Run) -> float | None:
    """The time that the training takes, from the measured share of the ceiling; None where no ceiling is known.

    With several ranks as if nothing was lost in sharing.
    """
    peaks = record.get("ceilings")
    if peaks is None:
        return None
    batch = chosen_batch(setting, record)
    for network in (run.network, setting.base):
        row = (record.get(row_name(network, batch, compiled=False)) or {"rows": {}})["rows"].get("view, bf16", {})
        if "share_of_peak" in row:
            return train_flops(setting, run) / (row["share_of_peak"] * peaks["bf16"] * ranks.size())
    return train_flops(setting, run) / (ASSUMED_SHARE * peaks["bf16"] * ranks.size())


# Of the bf16 ceiling, before a step has been measured on the device.
ASSUMED_SHARE = 0.3


def evaluation_name(run: Run, images: int) -> str:
    """What an evaluation is recorded under."""
    return f"evaluate {run.label} on {images} images"


def _evaluation(setting: Setting, record: Record, run: Run, images: int) -> Step:
    larger = setting.flops(run.network) / setting.flops(setting.base)
    needed_s = 5.0 if setting.smoke else 30.0 * larger
    return Step("gains", evaluation_name(run, images), lambda: _evaluate(setting, record, run, images), needed_s)


def _defense(setting: Setting, run: Run) -> Defense:
    step_size = setting.eps / 4
    if run.defense == "trades":
        return TRADES(PGD("linf", setting.eps, setting.steps, step_size, loss="kl", start="normal"))
    return AT(PGD("linf", setting.eps, setting.steps, step_size))


def _train(setting: Setting, record: Record, run: Run) -> dict[str, Any]:
    """Train until the end or until time is up, on all ranks; from the checkpoint or the pieces that are here."""
    _refuse_before_evaluation(setting, record, run)
    folder = RunFolder(setting.work / "runs" / run.folder)
    batch = record.values.setdefault("batches", {}).setdefault(run.label, chosen_batch(setting, record))
    scale = batch / 128
    options = TrainOptions(
        epochs=run.epochs,
        batch_size=batch,
        lr=min(0.1 * scale, 0.4),
        schedule="one-cycle",
        ema=0.999**scale,  # the same span of images whatever the batch
        seed=run.seed,
        device=str(setting.device),
        validate_every=max(run.epochs // 15, 1),
        checkpoint_every_s=_CHECKPOINT_S,
    )
    sizes: list[int] = record.values.setdefault("ranks", {}).setdefault(run.label, [])
    sizes += [ranks.size()] if ranks.size() not in sizes else []
    if ranks.is_main():
        _unpack(record, folder, run)
    kept = folder.last.stat().st_mtime if folder.last.exists() else 0.0

    def watch(progress: Progress) -> None:
        nonlocal kept
        if ranks.is_main() and folder.last.exists() and folder.last.stat().st_mtime > kept + _CHECKPOINT_S:
            kept = folder.last.stat().st_mtime
            _carry(record, folder, run)
            record.steps[f"train {run.label}"] = {"part": "gains", "status": "pending", "progress": progress.phase}
            record.save()

    began = time.perf_counter()
    try:
        result = fit(
            setting.make(run.network, seed=run.seed),
            setting.dataset,
            _defense(setting, run),
            options,
            out=folder.path,
            resume=True,
            watcher=watch,
            should_stop=lambda: ranks.is_main() and record.left_s < RESERVE_S,  # one rank's vote is enough
        )
    except Interrupted as place:
        _carry(record, folder, run)
        raise OutOfTime(str(place)) from None
    _carry(record, folder, run)
    last, best = result.history[-1], result.history[result.best_epoch - 1]
    figures = {name: best[name] for name in ("validation_clean_accuracy", "validation_robust_accuracy")}
    return {
        "network": run.network.label,
        "defense": run.defense,
        "epochs": run.epochs,
        "seed": run.seed,
        "batch": batch,
        "ranks": sizes,
        "lr": options.lr,
        "ema": options.ema,
        "train_s": result.seconds,
        "here_s": time.perf_counter() - began,
        "flops": train_flops(setting, run),
        "best_epoch": result.best_epoch,
        "best": figures,
        "last": {name: last[name] for name in figures},
        # Weights that came along in pieces are near those that were trained, not the same.
        "restored": run.label in record.values.get("restored", []),
        "line": f"validation {100 * figures['validation_robust_accuracy']:.1f} % robust",
    }


def _refuse_before_evaluation(setting: Setting, record: Record, run: Run) -> None:
    """Only one training's weights are carried away, so each is evaluated before the next one begins."""
    for earlier in runs(setting)[: runs(setting).index(run)]:
        status = record.steps.get(evaluation_name(earlier, setting.images), {}).get("status")
        if record.get(f"train {earlier.label}") is not None and status in (None, "pending"):
            raise OutOfTime(f"{earlier.label} is to be evaluated first")


def _carry(record: Record, folder: RunFolder, run: Run) -> None:
    if not ranks.is_main():
        return
    record.values["carried"] = carried.write(folder.last, record.out, run.label)


def _unpack(record: Record, folder: RunFolder, run: Run) -> None:
    """Put the checkpoint back from its pieces where the run folder did not come along."""
    manifest = record.values.get("carried")
    if folder.last.exists() or not manifest or manifest["run"] != run.label:
        return
    try:
        folder.save_last(carried.read(record.out, manifest))
        record.values.setdefault("restored", []).append(run.label)
    except ValueError as reason:
        print(f"  {reason}")


def _evaluate(setting: Setting, record: Record, run: Run, images: int) -> dict[str, Any]:
    """Clean accuracy, PGD-20 and AutoAttack of the best and of the last weights."""
    folder = RunFolder(setting.work / "runs" / run.folder)
    _unpack(record, folder, run)
    if not folder.last.exists():
        raise OutOfTime("its weights did not come along")
    state = folder.load_last(setting.device)
    if state["state"]["epoch"] < run.epochs:
        raise OutOfTime(f"training is at epoch {state['state']['epoch']} of {run.epochs}")
    x, y = setting.dataset.test.subset(images).tensors()
    attacks: dict[str, Any] = {
        "pgd": PGD("linf", setting.eps, 20, setting.eps / 4, early_stop=True),
        "autoattack": AutoAttack(eps=setting.eps, version="a3" if setting.smoke else "standard"),
    }
    values: dict[str, Any] = {"run": run.label, "images": len(x)}
    for which, weights in (("best", state["best_weights"]), ("last", state["average"] or state["model"])):
        if which == "last" and state["state"]["best_epoch"] == run.epochs:
            values["last"] = values["best"]  # the same weights
            continue
        model = setting.make(run.network)
        model.load_state_dict(weights)
        model.eval()
        values[which] = {}
        for name, attack in attacks.items():
            state_of = folder.path / f"{which}-{name}-{images}"  # where a later call goes on
            evaluation = evaluate(model, x, y, attack, state=state_of, watcher=lambda _: _stop_in_time(record))
            values[which][name] = _kept(evaluation)
    robust = values["best"]["autoattack"]["robust_accuracy"]
    return values | {"line": f"AutoAttack {100 * robust['value']:.1f} % at the best epoch"}


def _stop_in_time(record: Record) -> None:
    if record.left_s < _LAST_S:
        raise OutOfTime("what was found is kept on this machine")


def _kept(evaluation: Evaluation) -> dict[str, Any]:
    """What the record keeps of an evaluation: enough to compare it image by image."""
    values = evaluation.to_dict()
    return {
        **{name: values[name] for name in ("clean_accuracy", "robust_accuracy", "seconds", "warnings")},
        "robust": "".join("1" if right else "0" for right in evaluation.robust_correct),
    }


def comparisons(setting: Setting, record: Record) -> list[str]:
    """The published question in sentences, paired by seed and image, for each defence whose runs are evaluated."""
    every, found = runs(setting), []
    for defense in dict.fromkeys(run.defense for run in every):
        verdicts: dict[str, dict[int, list[bool]]] = {}
        for run in every:
            values = record.get(evaluation_name(run, setting.images))
            if run.defense == defense and values is not None:
                robust = values["best"]["autoattack"]["robust"]
                name = f"{run.network.label} ({run.epochs} epochs)"
                verdicts.setdefault(name, {})[run.seed] = [bit == "1" for bit in robust]
        if len(verdicts) > 1:
            found += [f"{defense}: {each.sentence()}" for each in compare_all(verdicts)]
    return found
