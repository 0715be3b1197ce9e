"""Deterministic mapping of a carrier-grade NAT (RFC 7422): who had a port is computed, and nothing is stored.

The inner addresses in their order get blocks of as many ports each, the first ones on the first outer
address from its first port on, and so on (the *sequential* algorithm of section 2.1).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address

from sqlalchemy import delete, insert, select

from urlward.records.assignments.interval import (
    FOREVER,
    LAST_PORT,
    AssignmentError,
    Ending,
    Interval,
    Source,
)
from urlward.records.assignments.schema import formulas
from urlward.records.assignments.store import AssignmentStore


@dataclass(frozen=True, slots=True)
class Formula:
    """How a translator maps.

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
        """Check that all that are inside have a place.

        Raises:
            AssignmentError: they have not.
        """
        if not 0 < self.first_port <= LAST_PORT or not 0 < self.ports <= LAST_PORT + 1 - self.first_port:
            raise AssignmentError("ports: no such ports")
        places = self.outside.num_addresses * self.per_address
        if self.inside.num_addresses > places:
            raise AssignmentError(
                f"{self.inside} has {self.inside.num_addresses} addresses, and {self.outside} has place "
                f"for {places} with {self.ports} ports each"
            )

    @property
    def per_address(self) -> int:
        """How many subscribers an outer address has."""
        return (LAST_PORT + 1 - self.first_port) // self.ports

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


def set_formula(store: AssignmentStore, source: Source, formula: Formula) -> None:
    """Remember how a translator maps, instead of what was remembered of it.

    Raises:
        AssignmentError: the database refuses.
    """
    with store.changing() as connection:
        connection.execute(delete(formulas).where(formulas.c.source == source.id))
        connection.execute(
            insert(formulas).values(
                source=source.id,
                inside=str(formula.inside),
                outside=str(formula.outside),
                ports=formula.ports,
                first_port=formula.first_port,
                start=formula.start,
                end=formula.end,
            )
        )


def computed(
    store: AssignmentStore, address: str, port: int | None, since: int, until: int
) -> list[Interval]:
    """What formulas say, as `AssignmentStore.find`; the subscriber is the inner address.

    Raises:
        AssignmentError: the database refuses.
        ValueError: not an address.
    """
    with store.reading() as connection:
        rows = connection.execute(
            select(formulas).where(formulas.c.start <= until, formulas.c.end > since)
        ).all()
    if not rows:
        return []
    by_id = store.sources()
    return [
        Interval(
            address, (first, last), row.start, row.end, 0, Ending.NONE if row.end == FOREVER else Ending.TOLD,
            inner, "", by_id[row.source],
        )
        for row in rows
        for inner, first, last in Formula(
            IPv4Network(row.inside), IPv4Network(row.outside), row.ports, row.first_port
        ).insiders(address, port)
    ]  # fmt: skip
