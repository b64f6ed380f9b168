"""What a process elsewhere does: it opens a network once, and attacks batches with it."""

import io
import pickle
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from robustmaps._version import __version__
from robustmaps.engine.cluster.portable import portable
from robustmaps.engine.device import device_name, is_out_of_memory, resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from robustmaps.engine.text import first_line
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view
from robustmaps.evaluation._agreement import Computed
from robustmaps.evaluation._identity import Identity, what_it_computes
from robustmaps.evaluation._sharing._attacker import Attacker
from robustmaps.evaluation._sharing._batches import Attacked, Batch

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """How all workers of an evaluation attack.

    Attributes:
        example: a few images (N, C, H, W), for which the view is made.
        options: how the view is made.
        seed: as of `Attacker`, like the next three.
        eight_bit: the same.
        images: the same.
        every: the same.
    """

    example: Tensor
    options: ViewOptions
    seed: int
    eight_bit: bool
    images: bool
    every: bool


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a worker answers.

    Attributes:
        value: the result; None if there is none.
        error: why there is none.
    """

    value: T | None
    error: Exception | None = None


@dataclass(frozen=True)
class Opened:
    """A worker that has opened the network.

    Attributes:
        node: the name of its machine.
        device: what it computes on, for records.
        versions: by package.
        computes: what the network computes there.
    """

    node: str
    device: str
    versions: dict[str, str]
    computes: Computed

    @staticmethod
    def here() -> dict[str, str]:
        """The versions of this process."""
        return {"robustmaps": __version__, "torch": torch.__version__}

    def check(self, identity: Identity) -> None:
        """Refuse a worker whose results would not be those of the network here.

        Raises:
            InputError: it has other versions, or the network computes something else there.
        """
        apart = [f"{name} {theirs}" for name, theirs in self.versions.items() if self.here()[name] != theirs]
        if apart:
            mine = ", ".join(f"{name} {version}" for name, version in self.here().items())
            raise InputError(f"{self.node} has {' and '.join(apart)}, this process {mine}; install the same everywhere")
        if not identity.matches(self.computes):
            raise InputError(
                f"the network computes something else on {self.node} than here: a part of it is not sent with it, such "
                "as a value of its module or class that was changed; evaluate it without workers"
            )


def packed(model: nn.Module, pickler: Any = pickle) -> bytes:
    """A network as bytes.

    Args:
        model: the network, on any device.
        pickler: the module that pickles.

    Raises:
        InputError: it can't be pickled.
    """
    file = io.BytesIO()
    try:
        torch.save(model, file, pickle_module=pickler)
    except Exception as error:
        raise InputError(
            f"the network can't be sent to workers, since it can't be pickled ({first_line(error)}); evaluate it "
            "without them, or with torchrun, where every process makes its own"
        ) from error
    return file.getvalue()


class Worker:
    """Opens a network, and attacks batches with it; one call after the other, beside `share`.

    Args:
        device: the device to compute on, by name.
        threads: threads to compute with.
    """

    def __init__(self, device: str, threads: int) -> None:
        self._device, self._threads = device, threads
        self._attacker: Attacker | None = None
        self._opened = ExitStack()
        self._share = 0.0

    def open(self, network: bytes, setup: Setup) -> Answer[Opened]:
        """Open a network, as `packed`, in the place of the one before."""
        return self._answer(lambda: self._open(network, setup))

    def attack(self, batch: Batch) -> Answer[Attacked]:
        """Attack a batch."""
        return self._answer(lambda: self._attack(batch))

    def share(self) -> float:
        """The share of the present batch that is done."""
        return self._share

    def _open(self, network: bytes, setup: Setup) -> Opened:
        self._attacker = None
        self._opened.close()
        device = resolve_device(self._device)
        # Our own bytes, from the process that started this one.
        model = torch.load(io.BytesIO(network), map_location=device, weights_only=False)
        example = setup.example.to(device)
        computes = what_it_computes(model, example.shape[1:])
        with ExitStack() as stack:
            view = stack.enter_context(AttackEngine(model, setup.options).view(example))
            plain = stack.enter_context(plain_view(model))
            self._opened = stack.pop_all()
        self._attacker = Attacker(view, plain, device, setup.seed, setup.eight_bit, setup.images, setup.every)
        return Opened(platform.node(), device_name(device), Opened.here(), computes)

    def _attack(self, batch: Batch) -> Attacked:
        if self._attacker is None:
            raise RuntimeError("no network is open")
        self._share = 0.0

        def hear(progress: Progress) -> None:
            self._share = progress.done / max(progress.total, 1)

        with torch.no_grad():
            return self._attacker.attack(batch, hear)

    def _answer(self, make: Callable[[], T]) -> Answer[T]:
        torch.set_num_threads(self._threads)  # belongs to the thread, and calls may be made in several
        try:
            return Answer(make())
        except Exception as error:  # noqa: BLE001 - raised where the batch came from
            if is_out_of_memory(error) and torch.cuda.is_available():
                torch.cuda.empty_cache()
            return Answer(None, portable(error, platform.node()))
