"""The time that training waits for its images."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """An iterator that measures the time spent waiting for it.

    On a GPU this is the processor's waiting time, an upper bound of the GPU's, which may have had work to do meanwhile.

    Attributes:
        seconds: time spent waiting so far.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> "Waiting[T]":
        return self

    def __next__(self) -> T:
        began = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - began
