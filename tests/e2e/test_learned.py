"""A known file through a running filter: cut, recorded, an alarm, learned, shown to people, and reported."""

import hashlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import pytest

from conftest import free_port, wait_for
from dashboard.edit_support import Dashboard, reached
from e2e.support import Filter, RawOrigin, Response, files_in, get, running

FILE = random.Random(1).randbytes(200_000)
PATH = "/secret-folder/known.bin"
CONFIG = """
state = "state"
protect = false                   # the origin is on the loopback
[files]
[records]
[records.days]
blocks = 30
operations = 365
[admin]
listen = "127.0.0.1:{admin}"
"""


def serve(connection: socket.socket) -> None:
    """The file, whatever is asked for."""
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(FILE)}\r\n"
        "Connection: close\r\n\r\n"
    )
    if connection.recv(65_536):
        connection.sendall(head.encode() + FILE)


@pytest.fixture(scope="module")
def origin() -> Iterator[RawOrigin]:
    with RawOrigin(serve) as made:
        yield made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Filter, Dashboard]]:
    folder, admin = tmp_path_factory.mktemp("learned"), free_port()
    (folder / "urlward.toml").write_text(CONFIG.format(admin=admin))
    listed = f"sha256:{hashlib.sha256(FILE).hexdigest()} id=H-7 category=csam\n"
    with running(folder, "--config", str(folder / "urlward.toml"), text=listed) as proxy:
        proxy.secrets = ("secret-folder",)
        yield proxy, reached(folder, admin)


def got(proxy: Filter, origin: RawOrigin) -> Response | None:
    """The response to a request for the file; None where it was cut."""
    try:
        found = get(proxy.port, f"http://127.0.0.1:{origin.port}{PATH}")
    except (OSError, HTTPException):
        return None
    assert found.status == 451 or len(found.body) < len(FILE), "it never arrives whole"
    return found if found.status == 451 else None


def test_from_its_match_to_its_report(both: tuple[Filter, Dashboard], origin: RawOrigin) -> None:
    proxy, dashboard = both
    got(proxy, origin)

    def learned() -> bool:
        before = origin.connections
        answer = got(proxy, origin)
        return answer is not None and origin.connections == before

    wait_for(learned, "its URL to be learned")

    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = dashboard.ask("GET", "/api/events?kind=file")["events"]
        return found

    wait_for(events, "the event")
    event = events()[-1]
    assert (event["list"], event["entry"], event["category"], event["stage"]) == (
        "list",
        "H-7",
        "csam",
        "body",
    )
    assert event["client"] == "127.0.0.1"
    detail = event["detail"]
    assert (detail["algorithm"], detail["action"], detail["size"]) == ("sha256", "cut", len(FILE))

    def alarms() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = dashboard.ask("GET", "/api/alarms")
        return [one for one in found if one["alarm"] == "known-file" and one["current"]]

    wait_for(alarms, "the alarm")
    assert "known files of list list: " in alarms()[0]["text"]

    (entry,) = dashboard.ask("GET", "/api/own")
    assert (entry["who"], entry["kind"], entry["category"]) == ("known files", "page", "csam")
    assert "list list, entry H-7, reference " in entry["note"]
    line = dashboard.ask("POST", f"/api/own/{entry['id']}/reveal")["entry"]
    assert line.startswith(f"http://127.0.0.1{PATH} port={origin.port} id={entry['id']}")

    reference = entry["note"].rpartition(" ")[2]
    report = proxy.folder / "report"
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "urlward", "report", "file", reference, "-o", str(report),
            "--why", "a test", "--config", str(proxy.folder / "urlward.toml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((report / "report.json").read_text())["data"]
    assert (found["reference"], found["learned"]) == (reference, [entry["id"]])

    for path, content in (files_in(proxy.folder / "state") | files_in(report)).items():
        assert b"secret-folder" not in content, path

    dashboard.ask("POST", f"/api/own/{entry['id']}/remove", why="a false match")

    def passes_to_the_origin() -> bool:
        before = origin.connections
        got(proxy, origin)
        return origin.connections > before

    wait_for(passes_to_the_origin, "the entry to be out of force")
    audit = [(one["action"], one["who"]) for one in dashboard.audit() if one.get("id") == entry["id"]]
    assert audit == [
        ("own-added", "known files"),
        ("own-revealed", "admin (dashboard)"),
        ("own-removed", "admin (dashboard)"),
    ]


def test_the_pages_show_it(both: tuple[Filter, Dashboard]) -> None:
    _, dashboard = both
    dashboard.form("/login", "/login", token=dashboard.token)
    shown = dashboard.page("GET", "/events?kind=file").data.decode()
    assert "algorithm: sha256; action: cut; media: application/octet-stream; size: 200000" in shown
    for path in ("/", "/alarms"):
        assert "alarm" in dashboard.page("GET", path).data.decode()
    assert "known file met" in dashboard.page("GET", "/alarms").data.decode()
