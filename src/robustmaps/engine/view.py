"""The attack view: a fast copy of a network that attacks run on.

An attack needs only the logits in evaluation mode and their gradient at the input. The network itself also computes
parameter gradients and batch-norms, in a memory layout and precision that suit training. A *view* is a copy with
batch-norms folded into convolutions where that is exact, in channels-last order, and on request in bfloat16 or
compiled. The network is never changed; its weights are copied over whenever a view is opened.

Whatever the network raises or computes otherwise in such a copy means that the step does not apply: it is given up
with a warning, and the next simpler view is made.
"""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import parameter_dtype, to_channels_last
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import check_values, frozen, frozen_copy, unused
from robustmaps.engine.text import first_line
from robustmaps.engine.views.attack_view import AS_IT_IS, AttackView, Objective, ViewOptions, outside_inference_mode
from robustmaps.engine.views.compiled import Compiled
from robustmaps.engine.views.fingerprint import attributes
from robustmaps.engine.views.folding import FoldablePair
from robustmaps.engine.views.shadow import Sample, copy_weights, disturb, fold, store_in_bf16
from robustmaps.engine.views.stages import checkpoint_stages, find_stages

__all__ = ["AttackEngine", "AttackView", "Objective", "ViewOptions", "plain_view", "require_compiler"]

# A copy takes about as long as a step of training; some schedules change an attribute every epoch.
_MOST_RENEWALS = 500


class AttackEngine:
    """Makes views of one network as its weights change.

    Args:
        model: the network; it is never changed. If its structure or a plain attribute is another at the next view, or
            it has members in a plain list and their weights are, a new copy is made.
        options: how views are made.

    Attributes:
        made: the options of the view that was made: some may not apply to the network. None before the first view.
        folded: the pairs that were folded in the view.

    Raises:
        InputError: the network's parameters have no values, or nothing can compile it here.
    """

    def __init__(self, model: nn.Module, options: ViewOptions | None = None) -> None:
        check_values(model)
        self.model = model
        self.options = options or ViewOptions()
        if parameter_dtype(model) not in (None, torch.float32):
            self.options = replace(self.options, precision="fp32")  # it has a precision of its own
        self.made: ViewOptions | None = None
        self.folded: tuple[FoldablePair, ...] = ()
        self._shadow: nn.Module | None = None
        self._view: AttackView | None = None
        self._attributes: list[object] = []
        self._renewed = 0
        if self.options.compile:
            require_compiler()

    @contextmanager
    def view(self, example: Tensor) -> Iterator[AttackView]:
        """Open a view with the network's current weights.

        Args:
            example: a few images (N, C, H, W) in [0, 1] on the network's device, to find what the first view can fold,
                and to compare it with the network.

        Warns:
            UserWarning: once, if the network can't be viewed in the way that was asked for; names what was given up.
        """
        with outside_inference_mode():
            self.settle(example)
            assert self._view is not None  # noqa: S101 - for the type checker
            if self._shadow is not None:
                copy_weights(self.model, self._shadow, self.folded)
            yield self._view

    def settle(self, example: Tensor) -> ViewOptions:
        """Find the options that apply to the network, as `view` does at first and after a change; see there."""
        with outside_inference_mode():
            if self.made is None:
                self._renew(example)
            elif self._shadow is not None and attributes(self.model) != self._attributes:
                self._renewed += 1
                self._renew(example)
        return self.made or AS_IT_IS

    def _renew(self, example: Tensor) -> None:
        """Make the view of the network as it is now."""
        self._view, self._shadow, self.folded = None, None, ()
        if self._renewed > _MOST_RENEWALS:
            _warn(
                "attributes of the network change between passes, so attacks run on it directly: not folded, not in "
                "bf16, not compiled"
            )
            self._view, self.made = self._plain(), AS_IT_IS
            return
        self._attributes = attributes(self.model)
        self.made = self._build(example)

    def _plain(self) -> AttackView:
        """The network itself, frozen for each pass only: it may be trained between passes."""
        return AttackView(self.model, around=partial(frozen, self.model))

    def _build(self, example: Tensor) -> ViewOptions | None:
        """Make the fastest view that gives what the network gives; return its options, None if it can't run."""
        plain = self._plain()
        try:
            disturbed = frozen_copy(self.model)
        except InputError as error:
            self._view = plain
            _warn(
                "the network can't be copied, so attacks run on it directly: not folded, not in bf16, not compiled "
                f"({first_line(error.__cause__ or error)})"
            )
            return AS_IT_IS
        disturb(disturbed)
        try:
            expected = [(self.model, Sample.of(plain, example))]
        except Exception as error:  # noqa: BLE001 - the network's own code runs, and may raise anything
            self._view = plain
            try:
                plain(example)
            except Exception:  # noqa: BLE001 - it can't take these images, and says so when it is called
                return None
            _warn(f"attacks run on the network itself, since no copy can be compared with it: {first_line(error)}")
            return AS_IT_IS
        with suppress(Exception), unused(self.model):
            expected.append((disturbed, Sample.of(AttackView(disturbed), example)))
        obstacle: str | None = None
        for options in self._simpler_and_simpler():
            try:
                with unused(self.model):
                    problem = self._try(options, example, plain, expected)
            except Exception as error:  # noqa: BLE001 - as above
                problem = first_line(error)
            obstacle = obstacle or problem
            if problem is None:
                break
        else:
            self._view = plain
            options = AS_IT_IS
        if obstacle is not None:
            if self._shadow is None and expected[0][1].difference(Sample.of(plain, example), "fp32", None):
                obstacle = "its outputs change from pass to pass, so that no copy can be compared with it"
            _warn(f"attacks run without {_given_up(self.options, options) or 'a copy of the network'}: {obstacle}")
        return options

    def _try(
        self, options: ViewOptions, example: Tensor, plain: AttackView, expected: list[tuple[nn.Module, Sample]]
    ) -> str | None:
        """Make a view; say how it differs from the network on a few images, with each of some weights."""
        shadow = frozen_copy(self.model)
        folded = fold(shadow, example[:8].detach()) if options.fold else ()
        if options.channels_last:
            to_channels_last(shadow)
        compared = AttackView(shadow, replace(options, compile=False, cuda_graphs=False))
        compiled = Compiled(shadow, options.precision, cuda_graphs=options.cuda_graphs) if options.compile else None
        view = AttackView(compiled or shadow, options, shadow, instead=plain)
        if options.stages:
            checkpoint_stages(shadow, find_stages(shadow, example[:1])[0])
        if options.precision == "bf16":
            store_in_bf16(shadow)
        for source, sample in expected:
            copy_weights(source, shadow, folded)
            problem = sample.difference(Sample.of(compared, example), options.precision, parameter_dtype(self.model))
            if problem is not None:
                return problem
        self._shadow, self.folded, self._view = shadow, folded, view
        return None

    def _simpler_and_simpler(self) -> Iterator[ViewOptions]:
        """The options, then without channels-last, without folding, without both, and the same in float32."""
        simpler = [
            replace(self.options, channels_last=self.options.channels_last and last, fold=self.options.fold and fold_)
            for fold_, last in ((True, True), (True, False), (False, True), (False, False))
        ]
        simpler += [replace(options, precision="fp32") for options in simpler]
        yield from dict.fromkeys(simpler)


@contextmanager
def plain_view(model: nn.Module | AttackView) -> Iterator[AttackView]:
    """A view that runs the network itself, in its own precision and evaluation mode; an `AttackView` passes through.

    The mode of every module and ``requires_grad`` of every parameter are restored, even after an exception.

    Raises:
        InputError: the network's parameters have no values.
    """
    if isinstance(model, AttackView):
        with outside_inference_mode():
            yield model
        return
    check_values(model)
    with frozen(model), outside_inference_mode():
        yield AttackView(model)


def require_compiler() -> None:
    """Refuse ``compile`` where ``torch.compile`` can't work.

    Raises:
        InputError: there is neither a CUDA device nor a C++ compiler (``g++``, ``c++`` or ``clang++``).
    """
    if not torch.cuda.is_available() and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        raise InputError("compile=True: needs a C++ compiler on the PATH; install g++ or leave compile out")


def _given_up(asked: ViewOptions, made: ViewOptions) -> str:
    """What of the options a view has not."""
    names = [
        *(["channels-last order"] if asked.channels_last and not made.channels_last else []),
        *(["folded batch-norms"] if asked.fold and not made.fold else []),
        *([asked.precision] if asked.precision != made.precision else []),
        *(["compilation"] if asked.compile and not made.compile else []),
        *(["checkpointed stages"] if asked.stages and not made.stages else []),
    ]
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)
