"""Files of a store that are deleted, moved, cut or replaced under way: it is noticed and said, they are begun
anew, and what was in hand is kept."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from conftest import wait_for
from records.recording import events
from rows import each_row
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.dashboard.live_sources import EventFinder
from urlward.records import database, jsonl_store, sql
from urlward.records.database import open_database
from urlward.records.delivery import Delivery, StoreState
from urlward.records.event import Event
from urlward.records.jsonl_store import JsonlStore, open_jsonl
from urlward.records.outbox import Outbox, Position, batch_of
from urlward.records.retention import KeepingStores
from urlward.records.store import EventQuery, ReplacedError, StoreError
from urlward.records.stores import open_store

TABLES = {
    "sqlite": StoreTable(kind="sqlite"),
    "jsonl": StoreTable(kind="jsonl"),
    "postgresql": StoreTable(kind="postgresql", url_env="RECORDS_URL"),
}


class Running:
    """A delivery to a store of files, and what it says."""

    def __init__(self, state: Path, kind: str) -> None:
        self.state = state
        self.said: list[tuple[str, str]] = []
        table = TABLES[kind]
        self._outbox = Outbox(state)
        self._delivery = Delivery(
            kind, kind, state, lambda: open_store(table, state), lambda *said: self.said.append(said)
        )
        self._delivery.start(Position(), down=False)

    def put(self, some: list[Event]) -> None:
        assert self._outbox.append([batch_of(some)]) == 1

    def state_of(self) -> StoreState:
        self._delivery.look(Position(), self._outbox.waiting("", self._delivery.position))
        return self._delivery.state()

    def close(self) -> None:
        self._delivery.close(60.0)
        self._outbox.close()

    @property
    def written(self) -> int:
        """Events that the store has been given with success."""
        return self._delivery.state().written

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]

    def kept(self) -> set[str]:
        """References in the file that anybody would open now."""
        if (self.state / "records.jsonl").exists():
            *lines, _ = (self.state / "records.jsonl").read_text().split("\n")  # one may be half written
            return {json.loads(line)["reference"] for line in lines}
        with closing(open_database(TABLES["sqlite"], self.state)) as database:
            return {event.reference for event in database.find(EventQuery(limit=100_000))}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    made: list[Running] = []

    def make(kind: str) -> Running:
        made.append(Running(tmp_path, kind))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _remove(state: Path, pattern: str) -> None:
    for path in state.glob(pattern):
        path.unlink(missing_ok=True)  # where the first is noticed in time SQLite removes the others


def _move(state: Path, pattern: str) -> None:
    (state / "elsewhere").mkdir()
    for path in state.glob(pattern):
        with suppress(FileNotFoundError):  # likewise
            path.rename(state / "elsewhere" / path.name)


def _replace(state: Path, pattern: str) -> None:
    """By another file, as an administrator puts a backup in place."""
    path = next(one for one in state.glob(pattern) if one.suffix in (".db", ".jsonl"))
    other = state / "backup"
    shutil.copyfile(path, other)
    other.replace(path)


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
@pytest.mark.parametrize("fault", [_remove, _move, _replace])
def test_under_traffic_nothing_is_lost_that_comes_after_it(
    running: Callable[[str], Running], kind: str, fault: Callable[[Path, str], None]
) -> None:
    one = running(kind)
    pattern = "records.db*" if kind == "sqlite" else "records.jsonl"
    for n in range(0, 200, 10):
        one.put(events(10, n))
        time.sleep(0.005)
    wait_for(lambda: one.written >= 100, "the first events to be kept")
    fault(one.state, pattern)
    for n in range(200, 400, 10):
        one.put(events(10, n))
        time.sleep(0.005)
    wait_for(lambda: one.state_of().up and one.kinds()[-1:] == ["store-back"], "the store to be back")
    assert one.kinds()[:2] == ["store-replaced", "store-down"]
    assert "records." in one.said[0][1]
    wait_for(lambda: {str(n) for n in range(200, 400)} <= one.kept(), "all that came after")
    assert one.state_of().dropped == 0


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_what_is_in_hand_meanwhile_is_not_said_to_be_kept(
    running: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    module, name = (database, "insert_new") if kind == "sqlite" else (jsonl_store, "_append")
    write = getattr(module, name)
    one = running(kind)
    one.put(events(10))
    wait_for(lambda: one.written == 10, "events to be kept")

    def removed(*arguments: object) -> None:
        write(*arguments)
        monkeypatch.undo()
        _remove(one.state, "records.*")

    monkeypatch.setattr(module, name, removed)
    one.put(events(10, 10))
    wait_for(lambda: one.kinds() == ["store-replaced", "store-down", "store-back"], "the store to be back")
    wait_for(lambda: one.written == 20, "the others to be kept")
    assert one.kept() == {str(n) for n in range(10, 20)}


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_it_is_noticed_without_traffic_too(running: Callable[[str], Running], kind: str) -> None:
    one = running(kind)
    one.put(events(10))
    wait_for(lambda: one.written == 10, "events to be kept")
    _remove(one.state, "records.*")
    wait_for(lambda: "store-back" in one.kinds(), "the store to be back")
    one.put(events(10, 10))
    wait_for(lambda: one.written == 20, "events to be kept")
    assert one.kept() == {str(n) for n in range(10, 20)}


@pytest.mark.parametrize("gone", ["SCHEMA public CASCADE; CREATE SCHEMA public", "TABLE events"])
def test_a_server_in_whose_place_is_an_empty_one_is_noticed(
    running: Callable[[str], Running], postgresql_url: str, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    one = running("postgresql")
    one.put(events(10))
    wait_for(lambda: one.written == 10, "events to be kept")
    with closing(psycopg.connect(postgresql_url, autocommit=True)) as server:
        server.execute(f"DROP {gone}")
        wait_for(lambda: "store-back" in one.kinds(), "the store to be back")
        one.put(events(10, 10))
        wait_for(lambda: one.written == 20, "events to be kept")
        assert server.execute("SELECT count(*) FROM events").fetchone() == (10,)
    assert one.kinds() == ["store-replaced", "store-down", "store-back"]


def test_a_server_that_is_down_is_said_without_traffic_too(
    running: Callable[[str], Running], postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    one = running("postgresql")
    one.put(events(10))
    wait_for(lambda: one.written == 10, "events to be kept")
    address, _, folder = postgresql_url.partition("?host=")
    name = address.rpartition("/")[2]
    with closing(psycopg.connect(host=folder, user="urlward", dbname="postgres", autocommit=True)) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    wait_for(lambda: one.kinds() == ["store-down"], "that it is down")


@pytest.mark.parametrize("which", ["records.db-wal", "records.db-shm", "records.db-*"])
def test_without_its_log_alone_an_sqlite_store_keeps_all(
    running: Callable[[str], Running], which: str
) -> None:
    one = running("sqlite")
    one.put(events(50))
    wait_for(lambda: one.written == 50, "events to be kept")
    _remove(one.state, which)
    one.put(events(50, 50))
    wait_for(lambda: one.kinds() == ["store-replaced", "store-down", "store-back"], "the store to be back")
    wait_for(lambda: one.written == 100, "all to be kept")
    assert one.kept() == {str(n) for n in range(100)}
    with sqlite3.connect(one.state / "records.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_without_its_file_alone_an_sqlite_store_begins_anew(running: Callable[[str], Running]) -> None:
    one = running("sqlite")
    one.put(events(50))
    wait_for(lambda: one.written == 50, "events to be kept")
    _remove(one.state, "records.db")
    one.put(events(50, 50))
    wait_for(lambda: one.kinds() == ["store-replaced", "store-down", "store-back"], "the store to be back")
    wait_for(lambda: {str(n) for n in range(50, 100)} <= one.kept(), "all that came after")


def test_a_moved_database_is_whole_where_it_is(tmp_path: Path) -> None:
    store = open_database(TABLES["sqlite"], tmp_path)
    store.write(events(50))
    (tmp_path / "records.db").rename(tmp_path / "moved.db")
    with pytest.raises(ReplacedError, match=r"records\.db: the file was deleted, moved or replaced"):
        store.check()
    store.close()
    with sqlite3.connect(tmp_path / "moved.db") as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (50,)


def test_a_locked_database_is_waited_for_and_said(
    running: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "WAIT", 0.1)
    one = running("sqlite")
    one.put(events(10))
    wait_for(lambda: one.written == 10, "events to be kept")
    with sqlite3.connect(one.state / "records.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        one.put(events(10, 10))
        wait_for(lambda: one.kinds() == ["store-down"], "the alarm")
        assert "locked" in one.said[0][1]
        assert one.state_of().waiting == 10, "the others are safe"
        other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: one.kinds() == ["store-down", "store-back"], "the store to be back")
    assert one.kept() == {str(n) for n in range(20)}


def test_search_and_retention_go_on_with_the_file_that_is_there(tmp_path: Path) -> None:
    records = RecordsTable(node="n", store=(TABLES["sqlite"],), days=DaysTable(blocks=1, operations=1))
    store = open_database(TABLES["sqlite"], tmp_path)
    finder, keeping = EventFinder(TABLES["sqlite"], tmp_path), KeepingStores(records, tmp_path)
    store.write(events(5))
    assert len(finder.find(EventQuery())) == 5
    assert len(keeping.all()[0]) == 1
    _remove(tmp_path, "records.db*")
    store.close()
    store = open_database(TABLES["sqlite"], tmp_path)
    store.write(events(3))
    assert len(finder.find(EventQuery())) == 3
    opened, errors = keeping.all()
    assert errors == []
    assert sum(age.count for age in opened[0].ages().values()) == 3
    keeping.close()
    store.close()


def _jsonl(state: Path) -> JsonlStore:
    store = open_jsonl(TABLES["jsonl"], state)
    store.write(events(10))
    return store


def test_a_purge_of_another_process_is_none_that_has_replaced_it(tmp_path: Path) -> None:
    store = _jsonl(tmp_path)
    day = 86_400_000
    other = open_jsonl(TABLES["jsonl"], tmp_path)
    assert other.purge({"block": 1}, day + 5) == 5
    store.check()
    store.write(events(1, 10))
    assert other.purge({"block": 1}, day + 7) == 2
    assert other.purge({"block": 1}, day + 9) == 2
    store.write(events(1, 11))
    assert other.purge({"block": 1}, 9 * day) == 3
    assert not (tmp_path / "records.jsonl").exists()
    store.check()
    store.write(events(1, 12))
    # A purge before does not excuse what comes after it.
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(ReplacedError):
        store.check()


def test_who_looks_after_a_purge_leaves_its_mark_to_who_writes(tmp_path: Path) -> None:
    store = _jsonl(tmp_path)
    day = 86_400_000
    assert open_jsonl(TABLES["jsonl"], tmp_path).purge({"block": 1}, day + 3) == 3
    looks = open_jsonl(TABLES["jsonl"], tmp_path)
    looks.check()  # as `records hold` does
    store.check()
    # One that begins between two has seen the file that is in the middle.
    assert looks.purge({"block": 1}, day + 5) == 2
    begins = open_jsonl(TABLES["jsonl"], tmp_path)
    assert looks.purge({"block": 1}, day + 7) == 2
    begins.check()
    begins.write(events(1, 10))


@each_row("what", [b"", b"null", b"[[1]]", None])
def test_a_mark_of_a_purge_that_is_damaged_stops_nothing(tmp_path: Path, what: bytes | None) -> None:
    store = _jsonl(tmp_path)
    mark = tmp_path / ".records.jsonl.purged"
    mark.mkdir() if what is None else mark.write_bytes(what)
    store.write(events(5, 10))
    open_jsonl(TABLES["jsonl"], tmp_path).purge({"block": 1}, 86_400_000 + 5)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 10


def test_its_own_next_file_is_none_that_has_replaced_it(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "records.jsonl", 500, 3)
    for n in range(0, 50, 5):
        store.write(events(5, n))
        store.check()
    assert (tmp_path / "records.jsonl.2").exists()


def test_a_file_that_was_cut_is_noticed(tmp_path: Path) -> None:
    store = _jsonl(tmp_path)
    os.truncate(tmp_path / "records.jsonl", 100)
    with pytest.raises(ReplacedError, match="cut"):
        store.write(events(1, 10))
    store.write(events(1, 10))


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "sub/records.jsonl", 10_000, 3)
    store.write(events(1))
    shutil.rmtree(tmp_path / "sub")
    with pytest.raises(StoreError):
        store.write(events(1, 1))
    store.write(events(1, 1))
    assert (tmp_path / "sub/records.jsonl").exists()
