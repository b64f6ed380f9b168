"""Attacks made on each of several networks and tried on all of them: a matrix, in a file and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from robustmaps.attacks import Attack, called, title_of
from robustmaps.config import AttackConfig, read_run_config
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash, write_json
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, budget_text
from robustmaps.engine.text import told_apart
from robustmaps.engine.writing.outputs import alone, claim, is_picture, json_with
from robustmaps.evaluation import Evaluation, Transfer, attack_settings, evaluate, for_transfer, right_on
from robustmaps.networks import Checkpoint, name_runs
from robustmaps.runs._adversarials import KeptImages, check_file
from robustmaps.runs._attack_options import words_of
from robustmaps.runs._attacks import create_attacks
from robustmaps.runs._evaluation import Options, Work
from robustmaps.runs._evaluation_files import EvaluationFiles, is_adversarial, spelled_as_before
from robustmaps.runs._identity import place_for
from robustmaps.training import RunFolder, load_weights

_BATCH = 256


@dataclass(frozen=True)
class EvaluatedTransfer:
    """A transfer matrix and its files.

    Attributes:
        names: the networks, in order.
        figures: for JSON: ``clean_accuracy`` per network, and ``accuracy`` and ``transferred`` by source and target,
            each with its interval, see `Transfer`; the ``warnings`` of the attacks on each; and the ``networks`` and
            ``attack_options`` of a command that makes the same.
        path: the JSON file.
        plot: the PNG file.
    """

    names: tuple[str, ...]
    figures: dict[str, Any]
    path: Path
    plot: Path

    @property
    def titles(self) -> tuple[str, ...]:
        """The same as tables and plots name them."""
        return tuple(self.figures["titles"])


def evaluate_transfer(
    checkpoints: Sequence[str | Path | Checkpoint],
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedTransfer:
    """Attack several networks on the same images, and try the images made on each on all of them.

    Every attack makes all its steps on every image, also on one that its network misclassifies. The images of each
    network are kept beside its evaluations, so that a killed call resumes and a further network adds only its own.

    Args:
        checkpoints: two or more networks, as for `evaluate_checkpoint`.
        attack: the attacks, at one radius; norm and radius are the first network's where left out.
        options: images, device and so on.
        out: the JSON file to write; the plot is written next to it.

    Raises:
        InputError: there are too few networks, they do not share their images, or a setting is invalid.
    """
    options = options or Options()
    if len(checkpoints) < 2:
        raise InputError("transfer: expected two or more networks")
    if len(attack.eps) > 1:
        raise InputError(f"eps={','.join(map(as_fraction, attack.eps))}: expected one radius for a transfer matrix")
    if out is not None:
        _claim(Path(out))
    works = [Work(checkpoint, options) for checkpoint in checkpoints]
    first, places = works[0], [str(work.checkpoint) for work in works]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise InputError(f"transfer: {twice} is given twice; expected different networks")
    for place, work in zip(places, works, strict=True):
        if work.images != first.images:
            raise InputError(
                f"{place}: its {len(work.x)} {options.split} images are not those of {places[0]}; expected "
                "networks with the same data, or --data for all of them"
            )
    eps = attack.eps[0] if attack.eps else first.checkpoint.eps
    attacks = for_transfer(create_attacks(attack, first.checkpoint.norm, eps))
    described = attack_settings(attacks, eight_bit=options.eight_bit, every=True)
    weights = [work.checkpoint.sha256 for work in works]
    budget = f"{described[0]['norm']}-{as_fraction(eps).replace('/', '_')}"
    names = first.names_of(attack, eps)
    middle = f"{names}-{budget}-{options.split}{len(first.x)}"
    digest = short_hash([described, options.seed, first.images, weights])
    named = first.folder / f"transfer-of-{len(works)}-{middle}-{digest}.json"
    path = Path(out) if out is not None else spelled_as_before(named)
    plot = _claim(path)
    sources = [_Source(work, attacks, described, f"transfer-{middle}") for work in works]
    for source in sources:
        source.make()
    found = _tried(works, sources)
    command = {"networks": places, "attack_options": words_of(attack, eight_bit=options.eight_bit)}
    figures = _figures(found, works, sources, described) | command
    label = " + ".join(title_of(called(each)) for each in described)
    title = f"{label}, {budget_text(described[0]['norm'], eps)}: accuracy (%)"
    from robustmaps.figures import plot_transfer  # not above, since Matplotlib takes long to import

    plot_transfer(plot, figures["titles"], figures["accuracy"], title)
    write_json(path, figures)
    return EvaluatedTransfer(tuple(figures["names"]), figures, path, plot)


def _claim(path: Path) -> Path:
    """The picture beside a matrix; refuses what is in the way of either."""
    plot = path.with_suffix(".png")
    claim(path, ours=json_with("names", "accuracy", "transferred"))
    claim(plot, ours=is_picture)
    return plot


class _Source:
    """The images made on one network."""

    def __init__(self, work: Work, attacks: Sequence[Attack], described: Sequence[dict[str, Any]], name: str) -> None:
        self._work, self._attacks, self._described = work, attacks, list(described)
        digest = short_hash([self._described, work.options.seed, work.images, work.checkpoint.sha256])
        path = place_for(
            spelled_as_before(work.folder / f"{name}-{digest}.json"),
            work.network,
            lambda file: list(EvaluationFiles(file, with_images=True).states),
        )
        self.files = EvaluationFiles(path, with_images=True)

    @property
    def images(self) -> Tensor:
        """The images (N, C, H, W)."""
        assert self.files.images is not None  # noqa: S101 - they are always saved
        return load_weights(self.files.images)[0]["image"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the attacks on this network."""
        return Evaluation.load(self.files.path).warnings

    def make(self) -> None:
        """Attack the network, unless done before."""
        settings = {"norm": str(self._described[0]["norm"]), "eps": str(self._described[0]["eps"])}
        if not self._is_done():
            self.files.claim(**settings, images_sha256=self._work.images)
        elif not self.files.begun:
            return
        with alone(self.files.lock, "at this transfer"):
            if not self._is_done():
                self._attack()
            self.files.discard_states()

    def _is_done(self) -> bool:
        images = self.files.images
        if not self.files.path.exists() or images is None or not is_adversarial(images):
            return False
        known, work = Evaluation.load(self.files.path), self._work
        mine = (self._described, work.options.seed, work.images, work.checkpoint.sha256)
        if (list(known.attacks), known.seed, known.images_sha256, known.checkpoint_sha256) != mine:
            raise InputError(f"{self.files.path}: contains another evaluation; delete it")
        check_file(images, known)
        return True

    def _attack(self) -> None:
        work, options, images = self._work, self._work.options, self.files.images
        assert images is not None  # noqa: S101 - they are always saved
        state = self.files.states[True]
        kept = KeptImages(state, work.x, None)
        evaluation = evaluate(
            work.model,
            work.x,
            work.y,
            self._attacks,
            batch_size=options.batch_size,
            seed=options.seed,
            precision=options.precision,
            compile=options.compile,
            state=state,
            adversarials=kept.images,
            flush=kept.flush,
            eight_bit=options.eight_bit,
            every=True,
            workers=options.workers,
            watcher=options.watcher,
        )
        kept.save_all(images, work.y, evaluation)
        work.finished(evaluation).save(self.files.path)


def _tried(works: Sequence[Work], sources: Sequence[_Source]) -> Transfer:
    batch, y = works[0].options.batch_size or _BATCH, works[0].y
    clean = np.stack([right_on(work.model, work.x, y, batch) for work in works])
    attacked = []
    for source in sources:
        images = source.images
        attacked.append(np.stack([right_on(work.model, images, y, batch) for work in works]))
    return Transfer(clean, np.stack(attacked))


def _titles(works: Sequence[Work], names: Sequence[str]) -> list[str]:
    """Names by the runs' configurations; where these are unknown or the same, what tells the given names apart."""
    paths = [work.checkpoint.path for work in works if work.checkpoint.path is not None and work.checkpoint.is_run]
    if len(paths) == len(works):
        titles = name_runs([read_run_config(RunFolder(path.parent).config) for path in paths])
        if len(set(titles)) == len(titles):
            return titles
    return told_apart(names)


def _figures(
    found: Transfer,
    works: Sequence[Work],
    sources: Sequence[_Source],
    described: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    each = range(len(works))
    names = [work.checkpoint.name for work in works]
    if len(set(names)) < len(names):
        names = [str(work.checkpoint) for work in works]

    def cell(source: int, target: int) -> dict[str, Any] | None:
        share = found.transferred(source, target)
        return None if share is None else share.to_dict()

    return {
        "format": 1,
        "names": names,
        "titles": _titles(works, names),
        "attacks": list(described),
        "norm": described[0]["norm"],
        "eps": described[0]["eps"],
        "split": works[0].options.split,
        "samples": len(works[0].x),
        "seed": works[0].options.seed,
        "images_sha256": works[0].images,
        "weights_sha256": [work.checkpoint.sha256 for work in works],
        "clean_accuracy": [Measured.share(int(right.sum()), len(right)).to_dict() for right in found.clean],
        "accuracy": [[found.accuracy(source, target).to_dict() for target in each] for source in each],
        "transferred": [[cell(source, target) for target in each] for source in each],
        "made_on": [str(source.files.path) for source in sources],
        "warnings": [
            f"{name}: {text}" for name, source in zip(names, sources, strict=True) for text in source.warnings
        ],
    }
