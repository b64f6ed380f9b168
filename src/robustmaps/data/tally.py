"""What happened to the files of a source besides plain decoding, counted for its notes."""

from bisect import insort
from threading import Lock

_EXAMPLES = 3


class Tally:
    """Counts files by what happened to them, each with a few examples; threads may share one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._lines: dict[str, None] = {}

    def count(self, what: str, where: str) -> None:
        """Count one file.

        Args:
            what: what happened to it; a sentence that can follow a number of files.
            where: its name.
        """
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + 1
            # The first by name, so that the order in which threads finish changes nothing.
            examples = self._examples.setdefault(what, [])
            insort(examples, where)
            del examples[_EXAMPLES:]

    def note(self, line: str) -> None:
        """Add a line that is no count, once."""
        with self._lock:
            self._lines[line] = None

    def forget(self, what: str) -> None:
        """Leave a kind out of the notes."""
        with self._lock:
            self._counts.pop(what, None)

    def notes(self) -> list[str]:
        """The lines, and one for each kind: what happened, to how many files, and which, for example."""
        return [*self._lines] + [
            f"{what}: {count:,} ({', '.join(self._examples[what])}{', ...' if count > _EXAMPLES else ''})"
            for what, count in sorted(self._counts.items())
        ]
