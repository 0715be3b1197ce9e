"""Any CSV by its columns: exports of assignments, and translators' logs of port blocks.

A row has the whole interval where it has both times. One with its beginning alone holds until another row
says otherwise. Where there is an ``event``, a row is the beginning or the end of one at its ``from``.
"""

import csv
from collections.abc import Mapping, Sequence

from urlward.records.assignments.interval import (
    FOREVER,
    LAST_PORT,
    AssignmentError,
    Said,
    Sighting,
    place_of,
)
from urlward.records.assignments.parsers import Parsed, ReadOptions, name_of
from urlward.records.assignments.times import to_ms

COLUMNS = ("address", "subscriber", "from", "to", "first_port", "last_port", "ports", "session", "event")
_NEEDED = COLUMNS[:3]

_BEGINS = frozenset(
    "allocate allocated alloc assign assigned add added start begin map mapped a".split()  # noqa: SIM905
)
_ENDS = frozenset(
    "release released free freed delete deleted deallocate stop end unmap unmapped r".split()  # noqa: SIM905
)


class ColumnsParser:
    """Reads rows by columns, which are found by name, or by number where all are said so."""

    ends_whole = True

    def __init__(self, options: ReadOptions) -> None:
        """Take the columns' names or numbers; one that is not said has our name."""
        options.only(*COLUMNS)
        self._options = options
        numbers = [name for name in options.columns.values() if name.isdecimal()]
        if numbers and len(numbers) < len(options.columns):
            raise AssignmentError("column: all by name, or all by number")
        self.has_header = not numbers
        self._columns = {name: int(number) - 1 for name, number in options.columns.items()} if numbers else {}
        if numbers:
            _check(self._columns)

    def begin(self, header: str) -> None:
        """Find the columns by their names."""
        row = next(csv.reader([header.removeprefix("\ufeff")], delimiter=self._options.delimiter), [])
        names = {name.strip().casefold(): number for number, name in enumerate(row)}
        wanted = {name: self._options.columns.get(name, name).casefold() for name in COLUMNS}
        for said in self._options.columns.values():
            if said.casefold() not in names:
                raise AssignmentError(f"no column is called {said!r}")
        self._columns = {name: names[said] for name, said in wanted.items() if said in names}
        _check(self._columns)

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read rows, one a line."""
        found: list[Sighting] = []
        rows = skipped = 0
        for row in csv.reader(lines, delimiter=self._options.delimiter):
            if not row:
                continue
            rows += 1
            try:
                found.append(self._sighting(row))
            except (ValueError, IndexError):
                skipped += 1
        return Parsed(found, rows, skipped)

    def _sighting(self, row: Sequence[str]) -> Sighting:
        of, zone = self._columns, self._options.zone
        place, network = place_of(row[of["address"]].strip())
        first, last = _ports(row, of)
        start = to_ms(row[of["from"]], zone)
        subscriber = name_of(row[of["subscriber"]].strip())
        session = name_of(row[of["session"]].strip()) if "session" in of else ""
        until = row[of["to"]].strip() if "to" in of else ""
        event = row[of["event"]].strip().casefold() if "event" in of else ""
        if not subscriber or not (not event or event in _BEGINS or event in _ENDS):
            raise ValueError("nobody's, or another event")
        if event in _ENDS:
            end = to_ms(until, zone) if until else start
            return (
                place,
                network,
                first,
                last,
                start if until else 0,
                end,
                end,
                subscriber,
                session,
                int(Said.ENDED),
            )
        if until:
            end = to_ms(until, zone)
            if end < start:
                raise ValueError("ends before it begins")
            return place, network, first, last, start, end, 0, subscriber, session, int(Said.WHOLE)
        return place, network, first, last, start, FOREVER, start, subscriber, session, int(Said.HELD)


def _check(columns: Mapping[str, int]) -> None:
    for name in _NEEDED:
        if columns.get(name, -1) < 0:
            raise AssignmentError(f"no column {name!r}: say which it is with --column {name}=NAME")


def _ports(row: Sequence[str], of: Mapping[str, int]) -> tuple[int, int]:
    if "ports" in of:
        low, _, high = row[of["ports"]].partition("-")
        first, last = int(low), int(high or low)
    elif "first_port" in of:
        first = int(row[of["first_port"]])
        last = int(row[of["last_port"]]) if "last_port" in of else first
    else:
        return 0, LAST_PORT
    if not 0 <= first <= last <= LAST_PORT:
        raise ValueError("no such ports")
    return first, last
