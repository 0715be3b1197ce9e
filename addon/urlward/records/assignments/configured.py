"""Assignments where the configuration has them, and how long they are kept there."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Table, func, select

from urlward.config.records import RecordsTable
from urlward.records.assignments.interval import AssignmentError
from urlward.records.assignments.retention import has_ended_before, oldest_assignment, purge_assignments
from urlward.records.assignments.schema import FILE, assignments, current
from urlward.records.assignments.store import AssignmentStore
from urlward.records.engines import url_of
from urlward.records.store import StoreError

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is of assignments.

    Attributes:
        place: file or server and database, for people.
        count: of intervals.
        oldest: when the first began, ms since 1970-01-01 UTC.
        over: whether some ended longer ago than they may be kept, and an hour more.
    """

    place: str
    count: int
    oldest: int
    over: bool


def database_of(records: RecordsTable | None, state: Path) -> Path | str:
    """The file or URL of the assignments: as configured, or else a file in the state folder.

    Raises:
        AssignmentError: the URL cannot be had.
    """
    table = records.assignments if records is not None else None
    if table is None:
        return state / FILE
    if table.kind == "sqlite":
        return state / (table.path or FILE)
    try:
        return url_of(table)[0]
    except StoreError as e:
        raise AssignmentError(f"records.assignments: {e}") from e


def open_configured(records: RecordsTable, state: Path) -> AssignmentStore | None:
    """The store; None where there is none yet.

    Raises:
        AssignmentError: it cannot be opened.
    """
    database = database_of(records, state)
    if isinstance(database, Path) and not database.exists():
        return None
    return AssignmentStore(database)


def purge_configured(records: RecordsTable, state: Path, now: float, *, ahead: float = 0.0) -> int:
    """Delete what is over by the configuration's days.

    Args:
        records: the configuration.
        state: the state folder.
        now: seconds since 1970-01-01 UTC.
        ahead: what is over within so many seconds is deleted too.

    Returns:
        How many were deleted.

    Raises:
        AssignmentError: the database refuses.
    """
    days = records.days.assignments
    if days is None or (store := open_configured(records, state)) is None:
        return 0
    try:
        return purge_assignments(store, round((now + ahead) * 1000) - days * _DAY_MS)
    finally:
        store.close()


def kept_assignments(records: RecordsTable, state: Path, now: float) -> Kept | None:
    """What there is now; None for nothing. As `purge_configured`."""
    if (store := open_configured(records, state)) is None:
        return None
    try:
        oldest = oldest_assignment(store)
        if oldest is None:
            return None
        days = records.days.assignments
        # A purge that is under way may take a while.
        end = None if days is None else round(now * 1000) - days * _DAY_MS - _HOUR_MS
        over = end is not None and has_ended_before(store, end)
        count = _count(store, assignments) + _count(store, current)
    finally:
        store.close()
    url = store.engine.url
    place = (
        str(store.database)
        if isinstance(store.database, Path)
        else f"postgresql {url.host or ''}/{url.database}"
    )
    return Kept(place, count, oldest, over)


def _count(store: AssignmentStore, table: Table) -> int:
    with store.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0
