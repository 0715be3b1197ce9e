"""Deterministic mapping of a carrier-grade NAT (RFC 7422): who had a port is computed, and nothing is stored.

The inner addresses in their order get blocks of as many ports each, the first ones on the first outer
address from its first port on, and so on (the *sequential* algorithm of section 2.1).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    AssignmentError,
    Ending,
    Interval,
    SightingSource,
    ms_text,
)
from urlward.assignments.schema import formulas, sources
from urlward.assignments.store import AssignmentStore


@dataclass(frozen=True, slots=True)
class Formula:
    """Formula of one translator: inner addresses to public addresses and port ranges.

    Attributes:
        inside: the subscribers' addresses.
        outside: the public ones.
        ports: of each subscriber.
        first_port: the first that is given out.
        start: since when it maps so, in ms.
        end: until when; `FOREVER` if it still does.
    """

    inside: IPv4Network
    outside: IPv4Network
    ports: int
    first_port: int = 1024
    start: int = 0
    end: int = FOREVER

    def __post_init__(self) -> None:
        """Check that every inner address fits the pool.

        Raises:
            AssignmentError: they have not.
        """
        if not 0 < self.first_port <= LAST_PORT or not 0 < self.ports <= LAST_PORT + 1 - self.first_port:
            raise AssignmentError("ports: no such ports")
        if self.start >= self.end:
            raise AssignmentError("it ends before it begins")
        places = self.outside.num_addresses * self.per_address
        if self.inside.num_addresses > places:
            raise AssignmentError(
                f"{self.inside} has {self.inside.num_addresses} addresses, and {self.outside} has place "
                f"for {places} with {self.ports} ports each"
            )

    @property
    def per_address(self) -> int:
        """Number of subscribers of one public address."""
        return (LAST_PORT + 1 - self.first_port) // self.ports

    def __str__(self) -> str:
        """Text for people."""
        since = f" from {ms_text(self.start)}" if self.start else ""
        until = "" if self.end == FOREVER else f" until {ms_text(self.end)}"
        return f"{self.inside} to {self.outside}, {self.ports} ports from {self.first_port}{since}{until}"

    def meets(self, other: "Formula") -> bool:
        """Whether two formulas overlap in public addresses and time."""
        return self.outside.overlaps(other.outside) and self.start < other.end and other.start < self.end

    def without(self, start: int, end: int) -> "list[Formula]":
        """The parts of this formula outside a span of time, in ms."""
        spans = (self.start, min(self.end, start)), (max(self.start, end), self.end)
        return [dataclasses.replace(self, start=since, end=until) for since, until in spans if since < until]

    def insiders(self, address: str, port: int | None) -> list[tuple[str, int, int]]:
        """Inner addresses behind an outer one, with their first and last ports; all without a port.

        Raises:
            ValueError: not an address.
        """
        outer = ip_address(address)
        if not isinstance(outer, IPv4Address) or outer not in self.outside:
            return []
        if port is not None and port < self.first_port:
            return []
        blocks = (
            range(self.per_address)
            if port is None
            else range((port - self.first_port) // self.ports, (port - self.first_port) // self.ports + 1)
        )
        index = (int(outer) - int(self.outside.network_address)) * self.per_address
        return [
            (str(self.inside[index + block]), first, first + self.ports - 1)
            for block in blocks
            if block < self.per_address and index + block < self.inside.num_addresses
            for first in [self.first_port + block * self.ports]
        ]


def add_formula(
    store: AssignmentStore,
    source: SightingSource,
    formula: Formula,
    *,
    replace: bool = False,
    told: Callable[[list[Formula]], object] = list,
) -> list[Formula]:
    """Store a translator's formula, along with its formulas for other times and public addresses.

    Two formulas never say different things of one address at one time, so that what was answered by one is
    answered so again, until somebody says that it was wrong.

    Args:
        store: where.
        source: the translator.
        formula: of it.
        replace: whether it holds in place of what is known of its public addresses and its time; what that
            says of other times stays.
        told: is given the formulas of which something is replaced, before anything is.

    Returns:
        These formulas.

    Raises:
        AssignmentError: another says something of an address and a time of it, or the database refuses.
    """
    with store.changing() as connection:
        rows = connection.execute(select(formulas).where(formulas.c.source == source.id)).all()
        others = [one for row in rows if formula.meets(one := _formula_of(row))]
        if others == [formula]:
            return []
        for one in others:
            if not replace:
                raise AssignmentError(
                    f"{source.name}: {one} is known, and meets it: give other times (--from, --to), "
                    "or --replace where that was wrong, or has ended"
                )
            if not one.outside.subnet_of(formula.outside):
                raise AssignmentError(f"{source.name}: {one} is of more addresses than what is to replace it")
        told(others)
        for one in others:
            connection.execute(
                delete(formulas).where(
                    formulas.c.source == source.id,
                    formulas.c.outside == str(one.outside),
                    formulas.c.start == one.start,
                )
            )
        left = [part for one in others for part in one.without(formula.start, formula.end)]
        connection.execute(
            insert(formulas),
            [
                {
                    "source": source.id,
                    "inside": str(one.inside),
                    "outside": str(one.outside),
                    "ports": one.ports,
                    "first_port": one.first_port,
                    "start": one.start,
                    "end": one.end,
                }
                for one in [*left, formula]
            ],
        )
        connection.execute(update(sources).where(sources.c.id == source.id).values(path=source.path, read=0))
    return others


def known_formulas(store: AssignmentStore) -> dict[int, list[Formula]]:
    """All formulas, by the ids of their sources, the earliest first.

    Raises:
        AssignmentError: the database refuses.
    """
    found: dict[int, list[Formula]] = {}
    with store.reading() as connection:
        for row in connection.execute(select(formulas).order_by(formulas.c.start, formulas.c.outside)):
            found.setdefault(row.source, []).append(_formula_of(row))
    return found


def _formula_of(row: Row[Any]) -> Formula:
    return Formula(
        IPv4Network(row.inside), IPv4Network(row.outside), row.ports, row.first_port, row.start, row.end
    )


def computed(
    store: AssignmentStore, address: str, port: int | None, since: int, until: int
) -> list[Interval]:
    """Find what formulas compute, as `AssignmentStore.find`; the subscriber is the inner address.

    Raises:
        AssignmentError: the database refuses.
        ValueError: not an address.
    """
    with store.reading() as connection:
        found = computed_in(connection, address, port, since, until)
    if not found:
        return []
    by_id = store.sources()
    return [
        Interval(
            address, (first, last), one.start, one.end, 0, Ending.NONE if one.end == FOREVER else Ending.TOLD,
            inner, "", dataclasses.replace(by_id[source], path=f"{one.inside} to {one.outside}"),
        )
        for source, one, inner, first, last in found
    ]  # fmt: skip


def computed_in(
    connection: Connection, address: str, port: int | None, since: int, until: int
) -> list[tuple[int, Formula, str, int, int]]:
    """As `computed`, but as the source's id, the formula, the inner address, and its first and last port.

    Raises:
        ValueError: not an address.
    """
    rows = connection.execute(select(formulas).where(formulas.c.start <= until, formulas.c.end > since)).all()
    return [
        (row.source, formula, *inner)
        for row in rows
        for formula in [_formula_of(row)]
        for inner in formula.insiders(address, port)
    ]
