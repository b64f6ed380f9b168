"""The function `evaluate`: attack a network and return a verdict per sample."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from robustmaps._version import __version__
from robustmaps.attacks import Attack, check_batch, passes
from robustmaps.engine.device import device_name, device_of, resolve_precision
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import fitting_batch
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.ranks.agreeing import from_main
from robustmaps.engine.speed import Form, attack_pass, choose
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.evaluation._cascade import Cascade
from robustmaps.evaluation._doubts import doubts
from robustmaps.evaluation._eight_bit import check_eight_bit
from robustmaps.evaluation._fingerprints import attack_settings, caveats, images_sha256, stages
from robustmaps.evaluation._identity import Identity
from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation, EvaluationWarning
from robustmaps.evaluation._sharing._attacker import Attacker
from robustmaps.evaluation._sharing._batches import Attackers
from robustmaps.evaluation._sharing._pool import WorkerPool
from robustmaps.evaluation._sharing._ranks import OnRanks
from robustmaps.evaluation._sharing._worker import Setup
from robustmaps.evaluation._state import Found, StateFolder
from robustmaps.evaluation._trial import try_batches
from robustmaps.evaluation._verdict_names import shown_names

# Images that passes are timed with, and forward passes that an attack takes of an image where it does not say.
_USUAL_BATCH, _USUAL_PASSES = 64, 100.0


def _nothing() -> None:
    """Nothing to be written to the disk."""


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
    flush: Callable[[], None] = _nothing,
    eight_bit: bool = False,
    every: bool = False,
    smaller: Evaluation | None = None,
    checks: bool = True,
    workers: WorkerPool | None = None,
    watcher: Watcher = ignore,
) -> Evaluation:
    """Attack a network and return a verdict per sample.

    Attacks run on a fast view of the network. A sample counts as broken only if the plain network, in float32 and
    evaluation mode, misclassifies an image within the budget and [0, 1]. If the view and the plain network disagree,
    the sample is attacked again on the plain one. The network is restored afterwards.

    Before the first attack, a few passes over at most 16 images look for reasons to doubt the figures, such as
    vanishing gradients, random outputs or labels in another order. They cost less than a tenth of FGSM. The findings
    are in ``warnings``, each with the page that explains it.

    >>> evaluate(model, x, y, AutoAttack(eps=8 / 255), state="state").robust_accuracy  # doctest: +SKIP
    46.0 % [43.0, 49.1]

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K), on any device.
        x: images (N, C, H, W) in [0, 1], float; batches are moved to the network's device.
        y: labels (N,), int64.
        attack: one attack, or several to try in order on the unbroken samples; an empty list measures clean accuracy.
            AutoAttack counts as the attacks that it consists of.
        batch_size: images per batch; None for the device's usual size, if it fits in memory. It is halved if memory
            runs out.
        seed: seed of all random draws.
        precision: precision of the view: ``auto`` (timed, if there is enough to do), ``fp32``, ``tf32`` (on CUDA) or
            ``bf16``.
        compile: use ``torch.compile`` for the view.
        engine: an engine for ``model`` to use instead of a new one; replaces ``precision`` and ``compile``.
        state: a folder for the results of each batch, from which the same call resumes, with the same result.
        adversarials: a tensor like ``x`` that receives the adversarial images; with ``state``, keep it between calls.
        flush: called before each save of ``state``; returns when the adversarial images it counts are on the disk.
        eight_bit: round adversarial images to 8 bits per channel, towards the clean image and so within the budget. A
            sample then only counts as broken by an image that can be saved as PNG.
        every: attack misclassified samples too, and put the image of each attacked sample into ``adversarials``, also
            where it broke nothing, as transfer to other networks needs them. Verdicts are the same.
        smaller: an evaluation of the same network and images with a smaller budget, whose broken samples stay broken.
        checks: look for reasons to doubt the figures.
        workers: attack the batches on these, such as those of `RayWorkers`; all else is done here.
        watcher: receives progress reports.

    Raises:
        InputError: images, labels or settings are invalid, attacks have different budgets, or ``state`` belongs to
            another evaluation, or the network can't be sent to the workers.

    Warns:
        EvaluationWarning: for each reason to doubt the figures.
    """
    attacks = stages(attack)
    check_batch(x, y)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if adversarials is not None and adversarials.shape != x.shape:
        raise InputError(f"adversarials has shape {tuple(adversarials.shape)}: expected that of x, {tuple(x.shape)}")
    if eight_bit:
        check_eight_bit(x)
    device = device_of(model)
    given = engine
    images, described = images_sha256(x, y), attack_settings(attacks, eight_bit=eight_bit, every=every)
    names = shown_names(described)
    example = x[:8].float().to(device)
    with torch.no_grad():
        try_batches(model, example[:1] if batch_size == 1 else example)
    modes = [(module, module.training) for module in model.modules()]
    # Whoever brings an engine evaluates often, and keeps no state.
    identified = given is None or any(one is not None for one in (state, smaller, workers))
    network = Identity.of(model, x.shape[1:]) if identified else None
    folder = None
    if state is not None and network is not None:
        folder = StateFolder(state, network, {"set of images": images, "attack": described, "seed": seed})
    found = from_main(lambda: folder.load() if folder else None)
    begun = found is not None
    if engine is None:
        few = slice(batch_size or _USUAL_BATCH)
        usual = (x[few].float().to(device), y[few].to(device))
        form = _form(precision, compile, model, usual, attacks, len(x), found)
        engine = AttackEngine(model, ViewOptions(precision=form.precision, compile=form.compile))
    with ExitStack() as stack:
        # The view first, so that its copy is made before the network changes.
        view = stack.enter_context(engine.view(example))
        plain = stack.enter_context(plain_view(model))
        if found is None:
            found = _begin(
                len(x), batch_size or from_main(lambda: fitting_batch(plain, example)), smaller, images, network
            )
        elif batch_size is not None:
            found.batch_size = batch_size
        attackers: Attackers = OnRanks(Attacker(view, plain, device, seed, eight_bit, adversarials is not None, every))
        where = device_name(device)  # with the number of threads
        if workers is not None and network is not None and attacks:
            more = (engine.options, seed, eight_bit, adversarials is not None, every)
            most = -(-len(x) // found.batch_size)
            attackers, where = workers, workers.open(model, network, Setup(example.cpu(), *more), most)
        found.begin(
            {
                "device": where,
                "torch": torch.__version__,
                "robustmaps": __version__,
                "precision": engine.options.precision,
                **({"compiled": True} if engine.options.compile else {}),
            }
        )
        keep = stack.enter_context(_timed(found, folder, flush))
        stack.enter_context(torch.no_grad())
        cascade = Cascade(attackers, plain, x, y, names, device, found, adversarials, every, keep, watcher)
        if not begun:
            answers, logits = cascade.classify()
            if checks:
                for doubt in doubts(model, plain, modes, x, y, answers, logits, attacks, seed):
                    cascade.warn(doubt, EvaluationWarning)
            vars(found).update(from_main(lambda: vars(found)))  # verdicts that hang on the last bit are rank 0's
            keep()
        for position, one in enumerate(attacks):
            cascade.run(one, position)
    at_the_end = found.doubts()
    for doubt in at_the_end:
        warnings.warn(doubt, stacklevel=2)
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
        warnings=(*found.warnings, *at_the_end, *caveats(attack)),
        environment={
            **found.sessions[-1],
            "batch_size": found.batch_size,
            **({"sessions": found.sessions} if len(found.sessions) > 1 else {}),
        },
        undecided=found.undecided,
        computes=None if network is None else network.computes,
        perturbations=tuple(found.perturbations or ()),
    )


def _form(
    precision: str,
    compile: bool,  # noqa: A002
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    attacks: Sequence[Attack],
    samples: int,
    found: Found | None,
) -> Form:
    """How attacks are computed: as before if the evaluation is resumed and nothing else is asked for."""
    x, y = batch
    if found is not None and found.sessions and precision == "auto":
        before = found.sessions[-1]
        return Form(resolve_precision(str(before.get("precision", "fp32")), x.device), bool(before.get("compiled")))
    known = [passes(attack) for attack in attacks]
    gradients = sum(_USUAL_PASSES if each is None else each for each in known) / 2
    work = samples * gradients / max(len(x), 1)
    return choose(precision, compile, model, x, y, work, what="attack", make=attack_pass(model)).form


def _begin(samples: int, batch_size: int, smaller: Evaluation | None, images: str, network: Identity | None) -> Found:
    """The results before the first attack."""
    if smaller is None:
        return Found([ROBUST] * samples, [None] * samples, batch_size, perturbations=[None] * samples)
    if smaller.images_sha256 != images:
        raise InputError("smaller: made on other images; expected an evaluation of the same images")
    if smaller.computes is not None and network is not None and not network.matches(smaller.computes):
        raise InputError("smaller: of another network; expected an evaluation of the same one")
    broken = [verdict not in (ROBUST, WRONG) for verdict in smaller.verdicts]
    return Found(
        [verdict if b else ROBUST for verdict, b in zip(smaller.verdicts, broken, strict=True)],
        [distance if b else None for distance, b in zip(smaller.distances, broken, strict=True)],
        batch_size,
        # Wrong and robust samples have none.
        perturbations=list(smaller.perturbations) if smaller.perturbations else None,
    )


@contextmanager
def _timed(found: Found, folder: StateFolder | None, flush: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """A function that saves ``found``; an exception gets a note with the folder."""
    before, began = found.seconds, time.perf_counter()

    def keep() -> None:
        found.seconds = before + time.perf_counter() - began
        if folder is not None:
            flush()
            folder.save(found)

    try:
        yield keep
    except Exception as error:
        if folder is not None and found.seconds > before:
            error.add_note(f"The results so far are in {folder.path}; the same call resumes from there.")
        raise
    found.seconds = before + time.perf_counter() - began
