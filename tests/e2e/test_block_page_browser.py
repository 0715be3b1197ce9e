"""The block page in a real browser: layout, colours, language, and a policy that lets nothing be fetched."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from browsing import COLOURS, NEEDS_SHELL, axe_violations, heard, launched, luminance, too_pale
from urlward.config import PageTable
from urlward.proxy.block_page import BlockNotice, BlockPage

pytestmark = NEEDS_SHELL

REFERENCE = "7Q4M-2XKD-93FH"
LANGUAGES = ("en", "fil", "es")
WIDTHS = (360, 1280)

OVERFLOWING = """() => {
  const edge = document.documentElement.clientWidth;
  return [...document.querySelectorAll('body *')]
    .filter(element => element.getBoundingClientRect().right > edge + 0.5).map(element => element.outerHTML);
}"""


class Site:
    """Serves one block page on the loopback and keeps the paths that were asked for."""

    def __init__(self, page: BlockPage) -> None:
        self.paths: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.paths.append(self.path)
                response = page.render(
                    BlockNotice(REFERENCE, "Example list", "child-abuse"),
                    accept=self.headers["Accept"],
                    accept_language=self.path.strip("/"),
                )
                self.send_response(response.status, response.reason)
                for name, value in response.headers:
                    self.send_header(name.decode(), value.decode())
                self.end_headers()
                self.wfile.write(response.body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(page: BlockPage) -> Iterator[Site]:
    """A site that answers with a block page."""
    site = Site(page)
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    settings = PageTable(
        operator="Example" * 12,  # no place to break it
        authority_url="https://operator.example/blocking",
        objection="https://operator.example/" + "a" * 90,
        help=[{"label": "Example helpline", "url": "https://help.example/"}],
    )
    with serving(BlockPage(settings)) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@contextmanager
def opened(browser: Any, site: Site, language: str, width: int = 360, scheme: str = "light") -> Iterator[Any]:
    """The page in a language, on a phone or on a desk, with what the browser complains of."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, is_mobile=width < 600, color_scheme=scheme
    )
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    try:
        page.goto(f"{site.origin}/{language}")
        yield page
    finally:
        context.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_screen(browser: Any, site: Site, language: str, width: int) -> None:
    with opened(browser, site, language, width) as page:
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, site: Site, scheme: str) -> None:
    with opened(browser, site, "en", scheme=scheme) as page:
        colours = page.evaluate(COLOURS)
    assert len(colours) > 15
    assert REFERENCE in {text for text, _, _ in colours}
    assert too_pale(colours) == []


def test_light_and_dark_differ(browser: Any, site: Site) -> None:
    with opened(browser, site, "en", scheme="light") as page:
        light = page.evaluate(COLOURS)
    with opened(browser, site, "en", scheme="dark") as page:
        dark = page.evaluate(COLOURS)
    assert len(light) == len(dark)
    for (text, ink, paper), (same, dark_ink, dark_paper) in zip(light, dark, strict=True):
        assert text == same
        assert luminance(paper) > 0.8 > 0.1 > luminance(dark_paper)
        assert luminance(ink) < luminance(dark_ink)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_screen_reader_finds_its_way(browser: Any, site: Site, language: str) -> None:
    with opened(browser, site, language) as page:
        nodes = heard(page)
        assert page.evaluate("document.documentElement.lang") == language
        levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => one.tagName)")
    roles = [role for role, _ in nodes]
    assert roles.count("main") == 1
    assert levels == ["H1", "H2", "H2", "H2", "H2"]
    assert roles.count("heading") == len(levels)
    links = [name for role, name in nodes if role == "link"]
    assert len(links) == 3
    assert all(links)
    regions = [name for role, name in nodes if role == "region"]
    assert len(regions) == 4
    assert all(regions)
    assert "image" not in roles
    assert REFERENCE in {name for role, name in nodes if role == "StaticText"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, site: Site, language: str, scheme: str) -> None:
    with opened(browser, site, language, scheme=scheme) as page:
        assert axe_violations(page) == ""


def test_the_reference_is_seen(browser: Any, site: Site) -> None:
    with opened(browser, site, "en") as page:
        element = page.locator("#reference")
        assert element.is_visible()
        assert element.inner_text() == REFERENCE
        # One line: a reference that is broken in two is read out wrongly.
        assert element.evaluate("element => element.getClientRects().length") == 1
        size = element.evaluate("element => getComputedStyle(element).fontSize")
    assert float(size.removesuffix("px")) >= 20


def test_nothing_is_fetched_and_nothing_is_refused(browser: Any, site: Site) -> None:
    site.paths.clear()
    with opened(browser, site, "es") as page:
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        page.reload()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.styleSheets[0].cssRules.length") > 10
        complaints = page.complaints
    assert site.paths == ["/es", "/es"]
    # Chromium reports the status of a page that is not 2xx as an error of the page.
    assert [text for text in complaints if "the server responded with a status of 451" not in text] == []
    # The icon is a data: URL; Chromium counts it as a request, though nothing leaves the browser.
    assert [url for url in sent if not url.startswith("data:")] == [f"{site.origin}/es"]
