"""Batches attacked by this process, or by all ranks of a run."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from robustmaps.engine import ranks
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.progress import Progress
from robustmaps.engine.ranks.agreeing import gather
from robustmaps.evaluation._sharing._attacker import Attacker
from robustmaps.evaluation._sharing._batches import Attacked, Batch


@dataclass(frozen=True)
class OnRanks:
    """Attacks a batch on each rank at a time; a single process is one rank.

    Draws belong to a batch, so that whole ones are shared out, which are those that a single process would make.

    Attributes:
        attacker: that of this rank.
    """

    attacker: Attacker

    def attacked(
        self, parts: Sequence[list[int]], batch: Callable[[list[int]], Batch], ahead: Callable[[float], None]
    ) -> Generator[Attacked]:
        """See `Attackers`."""
        for start in range(0, len(parts), ranks.size()):
            yield from self._round(parts[start : start + ranks.size()], batch, ahead)

    def _round(
        self, parts: Sequence[list[int]], batch: Callable[[list[int]], Batch], ahead: Callable[[float], None]
    ) -> list[Attacked]:
        """Attack a batch on each rank, as far as there are any."""
        mine = parts[ranks.rank()] if ranks.rank() < len(parts) else []

        def hear(progress: Progress) -> None:
            ahead(len(mine) * progress.done / max(progress.total, 1))

        here: list[Attacked] = []
        failed = None
        try:
            here += [self.attacker.attack(batch(mine), hear)] if mine else []
        except (RuntimeError, MemoryError) as error:
            if ranks.size() == 1 or not is_out_of_memory(error):
                raise
            failed = str(error)
        told = gather((failed, here))
        for lacked, _ in told:
            if lacked is not None:  # all go on together, with smaller batches
                raise MemoryError(lacked)
        return [attacked for _, each in told for attacked in each]
