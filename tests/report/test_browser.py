"""The page in a browser: from disk, without a network, used with the keyboard."""

import itertools
import shutil
from dataclasses import replace

import pytest

from robustmaps.report import report, write_report
from tests.helpers.pages import EVIL, some_page
from tests.helpers.studies import configuration, write_run

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
    yield page
    assert errors == []


def names(page):
    return [cell.inner_text() for cell in page.locator("#table-leaderboard tbody tr:visible th").all()]


def test_every_plot_is_drawn_and_a_name_is_text(page):
    assert page.locator(".plot svg.wide:visible").count() == page.locator(".plot").count() == 7
    assert page.locator(".plot svg.narrow:visible").count() == 0
    assert page.evaluate("() => window.evil") is None
    assert names(page)[0] == EVIL
    assert page.locator("h1").inner_text() == EVIL
    drawn = page.locator("#plot-cascade svg.wide .name").all_text_contents()
    assert " ".join(drawn[:2]) == EVIL


def test_no_text_of_a_plot_is_over_another(chromium, address):
    """At both widths, as the browser measures the letters themselves, without their halo."""
    page = chromium.new_page(viewport={"width": 400, "height": 800})
    page.goto(address)
    page.add_style_tag(content=".plot text { stroke: none !important }")
    for width in (400, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        for plot in page.locator(".plot").all():
            boxes = [text.bounding_box() for text in plot.locator("text:visible").all()]
            for one, other in itertools.combinations(boxes, 2):
                across, down = (
                    min(one[at] + one[size], other[at] + other[size]) - max(one[at], other[at])
                    for at, size in (("x", "width"), ("y", "height"))
                )
                # Boxes of turned texts are larger than the texts.
                assert min(across, down) < 2 or plot.get_attribute("id") == "plot-classes"
    page.close()


def test_the_legend_switches_series(page):
    plot = page.locator("figure:has(#plot-radius)")
    key = plot.locator(".legend button").nth(1)
    series = plot.locator("svg.wide g.series").nth(1)
    assert series.is_visible()
    key.focus()
    page.keyboard.press("Enter")
    assert (key.get_attribute("aria-pressed"), series.is_visible()) == ("false", False)
    page.keyboard.press("Enter")
    assert series.is_visible()


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
    plot.locator("svg.wide .bar").first.hover()
    assert "robust: 50.0 % of images" in page.locator(".tip").text_content()


@pytest.mark.parametrize("width", [360, 1366])
def test_no_sideways_scrolling(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    page.set_viewport_size({"width": 1200, "height": 800})


@pytest.fixture(scope="module")
def study(chromium, tmp_path_factory):
    """The page of a study of networks, defences and enlargements, with all that is folded unfolded."""
    folder = tmp_path_factory.mktemp("study")
    kinds = itertools.product(("resnet8", "resnet20"), ("at", "trades"), (1, 2))
    for number, (model, defense, upsample) in enumerate(kinds):
        for seed in range(2):
            config = configuration(upsample, seed, model=model)
            config = replace(config, defense=replace(config.defense, defense=defense))
            write_run(folder, config, 40 + 3 * number + seed, flops=1000 * upsample**2)
    page = chromium.new_page()
    page.goto(report(folder, pictures=False).path.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    yield page
    page.close()


@pytest.mark.parametrize("width", [400, 1000, 1200, 1400])
def test_tables_are_within_their_boxes_and_labels_apart(study, width):
    study.set_viewport_size({"width": width, "height": 900})
    wider = (
        "() => [...document.querySelectorAll('.listing .scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
        ".map((box) => box.querySelector('table').id)"
    )
    assert study.evaluate(wider) == []
    labels = [label.bounding_box() for label in study.locator("#plot-trade-off .label:visible").all()]
    assert len(labels) == 8
    for one, other in itertools.combinations(labels, 2):
        apart = (
            max(one[at], other[at]) - min(one[at] + one[size], other[at] + other[size])
            for at, size in (("x", "width"), ("y", "height"))
        )
        assert max(apart) > -4  # boxes of letters are a little higher than these


def test_the_leaderboard_names_and_begins_with_robustness(study):
    headers = study.locator("#table-leaderboard thead th").all_text_contents()
    assert headers[:2] == ["configuration", "robust"]
    assert study.locator("#table-leaderboard tbody th").first.text_content() == "ResNet-20 ×2 · TRADES"
    fact = study.locator(".facts .value").first
    assert fact.text_content() == "ResNet-20 ×2 · TRADES"


def test_plots_follow_the_look(page):
    page.emulate_media(color_scheme="light")
    colour = "() => getComputedStyle(document.querySelector('#plot-radius .line')).stroke"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
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
    """In light colours, whatever the look of the screen."""
    page.emulate_media(color_scheme="dark", media="print")
    ink = page.evaluate("() => getComputedStyle(document.documentElement).getPropertyValue('--text').trim()")
    assert contrast(ink, "#ffffff") > 7
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.emulate_media(media="screen")


def contrast(one, other):
    """The ratio of relative luminances, as WCAG 2.2 defines it."""
    lights = []
    for colour in (one, other):
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
