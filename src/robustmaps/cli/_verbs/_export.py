"""``robustmaps export``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robustmaps.cli._terminal._options import ShapedImages, TrainedNetwork
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, open_given

DESCRIPTION = """Export a network with a model card of the measured figures: a run, or any network with weights from a
file. Compare its outputs with those of the original on test images; keep no export that differs."""


@dataclass(frozen=True)
class Arguments:
    """Options of the export.

    Attributes:
        format: format to write: onnx for any runtime (needs pip install 'robustmaps[export]'), torch for a torch.export
            program, or safetensors for weights with their description
        out: folder to write (default: export/FORMAT in the run folder; export/NAME/FORMAT for a network that is no run)
        json: print the result as one JSON object
    """

    format: Literal["onnx", "torch", "safetensors"]
    network: TrainedNetwork = field(default_factory=TrainedNetwork)
    images: ShapedImages = field(default_factory=ShapedImages)
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "export", DESCRIPTION)
    from robustmaps.runs import export

    checkpoint = open_given(given.network, given.images)
    done = export(checkpoint, given.format, given.out, **vars(given.images))
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
