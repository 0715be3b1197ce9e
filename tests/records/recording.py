"""A process that records, and a worker, to be killed; and stores that fail when told."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.engine.verdict import Verdict
from urlward.records.event import Event, make_event
from urlward.records.events import Events
from urlward.records.recorder import Recorder
from urlward.records.store import StoreError

_processes = multiprocessing.get_context("forkserver")
# What takes long to load; not this module, which it does not find.
_processes.set_forkserver_preload(["sqlite3", "urlward.records.events", "urlward.records.recorder"])

SECRET = bytes(range(32))


def records(**changes: Any) -> RecordsTable:
    table = {"node": "gw1", "store": (StoreTable(kind="sqlite"),), "days": DaysTable(blocks=1, operations=1)}
    return RecordsTable(**table | changes)


def events(count: int, first: int = 0, size: int = 0) -> list[Event]:
    return [
        make_event("block", n * 1_000_000, n.to_bytes(8), reference=str(n), entry="e" * size)
        for n in range(first, first + count)
    ]


class FileStore:
    """SQLite, with switches: files ``down`` and ``slow`` (seconds) in its folder."""

    def __init__(self, folder: Path) -> None:
        self.name = "test"
        self._folder = folder
        self._check()
        self._db = sqlite3.connect(folder / "test.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS event (id PRIMARY KEY, kind, reference, detail, node)")

    def write(self, events: Sequence[Event]) -> None:
        self._check()
        rows = [(e.id, e.kind, e.reference, e.detail, e.node) for e in events]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"test: {e}") from e

    def check(self) -> None:
        pass

    def close(self) -> None:
        self._db.close()

    def _check(self) -> None:
        if (self._folder / "down").exists():
            raise StoreError("test: down")
        if (slow := self._folder / "slow").exists():
            time.sleep(float(slow.read_text()))


def kept(state: Path, kind: str = "block") -> list[str]:
    """The references, or else details, of what the store has of a kind, in order of ids."""
    if not (state / "test.db").exists():
        return []
    db = sqlite3.connect(state / "test.db")
    try:
        rows = db.execute(
            "SELECT reference, detail FROM event WHERE kind = ? ORDER BY id", (kind,)
        ).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()
    return [reference or detail for reference, detail in rows]


class Memory:
    """A store that can be told to fail, to wait, and what it was given."""

    def __init__(self) -> None:
        self.name = "memory"
        self.down = False
        self.wait: Callable[[], object] = lambda: None
        self.given: list[str] = []
        self.closed = 0

    def write(self, events: Sequence[Event]) -> None:
        self.wait()
        if self.down:
            raise StoreError("memory: down")
        self.given += [event.id for event in events]

    def check(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@contextmanager
def recorder(state: Path, **changes: Any) -> Iterator[BaseProcess]:
    process = _processes.Process(target=_record, args=(state, changes), daemon=True)
    process.start()
    try:
        yield process
    finally:
        kill(process)


@contextmanager
def worker(state: Path, **how: Any) -> Iterator[BaseProcess]:
    process = _processes.Process(target=_work, args=(state, how), daemon=True)
    process.start()
    try:
        yield process
    finally:
        kill(process)


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join(10)


def _record(state: Path, changes: dict[str, Any]) -> None:
    if limit := changes.pop("file_size", 0):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await Recorder(records(**changes), state, lambda _, folder: FileStore(folder)).run(stop)

    asyncio.run(run())
    os._exit(0)


def _work(state: Path, how: dict[str, Any]) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        said = Events(records(**how.get("changes", {})), state, SECRET, how.get("name", "0"))
        running = asyncio.ensure_future(said.emitter.run())
        log = os.open(state / f"log{how.get('name', '')}", os.O_CREAT | os.O_WRONLY)
        n = 0
        began = time.monotonic()
        while not stop.is_set() and n < how.get("count", 1 << 40):
            while n < (time.monotonic() - began) * how["rate"]:
                block(said, f"{how.get('name', '')}{n}")
                n += 1
                # What a killed process has written into a file is there.
                os.pwrite(log, b"%020d\n" % n, 0)
                os.pwrite(log, b"%020d\n" % time.monotonic_ns(), 21 * n)
            await asyncio.sleep(0.005)
        await stop.wait()
        await said.emitter.close()
        await asyncio.wait([running])

    asyncio.run(run())


def block(said: Events, reference: str) -> None:
    verdict = Verdict("block", "page", "7", "phishing", "main", 5)
    said.blocked(
        verdict=verdict, client="192.0.2.7", client_port=40213, protocol="http", stage="match",
        destination="198.51.100.7", destination_port=80, serial=7, reference=reference,
        url=lambda: "example.test/a",
    )  # fmt: skip


def emitted(state: Path, name: str = "") -> int:
    """How many events a worker has emitted."""
    log = state / f"log{name}"
    text = log.read_bytes()[:21] if log.exists() else b""
    return int(text) if len(text) == 21 else 0


def emitted_at(state: Path, n: int, name: str = "") -> float:
    """When it emitted the nth, counted from 1; seconds of a clock."""
    return int((state / f"log{name}").read_bytes()[21 * n : 21 * n + 20]) / 1e9
