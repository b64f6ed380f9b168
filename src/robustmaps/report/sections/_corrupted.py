"""Accuracy on corrupted images, by configuration and severity."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import counted
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.tables import percent_cell, table
from robustmaps.engine.text import shell
from robustmaps.evaluation import read_computed
from robustmaps.report._blocks import Block, Listing
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import Share
from robustmaps.runs import RunRecord, outdated_result


@dataclass(frozen=True)
class _Corrupted:
    """What the page shows of a file of accuracies on corrupted images."""

    images: int
    fingerprint: str
    mean_corruption_accuracy: Share
    severities: tuple[Share, ...]
    corruptions: dict[str, object]
    folder: str = ""
    path: str | None = None
    checkpoint_sha256: str | None = None
    computes: list[float] | str | None = None
    warnings: tuple[str, ...] = ()


def corrupted(material: Material) -> list[Block]:
    """A table for each set of corrupted images: a row per run."""
    seeds = {run.folder: (variant.name, run) for variant in material.study.variants for run in variant.runs}
    sets: dict[tuple[str, int], list[tuple[RunRecord, _Corrupted]]] = {}
    for run, found in material.once(_read):
        if isinstance(found, _Corrupted):
            sets.setdefault((found.fingerprint, found.images), []).append((run, found))
    blocks: list[Block] = []
    for number, members in enumerate(sets.values(), 1):
        first = members[0][1]
        rows = [
            (
                seeds[run.folder][0],
                str(run.config.training.seed),
                *(percent_cell(share.measured) for share in (found.mean_corruption_accuracy, *found.severities)),
            )
            for run, found in members
        ]
        columns = ("configuration", "seed", "mean", *(f"severity {n}" for n in range(1, len(first.severities) + 1)))
        about = f"{first.folder or 'corrupted images'}, {counted(first.images, 'image')}, mean over {_kinds(first)}"
        name = f"corrupted-{number}" if len(sets) > 1 else "corrupted"
        blocks.append(Listing(name, table(columns, rows, f"Accuracy without an attack on {about}"), sortable=True))
    return blocks


def _kinds(found: _Corrupted) -> str:
    names = list(found.corruptions)
    return ", ".join(names) if len(names) <= 5 else counted(len(names), "corruption")


def corruption_commands(again: Path, run: RunRecord) -> Iterator[str]:
    """The commands that classify the same corrupted images with a run that was made again."""
    for found in _of(run):
        if isinstance(found, _Corrupted):
            where = found.path or found.folder
            options = ("--samples", str(found.images), *permission(run))
            yield shell("robustmaps", "evaluate", again, "--corruptions", where, *options)


def _read(material: Material) -> list[tuple[RunRecord, _Corrupted | str]]:
    return [(run, found) for run in material.study.runs for found in _of(run)]


def _of(run: RunRecord) -> list[_Corrupted | str]:
    """The accuracies in the folder of a run, or why they can't be shown."""
    return [_one(run.folder, path) for path in sorted(run.results.glob("corruptions-*.json"))]


def _one(folder: Path, path: Path) -> _Corrupted | str:
    try:
        found = declared(_Corrupted, read_json(path))
        reason = outdated_result(folder, found.checkpoint_sha256, read_computed(found.computes))
    except (OSError, ValueError, InputError) as error:
        return str(error)
    return found if reason is None else f"{path.name}: {reason}; evaluate again"


def _warnings(material: Material) -> Iterator[str]:
    for run, found in material.once(_read):
        yield from [found] if isinstance(found, str) else (f"{run.name}: {text}" for text in found.warnings)


ROW = SectionRow(name="corrupted", title="Corrupted images", order=48, blocks=corrupted, warnings=_warnings)
