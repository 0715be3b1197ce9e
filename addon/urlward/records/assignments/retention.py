"""Ending assignments' time: deleted so that the database's files do not have them any more."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, case, delete, func, or_, select

from urlward.records.assignments.holding import Found, held_rows
from urlward.records.assignments.interval import FOREVER, AssignmentError
from urlward.records.assignments.schema import PART, SPANS, TABLES, assignments, current, holds, told
from urlward.records.assignments.store import AssignmentStore
from urlward.records.bulk import insert_new
from urlward.records.vacuum import Pace, deletions, note_deleted, note_wiped, vacuum

_paces: dict[str, Pace] = {}
"""By database: each purge opens its own store, and all of a process go by one."""


def purge_assignments(store: AssignmentStore, before: int, now: int = 0) -> int:
    """Delete what ended before a time; and what has no end, but was last heard of before it.

    SQLite overwrites what is deleted (secure_delete), and its log is emptied. PostgreSQL writes the tables
    anew, for which it locks them a while. Copies elsewhere, such as its archived logs, are not reached.

    Args:
        store: where.
        before: in ms since 1970-01-01 UTC.
        now: likewise; what is held until after it stays (`urlward.records.assignments.holding`).

    Returns:
        How many were deleted.

    Raises:
        AssignmentError: the database refuses, or what was deleted is in its log or files still.
    """
    deleted = 0
    with store.changing() as connection:
        ended = connection.execute(delete(holds).where(holds.c.until <= now)).rowcount
        held = _held_and_over(connection, before, now)
        for table, over in _ended(before):
            deleted += connection.execute(delete(table).where(over)).rowcount
        # What is held is still there, so that nothing is lost by a second copy in the files.
        if deleted + ended > len(held) and connection.dialect.name == "postgresql":
            note_deleted(connection, PART)
        for table, row in held:
            insert_new(connection, table, [tuple(row)])
        deleted -= len(held)
    _forget(store)
    return deleted


def has_ended_before(store: AssignmentStore, before: int, now: int = 0) -> bool:
    """Whether there is something for `purge_assignments` to delete.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        left = len(_held_and_over(connection, before, now)) + 1
        for table, over in _ended(before):
            left -= len(connection.execute(select(table.c.start).where(over).limit(left)).all())
            if left <= 0:
                return True
    return False


def _held_and_over(connection: Connection, before: int, now: int) -> list[Found]:
    """What is held of that which ended before a time."""

    def is_over(row: Row[Any]) -> bool:
        return row.end < before or (row.end == FOREVER and getattr(row, "seen", before) < before)

    return [(table, row) for table, row in held_rows(connection, now) if is_over(row)]


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


def first_end(store: AssignmentStore) -> int | None:
    """When the first of all assignments ended or will end, in ms; None where there is none. What has no end
    counts from when it was last heard of. Looks at all of them.

    Raises:
        AssignmentError: the database refuses.
    """
    ends = [
        func.min(assignments.c.end),
        func.min(case((current.c.end == FOREVER, current.c.seen), else_=current.c.end)),
    ]
    with store.reading() as connection:
        found = [connection.scalar(select(end)) for end in ends]
    return min((end for end in found if end is not None), default=None)


def _ended(before: int) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """What is over, table by table, in pieces that an index finds."""
    for span, size in enumerate(SPANS):
        first = span << 40
        cells = assignments.c.cell.between(first, first + max(before, 0) // size)
        yield assignments, and_(cells, assignments.c.end < before)
    yield current, or_(current.c.end < before, and_(current.c.end == FOREVER, current.c.seen < before))


def _forget(store: AssignmentStore) -> None:
    if isinstance(store.database, Path):
        with store.reading() as connection:
            outside = connection.execution_options(isolation_level="AUTOCOMMIT")
            # Always, since the log may have been in use the last time.
            if outside.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
                raise AssignmentError(
                    f"{store.database}-wal: is being read, and still has what was deleted: purge again"
                )
        return
    with store.reading() as connection:
        count = deletions(connection, PART)
    if count:
        pace = _paces.setdefault(str(store.engine.url), Pace())
        rewrite = pace.is_due()
        with told(store.database), pace.rewriting() if rewrite else nullcontext():
            vacuum(store.engine, TABLES, time.sleep, rewrite=rewrite)
        if not rewrite:
            return
        with store.changing() as connection:
            note_wiped(connection, PART, count)
