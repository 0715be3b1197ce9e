"""The tables of assignments, and opening them: SQLite and PostgreSQL through one schema.

What has ended for good is in ``assignments``, which is only added to. What a source may still say more of
is in ``assignments_current``, one row for each source and place.

Finding an interval by a time in it: intervals are in classes by how long they last, of at most `SPANS[k]`
ms, and by the span of time their start is in. One that is in force at a time began in that time's span or
in the one before, so that two *cells* a class are looked at, whatever the history's length; new rows, which
come about in order of time, all go to few places of the index.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
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
)
from sqlalchemy.exc import SQLAlchemyError

from urlward.records.assignments.interval import AssignmentError
from urlward.records.engines import open_server
from urlward.records.store import StoreError

FILE = "assignments.db"
SPANS: tuple[int, ...] = tuple(60_000 * 4**k for k in range(14))
"""From a minute to 127 years, in ms."""

_CACHE_KIB = 131_072
_BUSY_SECONDS = 30

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
    Index("assignments_current_session", "source", "session"),
    sqlite_with_rowid=False,
)

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
)
"""``read``: when it was last read, in ms."""

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
    UniqueConstraint("source", "begin", "begin_size"),
)
"""How far files are read: known by digests of their first bytes and of those before the offset."""

lengths = Table(
    "assignment_lengths",
    metadata,
    Column("length", Integer, primary_key=True, autoincrement=False),
)
"""Prefix lengths that there are, as `length_of` gives them: what an address has to be looked for in."""

formulas = Table(
    "assignment_formulas",
    metadata,
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("inside", Text, nullable=False),
    Column("outside", Text, nullable=False),
    Column("ports", Integer, nullable=False),
    Column("first_port", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
)


def cell_of(start: int, end: int) -> int:
    """Of an interval with both ends."""
    span: int = min(bisect_left(SPANS, end - start), len(SPANS) - 1)
    return span << 40 | start // SPANS[span]


def cells_at(since: int, until: int) -> list[range]:
    """Those that may have an interval which is in force at some time from one to another, both included."""
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
        if isinstance(database, Path):
            engine = _sqlite(database)
        else:
            engine = open_server(database, "the assignments' database")
        metadata.create_all(engine)
    return engine


def _sqlite(path: Path) -> Engine:
    # Whoever may read it knows who had which address.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(fd, folder.st_uid, folder.st_gid)
    os.close(fd)
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
    """Whatever a database refuses, as one line without its password."""
    place = database if isinstance(database, Path) else "the assignments' database"
    try:
        yield
    except (SQLAlchemyError, OSError) as e:
        reason = getattr(e, "orig", None) or e
        line = next(iter(str(reason).splitlines()), type(e).__name__)
        raise AssignmentError(f"{place}: {line}") from e
    except StoreError as e:
        raise AssignmentError(str(e)) from e
