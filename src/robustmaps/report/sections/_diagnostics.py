"""The results of diagnoses."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.tables import table
from robustmaps.engine.text import shell
from robustmaps.evaluation import read_computed
from robustmaps.report._blocks import Block, Listing, Missing, Text
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.runs import RunRecord, outdated_result
from robustmaps.studies import Variant


def diagnostics(material: Material) -> list[Block]:
    """The results of the checks."""
    rows = [
        (variant.name, str(run.config.training.seed), found["name"], found["verdict"], found["text"])
        for variant, run, diagnosis in material.once(_diagnoses)
        for found in diagnosis
    ]
    if not rows:
        run = material.study.best.runs[0]
        command = shell("robustmaps", "diagnose", run.folder, *permission(run))
        return [Missing("No diagnosis has been made yet. To make one:", command)]
    count = sum(row[3] == "suspect" for row in rows)
    text = f"{count or 'None'} of {len(rows)} checks {'is' if count < 2 else 'are'} suspicious."
    checks = table(("configuration", "seed", "check", "verdict", "what was found"), rows, "Checks and their verdicts")
    return [Text(text), Listing("diagnostics", checks, sortable=True, filterable=len(rows) > 15)]


def _suspicions(material: Material) -> Iterator[str]:
    for variant, run, diagnosis in material.once(_diagnoses):
        suspects = [found["name"] for found in diagnosis if found["verdict"] == "suspect"]
        if suspects:
            yield f"{variant.name}, seed {run.config.training.seed}: {', '.join(suspects)} is suspicious."
        yield from (found["text"] for found in diagnosis if found["verdict"] in ("unreadable", "outdated"))


def _diagnoses(material: Material) -> list[tuple[Variant, RunRecord, list[dict[str, str]]]]:
    return [
        (variant, run, _diagnosis(run.folder, path))
        for variant in material.study.variants
        for run in variant.runs
        for path in sorted(run.results.glob("diagnosis-*.json"))
    ]


@dataclass(frozen=True)
class _Finding:
    """What the page shows of a `robustmaps.evaluation.Finding`."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True)
class _Diagnosis:
    """What the page shows of a `robustmaps.evaluation.Diagnosis`."""

    findings: tuple[_Finding, ...]
    checkpoint_sha256: str | None = None
    computes: list[float] | str | None = None


def _diagnosis(folder: Path, path: Path) -> list[dict[str, str]]:
    try:
        found = declared(_Diagnosis, read_json(path))
        reason = outdated_result(folder, found.checkpoint_sha256, read_computed(found.computes))
        if reason is not None:
            return [{"name": path.name, "verdict": "outdated", "text": f"{path.name}: {reason}; diagnose again"}]
        return [dict(vars(finding)) for finding in found.findings]
    except (OSError, ValueError) as error:
        return [{"name": path.name, "verdict": "unreadable", "text": str(error)}]


ROW = SectionRow(
    name="diagnostics", title="Is the robustness real?", order=80, blocks=diagnostics, warnings=_suspicions
)
