"""The pages of the documentation, which come with the package and are read without a network."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robustmaps.engine.errors import InputError, unknown

_PACKAGE = Path(__file__).parents[2]
_FOLDERS = (_PACKAGE / "pages", _PACKAGE.parents[1] / "docs")
"""Where the pages are: in an installed package, and in the source tree."""
_QUESTION = re.compile(r"# .*\n\n\*([^*]+)\*\n")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)([^)]*)\)")
_COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        name: what ``robustmaps explain`` calls it.
        text: Markdown.
        diagnosis: whether it explains a check or a warning.
    """

    name: str
    text: str
    diagnosis: bool

    @property
    def about(self) -> str:
        """The question that it answers, or its heading."""
        question = _QUESTION.match(self.text)
        return question[1] if question else self.text.partition("\n")[0].removeprefix("# ")

    @property
    def alone(self) -> str:
        """The text for a reader without the other files: links to pages become their names."""
        return _COMMENT.sub("", _LINK.sub(_named, self.text))


@cache
def pages() -> dict[str, Page]:
    """All pages by name, those of the checks first.

    Raises:
        InputError: this copy of the package has none.
    """
    folder = next((folder for folder in _FOLDERS if (folder / "diagnose").is_dir()), None)
    if folder is None:
        raise InputError(f"no pages in {_FOLDERS[0]}; expected an installed package or the whole source tree")
    files = sorted((*folder.glob("diagnose/*.md"), *folder.glob("how-to/*.md"), *folder.glob("*.md")), key=_order)
    return {
        _name(file): Page(_name(file), file.read_text(encoding="utf-8"), file.parent.name == "diagnose")
        for file in files
        if file != folder / "README.md"
    }


def page(name: str) -> Page:
    """The page of a name, or of the path of its file.

    Raises:
        InputError: there is none; the nearest names are in the message.
    """
    found = pages()
    asked = _name(Path(name)) if name.endswith(".md") else name
    if asked not in found:
        raise unknown("page", asked or name, found)
    return found[asked]


def explain(name: str) -> str:
    """The command that shows a page, as messages name it."""
    return f"robustmaps explain {name}"


def _named(link: re.Match[str]) -> str:
    picture, words, target = link.groups()
    name = _name(Path(target.partition("#")[0]))
    if picture:
        return f"(picture: {words})"
    return f"{words} (`{explain(name)}`)" if name in pages() and _name(Path(words)) != name else words


def _name(file: Path) -> str:
    return file.parent.name if file.stem == "README" else file.stem


def _order(file: Path) -> tuple[bool, bool, str]:
    return file.parent.name != "diagnose", file.parent.name != "how-to", file.stem
