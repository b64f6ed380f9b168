"""A network that was opened, and how it is written down so that it can be made again."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from robustmaps.config import DataConfig, Surgery, section_from_mapping
from robustmaps.data import KNOWN
from robustmaps.engine.errors import InputError
from robustmaps.engine.text import first_line
from robustmaps.engine.trust import check_from_file
from robustmaps.enlarging import Enlargement, EnlargeWarning, enlarge
from robustmaps.networks._checkpoints import Filled
from robustmaps.networks._libraries import Fit, MadeNetwork, make_architecture

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How a network is made, but for its weights.

    Attributes:
        spec: how its architecture is made.
        fit: what that was made for.
        enlargements: what was changed on it, in order: the arguments of `enlarge`, and as ``image_size`` the height and
            width of the images it was traced with.
    """

    spec: str
    fit: Fit
    enlargements: tuple[Mapping[str, Any], ...] = ()

    def make(self) -> MadeNetwork:
        """The network, without the weights that are to be filled in, and without warnings given when it was enlarged.

        Raises:
            InputError: it can't be made here.
        """
        made = make_architecture(self.spec, self.fit)
        model = made.model
        for change in self.enlargements:
            arguments = dict(change)
            image = torch.zeros(1, self.fit.in_channels, *arguments.pop("image_size"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EnlargeWarning)
                model, _ = enlarge(model, image, **arguments, latency_runs=0)
        return replace(made, model=model.eval())


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that takes images in [0, 1] and gives logits (N, classes).

    Attributes:
        model: on the CPU, in evaluation mode.
        recipe: how it is made again, without weights.
        trained: whether it has weights that were learnt.
        data: the images it was trained on, where that is known.
        budget: norm and eps it was trained for, where that is known.
        image_px: side of the images it is made for.
        classes, image_size: names of the classes, and height and width of the images, where that is known.
        filled: the file of another program that its weights are from, if any.
        program: why it was opened from the program beside its weights, if it was; such a network can't be enlarged or
            trained.
    """

    model: nn.Module
    recipe: Recipe
    trained: bool
    data: DataConfig | None = None
    budget: tuple[str, float] | None = None
    image_px: int = 32
    classes: tuple[str, ...] | None = None
    image_size: tuple[int, ...] | None = None
    filled: Filled | None = None
    program: str | None = None

    @property
    def fit(self) -> Fit:
        """What its architecture was made for."""
        return self.recipe.fit

    @property
    def enlarge(self) -> str | None:
        """Its enlargement as ``train --enlarge`` takes it; None for none, and for several, which `recipe` has."""
        if len(self.recipe.enlargements) != 1:
            return None
        given = {key: value for key, value in self.recipe.enlargements[0].items() if key != "image_size"}
        if isinstance(given.get("where"), list | tuple):
            given["where"] = ",".join(map(str, given["where"]))
        return str(Surgery(**given))

    def changed(self, model: nn.Module, enlargement: Enlargement) -> "OpenedNetwork":
        """What the enlarged network is."""
        if enlargement.larger_images is not None:
            assert self.data is not None  # noqa: S101 - only known images can become larger
            data = replace(self.data, image_size=enlargement.larger_images[0])
            return replace(self, model=model, data=data, image_size=enlargement.larger_images)
        change = {**enlargement.recipe, "image_size": list(enlargement.image_size)}
        return replace(self, model=model, recipe=replace(self.recipe, enlargements=(*self.recipe.enlargements, change)))

    def enlarged(self, surgery: Surgery, image_size: tuple[int, int]) -> "OpenedNetwork":
        """The network with larger maps, for images of a height and width.

        Raises:
            InputError: it can't be enlarged this way.

        Warns:
            EnlargeWarning: see `enlarge`.
        """
        image = torch.zeros(1, self.fit.in_channels, *image_size)
        return self.changed(*enlarge(self.model, image, **surgery.arguments(), latency_runs=0))

    def describe(self) -> dict[str, Any]:
        """What a weights file says of itself in its header, as plain values."""
        # Extra images are for training alone; an evaluation must not look for them.
        shared: dict[str, Any] = {}
        if self.data is not None:
            classes = None if self.data.classes is None else found_anywhere(self.data.classes)
            shared = {"data": found_anywhere(self.data.data), "classes": classes, "extra_data": None}
        data = None if self.data is None else {**asdict(self.data), **shared}
        if data is not None and data["channels"] is None:  # as for `_described`
            del data["channels"]
        norm, eps = self.budget or (None, None)
        return {
            "model": {"name": self.recipe.spec, **_described(self.recipe.fit)},
            "enlarge": [dict(change) for change in self.recipe.enlargements],
            "trained": self.trained,
            "data": data,
            "norm": norm,
            "eps": eps,
        }

    @staticmethod
    def from_description(
        about: Mapping[str, Any], where: object = "the description", model: nn.Module | None = None
    ) -> "OpenedNetwork":
        """The network, with weights that are still to be filled in.

        Args:
            about: what `describe` returned.
            where: the file that it was read from, for messages.
            model: the network itself, where it is not to be made as described.

        Raises:
            KeyError, TypeError, ValueError: nothing that `describe` wrote.
            InputError: it names code that is not trusted, or it can't be made here.
        """
        fit = dict(about["model"])
        name = str(fit.pop("name"))
        recipe = Recipe(name, Fit.of(fit), tuple(about.get("enlarge", ())))
        data = None if about["data"] is None else section_from_mapping(DataConfig(), about["data"], str(where))
        budget = None if about["norm"] is None else (str(about["norm"]), float(about["eps"]))
        if model is None:
            check_from_file(name, where)
        try:
            made = recipe.make() if model is None else MadeNetwork(model.eval(), name, trained=True)
        except RuntimeError as error:  # such as one that needs more memory than there is
            raise InputError(f"{where}: the network that it describes can't be made: {first_line(error)}") from error
        classes = _tuple_of(str, about.get("classes"))
        size = _tuple_of(int, about.get("image_size"))
        trained = bool(about.get("trained", True))
        return OpenedNetwork(made.model, recipe, trained, data, budget, made.image_px, classes, size)


def _described(fit: Fit) -> dict[str, Any]:
    """Without what is younger than version 0.1, if it is as usual: weights are known by the hash of their file."""
    values = asdict(fit)
    return {k: v for k, v in values.items() if k not in ("init", "pool") or v != getattr(Fit, k)}


def _tuple_of(kind: type[T], values: Sequence[T] | None) -> tuple[T, ...] | None:
    """Values that were read from JSON.

    Raises:
        TypeError: one of another type.
    """
    if values is not None and not all(isinstance(value, kind) for value in values):
        raise TypeError(f"{values}: expected only {kind.__name__}")
    return None if values is None else tuple(values)


def found_anywhere(spec: str) -> str:
    """A path that still holds when it is used from another folder."""
    # A known name stays one, whatever lies in the present folder.
    return str(Path(spec).resolve()) if spec not in KNOWN and Path(spec).exists() else spec
