import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.event import listens_for

from records.support import DAY, HOUR, START, an_event, node, versions
from urlward.config.records import StoreTable
from urlward.records import database as module
from urlward.records import sql
from urlward.records.database import Database, open_database
from urlward.records.event import FIELDS, Event
from urlward.records.store import Age, EventQuery, KeepingStore, StoreError
from urlward.records.stores import open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    if request.param == "sqlite":
        table = StoreTable(kind="sqlite")
    else:
        monkeypatch.setenv("RECORDS_URL", request.getfixturevalue("postgresql_url"))
        table = StoreTable(kind="postgresql", url_env="RECORDS_URL")
    made = open_store(table, tmp_path)
    assert isinstance(made, Database)
    assert isinstance(made, KeepingStore)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    made = open_database(StoreTable(kind="sqlite"), tmp_path)
    yield made
    made.close()


EVERY_FIELD = Event(
    id="0193ffffffff7fffbfffffffffffffff",
    time=START,
    kind="would-cut",
    node="gw1",
    client="2001:db8::7",
    client_port=65535,
    protocol="tls",
    destination="198.51.100.1",
    destination_port=443,
    stage="peek",
    list="éins 'x'",
    serial=(1 << 63) - 1,
    entry="e-1",
    category="phishing",
    verdict="monitor",
    reference="ABC-1",
    digest="00" * 16,
    group="staff",
    detail='{"a": "\\u0000"}',
)


def test_what_is_written_is_found(database: Database) -> None:
    assert [field for field in FIELDS if not getattr(EVERY_FIELD, field)] == []
    database.write([EVERY_FIELD])
    assert database.find(EventQuery()) == [EVERY_FIELD]


def test_the_same_is_kept_once(database: Database) -> None:
    some = [an_event(n) for n in range(3)]
    database.write([])
    database.write(some[:2])
    database.write([*some, some[2]])
    assert database.find(EventQuery()) == some[::-1]


def test_pages(database: Database) -> None:
    # Four at each time, so that pages end between equal times.
    some = sorted((an_event(n, at=START + n // 4) for n in range(20)), key=lambda event: event.id)
    database.write(some[::2])
    database.write(some[1::2])
    found, before = [], None
    while page := database.find(EventQuery(limit=3, before=before)):
        found += page
        before = page[-1].id
    assert found == some[::-1]


def test_pages_of_several_kinds(database: Database) -> None:
    """Whichever of them comes first at a time, and however often one is asked for."""
    kinds = ("block", "cut", "alarm")
    some = [an_event(n, kinds[n % 3], at=START + n // 4) for n in range(20)]
    database.write(some)
    found, before = [], None
    while page := database.find(EventQuery(kinds=("cut", "block", "cut"), limit=3, before=before)):
        found += page
        before = page[-1].id
    wanted = [event for event in some if event.kind != "alarm"]
    assert found == sorted(wanted, key=lambda event: (event.time, event.id), reverse=True)


def test_of_several_kinds_no_more_is_read_than_may_be_on_the_page(
    file: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write([an_event(n, "block" if n > 9 else "cut") for n in range(20)])
    read: list[Event] = []
    monkeypatch.setattr(module, "Event", lambda *row: read.append(Event(*row)) or read[-1])
    assert file.find(EventQuery(kinds=("block", "cut"), limit=5)) == read


@pytest.mark.parametrize("more", [{}, {"list": "one"}, {"category": "phishing"}])
def test_no_page_has_all_events_sorted(file: Database, more: dict[str, str]) -> None:
    """Of millions, that takes many seconds, for each page of an export anew."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    @listens_for(file.engine, "before_cursor_execute")
    def note(*args: Any) -> None:
        asked.append((args[2], args[3]))

    for kinds in ((), ("block",), ("block", "cut")):
        file.find(EventQuery(kinds=kinds, before=EVERY_FIELD.id, **more))
    with file.engine.connect() as connection:
        for statement, values in [one for one in asked if one[0].startswith("SELECT")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            assert not any("TEMP B-TREE FOR ORDER BY" in step.detail for step in plan)


def test_a_page_goes_on_after_an_event_that_is_gone(database: Database) -> None:
    some = [an_event(n, at=START + n) for n in range(4)]
    database.write(some[:2])
    assert database.find(EventQuery(before=some[2].id)) == some[1::-1]
    assert database.find(EventQuery(before="nonsense")) == []


def test_followers_see_late_ones_too(database: Database) -> None:
    some = [an_event(n) for n in range(4)]
    assert database.last() == 0
    database.write(some[2:])
    seen = database.last()
    database.write(some[:2])
    assert [event for _, event in database.came_after(seen, EventQuery())] == some[:2]
    ((number, event),) = database.came_after(seen, EventQuery(limit=1))
    assert event == some[0]
    assert [event for _, event in database.came_after(number, EventQuery())] == some[1:2]
    assert database.came_after(seen, EventQuery(list="other")) == []


def test_counts(database: Database) -> None:
    database.write(
        [
            an_event(0, at=START - START % HOUR, list="one", category=""),
            an_event(1, at=START - START % HOUR + HOUR - 1, list="one", category="x"),
            an_event(2, at=START - START % HOUR + HOUR, list="two", category="x"),
            an_event(3, kind="list", at=START - START % HOUR + 2 * HOUR, list="two", category="x"),
        ]
    )
    assert database.count(EventQuery(limit=1), "kind") == {"block": 3, "list": 1}
    assert database.count(EventQuery(kinds=("block",)), "list") == {"one": 2, "two": 1}
    assert list(database.count(EventQuery(), "category").items()) == [("x", 3), ("", 1)]
    assert list(database.count(EventQuery(), "hour").items()) == [
        ("2026-11-18T11:00:00Z", 2),
        ("2026-11-18T12:00:00Z", 1),
        ("2026-11-18T13:00:00Z", 1),
    ]
    assert database.count(EventQuery(), "day") == {"2026-11-18T00:00:00Z": 4}


def test_purge(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    blocks = [an_event(n, at=START + n * DAY) for n in range(10)]
    lists = [an_event(n + 10, kind="list", at=START + n * DAY) for n in range(10)]
    feeds = [an_event(n + 20, kind="feed", at=START + n * DAY) for n in range(10)]
    database.write([*blocks, *lists, *feeds])
    assert database.ages() == {kind: Age(10, START) for kind in ("block", "list", "feed")}
    held = {blocks[1].reference, "another"}
    now = START + 9 * DAY
    assert database.purge({"block": 2, "list": 5}, now, held) == 7 - 1 + 4
    assert database.find(EventQuery(kinds=("block",))) == [blocks[9], blocks[8], blocks[7], blocks[1]]
    assert database.ages(held) == {
        "block": Age(3, START + 7 * DAY),
        "list": Age(6, START + 4 * DAY),
        "feed": Age(10, START),
    }
    assert database.purge({"block": 2, "list": 5}, now, held) == 0
    assert database.purge({"block": 2, "list": 5}, now) == 1


def test_what_is_held_while_a_purge_is_under_way_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    blocks = [an_event(n) for n in range(10)]
    database.write(blocks)

    def hold(_: float) -> None:
        left = database.find(EventQuery())
        database.hold({left[0].reference: START + 9 * DAY}, node("gw1"))

    monkeypatch.setattr(database, "_pause", hold)
    now = START + 3 * DAY
    assert database.purge({"block": 2}, now) == 9
    assert database.find(EventQuery()) == [blocks[9]]


def test_the_version_of_a_list_stays_with_what_it_listed(database: Database) -> None:
    evidence, others = versions()
    database.write([*evidence, *others])
    held = {evidence[0].reference}
    assert sorted(database.evidence(held)) == sorted(evidence)
    assert database.evidence(()) == []
    days = {"block": 1, "list": 1, "feed": 1, "objection": 1}
    assert database.purge(days, START + 9 * DAY, held) == len(others)
    assert sorted(database.find(EventQuery())) == sorted(evidence)
    assert database.ages(held) == {}
    assert database.purge(days, START + 9 * DAY) == len(evidence)


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("records.db*"))


def test_what_is_deleted_is_not_in_the_files(file: Database, tmp_path: Path) -> None:
    # So many, and in such an order, that SQLite has moved some from one page to another, where copies stay.
    some = [
        an_event(n, reference=f"{n * 7919 % 20_000:05d}-r{n:05d}-", client=f"c{n:05d}-")
        for n in range(20_000)
    ]
    for n in range(0, len(some), 1000):
        file.write(some[n : n + 1000])

    def found(mark: bytes) -> set[int]:
        return {int(number) for number in re.findall(mark + rb"(\d{5})-", written(tmp_path))}

    assert found(b"c") == found(b"r") == set(range(20_000))
    assert file.purge({"block": 1}, START + 10_000 * 1000 + DAY) == 10_000
    assert found(b"c") == found(b"r") == set(range(10_000, 20_000))


def test_a_purge_takes_no_file_away(file: Database, tmp_path: Path) -> None:
    """Another of its name would be taken for one that somebody has put in its place."""
    file.write([an_event()])
    with ExitStack() as opened:
        before = [opened.enter_context(path.open("rb")) for path in tmp_path.glob("records.db*")]
        for days in (9, 0):
            assert file.purge({"block": 1}, START + (10 - days) * DAY) == (not days)
        assert [os.fstat(one.fileno()).st_nlink for one in before] == [1, 1, 1]
    file.write([an_event(1)])


def test_nobody_but_its_owner_reads_the_file(file: Database, tmp_path: Path) -> None:
    file.write([an_event()])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"records.db": 0o600, "records.db-wal": 0o600, "records.db-shm": 0o600}


@pytest.mark.ours
def test_what_is_written_survives_a_kill(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from records.support import an_event
from urlward.config.records import StoreTable
from urlward.records.stores import open_store
store = open_store(StoreTable(kind="sqlite"), Path({str(tmp_path)!r}))
store.write([an_event(n) for n in range(100)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": tests})
    assert done.returncode == -9
    made = open_database(StoreTable(kind="sqlite"), tmp_path, make=False)
    assert len(made.find(EventQuery(limit=1000))) == 100
    made.close()


def test_another_that_writes_is_waited_for_and_then_told(
    file: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"records\.db: database is locked$"):
        file.write([an_event()])
    other.close()
    file.write([an_event()])


def test_a_reader_in_the_way_is_told(file: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "TRIES", 3)
    waits: list[float] = []
    file._pause = waits.append
    file.write([an_event()])
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM events").fetchall()
    with pytest.raises(StoreError, match="somebody reads all the time"):
        file.purge({"block": 1}, START + 2 * DAY)
    assert waits
    other.close()
    assert file.purge({"block": 1}, START + 2 * DAY) == 0
    assert an_event().reference.encode() not in written(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\0" * 4096, "is not a database"), (None, "Is a directory")]
)
def test_what_is_no_database(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "records.db"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(StoreError) as raised:
        open_store(StoreTable(kind="sqlite"), tmp_path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=r"/state: Not a directory$"):
        open_store(StoreTable(kind="sqlite"), tmp_path / "state")


def test_one_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing has been recorded yet"):
        open_database(StoreTable(kind="sqlite"), tmp_path, make=False)
    assert not list(tmp_path.iterdir())


TIMES = st.integers(START, START + 5)
NAMES = st.sampled_from(["", "a", "b"])
EVENTS = st.lists(
    st.builds(
        lambda time, kind, random, **names: an_event(random, kind=kind, at=time)._replace(**names),
        time=TIMES,
        kind=st.sampled_from(["block", "cut", "list"]),
        random=st.integers(0, 10),
        **dict.fromkeys(("reference", "list", "category", "client", "entry", "group"), NAMES),
    ),
    max_size=12,
)
MAYBE = st.none() | NAMES
QUERIES = st.builds(
    EventQuery,
    kinds=st.sampled_from([(), ("block",), ("cut", "list")]),
    since=st.none() | TIMES,
    until=st.none() | TIMES,
    limit=st.integers(1, 12),
    **dict.fromkeys(("reference", "list", "category", "client", "entry", "group"), MAYBE),
)


def model(events: list[Event], query: EventQuery) -> list[Event]:
    first = {event.id: event for event in reversed(events)}
    names = ("reference", "list", "category", "client", "entry", "group")
    found = [
        event
        for event in first.values()
        if (not query.kinds or event.kind in query.kinds)
        and (query.since is None or event.time >= query.since)
        and (query.until is None or event.time < query.until)
        and all(getattr(query, name) in (None, getattr(event, name)) for name in names)
    ]
    return sorted(found, key=lambda event: (event.time, event.id), reverse=True)[: query.limit]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=EVENTS, queries=st.lists(QUERIES, min_size=3, max_size=3))
def test_queries_are_as_a_plain_model_has_them(
    file: Database, events: list[Event], queries: list[EventQuery]
) -> None:
    with file.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM events")
    file.write(events)
    for query in queries:
        assert file.find(query) == model(events, query)


def test_holds_are_for_all_nodes(database: Database) -> None:
    database.hold({"A": START}, node("n1"))
    database.hold({"A": START + 10, "B": START + 20}, node("n1"))
    assert database.held(START) == {"A": START + 10, "B": START + 20}
    database.hold({"A": START + 5}, node("n1"))
    assert database.held(START) == {"A": START + 10, "B": START + 20}, "none is made shorter"
    assert database.held(START + 10) == {"B": START + 20}
    database.release("B", node("n1"))
    database.release("B", node("n1"))
    assert database.held(START) == {"A": START + 10}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_hold_is_of_the_node_that_made_it(database: Database) -> None:
    database.hold({"A": START + 20}, node("n1"))
    database.hold({"A": START + 10}, node("n2"))
    assert database.held(START) == {"A": START + 20}
    database.release("A", node("n2"))
    assert database.held(START) == {"A": START + 20}
    database.hold({"A": START + 30}, node("n2"))
    database.release("A", node("n1"))
    assert database.held(START) == {"A": START + 30}
    database.release("A", node("n2"))
    assert database.held(START) == {}


def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    def one(n: int) -> None:
        made = open_database(StoreTable(kind="sqlite"), tmp_path)
        made.write([an_event(n)])
        made.close()

    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(one, range(6))] == [None] * 6
    made = open_database(StoreTable(kind="sqlite"), tmp_path, make=False)
    assert len(made.find(EventQuery())) == 6
    made.close()


def test_each_nodes_events_go_by_that_nodes_days(database: Database) -> None:
    some = [an_event(n, node=name) for n, name in enumerate(("short", "long", "gone"))]
    database.write(some)
    if database.is_file:
        # This machine's, whatever it was called before.
        assert database.purge({"block": 1}, START + 2 * DAY, (), node("short")) == 3
        return
    assert database.purge({"block": 30}, START + DAY // 2, (), node("long")) == 0
    # The node with the fewest days deletes its own.
    assert database.purge({"block": 1}, START + 2 * DAY, (), node("short")) == 1
    assert database.days_of_nodes({"block": 1}, node("short")) == {
        "long": {"block": 30},
        "short": {"block": 1},
        "": {"block": 30},
    }
    # And those of others when theirs are over, however long these nodes have been silent.
    assert database.purge({"block": 1}, START + 29 * DAY, (), node("short")) == 0
    assert database.purge({"block": 1}, START + 31 * DAY, (), node("short")) == 2
    assert database.purge({}, START + 99 * DAY, (), node("ever")) == 0
