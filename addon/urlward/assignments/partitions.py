"""Cells of the index of assignments, and the partitions of PostgreSQL that hold them.

Finding an interval by a time in it: intervals are in classes by how long they last, of at most `SPANS[k]`
ms, and by the span of time their start is in. One that is in force at a time began in that time's span or
in the one before, so that two *cells* a class are looked at, whatever the history's length; new rows, which
come about in order of time, all go to few places of the index.

In PostgreSQL the table is partitioned by cell. A partition has, of one class, the cells of a day of
beginnings, or one cell where that is longer: whatever is in it has ended a known time later, so that what is
over is deleted by dropping partitions, at once and wholly. One is made when first written to, apart from the
table and then attached, which locks out neither readers nor writers. It belongs to the table's owner,
whichever of its members makes it, so that all of them can drop and rewrite it.
"""

import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, ColumnElement, Connection, text
from sqlalchemy.exc import DBAPIError

from urlward.records.store import StoreError

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
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(rf"{TABLE}_(\d\d?)_(\d{{8}})")

_LOCK = 0x75726C77617265
"""PostgreSQL's number of the lock by which one program at a time makes partitions."""
_LOCK_WITHIN = "2s"
_TRIES = 30
_PAUSE = 0.5
_GONE = ("23514", "40P01")
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
    return max(1, -(-_DAY_MS // SPANS[span]))


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


class PartitionGone(Exception):
    """A partition that was written to was dropped meanwhile."""


class _Busy(Exception):
    """A lock was not had in time."""


@contextmanager
def writing_partitions() -> Iterator[None]:
    """Context of a write to partitions.

    Raises:
        PartitionGone: one has been dropped; the transaction is to begin again.
    """
    with _instead(PartitionGone, _GONE):
        yield


@contextmanager
def _instead(error: type[Exception], codes: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except DBAPIError as e:
        if getattr(e.orig, "sqlstate", "") not in codes:
            raise
        raise error from e


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
            with transaction() as connection, _instead(_Busy, _BUSY):
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WITHIN}'"))
                return work(connection)
        except _Busy:
            if left:
                time.sleep(_PAUSE)
    raise StoreError(f"somebody uses {TABLE} all the time")
