"""What is blocked is recorded, counted and shown, with one process and with several."""

import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from mitmproxy import certs

from conftest import free_port, wait_for
from e2e import support
from e2e.support import (
    RECORDS,
    Filter,
    Nginx,
    children_of,
    command_of,
    connect,
    files_in,
    get,
    read_response,
    running,
    socks,
    status_of,
)
from urlward.records.asking import ask as asked

if TYPE_CHECKING:
    import subprocess

CONFIG = """\
state = "state"
workers = {workers}
"""
CONFIG += RECORDS


@contextmanager
def recorded(
    folder: Path,
    workers: int = 1,
    modes: Sequence[str] = ("regular",),
    *arguments: str,
    executes: bool = False,
) -> Iterator[tuple[Filter, str]]:
    """A filter that keeps records, and where its dashboard is."""
    admin = free_port()
    config = folder / "urlward.toml"
    config.write_text(CONFIG.format(workers=workers, admin=admin))
    with running(
        folder / "filter", "--config", str(config), *arguments, modes=modes, executes=executes
    ) as proxy:
        wait_for(lambda: "the dashboard is at" in proxy.log(), "the process that records")
        yield proxy, f"http://127.0.0.1:{admin}"


def urlward(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return support.urlward(*arguments, "--config", folder / "urlward.toml")


def events(folder: Path, *arguments: str) -> list[dict[str, object]]:
    done = urlward(folder, "events", "--json", *arguments)
    if "nothing has been recorded yet" in done.stderr:  # by a process that has just begun
        return []
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask(folder: Path, url: str) -> urllib3.BaseHTTPResponse:
    token = (folder / "state" / "admin.token").read_text().strip()
    return urllib3.request(
        "GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=60, retries=False
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
    kept = b"".join(files_in(tmp_path / "state").values())
    assert b"paged.example" not in kept
    assert b"listed.html" not in kept
    # The end in order is told, and nothing is missing.
    kinds = [event["kind"] for event in events(tmp_path)]
    assert kinds.count("start") == kinds.count("stop") == 2
    assert "gap" not in kinds


def test_the_dashboards_history_goes_on_after_a_restart(tmp_path: Path, blocked_url: str) -> None:
    for _ in range(2):
        with recorded(tmp_path) as (proxy, admin):
            now = partial(ask, tmp_path, f"{admin}/api/now")
            wait_for(lambda now=now: len(now().json()["seconds"]) > 1, "a second")  # type: ignore[misc]
            assert get(proxy.port, blocked_url).status == 451
            wait_for(lambda now=now: sum(now().json()["blocks"]) == 1, "the block")  # type: ignore[misc]
            proxy.stop()
    with recorded(tmp_path) as (_, admin):
        found = ask(tmp_path, f"{admin}/api/history?span=24h").json()
    for counts in (found["blocks"], found["lists"]["list"], found["categories"]["csam"]):
        assert sum(filter(None, counts)) == 2
    assert None in found["blocks"], "nobody has counted yesterday"
    assert 0 < sum(found["counted"]) * found["step"] < 600
    assert any(found["p50"])


def test_a_certificate_that_ends_soon_is_an_alarm_and_lists_of_flags_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certs, "CA_EXPIRY", timedelta(days=20))
    certs.CertStore.create_store(tmp_path / "filter" / "confdir", "mitmproxy", 2048)
    with recorded(tmp_path) as (_, admin):

        def told() -> dict[str, Any]:
            status: dict[str, Any] = json.loads(urlward(tmp_path, "status", "--json").stdout)
            return status

        wait_for(lambda: "authority" in told().get("alarms", {}), "the alarm")
        status = told()
        assert urlward(tmp_path, "status").returncode == 1
        assert "the authority's certificate ends at" in status["alarms"]["authority"]
        assert not status["ok"]
        assert status["authority"] in status["alarms"]["authority"]
        metrics = ask(tmp_path, f"{admin}/metrics").data
        assert b'urlward_alarm{alarm="authority"} 1.0' in metrics
        assert b"urlward_authority_valid_until_timestamp_seconds 1" in metrics
        token = (tmp_path / "state" / "admin.token").read_text().strip()
        found = urllib3.request(
            "POST",
            f"{admin}/api/check",
            json={"url": "http://paged.example/listed.html"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            retries=False,
        )
        assert (found.json()["verdict"], found.json()["list"]) == ("block", "list")


def test_several_workers_write_to_one_place_and_one_that_is_killed_is_told_of(
    tmp_path: Path, blocked_url: str
) -> None:
    # The service process is known by its command.
    with recorded(tmp_path, workers=2, executes=True) as (proxy, admin):
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
        workers = [
            pid for pid in children_of(proxy.process.pid) if "urlward.service.process" not in command_of(pid)
        ]
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        wait_for(lambda: events(tmp_path, "--kind", "gap"), "the gap to be told")
        wait_for(lambda: status_of(proxy.port, blocked_url) == 451, "the rest to serve")


class Knocking(threading.Thread):
    """Connects to an address again and again, and remembers whether it was refused."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.refused = self.taken = 0
        self.port = port
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.01):
            try:
                connect(self.port).close()
                self.taken += 1
            except ConnectionRefusedError:
                self.refused += 1

    def end(self) -> None:
        self._end.set()
        self.join()


def test_whoever_comes_to_the_dashboard_waits_for_the_process_that_takes_its_place(tmp_path: Path) -> None:
    # It is known by its command.
    with recorded(tmp_path, executes=True) as (proxy, admin):

        def service() -> int:
            children = children_of(proxy.process.pid)
            return next((pid for pid in children if "urlward.service.process" in command_of(pid)), 0)

        def healthy() -> int:
            with urllib3.PoolManager() as anew:  # no connection of before
                return anew.request("GET", f"{admin}/healthz", timeout=180, retries=False).status

        wait_for(lambda: healthy() == 200, "all to report")
        before = service()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: service() != before, "its end")
        assert healthy() == 200, "not before the workers are heard"
        knocking = Knocking(int(admin.rpartition(":")[2]))
        knocking.start()
        try:
            proxy.process.send_signal(signal.SIGUSR2)
            wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
            assert healthy() == 200
        finally:
            knocking.end()
        assert knocking.taken > 0
        assert knocking.refused == 0
        # Where there is to be no dashboard any more, nobody waits for it.
        config = tmp_path / "urlward.toml"
        config.write_text(config.read_text().partition("[admin]")[0])
        proxy.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: proxy.log().count("reload: done") == 2, "the next", 120)
        with pytest.raises(ConnectionRefusedError):
            connect(knocking.port)


def test_without_records_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "urlward.toml").write_text('state = "state"\n')
    done = urlward(tmp_path, "status")
    assert done.returncode == 1
    assert "no recorder runs" in done.stderr


def test_connections_and_latency_are_counted_once_in_every_mode(tmp_path: Path, origin: Nginx) -> None:
    regular, reverse, tls, by_socks = (free_port() for _ in range(4))
    modes = [
        f"regular@127.0.0.1:{regular}",
        f"reverse:http://127.0.0.1:{origin.http}@127.0.0.1:{reverse}",
        f"reverse:https://127.0.0.1:{origin.https}@127.0.0.1:{tls}",
        f"socks5@127.0.0.1:{by_socks}",
    ]
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with recorded(tmp_path, 1, modes, "--set", "ssl_insecure=true") as (_, admin):

        def counted(name: str) -> float:
            text = ask(tmp_path, f"{admin}/metrics").data.decode()
            return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))

        def request(s: socket.socket) -> None:
            for _ in range(3):
                s.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
                assert read_response(s).status == 200
            s.close()

        for n in range(2):
            get(regular, f"http://other.example:{origin.http}/{n}")
            request(connect(reverse))
            request(socks(by_socks, "127.0.0.1", origin.http))
            with unverified.wrap_socket(connect(tls), server_hostname="paged.example") as s:
                request(s)
        # Of the same request they may come with two reports.
        for name in ("urlward_requests_total", "urlward_added_seconds_count"):
            wait_for(lambda name=name: counted(name) >= 20, "the requests to be counted")  # type: ignore[misc]
        assert counted("urlward_connections_total") == 8
        assert counted("urlward_added_seconds_count") == 20
        assert 0 < counted("urlward_added_seconds_sum") < 60


def test_a_database_that_is_deleted_under_traffic_is_begun_anew_and_said(
    tmp_path: Path, blocked_url: str
) -> None:
    with recorded(tmp_path) as (proxy, _):
        before = get(proxy.port, blocked_url).reference
        wait_for(lambda: before in references(tmp_path), "the first block")
        for file in (tmp_path / "state").glob("records.db*"):
            file.unlink()
        after = get(proxy.port, blocked_url).reference
        # The first may be there again, where the store was not yet known to have it.
        wait_for(lambda: after in references(tmp_path), "the second block")
        wait_for(lambda: "takes events again" in proxy.log(), "the store to be back")
        status = urlward(tmp_path, "status")
        assert status.returncode == 1
        assert "alarm: store-replaced: store sqlite:" in status.stdout
        assert "sqlite" in status.stdout
        assert " down" not in status.stdout
    alarms = [str(event["detail"]) for event in events(tmp_path, "--kind", "alarm")]
    assert any("store-replaced" in alarm for alarm in alarms)


def test_a_list_that_is_refused_is_an_alarm_until_it_is_in_force(tmp_path: Path) -> None:
    def is_well() -> bool:
        return bool(asked(tmp_path / "state", "status")["ok"])

    def alarm() -> str:
        return str(asked(tmp_path / "state", "status")["alarms"].get("refused-list", ""))

    with recorded(tmp_path, 2) as (proxy, admin):
        good = proxy.list_file.read_text()
        wait_for(is_well, "all to be well")
        assert "2 of 2 report" in urlward(tmp_path, "status").stdout
        for bad, why in (("<html>login", "web page"), (None, ": gone")):
            if bad is None:
                proxy.list_file.unlink()
            else:
                proxy.list_file.write_text(bad)
            wait_for(lambda why=why: why in alarm(), "the alarm")  # type: ignore[misc]
            status = urlward(tmp_path, "status")
            assert status.returncode == 1
            assert why in status.stdout
            assert "alarm: refused-list: list " in status.stdout
            assert urllib3.request("GET", f"{admin}/readyz", retries=False).status == 200
            proxy.list_file.write_text(good)
            wait_for(is_well, "all to be well again")
    alarms = [(event["list"], str(event["detail"])) for event in events(tmp_path, "--kind", "alarm")]
    assert [name for name, detail in alarms if "refused-list" in detail] == ["list"] * 2
    assert [name for name, detail in alarms if "list-back" in detail] == ["list"] * 2


def references(folder: Path) -> list[str]:
    """Those of all blocks that the store has."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/state/records.db?mode=ro", uri=True)) as db:
            return [row[0] for row in db.execute("SELECT reference FROM events WHERE kind = 'block'")]
    except sqlite3.Error:
        return []
