"""A first look at whether a network can be evaluated at all."""

import traceback
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import counted
from robustmaps.engine.text import first_line
from robustmaps.engine.view import AttackView, plain_view

# Usual sizes of batches that networks are exported for.
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def try_batches(model: nn.Module, example: Tensor, *, alone: bool = True) -> None:
    """Run a network on one image and, if there are more, on two, so that an unsuitable one fails at once.

    Args:
        model: from images (N, C, H, W) to logits (N, K).
        example: a few images.
        alone: whether batches of one image are a way out.

    Raises:
        InputError: it raises, takes batches of one size only, or returns fewer than two classes.
    """
    with plain_view(model) as plain:
        for size in (1, 2)[: len(example)]:
            try:
                logits = plain(example[:size])
            except Exception as error:
                fitting = _sizes_taken(plain, example[:1])
                if fitting:
                    raise _one_size(fitting, size, error, alone) from error
                if isinstance(error, InputError) or is_out_of_memory(error):
                    raise
                raise InputError(
                    f"{type(model).__name__} can't take {counted(size, 'image')} of shape {tuple(example.shape[1:])}: "
                    f"{type(error).__name__}: {first_line(error)}{_place(error)}"
                ) from error
            if logits.shape[1] < 2:
                raise InputError(
                    f"the network returned logits of shape {tuple(logits.shape)}; expected at least two classes: of a "
                    "single logit z for yes and no, return torch.cat([torch.zeros_like(z), z], 1)"
                )


def _place(error: BaseException) -> str:
    """The line of the network's own code, outside this package and PyTorch, that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _sizes_taken(plain: AttackView, image: Tensor) -> list[int]:
    """The sizes of batches that a network takes, among usual ones."""
    taken = []
    for size in _SIZES:
        with suppress(Exception):
            plain(image.expand(size, -1, -1, -1))
            taken.append(size)
    return taken


def _one_size(taken: list[int], size: int, error: Exception, alone: bool) -> InputError:
    sizes = " or ".join(map(str, taken))
    mend = "use a batch size of 1 (--batch-size 1), or " if alone and taken == [1] else ""
    return InputError(
        f"the network takes batches of {sizes}, not of {size} ({first_line(error)}); attacks need any size: {mend}"
        f"export it with a dynamic batch, or wrap it in a module that fills batches up to {taken[-1]}"
    )
