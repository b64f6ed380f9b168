"""Errors of one machine that another one reads."""

import pickle

from robustmaps.engine.errors import Interrupted


def portable(error: Exception, node: str) -> Exception:
    """The error as one that another process can read, with the name of the machine where it was raised."""
    match error.args:
        case (str(text),) if not isinstance(error, Interrupted):
            error.args = (f"{text} (on {node})",)
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - of our own making
    except Exception:  # noqa: BLE001 - of any kind, such as a constructor with other arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
