import asyncio
import json
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import until, wait_for
from records.recording import events, kill, worker
from records.support import own_messages
from urlward.records import writer as module
from urlward.records.event import Event
from urlward.records.outbox import FOLDER, Batch, Outbox, Position
from urlward.records.store import StoreError
from urlward.records.writer import Mark, Writer, processes


def in_outbox(state: Path) -> list[Event]:
    outbox = Outbox(state, make=False)
    try:
        return outbox.read("a", Position(), 1 << 20).events
    finally:
        outbox.close()


def make(state: Path, **changes: Any) -> Writer:
    return Writer(state, "gw1-0", "gw1", **{"limit": 1000, "size": 64 << 20} | changes)


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    made = make(tmp_path)
    task = asyncio.ensure_future(made.run())
    yield made
    await made.close()
    await asyncio.wait([task])


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end may take longer than a second on a machine with other work."""
    monkeypatch.setattr(module, "END_WITHIN", 60.0)


class Disk:
    """What the disk does instead of taking events, until `goes_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], object]) -> None:
        append, self._fault = Outbox.append, fault
        self.tried = 0

        def instead(outbox: Outbox, batches: list[Batch], store: str = "") -> int:
            self.tried += 1
            self._fault()
            return append(outbox, batches, store)

        monkeypatch.setattr(Outbox, "append", instead)

    def goes_on(self) -> None:
        self._fault = lambda: None


def full() -> None:
    raise StoreError("outbox.db: database or disk is full")


def emit(writer: Writer, some: list[Event]) -> None:
    for event in some:
        writer.emit(event)


async def test_events_are_written_in_order(writer: Writer, tmp_path: Path) -> None:
    emit(writer, events(900))
    await until(lambda: not writer.waiting)
    emit(writer, [partial(Event._make, event) for event in events(10, 900)])
    emit(writer, events(90, 910))
    await until(lambda: not writer.waiting)
    found = in_outbox(tmp_path)
    assert found[:900] == events(900)
    assert found[910:] == events(90, 910)
    assert len(found) == 1000


async def test_what_the_disk_does_not_take_is_written_when_it_does(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    disk = Disk(monkeypatch, full)
    emit(writer, events(300))
    await until(lambda: disk.tried > 2)
    assert writer.trouble == "outbox.db: database or disk is full"
    assert writer.waiting == 300
    emit(writer, events(10, 300))
    disk.goes_on()
    await until(lambda: not writer.waiting)
    assert in_outbox(tmp_path) == events(310)
    assert writer.trouble == ""
    assert own_messages(caplog) == [
        "records: outbox.db: database or disk is full; events wait in memory, up to 1000",
        "records: the disk takes events again",
    ]


async def test_a_bug_is_told_and_does_not_end_it(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ZeroDivisionError("what is confidential")

    disk = Disk(monkeypatch, fails)
    emit(writer, events(3))
    await until(lambda: writer.trouble == "a bug: ZeroDivisionError")
    disk.goes_on()
    await until(lambda: not writer.waiting)
    assert in_outbox(tmp_path) == events(3)


async def test_the_event_loop_does_not_wait_for_the_disk(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 0.02)
    go_on = threading.Event()
    disk = Disk(monkeypatch, go_on.wait)
    emit(writer, events(1))
    await until(lambda: disk.tried)
    for first in range(1, 10):
        emit(writer, events(1, first))
        for _ in range(5):  # it turns
            await asyncio.sleep(0.01)
    assert writer.waiting == 10
    go_on.set()
    await until(lambda: not writer.waiting)
    assert in_outbox(tmp_path) == events(10)
    assert disk.tried == 2, "what has waited goes together"


async def test_events_may_come_while_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Growing(deque[Any]):
        def __iter__(self) -> Iterator[Any]:
            found = super().__iter__()
            self.append(module._Until(0))
            return found

    monkeypatch.setattr(module, "END_WITHIN", 60.0)
    writer = make(tmp_path)
    writer._batches = Growing()
    emit(writer, events(1))
    await writer.close()
    assert in_outbox(tmp_path) == events(1)
    assert own_messages(caplog) == []


async def test_what_is_too_much_is_dropped_and_told(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, full)
    emit(writer, events(1500))
    assert (writer.waiting, writer.dropped) == (1000, 500)
    disk.goes_on()
    await until(lambda: len(in_outbox(tmp_path)) == 1002)
    *kept, alarm, gap = in_outbox(tmp_path)
    assert kept == events(1000)
    assert (alarm.kind, alarm.node, json.loads(alarm.detail)["events"]) == ("alarm", "gw1", 500)
    said = json.loads(gap.detail)
    assert (gap.kind, said["since"] <= said["until"]) == ("gap", True)
    assert said["text"] == "worker gw1-0: 500 events were dropped, as too many waited to be recorded"


async def test_a_full_outbox_is_as_a_full_disk(tmp_path: Path) -> None:
    writer = make(tmp_path, size=1 << 20, limit=20_000)
    task = asyncio.ensure_future(writer.run())
    emit(writer, events(10_000, size=300))
    await until(lambda: "outbox.db: full" in writer.trouble)
    assert 0 < writer.waiting < 10_000
    outbox = Outbox(tmp_path)
    end = outbox.read("a", Position(), 10_000).last
    outbox.settle({"a": (end, False)}, end)
    await until(lambda: len(in_outbox(tmp_path)) > 1000)
    task.cancel()
    await writer.close()
    outbox.close()


async def test_an_event_that_cannot_be_said_costs_no_other(writer: Writer, tmp_path: Path) -> None:
    def fails() -> Event:
        raise ZeroDivisionError("what is confidential")

    emit(writer, events(1))
    emit(writer, [fails, object])  # type: ignore[list-item]
    emit(writer, events(1, 1, size=2 << 20))
    emit(writer, [events(1, 1)[0]._replace(entry="\ud800")])
    emit(writer, events(1, 2))
    await until(lambda: not writer.waiting)
    assert [event for event in in_outbox(tmp_path) if event.kind == "block"] == [*events(1), *events(1, 2)]
    assert writer.dropped == 4


@pytest.mark.usefixtures("patience")
async def test_the_end_writes_the_rest_and_leaves_no_mark(tmp_path: Path) -> None:
    writer = make(tmp_path)
    task = asyncio.ensure_future(writer.run())
    emit(writer, events(600))
    await until(lambda: processes(tmp_path))
    (found,) = processes(tmp_path)
    assert (found.name, found.node, found.who, found.lives) == ("gw1-0", "gw1", "worker gw1-0", True)
    await writer.close()
    await task
    assert in_outbox(tmp_path) == events(600)
    assert processes(tmp_path) == []
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["outbox.db"]


@pytest.mark.usefixtures("patience")
async def test_the_end_writes_the_rest_even_where_nothing_ran(tmp_path: Path) -> None:
    writer = make(tmp_path)
    emit(writer, events(1))
    await writer.close()
    assert in_outbox(tmp_path) == events(1)


async def test_the_end_does_not_wait_for_a_disk_that_takes_nothing_and_leaves_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = time.time_ns() // 1_000_000
    Disk(monkeypatch, full)
    monkeypatch.setattr(module, "END_WITHIN", 0.3)
    writer = make(tmp_path)
    emit(writer, events(7))
    async with asyncio.timeout(50):
        await writer.close()
    assert "7 events could not be written, and are lost" in caplog.text

    def left() -> bool:
        return [one.lives for one in processes(tmp_path)] == [False]

    await until(left)
    assert before - 10 <= processes(tmp_path)[0].since


async def test_the_mark_says_up_to_when_all_is_on_the_disk(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def since() -> int:
        return next((one.since for one in processes(tmp_path)), 0)

    now = time.time_ns() // 1_000_000
    await until(lambda: since() > now)  # it goes on where nothing happens
    disk = Disk(monkeypatch, full)
    emit(writer, events(1))
    await until(lambda: disk.tried)
    at = since()
    tried = disk.tried
    await until(lambda: disk.tried > tried + 2)
    assert since() == at
    disk.goes_on()
    await until(lambda: since() > at)


def test_a_process_that_is_killed_before_anything_delivers_leaves_its_events_and_its_mark(
    tmp_path: Path,
) -> None:
    with worker(tmp_path, rate=1000) as process:
        wait_for(lambda: len(in_outbox(tmp_path)) > 300, "events")
        kill(process)
    found = [event.reference for event in in_outbox(tmp_path) if event.kind == "block"]
    assert found == [str(n) for n in range(len(found))]
    (left,) = processes(tmp_path)
    assert not left.lives
    assert left.who.startswith("worker gw1-0-")


def test_a_mark_that_cannot_be_read_counts_as_one(tmp_path: Path) -> None:
    mark = Mark(tmp_path, "a", "gw1", "worker a")
    mark.make()
    (path,) = (tmp_path / FOLDER).iterdir()
    mark.close()
    path.write_bytes(b"?")
    (found,) = processes(tmp_path)
    assert (found.lives, found.who) == (False, f"process {path.stem}")


def test_a_mark_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    mark = Mark(tmp_path, "a", "gw1", "worker a")
    mark.make()
    (path,) = (tmp_path / FOLDER).iterdir()
    path.unlink()
    path.parent.rmdir()
    mark.make()
    assert [one.name for one in processes(tmp_path)] == ["a"]
    os.utime(path)
    mark.remove()
    assert processes(tmp_path) == []
