"""Which results in a folder are of the present network: the same weights may compute something else since."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation import Computed, agree, read_computed

if TYPE_CHECKING:
    from robustmaps.evaluation import Identity

_FILE = ".network.json"
_STATE = "state.json"


def place_for(path: Path, network: "Identity", partial: Callable[[Path], list[Path]]) -> Path:
    """``path``, or with a number at its end if it is taken by results of a network that computes something else.

    Args:
        path: the file of the results, named after everything else that they depend on.
        network: the network.
        partial: from a file of results to the folders of its unfinished states.
    """
    number, place = 1, path
    while any(_is_of_another(file, network) for file in (place, *(each / _STATE for each in partial(place)))):
        number += 1
        place = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return place


def _is_of_another(file: Path, network: "Identity") -> bool:
    if not file.exists():
        return False
    try:
        return not network.matches(read_computed(json.loads(file.read_text(encoding="utf-8")).get("computes")))
    except (OSError, ValueError, TypeError, AttributeError):  # damaged, which whoever reads it explains
        return False


def write_present(folder: Path, checkpoint_sha256: str, network: "Identity", *, changed: bool) -> None:
    """Record what the network of these weights computes now, so that lists and reports know without PyTorch.

    Built-in code hardly changes, so its record is written only once results were found to be ``changed``.
    """
    if network.built_in and not changed and not (folder / _FILE).exists():
        return
    values = {"checkpoint_sha256": checkpoint_sha256, "computes": network.computes, "built_in": network.built_in}
    found = _read(folder)
    if found is None or found["checkpoint_sha256"] != checkpoint_sha256 or not _matches(found, network.computes):
        claim(folder / _FILE, ours=json_with(*values))
        write_json(folder / _FILE, values)


def why_outdated(
    folder: Path, present: str | None, checkpoint_sha256: str | None, computes: Computed | None
) -> str | None:
    """Why a result is not of the present network of a run; None if it is.

    Args:
        folder: the run's folder of results.
        present: hash of the run's weights; None if there are none.
        checkpoint_sha256: hash of the weights that the result is of.
        computes: what their network computed.
    """
    if checkpoint_sha256 is None:
        return None
    if present not in (None, checkpoint_sha256):
        return "it is of weights that are no longer in the run"
    found = _read(folder)
    if found is None or found["checkpoint_sha256"] != checkpoint_sha256 or _matches(found, computes):
        return None
    return "with these weights, the network has computed something else since"


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = read_json(folder / _FILE)  # a damaged one is written again
        return {
            "checkpoint_sha256": found["checkpoint_sha256"],
            "computes": read_computed(found["computes"]),
            "built_in": bool(found["built_in"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _matches(found: dict[str, Any], computes: Computed | None) -> bool:
    if computes is None or found["computes"] is None:
        return bool(found["built_in"])
    return agree(found["computes"], computes)
