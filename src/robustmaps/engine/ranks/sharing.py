"""A rank's share of a batch: its rows, its random draws, and what is added up over all shares."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from robustmaps.engine.ranks.agreeing import named
from robustmaps.engine.ranks.present import rank, size


class Share(torch.Generator):
    """The generator of a rank that works on some rows of a batch: `by_image` draws for all of them, then slices.

    Attributes:
        total: images of the batch.
        rows: the slice of this rank.
        images: their number; 0 for a rank too many, which works on the rows of rank 0, for company and without weight.
        least: images of the rank that has the fewest.
    """

    total = images = least = 0
    rows = slice(0)

    @staticmethod
    def of(generator: torch.Generator) -> "Share":
        """Draws that go on from a generator's state."""
        share = Share(device=generator.device)
        share.set_state(generator.get_state())
        return share

    def aim(self, total: int) -> None:
        """Take this rank's share of the next ``total`` images.

        No rank gets a single image if another can take it: that has no batch statistics if the map is a single pixel.
        """
        working = max(min(size(), total // 2), 1)
        idle = rank() >= working
        each, more = divmod(total, working)
        mine = 0 if idle else rank()
        begin = mine * each + min(mine, more)
        self.total, self.rows = total, slice(begin, begin + each + (mine < more))
        self.least = each
        self.images = 0 if idle else self.rows.stop - begin


def by_image(like: Tensor, draw: Callable[[Tensor], Tensor], generator: torch.Generator | None) -> Tensor:
    """Draw something for each image: for a `Share` those of its rows, among draws for the whole batch.

    Args:
        like: the images (N, ...) that are drawn for.
        draw: called with a tensor like them, of all images in the order of ``like`` in memory, whose values do not
            matter; returns a tensor (N, ...).
        generator: that of ``draw``.
    """
    if not isinstance(generator, Share):
        return draw(like)
    # In the same order in memory, which draws follow.
    order = sorted(range(1, like.dim()), key=lambda d: like.stride(d), reverse=True) if like.dim() > 1 else []
    whole = like.new_empty(generator.total, *(like.shape[d] for d in order))
    whole = whole.permute(0, *(order.index(d) + 1 for d in range(1, like.dim())))
    return draw(whole)[generator.rows]


def weight_of(generator: torch.Generator | None) -> float:
    """The weight of a `Share`'s mean loss in that of the whole batch; 1 for any other generator."""
    return generator.images / generator.total if isinstance(generator, Share) else 1.0


@torch.no_grad()
def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sums over all ranks, in one reduction."""
    parts = list(tensors)
    if size() == 1 or not parts:
        return
    import torch.distributed as dist

    flat = torch.cat([part.reshape(-1).to(parts[0].dtype) for part in parts])
    with named():
        dist.all_reduce(flat)
    for part, summed in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
        part.copy_(summed.view(part.shape))


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank 0, such as batch-norm statistics, in one reduction per type."""
    if size() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        kinds.setdefault(buffer.dtype, []).append(buffer)
    for buffers in kinds.values():
        if rank():
            for buffer in buffers:
                buffer.zero_()
        add_up(buffers)
