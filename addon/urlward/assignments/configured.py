"""Configured assignments: opening, holding and purging the database that the configuration names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Table, func, select

from urlward.assignments.interval import AssignmentError
from urlward.assignments.retention import (
    first_ends,
    has_ended_before,
    held_counts,
    hold_assignments,
    is_held,
    oldest_assignment,
    purge_assignments,
    release_assignments,
)
from urlward.assignments.schema import FILE, assignments, current
from urlward.assignments.store import AssignmentStore, KeepingNode
from urlward.config.records import RecordsTable
from urlward.records.engines import url_of
from urlward.records.evidence import Evidence, evidence_of
from urlward.records.holds import current_holds
from urlward.records.nodes import node_of
from urlward.records.retention import KeepingStores, held_by_all
from urlward.records.store import StoreError

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


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
        try:
            _hold(store, held, evidence)
        finally:
            store.close()


def release_configured(records: RecordsTable, state: Path, reference: str) -> None:
    """Release the assignments held for a reference.

    Raises:
        AssignmentError: the database refuses.
    """
    if (store := open_configured(records, state)) is not None:
        try:
            release_assignments(store, reference)
        finally:
            store.close()


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
    stores = KeepingStores(records, state, make=False)
    try:
        opened, errors = stores.all()
        try:
            held = held_by_all(records, opened, errors, now)
        except StoreError as e:
            raise AssignmentError(f"assignments: none is deleted: {e}") from e
        for one in current_holds(state, now):
            held[one.reference] = max(held.get(one.reference, 0), one.until)
        return held, evidence_of(held, opened, errors, state)
    finally:
        stores.close()


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
        HoldError: it is not known what is held.
        StateError: likewise.
    """
    if records.days.assignments is None or (store := open_configured(records, state)) is None:
        return 0
    try:
        _hold(store, *_all_held(records, state, now))
        keeper = keeper_of(records, state, store)
        assert keeper is not None
        store.say_days(keeper)
        at = round((now + ahead) * 1000)
        limits = {source: at - days * _DAY_MS for source, days in store.days(keeper).items()}
        return purge_assignments(store, limits, round(now * 1000))
    finally:
        store.close()


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
    try:
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
    finally:
        store.close()
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
