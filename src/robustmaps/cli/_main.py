"""The entry point: find the verb, run it, and convert its outcome into an exit code."""

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

from robustmaps._version import __version__
from robustmaps.cli._terminal import _code
from robustmaps.cli._terminal._naming import named
from robustmaps.cli._terminal._streams import Warned, finish_output, steady_streams, stop_signals
from robustmaps.engine import ranks
from robustmaps.engine.errors import DiskFull, InputError, Interrupted, unknown
from robustmaps.engine.ranks.agreeing import compare
from robustmaps.engine.ranks.joining import joined
from robustmaps.engine.text import shell, visible
from robustmaps.engine.trust import trusting
from robustmaps.engine.writing.temporaries import why_full

LISTS = ("data", "explain", "models", "recipes")
"""The verbs that list or show what there is."""

SHARED = ("train", "evaluate", "diagnose")
"""The verbs whose work processes started by torchrun share."""

OK, FAILURE, BAD_INPUT = 0, 1, 2

VERBS = {
    "demo": "train a small CNN and its enlarged twin on real images, attack both, compare",
    "train": "train a network, standard or adversarially",
    "evaluate": "attack a trained network and write a verdict per image",
    "sweep": "make all runs of a study: a YAML file of axes, exclusions and evaluations",
    "search": "find the enlargements worth their cost, by successive halving under a budget",
    "advise": "say what to spend a budget on: train longer, or on larger maps, at the same operations",
    "runs": "list, filter and sort runs",
    "diagnose": "look for signs that a network's robustness is not real",
    "explain": "print the page of a check or warning, or any other page of the documentation, offline",
    "enlarge": "enlarge the maps of any network, and save it",
    "plan": "list all enlargements within a budget: cost, map size, gain",
    "analyze": "map sizes, receptive fields, cost and perturbation gain of a network, per stage",
    "theory": "measure how the perturbation gain depends on map size, for average and max pooling",
    "report": "write the report of a run or a study: one HTML page, and its tables as Markdown, LaTeX and CSV",
    "compare": "compare two runs, paired by image",
    "reproduce": "make a run again and compare; or make a table or figure of the paper: a ready study",
    "export": "export a run as ONNX, torch.export or safetensors, checked, with a model card",
    "data": "list, prepare or show data sets",
    "recipes": "list the recipes that train --recipe takes: as published, ours, and small ones for a CPU",
    "models": "list the networks with strides, parameters and FLOPs",
}

_EPILOGUE = """\
robustmaps VERB --help lists the options of a verb. Every verb takes --json; those that open networks take --allow-code.
robustmaps --tyro-print-completion SHELL prints a script that completes verbs and options in bash, zsh or fish.
Exit codes: 0 done, 2 bad input, 1 anything else."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = Warned()
    for number in stop_signals():
        signal.signal(number, _as_interrupt)
    with steady_streams():
        return _outcome(arguments)


def _outcome(arguments: list[str]) -> int:
    try:
        code = _run(arguments)
        finish_output()
    except InputError as error:
        return _say(_noted(f"error: {error}", error), BAD_INPUT)
    except Interrupted as stop:
        return _say(_noted(str(stop), stop), FAILURE)
    except KeyboardInterrupt as stop:
        return _say(_noted("interrupted", stop), FAILURE)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            finish_output()
        return FAILURE
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # only what was typed can have such a path
            return _say(f"error: {error}", BAD_INPUT)
        return _say(f"failed: {_named(error)}", FAILURE)
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        if why_full(error) is not None:
            return _say(f"failed: {_named(error)}", FAILURE)
        if type(error).__module__.startswith("robustmaps"):
            return _say(_noted(f"failed: {error}", error), FAILURE)
        print(visible(traceback.format_exc()), end="", file=sys.stderr)
        return _say(f"failed: {type(error).__name__}: {error}", FAILURE)
    return code


def _noted(text: str, error: BaseException) -> str:
    """The text with the notes of the error, each on a line."""
    return "\n".join([text, *getattr(error, "__notes__", ())])


def _named(error: Exception) -> str:
    """The error, with a full disk called that whoever raised it."""
    full = isinstance(error, DiskFull) or why_full(error) is None
    return str(error) if full else f"no space left on the disk ({error})"


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return OK if arguments else BAD_INPUT
    if arguments[0] in ("-V", "--version"):
        print(f"robustmaps {__version__}")
        return OK
    if arguments[0] == "--tyro-print-completion":
        from robustmaps.cli._terminal._completion import print_completion

        print_completion(arguments[1] if len(arguments) > 1 else "", VERBS, {verb: _module(verb) for verb in VERBS})
        return OK
    verb, *rest = arguments
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    with joined():
        _run_verb(verb, rest)
    return OK


def _run_verb(verb: str, rest: list[str]) -> None:
    if ranks.size() > 1:
        if verb not in SHARED:
            raise InputError(f"{verb}: can't be shared by {ranks.size()} processes, only {', '.join(SHARED)} can")
        compare("command line or version", {"command": shell(verb, *rest), "robustmaps": __version__})
        if not ranks.is_main():
            warnings.simplefilter("ignore")
    module = importlib.import_module(_module(verb))
    from robustmaps.cli._terminal._shared import tell

    rest, trust = _code.split(verb, rest)
    with trusting(trust), _heard():
        module.run(named(verb, rest, tell))


def _module(verb: str) -> str:
    return f"robustmaps.cli.{'_lists' if verb in LISTS else '_verbs'}._{verb}"


class _Nowhere(io.StringIO):
    """Forgets what is printed."""

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Only rank 0 prints results and progress."""
    if ranks.is_main():
        yield
        return
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
        yield


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: robustmaps VERB [options]",
            "",
            "Make convolutional classifiers more robust by enlarging their feature maps, and measure the gain.",
            "",
            *lines,
            "",
            _EPILOGUE,
        ]
    )


def _say(message: str, code: int) -> int:
    number = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    who = "robustmaps" if number == "0" else f"robustmaps: rank {number}"
    print(visible(f"{who}: {message}"), file=sys.stderr)
    return code


def _as_interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt
