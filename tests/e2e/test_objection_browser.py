"""From the block page's form to the objection that is kept, in a real browser."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from e2e import test_block_page_browser
from e2e.objection_support import OPERATOR, Desks
from e2e.test_block_page_browser import (
    CHROMIUM,
    COLOURS,
    DRIVER,
    LANGUAGES,
    OVERFLOWING,
    REFERENCE,
    WIDTHS,
    Site,
    contrast,
    open_page,
    serving,
)
from urlward.objections.objections import message_of
from urlward.proxy.block_page import BlockPage, BlockPageSettings

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="needs the Debian packages chromium and chromium-driver",
)
pytest.importorskip("selenium.webdriver")

browser = test_block_page_browser.browser
SCREENSHOTS = os.environ.get("URLWARD_SCREENSHOTS")
"""A folder for what is seen, to be looked at."""


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desks]:
    desks = Desks(tmp_path_factory.mktemp("state"))
    yield desks
    desks.close()


@pytest.fixture(scope="module")
def site(desks: Desks) -> Iterator[Site]:
    page = BlockPage(BlockPageSettings(operator=OPERATOR, objection_form=desks.url))
    with serving(page) as site:
        yield site


def look(browser: Any, name: str) -> None:
    if SCREENSHOTS:
        size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
        Path(SCREENSHOTS, f"{name}.png").write_bytes(base64.b64decode(shot))


def fits(browser: Any, width: int) -> None:
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOWING) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_from_the_block_page_to_the_objection(
    browser: Any,
    site: Site,
    desks: Desks,
    language: str,
    width: int,
) -> None:
    desks.taken.clear()
    browser.get_log("browser")
    open_page(browser, site, language, width)
    fits(browser, width)
    look(browser, f"block-{language}-{width}")
    message = f"It is a mistake ({language}).\nPlease look."
    browser.find_element("id", "message").send_keys(message)
    browser.find_element("css selector", "button").click()
    wait_for(lambda: desks.taken, "the objection")
    (taken,) = desks.taken
    assert (taken.reference, taken.client) == (REFERENCE, "127.0.0.1")
    assert message_of(taken, desks.key) == message
    wait_for(lambda: browser.current_url == desks.url, "the answer")
    fits(browser, width)
    look(browser, f"received-{language}-{width}")
    assert REFERENCE in browser.find_element("tag name", "main").text
    refused = [entry["message"] for entry in browser.get_log("browser") if "Policy" in entry["message"]]
    assert refused == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_desks_own_form(browser: Any, site: Site, desks: Desks, width: int) -> None:
    desks.taken.clear()
    open_page(browser, site, "en", width)
    browser.get(f"{desks.url}?reference={REFERENCE}")
    fits(browser, width)
    look(browser, f"form-{width}")
    assert browser.find_element("id", "reference").get_attribute("value") == REFERENCE
    button = browser.find_element("css selector", "button")
    button.click()  # the browser wants a message first
    assert browser.execute_script("return document.activeElement.id") == "message"
    browser.find_element("id", "message").send_keys("By itself")
    button.click()
    wait_for(lambda: desks.taken, "the objection")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_has_contrast(browser: Any, site: Site, desks: Desks, scheme: str) -> None:
    open_page(browser, site, "en", scheme=scheme)
    for url in (browser.current_url, desks.url):
        browser.get(url)
        look(browser, f"{'desk' if url == desks.url else 'block'}-{scheme}")
        colours = browser.execute_script(COLOURS)
        assert [(text, ink, paper) for text, ink, paper in colours if contrast(ink, paper) < 4.5] == []


@pytest.mark.parametrize("path", ["block", "desk"])
def test_a_screen_reader_names_the_fields(browser: Any, site: Site, desks: Desks, path: str) -> None:
    open_page(browser, site, "en")
    if path == "desk":
        browser.get(desks.url)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]
    }
    assert ("textbox", "Your message") in named
    assert ("button", "Send the objection") in named
    assert (("textbox", "Reference") in named) == (path == "desk")
