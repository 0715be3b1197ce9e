import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from assignments.support import sighting, taken
from records.support import DAY, START, an_event, in_the_heap, node, role_without_ownership
from records.test_migrations import made_by_version
from urlward.assignments import retention
from urlward.assignments.interval import AssignmentError
from urlward.assignments.retention import purge_assignments
from urlward.assignments.store import AssignmentStore
from urlward.config.records import StoreTable
from urlward.records import sql
from urlward.records.database import Database, open_database
from urlward.records.store import EventQuery, StoreError

TABLE = StoreTable(kind="postgresql", url_env="RECORDS_URL")


@pytest.fixture
def database(postgresql_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    monkeypatch.setattr(sql, "_LOCK_WITHIN", "20ms")
    monkeypatch.setattr(sql, "_TRIES", 3)
    made = open_database(TABLE, tmp_path)
    made._pause = lambda _: None
    yield made
    made.close()


def clients(folder: str, mark: bytes) -> set[int]:
    return {int(number) for number in re.findall(mark + rb"(\d{5})-", in_the_heap(folder))}


def test_what_is_deleted_is_not_in_the_servers_files(database: Database, postgresql_server: str) -> None:
    """Among rows that stay, whose pages a plain VACUUM leaves as they are."""
    database.write([an_event(n, at=START + (n % 2) * DAY, client=f"heap{n:05d}-") for n in range(3_000)])
    assert clients(postgresql_server, b"heap") == set(range(3_000))
    assert database.purge({"block": 1}, START + DAY + 1, (), node("n1")) == 1_500
    assert clients(postgresql_server, b"heap") == set(range(1, 3_000, 2))


def analyzed(url: str) -> set[tuple[str, str]]:
    """Tables and columns of which a server keeps values, after it has looked at all."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("ANALYZE")
        return set(server.execute("SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public'"))


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_deleted_is_not_in_the_servers_statistics(
    version: int, postgresql_url: str, postgresql_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are tables as well, with some hundred values of each column, and in which nothing is deleted."""
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    if version == 2:
        made_by_version(2, "postgresql", tmp_path, postgresql_url)
        assert analyzed(postgresql_url) >= {("events", "client"), ("assignments_current", "subscriber")}
    database, store = open_database(TABLE, tmp_path), AssignmentStore(postgresql_url)
    database.write([an_event(n, client=f"stat{n:05d}-") for n in range(300)])
    who = [f"stat{n + 300:05d}-" for n in range(200)]
    taken(
        store,
        *(sighting(f"192.0.2.{n}", 0, 60, one, session=f"s{n}") for n, one in enumerate(who)),
        *(sighting(f"198.51.100.{n}", 0, None, one, session=f"s{n}") for n, one in enumerate(who)),
    )
    kept = analyzed(postgresql_url)
    assert {("events", "reference"), ("events", "time"), ("assignments_current", "place")} <= kept, (
        "plans rest on it"
    )
    assert not {one for one in kept if one[1] in ("client", "subscriber", "network", "address")}
    assert clients(postgresql_server, b"stat") == set(range(500))
    assert database.purge({"block": 1}, START + 2 * DAY) >= 300
    purge_assignments(store, START + 10 * DAY)
    assert not clients(postgresql_server, b"stat")
    database.close()
    store.close()


def test_it_is_rewritten_for_a_share_of_the_time_and_never_forgotten(
    database: Database, postgresql_server: str, tmp_path: Path
) -> None:
    database.write([an_event(n, at=START + n % 2 * 3 * DAY, client=f"late{n:05d}-") for n in range(300)])
    database._pace.after = float("inf")
    assert database.purge({"block": 1}, START + 2 * DAY) == 150
    assert clients(postgresql_server, b"late") > set(range(1, 300, 2)), "a plain VACUUM leaves some"
    other = open_database(TABLE, tmp_path)
    assert other.purge({"block": 1}, START + 2 * DAY) == 0
    other.close()
    assert clients(postgresql_server, b"late") == set(range(1, 300, 2))


def test_a_role_that_may_not_vacuum_is_refused(
    database: Database, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write([an_event()])
    with role_without_ownership(postgresql_url) as url:
        monkeypatch.setenv("RECORDS_URL", url)
        role = url.partition("//")[2].partition("@")[0]
        with database.engine.connect() as connection:
            version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
        grant = f"GRANT MAINTAIN ON events TO {role}" if version >= 170_000 else f"GRANT urlward TO {role}"
        with pytest.raises(StoreError) as raised:
            open_database(TABLE, tmp_path)
        assert str(raised.value).endswith(
            f": its role may not vacuum, so that what it deletes would stay in the server's files: {grant}"
        )
        # Who only looks may.
        looking = open_database(TABLE, tmp_path, make=False)
        assert looking.find(EventQuery()) == [an_event()]
        with pytest.raises(StoreError, match=r"still in the server's files: .*\bevents\b") as raised:
            looking.purge({"block": 1}, START + 2 * DAY)
        looking.close()
        with psycopg.connect(postgresql_url, autocommit=True) as server:
            server.execute(grant)
        granted = open_database(TABLE, tmp_path)
        assert granted.purge({"block": 1}, START + 2 * DAY) == 0
        with granted.engine.connect() as connection:
            assert sql.deletions(connection, "events") is None
        granted.close()


def test_who_reads_all_the_time_is_told(
    database: Database, postgresql_url: str, postgresql_server: str
) -> None:
    database.write([an_event(0, client="read00001-")])
    with psycopg.connect(postgresql_url) as reader:
        reader.execute("SELECT * FROM events").fetchall()
        with pytest.raises(
            StoreError, match="still in the server's files: somebody uses events all the time"
        ):
            database.purge({"block": 1}, START + 2 * DAY)
    database._pace.after = 0.0
    assert database.purge({"block": 1}, START + 2 * DAY) == 0
    assert not clients(postgresql_server, b"read")


def test_a_table_that_another_drops_meanwhile_keeps_nothing(
    database: Database, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_LOCK_WITHIN", "60s")
    with (
        ThreadPoolExecutor() as pool,
        psycopg.connect(postgresql_url) as other,
        psycopg.connect(postgresql_url, autocommit=True) as looking,
    ):
        looking.execute("CREATE TABLE dropped (n integer)")
        other.execute("DROP TABLE dropped")
        vacuumed = pool.submit(sql.vacuum, database.engine, ["dropped"], time.sleep)
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = to_regclass('dropped')"
        while not looking.execute(waits).fetchone():
            assert not vacuumed.done()
        other.commit()
        vacuumed.result()
    sql.vacuum(database.engine, ["dropped"], time.sleep)


def test_an_old_transaction_that_still_sees_it_is_told(
    database: Database, postgresql_url: str, postgresql_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SHARE", 1e-6)
    database.write([an_event(n, client=f"seen{n:05d}-") for n in range(7)])
    with psycopg.connect(postgresql_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        with pytest.raises(StoreError, match="a transaction that is open since before still sees 7 rows"):
            database.purge({"block": 1}, START + 2 * DAY)
        assert database._pace.after > time.monotonic()
        # Neither does it lock the table again and again for the same end.
        database._pace.after = float("inf")
        assert database.purge({"block": 1}, START + 2 * DAY) == 0
    assert clients(postgresql_server, b"seen")
    database._pace.after = 0.0
    assert database.purge({"block": 1}, START + 2 * DAY) == 0
    assert not clients(postgresql_server, b"seen")


def test_assignments_too(
    postgresql_url: str, postgresql_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AssignmentStore(postgresql_url)
    taken(store, *(sighting(f"192.0.2.{n}", 0, 60 + n % 2 * 90_000, f"subs{n:05d}-") for n in range(200)))
    with role_without_ownership(postgresql_url) as url:
        refused = AssignmentStore(url)
        with (
            pytest.raises(
                AssignmentError, match=r"its role may not make and drop partitions of assignments: GRANT "
            ),
            refused.importing("kea", "kea", "leases"),
        ):
            pytest.fail("it was taken")
        with pytest.raises(AssignmentError, match=r"still in the server's files: .*assignments"):
            purge_assignments(refused, START + 80_000_000)
        refused.close()
    assert clients(postgresql_server, b"subs") == set(range(200))
    assert purge_assignments(store, START + 80_000_000) == 0, "deleted before, and not forgotten"
    assert clients(postgresql_server, b"subs") == set(range(1, 200, 2))
    store.close()


def test_assignments_are_rewritten_for_a_share_of_the_time(
    postgresql_url: str, postgresql_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SHARE", 1e-6)

    def purge() -> None:
        store = AssignmentStore(postgresql_url)
        try:
            purge_assignments(store, START + 80_000_000)
        finally:
            store.close()

    store = AssignmentStore(postgresql_url)
    taken(store, *(sighting(f"192.0.2.{n}", 0, 60 + n % 2 * 90_000, f"pace{n:05d}-") for n in range(200)))
    store.close()
    with psycopg.connect(postgresql_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        with pytest.raises(AssignmentError, match="a transaction that is open since before still sees"):
            purge()
        (pace,) = [one for url, one in retention._paces.items() if url == str(store.engine.url)]
        assert pace.after > time.monotonic()
        pace.after = float("inf")
        purge()
    purge()
    assert clients(postgresql_server, b"pace") > set(range(1, 200, 2))
    pace.after = 0.0
    purge()
    assert clients(postgresql_server, b"pace") == set(range(1, 200, 2))
