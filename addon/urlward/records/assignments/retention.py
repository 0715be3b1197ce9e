"""Ending assignments' time: deleted so that the database's files do not have them any more."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Table, and_, delete, func, or_, select

from urlward.records.assignments.interval import FOREVER, AssignmentError
from urlward.records.assignments.schema import SPANS, assignments, current
from urlward.records.assignments.store import AssignmentStore


def purge_assignments(store: AssignmentStore, before: int) -> int:
    """Delete what ended before a time; and what has no end, but was last heard of before it.

    SQLite overwrites what is deleted (secure_delete), and its log is emptied. PostgreSQL writes the tables
    anew, for which it locks them a while. Copies elsewhere, such as its archived logs, are not reached.

    Args:
        store: where.
        before: in ms since 1970-01-01 UTC.

    Returns:
        How many were deleted.

    Raises:
        AssignmentError: the database refuses, or its log is in use; what was deleted is in the log then.
    """
    deleted = 0
    with store.changing() as connection:
        for table, over in _ended(before):
            deleted += connection.execute(delete(table).where(over)).rowcount
    _forget(store, tables=deleted > 0)
    return deleted


def has_ended_before(store: AssignmentStore, before: int) -> bool:
    """Whether there is something for `purge_assignments` to delete.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        return any(
            connection.scalar(select(table.c.start).where(over).limit(1)) is not None
            for table, over in _ended(before)
        )


def oldest_assignment(store: AssignmentStore) -> int | None:
    """The earliest beginning of an assignment, in ms; None where there is none.

    Raises:
        AssignmentError: the database refuses.
    """
    starts = [
        select(func.min(assignments.c.start)).where(
            assignments.c.cell
            == select(func.min(assignments.c.cell))
            .where(assignments.c.cell.between(span << 40, (span + 1 << 40) - 1))
            .scalar_subquery()
        )
        for span in range(len(SPANS))
    ]
    with store.reading() as connection:
        found = [connection.scalar(start) for start in [*starts, select(func.min(current.c.start))]]
    return min((start for start in found if start is not None), default=None)


def _ended(before: int) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """What is over, table by table, in pieces that an index finds."""
    for span, size in enumerate(SPANS):
        first = span << 40
        cells = assignments.c.cell.between(first, first + max(before, 0) // size)
        yield assignments, and_(cells, assignments.c.end < before)
    yield current, or_(current.c.end < before, and_(current.c.end == FOREVER, current.c.seen < before))


def _forget(store: AssignmentStore, *, tables: bool) -> None:
    with store.reading() as connection:
        outside = connection.execution_options(isolation_level="AUTOCOMMIT")
        if outside.dialect.name == "sqlite":
            # Always, since the log may have been in use the last time.
            if outside.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
                raise AssignmentError(
                    f"{store.database}-wal: is being read, and still has what was deleted: purge again"
                )
        elif tables:
            outside.exec_driver_sql(f"VACUUM FULL {assignments.name}")
            outside.exec_driver_sql(f"VACUUM FULL {current.name}")
