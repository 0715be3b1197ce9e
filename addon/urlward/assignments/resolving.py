"""Resolving: who had an address when, by all that was said of it, in whatever order that was read.

What the store has of a place are *stays*: from when a subscriber had it, when that was said first and last,
and how it ended, as far as one log read in order tells (`urlward.assignments.merging`). Several logs, and
what is out of order in one, tell of the same time. The rules by which they are one answer:

- Stays of one session (of the same name and beginning) on a place are one, said from the first to the last.
  Without a name they are, where they begin alike.
- A session's own end, or its server's restart, ends all that it had until then, wherever it was read. An
  end without a name is that of the last beginning before it.
- What is told again behind an end, by a server that does not say how late, is nothing new: by how long the
  session had lasted.
- A session has one address of a kind at a time. It had one up to when that was said last, and has another
  from when that is said first; between both either is in doubt. Of its first record all counts from its
  beginning, but for what was said to be another's, or said of another address of the session, since.
- Whoever begins ends what was held, unless that is said to go on behind it. Where ends are told, and this
  one's is not, it is certain up to when it was said last: it is lost, and may have been at any time since.

Nothing here writes anything: the same rows give the same answer.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, exists, func, or_, select

from urlward.assignments.formats import NAMES_ALL, TELLS_ENDS
from urlward.assignments.interval import (
    BEGINS_AGAIN,
    FOREVER,
    MOST_APART,
    SECOND,
    SESSIONS_APART,
    Ending,
    Interval,
    Place,
    SightingSource,
    length_of,
    place_of,
    places_of,
)
from urlward.assignments.schema import (
    assignments,
    cells_at,
    cells_from,
    current,
    files,
    gaps,
    holds,
    lengths,
    sources,
)

type Found = tuple[Table, Row[Any]]

_MANY = 2_000
_BACK = 26 * 3_600_000
"""The most that readings of a time are apart, in ms: a day, and what the clock is put back by in it."""
_MOST_CELLS = 1_000
_AHEAD = 3_600_000
"""Milliseconds in which who came next is looked for first."""
_OPEN = (Ending.NONE, Ending.EXPIRY, Ending.RELEASED, Ending.LATE, Ending.SECOND)
"""Kinds of ends of what another's beginning ends."""
_SILENT = 25 * 3_600_000
"""Milliseconds without a word after which a session that had updates may be over: they come each few minutes,
or once a day (RFC 2869, section 5.16)."""
_KEPT = (Ending.RELEASED, Ending.LATE)
"""Those of them that it does not make certain."""


@dataclass(slots=True, eq=False)
class _Stay:
    """Stay of a subscriber at a place."""

    source: int
    place: Place
    network: str
    ports: tuple[int, int]
    start: int
    first: int
    seen: int
    end: int
    ending: Ending
    subscriber: str
    session: str
    moved: bool
    lane: int | None
    shown: int
    """When it was last said, as is told to users."""
    since: int
    file: int
    """Which has it, or 0: when it was found last then."""
    read: int
    sure: int
    """Up to when it is certain, where nothing but what followed tells that it ended."""
    fixed: bool = False
    """Whether it is as it says, whatever else does."""
    is_end_alone: bool = False
    """Whether nothing but its end was said of it."""
    void: bool = False

    @property
    def key(self) -> tuple[int, Place, str, int]:
        return self.source, self.place, self.network, self.ports[0]

    @property
    def is_whole(self) -> bool:
        return self.ending == Ending.TOLD

    @property
    def quiet(self) -> int:
        """Milliseconds for which nothing need be said of a session that goes on."""
        return _SILENT if self.seen > self.first + BEGINS_AGAIN else FOREVER

    def begin_with(self, start: int) -> None:
        """Take in another beginning of the same."""
        self.start = min(self.start, start)
        self.since = self.first if self.moved else self.start

    def is_same(self, other: "_Stay") -> bool:
        """Whether both are of one session, or else of one beginning."""
        if self.session != other.session:
            return False
        if not self.session:
            return self.subscriber == other.subscriber and self.start == other.start
        named = self.subscriber == other.subscriber or self.is_end_alone or other.is_end_alone
        return named and abs(self.start - other.start) <= SESSIONS_APART


type _Span = tuple[_Stay, int, int, Ending]
"""From when, until when, and how that end is known."""


def _until_said(one: _Stay, since: int, said: int, end: int) -> list[_Span]:
    """Spans of a stay whose end is not told: it is certain up to when it was last said, and in doubt from
    then on. What is said in a second is so in all of it."""
    sure = min(max(since, said + SECOND), end)
    spans = [(one, since, sure, Ending.SAID), (one, sure, end, Ending.SILENT)]
    return [span for span in spans if span[1] < span[2]]


type _End = Row[Any]
"""Row of an end that was read without its beginning; that of a session may say when it began, else 0."""


def _stay(table: Table, row: Row[Any]) -> _Stay:
    ending, first = Ending(row.ending), row.start + abs(row.late) * SECOND
    if table is current:
        seen, shown, lane, file, read = row.seen, row.seen, row.lane, row.file, row.read
        sure = seen
    else:
        seen = row.end if ending == Ending.TOLD else row.end - row.unsaid * SECOND if row.unsaid else first
        shown, lane, file, read = 0, None, 0, 0
        sure = seen if row.unsaid else row.end  # an earlier urlward has not noted it
    is_open = ending in _OPEN if table is current else ending in (Ending.TOLD, Ending.NEXT)
    return _Stay(
        row.source, row.place, row.network, (row.first_port, row.last_port), row.start,
        min(first, row.end), seen, row.end, ending, row.subscriber, row.session, row.late < 0, lane, shown,
        min(first, row.end) if row.late < 0 else row.start, file, read, sure, not is_open,
        ending == Ending.TOLD and row.late > 0 and first >= row.end + SECOND,
    )  # fmt: skip


def _begun(row: Row[Any]) -> int:
    """From when what has ended was a subscriber's, in ms."""
    return int(row.start - min(row.late, 0) * SECOND)


def _server_of(session: str) -> str:
    """What the names of all sessions of the same server begin with."""
    return session.partition("/")[0] + "/"


def is_held(connection: Connection, address: str, port: int | None, since: int, until: int) -> bool:
    """Whether whoever had an address, and a port of it, in a span of time (in ms) is held, and was before
    any of them was deleted."""
    near = holds.c.at.between(until - MOST_APART, since + MOST_APART)
    mine = and_(holds.c.address == place_of(address)[1], holds.c.port.in_((0, port or 0)), near)
    in_time = holds.c.purged <= holds.c.at - MOST_APART - SECOND
    return bool(connection.scalar(select(exists().where(mine, in_time))))


class Lookup:
    """Lookup of an address, and a port where one is given, in a span of time: the rows that its answer rests
    on, and the intervals that they come to."""

    def __init__(
        self, connection: Connection, address: str, port: int | None, since: int, until: int
    ) -> None:
        """Look it up.

        Raises:
            ValueError: not an address.
        """
        self._connection, self._port, self._since, self._until = connection, port, since, until
        self._asked_for = address, port, since, until
        self._places = places_of(address, connection.scalars(select(lengths.c.length)))
        self.rows: dict[Found, None] = {}
        self._asked: set[tuple[str, Any]] = set()
        self._formats: dict[int, str] = {}
        self._lanes: dict[int, dict[int, int]] = {}
        """Up to when each lane of each source tells, in ms; as `_formats`, asked for where it is needed."""
        self._add(assignments, self._here(assignments, since, until))
        waits = and_(current.c.lane < 0, current.c.start <= until)
        self._add(current, or_(self._here(current, since, until), and_(self._at(current), waits)))
        for start in {row.start for _, row in self.rows if row.ending == Ending.ORDER}:
            for table in (assignments, current):
                near = self._here(table, start - _BACK, start + _BACK)
                self._add(table, and_(near, table.c.ending == int(Ending.ORDER)))
        self._resolver = self._resolve()

    def intervals(self) -> list[Interval]:
        """What was in force at some time of it, in order."""
        known = {row.id: row for row in self._connection.execute(select(sources))} if self.rows else {}
        purged = {one.id: one.purged for one in known.values()}
        whole = {one.id for one in known.values() if one.format in ("csv", "radacct")}
        which = select(files.c.id, files.c.source, files.c.read).where(files.c.source.in_(whole))
        reads = {row.id: row for row in self._connection.execute(which)} if whole else {}
        renewed = {row.source: row.read for row in reads.values() if known[row.source].format == "radacct"}

        def read(one: _Stay) -> int:
            # What a later export leaves out, or the table has no more, may have ended since.
            by = known[one.source]
            if by.id not in whole or one.lane is None or one.read >= renewed.get(by.id, FOREVER):
                return int(by.read)
            return int(min(by.read, reads[one.file].read if one.file in reads else one.read))

        def silent(span: _Span) -> list[_Span]:
            # It had updates, and has none for long, though its source is read on.
            one, since, end, ending = span
            names_all = known[one.source].format in NAMES_ALL
            if ending != Ending.NONE or not names_all or read(one) < one.seen + one.quiet:
                return [span]
            return _until_said(one, since, one.seen, end)

        if any(purged.values()) and is_held(self._connection, *self._asked_for):
            purged = dict.fromkeys(purged, 0)  # all that answers for it is there
        found = {
            Interval(
                one.network, one.ports, since, end, one.shown,
                self._known(one, end, ending, purged[one.source]), one.subscriber, one.session,
                SightingSource(one.source, by.name, by.format, by.path, read(one)),
            ): None
            for one, since, end, ending in itertools.chain.from_iterable(map(silent, self._resolver.spans))
            if (by := known[one.source]) and one.place in self._places
            if self._port is None or one.ports[0] <= self._port <= one.ports[1]
            if (since <= self._until and end > self._since) or ending == Ending.ORDER
        }  # fmt: skip
        return sorted(found, key=lambda one: one.start)

    def _known(self, one: _Stay, end: int, ending: Ending, purged: int) -> Ending:
        """How an end is known: where something that was read elsewhere is deleted, its own may be, too."""
        may_be = one.seen < purged < end and ending in (*_OPEN, Ending.NEXT, Ending.RESTARTED)
        return Ending.LATE if may_be and self._formats and self._is_left(one) else ending

    def _at(self, table: Table) -> ColumnElement[bool]:
        which: list[ColumnElement[bool]] = [table.c.place.in_(list(self._places))]
        if self._port is not None:
            which += [table.c.first_port <= self._port, table.c.last_port >= self._port]
        return and_(*which)

    def _here(self, table: Table, since: int, until: int) -> ColumnElement[bool]:
        """Rows of the address in force at some time from one to another, both included."""
        there = and_(self._at(table), table.c.start <= until, table.c.end > since)
        return and_(there, _in_cells(since, until)) if table is assignments else there

    def _add(
        self, table: Table, which: ColumnElement[bool], *, wants: Callable[[Row[Any]], bool] | None = None
    ) -> list[Row[Any]]:
        """Add rows; returns them."""
        found = [
            row
            for row in self._connection.execute(select(table).where(which))
            if self._places.get(row.place, row.network) == row.network and (wants is None or wants(row))
        ]
        self.rows |= dict.fromkeys((table, row) for row in found)
        return found

    def _resolve(self) -> "_Resolver":
        """Resolve the rows, and look for what is missing, until nothing is."""
        while True:
            before = len(self.rows)
            stays = [
                _stay(table, row)
                for table, row in self.rows
                if row.ending not in (Ending.OWN, Ending.RESTARTED)
            ]
            loose = [one for one in stays if not one.fixed and (not one.is_whole or one.is_end_alone)]
            here = [one for one in loose if one.place in self._places]
            if (
                here
                or any(row.ending == Ending.OWN for _, row in self.rows)
                or any((one.session and one.start < one.since) or one.first > one.start for one in stays)
            ):
                if not self._formats:
                    self._know_lanes()
                self._add_of_sessions(
                    [one for one in stays if one.session and not (one.is_whole and one.first <= one.start)]
                )
                self._add_near(here)
                self._add_at_ends()
                self._add_behind(here)
                if len(self.rows) > before:
                    continue  # what is added may ask for more
            there = [row for _, row in self.rows if row.ending in (Ending.OWN, Ending.RESTARTED)]
            open_gaps = self._connection.execute(select(gaps)).all() if there else []
            resolver = _Resolver(self.rows, self._formats, open_gaps, self._lanes)
            if not self._add_before(resolver):
                return resolver

    def _know_lanes(self) -> None:
        self._formats = {row.id: row.format for row in self._connection.execute(select(sources))}
        which = files.c.source, files.c.lane
        for source, lane, last in self._connection.execute(
            select(*which, func.max(files.c.last)).group_by(*which)
        ):
            self._lanes.setdefault(source, {})[lane] = last

    def _once(self, what: str, which: Iterable[Any]) -> list[Any]:
        """Those of which that has not been asked yet."""
        new = [one for one in dict.fromkeys(which) if (what, one) not in self._asked]
        self._asked |= {(what, one) for one in new}
        return new

    def _add_of_sessions(self, stays: Sequence[_Stay]) -> None:
        """Add what else is said of some sessions, and of their servers."""
        names = self._once("session", ((one.source, one.session) for one in stays))
        whole = {(source, _server_of(name)) for source, name in names}
        by_source: dict[int, list[str]] = {}
        for source, name in {*names, *whole}:
            by_source.setdefault(source, []).append(name)
        for source, some in by_source.items():
            for part in batched(some, _MANY):
                self._add(current, and_(current.c.source == source, current.c.session.in_(part)))
        # What has ended at other places is found by when the session began.
        lost = [one for one in stays if self._is_left(one) or one.first > one.since]
        lost = [one for one in lost if self._formats[one.source] in NAMES_ALL]
        wanted = self._once("scan", ((one.source, one.session, one.start) for one in lost))
        for source in {source for source, *_ in wanted}:
            mine = [(session, start) for its, session, start in wanted if its == source]
            for few in batched(mine, _MANY):
                named = assignments.c.session.in_({session for session, _ in few})
                its = and_(assignments.c.source == source, named)
                starts = (cells_from(at - SESSIONS_APART, at + SESSIONS_APART, FOREVER) for _, at in few)
                self._add_in(starts, its)

    def _is_left(self, one: _Stay) -> bool:
        """Whether something may have been said of what has no end behind what its lane has."""
        if one.is_whole:
            return False
        lanes = self._lanes.get(one.source, {})
        return (one.lane is not None and one.lane < 0) or (
            any(last > one.seen for lane, last in lanes.items() if lane != one.lane) and len(lanes) > 1
        )

    def _add_near(self, stays: Sequence[_Stay]) -> None:
        """Add what is of the same session or subscriber, and of the same beginning, and has ended."""
        wanted = self._once(
            "near", ((one.place, one.ports[0], one.subscriber, one.session, one.start) for one in stays)
        )
        if not wanted:
            return
        names = {(place, port, session or subscriber) for place, port, subscriber, session, _ in wanted}
        places = assignments.c.place.in_({place for place, *_ in wanted})

        def wants(row: Row[Any]) -> bool:
            return (row.place, row.first_port, row.session or row.subscriber) in names

        starts = (cells_at(start - SESSIONS_APART, start + SESSIONS_APART) for *_, start in wanted)
        self._add_in(starts, places, wants=wants)

    def _add_in(
        self,
        cells: Iterable[Iterable[range]],
        which: ColumnElement[bool],
        *,
        wants: Callable[[Row[Any]], bool] | None = None,
    ) -> None:
        """Add rows in some cells."""
        numbers = {cell for ranges in cells for some in ranges for cell in some}
        for some in batched(sorted(numbers), _MOST_CELLS):
            self._add(assignments, and_(assignments.c.cell.in_(some), which), wants=wants)

    def _add_at_ends(self) -> None:
        """Add who had it as an end without a beginning was."""
        ends = [row for _, row in self.rows if row.ending == Ending.OWN and row.place in self._places]
        behind = (row.end - 1 for row in ends if not row.session and row.end > self._since)
        times = sorted(self._once("end", behind))

        def wants(row: Row[Any]) -> bool:
            first = bisect_left(times, row.start)
            return first < len(times) and bool(times[first] < row.end)

        self._add_in((cells_at(at, at) for at in times), self._at(assignments), wants=wants)

    def _add_behind(self, stays: Iterable[_Stay]) -> None:
        """Add who came next, where the lane that each is of need not tell."""
        places: dict[object, list[_Stay]] = {}
        for one in stays:
            is_left = self._is_left(one) and min(one.end - 1, self._since) > one.seen
            if is_left and self._once("behind", [(one.key, one.seen)]):
                places.setdefault(one.key, []).append(one)
        for some in places.values():
            at, behind = 0, list[Row[Any]]()
            for one in sorted(some, key=lambda one: one.seen):
                mine = and_(
                    assignments.c.place == one.place,
                    assignments.c.first_port == one.ports[0],
                    assignments.c.source == one.source,
                )
                # What was looked for behind another of the same place is there.
                at, step, end = max(at, one.seen), _AHEAD, min(one.end - 1, self._since)
                behind = [row for row in behind if _begun(row) >= one.seen]
                while at <= end and not any(self._ends(row, one) for row in behind):
                    until = min(at + step, end)
                    there = and_(_in_cells(at, until), mine)
                    behind += self._add(
                        assignments, and_(there, assignments.c.start <= until, assignments.c.end > at)
                    )
                    at, step = until + 1, step * 4

    @staticmethod
    def _ends(row: Row[Any], one: _Stay) -> bool:
        """Whether what has ended ends a stay, as another's that began behind it."""
        is_own = one.session != "" and row.session == one.session
        return _begun(row) >= one.seen and row.ending in (Ending.TOLD, Ending.NEXT) and not is_own

    def _add_before(self, resolver: "_Resolver") -> int:
        """Add whom beginnings that are none have ended."""
        before = len(self.rows)
        for one in resolver.void:
            for at in {one.since, one.first}:
                if one.place in self._places and self._once("before", [(one.key, at)]):
                    mine = and_(
                        assignments.c.place == one.place,
                        assignments.c.end == at,
                        assignments.c.ending == int(Ending.NEXT),
                    )
                    self._add(assignments, and_(_in_cells(at - 1, at - 1), mine))
        return len(self.rows) - before


class _Resolver:
    """Resolver: what rows come to."""

    def __init__(
        self,
        rows: Iterable[Found],
        formats: Mapping[int, str],
        open_gaps: Sequence[Row[Any]],
        lanes: Mapping[int, Mapping[int, int]],
    ) -> None:
        self._formats, self._gaps, self._lanes = formats, open_gaps, lanes
        self.spans: list[_Span] = []
        self.void: list[_Stay] = []
        self._answered: set[_End] = set()
        self._restarts: dict[tuple[int, str], list[int]] = {}
        self._offs: set[tuple[int, str, int]] = set()
        """Those of them that were told beforehand."""
        ends: list[_End] = []
        stays: list[_Stay] = []
        for table, row in rows:
            if row.ending == Ending.RESTARTED:
                self._restarts.setdefault((row.source, row.session), []).append(row.start)
                if row.subscriber:
                    self._offs.add((row.source, row.session, row.start))
            elif row.ending == Ending.OWN:
                ends.append(row)
            else:
                stays.append(_stay(table, row))
        for one in stays:
            if one.fixed:
                until = one.end
                if one.ending == Ending.DOUBT and one.session:
                    # It ended before another's session began there.
                    begun = (each.since for each in stays if each.key == one.key and not each.fixed)
                    until = min([until, *(at for at in begun if at > one.start)])
                self._show(one, one.start, until, one.ending)
        keys: dict[object, list[_Stay]] = {}
        for one in stays:
            if not one.fixed:
                keys.setdefault(one.key, []).append(one)
        self._void_again(keys)
        merged = {key: self._merged([one for one in some if not one.void]) for key, some in keys.items()}
        sessions: dict[tuple[int, str], list[_Stay]] = {}
        for one in itertools.chain(*merged.values()):
            if one.session and not one.void and formats.get(one.source) in NAMES_ALL:
                sessions.setdefault((one.source, one.session), []).append(one)
        for some in sessions.values():
            others = {key: [each for each in some if each.key != key] for key in {one.key for one in some}}
            for one in some:
                self._move(one, others[one.key])
        for some in merged.values():
            self._end([one for one in some if not one.void], ends)
        for end in {*ends} - self._answered:
            self._miss(end, merged.get((end.source, end.place, end.network, end.first_port), []))
        self._void_again(merged)
        for some in merged.values():
            self._order([one for one in some if not one.void])
        self.spans = [span for span in self.spans if not span[0].void]

    def _show(self, one: _Stay, since: int, end: int, ending: Ending) -> None:
        if ending == Ending.NEXT and end < one.seen + one.quiet:
            was_told = (one.source, _server_of(one.session), end) in self._offs
            ending = Ending.RESTARTED if was_told else ending
        if ending == Ending.NEXT and self._tells_ends(one) and one.sure + SECOND < end:
            self.spans += _until_said(one, since, one.sure, end)
        elif since < end:
            self.spans.append((one, since, end, ending))

    def _tells_ends(self, one: _Stay) -> bool:
        return self._formats.get(one.source) in TELLS_ENDS

    @staticmethod
    def _merged(stays: list[_Stay]) -> list[_Stay]:
        """Stays of a place, those without an end of the same session as one."""
        found: list[_Stay] = []
        alike: dict[object, list[_Stay]] = {}
        for one in sorted(stays, key=lambda one: (one.first, one.start, one.seen)):
            if one.is_whole:
                found.append(one)
                continue
            same = alike.setdefault((one.ports, one.session or (one.subscriber, one.start)), [])
            other = next(
                (
                    each
                    for each in reversed(same)
                    if each.is_same(one) and (not one.moved or one.first <= each.seen)
                ),
                None,
            )
            if other is None:
                found.append(one)
                same.append(one)
                continue
            other.begin_with(one.start)
            last, before = (one, other) if one.seen >= other.seen else (other, one)
            if not (before.ending == Ending.NEXT and last.ending != Ending.NEXT and last.seen <= before.end):
                before = last
            other.end, other.ending = before.end, before.ending
            other.seen, other.shown = max(one.seen, other.seen), max(one.shown, other.shown)
            other.sure = max(one.sure, other.sure)
            if other.lane is not None and (one.lane is None or other.lane < 0):
                other.lane = one.lane
        return found

    def _end(self, stays: list[_Stay], ends: Sequence[_End]) -> None:
        """End stays of a place by their own ends, and by restarts."""
        whose: dict[object, list[_Stay]] = {}
        for one in stays:
            whose.setdefault((one.session, "" if one.session else one.subscriber), []).append(one)
        for end in sorted(ends, key=lambda end: end.end):
            there = whose.get((end.session, "" if end.session else end.subscriber), ())
            mine = [one for one in there if self._is_of(end, one)]
            self._answered |= {end} if mine else set()
            if any(one.is_whole and one.end == max(end.end, one.start + 1) for one in mine):
                continue
            for one in mine:
                if one.is_whole and not one.session and end.end < one.end:
                    # Its end is that of another of theirs, whose beginning was not read before it.
                    self._show(one, one.since, end.end, Ending.TOLD)
                    self._show(one, end.end, one.end, Ending.LATE)
                    one.start = one.first = one.since = one.end
            told = [one for one in mine if not one.is_whole]
            exact = [one for one in told if abs(one.start - end.start) <= SESSIONS_APART]
            if end.start and (exact or all(one.seen + BEGINS_AGAIN < end.start for one in told)):
                told = exact
            elif told:
                last = max(mine, key=lambda one: one.start)
                # What began in the same second did so behind it, if something is there that it ends.
                before = [one for one in mine if one.start < end.end] if last.start >= end.end else []
                if before and not (other := max(before, key=lambda one: one.start)).is_whole:
                    last = other
                told = [one for one in told if one is last or (one.session and one.is_same(last))]
                told = [one for one in told if not one.session or one.seen <= end.end]
            for one in told:
                if not one.session and one.seen > end.end:
                    # It began anew before its end was told.
                    self._show(one, one.since, end.end, Ending.TOLD)
                    self._show(one, end.end, one.seen, Ending.LATE)
                    one.start = one.first = one.since = one.seen
                    continue
                self._end_at(one, end.end, end.end - end.seen, knows=end.start > 0)
        for one in stays:
            for at in sorted(self._restarts_of(one)):
                is_before = one.start < at and one.seen <= at and not one.is_whole
                if is_before and (one.ending != Ending.NEXT or one.end >= at):
                    one.end, one.ending = at, Ending.NEXT  # its server may have been down for a while

    def _restarts_of(self, one: _Stay) -> Sequence[int]:
        """When the server of a stay's session restarted, in ms."""
        return self._restarts.get((one.source, _server_of(one.session)), ()) if one.session else ()

    @staticmethod
    def _is_of(end: _End, one: _Stay) -> bool:
        if end.source != one.source or one.start > end.end + (SESSIONS_APART if end.start else 0):
            return False
        if end.session:
            return bool(one.session == end.session)
        here = (end.place, end.network, end.first_port) == (one.place, one.network, one.ports[0])
        return here and not one.session and one.subscriber == end.subscriber

    def _miss(self, end: _End, stays: Sequence[_Stay]) -> None:
        """Show who has an end alone: its beginning may be in a gap, or others have had the port at once."""
        since = min((gap.since - 1 for gap in self._gaps if gap.source == end.source), default=FOREVER)
        ending = Ending.MISSED
        if since >= end.end and not end.session:
            since = max((one.since for one in stays if one.since < end.end <= one.end), default=FOREVER)
            ending = Ending.BESIDE
        for one in () if end.session else stays:
            # Whoever had it is not there any more, by that.
            if self._tells_ends(one) and one.seen < end.end <= one.end:
                one.end, one.ending = end.end, Ending.NEXT
        if end.network and since < end.end:
            one = _Stay(
                end.source, end.place, end.network, (end.first_port, end.last_port), since, end.end, end.seen,
                end.end, ending, end.subscriber, end.session, False, None, 0, since, 0, 0, end.end,
            )  # fmt: skip
            self._show(one, since, end.end, ending)

    def _end_at(self, one: _Stay, at: int, doubt: int, *, knows: bool) -> None:
        """End a stay at its own end, or up to so many ms before."""
        at = max(at, one.start + 1)
        # By its name alone it may be another, which began in a gap.
        crossed = (
            not knows
            and one.session
            and any(
                gap.source == one.source and gap.since < at and one.seen < gap.until for gap in self._gaps
            )
        )
        if one.ending == Ending.NEXT and one.end < at:
            one.sure = one.sure if crossed else one.end
            return
        if doubt > 0:
            self._show(one, max(one.since, at - doubt), at, Ending.DOUBT)
            at -= doubt
        one.end, one.ending = at, Ending.NEXT if crossed else Ending.TOLD

    def _void_again(self, merged: Mapping[object, list[_Stay]]) -> None:
        """Void what is told again of what has ended."""
        by_session: dict[object, list[_Stay]] = {}
        for key, stays in merged.items():
            for one in stays:
                by_session.setdefault((key, one.session, one.session or one.subscriber), []).append(one)
        for stays in by_session.values():
            ended = [one for one in stays if one.is_whole or (one.session and one.ending == Ending.NEXT)]
            for one in stays:
                for other in ended:
                    if other is not one and not one.void and not other.void and self._is_again(one, other):
                        one.void = True
                        self.void.append(one)
                        if other.is_end_alone and not one.is_end_alone:
                            other.subscriber = one.subscriber
                        if one.is_same(other) and one.first < other.first:
                            other.first, other.moved = one.first, one.moved
                            other.begin_with(one.start)

    def _is_again(self, one: _Stay, other: _Stay) -> bool:
        """Whether a stay says nothing that another of the same session, which has its end, does not."""
        if one.subscriber != other.subscriber and not (
            one.session and (one.is_end_alone or other.is_end_alone)
        ):
            return False
        if one.is_whole and not one.is_end_alone:
            if one.is_same(other):
                return one.end == other.end and one.first >= other.first
            if not one.session:
                return False
        said = one.end if one.is_whole else one.seen
        if not one.session:
            if one.is_whole:
                return False
            lanes = self._lanes.get(one.source, {})
            newest = max(lanes, key=lambda lane: (lanes[lane], -lane), default=0)
            is_again = one.lane == newest and other.end == other.start + 1  # within a second, in the same log
            return other.start <= one.start < other.end and said <= other.end and not is_again
        late = one.start - other.start
        between = any(other.start < at <= one.start for at in self._restarts_of(one))
        if one.is_whole and not other.is_whole:
            return False
        if abs(late) <= SESSIONS_APART:
            if not other.is_whole or (other.moved and other.first > said):
                return False  # else it had it again, after another
            return said <= other.end if not one.is_whole else abs(said - other.end) <= SESSIONS_APART
        if late < 0:
            return False
        # Of several that are told again the first says when it began, and the last when it was.
        if between:
            return False
        if one.start < other.end and said - late <= other.end + BEGINS_AGAIN:
            return True
        is_begun_again = one.start == one.first == one.seen and late <= BEGINS_AGAIN
        return other.is_whole and is_begun_again

    def _move(self, one: _Stay, others: Sequence[_Stay]) -> None:
        """Begin and end a stay by what its session had else."""
        kind = length_of(one.network)
        same = [each for each in others if abs(each.start - one.start) <= SESSIONS_APART]
        same = [each for each in same if each.subscriber == one.subscriber]
        mine, same = same, [each for each in same if length_of(each.network) == kind]
        said = sorted(
            {at for each in same for at in (each.first, each.seen if not each.is_end_alone else each.first)}
        )
        before = [at for at in said if at < one.first]
        if not one.moved and one.start < one.first and before:
            one.moved, one.since = True, one.first
            self._show(one, max(before), one.first, Ending.MOVED)
        if one.is_whole:
            return
        within = [at for at in said if one.first < at < one.seen]
        if within:
            self._show(one, one.since, one.first, one.ending)
            self._show(one, one.first, one.seen, Ending.MOVED)
            one.since = one.seen
        behind = [at for at in said if at > one.seen]
        if behind and min(behind) < one.end:
            self._show(one, max(one.seen, one.since), min(behind), Ending.MOVED)
            one.end, one.ending = max(one.seen, one.since), Ending.TOLD
            return
        # Its end at another place is its end.
        ended = max((each.end for each in mine if each.is_whole and each not in same), default=0)
        if ended >= one.seen:
            self._end_at(one, ended, 0, knows=True)

    def _order(self, stays: list[_Stay]) -> None:
        """End each stay of a place as the next one begins."""
        for one in stays:
            # It had it from its session's beginning on, but for what was another's after that.
            if not one.moved and one.session and one.start < one.first:
                others = [each for each in stays if each.session != one.session and each.since < one.first]
                # Of two of which the end alone was said neither was the other's for that.
                others = [each for each in others if not (one.is_end_alone and each.is_end_alone)]
                last = max(
                    (min(each.end if each.is_whole else each.seen, one.first) for each in others), default=0
                )
                if last > one.start:
                    one.moved, one.since = True, one.first
                    self._show(one, last, one.first, Ending.MOVED)
        order = sorted(stays, key=lambda one: (one.since, not one.is_whole, one.seen, one.end))
        gone = {at for one in self.void for at in (one.start, one.first) if stays and one.key == stays[0].key}
        for number, one in enumerate(order):
            if one.is_whole:
                self._show(one, one.since, one.end, one.ending)
                continue
            if one.ending == Ending.NEXT and one.end in gone:
                one.end, one.ending = FOREVER, Ending.NONE
            since = one.since
            for other in order[number + 1 :]:
                if other.since >= one.end:
                    break
                if other.since >= one.seen or other.since == since:
                    if other.since > since or one.ending != Ending.NEXT:
                        one.end = max(other.since, since + 1)
                        one.ending = one.ending if one.ending in _KEPT else Ending.NEXT
                    break
                if (other.end if other.is_whole else other.seen) <= one.seen:
                    # It is said to go on behind it.
                    self._show(one, since, other.since, Ending.NEXT)
                    last = other.end if other.is_whole else other.seen
                    self._show(one, last, one.seen, Ending.MOVED)
                    if not other.is_whole:
                        self._show(other, other.seen, one.seen, Ending.MOVED)
                        other.end = min(other.end, max(other.seen, other.since + 1))
                    since = one.seen
                else:
                    one.end = max(other.since, since + 1)
                    one.ending = Ending.NEXT
                    break
            self._show(one, since, one.end, one.ending)


def rows_in_force(
    connection: Connection, address: str, port: int | None, since: int, until: int
) -> list[Found]:
    """The rows that an answer rests on, with the tables that they are in.

    Raises:
        ValueError: not an address.
    """
    return [*Lookup(connection, address, port, since, until).rows]


def _in_cells(since: int, until: int) -> ColumnElement[bool]:
    return _cells(cells_at(since, until))


def _cells(cells: Sequence[range]) -> ColumnElement[bool]:
    if sum(map(len, cells)) <= _MOST_CELLS:
        return assignments.c.cell.in_([cell for some in cells for cell in some])
    return or_(*(assignments.c.cell.between(some.start, some.stop - 1) for some in cells))
