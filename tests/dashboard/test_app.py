"""The dashboard over real sockets: who gets in, what is sent, and what is written down."""

import csv
import html
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import _HTTPRequestContext

from conftest import wait_for
from dashboard.admin_support import EDITING, EVENTS, TOKEN, MadeUp, Site, join, serving
from urlward.dashboard import api, handler
from urlward.dashboard.app import MAX_BODY, DashboardSettings, make_app, serve
from urlward.dashboard.handler import BURST, EVERY, SESSION, STATIC
from urlward.dashboard.pages import SHOWN
from urlward.dashboard.sources import EventPage
from urlward.engine.dates import time_text_ms
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Grant
from urlward.records import bounded_server
from urlward.records.store import EventQuery
from urlward.state.people import change_role, remove_person

PAGES = (
    "/", "/history", "/lists", "/events", "/check", "/alarms", "/allows", "/objections", "/people", "/audit",
    "/rollouts", *EDITING,
)  # fmt: skip
FORMS = (
    "/login", "/logout", "/check", "/allows", "/allows/end", "/feeds/refresh", "/feeds/accept", "/objections",
    "/people", "/people/remove", "/people/role",
    "/rollouts/rollback", "/rollouts/release", "/rollouts/promote",
)  # fmt: skip
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SECRET_URL = "http://secret.example/listed-page?q=1"


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_600_000.0
        self.steady = 0.0

    def __call__(self) -> float:
        return self.now


class Browser:
    """Keeps cookies, follows nothing, sends the hidden field of forms."""

    def __init__(self, site: Site) -> None:
        self.origin = site.origin
        self.cookies: dict[str, str] = {}
        self.http = urllib3.PoolManager(retries=False)
        self.last_cookies: list[str] = []

    def request(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = dict(more.pop("headers", {}))
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.http.request(method, self.origin + path, headers=headers, redirect=False, **more)
        self.last_cookies = answer.headers.getlist("Set-Cookie")
        for cookie in self.last_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        return self.request("GET", path, **more)

    def form(self, page: str, path: str = "", **fields: str) -> urllib3.BaseHTTPResponse:
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', self.get(page).data.decode())
        assert xsrf
        return self.post(path or page, {"_xsrf": xsrf[1], **fields})

    def post(self, path: str, fields: dict[str, str]) -> urllib3.BaseHTTPResponse:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, body=urlencode(fields), headers=kind)

    def log_in(self, token: str = TOKEN) -> "Browser":
        assert self.form("/login", token=token).status == 303
        return self


@pytest.fixture
def sources() -> MadeUp:
    return MadeUp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(sources: MadeUp, clock: Clock, tmp_path: Path) -> Iterator[Site]:
    with serving(sources, tmp_path, node="gw1", clock=clock, steady=lambda: clock.steady) as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Browser:
    return Browser(site)


@pytest.fixture
def inside(browser: Browser) -> Browser:
    return browser.log_in()


@pytest.mark.parametrize("path", [*PAGES, "/events.csv", "/lists?done=accepted"])
def test_pages_are_for_those_who_are_in(browser: Browser, path: str):
    answer = browser.get(path)
    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    assert b"hotline" not in answer.data


@pytest.mark.parametrize("path", ["/metrics", "/api/now", "/api/events", "/api/feeds", "/api/allows"])
def test_scripts_need_the_token(browser: Browser, path: str):
    answer = browser.get(path)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert json.loads(answer.data) == {"error": "Unauthorized"}
    assert browser.get(path, headers={"Authorization": "Bearer wrong"}).status == 401
    assert browser.get(path, headers=BEARER).status == 200


def test_a_wrong_token_with_a_method_that_there_is_none_of(
    browser: Browser, caplog: pytest.LogCaptureFixture
):
    answer = browser.request("OPTIONS", "/", headers={"Authorization": "Bearer wrong"})
    assert (answer.status, b"Method Not Allowed" in answer.data, caplog.text) == (405, True, "")


def test_supervisors_need_none(browser: Browser, sources: MadeUp):
    assert json.loads(browser.get("/healthz").data) == {"status": "ok"}
    assert browser.get("/readyz").status == 200
    sources.absent = True
    answer = browser.get("/readyz")
    assert answer.status == 503
    assert json.loads(answer.data) == {"status": "failing", "checks": {"store": False, "workers": True}}


def test_prometheus_gets_its_text(browser: Browser):
    answer = browser.get("/metrics", headers=BEARER)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer.data == b"urlward_up 1\n"


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_whole(inside: Browser, path: str):
    answer = inside.get(path)
    text = answer.data.decode()
    assert answer.status == 200
    assert text.count("<h1>") == 1
    assert 'aria-current="page"' in text
    assert "Ann" in text


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nothing", "/healthz", "/metrics", "/static/now.js", "/static/x"]
)
def test_each_answer_keeps_browsers_strict(browser: Browser, path: str):
    headers = browser.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Server" not in headers
    if not path.startswith("/static/"):
        assert headers["Cache-Control"] == "no-store"


def test_no_file_is_of_a_name_that_no_file_can_have(browser: Browser):
    assert [browser.get(f"/static/{name}").status for name in ("x", "%00", "now.js%00")] == [404] * 3


def test_alarms_are_seen_at_once(inside: Browser, sources: MadeUp):
    assert b">1 alarm</a>" not in inside.get("/").data
    sources.alarm = "stale"
    assert b">1 alarm</a>: phishing: stale<" in inside.get("/").data


def test_nodes_of_a_fleet_are_shown(inside: Browser, sources: MadeUp):
    text = inside.get("/").data.decode()
    for shown in ("gw1", "failing", 'away</span> <span class="quiet">for 62m', "hotline 6", "(behind)"):
        assert shown in text
    assert [one["name"] for one in json.loads(inside.get("/api/nodes").data)] == ["gw1", "gw2", "gw3"]
    sources.absent = True
    assert b"The fleet&#39;s Valkey does not answer." in inside.get("/").data
    sources.quiet = True
    assert b"nodes-title" not in inside.get("/").data


@pytest.mark.parametrize("path", ["/login", *PAGES])
def test_nothing_is_inline_or_from_elsewhere(inside: Browser, path: str):
    text = inside.get(path).data.decode()
    assert not re.search(r"<style|<script(?![^>]* src=)|\son[a-z]+=|\sstyle=", text)
    assert not re.search(r'(?:src|href|action)="(?!/|#|\?)', text)


def test_cookies_are_kept_from_scripts_other_sites_and_plain_lines(browser: Browser):
    browser.form("/login", token=TOKEN)
    (session,) = browser.last_cookies
    assert session.startswith("urlward-")
    browser.cookies.clear()
    browser.get("/login")
    (xsrf,) = browser.last_cookies
    assert re.match(r"urlward-[0-9a-f]{8}-form=", xsrf)
    for cookie in (session, xsrf):
        assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert f"Max-Age={SESSION}" in session


@pytest.mark.parametrize(
    "path",
    [
        "/login",
        "/logout",
        "/check",
        "/allows",
        "/allows/end",
        "/feeds/refresh",
        "/feeds/accept",
        "/objections",
        "/people",
        "/people/remove",
        "/people/role",
    ],
)
def test_a_form_of_another_site_does_nothing(inside: Browser, sources: MadeUp, path: str):
    for fields in ({}, {"_xsrf": "2|00000000|00000000000000000000000000000000|1795600000"}):
        answer = inside.post(
            path, {"name": "hotline", "why": "x", "url": "http://a.example/", "for": "2h", **fields}
        )
        assert answer.status == 403
    assert sources.told == []
    assert inside.get("/").status == 200


def test_a_form_without_its_cookie_says_why(browser: Browser):
    text = browser.get("/login").data.decode()
    browser.cookies.clear()
    xsrf = re.search(r'name="_xsrf" value="([^"]+)"', text)
    assert xsrf
    answer = browser.post("/login", {"_xsrf": xsrf[1], "token": TOKEN})
    assert answer.status == 403
    assert b"over HTTPS" in answer.data


def test_a_session_alone_may_not_write_through_the_interface_for_scripts(inside: Browser, sources: MadeUp):
    assert inside.request("POST", "/api/feeds/hotline/refresh", body=b"{}").status == 403
    assert sources.told == []
    assert inside.get("/api/feeds").status == 200


def test_sessions_end_by_themselves_and_by_hand(inside: Browser, clock: Clock):
    clock.now += SESSION - 10
    assert inside.get("/").status == 200
    clock.now += 20
    assert inside.get("/").status == 303
    answer = inside.form("/login", "/allows", url="http://listed.example/", why="one")
    assert answer.status == 401
    assert b"over: log in again" in answer.data
    inside.log_in()
    before = dict(inside.cookies)
    assert inside.form("/", "/logout").headers["Location"] == "/login"
    inside.cookies = before
    assert inside.get("/").status == 303


def test_wrong_tokens_are_told_and_never_keep_the_right_one_out(
    browser: Browser, clock: Clock, caplog: pytest.LogCaptureFixture
):
    for _ in range(BURST):
        answer = browser.form("/login", token="wrong")
        assert answer.status == 401
        assert b"Wrong token" in answer.data
    assert browser.form("/login", token="wrong").status == 429
    assert "too many wrong tokens: login 127.0.0.1" in caplog.text
    browser.log_in()
    browser.cookies.clear()
    for _ in range(BURST):
        assert browser.get("/metrics", headers={"Authorization": "Bearer wrong"}).status == 401
    answer = browser.get("/metrics", headers={"Authorization": "Bearer wrong"})
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= EVERY + 1
    assert browser.get("/metrics", headers=BEARER).status == 200
    assert browser.form("/login", token="wrong").status == 429
    clock.steady += EVERY
    assert browser.form("/login", token="wrong").status == 401


def test_wrong_tokens_of_a_network_that_one_client_may_have_count_together(
    browser: Browser, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    numbers = count(1)
    another = property(lambda _: f"2001:db8::{next(numbers):x}", lambda *_: None)
    monkeypatch.setattr(_HTTPRequestContext, "remote_ip", another, raising=False)
    for _ in range(BURST):
        assert browser.get("/metrics", headers={"Authorization": "Bearer wrong"}).status == 401
    assert browser.get("/metrics", headers={"Authorization": "Bearer wrong"}).status == 429
    assert next(numbers) > BURST, "each from an address of its own"
    assert "too many wrong tokens: script 2001:db8::/64" in caplog.text


def test_a_check_shows_why(inside: Browser, sources: MadeUp):
    answer = inside.form("/check", url=SECRET_URL, client="192.0.2.7", at="2027-01-31 08:30")
    assert answer.status == 200
    assert b"no rule fits" in answer.data
    assert sources.told == [("check", SECRET_URL, "192.0.2.7", 1_801_384_200.0)]
    assert inside.form("/check", url=SECRET_URL, client="x").status == 400
    assert inside.form("/check", url="").status == 400


def test_allows_are_made_and_ended(inside: Browser, sources: MadeUp):
    answer = inside.form("/allows", url=SECRET_URL, why="ticket 31", host="yes", **{"for": "2h"})
    assert answer.headers["Location"] == "/allows?done=allowed"
    assert sources.told == [("allow", SECRET_URL, 7_200, "ticket 31", "Ann (dashboard)", True)]
    (id_,) = sources.in_force
    assert b"is in force" in inside.get(answer.headers["Location"]).data
    assert inside.form("/allows", "/allows/end", id=id_, why="done").status == 303
    assert sources.told[-1] == ("end", id_, "done", "Ann (dashboard)")
    answer = inside.form("/allows", "/allows/end", id="a-0", why="done")
    assert answer.status == 400
    assert b"in force" in answer.data


@pytest.mark.parametrize("wrong", [{"for": "soon"}, {"why": ""}, {"url": "http://refused.example/"}])
def test_an_allow_that_is_refused_can_be_mended(inside: Browser, sources: MadeUp, wrong: dict[str, str]):
    answer = inside.form("/allows", **({"url": SECRET_URL, "why": "ticket 31", "for": "2h"} | wrong))
    assert answer.status == 400
    assert b'role="alert"' in answer.data
    assert (wrong.get("url") or SECRET_URL).encode() in answer.data
    assert sources.in_force == {}


def test_feeds_are_fetched_and_accepted(inside: Browser, sources: MadeUp):
    assert inside.form("/lists", "/feeds/refresh", name="hotline").status == 303
    assert inside.form("/lists", "/feeds/accept", name="phishing", why="").status == 400
    assert inside.form("/lists", "/feeds/accept", name="phishing", why="merged").status == 303
    assert sources.told == [("refresh", "hotline"), ("accept", "phishing", "merged", "Ann (dashboard)")]


def test_objections_are_decided(inside: Browser, sources: MadeUp):
    fields = {"id": "o-1", "why": "checked", "url": SECRET_URL, "for": "1d"}
    answer = inside.form("/objections", **fields, answer="maybe")
    assert answer.status == 400
    assert SECRET_URL.replace("&", "&amp;").encode() in answer.data
    assert inside.form("/objections", **fields, answer="grant").status == 303
    assert inside.form("/objections", **fields, answer="decline").status == 303
    grants = [told[-1] for told in sources.told]
    assert grants == [Grant(SECRET_URL, 86_400), None]
    assert b"declined" in inside.get("/objections").data


def test_of_many_objections_a_page_has_some(
    inside: Browser, sources: MadeUp, monkeypatch: pytest.MonkeyPatch
):
    """A thousand, as many as are kept, took a second, in which nothing was answered, nor `/healthz`."""
    [one] = sources.objections()
    many = [one | {"id": f"o-{n}", "reference": f"R-{n}-"} for n in range(SHOWN + 1)]
    monkeypatch.setattr(sources, "objections", lambda: many)
    first = inside.get("/objections").data.decode()
    assert first.count("<article") == SHOWN
    assert f"R-{SHOWN}-" not in first
    [older] = re.findall(r'href="(/objections\?before=[^"]+)"', first)
    last = inside.get(older).data.decode()
    assert last.count("<article") == 1
    assert f"R-{SHOWN}-" in last
    assert f'action="{older}"' in last, "what is wrong in a form is said beside it"


def test_events_are_paged_and_found(inside: Browser):
    text = inside.get("/events").data.decode()
    assert text.count("<tr>") == 51
    older = re.search(r'rel="next" href="([^"]+)"', text)
    assert older
    second = inside.get(older[1].replace("&amp;", "&")).data.decode()
    assert f"{EVENTS - 51:06d}" in second
    assert f"<code>{EVENTS - 50:06d}</code>" not in second
    found = inside.get("/events?reference=0042-2xkd-93fh").data.decode()
    assert found.count("<tr>") == 2
    assert "192.0.2.43" in found
    assert inside.get("/events?since=31.01.2027").status == 400


@pytest.mark.ours
def test_events_are_exported_whole(inside: Browser):
    answer = inside.get("/events.csv?kind=cut")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="urlward-events.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.data.decode())))
    assert len(rows) == EVENTS / 5
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["category"] for row in rows} == {"child-abuse", "phishing", "'=cmd"}
    assert rows[0]["time"] == time_text_ms(int(rows[0]["id"][:12], 16))
    lines = inside.get("/events.jsonl?kind=cut&list=hotline").data.decode().splitlines()
    assert {json.loads(line)["list"] for line in lines} == {"hotline"}
    assert json.loads(lines[0])["time"].endswith("Z")
    assert len(lines) == EVENTS / 10


def test_many_rows_are_written_some_at_a_time(
    inside: Browser, sources: MadeUp, monkeypatch: pytest.MonkeyPatch
):
    """All of a hundred thousand own entries, in one piece, kept everybody waiting for a second."""
    rows = [{"id": f"o-{n}", "note": "x"} for n in range(2 * api.ROWS + 7)]
    monkeypatch.setattr(sources, "own", lambda: rows)
    longest, dumps = [], json.dumps

    def counted(value: Any, **more: Any) -> str:
        longest.append(len(value) if isinstance(value, list) else 0)
        return dumps(value, **more)

    monkeypatch.setattr(api.json, "dumps", counted)
    answer = inside.get("/api/own", headers=BEARER)
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.data) == rows
    assert max(longest) <= api.ROWS
    monkeypatch.setattr(sources, "own", lambda: rows[: api.ROWS])
    assert json.loads(inside.get("/api/own", headers=BEARER).data) == rows[: api.ROWS]


def test_an_export_that_breaks_off_is_not_taken_for_whole(inside: Browser, sources: MadeUp):
    whole = sources.events

    def once(wanted: EventQuery) -> EventPage:
        if wanted.before is not None:
            raise UrlwardError("the store is down")
        return whole(wanted)

    sources.events = once  # type: ignore[method-assign]
    with pytest.raises(urllib3.exceptions.HTTPError):
        inside.get("/events.csv")
    sources.absent, sources.events = True, whole  # type: ignore[method-assign]
    assert inside.get("/events.csv").status == 404


@pytest.mark.parametrize("headers", [{}, BEARER])
@pytest.mark.parametrize("act", ["removed", "viewer", "logged out", "nothing"])
@pytest.mark.ours
def test_an_export_ends_where_whoever_asked_is_out(
    inside: Browser,
    sources: MadeUp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    headers: dict[str, str],
):
    whole, now = sources.events, time.time()
    join(tmp_path, "Bob", "operator", f"{TOKEN}-of-bob")
    other = Browser(Site(int(inside.origin.rpartition(":")[2]), sources, tmp_path))
    other.cookies = dict(inside.cookies)

    def meanwhile(wanted: EventQuery) -> EventPage:
        if wanted.before is not None:
            if act == "removed":
                remove_person(tmp_path, "Ann", "test", now=now, token_file=tmp_path / "admin.token")
            elif act == "viewer":
                change_role(tmp_path, "Ann", "viewer", "test", now=now)
            elif act == "logged out":
                assert other.form("/", "/logout").status == 303
            else:
                remove_person(tmp_path, "Vic", "test", now=now, token_file=tmp_path / "admin.token")
            monkeypatch.setattr(sources, "events", whole)
        return whole(wanted)

    monkeypatch.setattr(sources, "events", meanwhile)
    # A token is in by itself, whatever becomes of the session.
    if act == "nothing" or (act == "logged out" and headers):
        assert len(inside.get("/events.csv?kind=cut", headers=headers).data.splitlines()) == EVENTS / 5 + 1
    else:
        with pytest.raises(urllib3.exceptions.HTTPError):
            inside.get("/events.csv?kind=cut", headers=headers)


@pytest.mark.ours
def test_exports_are_made_by_turns(inside: Browser, sources: MadeUp, monkeypatch: pytest.MonkeyPatch):
    whole, busy, both = sources.events, threading.Lock(), threading.Event()

    def alone(wanted: EventQuery) -> EventPage:
        if busy.acquire(blocking=False):
            both.wait(0.02)
            busy.release()
        else:
            both.set()
        return whole(wanted)

    monkeypatch.setattr(sources, "events", alone)
    with ThreadPoolExecutor(handler.SENDING) as at_once:
        found = [at_once.submit(inside.get, "/events.csv?kind=cut") for _ in range(handler.SENDING)]
    assert all(len(one.result().data.splitlines()) == EVENTS / 5 + 1 for one in found)
    assert not both.is_set()


@pytest.mark.ours
def test_exports_that_nobody_reads_are_few_and_end(
    site: Site, inside: Browser, sources: MadeUp, monkeypatch: pytest.MonkeyPatch
):
    """A hundred of them by whoever has a token kept everybody else waiting."""
    whole, asked = sources.events, list[EventQuery]()

    def counted(wanted: EventQuery) -> EventPage:
        asked.append(wanted)
        return whole(wanted)

    monkeypatch.setattr(sources, "events", counted)
    monkeypatch.setattr(handler, "UNREAD", 1.0)
    host, port = site.origin.removeprefix("http://").split(":")
    request = f"GET /events.csv HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    unread = []
    try:
        for _ in range(2 * handler.SENDING):
            unread.append(one := socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.connect((host, int(port)))
            one.sendall(request.encode())
        wait_for(lambda: sum(not one.before for one in asked) >= handler.SENDING, "their turn")
        assert inside.get("/healthz").status == 200
        # Their time is over before it is the others' turn, and then this one's.
        assert len(inside.get("/events.csv?kind=cut").data.splitlines()) == EVENTS / 5 + 1
        data = b"".join(iter(partial(unread[0].recv, 1 << 16), b""))
        assert data.count(b"\n") < EVENTS, "it was broken off, and is not taken for whole"
        assert not data.endswith(b"0\r\n\r\n")
    finally:
        for one in unread:
            one.close()


def test_an_address_of_scripts_that_there_is_nothing_at(browser: Browser) -> None:
    answer = browser.get("/api/nope", headers=BEARER)
    assert answer.status == 404
    assert json.loads(answer.data) == {"error": "Not Found"}


def test_what_is_not_configured_is_said(inside: Browser, sources: MadeUp):
    sources.absent = True
    for path in ("/events", "/objections"):
        answer = inside.get(path)
        assert answer.status == 200
        assert b'class="note"' in answer.data
    answer = inside.get("/api/events", headers=BEARER)
    assert answer.status == 404
    assert "no store" in json.loads(answer.data)["error"]


def script(browser: Browser, path: str, **body: str) -> tuple[int, Any]:
    answer = browser.request("POST", path, body=json.dumps(body), headers=BEARER)
    return answer.status, json.loads(answer.data)


def test_scripts_do_the_same(browser: Browser, sources: MadeUp):
    status, made = script(browser, "/api/allows", url=SECRET_URL, why="ticket 31", **{"for": "2h"})
    assert status == 201
    assert script(browser, f"/api/allows/{made['id']}/end", why="done")[0] == 200
    assert script(browser, "/api/check", url=SECRET_URL)[1]["verdict"] == "block"
    assert script(browser, "/api/feeds/hotline/refresh")[1] == {"said": "hotline: being fetched"}
    assert script(browser, "/api/feeds/hotline/accept", why="merged")[0] == 200
    assert script(browser, "/api/objections/o-1", answer="decline", why="no")[0] == 200
    assert [told[0] for told in sources.told] == ["allow", "end", "check", "refresh", "accept", "decide"]
    assert sources.told[0][4] == "Ann (dashboard)"
    assert sources.told[1][3] == "Ann (dashboard)"


def test_nobody_speaks_in_anothers_name(browser: Browser, sources: MadeUp):
    fields = {"url": SECRET_URL, "why": "ticket 31", "for": "2h", "who": "Bob"}
    answer = browser.request("POST", "/api/allows", body=json.dumps(fields), headers=BEARER)
    assert answer.status == 400
    assert json.loads(answer.data)["error"].startswith("who: ")
    assert not sources.told


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"url": 1}', b'{"url": "\\ud800"}', b"[" * 50_000, b"\xff"])
def test_bodies_that_are_none(browser: Browser, body: bytes):
    answer = browser.request("POST", "/api/check", body=body, headers=BEARER)
    assert answer.status == 400
    assert json.loads(answer.data)["error"].startswith("body: ")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/events?client=192.0.2.7", {}),
        ("POST", "/api/check", {"url": SECRET_URL, "clients": "192.0.2.7"}),
        ("POST", "/api/allows", {"url": SECRET_URL, "for": "2h", "why": "x", "Host": "yes"}),
    ],
)
def test_what_nobody_would_heed_is_refused(
    browser: Browser, sources: MadeUp, method: str, path: str, body: dict[str, str]
):
    """A filter that is none would give the events of all."""
    answer = browser.request(method, path, body=json.dumps(body) if body else None, headers=BEARER)
    assert answer.status == 400
    assert "there is none of that name here" in json.loads(answer.data)["error"]
    assert not sources.told


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("list=%00", "list: empty, or with a control character"),
        ("list=a%00b", "list: empty, or with a control character"),
        ("reference=", "reference: empty"),
        ("kind=block&kind=", "kind: empty"),
        ("since=%20", "since: empty"),
        ("list=a&list=b", "list: given more than once"),
        ("refrence=7F3K-9Q2M-93FH", "there is none of that name here"),
    ],
)
@pytest.mark.parametrize("path", ["/api/events", "/events.csv", "/events.jsonl"])
def test_a_filter_that_says_nothing_gives_nobody_the_events_of_all(
    browser: Browser, path: str, query: str, said: str
):
    answer = browser.get(f"{path}?{query}", headers=BEARER)
    assert answer.status == 400
    assert said in html.unescape(answer.data.decode())


def test_events_for_scripts(browser: Browser):
    first = json.loads(browser.get("/api/events?limit=2", headers=BEARER).data)
    second = json.loads(browser.get(f"/api/events?limit=2&before={first['older']}", headers=BEARER).data)
    references = [one["reference"] for page in (first, second) for one in page["events"]]
    assert references == [f"{EVENTS - n:06d}" for n in (1, 2, 3, 4)]


def test_now_gives_only_what_is_new(browser: Browser):
    first = json.loads(browser.get("/api/now", headers=BEARER).data)
    assert len(first["seconds"]) == len(first["stall"]) == 600
    second = json.loads(browser.get(f"/api/now?since={first['time']}", headers=BEARER).data)
    assert second["seconds"] == [first["time"] + 1]


def test_the_history_for_scripts(browser: Browser):
    found = json.loads(browser.get("/api/history?span=7d", headers=BEARER).data)
    assert (found["span"], found["step"], len(found["times"])) == ("7d", 3_600, 168)
    assert {len(found[name]) for name in ("counted", "requests", "p99", "errors")} == {168}
    assert next(iter(found["lists"])) == "hotline"
    for query in ("span=8d", "spam=7d"):
        assert browser.get(f"/api/history?{query}", headers=BEARER).status == 400


def test_the_history_has_its_figures_without_scripts(inside: Browser):
    text = inside.get("/history?span=24h").data.decode()
    assert text.count("<canvas") == 0
    assert len(re.findall(r'<th scope="row"><time datetime="2026-11-2[45]T', text)) == 5 * 24
    assert "\u2013</td>" in text  # while nobody counted
    assert inside.get("/history?span=forever").status == 200


def test_what_is_too_large_is_refused(site: Site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as client:
        client.sendall(b"POST /check HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1))
        assert b"400" in client.recv(4096)[:20]
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=60) as client,
        suppress(ConnectionError),  # it ends while there is something to be read, or sent
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (64 << 10))
        assert client.recv(4096) == b""


def test_nothing_that_is_typed_is_written_down(
    inside: Browser,
    sources: MadeUp,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    def broken(url: str, client: str, at: float | None) -> Any:
        raise RuntimeError(f"no idea of {url}")

    caplog.set_level(logging.DEBUG)
    inside.form("/check", url=SECRET_URL)
    inside.form("/allows", url=SECRET_URL, why="ticket 31", **{"for": "2h"})
    inside.get(f"/check?url={SECRET_URL}")
    inside.get("/secret.example/listed-page")
    sources.check = broken  # type: ignore[method-assign]
    answer = inside.form("/check", url=SECRET_URL)
    assert answer.status == 500
    assert b"secret.example" not in answer.data
    inside.request(
        "POST",
        "/check",
        body=b"url=secret.example%ff&_xsrf=%ff",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    written = caplog.text + "".join(capfd.readouterr()) + "".join(p.read_text() for p in tmp_path.iterdir())
    assert "a bug in CheckPage: RuntimeError" in caplog.text
    # What the test's own client logs is not the dashboard's.
    assert "secret.example" not in re.sub(r"(?m)^.*urllib3.*$", "", written)


def test_the_plot_library_is_the_one_that_was_published():
    """uPlot 1.6.32 from the npm registry; a new version is new hashes here."""
    sums = {name: sha256((STATIC / name).read_bytes()).hexdigest() for name in ("uplot.js", "uplot.css")}
    assert sums == {
        "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }
    assert "MIT" in (STATIC / "uplot.LICENSE").read_text()


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a token, too: what they take would be missing for records."""
    monkeypatch.setattr(bounded_server, "MOST", 2)
    with serving(MadeUp(), tmp_path) as site:
        held = [socket.create_connection(("127.0.0.1", site.port), 60) for _ in range(3)]
        assert held[0].recv(1) == b""
        assert Browser(site).request("GET", "/healthz").status == 200
        for each in held:
            each.close()


async def test_it_listens_on_ipv6_and_says_what_it_cannot(tmp_path: Path):
    app = make_app(MadeUp(), DashboardSettings(tmp_path))
    server = serve(app, "[::1]:0")
    (listening,) = server._sockets.values()
    port = listening.getsockname()[1]
    answer = await AsyncHTTPClient().fetch(f"http://[::1]:{port}/healthz")
    assert answer.code == 200
    with pytest.raises(UrlwardError, match=r"cannot listen on \[::1\]"):
        serve(app, f"[::1]:{port}")
    server.stop()


def test_those_who_wait_for_a_store_leave_others_what_needs_none(tmp_path: Path) -> None:
    release, waiting = threading.Event(), threading.Semaphore(0)

    class Stuck(MadeUp):
        def events(self, wanted: EventQuery) -> EventPage:
            waiting.release()
            release.wait(60)
            return super().events(wanted)

    with serving(Stuck(), tmp_path) as site, ThreadPoolExecutor(8) as visitors:
        asked = [visitors.submit(Browser(site).request, "GET", "/events", headers=BEARER) for _ in range(8)]
        try:
            for _ in asked:
                assert waiting.acquire(timeout=60)
            checked = Browser(site).request("GET", "/allows", headers=BEARER, timeout=30)
            assert checked.status == 200
        finally:
            release.set()
        assert [one.result().status for one in asked] == [200] * 8
