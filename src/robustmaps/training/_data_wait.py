"""How long training waits for its images."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """An iterator that measures how long it is waited for.

    On a GPU this is the time in which the processor waited; what the GPU still had to do in it is not taken off, so the
    GPU waited no longer than that.

    Attributes:
        seconds: spent in waiting so far.
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
