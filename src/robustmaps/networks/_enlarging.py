"""Enlargements of named networks, and as files: the weights, whose header says how to open them again."""

import json
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from robustmaps.config import Surgery
from robustmaps.data.sources.channels import check_channels
from robustmaps.engine.calling import network_logits
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.modes import evaluating
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.text import first_line
from robustmaps.engine.writing.outputs import claim_published, json_with, publish, tensors_with
from robustmaps.engine.writing.temporaries import temporary
from robustmaps.enlarging import Enlargement, enlarge, on_larger_images, with_decisions
from robustmaps.models import Pool
from robustmaps.networks._data import choose_images
from robustmaps.networks._libraries import Fit
from robustmaps.networks._open_model import open_model
from robustmaps.networks._opened import OpenedNetwork
from robustmaps.networks._program._choice import WEIGHTS
from robustmaps.networks._program._file import PROGRAM_FILE, keep_program
from robustmaps.networks._subject import blank_image, check_built_in, open_subject
from robustmaps.networks._takes import check_strides
from robustmaps.training import DESCRIPTION, PROGRAM, save_weights

RECIPE = "recipe.json"
_RECALIBRATED_ON = 2048
_BATCH = 128


@dataclass(frozen=True)
class EnlargedNetwork:
    """A network before and after.

    Attributes:
        before: as it was opened.
        model: the enlarged one.
        enlargement: what was changed.
        recalibrated_on: training images on which the statistics of the batch-norms were measured again.
    """

    before: OpenedNetwork
    model: nn.Module
    enlargement: Enlargement
    recalibrated_on: int = 0

    def __str__(self) -> str:
        if not self.recalibrated_on:
            return str(self.enlargement)
        return (
            f"{self.enlargement}\n\nStatistics of the batch-norms measured again on {self.recalibrated_on:,} training "
            "images."
        )


def enlarge_network(
    model: str,
    surgery: Surgery,
    *,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    samples: int | None = 512,
    weights: str | None = None,
    strides: str | None = None,
    pool: Pool | None = None,
    classes: str | None = None,
    seed: int = 0,
    recalibrate: bool = False,
    latency_runs: int = 5,
    watcher: Watcher = ignore,
) -> EnlargedNetwork:
    """Enlarge a network that has a name.

    Args:
        model: what `open_model` takes.
        surgery: what to change.
        data: images; with them and trained weights the accuracy before and after is measured. Where none are given, a
            network that was trained on known ones uses those, and any other is looked at with a blank image.
        image_size: pixels a side; the network's own where None. With more than a network was trained on, and without
            surgery, the same network takes these images: if they have as many pixels, its maps grow without upsampling.
        channels: of the images, 1 or 3; the data set's own where None.
        samples: images for the accuracy.
        weights: a file with weights for a network that is named, see `open_model`.
        strides: of a network of ours.
        pool: likewise.
        classes: names of the network's outputs in their order, as in `DataConfig`; the recorded order if left out.
        seed: of the weights of an untrained network.
        recalibrate: measure the statistics of the batch-norms again, on training images, since larger maps have others;
            the weights stay as they are.
        latency_runs: passes to time.
        watcher: called while a data set is decoded for the first time.

    Raises:
        InputError: a network that can't be had or can't be enlarged this way.
    """
    check_built_in(model, strides, pool)
    # Weights of another program fit the classes and channels of the images.
    made_for_data = weights is not None and data is not None
    check_channels(channels)
    fit = Fit(in_channels=channels or Fit.in_channels, strides=strides, pool=pool, seed=seed)
    network = None if made_for_data else open_model(model, fit, weights)
    look = partial(
        open_subject,
        model,
        data=data,
        channels=channels,
        samples=samples,
        weights=weights,
        strides=strides,
        pool=pool,
        classes=classes,
        seed=seed,
        device="cpu",
        watcher=watcher,
    )
    labels: Tensor | None = None
    training: Tensor | None = None
    if network is None or data is not None or network.data is not None:
        opened = network if network is not None and (network.trained or Path(model).exists()) else None
        subject = look(opened=opened, image_size=image_size)
        network, example = subject.network, subject.x
        labels = subject.y if network.trained else None
        if recalibrate:
            training, _ = choose_images(subject.data, "train", min(_RECALIBRATED_ON, len(subject.data.train)))
    elif classes is not None:
        raise InputError(f"classes={classes}: no images are classified; give data, or leave classes out")
    else:
        example = blank_image(network, image_size, channels)
        _check_blank(network, example)
        check_strides(model, strides, (example.shape[2], example.shape[3]))
    if recalibrate:
        _check_recalibrated(network, training)
    if example.shape[1] != network.fit.in_channels:  # known only now for a user's own network
        fit = replace(network.fit, in_channels=example.shape[1])
        network = replace(network, recipe=replace(network.recipe, fit=fit))
    given, smaller = example, _trained_on(network, example)
    if surgery.is_none and smaller is None and image_size is not None:
        _refuse_size(network, example, image_size)
    if surgery.is_none and smaller is not None:
        example = look(opened=network, image_size=smaller).x
        larger, enlargement = on_larger_images(network.model, example, given, labels=labels, latency_runs=latency_runs)
    else:
        larger, enlargement = enlarge(
            network.model, example, **surgery.arguments(), labels=labels, latency_runs=latency_runs
        )
    if labels is None and enlargement.agreement is not None and len(example) == 1:
        enlargement = replace(enlargement, agreement=None)  # one blank image tells nothing
    if training is not None:
        update_bn(torch.split(training, _BATCH), larger)
        if labels is not None:
            enlargement = with_decisions(enlargement, network.model, larger, example, labels, given)
    return EnlargedNetwork(network, larger, enlargement, 0 if training is None else len(training))


def _trained_on(network: OpenedNetwork, images: Tensor) -> int | None:
    """Pixels a side of the images that a network was trained on, if these are known, square, and others than these."""
    size = network.image_size
    if not network.trained or network.data is None or size is None or tuple(size) == tuple(images.shape[2:]):
        return None
    return size[0] if size[0] == size[1] else None


def _check_blank(network: OpenedNetwork, image: Tensor) -> None:
    """Refuse a network that can't take the image which stands in for those that nobody named."""
    try:
        with torch.no_grad(), evaluating(network.model):
            network_logits(network.model, image)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        shape = "x".join(map(str, image.shape[1:]))
        raise InputError(
            f"{network.recipe.spec} can't take a blank image of {shape} ({first_line(error)}); name its images (data), "
            "or what they are like: channels, image_size"
        ) from error


def _refuse_size(network: OpenedNetwork, images: Tensor, image_size: int) -> None:
    """Refuse an image size beside no surgery, unless the images are those that the network takes anyway."""
    size = network.image_size
    if size is not None and tuple(size) == tuple(images.shape[2:]):
        return
    if not network.trained:
        why = "the network has random weights; train it on such images"
    elif network.data is None or size is None:
        why = "not known on which images the network was trained, so that none can be said to be larger"
    else:
        why = f"the network was trained on images of {size[0]}x{size[1]} pixels; expected one of square images"
    raise InputError(f"image_size={image_size}: {why}; upsample=2 or where enlarges any network")


def _check_recalibrated(network: OpenedNetwork, training: Tensor | None) -> None:
    """Refuse a network of which nothing can be measured again."""
    if training is None:
        raise InputError("recalibrate: measures on training images; give data, such as --data photos")
    if not network.trained:
        raise InputError("recalibrate: the network has random weights; train it, which measures the statistics anyway")
    norms = [module for module in network.model.modules() if isinstance(module, _BatchNorm)]
    if not any(norm.running_mean is not None for norm in norms):
        raise InputError("recalibrate: the network has no batch-norm with statistics; leave recalibrate out")


def claim_enlarged(folder: str | Path) -> bool:
    """Refuse a folder with other files, before a network is enlarged for it; returns whether one was saved there.

    Raises:
        InputError: the folder contains anything but an enlarged network, or is a link.
    """
    recipe = json_with("model", "enlarge", "trained")
    claim_published(
        folder,
        {WEIGHTS: tensors_with(DESCRIPTION), RECIPE: recipe},
        optional={PROGRAM_FILE: tensors_with(PROGRAM)},
        option="--save",
    )
    return (Path(folder) / WEIGHTS).exists()


def save_enlarged(enlarged: EnlargedNetwork, folder: str | Path) -> tuple[Path, ...]:
    """Write the weights, and for people the recipe that their header holds too.

    For the network of somebody's own function, also the program from which the folder opens without that function. A
    folder in which the same was written before is left as it is.

    Returns:
        The paths of weights, recipe and, if there is one, program.

    Raises:
        InputError: see `claim_enlarged`, or the folder contains another enlarged network.

    Warns:
        UserWarning: the network can have no program, with the reason.
    """
    claim_enlarged(folder)
    target = Path(folder)
    larger = enlarged.before.changed(enlarged.model, enlarged.enlargement)
    known = {"classes": larger.classes, "image_size": larger.image_size}  # so that others are still noticed
    description = larger.describe() | {key: list(value) for key, value in known.items() if value is not None}
    shape = (larger.fit.in_channels, *(larger.image_size or enlarged.enlargement.image_size))
    with temporary(target, folder=True) as made:
        write_json(made / RECIPE, description)
        save_weights(made / WEIGHTS, enlarged.model.state_dict(), {DESCRIPTION: json.dumps(description)})
        needs_code = keep_program(made / PROGRAM_FILE, enlarged.model, shape, larger.recipe.spec)
        names = [name for name in (WEIGHTS, RECIPE, PROGRAM_FILE) if (made / name).exists()]
        publish(made, target)
    if needs_code is not None:
        warnings.warn(f"{target} {needs_code}", stacklevel=2)
    return tuple(target / name for name in names)
