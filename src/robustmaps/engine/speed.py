"""In which form passes are fastest here: measured on the network itself, since a processor's flags do not tell.

On one processor with ``avx512_bf16``, bfloat16 is twice as fast as float32, on another one slower; whether
``torch.compile`` pays depends on the network. Measurements are kept in the cache, so that the same work on the same
machine is computed in the same form again.
"""

import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.engine.device import Precision, device_name, resolve_precision
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash, write_json
from robustmaps.engine.ranks.agreeing import from_main
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.view import AttackEngine, ViewOptions, require_compiler
from robustmaps.engine.writing.writer import cache_root

# Work in float32 that is worth measuring for, and work that is worth compiling for, which takes about a minute.
_WORTH_MEASURING_S, _WORTH_COMPILING_S = 20.0, 1200.0
# Images in passes that are not even worth a first look.
_FEW = 500
# A form has to be this much faster than a simpler one: smaller differences come and go.
_FASTER = 0.93
# One that took this many times as long as another in a first pass is not timed any further.
_HOPELESS = 2.0
# How long passes are timed, at first and then, and how long one may take: of large networks fewer images are passed.
_LOOK_S, _TIMED_S, _PASS_S, _LEAST_IMAGES = 0.1, 1.0, 0.15, 8
# Seconds of a pass that can't be made.
_NEVER = 1e9
_FOLDER = "speeds"
# What this process measured: the same work takes the same form again, however busy the machine is meanwhile.
_here: dict[Path, tuple[dict["Form", float], int]] = {}
_looks: dict[tuple[Path, "Form"], tuple[float, int]] = {}

Pass = Callable[[Tensor, Tensor], object]
"""What is timed: a function of images (N, C, H, W) and labels (N,)."""


@dataclass(frozen=True)
class Form:
    """How passes are computed.

    Attributes:
        precision: ``fp32``, ``tf32`` or ``bf16``.
        compile: whether through ``torch.compile``.
    """

    precision: Precision = "fp32"
    compile: bool = False

    def __str__(self) -> str:
        return self.precision + ", compiled" * self.compile

    @staticmethod
    def of(text: str) -> "Form":
        """The form that `str` writes so.

        Raises:
            InputError: there is none.
        """
        forms = {str(form): form for name in get_args(Precision) for form in (Form(name), Form(name, True))}
        if text not in forms:
            raise InputError(f"form={text!r}: expected one of {', '.join(map(repr, forms))}")
        return forms[text]


@dataclass(frozen=True)
class Choice:
    """The form for some passes, and why.

    Attributes:
        form: the form.
        because: why, in words; empty if it was asked for.
    """

    form: Form = field(default_factory=Form)
    because: str = ""

    def __str__(self) -> str:
        return f"{self.form} ({self.because})" if self.because else str(self.form)


def choose(
    precision: str,
    compile: bool,  # noqa: A002
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    passes: float,
    *,
    what: str,
    make: Callable[[Form], Pass],
) -> Choice:
    """Choose the form of passes: what was asked for decides, and ``auto`` is measured if the work is worth it.

    Forms are float32 and bfloat16, compiled if that was asked for or the work is so long that it can pay.

    Args:
        precision: ``auto`` or a precision.
        compile: whether that was asked for.
        model: the network, by whose structure measurements are found again.
        x: a batch of images (N, C, H, W) on its device.
        y: labels (N,).
        passes: passes of such batches that the work takes.
        what: what a pass is, in a word: ``attack`` or ``training``.
        make: makes the pass in a form; raises if the form does not apply.

    Raises:
        InputError: the precision is unknown, or the device has not got it.
    """
    if precision != "auto":
        return Choice(Form(resolve_precision(precision, x.device), compile))
    plain = Form("fp32", compile)
    if passes * len(x) < _FEW:
        return Choice(plain, "too little work to measure")
    return from_main(lambda: _measured(model, x, y, passes, what, make, compile))


def _measured(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    passes: float,
    what: str,
    make: Callable[[Form], Pass],
    compile: bool,  # noqa: A002
) -> Choice:
    plain = Form("fp32", compile)
    speeds = _Speeds(model, x, y, what, make)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forms that are not taken
        if passes * speeds.roughly(plain) < _WORTH_MEASURING_S:
            return Choice(plain, "too little work to measure")
        form = speeds.fastest([plain, Form("bf16", compile)])
        if not compile and passes * speeds.of(form) > _WORTH_COMPILING_S and _can_compile():
            form = speeds.fastest([plain, Form("bf16"), Form(compile=True), Form("bf16", True)])
    return Choice(form, speeds.told(form))


def _can_compile() -> bool:
    try:
        require_compiler()
    except InputError:
        return False
    return True


def attack_pass(model: nn.Module) -> Callable[[Form], Pass]:
    """Makes the pass of an attack: logits, and the gradient of the cross-entropy with respect to the images."""

    def make(form: Form) -> Pass:
        options = ViewOptions(precision=form.precision, compile=form.compile)
        engine = AttackEngine(model, options)

        def one(x: Tensor, y: Tensor) -> None:
            with engine.view(x) as view:
                if engine.made is None or engine.made.precision != form.precision:
                    raise InputError(f"{form}: does not apply to this network")
                view.gradient(x, lambda logits: F.cross_entropy(logits, y, reduction="none"))

        return one

    return make


class _Speeds:
    """How long passes of a network take on this machine, measured now or before."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, what: str, make: Callable[[Form], Pass]) -> None:
        parameters = [f"{name} {list(p.shape)} {p.dtype}" for name, p in model.named_parameters()]
        self._about = {
            "pass": what,
            "device": device_name(x.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "network": short_hash([re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)), parameters]),
            "shape": list(x.shape),
        }
        self._x, self._y, self._make = x, y, make
        self._seconds, self._images = self._read()

    @property
    def _path(self) -> Path:
        return cache_root() / _FOLDER / f"{short_hash(self._about)}.json"

    def _read(self) -> tuple[dict[Form, float], int]:
        """What was measured before; nothing if the file is not there or not what it should be."""
        if self._path in _here:
            return _here[self._path]
        with suppress(InputError, OSError, TypeError, ValueError, KeyError, AttributeError):
            found: Any = read_json(self._path)
            seconds = {Form.of(name): float(value) for name, value in found["seconds"].items()}
            if found["about"] == self._about and all(math.isfinite(s) and s > 0 for s in seconds.values()):
                return seconds, max(1, min(int(found["images"]), len(self._x)))
        return {}, 0

    def roughly(self, form: Form) -> float:
        """Seconds of a pass of the whole batch: as measured, or after a look at few images; 0 if it can't be made."""
        if form in self._seconds:
            return self.of(form)
        if (self._path, form) not in _looks:
            _looks[self._path, form] = self._look(form)
        each, self._images = _looks[self._path, form]
        return each * len(self._x)

    def _look(self, form: Form) -> tuple[float, int]:
        """Seconds of an image in a pass of few, 0 if it can't be made, and the images of passes that are timed."""
        few = min(len(self._x), _LEAST_IMAGES)
        try:
            one = self._make(form)
            end, times = time.perf_counter() + _LOOK_S, [self._time(one, few), self._time(one, few)]
            while time.perf_counter() < end:
                times.append(self._time(one, few))
            each = min(times) / few
        except Exception:  # noqa: BLE001 - what is wrong is said by the work itself
            return 0.0, few
        return each, max(few, min(len(self._x), int(_PASS_S / each)))

    def of(self, form: Form) -> float:
        """Seconds of a pass of the whole batch."""
        return self._seconds.get(form, math.inf) / self._images * len(self._x)

    def fastest(self, forms: Iterable[Form]) -> Form:
        """The fastest of these; the first if no other is clearly faster. Measured together if one is not known yet."""
        forms = list(forms)
        if any(form not in self._seconds for form in forms):
            self._seconds = self._measure(forms)
            _here[self._path] = self._seconds, self._images
            self._keep()
        best = forms[0]
        for form in forms[1:]:
            if self._seconds[form] < _FASTER * self._seconds[best]:
                best = form
        return best

    def _keep(self) -> None:
        """Keep the measurements, unless others were at work on the machine."""
        with suppress(OSError, AttributeError):  # the cache may not be writable, and Windows tells no load
            if os.getloadavg()[0] <= (os.cpu_count() or 1):
                named = {str(form): seconds for form, seconds in self._seconds.items()}
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._path, {"about": self._about, "images": self._images, "seconds": named})

    def _measure(self, forms: Iterable[Form]) -> dict[Form, float]:
        """Seconds of a pass in each form, the best of some in turn; a form that can't be made takes for ever."""
        best, passes = dict.fromkeys(forms, _NEVER), dict[Form, Pass]()
        for form in best:
            with suppress(Exception):
                passes[form] = self._make(form)
                first = self._time(passes[form], self._images)  # with caches or compilation
                hopeless = not form.compile and first > _HOPELESS**3 * min(best.values())
                best[form] = first if hopeless else self._time(passes[form], self._images)
        end = time.perf_counter() + _TIMED_S
        while time.perf_counter() < end:
            for form, one in passes.items():
                if best[form] < _HOPELESS * min(best.values()):
                    best[form] = min(best[form], self._time(one, self._images))
        return best

    def _time(self, one: Pass, images: int) -> float:
        x, y = self._x[:images], self._y[:images]
        self._wait()
        began = time.perf_counter()
        one(x, y)
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._x.device.type == "cuda":
            torch.cuda.synchronize(self._x.device)

    def told(self, form: Form) -> str:
        """The measurements in words."""
        of: Mapping[Form, float] = {each: s for each, s in self._seconds.items() if s < _NEVER and each != form}
        others = ", ".join(f"{1000 * s:.3g} ms in {each}" for each, s in of.items())
        against = f", against {others}" if others else ""
        return f"{1000 * self._seconds[form]:.3g} ms for {self._images} images{against}"
