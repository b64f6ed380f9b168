"""Ready studies: files of the package for the tables and figures of the paper, each in full and small. No PyTorch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from robustmaps.config._run import FromMapping, from_mapping
from robustmaps.config._study import Study, make_study
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.reading.declared import declared

Scale = Literal["cpu", "full"]
"""A small version on embedded data, or the published protocol."""
READY = "ready.json"
"""The file in a study's folder that says which ready study it is, with its table."""


@dataclass(frozen=True)
class ReadyStudy:
    """A ready study.

    Attributes:
        also: its second name, a number in this package's list: the numbers in the paper are not known here.
        title: a title.
        about: what it shows, in sentences.
        shows: what is made of the runs beside their report.
        operations: of all its runs by scale, as a sweep counts them (tests/studies/test_ready.py counts again).
        full: the study as published.
        cpu: a small version on embedded data.
        over: the key, or eps, along a curve.
        name: its name.
    """

    also: str
    title: str
    about: str
    shows: Literal["accuracy", "curve", "cost", "transfer", "corruptions", "plane"]
    operations: Mapping[str, float]
    full: Mapping[str, Any]
    cpu: Mapping[str, Any]
    over: str | None = None
    name: str = ""

    def study(self, scale: Scale, *, data: str | None = None, make: FromMapping = from_mapping) -> Study:
        """The study of that scale.

        Args:
            scale: full or small.
            data: images in place of the recipes' own, such as an archive of CIFAR-10.
            make: what makes a configuration of flat keys.

        Raises:
            InputError: these images are none, or are given for the small version, which has its own.
        """
        if data is not None and scale == "cpu":
            raise InputError(f"data={data}: --scale cpu uses embedded images; leave --data out, or take --scale full")
        values = dict(self.full if scale == "full" else self.cpu)
        if data is not None:
            values["fixed"] = {**values.get("fixed", {}), "data": data}
        return make_study(values, Path(f"{self.name}-{scale}"), make=make)


@cache
def ready_studies() -> Mapping[str, ReadyStudy]:
    """All ready studies by name: tables, then figures, by number."""
    found = {}
    for file in files("robustmaps.config").joinpath("ready").iterdir():
        name, _, ending = file.name.partition(".")
        if ending == "yaml":
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[name] = declared(ReadyStudy, {**values, "name": name}, f"{file.name}: ")
    return dict(sorted(found.items(), key=lambda item: _number(item[1].also)))


def find_ready(name: str) -> ReadyStudy:
    """The ready study of that name or number, in any spelling such as ``Table 2``.

    Raises:
        InputError: there is none; the message has the nearest one.
    """
    studies = ready_studies()
    wanted = re.sub(r"[\s_]+", "-", name.strip().lower())
    wanted = next((each.name for each in studies.values() if each.also == wanted), wanted)
    if wanted not in studies:
        raise unknown("run folder or ready study", name, [*studies, *(each.also for each in studies.values())])
    return studies[wanted]


def _number(also: str) -> tuple[bool, int]:
    kind, _, number = also.partition("-")
    return kind != "table", int(number)
