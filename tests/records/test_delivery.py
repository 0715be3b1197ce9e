import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.support import settle
from records.recording import Memory, events
from urlward.records import delivery as module
from urlward.records.delivery import Delivery
from urlward.records.event import Event
from urlward.records.outbox import Outbox, Position, batch_of
from urlward.records.store import StoreError

PLACE = "memory"


class Running:
    """A delivery to a store in memory, and what it says."""

    def __init__(self, state: Path) -> None:
        self.store = Memory()
        self.said: list[tuple[str, str]] = []
        self.opened = 0
        self.unopened = False
        self.state = state
        self.outbox = Outbox(state)
        self.delivery = Delivery("memory", PLACE, state, self._open, lambda *said: self.said.append(said))

    def _open(self) -> Memory:
        self.opened += 1
        if self.unopened:
            raise StoreError("memory: not there")
        return self.store

    def put(self, some: list[Event]) -> None:
        assert self.outbox.append([batch_of(some)]) == 1

    def look(self) -> None:
        """As the recorder does now and then."""
        end = self.outbox.news(Position()).last
        self.delivery.look(end, self.outbox.waiting(PLACE, self.delivery.position))

    def says(self, kind: str) -> bool:
        self.look()
        return kind in self.kinds()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    all_made: list[Running] = []

    def make(unopened: bool = False, down: bool = False) -> Running:
        running = Running(tmp_path)
        running.unopened = unopened
        running.delivery.start(Position(), down=down)
        all_made.append(running)
        return running

    yield make
    for running in all_made:
        running.store.wait = lambda: None
        running.delivery.close(60.0)
        running.outbox.close()


def ids(some: list[Event]) -> list[str]:
    return [event.id for event in some]


def test_nothing_is_read_while_room_is_made(made: Callable[..., Running]) -> None:
    running = made()
    with running.delivery.reading:
        assert running.outbox.append([batch_of(events(3))]) == 1
        time.sleep(2 * module.POLL)
        assert running.store.given == []
        assert running.delivery.reached == running.delivery.position
    wait_for(lambda: len(running.store.given) == 3, "them to be given")


def test_what_a_store_is_being_given_is_known(made: Callable[..., Running]) -> None:
    running = made()
    seen: list[tuple[int, int]] = []
    running.store.wait = lambda: seen.append((running.delivery.position.seq, running.delivery.reached.seq))
    running.put(events(3))
    end = running.outbox.news(Position()).last
    wait_for(lambda: running.delivery.position == end, "all")
    assert (0, end.seq) in seen
    assert running.delivery.reached == end


def test_a_store_gets_all_in_order(made: Callable[..., Running]) -> None:
    one = made()
    for n in range(0, 1000, 100):
        one.put(events(100, n))
    wait_for(lambda: len(one.store.given) == 1000, "all to arrive")
    assert one.store.given == ids(events(1000))
    wait_for(lambda: one.delivery.position.seq == 10, "the cursor")
    one.look()
    state = one.delivery.state()
    assert (state.up, state.written, state.failures, state.waiting, state.behind) == (True, 1000, 0, 0, False)
    assert one.said == []


def test_a_store_that_fails_and_comes_back_gets_all_in_order(made: Callable[..., Running]) -> None:
    one = made()
    one.store.down = True
    for n in range(0, 1000, 100):
        one.put(events(100, n))
    wait_for(lambda: one.says("store-down"), "the alarm")
    state = one.delivery.state()
    assert (state.up, state.waiting, state.behind, state.dropped) == (False, 1000, True, 0)
    assert state.failures > 0
    one.store.down = False
    wait_for(lambda: len(one.store.given) == 1000, "all to arrive")
    wait_for(lambda: one.kinds()[-1] == "store-back", "the word that it is back")
    assert one.delivery.state().up
    assert one.store.given == ids(events(1000))
    assert one.said[-1] == ("store-back", "store memory: takes events again, 1000 that waited have arrived")
    one.put(events(1, 1000))
    wait_for(lambda: one.store.given[-1:] == ids(events(1, 1000)), "the next")


def test_a_store_that_cannot_be_opened_is_opened_later(made: Callable[..., Running]) -> None:
    one = made(unopened=True)
    one.put(events(10))
    wait_for(lambda: one.opened > 1, "it to be tried again")
    one.unopened = False
    wait_for(lambda: one.store.given == ids(events(10)), "all to arrive")


def test_a_bug_in_a_store_costs_no_event(made: Callable[..., Running]) -> None:
    one = made()

    def fail() -> None:
        raise ZeroDivisionError("what is confidential")

    one.store.wait = fail
    one.put(events(10))
    wait_for(lambda: one.said, "the alarm")
    assert one.said == [("store-down", "store memory: a bug: ZeroDivisionError; events wait on the disk")]
    one.store.wait = lambda: None
    wait_for(lambda: one.store.given == ids(events(10)), "all to arrive")


def test_a_write_that_hangs_is_an_alarm_and_what_comes_behind_it_waits(
    made: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HUNG", 0.6)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    one, go_on = made(), threading.Event()
    one.store.wait = go_on.wait
    one.put(events(10))
    one.put(events(990, 10))
    wait_for(lambda: one.says("store-down"), "the alarm")
    assert one.delivery.state().behind
    go_on.set()
    wait_for(lambda: len(one.store.given) == 1000, "all to arrive")
    assert one.store.given == ids(events(1000))
    wait_for(lambda: one.kinds() == ["store-down", "store-back"], "the word that it is back")


def test_a_store_that_is_slow_is_behind_and_one_under_traffic_is_not(
    made: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    one, go_on = made(), threading.Event()
    for n in range(50):
        one.put(events(10, 10 * n))
        one.look()
        settle(0.01)
    wait_for(lambda: len(one.store.given) == 500, "all to arrive")
    one.store.wait = go_on.wait
    one.put(events(10, 500))

    def behind() -> bool:
        one.look()
        return one.delivery.behind

    wait_for(behind, "it to be behind")
    assert one.delivery.state().up
    go_on.set()
    wait_for(lambda: not behind(), "it to have caught up")


def test_what_is_dropped_is_told_once_there_is_room(made: Callable[..., Running]) -> None:
    one = made()
    one.store.down = True
    one.put(events(10))
    wait_for(lambda: one.says("store-down"), "the alarm")
    one.delivery.dropped = 5
    one.look()
    assert one.kinds() == ["store-down", "dropped"]
    one.delivery.dropped = 9
    one.look()
    assert one.kinds() == ["store-down", "dropped"]
    one.store.down = False
    wait_for(lambda: one.says("store-back") and one.kinds()[-1] == "dropped", "the word of it")
    assert one.said[-1][1].startswith("store memory: 9 events were dropped")


def test_a_store_that_has_yet_to_be_opened_is_not_up(tmp_path: Path) -> None:
    one = Running(tmp_path)
    assert not one.delivery.state().up
    one.delivery.start(Position(), down=False)
    wait_for(lambda: one.delivery.state().up, "it to be open")
    one.delivery.close(60.0)


def test_a_store_that_is_down_is_tried_again_also_where_nothing_waits(made: Callable[..., Running]) -> None:
    one = made(unopened=True)
    wait_for(lambda: one.opened >= 3, "it to be tried again")
    one.unopened = False
    wait_for(lambda: one.kinds()[-1] == "store-back", "it to be back")
    assert one.opened < 10


def test_a_store_is_not_said_to_be_back_before_it_has_taken_something(made: Callable[..., Running]) -> None:
    one = made()
    one.put(events(1))
    wait_for(lambda: one.store.given, "it to be open")
    one.store.down = True
    one.put(events(1, 1))
    wait_for(lambda: one.kinds() == ["store-down"], "the alarm")
    end = one.outbox.news(Position()).last
    one.outbox.settle({PLACE: (end, True)}, end)  # as when there is no room for what waits
    settle(module.BACKOFF[0] + 0.3)
    assert "store-back" not in one.kinds()
    one.store.down = False
    one.put(events(1, 2))
    wait_for(lambda: "store-back" in one.kinds(), "its alarm to end")
    assert len(one.store.given) == 2


def test_what_a_process_before_has_said_is_taken_back(made: Callable[..., Running]) -> None:
    one = made(down=True)
    assert not one.delivery.state().up
    one.put(events(1))
    wait_for(lambda: one.kinds() == ["store-back"], "the word that it is back")


def test_it_goes_on_where_the_one_before_has_written_it_was(tmp_path: Path) -> None:
    one = Running(tmp_path)
    one.put(events(4))
    one.put(events(6, 4))
    position = one.outbox.read(PLACE, Position(), 4).last
    one.delivery.start(position, down=False)
    wait_for(lambda: len(one.store.given) == 6, "the rest")
    assert one.store.given == ids(events(6, 4))
    one.delivery.close(60.0)
    assert one.store.closed == 1


def test_rows_that_are_no_events_are_counted_and_passed_over(made: Callable[..., Running]) -> None:
    one = made()
    one.put([*events(2), events(1)[0]._replace(kind="nonsense"), *events(1, 2)])  # type: ignore[arg-type]
    wait_for(lambda: one.store.given == ids(events(3)), "the others")
    wait_for(lambda: one.delivery.refused == 1, "the count")


def test_the_end_delivers_what_there_is(made: Callable[..., Running]) -> None:
    one = made()
    one.put(events(5000))
    one.delivery.close(60.0)
    assert one.store.given == ids(events(5000))
    assert one.delivery.position.seq == 1


def test_the_end_leaves_in_the_outbox_what_a_store_does_not_take(made: Callable[..., Running]) -> None:
    one = made()
    one.store.down = True
    one.put(events(10))
    one.delivery.close(60.0)
    assert one.store.given == []
    assert one.delivery.position.seq == 0


def test_the_end_does_not_wait_for_a_write_that_hangs(made: Callable[..., Running]) -> None:
    one, go_on = made(), threading.Event()
    one.store.wait = go_on.wait
    one.put(events(10))
    wait_for(lambda: one.delivery._busy_since is not None, "the write to begin")
    one.delivery.close(0.3)
    assert one.delivery.position.seq == 0
    go_on.set()
