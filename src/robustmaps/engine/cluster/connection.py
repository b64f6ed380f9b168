"""The connection to a Ray cluster: clear errors within seconds, the code that it needs, and what it has."""

import os
import signal
import socket
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustmaps.engine import errors
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least, check_whole, counted

LOCAL = "local"
"""The address of a cluster that is started on this machine and ends with the work."""
_PACKAGE = Path(errors.__file__).parents[1]
_ANSWER_S = 5.0
_CLIENT = "ray://"
# How a client of HTTP/2 begins, with settings that change nothing (RFC 9113, 3.4); gRPC servers answer with theirs.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HEADER_BYTES, _KIND, _SETTINGS = 9, 3, 4
_SETTINGS_OF_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster that is started here tells nobody
    # Or else it prints what it thinks of lost machines between our own lines, and to standard output.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
}
_LOCAL_STORE_BYTES = 200 << 20


def load_ray() -> Any:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    for name, value in _SETTINGS_OF_RAY.items():
        os.environ.setdefault(name, value)  # read when it is imported
    try:
        import ray
    except ImportError:
        raise InputError("executor=ray: needs Ray; pip install 'robustmaps[ray]'") from None
    return ray


def address_or_local(address: str | None) -> str:
    """The address that was given, else that of the environment, as everywhere with Ray, else this machine."""
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def check_address(address: str) -> None:
    """Find out within seconds whether a cluster is there; Ray would try for minutes and end the process.

    Raises:
        InputError: nothing is there, or something else.
    """
    if address in (LOCAL, "auto"):
        return
    expected = (
        "expected HOST:PORT of a cluster's head node, as ray start --head prints it, ray://HOST:PORT, auto or local"
    )
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"address={address}: {expected}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            line.settimeout(_ANSWER_S)
            line.sendall(_PREFACE)
            answer = b""
            while len(answer) < _HEADER_BYTES and (part := line.recv(_HEADER_BYTES - len(answer))):
                answer += part
    except TimeoutError:
        raise InputError(f"address={address}: no answer within {_ANSWER_S:g} s; {expected}") from None
    except OSError as error:
        raise InputError(f"address={address}: no cluster there ({error.strerror or error}); {expected}") from None
    if len(answer) < _HEADER_BYTES or answer[_KIND] != _SETTINGS:
        raise InputError(f"address={address}: what answers there is not Ray; {expected}")


@contextmanager
def connected(address: str, *, code: bool = False) -> Iterator[Any]:
    """Within the block, Ray is connected to the cluster; this package and the user's modules are sent there.

    Args:
        address: as for `check_address`.
        code: whether the user's own modules are needed.

    Raises:
        InputError: no cluster is there, or one with other versions of Ray or Python.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    check_address(address)
    settings = {name: value for name, value in os.environ.items() if name.startswith("ROBUSTMAPS_")}
    environment = {
        "py_modules": [str(_PACKAGE), *(own_modules() if code else ())],
        "excludes": ["__pycache__"],
        # Runs without a GPU of their own see none.
        "env_vars": {**settings, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"},
    }
    started = {"include_dashboard": False, "object_store_memory": _LOCAL_STORE_BYTES} if address == LOCAL else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR", **started)
    except (ConnectionError, ImportError, RuntimeError, ValueError, SystemExit) as error:
        ray.shutdown()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(map(str.strip, lines))
        raise InputError(f"address={address}: Ray can't be used there: {reason}") from error
    finally:
        _restore(handlers)
    try:
        yield ray
    finally:
        ray.shutdown()
        _restore(handlers)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    """Signals are handled as before; Ray would end the process."""
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def own_modules() -> list[str]:
    """Paths of modules imported here that are not installed, such as that of a user's network and what it imports."""
    known = sysconfig.get_paths()
    installed = [Path(known[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = []
    for name, module in sorted(sys.modules.items()):
        if "." in name or "__main__" in (name, module.__name__) or name == _PACKAGE.name:
            continue
        try:
            place = Path(next(iter(getattr(module, "__path__", [module.__file__])))).resolve()
        except (AttributeError, TypeError, StopIteration):  # built in
            continue
        if place.exists() and not any(place.is_relative_to(one) for one in installed):
            found.append(str(place))
    return found


def check_shares(address: str | None, cpus: int, gpus: float | None, retries: int) -> None:
    """Refuse impossible shares of a machine, a missing Ray and an address without a cluster, without a connection.

    Args:
        address: as for `address_or_local`.
        cpus: cores of each run.
        gpus: GPUs of each run; None if not given.
        retries: how often a lost one is made again.

    Raises:
        InputError: one of these is so.
    """
    check_whole("cpus_per_run", cpus, 1)
    check_whole("retries", retries, 0)
    if gpus is not None:
        check_at_least("gpus_per_run", gpus, 0)
        if gpus > 1 and gpus != int(gpus):
            raise InputError(f"gpus_per_run={gpus:g}: expected a whole number, or less than 1")
    load_ray()
    check_address(address_or_local(address))


def runs_at_once(ray: Any, cpus: int, gpus: float | None) -> tuple[int, float]:
    """How many runs the cluster has room for, and the GPUs of each: one where there are any, unless given.

    Raises:
        InputError: no machine has room for one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = float(any(node.get("GPU", 0) >= 1 for node in nodes))
    most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
    for name, kind, wanted in (("cpus_per_run", "CPU", cpus), ("gpus_per_run", "GPU", gpus)):
        if wanted > most[kind]:
            has = counted(int(most[kind]), kind)
            raise InputError(
                f"{name}={wanted:g}: a run needs them on one machine, and the largest of the cluster's "
                f"{counted(len(nodes), 'node')} has {has}; give at most {most[kind]:g}"
            )
    room = sum(
        int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else float("inf"))) for node in nodes
    )
    if not room:
        raise InputError(f"cpus_per_run={cpus}, gpus_per_run={gpus:g}: no machine of the cluster has both; give fewer")
    return room, gpus
