import re
import sqlite3
import threading
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from records.support import DAY, START, an_event, node, own_messages, role_without_ownership
from urlward.assignments import retention, schema
from urlward.assignments.deterministic import Formula, known_formulas
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.interval import AssignmentError
from urlward.assignments.retention import purge_assignments
from urlward.assignments.store import AssignmentStore
from urlward.config.records import StoreTable
from urlward.records.database import events, open_database
from urlward.records.event import FIELDS, Event
from urlward.records.sql import migrate, open_postgresql, open_sqlite, writing
from urlward.records.store import EventQuery, StoreError

DUMPS = Path(__file__).parents[1] / "data" / "records"
SQLITE = StoreTable(kind="sqlite")


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = open_sqlite(tmp_path / "a.db")
    else:
        monkeypatch.setenv("RECORDS_URL", request.getfixturevalue("postgresql_url"))
        made = open_postgresql(StoreTable(kind="postgresql", url_env="RECORDS_URL"))
    yield writing(made)
    made.dispose()


def create_1(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE a (x INTEGER)"))
    connection.execute(text("INSERT INTO a VALUES (1)"))


def to_2(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 2 NOT NULL"))


def to_3(connection: Connection) -> None:
    connection.execute(text("UPDATE a SET y = y + x"))


def broken(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE a ADD COLUMN z INTEGER"))
    raise OperationalError("", {}, Exception("full"))


def rows(engine: Engine) -> list[tuple[int, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT * FROM a"))]


def test_what_is_missing_is_done_once(engine: Engine) -> None:
    migrate(engine, "a", create_1)
    migrate(engine, "a", create_1)
    assert rows(engine) == [(1,)]
    migrate(engine, "a", create_1, [to_2])
    assert rows(engine) == [(1, 2)]
    for _ in range(2):
        migrate(engine, "a", create_1, [to_2, to_3])
        assert rows(engine) == [(1, 3)]


def test_a_step_that_fails_leaves_nothing(engine: Engine) -> None:
    migrate(engine, "a", create_1)
    with pytest.raises(OperationalError):
        migrate(engine, "a", create_1, [to_2, broken])
    assert rows(engine) == [(1,)]
    migrate(engine, "a", create_1, [to_2])
    assert rows(engine) == [(1, 2)]


def test_a_later_version_is_left_alone(engine: Engine) -> None:
    migrate(engine, "a", create_1, [to_2])
    with pytest.raises(StoreError, match=r"^its a are of version 2, made by a later urlward, and this one"):
        migrate(engine, "a", create_1)


def test_several_at_once(engine: Engine) -> None:
    failures: list[Exception] = []

    def one() -> None:
        try:
            migrate(engine, "a", create_1, [to_2])
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert rows(engine) == [(1,)]


def test_tables_have_what_events_have() -> None:
    assert [column.name for column in events.columns] == ["seq", *FIELDS]


def made_by_version(version: int, kind: str, folder: Path, url: str) -> None:
    """Databases of events and of assignments, as that version has made them."""
    dumps = DUMPS / f"version{version}"
    if kind == "postgresql":
        with psycopg.connect(url) as server:
            server.execute((dumps / "postgresql.sql").read_bytes())
        return
    for name in ("records", "assignments"):
        with sqlite3.connect(folder / f"{name}.db") as connection:
            connection.executescript((dumps / f"{name}.sqlite.sql").read_text())
        connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of database."""
    return str(request.param)


@pytest.fixture
def version() -> int:
    """Of the tables that there are."""
    return 1


@pytest.fixture
def old(
    version: int, kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[StoreTable, Path | str]:
    """Where events and assignments of a version are."""
    url = request.getfixturevalue("postgresql_url") if kind == "postgresql" else ""
    monkeypatch.setenv("RECORDS_URL", url)
    made_by_version(version, kind, tmp_path, url)
    if url:
        return StoreTable(kind="postgresql", url_env="RECORDS_URL"), url
    return SQLITE, tmp_path / "assignments.db"


FIRST = Event(
    id="01a1ee565e00700089abcdef01234567",
    time=START,
    kind="block",
    node="gw1",
    client="192.0.2.7",
    client_port=40213,
    protocol="tls",
    destination="198.51.100.1",
    destination_port=443,
    stage="peek",
    list="one",
    serial=7,
    entry="e-1",
    category="phishing",
    verdict="block",
    reference="7Q4M-2XKD-93FH",
    digest="0123456789abcdef0123456789abcdef",
    group="staff",
    detail='{"a":1}',
)


def test_events_of_version_1_are_read_and_go_on(old: tuple[StoreTable, Path | str], tmp_path: Path) -> None:
    database = open_database(old[0], tmp_path)
    found = database.find(EventQuery())
    assert found[2] == FIRST
    assert [(each.kind, each.node, each.client) for each in found[:2]] == [
        ("block", "gw2", "192.0.2.8"),
        ("start", "gw1", ""),
    ]
    assert database.held(START) == {FIRST.reference: START + 400 * DAY}
    database.write([FIRST, an_event(5)])
    assert database.find(EventQuery()) == [an_event(5), *found]
    assert database.purge({"block": 1}, START + 2 * DAY, {FIRST.reference}, node("gw1")) == 2
    assert [each.id for each in database.find(EventQuery())] == [found[1].id, FIRST.id]
    if not database.is_file:
        database.release(FIRST.reference, node("gw2"))
        assert database.held(START) == {FIRST.reference: START + 400 * DAY}, "nobody knows whose it is"
    # Until the node that has made it says so.
    database.hold({FIRST.reference: START + 400 * DAY}, node("gw1"))
    database.release(FIRST.reference, node("gw1"))
    assert database.held(START) == {}
    database.close()


def test_assignments_of_version_1_are_read_and_go_on(old: tuple[StoreTable, Path | str]) -> None:
    store = AssignmentStore(old[1])
    (one,) = store.find("192.0.2.7", None, START, START)
    assert (one.subscriber, one.source.name) == ("00:00:5e:00:53:01", "kea")
    assert [each["name"] for each in store.status()] == ["cgn-1", "kea"]
    inside, outside = IPv4Network("100.64.0.0/22"), IPv4Network("198.51.100.0/28")
    assert known_formulas(store) == {2: [Formula(inside, outside, 1008, 1024, 0)]}
    with store.importing("kea", "kea", "kea-leases4.csv") as source:
        assert [each.offset for each in store.positions(source.id)] == [225]
    assert purge_assignments(store, START + DAY) == 2
    assert store.find("192.0.2.7", None, START, START) == []
    store.close()


@pytest.mark.parametrize("version", [2])
def test_nodes_of_version_2_are_told_apart_from_now_on(
    old: tuple[StoreTable, Path | str], tmp_path: Path
) -> None:
    """Rows of both, whose days are as they said, and a hold of one of them."""
    database = open_database(old[0], tmp_path)
    assert len(database.find(EventQuery())) == 3
    assert database.held(START) == {FIRST.reference: START + 400 * DAY}
    one, two = node("gw1"), node("gw2")
    assert database.days_of_nodes({"block": 99}, node("gw3")) == {
        "gw1": {"block": 30}, "gw2": {"block": 5}, "gw3": {"block": 99}, "": {"block": 99},
    }  # fmt: skip
    if database.is_file:
        database.release(FIRST.reference, two)
    else:
        assert database.purge({"block": 20}, START + 8 * DAY, (), one) == 1, "gw2's, by its own days"
        with pytest.raises(StoreError, match="the node name 'gw1' is another node's"):
            database.register(node("gw1", "another"))
        database.release(FIRST.reference, two)
        assert database.held(START) == {FIRST.reference: START + 400 * DAY}
        database.release(FIRST.reference, one)
    assert database.held(START) == {}
    database.close()


@pytest.mark.parametrize("version", [2])
def test_what_has_no_end_in_version_2_is_renewed_from_now_on(
    old: tuple[StoreTable, Path | str], tmp_path: Path
) -> None:
    store = AssignmentStore(old[1])
    # Its start is long ago; its source was read a day later.
    assert purge_assignments(store, START + DAY) == 2
    assert [one.subscriber for one in store.find("203.0.113.5", None, START, START)] == ["fixed"]
    path = tmp_path / "fixed.csv"
    path.write_text(f"address,subscriber,from,to\n203.0.113.0/28,fixed,{START},\n")
    source = store.source("fixed", "csv", str(path))
    assert import_file(store, source, path, ReadOptions(), lambda: (START + 50 * DAY) / 1000).rows == 0
    assert purge_assignments(store, START + 50 * DAY) == 0
    assert purge_assignments(store, START + 50 * DAY + 1) == 1
    store.close()


@pytest.mark.parametrize("version", [2])
def test_a_session_of_a_table_in_version_2_counts_from_when_that_was_read(
    old: tuple[StoreTable, Path | str],
) -> None:
    url = str(old[1]).replace("postgresql:", "postgresql+psycopg:", 1)
    engine = create_engine(f"sqlite:///{url}" if isinstance(old[1], Path) else url)
    with engine.begin() as connection:
        # As `radacct` has them: where it is read to, and no file.
        connection.execute(text("UPDATE assignment_files SET begin_size = 0 WHERE path = 'fixed.csv'"))
    engine.dispose()
    store = AssignmentStore(old[1])
    assert purge_assignments(store, START + DAY) == 2
    assert purge_assignments(store, START + DAY + 1) == 1
    store.close()


@pytest.mark.parametrize("version", [3])
def test_what_has_ended_in_version_3_is_in_partitions_from_now_on(
    old: tuple[StoreTable, Path | str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schema, "_LARGE", 0)

    def wiped() -> bool:
        with psycopg.connect(str(old[1])) as server:
            counts = server.execute("SELECT part, count FROM urlward_unwiped").fetchall()
        return not any(count % 2 for _, count in counts)

    if not isinstance(old[1], Path):
        with psycopg.connect(old[1]) as server:  # something was deleted, and another role reads
            server.execute("INSERT INTO urlward_unwiped VALUES ('assignments', 5)")
            server.execute("GRANT SELECT ON assignments, assignment_files TO pg_monitor")
    store = AssignmentStore(old[1])

    def named() -> list[str]:
        found = store.find("192.0.2.7", None, START - DAY, START + 4 * DAY)
        found += store.find("2001:db8::1", None, START, START)
        return [one.subscriber for one in found]

    assert named() == ["one-minute", "hours", "days", "months"]
    if not isinstance(old[1], Path):
        with psycopg.connect(old[1]) as server:
            parts = server.execute("SELECT tableoid::regclass::text FROM assignments ORDER BY 1").fetchall()
            assert parts == [
                ("assignments_0_20261118",), ("assignments_4_20261117",), ("assignments_6_20261118",),
                ("assignments_9_20260428",),
            ]  # fmt: skip
            for table in ("assignments", "assignment_gaps"):
                may = f"SELECT has_table_privilege('pg_monitor', '{table}', 'SELECT')"
                assert server.execute(may).fetchone() == (True,)
        assert not wiped()
        assert own_messages(caplog)[0].startswith("assignments: 0 MB are copied into partitions, which takes")
    # Two are held; what has no end was last seen at the start.
    assert purge_assignments(store, START + DAY, START) == 1
    assert named() == ["one-minute", "hours", "days", "months"]
    retention._paces.clear()
    assert purge_assignments(store, START + 100 * DAY, START + 400 * DAY) == 4
    assert named() == []
    if not isinstance(old[1], Path):
        assert wiped()
    store.close()


@pytest.mark.parametrize("version", [3])
def test_logs_that_were_rotated_long_before_are_not_missing(old: tuple[StoreTable, Path | str]) -> None:
    url = str(old[1]).replace("postgresql:", "postgresql+psycopg:", 1)
    engine = create_engine(f"sqlite:///{url}" if isinstance(old[1], Path) else url)
    with engine.begin() as connection:
        for read in (5, 7, 6):
            connection.execute(
                text(
                    'INSERT INTO assignment_files (source, path, "begin", begin_size, "offset", before, size,'
                    " read) VALUES (99, 'log', :read, 1, 1, '', 1, :number)"
                ),
                {"read": str(read), "number": read},
            )
    engine.dispose()
    with AssignmentStore(old[1]) as store:
        assert {one.read: one.ended for one in store.positions(99)} == {5: 1, 6: 1, 7: 0}


def schema_of(engine: Engine) -> dict[str, object]:
    looked = inspect(engine)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in looked.get_columns(table)],
            looked.get_pk_constraint(table)["constrained_columns"],
            sorted(looked.get_indexes(table), key=str),
        )
        for table in looked.get_table_names()
        if re.fullmatch(r"assignments_\d+_\d+", table) is None  # partitions, made when they are needed
    }


@pytest.mark.parametrize("version", [1, 2, 3])
def test_databases_of_before_become_as_new_ones(old: tuple[StoreTable, Path | str], tmp_path: Path) -> None:
    def schemas(table: StoreTable, folder: Path, place: Path | str) -> list[dict[str, object]]:
        database, store = open_database(table, folder), AssignmentStore(place)
        found = [schema_of(each.engine) for each in (database, store)]
        with database.engine.connect() as connection:
            found.append(dict(connection.execute(text("SELECT * FROM urlward_versions")).all()))
        database.close()
        store.close()
        return found

    before = schemas(old[0], tmp_path, old[1])
    (tmp_path / "new").mkdir()
    if isinstance(old[1], Path):
        assert before == schemas(old[0], tmp_path / "new", tmp_path / "new" / "assignments.db")
        assert set(before[0]) == {"events", "holds", "nodes", "urlward_unwiped", "urlward_versions"}
        return
    with psycopg.connect(old[1]) as server:
        server.execute("DROP SCHEMA public CASCADE")
        server.execute("CREATE SCHEMA public")
    assert before == schemas(old[0], tmp_path, old[1])


@pytest.mark.parametrize("version", [3])
def test_an_end_that_waits_for_its_beginning_does_so_in_version_6(
    old: tuple[StoreTable, Path | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = schema.cell_of(START, START + 50)
    with monkeypatch.context() as before:
        before.setattr(schema, "UPGRADES", schema.UPGRADES[:4])
        engine = schema.open_engine(old[1])
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            schema.make_partitions(connection, schema.partitions_of([cell]))
        for statement in (
            "DELETE FROM assignments",
            "INSERT INTO assignment_sources (id, name, format, path, rows, skipped, read, node, days, purged)"
            " VALUES (98, 'log', 'ports', '/log', 1, 0, 1, '', 0, 0)",
            'INSERT INTO assignments (cell, place, digest, network, first_port, last_port, start, "end",'
            " ending, subscriber, session, source)"
            f" VALUES ({cell}, 137438953472, 1, '0.0.0.0', 0, 65535, {START},"
            f" {START + 50}, 12, 'anna', '', 98)",
        ):
            connection.execute(text(statement))
    engine.dispose()
    with AssignmentStore(old[1]) as store, store.reading() as connection:
        found = connection.execute(
            text("SELECT subscriber, ending FROM assignments_current WHERE source = 98")
        )
        assert found.all() == [("anna", 17)]
        assert connection.scalar(text("SELECT count(*) FROM assignments")) == 0


def test_tables_of_a_later_version_are_told_and_left_alone(
    old: tuple[StoreTable, Path | str], tmp_path: Path
) -> None:
    database, store = open_database(old[0], tmp_path), AssignmentStore(old[1])
    for each in (database, store):
        with each.engine.begin() as connection:
            connection.execute(text("UPDATE urlward_versions SET version = 99"))
    before = [schema_of(each.engine) for each in (database, store)]
    with pytest.raises(
        StoreError, match=r": its events are of version 99, made by a later urlward, and .* 3: "
    ):
        open_database(old[0], tmp_path)
    with pytest.raises(
        AssignmentError, match=r": its assignments are of version 99, made by a later urlward"
    ):
        AssignmentStore(old[1])
    assert [schema_of(each.engine) for each in (database, store)] == before
    assert len(database.find(EventQuery())) == 3
    database.close()
    store.close()


def test_a_role_that_may_not_change_tables_is_told(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by_version(1, "postgresql", tmp_path, postgresql_url)
    with role_without_ownership(postgresql_url) as url:
        monkeypatch.setenv("RECORDS_URL", url)
        with pytest.raises(
            StoreError, match="its events are of version 1, and 3 is needed, which its role may"
        ):
            open_database(StoreTable(kind="postgresql", url_env="RECORDS_URL"), tmp_path)
        with pytest.raises(
            AssignmentError, match=r"its assignments are of version 1, and 7 is needed, which"
        ):
            AssignmentStore(url)
