"""Own entries through a dashboard: added, revealed and removed over HTTP, and their effect on traffic."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from dashboard.edit_support import CONFIG, Dashboard, blocked, reached
from e2e.support import Filter, running

SECRET = "listed.example"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Filter, Dashboard]]:
    folder, admin = tmp_path_factory.mktemp("own"), free_port()
    (folder / "first.txt").write_text("first.example\n")
    (folder / "urlward.toml").write_text(CONFIG.format(admin=admin))
    with running(folder, "--config", str(folder / "urlward.toml")) as proxy:
        proxy.secrets = (SECRET, "first.example")
        yield proxy, reached(folder, admin)


@pytest.fixture
def proxy(both: tuple[Filter, Dashboard]) -> Filter:
    return both[0]


@pytest.fixture
def dashboard(both: tuple[Filter, Dashboard]) -> Dashboard:
    return both[1]


def unreadable(state: Path) -> None:
    for path in state.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_an_entry_blocks_until_it_is_removed(proxy: Filter, dashboard: Dashboard) -> None:
    blocked(proxy, SECRET, is_blocked=False)
    row = dashboard.ask("POST", "/api/own", 201, entry=SECRET, category="games", note="case 7")
    assert (row["action"], row["kind"], row["who"]) == ("block", "domain", "admin (dashboard)")
    blocked(proxy, SECRET)
    assert dashboard.ask("GET", "/api/own") == [row]
    unreadable(dashboard.folder / "state")

    def known() -> bool:
        return ("own-entries", "own") in [
            (one["name"], one["kind"]) for one in dashboard.ask("GET", "/api/lists")
        ]

    wait_for(known, "workers to tell of the list")
    found = dashboard.ask("POST", "/api/check", url=f"http://{SECRET}/")
    assert (found["list"], found["id"]) == ("own-entries", row["id"])
    told = dashboard.ask("POST", f"/api/own/{row['id']}/reveal")
    assert told["entry"] == f"{SECRET} id={row['id']} category=games"
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", 400)
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", why="closed")
    blocked(proxy, SECRET, is_blocked=False)
    audit = [(one["action"], one["who"]) for one in dashboard.audit() if one.get("id") == row["id"]]
    assert audit == [
        ("own-added", "admin (dashboard)"),
        ("own-revealed", "admin (dashboard)"),
        ("own-removed", "admin (dashboard)"),
    ]


def test_an_entry_excuses_what_a_list_has(proxy: Filter, dashboard: Dashboard) -> None:
    blocked(proxy, "first.example")
    fields = {"entry": "http://first.example/some/page", "as": "host", "allow": "yes"}
    row = dashboard.ask("POST", "/api/own", 201, **fields)
    blocked(proxy, "first.example", is_blocked=False)
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", why="closed")
    blocked(proxy, "first.example")


def test_the_page_does_the_same(proxy: Filter, dashboard: Dashboard) -> None:
    assert dashboard.form("/login", "/login", token=dashboard.token).status == 303
    answer = dashboard.form("/own", "/own", entry="10.0.0.0/16", **{"as": "entry"})
    assert answer.status == 400
    assert b"it blocks 65536 addresses" in answer.data
    assert b'name="sure"' in answer.data
    answer = dashboard.form("/own", "/own", entry="http://", **{"as": "page"})
    assert answer.status == 400
    answer = dashboard.form(
        "/own", "/own", entry=f"http://{SECRET}/a/b.html", **{"as": "below"}, note="case 8"
    )
    assert answer.headers["Location"] == "/own?done=own_added"
    page = dashboard.page("GET", "/own").data.decode()
    assert "case 8" in page
    assert SECRET not in page
    (row,) = dashboard.ask("GET", "/api/own")
    answer = dashboard.form("/own", "/own/reveal", id=row["id"])
    assert f"http://{SECRET}/a/*".encode() in answer.data
    assert dashboard.form("/own", "/own/remove", id=row["id"], why="closed").status == 303
    assert dashboard.ask("GET", "/api/own") == []
    unreadable(dashboard.folder / "state")
