import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from records.recording import SECRET, Memory, block, events, records
from urlward.config.records import StoreTable
from urlward.records import emitter
from urlward.records import recorder as module
from urlward.records.event import Event
from urlward.records.events import Events
from urlward.records.recorder import Recorder, store_names


class Kept(Memory):
    """A store that has the events themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def write(self, events: Any) -> None:
        super().write(events)
        self.events += events

    def details(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(event.detail) for event in self.events if event.kind == kind]


class Running:
    """A recorder with two stores, and what they have."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.stores = {"sqlite": Kept(), "jsonl": Kept()}
        self.measured: list[Any] = []
        self.stop = asyncio.Event()
        table = records(store=(StoreTable(kind="sqlite"), StoreTable(kind="jsonl")))
        self.recorder = Recorder(table, state, lambda t, _: self.stores[t.kind], measures=self)
        self.task: asyncio.Task[None] | None = None

    def take(self, worker: str, snapshot: dict[str, Any]) -> None:
        self.measured.append(snapshot)

    def gone(self, worker: str) -> None:
        self.measured.append("gone")

    async def start(self, **beside: Any) -> None:
        self.task = asyncio.ensure_future(self.recorder.run(self.stop, beside))
        await until((self.state / module.SOCKET).exists)

    async def end(self) -> None:
        self.stop.set()
        assert self.task is not None
        await self.task


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    yield made
    if made.task is not None and not made.task.done():
        await made.end()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's end may take longer than a second on a machine with other work, and that of a store."""
    monkeypatch.setattr(emitter, "END_WITHIN", 60.0)
    monkeypatch.setattr(module, "STORES_WITHIN", 60.0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_store_has_every_event(running: Running) -> None:
    await running.start()
    said = Events(records(), running.state, SECRET)
    said.emitter.metrics = lambda: {"a": 1}
    for n in range(500):
        block(said, str(n))
    await said.emitter.close()
    assert running.recorder.taken["block"] == 500
    await running.end()
    for store in running.stores.values():
        assert [event.kind for event in store.events] == ["start", *["block"] * 500, "stop"]
        assert store.closed == 1
    assert {"a": 1} in running.measured
    assert running.measured[-1] == "gone"
    assert list(running.state.rglob("*.spool")) == []


async def test_one_store_that_fails_is_an_alarm_in_the_other(running: Running) -> None:
    running.stores["jsonl"].down = True
    await running.start()
    alarms = running.stores["sqlite"].details
    await until(lambda: alarms("alarm"))
    assert alarms("alarm") == [
        {"alarm": "store-down", "text": "store jsonl: memory: down; events wait on the disk"}
    ]
    assert list(running.recorder.alarms) == ["store-down"]
    running.stores["jsonl"].down = False
    await until(lambda: not running.recorder.alarms)
    await until(lambda: len(running.stores["jsonl"].details("alarm")) == 2)
    assert running.stores["jsonl"].details("alarm")[1]["alarm"] == "store-back"
    assert running.recorder.raised == {"store-down": 1, "store-back": 1}


async def test_a_loss_is_an_alarm_for_an_hour(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await running.start()
    running.recorder.alarm("store-replaced", "store sqlite: was deleted", whose="sqlite")
    running.recorder.alarm("store-lagging", "store jsonl: slow", whose="jsonl")
    await until(lambda: len(running.recorder.alarms) == 2)
    assert running.recorder.alarms["store-replaced"] == "store sqlite: was deleted"
    running.recorder.alarm("store-level", "store jsonl: fast", whose="jsonl")
    await until(lambda: list(running.recorder.alarms) == ["store-replaced"])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3_601))
    assert running.recorder.alarms == {}
    monkeypatch.undo()


async def test_what_is_refused_is_an_alarm(running: Running) -> None:
    await running.start()
    running.recorder.refused("gw1-0", 3)
    await until(lambda: running.stores["sqlite"].details("alarm"))
    text = "worker gw1-0: 3 of its events are none, and are not kept"
    assert running.stores["sqlite"].details("alarm") == [{"alarm": "refused", "text": text}]


async def test_a_task_beside_that_fails_is_begun_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AFTER_FAULT", 0.01)
    begun = []

    async def task() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ZeroDivisionError("what is confidential")
        await asyncio.Event().wait()

    await running.start(pages=task)
    await until(lambda: len(begun) == 3)
    assert "records: pages: a bug: ZeroDivisionError" in caplog.text
    assert "confidential" not in caplog.text


async def test_a_gap_says_from_when_to_when(running: Running) -> None:
    (running.state / "records.run").write_text("001795500000000\n")
    await running.start()
    await until(lambda: running.stores["sqlite"].details("gap"))
    (gap,) = running.stores["sqlite"].details("gap")
    assert gap["since"] == "2026-11-24T05:59:59.000Z"
    assert gap["until"] > gap["since"]
    assert gap["text"] == "the process that records ended without a word"


async def test_a_gap_over_a_clock_that_was_set_back_ends_after_it_begins(running: Running) -> None:
    (running.state / "records.run").write_text("009999500000000\n")
    await running.start()
    await until(lambda: running.stores["sqlite"].details("gap"))
    (gap,) = running.stores["sqlite"].details("gap")
    assert gap["since"] < gap["until"]


async def test_what_waits_for_a_store_that_is_gone_is_told(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("syslog", "sqlite"):
        (running.state / "spool" / name).mkdir(parents=True)
    await running.start()
    await until(lambda: "spool/syslog: events wait for a store" in caplog.text)
    assert "spool/sqlite" not in caplog.text


def test_stores_have_names_of_their_own() -> None:
    tables = [StoreTable(kind=kind) for kind in ("sqlite", "jsonl", "sqlite", "sqlite")]  # type: ignore[arg-type]
    assert store_names(tables) == ["sqlite", "jsonl", "sqlite-2", "sqlite-3"]


async def test_what_is_handed_in_is_safe_when_both_have_it(running: Running) -> None:
    await running.start()
    safe: list[int] = []
    running.recorder.take([], lambda: safe.append(1))
    assert safe == [1]
    running.recorder.take(events(3), lambda: safe.append(2))
    await until(lambda: len(safe) == 2)
    assert all(len(store.given) >= 3 for store in running.stores.values())
