"""The dashboard in a real browser: what people do there, by mouse and keyboard, and that all can read it."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from browsing import COLOURS, NEEDS_SHELL, axe_violations, launched, luminance, too_pale
from conftest import in_turns
from dashboard.admin_support import EDITING, EVENTS, FIRST, TOKEN, VIEWER_TOKEN, MadeUp, Site, event, serving
from urlward.dashboard.sources import EventPage
from urlward.state.audit import append

pytestmark = NEEDS_SHELL

PAGES = (
    "/", "/history", "/lists", "/events", "/check", "/alarms", "/allows", "/objections", "/people", "/audit",
    "/rollouts", *EDITING,
)  # fmt: skip
WIDTHS = (390, 1280)

# What can be used must say what it is, and be large enough for a finger (WCAG 2.2, 2.5.8) unless in a text.
SMALL = """() => [...document.querySelectorAll('button, input, summary, nav a, a.button')]
  .filter((element) => element.checkVisibility() && element.type !== 'hidden')
  .map((element) => [element.outerHTML, (element.closest('label.tick') ?? element).getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 24).map(([html]) => html)"""
# Nothing is to be cut, or to be found by scrolling sideways alone.
OVERFLOWING = """() => [...document.querySelectorAll('main *')]
  .filter((element) => element.checkVisibility() && !element.closest('.unseen, thead, .canvas'))
  .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.clientWidth)
  .filter((element) => getComputedStyle(element).display !== 'inline' && !element.matches('input'))
  .map((element) => element.outerHTML.slice(0, 120))"""
USABLE = {
    "button",
    "textbox",
    "checkbox",
    "link",
    "region",
    "navigation",
    "article",
    "figure",
    "image",
}
LANDMARKS = {"region", "navigation", "search", "form"}


@pytest.fixture(scope="module")
def sources() -> MadeUp:
    return MadeUp()


@pytest.fixture(scope="module")
def site(sources: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    config = tmp_path_factory.mktemp("configuration") / "urlward.toml"
    config.write_text("")
    with serving(sources, tmp_path_factory.mktemp("state"), node="gw1", config=config) as site:
        yield site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(chromium: Any, site: Site) -> Any:
    """What a browser keeps of somebody who has logged in by the keyboard alone."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{site.origin}/allows")
    assert page.url.endswith("/login")
    # By autofocus, for which the page may be looked at once more.
    # Functions, here and below: a text that is not true at once is evaluated again, which the page forbids.
    page.wait_for_function("() => document.activeElement.name === 'token'")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.origin}/")
    kept = context.storage_state()
    context.close()
    return kept


@pytest.fixture(scope="module")
def only_page(chromium: Any, session: Any) -> Iterator[Any]:
    context = chromium.new_context(storage_state=session)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    yield page
    context.close()


@pytest.fixture
def page(only_page: Any) -> Any:
    only_page.unroute_all()
    only_page.goto("about:blank")  # what the page of a test before still asks for has ended by then
    only_page.set_viewport_size({"width": 1280, "height": 900})
    only_page.complaints.clear()
    return only_page


def test_figures_and_plots_live(page: Any, site: Site):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.origin)
    page.wait_for_selector("[data-plot=stall] canvas")
    assert page.locator("canvas").count() == 4
    before = page.locator("#age time").inner_text()
    assert page.locator("#minutes tr").count() in (10, 11)
    page.locator("#age time").filter(has_not_text=before).wait_for()
    assert page.locator("#workers tr").count() == 2
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1
    assert all(url.startswith(site.origin) for url in asked)
    # Something is drawn in each.
    drawn = """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
      .some((value, n) => n % 4 === 3 && value > 200)"""
    assert all(page.eval_on_selector_all("canvas", f"all => all.map({drawn})"))
    assert page.complaints == []


def test_a_lost_server_is_said(page: Any, site: Site):
    page.goto(site.origin)
    page.get_by_text("Live.").wait_for()
    page.route("**/api/now*", lambda route: route.abort())
    page.get_by_text("No answer: these are the last figures.").wait_for()


def test_what_is_checked_leaves_no_trace(page: Any, site: Site, sources: MadeUp):
    page.goto(f"{site.origin}/check")
    page.get_by_label("URL").fill("http://blocked.example/secret")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Verdict: block").wait_for()
    assert "no rule fits" in page.locator("#answer").inner_text()
    assert page.url == f"{site.origin}/check"
    assert sources.told[-1][1] == "http://blocked.example/secret"
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert page.complaints == []


def test_an_allow_is_made_and_ended(page: Any, site: Site, sources: MadeUp):
    page.goto(f"{site.origin}/allows")
    page.get_by_label("URL", exact=False).first.fill("http://blocked.example/secret")
    page.get_by_label("Why", exact=False).last.fill("ticket 31")
    page.get_by_role("button", name="Allow").click()
    page.get_by_role("status").filter(has_text="in force").wait_for()
    assert "secret" not in page.url
    (id_,) = sources.in_force
    card = page.get_by_role("article").filter(has_text=id_)
    card.get_by_label("Why it ends").fill("done")
    card.get_by_role("button", name=f"End {id_}").click()
    page.get_by_text("The allow has ended.").wait_for()
    assert page.get_by_role("article").count() == 0


def test_an_objection_is_granted(page: Any, site: Site, sources: MadeUp):
    sources.decided.clear()
    page.goto(f"{site.origin}/objections")
    page.get_by_text("Decide").click()
    page.get_by_label("Why").fill("the list was corrected")
    page.get_by_role("button", name="Grant").click()
    page.get_by_text("The objection is decided.").wait_for()
    assert "granted" in page.get_by_role("article").inner_text()


def test_a_person_is_added_changed_and_removed(page: Any, site: Site):
    page.goto(f"{site.origin}/people")
    page.get_by_label("Name").fill("Eva Diaz")
    page.get_by_label("Days").fill("30")
    page.get_by_label("an operator").check()
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="Token of Eva Diaz").wait_for()
    token = page.locator("#token").inner_text()
    assert len(token) >= 43
    card = page.get_by_role("article").filter(has_text="Eva Diaz")
    assert "operator" in card.inner_text()
    card.get_by_role("button", name="Make Eva Diaz viewer").click()
    page.get_by_text("The person has the other role").wait_for()
    assert token not in page.content()
    card.get_by_role("button", name="Remove Eva Diaz").click()
    page.get_by_text("The person is removed").wait_for()
    assert card.count() == 0
    assert page.complaints == []


def test_a_viewer_sees_no_button(chromium: Any, site: Site):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{site.origin}/login")
    page.get_by_label("Token").fill(VIEWER_TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.origin}/")
    assert "Vic, viewer" in page.get_by_role("banner").inner_text()
    assert page.get_by_role("link", name="People").count() == 0
    for path, buttons in (
        ("/lists", 0),
        ("/rollouts", 0),
        ("/allows", 0),
        ("/objections", 0),
        ("/events", 1),
        ("/check", 1),
    ):
        page.goto(site.origin + path)
        assert page.locator("main").get_by_role("button").count() == buttons, path
    context.close()


def test_who_changed_what_is_found(page: Any, site: Site):
    page.goto(f"{site.origin}/audit")
    page.get_by_role("heading", name="The chain holds").wait_for()
    page.get_by_label("Person").fill("ann")
    page.get_by_label("People").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/audit?who=ann*kind=people")
    rows = page.locator("#found tbody").inner_text()
    assert "Ann (dashboard)" in rows or "No line fits." in rows
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "urlward-audit.csv"
    assert page.complaints == []


def test_a_bundle_is_downloaded(page: Any, site: Site):
    page.goto(f"{site.origin}/alarms")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the bundle").click()
    assert download.value.suggested_filename == "urlward-support.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"about.json", "configuration.json", "status.json", "metrics.txt"} <= {*archive.namelist()}


def test_an_objection_is_declined(page: Any, site: Site, sources: MadeUp):
    sources.decided.clear()
    page.goto(f"{site.origin}/objections")
    page.get_by_text("Decide").click()
    page.get_by_label("Why").fill("the list is right")
    page.get_by_role("button", name="Decline").click()
    page.get_by_text("The objection is decided.").wait_for()
    assert "declined" in page.get_by_role("article").inner_text()
    sources.decided.clear()


def test_a_feed_is_fetched_and_a_refused_list_accepted(page: Any, site: Site, sources: MadeUp):
    sources.refused = True
    page.goto(f"{site.origin}/lists")
    page.get_by_role("button", name="Refresh hotline now").click()
    page.get_by_text("The feed is being fetched.").wait_for()
    page.get_by_label("Why it is right").fill("the body has merged two lists")
    page.get_by_role("button", name="Accept the refused list of phishing").click()
    page.get_by_text("The list is let through once.").wait_for()
    assert [told[:2] for told in sources.told[-2:]] == [("refresh", "hotline"), ("accept", "phishing")]
    assert page.get_by_role("button", name="Accept the refused list of phishing").count() == 0
    sources.refused = True


def test_a_published_list_is_rolled_back_released_and_offered(page: Any, site: Site, sources: MadeUp):
    page.goto(f"{site.origin}/rollouts")
    games = page.get_by_role("article", name="games")
    assert "Held by Ann: wrong" in games.inner_text()
    games.get_by_label("Why").first.fill("mended")
    games.get_by_role("button", name="Release games").click()
    page.get_by_text("The list is released").wait_for()
    phishing = page.get_by_role("article", name="phishing")
    assert "12; 0.21 % of requests before" in phishing.inner_text()
    assert "Does not have it in force yet." in phishing.inner_text()
    phishing.get_by_label("Why").first.fill("as it should be")
    phishing.get_by_role("button", name="Offer phishing to all").click()
    page.get_by_text("The version is offered to all.").wait_for()
    hotline = page.get_by_role("article", name="hotline")
    hotline.get_by_label("Version").select_option("7")
    hotline.get_by_label("Why").fill("half the web")
    hotline.get_by_role("button", name="Roll hotline back on all nodes").click()
    page.get_by_text("All nodes have the earlier version").wait_for()
    who = "Ann (dashboard)"
    assert sources.told[-3:] == [
        ("rollout", "release", "games", None, "mended", who),
        ("rollout", "promote", "phishing", None, "as it should be", who),
        ("rollout", "rollback", "hotline", 7, "half the web", who),
    ]
    assert page.complaints == []


def test_what_is_found_is_exported(page: Any, site: Site):
    page.goto(f"{site.origin}/events?kind=cut&since=2026-11-26")
    for link, name in (("CSV", "urlward-events.csv"), ("JSON Lines", "urlward-events.jsonl")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link).click()
        assert download.value.suggested_filename == name
        assert "cut" in download.value.path().read_text()


def test_kinds_are_chosen(page: Any, site: Site):
    page.goto(f"{site.origin}/events")
    page.get_by_text("List, entry and kinds").click()
    page.get_by_label("would block").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/events?*kind=would-block*")
    assert set(page.locator("td .badge").all_inner_texts()) == {"would block"}
    assert page.get_by_label("would block").is_checked()


def test_who_logs_out_is_out(chromium: Any, site: Site):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site.origin)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{site.origin}/events")
    assert page.url.endswith("/login")
    context.close()


def test_a_hundred_thousand_events(page: Any, site: Site):
    page.goto(f"{site.origin}/events")
    for turn in range(1, 4):
        page.get_by_role("link", name="Older").click()
        page.get_by_text(f"{EVENTS - 50 * turn - 1:06d}", exact=True).wait_for()
    page.get_by_label("Reference").fill("0042-2XKD-93FH")
    page.keyboard.press("Enter")
    page.get_by_text("1 event; live").wait_for()
    page.get_by_role("link", name="Newest").wait_for(state="detached")
    assert page.complaints == []


def test_sections_come_anew_but_not_under_ones_hands(
    chromium: Any, session: Any, site: Site, sources: MadeUp
):
    sources.refused, sources.alarm = True, ""
    context = chromium.new_context(storage_state=session)
    page = context.new_page()
    page.clock.install()
    page.goto(f"{site.origin}/lists")
    why = page.get_by_label("Why it is right")
    why.fill("the body has")
    sources.refused = False
    with page.expect_response("**/lists"):
        page.clock.run_for(6_000)
    assert why.input_value() == "the body has"
    page.goto(f"{site.origin}/alarms")
    assert "No alarm." in page.locator("#current").inner_text()
    sources.alarm = "stale"
    with page.expect_response("**/alarms"):
        page.clock.run_for(6_000)
    page.get_by_text("1 alarm.").wait_for()
    sources.refused, sources.alarm = True, ""
    context.close()


@pytest.mark.parametrize("path", in_turns(*PAGES))
def test_the_keyboard_reaches_all(page: Any, site: Site, path: str):
    assert page.goto(site.origin + path).ok
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reachable = """() => [...document.querySelectorAll('main :is(a, button, input, summary, [tabindex="0"])')]
      .filter(e => e.type !== 'hidden' && e.checkVisibility()).length"""
    count = page.evaluate(reachable)
    seen = """() => { const e = document.activeElement; const style = getComputedStyle(e);
      // The button in a field for dates, which the browser draws, has its own outline, out of a page's sight.
      const inner = e.type === 'date' && !e.matches(':focus');
      const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
      return [e.matches('main *'), outlined || inner]; }"""
    for _ in range(min(count, 12)):
        page.keyboard.press("Tab")
        assert page.evaluate(seen) == [True, True]


@pytest.mark.parametrize("path", in_turns("/login", *PAGES))
def test_a_screen_reader_finds_its_way(page: Any, site: Site, sources: MadeUp, path: str):
    sources.decided.clear()
    assert page.goto(site.origin + path).ok
    for summary in page.locator("summary").all():
        summary.click()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("properties", []))
        for node in tree
        if not node["ignored"]
    ]
    roles = [role for role, _, _ in nodes]
    assert (roles.count("main"), roles.count("banner")) == (1, 1)
    assert [(role, name) for role, name, _ in nodes if role in USABLE and not name] == []
    named = [(role, name) for role, name, _ in nodes if role in LANDMARKS and name]
    assert len(named) == len(set(named))
    levels = [p["value"]["value"] for r, _, ps in nodes if r == "heading" for p in ps if p["name"] == "level"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(next_ <= level + 1 for level, next_ in pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", in_turns("/login", *PAGES))
def test_it_fits_the_screen_and_can_be_read(page: Any, site: Site, sources: MadeUp, path: str):
    sources.alarm = "stale"
    page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    assert page.goto(site.origin + path).ok
    # From the narrow to the wide: a plot takes its time to become smaller.
    for width, scheme in product(WIDTHS, ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(SMALL) == []
        colours = page.evaluate(COLOURS)
        assert len(colours) > 5
        assert too_pale(colours) == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(paper) > 0.5) == (scheme == "light")
        if width == WIDTHS[0]:
            rows_are_no_taller_than_what_is_in_them(page)


def rows_are_no_taller_than_what_is_in_them(page: Any) -> None:
    """On a phone a row is a list of its values, one a line."""
    heights = page.eval_on_selector_all(
        "table.stacked tbody tr",
        "rows => rows.map(row => [row.getBoundingClientRect().height,"
        " [...row.children].filter(cell => cell.checkVisibility()).length])",
    )
    indents = page.eval_on_selector_all(
        "table.stacked td[data-label]",
        "cells => cells.filter(cell => cell.checkVisibility())"
        ".map(cell => parseFloat(getComputedStyle(cell).paddingLeft))",
    )
    # Room for the label beside the value.
    assert all(indent >= 100 for indent in indents)
    assert [(height, cells) for height, cells in heights if height > 40 + 32 * cells] == []


@pytest.mark.parametrize("tag", in_turns("es", "fil"))
def test_each_language_fits_a_phone(page: Any, site: Site, sources: MadeUp, tag: str):
    sources.alarm = "stale"
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_extra_http_headers({"Accept-Language": tag})
    for path in (*PAGES, "/login"):
        assert page.goto(site.origin + path).ok
        assert page.evaluate("document.documentElement.lang") == tag
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate(OVERFLOWING) == [], path
        assert page.evaluate(SMALL) == [], path
    page.set_extra_http_headers({})


def test_a_language_is_chosen_at_the_foot(page: Any, site: Site):
    page.goto(f"{site.origin}/events?kind=cut")
    page.get_by_role("button", name="Español").click()
    page.get_by_role("heading", name="Eventos").wait_for()
    assert page.url == f"{site.origin}/events?kind=cut"
    page.goto(site.origin)
    page.get_by_text("En directo.").wait_for()
    page.get_by_role("button", name="English").click()
    page.get_by_role("heading", name="Now").wait_for()


def test_the_history_is_plotted(page: Any, site: Site):
    page.goto(f"{site.origin}/history")
    page.wait_for_function("() => document.querySelectorAll('canvas').length === 9")
    assert page.locator("figure").count() == 9
    drawn = """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
      .some((value, n) => n % 4 === 3 && value > 200)"""
    assert all(page.eval_on_selector_all("canvas", f"all => all.map({drawn})"))
    # What is under the cursor stands in words below.
    page.locator("[data-chart=lists] .u-over").hover()
    figure = page.locator("figure", has=page.locator("[data-chart=lists]"))
    figure.locator(".when", has_text="2026-11-25").wait_for()
    assert "hotline" in figure.locator(".legend").inner_text()
    page.get_by_role("link", name="30 days").click()
    page.get_by_role("heading", name="Traffic in steps of 1d").wait_for()
    page.wait_for_function("() => document.querySelectorAll('canvas').length === 9")
    assert page.complaints == []


@pytest.mark.parametrize("width", in_turns(*WIDTHS))
def test_times_of_a_plot_do_not_touch(chromium: Any, session: Any, site: Site, width: int):
    context = chromium.new_context(storage_state=session, viewport={"width": width, "height": 800})
    context.add_init_script("""window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;
      CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {
        const place = this.getTransform().transformPoint(new DOMPoint(x, y));
        window.drawn.push([text, place.x, Math.round(place.y), this.measureText(text).width]);
        return draw.call(this, text, x, y, ...more); };""")
    page = context.new_page()
    for span in ("24h", "7d", "30d", "400d"):
        page.goto(f"{site.origin}/history?span={span}")
        page.wait_for_selector("[data-chart=feeds] canvas")
        page.wait_for_function("() => window.drawn.some(([text]) => /^[0-9]{2}[:-][0-9]{2}$/.test(text))")
        drawn = page.evaluate("window.drawn.filter(([text]) => /^[0-9]{2}[:-][0-9]{2}$/.test(text))")
        assert len(drawn) >= 2
        for (_, x, y, wide), (text, next_x, next_y, _) in pairwise(drawn):
            if y == next_y and next_x > x:
                assert next_x - x > wide * 1.2, (span, text)
    context.close()


@pytest.mark.parametrize("path", in_turns("/", "/history", "/lists", "/events", "/alarms"))
def test_narrow_tables_are_tables_still(page: Any, site: Site, sources: MadeUp, path: str):
    """Rows that are shown as lists, or as grids, keep their roles."""
    sources.alarm = "stale"
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(site.origin + path)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(node["role"]["value"] for node in tree if not node["ignored"])
    assert roles["table"] == page.locator("table").count()
    assert roles["row"] >= page.locator("tbody tr").count()
    assert roles["columnheader"] == page.locator("thead th").count()
    assert roles["cell"] + roles["rowheader"] >= page.locator("tbody tr").count()


@pytest.mark.parametrize(
    ("state", "looks"),
    [
        pytest.param("busy", ((390, "light"),), marks=pytest.mark.turn(0, 2)),
        pytest.param("busy", ((1280, "dark"),), marks=pytest.mark.turn(1, 2)),
        pytest.param("quiet", ((390, "dark"),), marks=pytest.mark.turn(1, 2)),
        pytest.param("absent", ((390, "light"), (1280, "dark")), marks=pytest.mark.turn(0, 2)),
    ],
)
def test_axe_finds_nothing(
    page: Any,
    site: Site,
    sources: MadeUp,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    looks: tuple[tuple[int, str], ...],
):
    """With what unfolds unfolded; width and colours of each look."""
    monkeypatch.setattr(sources, "quiet", state == "quiet")
    monkeypatch.setattr(sources, "absent", state == "absent")
    monkeypatch.setattr(sources, "alarm", "stale")
    sources.decided.clear()
    others = ("/login", "/nothing", "/allows?done=ended", "/events?since=x") if state == "busy" else ()
    for path in ("/events", "/objections") if state == "absent" else (*PAGES, *others):
        page.goto(site.origin + path)
        if path == "/check":
            page.get_by_label("URL").fill("http://blocked.example/")
            page.keyboard.press("Enter")
            page.locator("#answer").wait_for()
        for width, scheme in looks:
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
            assert axe_violations(page) == "", (path, width, scheme)


def test_without_scripts_all_is_there(chromium: Any, session: Any, site: Site):
    context = chromium.new_context(storage_state=session, java_script_enabled=False)
    page = context.new_page()
    page.goto(site.origin)
    assert page.locator("#minutes tr").count() in (10, 11)
    assert page.locator("#plots").is_hidden()
    page.get_by_role("link", name="Check a URL").click()
    page.get_by_label("URL").fill("http://blocked.example/")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("heading", name="Verdict: block").wait_for()
    page.get_by_role("link", name="Rollouts").click()
    page.get_by_role("article", name="games").get_by_label("Why").first.fill("mended")
    page.get_by_role("button", name="Release games").click()
    page.get_by_text("The list is released").wait_for()
    context.close()


LONG = {
    "client": "2001:db8:1234:5678:9abc:def0:1234:5678",
    "destination": "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "list": "a-list-with-quite-a-long-name-of-a-hotline",
    "entry": "entry-" + "0123456789" * 12,
    "category": "child-sexual-abuse-material",
}


@pytest.mark.parametrize("tag", in_turns("en", "es", "fil", of=3))
def test_an_address_stands_in_one_line_whatever_else_there_is(
    page: Any, site: Site, sources: MadeUp, monkeypatch: pytest.MonkeyPatch, tag: str
):
    text = {"alarm": "stale", "text": "no successful refresh since " * 10}
    rows = [event(1) | {"entry": "0123456789abcdef", "kind": "would-block"}]
    rows += [event(2) | {"kind": "alarm", "detail": json.dumps(text)}]
    monkeypatch.setattr(sources, "events", lambda _: EventPage(rows, ""))
    page.set_viewport_size({"width": 1280, "height": 800})
    page.context.clear_cookies(name=re.compile("-language$"))  # of a test that has chosen one
    page.set_extra_http_headers({"Accept-Language": tag})
    page.goto(f"{site.origin}/events")
    assert page.evaluate("document.documentElement.lang") == tag
    lines = """cell => { const range = document.createRange(); range.selectNodeContents(cell.firstChild);
      return range.getClientRects().length; }"""
    cells = page.locator(".events tbody tr").first.locator("td").all()[6:8]
    assert [cell.inner_text()[:9] for cell in cells] == ["192.0.2.2", "198.51.10"]
    assert [cell.evaluate(lines) for cell in cells] == [1, 1]
    page.set_extra_http_headers({})


# Words of a table's cells that stand in two lines, of those that no line is too short for.
BROKEN = r"""() => [...document.querySelectorAll('main :is(td, th)')]
  .filter((cell) => cell.checkVisibility())
  .flatMap((cell) => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
      const text = walker.currentNode;
      for (const word of text.data.matchAll(/(?<!\S)\p{L}{1,14}(?![^\s:;,])/gu)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map((line) => line.top)).size > 1) found.push(word[0]);
      }
    }
    return found;
  })"""


@pytest.mark.parametrize("tag", in_turns("en", "es", "fil", of=3))
def test_no_word_is_broken_beside_a_long_value(chromium: Any, sources: MadeUp, tmp_path: Path, tag: str):
    (tmp_path / "urlward.toml").write_text("")
    detail = {"id": "a-9c9a019d", "kind": "page", "why": "needed for a lesson " * 5, "entry": "0760e3bb" * 8}
    with serving(sources, tmp_path, node="gw1", config=tmp_path / "urlward.toml") as site:
        for action in ("allowed", "own-added", "edited", "rolled-back"):
            append(site.state, "root (uid 0)", action, FIRST / 1000, **detail)
        context = chromium.new_context(extra_http_headers={"Accept-Language": tag})
        page = context.new_page()
        page.goto(f"{site.origin}/login")
        page.locator("[name=token]").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site.origin}/")
        for path in PAGES:
            page.goto(site.origin + path)
            assert page.evaluate("document.documentElement.lang") == tag
            for width in (*WIDTHS, 1130):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate(BROKEN) == [], (path, width)
        context.close()


@pytest.mark.parametrize("path", ["/own", "/people"])
def test_a_long_note_fits_the_narrowest_screen(
    page: Any, site: Site, sources: MadeUp, monkeypatch: pytest.MonkeyPatch, path: str
):
    rows = [row | {"note": "x" * 300} for row in sources.own()]
    monkeypatch.setattr(sources, "own", lambda: rows)
    page.set_viewport_size({"width": 320, "height": 800})  # as WCAG 1.4.10 has it
    page.goto(site.origin + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.parametrize("width", in_turns(*WIDTHS))
def test_long_values_fit_the_screen(
    page: Any, site: Site, sources: MadeUp, monkeypatch: pytest.MonkeyPatch, width: int
):
    allow = {"id": "a-1f", "action": "allowed", "until": 1_795_700_000}
    rows = [event(1) | LONG, event(2) | {"kind": "allow", "detail": json.dumps(allow)}]
    rows += [
        event(3) | {"kind": "alarm", "detail": json.dumps({"alarm": "stale", "text": "no refresh " * 30})}
    ]
    monkeypatch.setattr(sources, "events", lambda _: EventPage(rows, ""))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{site.origin}/events")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    table = page.locator("table.events")
    # Each value can be seen, none outside of the screen.
    for value in (*LONG.values(), "until: 2026-11-26 13:33:20Z"):
        box = table.get_by_text(value).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_ticks_of_a_plot_differ(
    chromium: Any, session: Any, site: Site, sources: MadeUp, monkeypatch: pytest.MonkeyPatch
):
    now = sources.now()
    short = {name: value[-90:] if isinstance(value, list) else value for name, value in now.items()}
    monkeypatch.setattr(sources, "now", lambda: short | {"workers": now["workers"]})
    context = chromium.new_context(storage_state=session)
    context.add_init_script("""window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;
      CanvasRenderingContext2D.prototype.fillText = function (text, ...more) {
        window.drawn.push(text); return draw.call(this, text, ...more); };""")
    page = context.new_page()
    page.goto(site.origin)
    page.wait_for_function("() => window.drawn.some((text) => /:/.test(text))")
    times = page.evaluate("window.drawn.filter((text) => /:/.test(text))")
    context.close()
    assert all(re.fullmatch(r"[0-9]{2}:[0-9]{2}:[0-9]{2}", text) for text in times), times
