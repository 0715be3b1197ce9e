"""A process that records, and a worker, to be killed; and stores that fail when told."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.engine.verdict import Verdict
from urlward.records import recorder as recorder_module
from urlward.records import writer as writer_module
from urlward.records.event import Event, make_event
from urlward.records.outbox import Outbox, batch_of
from urlward.records.recorder import Recorder
from urlward.records.store import StoreError
from urlward.records.worker import Hit, Recording

_processes = multiprocessing.get_context("forkserver")
# What takes long to load; not this module, which it does not find.
_processes.set_forkserver_preload(["sqlite3", "urlward.records.worker", "urlward.records.recorder"])

SECRET = bytes(range(32))

PATIENCE = 60.0
"""Seconds that a process has for its end in order: a machine with other work may need more than one."""

STALL = 0.25
"""Seconds at most that count of a time in which the machine has not let a worker run."""


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
        with suppress(FileNotFoundError):
            time.sleep(float((self._folder / "slow").read_text() or 0))


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


def appending(state: Path, client: str, count: int) -> BaseProcess:
    """A process that puts events into the outbox, ten at a time, a second of their own time after another."""
    process = _processes.Process(target=_append, args=(state, client, count), daemon=True)
    process.start()
    return process


def _append(state: Path, client: str, count: int) -> None:
    outbox = Outbox(state)
    for n in range(0, count, 10):
        some = [make_event("block", k * 10**9, k.to_bytes(8), client=client) for k in range(n, n + 10)]
        outbox.append([batch_of(some)])
    outbox.close()


def kill(*processes: BaseProcess) -> None:
    """All at one moment: none lives on while the end of another is waited for."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(PATIENCE)


def end(*processes: BaseProcess) -> None:
    """In order, all told at one moment."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(2 * PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _record(state: Path, changes: dict[str, Any]) -> None:
    _limit_files(changes.pop("file_size", 0))
    recorder_module.WORKERS_WITHIN = recorder_module.STORES_WITHIN = PATIENCE

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await Recorder(records(**changes), state, lambda _, folder: FileStore(folder)).run(stop)

    asyncio.run(run())
    os._exit(0)


def _limit_files(size: int) -> None:
    """No file of this process may be larger, where a size is given: as on a disk that is full."""
    if size:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class _Clock:
    """Seconds that a process has run for, whatever else the machine had to do meanwhile."""

    def __init__(self) -> None:
        self._at, self._now = time.monotonic(), 0.0

    def __call__(self) -> float:
        at = time.monotonic()
        self._now += min(at - self._at, STALL)
        self._at = at
        return self._now


def _work(state: Path, how: dict[str, Any]) -> None:
    writer_module.END_WITHIN = PATIENCE
    _limit_files(how.get("file_size", 0))

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        said = Recording(records(**how.get("changes", {})), state, SECRET, how.get("name", "0"))
        running = asyncio.ensure_future(said.run())
        log = os.open(state / f"log{how.get('name', '')}", os.O_CREAT | os.O_WRONLY)
        n = 0
        began, clock = time.monotonic(), _Clock()
        count = how.get("count", 1 << 40)
        while not stop.is_set() and n < count:
            # As of now: where the machine is too slow for the rate, the loop has its turns all the same.
            due = min(count, (time.monotonic() - began) * how["rate"])
            while n < due:
                block(said, f"{how.get('name', '')}{n}")
                n += 1
                # What a killed process has written into a file is there; where a number is, so is its time.
                os.pwrite(log, b"%020d\n" % int(clock() * 1e9), 21 * n)
                os.pwrite(log, b"%020d\n" % n, 0)
            await asyncio.sleep(0.005)
            clock()
        await stop.wait()
        await said.close()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())


def block(said: Recording, reference: str) -> None:
    verdict = Verdict("block", "page", "7", "phishing", "main", 5)
    said._serials.setdefault("main", 7)
    said.hit(
        Hit(
            verdict,
            "192.0.2.7",
            40213,
            "http",
            "match",
            reference,
            lambda: "example.test/a",
            "198.51.100.7",
            80,
        )
    )


def emitted(state: Path, name: str = "") -> int:
    """How many events a worker has emitted."""
    log = state / f"log{name}"
    text = log.read_bytes()[:21] if log.exists() else b""
    return int(text) if text[:20].isdigit() else 0


def emitted_at(state: Path, n: int, name: str = "") -> float:
    """When it emitted the nth, counted from 1; seconds that it had run for."""
    return int((state / f"log{name}").read_bytes()[21 * n : 21 * n + 20]) / 1e9
