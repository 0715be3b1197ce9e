"""The block page in a real browser: layout, colours, language, and a policy that lets nothing be fetched."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from urlward.proxy.block_page import BlockNotice, BlockPage, BlockPageSettings

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="needs the Debian packages chromium and chromium-driver",
)
webdriver = pytest.importorskip("selenium.webdriver")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
REFERENCE = "7Q4M-2XKD-93FH"
LANGUAGES = ("en", "fil", "es")
WIDTHS = (360, 1280)

# Every element with text of its own: its colour, and the nearest background that is not transparent.
COLOURS = """
const solid = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
return [...document.body.querySelectorAll('*')].filter(own)
  .map(element => [element.textContent.trim(), getComputedStyle(element).color, solid(element)]);
"""
OVERFLOWING = """
const edge = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')]
  .filter(element => element.getBoundingClientRect().right > edge + 0.5).map(element => element.outerHTML);
"""


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
    settings = BlockPageSettings(
        operator="Example" * 12,  # no place to break it
        authority_url="https://operator.example/blocking",
        objection="https://operator.example/" + "a" * 90,
        help_links=(("Example helpline", "https://help.example/"),),
    )
    with serving(BlockPage(settings)) as site:
        yield site


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # A driver that is named keeps selenium from looking for one online.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


def open_page(browser: Any, site: Site, language: str, width: int = 360, scheme: str = "light") -> None:
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(f"{site.origin}/{language}")


def channels(colour: str) -> tuple[float, ...]:
    return tuple(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_screen(browser: Any, site: Site, language: str, width: int) -> None:
    open_page(browser, site, language, width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOWING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, site: Site, scheme: str) -> None:
    open_page(browser, site, "en", scheme=scheme)
    colours = browser.execute_script(COLOURS)
    assert len(colours) > 15
    assert REFERENCE in {text for text, _, _ in colours}
    poor = [(text, ink, paper) for text, ink, paper in colours if contrast(ink, paper) < 4.5]
    assert poor == []


def test_light_and_dark_differ(browser: Any, site: Site) -> None:
    open_page(browser, site, "en", scheme="light")
    light = browser.execute_script(COLOURS)
    open_page(browser, site, "en", scheme="dark")
    dark = browser.execute_script(COLOURS)
    assert len(light) == len(dark)
    for (text, ink, paper), (same, dark_ink, dark_paper) in zip(light, dark, strict=True):
        assert text == same
        assert luminance(paper) > 0.8 > 0.1 > luminance(dark_paper)
        assert luminance(ink) < luminance(dark_ink)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_screen_reader_finds_its_way(browser: Any, site: Site, language: str) -> None:
    open_page(browser, site, language)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("properties", []))
        for node in tree
        if not node["ignored"]
    ]
    roles = [role for role, _, _ in nodes]
    assert browser.execute_script("return document.documentElement.lang") == language
    assert roles.count("main") == 1
    levels = [p["value"]["value"] for r, _, ps in nodes if r == "heading" for p in ps if p["name"] == "level"]
    assert levels == [1, 2, 2, 2, 2]
    links = [name for role, name, _ in nodes if role == "link"]
    assert len(links) == 3
    assert all(links)
    regions = [name for role, name, _ in nodes if role == "region"]
    assert len(regions) == 4
    assert all(regions)
    assert "image" not in roles
    assert REFERENCE in {name for role, name, _ in nodes if role == "StaticText"}


def test_the_reference_is_seen(browser: Any, site: Site) -> None:
    open_page(browser, site, "en")
    element = browser.find_element("id", "reference")
    assert element.is_displayed()
    assert element.text == REFERENCE
    # One line: a reference that is broken in two is read out wrongly.
    assert browser.execute_script("return arguments[0].getClientRects().length", element) == 1
    size = element.value_of_css_property("font-size")
    assert float(size.removesuffix("px")) >= 20


def test_nothing_is_fetched_and_nothing_is_refused(browser: Any, site: Site) -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    site.paths.clear()
    open_page(browser, site, "es")
    assert site.paths == ["/es"]
    # Chromium reports the status of a page that is not 2xx as an error of the page.
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in complaints if "the server responded with a status of 451" not in text] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    # The icon is a data: URL; Chromium counts it as a request, though nothing leaves the browser.
    assert [url for url in sent if not url.startswith("data:")] == [f"{site.origin}/es"]
    assert browser.execute_script("return document.styleSheets[0].cssRules.length") > 10
