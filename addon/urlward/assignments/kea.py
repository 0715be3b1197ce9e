"""Kea's lease files (memfile): ``kea-leases4.csv``, ``kea-leases6.csv``, and what their cleanup leaves.

Each line is a lease as it was when it was written: it began, or was renewed, ``valid_lifetime`` before
``expire``. One with a lifetime of zero was given back or deleted; when, is not in the file. One that a client
declined has nobody's identifiers (of IPv6, zeros).
(Kea Administrator Reference Manual, sections 8.2.1, 9.2.2 and 4.1; `Lease::state_`.)
"""

from collections.abc import Sequence

from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    AssignmentError,
    Sighting,
    SightingKind,
    place_of,
)
from urlward.assignments.parsers import Fault, Parsed, ReadOptions, RowError, name_of, reason_of
from urlward.assignments.times import LAST

_INFINITE = 0xFFFFFFFF
_DECLINED, _RECLAIMED, _RELEASED = "1", "2", "3"
_PREFIX = "2"
"""``lease_type`` of a delegated prefix."""


class KeaParser:
    """Parser of both kinds of lease files; the header says which it is."""

    has_header = True

    def __init__(self, options: ReadOptions) -> None:
        """Take the column of the subscriber: ``hwaddr`` or ``duid`` if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", "")
        self._columns: dict[str, int] = {}

    def begin(self, header: str) -> None:
        """Read the columns' names, of which later versions of Kea have more."""
        columns = {name: number for number, name in enumerate(header.strip().split(","))}
        for needed in ("address", "valid_lifetime", "expire", "state", self._wanted or "address"):
            if needed not in columns:
                raise AssignmentError(f"not a lease file of Kea: no column {needed!r} in its first line")
        self._columns = columns

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read leases."""
        of, count = self._columns, len(self._columns)
        address, valid, expire, state = of["address"], of["valid_lifetime"], of["expire"], of["state"]
        kind, length = of.get("lease_type"), of.get("prefix_len")
        whose = [of[name] for name in (self._wanted or "duid", "hwaddr", "client_id", "duid") if name in of]
        found: list[Sighting] = []
        faults: list[Fault] = []
        rows = 0
        for number, line in enumerate(lines):
            if not line:
                continue
            rows += 1
            fields = line.split(",")
            try:
                if len(fields) < count:
                    raise RowError("cut short")
                network = fields[address]
                if kind is not None and length is not None and fields[kind] == _PREFIX:
                    network += f"/{fields[length]}"
                place, network = place_of(network)
                lifetime, until = int(fields[valid]), int(fields[expire]) * 1000
                start = until - lifetime * 1000
                if lifetime == _INFINITE:
                    start, until = max(start, 0) or until, FOREVER
                if not (0 < start < LAST and (until == FOREVER or 0 < until < LAST)):
                    raise RowError("no such time")
            except ValueError as e:
                faults.append(Fault(number, reason_of(e)))
                continue
            subscriber = next((fields[column] for column in whose if fields[column]), "")
            if fields[state] == _DECLINED:
                # Nobody's then: neither a client's identifiers nor its lifetime are in it.
                declined = (
                    place,
                    network,
                    0,
                    LAST_PORT,
                    start,
                    until,
                    start,
                    "",
                    "",
                    int(SightingKind.DECLINED),
                )
                found.append(declined)
                continue
            if not subscriber.strip("" if self._wanted else "0:"):
                continue
            said = SightingKind.HELD
            if lifetime == 0 or fields[state] == _RELEASED:
                said = SightingKind.RELEASED
            elif fields[state] == _RECLAIMED:
                said = SightingKind.ENDED
            name = name_of(subscriber.replace("&#x2c", ","))
            seen = until if said == SightingKind.ENDED else start
            found.append((place, network, 0, LAST_PORT, start, until, seen, name, "", int(said)))
        return Parsed(found, rows, faults)
