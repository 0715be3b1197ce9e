from pathlib import Path

import psycopg
import pytest

from records.assignments.support import DAY, START, at, intervals, sighting, taken
from records.support import in_the_heap
from urlward.records.assignments import schema
from urlward.records.assignments.interval import AssignmentError, Said
from urlward.records.assignments.retention import oldest_assignment, purge_assignments
from urlward.records.assignments.store import AssignmentStore

A = "192.0.2.7"
DAYS = DAY / 1000
MARKS = ("marked-short", "marked-long", "marked-session")


def filled(store: AssignmentStore) -> None:
    taken(
        store,
        sighting(A, 0, 60, "marked-short", Said.WHOLE),
        sighting("192.0.2.8", 0, 20 * DAYS, "marked-long", Said.WHOLE),
        sighting("192.0.2.9", 0, None, "marked-session", session="n/1"),
        sighting(A, 40 * DAYS, 41 * DAYS, "kept", Said.WHOLE),
    )


def test_what_ended_before(store: AssignmentStore) -> None:
    assert oldest_assignment(store) is None
    filled(store)
    assert oldest_assignment(store) == START
    # What ends at that time is not before it; the session was last heard of at the start.
    assert purge_assignments(store, START) == 0
    assert purge_assignments(store, at(60)) == 1
    assert purge_assignments(store, at(19 * DAYS)) == 1
    assert purge_assignments(store, at(21 * DAYS)) == 1
    assert [one[0] for one in intervals(store, A)] == ["kept"]
    assert purge_assignments(store, at(100 * DAYS)) == 1
    assert oldest_assignment(store) is None


def test_it_cannot_be_read_back_from_sqlite(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    filled(sqlite_store)

    def stored() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert all(mark.encode() in stored() for mark in MARKS)
    purge_assignments(sqlite_store, at(30 * DAYS))
    assert not [mark for mark in MARKS if mark.encode() in stored()]
    assert b"kept" in stored()


def test_a_log_that_is_in_use_is_told(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0)
    store = AssignmentStore(tmp_path / "assignments.db")
    filled(store)
    with sqlite_store.reading() as reader:
        reader.exec_driver_sql("BEGIN")
        assert reader.exec_driver_sql("SELECT count(*) FROM assignments").scalar() == 3
        with pytest.raises(AssignmentError, match=r"assignments\.db-wal: is being read"):
            purge_assignments(store, at(30 * DAYS))
    assert purge_assignments(store, at(30 * DAYS)) == 0
    assert not [mark for mark in MARKS if any(mark.encode() in p.read_bytes() for p in tmp_path.iterdir())]
    store.close()


def test_it_cannot_be_read_back_from_postgresql(postgresql: str, tmp_path: Path) -> None:
    with psycopg.connect(host=postgresql, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE purged")
    store = AssignmentStore(f"postgresql://urlward@/purged?host={postgresql}")
    filled(store)
    purge_assignments(store, at(30 * DAYS))
    tables = in_the_heap(postgresql)
    assert b"kept" in tables
    assert not [mark for mark in MARKS if mark.encode() in tables]
    store.close()
