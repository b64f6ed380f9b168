"""The open loggers of a run: none of them can stop or change it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from robustmaps.engine import ranks
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.training.loggers._registry import LoggedRun, Logger, LoggerRow, OpenedLog, Summariser, logger_row

IDENTITIES = "loggers.json"
"""The file of a run folder with what each logger calls the run."""


class LoggerFailed(UserWarning):
    """A logger failed and receives nothing more; the run goes on."""


class Loggers:
    """The loggers of a run, by name.

    Args:
        device: the device of the run, whose random state they leave as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._open: dict[str, Logger] = {}
        self._devices = [device] if device.type == "cuda" else []

    def add(self, name: str, logger: Logger) -> None:
        """One more, from the next epoch on."""
        self._open[name] = logger

    def open(self, name: str, row: LoggerRow, run: LoggedRun, history: Sequence[Mapping[str, Any]]) -> str | None:
        """Open the log of a run and write the epochs that it lacks; returns its identity, or None if that failed."""
        opened: list[OpenedLog] = []
        self._try(name, lambda: opened.append(row.open(run)))
        if not opened:
            return None
        self._open[name] = opened[0].logger
        for record in history:
            if record["epoch"] > opened[0].last_epoch:
                self._write(name, record)
        return opened[0].identity

    def write(self, record: Mapping[str, Any]) -> None:
        """Hand the figures of an epoch to all of them."""
        for name in list(self._open):
            self._write(name, record)

    def summarise(self, record: Mapping[str, Any]) -> None:
        """Hand final figures to those that take them."""
        for name, logger in list(self._open.items()):
            if isinstance(logger, Summariser):
                self._try(name, _summarise, logger, record)

    def close(self, *, finished: bool) -> None:
        """Close all of them."""
        for name, logger in list(self._open.items()):
            self._try(name, _close, logger, finished)
        self._open.clear()

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        logger = self._open.get(name)
        if logger is not None:
            self._try(name, _write, logger, record)

    def _try(self, name: str, call: Callable[..., object], *given: object) -> None:
        """Call a logger; whatever it raises or draws stays with it."""
        try:
            with torch.random.fork_rng(self._devices):
                call(*given)
        except Exception as error:  # noqa: BLE001 - it may be anything
            self._open.pop(name, None)
            warnings.warn(
                f"the logger {name} failed and gets nothing more, the run goes on ({type(error).__name__}: {error})",
                LoggerFailed,
                stacklevel=2,
            )


def _write(logger: Logger, record: Mapping[str, Any]) -> None:
    logger.write(dict(record))


def _summarise(logger: Summariser, record: Mapping[str, Any]) -> None:
    logger.summarise(dict(record))


def _close(logger: Logger, finished: bool) -> None:
    logger.close(finished=finished)


def log_final(
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
    history: Sequence[Mapping[str, Any]],
    record: Mapping[str, float],
) -> None:
    """Hand final figures of a finished run to the loggers that it names; one that can't be opened gets a warning.

    Args:
        names: of the loggers.
        folder: the run folder.
        settings: what the run is, in words, for a logger that has no log of it yet.
        history: its epochs, likewise.
        record: the figures, see `Summariser`.
    """
    rows = {}
    for name in names:
        try:
            rows[name] = logger_row(name)
        except InputError as error:
            warnings.warn(f"{error}; the final figures are in {folder} alone", LoggerFailed, stacklevel=2)
    device = torch.device("cpu")
    with opened_loggers(rows, (), folder, settings, lambda: history, device, finished=True) as opened:
        opened.summarise(record)


def chosen_loggers(names: Sequence[str], folder: Path | None) -> dict[str, LoggerRow]:
    """Loggers by name, before the run; by every rank, so that all of them stop.

    Raises:
        InputError: a named logger needs a run folder, or what it needs is not installed.
    """
    if names and folder is None:
        raise InputError(f"log={','.join(names)}: a named logger needs a run folder; give out, or pass loggers")
    return {name: logger_row(name) for name in names}


@contextmanager
def opened_loggers(
    rows: Mapping[str, LoggerRow],
    given: Sequence[Logger],
    folder: Path | None,
    settings: Mapping[str, str],
    history: Callable[[], Sequence[Mapping[str, Any]]],
    device: torch.device,
    *,
    finished: bool = False,
) -> Iterator[Loggers]:
    """The loggers of a run; only rank 0 has any.

    Args:
        rows: loggers that are opened for it, by name.
        given: open loggers of the caller.
        folder: the run folder, if any.
        settings: what the run is, in words.
        history: returns the epochs before this process.
        device: the device of the run.
        finished: see `LoggedRun`.
    """
    loggers = Loggers(device)
    if ranks.is_main():
        for number, logger in enumerate(given, 1):
            loggers.add(f"{type(logger).__name__} ({number})", logger)
        if folder is not None and rows:
            _open_all(loggers, rows, folder, settings, history(), finished=finished)
    whole = False
    try:
        yield loggers
        whole = True
    finally:
        loggers.close(finished=whole)


def _open_all(
    loggers: Loggers,
    rows: Mapping[str, LoggerRow],
    folder: Path,
    settings: Mapping[str, str],
    history: Sequence[Mapping[str, Any]],
    *,
    finished: bool,
) -> None:
    path = folder / IDENTITIES
    known: dict[str, Any] = {}
    if path.exists():
        try:
            known = dict(read_json(path))
        except (OSError, ValueError, InputError) as error:
            warnings.warn(f"{error}; the loggers of this run begin new logs", LoggerFailed, stacklevel=2)
    found = {}
    for name, row in rows.items():
        identity = known.get(name)
        identity = identity if isinstance(identity, str) else None
        run = LoggedRun(folder.resolve().name, folder, settings, identity, finished)
        found[name] = loggers.open(name, row, run, history)
    now = {**known, **{name: identity for name, identity in found.items() if identity is not None}}
    if now and now != known:
        write_json(path, now)
