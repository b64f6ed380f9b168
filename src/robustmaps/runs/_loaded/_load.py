"""A network ready for use, with its images, its budget and its evaluations."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from robustmaps.data import Dataset
from robustmaps.engine.calling import network_logits
from robustmaps.engine.modes import set_evaluating
from robustmaps.evaluation import Evaluation
from robustmaps.models import Pool
from robustmaps.networks import Checkpoint, data_for, open_trained
from robustmaps.runs._record import evaluations_of


class LoadedNetwork(nn.Module):
    """A network in evaluation mode, from images (N, C, H, W) in [0, 1] to logits (N, classes).

    Attributes:
        network: the network itself.
        checkpoint: how it was opened: name, weights, hash.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: str | None = None,
        *,
        image_size: int | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.network = checkpoint.model
        self.checkpoint = checkpoint
        # Behind a function, so that copies of the network, as attacks make them, do not copy the images.
        known = data is not None or checkpoint.data is not None
        self._images = cache(
            lambda: data_for(checkpoint, data, image_size=image_size, channels=channels) if known else None
        )
        set_evaluating(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return network_logits(self.network, x)

    @property
    def data(self) -> Dataset | None:
        """The images that it was trained on, or those that were named; None where none are known.

        Raises:
            InputError: they can't be loaded, or do not fit the network.
        """
        return self._images()

    @property
    def budget(self) -> tuple[str, float] | None:
        """Norm and radius that it was trained for; None where that is not known."""
        return None if self.checkpoint.opened is None else self.checkpoint.opened.budget

    @property
    def evaluations(self) -> Mapping[str, Evaluation]:
        """The evaluations of these weights by the names of their files."""
        return evaluations_of(self.checkpoint.sha256, self.checkpoint.folder)


def load(
    model: str | Path,
    *,
    weights: str | None = None,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    strides: str | None = None,
    pool: Pool | None = None,
    enlarge: str | None = None,
    classes: str | None = None,
) -> LoadedNetwork:
    """Open a network by what a user calls it, ready to classify images.

    >>> network = load("resnet8", data="digits")  # with random weights
    >>> network(network.data.test.tensors()[0][:2]).shape
    torch.Size([2, 10])

    Args:
        model: a run folder, a weights file of a run, a folder that `robustmaps enlarge` saved, a folder of evaluations,
            or a name as in `networks.open_model`, whose weights are random where it stands for none.
        weights: of a run, ``best``, ``best-clean`` or ``last``; for a name, a file with weights of any program.
        data: the images to make a named network for, and to give as ``data`` (default: those it was trained on).
        image_size: pixels a side to resize these images to; their own, or as in training, where None.
        channels: of these images: 1 turns colours grey, 3 repeats grey; likewise.
        strides: of a built-in network.
        pool: likewise.
        enlarge: an enlargement of a named network, as ``robustmaps train --enlarge``.
        classes: names of the network's outputs in their order, with commas, or a text file with one a line.

    Raises:
        InputError: it can't be opened, or a file names code that is not trusted.
    """
    checkpoint = open_trained(
        model,
        weights,
        strides=strides,
        pool=pool,
        enlarge=enlarge,
        data=data,
        image_size=image_size,
        channels=channels,
        classes=classes,
        random=weights is None,
    )
    return LoadedNetwork(checkpoint, data, image_size=image_size, channels=channels)
