import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from records.recording import events
from urlward.config.records import StoreTable
from urlward.dashboard import live_sources
from urlward.dashboard.live_sources import FINDERS, EventFinder
from urlward.records.database import Database
from urlward.records.store import EventQuery, StoreError
from urlward.records.stores import open_store


class Stuck:
    """A server that answers once it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.released = threading.Event()
        self.released.set()
        self._find = Database.find
        monkeypatch.setattr(Database, "find", lambda *args: self._wait(*args))

    def _wait(self, *args: Any) -> Any:
        self.asked += 1
        self.released.wait(60)
        return self._find(*args)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    made = Stuck(monkeypatch)
    yield made
    made.released.set()


def test_a_store_that_is_stuck_keeps_nobody_waiting_who_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: Stuck
) -> None:
    store = open_store(StoreTable(kind="sqlite"), tmp_path)
    store.write(events(3))
    store.close()
    finder = EventFinder(StoreTable(kind="sqlite"), tmp_path)
    assert len(finder.find(EventQuery())) == 3
    monkeypatch.setattr(live_sources, "ANSWER_WITHIN", 0.05)
    stuck.released.clear()
    stuck.asked = 0

    def asked() -> int:
        with pytest.raises(StoreError, match="sqlite: has not answered within"):
            finder.find(EventQuery())
        return stuck.asked

    wait_for(asked, "a question to be at the store")
    monkeypatch.setattr(live_sources, "ANSWER_WITHIN", 60.0)
    with ThreadPoolExecutor(4 * FINDERS) as many:
        assert {*many.map(lambda _: asked(), range(4 * FINDERS))} == {1}, "nor is it asked any more"
    with pytest.raises(StoreError, match="has not answered"):
        finder.count(EventQuery(), "list")
    stuck.released.set()
    wait_for(lambda: not finder._late, "its answer")
    assert len(finder.find(EventQuery())) == 3
    assert sum(finder.count(EventQuery(), "list").values()) == 3
