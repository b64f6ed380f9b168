"""A first look at whether a network can be evaluated at all."""

from contextlib import suppress

from torch import Tensor, nn

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
        InputError: it takes batches of one size only, or returns fewer than two classes.
        Exception: what the network raises itself, with a note.
    """
    with plain_view(model) as plain:
        for size in (1, 2)[: len(example)]:
            try:
                logits = plain(example[:size])
            except Exception as error:
                fitting = _sizes_taken(plain, example[:1])
                if fitting:
                    raise _one_size(fitting, size, error, alone) from error
                shape = tuple(example.shape[1:])
                error.add_note(
                    f"The network raised this on {counted(size, 'image')} of shape {shape}; attacks pass any number."
                )
                raise
            if logits.shape[1] < 2:
                raise InputError(
                    f"the network returned logits of shape {tuple(logits.shape)}; expected at least two classes: of a "
                    "single logit z for yes and no, return torch.cat([torch.zeros_like(z), z], 1)"
                )


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
