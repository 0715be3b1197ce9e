import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from companion import Companion
from conftest import free_port, wait_for
from records.recording import SECRET, block, events, records
from urlward import lasting
from urlward.config import AdminTable, Config, FeedTable, RecordsTable
from urlward.config.records import StoreTable
from urlward.engine.verdict import Verdict
from urlward.feeds.learn import Learner, Match
from urlward.feeds.store import FeedStore
from urlward.policy.own import own_entries
from urlward.records import writer
from urlward.records.asking import SOCKET, ask
from urlward.records.store import StoreError
from urlward.records.stores import open_store
from urlward.records.worker import Hit, KnownFile, Recording
from urlward.records.writer import processes
from urlward.service import process
from urlward.state.folder import local_key

CONFIG = '[records]\nnode = "gw1"\n[records.days]\nblocks = 1\noperations = 1\n'


START = 60.0
"""Seconds that a process may take to start on a machine with other work."""


class Running(Companion):
    def __init__(self, folder: Path, text: str = CONFIG, **asked: Any) -> None:
        super().__init__("urlward.service.process", folder, text, **asked)

    def serves(self) -> None:
        wait_for(lambda: self.answers() or self.process.poll() is not None, "an answer", START)
        assert self.process.poll() is None, self.log()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """To hand over what is said may take longer than a second on a machine with other work."""
    monkeypatch.setattr(writer, "END_WITHIN", START)


async def _said(state: Path, count: int) -> None:
    said = Recording(records(), state, SECRET)
    running = asyncio.ensure_future(said.run())
    await asyncio.sleep(0)
    for n in range(count):
        block(said, str(n))
    await said.close()
    running.cancel()
    assert not said.writer.waiting


def _kinds(state: Path) -> list[str]:
    """Of the events in the store, in order; none while it is being made."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state}/records.db?mode=ro", uri=True)) as db:
            return [kind for (kind,) in db.execute("SELECT kind FROM events ORDER BY id")]
    except sqlite3.OperationalError:
        return []


def test_events_are_in_the_store_that_is_configured(tmp_path: Path) -> None:
    with Running(tmp_path) as made:
        made.serves()
        asyncio.run(_said(made.state, 10))
        wait_for(lambda: len(_kinds(made.state)) == 13, "the events")
        assert made.end() == 0, made.log()
        assert made.log() == ""
        assert _kinds(made.state) == ["start", "start", *["block"] * 10, "stop", "stop"]
        left = {path.name for path in made.state.rglob("*")}
        assert "outbox.db" in left
        assert not [name for name in left if name.endswith((".writer", ".sock")) or "outbox.db-" in name]


def test_what_is_older_than_it_may_be_is_deleted(tmp_path: Path) -> None:
    store = open_store(StoreTable(kind="sqlite"), tmp_path / "state")
    store.write(events(5))
    store.close()
    with Running(tmp_path) as made:
        wait_for(lambda: "5 deleted" in made.log(), "the old ones to be deleted")
        assert made.end() == 0, made.log()
        assert "block" not in _kinds(made.state)


def test_a_second_one_waits_and_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with Running(tmp_path) as first:
        first.serves()
        with Running(tmp_path) as second:
            wait_for(lambda: "another process records" in second.log(), "the second to wait", START)
            first.process.kill()
            first.process.wait()
            wait_for(lambda: "may be missing" in second.log(), "the second to serve", START)
            wait_for(lambda: _kinds(second.state).count("gap") == 1, "the gap to be told")
            assert second.end() == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, json, os\n"
        "p = subprocess.Popen([sys.executable, '-m', 'urlward.service.process'], stdin=subprocess.PIPE)\n"
        "asked = json.loads(sys.argv[1]) | {'parent': os.getpid()}\n"
        "p.stdin.write(json.dumps(asked).encode()); p.stdin.close(); p.wait()"
    )
    (tmp_path / "urlward.toml").write_text(CONFIG)
    asked = {"config": str(tmp_path / "urlward.toml"), "state": str(tmp_path / "state")}
    parent = subprocess.Popen([sys.executable, "-c", code, json.dumps(asked)])
    wait_for(lambda: (tmp_path / "state" / SOCKET).exists(), "the socket", START)
    parent.kill()
    parent.wait()
    wait_for(lambda: not (tmp_path / "state" / SOCKET).exists(), "its end in order")
    assert processes(tmp_path / "state") == []


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with Running(tmp_path, sockets=[["127.0.0.1", 1, [99]]]) as made:  # as any error that nobody foresaw
        assert made.process.wait(START) == 1
        assert made.log() == "service: Bad file descriptor\n"
    with Running(tmp_path, "") as made:
        assert made.process.wait(START) == 2
        assert made.log() == (
            "service: neither [[feed]] nor [records] in the configuration: there is nothing to do\n"
        )
    (tmp_path / "state").touch()
    with Running(tmp_path) as made:
        assert made.process.wait(START) == 2
        assert made.log().startswith("service: ")
        assert made.log().count("\n") == 1


async def test_records_that_cannot_be_kept_keep_no_feed_from_being_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are tried again, whatever was wrong."""
    faults: list[Exception] = [StoreError("no room"), RuntimeError("secret.example")]
    records = asyncio.Event()

    async def record(*_: object) -> None:
        if faults:
            raise faults.pop(0)
        records.set()

    monkeypatch.setattr(process, "_record", record)
    monkeypatch.setattr(lasting, "AGAIN", 0.01)
    (tmp_path / "list.txt").write_text("listed.example\n")
    config = Config(feed=(FeedTable(name="body", path=str(tmp_path / "list.txt")),), records=RecordsTable())
    store = FeedStore(tmp_path / "state", "body")
    running = asyncio.ensure_future(process.run(config, tmp_path / "state"))
    async with asyncio.timeout(START):
        await records.wait()
        while store.header() is None:
            await asyncio.sleep(0.02)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [f"records: {what}; begun again in 0 s" for what in ("no room", "a bug: RuntimeError")]


async def test_what_waits_leaves_threads_for_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for a database server that is stuck, however few processors there are."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    together, done = threading.Barrier(12), asyncio.Event()

    async def record(*_: object) -> None:
        await asyncio.gather(*(asyncio.to_thread(together.wait, START) for _ in range(together.parties)))
        done.set()

    monkeypatch.setattr(process, "_record", record)
    running = asyncio.ensure_future(process.run(Config(records=RecordsTable()), tmp_path / "state"))
    async with asyncio.timeout(2 * START):
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_slow_disk_is_waited_for_in_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes two seconds a file kept `/healthz` from an answer for twenty, at each start."""
    written, synchronise = set[str](), os.fsync

    def fsync(fd: int) -> None:
        written.add(threading.current_thread().name)
        synchronise(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    config = Config(records=RecordsTable(), admin=AdminTable(listen=f"127.0.0.1:{free_port()}"))
    state = tmp_path / "state"
    running = asyncio.ensure_future(process.run(config, state))
    async with asyncio.timeout(START):
        while not all((state / name).exists() for name in ("key", "retention.json", "admin.json")):
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert written
    assert threading.main_thread().name not in written


def _told(state: Path, kind: str) -> list[dict[str, Any]]:
    """Details of the events of a kind in the store."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state}/records.db?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT detail FROM events WHERE kind = ? ORDER BY id", (kind,))
            return [json.loads(detail) for (detail,) in rows]
    except sqlite3.OperationalError:
        return []


async def test_a_known_file_is_an_alarm_and_its_url_is_learned(tmp_path: Path) -> None:
    with Running(tmp_path, f"[files]\n{CONFIG}") as made:
        made.serves()
        state = made.state
        worker = Recording(records(), state, local_key(state).secret)
        task = asyncio.ensure_future(worker.run())
        learner = Learner(state, local_key(state))
        found = KnownFile("sha256", "cut", "image/jpeg", 5)
        verdict = Verdict("block", "file", "H-7", "csam", "hotline")
        worker.hit(Hit(verdict, "192.0.2.7", 4_000, "http", "body", "R-1", file=found))
        learner.learn(Match("listed.example/a", "hotline", "H-7", "csam", "R-1"))

        def known() -> bool:
            alarms = [one["text"] for one in _told(state, "alarm") if one["alarm"] == "known-file"]
            has_list = FeedStore(state, "own-entries").header() is not None
            return bool(alarms and _told(state, "file") and has_list)

        await asyncio.to_thread(wait_for, known, "the event, the alarm and the entry")
        (entry,) = own_entries(state)
        assert (entry.who, entry.category) == ("known files", "csam")
        alarm = next(one["text"] for one in _told(state, "alarm") if one["alarm"] == "known-file")
        assert alarm == "known files of list hotline: 1 met; urlward events --kind file"
        assert ask(state, "status")["alarms"]["known-file"] == alarm
        assert "listed.example" not in made.log()
        await worker.close()
        task.cancel()
        learner.close()
        assert made.end() == 0, made.log()
