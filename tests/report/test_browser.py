"""The page in a browser: from disk, without a network, used with the keyboard."""

import shutil

import pytest

from robustmaps.report import write_report
from tests.helpers.pages import EVIL, some_page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which the dev extra brings")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("page") / "report", some_page(EVIL, "bee", "ant")).as_uri()


@pytest.fixture(scope="module")
def page(chromium, address):
    """The page, opened once; at the end there must have been no error and no request to anywhere."""
    errors = []
    page = chromium.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
    page.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or errors.append(request.url))
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("svg.main-svg").first.wait_for()
    yield page
    assert errors == []


def names(page):
    return [cell.inner_text() for cell in page.locator("#table-leaderboard tbody tr:visible th").all()]


def test_every_plot_is_drawn_and_a_name_is_text(page):
    assert page.locator(".plot svg.main-svg").count() >= page.locator(".plot").count() == 7
    assert page.evaluate("() => window.evil") is None
    assert names(page)[0] == EVIL
    assert page.locator("h1").inner_text() == EVIL
    drawn = page.locator("#plot-cascade .ytick text").all_text_contents()
    assert any("<script>" in text and "$0 %{x} &" in text for text in drawn)


@pytest.mark.parametrize("event", ["scroll", "beforeprint"])
def test_plots_far_below_wait_until_they_are_needed(chromium, address, event):
    """Drawn when they come near, or all of them before printing."""
    page = chromium.new_page(viewport={"width": 1200, "height": 300})
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    empty = page.locator(".plot:not(:has(svg.main-svg))")
    before = empty.count()
    assert before > 0
    if event == "scroll":
        page.locator(".plot").last.scroll_into_view_if_needed()
        page.locator(".plot").last.locator("svg.main-svg").first.wait_for()
    else:
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert empty.count() == 0
    page.close()


def test_sorting_with_the_keyboard(page):
    header = page.locator("#table-leaderboard thead th").nth(1)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert names(page) == ["ant", "bee", EVIL, "unknown"]  # what has no figure stays at the end
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert names(page) == [EVIL, "bee", "ant", "unknown"]
    page.locator("#table-leaderboard thead th button").first.click()
    assert header.get_attribute("aria-sort") == "none"
    assert names(page)[1:] == ["ant", "bee", "unknown"]


def test_filtering(page):
    field = page.get_by_label("Filter")
    field.fill("20 B")
    assert names(page) == ["bee"]
    assert page.locator("output").inner_text() == "1 of 4 rows"
    field.fill("")
    assert len(names(page)) == 4


def test_hovering_says_what_a_point_is(page):
    plot = page.locator("#plot-cascade")
    plot.scroll_into_view_if_needed()
    bar = plot.locator(".bars .point path").first.bounding_box()
    page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    page.wait_for_selector("#plot-cascade .hovertext")
    assert "robust: 50.0 % of images" in plot.locator(".hovertext").text_content()


@pytest.mark.parametrize("width", [360, 1366])
def test_no_sideways_scrolling(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(400)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    page.set_viewport_size({"width": 1200, "height": 800})


def test_plots_follow_the_look(page):
    page.emulate_media(color_scheme="light")
    colour = "() => getComputedStyle(document.querySelector('#plot-radius .xtitle')).fill"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    assert page.evaluate(colour) != light


def test_contrast(page):
    for look in ("light", "dark"):
        page.emulate_media(color_scheme=look)
        colours = page.evaluate(
            "() => { const s = getComputedStyle(document.documentElement); return Object.fromEntries("
            "['bg','surface','soft','text','muted','accent','good','bad','warn-bg','warn-text']"
            ".map((n) => [n, s.getPropertyValue('--' + n).trim()])); }"
        )
        for front, back in [
            *((front, back) for front in ("text", "muted", "accent") for back in ("bg", "surface", "soft")),
            *(("good", "surface"), ("bad", "surface"), ("warn-text", "warn-bg")),
        ]:
            assert contrast(colours[front], colours[back]) >= 4.5, (look, front, back)  # WCAG 2.2, 1.4.3


def test_printing(page):
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("() => document.querySelector('#plot-radius .main-svg').clientWidth") == 680
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def contrast(one, other):
    """The ratio of relative luminances, as WCAG 2.2 defines it."""
    lights = []
    for colour in (one, other):
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
