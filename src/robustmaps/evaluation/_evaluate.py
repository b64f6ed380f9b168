"""Attack a network, and return a verdict per sample."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack, check_batch
from robustmaps.engine.device import device_name, device_of, resolve_precision
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import fitting_batch
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.evaluation._cascade import Cascade
from robustmaps.evaluation._fingerprints import attack_settings, caveats, images_sha256, stages, weights_sha256
from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation
from robustmaps.evaluation._state import Found, StateFolder


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack | Sequence[Attack],
    *,
    batch_size: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    compile: bool = False,  # noqa: A002
    engine: AttackEngine | None = None,
    state: str | Path | None = None,
    adversarials: Tensor | None = None,
    smaller: Evaluation | None = None,
    watcher: Watcher = ignore,
) -> Evaluation:
    """Attack a network and return a verdict per sample.

    Attacks run on a fast view of the network. A sample counts as broken only when the plain network, in float32 and
    evaluation mode, misclassifies an image that lies within the budget and within [0, 1]. Where the view and the plain
    network disagree, the sample is attacked again on the plain one. The network is left as it was.

    >>> evaluate(model, x, y, AutoAttack(eps=8 / 255), state="state").robust_accuracy  # doctest: +SKIP
    46.0 % [43.0, 49.1]

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K), on any device.
        x: images (N, C, H, W) in [0, 1], float; batches are moved to the network's device.
        y: labels (N,), int64.
        attack: one attack, or several that are tried in order on what is left; an empty list finds clean accuracy.
            AutoAttack counts as the attacks that it is made of.
        batch_size: images at once. None: as many as suit the device and fit into its memory. It is halved where
            memory runs out.
        seed: of every random draw.
        precision: of the view: ``auto``, ``fp32``, ``tf32`` (on CUDA) or ``bf16``.
        compile: run the view through ``torch.compile``.
        engine: an engine for ``model`` to use instead of a new one; ``precision`` and ``compile`` are then its own.
        state: a folder that keeps what is found, batch by batch. The same call goes on from there, to the same result.
        adversarials: a tensor like ``x`` to receive the images that broke their sample; it must survive with ``state``.
        smaller: an evaluation of the same network and images with a smaller budget, whose broken samples stay so.
        watcher: called as the work goes on.

    Raises:
        InputError: bad images, labels or settings; attacks with different budgets; a state of something else.
    """
    attacks = stages(attack)
    check_batch(x, y)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if adversarials is not None and adversarials.shape != x.shape:
        raise InputError(f"adversarials has shape {tuple(adversarials.shape)}: expected that of x, {tuple(x.shape)}")
    device = device_of(model)
    if engine is None:
        engine = AttackEngine(model, ViewOptions(precision=resolve_precision(precision, device), compile=compile))
    images, described = images_sha256(x, y), attack_settings(attacks)
    folder = None
    if state is not None:
        identity = {"network": weights_sha256(model), "set of images": images, "attack": described, "seed": seed}
        folder = StateFolder(state, identity)
    example = x[:8].float().to(device)
    _try(model, example)
    with ExitStack() as stack:
        # The view first: its copy is made while the network is as the caller left it.
        view = stack.enter_context(engine.view(example))
        plain = stack.enter_context(plain_view(model))
        found = folder.load() if folder else None
        begun = found is not None
        if found is None:
            found = _nothing(len(x), batch_size or fitting_batch(plain, example), smaller, images)
        elif batch_size is not None:
            found.batch_size = batch_size
        keep = stack.enter_context(_timed(found, folder))
        stack.enter_context(torch.no_grad())
        cascade = Cascade(view, plain, x, y, device, seed, found, adversarials, keep, watcher)
        if not begun:
            cascade.classify()
            keep()
        for position, one in enumerate(attacks):
            cascade.run(one, position)
    return Evaluation(
        verdicts=tuple(found.verdicts),
        distances=tuple(found.distances),
        norm=attacks[0].norm if attacks else "none",
        eps=attacks[0].eps if attacks else 0.0,
        attacks=tuple(described),
        images_sha256=images,
        seed=seed,
        seconds=found.seconds,
        stages=tuple(stage.to_dict() for stage in found.stages),
        warnings=(*found.warnings, *caveats(attack)),
        environment={
            "device": device_name(device),
            "torch": torch.__version__,
            "precision": engine.options.precision,
            "batch_size": found.batch_size,
        },
    )


def _try(model: nn.Module, example: Tensor) -> None:
    """Run the network once, so that one that doesn't take these images says so before all else."""
    try:
        with plain_view(model) as plain, torch.no_grad():
            plain(example[:1])
    except Exception as error:
        error.add_note(f"The network raised this on an image of shape {tuple(example.shape[1:])}.")
        raise


def _nothing(samples: int, batch_size: int, smaller: Evaluation | None, images: str) -> Found:
    """What is known before the first attack."""
    if smaller is None:
        return Found([ROBUST] * samples, [None] * samples, batch_size)
    if smaller.images_sha256 != images:
        raise InputError("smaller: is of other images; give an evaluation of the same ones")
    broken = [verdict not in (ROBUST, WRONG) for verdict in smaller.verdicts]
    return Found(
        [verdict if b else ROBUST for verdict, b in zip(smaller.verdicts, broken, strict=True)],
        [distance if b else None for distance, b in zip(smaller.distances, broken, strict=True)],
        batch_size,
    )


@contextmanager
def _timed(found: Found, folder: StateFolder | None) -> Iterator[Callable[[], None]]:
    """What keeps ``found`` up to date on disk; an exception is told where it is kept."""
    before, began = found.seconds, time.perf_counter()

    def keep() -> None:
        found.seconds = before + time.perf_counter() - began
        if folder is not None:
            folder.save(found)

    try:
        yield keep
    except Exception as error:
        if folder is not None and found.seconds > before:
            error.add_note(f"What was found until then is kept in {folder.path}; the same call goes on from there.")
        raise
    found.seconds = before + time.perf_counter() - began
