"""A page for each command: what ``robustmaps VERB --help`` prints."""

import contextlib
import io
import os
from collections.abc import Iterator

from robustmaps.cli import main
from robustmaps.cli._main import VERBS

NESTED = {"data": ("list", "prepare", "show")}
"""The commands below a verb."""
_WIDTH = "96"


def uris() -> dict[str, str]:
    """The file of each verb's page."""
    return {verb: f"commands/{verb}.md" for verb in VERBS}


def page(verb: str) -> str:
    """A verb's page, in Markdown."""
    about = VERBS[verb]
    parts = ["---\nhide: [toc]\n---", f"# robustmaps {verb}", f"{about[0].upper()}{about[1:]}.", _block(help_of(verb))]
    for nested in NESTED.get(verb, ()):
        parts += [f"## {nested}", _block(help_of(verb, nested))]
    return "\n\n".join(parts)


def help_of(*verb: str) -> str:
    """What the command prints, on lines of 96 characters."""
    out = io.StringIO()
    with _width(), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*verb, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def _block(text: str) -> str:
    return f"```console\n{text}\n```"


@contextlib.contextmanager
def _width() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
