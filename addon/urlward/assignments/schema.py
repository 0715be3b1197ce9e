"""Schema of the assignments' database, for SQLite and PostgreSQL alike, opening it, and PostgreSQL's
partitions.

What has ended is in ``assignments``, which is only added to. What a source may still say more of is in
``assignments_current``: one row for each source, place and *lane* (a stretch of its logs that is read in
order, `urlward.assignments.merging`), and one for whatever was said out of that order. How one bears on
another is worked out when it is asked for (`urlward.assignments.resolving`).

Finding an interval by a time in it: intervals are in classes by how long they last, of at most `SPANS[k]`
ms, and by the span of time their start is in. One that is in force at a time began in that time's span or
in the one before, so that two *cells* a class are looked at, whatever the history's length; new rows, which
come about in order of time, all go to few places of the index.

In PostgreSQL ``assignments`` is partitioned by cell. A partition has, of one class, the cells of a day of
beginnings, or one cell where that is longer: whatever is in it has ended a known time later, so that what is
over is deleted by dropping partitions, at once and wholly. One is made when first written to, apart from the
table and then attached, which locks out neither readers nor writers. It belongs to the table's owner,
whichever of its members makes it, so that all of them can drop and rewrite it.
"""

import logging
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    ColumnElement,
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
from sqlalchemy.exc import DBAPIError

from urlward.assignments.interval import FOREVER, AssignmentError
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
from urlward.units import DAY_MS

logger = logging.getLogger("urlward.assignments")

SPANS: tuple[int, ...] = tuple(60_000 * 4**k for k in range(14))
"""From a minute to 127 years, in ms."""

TABLE = "assignments"
PERSONAL = ("network", "subscriber")
"""Columns of it that no query looks for rows by alone: the server's planner needs no statistics of them."""

PARTITIONS_AT_ONCE = 32
"""Made or dropped in one transaction: each takes several of the server's locks."""

MOST_PARTITIONS = 10_000
"""Made by imports, some four years' in all classes: the server's planner and each of its connections know of
all. Times over decades are of a clock or a column that is wrong."""

LOCKS = 6
"""The server's locks that making one takes until the transaction ends; a few for all come on top."""

_SHIFT = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(rf"{TABLE}_(\d\d?)_(\d{{8}})")

_LOCK = 0x75726C77617265
"""PostgreSQL's number of the lock by which one program at a time makes partitions."""
_LOCK_WITHIN = "2s"
_TRIES = 30
_PAUSE = 0.5
GONE = ("23514", "40P01")
"""PostgreSQL's codes of a row without a partition (and of a deadlock with who was about to drop it)."""
_BUSY = ("55P03", "40P01")
"""Likewise of a lock that was not had in time."""


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Stretch of cells of one class: those of a partition, or in SQLite all.

    Attributes:
        span: the class.
        first: number of the first cell in its class.
        stop: number of the first cell after it.
    """

    span: int
    first: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the partition: its class, and the day of its first beginning (UTC)."""
        begin = _EPOCH + timedelta(milliseconds=self.first * SPANS[self.span])
        return f"{TABLE}_{self.span}_{begin:%Y%m%d}"

    @property
    def cells(self) -> range:
        """Its cells."""
        return range(self.span << _SHIFT | self.first, (self.span << _SHIFT) + self.stop)

    @property
    def earliest_end(self) -> int:
        """Time before which nothing in it has ended, in ms."""
        return self.first * SPANS[self.span] + (SPANS[self.span - 1] if self.span else 0)

    def has_ended_before(self, limit: int) -> bool:
        """Whether everything that can be in it has ended before a time, in ms."""
        # What lasts longer than the last class says is in that too.
        return self.span < len(SPANS) - 1 and (self.stop + 1) * SPANS[self.span] <= limit

    def has(self, cell: "Column[int]") -> ColumnElement[bool]:
        """Condition on a column."""
        return cell.between(self.cells[0], self.cells[-1])


def cell_of(start: int, end: int) -> int:
    """Index cell of an interval with both ends."""
    span: int = min(bisect_left(SPANS, end - start), len(SPANS) - 1)
    return span << _SHIFT | start // SPANS[span]


def cells_at(since: int, until: int) -> list[range]:
    """Index cells of the intervals that may be in force at some time from one to another, both included."""
    return [
        range(span << _SHIFT | max(0, since - size) // size, (span << _SHIFT | until // size) + 1)
        for span, size in enumerate(SPANS)
    ]


def cells_from(since: int, until: int, longest: int) -> list[range]:
    """Index cells of the intervals that began at some time from one to another, and lasted no longer than so
    many ms."""
    return [
        range(span << _SHIFT | max(0, since) // size, (span << _SHIFT | until // size) + 1)
        for span, size in enumerate(SPANS[: min(bisect_left(SPANS, longest), len(SPANS) - 1) + 1])
    ]


def partition_of(cell: int) -> Stretch:
    """The partition that has a cell."""
    span, number = cell >> _SHIFT, cell & (1 << _SHIFT) - 1
    first = number - number % _cells_of(span)
    return Stretch(span, first, first + _cells_of(span))


def partitions_of(cells: Iterable[int]) -> set[Stretch]:
    """The partitions that have some cells."""
    return {partition_of(cell) for cell in set(cells)}


def _cells_of(span: int) -> int:
    """Number of cells in a partition of a class: no less than a day, so that no two have one name."""
    return max(1, -(-DAY_MS // SPANS[span]))


def _named(name: str) -> Stretch | None:
    """The partition of a name; None where it is none that `Stretch.name` gives."""
    if (found := _NAME.fullmatch(name)) is None or int(found[1]) >= len(SPANS):
        return None
    span, count = int(found[1]), _cells_of(int(found[1]))
    day = datetime.strptime(found[2], "%Y%m%d").replace(tzinfo=UTC)
    # The one that begins in the day.
    first = -(-((day - _EPOCH) // timedelta(milliseconds=1)) // (SPANS[span] * count)) * count
    stretch = Stretch(span, first, first + count)
    return stretch if stretch.name == name else None


def stretches(connection: Connection) -> list[Stretch]:
    """Stretches that the table's rows are in, in order: its partitions, and in SQLite its classes."""
    if connection.dialect.name == "sqlite":
        return [Stretch(span, 0, 1 << _SHIFT) for span in range(len(SPANS))]
    names = connection.scalars(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass(:table)"
        ),
        {"table": TABLE},
    )
    return sorted(stretch for name in names if (stretch := _named(name)))


def make_partitions(connection: Connection, wanted: Iterable[Stretch]) -> None:
    """Make those partitions that are not there yet."""
    schema, owner, mine = connection.execute(
        text(
            "SELECT quote_ident(n.nspname), quote_ident(pg_get_userbyid(c.relowner)),"
            " pg_get_userbyid(c.relowner) = current_user"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:table)"
        ),
        {"table": TABLE},
    ).one()
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    new = sorted(set(wanted).difference(stretches(connection)))
    if new and not mine:
        connection.execute(text(f"SET LOCAL ROLE {owner}"))
    for stretch in new:
        name, cells = f"{schema}.{stretch.name}", stretch.cells
        few = ", ".join(f"ALTER COLUMN {column} SET STATISTICS 0" for column in PERSONAL)
        for statement in (
            f"CREATE TABLE {name} (LIKE {schema}.{TABLE} INCLUDING INDEXES INCLUDING STORAGE)",
            f"ALTER TABLE {name} {few}",
            f"ALTER TABLE {schema}.{TABLE} ATTACH PARTITION {name}"
            f" FOR VALUES FROM ({cells.start}) TO ({cells.stop})",
        ):
            connection.execute(text(statement))
    if new and not mine:
        connection.execute(text("RESET ROLE"))


def lacking_locks(connection: Connection, wanted: Iterable[Stretch]) -> str:
    """Why partitions cannot be made in one transaction, for want of locks; empty where they can.

    A server has room for ``max_locks_per_transaction`` of each connection that it allows, together.
    """
    count = len({*wanted})
    each, connections = (
        int(connection.execute(text(f"SHOW {name}")).scalar_one())
        for name in ("max_locks_per_transaction", "max_connections")
    )
    needed = -(-count * LOCKS // connections)
    if needed <= each:
        return ""
    return (
        f"{count} partitions are made at once, for which PostgreSQL has too few locks: set "
        f"max_locks_per_transaction = {needed} there, restart it, and open them again; afterwards {each} do"
    )


def missing_owner(connection: Connection) -> str:
    """Statement of SQL that grants the connection's role what it needs to make and drop partitions; empty for
    nothing."""
    if connection.dialect.name == "sqlite":
        return ""
    found = connection.execute(
        text(
            "SELECT pg_has_role(relowner, 'USAGE'), quote_ident(pg_get_userbyid(relowner)),"
            " quote_ident(current_user) FROM pg_class WHERE oid = to_regclass(:table)"
        ),
        {"table": TABLE},
    ).one()
    return "" if found[0] else f"GRANT {found[1]} TO {found[2]}"


def check_owner(connection: Connection) -> None:
    """Refuse a role that may make no partitions.

    Raises:
        StoreError: it is one.
    """
    if grant := missing_owner(connection):
        raise StoreError(f"its role may not make and drop partitions of {TABLE}: {grant}")


class PartitionInUse(Exception):
    """Others are at work on a partition, or have dropped it: the transaction is to begin again."""


@contextmanager
def meeting_others(codes: tuple[str, ...]) -> Iterator[None]:
    """Context of statements on partitions.

    Args:
        codes: SQLSTATEs by which PostgreSQL says that others are in the way.

    Raises:
        PartitionInUse: it has said so.
    """
    try:
        yield
    except DBAPIError as e:
        if getattr(e.orig, "sqlstate", "") not in codes:
            raise
        raise PartitionInUse from e


def locking[T](
    transaction: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], T]
) -> T:
    """Do something to partitions in a transaction, as often as others are in its way: whoever waits behind
    its locks waits no longer than `_LOCK_WITHIN`.

    Args:
        transaction: begins one.
        work: what is done.

    Raises:
        StoreError: others are in the way all the time.
    """
    for left in reversed(range(_TRIES)):
        try:
            with transaction() as connection, meeting_others(_BUSY):
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WITHIN}'"))
                return work(connection)
        except PartitionInUse:
            if left:
                time.sleep(_PAUSE)
    raise StoreError(f"somebody uses {TABLE} all the time")


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
    Column("late", Integer, nullable=False),
    Column("unsaid", Integer, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (cell)",
)
"""``late``: seconds from the start until it was first said; less than 0 where it was not so before, and
more than until its end where that alone was said. ``unsaid``: of what another's beginning has ended, seconds
from when it was last said until then; 0 where that is not known."""

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
    Column("lane", BigInteger, primary_key=True, autoincrement=False),
    Column("late", Integer, nullable=False),
    Index("assignments_current_session", "source", "session"),
    sqlite_with_rowid=False,
)
"""``lane``: that the row is of; less than 0 for what was said out of order. ``late``: as of `assignments`.
``file``: of `files`, that has the row, or 0. ``read``: when the source was last seen to have it, in ms,
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
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("format", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("node", Text, nullable=False),
    Column("days", Integer, nullable=False),
    Column("purged", BigInteger, nullable=False),
)
"""``path``: of the file that something was taken from last. ``read``: up to when it is read, in ms. ``node``:
that reads it (`urlward.records.store`), in a database that several share, and ``days``: that this node keeps
it for; empty and 0 where none has said so. ``purged``: before which what had ended is deleted, in ms, or
0."""

files = Table(
    "assignment_files",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("source", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("begin", Text, nullable=False),
    Column("begin_size", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("before", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("ended", Integer, nullable=False),
    Column("lane", Integer, nullable=False),
    UniqueConstraint("source", "begin", "begin_size"),
    Index("assignment_files_lane", "source", "lane", "last"),
)
"""How far files are read: known by digests of their first bytes and of those before the offset. ``read``:
when one was last found to have all that was read of it, in ms. Of logs: ``first`` and ``last``, from when to
when it tells, in ms or 0; ``ended``: 1 where it was read to its end after another had its path; ``lane``: in
which it is read. Of radacct: ``last``, the greatest number of a row that was read."""

gaps = Table(
    "assignment_gaps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Integer, nullable=False),
    Column("file", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""Spans of time, in ms, of which a source's log at a path is not read, as it was rotated before. ``file``: of
`files`, whose rest that is, or 0."""

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
    Column("purged", BigInteger, nullable=False),
)
"""Whoever had an address (and a port of it, or 0 for any) about a time stays until another time: for the
event of a reference. Every node that writes here goes by it. ``purged``: before which what had ended was
deleted when it was first held, in ms, or 0."""


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


def _add_columns(connection: Connection, *columns: tuple[str, str]) -> None:
    """Add columns, each a table, and a name with its type; in rows that are there they are empty, or 0."""
    for table, column in columns:
        default = "''" if column.endswith("TEXT") else "0"
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} NOT NULL DEFAULT {default}"))
        if connection.dialect.name == "postgresql":
            name = column.partition(" ")[0]
            connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"))


def _to_3(connection: Connection) -> None:
    """Upgrade to version 3: open intervals count from when last seen, sources belong to nodes, and the server
    keeps no samples of subscribers.

    Which file has a row is not known of those that are there: the one that its source was read from last.
    """
    _add_columns(
        connection,
        ("assignments_current", "file INTEGER"),
        ("assignments_current", "read BIGINT"),
        ("assignment_files", "read BIGINT"),
        ("assignment_sources", "node TEXT"),
        ("assignment_sources", "days INTEGER"),
    )
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
    _grant_as(connection, "assignments_before", "assignments")
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


def _grant_as(connection: Connection, before: str, table: str) -> None:
    """Grant what roles may do with one table on another, in PostgreSQL."""
    granted = connection.execute(
        text(
            "SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END FROM pg_class, aclexplode(relacl)"
            " WHERE oid = to_regclass(:before) AND grantee <> relowner"
        ),
        {"before": before},
    ).all()
    for privilege, role in granted:
        connection.execute(text(f"GRANT {privilege} ON {table} TO {role}"))


def _to_5(connection: Connection) -> None:
    """Upgrade to version 5: what is not read of logs that were rotated, from when to when files tell, and
    before when what had ended is deleted."""
    _add_columns(
        connection,
        ("assignment_files", "first BIGINT"),
        ("assignment_files", "last BIGINT"),
        ("assignment_files", "ended INTEGER"),
        ("assignment_sources", "purged BIGINT"),
    )
    # What was rotated long ago is not looked for: of each path the log that was read last alone.
    connection.execute(
        text(
            "UPDATE assignment_files SET ended = 1 WHERE EXISTS (SELECT 1 FROM assignment_files f"
            " WHERE f.source = assignment_files.source AND f.path = assignment_files.path"
            " AND f.read > assignment_files.read)"
        )
    )
    if connection.dialect.name != "postgresql":
        gaps.create(connection)
        return
    owner = connection.scalar(
        text("SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass(:table)"),
        {"table": files.name},
    )
    connection.execute(text(f"SET LOCAL ROLE {owner}"))
    gaps.create(connection)
    _grant_as(connection, files.name, gaps.name)
    connection.execute(text("RESET ROLE"))


_CURRENT = (
    "CREATE TABLE assignments_current (place BIGINT NOT NULL, first_port INTEGER NOT NULL,"
    " source INTEGER NOT NULL, network TEXT NOT NULL, last_port INTEGER NOT NULL, start BIGINT NOT NULL,"
    ' "end" BIGINT NOT NULL, seen BIGINT NOT NULL, ending SMALLINT NOT NULL, subscriber TEXT NOT NULL,'
    " session TEXT NOT NULL, file INTEGER NOT NULL, read BIGINT NOT NULL, lane BIGINT NOT NULL,"
    " late INTEGER NOT NULL, PRIMARY KEY (place, first_port, source, lane)) WITHOUT ROWID"
)


def _to_6(connection: Connection) -> None:
    """Upgrade to version 6: when things were said, and in which lane of their source's logs. An end without a
    beginning, which may have been in what was not read of a log, is beside what has no end."""
    _add_columns(
        connection,
        ("assignments", "late INTEGER"),
        ("assignments", "unsaid INTEGER"),
        ("assignment_files", "lane INTEGER"),
    )
    if connection.dialect.name == "postgresql":
        _add_columns(
            connection, ("assignments_current", "lane BIGINT"), ("assignments_current", "late INTEGER")
        )
        statements: tuple[str, ...] = (
            "ALTER TABLE assignments_current DROP CONSTRAINT assignments_current_pkey,"
            " ADD PRIMARY KEY (place, first_port, source, lane)",
        )
    else:
        statements = (
            "DROP INDEX assignments_current_session",
            "ALTER TABLE assignments_current RENAME TO assignments_before",
            _CURRENT,
            "INSERT INTO assignments_current SELECT place, first_port, source, network, last_port, start,"
            ' "end", seen, ending, subscriber, session, file, read, 0, 0 FROM assignments_before',
            "DROP TABLE assignments_before",
            "CREATE INDEX assignments_current_session ON assignments_current (source, session)",
        )
    ends = (
        "FROM assignments WHERE ending = 12 AND source IN"
        " (SELECT id FROM assignment_sources WHERE format IN ('cgn', 'detail', 'ports'))"
    )
    for statement in (
        *statements,
        "INSERT INTO assignments_current SELECT place, first_port, source, network, last_port, 0,"
        f' "end", "end", 17, subscriber, session, 0, 0, -1 - abs(digest / 2), 0 {ends}',
        f"DELETE {ends}",
    ):
        connection.execute(text(statement))


def _to_7(connection: Connection) -> None:
    """Upgrade to version 7: what was deleted before something was held; and an index of up to when lanes
    tell."""
    _add_columns(connection, ("assignment_holds", "purged BIGINT"))
    connection.execute(text("CREATE INDEX assignment_files_lane ON assignment_files (source, lane, last)"))


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


UPGRADES: tuple[Step, ...] = (_to_2, _to_3, _to_4, _to_5, _to_6, _to_7)
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
