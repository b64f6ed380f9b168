"""Standard streams that stop no work: closed ones, and those whose reader has gone or whose disk is full."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from robustmaps.engine.text import visible


class _Steadfast:
    """A stream whose failures are ignored, since what it shows is less than what the work saves.

    Args:
        stream: the stream; all but writing is left to it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        # A RuntimeError is a signal's message amid another one.
        with contextlib.suppress(RuntimeError, ValueError):
            try:
                return self._stream.write(text)
            except OSError:
                _to_nowhere(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose the text."""
        with contextlib.suppress(RuntimeError, ValueError):
            try:
                self._stream.flush()
            except OSError:
                _to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_streams() -> Iterator[None]:
    """Within the block, standard error loses what it can't show, and no closed stream is taken by another file."""
    open_closed_streams()
    before = sys.stderr
    sys.stderr = _Steadfast(before)
    try:
        yield
    finally:
        if isinstance(sys.stderr, _Steadfast):
            sys.stderr = before


def open_closed_streams() -> None:
    """Open the standard streams that are closed, to nowhere.

    Or else the next file opened would get the number of, say, standard error, and messages of C libraries.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end


def stop_signals() -> list[int]:
    """The signals that ask for a stop: SIGTERM, and SIGHUP of a terminal that closes, unless nohup has it ignored."""
    numbers = [signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    return [int(number) for number in numbers]


class Warned:
    """Prints each warning once, in the program's words.

    Attributes:
        texts: what was printed.
    """

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def __call__(self, message: Warning | str, *_: object, **__: object) -> None:
        text = str(message)
        if text not in self.texts:
            self.texts.add(text)
            print(visible(f"robustmaps: warning: {text}"), file=sys.stderr)


def finish_output() -> None:
    """Flush standard output, so that a failure is told now and not as Python exits.

    Raises:
        OSError: it can't be written.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout)
        raise


def _to_nowhere(stream: IO[str]) -> None:
    """Python and C libraries would fail on it again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
