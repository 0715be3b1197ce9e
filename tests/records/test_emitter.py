import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from records.recording import events
from records.support import own_messages
from urlward.records import emitter as module
from urlward.records.emitter import Emitter
from urlward.records.event import Event
from urlward.records.heartbeat import Heartbeat
from urlward.records.wire import Batch, Bye, Hello, Snapshot, decode, encode


class Other:
    """The other end, which acknowledges when told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Any] = []
        self.acknowledges = True
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=1 << 20)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while line := await reader.readline():
            self.heard.append(message := decode(line))
            if isinstance(message, Batch) and self.acknowledges:
                writer.write(encode({"ack": message.number}))

    def events(self) -> list[Event]:
        return [event for said in self.heard if isinstance(said, Batch) for event in said.events]

    def say(self, line: bytes) -> None:
        for writer in self._writers:
            writer.write(line)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Other]:
    made = Other(tmp_path / "sock")
    yield made
    await made.stop()


@pytest.fixture
async def emitter(tmp_path: Path) -> AsyncIterator[Emitter]:
    made = Emitter(tmp_path / "sock", "gw1-0", "gw1", limit=1000)
    task = asyncio.ensure_future(made.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end may take longer than a second on a machine with other work."""
    monkeypatch.setattr(module, "END_WITHIN", 60.0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def emit(emitter: Emitter, some: list[Event]) -> None:
    for event in some:
        emitter.emit(event)


async def test_events_are_handed_over_in_order(other: Other, emitter: Emitter) -> None:
    await other.start()
    emit(emitter, events(900))
    await until(lambda: not emitter.waiting)
    assert other.events() == events(900)
    assert other.heard[0] == Hello("gw1-0", "gw1")
    assert [said.number for said in other.heard[1:]] == [1, 2, 3, 4]


async def test_what_is_not_acknowledged_is_sent_again(other: Other, emitter: Emitter) -> None:
    other.acknowledges = False
    await other.start()
    emit(emitter, events(300))
    await until(lambda: len(other.events()) == 300)
    assert emitter.waiting == 300
    await other.stop()
    emit(emitter, events(10, 300))
    other.acknowledges = True
    other.heard.clear()
    await other.start()
    await until(lambda: not emitter.waiting)
    assert other.events() == events(310)


async def test_what_is_too_much_is_dropped_and_told(other: Other, emitter: Emitter) -> None:
    emit(emitter, events(1500))
    assert (emitter.waiting, emitter.dropped) == (1000, 500)
    await other.start()
    await until(lambda: len(other.events()) == 1001)
    assert other.events()[:1000] == events(1000)
    told = other.events()[-1]
    assert (told.kind, told.node) == ("alarm", "gw1")
    assert json.loads(told.detail)["events"] == 500


async def test_an_event_that_cannot_be_said_costs_no_other(other: Other, emitter: Emitter) -> None:
    await other.start()
    emit(emitter, events(1))
    emit(emitter, [object()])  # type: ignore[list-item]
    emit(emitter, events(1, 1, size=2 << 20))
    emit(emitter, events(1, 2))
    await until(lambda: not emitter.waiting)
    found = [event for event in other.events() if event.kind == "block"]
    assert found == [*events(1), *events(1, 2)]
    assert emitter.dropped == 2


async def test_metrics_are_told_and_their_bugs_cost_nothing(
    other: Other, emitter: Emitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "METRICS", 0.0)
    await other.start()
    emitter.metrics = lambda: {"requests": 7}
    await until(lambda: Snapshot({"requests": 7}) in other.heard)
    assert Snapshot({"requests": 7, "told": True}) not in other.heard
    # Who takes the place of the one that has had them is told that somebody has.
    await other.stop()
    other.heard.clear()
    await other.start()
    await until(lambda: Snapshot({"requests": 7, "told": True}) in other.heard)
    assert Snapshot({"requests": 7}) not in other.heard
    emitter.metrics = lambda: {"requests": 1 / 0}
    emit(emitter, events(5))
    await until(lambda: other.events() == events(5))


@pytest.mark.usefixtures("patience")
async def test_the_end_hands_over_the_rest_and_says_so(other: Other, emitter: Emitter) -> None:
    await other.start()
    emit(emitter, events(600))
    await emitter.close()
    assert other.events() == events(600)
    assert other.heard[-1] == Bye()
    assert not emitter.waiting


@pytest.mark.usefixtures("patience")
async def test_the_end_says_so_even_where_nothing_ran(other: Other, tmp_path: Path) -> None:
    await other.start()
    emitter = Emitter(tmp_path / "sock", "gw1-0", "gw1", limit=1000)
    emit(emitter, events(1))
    await emitter.close()
    assert other.heard[0] == Hello("gw1-0", "gw1")
    assert other.heard[-1] == Bye()
    assert other.events() == events(1)


async def test_the_end_does_not_wait_for_whoever_is_not_there(emitter: Emitter, tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    emit(emitter, events(1))
    async with asyncio.timeout(50):
        await emitter.close()
    assert emitter.waiting == 1
    missing = Heartbeat(tmp_path).begin(0)  # as the next start says
    assert missing is not None
    assert missing <= before


async def test_an_end_that_has_lost_nothing_leaves_no_word(emitter: Emitter, tmp_path: Path) -> None:
    await emitter.close()
    assert Heartbeat(tmp_path).begin(0) is None


@pytest.mark.parametrize("line", [b"?\n", b'{"ack": "1"}\n', b'{"ack": 99}\n', b"x" * (2 << 20), b""])
async def test_nonsense_is_survived(other: Other, emitter: Emitter, line: bytes) -> None:
    other.acknowledges = False
    await other.start()
    emit(emitter, events(5))
    await until(lambda: other.events() == events(5))
    other.say(line)
    other.acknowledges = True
    await other.stop()
    await other.start()
    await until(lambda: not emitter.waiting)


async def test_that_nobody_answers_is_said_late_and_taken_back(
    other: Other, emitter: Emitter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "SILENT_FOR", 0.2)
    emit(emitter, events(7))
    await until(lambda: "does not answer" in caplog.text)
    await other.start()
    await until(lambda: "answers again; 7 events have waited" in caplog.text)
    await other.stop()
    await until(lambda: caplog.text.count("does not answer") == 2)
    assert len(own_messages(caplog)) == 3


async def test_a_process_that_takes_its_time_to_start_is_not_said_to_be_silent(
    other: Other, emitter: Emitter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    emit(emitter, events(7))
    await asyncio.sleep(sum(module.BACKOFF))
    await other.start()
    await until(lambda: not emitter.waiting)
    assert own_messages(caplog) == []
