"""How to repeat runs."""

import json
from collections.abc import Mapping
from typing import Any

from robustmaps.config import study_text, write_config
from robustmaps.engine.errors import InputError
from robustmaps.engine.tables import Table, table
from robustmaps.report._blocks import Block, Code, Listing, Text
from robustmaps.report.sections._commands import repeat_commands
from robustmaps.report.sections._corrupted import corruption_commands
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._transfer import transfer_commands
from robustmaps.studies import Statistics


def repeating(material: Material) -> list[Block]:
    """The configuration, the commands and the environment."""
    study = material.study
    run = study.best.runs[0]
    blocks: list[Block] = [Code("Commands", _commands(study))]
    if run.status != "evaluated":
        blocks.insert(
            0, Text("Repeat a run from its configuration; on a CPU with the same versions, the weights are identical.")
        )
        title = f"Configuration of {study.best.name}, seed {run.config.training.seed}"
        blocks.append(Code(title, write_config(run.config), folded=True))
    try:
        text = study_text(study.folder)
    except InputError as error:
        blocks.append(Text(str(error)))
    else:
        blocks += [] if text is None else [Code("The study, as a file for robustmaps sweep", text, folded=True)]
    if study.yardstick is not None:
        settings = json.dumps(json.loads(study.yardstick.attacks), indent=2)
        about = f"images: {study.yardstick.count}, SHA-256 {study.yardstick.images}\nattacks: {settings}\n"
        blocks.append(Code("Settings of the evaluation", about, folded=True))
    blocks.append(Listing("environment", _environments(study)))
    return blocks


def _commands(study: Statistics) -> str:
    more = (transfer_commands, corruption_commands)
    lines = repeat_commands(study.folder, study.best.runs, study.best.evaluations, more)
    return "\n".join(lines) + "\n"


def _environments(study: Statistics) -> Table:
    found: dict[str, dict[str, int]] = {}
    for run in study.runs:
        for key, value in run.environment.items():
            counts = found.setdefault(key, {})
            text = _earlier(value, run.environment) if key == "before" else _plain(value)
            counts[text] = counts.get(text, 0) + 1
    rows = [
        (key, "; ".join(f"{value} ({n} runs)" if len(counts) > 1 else value for value, n in counts.items()))
        for key, counts in found.items()
    ]
    return table(("what", "version or device"), rows, f"Environment of the {'runs' if len(study.runs) > 1 else 'run'}")


def _plain(value: Any) -> str:
    return ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _earlier(sessions: Any, now: Mapping[str, Any]) -> str:
    """What was different in the sessions before the last one."""
    each = sessions if isinstance(sessions, list) else []
    changes = (
        ", ".join(f"{k} {_plain(v)}" for k, v in one.items() if now.get(k) != v)
        for one in each
        if isinstance(one, dict)
    )
    return "; then ".join(changes)


ROW = SectionRow(name="repeat", title="Repeat it", order=90, blocks=repeating)
