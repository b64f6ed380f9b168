"""What the site has beside docs: pages of commands, of packages and of notebooks, and files of the project.

MkDocs calls the functions ``on_...``; ``mkdocs.yml`` names this file.
"""

import ast
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import commands
import notebooks

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/RESULTS.md", "benchmarks/DETAILS.md")
"""Files of the project that are pages of the site too."""
_LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
_COMMANDS = re.compile(r"(?<=\n\n)(?: {4}(?:robustmaps|make|pip|[A-Z_]+=).*\n)+")
"""Indented commands, which become blocks of their own kind, so that long ones are wrapped."""
_FENCED = re.compile(r"(^```.*?^```$|^ {4}.*?$|`[^`\n]+`(?!\]))", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the generated pages in the navigation."""
    for section in config.nav:
        for title, entries in section.items():
            if title == "Commands":
                entries.extend({verb: uri} for verb, uri in commands.uris().items())
            if title == "Python":
                entries.extend({name: f"reference/{name}.md"} for name in _packages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {f"reference/{name}.md": f"# {name}\n\n::: {name}\n" for name in _packages()}
    pages |= {uri: commands.page(verb) for verb, uri in commands.uris().items()}
    pages |= {name: (ROOT / name).read_text(encoding="utf-8") for name in PROJECT}
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = notebooks.as_markdown(notebook)
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Links between files of the repository become links between pages; those to anything else, their words."""
    here = page.file.src_uri if page.file.src_uri in PROJECT else f"docs/{page.file.src_uri}"

    def moved(link: re.Match[str]) -> str:
        words, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        uri = "README.md" if path == "README.md" else path.removeprefix("docs/")
        target_file = files.get_file_from_path(uri)
        if target_file is None:
            # What is in the repository and no page; all else stays, and is found missing.
            return words[1:-1] if (ROOT / path).exists() and not path.startswith("docs/") else link[0]
        if uri == page.file.src_uri and not anchor:
            return words[1:-1]
        if words[1:-1] == target:
            words = f"[{_title(target_file.content_string)}]"
        return f"{words}({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor or ''})"

    markdown = _COMMANDS.sub(lambda found: f"```console\n{textwrap.dedent(found[0])}```\n", markdown)
    parts = _FENCED.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(moved, part) for number, part in enumerate(parts))


def _title(markdown: str) -> str:
    """A page's first heading."""
    return next(line for line in markdown.splitlines() if line.startswith("# "))[2:]


def _packages() -> list[str]:
    """The package and the packages in it that are public, by their names in ``__all__``."""
    source = ROOT / "src" / "robustmaps"
    tree = ast.parse((source / "__init__.py").read_text(encoding="utf-8"))
    names: Any = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return ["robustmaps", *(f"robustmaps.{name}" for name in names if (source / name).is_dir())]
