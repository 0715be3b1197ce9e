"""Holds on assignments: those needed to answer for a held event are kept as long as the event.

What `urlward who` answers of the event rests on whoever had its client's address about its time, and behind a
translator on whoever had the inner one. The questions are kept, and not the answers: what is read later, and
answers too, stays as well.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, Row, Table, delete, insert, select

from urlward.assignments.deterministic import computed_in
from urlward.assignments.interval import MOST_APART, is_address
from urlward.assignments.schema import holds
from urlward.assignments.store import AssignmentStore, rows_in_force

type Client = tuple[str, int, int]
"""Address, source port (0 where it is not known), and time in ms."""

type Found = tuple[Table, Row[tuple[object, ...]]]


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
