"""Who changed what, over real sockets."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.admin_support import TOKEN, VIEWER_TOKEN, MadeUp, Site, serving
from dashboard.test_app import Browser
from urlward.state.audit import FILE, append

NOW = 1_795_600_000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    append(
        tmp_path, "root (uid 0)", "who", NOW, why="a letter", address="192.0.2.7", at="x", subscriber="Kim"
    )
    for number in range(60):
        append(
            tmp_path, "Bob (dashboard)", "allowed", NOW + number, id=f"a-{number}", why="<b>&", url="0123abcd"
        )
    append(tmp_path, "Ann (dashboard)", "accepted", NOW + 99, feed="hotline", why="=merged", entries=None)
    return tmp_path


@pytest.fixture
def site(state: Path) -> Iterator[Site]:
    with serving(MadeUp(), state) as site:
        yield site


@pytest.fixture
def operator(site: Site) -> Browser:
    return Browser(site).log_in(TOKEN)


@pytest.fixture
def viewer(site: Site) -> Browser:
    return Browser(site).log_in(VIEWER_TOKEN)


def asked(browser: Browser, query: str = "") -> Any:
    return json.loads(browser.get(f"/api/audit{query}").data)


def test_the_newest_are_shown_and_older_follow(operator: Browser):
    text = operator.get("/audit").data.decode()
    assert "The chain holds" in text
    assert "64 lines, the chain holds" in text
    assert text.count("<tr><td") == 50
    assert "&lt;b&gt;&amp;" in text
    assert "a-59" in text
    assert "a-3;" not in text
    older = text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    text = operator.get(older).data.decode()
    assert "a-3;" in text
    assert "a-59" not in text
    assert 'rel="next"' not in text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?who=bob", 60),
        ("?kind=lists", 1),
        ("?kind=lists&kind=people", 3),
        ("?list=hotline", 1),
        ("?since=2026-11-25T09:46:50Z&who=Bob", 50),
        ("?until=2026-11-25T09:46:40Z", 2),
        ("?who=eve", 0),
    ],
)
def test_lines_are_found(operator: Browser, query: str, count: int):
    found = asked(operator, f"{query}&limit=1000")
    assert len(found["changes"]) == count
    assert found["older"] is None
    assert found["holds"] is True
    assert operator.get(f"/audit{query}").status == 200


def test_pages_for_scripts(operator: Browser):
    first = asked(operator, "?limit=2")
    second = asked(operator, f"?limit=2&before={first['older']}")
    assert [one["line"] for page in (first, second) for one in page["changes"]] == [64, 63, 62, 61]
    assert first["changes"][0]["action"] == "person-added"


@pytest.mark.parametrize(
    "query", ["limit=0", "kind=x", "before=-1", "since=soon", "whom=a", "who=", "who=a&who=b"]
)
@pytest.mark.parametrize("path", ["/api/audit", "/audit.csv"])
def test_what_nobody_would_heed_is_refused(operator: Browser, path: str, query: str):
    assert operator.get(f"{path}?{query}").status == 400


def test_a_wrong_filter_is_said_on_the_page(operator: Browser):
    answer = operator.get("/audit?since=soon")
    assert answer.status == 400
    assert b"since: not a date or time" in answer.data


def test_it_is_exported_whole(operator: Browser):
    rows = list(csv.DictReader(io.StringIO(operator.get("/audit.csv?who=dashboard").data.decode())))
    assert len(rows) == 61
    assert rows[0]["action"] == "accepted"
    assert json.loads(rows[0]["detail"])["why"] == "=merged"
    lines = operator.get("/audit.jsonl").data.decode().splitlines()
    assert len(lines) == 64
    assert json.loads(lines[-1])["detail"]["address"] == "192.0.2.7"


def test_a_viewer_sees_who_and_what_but_no_client(operator: Browser, viewer: Browser):
    for path in ("/audit?kind=records", "/audit.csv", "/audit.jsonl", "/api/audit?kind=records"):
        mine, theirs = operator.get(path).data, viewer.get(path).data
        for secret in (b"192.0.2.7", b"Kim"):
            assert secret in mine
            assert secret not in theirs
        assert b"root (uid 0)" in theirs
        assert b"a letter" in theirs
    assert b"0123abcd" not in viewer.get("/audit.jsonl").data


def test_a_log_that_was_changed_is_seen(operator: Browser, state: Path):
    assert asked(operator)["holds"] is True
    path = state / FILE
    path.write_bytes(path.read_bytes().replace(b'"id": "a-7"', b'"id": "a-8"'))
    assert asked(operator)["holds"] is False
    text = operator.get("/audit").data.decode()
    assert "The chain does not hold" in text
    assert "was changed" in text


@pytest.mark.parametrize(
    ("page", "seen", "unseen"),
    [
        ("/allows", "a-59", "a-54"),
        ("/lists", "=merged", "a-59"),
        ("/people", "Vic", "a-59"),
        ("/objections", "Nobody yet.", "No line fits."),
    ],
)
def test_the_log_stands_beneath_each_action(operator: Browser, page: str, seen: str, unseen: str):
    text = operator.get(page).data.decode()
    foot = text[text.index('id="beneath"') :]
    assert seen in foot
    assert unseen not in foot


def test_what_is_done_stands_beneath_at_once(operator: Browser):
    operator.form("/people", name="Eva", role="viewer")
    foot = operator.get("/people").data.decode().split('id="beneath"')[1]
    assert foot.index("Eva") < foot.index("Vic")
    assert "Ann (dashboard)" in foot


def test_a_log_that_cannot_be_read_is_said_and_no_page_falls(operator: Browser, state: Path):
    (state / FILE).unlink()
    (state / FILE).mkdir()
    for page in ("/allows", "/audit"):
        assert b"Is a directory" in operator.get(page).data
