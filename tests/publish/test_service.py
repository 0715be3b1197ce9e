"""The publisher as a service: what it tells the service manager, Prometheus and the records."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import urllib3

from conftest import free_port, run_command, until, wait_for
from feeds.feed_support import Server, hosts
from publish.test_run import config, publisher, run, soon
from urlward.commands.status import add_status_commands
from urlward.config import read_config
from urlward.publish import run as publish_run
from urlward.publish.lease import NAME as LEASE
from urlward.publish.place import Folder, PlaceError
from urlward.publish.run import Publisher

__all__ = ["config"]


class Manager:
    """A service manager that remembers what it is told."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.05)
        path = folder / "notify"
        self._socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}

    def has(self, text: str) -> bool:
        """Whether it was told so, once it has heard all that there is."""
        try:
            while True:
                self.said.append(self._socket.recv(1 << 12).decode())
        except TimeoutError:
            return any(text in one for one in self.said)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


class Shown:
    """The dashboard of a publisher whose state folder is beside its configuration."""

    def __init__(self, folder: Path, port: int) -> None:
        self._origin = f"http://127.0.0.1:{port}"
        self._token = folder / "publisher/admin.token"
        self._http = urllib3.PoolManager(retries=False)

    def get(self, path: str, **form: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
        if form:
            return self._http.request("POST", self._origin + path, json=form, headers=headers)
        return self._http.request("GET", self._origin + path, headers=headers)

    def metric(self, name: str) -> float | None:
        """Value of a metric with its labels, as the exposition has it."""
        text = self.get("/metrics").data.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def alarms(self) -> set[str]:
        return {row["alarm"] for row in self.get("/api/alarms").json() if row["current"]}


@pytest.fixture
def shown(config: Path, tmp_path: Path) -> Shown:
    port = free_port()
    text = (
        f'[records]\nprivacy = "counts"\ndays = {{ operations = 1 }}\n[admin]\nlisten = "127.0.0.1:{port}"\n'
    )
    config.write_text(config.read_text() + text)
    return Shown(tmp_path, port)


def status(config: Path) -> int:
    return run_command(add_status_commands, "status", "--config", config)


def test_it_says_how_it_is(
    config: Path,
    tmp_path: Path,
    site: Server,
    shown: Shown,
    manager: Manager,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = site.folder / "www" / tmp_path.name
    with publisher(config, **manager.environment) as (process, said):
        said("publish: list phish: published: serial")
        said("the dashboard is at")
        wait_for(lambda: manager.has(f"STATUS=leads {to}"), "its state to be told")
        wait_for(lambda: manager.has("WATCHDOG=1"), "signs of life")
        assert manager.said[0] == "READY=1"
        wait_for(lambda: shown.metric('urlward_publish_state{list="phish",state="offered"}') == 1, "the list")
        assert shown.metric("urlward_publish_leads") == 1
        stable = shown.metric('urlward_publish_serial{channel="stable",list="phish"}')
        assert stable
        assert shown.metric('urlward_publish_entries{list="phish"}') == 200
        assert shown.metric("urlward_workers_expected") == 0
        assert shown.get("/readyz").status == shown.get("/healthz").status == 200
        assert status(config) == 0
        assert "publisher    leads" in capsys.readouterr().out

        # What stands in the way is an alarm for as long as it does.
        (to / "versions/phish").rename(tmp_path / "versions")
        (to / "versions/phish").touch()
        (tmp_path / "phish.txt").write_text(hosts(*range(201)))
        wait_for(lambda: "publish" in shown.alarms(), "the alarm")
        assert shown.metric('urlward_alarm{alarm="publish"}') == 1
        assert (shown.metric('urlward_publish_failures_total{list="phish"}') or 0) > 0
        assert status(config) == 1
        assert "alarm: publish: publish: list phish: " in capsys.readouterr().out
        (to / "versions/phish").unlink()
        (tmp_path / "versions").rename(to / "versions/phish")
        wait_for(lambda: "publish" not in shown.alarms(), "its end")

        # So is a list that a guard holds.
        (to / ".publish/phish.json").unlink()
        wait_for(lambda: "rollout-held" in shown.alarms(), "the alarm")
        assert run(config, "rollout status", "--json") == 1
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["state"], row["held"]["who"], row["held"]["at"]) == ("held", "", None)
        answer = shown.get("/api/rollouts/phish/release", why="looked at")
        assert "no longer held" in answer.json()["said"]
        wait_for(lambda: "rollout-held" not in shown.alarms(), "its end")
        wait_for(lambda: shown.metric('urlward_publish_state{list="phish",state="offered"}') == 1, "the list")

        def listed() -> list[tuple[object, ...]]:
            rows = shown.get("/api/rollouts").json()["lists"]
            return [(row["name"], row["entries"], row["held"]) for row in rows]

        wait_for(lambda: listed() == [("phish", 201, None)], "what has changed meanwhile")
        config.write_text(config.read_text() + "[proxy]\n")
        assert status(config) == 1
        assert "is not in force: restart the publisher" in capsys.readouterr().out
        process.terminate()
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in (tmp_path / "publisher/audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["who"]) for line in lines if "feed" in line] == [
        ("released", "admin (dashboard)")
    ]


def test_the_loss_of_the_lease_is_told_and_feeds_are_anothers_then(
    config: Path, tmp_path: Path, site: Server, shown: Shown
) -> None:
    place, end = Folder(site.folder / "www" / tmp_path.name), Event()
    soon(config)

    def lead() -> None:
        """Lead as another publisher would that takes the lease for free."""
        beat = 0
        while not end.wait(0.1):
            beat += 1
            record = {"token": 9, "holder": "another", "beat": beat}
            found = place.read(LEASE)
            try:
                place.write(LEASE, json.dumps(record).encode(), found.tag if found else "")
            except PlaceError:
                continue

    with publisher(config) as (_, said):
        said("the dashboard is at")
        wait_for(lambda: shown.metric('urlward_feed_state{feed="phish",state="ok"}') == 1, "the feed")
        other = Thread(target=lead)
        other.start()
        try:
            wait_for(lambda: "lease-lost" in shown.alarms(), "the alarm")
            wait_for(lambda: shown.metric("urlward_publish_leads") == 0, "the metric")
            assert shown.metric('urlward_feed_state{feed="phish",state="ok"}') is None
            assert shown.metric('urlward_publish_state{list="phish",state="offered"}') is None
            assert shown.get("/api/rollouts").json()["leader"] == "another"
            assert shown.get("/readyz").status == 200
        finally:
            end.set()
            other.join()
        wait_for(lambda: shown.metric("urlward_publish_leads") == 1, "the lease to be taken again")
        assert "lease-lost" in shown.alarms(), "somebody is to look why"


async def test_one_that_hangs_is_found(
    config: Path, tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as in a network's file system whose server is gone: it keeps the lease, and publishes nothing."""
    place, go_on = Folder(site.folder / "www" / tmp_path.name), Event()
    made = Publisher(read_config(config), tmp_path / "publisher", place)
    assert made.hangs == ""

    def stuck(*_: object) -> bool:
        return go_on.wait(60)

    monkeypatch.setattr(publish_run, "HUNG", 0.2)
    monkeypatch.setattr(publish_run, "LOOK", 0.1)
    monkeypatch.setattr(Publisher, "_tend", stuck)
    task = asyncio.ensure_future(made.run())
    try:
        await until(lambda: made.leads and made.hangs)
        made.lease.check()
        assert "nothing has come of a step" in made.hangs
    finally:
        go_on.set()
        task.cancel()
        await asyncio.wait([task])
