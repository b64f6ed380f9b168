"""The files of an evaluation and of a curve, and whether others are in their way."""

import glob
from dataclasses import dataclass
from pathlib import Path

from robustmaps.engine.writing.outputs import LOCK, claim, discard, is_picture, json_with, tensors_with
from robustmaps.evaluation import STATE_FILES, claim_state

is_verdicts = json_with("format", "verdicts", "attacks")
is_adversarial = tensors_with("norm", "eps", "images_sha256")
_INFO = ".model_info.json"


def spelled_as_before(path: Path) -> Path:
    """``path``, or where results of the same settings are, whose attacks were then spelled in another way.

    Names of results end with a hash of all that decides.
    """
    ending = f"-{path.stem.rpartition('-')[2]}"
    stems = {name.partition(ending)[0] + ending for name in _results(path.parent, f"*{ending}*")}
    return path if path.stem in stems or not stems else path.with_name(f"{min(stems)}{path.suffix}")


def is_begun(path: Path) -> bool:
    """Whether there is an evaluation in this file, or a part of one."""
    return bool(_results(path.parent, f"{glob.escape(path.stem)}*"))


def _results(folder: Path, pattern: str) -> list[str]:
    """Names of files with results and of folders with parts of them, without what is written beside them."""
    names = (found.name for found in folder.glob(pattern))
    return [name for name in names if name.endswith((".json", ".partial")) and not name.endswith(_INFO)]


def claim_curve(path: Path) -> Path:
    """The picture beside a curve's file; refuses what is in the way of either."""
    plot = path.with_suffix(".png")
    known = json_with("points", "clean_accuracy", "samples")
    claim(path, ours=known)
    # Of earlier versions, whose pictures are not marked, the file tells.
    claim(path, plot, ours=lambda found: is_picture(found) or known(path))
    return plot


@dataclass(frozen=True)
class EvaluationFiles:
    """The files of one evaluation.

    Attributes:
        path: the verdicts.
        with_images: whether the adversarial examples are saved too.
    """

    path: Path
    with_images: bool

    @property
    def images(self) -> Path | None:
        """The adversarial examples."""
        return self.path.with_suffix(".safetensors") if self.with_images else None

    @property
    def info(self) -> Path:
        """The leaderboard entry."""
        return self.path.with_name(f"{self.path.stem}{_INFO}")

    @property
    def states(self) -> tuple[Path, Path]:
        """The intermediate results without and with saved images.

        An evaluation without saved images can't be resumed by one that saves them, since earlier ones would be missing.
        """
        names = f"{self.path.stem}.partial", f"{self.path.stem}.adversarials.partial"
        return self.path.with_name(names[0]), self.path.with_name(names[1])

    @property
    def consistency_state(self) -> Path:
        """The intermediate results of the attacks on misclassified images."""
        return self.path.with_name(f"{self.path.stem}.misclassified.partial")

    @property
    def begun(self) -> bool:
        """Whether there are intermediate results: a process that was killed at the very end leaves them."""
        return any((state / name).exists() for state in self._all_states for name in STATE_FILES)

    @property
    def _all_states(self) -> tuple[Path, ...]:
        return *self.states, self.consistency_state

    @property
    def lock(self) -> Path:
        """The lock of the evaluating process."""
        return self.states[0] / LOCK

    def claim(self, **settings: str) -> None:
        """Refuse what is in the way; verdicts of another evaluation are refused later.

        Args:
            settings: those that adversarial examples in the way must have to be replaced.
        """
        adversarial = tensors_with(**settings) if settings else is_adversarial
        paths = [self.path] if self.images is None else [self.path, self.images]
        claim(*paths, ours=lambda path: adversarial(path) if path == self.images else is_verdicts(path))
        claim(self.info, ours=json_with("clean_acc", "autoattack_acc"))
        for state in self._all_states:
            claim_state(state)

    def discard_states(self) -> None:
        """Remove the intermediate results."""
        for state in self._all_states:
            discard(state, STATE_FILES)
