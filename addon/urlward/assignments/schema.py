"""Schema of the assignments' database, for SQLite and PostgreSQL alike, and opening it.

What has ended for good is in ``assignments``, which is only added to. What a source may still say more of
is in ``assignments_current``, one row for each source and place.

In PostgreSQL the former has partitions (`urlward.assignments.partitions`).
"""

import logging
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
    delete,
    event,
    inspect,
    text,
)

from urlward.assignments.interval import FOREVER, AssignmentError
from urlward.assignments.partitions import PERSONAL, Stretch, lacking_locks, make_partitions, partitions_of
from urlward.config.records import ASSIGNMENTS
from urlward.records import sql
from urlward.records.sql import (
    Step,
    deletions,
    keep_no_samples,
    migrate,
    note_deleted,
    open_server,
    open_sqlite,
    unwiped,
    writing,
)
from urlward.records.sqlite import make_sqlite, obstacle
from urlward.records.store import StoreError

logger = logging.getLogger("urlward.assignments")

FILE = ASSIGNMENTS
PART = "assignments"
_CACHE_KIB = 131_072
_LARGE = 500_000_000
"""Bytes of a table that take minutes to be copied."""
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
    postgresql_partition_by="RANGE (cell)",
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

# Names have no more than 255 characters, so that a row fits a page, and partitions need no second table each.
_PLAIN = "ALTER TABLE assignments " + ", ".join(
    f"ALTER COLUMN {name} SET STORAGE PLAIN" for name in ("network", "subscriber", "session")
)
event.listen(assignments, "after_create", DDL(_PLAIN).execute_if(dialect="postgresql"))  # type: ignore[no-untyped-call]

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
    *(table.c[name] for table in (assignments, current) for name in PERSONAL),
    holds.c.address,
)
"""Columns that no query looks for rows by alone; of those that are, the server's planner needs statistics."""


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
            # A statement prepared for all values would be planned for, and lock, all partitions.
            event.listen(engine, "connect", _prepare_nothing)
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


def _prepare_nothing(connection: Any, _: object) -> None:
    connection.prepare_threshold = None


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


def _to_4(connection: Connection) -> None:
    """Upgrade to version 4: in PostgreSQL what has ended is in partitions, of the same owner and for the same
    roles."""
    if connection.dialect.name != "postgresql":
        return
    # Before anything is locked for long.
    if why := lacking_locks(connection, _old_partitions(connection, "assignments")):
        raise StoreError(f"its assignments are not brought to version 4: {why}")
    size, owner = connection.execute(
        text(
            "SELECT pg_relation_size(oid), quote_ident(pg_get_userbyid(relowner)) FROM pg_class"
            " WHERE oid = 'assignments'::regclass"
        )
    ).one()
    if size > _LARGE:
        logger.warning(
            "assignments: %d MB are copied into partitions, which takes minutes; until then nobody "
            "reads or writes them",
            size // 1_000_000,
        )
    connection.execute(text(f"SET LOCAL ROLE {owner}"))
    columns = (
        'cell, place, digest, network, first_port, last_port, start, "end", ending, subscriber, session,'
        " source"
    )
    for statement in (
        "ALTER TABLE assignments RENAME TO assignments_before",
        "ALTER INDEX assignments_pkey RENAME TO assignments_before_pkey",
        "CREATE TABLE assignments (cell BIGINT NOT NULL, place BIGINT NOT NULL, digest BIGINT NOT NULL,"
        " network TEXT NOT NULL, first_port INTEGER NOT NULL, last_port INTEGER NOT NULL,"
        ' start BIGINT NOT NULL, "end" BIGINT NOT NULL, ending SMALLINT NOT NULL, subscriber TEXT NOT NULL,'
        " session TEXT NOT NULL, source INTEGER NOT NULL, PRIMARY KEY (cell, place, digest))"
        " PARTITION BY RANGE (cell)",
        _PLAIN,
    ):
        connection.execute(text(statement))
    keep_no_samples(connection, *(assignments.c[name] for name in PERSONAL))
    granted = connection.execute(
        text(
            "SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END FROM pg_class, aclexplode(relacl)"
            " WHERE oid = 'assignments_before'::regclass AND grantee <> relowner"
        )
    ).all()
    for privilege, role in granted:
        connection.execute(text(f"GRANT {privilege} ON assignments TO {role}"))
    make_partitions(connection, _old_partitions(connection, "assignments_before"))
    connection.execute(
        text(f"INSERT INTO assignments ({columns}) SELECT {columns} FROM assignments_before")  # noqa: S608
    )
    connection.execute(text("DROP TABLE assignments_before"))
    connection.execute(text("RESET ROLE"))
    # What was deleted of it went with its files. What waits is noted for each table from now on.
    if deletions(connection, PART) is not None:
        for name in TABLES[1:]:
            note_deleted(connection, name)
    connection.execute(delete(unwiped).where(unwiped.c.part == PART))


def _old_partitions(connection: Connection, table: str) -> set[Stretch]:
    """Partitions for all rows from before there were any, found by a look at each cell alone."""
    return partitions_of(
        connection.scalars(
            text(
                f"WITH RECURSIVE cells AS (SELECT min(cell) AS cell FROM {table}"  # noqa: S608 - our own
                f" UNION ALL SELECT (SELECT min(b.cell) FROM {table} b WHERE b.cell > cells.cell)"
                " FROM cells WHERE cells.cell IS NOT NULL)"
                " SELECT cell FROM cells WHERE cell IS NOT NULL"
            )
        )
    )


UPGRADES: tuple[Step, ...] = (_to_2, _to_3, _to_4)
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
