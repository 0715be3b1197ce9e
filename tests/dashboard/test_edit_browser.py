"""Editing in a real browser: forms that are filled in as people do, and what comes of them."""

from typing import Any

import pytest

from browsing import NEEDS_SHELL
from dashboard.admin_support import MadeUp, Site
from dashboard.test_browser import chromium, only_page, page, session, site, sources  # noqa: F401 - fixtures
from urlward.config import read_config
from urlward.dashboard import editing

pytestmark = NEEDS_SHELL


@pytest.fixture(autouse=True)
def tries_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is tried in a process of its own, which takes a second (`test_editing`)."""
    monkeypatch.setattr(editing.Editor, "_try", lambda _, made: editing._checked(made))


def saved(page: Any, site: Site) -> None:  # noqa: F811
    page.wait_for_url(f"{site.origin}/configuration?done=saved")
    done, state = page.get_by_role("status").all_inner_texts()
    assert done == "Saved. The filter takes it into use now."
    assert "in force" in state, "is told when it changes, and has not to be looked for"


def test_a_feed_is_tried_added_and_changed(page: Any, site: Site, sources: MadeUp) -> None:  # noqa: F811
    before = read_config(sources.config)
    listed = sources.config.with_name("list.txt")
    listed.write_text("listed.example\nother.example\n")
    page.goto(f"{site.origin}/configuration")
    page.get_by_role("link", name="Add a feed").click()
    page.locator("main [name=name]").fill("games")
    page.locator("main [name=path]").fill(str(listed))
    page.locator("main [name=interval]").fill("often")
    page.get_by_role("button", name="Save").click()
    assert "feed.1.interval" in page.get_by_role("alert").inner_text()
    page.wait_for_function("() => document.activeElement.role === 'alert'")
    assert page.locator("main [name=name]").input_value() == "games"
    page.locator("main [name=interval]").fill("1h")
    page.get_by_role("button", name="Try it").click()
    page.get_by_text("2 entries fetched").wait_for()
    assert read_config(sources.config) == before
    page.get_by_role("button", name="Save").click()
    saved(page, site)
    page.get_by_role("link", name="Edit games").click()
    assert page.locator("main [name=name]").get_attribute("readonly") is not None
    page.locator("main [name=category]").fill("games")
    page.get_by_role("button", name="Save").click()
    saved(page, site)
    feed = read_config(sources.config).feed[1]
    assert (feed.name, feed.category, feed.interval) == ("games", "games", 3_600.0)
    page.get_by_role("button", name="Resume hotline").click()
    page.wait_for_url(f"{site.origin}/configuration?done=resumed")
    assert not read_config(sources.config).feed[0].paused
    page.get_by_role("button", name="Pause hotline").click()
    page.wait_for_url(f"{site.origin}/configuration?done=paused")
    page.get_by_role("link", name="Edit games").click()
    page.get_by_role("button", name="Remove").click()
    page.wait_for_url(f"{site.origin}/configuration?done=removed")
    assert read_config(sources.config).feed == before.feed


def test_a_group_with_a_rule_and_a_schedule(page: Any, site: Site, sources: MadeUp) -> None:  # noqa: F811
    page.goto(f"{site.origin}/configuration/schedule")
    page.locator("main [name=name]").fill("nights")
    page.locator("main [name=zone]").fill("Europe/Madrid")
    page.locator("main [name=from]").fill("22:00")
    page.locator("main [name=to]").fill("06:00")
    page.get_by_role("button", name="Save").click()
    saved(page, site)
    page.get_by_role("link", name="Add a group").click()
    page.locator("main [name=name]").fill("staff")
    page.locator("main [name=networks]").fill("198.51.100.0/24, 203.0.113.0/24")
    page.get_by_role("button", name="Save").click()
    saved(page, site)
    page.get_by_role("link", name="Add a rule for staff").click()
    page.locator("main [name=action]").select_option("allow")
    page.locator("main [name=schedule]").fill("nights")
    page.get_by_role("button", name="Save").click()
    saved(page, site)
    group = read_config(sources.config).group[1]
    assert group.networks == ("198.51.100.0/24", "203.0.113.0/24")
    assert (group.rule[0].action, group.rule[0].schedule) == ("allow", "nights")


def test_a_feed_goes_back_to_an_earlier_list(page: Any, site: Site, sources: MadeUp) -> None:  # noqa: F811
    page.goto(f"{site.origin}/configuration")
    page.get_by_role("link", name="Earlier lists of hotline").click()
    assert "Held at serial 5 by Ann: too many" in page.locator("main").inner_text()
    page.get_by_label("Why").nth(1).fill("a page too many")
    page.get_by_role("button", name="Roll back to serial 6").click()
    page.wait_for_url(f"{site.origin}/lists?done=rolled_back")
    assert sources.told[-1] == ("rollback", "hotline", 6, "a page too many", "Ann (dashboard)")
    page.goto(f"{site.origin}/lists/versions?name=hotline")
    page.get_by_label("Why").first.fill("mended")
    page.get_by_role("button", name="Release and fetch").click()
    page.wait_for_url(f"{site.origin}/lists?done=released")
    assert sources.told[-1] == ("release", "hotline", "mended", "Ann (dashboard)")


def test_an_own_entry_is_added_revealed_and_removed(page: Any, site: Site, sources: MadeUp) -> None:  # noqa: F811
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.origin}/own")
    page.locator("main [name=entry]").fill("10.0.0.0/16")
    page.get_by_role("button", name="Add").click()
    assert page.get_by_role("alert").inner_text() == "wide: it blocks 65536 addresses"
    page.wait_for_function("() => document.activeElement.role === 'alert'")  # autofocus, a moment later
    page.locator("main [name=sure]").check()
    page.get_by_role("button", name="Add").click()
    page.wait_for_url(f"{site.origin}/own?done=own_added")
    assert sources.told[-1] == ("own", "10.0.0.0/16", "", "", "", "Ann (dashboard)", True)
    page.locator("main [name=entry]").fill("http://listed.example/secret/page")
    page.locator("main [name=as]").select_option("below")
    page.locator("main [name=category]").fill("games")
    page.locator("main [name=note]").fill("case 7")
    page.get_by_role("button", name="Add").click()
    page.wait_for_url(f"{site.origin}/own?done=own_added")
    assert sources.told[-1][1:4] == ("http://listed.example/secret/*", "games", "case 7")
    page.get_by_role("button", name="Reveal o-0000002a").click()
    page.get_by_text("http://listed.example/page id=o-0000002a").wait_for()
    assert sources.told[-1] == ("own revealed", "o-0000002a", "Ann (dashboard)")
    page.get_by_label("Why").fill("closed")
    page.get_by_role("button", name="Remove o-0000002a").click()
    page.wait_for_url(f"{site.origin}/own?done=own_removed")
    assert sources.told[-1] == ("own removed", "o-0000002a", "closed", "Ann (dashboard)")
    assert not any("listed" in url for url in asked)
