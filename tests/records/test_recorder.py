import asyncio
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from conftest import until
from records.recording import SECRET, Memory, block, events, records
from records.support import own_messages
from records.test_upgrade import segment
from urlward import lasting
from urlward.config.records import StoreTable
from urlward.records import delivery, writer
from urlward.records import recorder as module
from urlward.records.asking import SOCKET
from urlward.records.delivery import StoreState
from urlward.records.outbox import FILE, FOLDER, Batch, Outbox, Position, batch_of
from urlward.records.recorder import LEVEL, Recorder, place_of, store_names
from urlward.records.store import StoreError
from urlward.records.worker import Recording
from urlward.records.writer import Mark, processes
from urlward.state.folder import write_kept

if TYPE_CHECKING:
    from urlward.records.event import Event


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

    def __init__(self, state: Path, **changes: Any) -> None:
        self.state = state
        self.stores = {"sqlite": Kept(), "jsonl": Kept()}
        self.measured: list[Any] = []
        self.stop = asyncio.Event()
        table = records(store=(StoreTable(kind="sqlite"), StoreTable(kind="jsonl")), **changes)
        self.recorder = Recorder(table, state, lambda t, _: self.stores[t.kind], measures=self)
        self.task: asyncio.Task[None] | None = None

    def take(self, worker: str, snapshot: dict[str, Any]) -> None:
        self.measured.append(snapshot)

    def gone(self, worker: str) -> None:
        self.measured.append("gone")

    async def start(self, **beside: Any) -> None:
        self.task = asyncio.ensure_future(self.recorder.run(self.stop, beside))
        await until((self.state / SOCKET).exists)

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
    monkeypatch.setattr(writer, "END_WITHIN", 60.0)
    monkeypatch.setattr(module, "STORES_WITHIN", 60.0)


async def test_every_store_has_every_event(running: Running) -> None:
    await running.start()
    said = Recording(records(), running.state, SECRET)
    for n in range(500):
        block(said, str(n))
    await said.close()
    await until(lambda: running.recorder.taken["block"] == 500)
    await until(lambda: running.measured[-1:] == ["gone"])
    assert running.measured[-2]["blocks"] == {"main": {"phishing": 500}}
    await running.end()
    for store in running.stores.values():
        kinds = [event.kind for event in sorted(store.events)]
        assert kinds == ["start", *["block"] * 500, "stop", "stop"]
        assert store.closed == 1
    assert processes(running.state) == []
    outbox = Outbox(running.state)
    assert outbox.waiting("", next(iter(outbox.cursors().values()))[0]) == 0
    assert b"192.0.2.7" not in outbox.path.read_bytes()
    outbox.close()


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
    await until(lambda: running.recorder.raised == {"store-down": 1, "store-back": 1})


async def test_why_a_store_is_down_is_known_after_a_reload(running: Running) -> None:
    """It was red without a reason; the alarm is not recorded once more."""
    running.stores["jsonl"].down = True
    await running.start()
    await until(lambda: running.recorder.alarms)
    await running.end()
    another = Running(running.state)
    another.stores["jsonl"].down = True
    await another.start()
    await until(lambda: another.recorder.alarms == running.recorder.alarms)
    another.stores["jsonl"].down = False
    await until(lambda: not another.recorder.alarms)
    await another.end()
    assert [one["alarm"] for one in another.stores["jsonl"].details("alarm")] == ["store-down", "store-back"]


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
    Outbox(running.state).append([Batch(3, "{}", b'[["x"],[1],{}]')])
    await running.start()
    await until(lambda: running.stores["sqlite"].details("alarm"))
    text = "3 events are none, and are not kept"
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
    # `urlward status` is red meanwhile: it may be the dashboard that is not there. It is one event.
    text = "pages: a bug: ZeroDivisionError"
    assert running.recorder.alarms == {"begun-again": text}
    await until(lambda: running.stores["sqlite"].details("alarm"))
    assert running.stores["sqlite"].details("alarm") == [{"alarm": "begun-again", "text": text}]


async def test_a_gap_says_from_when_to_when(running: Running) -> None:
    _left_at(running.state, 1_795_500_000)
    await running.start()
    await until(lambda: running.stores["sqlite"].details("gap"))
    (gap,) = running.stores["sqlite"].details("gap")
    assert gap["since"] == "2026-11-24T06:00:00.000Z"
    assert gap["until"] > gap["since"]
    assert gap["text"] == "the process that records ended without a word"


async def test_a_gap_over_a_clock_that_was_set_back_ends_after_it_begins(running: Running) -> None:
    _left_at(running.state, 9_999_500_000)
    await running.start()
    await until(lambda: running.stores["sqlite"].details("gap"))
    (gap,) = running.stores["sqlite"].details("gap")
    assert gap["since"] < gap["until"]


def _left_at(state: Path, seconds: int) -> None:
    """As a recorder that was killed then."""
    mark = Mark(state, "gw1-records", "gw1", "the process that records")
    mark.make()
    mark.set(seconds * 10**9)
    mark.close()


async def test_what_waits_for_a_store_that_is_gone_is_told(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(running.state)
    outbox.append([batch_of(events(1)), batch_of(events(2, 1))])
    first = Position(outbox.news(Position()).last.file, 1)
    outbox.settle({"syslog 192.0.2.1:514": (first, True), "sqlite records.db": (first, False)}, Position())
    await running.start()
    # The recorder's own first event may be there as well by then.
    said = re.compile(r" [23] events waited for a store that is not configured any more")
    await until(lambda: said.search(caplog.text))
    await until(lambda: len(running.stores["jsonl"].events) >= 4)
    await until(lambda: len(running.stores["sqlite"].given) >= 2)
    assert running.stores["sqlite"].given[:2] == [event.id for event in events(2, 1)]
    await until(lambda: not any("syslog" in place for place in outbox.cursors()))
    outbox.close()


async def test_what_a_spool_of_a_version_before_has_goes_to_its_store(running: Running) -> None:
    segment(running.state, "jsonl", 1, events(5))
    await running.start()
    await until(lambda: len(running.stores["jsonl"].events) == 6)
    blocks = [event for event in running.stores["jsonl"].events if event.kind == "block"]
    assert blocks == events(5)
    await running.end()
    assert [event.kind for event in running.stores["sqlite"].events] == ["start", "stop"]
    assert not (running.state / "spool").exists()


async def test_an_outbox_that_is_lost_is_an_alarm_and_a_gap_and_all_goes_on(running: Running) -> None:
    await running.start()
    await until(lambda: running.stores["jsonl"].events)
    running.stores["jsonl"].down = True
    said = Recording(records(), running.state, SECRET)
    task = asyncio.ensure_future(said.run())
    block(said, "before")
    await until(lambda: "before" in [event.reference for event in running.stores["sqlite"].events])
    shutil.rmtree(running.state / FOLDER)
    block(said, "after")
    await until(lambda: "after" in [event.reference for event in running.stores["sqlite"].events])
    await until(lambda: "spool-damaged" in running.recorder.alarms)
    running.stores["jsonl"].down = False
    for store in running.stores.values():
        await until(lambda store=store: "is begun anew" in str(store.details("gap")))
        await until(lambda store=store: "after" in [event.reference for event in store.events])
        assert len(store.given) == len(set(store.given))
    await said.close()
    task.cancel()


@pytest.mark.parametrize("writer_first", [True, False])
@pytest.mark.parametrize("how", ["damaged", "deleted"])
async def test_an_outbox_that_was_lost_meanwhile_is_an_alarm_and_a_gap_since_all_had_all(
    tmp_path: Path, how: str, writer_first: bool
) -> None:
    """Also where a worker was there before, and has begun it anew."""
    before, level, path = Running(tmp_path), tmp_path / LEVEL, tmp_path / FOLDER / FILE
    await before.start()
    await until(level.exists)
    await before.end()
    (known,) = json.loads(level.read_text())["level"]
    write_kept(level, 1, "level", [known | {"time": 1_795_500_000_000}])
    if how == "damaged":
        path.write_bytes(b"X" * 16 + path.read_bytes()[16:])
    else:
        path.unlink()
    if writer_first:
        outbox, told = Outbox(tmp_path), 0
        for _ in range(2):
            with suppress(StoreError):
                told += outbox.append([batch_of(events(1))])
        outbox.close()
        assert told > 0
    after = Running(tmp_path)
    after.stores["jsonl"].down = True
    await after.start()
    await until(lambda: after.stores["sqlite"].details("gap"))
    (gap,) = after.stores["sqlite"].details("gap")
    assert gap["since"] == "2026-11-24T06:00:00.000Z"
    assert "is begun anew" in gap["text"]
    alarms = [one["alarm"] for one in after.stores["sqlite"].details("alarm")]
    assert alarms.count("spool-damaged") == 1
    await after.end()
    again = Running(tmp_path)
    await again.start()
    await until(lambda: again.stores["sqlite"].events)
    await again.end()
    assert again.stores["jsonl"].details("gap") == [gap], "once, also where not all had all in between"


async def test_a_disk_that_takes_nothing_is_an_alarm_until_it_does(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.start()
    await until(lambda: running.stores["sqlite"].events)
    append = Outbox.append

    def fails(*_: object) -> int:
        raise StoreError("outbox.db: database or disk is full")

    monkeypatch.setattr(Outbox, "append", fails)
    running.recorder.tell("start", {"process": "something"})
    await until(lambda: "disk is full" in running.recorder.alarms.get("spool-down", ""))
    monkeypatch.setattr(Outbox, "append", append)
    await until(lambda: not running.recorder.alarms)
    await until(lambda: len(running.stores["sqlite"].details("alarm")) == 2)


async def test_a_bug_in_keeping_the_outbox_is_an_alarm_and_one_line(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise ZeroDivisionError("what is confidential")

    monkeypatch.setattr(module, "KEEP", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_settle", fails)
        await running.start()
        await until(lambda: len(tried) > 3)
        text = "a bug: ZeroDivisionError; the outbox may fill up"
        assert running.recorder.alarms == {"spool-down": text}
        assert own_messages(caplog) == [f"records: {text}"]
    await until(lambda: not running.recorder.alarms)


async def test_a_passing_shortage_of_threads_costs_no_event(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, tried = Thread.start, Counter[str]()

    def start(thread: Thread) -> None:
        tried[thread.name] += 1
        if thread.name in ("records-outbox", "records-jsonl") and tried[thread.name] < 2:
            raise RuntimeError("can't start new thread")
        starts(thread)

    monkeypatch.setattr(lasting, "AGAIN", 0.01)
    monkeypatch.setattr(module, "KEEP", 0.01)
    monkeypatch.setattr(Thread, "start", start)
    await running.start()
    await until(lambda: all(store.events for store in running.stores.values()))
    await until(lambda: not running.recorder.alarms)
    assert tried["records-sqlite"] == 1


async def test_a_spool_that_the_disk_does_not_take_in_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = segment(running.state, "jsonl", 1, events(5))
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise StoreError("outbox.db: database or disk is full")

    monkeypatch.setattr(module, "KEEP", 0.01)
    monkeypatch.setattr(module, "SPOOLS_AGAIN", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(module, "take_in_spools", fails)
        await running.start()
        await until(lambda: len(tried) > 3)
        assert path.exists()
    await until(lambda: len([one for one in running.stores["jsonl"].events if one.kind == "block"]) == 5)
    assert own_messages(caplog) == [
        "records: what waits in a spool of a version before is tried again: "
        "outbox.db: database or disk is full"
    ]
    await until(lambda: not path.exists())


async def test_a_spool_that_cannot_be_deleted_is_not_taken_in_again_and_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise PermissionError(1, "Operation not permitted", "000000000001.spool")

    monkeypatch.setattr(module, "SPOOLS_AGAIN", 0.0)
    monkeypatch.setattr(module, "take_in_spools", fails)
    await running.start()
    await until(lambda: running.stores["jsonl"].events)
    assert own_messages(caplog) == [
        "records: what waits in a spool of a version before stays there until the next start: "
        "[Errno 1] Operation not permitted: '000000000001.spool'"
    ]
    assert tried == [1]


async def test_what_there_is_no_room_for_is_dropped_for_the_store_that_is_behind_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BACKOFF", (0.1,))
    monkeypatch.setattr(module, "KEEP", 0.02)
    running = Running(tmp_path, spool=1 << 20)
    await running.start()
    await until(lambda: running.stores["jsonl"].events)
    running.stores["jsonl"].down = True
    outbox = Outbox(tmp_path)
    for n in range(0, 10_000, 500):
        outbox.append([batch_of(events(500, n, size=200))])
        await until(lambda n=n: len(running.stores["sqlite"].given) > n + 500)
        # Or at a late look the newest would be what the other store does not have yet, which stays.
        await until(lambda n=n: running.recorder.taken["block"] >= n + 500)

    def is_within() -> bool:
        state = running.recorder.state()  # which is of the last look
        return 0 < state.spool_bytes <= 1 << 20 and state.dropped > 5000 and state.spool_events < 5000

    await until(is_within)
    running.stores["jsonl"].down = False
    await until(lambda: "dropped" in [one["alarm"] for one in running.stores["jsonl"].details("alarm")])
    await until(lambda: running.stores["jsonl"].details("gap"))
    await running.end()
    found = {
        name: [e.reference for e in store.events if e.kind == "block"]
        for name, store in running.stores.items()
    }
    assert found["sqlite"] == [str(n) for n in range(10_000)], "who is up gets all"
    # Own events may be among those that were dropped.
    assert 0 <= running.recorder.state().dropped - (10_000 - len(found["jsonl"])) <= 6
    kept = len(found["jsonl"])
    assert found["jsonl"][: kept // 3] == [str(n) for n in range(kept // 3)], "the newest were dropped"
    outbox.close()


@pytest.mark.parametrize(("behind", "given"), [(True, False), (True, True), (False, False)])
def test_a_gap_begins_before_what_the_look_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool, given: bool
) -> None:
    """What is dropped was made before, as is what comes while all that was found is written down. What a
    store is just being given is not dropped."""
    clock = count(1_000 * 10**9, 10**9)  # a second goes by with each look at it
    recorder = Recorder(records(spool=1 << 20), tmp_path, lambda *_: Kept(), clock=lambda: next(clock))
    outbox = recorder._outbox
    for n in range(0, 5_000, 500):
        outbox.append([batch_of(events(500, n, size=200))])
    all_of_it = outbox.news(Position()).last
    store = SimpleNamespace(
        name="jsonl", place="jsonl", behind=behind, down=behind, dropped=0, refused=0,
        position=Position(all_of_it.file) if behind else all_of_it, look=lambda *_: None, reading=Lock(),
    )  # fmt: skip
    drop = outbox.drop

    def dropped(size: int, up_to: Position, of: Mapping[str, Position]) -> dict[str, int]:
        assert store.reading.locked() == behind, "or what is dropped might be given"
        return drop(size, up_to, of)

    monkeypatch.setattr(outbox, "drop", dropped)
    store.reached = all_of_it if given else store.position
    recorder.deliveries = (store,)  # type: ignore[assignment]
    recorder._begun, recorder._end = True, Position(all_of_it.file)
    before = next(clock) // 10**6
    recorder._keep()
    assert (store.dropped > 0) == (behind and not given)
    if given:
        assert recorder._dropping_since == {}
    elif behind:
        assert recorder._dropping_since["jsonl"] <= before
    else:
        (level,) = json.loads((tmp_path / LEVEL).read_text())["level"]
        assert level["file"] == all_of_it.file
        assert level["time"] <= before
    outbox.close()


def test_since_when_all_stores_have_all_is_known_after_a_clock_was_set_back(tmp_path: Path) -> None:
    recorder = Running(tmp_path).recorder
    for moment in (1_795_600_000_000, 1_795_500_000_000):
        recorder._is_level(7, moment)
    later = Running(tmp_path).recorder
    later._read_level()
    assert (later._end, later._level_at) == (Position(7), 1_795_500_000_000)


def test_stores_have_names_of_their_own() -> None:
    tables = [StoreTable(kind=kind) for kind in ("sqlite", "jsonl", "sqlite", "sqlite")]  # type: ignore[arg-type]
    assert store_names(tables) == ["sqlite", "jsonl", "sqlite-2", "sqlite-3"]


def test_what_waits_is_on_its_way_or_in_the_spool(tmp_path: Path) -> None:
    def store(name: str, **state: Any) -> SimpleNamespace:
        return SimpleNamespace(name=name, state=lambda: StoreState(**state))

    recorder = Recorder(records(spool=1 << 20), tmp_path, lambda *_: Kept())
    recorder.deliveries = (  # type: ignore[assignment]
        store("sqlite", written=5, waiting=1),
        store("syslog", up=False, written=2, failures=3, waiting=4, behind=True, dropped=6),
    )
    recorder._used = 400
    found = recorder.state()
    assert (found.queue, found.spool_events, found.spool_bytes, found.spool_limit) == (1, 4, 400, 1 << 20)
    assert (found.dropped, found.stores["syslog"].failures) == (6, 3)


def test_a_store_is_known_again_wherever_it_stands_in_the_configuration() -> None:
    tables = [StoreTable(kind="sqlite"), StoreTable(kind="sqlite", path="other.db"), StoreTable(kind="jsonl")]
    assert len({place_of(table) for table in tables}) == 3
    assert place_of(tables[1]) == "sqlite other.db"


async def test_what_lasts_is_shown_and_what_ends_an_alarm_has_not_been_raised(running: Running) -> None:
    await running.start()
    running.recorder.raised["store-down"] += 2
    running.recorder.raised["store-back"] += 1
    state = running.recorder.state({"set-aside": "damaged"})
    assert (state.alarms, state.raised) == ({"set-aside": "damaged"}, {"store-down": 2})
    assert [*state.stores] == ["sqlite", "jsonl"]
