"""What has been measured so far, kept in a folder after every step, and the clock that ends a call in time."""

import json
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from robustmaps import __version__
from robustmaps.engine import ranks
from robustmaps.engine.device import device_name
from robustmaps.engine.files import write_text

Part = Literal["right", "speed", "gains"]
PARTS: tuple[Part, ...] = ("right", "speed", "gains")


# A step that outlasts the call that often is left out.
_ATTEMPTS = 2


class OutOfTime(Exception):  # noqa: N818 - says what happened
    """A step saved its state and stopped; the next call goes on from there."""


@dataclass(frozen=True)
class Step:
    """One measurement.

    Attributes:
        part: which question it belongs to.
        name: unique; what its result is recorded under.
        run: measures, and returns plain values for JSON; raises `OutOfTime` where it has to go on in the next call.
        seconds: about how long it takes; it is not begun with less time left.
        shared: whether all ranks make it, where there are several; otherwise rank 0 makes it by itself.
    """

    part: Part
    name: str
    run: Callable[[], dict[str, Any]]
    seconds: float = 5.0
    shared: bool = False


class Record:
    """The results in ``gpu.json``, with a copy beside the working files for machines that empty the folder.

    Args:
        out: the folder of ``gpu.json`` and ``gpu.md``, small enough to be carried away.
        work: the folder of everything else.
        device: what is measured.
        deadline: the time, by ``time.monotonic``, at which this call has to be over.
        render: the results as Markdown.
    """

    def __init__(
        self,
        out: Path,
        work: Path,
        device: torch.device,
        deadline: float,
        render: Callable[[dict[str, Any]], str],
    ) -> None:
        self.out, self.work, self.device, self.deadline, self._render = out, work, device, deadline, render
        for folder in (out, work):
            folder.mkdir(parents=True, exist_ok=True)
        found = [folder / "gpu.json" for folder in (out, work) if (folder / "gpu.json").exists()]
        self.values: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8")) if found else {"steps": {}}
        self._machine = _machine(device)
        before = self.values.setdefault("machines", [])
        if self._machine not in before:
            before.append(self._machine)

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """The results by name."""
        return self.values["steps"]

    @property
    def left_s(self) -> float:
        """Seconds until this call has to be over."""
        return self.deadline - time.monotonic()

    def get(self, name: str) -> dict[str, Any] | None:
        """What that step measured, None where it is not done."""
        step = self.steps.get(name, {})
        return step.get("values") if step.get("status") == "done" else None

    def run(self, steps: Iterable[Step], *, retry: bool = False) -> None:
        """Make the steps in order that are not made yet, as far as time allows."""
        for step in steps:
            entry = self.steps.get(step.name, {})
            if entry.get("status") == "done" or (entry.get("status") == "failed" and not retry):
                continue
            if entry.get("status") == "begun" and entry["attempts"] >= _ATTEMPTS and not retry:
                continue
            if self.left_s < step.seconds:
                print(f"  {step.name}: left for the next call ({self.left_s:.0f} s left, needs {step.seconds:.0f})")
                continue
            self._run(step)

    def _run(self, step: Step) -> None:
        began = time.perf_counter()
        spent = self.steps.get(step.name, {}).get("seconds", 0.0)
        entry: dict[str, Any] = {"part": step.part, "machine": self.values["machines"].index(self._machine)}
        # A call that is killed in the middle of a step leaves this behind.
        attempts = self.steps.get(step.name, {}).get("attempts", 0) + 1
        self.steps[step.name] = {**entry, "status": "begun", "attempts": attempts, "seconds": spent}
        self.save()
        try:
            entry |= {"status": "done", "values": step.run()}
        except OutOfTime as reason:
            entry |= {"status": "pending", "progress": str(reason)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the next step may work
            entry |= {
                "status": "failed",
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
        entry["seconds"] = round(spent + time.perf_counter() - began, 3)
        self.steps[step.name] = entry
        self.save()
        self._clean_up()
        text = entry.get("error") or entry.get("progress") or entry["values"].get("line", "")
        print(f"  {step.name}: {entry['status']} in {entry['seconds']:.1f} s {text}", flush=True)

    def give_up(self, name: str, reason: str) -> None:
        """Record that a step failed which never came to its end here."""
        error = reason.rstrip().rpartition("\n")[2]
        where = reason.partition(":")[0]
        self.steps[name] |= {"status": "failed", "error": f"{where}: {error}", "traceback": reason}
        self.save()
        print(f"  {name}: failed {where}: {error}", flush=True)

    def _clean_up(self) -> None:
        """Give memory back; end the call where an error has left the device unusable, so that no other step fails."""
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise SystemExit(f"the device is unusable after an error ({error}); the same call goes on") from error

    def save(self) -> None:
        """Write both forms of the record, atomically; a distance that is no number is a finding and kept as NaN."""
        for folder in (self.work, self.out):
            write_text(folder / "gpu.json", json.dumps(self.values, indent=2) + "\n")
        try:
            write_text(self.out / "gpu.md", self._render(self.values))
        except Exception:  # noqa: BLE001 - the figures are in gpu.json all the same
            traceback.print_exc()


def _machine(device: torch.device) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "device": device_name(device),
        "robustmaps": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if ranks.size() > 1:
        machine["ranks"] = ranks.size()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
        }
    return machine


def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    if version.exists():
        return version.read_text(encoding="utf-8").splitlines()[0]
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
