"""Make the pictures of the demonstration, of its report and of the theory in docs/images again.

    robustmaps demo && robustmaps report runs/demo && robustmaps theory --out theory
    python website/pictures.py runs/demo --theory theory

Needs Chromium and playwright (the extra dev).
"""

import argparse
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PHONE, DESK = {"width": 400, "height": 860}, {"width": 1400, "height": 1100}
SCREENS = ("body", "#trade-off", "#classes")
"""What is at the top of the screens of a phone that are shown beside each other."""
GAP = 24


def main() -> None:
    """Copy the pictures of the demonstration, and photograph its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of the demonstration, with its report")
    parser.add_argument("--theory", type=Path, help="folder of the theory's measurements (default: leave it as it is)")
    parser.add_argument("--out", type=Path, default=IMAGES)
    given = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    page = given.demo / "report" / "index.html"
    if browser is None:
        parser.error("needs Chromium: apt-get install chromium")
    if not page.is_file():
        parser.error(f"{page}: not found; make it: robustmaps report {given.demo}")
    if given.theory is not None:
        save(Image.open(given.theory / "theory.png"), given.out / "theory.png")
    for name in ("curves", "attacked"):
        save(Image.open(given.demo / f"{name}.png"), given.out / f"demo-{name}.png")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        with opened(chromium, page, DESK, "light") as tab:
            save(photograph(tab, "body"), given.out / "report.png")
        with opened(chromium, page, PHONE, "dark") as tab:
            save(beside([photograph(tab, place) for place in SCREENS]), given.out / "report-phone.png")
        chromium.close()


@contextmanager
def opened(browser: Browser, page: Path, size: dict[str, int], look: str) -> Iterator[Page]:
    """The page at a size, in a look."""
    tab = browser.new_page(viewport=size, color_scheme=look)
    tab.goto(page.resolve().as_uri())
    yield tab
    tab.close()


def photograph(tab: Page, place: str) -> Image.Image:
    """The screen whose top is at a place."""
    tab.locator(place).first.evaluate("(element) => scrollTo({ top: element.offsetTop, behavior: 'instant' })")
    return Image.open(io.BytesIO(tab.screenshot()))


def beside(screens: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = screens[0].size
    row = Image.new("RGB", (len(screens) * (width + GAP) - GAP, height), "white")
    for number, screen in enumerate(screens):
        row.paste(screen, (number * (width + GAP), 0))
    return row


def save(picture: Image.Image, path: Path) -> None:
    """With 256 colours, which is a third of the size and looks the same."""
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
