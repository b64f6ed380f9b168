"""The processes of one run, called ranks, as torchrun starts them.

Every rank does the same work on its share of the images, and only rank 0 writes. A process by itself is rank 0 of one,
for which everything here is an identity that needs no PyTorch.
"""

from robustmaps.engine.ranks.present import is_main, rank, size

__all__ = ["is_main", "rank", "size"]
