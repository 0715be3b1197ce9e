import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from conftest import wait_for
from records.support import an_event, made_in, own_messages, without_server
from rows import each_row
from urlward.config.records import StoreTable
from urlward.records.database import open_database
from urlward.records.sql import (
    CLEAN,
    deletions,
    note_deleted,
    note_wiped,
    open_postgresql,
    open_server,
    open_sqlite,
    told,
    unwiped,
    wipe_sqlite,
    writing,
)
from urlward.records.store import EventQuery, KeepingStore, Node, StoreError
from urlward.records.stores import open_store

SECRET = "s3cret-word"
BY_ENVIRONMENT = StoreTable(kind="postgresql", url_env="RECORDS_URL")


def test_sqlite_is_set_up_for_records(tmp_path: Path) -> None:
    engine = open_sqlite(tmp_path / "new" / "a.db")
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete", "temp_store", "busy_timeout")
        }
    engine.dispose()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "secure_delete": 1,
        "temp_store": 2,
        "busy_timeout": 10_000,
    }
    assert (tmp_path / "new" / "a.db").stat().st_mode & 0o777 == 0o600


def test_whose_lock_is_waited_for_is_said(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("urlward.records.sql.WAITS", 0.05)
    monkeypatch.setattr("psycopg.ConnectionInfo.backend_pid", 7)  # as PgBouncer tells its own
    engine, other = (open_server(postgresql_url, "its URL") for _ in range(2))
    with other.begin() as holder:
        holder.execute(text("CREATE TABLE locked (id INTEGER)"))
    asked = ThreadPoolExecutor(1)

    def ask() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM locked")).scalar_one())

    with other.connect() as holder:
        process = holder.execute(text("SELECT pg_backend_pid()")).scalar_one()
        holder.execute(text("SET application_name = 'backup'"))
        holder.execute(text("LOCK TABLE locked"))
        counting = asked.submit(ask)
        wait_for(
            lambda: f" waits for a lock of process {process} urlward backup idle in" in caplog.text, "that"
        )
        assert not counting.done()
    assert counting.result() == 0
    wait_for(lambda: all(one.name != "waiting" for one in threading.enumerate()), "ends")
    assert len(own_messages(caplog)) == 1
    with engine.connect(), engine.connect():
        assert [one.name for one in threading.enumerate()].count("waiting") == 1
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize("part", ["events", "assignments"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_deleted_waits_for_a_rewriting_that_begins_later(
    kind: str, part: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Whoever else rewrites the same meanwhile, and whatever is deleted after that."""
    if kind == "sqlite":
        engine = open_sqlite(tmp_path / "a.db")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA user_version = {CLEAN[part]}")
    else:
        engine = open_server(request.getfixturevalue("postgresql_url"), "here")
        with engine.begin() as connection:
            unwiped.create(connection)
    engine = writing(engine)

    def waits() -> int | None:
        with engine.connect() as connection:
            return deletions(connection, part)

    def do(what: Callable[..., None], *more: object) -> None:
        with engine.begin() as connection:
            what(connection, part, *more)

    assert waits() is None
    for _ in range(3):
        do(note_deleted)
        one = other = waits()
        do(note_wiped, other)
        assert waits() is None
        do(note_deleted)
        do(note_wiped, one)
        assert waits() not in (None, one), "which had begun before"
        before = waits()
        do(note_deleted)
        assert waits() not in (None, before)
        do(note_wiped, before)
        last = waits()
        assert last is not None, "the last was deleted meanwhile"
        do(note_wiped, last)
        assert waits() is None
    engine.dispose()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    engine = open_sqlite(tmp_path / "a.db")
    with engine.connect() as reader:
        assert reader.execute(text("SELECT count(*) FROM other")).scalar() == 0
    engine.dispose()


def test_nothing_of_a_record_is_written_elsewhere(tmp_path: Path) -> None:
    """While a file is written anew, where temporary files usually go: that may be another disk."""
    paths = [tmp_path / name / "a.db" for name in ("one", "it's", "one")]
    for n, path in enumerate(paths):
        engine = open_sqlite(path)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE t{n} (x)")
            for _ in range(8):
                connection.exec_driver_sql(f"INSERT INTO t{n} VALUES (randomblob(1000000))")
        with made_in(path.parent) as names:
            wipe_sqlite(engine, time.sleep, rewrite=True)
        assert [name[:7] for name in names] == ["etilqs_"]
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA temp_store").scalar() == 2
            assert connection.exec_driver_sql(f"SELECT count(*) FROM t{n}").scalar() == 8
        engine.dispose()
        assert [one.name for one in path.parent.iterdir() if one.name.startswith("etilqs_")] == []


@each_row(
    ("url", "reason"),
    [
        (None, "url_env: RECORDS_URL is not in the environment"),
        (" ", "url_env: RECORDS_URL is not in the environment"),
        (f"postgresql://u:{SECRET}@host", "RECORDS_URL: not a postgresql:// URL with a database's name"),
        (SECRET, "RECORDS_URL: not a postgresql:// URL"),
        (f"postgresql://u:{SECRET}@host:port/db", "RECORDS_URL: not a postgresql:// URL"),
        (f"mysql://u:{SECRET}@host/db", "RECORDS_URL: not a postgresql:// URL with a database's name"),
    ],
)
def test_urls_that_are_none(url: str | None, reason: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_postgresql(BY_ENVIRONMENT, {} if url is None else {"RECORDS_URL": url})
    assert str(raised.value) == reason


def test_a_url_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    table = StoreTable(kind="postgresql", url_file=str(path))
    with pytest.raises(StoreError, match=r"/url: No such file or directory$"):
        open_postgresql(table)
    path.write_bytes(b"\xff")
    with pytest.raises(StoreError, match=r"/url: not text$"):
        open_postgresql(table)
    path.write_text(f"postgresql://u:{SECRET}@db.example/records?connect_timeout=3\n")
    engine = open_postgresql(table)
    assert engine.url.render_as_string(hide_password=False) == (
        f"postgresql+psycopg://u:{SECRET}@db.example/records?client_encoding=utf8&connect_timeout=3&keepalives_count=5"
        "&keepalives_idle=10&keepalives_interval=2&tcp_user_timeout=10000"
    )
    assert SECRET not in repr(engine)


def test_a_server_that_is_not_there_is_told_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setenv("RECORDS_URL", f"postgresql://u:{SECRET}@127.0.0.1:{port}/records")
    with pytest.raises(StoreError) as raised:
        open_database(BY_ENVIRONMENT, tmp_path)
    message = str(raised.value)
    assert message.startswith("postgresql 127.0.0.1/records: ")
    assert "refused" in message
    assert "\n" not in message
    assert SECRET not in message


def test_a_server_that_says_nothing_keeps_no_file_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        monkeypatch.setenv("RECORDS_URL", f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/records")
        stuck = threads.submit(open_store, BY_ENVIRONMENT, tmp_path)
        with server.accept()[0]:
            open_store(StoreTable(kind="sqlite"), tmp_path).close()
            assert not stuck.done()
        server.close()
        assert isinstance(stuck.exception(), StoreError)


@pytest.mark.skipif(bool(without_server()), reason=without_server())
def test_a_server_that_was_away_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    database = open_database(BY_ENVIRONMENT, tmp_path)
    other = open_database(BY_ENVIRONMENT, tmp_path)
    database.write([an_event(0)])

    def connections(what: str = "pid") -> int:
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        with other.engine.connect() as connection:
            return len(connection.execute(text(f"SELECT {what} {others}")).all())

    assert connections("pg_terminate_backend(pid)") > 0
    wait_for(lambda: connections() == 0, "them to end, which the server only tells them to")
    database.write([an_event(1)])
    assert database.find(EventQuery()) == [an_event(1), an_event(0)]
    database.close()
    other.close()


@pytest.mark.skipif(bool(without_server()), reason=without_server())
def test_a_server_that_may_only_be_read_from_is_left_for_the_one_that_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover: its connections stay, and are as good as any but for writing."""
    some = [an_event(n) for n in range(200)]
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    open_database(BY_ENVIRONMENT, tmp_path).close()
    other = open_server(postgresql_url, "here").execution_options(isolation_level="AUTOCOMMIT")
    name = f'"{other.url.database}"'
    with other.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        database = open_database(BY_ENVIRONMENT, tmp_path)
        for write in (
            lambda: database.write(some),
            lambda: database.hold({"R": 1}, Node("gw1", "0a")),
        ):
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
            database.engine.dispose()
            with pytest.raises(StoreError, match="read-only"):
                write()
            connection.execute(text("SET transaction_read_only = off"))
            connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
            write()
    assert not caplog.records, "what the driver says of its insides is for nobody"
    other.dispose()
    database.close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_with_defaults_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str, encoding: str
) -> None:
    """SQL_ASCII is what a server has that was made without a locale, and keeps any."""
    own = open_server(postgresql_url, "here").execution_options(isolation_level="AUTOCOMMIT")
    name = f"{own.url.database}_{encoding.lower()}"
    with own.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"))
        connection.execute(text(f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'"))
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable"))
    own.dispose()
    monkeypatch.setenv("RECORDS_URL", postgresql_url.replace(own.url.database or "", name))
    if encoding == "LATIN1":
        with pytest.raises(StoreError, match=r"encoding UTF8 is needed, and this one has LATIN1$"):
            open_database(BY_ENVIRONMENT, tmp_path)
        return
    database = open_database(BY_ENVIRONMENT, tmp_path)
    database.write([an_event(0, category="азарт €")])
    assert database.find(EventQuery(category="азарт €")) == [an_event(0, category="азарт €")]
    with database.engine.connect() as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
    database.close()


def test_what_goes_wrong_is_one_line_without_values() -> None:
    with pytest.raises(StoreError) as raised, told("a.db"):
        raise sqlite3.OperationalError("disk I/O error\nsomething")
    assert str(raised.value) == "a.db: disk I/O error"
    with pytest.raises(StoreError) as raised, told("a.db"):
        raise StoreError("of a later version")
    assert str(raised.value) == "a.db: of a later version"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_is_the_services(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 4321, 4321)
    stores = [open_store(StoreTable(kind="sqlite"), state), open_store(StoreTable(kind="jsonl"), state)]
    for store in stores:
        assert isinstance(store, KeepingStore)
        for n in range(2):
            store.write([an_event(n * 5 * 86_400)])
        store.purge({"block": 1}, an_event(5 * 86_400).time)
        store.write([an_event(5 * 86_400 + 1)])
    owners = {path.name: path.stat().st_uid for path in state.iterdir()}
    assert owners == dict.fromkeys(("records.db", "records.db-wal", "records.db-shm", "records.jsonl"), 4321)
    for store in stores:
        store.close()
