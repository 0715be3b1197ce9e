"""Retention of assignments: deleted so that the database's files no longer contain them, but for those on
hold, which are needed to answer for a held event and are kept as long as the event.

What `urlward who` answers of the event rests on whoever had its client's address about its time, and behind a
translator on whoever had the inner one. The questions are kept, and not the answers: what is read later, and
answers too, stays as well.

The functions named ``…_configured`` do it in the database that the configuration names.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    case,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
)

from urlward.assignments.deterministic import computed_in
from urlward.assignments.interval import FOREVER, MOST_APART, AssignmentError, Ending, is_address
from urlward.assignments.schema import FILE, PART, SPANS, TABLES, assignments, current, files, holds, told
from urlward.assignments.store import AssignmentStore, KeepingNode, rows_in_force
from urlward.config.records import RecordsTable
from urlward.records.holds import Evidence, current_holds, evidence_of
from urlward.records.retention import KeepingStores, held_by_all
from urlward.records.sql import (
    Pace,
    deletions,
    insert_new,
    note_deleted,
    note_wiped,
    url_of,
    vacuum,
    wipe_sqlite,
)
from urlward.records.store import StoreError, node_of

type Client = tuple[str, int, int]
"""Address, source port (0 where it is not known), and time in ms."""

type Found = tuple[Table, Row[tuple[object, ...]]]

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


def hold_assignments(store: AssignmentStore, reference: str, until: int, clients: Iterable[Client]) -> None:
    """Hold the assignments of some clients' addresses about their times, replacing the reference's earlier
    ones.

    Args:
        store: where.
        reference: of the event.
        until: in ms since 1970-01-01 UTC.
        clients: of the event; those without a whole address are passed over.

    Raises:
        AssignmentError: the database refuses.
    """
    named = {client for client in clients if is_address(client[0])}
    with store.changing() as connection:
        connection.execute(delete(holds).where(holds.c.reference == reference))
        if named:
            connection.execute(
                insert(holds),
                [
                    {"reference": reference, "address": address, "port": port, "at": at, "until": until}
                    for address, port, at in sorted(named)
                ],
            )


def release_assignments(store: AssignmentStore, reference: str) -> None:
    """Release the assignments held for a reference.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.changing() as connection:
        connection.execute(delete(holds).where(holds.c.reference == reference))


def is_held(store: AssignmentStore, reference: str) -> bool:
    """Whether anything is kept for a reference.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        return (
            connection.scalar(select(holds.c.at).where(holds.c.reference == reference).limit(1)) is not None
        )


def held_counts(store: AssignmentStore, now: int) -> dict[str, int]:
    """Number of held rows at a time, by reference.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        references = connection.scalars(select(holds.c.reference).where(holds.c.until > now).distinct()).all()
        return {reference: len(held_rows(connection, now, reference)) for reference in sorted(references)}


def held_rows(connection: Connection, now: int, reference: str | None = None) -> list[Found]:
    """Held rows at a time, with their tables, each once.

    Args:
        connection: to the database.
        now: in ms since 1970-01-01 UTC.
        reference: for which; for any where it is not given.
    """
    wanted = select(holds.c.address, holds.c.port, holds.c.at).where(holds.c.until > now).distinct()
    if reference is not None:
        wanted = wanted.where(holds.c.reference == reference)
    found: dict[tuple[object, ...], Found] = {}
    for address, port, at in connection.execute(wanted).all():
        since, until = at - MOST_APART, at + MOST_APART
        rows = rows_in_force(connection, address, port or None, since, until)
        inner = [row.subscriber for _, row in rows if is_address(row.subscriber)]
        inner += [one[2] for one in computed_in(connection, address, port or None, since, until)]
        for name in dict.fromkeys(inner):
            rows += rows_in_force(connection, name, None, since, until)
        found |= {(table.name, *row): (table, row) for table, row in rows}
    return [*found.values()]


_READ = func.coalesce(
    select(files.c.read).where(files.c.id == current.c.file).correlate(current).scalar_subquery(),
    current.c.read,
)
_LAST_SEEN = case(
    # What has been given back is in its source as that.
    (and_(current.c.ending != int(Ending.RELEASED), current.c.seen < _READ), _READ),
    else_=current.c.seen,
)
"""When something without an end was last said by its source, or found where its source has it."""

_paces: dict[str, Pace] = {}
"""By database: each purge opens its own store, and all of a process go by one."""


type Before = int | Mapping[int, int]
"""A time in ms since 1970-01-01 UTC, or that of each source by its id."""


def purge_assignments(store: AssignmentStore, before: Before, now: int = 0) -> int:
    """Delete what ended before a time; and what has no end, but was last seen before it: said by its source,
    or found where its source had it.

    SQLite overwrites what is deleted (secure_delete), and its log is emptied; since copies of some remain
    where it moved them, the file is written anew. PostgreSQL writes the tables anew. Both lock them a while.
    Copies elsewhere, such as its archived logs, are not reached.

    Args:
        store: where.
        before: what ended before this is over.
        now: in ms since 1970-01-01 UTC; what is held until after it stays.

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
        if deleted + ended > len(held):
            note_deleted(connection, PART)
        for table, row in held:
            insert_new(connection, table, [tuple(row)])
        deleted -= len(held)
    _forget(store)
    return deleted


def has_ended_before(store: AssignmentStore, before: Before, now: int = 0) -> bool:
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


def _held_and_over(connection: Connection, before: Before, now: int) -> list[Found]:
    """Held rows among those that ended before a time."""
    held = held_rows(connection, now)
    key = (current.c.place, current.c.first_port, current.c.source)
    keys = [(row.place, row.first_port, row.source) for table, row in held if table is current]
    over = or_(false(), *(one for table, one in _ended(before) if table is current))
    ended = {tuple(row) for row in connection.execute(select(*key).where(tuple_(*key).in_(keys), over))}

    def is_over(table: Table, row: Row[Any]) -> bool:
        if table is current:
            return (row.place, row.first_port, row.source) in ended
        limit: int = before if isinstance(before, int) else before.get(row.source, 0)
        return bool(row.end < limit)

    return [(table, row) for table, row in held if is_over(table, row)]


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


def first_ends(store: AssignmentStore) -> dict[int, int]:
    """Time when the first assignment of each source ended or will end, in ms. What has no end counts from
    when it was last seen. Looks at all of them.

    Raises:
        AssignmentError: the database refuses.
    """
    ends = {
        assignments: assignments.c.end,
        current: case((current.c.end == FOREVER, _LAST_SEEN), else_=current.c.end),
    }
    found: dict[int, int] = {}
    with store.reading() as connection:
        for table, end in ends.items():
            wanted = select(table.c.source, func.min(end)).group_by(table.c.source)
            for source, first in connection.execute(wanted):
                found[source] = min(first, found.get(source, first))
    return found


def _ended(before: Before) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Conditions for expired rows, table by table, in pieces that an index finds."""
    for limit, some in _limits(before):
        for span, size in enumerate(SPANS):
            first = span << 40
            cells = assignments.c.cell.between(first, first + max(limit, 0) // size)
            yield assignments, and_(cells, assignments.c.end < limit, *_of(assignments, some))
        yield current, and_(_over(limit), *_of(current, some))


def _limits(before: Before) -> list[tuple[int, list[int] | None]]:
    """Time limits, each with the sources that it applies to; None for all.

    Where there are limits of sources, one that another node has begun since they were read has none yet.
    """
    if isinstance(before, int):
        return [(before, None)]
    return [
        (limit, [source for source, one in before.items() if one == limit])
        for limit in sorted(set(before.values()))
    ]


def _of(table: Table, some: list[int] | None) -> list[ColumnElement[bool]]:
    return [] if some is None else [table.c.source.in_(some)]


def _over(before: int) -> ColumnElement[bool]:
    """Condition on `current`: ended, or last seen, before a time."""
    return or_(current.c.end < before, and_(current.c.end == FOREVER, before > _LAST_SEEN))


def _forget(store: AssignmentStore) -> None:
    """Wipe what has been deleted from the database's files.

    Raises:
        AssignmentError: they have it still.
    """
    pace = _paces.setdefault(str(store.engine.url), Pace())
    with store.reading() as connection:
        count = deletions(connection, PART)
    rewrite = pace.is_due() and count is not None
    with told(store.database), pace.rewriting() if rewrite else nullcontext():
        if isinstance(store.database, Path):
            # Its log is emptied always, since it may have been in use the last time.
            wipe_sqlite(store.engine, time.sleep, rewrite=rewrite)
        elif count is not None:
            vacuum(store.engine, TABLES, time.sleep, rewrite=rewrite)
    if rewrite and count is not None:
        with store.changing() as connection:
            note_wiped(connection, PART, count)


@dataclass(frozen=True, slots=True)
class AssignmentsSummary:
    """Summary of the assignments in the database.

    Attributes:
        place: file or server and database, for people.
        count: of intervals.
        oldest: when the first began, ms since 1970-01-01 UTC.
        purged: when the first of them is deleted, likewise, unless it is held; None for never.
        over: whether some that nobody holds ended longer ago than they may be kept, and an hour more.
        held: how many there are for each reference that is held.
    """

    place: str
    count: int
    oldest: int
    purged: int | None
    over: bool
    held: Mapping[str, int]


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
    """Open the store; None where there is none yet.

    Raises:
        AssignmentError: it cannot be opened.
    """
    database = database_of(records, state)
    if isinstance(database, Path) and not database.exists():
        return None
    return AssignmentStore(database)


def hold_configured(records: RecordsTable, state: Path, held: Mapping[str, int], evidence: Evidence) -> None:
    """Hold the assignments that references need, as far as their events are known, where there is a store.

    Args:
        records: the configuration.
        state: the state folder.
        held: references, with the seconds since 1970-01-01 UTC until which they are held.
        evidence: of them.

    Raises:
        AssignmentError: the database refuses; or it is not known who is to stay, since a store of events
            cannot be read.
    """
    if held and (store := open_configured(records, state)) is not None:
        with store:
            _hold(store, held, evidence)


def release_configured(records: RecordsTable, state: Path, reference: str) -> None:
    """Release the assignments held for a reference.

    Raises:
        AssignmentError: the database refuses.
    """
    if (store := open_configured(records, state)) is not None:
        with store:
            release_assignments(store, reference)


def _hold(store: AssignmentStore, held: Mapping[str, int], evidence: Evidence) -> None:
    for reference, until in held.items():
        if hits := evidence.hits(reference):
            clients = [(hit.client, hit.client_port, hit.time) for hit in hits]
            hold_assignments(store, reference, until * 1000, clients)
        elif evidence.errors and not is_held(store, reference):
            raise AssignmentError(
                f"assignments: none is deleted: {reference} is held, and its event may be in a store that "
                f"cannot be read: {evidence.errors[0]}"
            )


def _all_held(records: RecordsTable, state: Path, now: float) -> tuple[dict[str, int], Evidence]:
    """References that are held by any node that is known here, with their ends, and their evidence."""
    with KeepingStores(records, state, make=False) as stores:
        opened, errors = stores.all()
        try:
            held = held_by_all(records, opened, errors, now)
        except StoreError as e:
            raise AssignmentError(f"assignments: none is deleted: {e}") from e
        for one in current_holds(state, now):
            held[one.reference] = max(held.get(one.reference, 0), one.until)
        return held, evidence_of(held, opened, errors, state)


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
        AssignmentError: the database refuses, or it is not known who is to stay.
        UrlwardError: it is not known what is held.
        StateError: likewise.
    """
    if records.days.assignments is None or (store := open_configured(records, state)) is None:
        return 0
    with store:
        _hold(store, *_all_held(records, state, now))
        keeper = keeper_of(records, state, store)
        assert keeper is not None
        store.say_days(keeper)
        at = round((now + ahead) * 1000)
        limits = {source: at - days * _DAY_MS for source, days in store.days(keeper).items()}
        return purge_assignments(store, limits, round(now * 1000))


def keeper_of(records: RecordsTable, state: Path, store: AssignmentStore) -> KeepingNode | None:
    """This node as it keeps assignments; None where it keeps them for ever.

    Raises:
        StateError: the state folder cannot be used.
    """
    days = records.days.assignments
    shared = not isinstance(store.database, Path)
    return (
        None if days is None else KeepingNode(node_of(records.node, state).identity if shared else "", days)
    )


def first_purge(store: AssignmentStore, days: Mapping[int, int]) -> int | None:
    """Time when the first assignment is deleted, in ms; None for never.

    Raises:
        AssignmentError: the database refuses.
    """
    ends = first_ends(store) if days else {}
    return min((end + days[source] * _DAY_MS for source, end in ends.items() if source in days), default=None)


def kept_assignments(records: RecordsTable, state: Path, now: float) -> AssignmentsSummary | None:
    """Summarise the assignments now; None for no database. As `purge_configured`."""
    if (store := open_configured(records, state)) is None:
        return None
    with store:
        oldest = oldest_assignment(store)
        if oldest is None:
            return None
        days = {} if (keeper := keeper_of(records, state, store)) is None else store.days(keeper)
        # A purge that is under way may take a while.
        ends = {source: round(now * 1000) - each * _DAY_MS - _HOUR_MS for source, each in days.items()}
        over = has_ended_before(store, ends, round(now * 1000))
        purged = first_purge(store, days)
        if purged is not None and not over and purged < now * 1000 - _HOUR_MS:
            purged = None  # held
        count = _count(store, assignments) + _count(store, current)
        held = held_counts(store, round(now * 1000))
    url = store.engine.url
    place = (
        str(store.database)
        if isinstance(store.database, Path)
        else f"postgresql {url.host or ''}/{url.database}"
    )
    return AssignmentsSummary(place, count, oldest, purged, over, held)


def _count(store: AssignmentStore, table: Table) -> int:
    with store.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0
