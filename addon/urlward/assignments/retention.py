"""Retention of assignments: deleted so that the database's files no longer contain them, but for those on
hold, which are needed to answer for a held event and are kept as long as the event.

What `urlward who` answers of the event rests on whoever had its client's address about its time, and behind a
translator on whoever had the inner one. The questions are kept, and not the answers: what is read later, and
answers too, stays as well.

The functions named ``…_configured`` do it in the database that the configuration names.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    case,
    column,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy import table as named_table

from urlward.assignments.deterministic import computed_in
from urlward.assignments.formats import LOGS
from urlward.assignments.interval import (
    FOREVER,
    MOST_APART,
    SECOND,
    UP_TO_A_GAP,
    AssignmentError,
    Ending,
    is_address,
)
from urlward.assignments.resolving import rows_in_force
from urlward.assignments.schema import (
    FILE,
    PART,
    PARTITIONS_AT_ONCE,
    SPANS,
    TABLES,
    Stretch,
    assignments,
    cells_at,
    current,
    files,
    formulas,
    gaps,
    holds,
    make_partitions,
    missing_owner,
    partition_of,
    sources,
    stretches,
    told,
)
from urlward.assignments.store import ANEW, NOT_YET, AssignmentStore, KeepingNode, wait_for_all
from urlward.config.records import RecordsTable
from urlward.lines import plain
from urlward.records.holds import Evidence, current_holds, evidence_of
from urlward.records.retention import KeepingStores, held_by_all
from urlward.records.sql import (
    Pace,
    deletions,
    insert_new,
    note_deleted,
    note_wiped,
    unwiped,
    url_of,
    vacuum,
    wipe_sqlite,
)
from urlward.records.store import StoreError, node_of
from urlward.units import DAY_MS

type Client = tuple[str, int, int]
"""Address, source port (0 where it is not known), and time in ms."""

type Found = tuple[Table, Row[tuple[object, ...]]]

_DROPPING = 0x75726C77617266
"""PostgreSQL's number of the lock by which one program at a time drops partitions."""
_classes = named_table("pg_class", column("oid"), column("relname"))
"""PostgreSQL's, of its tables."""

_MANY = 2_000
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
        mine = delete(holds).where(holds.c.reference == reference).returning(holds)
        before = {(row.address, row.port, row.at): row.purged for row in connection.execute(mine)}
        if named:
            purged = connection.scalar(select(func.max(sources.c.purged))) or 0
            connection.execute(
                insert(holds),
                [
                    {"reference": reference, "address": one[0], "port": one[1], "at": one[2]}
                    | {"until": until, "purged": before.get(one, purged)}
                    for one in sorted(named)
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
    return _rows_for(connection, [(row.address, row.port, row.at) for row in connection.execute(wanted)])


def _rows_for(connection: Connection, clients: Iterable[Client]) -> list[Found]:
    """Rows that answer for clients, with their tables, each once."""
    found: dict[tuple[object, ...], Found] = {}
    for address, port, at in clients:
        since, until = at - MOST_APART - SECOND, at + MOST_APART
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
    # What has been given back is in its source as that, and what is out of order may be over long since.
    (
        and_(
            current.c.ending.not_in((Ending.RELEASED, Ending.GIVEN_BACK)),
            current.c.lane >= 0,
            current.c.seen < _READ,
        ),
        _READ,
    ),
    else_=current.c.seen,
)
"""When something without an end was last said by its source, or found where its source has it."""

_TOLD_BY = (files, gaps, formulas)
"""What there is of a source beside its rows."""

_paces: dict[str, Pace] = {}
"""By database: each purge opens its own store, and all of a process go by one."""


type Before = int | Mapping[int, int]
"""A time in ms since 1970-01-01 UTC, or that of each source by its id."""


def purge_assignments(store: AssignmentStore, before: Before, now: int = 0) -> int:
    """Delete what ended before a time; and what has no end, but was last seen before it: said by its source,
    or found where its source had it.

    SQLite overwrites what is deleted (secure_delete), and its log is emptied; since copies of some remain
    where it moved them, the file is written anew. PostgreSQL drops the partitions that are over as a whole,
    and writes those tables anew that lost other rows. Both lock them a while. Copies elsewhere, such as
    PostgreSQL's archived logs, are not reached.

    Args:
        store: where.
        before: what ended before this is over.
        now: in ms since 1970-01-01 UTC; what is held until after it stays.

    Returns:
        How many were deleted.

    Raises:
        AssignmentError: the database refuses, or what was deleted is in its log or files still.
    """
    deleted = _drop_over(store, before, now)
    with store.changing() as connection:
        if connection.dialect.name != "sqlite":
            wait_for_all(connection)  # who writes has locks of rows that are over, and wants others
            # Whoever holds something meanwhile waits for this, and sees what is left.
            connection.execute(text(f"LOCK TABLE {holds.name} IN SHARE ROW EXCLUSIVE MODE"))
        lost = Counter({holds.name: connection.execute(delete(holds).where(holds.c.until <= now)).rowcount})
        held = _held_and_over(connection, before, now)
        for limit, some in _limits(before):
            gone = Counter[str]()
            for table, over in _ended(limit, some):
                gone.update(_deleted(connection, table, over))
            # What is held comes back.
            if gone.total() > sum(some is None or row.source in some for _, row in held):
                _note_purged(connection, limit, some)
            lost.update(gone)
        stays = Counter(_place_of(connection, table, row) for table, row in held)
        # What is held is still there, so that nothing is lost by a second copy in the files.
        for part in _noted(connection, lost - stays):
            note_deleted(connection, part)
        for table, row in held:
            insert_new(connection, table, [tuple(row)])
        _close_gaps(connection, before)
        _forget_files(connection, before)
        deleted += lost.total() - lost[holds.name] - len(held)
    _forget(store)
    return deleted


def delete_source(
    store: AssignmentStore, name: str, now: int, told: Callable[[int], object] = lambda _: None
) -> int:
    """Delete all that a source has said, and how far its files are read, as `purge_assignments` does.

    Its name stays, with nothing read, so that nobody is known by it for certain to have had no address, until
    something is read again, or this is done once more.

    Args:
        store: where.
        name: of the source.
        now: in ms since 1970-01-01 UTC.
        told: is given how many rows go, before they do.

    Returns:
        How many.

    Raises:
        AssignmentError: there is no such source, some of it is held until after now, or as
            `purge_assignments`.
    """
    with store.changing() as connection:
        wait_for_all(connection)
        if connection.dialect.name != "sqlite":
            connection.execute(text(f"LOCK TABLE {holds.name} IN SHARE ROW EXCLUSIVE MODE"))
        source = connection.execute(select(sources).where(sources.c.name == plain(name))).first()
        if source is None:
            raise AssignmentError(f"no source is called {name!r}")
        if references := _holding(connection, source.id, now):
            raise AssignmentError(
                f"source {name!r}: some of it is held for {', '.join(references)}: not deleted until released"
            )
        lost = Counter[str]()
        for table in (assignments, current):
            lost.update(_deleted(connection, table, table.c.source == source.id))
        others = [connection.execute(delete(one).where(one.c.source == source.id)) for one in _TOLD_BY]
        told(lost.total())
        mine = sources.c.id == source.id
        if lost.total() or any(one.rowcount for one in others) or source.read != NOT_YET:
            connection.execute(update(sources).where(mine).values(rows=0, skipped=0, read=NOT_YET))
        else:
            connection.execute(delete(sources).where(mine))
        for part in _noted(connection, +lost):
            note_deleted(connection, part)
    _forget(store)
    return lost.total()


def _holding(connection: Connection, source: int, now: int) -> list[str]:
    """References for which something of a source is held at a time."""
    wanted = select(holds.c.reference, holds.c.address, holds.c.port, holds.c.at).where(holds.c.until > now)
    found = set()
    for reference, address, port, at in connection.execute(wanted).all():
        since, until = at - MOST_APART - SECOND, at + MOST_APART
        computed = computed_in(connection, address, port or None, since, until)
        if any(id_ == source for id_, *_ in computed) or any(
            row.source == source for _, row in _rows_for(connection, [(address, port, at)])
        ):
            found.add(reference)
    return sorted(found)


def _close_gaps(connection: Connection, before: Before) -> None:
    """Forget gaps that were over before a time, and in which nothing began or ended that is here still, nor
    anything that is held."""
    latest = connection.scalar(select(func.max(holds.c.at)))
    for gap in connection.execute(select(gaps)).all():
        limit = _limit_of(before, gap.source)
        if gap.until >= limit or (latest is not None and latest + MOST_APART >= gap.since):
            continue
        cells = cells_at(gap.since, gap.until)
        in_it = or_(*(assignments.c.cell.between(some[0], some[-1]) for some in cells))
        there = and_(current.c.source == gap.source, current.c.start < gap.until)
        touched: tuple[ColumnElement[bool], ...] = (
            there,
            and_(
                in_it, assignments.c.source == gap.source,
                assignments.c.start < gap.until, assignments.c.end > gap.since,
            ),
        )  # fmt: skip
        if (
            gap.file == ANEW
        ):  # what is in the file that was written anew, or is over, says itself what is in doubt
            touched = (and_(there, current.c.ending.in_(map(int, UP_TO_A_GAP))),)
        if not any(connection.scalar(select(exists().where(which))) for which in touched):
            connection.execute(delete(gaps).where(gaps.c.id == gap.id))


def _forget_files(connection: Connection, before: Before) -> None:
    """Forget files that tell of nothing but what is over, and were read before that; but the last of each
    lane, by which it is known up to when that tells, or, of what are no logs, at each path."""
    logs = {*connection.scalars(select(sources.c.id).where(sources.c.format.in_(LOGS)))}
    last: dict[object, tuple[int, int]] = {}
    over: set[int] = set()
    for row in connection.execute(select(files).order_by(files.c.id)).all():
        is_log = row.source in logs
        key = row.source, row.lane if is_log else row.path
        at = row.last if is_log else row.read, row.id
        if max(row.last if is_log else 0, row.read) < _limit_of(before, row.source):
            over.add(row.id)
        last[key] = max(at, last.get(key, at))
    if over := over - {id_ for _, id_ in last.values()}:
        for used in (current.c.file, gaps.c.file):
            over.difference_update(connection.scalars(select(used).distinct()))
        for some in batched(sorted(over), _MANY):
            connection.execute(delete(files).where(files.c.id.in_(some)))


def _limit_of(before: Before, source: int) -> int:
    return before if isinstance(before, int) else before.get(source, 0)


def _drop_over(store: AssignmentStore, before: Before, now: int) -> int:
    """Drop the partitions in which everything is over; returns how many rows went.

    A role that may not goes on to delete the rows, and is told when it is to have the files forget them.
    """
    if isinstance(store.database, Path):
        return 0
    with store.reading() as connection:
        limit = _limit_of_all(connection, before)
        if limit is None or missing_owner(connection):
            return 0
        over = [one for one in stretches(connection) if one.has_ended_before(limit)]
    over.sort(key=lambda one: one.earliest_end)
    return sum(
        store.locking(partial(_drop, over=over[at : at + PARTITIONS_AT_ONCE], before=before, now=now))
        for at in range(0, len(over), PARTITIONS_AT_ONCE)
    )


def _drop(connection: Connection, over: Sequence[Stretch], before: Before, now: int) -> int:
    """Drop partitions, in a transaction, and make those anew that have something held.

    While it is found out what is to stay no hold is added and nothing is written, and at last nobody reads
    any. Locks of tables come in the order in which `AssignmentStore.write` has
    them.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _DROPPING})
    wait_for_all(connection)
    connection.execute(text(f"LOCK TABLE {holds.name} IN SHARE MODE"))
    there = set(stretches(connection))
    over = [one for one in over if one in there]
    for one in over:
        connection.execute(text(f"LOCK TABLE {one.name} IN SHARE MODE"))
    kept: dict[Stretch, list[tuple[Any, ...]]] = {one: [] for one in over}
    for table, row in held_rows(connection, now):
        if table is assignments and (part := partition_of(row.cell)) in kept:
            kept[part].append(tuple(row))
    counts = {one: _rows_in(connection, one) for one in over}
    # One with nothing but what is held has been made anew before.
    doomed = [one for one in over if not kept[one] or counts[one] > len(kept[one])]
    if not doomed:
        return 0
    connection.execute(text(f"LOCK TABLE ONLY {assignments.name} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text(f"LOCK TABLE {sources.name} IN SHARE MODE"))
    # Another node may have begun a source meanwhile, of which no limit is known.
    limit = _limit_of_all(connection, before)
    if limit is None or not all(one.has_ended_before(limit) for one in doomed):
        return 0
    _note_purged(connection, limit, None)
    note_deleted(connection, current.name)
    for one in doomed:
        connection.execute(text(f"DROP TABLE {one.name}"))
        connection.execute(delete(unwiped).where(unwiped.c.part == one.name))
    make_partitions(connection, [one for one in doomed if kept[one]])
    for one in doomed:
        insert_new(connection, assignments, kept[one])
    return sum(counts[one] - len(kept[one]) for one in doomed)


def _limit_of_all(connection: Connection, before: Before) -> int | None:
    """Time before which what ended is over for every source; None where some source has no limit."""
    if isinstance(before, int):
        return before
    limits = [before.get(source) for source in connection.scalars(select(sources.c.id))]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known and len(known) == len(limits) else None


def _rows_in(connection: Connection, one: Stretch) -> int:
    wanted = select(func.count()).select_from(assignments).where(one.has(assignments.c.cell))
    return int(connection.scalar(wanted) or 0)


def _deleted(connection: Connection, table: Table, over: ColumnElement[bool]) -> dict[str, int]:
    """Delete rows; returns how many of which table or partition."""
    if table is not assignments or connection.dialect.name == "sqlite":
        return {table.name: connection.execute(delete(table).where(over)).rowcount}
    gone = delete(table).where(over).returning(column("tableoid")).cte("gone")
    wanted = (
        select(_classes.c.relname, func.count().label("rows"))
        .join(gone, gone.c.tableoid == _classes.c.oid)
        .group_by(_classes.c.relname)
    )
    return {row.relname: row.rows for row in connection.execute(wanted)}


def _place_of(connection: Connection, table: Table, row: Row[Any]) -> str:
    """Name of the table, or partition, that has a row."""
    partitioned = table is assignments and connection.dialect.name != "sqlite"
    return partition_of(row.cell).name if partitioned else table.name


def _noted(connection: Connection, lost: Counter[str]) -> Iterable[str]:
    """Parts that wait to be rewritten (`note_deleted`): a file as a whole, and tables each for itself, with
    that of what is in force, which has copies of what has ended since."""
    if not lost:
        return ()
    return (PART,) if connection.dialect.name == "sqlite" else {*lost, current.name}


def has_ended_before(store: AssignmentStore, before: Before, now: int = 0) -> bool:
    """Whether there is something for `purge_assignments` to delete.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        left = len(_held_and_over(connection, before, now)) + 1
        for table, over in _all_ended(before):
            left -= len(connection.execute(select(table.c.start).where(over).limit(left)).all())
            if left <= 0:
                return True
    return False


def _held_and_over(connection: Connection, before: Before, now: int) -> list[Found]:
    """Held rows among those that ended before a time."""
    held = held_rows(connection, now)
    key = (current.c.place, current.c.first_port, current.c.source, current.c.lane)
    keys = [(row.place, row.first_port, row.source, row.lane) for table, row in held if table is current]
    over = or_(false(), *(one for table, one in _all_ended(before) if table is current))
    ended = {tuple(row) for row in connection.execute(select(*key).where(tuple_(*key).in_(keys), over))}

    def is_over(table: Table, row: Row[Any]) -> bool:
        if table is current:
            return (row.place, row.first_port, row.source, row.lane) in ended
        return bool(row.end < _limit_of(before, row.source))

    return [(table, row) for table, row in held if is_over(table, row)]


def oldest_assignment(store: AssignmentStore) -> int | None:
    """The earliest beginning of an assignment, in ms; None where there is none.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.reading() as connection:
        begun = select(func.min(current.c.start)).where(current.c.start > 0)  # else it is an end alone
        found = {len(SPANS): connection.scalar(begun)}
        for one in stretches(connection):
            if one.span not in found:
                cell = connection.scalar(
                    select(func.min(assignments.c.cell)).where(one.has(assignments.c.cell))
                )
                if cell is not None:
                    first = select(func.min(assignments.c.start)).where(assignments.c.cell == cell)
                    found[one.span] = connection.scalar(first)
    return min((start for start in found.values() if start is not None), default=None)


def _all_ended(before: Before) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Conditions for expired rows of all sources, as `_ended`."""
    for limit, some in _limits(before):
        yield from _ended(limit, some)


def _ended(limit: int, some: list[int] | None) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Conditions for rows of some sources that expired before a time, table by table, in pieces that an index
    finds."""
    for span, size in enumerate(SPANS):
        first = span << 40
        cells = assignments.c.cell.between(first, first + max(limit, 0) // size)
        yield assignments, and_(cells, assignments.c.end < limit, *_of(assignments, some))
    yield current, and_(_over(limit), *_of(current, some))


def _note_purged(connection: Connection, limit: int, some: list[int] | None) -> None:
    """Note before when what had ended is deleted: it is not known any more that there was nobody else."""
    mine = [sources.c.id.in_(some)] if some is not None else []
    connection.execute(update(sources).where(sources.c.purged < limit, *mine).values(purged=limit))


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
        waiting = {part: deletions(connection, part) for part in _parts(connection)}
    counts = {part: count for part, count in waiting.items() if count is not None}
    rewrite = pace.is_due() and bool(counts)
    errors: list[StoreError] = []
    with told(store.database), pace.rewriting() if rewrite else nullcontext():
        if isinstance(store.database, Path):
            # Its log is emptied always, since it may have been in use the last time.
            wipe_sqlite(store.engine, time.sleep, rewrite=rewrite)
        for part, count in counts.items():
            try:
                if not isinstance(store.database, Path):
                    vacuum(store.engine, (part,), time.sleep, rewrite=rewrite)
            except StoreError as e:
                with store.reading() as connection:
                    # A partition that another node has dropped is forgotten.
                    errors += [e] if part in _parts(connection) else []
                continue
            if rewrite:
                with store.changing() as connection:
                    note_wiped(connection, part, count)
        if errors:
            raise errors[0]


def _parts(connection: Connection) -> list[str]:
    """Parts that may wait to be rewritten."""
    if connection.dialect.name == "sqlite":
        return [PART]
    return [*TABLES[1:], *(one.name for one in stretches(connection))]


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
            cannot be read; or a purge that was under way has deleted some of them before.
    """
    if held and (store := open_configured(records, state)) is not None:
        with store:
            clients = [one for reference in held for one in _clients(evidence, reference)]
            before = _count_for(store, clients)
            _hold(store, held, evidence)
            if (gone := before - _count_for(store, clients)) > 0:
                raise AssignmentError(f"assignments: {gone} of what is held was deleted meanwhile")


def _clients(evidence: Evidence, reference: str) -> list[Client]:
    return [(hit.client, hit.client_port, hit.time) for hit in evidence.hits(reference)]


def _count_for(store: AssignmentStore, clients: Iterable[Client]) -> int:
    with store.reading() as connection:
        return len(_rows_for(connection, (one for one in clients if is_address(one[0]))))


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
        if clients := _clients(evidence, reference):
            hold_assignments(store, reference, until * 1000, clients)
        elif evidence.errors and not is_held(store, reference):
            raise AssignmentError(
                f"assignments: none is deleted: {reference} is held, and its event may be in a store that "
                f"cannot be read: {evidence.errors[0]}"
            )


def hold_all(store: AssignmentStore, records: RecordsTable, state: Path, now: float) -> None:
    """Hold the assignments of all references that are held by any node that is known here.

    Raises:
        AssignmentError: the database refuses, or it is not known who is to stay.
        UrlwardError: it is not known what is held.
        StateError: likewise.
    """
    _hold(store, *_all_held(records, state, now))


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
        hold_all(store, records, state, now)
        keeper = keeper_of(records, state, store)
        assert keeper is not None
        store.say_days(keeper)
        at = round((now + ahead) * 1000)
        limits = {source: at - days * DAY_MS for source, days in store.days(keeper).items()}
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
    """Time when the first assignment is deleted, in ms; None for never. What has no end counts from when it
    was last seen.

    Raises:
        AssignmentError: the database refuses.
    """
    if not days:
        return None
    kept = {source: each * DAY_MS for source, each in days.items()}
    end = case((current.c.end == FOREVER, _LAST_SEEN), else_=current.c.end)
    wanted = select(current.c.source, func.min(end)).group_by(current.c.source)
    with store.reading() as connection:
        found = [first + kept[source] for source, first in connection.execute(wanted) if source in kept]
        some = stretches(connection)
    ended = select(assignments.c.source, func.min(assignments.c.end)).group_by(assignments.c.source)
    for one in sorted(some, key=lambda one: one.earliest_end):
        if found and min(found) <= one.earliest_end + min(kept.values()):
            break  # nothing in it, or after it, is sooner
        # Each in a transaction of its own, which nobody waits for who drops another.
        with store.reading() as connection:
            rows = connection.execute(ended.where(one.has(assignments.c.cell)))
            found += [first + kept[source] for source, first in rows if source in kept]
    return min(found, default=None)


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
        ends = {source: round(now * 1000) - each * DAY_MS - _HOUR_MS for source, each in days.items()}
        over = has_ended_before(store, ends, round(now * 1000))
        purged = first_purge(store, days)
        if purged is not None and not over and purged < now * 1000 - _HOUR_MS:
            purged = None  # held
        count = _count(store)
        held = held_counts(store, round(now * 1000))
    url = store.engine.url
    place = (
        str(store.database)
        if isinstance(store.database, Path)
        else f"postgresql {url.host or ''}/{url.database}"
    )
    return AssignmentsSummary(place, count, oldest, purged, over, held)


def _count(store: AssignmentStore) -> int:
    with store.reading() as connection:
        count = connection.scalar(select(func.count()).select_from(current)) or 0
        some = stretches(connection)
    for one in some:
        with store.reading() as connection:
            count += _rows_in(connection, one)
    return count
