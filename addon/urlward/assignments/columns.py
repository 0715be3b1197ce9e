"""Any CSV by its columns: exports of assignments, and translators' logs of port blocks.

A row has the whole interval where it has both times. One with its beginning alone holds until another row
says otherwise. Where there is an ``event``, a row is the beginning or the end of one at its ``from``.
"""

import csv
from collections.abc import Mapping, Sequence

from urlward.assignments.interval import LAST_PORT, AssignmentError, Sighting, place_of
from urlward.assignments.parsers import Fault, Parsed, ReadOptions, RowError, name_of, reason_of
from urlward.assignments.times import held_between, held_from, held_until, moment_of
from urlward.csv_rows import csv_rows

COLUMNS = ("address", "subscriber", "from", "to", "first_port", "last_port", "ports", "session", "event")
_NEEDED = COLUMNS[:3]

_BEGINS = frozenset(
    "allocate allocated alloc assign assigned add added start begin map mapped a".split()  # noqa: SIM905
)
_ENDS = frozenset(
    "release released free freed delete deleted deallocate stop end unmap unmapped r".split()  # noqa: SIM905
)

_NOT_CSV = "not CSV: a quote or a line break out of place, or a field that is too long"


class ColumnsParser:
    """Parser of rows by columns, which are found by name, or by number where all are given so."""

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
        try:
            row = next(csv.reader([header], delimiter=self._options.delimiter), [])
        except csv.Error as e:
            raise AssignmentError(f"its first line names no columns: {_NOT_CSV}") from e
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
        faults: list[Fault] = []
        rows = 0
        # One row is no reason to read no other, then or ever. Clients choose names, and none ends the rows of
        # others by a quote in its own: a row is a line.
        for number, row in csv_rows(lines, self._options.delimiter, most_lines=1):
            if row == []:
                continue
            rows += 1
            try:
                if row is None:
                    raise RowError(_NOT_CSV)
                found += self._sightings(row)
            except (ValueError, IndexError) as e:
                faults.append(Fault(number - 1, reason_of(e)))
        return Parsed(found, rows, faults)

    def _sightings(self, row: Sequence[str]) -> list[Sighting]:
        of, zone = self._columns, self._options.zone
        what = (*place_of(row[of["address"]].strip()), *_ports(row, of))
        since = moment_of(row[of["from"]], zone)
        subscriber = name_of(row[of["subscriber"]].strip())
        session = name_of(row[of["session"]].strip()) if "session" in of else ""
        until = row[of["to"]].strip() if "to" in of else ""
        event = row[of["event"]].strip().casefold() if "event" in of else ""
        if not subscriber:
            raise RowError("no subscriber")
        if event and event not in _BEGINS and event not in _ENDS:
            raise RowError("an event that is neither a beginning nor an end")
        if not until:
            if event in _ENDS:
                return held_until(what, None, since, subscriber, session)
            return held_from(what, since, subscriber, session, since.last)
        end = moment_of(until, zone)
        if event in _ENDS:
            return held_until(what, since, end, subscriber, session)
        if end.last < since.first:
            raise RowError("ends before it begins")
        return held_between(what, since, end, subscriber, session)


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
        raise RowError("no such ports")
    return first, last
