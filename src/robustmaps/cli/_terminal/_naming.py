"""How a network and its enlargement are named on the command line: the same in every verb."""

from collections.abc import Callable, Iterator, Sequence

from robustmaps.engine.errors import InputError

NAMING = frozenset({"train", "evaluate", "diagnose", "export", "analyze", "plan", "enlarge", "search", "advise"})
"""The verbs whose argument is a network."""
_EARLIER = ("--model", "--model-from")
# The parts of an enlargement as options of their own, which `enlarge` and `analyze` list; True for those with a value.
_PARTS = {
    **dict.fromkeys(("--upsample", "--upsample-mode", "--factor", "--where", "--smooth", "--activation"), True),
    "--dilate": False,
}
_FOLDED = {
    **dict.fromkeys(("evaluate", "diagnose", "export"), frozenset(_PARTS)),
    # In training, upsampled images are a setting of their own.
    "train": frozenset({"--factor", "--where", "--dilate", "--smooth", "--activation"}),
}


def named(verb: str, arguments: Sequence[str], tell: Callable[[str], None]) -> list[str]:
    """The arguments with the network in its place, and with the parts of an enlargement as one ``--enlarge``.

    Args:
        verb: the verb.
        arguments: what follows it.
        tell: prints a line, where the spelling is that of an earlier version.

    Raises:
        InputError: an option without its value, or a part given twice.
    """
    if verb not in NAMING:
        return list(arguments)
    models, rest = _taken(arguments, dict.fromkeys(_EARLIER, True))
    for option, value in models:
        tell(f"note: {option} {value}: the network is the first argument now, as in: robustmaps {verb} {value}")
    names = [value for _, value in models]
    parts, rest = _taken(rest, {option: _PARTS[option] for option in _FOLDED.get(verb, ())})
    if not parts:
        return [*names, *rest]
    given, rest = _taken(rest, {"--enlarge": True})
    texts = [value for _, value in given]
    texts += [f"{option.removeprefix('--').replace('-', '_')}={value}" for option, value in parts]
    return [*names, *rest, "--enlarge", ",".join(texts)]


def _taken(arguments: Sequence[str], options: dict[str, bool]) -> tuple[list[tuple[str, str]], list[str]]:
    """These options with their values, and the other arguments."""
    taken, rest, words = list[tuple[str, str]](), list[str](), iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in options:
            rest.append(word)
        elif equals:
            taken.append((option, value))
        else:
            taken.append((option, _value_of(option, words) if options[option] else "true"))
    return taken, rest


def _value_of(option: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None or value.startswith("--"):
        raise InputError(f"{option}: expected a value after it")
    return value
