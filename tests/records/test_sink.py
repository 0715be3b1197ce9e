import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.support import settle
from records.recording import Memory, events
from urlward.records import sink as module
from urlward.records.event import Event
from urlward.records.sink import StoreSink
from urlward.records.spool import Spool
from urlward.records.store import StoreError


class Sink:
    """A sink before a store in memory, and what it says."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.store = Memory()
        self.said: list[tuple[str, str]] = []
        self.safe = 0
        self._counting = threading.Lock()  # two threads of a sink say so, and whoever hands over
        self.opened = 0
        self._folder = folder
        self.unopened = False
        self.sink = StoreSink(
            "memory", self._open, Spool(folder, limit), lambda *said: self.said.append(said)
        )

    def _open(self) -> Memory:
        self.opened += 1
        if self.unopened:
            raise StoreError("memory: not there")
        return self.store

    def put(self, some: list[Event]) -> None:
        def safe() -> None:
            with self._counting:
                self.safe += len(some)

        self.sink.put(some, safe)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Sink]]:
    all_made: list[Sink] = []

    def make(limit: int = 64 << 20, unopened: bool = False) -> Sink:
        sink = Sink(tmp_path / "spool", limit)
        sink.unopened = unopened
        sink.sink.start()
        all_made.append(sink)
        return sink

    yield make
    for sink in all_made:
        sink.store.wait = lambda: None
        sink.sink.close(60.0)


def ids(some: list[Event]) -> list[str]:
    return [event.id for event in some]


def test_events_are_safe_when_they_are_in_the_store(made: Callable[..., Sink]) -> None:
    sink = made()
    for n in range(0, 1000, 100):
        sink.put(events(100, n))
    wait_for(lambda: sink.safe == 1000, "all to be safe")
    assert sink.store.given == ids(events(1000))
    assert sink.said == []
    state = sink.sink.state()
    assert (state.up, state.written, state.failures, state.queued, state.spooled) == (True, 1000, 0, 0, 0)


def test_a_store_that_fails_and_comes_back_gets_all_in_order(made: Callable[..., Sink]) -> None:
    sink = made()
    sink.store.down = True
    for n in range(0, 1000, 100):
        sink.put(events(100, n))
    wait_for(lambda: sink.safe == 1000, "all to be safe")
    assert sink.kinds() == ["store-down"]
    state = sink.sink.state()
    assert (state.up, state.spooled, state.dropped) == (False, 1000, 0)
    assert state.failures > 0
    sink.store.down = False
    wait_for(lambda: len(sink.store.given) == 1000, "all to arrive")
    wait_for(lambda: sink.kinds()[-1] == "store-back", "the word that it is back")
    assert sink.sink.state().up
    assert sink.store.given == ids(events(1000))
    assert sink.said[-1] == ("store-back", "store memory: takes events again, 1000 that waited have arrived")
    sink.put(events(1, 1000))
    wait_for(lambda: sink.safe == 1001, "the next")
    assert sink.store.given[-1:] == ids(events(1, 1000))


def test_a_store_that_cannot_be_opened_is_opened_later(made: Callable[..., Sink]) -> None:
    sink = made(unopened=True)
    sink.put(events(10))
    wait_for(lambda: sink.safe == 10, "all to be safe")
    sink.unopened = False
    wait_for(lambda: sink.store.given == ids(events(10)), "all to arrive")
    assert sink.opened > 1


def test_a_bug_in_a_store_costs_no_event(made: Callable[..., Sink]) -> None:
    sink = made()

    def fail() -> None:
        raise ZeroDivisionError("what is confidential")

    sink.store.wait = fail
    sink.put(events(10))
    wait_for(lambda: sink.safe == 10, "all to be safe")
    assert sink.said == [("store-down", "store memory: a bug: ZeroDivisionError; events wait on the disk")]
    sink.store.wait = lambda: None
    wait_for(lambda: sink.store.given == ids(events(10)), "all to arrive")


def test_what_comes_behind_a_write_that_hangs_is_safe_all_the_same(
    made: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HUNG", 0.6)
    sink, go_on = made(), threading.Event()
    sink.store.wait = go_on.wait
    sink.put(events(10))
    wait_for(lambda: not sink.sink.state().queued, "the write to begin")
    sink.put(events(990, 10))
    wait_for(lambda: sink.safe == 990, "the others to be safe")
    wait_for(lambda: sink.kinds() == ["store-down"], "the alarm")
    go_on.set()
    wait_for(lambda: len(sink.store.given) == 1000, "all to arrive")
    assert sink.store.given == ids(events(1000))
    wait_for(lambda: sink.kinds() == ["store-down", "store-back"], "the word that it is back")


def test_what_has_no_room_is_dropped_counted_and_told_once_there_is(made: Callable[..., Sink]) -> None:
    sink = made(limit=40_000)
    sink.store.down = True
    for n in range(0, 1000, 100):
        sink.put(events(100, n))
        wait_for(lambda n=n: sink.safe == n + 100, "all to be seen off")
    lost = sink.sink.dropped
    assert 500 <= lost < 1000
    sink.store.down = False
    wait_for(lambda: len(sink.store.given) == 1000 - lost, "what was kept to arrive")
    wait_for(lambda: sink.kinds()[-2:] == ["store-back", "dropped"], "the word of it")
    assert sink.said[-1][1].startswith(f"store memory: {lost} events were dropped")


def test_memory_is_bounded_where_the_disk_takes_nothing(
    made: Callable[..., Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE", 500)
    sink = made()
    sink.store.down = True
    (tmp_path / "spool").touch()  # no folder can be made there
    for n in range(0, 1000, 100):
        sink.put(events(100, n))
    wait_for(lambda: "spool-down" in sink.kinds(), "the alarm")
    assert sink.sink.state().queued <= 500
    assert sink.sink.dropped >= 300
    assert sink.safe == sink.sink.dropped
    kept = 1000 - sink.sink.dropped
    sink.store.down = False
    wait_for(lambda: sink.safe == 1000, "the others to be safe")
    assert sink.store.given == ids(events(1000))[:kept]
    wait_for(lambda: "spool-back" in sink.kinds(), "the word that there is room again")


def test_a_store_that_has_yet_to_be_opened_is_not_up(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "spool", 1 << 20)
    assert not sink.sink.state().up
    sink.sink.start()
    wait_for(lambda: sink.sink.state().up, "it to be open")
    sink.sink.close(60.0)


def test_a_store_that_is_down_is_tried_again_also_where_nothing_waits(made: Callable[..., Sink]) -> None:
    sink = made(unopened=True)
    wait_for(lambda: sink.opened >= 3, "it to be tried again")
    sink.unopened = False
    wait_for(lambda: sink.kinds()[-1] == "store-back", "it to be back")
    assert sink.opened < 10


def test_a_store_is_not_said_to_be_back_before_it_has_taken_something(made: Callable[..., Sink]) -> None:
    sink = made(limit=1)
    sink.put(events(1))
    wait_for(lambda: sink.safe == 1, "it to be open")
    sink.store.down = True
    sink.put(events(1, 1))
    wait_for(lambda: sink.sink.dropped == 1, "it to be dropped, since the spool has no room")
    settle(module.BACKOFF[0] + 0.3)
    assert "store-back" not in sink.kinds()
    sink.store.down = False
    sink.put(events(1, 2))
    wait_for(lambda: "store-back" in sink.kinds(), "its alarm to end")
    assert len(sink.store.given) == 2


def test_the_end_says_what_has_come_back_meanwhile(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "spool", 1 << 20)
    sink.sink.start()
    wait_for(lambda: sink.sink.tried, "the store to be opened")
    sink.sink._in_hand = 10
    assert not sink.sink.close(0.5)


def test_the_end_spools_what_a_write_that_hangs_has_in_hand(
    made: Callable[..., Sink], tmp_path: Path
) -> None:
    sink, go_on = made(), threading.Event()
    sink.store.wait = go_on.wait
    sink.put(events(10))
    wait_for(lambda: sink.sink._writing, "the write to begin")
    sink.put(events(10, 10))
    assert sink.sink.close(0.3) is False  # nobody knows what becomes of that write
    found = Spool(tmp_path / "spool", 1 << 20)
    spooled = []
    while (segment := found.oldest()) is not None:
        spooled += ids(segment.events)
        found.remove_oldest()
    assert sorted(spooled) == ids(events(20))
    go_on.set()


def test_what_is_given_back_to_an_empty_queue_is_written(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "spool", 1 << 20)
    sink.put(events(10))
    taken = sink.sink._take(100)
    sink.sink.start()
    wait_for(lambda: sink.sink.tried, "the store to be opened")
    settle()  # the writer finds nothing and waits
    sink.sink._give_back(taken, 10)
    wait_for(lambda: sink.safe == 10, "them to be safe")
    assert sink.sink.close(60.0)


def test_what_a_sink_before_has_left_comes_first(made: Callable[..., Sink], tmp_path: Path) -> None:
    Spool(tmp_path / "spool", 1 << 20).append(events(10))
    sink = made()
    sink.put(events(10, 10))
    wait_for(lambda: sink.store.given == ids(events(20)), "all to arrive")
    assert sink.sink.close(60.0)
    assert sink.store.closed == 1


def test_damage_is_told(made: Callable[..., Sink], tmp_path: Path) -> None:
    Spool(tmp_path / "spool", 1 << 20).append(events(10))
    path = next((tmp_path / "spool").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    sink = made()
    wait_for(lambda: "spool-damaged" in sink.kinds(), "the alarm")
    wait_for(lambda: not path.exists(), "the damaged one to go")
    assert sink.store.given == []


def test_the_end_leaves_on_the_disk_what_a_store_does_not_take(
    made: Callable[..., Sink], tmp_path: Path
) -> None:
    sink = made()
    sink.store.down = True
    sink.put(events(10))
    assert sink.sink.close(60.0)
    assert sink.safe == 10
    assert Spool(tmp_path / "spool", 1 << 20).events == 10
