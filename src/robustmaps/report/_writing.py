"""The files of a report: one self-contained HTML page, and its tables in Markdown, LaTeX and CSV."""

import base64
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robustmaps._version import __version__
from robustmaps.engine.files import remove, write_text
from robustmaps.engine.tables import code_in_markdown, in_markdown
from robustmaps.engine.text import visible
from robustmaps.engine.writing.outputs import claim_folder
from robustmaps.report._blocks import Block, Chart, Code, Listing, Missing, Page, Text
from robustmaps.report.charts._svg import draw, swatch

PAGE = "index.html"
_TABLES = (".md", ".tex", ".csv")
_MARK = '<meta name="generator" content="robustmaps'


def write_report(folder: str | Path, page: Page) -> Path:
    """Write a page and its tables; an existing report is replaced, anything else is left alone.

    Args:
        folder: folder for ``index.html``, ``report.md`` and ``tables/`` with a file per table and format.
        page: the page.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder exists and is not a report.
    """
    target = Path(folder)
    claim_report(target)
    # The page first: it identifies the folder as a report, even if only half written.
    write_text(target / PAGE, render_page(page))
    _write_tables(target / "tables", page)
    write_text(target / "report.md", render_markdown(page))
    return target / PAGE


def _write_tables(folder: Path, page: Page) -> None:
    """Write each table in its formats, and remove those of an earlier page that this one does not have."""
    names = {listing.name for listing in page.listings()}
    for path in folder.glob("*.csv"):
        former = [path.with_suffix(suffix) for suffix in _TABLES]
        # Only ours have all formats; anything else in the folder stays.
        if path.stem not in names and all(file.is_file() for file in former):
            for file in former:
                remove(file)
    for listing in page.listings():
        write_text(folder / f"{listing.name}.md", listing.table.to_markdown())
        chosen = listing.table.only(listing.latex) if listing.latex else listing.table
        write_text(folder / f"{listing.name}.tex", chosen.to_latex(f"tab:{listing.name}"))
        write_text(folder / f"{listing.name}.csv", listing.table.to_csv())


def render_page(page: Page) -> str:
    """The page as HTML; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("robustmaps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # Markup is our own.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    return environment.get_template("page.html.j2").render(
        page=page,
        version=__version__,
        css=_part("page.css"),
        js=_part("page.js"),
        draw=draw,
        swatch=swatch,
        kind_of=lambda block: type(block).__name__,
        data_uri=lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}",
    )


def render_markdown(page: Page) -> str:
    """The page as Markdown, without plots and pictures."""
    texts = [f"# {in_markdown(page.title)}", *map(in_markdown, page.answer)]
    texts += [f"> Caution: {in_markdown(warning)}" for warning in page.warnings]
    for part in page.parts:
        facts = [f"{f.label}: {f.value}{f' ({f.detail})' if f.detail else ''}" for f in part.facts.facts]
        texts += ["\n".join(f"- {in_markdown(fact)}" for fact in facts)] if facts else []
        for section in part.sections:
            under = [text for block in section.blocks if (text := _markdown(block))]
            title = f"{section.title}: {part.title}" if part.title else section.title
            texts += [f"## {in_markdown(title)}", *under] if under else []
    return "\n\n".join([*texts, in_markdown(page.footer)]).rstrip() + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text(text):
            return in_markdown(text)
        case Missing(text, command):
            return f"{in_markdown(text)} {code_in_markdown(command)}"
        case Listing(table=table):
            return f"{in_markdown(table.caption)}\n\n{table.to_markdown()}".strip()
        case Chart(title=title, data=data):
            return f"### {in_markdown(title)}\n\n{data.to_markdown()}".strip() if data is not None else ""
        case Code(title, text):
            text = visible(text)
            fence = "```"
            while fence in text:
                fence += "`"
            return f"### {in_markdown(title)}\n\n{fence}\n{text.rstrip()}\n{fence}"
    return ""


def _is_report(folder: Path) -> bool:
    """Whether a folder is a report by `write_report`."""
    if not (folder / PAGE).is_file():
        return False
    try:
        with open(folder / PAGE, encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(4096)
    except OSError:
        return False


def claim_report(folder: Path) -> None:
    """Refuse a folder with other files, before the page is made.

    Raises:
        InputError: the folder exists and is not a report.
    """
    claim_folder(folder, _is_report, "a report")
    claim_folder(folder / "tables", lambda path: not path.is_symlink(), "a folder of this report")


def _part(name: str) -> Markup:
    return Markup(files("robustmaps.report").joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704
