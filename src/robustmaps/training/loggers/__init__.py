"""Loggers: where a run's figures go beside its folder, such as TensorBoard, W&B and MLflow.

A logger has a module with a row, here or in another package that names the module as an entry point of
``robustmaps.loggers``. `robustmaps.fit` also takes any object with the methods of `Logger`.
"""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.training.loggers._open import LoggerFailed, log_final
    from robustmaps.training.loggers._registry import LoggedRun, Logger, LoggerRow, OpenedLog, Summariser, register

__all__ = ["LoggedRun", "Logger", "LoggerFailed", "LoggerRow", "OpenedLog", "Summariser", "log_final", "register"]

__getattr__, __dir__ = lazy(__name__, __file__)
