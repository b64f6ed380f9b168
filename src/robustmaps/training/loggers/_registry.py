"""The loggers by name, without importing any."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from robustmaps.engine.errors import InputError
from robustmaps.engine.registry import Registry


class Logger(Protocol):
    """What receives the figures of a run.

    An exception in a logger ends that logger, with one warning; it neither stops nor changes the run. A logger that is
    also a `Summariser` receives the final figures, too.
    """

    def write(self, record: Mapping[str, float]) -> None:
        """Receive the figures of an epoch that has just ended, by name; ``epoch`` counts from 1."""

    def close(self, *, finished: bool) -> None:
        """The run is finished, or was stopped."""


@runtime_checkable
class Summariser(Protocol):
    """A logger that receives final figures: those of the kept epoch, and of evaluations that a study makes."""

    def summarise(self, record: Mapping[str, float]) -> None:
        """Receive final figures by name; ``epoch`` is that of the weights, and a name may come again."""


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is told about a run.

    Attributes:
        name: the name of the run folder.
        folder: the run folder, for files of the logger.
        settings: the network, the data, the defence and the hyper-parameters, in words.
        identity: what the logger called the run when it began, so that a resumed run goes on in the same log; None for
            a new log.
        finished: whether all epochs were handed on before, if the run has a log, and only final figures follow.
    """

    name: str
    folder: Path
    settings: Mapping[str, str]
    identity: str | None = None
    finished: bool = False


@dataclass(frozen=True)
class OpenedLog:
    """An open log of a run.

    Attributes:
        logger: receives the figures.
        identity: what the log is called, to go on in it later.
        last_epoch: the last epoch that the log has; those after it are written again.
    """

    logger: Logger
    identity: str
    last_epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class LoggerRow:
    """A logger's row: ``ROW`` in the module of its class.

    Attributes:
        name: the name on the command line.
        summary: a one-line description.
        needs: the module that it imports.
        install: what installs that.
        open: opens the log of a run, a new one or, where the run has an identity, that one.
    """

    name: str
    summary: str
    needs: str
    install: str
    open: Callable[[LoggedRun], OpenedLog]


_REGISTRY = Registry("robustmaps.training.loggers", "logger", LoggerRow)
register = _REGISTRY.register


def parse_loggers(text: str | None) -> tuple[str, ...]:
    """The names in ``tensorboard,wandb``, of loggers that need not be installed: a run opens without its loggers.

    Raises:
        InputError: one is named twice.
    """
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if len(set(names)) < len(names):
        raise InputError(f"log={text!r}: expected each logger once")
    return names


def check_loggers(names: Sequence[str]) -> None:
    """Refuse unknown loggers, before a run is made.

    Raises:
        InputError: there is no such logger.
    """
    for name in names:
        _REGISTRY.find(name)


def logger_row(name: str) -> LoggerRow:
    """A logger that can be opened.

    Raises:
        InputError: there is no such logger, or what it needs is not installed.
    """
    row = _REGISTRY.row(name)
    try:
        importlib.import_module(row.needs)
    except ImportError as error:
        raise InputError(f"log={name}: needs {row.needs}, which can't be imported ({error}); {row.install}") from None
    return row
