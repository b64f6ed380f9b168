"""The model card of an exported network, in the format of the Hugging Face hub."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from robustmaps import models
from robustmaps._version import __version__
from robustmaps.config import in_effect
from robustmaps.data import Dataset
from robustmaps.defenses import title_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import as_fraction, budget_text, counted, human, norm_text
from robustmaps.engine.tables import in_markdown, table
from robustmaps.engine.trust import names_code
from robustmaps.evaluation import Evaluation
from robustmaps.models import ACTIVATIONS, SMOOTHED, Cost
from robustmaps.networks import PROGRAM_FILE, Checkpoint, name_network
from robustmaps.runs._record import RunRecord, evaluations_of, read_run
from robustmaps.runs._yardstick import Yardstick
from robustmaps.training import is_chosen

CARD = "README.md"

_LOAD = {
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(None, {{"images": images}})  # float32 (N, {shape}) in [0, 1]""",
    "torch": """import torch

network = torch.export.load("{file}").module()
logits = network(images)  # float32 (N, {shape}) in [0, 1]""",
    "safetensors": """import robustmaps

network = robustmaps.from_pretrained(".")  # this folder, or OWNER/NAME on the Hugging Face hub
logits = network(images)  # float32 (N, {shape}) in [0, 1]""",
}
_LIBRARY = {"onnx": "onnx", "torch": "pytorch", "safetensors": "robustmaps"}


@dataclass(frozen=True)
class Check:
    """The check of an export.

    Attributes:
        images: number of test images.
        difference: the largest difference between logits.
        largest: the largest absolute logit.
    """

    images: int
    difference: float
    largest: float


def model_card(
    checkpoint: Checkpoint,
    data: Dataset,
    about: Mapping[str, Any],
    form: str,
    file: str,
    check: Check,
    cost: Cost,
    license: str = "unknown",  # noqa: A002 - the name of the card's field
    needs_code: str | None = None,
) -> str:
    """Write the model card.

    Args:
        checkpoint: the network; figures are from evaluations of exactly these weights in its run folder.
        data: the training data set.
        about: the description of the network in the weights' header.
        form: the format of the export.
        file: the file name of the export.
        check: the check of the export.
        cost: the network's cost for one image.
        license: of the weights, by the hub's identifiers.
        needs_code: why safetensors of somebody's own network have no program.
    """
    record = _record(checkpoint)
    measured = _measured(record, checkpoint)
    front = yaml.safe_dump(
        {"license": license, **_front_matter(checkpoint, data, form, measured)}, sort_keys=False, allow_unicode=True
    )
    shape = ", ".join(map(str, (data.in_channels, *data.image_size)))
    return "\n".join(
        [
            f"---\n{front}---\n",
            f"# {in_markdown(_title(record, checkpoint))}\n",
            f"{_network(about)} for {data.num_classes} classes of {in_markdown(data.name)},",
            f"{_trained(record, checkpoint)}. It takes images (N, {shape}) in [0, 1] and returns logits",
            f"(N, {data.num_classes}); upsampling and normalisation are included.\n",
            "## Results\n",
            _figures(measured),
            "## Usage\n",
            f"```python\n{_LOAD[form].format(file=file, shape=shape)}\n```\n",
            *_own(str(about["model"]["name"]), form, needs_code),
            f"Classes, in the order of the logits: {in_markdown(', '.join(data.classes))}.\n",
            f"On {check.images} test images, its logits differ by at most {check.difference:.2g} from those of the "
            f"original network (largest logit: {check.largest:.3g}).\n",
            *_training(record, cost),
            "## Limits\n",
            "Robust accuracy applies to the norm, radius and attacks above, and to images like the evaluated ones. "
            "A stronger attack can only lower it.\n",
            f"Written by robustmaps {__version__}; weights SHA-256 `{checkpoint.sha256}`.",
            "",
        ]
    )


def _own(spec: str, form: str, needs_code: str | None) -> list[str]:
    """What somebody's own network needs to be opened."""
    if form != "safetensors" or not names_code(spec):
        return []
    name = f"`{spec}`"
    if needs_code is None:
        return [
            f"The network is made by {name}, and opens without it, from `{PROGRAM_FILE}`: then it can be evaluated, "
            "but not enlarged or trained.\n"
        ]
    return [
        f"This network {in_markdown(needs_code)}. With that installed, open it within "
        "`with robustmaps.networks.allow_code():`.\n"
    ]


def _title(record: RunRecord | None, checkpoint: Checkpoint) -> str:
    """The network of a run with its defence; the name of any other."""
    if record is None:
        return checkpoint.name
    return f"{name_network(record.config.model)} · {title_of(record.config.defense.defense)}"


def _record(checkpoint: Checkpoint) -> RunRecord | None:
    """The run of the weights; None if they are not in a run folder."""
    if checkpoint.path is None or not checkpoint.is_run:
        return None
    folder = checkpoint.path.parent
    try:
        return read_run(folder)
    except InputError as error:
        warnings.warn(f"the model card leaves out the figures of {folder}: {error}", stacklevel=2)
        return None


def _measured(record: RunRecord | None, checkpoint: Checkpoint) -> list[Evaluation]:
    """Evaluations of these weights, by radius."""
    found = (evaluations_of(checkpoint.sha256, checkpoint.folder) if record is None else record.evaluations).values()
    mine = [evaluation for evaluation in found if evaluation.checkpoint_sha256 == checkpoint.sha256]
    return sorted(mine, key=lambda e: (e.norm, e.eps, -len(e.attacks)))


def _front_matter(checkpoint: Checkpoint, data: Dataset, form: str, measured: Sequence[Evaluation]) -> dict[str, Any]:
    results = [
        {
            "task": {"type": "image-classification", "name": "Image Classification"},
            "dataset": {"name": data.name, "type": data.name, "split": e.split or "test"},
            "metrics": [
                {"type": "accuracy", "value": round(e.clean_accuracy.value, 4), "name": "Clean accuracy"},
                {
                    "type": "accuracy",
                    "value": round(e.robust_accuracy.value, 4),
                    "name": f"Robust accuracy ({Yardstick.of(e).short})",
                },
            ],
        }
        for e in measured
    ]
    front: dict[str, Any] = {
        "library_name": _LIBRARY[form],
        "pipeline_tag": "image-classification",
        "tags": [
            "robustmaps",
            "adversarial-robustness",
            checkpoint.architecture,
            *(["onnx"] if form == "onnx" else []),
        ],
    }
    if data.name.startswith("hf:"):
        front["datasets"] = [data.name.removeprefix("hf:")]
    if results:
        front["model-index"] = [{"name": checkpoint.name, "results": results}]
    return front


def _network(about: Mapping[str, Any]) -> str:
    """The architecture and the enlargement of its maps."""
    model = about["model"]
    words = [in_markdown(f"{models.title_of(model['name'])} {model.get('strides') or ''}".rstrip())]
    words += ["maximum over the last map instead of its average"] * (model.get("pool") == "max")
    changes = [model, *about.get("enlarge", ())]
    words += [f"images ×{c['upsample']:g} ({c['upsample_mode']})" for c in changes if c.get("upsample", 1) != 1]
    for change in changes:
        if change.get("where"):
            steps = ", ".join(map(str, change["where"]))
            dilated = ", dilated" if change.get("dilate") else ""
            smooth = f", then {SMOOTHED[change['smooth']]}" if change.get("smooth") else ""
            words.append(f"strides of downsampling step {steps} divided by {change['factor']}{dilated}{smooth}")
        if change.get("activation"):
            words.append(f"{ACTIVATIONS[change['activation']]} in place of ReLU")
    return "; ".join(words)


def _trained(record: RunRecord | None, checkpoint: Checkpoint) -> str:
    budget = f"{budget_text(checkpoint.norm, checkpoint.eps)}"
    if record is None:  # the weights alone don't record the defence
        return f"intended for {budget}" if checkpoint.knows_budget else "trained for a budget that is not recorded"
    if record.config.defense.defense == "standard":
        return "trained without a defence"
    return f"trained adversarially for {budget}"


def _figures(measured: Sequence[Evaluation]) -> str:
    if not measured:
        return "These weights have not been evaluated (`robustmaps evaluate`).\n"
    rows = []
    warnings: dict[str, None] = {}
    for evaluation in measured:
        stick = Yardstick.of(evaluation)
        about = (stick.heading, norm_text(stick.norm), as_fraction(stick.eps), f"{stick.count:,} {stick.kind}")
        rows.append((*about, evaluation.clean_accuracy, evaluation.robust_accuracy))
        warnings.update(dict.fromkeys(evaluation.warnings))
    text = table(("attacks", "norm", "eps", "images", "clean accuracy", "robust accuracy"), rows).to_markdown()
    notes = "".join(f"\n- Caution: {in_markdown(warning)}" for warning in warnings)
    return f"{text}\nBrackets: 95 % intervals (Wilson).\n{notes}{chr(10) if notes else ''}"


def _training(record: RunRecord | None, cost: Cost) -> list[str]:
    if record is None:
        return []
    config, lines = record.config, []
    lines.append(f"- data: {in_markdown(record.config.data.data)}, seed {config.training.seed}")
    if config.origin.protocol is not None:
        lines.append(f"- protocol: {config.origin.protocol} (arXiv 2202.12435)")
    if config.origin.recipe is not None:
        lines.append(f"- recipe: {in_markdown(config.origin.recipe)}")
    defense = config.defense
    if defense.defense != "standard":
        steps = [counted(defense.steps, "step")] if "steps" in in_effect(config) else []
        attack = ", ".join([norm_text(defense.norm), f"eps {as_fraction(defense.eps)}", *steps])
        lines.append(f"- defence: {in_markdown(title_of(defense.defense))} ({attack})")
    epochs = len(record.history)
    chosen = is_chosen(record.history)
    kept = f"the weights of epoch {record.best_epoch}, chosen on validation images" if chosen else "the last weights"
    lines.append(f"- {epochs} epochs of {config.training.epochs}, {kept}")
    lines.append(f"- {human(cost.flops, 'FLOP')} for a forward pass of one image, {human(cost.parameters)} parameters")
    if config.model.enlarge_at is not None:
        lines.append(f"- {name_network(config.model)}; the plain network until then")
    return ["## Training\n", "\n".join(lines) + "\n"]
