"""What is recorded of an evaluated network that is no run, in the form of a run's configuration. No PyTorch here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmaps.config._data import DataConfig
from robustmaps.config._defense import DefenseConfig
from robustmaps.config._flat_keys import section_from_mapping
from robustmaps.config._model import ModelConfig
from robustmaps.config._run import RunConfig
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.models import Pool

EVALUATED = "network.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A network that is no run, beside its evaluations.

    Attributes:
        model: its name, as in `open_model`.
        checkpoint_sha256: hash of its weights.
        weights: the file of its weights, if it has one of its own.
        strides: of a network of ours.
        enlarge: what was changed on it, as ``train --enlarge``.
        pool: of a network of ours, where it is not the usual one.
        saved: the file of its weights instead, if that describes its network, as `robustmaps enlarge` saves it.
        data: the images it was evaluated on, as a configuration.
        norm, eps: the budget it was trained for, where that is known.
        cost: of one image.
    """

    model: str
    checkpoint_sha256: str
    weights: str | None = None
    strides: str | None = None
    enlarge: str | None = None
    saved: str | None = None
    pool: Pool | None = None
    data: Mapping[str, Any] | None = None
    norm: str | None = None
    eps: float | None = None
    cost: Mapping[str, Any] | None = None

    @property
    def config(self) -> RunConfig:
        """What is known of it, in the form of a run's configuration."""
        known = {name: value for name, value in (("norm", self.norm), ("eps", self.eps)) if value is not None}
        model = ModelConfig(
            model=self.model,
            strides=self.strides,
            pool=self.pool,
            enlarge=self.enlarge,
            init_from=self.saved or self.weights,
            init_sha256=self.checkpoint_sha256,
        )
        data = DataConfig() if self.data is None else section_from_mapping(DataConfig(), self.data, EVALUATED)
        defense = section_from_mapping(DefenseConfig(), {"defense": "standard", **known}, EVALUATED)
        return replace(RunConfig(), model=model, data=data, defense=defense)


def folder_of_evaluated(folder: Path) -> Path | None:
    """The folder with the record of an evaluated network: the given one, or ``evaluation`` in a saved enlargement."""
    places = (folder, folder / "evaluation")
    return next((place for place in places if os.path.lexists(place / EVALUATED)), None)


def read_evaluated(folder: Path) -> EvaluatedNetwork | None:
    """The record in a folder of evaluations; None if there is none.

    Raises:
        InputError: it can't be read.
    """
    try:
        values = read_json(folder / EVALUATED, "evaluate again", most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        return declared(EvaluatedNetwork, values)
    except InputError as error:
        raise InputError(f"{folder / EVALUATED}: not the record of an evaluated network ({error})") from error
