"""Whether weights belong to the run folder that they are in."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustmaps.config import DataConfig, read_run_config
from robustmaps.data import KNOWN
from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError
from robustmaps.networks._opened import OpenedNetwork
from robustmaps.training import RunFolder


def check_same_run(weights: Path, opened: OpenedNetwork) -> None:
    """Compare what weights record with the configuration beside them, if there is one.

    Args:
        weights: their file.
        opened: the network that their header describes.

    Raises:
        InputError: the configuration is damaged, or that of another run.
    """
    folder = RunFolder(weights.parent)
    path = folder.config
    if not os.path.lexists(path):
        return
    try:
        config = read_run_config(path)
    except Damaged:
        raise
    except InputError:
        if folder.begun:
            raise
        return  # somebody's own beside a copy of the weights
    recorded = {} if opened.data is None else _without_paths(opened.data)
    if opened.budget is not None:
        recorded |= dict(zip(("norm", "eps"), opened.budget, strict=True))
    now = {"norm": config.defense.norm, "eps": config.defense.eps, **_without_paths(config.data)}
    other = [f"{name} {value} and not {now[name]}" for name, value in recorded.items() if value != now[name]]
    if other:
        raise Damaged(
            f"{path}: not the configuration of {weights.name} beside it, which records {', '.join(other)}; put the "
            "files of each run back into its own folder"
        )


def _without_paths(data: DataConfig) -> dict[str, Any]:
    """Without what weights record otherwise, as full paths, or not at all, as extra images."""
    known = data.data if data.data in KNOWN else "a path"
    return {**asdict(data), "data": known, "classes": None, "extra_data": None, "extra_share": None}
