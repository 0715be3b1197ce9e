"""Partitions of PostgreSQL: what is over is dropped with them, and nothing else is."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, event, text

from assignments.support import DAY, START, at, held, read, sighting, taken
from records.support import in_the_heap, role_without_ownership
from records.test_migrations import made_by_version
from urlward.assignments import retention, schema
from urlward.assignments import store as store_module
from urlward.assignments.interval import LAST, AssignmentError, SightingKind
from urlward.assignments.resolving import rows_in_force
from urlward.assignments.retention import (
    first_purge,
    hold_assignments,
    oldest_assignment,
    purge_assignments,
    release_assignments,
)
from urlward.assignments.schema import SPANS, PartitionInUse, Stretch, cell_of, partition_of, stretches
from urlward.assignments.store import AssignmentStore
from urlward.records.sql import deletions, note_deleted

A, B = "192.0.2.7", "192.0.2.8"
DAYS = DAY / 1000
LATER = START + 10 * DAY
"""By when what began at the start for less than some days is over with its partition."""


@pytest.fixture
def url(postgresql: str) -> str:
    """An empty database."""
    name = f"parts{secrets.token_hex(4)}"
    with psycopg.connect(host=postgresql, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql://urlward@/{name}?host={postgresql}"


@pytest.fixture
def store(url: str) -> Iterator[AssignmentStore]:
    with closing(AssignmentStore(url)) as store:
        yield store


@pytest.fixture
def other(store: AssignmentStore, url: str) -> Iterator[AssignmentStore]:
    """Another node's."""
    with closing(AssignmentStore(url)) as other:
        yield other


def stored(store: AssignmentStore) -> bytes:
    """All that the server has in the files of the database, when everything is written."""
    folder = str(store.engine.url.query["host"])
    with store.reading() as connection:
        number = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
        return in_the_heap(folder, str(number.scalar_one()))


def whole(address: str, start: float, end: float, subscriber: str) -> Any:
    return sighting(address, start, end, subscriber, SightingKind.WHOLE)


def named(store: AssignmentStore) -> dict[str, int]:
    """Partitions, with the numbers of the files that have them."""
    with store.reading() as connection:
        found = connection.execute(
            text(
                "SELECT relname, relfilenode FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY 1"
            )
        )
        return {row[0]: row[1] for row in found}


@given(start=st.integers(0, LAST), length=st.integers(0, SPANS[-1]))
def test_a_partition_has_what_its_name_says(start: int, length: int) -> None:
    cell = cell_of(start, start + length)
    one = partition_of(cell)
    assert cell in one.cells
    assert {partition_of(edge) for edge in (one.cells[0], one.cells[-1])} == {one}
    assert partition_of(one.cells.stop).first != one.first
    assert schema._named(one.name) == one
    assert one.earliest_end <= start + length
    assert not one.has_ended_before(start + length), "what ends then is not over"
    assert one.span == len(SPANS) - 1 or one.has_ended_before(start + length + 150 * 366 * DAY)


def test_what_is_over_is_dropped_with_its_files(store: AssignmentStore) -> None:
    taken(store, *(whole(A, n, n + 50, f"marked-{n}") for n in range(0, 3000, 60)))
    taken(store, whole(A, 9 * DAYS, 9 * DAYS + 50, "kept"))
    before = named(store)
    assert list(before) == ["assignments_0_20261118", "assignments_0_20261127"]
    assert b"marked-" in stored(store)
    rewritten: list[Any] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: rewritten.append(given[2]))
    assert purge_assignments(store, START + 8 * DAY) == 50
    assert not [one for one in rewritten if one.startswith("DELETE FROM assignments_0")]
    assert named(store) == {"assignments_0_20261127": before["assignments_0_20261127"]}, "it alone, as it was"
    left = stored(store)
    assert b"marked-" not in left
    assert b"kept" in left
    assert oldest_assignment(store) == at(9 * DAYS)


def test_only_what_lost_rows_is_rewritten(store: AssignmentStore) -> None:
    """Of one partition some are over, and of another nothing is."""
    taken(
        store, whole(A, 0, 50, "marked-over"), whole(B, 600, 650, "kept"), whole(A, 3 * DAYS, 4 * DAYS, "l")
    )
    before = named(store)
    assert purge_assignments(store, at(60)) == 1
    after = named(store)
    assert [name for name in after if after[name] != before[name]] == ["assignments_0_20261118"]
    left = stored(store)
    assert b"marked-over" not in left
    assert b"kept" in left


@pytest.mark.parametrize("limit", [at(60), LATER])
def test_no_copy_is_left_where_it_was_in_force(store: AssignmentStore, limit: int) -> None:
    """It left that table when the next one began, long before it is over; with its partition, or alone."""
    taken(store, sighting(A, 0, None, "marked-over"), whole(B, 600, 650, "too"))
    taken(store, sighting(A, 50, None, "kept", seen=11 * DAYS))
    assert purge_assignments(store, limit) == 1 + (limit == LATER)
    assert b"marked-over" not in stored(store)
    assert held(store, A, 60) == ["kept"]


def test_what_is_held_stays_alone_in_its_partition(store: AssignmentStore) -> None:
    taken(store, whole(A, 0, 50, "held"), *(whole(B, n, n + 50, f"marked-{n}") for n in range(0, 3000, 60)))
    hold_assignments(store, "REF", LATER + DAY, [(A, 0, START)])
    assert purge_assignments(store, LATER, LATER) == 50
    assert held(store, A, 10) == ["held"]
    assert b"marked-" not in stored(store)
    before = named(store)
    assert list(before) == ["assignments_0_20261118"]
    assert purge_assignments(store, LATER, LATER) == 0
    assert named(store) == before, "it is not made anew each time"
    release_assignments(store, "REF")
    assert purge_assignments(store, LATER, LATER) == 1
    assert named(store) == {}
    assert b"held" not in stored(store)


def test_a_partition_stays_while_it_is_not_over_for_some_source(store: AssignmentStore) -> None:
    taken(store, whole(A, 0, 50, "short"), name="short")
    taken(store, whole(B, 0, 50, "long"), name="long")
    # No limit is known of one that another node has begun; then it is later.
    for limits in ({1: LATER}, {1: LATER, 2: START}):
        purge_assignments(store, limits)
        assert held(store, B, 10) == ["long"]
    assert held(store, A, 10) == []
    assert purge_assignments(store, {1: LATER, 2: LATER}) == 1
    assert named(store) == {}


def test_a_source_that_is_begun_before_the_lock_keeps_it(
    store: AssignmentStore, other: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store, whole(A, 0, 50, "mine"), name="mine")
    count = retention._rows_in

    def meanwhile(connection: Connection, one: Stretch) -> int:
        other.source("theirs", "csv", "t.csv")
        return count(connection, one)

    monkeypatch.setattr(retention, "_rows_in", meanwhile)
    assert purge_assignments(store, {1: LATER}) == 1, "deleted as a row"
    assert list(named(store)) == ["assignments_0_20261118"]


def test_a_crash_before_the_end_drops_nothing_and_forgets_nothing(
    store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store, whole(A, 0, 50, "marked-dropped"), whole(B, 9 * DAYS, 9 * DAYS + 50, "marked-row"))
    taken(store, whole(B, 9 * DAYS + 600, 9 * DAYS + 650, "kept"), whole(B, 0, 50, "held"))
    hold_assignments(store, "REF", LATER + DAY, [(B, 0, START)])
    limit = at(9 * DAYS + 100)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("make_partitions", "_held_and_over", "_forget"):
        with monkeypatch.context() as patched:
            patched.setattr(retention, step, crash)
            with pytest.raises(KeyboardInterrupt):
                purge_assignments(store, limit, LATER)
        assert held(store, B, 10) == ["held"]
        assert held(store, A, 10) == (["marked-dropped"] if step == "make_partitions" else [])
    assert b"marked-row" in stored(store)
    assert purge_assignments(store, limit, LATER) == 0
    left = stored(store)
    assert b"marked-" not in left
    assert b"kept" in left
    assert held(store, B, 10) == ["held"]


def test_what_is_written_into_a_dropped_one_makes_it_again(
    store: AssignmentStore, other: AssignmentStore
) -> None:
    taken(store, whole(A, 0, 50, "first"))
    assert purge_assignments(other, LATER) == 1
    assert named(store) == {}
    taken(store, whole("198.51.100.0/24", 0, 50, "second"))
    assert held(store, "198.51.100.9", 10) == ["second"]
    assert held(other, "198.51.100.9", 10) == ["second"]


def test_a_write_that_never_finds_its_partition_is_told(
    store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AssignmentStore, "_have_partitions", lambda *_: None)
    with pytest.raises(AssignmentError, match=r"^what is written is deleted all the time$"):
        taken(store, whole(A, 0, 50, "first"))


def test_what_was_not_written_in_the_end_is_written_again(
    store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, the prefix lengths too, without which nobody finds it."""
    count, failures = store_module._count, [PartitionInUse()]

    def failing(*given: Any) -> None:
        if failures:
            raise failures.pop()
        count(*given)

    monkeypatch.setattr(store_module, "_count", failing)
    taken(store, whole("198.51.100.0/24", 0, 50, "first"))
    assert held(store, "198.51.100.9", 10) == ["first"]


def test_a_partition_that_is_dropped_while_it_waits_is_forgotten(
    store: AssignmentStore, other: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has read that it waits does not take a later one of its name for rewritten."""
    taken(store, whole(A, 0, 50, "over"), whole(B, 600, 650, "stays for now"))
    vacuum, counts = retention.vacuum, list[int | None]()

    def waits() -> int | None:
        with store.reading() as connection:
            return deletions(connection, "assignments_0_20261118")

    def late(*given: Any, **more: Any) -> None:
        if given[1] == ("assignments_0_20261118",):
            counts.append(waits())
            with monkeypatch.context() as real:
                real.setattr(retention, "vacuum", vacuum)
                assert purge_assignments(other, LATER) == 1
        vacuum(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(retention, "vacuum", late)
        assert purge_assignments(store, at(60)) == 1
    assert named(store) == {}
    with store.changing() as connection:
        note_deleted(connection, "assignments_0_20261118")
    assert waits() not in (None, *counts)


def test_several_nodes_make_and_drop_at_the_same_time(url: str) -> None:
    """Each writes what the others' purges are about to drop, and of all what is not over is there."""
    failures: list[Exception] = []
    start = threading.Barrier(3)
    AssignmentStore(url).close()

    def node(number: int) -> None:
        try:
            with closing(AssignmentStore(url)) as store:
                start.wait()
                for turn in range(6):
                    address, first, later = f"10.{number}.{turn}.1", turn * DAYS, (90 + turn) * DAYS
                    over = whole(address, first, first + 50, "over")
                    taken(store, over, whole(A, later, later + 50, address), name=f"of {number}")
                    try:
                        purge_assignments(store, START + 30 * DAY)
                    except AssignmentError as e:
                        # Of a row that came between dropping and deleting, and that another still sees.
                        if "a transaction that is open since before" not in str(e):
                            raise
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=node, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with closing(AssignmentStore(url)) as store:
        purge_assignments(store, START + 30 * DAY)
        with store.reading() as connection:
            assert connection.scalar(text("SELECT count(*) FROM assignments")) == 18
            assert len(stretches(connection)) == 6


def test_a_file_that_two_nodes_begin_at_once_is_read_once(
    store: AssignmentStore, other: AssignmentStore, tmp_path: Path
) -> None:
    """None of them finds that the other has begun it, or its source, before it is about to do so itself."""
    path = tmp_path / "a.csv"
    path.write_text(f"address,subscriber,from\n{A},anna,2026-11-18T11:00:00Z\n")
    begun: list[str] = []

    def begins(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        for beginning in ("INSERT INTO assignment_sources", "SELECT pg_advisory_xact_lock"):
            if statement.startswith(beginning) and beginning not in begun:
                begun.append(beginning)
                if len(begun) == 1:
                    other.source("csv", "csv", "b.csv")
                else:
                    read(other, "csv", path)

    event.listen(store.engine, "before_cursor_execute", begins)
    read(store, "csv", path)
    assert len(begun) == 2
    (shown,) = store.status()
    assert (shown["rows"], len(shown["files"]), held(store, A, 0)) == (1, 1, ["anna"])


def test_rows_that_a_policy_hides_are_not_taken_for_none(store: AssignmentStore, url: str) -> None:
    taken(store, sighting(A, 0, None, "anna"))
    with store.changing() as connection:
        connection.execute(text("ALTER TABLE assignments_current ENABLE ROW LEVEL SECURITY"))
    with (
        role_without_ownership(url) as role,
        closing(AssignmentStore(role)) as others,
        pytest.raises(AssignmentError, match="would be affected by row-level security policy"),
    ):
        held(others, A, 5)


def test_who_reads_all_the_time_is_told(
    store: AssignmentStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LOCK_WITHIN", "20ms")
    monkeypatch.setattr(schema, "_TRIES", 2)
    monkeypatch.setattr(schema, "_PAUSE", 0.0)
    taken(store, whole(A, 0, 50, "first"))
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM assignments").fetchall()
        with pytest.raises(AssignmentError, match=r"database: somebody uses assignments all the time$"):
            purge_assignments(store, LATER)
        # Nor does it lock out who writes meanwhile, to one that is not there yet.
        taken(store, whole(A, 3 * DAYS, 4 * DAYS, "second"))
    assert held(store, A, 10) == ["first"]
    assert purge_assignments(store, LATER) == 2


@contextmanager
def owned_by_a_role(url: str) -> Iterator[dict[str, str]]:
    """URLs for two roles that have the role of the tables' owner, and one that may read and write alone."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE ROLE tables")
        for role in ("one", "two", "alone"):
            server.execute(f"CREATE ROLE {role} LOGIN")
        server.execute("GRANT tables TO one, two")
        server.execute("GRANT CREATE ON SCHEMA public TO tables")
        names = server.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (name,) in names:
            server.execute(f"ALTER TABLE {name} OWNER TO tables")
        server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO alone")
    try:
        yield {role: url.replace("urlward@", f"{role}@") for role in ("one", "two", "alone")}
    finally:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("DROP OWNED BY alone, one, two, tables")
            server.execute("DROP ROLE alone, one, two, tables")


def test_partitions_belong_to_the_owner_whoever_makes_them(store: AssignmentStore, url: str) -> None:
    taken(store, whole(B, 50 * DAYS, 50 * DAYS + 50, "of the owner"))
    with owned_by_a_role(url) as urls:
        with closing(AssignmentStore(urls["one"])) as one, closing(AssignmentStore(urls["two"])) as two:
            taken(one, whole(A, 0, 50, "first"))
            assert held(two, A, 10) == ["first"]
            assert purge_assignments(two, LATER) == 1
            assert list(named(two)) == ["assignments_0_20270107"]
        with closing(AssignmentStore(urls["alone"])) as alone:
            told = "its role may not make and drop partitions of assignments: GRANT tables TO alone$"
            with pytest.raises(AssignmentError, match=told), alone.importing("a", "csv", "a.csv"):
                pytest.fail("it was taken")
            # Nobody is told any more who had it; that the files have it still is.
            with pytest.raises(AssignmentError, match=r"in the server's files: .*assignments_current"):
                purge_assignments(alone, at(90 * DAYS))
            assert held(alone, B, 50 * DAYS + 10) == []
        with closing(AssignmentStore(urls["one"])) as one:
            purge_assignments(one, at(90 * DAYS))
            assert named(one) == {}


def test_a_database_of_before_stays_its_owners(url: str, tmp_path: Path) -> None:
    made_by_version(3, "postgresql", tmp_path, url)
    with owned_by_a_role(url) as urls:
        AssignmentStore(urls["one"]).close()
        with closing(AssignmentStore(urls["two"])) as two:
            taken(two, whole(A, 50 * DAYS, 50 * DAYS + 50, "second"))
        with psycopg.connect(url) as server:
            owners = server.execute(
                "SELECT tableowner, count(*) FROM pg_tables WHERE tablename LIKE 'assignments%' GROUP BY 1"
            ).fetchall()
        assert owners == [("tables", 7)]


def test_what_is_to_come_is_known_without_a_look_at_all(store: AssignmentStore) -> None:
    taken(store, whole(A, 0, 50, "one"), name="one")
    taken(store, *(whole(A, n * DAYS, n * DAYS + 50, "two") for n in range(1, 20)), name="two")
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert first_purge(store, {1: 10, 2: 10}) == at(10 * DAYS + 50)
    assert len([one for one in asked if "min(assignments." in one]) == 1
    # Days of another node can be fewer.
    assert first_purge(store, {1: 10, 2: 1}) == at(2 * DAYS + 50)
    assert first_purge(store, {2: 1}) == at(2 * DAYS + 50)
    assert first_purge(store, {}) is None
    assert oldest_assignment(store) == START


def test_who_looks_at_few_partitions(store: AssignmentStore) -> None:
    """However often it asks: a plan for any time would be of all partitions, and lock them."""
    taken(store, *(whole(A, n * DAYS, n * DAYS + 50, f"on {n}") for n in range(40)))
    days = 15
    with store.reading() as connection:
        for n in range(days):
            moment = at(n * DAYS + 10)
            (found,) = rows_in_force(connection, A, None, moment, moment)
            assert found[1].subscriber == f"on {n}"
        locked = connection.scalar(
            text(
                "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
                " WHERE l.pid = pg_backend_pid() AND c.relispartition AND c.relkind = 'r'"
            )
        )
    assert locked == days


def test_times_over_decades_make_no_partitions_without_end(
    store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_PARTITIONS", 3)
    taken(store, *(whole(A, n * DAYS, n * DAYS + 50, f"on {n}") for n in range(2)))
    before = named(store)
    with pytest.raises(AssignmentError, match="there would be more than 3 partitions"):
        taken(store, *(whole(A, n * 365 * DAYS, n * 365 * DAYS + 50, "x") for n in range(1, 9)), name="far")
    assert named(store) == before, "all or nothing"
    # What fits is taken as before.
    taken(store, whole(B, 2 * DAYS, 2 * DAYS + 50, "second"), name="near")
    assert held(store, B, 2 * DAYS + 10) == ["second"]
    assert len(named(store)) == 3


def test_a_partition_takes_no_more_locks_than_is_said(store: AssignmentStore) -> None:
    wanted = {partition_of(cell_of(START + n * DAY, START + n * DAY + 50)) for n in range(20)}
    with store.engine.begin() as connection:
        schema.make_partitions(connection, ())
        # One lock may be held in several modes.
        count = text(
            "SELECT count(DISTINCT (locktype, database, relation, classid, objid, objsubid,"
            " transactionid::text)) FROM pg_locks WHERE pid = pg_backend_pid()"
        )
        before = connection.scalar(count)
        schema.make_partitions(connection, wanted)
        after = connection.scalar(count)
    assert 0 < after - before <= len(wanted) * schema.LOCKS + 10


def test_a_database_of_before_for_which_there_are_too_few_locks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by_version(3, "postgresql", tmp_path, url)
    with monkeypatch.context() as scarce:
        scarce.setattr(schema, "LOCKS", 1_000_000)
        told = "not brought to version 4: .* too few locks: set max_locks_per_transaction = [0-9]+ there"
        with pytest.raises(AssignmentError, match=told):
            AssignmentStore(url)
    with psycopg.connect(url) as server:
        (kind,) = server.execute("SELECT relkind FROM pg_class WHERE relname = 'assignments'").fetchone()
    assert kind == "r", "as it was"
    with closing(AssignmentStore(url)) as store:
        assert named(store)
