"""Import of files of assignments into the store: as streams, resumed where reading ended the last time; and
following a file that is being written, as ``tail -F`` does. Sightings are merged into intervals: renewals
extend one, and the next holder ends the last.

Reading positions of files are recognised by content, since logs are renamed, copied and cut.

Sightings come in the order of their times, by and large. What begins before what is held, such as in the file
of a reader that lags behind, is merged beside it. Two readers may have one source: who finds that the other
has written looks again at what is held.

Two sightings that began in the hour that the clock showed twice came in an order that their times do not
tell. Neither is taken for the one that came last, until something is said of one of them at a time that is
certain.

A log that was rotated before it was read to its end leaves a gap (`Gap`) as the next one is read. Rows are as
what was read says, and `urlward.assignments.who` goes by the gaps that are open. What may be otherwise for
what is in a gap is kept so that it can be told: an end without a beginning, which may have been in it
(`Ending.MISSED`). Once the rest is read, after what followed it, both are brought together (`Merger.settle`).
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from urlward.assignments.formats import FORMATS, Fault, Parsed, Parser, ReadOptions
from urlward.assignments.interval import (
    FOREVER,
    LAST_PORT,
    SECOND,
    SESSIONS_APART,
    AssignmentError,
    Ending,
    Place,
    Sighting,
    SightingKind,
    SightingSource,
)
from urlward.assignments.store import (
    AssignmentStore,
    Beginning,
    Changes,
    Gap,
    Held,
    Key,
    ReadingPosition,
    SourceChanged,
    ended_row,
)
from urlward.progress import Progress, silent
from urlward.regular import BOM, other_encoding, regular_fd, without_bom

_MOST_KEPT = 300_000
_MOST_ENDS = 100_000
_MOST_FOLLOWED = 8

_HELD, _ENDED, _RELEASED, _WHOLE_KIND, _RESTARTED, _PERHAPS, _DECLINED, _STOPPED = map(int, SightingKind)

_LATE = 60_000
"""Milliseconds by which what a log says first may be of before what the one before it said last."""

_UNSURE = (Ending.SECOND, Ending.ORDER)
_LAST, _START, _END, _SEEN, _ENDING, _SUBSCRIBER, _SESSION = range(1, 8)

_BEGIN, _BEFORE = 4096, 1024
_WHOLE = 1 << 20
"""Up to so many bytes all of it is looked at, as exports are changed anywhere, and logs at their ends."""


class Merger:
    """Merger: one source's current assignments, updated by sightings in order."""

    def __init__(self, store: AssignmentStore, source: int, *, tells_once: bool = True) -> None:
        """Start with what the store has.

        Args:
            store: where to.
            source: its id.
            tells_once: whether an end is read once, as in a log; else what has ended is told again and again.
        """
        self._store = store
        self._source = source
        self._tells_once = tells_once
        self._rows: int | None = None
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
        self._not_so: set[tuple[Any, ...]] = set()
        """Keys of rows of these, whose end is another; they are written already, or about to be."""
        self._perhaps: tuple[Key, int, str] | None = None
        """Whose span in doubt was the last, and its end."""
        self._back = 0
        """How long that was: by how much the clock was put back, in ms."""
        self.gaps: list[Gap] = []
        """Those of the source that are open."""
        self._again: dict[Beginning, int] = {}
        """Ends of what has begun as is said of a batch, and is known not to be held any more."""
        self.told_until = 0
        """Up to when what was read before tells, in ms: what is said of a time before may be told again."""
        self.goes_on = 0
        """Up to when what was read of the same log before tells, in ms: more of that second may follow."""
        self.late_until = 0
        """Up to when what is read was written before what is known already, in ms, where it fills a gap, or
        the next log was read before, or what had ended is deleted."""
        self.changes = Changes()

    def begin(self) -> None:
        """Note how much of the source is read, so that it is noticed where another reads on from here."""
        if self._rows is None:
            self._rows, purged = self._store.rows(self._source)
            self._had_rows = self._rows > 0
            if self._tells_once:  # what ended before is deleted, and so is not known to have
                self.late_until = max(self.late_until, purged)

    def take(self, sightings: Sequence[Sighting]) -> None:
        """Take in a batch; `changes` has then what is to be written."""
        self.begin()
        self._load(sightings)
        if self._tells_once and self._had_rows:
            self._look_back(sightings)
        for sighting in sightings:
            if sighting[9] == _RESTARTED:
                self._end_sessions(sighting[8], sighting[4])
            elif sighting[9] == _STOPPED:
                if not self._end_session(sighting[8], sighting[4]):
                    ended = ["", LAST_PORT, 0, sighting[4], 0, Ending.TOLD, "", sighting[8]]
                    self._miss((0, 0), ended, self.gaps)
            else:
                self._take(sighting)

    def _end_sessions(self, beginning: str, at: int) -> None:
        """End the sessions whose name begins so."""
        held = {key: held for key, held in self._held.items() if held is not None}
        stored = self._store.sessions(self._source, beginning)
        for key, one in {**{k: v for k, v in stored.items() if k not in self._held}, **held}.items():
            # Who restarts says so before it begins sessions.
            if one[_SESSION].startswith(beginning) and one[_START] < at:
                self._ends[key, one[_SUBSCRIBER], one[_SESSION]] = one[_START], at, 0
                one[_END] = min(one[_END], _after(one[_START], at))
                one[_ENDING] = Ending.NEXT if self._may_have_ended(one) else Ending.TOLD
                self._end(key, one)
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
        changes.after = self._rows
        if self._rows is not None:
            self._rows += changes.rows
        changes.held = {key: [*held] for key, held in changes.held.items()}
        if len(self._held) > _MOST_KEPT:
            # What is about to be written cannot be read from the store yet.
            self._held = {key: [*held] for key, held in changes.held.items()} | dict.fromkeys(changes.gone)
            self._sessions, self._looked_up, self._late, self._written = {}, set(), {}, {}
            for key, held in changes.held.items():
                self._note(key, held)
        tables: tuple[dict[Any, Any], ...] = (self._ends, self._last_ends, self._followed)
        for told in tables:
            for whose in [*told][:-_MOST_ENDS]:
                del told[whose]
        return changes

    def _load(self, sightings: Iterable[Sighting]) -> None:
        keys = {(s[0], s[2]) for s in sightings if s[9] <= _WHOLE_KIND or s[9] == _DECLINED}
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
            one: end
            for one, end in ended.items()
            if one[2] or end > _after(one[3], 0) or one[3] != self.goes_on
        }
        begun: set[tuple[Key, str, str] | str] = set()
        ends: dict[tuple[Key, str, str], int] = {}
        stops: dict[str, int] = {}
        for place, _, first, _, start, end, _, subscriber, session, said in sightings:
            whose = (place, first), subscriber, session
            if said == _HELD:
                begun |= {whose, session} if (*whose, start) not in self._again else set()
            elif said == _STOPPED and session not in begun and session not in stops:
                there = [self._held.get(key) for key in self._sessions.get(session, ())]
                if not any(held and held[_SESSION] == session and held[_START] <= end for held in there):
                    stops[session] = end
            elif said == _ENDED and whose not in begun and whose not in ends:
                held = self._held[place, first]
                if held is None or (held[_SUBSCRIBER], held[_SESSION]) != whose[1:] or held[_START] > end:
                    ends[whose] = end
        for key, held in self._store.followed(self._source, ends, stops):
            known = self._followed.get((key, held[_SESSION] or held[_SUBSCRIBER]), ())
            if all(one[_START] != held[_START] for one in known):
                self._note_followed(key, held)
            self._note(key, held)

    def _told_again(self, sightings: Iterable[Sighting]) -> Iterator[Beginning]:
        """Beginnings that may have been read before."""
        for place, _, first, _, start, _, seen, subscriber, session, said in sightings:
            if said == _HELD and seen <= self.told_until:
                held = self._held[place, first]
                is_it = held is not None and (held[_SUBSCRIBER], held[_SESSION]) == (subscriber, session)
                if held is None or not is_it or held[_START] > seen:
                    yield (place, first), subscriber, session, start

    def fill(self, gaps: Sequence[Gap]) -> None:
        """Prepare for what was written in gaps, and is read after what followed."""
        since, until = min(gap.since for gap in gaps), max(gap.until for gap in gaps) + _LATE
        self.late_until = max(self.late_until, until)
        for key, held in self._store.since(
            self._source, since, until=until, endings=(Ending.NEXT, Ending.TOLD)
        ):
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
        whose = key, subscriber, session
        if said == _HELD and (over := self._again.get((*whose, start))) is not None:
            self._ends[whose] = start, over, 0
        begun, ended, before = self._ends.get(whose, (0, 0, 0))
        # Without a name it may be another time by then.
        ended += 1 if session else -before if start != begun else 0
        if said == _HELD and begun <= seen < ended:
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
            elif same and not self._is_another(held, new):
                self._renew(key, held, new)
            elif twice and self._is_order_in_doubt(held, start):
                self._follow_in_doubt(key, held, new)
            else:
                self._follow(key, held, new)
        elif said == _ENDED:
            self._ended(key, held if same else None, new)
        elif same and held is not None and seen >= held[_SEEN] and held[_ENDING] != Ending.RELEASED:
            held[_ENDING] = Ending.RELEASED
            self._hold(key, held)

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

    def _renew(self, key: Key, held: Held, new: Held) -> None:
        if held[_ENDING] == Ending.ORDER and new[_ENDING] == Ending.SECOND:
            new[_ENDING] = Ending.ORDER
        if new[_START] > held[_END]:
            self._end(key, held)
            self._hold(key, new)
        elif new[_SEEN] >= held[_SEEN]:
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
            held[_START] = new[_START]
            self._hold(key, held)

    def _follow(self, key: Key, held: Held, new: Held) -> None:
        """Apply another subscriber's sighting: the later one ends the earlier."""
        # Of two that began in one second the one that is read behind the other began later, but for a gap.
        is_before = new[_ENDING] == Ending.LATE and held[_ENDING] != Ending.LATE
        earlier, later = (held, new) if new[_START] >= held[_START] + is_before else (new, held)
        if earlier is new and new[_END] == FOREVER:
            self._hold_late(key, held, new)
            return
        if earlier[_END] > later[_START]:
            if earlier[_ENDING] not in (Ending.ORDER, Ending.DECLINED, Ending.LATE):
                earlier[_ENDING] = Ending.NEXT
            # Two of the same second are both told, since which of them came first is not known.
            earlier[_END] = _after(earlier[_START], later[_START])
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

    def _is_another(self, held: Held, new: Held) -> bool:
        """Whether what is said of one with the same name is of another beginning, with a gap between both."""
        held_since, since = int(held[_START]), int(new[_START])
        if new[_SESSION] and abs(since - held_since) <= SESSIONS_APART:
            return False
        if since < held_since:
            return int(new[_SEEN]) < self.late_until and (
                bool(new[_SESSION]) or held_since >= self.late_until - _LATE
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

    def _end_late(self, key: Key, late: Held, at: int, ending: Ending, doubt: int = 0) -> None:
        """End what was said late, in place of what is written of it."""
        del self._late[key]
        if (row := self._written.pop(key, None)) is not None:
            self.changes.undone.append(row[:3])
        late[_END], late[_ENDING] = _after(late[_START], at), ending
        self._end_within(key, late, doubt)

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
        if self._ends.get(whose, (0, 0, 0))[1] == told:
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
            self.changes.skipped += 1
            if self._miss(key, new, self.gaps):
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

    def settle(self, since: int, until: int, *, is_last: bool) -> None:
        """Bring together what began in a gap, as is read now, and what was read before of the time since.

        Args:
            since: in ms, when the gap began.
            until: when it was over.
            is_last: whether no other of the source is open.
        """
        self.begin()
        # Others are of a log that was read after the next one.
        late_held = self._store.held_late(self._source).items()
        held = {key: one for key, one in late_held if one[_SEEN] >= since - _LATE}
        doubted = self._store.since(self._source, since, endings=(Ending.LATE, Ending.MISSED))
        late = [*held.items()]
        late += [
            (k, one) for k, one in doubted if one[_ENDING] == Ending.LATE and since <= one[_START] < until
        ]
        missed = [(k, one) for k, one in doubted if one[_ENDING] == Ending.MISSED]
        places = {key[0] for key, _ in late}
        sessions = {one[_SESSION] for _, one in late} - {""}
        others: dict[Key | str, list[Held]] = {}
        for key, one in self._store.since(self._source, since, places=places, sessions=sessions):
            if one[_ENDING] not in (Ending.LATE, Ending.MISSED):
                others.setdefault(key, []).append(one)
            if one[_ENDING] == Ending.TOLD and one[_SESSION]:
                others.setdefault(one[_SESSION], []).append(one)
        for key, one in self._store.held(self._source, places).items():
            if key not in held:
                others.setdefault(key, []).append(one)
        ends: dict[tuple[Key, str] | str, list[tuple[Key, Held]]] = {}
        for key, one in missed:
            ends.setdefault(one[_SESSION] or (key, one[_SUBSCRIBER]), []).append((key, one))
        used = []
        begun: dict[Key, list[int]] = {}
        for key, one in late:
            begun.setdefault(key, []).append(one[_START])
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
                self._end(key, one)
        for key, one in missed if is_last else used:
            self._undo(key, one)

    def _undo(self, key: Key, ended: Held) -> None:
        self.changes.undone.append(ended_row(self._source, *key, ended)[:3])

    def _decline(self, key: Key, held: Held, at: int) -> None:
        """Put in doubt who has it, until its end: it is given back, and somebody uses it, perhaps them."""
        at = max(at, held[_START])
        if at >= held[_END]:
            return
        if at > held[_START]:
            certain = [*held]
            certain[_END], certain[_ENDING] = at, Ending.TOLD
            self._end(key, certain)
        held[_START], held[_ENDING] = at, Ending.DECLINED
        if held[_END] == FOREVER:
            self._hold(key, held)
        else:
            self._end(key, held)
            self._drop(key)

    def _end_within(self, key: Key, ended: Held, doubt: int) -> None:
        """End an assignment at its end, or up to so many ms before."""
        if doubt:
            perhaps = [*ended]
            perhaps[_START], perhaps[_ENDING] = max(ended[_START], ended[_END] - doubt), Ending.DOUBT
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


def position_in(fd: int, known: Iterable[ReadingPosition]) -> ReadingPosition | None:
    """Find the position to resume from; None for a file that is new, or is not what it was.

    Args:
        fd: the file.
        known: positions in files of its source.

    Raises:
        OSError: unreadable.
    """
    size = os.fstat(fd).st_size
    for position in known:
        if (
            position.offset <= size
            and position.begin == _digest(os.pread(fd, position.begin_size, 0))
            # What was noted by an earlier urlward is of the last bytes alone.
            and position.before in (_before(fd, position.offset), _last(fd, position.offset))
        ):
            return position
    return None


def position_at(fd: int, path: str, offset: int, previous: ReadingPosition | None) -> ReadingPosition:
    """The position to store for a file that is read up to an offset."""
    begin_size = previous.begin_size if previous else min(_BEGIN, offset)
    begin = previous.begin if previous else _digest(os.pread(fd, begin_size, 0))
    now = ReadingPosition(path, begin, begin_size, offset, _before(fd, offset), os.fstat(fd).st_size)
    return replace(now, id=previous.id) if previous else now


def _before(fd: int, offset: int) -> str:
    return _digest(os.pread(fd, offset, 0)) if offset <= _WHOLE else _last(fd, offset)


def _last(fd: int, offset: int) -> str:
    start = max(0, offset - _BEFORE)
    return _digest(os.pread(fd, offset - start, start))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


_BLOCK = 4 << 20
_LONGEST_HEADER = 1 << 16
_COMPRESSED = (b"\x1f\x8b", b"\xfd7z", b"\x28\xb5\x2f")
_LONGEST = 1 << 24
"""Bytes that no record has: of more without an end nothing is one, such as of the hole that is left where a
log is cut while its writer goes on behind it."""
_LOGS = ("cgn", "detail", "ports")
"""Formats of logs; the others' files say what is in force."""
_NUMBERED = re.compile(r".+\.\d{1,4}", re.DOTALL)
"""Name of a log that others have followed."""
_ADDED = re.compile(r"(.+?)(\.\d{1,4}|[.\-_](\d{6,}|\d{4}-\d\d)[\d.\-_T:Z]*)", re.DOTALL)
"""Name of a log, and what is added to that as it is rotated, or each day."""
_RENEW_AFTER = 60_000
"""Milliseconds after which it is noted anew that a source still has what has no end."""
FAR = 10 * 366 * 86_400_000
"""Milliseconds from now on after which an end is none: exports write 2099-12-31 for that, and a server may
give leases for a century."""
KEPT_FAULTS = 5
"""Rows that were not understood, and lines of something else, of which it is said where they are."""


def without_far_ends(sightings: Iterable[Sighting], now: int) -> Iterator[Sighting]:
    """Sightings, those whose end is far (`FAR`) as without one: else they would be kept until then and
    longer, whether their source still has them or not.

    Args:
        sightings: in order.
        now: in ms.
    """
    limit = now + FAR
    for sighting in sightings:
        if not limit < sighting[5] < FOREVER or sighting[9] not in (SightingKind.HELD, SightingKind.WHOLE):
            yield sighting
            continue
        place, network, first, last, start, _, seen, subscriber, session, _ = sighting
        held = (place, network, first, last, start, FOREVER, max(seen, start), subscriber, session)
        yield (*held, int(SightingKind.HELD))


@dataclass(slots=True)
class Imported:
    """Result of reading a file.

    Attributes:
        rows: that were read.
        skipped: of them, not understood, or an end whose beginning is not known.
        faulty: of those, not understood.
        faults: the first of them, each with the number of its line from 1 and why.
        other: lines of no row, and of nothing else that the format has.
        others: numbers of the first of them.
        pending: bytes at the end, of a record that is not all there.
        resumed: the offset in bytes that reading went on from.
        offset: up to where it is read.
        refused: why nothing of it was taken; empty where it was.
        left: when the log before this one was read last, in ms, where some of it, or of one between, may not
            be; else 0.
    """

    rows: int = 0
    skipped: int = 0
    faulty: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    other: int = 0
    others: list[int] = field(default_factory=list)
    pending: int = 0
    resumed: int = 0
    offset: int = 0
    refused: str = ""
    left: int = 0


def _copied(result: Imported) -> Imported:
    return replace(result, faults=[*result.faults], others=[*result.others])


type Judge = Callable[[Imported], str]
"""Why what was read is not to be taken, or nothing."""


class FileReader:
    """Import of one open file into the store, a block a transaction; if killed, it is resumed where it
    ended."""

    def __init__(
        self,
        store: AssignmentStore,
        source: SightingSource,
        path: Path,
        options: ReadOptions,
        clock: Callable[[], float],
        *,
        follows: bool = False,
        begins: bool = True,
    ) -> None:
        """Open the file, and find out how far it was read.

        Args:
            store: where to.
            source: what the file is of.
            path: of the file.
            options: how to read it.
            clock: seconds since 1970-01-01 UTC.
            follows: whether what is written to it is read at once.
            begins: whether nobody has read the one before to its end; who follows has, but another may have
                been rotated away between both.

        Raises:
            AssignmentError: unreadable, or not of the source's format.
        """
        self._store, self._source, self._path, self._clock = store, source, path, clock
        self._options, self._follows, self._begins = options, follows, begins
        with _told(path):
            self.fd = regular_fd(path)
        # While a block is written, the next is read.
        self._writer = ThreadPoolExecutor(1)
        self._writing: tuple[Future[None], Imported] | None = None
        self._block = _BLOCK
        self.begin_again()

    def begin_again(self, written: Imported | None = None) -> None:
        """Forget what was read, so that the next `read` goes on from where the store has it.

        Args:
            written: result so far, which is not forgotten.
        """
        with suppress(AssignmentError, SourceChanged):  # said before
            self._wait()
        self._parser: Parser = FORMATS[self._source.format](self._options)
        self._merger = Merger(self._store, self._source.id, tells_once=self._source.format in _LOGS)
        self._written = written or Imported()
        self.result = _copied(self._written)
        self._position: ReadingPosition | None = None
        self._known: list[ReadingPosition] = []
        self._span = 0, 0
        """From when to when what is read of it tells, in ms, or 0."""
        self._has_begun = False
        self._asked = self._renewed = 0
        self._started = False

    def close(self) -> None:
        """Close the file."""
        self._writer.shutdown()
        os.close(self.fd)

    @property
    def is_cut(self) -> bool:
        """Whether the file has become shorter than what was read of it."""
        return os.fstat(self.fd).st_size < self.result.offset

    @property
    def is_replaced(self) -> bool:
        """Whether another file has the path by now."""
        try:
            now, mine = self._path.stat(), os.fstat(self.fd)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)

    def read(self, progress: Progress = silent) -> Imported:
        """Read what there is and is not read yet, but a last line without its end: half a name may be
        another's, and half a range of ports another range.

        Args:
            progress: told the share that is read.

        Raises:
            AssignmentError: unreadable, not of the format, or the store refuses.
        """
        with _told(self._path):
            while True:
                with suppress(SourceChanged):
                    if self._start():
                        for parsed in self._parsed(self.result, progress):
                            self._take(parsed)
                        self._wait()
                        self._renew()
                        self._close_gaps()
                    return self.result
                # Another reader of the source has ended, or taken over, what this one took for held. Of less
                # at a time something is written before that one writes again, which may be each second.
                self._block = max(self._block // 4, _BLOCK // 64)
                self.begin_again(self._written)

    def look(self) -> Imported:
        """Parse what `read` would read, without storing it.

        Raises:
            AssignmentError: unreadable, or not of the format.
        """
        with _told(self._path):
            if not self._start():
                return self.result
            looked = replace(self.result, faults=[], others=[])
            for parsed in self._parsed(looked, silent):
                looked.rows += parsed.rows
                looked.skipped += parsed.skipped
        return looked

    def sightings(self) -> Iterator[Sighting]:
        """Iterate over what `look` parses.

        Raises:
            AssignmentError: unreadable, or not of the format.
        """
        with _told(self._path):
            if self._start():
                for parsed in self._parsed(self.result, silent):
                    yield from parsed.sightings

    def _parsed(self, result: Imported, progress: Progress) -> Iterator[Parsed]:
        """Parse from the offset of a result on, a block at a time.

        The result's offset goes on, and what was not understood is added to it.
        """
        size = os.fstat(self.fd).st_size
        block = self._block
        while True:
            # What is written from now on need not be among what is read.
            self._asked = int(self._clock() * 1000)
            if not (data := os.pread(self.fd, block, result.offset)):
                break
            at_end = result.offset + len(data) >= size
            parsed, taken = self._lines_in(data)
            if not taken and not at_end and block >= _LONGEST:
                parsed = Parsed(rows=1, faults=[Fault(0, "longer than any row is")])
                taken = data.rfind(b"\n") + 1 or self._line_end(result.offset + len(data)) - result.offset
            # A record may be longer than a block.
            block *= 2
            if taken:
                block = self._block
                self._note(result, parsed)
                result.offset += taken
                yield parsed
            progress(self._path.name, result.offset / max(size, 1))
            if not taken and at_end:
                break
        result.pending = max(size - result.offset, 0)

    def _line_end(self, at: int) -> int:
        """Offset behind the end of the line that goes on at one, or of the file."""
        while data := os.pread(self.fd, _BLOCK, at):
            if end := data.find(b"\n") + 1:
                return at + end
            at += len(data)
        return at

    def _start(self) -> bool:
        """Read the header where there is one; False where there is not all of it yet."""
        if self._started:
            return True
        begins = os.pread(self.fd, len(BOM), 0)
        if begins.startswith(_COMPRESSED):
            raise AssignmentError("compressed: decompress it first, such as with gunzip, unxz or unzstd")
        if other := other_encoding(begins):
            raise AssignmentError(other)
        header = len(begins) - len(without_bom(begins))
        if self._parser.has_header:
            line, end, _ = os.pread(self.fd, _LONGEST_HEADER, 0).partition(b"\n")
            if not end and b"\r" not in line[:-1]:  # else it has ends of another kind, which are no CSV's
                self.result.pending = len(line)
                return False
            self._parser.begin(without_bom(line).decode(errors="backslashreplace").rstrip("\r"))
            header = len(line) + len(end)
        self._merger.begin()
        known = self._known = self._store.positions(self._source.id)
        self._position = position_in(self.fd, known)
        if self._source.format in _LOGS:
            self._merger.told_until = max((one.last for one in known), default=0)
            self._merger.gaps = self._store.gaps(self._source.id)
            if self._position is not None:
                self._span = self._position.first, self._position.last
                self._merger.goes_on = self._position.last
        self._renewed = self._position.read if self._position else 0
        offset = self._position.offset if self._position else 0
        if not self.result.rows:
            self.result.resumed = offset
        self.result.offset = max(offset, header)
        self._started = True
        return True

    def _lines_in(self, data: bytes) -> tuple[Parsed, int]:
        """Parse whole lines; returns the result and the number of bytes."""
        data = data[: data.rfind(b"\n") + 1]
        lines = data.decode(errors="backslashreplace").replace("\r\n", "\n").split("\n")
        if not lines[-1]:
            lines.pop()
        parsed = self._parser.parse(lines)
        taken = len(data)
        if parsed.pending:
            ends = data.split(b"\n")[: len(lines)]
            taken -= sum(len(line) + 1 for line in ends[-parsed.pending :])
        return parsed, taken

    def _take(self, parsed: Parsed) -> None:
        """Store a block's sightings, and how far the file is read with it."""
        if not (parsed.rows or self.result.rows or self.result.resumed):
            # Nothing of the format yet: whoever reads the file again is to be told so again.
            return
        sightings = [*without_far_ends(parsed.sightings, self._asked)]
        if sightings and self._source.format in _LOGS:
            self._note_span(sightings)
        self._merger.take(sightings)
        changes = self._merger.changes
        changes.rows += parsed.rows
        changes.skipped += parsed.skipped
        anew = self._position is None
        position = position_at(self.fd, self._source.path, self.result.offset, self._position)
        self._position = replace(position, first=self._span[0], last=self._span[1])
        changes.position, changes.anew = self._position, anew
        self.result.rows += changes.rows
        self.result.skipped += changes.skipped
        rows = self._merger.finished()
        self._wait()
        self._renewed = self._asked
        rows.until = self._until(self._renewed)
        writing = self._writer.submit(self._store.write, self._source, rows, self._renewed)
        self._writing = writing, _copied(self.result)

    def _renew(self) -> None:
        """Renew the file's assignments without an end: they count from now."""
        now, position = self._asked, self._position
        # A clock that was set back does not put it off. By a new name it is known to be read to its end.
        if 0 <= now - self._renewed < _RENEW_AFTER and (not position or position.path == self._source.path):
            return
        if position is not None:
            self._position = replace(position, path=self._source.path)
            self._store.renew(self._source, self._position, now, self._until(now))
        elif self._follows and not (self._source.format in _LOGS and self._gaps_before(now)):
            # As after a rotation.
            self._store.looked(self._source, now)
        self._renewed = now

    def _note_span(self, sightings: Sequence[Sighting]) -> None:
        """Note from when to when the log tells, and what is not read of those before it."""
        first, last = self._span
        if self._position is None:
            first = first or min(_said(sightings[0]), self._asked)
        self._span = first, max(last, min(max(map(_said, sightings)), self._asked))
        if self._has_begun:
            return
        self._has_begun = True
        read = [gap for gap in self._merger.gaps if self._is_rest(gap) or self._is_in(gap, first)]
        if self._position is None and not any(gap.since < first for gap in read):
            made = self._gaps_before(first)
            self._merger.changes.gaps += made
            self._merger.gaps = [*self._merger.gaps, *made]
        if read:
            self._merger.fill(read)
        else:
            self._merger.late_until = max(self._merger.late_until, self._following(first))

    def _following(self, first: int) -> int:
        """When the same log went on after this had ended, in ms, of what was read already: what has no end
        here may have one there. 0 for none."""
        begun = [one.first for one in self._known if self._is_of(one.path)]
        return min((one for one in begun if one > first), default=0)

    def _gaps_before(self, first: int) -> list[Gap]:
        """What is not read of logs that were before this one, which begins at a time; and of others between
        them, if there can be any."""
        earlier = [
            replace(one, last=min(one.last or one.read, one.read))
            for one in self._known
            if one.first < first and (one.path == self._source.path or (one.last and self._is_of(one.path)))
        ]
        if not earlier:
            return []
        before = max(earlier, key=lambda one: (one.last, one.id))
        gaps = []
        for one in earlier:
            since = one.last - one.last % SECOND
            gap = Gap(self._source.id, self._source.path, since, first)
            # Two nodes may have logs at one path.
            is_mine = one is before or one.path == self._source.path
            if self._begins and is_mine and self._may_go_on(one):
                # The first that is told may be late.
                gaps.append(replace(gap, file=one.id, until=max(first, since + SECOND)))
            elif one is before and self._has_unread(gap):
                gaps.append(gap)
        self.result.left = before.read if gaps else 0
        return gaps

    def _may_go_on(self, before: ReadingPosition) -> bool:
        """Whether something may have been written to a log since it was read, before this one began."""
        its, mine = Path(before.path), self._path
        if before.ended:
            return False
        for path in self._beside():
            with suppress(AssignmentError, OSError):
                fd = regular_fd(path)
                try:
                    if position_in(fd, (before,)) is not None:
                        return os.fstat(fd).st_size > before.offset
                finally:
                    os.close(fd)
        # It is somewhere else by now, or compressed: by its name it was written to when it was read, or not.
        return _NUMBERED.fullmatch(its.name) is None and (its == mine or _root(mine) == its.name)

    def _is_rest(self, gap: Gap) -> bool:
        return self._position is not None and gap.file == self._position.id > 0

    def _is_in(self, gap: Gap, first: int) -> bool:
        """Whether this is another log of a gap, which begins in it."""
        return 0 < first < gap.until and self._is_of(gap.path)

    def _is_of(self, path: str) -> bool:
        """Whether a file's name says that this is of the same log, before or after it was rotated."""
        its, mine = Path(path), self._path
        if _root(its) != _root(mine):
            return False
        there = {Path(one.path).parent for one in self._known if Path(one.path).name == _root(mine)}
        return its.parent == mine.parent or len(there) < 2

    def _beside(self) -> list[Path]:
        """Other files of the same log in the folder, by their names."""
        with suppress(OSError):
            root = _root(self._path)
            return [one for one in self._path.parent.iterdir() if one != self._path and _root(one) == root]
        return []

    def _has_unread(self, gap: Gap) -> bool:
        """Whether a log beside this one begins in a gap, and nothing of it is read."""
        for path in self._beside():
            # What cannot be read as such a log is none.
            with suppress(AssignmentError, OSError):
                if path.stat().st_mtime * 1000 > gap.since and gap.since < self._first_of(path) < gap.until:
                    return True
        return False

    def _first_of(self, path: Path) -> int:
        """When a log of which nothing is read begins, in ms; 0 for another."""
        other = FileReader(self._store, self._source, path, self._options, self._clock)
        try:
            first = next(other.sightings(), None)
            return 0 if first is None or other._position is not None else _said(first)
        finally:
            other.close()

    def _close_gaps(self) -> None:
        """Note what is not missing any more, as this is read to its end."""
        if not self._merger.gaps:
            return
        there = self._merger.gaps = self._store.gaps(self._source.id)
        position, (first, last) = self._position, self._span
        if position is None or self.result.pending:
            return
        closed: list[Gap] = []
        left: list[Gap] = []
        for gap in there:
            if self._is_rest(gap):
                found = [replace(gap, since=max(gap.since, last), file=0)]
            elif self._is_in(gap, first) and gap.since < last:
                found = [replace(gap, until=first), replace(gap, since=last, file=0)]
            else:
                continue
            closed.append(gap)
            left += [one for one in found if one.since < one.until and (one.file or self._has_unread(one))]
        if not closed:
            return
        since, until = min(gap.since for gap in closed), max(gap.until for gap in closed)
        self._merger.settle(since, until + _LATE, is_last=len(there) == len(closed) and not left)
        changes = self._merger.finished()
        changes.position, changes.until = position, self._until(self._asked)
        changes.gaps, changes.closed = left, [gap.id for gap in closed]
        self._store.write(self._source, changes, self._asked)
        self._merger.gaps = self._store.gaps(self._source.id)

    def end(self) -> None:
        """Note that nothing is written to the file any more, and all of it is read."""
        if self._position is not None and not self.result.pending:
            self._store.end_file(self._source, self._position)

    def _until(self, now: int) -> int:
        """Up to when the source has told all, in ms: a rotated log says nothing of what came then."""
        if self._source.format not in _LOGS or (self._follows and not self.is_replaced):
            return now
        return max(min(int(os.fstat(self.fd).st_mtime * 1000), now, self._span[1]), 1)

    def _note(self, result: Imported, parsed: Parsed) -> None:
        """Record the faults and the other lines."""
        faults = parsed.faults[: KEPT_FAULTS - len(result.faults)]
        others = parsed.other[: KEPT_FAULTS - len(result.others)]
        before = self._lines_before(result.offset) + 1 if faults or others else 0
        result.faults += [(before + fault.line, fault.reason) for fault in faults]
        result.others += [before + line for line in others]
        result.faulty += parsed.skipped
        result.other += len(parsed.other)

    def _lines_before(self, end: int) -> int:
        """Lines of the file before an offset."""
        return sum(os.pread(self.fd, min(_BLOCK, end - at), at).count(b"\n") for at in range(0, end, _BLOCK))

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing[0].result()
            self._written = writing[1]
            self._block = min(self._block * 2, _BLOCK)


def _root(path: Path) -> str:
    """Name of a log without what was added to it as it was rotated."""
    name = path.name
    while (found := _ADDED.fullmatch(name)) is not None:
        name = found[1]
    return name


def _said(sighting: Sighting) -> int:
    """When something was said, in ms: of what is known as a whole, as it was over."""
    return sighting[6] or (sighting[4] if sighting[5] == FOREVER else sighting[5])


def import_file(
    store: AssignmentStore,
    source: SightingSource,
    path: Path,
    options: ReadOptions,
    clock: Callable[[], float],
    progress: Progress = silent,
    judge: Judge = lambda _: "",
) -> Imported:
    """Read a file that is not written any more, or what has been written to it since the last time.

    Args:
        store: where to.
        source: what it is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        progress: told the share that is read.
        judge: of all of it, before any of it is taken.

    Raises:
        AssignmentError: unreadable, not of the source's format, or the store refuses.
    """
    reader = FileReader(store, source, path, options, clock)
    try:
        looked = reader.look()
        looked.refused = judge(looked)
        return looked if looked.refused else reader.read(progress)
    finally:
        reader.close()


def in_order(store: AssignmentStore, format_: str, paths: Iterable[Path], options: ReadOptions) -> list[Path]:
    """Files in the order of what each begins with, as they have to be read: an end that is read before its
    beginning is lost. Exports (``csv``) may begin with any row: in that of the newest that each has. Those
    that cannot be read are the last.

    Args:
        store: where they are imported to.
        format_: of the files.
        paths: of them.
        options: how to read them.
    """

    def place(path: Path) -> int:
        with suppress(AssignmentError):
            reader = FileReader(store, SightingSource(0, "", format_, ""), path, options, time.time)
            try:
                times = (said for one in reader.sightings() if (said := one[6] or one[4]))
                return max(times, default=FOREVER) if format_ == "csv" else next(times, FOREVER)
            finally:
                reader.close()
        return FOREVER

    return sorted(paths, key=place)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise AssignmentError(f"{path}: {e.strerror or e}") from e
    except AssignmentError as e:
        raise AssignmentError(f"{path}: {e}") from e


logger = logging.getLogger("urlward.records")


EVERY = 1.0
"""Seconds between two looks at a file that is followed."""

AGAIN = 30.0
"""Seconds until what has failed is tried again."""


def repeated[T](
    what: str, look: Callable[[], tuple[T | None, bool]], every: float, wait: Callable[[float], bool]
) -> Iterator[T]:
    """Look again and again.

    Args:
        what: is looked at, for the log.
        look: gives what there is, None for nothing, and whether there is more at once.
        every: seconds between two looks.
        wait: waits that many seconds; False to end.

    Yields:
        What each look has given.

    Raises:
        AssignmentError: the first look fails. Later, what fails is logged and tried again.
    """
    has_begun = has_failed = False
    while True:
        try:
            found, is_more = look()
        except AssignmentError as e:
            if not has_begun:
                raise
            if not has_failed:
                logger.error("%s; tried again each half a minute", e)
            has_failed = True
            if not wait(AGAIN):
                return
            continue
        if found is not None:
            if has_failed:
                logger.info("%s: read on", what)
            has_begun, has_failed = True, False
            yield found
        if not is_more and not wait(every):
            return


def follow(
    store: AssignmentStore,
    source: SightingSource,
    path: Path,
    options: ReadOptions,
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], bool],
) -> Iterator[Imported]:
    """Read what is written to a file, also when it is renamed and begun anew, cut, or not there for a while.

    Args:
        store: where to.
        source: what the file is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        wait: as of `repeated`.

    Yields:
        What has been read of the file that has the path, after each look at it.

    Raises:
        AssignmentError: as of `repeated`: the file is not of the source's format, or the store refuses.
    """
    reader: FileReader | None = None
    begins = True

    def anew(why: str) -> None:
        nonlocal reader
        assert reader is not None
        reader.end()
        logger.info("%s: %s, read from its beginning", path, why)
        reader.close()
        reader = None

    def look() -> tuple[Imported | None, bool]:
        nonlocal reader, begins
        try:
            if reader is not None and reader.is_cut:
                anew("cut")
            if reader is None and path.exists():
                reader = FileReader(store, source, path, options, clock, follows=True, begins=begins)
                begins = False
            if reader is None:
                return None, False
            # Asked before reading: what was written to the old file till then is read too.
            replaced = reader.is_replaced
            done = reader.read()
        except (AssignmentError, OSError) as e:
            if reader is not None:
                # Not closed: it may have been renamed, and this may be the only way to its end.
                reader.begin_again()
            if isinstance(e, AssignmentError):
                raise
            raise AssignmentError(f"{path}: {e.strerror or e}") from e
        if replaced:
            anew("another file")
        return done, replaced

    try:
        yield from repeated(str(path), look, EVERY, wait)
    finally:
        if reader is not None:
            reader.close()
