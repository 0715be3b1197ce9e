"""Configuration and own entries edited through a filter's dashboard: each action over HTTP, and its effect on
traffic."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import free_port, in_turns, wait_for
from dashboard.edit_support import CONFIG, Dashboard, blocked, reached
from e2e.support import Filter, running

OWN = "listed.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editing")
    (folder / "first.txt").write_text("first.example\nother.example\n")
    (folder / "second.txt").write_text("second.example\nanother.example\n")
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> Iterator[tuple[Filter, Dashboard]]:
    admin = free_port()
    (folder / "urlward.toml").write_text(CONFIG.format(admin=admin))
    (folder / "urlward.toml").chmod(0o640)
    with running(folder, "--config", str(folder / "urlward.toml"), "--workers", "1") as proxy:
        proxy.secrets = ("first.example", "second.example", "another.example", OWN)
        yield proxy, reached(folder, admin)


@pytest.fixture
def proxy(both: tuple[Filter, Dashboard]) -> Filter:
    return both[0]


@pytest.fixture
def dashboard(both: tuple[Filter, Dashboard]) -> Dashboard:
    """Nobody has logged in."""
    both[1].cookies.clear()
    return both[1]


def test_a_feed_is_added_paused_and_removed(proxy: Filter, dashboard: Dashboard) -> None:
    folder = dashboard.folder
    before = (folder / "urlward.toml").read_bytes()
    blocked(proxy, "first.example")
    fields = {"name": "second", "path": str(folder / "second.txt"), "interval": "1d"}
    tried = dashboard.ask("POST", "/api/configuration/feed", do="try", **fields)
    assert tried["state"] == "new"
    assert tried["text"].startswith("2 entries fetched")
    assert not (folder / "more.toml").exists()
    dashboard.ask("POST", "/api/configuration/feed", 201, **fields)
    found = dashboard.in_force()
    assert (folder / "urlward.toml").read_bytes() == before
    assert 'name = "second"' in (folder / "more.toml").read_text()
    blocked(proxy, "second.example")
    assert [row["values"]["name"] for row in found["feed"]] == ["first", "second"]
    assert found["feed"][0]["others"] == ["stale_after"]
    assert "4242d" not in json.dumps(found), "what no form has may be a secret"

    dashboard.ask("POST", "/api/feeds/first/pause")
    dashboard.in_force()
    text = (folder / "urlward.toml").read_text()
    assert (
        'name = "first"   # keep this\npath = "first.txt"\ninterval = "1d"\n'
        'stale_after = "4242d"\npaused = true\n'
    ) in text
    assert (folder / "urlward.toml").stat().st_mode & 0o777 == 0o640
    states = {row["name"]: row["state"] for row in dashboard.ask("GET", "/api/feeds")}
    assert states["first"] == "paused"
    blocked(proxy, "first.example")
    dashboard.ask("POST", "/api/feeds/first/resume")
    dashboard.in_force()
    assert (folder / "urlward.toml").read_bytes() == before

    dashboard.ask("POST", "/api/configuration/feed", do="remove", at="feed.1")
    dashboard.in_force()
    blocked(proxy, "second.example", is_blocked=False)
    told = [line for line in dashboard.audit() if line["action"] == "edited"]
    assert [line["table"] for line in told] == [
        "added feed second", "changed feed feed.0", "changed feed feed.0", "removed feed second",
    ]  # fmt: skip
    assert told[0]["who"] == "admin (dashboard)"
    assert told[0]["keys"] == ["name", "path", "interval"]
    assert "second.txt" not in json.dumps(told)
    versions = sorted(path.name.partition(".toml")[0] for path in (folder / "state/versions").iterdir())
    assert set(versions) == {"more", "urlward"}


def test_what_does_not_fit_is_told_and_not_written(dashboard: Dashboard) -> None:
    folder = dashboard.folder
    before = (folder / "urlward.toml").read_bytes()
    told = dashboard.ask("POST", "/api/configuration/feed", 400, at="feed.0", interval="often")["error"]
    assert re.match(rf"{re.escape(str(folder))}/urlward\.toml:\d+: feed\.0\.interval: ", told)
    told = dashboard.ask("POST", "/api/configuration/rule", 400, action="block", lists="nowhere")["error"]
    assert "there is no list nowhere" in told  # which only the whole check knows
    told = dashboard.ask("POST", "/api/configuration/feed", 400, at="feed.7", interval="1h")["error"]
    assert told.startswith("no such table")
    assert (folder / "urlward.toml").read_bytes() == before
    assert dashboard.overview()["in_force"]


def test_what_somebody_else_has_changed_meanwhile_stays(dashboard: Dashboard) -> None:
    path = dashboard.folder / "urlward.toml"
    before = path.read_text()
    seen = dashboard.overview()["feed"][0]["seen"]
    path.write_text(before + "# by hand\n")
    told = dashboard.ask("POST", "/api/configuration/feed", 400, at="feed.0", seen=seen, interval="2h")[
        "error"
    ]
    assert told == "The file was changed meanwhile: load the page anew."
    assert path.read_text() == before + "# by hand\n"
    path.write_text(before)


def test_a_group_and_its_rule(proxy: Filter, dashboard: Dashboard) -> None:
    blocked(proxy, "first.example")
    dashboard.save("group", 201, name="staff", networks="127.0.0.1/32, 192.0.2.0/24")
    dashboard.save("rule", 201, at="group.0", action="allow", lists="first")
    blocked(proxy, "first.example", is_blocked=False)
    dashboard.save("rule", at="group.0.rule.0", action="block")
    blocked(proxy, "first.example")
    dashboard.save("group", do="remove", at="group.0")
    assert (dashboard.folder / "more.toml").read_text().strip() == ""


def test_why_it_is_not_in_force_is_told(dashboard: Dashboard) -> None:
    """What the whole check takes, and the running filter cannot do."""
    path = dashboard.folder / "urlward.toml"
    before = path.read_text()
    path.write_text(before.replace("blocks = 30", "blocks = 0"))
    try:
        os.kill(parent_of(service_of(dashboard)), signal.SIGUSR2)
        wait_for(lambda: "records.days.blocks" in dashboard.overview()["said"], "what came of it")
        found = dashboard.overview()
        assert not found["in_force"]
        assert found["problems"][0].startswith(f"{path}:")
        assert found["said"].endswith("what runs stays")
    finally:
        path.write_text(before)
    assert dashboard.overview()["in_force"]


def service_of(dashboard: Dashboard) -> int:
    """Process id of who listens at the dashboard's port, by a socket that its parent holds."""
    port = int(dashboard.origin.rpartition(":")[2])
    row = next(
        fields
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"
    )
    wanted, found = f"socket:[{row[9]}]", set[int]()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(fd.readlink()) == wanted:
                found.add(int(fd.parts[2]))
    (service,) = (pid for pid in found if parent_of(pid) in found)
    return service


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_feed_is_rolled_back_and_released(proxy: Filter, dashboard: Dashboard) -> None:
    first = dashboard.folder / "first.txt"
    blocked(proxy, "first.example")
    first.write_text("other.example\nthird.example\n")
    blocked(proxy, "third.example")
    blocked(proxy, "first.example", is_blocked=False)
    dashboard.ask("POST", "/api/feeds/first/rollback", 400)
    dashboard.ask("POST", "/api/feeds/first/rollback", why="a page too many")
    blocked(proxy, "first.example")
    found = dashboard.ask("GET", "/api/feeds/first/versions")
    assert found["held"]["why"] == "a page too many"
    first.write_text("other.example\nfourth.example\n")
    dashboard.ask("POST", "/api/feeds/first/refresh")
    blocked(proxy, "third.example", is_blocked=False)
    blocked(proxy, "fourth.example", is_blocked=False)
    dashboard.ask("POST", "/api/feeds/first/release", why="mended")
    blocked(proxy, "fourth.example")
    first.write_text("first.example\nother.example\n")
    blocked(proxy, "first.example")


def test_the_pages_do_the_same(proxy: Filter, dashboard: Dashboard) -> None:
    folder = dashboard.folder
    assert dashboard.form("/login", "/login", token=dashboard.token).status == 303
    page = "/configuration/feed"
    fields = {
        "name": "by-page",
        "path": str(folder / "second.txt"),
        "interval": "1x",
        "format": "auto",
        "use": "block",
    }
    answer = dashboard.form(page, page, do="save", **fields)
    assert answer.status == 400
    assert b"feed.0.interval" in answer.data
    assert b'value="1x"' in answer.data
    assert b"2 entries fetched" in dashboard.form(page, page, do="try", **(fields | {"interval": "1d"})).data
    answer = dashboard.form(page, page, do="save", **(fields | {"interval": "1d"}))
    assert answer.headers["Location"] == "/configuration?done=saved"
    dashboard.in_force()
    blocked(proxy, "second.example")
    assert b"by-page" in dashboard.page("GET", "/configuration").data
    assert b"by-page" in dashboard.page("GET", "/lists/versions?name=by-page").data
    answer = dashboard.form("/lists/versions?name=first", "/feeds/rollback", name="first", why="")
    assert answer.status == 400
    answer = dashboard.form("/configuration/feed?at=feed.1", page, do="remove")
    assert answer.headers["Location"] == "/configuration?done=removed"
    dashboard.in_force()
    assert "feed" not in (folder / "more.toml").read_text()


def unreadable(state: Path) -> None:
    for path in state.rglob("*"):
        if path.is_file():
            assert OWN.encode() not in path.read_bytes(), path


def test_an_own_entry_blocks_until_it_is_removed(proxy: Filter, dashboard: Dashboard) -> None:
    blocked(proxy, OWN, is_blocked=False)
    row = dashboard.ask("POST", "/api/own", 201, entry=OWN, category="games", note="case 7")
    assert (row["action"], row["kind"], row["who"]) == ("block", "domain", "admin (dashboard)")
    blocked(proxy, OWN)
    assert dashboard.ask("GET", "/api/own") == [row]
    unreadable(dashboard.folder / "state")

    def known() -> bool:
        return ("own-entries", "own") in [
            (one["name"], one["kind"]) for one in dashboard.ask("GET", "/api/lists")
        ]

    wait_for(known, "workers to tell of the list")
    found = dashboard.ask("POST", "/api/check", url=f"http://{OWN}/")
    assert (found["list"], found["id"]) == ("own-entries", row["id"])
    told = dashboard.ask("POST", f"/api/own/{row['id']}/reveal")
    assert told["entry"] == f"{OWN} id={row['id']} category=games"
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", 400)
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", why="closed")
    blocked(proxy, OWN, is_blocked=False)
    audit = [(one["action"], one["who"]) for one in dashboard.audit() if one.get("id") == row["id"]]
    assert audit == [
        ("own-added", "admin (dashboard)"),
        ("own-revealed", "admin (dashboard)"),
        ("own-removed", "admin (dashboard)"),
    ]


def test_an_own_entry_excuses_what_a_list_has(proxy: Filter, dashboard: Dashboard) -> None:
    blocked(proxy, "first.example")
    fields = {"entry": "http://first.example/some/page", "as": "host", "allow": "yes"}
    row = dashboard.ask("POST", "/api/own", 201, **fields)
    blocked(proxy, "first.example", is_blocked=False)
    dashboard.ask("POST", f"/api/own/{row['id']}/remove", why="closed")
    blocked(proxy, "first.example")


def test_the_page_of_own_entries_does_the_same(proxy: Filter, dashboard: Dashboard) -> None:
    assert dashboard.form("/login", "/login", token=dashboard.token).status == 303
    answer = dashboard.form("/own", "/own", entry="10.0.0.0/16", **{"as": "entry"})
    assert answer.status == 400
    assert b"it blocks 65536 addresses" in answer.data
    assert b'name="sure"' in answer.data
    answer = dashboard.form("/own", "/own", entry="http://", **{"as": "page"})
    assert answer.status == 400
    answer = dashboard.form("/own", "/own", entry=f"http://{OWN}/a/b.html", **{"as": "below"}, note="case 8")
    assert answer.headers["Location"] == "/own?done=own_added"
    page = dashboard.page("GET", "/own").data.decode()
    assert "case 8" in page
    assert OWN not in page
    (row,) = dashboard.ask("GET", "/api/own")
    answer = dashboard.form("/own", "/own/reveal", id=row["id"])
    assert f"http://{OWN}/a/*".encode() in answer.data
    assert dashboard.form("/own", "/own/remove", id=row["id"], why="closed").status == 303
    assert dashboard.ask("GET", "/api/own") == []
    unreadable(dashboard.folder / "state")


FOR_READING = """
import os, subprocess
os.unshare(os.CLONE_NEWNS)
for arguments in (["--make-rprivate", "/"], ["--bind", "{0}", "{0}"], ["-o", "remount,bind,ro", "{0}"]):
    subprocess.run(["mount", *arguments], check=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("include", in_turns(True, False))
def test_a_service_that_may_not_write_the_configuration(tmp_path: Path, *, include: bool) -> None:
    """As a package's, whose unit has /etc for reading alone (systemd.exec(5), ProtectSystem)."""
    admin, state = free_port(), tmp_path / "state"
    config = tmp_path / "etc/urlward.toml"
    config.parent.mkdir()
    line = 'include = ["../state/dashboard.toml"]\n' if include else ""
    text = CONFIG.replace('include = ["more.toml"]\n', line).replace('"state"', f'"{state}"')
    config.write_text(text.format(admin=admin))
    (config.parent / "first.txt").write_text("first.example\n")
    (tmp_path / "second.txt").write_text("second.example\n")
    with running(
        tmp_path / "run", "--config", str(config), before=FOR_READING.format(config.parent)
    ) as proxy:
        dashboard = reached(tmp_path, admin)
        files = dashboard.overview()["files"]
        assert "this process may not write there" in files[0]["problem"]
        told = dashboard.ask("POST", "/api/configuration/feed", 400, at="feed.0", interval="2d")["error"]
        assert told.startswith(f"{config}: this process may not write there; name in `include`")
        fields = {"name": "second", "path": str(tmp_path / "second.txt")}
        if not include:
            dashboard.ask("POST", "/api/configuration/feed", 400, **fields)
            return
        assert files[1]["problem"] == ""
        dashboard.ask("POST", "/api/configuration/feed", 201, **fields)
        dashboard.in_force()
        blocked(proxy, "second.example")
        assert (state / "dashboard.toml").stat().st_mode & 0o777 == 0o600
