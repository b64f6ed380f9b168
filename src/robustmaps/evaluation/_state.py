"""The results of an evaluation so far, and the folder from which a killed one resumes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from robustmaps.engine.checked import Damaged, checksum, compare_checksums
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.pages import explain
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.views.passes import Passes
from robustmaps.engine.writing.outputs import claim_folder, json_with
from robustmaps.evaluation._agreement import Computed
from robustmaps.evaluation._identity import Identity

_FILE = "state.json"
STATE_FILES = (_FILE, "adversarials.npy")
"""All files in the folder; the second one, of `robustmaps.runs`, may be there before the first."""
IMAGES_END = b"robustmaps"
"""Ends the second one, to be known as ours: its format has no place for a name."""
_MEND = "delete the folder and evaluate again"


@dataclass
class AttackStage:
    """One attack of a cascade and its progress.

    Attributes:
        name: the verdict of the samples that it breaks.
        rows: the samples to attack, unbroken when it began.
        done: number of samples attacked.
        broken: number of samples broken.
        seconds: wall time.
        passes: through the network, of the attack and of the verdicts on its images; None in a state of an earlier
            version, which has not counted all of them.
    """

    name: str
    rows: list[int]
    done: int = 0
    broken: int = 0
    seconds: float = 0.0
    passes: Passes | None = None

    def to_dict(self) -> dict[str, Any]:
        """Counts instead of rows, for people and JSON."""
        counted = {} if self.passes is None else self.passes.to_dict(self.done)
        return {"name": self.name, "attacked": self.done, "broken": self.broken, "seconds": self.seconds, **counted}


@dataclass
class Found:
    """The results of an evaluation so far, as plain values that can be written at any time.

    Attributes:
        verdicts, distances: see `Evaluation`.
        stages: the attacks that have begun.
        batch_size: images per batch.
        warnings: reasons to doubt the figures.
        seconds: wall time over all calls.
        undecided: images whose verdict rests on logits without a prediction, such as NaN.
        gradients, mended: images' gradients that attacks took, and how many of them were NaN or infinite.
        sessions: device, versions, threads and settings of the calls, each once.
        images: checksums of the adversarial images that were kept, by sample.
        perturbations: see `Evaluation`; None in a state of an earlier version, which has not recorded all of them.
    """

    verdicts: list[str]
    distances: list[float | None]
    batch_size: int
    stages: list[AttackStage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    undecided: int = 0
    gradients: int = 0
    mended: int = 0
    sessions: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    perturbations: list[tuple[float, float, float] | None] | None = None

    def begin(self, session: Mapping[str, Any]) -> None:
        """Record the environment of a call, and warn if it is another than that of the call before."""
        now = dict(session)
        before = self.sessions[-1] if self.sessions else now
        changed = [f"{key} {before.get(key)}, then {value}" for key, value in now.items() if before.get(key) != value]
        if changed:
            self.warnings.append(f"the evaluation was resumed under other conditions: {'; '.join(changed)}")
        if now not in self.sessions[-1:]:
            self.sessions.append(now)

    def doubts(self) -> list[str]:
        """Reasons to doubt the figures that only show at the end."""
        found = []
        if self.undecided:
            found.append(undecided_text(self.undecided, len(self.verdicts)))
        if self.mended:
            found.append(
                f"{self.mended} of {self.gradients} gradients at images were NaN or infinite: attacks took NaN for 0 "
                "and infinity for the largest finite entry, and may look weaker than they are "
                f"({explain('non-differentiable')})"
            )
        return found


def undecided_text(count: int, total: int) -> str:
    """A warning about images whose logits have no largest entry."""
    what = "s have" if count > 1 else " has"
    return (
        f"{count} of {total} image{what} logits without a prediction (NaN, or several infinite): misclassified, "
        "whatever the label"
    )


def image_checksum(image: Tensor) -> str:
    """The checksum of an image's values."""
    return checksum(image.contiguous().cpu().numpy().data.cast("B"))


def check_images(folder: Path, images: Tensor, where: object) -> None:
    """Refuse adversarial images (N, C, H, W) that are not those which the state in a folder counts.

    Args:
        folder: the folder of the state; without one, all images pass.
        images: the images.
        where: their file, for the message.

    Raises:
        Damaged: an image has another checksum than when it was found, or the state is damaged.
    """
    file = folder / _FILE
    written = read_json(file, _MEND).get("found", {}).get("images", {}) if file.exists() else {}
    for row, expected in written.items():
        compare_checksums(f"{where}, image {row}", image_checksum(images[int(row)]), expected, _MEND)


def claim_state(folder: Path) -> None:
    """Refuse a folder with other people's files as the folder of a state.

    Raises:
        InputError: it has other files.
    """
    claim_folder(folder, _is_state, "the intact state of an evaluation")


def _is_state(folder: Path) -> bool:
    state, images = (folder / name for name in STATE_FILES)
    if state.exists():
        return json_with("identity", "found")(state)
    if not images.is_file():
        return False
    with images.open("rb") as file:  # killed before the first state
        file.seek(max(0, images.stat().st_size - len(IMAGES_END)))
        return file.read() == IMAGES_END


@dataclass(frozen=True)
class _State:
    """The contents of the file."""

    identity: Mapping[str, Any]
    found: Found
    computes: Computed | None = None


class StateFolder:
    """The folder that stores `Found` after every batch.

    Args:
        path: the folder, created on first write.
        network: the identity of the network.
        others: everything else that the result depends on, by name; a state with another identity is refused.
    """

    def __init__(self, path: str | Path, network: Identity, others: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._network, self._identity = network, {"network": network.weights, **others}

    def load(self) -> Found | None:
        """The results of an earlier call, if any.

        Raises:
            InputError: the state belongs to another evaluation or is damaged, or the folder has other files.
        """
        claim_state(self.path)
        file = self.path / _FILE
        if not file.exists():
            return None
        try:
            values = read_json(file, _MEND)
            state = declared(_State, values)
        except Damaged:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not the state of an evaluation ({error}); {_MEND}") from error
        others = [name for name, value in self._identity.items() if state.identity.get(name) != value]
        if not others and not self._network.matches(state.computes):
            others = ["network: its weights are the same, but it computes something else"]
        if others:
            raise InputError(
                f"{self.path}: contains the state of an evaluation with another {' and another '.join(others)}; "
                "choose another folder or delete this one"
            )
        return state.found

    def save(self, found: Found) -> None:
        """Write the results, atomically."""
        values = {"identity": self._identity, "computes": self._network.computes, "found": asdict(found)}
        write_json(self.path / _FILE, values)
