"""The state of a run, and the settings that must not change when it is resumed."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.data import Dataset
from robustmaps.defenses import Defense
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import weights_sha256
from robustmaps.training._growth import Earlier
from robustmaps.training._options import INCIDENTAL, TrainOptions

_NONE = "none"


@dataclass
class State:
    """The counters of a run; with the weights and the states of the optimizer and the generators, a checkpoint.

    Attributes:
        epoch: completed epochs.
        step: completed steps of the current epoch.
        seconds: time spent in completed epochs.
        epoch_seconds: time spent in the current epoch.
        data_s: the part of it spent waiting for images.
        best_epoch: the best epoch so far, from 1; 0 before there is one.
        best_score: its validation figures, most important first.
        best_clean: the highest clean accuracy on validation images so far.
        network: the number of the network that is trained, from 0; others than 0 follow where a network grows.
        history: a record per completed epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    data_s: float = 0.0
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    best_clean: float = -1.0
    network: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def data_share(self) -> float:
        """The share of the current epoch's time spent waiting for images."""
        return self.data_s / max(self.epoch_seconds, 1e-9)


class Sums:
    """Loss and counts of the current epoch, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self._loss, self._clean, self._robust = (torch.zeros((), device=device) for _ in range(3))
        self.images = self._clean_images = self._robust_images = 0

    def add(self, images: int, loss: Tensor, clean: Tensor | None, robust: Tensor | None) -> None:
        """Add a step: its mean loss, and the number of correctly classified images."""
        self.images += images
        self._loss += loss * images
        if clean is not None:
            self._clean += clean
            self._clean_images += images
        if robust is not None:
            self._robust += robust
            self._robust_images += images

    def figures(self) -> dict[str, float]:
        """Mean loss and the measured accuracies so far."""
        figures = {"loss": float(self._loss) / max(self.images, 1)}
        if self._clean_images:
            figures["clean_accuracy"] = float(self._clean) / self._clean_images
        if self._robust_images:
            figures["robust_accuracy"] = float(self._robust) / self._robust_images
        return figures

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(vars(self))

    def load(self, values: Mapping[str, Any]) -> None:
        """Restore the result of `to_dict`."""
        vars(self).update(values)


def settings(
    model: nn.Module,
    data: Dataset,
    defense: Defense,
    options: TrainOptions,
    validation_attack: Attack | None,
    earlier: Sequence[Earlier] = (),
) -> dict[str, str]:
    """The settings that determine a run's result, as text; a run only resumes with the same."""
    chosen = {name: value for name, value in asdict(options).items() if name not in INCIDENTAL}
    return {
        **{name: str(value) for name, value in chosen.items()},
        "defense": " ".join([_text(defense), *_unusual(defense)]),
        **{f"defense.{name}": weights_sha256(value) for name, value in _networks(defense)},
        "validation_attack": _text(validation_attack),
        "data": f"{data.fingerprint} ({len(data.train)} + {len(data.validation)} images{_extra(data)})",
        "augmentation": repr(data.augmentation),
        "model": _structure(model),
        "earlier": ", ".join(f"{_structure(one.model)} until epoch {one.until}" for one in earlier) or _NONE,
    }


def _structure(model: nn.Module) -> str:
    parameters = [f"{name}{list(p.shape)}" for name, p in model.named_parameters()]
    # Strides and upsampling change the text of the modules but no parameter.
    structure = hashlib.sha256("\n".join([_text(model), *parameters]).encode()).hexdigest()
    return f"{type(model).__name__} of structure {structure[:12]}"


def _networks(defense: Defense) -> list[tuple[str, nn.Module]]:
    """The networks of a defence, whose weights affect the run's result."""
    held: dict[str, Any] = vars(defense) if is_dataclass(defense) else {}
    inner = _networks(held["defense"]) if "defense" in held else []
    return [*inner, *((name, value) for name, value in held.items() if isinstance(value, nn.Module))]


def _unusual(value: Any) -> Iterator[str]:
    """Settings of a defence that its text leaves out where they are as usual; checkpoints of before have none."""
    for item in fields(value) if is_dataclass(value) else ():
        setting = getattr(value, item.name)
        if isinstance(setting, nn.Module):  # known by its weights, see `_networks`
            continue
        if not item.repr and setting not in (item.default, {}):
            yield f"{item.name}={setting!r}"
        yield from _unusual(setting)


def _extra(data: Dataset) -> str:
    return "" if data.extra is None else f", {data.extra.share:g} of each batch from {data.extra.fingerprint}"


def _text(value: object) -> str:
    """The ``repr`` of a value without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


# What checkpoints of before a setting was there mean.
_SINCE = {"sync_batch_norm": "False", "earlier": _NONE}


def check_settings(where: object, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to resume a run with other settings.

    Raises:
        InputError: a setting differs; the message lists each with both values.
    """
    known = {**_SINCE, **before}
    changes = [f"{name}: {known.get(name)} then, {now.get(name)} now" for name in now if known.get(name) != now[name]]
    if changes:
        raise InputError(f"{where} was started with other settings ({'; '.join(changes)}); use another folder")
