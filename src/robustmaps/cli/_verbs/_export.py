"""``robustmaps export``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output

DESCRIPTION = """Export a run's network with a model card of the measured figures. Compare its outputs with those of the
original on test images; keep no export that differs."""


@dataclass(frozen=True)
class Arguments:
    """Options of the export.

    Attributes:
        run: run folder, or its weights file
        format: format to write: onnx for any runtime (needs pip install 'robustmaps[export]'), torch for a torch.export
            program, or safetensors for weights with their description
        data: data set to check with (default: the one that the network was trained on)
        out: folder to write (default: export/FORMAT in the run folder)
        json: print the result as one JSON object
    """

    run: tyro.conf.Positional[Path]
    format: Literal["onnx", "torch", "safetensors"]
    data: str | None = None
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "export", DESCRIPTION)
    from robustmaps.runs import export

    done = export(given.run, given.format, given.out, data=given.data)
    Output(given.json).result(
        {
            "folder": str(done.folder),
            "file": str(done.path),
            "images": done.images,
            "difference": done.difference,
            "largest_logit": done.largest,
            "undecided": done.undecided,
        },
        f"On {done.images} test images its logits, of up to {done.largest:.3g}, differ by at most "
        f"{done.difference:.2g} from the original's.",
        *[f"Note: {done.undecided} of them have NaN or infinite logits, so that nothing is predicted."]
        * (done.undecided > 0),
        f"{'Exported before: ' if done.before else 'Network: '}{done.path}\nModel card: {done.folder / 'README.md'}",
    )
