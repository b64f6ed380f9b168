"""Export of a trained network as ONNX, torch.export or safetensors, checked against the original."""

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps.data import Dataset
from robustmaps.engine.calling import LogitsNetwork, call, network_logits
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import atomic, write_json, write_text
from robustmaps.engine.finite import largest_difference, largest_finite, undecided
from robustmaps.engine.reading.plain import loads
from robustmaps.engine.writing.outputs import Ours, claim_published, json_with, publish, tensors_with
from robustmaps.engine.writing.temporaries import temporary
from robustmaps.networks import (
    DESCRIPTION,
    EXPORTED,
    PROGRAM_FILE,
    Checkpoint,
    allow_code,
    choose_images,
    copy_program,
    data_for,
    image_cost,
    keep_program,
    open_checkpoint,
    program_beside,
)
from robustmaps.runs._model_card import CARD, Check, model_card
from robustmaps.training import PROGRAM, load_weights, save_weights

Format = Literal["onnx", "torch", "safetensors"]

FILES: dict[str, str] = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": EXPORTED}
"""The file name for each format."""
CONFIG = "config.json"
_CHECKED = 64
# In units of the largest logit. Runtimes order additions differently: an error of about 1e-6 in float32.
_TOLERANCE = 1e-4


class ExportMismatch(Exception):  # noqa: N818 - named after what happened
    """The outputs of the exported network differ from those of the original."""


@dataclass(frozen=True)
class ExportedRun:
    """An exported network.

    Attributes:
        folder: folder of the network's file, ``config.json``, the model card ``README.md`` and, as safetensors, the
            program of somebody's own network, from which it opens without their code.
        path: the network's file.
        images: number of test images on which the outputs were compared.
        difference: the largest difference between logits.
        largest: the largest absolute logit of the original that is finite.
        undecided: number of these images with logits that are NaN or infinite, so that nothing is predicted.
        before: whether the folder already existed, with the same contents.
    """

    folder: Path
    path: Path
    images: int
    difference: float
    largest: float
    undecided: int = 0
    before: bool = False


def export(
    model: str | Path | Checkpoint,
    form: Format,
    out: str | Path | None = None,
    *,
    data: str | Dataset | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    license: str = "unknown",  # noqa: A002 - the name of the card's field
) -> ExportedRun:
    """Export a network, and keep it only if its outputs on test images match the original's.

    The exported network takes images (N, C, H, W) in [0, 1] for any N, in the size of the training images; it includes
    upsampling and normalisation.

    Args:
        model: a run folder, its weights file, or an opened network such as `open_trained` returns.
        form: ``onnx`` for any runtime, ``torch`` for a torch.export program, ``safetensors`` for weights with a
            description from which robustmaps rebuilds the network.
        out: the folder to write (default: ``export/FORM`` in the folder of its weights, or ``export/NAME/FORM`` for a
            network that is neither a run nor was saved by `robustmaps enlarge`).
        data: a data set for the check, instead of the training data set.
        image_size: of its images, see `DataConfig`; as in training where None.
        channels: likewise.
        license: of the weights, for the model card, by the hub's identifiers, such as ``mit``.

    Raises:
        InputError: the format is unknown, the network or a library is missing, or the folder contains anything but the
            same export.
        ExportMismatch: the outputs differ; nothing was kept.

    Warns:
        UserWarning: the safetensors of somebody's own network can have no program, with the reason.
    """
    if form not in FILES:
        raise unknown("format", form, FILES)
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    described = _described_by(checkpoint)
    own = Path("export") / checkpoint.name if described is None else described.parent / "export"
    folder = Path(out) if out is not None else own / form
    known: dict[str, Ours] = {FILES[form]: Path.is_file, CARD: Path.is_file}
    optional = {PROGRAM_FILE: tensors_with(PROGRAM)} if form == "safetensors" else {}
    known |= {CONFIG: json_with("architecture", weights_sha256=checkpoint.sha256)}
    claim_published(folder, known, optional=optional)
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _need(package)
    loaded = data_for(checkpoint, data, image_size=image_size, channels=channels)
    x, _ = choose_images(loaded, "test", min(_CHECKED, len(loaded.test)))
    network = checkpoint.model.eval()
    header = _header(checkpoint, loaded)
    with temporary(folder, folder=True) as made:
        file = made / FILES[form]
        _WRITE[form](_of_logits(network, x), x, file, header)
        needs_code = _keep_program(checkpoint, loaded, made / PROGRAM_FILE) if form == "safetensors" else None
        with _own_code(checkpoint):
            read = _READ[form](file)
        difference, largest, nameless = _check(network, read, x, form)
        about = loads(header)
        write_json(made / CONFIG, _description(checkpoint, loaded, about))
        exported = ExportedRun(folder, folder / FILES[form], len(x), difference, largest, nameless)
        check, cost = Check(len(x), difference, largest), image_cost(network, loaded)
        card = model_card(checkpoint, loaded, about, form, exported.path.name, check, cost, license, needs_code)
        write_text(made / CARD, card)
        new = publish(made, folder)
    if needs_code is not None:
        warnings.warn(f"{folder} {needs_code}", stacklevel=2)
    return replace(exported, before=not new)


def _keep_program(checkpoint: Checkpoint, data: Dataset, path: Path) -> str | None:
    """Write the program of somebody's own network, or that which it has already; why that is not possible, or None."""
    described, opened = _described_by(checkpoint), checkpoint.opened
    if described is not None and (before := program_beside(described)) is not None:
        copy_program(before, path)
        return None
    if opened is None:
        return None
    return keep_program(path, checkpoint.model, (data.in_channels, *data.image_size), opened.recipe.spec)


@contextlib.contextmanager
def _own_code(checkpoint: Checkpoint) -> Iterator[None]:
    """Within the block, the network is opened again as it was: by its code, which was run, or without, in silence."""
    opened = checkpoint.opened
    with contextlib.ExitStack() as stack:
        if opened is not None and opened.program is None:
            stack.enter_context(allow_code(opened.recipe.spec))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*opened from its program")
        yield


def _check(model: nn.Module, other: Callable[[Tensor], Tensor], x: Tensor, form: str) -> tuple[float, float, int]:
    """The largest difference between logits, for a batch and for one image, the largest logit, and `undecided` ones."""
    with torch.no_grad():
        expected = network_logits(model, x).float()
        found = other(x.clone())
        alone = other(x[:1].clone())
    largest = float(largest_finite(expected))
    if found.shape != expected.shape or alone.shape != expected[:1].shape:
        raise ExportMismatch(f"{form}: outputs of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    difference = max(float(largest_difference(found, expected)), float(largest_difference(alone, expected[:1])))
    if difference > _TOLERANCE * max(1.0, largest):
        raise ExportMismatch(
            f"{form}: on {len(x)} test images, logits differ by up to {difference:.3g} from the original's, of at most "
            f"{largest:.3g}; nothing was kept"
        )
    return difference, largest, int(undecided(expected).sum())


def _of_logits(model: nn.Module, x: Tensor) -> nn.Module:
    """The network, wrapped if it takes or returns anything but float32 images and logits."""
    with torch.no_grad():
        given = call(model, x[:1])
    ordinary = isinstance(given, Tensor) and given.dtype is torch.float32
    return model if ordinary else LogitsNetwork(model).eval()


def _write_onnx(model: nn.Module, x: Tensor, file: Path, _: str) -> None:
    with _quiet():
        torch.onnx.export(
            model,
            (x[:2],),
            str(file),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def _read_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    runtime = _need("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def _write_torch(model: nn.Module, x: Tensor, file: Path, _: str) -> None:
    with _quiet():
        program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        # Not to the file itself: PyTorch's writer ends the process if the disk is full.
        content = io.BytesIO()
        torch.export.save(program, content)
    with atomic(file) as opened:
        opened.write(content.getbuffer())


def _read_torch(file: Path) -> Callable[[Tensor], Tensor]:
    with _quiet():
        network: Callable[[Tensor], Tensor] = torch.export.load(file).module()
    return network


def _write_safetensors(model: nn.Module, _: Tensor, file: Path, header: str) -> None:
    network = model.network if isinstance(model, LogitsNetwork) else model
    save_weights(file, network.state_dict(), {DESCRIPTION: header})


def _read_safetensors(file: Path) -> Callable[[Tensor], Tensor]:
    return LogitsNetwork(open_checkpoint(file).model).eval()


def _described_by(checkpoint: Checkpoint) -> Path | None:
    """The file of its weights, where that says how the network is made."""
    return checkpoint.path if checkpoint.opened is None or checkpoint.opened.filled is None else None


def _header(checkpoint: Checkpoint, data: Dataset) -> str:
    """The description of the network, as the header of its weights has it."""
    described = _described_by(checkpoint)
    if described is not None:
        return load_weights(described)[1][DESCRIPTION]
    assert checkpoint.opened is not None  # noqa: S101 - it was not opened from a file
    made_for = {"classes": list(data.classes), "image_size": list(data.image_size)}
    return json.dumps({**checkpoint.opened.describe(), **made_for})


def _description(checkpoint: Checkpoint, data: Dataset, about: Mapping[str, Any]) -> dict[str, Any]:
    """The description of the network for programs."""
    return {
        "architecture": checkpoint.architecture,
        "model": about["model"],
        "enlarge": about.get("enlarge", []),
        "id2label": {str(number): name for number, name in enumerate(data.classes)},
        "input": {
            "shape": ["batch", data.in_channels, *data.image_size],
            "range": [0, 1],
            "normalisation": "inside the network",
        },
        "trained_for": {"norm": checkpoint.norm, "eps": checkpoint.eps} if checkpoint.knows_budget else None,
        "weights_sha256": checkpoint.sha256,
    }


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"{package} is not installed; pip install 'robustmaps[export]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' messages to their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_WRITE: dict[str, Callable[[nn.Module, Tensor, Path, str], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "safetensors": _write_safetensors,
}
_READ: dict[str, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "onnx": _read_onnx,
    "torch": _read_torch,
    "safetensors": _read_safetensors,
}
