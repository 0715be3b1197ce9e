"""The table of routes and roles, walked over real sockets: nobody gets what the table does not give them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tornado.web import RequestHandler

from dashboard.admin_support import EDITING, TOKEN, VIEWER_TOKEN, MadeUp, Site, event, serving
from dashboard.test_app import Browser
from rows import each_row
from urlward.dashboard.app import ROUTES
from urlward.dashboard.handler import NAVIGATION
from urlward.dashboard.roles import ANYBODY, RolesNeeded, Route
from urlward.state.audit import read_audit
from urlward.state.folder import StateError

PATHS = {
    "/feeds/(refresh|accept)": "/feeds/refresh",
    r"/events\.(csv|jsonl)": "/events.csv",
    r"/audit\.(csv|jsonl)": "/audit.csv",
    "/configuration/(feed|group|rule|schedule)": "/configuration/feed",
    "/feeds/(pause|resume|rollback|release)": "/feeds/pause",
    "/own/(remove|reveal)": "/own/reveal",
    "/rollouts/(rollback|release|promote)": "/rollouts/release",
    "/api/rollouts/([^/]{1,64})/(rollback|release|promote)": "/api/rollouts/hotline/release",
    "/api/configuration/(feed|group|rule|schedule)": "/api/configuration/feed",
    "/api/feeds/([^/]{1,64})/(pause|resume|rollback|release|versions)": "/api/feeds/hotline/versions",
    "/api/own/([^/]{1,64})/(remove|reveal)": "/api/own/o-0000002a/reveal",
    "/api/allows/([^/]{1,64})/end": "/api/allows/a-1/end",
    "/api/feeds/([^/]{1,64})/(refresh|accept)": "/api/feeds/hotline/accept",
    "/api/objections/([^/]{1,64})": "/api/objections/o-1",
    "/api/people/([^/]{1,200})/(remove|role)": "/api/people/nobody/remove",
}
"""A path of each pattern that is none itself."""

FOR_VIEWERS = {"/check", "/api/check", "/logout"}
"""Where a viewer may post: nothing is changed there but one's own session."""

REFUSED = (401, 403, 405, 500)


def path_of(route: Route) -> str:
    return PATHS[route.pattern] if re.search(r"[\\(\[]", route.pattern) else route.pattern


def methods() -> list[Any]:
    return [
        pytest.param(route, method, id=f"{method} {path_of(route)}")
        for route in ROUTES
        for method in route.access
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    sources = MadeUp()
    sources.count = 500
    # So that each page has all the forms that it can have.
    sources.allow("http://a.example/", 60, "ticket 31", "Ann", whole_host=False)
    with serving(sources, tmp_path_factory.mktemp("state")) as site:
        yield site


@pytest.fixture(scope="module")
def viewer(site: Site) -> Browser:
    return Browser(site).log_in(VIEWER_TOKEN)


@pytest.fixture(scope="module")
def operator(site: Site) -> Browser:
    return Browser(site).log_in(TOKEN)


def ask(browser: Browser, method: str, path: str, token: str = "") -> tuple[int, str]:
    """Status and place to go; a session posts with the field that forms have."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if method == "GET":
        answer = browser.get(path, headers=headers)
    elif token or (path == "/login" and not browser.cookies):
        answer = browser.request(method, path, headers=headers, body=b"{}" if "/api/" in path else b"")
    else:
        answer = browser.form("/login", path)
    return answer.status, answer.headers.get("Location", "")


@each_row("route", [pytest.param(one, id=one.pattern) for one in ROUTES])
def test_each_method_of_a_handler_has_a_role(route: Route):
    has = {
        name
        for name in RequestHandler.SUPPORTED_METHODS
        if getattr(route.handler, name.lower()) is not getattr(RequestHandler, name.lower())
    }
    assert has == route.access.keys()
    changes = route.post is not None and path_of(route) not in FOR_VIEWERS
    assert not changes or route.post in ("operator", ANYBODY)
    assert (route.post == ANYBODY) == (route.pattern in ("/login", "/language"))


def test_what_needs_no_token_is_known():
    found = {route.pattern for route in ROUTES if ANYBODY in route.access.values()}
    assert found == {"/login", "/language", "/healthz", "/readyz"}


@each_row(("route", "method"), methods())
def test_without_a_token(site: Site, route: Route, method: str):
    status, place = ask(Browser(site), method, path_of(route))
    if route.access[method] == ANYBODY:
        assert status in (200, 303, 400) or route.pattern == "/login"
        assert place != "/login"
    elif method == "POST" or route.handler.as_json:
        assert status == 401
    else:
        assert (status, place) == (303, "/login")


@each_row("by", ["token", "session"])
@each_row(("route", "method"), [one for one in methods() if "/login" not in str(one.id)])
def test_a_viewer(site: Site, viewer: Browser, route: Route, method: str, by: str):
    told = list(site.sources.told)  # type: ignore[attr-defined]
    browser = Browser(site) if by == "token" or route.pattern == "/logout" else viewer
    token = VIEWER_TOKEN if browser is not viewer else ""
    status, place = ask(browser, method, path_of(route), token)
    if route.access[method] == "operator":
        assert status == 403
        assert site.sources.told == told  # type: ignore[attr-defined]
    else:
        assert status not in REFUSED
        assert place != "/login" or route.pattern == "/logout"


@each_row("by", ["token", "session"])
@each_row(("route", "method"), [one for one in methods() if "/login" not in str(one.id)])
def test_an_operator(site: Site, operator: Browser, route: Route, method: str, by: str):
    browser = Browser(site) if by == "token" or route.pattern == "/logout" else operator
    token = TOKEN if browser is not operator else ""
    status, place = ask(browser, method, path_of(route), token)
    assert status not in REFUSED
    assert place != "/login" or route.pattern == "/logout"


def test_a_method_without_a_role_is_refused(site: Site, operator: Browser, monkeypatch: pytest.MonkeyPatch):
    from urlward.dashboard.pages import AlarmsPage

    async def post(handler: Any) -> None:
        handler.finish("done")

    monkeypatch.setattr(AlarmsPage, "post", post)
    assert operator.form("/check", "/alarms").status == 405


def test_a_script_that_has_forgotten_its_token_is_told_so(site: Site):
    answer = Browser(site).request("POST", "/api/check", body=b"{}")
    assert (answer.status, json.loads(answer.data)) == (401, {"error": "Unauthorized"})


def test_a_refusal_says_why(viewer: Browser):
    answer = viewer.form("/check", "/allows")
    assert answer.status == 403
    assert b"For operators only" in answer.data
    answer = viewer.request(
        "POST", "/api/allows", body=b"{}", headers={"Authorization": f"Bearer {VIEWER_TOKEN}"}
    )
    assert json.loads(answer.data) == {"error": "For operators only: you are in as a viewer."}


@each_row("path", [*(path for path, _ in NAVIGATION), *EDITING])
def test_a_viewer_is_shown_no_form_that_is_refused(site: Site, viewer: Browser, operator: Browser, path: str):
    access = RolesNeeded(ROUTES)
    pages = {"viewer": viewer.get(path), "operator": operator.get(path)}
    if access.needed(path.partition("?")[0], "GET") == "operator":
        assert pages.pop("viewer").status == 403
    for role, page in pages.items():
        text = page.data.decode()
        forms = re.findall(r'<form[^>]* method="post"[^>]* action="([^"]+)"', text)
        links = re.findall(r'<a [^>]*href="(/[^"?#]*)', text)
        assert "/logout" in forms
        needed = {access.needed(each, "POST") for each in forms}
        needed |= {access.needed(each, "GET") for each in links}
        assert None not in needed
        assert role == "operator" or "operator" not in needed


def test_a_viewer_sees_no_client_and_no_destination(site: Site, viewer: Browser, operator: Browser):
    one = event(42)
    hidden = {"client", "client_port", "destination", "destination_port", "digest"}
    for path in ("/events", "/events.csv", "/events.jsonl", "/api/events"):
        path += f"?reference={one['reference']}"
        mine, theirs = operator.get(path).data.decode(), viewer.get(path).data.decode()
        assert str(one["client"]) in mine
        assert one["reference"] in theirs
        assert one["entry"] in theirs
        assert not re.search(r"\b(192\.0\.2|198\.51\.100)\.", theirs), path
        assert "0" * 32 not in theirs
    found = json.loads(viewer.get("/api/events?limit=1").data)["events"][0]
    assert not hidden & found.keys()
    assert hidden <= json.loads(operator.get("/api/events?limit=1").data)["events"][0].keys()


def test_who_reads_events_of_clients_is_in_the_audit_log_once_an_hour(
    site: Site, viewer: Browser, operator: Browser
):
    query = "?kind=cut&since=2026-11-25&reference="
    forms = {"/events": "page", "/events.csv": "csv", "/events.jsonl": "jsonl", "/api/events": "api"}
    for path in [*forms, *forms]:
        for browser in (viewer, operator):
            assert browser.get(f"{path}{query}{event(44)['reference']}").status == 200
        assert operator.get(f"{path}{query}ZZZZ-ZZZZ-ZZZZ").status == 200  # which shows nobody
        assert operator.get(f"{path}{query}{event(44)['reference']}&before={event(49)['id']}").status == 200
        # A script's next look, at what has come since its last one.
        later = query.replace("2026-11-25", "2026-11-25T09:47Z")
        answer = operator.get(f"{path}{later}{event(44)['reference']}" + "&limit=9" * ("." not in path))
        assert event(44)["client"] in answer.data.decode()
    told = [
        line
        for line in read_audit(site.state)
        if line and line["action"] == "events-read" and line.get("reference") == event(44)["reference"]
    ]
    assert [(line["form"], line["who"]) for line in told] == [
        (form, "Ann (dashboard)") for form in forms.values()
    ]
    assert {(line["since"], *line["kinds"]) for line in told} == {("2026-11-25T00:00:00Z", "cut")}
    assert not re.search(rb"192\.0\.2\.", (site.state / "audit.jsonl").read_bytes())


def test_no_client_is_shown_where_that_cannot_be_told(
    site: Site, operator: Browser, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise StateError("No space left on device")

    monkeypatch.setattr("urlward.records.reading.append", full)
    for path in ("/events", "/events.csv", "/events.jsonl", "/api/events"):
        answer = operator.get(f"{path}?reference={event(47)['reference']}")
        assert str(event(47)["client"]) not in answer.data.decode()
        assert "No space left on device" in answer.data.decode()


def test_a_viewer_sees_no_machine_of_a_rollout(viewer: Browser, operator: Browser):
    for path in ("/rollouts", "/api/rollouts"):
        mine, theirs = operator.get(path).data.decode(), viewer.get(path).data.decode()
        for hidden in ("node1.example", "node2.example", "/srv/lists", "publisher1"):
            assert hidden in mine
            assert hidden not in theirs
        for shown in ("phishing", "canary 2", "canary: 899 blocks of 1900 requests", "canary: has serial 8"):
            assert shown in theirs, shown


def test_a_page_of_rollouts_is_there_where_lists_are_published(site: Site, operator: Browser):
    sources: Any = site.sources
    assert b'href="/rollouts"' in operator.get("/lists").data
    sources.unpublished = True
    try:
        assert b'href="/rollouts"' not in operator.get("/lists").data
        assert b"Nothing is published from here" in operator.get("/rollouts").data
        assert operator.get("/api/rollouts").status == 404
    finally:
        sources.unpublished = False
    answer = operator.form("/rollouts", "/rollouts/release", name="none", why="x")
    assert (answer.status, b"no list of that name is published" in answer.data) == (400, True)


def test_a_viewer_reads_no_objection(viewer: Browser, operator: Browser):
    for path in ("/objections", "/api/objections"):
        assert b"my shop" in operator.get(path).data
        assert b"my shop" not in viewer.get(path).data
        assert b"2XKD" in viewer.get(path).data


def test_a_role_that_changes_ends_the_session_at_once(tmp_path: Path):
    with serving(MadeUp(), tmp_path) as site:
        ann, vic = Browser(site).log_in(TOKEN), Browser(site).log_in(VIEWER_TOKEN)
        bearer = {"Authorization": f"Bearer {VIEWER_TOKEN}"}
        assert ann.form("/people", "/people/role", name="Vic", role="operator").status == 303
        assert vic.get("/").headers["Location"] == "/login"
        assert vic.get("/api/people", headers=bearer).status == 200
        assert ann.form("/people", "/people/role", name="Vic", role="viewer").status == 303
        assert vic.get("/api/people", headers=bearer).status == 403
        vic.log_in(VIEWER_TOKEN)
        assert vic.get("/").status == 200
        assert ann.form("/people", "/people/remove", name="Vic").status == 303
        assert vic.get("/").headers["Location"] == "/login"
        assert vic.get("/metrics", headers=bearer).status == 401
        assert vic.form("/login", token=VIEWER_TOKEN).status == 401


def test_people_are_added_shown_and_removed(site: Site, operator: Browser):
    answer = operator.form("/people", name="Eva Diaz", role="viewer", days="30")
    assert answer.status == 201
    token = re.search(r'id="token">([^<]+)<', answer.data.decode())
    assert token
    assert Browser(site).log_in(token[1]).get("/events").status == 200
    assert token[1].encode() not in operator.get("/people").data
    for wrong in (
        {"name": "<b>"},
        {"name": "eva diaz"},
        {"name": "Kim", "days": "0"},
        {"name": "Kim", "role": "root"},
    ):
        answer = operator.form("/people", **{"role": "viewer", **wrong})
        assert answer.status == 400
        assert b'role="alert"' in answer.data
    answer = operator.form("/people", "/people/remove", name="Ann")
    assert answer.status == 400
    assert b"nobody else is an operator" in answer.data
    assert (
        operator.form("/people", "/people/remove", name="Eva Diaz").headers["Location"]
        == "/people?done=person_removed"
    )


def test_people_for_scripts(site: Site):
    browser = Browser(site)

    def post(path: str, **fields: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = browser.request("POST", path, body=json.dumps(fields), headers=headers)
        return answer.status, json.loads(answer.data)

    status, made = post("/api/people", name="Bob B", role="viewer", days="2")
    assert status == 201
    assert made["role"] == "viewer"
    assert browser.get("/api/now", headers={"Authorization": f"Bearer {made['token']}"}).status == 200
    assert post("/api/people/Bob%20B/role", role="operator")[1]["role"] == "operator"
    listed = json.loads(browser.get("/api/people", headers={"Authorization": f"Bearer {TOKEN}"}).data)
    assert [one["name"] for one in listed] == ["Ann", "Vic", "Bob B"]
    assert all(one.keys() == {"name", "role", "created", "until", "expired"} for one in listed)
    assert post("/api/people/Bob%20B/remove")[0] == 200
    assert post("/api/people/Bob%20B/remove") == (400, {"error": "nobody has that name"})
