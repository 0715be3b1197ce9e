import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from records.support import START, an_event
from urlward.config.records import StoreTable
from urlward.records.database import open_database
from urlward.records.engines import open_postgresql, open_sqlite, writing
from urlward.records.event import FIELDS, Event
from urlward.records.migrations import migrate
from urlward.records.store import EventQuery, StoreError
from urlward.records.tables import events

VERSION_1 = Path(__file__).parents[1] / "data" / "records" / "version1.sql"
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


def made_by_version_1(folder: Path) -> None:
    with sqlite3.connect(folder / "records.db") as connection:
        connection.executescript(VERSION_1.read_text())
    connection.close()


def test_a_database_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    made_by_version_1(tmp_path)
    database = open_database(SQLITE, tmp_path)
    first = Event(
        id="01a1eebcd2c07e0089abcdef01234567",
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
        reference="ABC-1",
        digest="0123456789abcdef0123456789abcdef",
        group="staff",
        detail='{"a":1}',
    )
    start = Event(id="01a1eebcd6a87e0089abcdef01234567", time=START + 1000, kind="start", node="gw1")
    assert database.find(EventQuery()) == [start, first]
    database.write([first, an_event(5)])
    assert database.find(EventQuery()) == [an_event(5), start, first]
    database.close()


def test_a_database_of_version_1_becomes_as_a_new_one(tmp_path: Path) -> None:
    schemas = []
    for folder in (tmp_path / "old", tmp_path / "new"):
        folder.mkdir()
        if folder.name == "old":
            made_by_version_1(folder)
        database = open_database(SQLITE, folder)
        looked = inspect(database.engine)
        schemas.append(
            {
                table: (
                    [(c["name"], str(c["type"]), c["nullable"]) for c in looked.get_columns(table)],
                    sorted(looked.get_indexes(table), key=str),
                )
                for table in looked.get_table_names()
            }
        )
        database.close()
    assert schemas[0] == schemas[1]
    assert set(schemas[0]) == {"events", "holds", "urlward_versions"}


def test_a_later_version_is_told_with_the_file(tmp_path: Path) -> None:
    made_by_version_1(tmp_path)
    with sqlite3.connect(tmp_path / "records.db") as connection:
        connection.execute("UPDATE urlward_versions SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match=r"records\.db: its events are of version 99, made by a later"):
        open_database(SQLITE, tmp_path)
