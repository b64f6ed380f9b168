"""Downloads by other libraries, which without a connection would try again for minutes."""

import contextlib
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from unittest.mock import patch

from robustmaps.engine.errors import InputError

_WAIT_S = 4.0
_HERE = (None, "", "localhost", "127.0.0.1", "::1")
# Read by the libraries of the Hugging Face hub at each call.
_SWITCHES = (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))


@contextlib.contextmanager
def downloading(what: str, url: str, instead: str) -> Iterator[None]:
    """Within the block, libraries may download; where the server does not answer, they find what they cached, or fail.

    Args:
        what: what is downloaded, for the message.
        url: the server it comes from.
        instead: what to do where it can't be had.

    Raises:
        InputError: the server does not answer, and the block failed when it looked for it.
    """
    if _answers(url):
        yield
        return
    looked_for: list[str] = []
    try:
        with _offline(looked_for):
            yield
    except Exception as error:
        if not looked_for and not _is_of_the_system(error):  # such as a name that the library does not know
            raise
        host = url.partition("://")[2].partition("/")[0]
        raise InputError(f"{what}: can't be downloaded, since {host} does not answer; {instead}") from error


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether it, or what caused it, is an `OSError`, as the hub's libraries raise where they may not even try."""
    return error is not None and (isinstance(error, OSError) or _is_of_the_system(error.__cause__))


def _answers(url: str) -> bool:
    """Whether a server answers anything at all within a few seconds; a name may take longer to be looked up."""
    found: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the URL is one of ours
            with urllib.request.urlopen(request, timeout=_WAIT_S):  # noqa: S310
                found.append(True)
        except urllib.error.HTTPError:
            found.append(True)
        except (OSError, ValueError):
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_WAIT_S)
    return bool(found) and found[0]


@contextlib.contextmanager
def _offline(looked_for: list[str]) -> Iterator[None]:
    """Within the block no name of another machine is found, and the hub's libraries do not even try.

    Args:
        looked_for: gets the names.
    """
    look_up = socket.getaddrinfo

    def only_here(host: object, *given: object, **named: object) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        if name in _HERE:
            return look_up(host, *given, **named)  # type: ignore[arg-type]
        looked_for.append(str(name))
        raise socket.gaierror(socket.EAI_NONAME, f"{name}: no connection")

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(socket, "getaddrinfo", only_here))
        for module, switch in _SWITCHES:
            if module in sys.modules and hasattr(sys.modules[module], switch):
                stack.enter_context(patch.object(sys.modules[module], switch, True))
        yield
