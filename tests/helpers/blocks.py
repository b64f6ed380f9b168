"""The blocks of code on the pages of the documentation."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
}
RUN = {"python", "yaml", "sh", "bash", "commands"}
"""Kinds of blocks that are run, parsed or read by a test."""
SHOWN = {"", "text", "latex", "bibtex", "toml"}
"""Kinds that are only shown: output, files of other programs, and entry points (tests/test_contributing.py)."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|((?:^ {4}robustmaps [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"<!-- not run: (.+?) -->\s*$")
_FILE = re.compile(r"`([\w.-]+\.(?:py|yaml))`[^`\n]*:\s*$")
_COMMAND = re.compile(r"(?:^\s*|&& |-m )robustmaps ((?:(?!&&).)*)")


@dataclass(frozen=True)
class Block:
    """A block.

    Attributes:
        page: the path of its page.
        line: where it begins.
        kind: the language of its fence; ``commands`` where it is indented.
        text: what is in it.
        file: the file that it is, if the sentence before it says so.
        reason: why it can't be run, None where it can.
    """

    page: str
    line: int
    kind: str
    text: str
    file: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each robustmaps command in it, without comments."""
        for line in self.text.replace("\\\n", " ").splitlines():
            for found in _COMMAND.finditer(line.partition(" # ")[0].partition(" > ")[0]):
                yield shlex.split(found[1])


def blocks(page: str, text: str) -> list[Block]:
    """All blocks of a page."""
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()]
        file, reason = _FILE.search(before), _REASON.search(before)
        kind, inner = ("commands", match[3]) if match[3] else (match[1], match[2])
        line = before.count("\n") + 1
        found.append(Block(page, line, kind, inner, file[1] if file else None, reason[1] if reason else None))
    return found


BLOCKS = [block for page, text in PAGES.items() for block in blocks(page, text)]
