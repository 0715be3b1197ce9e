"""From the block page's form to the objection that is kept, in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import NEEDS_SHELL, axe_violations, heard
from conftest import wait_for
from e2e import test_block_page_browser
from e2e.objection_support import OPERATOR, Desks
from e2e.test_block_page_browser import LANGUAGES, OVERFLOWING, REFERENCE, WIDTHS, Site, opened, serving
from urlward.config import ObjectionsTable, PageTable
from urlward.objections.objections import message_of
from urlward.proxy.block_page import BlockPage

pytestmark = NEEDS_SHELL

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
    page = BlockPage(PageTable(operator=OPERATOR), objections=ObjectionsTable(url=desks.url))
    with serving(page) as site:
        yield site


def look(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS, f"{name}.png")), full_page=True)


def fits(page: Any, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_from_the_block_page_to_the_objection(
    browser: Any, site: Site, desks: Desks, language: str, width: int
) -> None:
    desks.taken.clear()
    with opened(browser, site, language, width) as page:
        fits(page, width)
        look(page, f"block-{language}-{width}")
        message = f"It is a mistake ({language}).\nPlease look."
        page.locator("#message").fill(message)
        page.get_by_role("button").click()
        wait_for(lambda: desks.taken, "the objection")
        (taken,) = desks.taken
        assert (taken.reference, taken.client) == (REFERENCE, "127.0.0.1")
        assert message_of(taken, desks.key) == message
        page.wait_for_url(desks.url)
        fits(page, width)
        look(page, f"received-{language}-{width}")
        assert REFERENCE in page.get_by_role("main").inner_text()
        assert axe_violations(page) == ""
        assert [text for text in page.complaints if "Policy" in text] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_desks_own_form(browser: Any, site: Site, desks: Desks, width: int) -> None:
    desks.taken.clear()
    with opened(browser, site, "en", width) as page:
        page.goto(f"{desks.url}?reference={REFERENCE}")
        fits(page, width)
        look(page, f"form-{width}")
        assert page.locator("#reference").input_value() == REFERENCE
        page.get_by_role("button").click()  # the browser wants a message first
        assert page.evaluate("document.activeElement.id") == "message"
        page.locator("#message").fill("By itself")
        page.get_by_role("button").click()
        wait_for(lambda: desks.taken, "the objection")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_form(browser: Any, site: Site, desks: Desks, scheme: str) -> None:
    with opened(browser, site, "en", scheme=scheme) as page:
        for url in (page.url, desks.url):
            page.goto(url)
            look(page, f"{'desk' if url == desks.url else 'block'}-{scheme}")
            assert axe_violations(page) == ""


@pytest.mark.parametrize("path", ["block", "desk"])
def test_a_screen_reader_names_the_fields(browser: Any, site: Site, desks: Desks, path: str) -> None:
    with opened(browser, site, "en") as page:
        if path == "desk":
            page.goto(desks.url)
        named = set(heard(page))
    assert ("textbox", "Your message") in named
    assert ("button", "Send the objection") in named
    assert (("textbox", "Reference") in named) == (path == "desk")
