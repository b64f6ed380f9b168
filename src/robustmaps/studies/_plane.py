"""Pooled features of images before and after an attack, in the plane."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustmaps.config import EvaluationConfig
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import predictions
from robustmaps.engine.random import stream
from robustmaps.evaluation import for_transfer
from robustmaps.models import Classifier, Network
from robustmaps.networks import choose_images, data_for, open_checkpoint
from robustmaps.runs import create_attacks

CLASSES, MOST = 4, 60
"""How many classes are drawn, and at most how many images of each, so that points can be told apart."""
_NEIGHBOURS = 30


@dataclass(frozen=True, eq=False)
class Plane:
    """Features of N images, clean and attacked.

    Attributes:
        labels: the true classes (N,).
        classes: names of these classes by label.
        right: whether they are classified correctly, clean and attacked (2, N).
        components: along two principal components of the clean features (2, N, 2).
        variance: the share of the clean features' variance along these.
        neighbours: by t-SNE of all 2 N features (2, N, 2).
        shift: how far the attack moves the features: the median of the distances, over the mean distance between the
            classes' centres.
    """

    labels: NDArray[np.int64]
    classes: dict[int, str]
    right: NDArray[np.bool_]
    components: NDArray[np.float64]
    variance: float
    neighbours: NDArray[np.float64]
    shift: float


def features_in_plane(folder: str | Path, wanted: EvaluationConfig, *, device: str = "auto") -> Plane:
    """Attack some images of a run's first classes, and look at the features behind its last pooling.

    The attack makes all its steps, also on images that are misclassified already.

    Args:
        folder: the run folder, of a built-in network.
        wanted: attack and images; the images of the first classes among them are taken.
        device: where to compute.

    Raises:
        InputError: the run can't be opened, or its network has no pooled features.
    """
    checkpoint, at = open_checkpoint(folder), resolve_device(device)
    data = data_for(checkpoint, None)
    x, y = choose_images(data, wanted.split, wanted.samples)
    rows = torch.cat([(y == label).nonzero()[:MOST, 0] for label in range(min(CLASSES, data.num_classes))])
    x, y = x[rows].to(at), y[rows].to(at)
    model = checkpoint.model.to(at).eval()
    eps = wanted.attack.eps[0] if wanted.attack.eps else checkpoint.eps
    first, *_ = for_transfer(create_attacks(wanted.attack, checkpoint.norm, eps))
    attacked = first(model, x, y, generator=stream(wanted.attack_seed, "plane"))
    (clean, right), (moved, still) = (_pooled(model, images, y) for images in (x, attacked))
    labels = y.cpu().numpy()
    components, variance = _components(clean, moved)
    names = {int(label): data.classes[label] for label in np.unique(labels)}
    return Plane(
        labels,
        names,
        np.stack([right, still]),
        components,
        variance,
        _neighbours(clean, moved),
        _shift(clean, moved, labels),
    )


def _pooled(model: nn.Module, images: Tensor, y: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The features behind the last pooling (N, C), and whether the classes are right."""
    if not isinstance(model, Network) or not isinstance(model.body, Classifier):
        raise InputError(f"{type(model).__name__}: expected a built-in network, with features behind a last pooling")
    taken: list[Tensor] = []
    handle = model.body.pool.register_forward_hook(lambda _module, _given, out: taken.append(out.flatten(1)))
    try:
        with torch.no_grad():
            right = predictions(model(images)) == y
    finally:
        handle.remove()
    return taken[0].double().cpu().numpy(), right.cpu().numpy()


def _components(clean: NDArray[np.float64], moved: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    from sklearn.decomposition import PCA  # takes long to import

    fitted = PCA(2, svd_solver="full").fit(clean)
    return np.stack([fitted.transform(clean), fitted.transform(moved)]), float(fitted.explained_variance_ratio_.sum())


def _neighbours(clean: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE

    features = np.concatenate([clean, moved])
    perplexity = min(_NEIGHBOURS, (len(features) - 1) / 3)
    found: NDArray[np.float64] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return found.reshape(2, len(clean), 2)


def _shift(clean: NDArray[np.float64], moved: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    centres = np.stack([clean[labels == label].mean(0) for label in np.unique(labels)])
    between = [np.linalg.norm(a - b) for n, a in enumerate(centres) for b in centres[:n]]
    return float(np.median(np.linalg.norm(moved - clean, axis=1)) / np.mean(between))
