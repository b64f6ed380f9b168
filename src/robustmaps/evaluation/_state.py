"""What an evaluation has found so far, and the folder from which a killed one goes on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json

_FILE = "state.json"


@dataclass
class AttackStage:
    """One attack of a cascade and how far it is.

    Attributes:
        name: the verdict of the samples that it breaks.
        rows: the samples that it attacks, which stood when it began.
        done: how many of them have been attacked.
        broken: how many of those fell.
        seconds: wall time.
    """

    name: str
    rows: list[int]
    done: int = 0
    broken: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For people and JSON: counts in place of rows."""
        return {"name": self.name, "attacked": self.done, "broken": self.broken, "seconds": self.seconds}


@dataclass
class Found:
    """All that an evaluation has found; plain values, so that it can be written at any time.

    Attributes:
        verdicts, distances: see `Evaluation`.
        stages: the attacks that have begun.
        batch_size: images at once.
        warnings: what makes the figures doubtful.
        seconds: wall time of all sittings.
    """

    verdicts: list[str]
    distances: list[float | None]
    batch_size: int
    stages: list[AttackStage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


class StateFolder:
    """Where `Found` is kept after every batch.

    Args:
        path: the folder, made when first written to.
        identity: what the result depends on, by name; a state of anything else is refused.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._identity = dict(identity)

    def load(self) -> Found | None:
        """What an earlier sitting found; None where there was none.

        Raises:
            InputError: the state is of another evaluation, or damaged.
        """
        file = self.path / _FILE
        if not file.exists():
            return None
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            identity, found = values["identity"], values["found"]
            stages = [AttackStage(**stage) for stage in found.pop("stages")]
            result = Found(**found, stages=stages)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: not the state of an evaluation ({error!r}); delete the folder") from error
        others = [name for name, value in self._identity.items() if identity.get(name) != value]
        if others:
            raise InputError(
                f"{self.path}: holds the state of an evaluation with another {' and another '.join(others)}; "
                "name another folder, or delete this one"
            )
        return result

    def save(self, found: Found) -> None:
        """Write it, atomically."""
        write_json(self.path / _FILE, {"identity": self._identity, "found": asdict(found)})
