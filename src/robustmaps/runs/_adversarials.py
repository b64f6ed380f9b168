"""The adversarial images of an evaluation: kept on the disk while it runs, checked and written when it ends."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic
from robustmaps.evaluation import IMAGES_END, Evaluation, check_images, check_saved
from robustmaps.training import load_weights, save_weights

_FILE = "adversarials.npy"
_MEND = "delete the folder and evaluate again"


class KeptImages:
    """A file of images that survives the process.

    It begins with the clean images and the adversarial ones at a smaller radius.

    Args:
        folder: the folder of the evaluation's state.
        x: the clean images (N, C, H, W).
        smaller: the file of adversarial images at a smaller radius, if any.

    Attributes:
        images: the images, a memory map.

    Raises:
        InputError: a state refers to images that are missing or damaged.
    """

    def __init__(self, folder: Path, x: Tensor, smaller: Path | None) -> None:
        self._folder, path = folder, folder / _FILE
        if not path.exists():
            if (folder / "state.json").exists():
                raise Damaged(f"{path}: missing, but {folder / 'state.json'} refers to it; {_MEND}")
            images = x.clone()
            if smaller is not None:
                found, _ = load_weights(smaller)
                images[found["sample"]] = found["image"]
            with atomic(path) as file:
                np.save(file, images.numpy(), allow_pickle=False)
                file.write(IMAGES_END)
        try:
            self._map = np.lib.format.open_memmap(path, mode="r+")
        except ValueError as error:
            raise Damaged(f"{path}: damaged ({error}); {_MEND}") from error
        if self._map.shape != tuple(x.shape) or self._map.dtype != np.float32:
            raise Damaged(f"{path}: {self._map.dtype} of shape {self._map.shape}, expected float32 like x; {_MEND}")
        self.images = torch.from_numpy(self._map)
        check_images(folder, self.images, path)

    def flush(self) -> None:
        """Return when all images are on the disk."""
        self._map.flush()

    def save(self, path: Path, model: nn.Module, x: Tensor, y: Tensor, evaluation: Evaluation) -> dict[str, int]:
        """Check the images of the broken samples again, and write them with the indices of their samples.

        Returns:
            Numbers of images, see `check_saved`.

        Raises:
            Damaged: an image is not the one that was found.
        """
        broken = torch.from_numpy(evaluation.clean_correct & ~evaluation.robust_correct).nonzero().squeeze(1)
        # A copy, so that the images that are checked are those that are written.
        found = self.images[broken].contiguous()
        try:
            counts = check_saved(model, x[broken], y[broken], found, evaluation)
        except Damaged as error:
            raise Damaged(f"{self._folder / _FILE}: damaged: {error}; {_MEND}") from error
        about = {"norm": evaluation.norm, "eps": str(evaluation.eps), "images_sha256": evaluation.images_sha256}
        save_weights(path, {"sample": broken, "label": y[broken], "image": found}, about)
        return counts

    def save_all(self, path: Path, y: Tensor, evaluation: Evaluation) -> None:
        """Write the images of all samples, attacked or not, with their labels."""
        about = {"norm": evaluation.norm, "eps": str(evaluation.eps), "images_sha256": evaluation.images_sha256}
        save_weights(path, {"label": y, "image": self.images.contiguous()}, about)


def check_file(path: Path, evaluation: Evaluation) -> None:
    """Check that a file written by `KeptImages.save` is intact and belongs to the evaluation.

    Raises:
        InputError: it is damaged, or of another evaluation.
    """
    _, about = load_weights(path)
    if (about.get("images_sha256"), about.get("eps")) != (evaluation.images_sha256, str(evaluation.eps)):
        raise InputError(f"{path}: of another evaluation; delete it and evaluate again")
