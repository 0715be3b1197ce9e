"""Schema of the assignments' database, for SQLite and PostgreSQL alike, and opening it.

What has ended for good is in ``assignments``, which is only added to. What a source may still say more of
is in ``assignments_current``, one row for each source and place.

Finding an interval by a time in it: intervals are in classes by how long they last, of at most `SPANS[k]`
ms, and by the span of time their start is in. One that is in force at a time began in that time's span or
in the one before, so that two *cells* a class are looked at, whatever the history's length; new rows, which
come about in order of time, all go to few places of the index.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)

from urlward.assignments.interval import FOREVER, AssignmentError
from urlward.config.records import ASSIGNMENTS
from urlward.records import sql
from urlward.records.sql import (
    Step,
    keep_no_samples,
    migrate,
    open_server,
    open_sqlite,
    unwiped,
    writing,
)
from urlward.records.sqlite import make_sqlite, obstacle
from urlward.records.store import StoreError

FILE = ASSIGNMENTS
PART = "assignments"
SPANS: tuple[int, ...] = tuple(60_000 * 4**k for k in range(14))
"""From a minute to 127 years, in ms."""

_CACHE_KIB = 131_072
_BUSY_SECONDS = 600
"""For which who writes waits: the file may be written anew meanwhile."""

metadata = MetaData()

assignments = Table(
    "assignments",
    metadata,
    Column("cell", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", BigInteger, primary_key=True, autoincrement=False),
    Column("network", Text, nullable=False),
    Column("first_port", Integer, nullable=False),
    Column("last_port", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("ending", SmallInteger, nullable=False),
    Column("subscriber", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("source", Integer, nullable=False),
    sqlite_with_rowid=False,
)

current = Table(
    "assignments_current",
    metadata,
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("first_port", Integer, primary_key=True, autoincrement=False),
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("network", Text, nullable=False),
    Column("last_port", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("ending", SmallInteger, nullable=False),
    Column("subscriber", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("file", Integer, nullable=False),
    Column("read", BigInteger, nullable=False),
    Index("assignments_current_session", "source", "session"),
    sqlite_with_rowid=False,
)
"""``file``: of `files`, that has the row, or 0. ``read``: when the source was last seen to have it, in ms,
where no file says so."""

TABLES = (assignments.name, current.name, "assignment_holds")
"""Those with subscribers in them."""

# Each renewal changes a row: with room beside it, PostgreSQL leaves the index alone (heap-only tuples).
_ROOM = DDL("ALTER TABLE assignments_current SET (fillfactor = 50)")  # type: ignore[no-untyped-call]
event.listen(current, "after_create", _ROOM.execute_if(dialect="postgresql"))

sources = Table(
    "assignment_sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("format", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("node", Text, nullable=False),
    Column("days", Integer, nullable=False),
)
"""``path``: of the file that something was taken from last. ``read``: when it was last read, in ms. ``node``:
that reads it (`urlward.records.store`), in a database that several share, and ``days``: that this node keeps
it for; empty and 0 where none has said so."""

files = Table(
    "assignment_files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("begin", Text, nullable=False),
    Column("begin_size", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("before", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    UniqueConstraint("source", "begin", "begin_size"),
)
"""How far files are read: known by digests of their first bytes and of those before the offset. ``read``:
when one was last found to have all that was read of it, in ms."""

lengths = Table(
    "assignment_lengths",
    metadata,
    Column("length", Integer, primary_key=True, autoincrement=False),
)
"""Prefix lengths that there are, as `length_of` gives them: what an address has to be looked for in."""

formulas = Table(
    "assignment_mappings",
    metadata,
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("outside", Text, primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("inside", Text, nullable=False),
    Column("ports", Integer, nullable=False),
    Column("first_port", Integer, nullable=False),
    Column("end", BigInteger, nullable=False),
)

holds = Table(
    "assignment_holds",
    metadata,
    Column("reference", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
)
"""Whoever had an address (and a port of it, or 0 for any) about a time stays until another time: for the
event of a reference. Every node that writes here goes by it."""


_PERSONAL = (
    *(table.c[name] for table in (assignments, current) for name in ("network", "subscriber")),
    holds.c.address,
)
"""Columns that no query looks for rows by alone; of those that are, the server's planner needs statistics."""


def cell_of(start: int, end: int) -> int:
    """Index cell of an interval with both ends."""
    span: int = min(bisect_left(SPANS, end - start), len(SPANS) - 1)
    return span << 40 | start // SPANS[span]


def cells_at(since: int, until: int) -> list[range]:
    """Index cells of the intervals that may be in force at some time from one to another, both included."""
    return [
        range(span << 40 | max(0, since - size) // size, (span << 40 | until // size) + 1)
        for span, size in enumerate(SPANS)
    ]


def open_engine(database: Path | str) -> Engine:
    """Open the tables, made where they are not there yet.

    Args:
        database: an SQLite file, or a ``postgresql://`` URL.

    Raises:
        AssignmentError: it cannot be opened.
    """
    with told(database):
        if not isinstance(database, Path):
            engine = open_server(database, "its URL")
            with _disposed_of(engine):
                _migrate(engine)
            return engine
        engine = _sqlite(database)
        with _disposed_of(engine):
            # While one connection is open the log's file stays the same.
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
            # Its transactions can be of changes of tables.
            by_steps = open_sqlite(database)
            try:
                _migrate(by_steps)
            finally:
                by_steps.dispose()
        return engine


@contextmanager
def _disposed_of(engine: Engine) -> Iterator[None]:
    """Dispose of the engine if the block fails."""
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _migrate(engine: Engine) -> None:
    migrate(writing(engine), PART, _create, UPGRADES, first=assignments.name)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    unwiped.create(connection, checkfirst=True)
    keep_no_samples(connection, *_PERSONAL)


def _to_2(connection: Connection) -> None:
    """Upgrade to version 2: several formulas per source, holds on assignments, and notes of what to
    rewrite."""
    for table in (
        "assignment_mappings (source INTEGER NOT NULL, outside TEXT NOT NULL, start BIGINT NOT NULL,"
        ' inside TEXT NOT NULL, ports INTEGER NOT NULL, first_port INTEGER NOT NULL, "end" BIGINT NOT NULL,'
        " PRIMARY KEY (source, outside, start))",
        "assignment_holds (reference TEXT NOT NULL, address TEXT NOT NULL, port INTEGER NOT NULL,"
        " at BIGINT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (reference, address, port, at))",
    ):
        connection.execute(text(f"CREATE TABLE IF NOT EXISTS {table}"))
    # A version between the two that was never released has made these without saying so.
    if inspect(connection).has_table("assignment_formulas"):
        columns = 'source, outside, start, inside, ports, first_port, "end"'
        connection.execute(
            text(f"INSERT INTO assignment_mappings ({columns}) SELECT {columns} FROM assignment_formulas")  # noqa: S608
        )
        connection.execute(text("DROP TABLE assignment_formulas"))
    unwiped.create(connection, checkfirst=True)


def _to_3(connection: Connection) -> None:
    """Upgrade to version 3: open intervals count from when last seen, sources belong to nodes, and the server
    keeps no samples of subscribers.

    Which file has a row is not known of those that are there: the one that its source was read from last.
    """
    for table, column in (
        ("assignments_current", "file INTEGER"),
        ("assignments_current", "read BIGINT"),
        ("assignment_files", "read BIGINT"),
        ("assignment_sources", "node TEXT"),
        ("assignment_sources", "days INTEGER"),
    ):
        default = "''" if column.endswith("TEXT") else "0"
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} NOT NULL DEFAULT {default}"))
        if connection.dialect.name == "postgresql":
            name = column.partition(" ")[0]
            connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"))
    connection.execute(
        text(
            "UPDATE assignment_files SET read = coalesce((SELECT s.read FROM assignment_sources s"
            " WHERE s.id = assignment_files.source), 0)"
        )
    )
    connection.execute(
        text(
            "UPDATE assignments_current SET file = coalesce((SELECT max(f.id) FROM assignment_files f"
            " WHERE f.source = assignments_current.source AND f.begin_size > 0), 0),"
            " read = coalesce((SELECT s.read FROM assignment_sources s"
            " WHERE s.id = assignments_current.source), 0)"
            ' WHERE "end" = :forever'
        ),
        {"forever": FOREVER},
    )
    keep_no_samples(connection, *_PERSONAL)


UPGRADES: tuple[Step, ...] = (_to_2, _to_3)
"""From version 1 on, as `urlward.records.database.UPGRADES`; no database of that version says that it is."""


def _sqlite(path: Path) -> Engine:
    # Whoever may read it knows who had which address.
    make_sqlite(path)
    if (wrong := obstacle(path)) is not None:
        raise wrong
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        for pragma in (
            "journal_mode=WAL", "synchronous=NORMAL", f"cache_size=-{_CACHE_KIB}", "temp_store=MEMORY",
            "secure_delete=ON",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    return engine


@contextmanager
def told(database: Path | str) -> Iterator[None]:
    """Turn any database error into one line without its password."""
    place = str(database) if isinstance(database, Path) else "the assignments' database"
    try:
        with sql.told(place):
            yield
    except StoreError as e:
        raise AssignmentError(str(e)) from e
