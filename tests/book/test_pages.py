"""Every page of the built book, as a reader without a network sees it.

These tests need a built book and a browser. So `make pages` runs them after
`make book`, and a plain `pytest` leaves them out: that is what the marker is for.
"""

import functools
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.parts
)
BOOK = (ROOT / "book").glob("*.ipynb")
SOURCES = {path.stem: path.read_text("utf-8") for path in BOOK}
NOTEBOOKS = sorted(SOURCES)
LIVE = {f"{name}.html" for name, text in SOURCES.items() if "hpx.live_figure(" in text}
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")
OPEN_ALL = """() => {
    document.querySelectorAll("details").forEach((box) => (box.open = true));
    document.querySelectorAll(".toggle-hidden").forEach((box) =>
        box.classList.remove("toggle-hidden"));
}"""
# The sidebars slide when the width of the window changes.
STANDS_STILL = """async () => {
    await new Promise(requestAnimationFrame);
    const slides = document.getAnimations().filter((a) => a instanceof CSSTransition);
    await Promise.allSettled(slides.map((slide) => slide.finished));
}"""


# --- The files ------------------------------------------------------------------


class Source(HTMLParser):
    """What a page's file names: its anchors, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = {""}, set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "a":
            self.links.add(attrs.get("href", ""))
        else:
            found = map(attrs.get, ("src", "href", "data", "poster", "action"))
            self.loads.update(filter(None, found))


source = functools.cache(Source)


def leads_nowhere(name, link):
    path, anchor = (
        unquote(part) for part in (urlsplit(link).path, urlsplit(link).fragment)
    )
    target = ((HTML / name).parent / path if path else HTML / name).resolve()
    if target.suffix != ".html":
        return not target.is_file()
    return not target.is_file() or anchor not in source(target).anchors


def test_every_notebook_has_a_page():
    assert PAGES, "There is no book in _build/html: run `make book` first."
    assert {f"{name}.html" for name in NOTEBOOKS} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_files_name_nothing_outside(name):
    outside = re.compile(r"([a-z]+:)?//")
    assert not [load for load in source(HTML / name).loads if outside.match(load)]


def test_stylesheets_name_nothing_outside():
    outside = re.compile(r"url\(\s*[\"']?(https?:)?//|@import\s+[\"'](https?:)?//")
    sheets = {path.name: path.read_text("utf-8") for path in HTML.rglob("*.css")}
    assert "book.css" in sheets
    assert not [name for name, text in sheets.items() if outside.search(text)]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = source(HTML / name)
    inside = [link for link in page.links | page.loads if not urlsplit(link).scheme]
    assert not [link for link in inside if leads_nowhere(name, link)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_can_be_downloaded(name):
    path = f"_sources/{name}.ipynb"
    assert path in source(HTML / f"{name}.html").links
    assert json.loads((HTML / path).read_text(encoding="utf-8"))["cells"]


# --- The pages in a browser -----------------------------------------------------


def visit(browser, address, theme, width):
    """Opens a page with the network cut, and keeps what the browser complains of."""
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
    )
    troubles = []

    def hear(message):
        if message.type in ("error", "warning"):
            troubles.append(message.text)

    def watch(request):
        if urlsplit(request.url).scheme not in ("file", "data", "blob"):
            troubles.append(f"request to {request.url}")

    page.on("console", hear)
    page.on("pageerror", lambda error: troubles.append(f"{error}"))
    page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
    page.on("request", watch)
    page.goto(address)
    page.evaluate("window.MathJax?.startup.promise")
    return page, troubles


LOOKS = [*itertools.product(PAGES, [("light", 1280, 390), ("dark", 390, 1280)])]


@pytest.fixture(
    scope="module", params=LOOKS, ids=[f"{name}-{look[0]}" for name, look in LOOKS]
)
def seen(request, browser):
    """A page in one theme, opened at one width and then brought to the other."""
    name, (theme, *widths) = request.param
    page, troubles = visit(browser, (HTML / name).as_uri(), theme, widths[0])
    page.evaluate(OPEN_ALL)
    if page.locator(".hpx-live").count():
        page.wait_for_selector(".hpx-live:not([data-check])", state="detached")
    found = {}
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(STANDS_STILL)
        found[width] = page.evaluate(CHECKS)
    live = page.locator(".hpx-live").evaluate_all(
        "all => all.map(e => e.dataset.check)"
    )
    is_dark = page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert is_dark == (theme == "dark")
    yield SimpleNamespace(name=name, troubles=troubles, found=found, live=live)
    page.close()


def test_browser_does_not_complain(seen):
    assert not seen.troubles


@pytest.mark.parametrize(
    "check", ["mathematics", "labels", "overflow", "small", "figures"]
)
def test_page_reads_well(seen, check):
    items = [f"{w} px: {x}" for w, found in seen.found.items() for x in found[check]]
    assert not items, "\n".join(items[:20])


def test_live_figures_agree_with_jax(seen, capsys):
    checks = [json.loads(check) for check in seen.live]
    for check in checks:
        with capsys.disabled():
            print(f"\n{seen.name}: live figure {check}")
        assert check["error"] <= 1e-5
    assert checks or seen.name not in LIVE


def test_search_finds_pages(browser):
    address = f"{(HTML / 'search.html').as_uri()}?q=viscosity"
    page, troubles = visit(browser, address, "light", 1280)
    page.wait_for_selector("#search-results li a")
    page.wait_for_function(
        "!document.querySelector('#search-progress')?.textContent.trim()"
    )
    page.close()
    assert not troubles
