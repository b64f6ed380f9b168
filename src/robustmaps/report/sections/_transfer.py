"""Attacks made on one network and tried on others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustmaps.attacks import called, title_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import budget_text, exact
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.tables import NONE, Cell, percent_cell, table
from robustmaps.engine.text import shell, told_apart
from robustmaps.report._blocks import Block, Listing, Text
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import Share
from robustmaps.runs import RunRecord, outdated_result

_MOST = 5


@dataclass(frozen=True)
class _Matrix:
    """What the page shows of a transfer matrix's file."""

    names: tuple[str, ...]
    norm: str
    eps: float
    samples: int
    seed: int
    attacks: tuple[Mapping[str, Any], ...]
    weights_sha256: tuple[str, ...]
    clean_accuracy: tuple[Share, ...]
    accuracy: tuple[tuple[Share, ...], ...]
    transferred: tuple[tuple[Share | None, ...], ...]
    titles: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    attack_options: tuple[str, ...] = ()
    split: str = "test"


def transfer(material: Material) -> list[Block]:
    """Two tables per matrix: accuracy, and the share of broken images that break the other network too."""
    blocks: list[Block] = []
    found = material.once(_matrices)
    for number, (label, matrix) in enumerate(found[:_MOST], 1):
        names = matrix.titles or told_apart(matrix.names)
        about = f"{label}, {budget_text(matrix.norm, matrix.eps)}, {matrix.samples:,} images"
        columns = ("made on", *(f"tried on {name}" for name in names))
        clean = ("not attacked", *map(_cell, matrix.clean_accuracy))
        accuracy = [clean, *((name, *map(_cell, row)) for name, row in zip(names, matrix.accuracy, strict=True))]
        shares = [(name, *map(_cell, row)) for name, row in zip(names, matrix.transferred, strict=True)]
        ending = f"-{number}" if len(found) > 1 else ""
        blocks += [
            Listing(f"transfer{ending}", table(columns, accuracy, f"Accuracy under {about}")),
            Listing(
                f"transferred{ending}",
                table(columns, shares, "Share that breaks the other network, of the images that broke their own"),
            ),
            Text(f"Networks: {', '.join(f'{a} is {b}' for a, b in zip(names, matrix.names, strict=True) if a != b)}."),
        ]
    if len(found) > _MOST:
        blocks.append(Text(f"The first {_MOST} of {len(found)} matrices.", "note"))
    return blocks


def transfer_commands(again: Path, run: RunRecord) -> Iterator[str]:
    """The commands that make the matrices in the folder of a run for the same run made again."""
    for found in _of(run):
        if isinstance(found, tuple) and found[1].networks:
            matrix = found[1]
            options = ["--norm", matrix.norm, "--eps", exact(matrix.eps), *matrix.attack_options]
            options += ["--split", matrix.split] * (matrix.split != "test")
            options += ["--samples", str(matrix.samples), *(["--seed", str(matrix.seed)] * (matrix.seed != 0))]
            others = matrix.networks[1:]
            yield shell("robustmaps", "evaluate", again, *options, "--transfer", *others, *permission(run))


def _cell(share: Share | None) -> Cell | str:
    return NONE if share is None else percent_cell(share.measured)


def _matrices(material: Material) -> list[tuple[str, _Matrix]]:
    return [each for each in material.once(_read) if isinstance(each, tuple)]


def _read(material: Material) -> list[tuple[str, _Matrix] | str]:
    return [found for run in material.study.runs for found in _of(run)]


def _of(run: RunRecord) -> list[tuple[str, _Matrix] | str]:
    """The matrices in the folder of a run, or why one can't be shown."""
    return [_matrix(run.folder, path) for path in sorted(run.results.glob("transfer-of-*.json"))]


def _matrix(folder: Path, path: Path) -> tuple[str, _Matrix] | str:
    try:
        values = read_json(path)
        found = declared(_Matrix, values)
        reason = outdated_result(folder, found.weights_sha256[0], None)
        if reason is not None:
            return f"{path.name}: {reason}; make the matrix again"
        if {len(found.names)} != {len(row) for row in (*found.accuracy, *found.transferred, found.clean_accuracy)}:
            return f"{path}: a matrix whose rows differ in length"
        return " + ".join(title_of(called(each)) for each in found.attacks), found
    except (OSError, ValueError, InputError, IndexError) as error:
        return str(error)


def _warnings(material: Material) -> Iterator[str]:
    yield from (each for each in material.once(_read) if isinstance(each, str))


ROW = SectionRow(name="transfer", title="Transfer between networks", order=47, blocks=transfer, warnings=_warnings)
