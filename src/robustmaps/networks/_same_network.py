"""Enlargements that are written in several ways and give one network."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from robustmaps.config import ModelConfig
from robustmaps.data import Dataset
from robustmaps.engine.calling import network_logits
from robustmaps.engine.modes import evaluating
from robustmaps.networks._initial import ResolvedRun, create_network

_PROBES = 2


def enlargement_text(model: ModelConfig) -> str:
    """How the maps of a configuration's network are made larger, in a few words."""
    parts = [
        None if model.strides is None else f"strides {model.strides}",
        None if model.upsample == 1 else f"upsample {model.upsample:g}",
        None if model.enlarge is None else f"enlarge {model.enlarge}",
        None if model.enlarge_at is None else f"enlarge at {model.enlarge_at}",
    ]
    return ", ".join(part for part in parts if part) or "as it is"


@torch.no_grad()
def same_networks(runs: Sequence[ResolvedRun], data: Dataset) -> list[list[ResolvedRun]]:
    """The runs in groups, each of one network: with the same weights it computes exactly the same.

    Such are ``enlarge=last`` and ``enlarge=last,dilate`` where no window follows the last step.

    Args:
        runs: runs of one architecture on the same images, each with another enlargement.
        data: the images.

    Raises:
        InputError: a network can't be created.
    """
    probe = torch.rand(_PROBES, data.in_channels, *data.image_size, generator=torch.Generator().manual_seed(0))
    groups: list[tuple[torch.Tensor, list[ResolvedRun]]] = []
    for run in runs:
        seeded = replace(run.config, training=replace(run.config.training, seed=0))
        network = create_network(replace(run, config=seeded), data).model
        with evaluating(network):
            logits = network_logits(network, probe)
        group = next((members for known, members in groups if torch.equal(known, logits)), None)
        if group is None:
            groups.append((logits, [run]))
        else:
            group.append(run)
    return [members for _, members in groups]
