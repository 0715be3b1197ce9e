"""Merging of sightings, in the order of their times, into a source's intervals: renewals extend one, and the
next holder ends the last.

Sightings come in that order by and large. What begins before what is held, such as in the file of a reader
that lags behind, is merged beside it. Two readers may have one source: who finds that the other has written
looks again at what is held.

Two sightings that began in the hour that the clock showed twice came in an order that their times do not
tell. Neither is taken for the one that came last, until something is said of one of them at a time that is
certain.

What may be otherwise for what is in a gap (`Gap`) is kept so that it can be told: an end without a beginning,
which may have been in it (`Ending.MISSED`). Once the rest is read, after what followed it, both are brought
together (`Merger.settle`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    SECOND,
    SESSIONS_APART,
    UP_TO_A_GAP,
    Ending,
    Place,
    Sighting,
    SightingKind,
    length_of,
)
from urlward.assignments.store import AssignmentStore, Beginning, Changes, Gap, Held, Key, KeyRange, ended_row

_MOST_KEPT = 300_000
_MOST_ENDS = 100_000
_MOST_FOLLOWED = 8

(
    _HELD, _ENDED, _RELEASED, _WHOLE_KIND, _RESTARTED, _PERHAPS, _DECLINED, _STOPPED, _OVER,
) = map(int, SightingKind)  # fmt: skip

LATE = 60_000
"""Milliseconds by which what a log says first may be of before what the one before it said last."""

_BEGINS_AGAIN = 60_000
"""Milliseconds for which a server without an answer goes on to tell it that a session begins (RFC 5080 has 30
s), and gives none the same name."""
_RESTART = -1
"""In place of by how much an end may have been before: behind it the server begins to count anew."""

_UNSURE = (Ending.SECOND, Ending.ORDER)
_SAID = (Ending.ORDER, Ending.DECLINED, Ending.LATE, Ending.RELEASED, *UP_TO_A_GAP)
"""Kinds of ends that another's beginning does not make certain."""
_NETWORK, _LAST, _START, _END, _SEEN, _ENDING, _SUBSCRIBER, _SESSION = range(8)


class Merger:
    """Merger: one source's current assignments, updated by sightings in order."""

    def __init__(
        self, store: AssignmentStore, source: int, *, tells_once: bool = True, names_all: bool = False
    ) -> None:
        """Start with what the store has.

        Args:
            store: where to.
            source: its id.
            tells_once: whether an end is read once, as in a log; else what has ended is told again and again.
            names_all: whether what is said of a session at a time names all addresses that it has of a kind,
                as accounting does.
        """
        self._store = store
        self._source = source
        self._tells_once = tells_once
        self._names_all = names_all
        self.rows: int | None = None
        """Of the source, by which it is known whether somebody else writes to it."""
        self._had_rows = False
        self._held: dict[Key, Held | None] = {}
        self._sessions: dict[str, set[Key]] = {}
        self._looked_up: set[str] = set()
        """Sessions of which all is here that the store has."""
        self._ends: dict[tuple[Key, str, str], tuple[int, int, int]] = {}
        """Beginnings and ends of late, and by how much these may have been before, by whose they are and by
        which session. A session's end may name them still; and what was said before is told again by servers
        that had no answer, and by two collectors."""
        self._last_ends: dict[Key, int] = {}
        """When something of a key has ended last, in ms, as is read here: what is said only then of a time
        before may have ended, too."""
        self._late: dict[Key, Held] = {}
        """What was said of a time before what is held, and has no end yet; it is in doubt, and written so."""
        self._written: dict[Key, tuple[Any, ...]] = {}
        self._followed: dict[tuple[Key, str], list[Held]] = {}
        """What another's beginning has ended, by its session, or else whose it was, of each the last few. Its
        own end may be read behind it: told late, or in an export that has the newest first."""
        self._across: dict[Key, list[Held]] = {}
        """What another's beginning has ended, and began before a gap, or in it."""
        self._filled = 0, 0
        """Span of the gaps that are filled, in ms."""
        self._behind: dict[Key, list[Held]] = {}
        """What has ended and began in them, as is told behind them."""
        self._were: dict[str, int] = {}
        """When something was said last of sessions that were there before, in ms; or when the first of them
        began."""
        self._denied: dict[int, tuple[Key, Held, int]] = {}
        """What sessions had in them by what is told on both sides, and had not by what is told in them."""
        self._told: dict[tuple[Key, str], bool] = {}
        """Keys that sessions had in them, as is read now, and whether that is what is told behind them."""
        self._begun: dict[tuple[Key, str, str], tuple[int, int]] = {}
        """How many of whose beginnings another's has followed, or one of their own, and when the first was,
        in ms: where a port is several subscribers' at once, their ends come yet."""
        self._not_so: set[tuple[Any, ...]] = set()
        """Keys of rows of these, whose end is another; they are written already, or about to be."""
        self._perhaps: tuple[Key, int, str] | None = None
        """Whose span in doubt was the last, and its end."""
        self._back = 0
        """How long that was: by how much the clock was put back, in ms."""
        self.gaps: list[Gap] = []
        """Those of the source that are open."""
        self.anew: list[Gap] = []
        """Those of its files of leases, in order."""
        self._again: dict[Beginning, tuple[int, int]] = {}
        """Beginnings and ends of what has begun as is said of a batch, and is known not to be held any
        more."""
        self.told_until = 0
        """Up to when what was read before tells, in ms: what is said of a time before may be told again."""
        self.goes_on = 0
        """Up to when what was read of the same log before tells, in ms: more of that second may follow."""
        self.late_until = 0
        """Up to when what is read was written before what is known already, in ms, where it fills a gap, or
        the next log was read before, or what had ended is deleted."""
        self._lasted: dict[tuple[str, str], tuple[int, int]] = {}
        """When something was said last of whose sessions, and how long they lasted by then, in ms."""
        self.changes = Changes()

    def begin(self) -> None:
        """Note how much of the source is read, so that it is noticed where another reads on from here."""
        if self.rows is None:
            self.rows, purged = self._store.rows(self._source)
            self._had_rows = self.rows > 0
            if self._tells_once:  # what ended before is deleted, and so is not known to have
                self.late_until = max(self.late_until, purged)

    def take(self, sightings: Sequence[Sighting]) -> None:
        """Take in a batch; `changes` has then what is to be written."""
        self.begin()
        self._load(sightings)
        if self._tells_once and self._had_rows:
            self._look_back(sightings)
        for sighting in self._each(sightings) if self._names_all else sightings:
            if sighting[9] == _RESTARTED:
                self._end_sessions(sighting[8], sighting[4])
            elif sighting[9] == _STOPPED:
                if not self._end_session(sighting[8], sighting[4], sighting[4] - sighting[6]):
                    ended = ["", LAST_PORT, 0, sighting[4], 0, Ending.TOLD, "", sighting[8]]
                    self._miss((0, 0), ended, self.gaps)
            else:
                self._take(sighting)

    def _each(self, sightings: Iterable[Sighting]) -> Iterator[Sighting]:
        """Sightings, as each is to be taken once the one before is.

        What a session has, and had not when something was said of it last, it has from now on: all that the
        record says is when the session began.
        """
        for (session, seen, said, _), record in groupby(sightings, key=itemgetter(8, 6, 9, 4)):
            some = [*record]
            if session and said in (_HELD, _ENDED):
                if said == _ENDED:
                    some = self._named(some)
                elif seen >= self._filled[1]:
                    some = [one for one in some if not self._was_over(one, _BEGINS_AGAIN)]
                # What is over may be of one that had the name before, which lasted longer.
                if not some or self._is_outdated(some[0]):
                    continue
                there = self._others(some)
                last = max((held[_SEEN] or held[_START] for held in there.values()), default=seen)
                self._end_moved(some, there)
                if not there and self._filled[0] <= seen < self._filled[1]:
                    there = self._denied_by(some)
                    begun = [there.get((one[0], one[2]), [0, 0, one[4]])[_START] for one in some]
                    some = [(*one[:4], start, *one[5:]) for one, start in zip(some, begun, strict=True)]
                    last = min(self._were.get(session, seen), seen)
                    self._were[session] = seen
                if last < seen:
                    some = [*self._begun_later(some, there, last)]
                if seen < self._filled[1]:
                    some = [
                        one for one in some if not self._told.setdefault(((one[0], one[2]), session), False)
                    ]
            yield from some

    def _is_outdated(self, sighting: Sighting) -> bool:
        """Whether a session is told to go on with no more than it had lasted by what was read of it before: a
        server tells it again, or late, and does not say so."""
        _, _, _, _, start, _, seen, subscriber, session, said = sighting
        last, lasted = self._lasted.get((subscriber, session), (0, 0))
        if seen <= last:
            return False
        is_same = start + SESSIONS_APART < last  # else one by the same name, or counted anew
        if said == _HELD and is_same and seen - start <= lasted and last + SESSIONS_APART < seen:
            return True
        self._lasted[subscriber, session] = seen, max(seen - start, lasted if is_same else 0)
        return False

    def _named(self, record: list[Sighting]) -> list[Sighting]:
        """A session's end, by the name that the session has: an end need not have what it was taken from."""
        _, _, _, _, start, _, _, subscriber, session, _ = record[0]
        names = {
            one[_SUBSCRIBER]
            for key in self._sessions.get(session, ())
            for one in (self._held.get(key), self._late.get(key), *self._followed.get((key, session), ()))
            if one and one[_SESSION] == session and start <= one[_START] + SESSIONS_APART
        }
        if subscriber in names or len(names) != 1:
            return record
        (name,) = names
        return [(*one[:7], name, *one[8:]) for one in record]

    def _others(self, record: Sequence[Sighting]) -> dict[Key, Held]:
        """What a session has, as was said before a record of it; or had, where another's has begun there."""
        _, _, _, _, start, _, seen, subscriber, session, _ = record[0]
        keys = self._sessions.get(session, ())
        had = [(key, one) for key in keys for one in self._followed.get((key, session), ())]
        had += [(key, one) for key in keys for of in (self._held, self._late) if (one := of.get(key))]
        return {
            key: one
            for key, one in had
            if (one[_SUBSCRIBER], one[_SESSION]) == (subscriber, session)
            # Else it is of another by the same name.
            if start <= one[_START] + SESSIONS_APART and one[_SEEN] < seen and start > 0
            if one[_ENDING] != Ending.NEXT or one[_END] <= seen
        }

    def _denied_by(self, record: Sequence[Sighting]) -> dict[Key, Held]:
        """What a session has by what is told on both sides of a gap, at a record in it, which may deny it."""
        keys, kinds = {(one[0], one[2]) for one in record}, {length_of(one[1]) for one in record}
        _, _, _, _, start, _, seen, subscriber, session, _ = record[0]
        there = {}
        for key in self._sessions.get(session, ()):
            for one in (*self._behind.get(key, ()), self._held.get(key)):
                if one is None or (one[_SUBSCRIBER], one[_SESSION]) != (subscriber, session):
                    continue
                if 0 < start <= one[_START] + SESSIONS_APART and length_of(one[_NETWORK]) in kinds:
                    if one[_START] <= self._filled[0]:
                        self._were.setdefault(session, self._filled[0])
                    if one[_START] <= seen < one[_END]:
                        there[key] = one
                        if key not in keys:
                            self._denied[id(one)] = key, one, seen
        return there

    def _deny(self) -> dict[tuple[Key, str, int], Held]:
        """Put in doubt what is denied; returns, by its key, session and beginning, when it is certain again,
        or over, as a row that begins then."""
        left = {}
        for key, one, last in self._denied.values():
            held, was = self._held.get(key), (key, one[_SESSION], one[_START])
            if not one[_START] <= last < one[_END] or (one is not held and one[_END] == FOREVER):
                continue  # it is known better by now
            before, perhaps = [*one], [*one]
            before[_END] = perhaps[_START] = max(one[_START], self._filled[0])
            before[_ENDING], perhaps[_ENDING] = Ending.TOLD, Ending.MOVED
            if one is held:
                perhaps[_END] = one[_START] = one[_SEEN]
                self._hold(key, one)
            else:
                self._undo(key, one)
            self._end(key, before)
            self._end(key, perhaps)
            left[was] = [*one]
            # Where another's beginning ended it, nobody need have told that it had it behind the gap.
            left[was][_START] = perhaps[_END] if one[_ENDING] != Ending.NEXT else FOREVER
        self._denied = {}
        return left

    def _end_moved(self, record: Sequence[Sighting], there: Mapping[Key, Held]) -> None:
        """End what a session has no more by a record of it, in which another of its kind is."""
        keys, kinds = {(one[0], one[2]) for one in record}, {length_of(one[1]) for one in record}
        seen, subscriber, session = record[0][6:9]
        for key, held in there.items():
            if key in keys or length_of(held[_NETWORK]) not in kinds:
                continue
            self._ends[key, subscriber, session] = held[_START], seen, 0
            if held is self._late.get(key):
                self._end_late(key, held, seen, Ending.TOLD, seen - held[_SEEN], Ending.MOVED)
            elif held is self._held.get(key):
                held[_END], held[_ENDING] = seen, Ending.TOLD
                self._end_within(key, held, seen - held[_SEEN], Ending.MOVED)
                self._drop(key)
            elif (doubt := held[_END] - max(held[_SEEN], held[_START] + 1)) > 0 < held[_SEEN]:
                # Whoever took it may have found it free.
                self._followed[key, session].remove(held)
                self._not_so.add(ended_row(self._source, *key, held)[:3])
                self._end_within(key, held, doubt, Ending.MOVED)

    def _begun_later(
        self, record: Sequence[Sighting], there: Mapping[Key, Held], last: int
    ) -> Iterator[Sighting]:
        """A record, of whose session something was said at an earlier time, without what is new in it."""
        for sighting in record:
            place, network, first, port, start, end, seen, subscriber, session, said = sighting
            had = there.get((place, first))
            if (had is not None and had[_END] > seen) or start >= seen:
                yield sighting
                continue
            self._end((place, first), [network, port, last, seen, 0, Ending.MOVED, subscriber, session])
            if self._is_behind(sighting):
                continue
            if said == _HELD:
                yield place, network, first, port, seen, end, seen, subscriber, session, said
            else:
                yield 0, "", 0, LAST_PORT, seen, seen, seen, "", session, _STOPPED

    def _is_behind(self, sighting: Sighting) -> bool:
        """Whether a session goes on having behind a gap what it is told to have for the first time: as is
        said there it had it from its own beginning on, and now it is known since when."""
        place, _, first, _, start, _, seen, subscriber, session, _ = sighting
        key = (place, first)
        if seen >= self._filled[1] or self._told.get((key, session)) is not None:
            return False

        def is_it(one: Held) -> bool:
            is_same = (one[_SUBSCRIBER], one[_SESSION]) == (subscriber, session)
            return is_same and one[_START] > self._filled[0] and abs(one[_START] - start) <= SESSIONS_APART

        held, ended = self._held.get(key), [one for one in self._behind.get(key, ()) if is_it(one)]
        if held is not None and is_it(held):
            held[_START] = seen
            self._hold(key, held)
        elif ended:
            self._not_so.add(ended_row(self._source, *key, ended[0])[:3])
            ended[0][_START] = seen
            self._end(key, ended[0])
        else:
            return False
        self._told[key, session] = True
        return True

    def _end_sessions(self, beginning: str, at: int) -> None:
        """End the sessions whose name begins so."""
        held = {key: held for key, held in self._held.items() if held is not None}
        stored = self._store.sessions(self._source, beginning)
        for key, one in {**{k: v for k, v in stored.items() if k not in self._held}, **held}.items():
            # Who restarts says so before it begins sessions.
            if one[_SESSION].startswith(beginning) and one[_START] < at:
                self._ends[key, one[_SUBSCRIBER], one[_SESSION]] = one[_START], at, _RESTART
                one[_END] = min(one[_END], _after(one[_START], at))
                one[_ENDING] = Ending.NEXT if self._may_have_ended(one) else Ending.TOLD
                self._end_followed(key, one)  # its own end may be read yet
                self._drop(key)

    def finished(self) -> Changes:
        """The changes, which are not touched any more; new ones begin."""
        for key in self._late.keys() - self._written.keys():
            self._written[key] = ended_row(self._source, key[0], key[1], self._late[key])
            self.changes.ended.append(self._written[key])
        changes, self.changes = self.changes, Changes()
        if self._not_so:
            changes.ended = [row for row in changes.ended if row[:3] not in self._not_so]
            changes.undone += self._not_so
            self._not_so = set()
        changes.after = self.rows
        if self.rows is not None:
            self.rows += changes.rows
        changes.held = {key: [*held] for key, held in changes.held.items()}
        if len(self._held) > _MOST_KEPT:
            # What is about to be written cannot be read from the store yet.
            denied = {key: one for key, one, _ in self._denied.values() if self._held.get(key) is one}
            self._held = {key: [*held] for key, held in changes.held.items()} | dict.fromkeys(changes.gone)
            self._held |= denied
            self._sessions, self._looked_up, self._late, self._written = {}, set(), {}, {}
            # What fills a gap looks at what was there before and is denied, and at what ended behind.
            behind = [(key, one) for key, some in self._behind.items() for one in some]
            for key, held in [*changes.held.items(), *denied.items(), *behind]:
                self._note(key, held)
        tables: tuple[dict[Any, Any], ...] = (
            self._ends, self._last_ends, self._followed, self._begun, self._lasted,
        )  # fmt: skip
        for told in tables:
            for whose in [*told][:-_MOST_ENDS]:
                del told[whose]
        return changes

    def _load(self, sightings: Iterable[Sighting]) -> None:
        keys = {(s[0], s[2]) for s in sightings if s[9] <= _WHOLE_KIND or s[9] in (_DECLINED, _OVER)}
        missing = keys - self._held.keys()
        if missing:
            known = self._store.held(self._source, {place for place, _ in missing})
            for key in missing:
                self._keep(key, known.get(key))
        # What ends has addresses that its end need not name.
        sessions = {s[8] for s in sightings if s[8] and s[9] in (_HELD, _ENDED, _STOPPED)} - self._looked_up
        self._looked_up |= sessions
        if sessions:
            for key, held in self._store.held(self._source, sessions).items():
                if key not in self._held:
                    self._keep(key, held)

    def _look_back(self, sightings: Iterable[Sighting]) -> None:
        """Look up what an earlier import has ended: what is said to be held again, such as in another
        collector's log, and what another's beginning has ended, and whose own end is read now."""
        ended = self._store.ended(self._source, set(self._told_again(sightings)))
        # What has no name may be over, and begin anew, within a second that the log is in the middle of.
        self._again = {
            one: (begun, end)
            for one, (begun, end) in ended.items()
            if one[2] or end > _after(one[3], 0) or one[3] != self.goes_on
        }
        begun: set[tuple[Key, str, str] | str] = set()
        ends: dict[tuple[Key, str, str], int] = {}
        stops: dict[str, int] = {}
        over: dict[Beginning, int] = {}
        for place, _, first, _, start, end, seen, subscriber, session, said in sightings:
            whose = (place, first), subscriber, session
            there = [held for key in self._sessions.get(session, ()) if (held := self._held.get(key))]
            there = [held for held in there if session and held[_SESSION] == session]
            if said in (_HELD, _ENDED) and session and self._names_all and 0 < start < seen and not there:
                # It may have had another address, which is another's by now.
                stops.setdefault(session, min(start + SESSIONS_APART, seen))
                if said == _ENDED and session not in begun:
                    over[*whose, start] = end
            if said == _HELD:
                begun |= {whose, session} if (*whose, start) not in self._again else set()
            elif said == _STOPPED and session not in begun and session not in stops:
                if not any(held[_START] <= end for held in there):
                    stops[session] = end
            elif said == _ENDED and whose not in begun and whose not in ends:
                held = self._held[place, first]
                if held is None or (held[_SUBSCRIBER], held[_SESSION]) != whose[1:] or held[_START] > end:
                    ends[whose] = end
        for one, (since, end) in self._store.ended(self._source, over, (Ending.TOLD,)).items():
            # An end that is told again is of a session that lasted as long.
            if abs(over[one] - one[3] - (end - since)) <= SESSIONS_APART:
                self._ends.setdefault(one[:3], (since, end, 0))
        for key, held in self._store.followed(self._source, ends, stops):
            known = self._followed.get((key, held[_SESSION] or held[_SUBSCRIBER]), ())
            if all(one[_START] != held[_START] for one in known):
                self._note_followed(key, held)
            self._note(key, held)

    def _told_again(self, sightings: Iterable[Sighting]) -> Iterator[Beginning]:
        """Beginnings that may have been read before: by their time, or as of a session is said later when it
        began."""
        for place, _, first, _, start, _, seen, subscriber, session, said in sightings:
            if said == _HELD and (seen <= self.told_until or (session and start < seen)):
                held = self._held[place, first]
                is_it = held is not None and (held[_SUBSCRIBER], held[_SESSION]) == (subscriber, session)
                # Without a name it may be one that was begun anew since, and is over.
                is_later = held is not None and not session and start > held[_START]
                if held is None or not is_it or is_later or held[_START] > seen:
                    yield (place, first), subscriber, session, start

    def fill(self, gaps: Sequence[Gap], read: int = 0) -> None:
        """Prepare for what was written in gaps, and is read after what followed.

        Args:
            gaps: these.
            read: up to when that is read already, in ms: what had ended by then is not looked at.
        """
        since, until = min(gap.since for gap in gaps), max(gap.until for gap in gaps) + LATE
        self.late_until = max(self.late_until, until)
        self._filled = since, until - LATE
        for _, held in self._store.since(self._source, since, until=until, endings=(Ending.MOVED,)):
            self._were[held[_SESSION]] = since
        read = max(since, read - LATE)
        for key, held in self._store.since(
            self._source, read, until=until, endings=(Ending.NEXT, Ending.TOLD)
        ):
            if self._names_all and held[_SESSION]:
                self._note(key, held)
                self._behind.setdefault(key, []).append(held)
            # An end of what has no name may be another's, which began in the gap.
            if held[_ENDING] == Ending.NEXT or not held[_SESSION]:
                self._note_followed(key, held)
                self._note(key, held)
            if held[_ENDING] == Ending.NEXT:
                self._across.setdefault(key, []).append(held)

    def _cut(self, key: Key, new: Held) -> None:
        """End by a beginning in a gap what was said to go on up to that of the next one behind it."""
        for one in self._across.get(key, ()):
            is_same = one[_SESSION] == new[_SESSION] != "" and new[_START] <= one[_START] + SESSIONS_APART
            known = self._followed.get((key, one[_SESSION] or one[_SUBSCRIBER]), ())
            is_so = any(one is each for each in known)  # its own end has not been read meanwhile
            if is_so and one[_START] < new[_START] < one[_END] and not is_same:
                self._not_so.add(ended_row(self._source, *key, one)[:3])
                one[_END] = new[_START]
                self._end_followed(key, one)

    def _keep(self, key: Key, held: Held | None) -> None:
        self._held[key] = held
        if held is not None:
            self._note(key, held)

    def _note(self, key: Key, held: Held) -> None:
        if held[_SESSION]:
            self._sessions.setdefault(held[_SESSION], set()).add(key)

    def _take(self, sighting: Sighting) -> None:
        place, network, first, last, start, end, seen, subscriber, session, said = sighting
        new: Held = [network, last, start, end, seen, Ending.NONE, subscriber, session]
        key = (place, first)
        if said in (_WHOLE_KIND, _PERHAPS):
            new[_ENDING] = Ending.TOLD if said == _WHOLE_KIND else Ending.DOUBT
            new[_END] = _after(start, end)
            self._end(key, new)
            if said == _WHOLE_KIND:
                self._end_by_whole(key, new)
            else:
                self._perhaps, self._back = (key, end, subscriber), end - start
            return
        held = self._held[key]
        if said == _DECLINED:
            if held is not None:
                self._decline(key, held, start)
            return
        same = held is not None and held[_SUBSCRIBER] == subscriber and held[_SESSION] == session
        if said == _HELD and (self._was_over(sighting) or (not same and self._is_late(key, new))):
            return
        if said == _HELD:
            new[_ENDING] = Ending.NONE if end == FOREVER else Ending.EXPIRY
            twice = self._perhaps == (key, start, subscriber)
            if twice and seen <= start:
                new[_ENDING] = Ending.SECOND
            self._cut(key, new)
            late_until = max(self.late_until, self._last_ends.get(key, 0))
            if seen < late_until and not (same and held and held[_ENDING] != Ending.LATE):
                new[_ENDING] = Ending.LATE
            if held is None:
                self._hold(key, new)
            elif same and held[_LAST] == last and not self._is_another(held, new):
                self._renew(key, held, new)
            elif twice and self._is_order_in_doubt(held, start):
                self._follow_in_doubt(key, held, new)
            else:
                self._follow(key, held, new)
        elif said == _OVER:
            if held and start in (held[_START], held[_SEEN]):
                new[_SUBSCRIBER] = held[_SUBSCRIBER]
                self._ended(key, held, new)
        elif said == _ENDED:
            self._ended(key, held if same else None, new)
        elif same and held and held[_ENDING] != Ending.RELEASED and self._is_news(held, new):
            held[_ENDING] = Ending.RELEASED
            self._hold(key, held)

    def _was_over(self, sighting: Sighting, begins_in: int = 0) -> bool:
        """Whether what is said is told again, of a time before it ended; a beginning, up to so many ms behind
        its own."""
        place, _, first, _, start, _, seen, subscriber, session, _ = sighting
        whose = (place, first), subscriber, session
        over = self._again.get((*whose, start))
        if over is not None and (start - over[0] <= SESSIONS_APART or seen > self.told_until):
            self._ends[whose] = *over, 0
        begun, ended, before = self._ends.get(whose, (0, 0, 0))
        # Without a name it may be another time by then.
        ended += 1 if session else -before if start != begun else 0
        # A server that had no answer tells it when it has one; how late that is, the session's length says.
        is_begun_again = begun <= start == seen <= begun + begins_in and before != _RESTART
        late = start - begun if session and (begun <= start < ended or is_begun_again) else 0
        return begun <= seen - late < ended

    def _is_late(self, key: Key, new: Held) -> bool:
        """Whether a session is told late, as how long it lasted says: of a time before another's beginning
        ended it."""
        # In what is read late it may be another by the same name, which began in a gap.
        if not new[_SESSION] or new[_START] >= new[_SEEN] or new[_SEEN] <= self.told_until:
            return False
        return any(
            one[_SUBSCRIBER] == new[_SUBSCRIBER]  # servers give names of sessions again
            and one[_START] + SESSIONS_APART < new[_START] < one[_END]
            and new[_SEEN] - new[_START] < one[_END] - one[_START]
            for one in self._followed.get((key, new[_SESSION]), ())
        )

    def _end_by_whole(self, key: Key, whole: Held) -> None:
        """End what is held by an interval that is known as a whole: it is this one, or was until then."""
        held = self._held[key]
        self._undo_followed(key, whole[_SESSION] or whole[_SUBSCRIBER], whole[_END], whole[_START])
        if held is None or held[_START] >= whole[_END]:
            return
        if (held[_SUBSCRIBER], held[_SESSION]) == (whole[_SUBSCRIBER], whole[_SESSION]):
            if held[_START] >= whole[_START]:
                self._drop(key)
        elif whole[_START] > held[_START]:
            held[_END], held[_ENDING] = min(held[_END], whole[_START]), Ending.NEXT
            self._end_followed(key, held)
            self._drop(key)

    def _is_news(self, held: Held, new: Held) -> bool:
        """Whether something is said of what is held that was not said after that already; of what a file of
        leases that was written anew may lack, that it does not."""
        return bool(new[_SEEN] >= held[_SEEN] or held[_ENDING] in UP_TO_A_GAP)

    def _end_before(self, key: Key, held: Held) -> None:
        """End what is certain of what a file of leases that was written anew lacks: up to when it had it."""
        if held[_ENDING] in UP_TO_A_GAP and held[_START] < held[_SEEN] < held[_END]:
            before = [*held]
            before[_END], before[_ENDING] = held[_SEEN], UP_TO_A_GAP[held[_ENDING]]
            self._end(key, before)
            held[_START] = held[_SEEN]

    def _is_over(self, held: Held, at: int) -> bool:
        """Whether what is held was over as the same subscriber's began: with its own end, given back, or as a
        file of leases that was written anew did not have it."""
        over = held[_END]
        if held[_ENDING] == Ending.GIVEN_BACK:
            over = min(over, held[_SEEN])
        elif held[_ENDING] == Ending.MISSED:
            over = min(over, next((gap.until for gap in self.anew if gap.until > held[_SEEN]), over))
        return bool(at > over)

    def _end_over(self, key: Key, held: Held, at: int) -> None:
        held[_END] = min(held[_END], at)
        self._end_before(key, held)
        self._end(key, held)

    def _renew(self, key: Key, held: Held, new: Held) -> None:
        if held[_ENDING] == Ending.ORDER and new[_ENDING] == Ending.SECOND:
            new[_ENDING] = Ending.ORDER
        if self._is_over(held, new[_START]):
            self._end_over(key, held, new[_START])
            self._hold(key, new)
        elif self._is_news(held, new):
            if not new[_SESSION] and new[_START] == new[_SEEN] > held[_SEEN]:
                self._note_begun(key, held, held[_START])
            if new[_START] < held[_START] and not new[_SESSION]:
                held[_START] = new[_START]
            for what in (_LAST, _END, _SEEN, _ENDING):
                held[what] = new[what]
            self._hold(key, held)
        elif new[_END] < held[_START]:
            self._end(key, new)
        elif new[_START] < held[_START]:
            if self._tells_once and not new[_SESSION]:
                # The end of what began before, by the same name, need not be read yet, nor who had it then.
                self._hold_late(key, held, new)
                return
            # A session need not have had it from its own beginning on.
            held[_START] = min(held[_START], new[_SEEN] if self._names_all else new[_START])
            self._hold(key, held)

    def _follow(self, key: Key, held: Held, new: Held) -> None:
        """Apply another subscriber's sighting: the later one ends the earlier."""
        is_in_gap = new[_ENDING] == Ending.LATE != held[_ENDING]
        if is_in_gap and self._names_all and held[_SESSION] and held[_START] < new[_START] < held[_SEEN]:
            # It had it again behind the gap in which this began.
            before, perhaps = [*held], [*held]
            before[_END] = perhaps[_START] = new[_START]
            before[_ENDING], perhaps[_ENDING] = Ending.NEXT, Ending.MOVED
            perhaps[_END] = held[_START] = held[_SEEN]
            self._end_followed(key, before)
            self._end(key, perhaps)
            self._hold(key, held)
        # Of two that began in one second the one that is read behind the other began later, but for a gap.
        is_before = new[_ENDING] == Ending.LATE and held[_ENDING] != Ending.LATE
        earlier, later = (held, new) if new[_START] >= held[_START] + is_before else (new, held)
        if self._names_all and new[_START] < held[_SEEN] < new[_SEEN] and new[_ENDING] != Ending.LATE:
            # Of the session is said when it began, not since when it has what was another's after that.
            perhaps = [*new]
            perhaps[_START], perhaps[_END], perhaps[_ENDING] = held[_SEEN], new[_SEEN], Ending.MOVED
            self._end(key, perhaps)
            new[_START] = new[_SEEN]
            earlier, later = held, new
        elif earlier is new and new[_END] == FOREVER:
            self._hold_late(key, held, new)
            return
        if earlier[_END] > later[_START]:
            if earlier[_END] == FOREVER:
                self._note_begun(key, earlier, later[_START])
            if earlier[_ENDING] not in _SAID:
                earlier[_ENDING] = Ending.NEXT
            # Two of the same second are both told, since which of them came first is not known.
            earlier[_END] = _after(earlier[_START], later[_START])
        self._end_before(key, earlier)
        self._end_followed(key, earlier)
        if later is new:
            self._hold(key, new)

    def _end_followed(self, key: Key, held: Held) -> None:
        """End what another's is known to follow, until its own end is read."""
        self._end(key, held)
        self._note_followed(key, held)

    def _note_followed(self, key: Key, held: Held) -> None:
        there = self._followed.setdefault((key, held[_SESSION] or held[_SUBSCRIBER]), [])
        there[:] = [*(one for one in there if one[_START] != held[_START]), held][-_MOST_FOLLOWED:]

    def _undo_followed(self, key: Key, whose: str, end: int, start: int | None = None) -> Held | None:
        """What another's has ended, and whose own end is earlier, as is read now: it is not to be written.

        Args:
            key: of it.
            whose: its session, or else its subscriber.
            end: its own.
            start: its beginning, which two may be told apart by; None where its session says which it is: as
                the end has it, it may be a second off.
        """
        there = self._followed.get((key, whose), [])
        for held in there:
            begun = held[_START]
            since = begun if start is None else start
            if since <= begun <= end and begun < _after(since, end) < held[_END]:
                there.remove(held)
                self._not_so.add(ended_row(self._source, *key, held)[:3])
                if held[_ENDING] == Ending.TOLD:  # that end is another's, which began in the gap
                    self._miss(key, held, self.gaps)
                return held
        return None

    def _miss(self, key: Key, ended: Held, gaps: Sequence[Gap]) -> bool:
        """Keep an end whose beginning may have been in a gap; False where there is none before it."""
        since = min((gap.since for gap in gaps if gap.since < ended[_END]), default=None)
        if since is not None:
            missed = [*ended]
            # Not as any row begins.
            missed[_START], missed[_ENDING] = since - 1, Ending.MISSED
            self._end(key, missed)
        return since is not None

    def _note_begun(self, key: Key, held: Held, at: int) -> None:
        whose = key, held[_SUBSCRIBER], held[_SESSION]
        count, since = self._begun.get(whose, (0, at))
        self._begun[whose] = count + 1, since

    def _end_beside(self, key: Key, ended: Held) -> bool:
        """Put in doubt whose end is told behind another's beginning, which may not have been theirs: several
        have one port at once by some translators. False where nobody is known to have begun so."""
        whose = key, ended[_SUBSCRIBER], ended[_SESSION]
        held = self._held.get(key)
        count, since = self._begun.pop(whose, (0, 0))
        if count > 1:
            self._begun[whose] = count - 1, since
        elif not count:
            # Its beginning may have been read in an earlier import, but for a gap.
            if held is None or any(gap.since < ended[_END] for gap in self.gaps):
                return False
            since = held[_START]
        if since >= ended[_END]:
            return False
        beside = [*ended]
        beside[_START], beside[_ENDING] = since, Ending.BESIDE
        self._end(key, beside)
        return True

    def _is_another(self, held: Held, new: Held) -> bool:
        """Whether what is said of one with the same name is of another beginning, with a gap between both."""
        held_since, since = int(held[_START]), int(new[_START])
        if new[_SESSION] and abs(since - held_since) <= SESSIONS_APART:
            return False
        if since < held_since:
            return int(new[_SEEN]) < self.late_until and (
                bool(new[_SESSION]) or held_since >= self.late_until - LATE
            )
        # Without a name it is renewed by what is told, but for what is told behind a gap, or was told late.
        if held[_ENDING] == Ending.LATE and not new[_SESSION] and since > held_since:
            return True
        if not new[_SESSION] and (since == held_since or new[_SEEN] < self.late_until):
            return False
        return any(held_since < gap.until and since >= gap.since - SECOND for gap in self.gaps)

    def _may_have_ended(self, held: Held) -> bool:
        """Whether what is held may have ended in a gap, for all that is known."""
        return any(held[_START] < gap.until and held[_SEEN] < gap.until for gap in self.gaps)

    def _hold_late(self, key: Key, held: Held, new: Held) -> None:
        """Take in what begins before what is held, such as from the file of a reader that lags behind."""
        new[_END], new[_ENDING] = _after(new[_START], held[_START]), Ending.LATE
        late = self._late.get(key)
        if late is not None:
            if (late[_SUBSCRIBER], late[_SESSION]) == (new[_SUBSCRIBER], new[_SESSION]):
                return
            if new[_START] < late[_START]:
                new[_END] = _after(new[_START], late[_START])
                self._end(key, new)
                return
            self._end_late(key, late, new[_START], Ending.NEXT)
        self._late[key] = new
        self._note(key, new)

    def _end_late(
        self, key: Key, late: Held, at: int, ending: Ending, doubt: int = 0, why: Ending = Ending.DOUBT
    ) -> None:
        """End what was said late, in place of what is written of it."""
        del self._late[key]
        if (row := self._written.pop(key, None)) is not None:
            self.changes.undone.append(row[:3])
        late[_END], late[_ENDING] = _after(late[_START], at), ending
        self._end_within(key, late, doubt, why)

    def _is_order_in_doubt(self, held: Held, second: int) -> bool:
        """Whether what begins at the second reading of a time may have begun before what is held."""
        later: int = second - held[_START]
        return (0 if held[_ENDING] not in _UNSURE else -self._back) <= later < self._back

    def _follow_in_doubt(self, key: Key, held: Held, new: Held) -> None:
        """Another's, which may have begun before or after. The one that is heard of later came last; else it
        is not known, and `who` looks for all of them.
        """
        both = max(held[_START], new[_START])
        last, other = (held, new) if held[_SEEN] > max(both, new[_SEEN]) else (new, held)
        other = [*other]
        other[_END], other[_ENDING] = both + 1, Ending.ORDER
        self._end(key, other)
        if last[_SEEN] <= both:
            last[_ENDING] = Ending.ORDER
        self._hold(key, last)

    def _ended(self, key: Key, held: Held | None, new: Held) -> None:
        new[_ENDING] = Ending.TOLD
        session = new[_SESSION]
        whose, told = (key, new[_SUBSCRIBER], session), new[_END]
        ended = self._ends.get(whose, (0, 0, 0))[1]
        # A session's end that is told again, by a server that does not say how late, began before it.
        if ended == told or (session and held is None and 0 < new[_START] < ended < told):
            return
        doubt = max(new[_END] - new[_SEEN], 0)
        if self._tells_once:
            self._last_ends[key] = max(new[_SEEN], self._last_ends.get(key, 0))
        late = self._late.get(key)
        if (
            late is not None
            and whose[1:] == (late[_SUBSCRIBER], late[_SESSION])
            and late[_START] <= new[_END] <= late[_END]
        ):
            if session:
                self._end_session(session, told, doubt, new[_START])
            else:
                self._ends[whose] = late[_START], told, doubt
                self._end_late(key, late, told, Ending.TOLD, doubt)
            return
        began = new[_START]
        if held is None or told < held[_START]:
            followed = self._undo_followed(key, session or new[_SUBSCRIBER], told, None if session else began)
            if followed is not None:
                new[_START] = followed[_START]
        elif self._is_over(held, began):
            self._end_over(key, held, began)
            self._drop(key)
        elif began > held[_START] and self._is_another(held, new):
            held[_END], held[_ENDING] = began, Ending.NEXT
            self._end(key, held)
            self._drop(key)
        else:
            new[_START] = held[_START]
            if session and began <= 0 and self._may_have_ended(held):
                new[_ENDING] = Ending.NEXT
            self._drop(key)
            if self._tells_once and not session and told < held[_SEEN]:
                # It began anew before its end was told.
                between = [*held]
                between[_START], between[_END], between[_ENDING] = told, held[_SEEN], Ending.LATE
                self._end(key, between)
                held[_START] = held[_SEEN]
                self._hold(key, held)
        # Whatever it is that the end names: the session has ended.
        self._end_session(session, told, doubt, began)
        if new[_START] <= 0:
            is_beside = self._tells_once and self._end_beside(key, new)
            self.changes.skipped += not is_beside
            if self._miss(key, new, self.gaps) or is_beside:
                self._ends[whose] = told, told, doubt
            return
        new[_END] = _after(new[_START], new[_END])
        self._end_within(key, new, doubt)
        self._ends[whose] = new[_START], told, doubt

    def _end_session(self, session: str, at: int, doubt: int = 0, began: int = 0) -> bool:
        """End whatever a session has, or had until another's beginning; 0 for a beginning that is not
        known. Whether there is any such."""
        is_known = False
        self._looked_up.discard(session)
        for key in self._sessions.pop(session, ()):
            held, late, is_late = self._held.get(key), self._late.get(key), False
            if late is not None and late[_SESSION] == session and late[_START] <= at <= late[_END]:
                self._ends[key, late[_SUBSCRIBER], session] = late[_START], at, doubt
                self._end_late(key, late, at, Ending.TOLD, doubt)
                is_known = is_late = True
            if held is not None and held[_SESSION] == session and held[_START] > at:
                self._note(key, held)  # another session by the same name, which goes on
                held = None
            if is_late:
                continue  # what was another's before is of another session by the same name
            if held is None or held[_SESSION] != session:
                held = self._undo_followed(key, session, at)
                if held is None:
                    continue
            else:
                self._drop(key)
                is_other = not began or began - held[_START] > SESSIONS_APART
                if is_other and self._may_have_ended(held):
                    held[_END], held[_ENDING] = _after(held[_START], began or at), Ending.NEXT
                    self._end_followed(key, held)
                    is_known = True
                    continue
            is_known = True
            held[_END], held[_ENDING] = _after(held[_START], at), Ending.TOLD
            self._end_within(key, held, doubt)
            self._ends[key, held[_SUBSCRIBER], session] = held[_START], at, doubt
        return is_known

    def settle(self, since: int, until: int, *, is_last: bool) -> Iterator[Changes]:
        """Bring together what began in a gap, as is read now, and what was read before of the time since.

        Nothing of what this gives may be there to be read before the last is given
        (`AssignmentStore.alone`).

        Args:
            since: in ms, when the gap began.
            until: when it was over.
            is_last: whether no other of the source is open.
        """
        left = self._deny()
        for part in self._store.parts(self._source, since):
            self._settle(part, since, until, left, is_last=is_last)
            yield self.finished()

    def _settle(
        self,
        part: KeyRange,
        since: int,
        until: int,
        left: Mapping[tuple[Key, str, int], Held],
        *,
        is_last: bool,
    ) -> None:
        """Settle what has keys of a part."""
        # Others are of a log that was read after the next one.
        held = self._store.held_in(self._source, part)
        rows = [*self._store.since_in(self._source, since, part)]
        late = [
            (key, one)
            for key, one in held.items()
            if one[_ENDING] == Ending.LATE and one[_SEEN] >= since - LATE
        ]
        late += [
            (key, one) for key, one in rows if one[_ENDING] == Ending.LATE and since <= one[_START] < until
        ]
        begun: dict[Key, list[int]] = {}
        for key, one in late:
            begun.setdefault(key, []).append(one[_START])
        if sessions := {one[_SESSION] for _, one in late} - {""}:
            named = self._store.since(self._source, since, sessions=sessions)
            rows += [(key, one) for key, one in named if not part.first <= key < part.stop]
            held |= self._store.held(self._source, sessions)
        missed = [(key, one) for key, one in rows if one[_ENDING] == Ending.MISSED]
        others: dict[Key | str, list[Held]] = {}
        had: dict[str, list[tuple[Key, Held]]] = {}
        for key, one in rows:
            if key not in begun and one[_SESSION] not in sessions:
                continue
            one = left.get((key, one[_SESSION], one[_START]), one)
            if one[_ENDING] not in (Ending.LATE, Ending.MISSED, Ending.MOVED):
                others.setdefault(key, []).append(one)
                had.setdefault(one[_SESSION], []).append((key, one))
            if one[_ENDING] == Ending.TOLD and one[_SESSION]:
                others.setdefault(one[_SESSION], []).append(one)
        for key, one in held.items():
            if one[_ENDING] != Ending.LATE or one[_SEEN] < since - LATE:  # else it is late itself
                one = left.get((key, one[_SESSION], one[_START]), one)
                others.setdefault(key, []).append(one)
                had.setdefault(one[_SESSION], []).append((key, one))
        ends: dict[tuple[Key, str] | str, list[tuple[Key, Held]]] = {}
        for key, one in missed:
            ends.setdefault(one[_SESSION] or (key, one[_SUBSCRIBER]), []).append((key, one))
        used = []
        for key, one in late:
            start, session, there = one[_START], one[_SESSION], others.get(key, [])
            same = [
                each
                for each in others.get(session, []) + there
                if session and each[_SESSION] == session and abs(each[_START] - start) <= SESSIONS_APART
            ]
            starts = [*(each[_START] for each in there), *begun[key]]
            following = min((each for each in starts if each > start), default=FOREVER)
            # Without a name an end was taken for that of whoever had it before the gap.
            ended = [
                each
                for each in there
                if not session and each[_ENDING] == Ending.TOLD and each[_SUBSCRIBER] == one[_SUBSCRIBER]
                if each[_START] < start < each[_END] <= following + SECOND
            ]
            end = min((each[_END] for each in same + ended), default=FOREVER)
            mine = ends.get(session or (key, one[_SUBSCRIBER]), [])
            for number, (_, each) in enumerate(mine):
                if end == FOREVER and start <= each[_END] <= following + SECOND:
                    end = each[_END]
                    used.append(mine[number] if session else mine.pop(number))
                    break
            doubt = 0
            if session and self._names_all:
                moved = min(
                    (
                        each[_START]
                        for k, each in had.get(session, ())
                        if k != key and length_of(each[_NETWORK]) == length_of(one[_NETWORK])
                        if each[_START] > start
                    ),
                    default=FOREVER,
                )
                if moved < end:
                    end = min(moved, following)
                    doubt = end - max(one[_SEEN], start)
            if one[_END] < FOREVER:
                if min(end, following) == FOREVER:
                    continue  # of what came then nothing is known any more
                self._undo(key, one)
            elif min(end, following) < FOREVER:
                self._drop(key)
            else:
                one[_ENDING] = Ending.NONE
                self._hold(key, one)
                continue
            if not any(each in there for each in same):
                one = [*one]
                one[_ENDING] = Ending.TOLD if end < FOREVER else Ending.NEXT
                one[_END] = _after(start, end if end < FOREVER else following)
                self._end_within(key, one, max(doubt, 0), Ending.MOVED)
        for key, one in missed if is_last else used:
            self._undo(key, one)

    def _undo(self, key: Key, ended: Held) -> None:
        self.changes.undone.append(ended_row(self._source, *key, ended)[:3])

    def _decline(self, key: Key, held: Held, at: int) -> None:
        """Put in doubt who has it, until its end: it is given back, and somebody uses it, perhaps them."""
        self._end_before(key, held)
        at = max(at, held[_START])
        if at >= held[_END]:
            return
        if at > held[_START]:
            before = [*held]
            before[_END] = at
            before[_ENDING] = held[_ENDING] if held[_ENDING] in UP_TO_A_GAP else Ending.TOLD
            self._end(key, before)
        held[_START], held[_ENDING] = at, Ending.DECLINED
        if held[_END] == FOREVER:
            self._hold(key, held)
        else:
            self._end(key, held)
            self._drop(key)

    def _end_within(self, key: Key, ended: Held, doubt: int, why: Ending = Ending.DOUBT) -> None:
        """End an assignment at its end, or up to so many ms before."""
        if doubt:
            perhaps = [*ended]
            perhaps[_START], perhaps[_ENDING] = max(ended[_START], ended[_END] - doubt), why
            self._end(key, perhaps)
            ended[_END] -= doubt
        self._end(key, ended)

    def _hold(self, key: Key, held: Held) -> None:
        self._keep(key, held)
        whose = key, held[_SUBSCRIBER], held[_SESSION]
        if held[_START] <= self._ends.get(whose, (0, 0, 0))[1]:
            self._ends.pop(whose, None)
        self.changes.held[key] = held
        self.changes.gone.discard(key)

    def _drop(self, key: Key) -> None:
        self._held[key] = None
        self.changes.held.pop(key, None)
        self.changes.gone.add(key)

    def _end(self, key: Key, held: Held) -> None:
        place: Place = key[0]
        if held[_START] < held[_END] < FOREVER:
            self.changes.ended.append(ended_row(self._source, place, key[1], held))


def _after(start: int, end: int) -> int:
    """An end behind a start: what is over within a second was there nevertheless."""
    return max(end, start + 1)
