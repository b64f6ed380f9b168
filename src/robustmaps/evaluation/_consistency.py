"""Whether predictions stay under attack, whatever the label: misclassified samples are attacked too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.device import device_of
from robustmaps.engine.finite import predictions
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.view import plain_view
from robustmaps.evaluation._evaluate import evaluate
from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation, Misclassified


def with_consistency(
    model: nn.Module,
    x: Tensor,
    attack: Attack | Sequence[Attack],
    evaluation: Evaluation,
    *,
    state: str | Path | None = None,
    smaller: Evaluation | None = None,
    eight_bit: bool = False,
    watcher: Watcher = ignore,
    **options: Any,
) -> Evaluation:
    """An evaluation with its consistent accuracy: the share of samples whose prediction stays under attack.

    Samples that are classified correctly are consistent if they are robust. The misclassified ones are attacked here,
    with the predicted class as label and the same budget and verification. That costs as much per sample as the
    attack itself; all other verdicts stay as they are.

    Args:
        model: the network, as given to `evaluate`.
        x: the images, likewise.
        attack: the attacks, likewise.
        evaluation: the result of `evaluate`.
        state: a folder for the results of each batch, another one than that of the evaluation.
        smaller: an evaluation of the same network and images with a smaller budget and consistent accuracy, whose
            changed predictions stay changed.
        eight_bit: see `evaluate`.
        watcher: receives progress reports.
        options: ``batch_size``, ``seed``, ``precision``, ``compile``, ``engine`` and ``workers`` of `evaluate`.

    Raises:
        InputError: see `evaluate`.
    """
    wrong = [row for row, verdict in enumerate(evaluation.verdicts) if verdict == WRONG]
    classes = _predicted(model, x[wrong], int(evaluation.environment.get("batch_size", 1)))
    verdicts = [WRONG if label < 0 else ROBUST for label in classes.tolist()]
    if smaller is not None and smaller.misclassified is not None:
        verdicts = [
            old if old != ROBUST else new for old, new in zip(smaller.misclassified.verdicts, verdicts, strict=True)
        ]
    rows = [row for row, verdict in enumerate(verdicts) if verdict == ROBUST]
    if not rows:
        return replace(evaluation, misclassified=Misclassified(tuple(verdicts), (), 0.0))

    def watch(progress: Progress) -> None:
        kept = {name: value for name, value in progress.figures.items() if name in ("attacked", "elapsed_s")}
        watcher(replace(progress, phase=f"{progress.phase}, misclassified", figures=kept))

    chosen = [wrong[row] for row in rows]
    found = evaluate(
        model,
        x[chosen],
        classes[rows],
        attack,
        state=state,
        eight_bit=eight_bit,
        checks=False,
        watcher=watch,
        **options,
    )
    for row, verdict in zip(rows, found.verdicts, strict=True):
        verdicts[row] = verdict
    new = (f"misclassified images: {text}" for text in found.warnings if text not in evaluation.warnings)
    return replace(
        evaluation,
        misclassified=Misclassified(tuple(verdicts), found.stages, found.seconds),
        warnings=(*evaluation.warnings, *new),
    )


@torch.no_grad()
def _predicted(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """The classes (N,) that the plain network predicts, -1 where there is none."""
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.int64)
    device = device_of(model)
    with plain_view(model) as plain:
        return torch.cat([predictions(plain(part.float().to(device))).cpu() for part in torch.split(x, batch_size)])
