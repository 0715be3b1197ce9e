"""What is blocked is recorded, counted and shown, with one process and with several."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from conftest import free_port, wait_for
from e2e.support import Filter, Nginx, connect, environment, get, read_response, running

CONFIG = """\
state = "state"
workers = {workers}
[records]
node = "gw1"
[records.days]
blocks = 30
operations = 365
[admin]
listen = "127.0.0.1:{admin}"
"""


@contextmanager
def recorded(folder: Path, workers: int = 1) -> Iterator[tuple[Filter, str]]:
    """A filter that keeps records, and where its dashboard is."""
    admin = free_port()
    config = folder / "urlward.toml"
    config.write_text(CONFIG.format(workers=workers, admin=admin))
    with running(folder / "filter", "--config", str(config)) as proxy:
        wait_for(lambda: "the dashboard is at" in proxy.log(), "the process that records")
        yield proxy, f"http://127.0.0.1:{admin}"


def urlward(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "urlward.cli", *arguments, "--config", str(folder / "urlward.toml")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )


def events(folder: Path, *arguments: str) -> list[dict[str, object]]:
    done = urlward(folder, "events", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask(folder: Path, url: str) -> urllib3.BaseHTTPResponse:
    token = (folder / "state" / "admin.token").read_text().strip()
    return urllib3.request(
        "GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=10, retries=False
    )


@pytest.fixture
def blocked_url(origin: Nginx) -> str:
    return f"http://paged.example:{origin.http}/listed.html"


def test_a_block_is_an_event_a_count_and_a_line_on_the_dashboard(tmp_path: Path, blocked_url: str) -> None:
    with recorded(tmp_path) as (proxy, admin):
        with connect(proxy.port) as s:
            s.sendall(f"GET {blocked_url} HTTP/1.1\r\nHost: {blocked_url.split('/')[2]}\r\n\r\n".encode())
            response = read_response(s)
            port = s.getsockname()[1]
        assert response.status == 451
        wait_for(lambda: events(tmp_path, "--kind", "block"), "the event")
        (event,) = events(tmp_path, "--reference", response.reference)
        assert (event["node"], event["list"], event["entry"], event["category"]) == (
            "gw1",
            "list",
            "E-2",
            "csam",
        )
        assert (event["client"], event["protocol"], event["stage"]) == ("127.0.0.1", "http", "match")
        assert event["client_port"] == port
        assert proxy.blocks() == []
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(event["time"]))
        assert "paged" not in json.dumps(event)
        wait_for(
            lambda: (
                b'urlward_blocks_total{category="csam",list="list"} 1.0'
                in ask(tmp_path, f"{admin}/metrics").data
            ),
            "the count",
        )
        shown = ask(tmp_path, f"{admin}/api/events?reference={response.reference}").json()
        assert [one["id"] for one in shown["events"]] == [event["id"]]
        status = urlward(tmp_path, "status")
        assert status.returncode == 0, status.stdout
        assert urllib3.request("GET", f"{admin}/readyz", retries=False).status == 200
        assert urllib3.request("GET", f"{admin}/api/events", retries=False).status == 401
    kept = b"".join(p.read_bytes() for p in (tmp_path / "state").rglob("*") if p.is_file())
    assert b"paged.example" not in kept
    assert b"listed.html" not in kept
    # The end in order is told, and nothing is missing.
    kinds = [event["kind"] for event in events(tmp_path)]
    assert kinds.count("start") == kinds.count("stop") == 2
    assert "gap" not in kinds


def test_several_workers_write_to_one_place_and_one_that_is_killed_is_told_of(
    tmp_path: Path, blocked_url: str
) -> None:
    with recorded(tmp_path, workers=2) as (proxy, admin):
        wait_for(lambda: len(events(tmp_path, "--kind", "start")) == 3, "both workers and the recorder")
        for _ in range(20):
            assert get(proxy.port, blocked_url).status == 451
        wait_for(lambda: len(events(tmp_path, "--kind", "block")) == 20, "all events")
        wait_for(
            lambda: (
                b'urlward_requests_total{stage="match",verdict="block"} 20.0'
                in ask(tmp_path, f"{admin}/metrics").data
            ),
            "the sum",
        )
        children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
        workers = [
            int(pid) for pid in children if b"urlward.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        wait_for(lambda: events(tmp_path, "--kind", "gap"), "the gap to be told")
        wait_for(lambda: get(proxy.port, blocked_url).status == 451, "the rest to serve")


def test_without_records_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "urlward.toml").write_text('state = "state"\n')
    done = urlward(tmp_path, "status")
    assert done.returncode == 1
    assert "no recorder runs" in done.stderr
