"""Evaluate a run, a checkpoint or a network in memory, and write the results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmaps.attacks import Attack, called, takes
from robustmaps.config import AttackConfig, EvaluationConfig, Split
from robustmaps.data import Dataset
from robustmaps.engine import ranks
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash, write_json
from robustmaps.engine.numbers import as_fraction, check_whole
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.ranks.agreeing import from_main
from robustmaps.engine.writing.outputs import alone
from robustmaps.evaluation import (
    Evaluation,
    Identity,
    WorkerPool,
    attack_settings,
    evaluate,
    images_sha256,
    with_consistency,
)
from robustmaps.networks import Checkpoint, choose_images, data_for, open_checkpoint, write_evaluated
from robustmaps.runs._adversarials import KeptImages, check_file
from robustmaps.runs._attacks import create_attacks, spellings
from robustmaps.runs._doubts import UNFINISHED, class_order, copied_images, unfinished
from robustmaps.runs._evaluation_files import (
    EvaluationFiles,
    claim_curve,
    is_adversarial,
    is_begun,
    is_verdicts,
    spelled_as_before,
)
from robustmaps.runs._identity import place_for, write_present
from robustmaps.runs._robustbench import model_info
from robustmaps.training import TrainOptions


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation and its files.

    Attributes:
        evaluation: the verdicts.
        path: the file of the verdicts.
        adversarials: the file of the adversarial examples, if requested.
        before: whether the file already existed, with the same settings.
    """

    evaluation: Evaluation
    path: Path
    adversarials: Path | None = None
    before: bool = False


@dataclass(frozen=True)
class EvaluatedCurve:
    """Evaluations at several budgets.

    Attributes:
        runs: one evaluation per radius, in ascending order.
        path: the JSON file of the curve.
        plot: the PNG file of the curve.
    """

    runs: tuple[EvaluatedRun, ...]
    path: Path
    plot: Path


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        data: a spec or a loaded data set, to use instead of the training data set.
        split: the split to use.
        samples: number of images, drawn evenly from the classes; None for all.
        image_size: pixels a side to resize the images to; None for those of training.
        channels: of the images, 1 or 3; None for those of training.
        batch_size: images per batch; None for as many as fit in memory.
        seed: seed of the attack's random draws; the choice of images does not depend on it.
        device: device to compute on.
        precision: precision of the attack: auto, fp32, tf32 (on CUDA) or bf16; verdicts are always float32.
        compile: compile the attack with torch.compile.
        save_adversarials: also write the adversarial examples.
        eight_bit: round adversarial images to 8 bits per channel, within the budget; a sample then only counts as
            broken by an image that can be saved as PNG.
        consistent: also attack the misclassified images, for the consistent accuracy; see `with_consistency`.
        workers: attack the batches on these.
        watcher: receives progress reports.

    Raises:
        InputError: a number of images or pixels is below 1.
    """

    data: str | Dataset | None = None
    split: Split = "test"
    samples: int | None = None
    image_size: int | None = None
    channels: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    save_adversarials: bool = False
    eight_bit: bool = False
    consistent: bool = False
    workers: WorkerPool | None = None
    watcher: Watcher = ignore

    def __post_init__(self) -> None:
        for name in ("samples", "image_size", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)

    @classmethod
    def of(cls, wanted: EvaluationConfig, training: TrainOptions, watcher: Watcher = ignore) -> "Options":
        """Those of an evaluation of a study, on the device and in the precision of the training."""
        return cls(
            split=wanted.split,
            samples=wanted.samples,
            batch_size=wanted.batch_size,
            seed=wanted.attack_seed,
            device=training.device,
            precision=training.precision,
            watcher=watcher,
        )


def evaluate_checkpoint(
    checkpoint: str | Path | Checkpoint,
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedRun:
    """Attack a trained network and write the verdicts; a killed evaluation resumes from its last saved step.

    Args:
        checkpoint: a run folder, its weights file, or an opened checkpoint.
        attack: the attacks, at one radius.
        options: images, device and so on.
        out: the file to write; by default named after the settings, in the run folder's ``evaluation``.

    Raises:
        InputError: the checkpoint or a setting is invalid, the images don't fit the network, or another file is in the
            way.
    """
    options = options or Options()
    if len(attack.eps) > 1:
        raise InputError(f"eps={','.join(map(as_fraction, attack.eps))}: expected one radius; several make a curve")
    if out is not None and not is_verdicts(Path(out)):  # which may be these, and are looked at with the images
        EvaluationFiles(Path(out), options.save_adversarials).claim()
    work = Work(checkpoint, options)
    return work.run(attack, attack.eps[0] if attack.eps else work.checkpoint.eps, out=out)


def evaluate_curve(
    checkpoint: str | Path | Checkpoint,
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedCurve:
    """Evaluate at every radius of ``attack.eps``, and plot robust accuracy against the radius.

    A broken sample stays broken at every larger radius, so each evaluation attacks only the remaining samples.

    Args:
        checkpoint: see `evaluate_checkpoint`.
        attack: the attacks.
        options: images, device and so on.
        out: the JSON file to write; the plot is written next to it.

    Raises:
        InputError: as `evaluate_checkpoint`, or a radius occurs twice.
    """
    radii = sorted(attack.eps)
    if len(radii) < 2 or len(set(radii)) < len(radii):
        raise InputError(f"eps={','.join(map(as_fraction, attack.eps))}: expected two or more radii, each once")
    if out is not None:
        claim_curve(Path(out))
    return curve(Work(checkpoint, options or Options()), attack, out)


def curve(work: "Work", attack: AttackConfig, out: str | Path | None = None) -> EvaluatedCurve:
    """The same for a network and images that are opened."""
    radii = sorted(attack.eps)
    files = [work.files(attack, eps, radii[:number]) for number, eps in enumerate(radii)]
    for each in files:
        each.claim()
    names = work.names_of(attack, radii[0])
    digest = short_hash([each.path.name for each in files])
    name = f"curve-{names}-{work.checkpoint.norm}-{work.options.split}{len(work.x)}-{digest}.json"
    path = Path(out) if out is not None else spelled_as_before(work.folder / name)
    plot = claim_curve(path)
    runs: list[EvaluatedRun] = []
    for eps in radii:
        runs.append(work.run(attack, eps, smaller=tuple(runs)))
    points = [(run.evaluation.eps, run.evaluation.robust_accuracy) for run in runs]
    evaluation = runs[0].evaluation
    values = {
        "norm": evaluation.norm,
        "attack": attack.attack,
        "samples": len(evaluation.verdicts),
        "clean_accuracy": evaluation.clean_accuracy.to_dict(),
        "points": [
            {"eps": eps, "robust_accuracy": rate.to_dict(), "file": run.path.name}
            for (eps, rate), run in zip(points, runs, strict=True)
        ],
    }
    title = f"{work.checkpoint.name}: {names}, {len(evaluation.verdicts)} {work.options.split} images"
    from robustmaps.figures import plot_eps_curve  # not above, since Matplotlib takes long to import

    plot_eps_curve(plot, [(0.0, evaluation.clean_accuracy), *points], evaluation.norm, title)
    write_json(path, values)
    return EvaluatedCurve(tuple(runs), path, plot)


class Work:
    """A network on its device, and its images."""

    def __init__(self, checkpoint: str | Path | Checkpoint, options: Options) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
        self.options = options
        self.folder = self.checkpoint.folder
        self._shape = {"image_size": options.image_size, "channels": options.channels}
        self.data = data_for(self.checkpoint, options.data, options.watcher, **self._shape)
        self.x, self.y = choose_images(self.data, options.split, options.samples)
        self.images = images_sha256(self.x, self.y)
        self.model = self.checkpoint.model.to(resolve_device(options.device))
        self.network = Identity.of(self.model, self.x.shape[1:])

    def run(
        self, config: AttackConfig, eps: float, *, smaller: Sequence[EvaluatedRun] = (), out: str | Path | None = None
    ) -> EvaluatedRun:
        """Evaluate at one radius, unless done before."""
        radii = [run.evaluation.eps for run in smaller]
        attacks, named = self._named(config, eps, radii)
        described = attack_settings(attacks, eight_bit=self.options.eight_bit)
        files = (
            self.files(config, eps, radii)
            if out is None
            else EvaluationFiles(Path(out), self.options.save_adversarials)
        )
        known = from_main(lambda: self._known(files, described))
        if known is None:
            files.claim(norm=attacks[0].norm, eps=str(attacks[0].eps), images_sha256=self.images)
        if out is None:
            changed = files.path != named
            write_present(self.folder, self.checkpoint.sha256, self.network, changed=changed)
            write_evaluated(self.checkpoint, self.data, **self._shape)
        if known is not None and from_main(lambda: not files.begun) and self._is_whole(known):
            return known
        before = smaller[-1] if smaller else None
        with alone(files.lock, "at this evaluation"):
            # Another process may have finished it meanwhile.
            if (known := from_main(lambda: self._known(files, described))) is None:
                known = self._evaluate(attacks, files, before)
            if not self._is_whole(known):
                known = self._with_consistency(attacks, files, known, before)
            files.discard_states()
        return known

    def _is_whole(self, known: EvaluatedRun) -> bool:
        return not self.options.consistent or known.evaluation.misclassified is not None

    def _with_consistency(
        self, attacks: Sequence[Attack], files: EvaluationFiles, known: EvaluatedRun, smaller: EvaluatedRun | None
    ) -> EvaluatedRun:
        options = self.options
        evaluation = with_consistency(
            self.model,
            self.x,
            attacks,
            known.evaluation,
            state=files.consistency_state,
            smaller=None if smaller is None else smaller.evaluation,
            eight_bit=options.eight_bit,
            workers=options.workers,
            watcher=options.watcher,
            batch_size=options.batch_size,
            seed=options.seed,
            precision=options.precision,
            compile=options.compile,
        )
        evaluation.save(files.path)
        return replace(known, evaluation=evaluation, before=False)

    def files(self, config: AttackConfig, eps: float, smaller: Sequence[float]) -> EvaluationFiles:
        """The files in the run folder.

        Args:
            config: the attacks.
            eps: the radius.
            smaller: the radii of the curve below it.
        """
        _, named = self._named(config, eps, smaller)
        path = place_for(named, self.network, lambda file: list(EvaluationFiles(file, with_images=False).states))
        return EvaluationFiles(path, self.options.save_adversarials)

    def called(self, config: AttackConfig, eps: float) -> list[str]:
        """The names of the attacks, where one with the values of a preset is called like it."""
        made = {one: create_attacks(config.alone(one), self.checkpoint.norm, eps) for one in config.names}
        return [one if "version" in takes(one) else called(attack_settings(made[one])[0]) for one in config.names]

    def names_of(self, config: AttackConfig, eps: float) -> str:
        """The same for file names and titles."""
        version = "" if config.version in (None, "standard") else f"-{config.version}"
        return "+".join(one + version if "version" in takes(one) else one for one in self.called(config, eps))

    def _named(self, config: AttackConfig, eps: float, smaller: Sequence[float]) -> tuple[list[Attack], Path]:
        """The attacks, and a readable name of their file, unique for each combination of settings.

        Both are spelled as where the same values were evaluated before, if anywhere.
        """
        names, ways = self.names_of(config, eps), []
        for attacks in spellings(create_attacks(config, self.checkpoint.norm, eps)):
            described = attack_settings(attacks, eight_bit=self.options.eight_bit)
            digest = short_hash([described, self.options.seed, self.images, self.checkpoint.sha256, list(smaller)])
            budget = as_fraction(described[0]["eps"]).replace("/", "_")
            name = f"{names}-{described[0]['norm']}-{budget}-{self.options.split}{len(self.x)}-{digest}.json"
            ways.append((attacks, self.folder / name))
        places = ((attacks, spelled_as_before(path)) for attacks, path in ways)
        return next((each for each in places if is_begun(each[1])), ways[0])

    def _evaluate(
        self, attacks: Sequence[Attack], files: EvaluationFiles, smaller: EvaluatedRun | None
    ) -> EvaluatedRun:
        options = self.options
        state = files.states[files.with_images]
        before = None if smaller is None else smaller.adversarials
        kept: KeptImages | None = None
        if files.images is not None and ranks.is_main():
            kept = KeptImages(state, self.x, before)
        others = None if files.images is None or kept is not None else self.x.clone()
        evaluation = evaluate(
            self.model,
            self.x,
            self.y,
            attacks,
            batch_size=options.batch_size,
            seed=options.seed,
            precision=options.precision,
            compile=options.compile,
            state=state,
            adversarials=others if kept is None else kept.images,
            flush=(lambda: None) if kept is None else kept.flush,
            eight_bit=options.eight_bit,
            smaller=None if smaller is None else smaller.evaluation,
            workers=options.workers,
            watcher=options.watcher,
        )
        if files.images is not None and kept is not None:
            evaluation = replace(evaluation, saved=kept.save(files.images, self.model, self.x, self.y, evaluation))
        evaluation = self.finished(evaluation)
        # The verdicts last: once they are there, the evaluation is done.
        self._describe(evaluation, files)
        evaluation.save(files.path)
        return EvaluatedRun(evaluation, files.path, files.images)

    def finished(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with what only the run and its data show."""
        doubts = (
            class_order(self.checkpoint, self.data),
            copied_images(self.checkpoint, self.data, self.x, self.options.split),
            unfinished(self.checkpoint),
        )
        return replace(
            evaluation,
            checkpoint_sha256=self.checkpoint.sha256,
            weights=self.checkpoint.weights,
            split=self.options.split,
            warnings=(*evaluation.warnings, *(str(doubt) for doubt in doubts if doubt is not None)),
            data={"name": self.data.name, "fingerprint": self.data.fingerprint, "image_size": list(self.x.shape[2:])},
        )

    def _as_of_now(self, known: Evaluation, path: Path) -> Evaluation:
        """The earlier evaluation of these weights, with the present state of their run."""
        others = tuple(text for text in known.warnings if not text.startswith(f"{UNFINISHED}:"))
        doubt = unfinished(self.checkpoint)
        now = replace(known, warnings=others if doubt is None else (*others, str(doubt)))
        if now != known:
            now.save(path)
        return now

    def _describe(self, evaluation: Evaluation, files: EvaluationFiles) -> None:
        """Write the leaderboard entry."""
        write_json(files.info, model_info(evaluation, self.checkpoint, self.data.name))

    def _known(self, files: EvaluationFiles, described: Sequence[dict[str, Any]]) -> EvaluatedRun | None:
        """The evaluation in the files, if it is complete."""
        if not files.path.exists():
            return None
        known = Evaluation.load(files.path)
        mine = (list(described), self.options.seed, self.images, self.checkpoint.sha256)
        same = (list(known.attacks), known.seed, known.images_sha256, known.checkpoint_sha256) == mine
        if not same or not self.network.matches(known.computes):
            raise InputError(f"{files.path}: contains another evaluation; name another file with --out, or delete it")
        if files.images is not None:
            if not is_adversarial(files.images):
                return None
            check_file(files.images, known)
        if not files.info.exists():  # earlier versions wrote it last
            self._describe(known, files)
        return EvaluatedRun(self._as_of_now(known, files.path), files.path, files.images, before=True)
