"""Merging of sightings, as they are read: renewals extend what a source's log says, and the next holder ends
the last.

What is read in the order of its times is merged in a *lane*: what it has of each place. A log that begins
where nothing else was read to its end has a lane of its own, as has one that is read after what followed,
so that a lane says nothing of what is not read of it. Whatever is not in order within a lane is kept beside
it, as it was said: an end without a beginning, what is of a time before another's beginning, what a server
tells again.

Nothing that is stored is ever looked at again but what a lane has not ended. How lanes, and what is beside
them, bear on each other is worked out when it is asked for (`urlward.assignments.resolving`), so that it
does not depend on the order in which logs are read.

Two sightings that began in the hour that the clock showed twice came in an order that their times do not
tell. Neither is taken for the one that came last, until something is said of one of them at a time that is
certain.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from urlward.assignments.formats import LOGS, NAMES_ALL, TELLS_ENDS
from urlward.assignments.interval import (
    BEGINS_AGAIN,
    FOREVER,
    LAST_PORT,
    SECOND,
    SESSIONS_APART,
    UP_TO_A_GAP,
    Ending,
    Sighting,
    SightingKind,
    length_of,
)
from urlward.assignments.store import AssignmentStore, Changes, Gap, Held, Key, beside, ended_row

_MOST_KEPT = 300_000
_MOST_BEGUN = 100_000

(
    _HELD, _ENDED, _RELEASED, _WHOLE_KIND, _RESTARTED, _PERHAPS, _DECLINED, _STOPPED, _OVER,
) = map(int, SightingKind)  # fmt: skip

LATE = 60_000
"""Milliseconds by which what a log says first may be of before what the one before it said last."""

_SOON = 60_000
"""Milliseconds within which sessions of one subscriber begin that are so at once."""

_UNSURE = (Ending.SECOND, Ending.ORDER)
_SAID = (Ending.ORDER, Ending.DECLINED, Ending.LATE, Ending.RELEASED, *UP_TO_A_GAP)
"""Kinds of ends that another's beginning does not make certain."""
_NETWORK, _LAST, _START, _END, _SEEN, _ENDING, _SUBSCRIBER, _SESSION, _FIRST, _MOVED, _LANE = range(11)


class Merger:
    """Merger: one lane of a source, updated by sightings in order."""

    def __init__(self, store: AssignmentStore, source: int, format_: str) -> None:
        """Start with what the store has.

        Args:
            store: where to.
            source: its id.
            format_: of it (`urlward.assignments.formats`).
        """
        self._store = store
        self._source = source
        self._tells_once = format_ in (*LOGS, *NAMES_ALL)
        """Whether an end is read once; else what has ended is told again and again."""
        self._names_all = format_ in NAMES_ALL
        self._tells_ends = format_ in TELLS_ENDS
        self.lane = 0
        """In which it is read."""
        self.rows: int | None = None
        """Of the source, by which it is known whether somebody else writes to it."""
        self._purged = 0
        """Before when what had ended is deleted, in ms: so what is said of a time before may have."""
        self._held: dict[Key, Held | None] = {}
        self._beside: dict[tuple[Key, str], list[Held]] = {}
        """What was said out of order, and has no end, by its session, or else whose it is."""
        self._sessions: dict[str, set[Key]] = {}
        self._looked_up: set[str] = set()
        """Sessions of which all is here that the store has."""
        self._begun: dict[tuple[Key, str], tuple[int, int]] = {}
        """How many of whose beginnings another's has followed, or one of their own, and when the first was,
        in ms: where a port is several subscribers' at once, their ends come yet."""
        self.told = 0
        """The last time of which the lane's log said something, in ms."""
        self.is_in_order = not self._names_all
        """Whether what is said of sessions is, by and large, in the order of its times: a table is not."""
        self._perhaps: dict[tuple[Key, str], tuple[int, int]] = {}
        """The end of the last span in doubt of each subscriber, and how long it was, in ms: by how much the
        clock was put back, or a day."""
        self.anew: list[Gap] = []
        """Those of its files of leases, in order."""
        self.changes = Changes()

    def begin(self) -> None:
        """Note how much of the source is read, so that it is noticed where another reads on from here."""
        if self.rows is None:
            self.rows, purged = self._store.rows(self._source)
            self._purged = purged if self._tells_once else 0

    def take(self, sightings: Sequence[Sighting]) -> None:
        """Take in a batch; `changes` has then what is to be written."""
        self.begin()
        self._load(sightings)
        for (session, seen, said, _), some in groupby(sightings, key=itemgetter(8, 6, 9, 4)):
            record = [*dict.fromkeys(some)]  # what is told again is no other
            if said == _RESTARTED:
                for one in record:
                    self._restart(session, seen, one[7])
            elif session and said in (_ENDED, _STOPPED):
                self._end_session(record)
            elif session and said == _HELD and self._names_all:
                self._hold_record(record)
            else:
                for one in record:
                    self._take(one)
            self.told = max(self.told, seen)

    def finished(self) -> Changes:
        """The changes, which are not touched any more; new ones begin."""
        changes, self.changes = self.changes, Changes()
        changes.after = self.rows
        if self.rows is not None:
            self.rows += changes.rows
        changes.held = {whose: [*held] for whose, held in changes.held.items()}
        if max(len(self._held), len(self._looked_up)) > _MOST_KEPT:
            # What is about to be written cannot be read from the store yet.
            self._held = {key: None for key, lane in changes.gone if lane >= 0}
            self._sessions, self._looked_up, self._beside, self._perhaps = {}, set(), {}, {}
            for (key, _), held in changes.held.items():
                self._keep(key, [*held])
        for whose in [*self._begun][:-_MOST_BEGUN]:
            del self._begun[whose]
        return changes

    def _load(self, sightings: Iterable[Sighting]) -> None:
        keys = {(s[0], s[2]) for s in sightings if s[9] not in (_RESTARTED, _PERHAPS, _STOPPED)}
        missing = keys - self._held.keys()
        if missing:
            for key, held in self._store.held(self._source, {place for place, _ in missing}):
                if key in missing:
                    self._keep(key, held)
            for key in missing - self._held.keys():
                self._held[key] = None
        # What ends has addresses that its end need not name.
        sessions = {s[8] for s in sightings if s[8] and s[9] in (_HELD, _ENDED, _STOPPED)} - self._looked_up
        self._looked_up |= sessions
        if sessions:
            for key, held in self._store.held(self._source, sessions):
                self._keep(key, held, known=key in self._held)

    def _keep(self, key: Key, held: Held, *, known: bool = False) -> None:
        """Keep what the store has, unless it is known better."""
        if held[_LANE] < 0:
            if held[_ENDING] not in (Ending.OWN, Ending.RESTARTED):
                there = self._beside.setdefault((key, held[_SESSION] or held[_SUBSCRIBER]), [])
                if (
                    all(one[_LANE] != held[_LANE] for one in there)
                    and (key, held[_LANE]) not in self.changes.gone
                ):
                    there.append(held)
                    self._note(key, held)
        elif held[_LANE] == self.lane and not known:
            self._held[key] = held
            self._note(key, held)

    def _note(self, key: Key, held: Held) -> None:
        if held[_SESSION]:
            self._sessions.setdefault(held[_SESSION], set()).add(key)

    # What is said of sessions

    def _of(self, session: str) -> dict[Key, Held]:
        """What the lane has of a session."""
        there = {key: self._held.get(key) for key in self._sessions.get(session, ())}
        return {key: held for key, held in there.items() if held is not None and held[_SESSION] == session}

    def _is_beside(self, session: str) -> bool:
        """Whether something was said of a session out of order."""
        return any((key, session) in self._beside for key in self._sessions.get(session, ()))

    def _hold_record(self, record: Sequence[Sighting]) -> None:
        """Take in all addresses that a session has of a kind at a time.

        What it has, and had not when something was said of it last, it has from now on: all that the record
        says is when the session began.
        """
        _, _, _, _, start, _, seen, subscriber, session, _ = record[0]
        there = {key: held for key, held in self._of(session).items() if held[_SUBSCRIBER] == subscriber}
        last = max((held[_SEEN] for held in there.values()), default=0)
        if any(
            held[_START] + SESSIONS_APART < start < last - SESSIONS_APART
            and seen - start <= last - held[_START]
            for held in there.values()
        ):
            return  # told again, or late, by a server that does not say so
        there = {key: held for key, held in there.items() if start <= held[_START] + SESSIONS_APART}
        self._end_moved(record, there, last)
        for one in record:
            key = one[0], one[2]
            if not there or start >= seen or (key in there and (seen >= last or seen >= there[key][_FIRST])):
                self._take(one)
                continue
            new = _new(one)
            held = self._held.get(key)
            if seen > last:
                self._note_moved(key, new, last)
                new[_MOVED] = True
                if held is None or held[_SEEN] <= seen:
                    self._follow(key, held, new, seen)
                    continue
            self._put_beside(key, new)

    def _end_moved(self, record: Sequence[Sighting], there: Mapping[Key, Held], last: int) -> None:
        """End what a session has no more by a record of it, in which another of its kind is."""
        keys, kinds = {(one[0], one[2]) for one in record}, {length_of(one[1]) for one in record}
        seen = record[0][6]
        for key, held in there.items():
            if key not in keys and length_of(held[_NETWORK]) in kinds and seen > last:
                self._note_moved(key, [*held[:_START], 0, seen, *held[_SEEN:]], held[_SEEN])
                held[_END], held[_ENDING] = held[_SEEN], Ending.TOLD
                self._end(key, held)
                self._drop(key)

    def _note_moved(self, key: Key, one: Held, last: int) -> None:
        """Note that a session got an address, or lost it, at some time from one to when it is said."""
        end = one[_SEEN] if one[_END] == FOREVER else one[_END]
        perhaps = [*one[:_START], last, end, 0, Ending.MOVED, *one[_SUBSCRIBER:]]
        perhaps[_FIRST], perhaps[_MOVED] = last, False
        self._end(key, perhaps)

    def _end_session(self, record: Sequence[Sighting]) -> None:
        """End whatever a session has."""
        _, _, _, _, start, end, seen, subscriber, session, said = record[0]
        doubt = max(end - seen, 0)
        there = {
            key: held
            for key, held in self._of(session).items()
            # A later one may have the same name, where these begin anew as its server restarts.
            if held[_START] <= end and start <= held[_SEEN] + BEGINS_AGAIN
        }
        # By the name that the session has: an end need not have what it was taken from.
        names = {held[_SUBSCRIBER] for held in there.values()}
        if subscriber not in names and len(names) == 1:
            (subscriber,) = names
        record = [one for one in record if said == _ENDED]
        last = max((held[_SEEN] for held in there.values()), default=end)
        if self._names_all and record:
            self._end_moved(record, there, last)
        is_known, is_late = bool(there), self.is_in_order and end < self.told
        for key, held in there.items():
            if self._held.get(key) is held:
                self._drop(key)
                self._take_in(key, held)
                held[_END], held[_ENDING] = _after(held[_START], end), Ending.TOLD
                held[_FIRST] = min(held[_FIRST], held[_END])
                self._end_within(key, held, doubt)
        for key in self._sessions.get(session, ()) if not there else ():
            for held in [*self._beside.get((key, session), ())]:
                is_its = not start or abs(start - held[_START]) <= SESSIONS_APART
                if is_its and held[_FIRST] <= held[_START] <= end:
                    self._take_away(key, held)
                    held[_END], held[_ENDING] = _after(held[_START], end), Ending.TOLD
                    self._end_within(key, held, doubt)
                    is_known, there[key] = True, held
        for one in record:
            key = one[0], one[2]
            if key in there:
                continue
            new = _new((*one[:7], subscriber, *one[8:]))
            if there and self._names_all and last < end:
                self._note_moved(key, new, last)
            elif start > 0 and subscriber:
                new[_END], new[_ENDING] = _after(start, end), Ending.TOLD
                new[_FIRST] = new[_END] + SECOND  # nothing else was said of it
                self._take_in(key, new)
                before = self._held.get(key)
                if before and before[_SUBSCRIBER] != subscriber and before[_SEEN] <= start:
                    self._end_by_whole(key, new)
                self._end_within(key, new, doubt)
            elif not is_known:
                self._put_end(key, new)
        if (said == _STOPPED and not is_known) or (is_known and is_late) or self._is_beside(session):
            # It may have had what is another's by now, or what is read later.
            self._put_end((0, 0), ["", LAST_PORT, start, end, seen, Ending.OWN, "", session, end, False, 0])

    def _restart(self, beginning: str, at: int, off: str) -> None:
        """End the sessions whose name begins so; some time before, where `off` is empty."""
        stored = {
            key: held
            for key, held in self._store.sessions(self._source, beginning)
            if held[_LANE] == self.lane
        }
        there = {key: held for key, held in stored.items() if key not in self._held}
        there |= {key: held for key, held in self._held.items() if held is not None}
        for key, held in there.items():
            # Who restarts says so before it begins sessions.
            if held[_SESSION].startswith(beginning) and held[_START] < at:
                held[_END], held[_ENDING] = min(held[_END], _after(held[_START], at)), Ending.NEXT
                self._end(key, held)  # its own end may be read yet
                self._drop(key)
        mark = ["", LAST_PORT, at, _after(at, at), at, Ending.RESTARTED, off, beginning, at, False, 0]
        self._write_beside((0, 0), mark)

    # What is said of places

    def _take(self, sighting: Sighting) -> None:
        place, _, first, last, start, end, seen, subscriber, session, said = sighting
        new = _new(sighting)
        key = (place, first)
        if said in (_WHOLE_KIND, _PERHAPS):
            new[_ENDING] = Ending.TOLD if said == _WHOLE_KIND else Ending.DOUBT
            new[_END], new[_FIRST] = _after(start, end), start
            self._end(key, new)
            if said == _WHOLE_KIND:
                self._end_by_whole(key, new)
            else:
                self._perhaps[key, subscriber] = end, end - start
            return
        held = self._held[key]
        if said == _DECLINED:
            if held is not None:
                self._decline(key, held, start)
            return
        same = held is not None and held[_SUBSCRIBER] == subscriber and held[_SESSION] == session
        if said == _HELD:
            new[_ENDING] = Ending.NONE if end == FOREVER else Ending.EXPIRY
            back = self._back(key, subscriber, start)
            if back and seen <= start:
                new[_ENDING] = Ending.SECOND
            if seen < self._purged and not same:
                new[_ENDING] = Ending.LATE
            is_late = session and self._names_all and self.is_in_order and seen < self.told - SESSIONS_APART
            if held is None and is_late:
                self._put_beside(key, new)  # it may be over, or have another address, as was told before
            elif held is None:
                self._hold(key, new)
            elif same and held[_LAST] == last and not self._is_another(held, new):
                self._renew(key, held, new)
            elif self._is_order_in_doubt(key, held, start, back):
                self._follow_in_doubt(key, held, new)
            elif start >= max(held[_START], held[_SEEN]):
                if self._is_beside_it(held, new):
                    self._drop(key)
                    self._put_beside(key, held)
                    held = None
                self._follow(key, held, new, start)
            else:
                self._put_beside(key, new)
        elif said == _OVER:
            if held and start in (held[_START], held[_SEEN]):
                new[_SUBSCRIBER] = held[_SUBSCRIBER]
                self._ended(key, held, new)
        elif said == _ENDED:
            self._ended(key, held if same else None, new)
        elif same and held and held[_ENDING] != Ending.RELEASED and self._is_news(held, new):
            held[_ENDING] = Ending.RELEASED
            self._hold(key, held)

    def _end_by_whole(self, key: Key, whole: Held) -> None:
        """End what is held by an interval that is known as a whole: it is this one, or was until then."""
        held = self._held[key]
        if held is None or held[_START] >= whole[_END]:
            return
        if (held[_SUBSCRIBER], held[_SESSION]) == (whole[_SUBSCRIBER], whole[_SESSION]):
            if held[_START] >= whole[_START]:
                self._drop(key)
        elif whole[_START] > held[_START]:
            held[_END], held[_ENDING] = min(held[_END], whole[_START]), Ending.NEXT
            self._end(key, held)
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
            held[_START] = held[_FIRST] = held[_SEEN]

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
        if held[_ENDING] == Ending.LATE:
            new[_ENDING] = Ending.LATE
        if self._is_over(held, new[_START]):
            self._end_over(key, held, new[_START])
            self._hold(key, new)
        elif self._is_news(held, new):
            if not new[_SESSION] and new[_START] == new[_SEEN] > held[_SEEN]:
                self._note_begun(key, held)
            if new[_START] < held[_START] and not new[_SESSION]:
                held[_START] = new[_START]
            for what in (_LAST, _END, _SEEN, _ENDING):
                held[what] = new[what]
            self._hold(key, held)
        elif new[_END] < held[_START]:
            self._end(key, new)
        elif new[_START] < held[_START] and not new[_SESSION]:
            # The end of what began before, by the same name, need not be read yet, nor who had it then.
            self._put_beside(key, new)
        elif new[_FIRST] < held[_FIRST] and not held[_MOVED]:
            held[_START], held[_FIRST] = min(held[_START], new[_START]), new[_FIRST]
            self._hold(key, held)

    def _follow(self, key: Key, held: Held | None, new: Held, at: int) -> None:
        """Begin another's, which ends what was held."""
        if held is not None:
            if held[_END] > at:
                if held[_END] == FOREVER:
                    self._note_begun(key, held)
                if held[_ENDING] not in _SAID:
                    held[_ENDING] = Ending.NEXT
                # Two of the same second are both told, since which of them came first is not known.
                held[_END] = _after(held[_START], at)
            self._end_before(key, held)
            self._end(key, held)
        self._hold(key, new)

    def _ended(self, key: Key, held: Held | None, new: Held) -> None:
        """End what has no session's name."""
        new[_ENDING] = Ending.TOLD
        doubt = max(new[_END] - new[_SEEN], 0)
        began, told = new[_START], new[_END]
        if held is not None and told >= held[_START]:
            if self._is_over(held, began):
                self._end_over(key, held, began)
                self._drop(key)
            elif self._tells_once and told < held[_SEEN]:
                self._put_end(key, new)  # it began anew before its end was told
                return
            else:
                new[_START], new[_FIRST] = held[_START], held[_FIRST]
                self._drop(key)
        if new[_START] > 0:
            new[_END], new[_FIRST] = _after(new[_START], told), new[_START]
            self._end_within(key, new, doubt)
        elif self._tells_once and not self._end_beside(key, new):
            self._put_end(key, new)
        elif not self._tells_once:
            self.changes.skipped += 1

    def _note_begun(self, key: Key, held: Held) -> None:
        if self._tells_once and not self._tells_ends and not held[_SESSION]:
            count, since = self._begun.get((key, held[_SUBSCRIBER]), (0, held[_START]))
            self._begun[key, held[_SUBSCRIBER]] = count + 1, since

    def _end_beside(self, key: Key, ended: Held) -> bool:
        """Put in doubt whose end is told behind another's beginning, which may not have been theirs: several
        have one port at once by some translators. False where nobody is known to have begun so."""
        whose, held = (key, ended[_SUBSCRIBER]), self._held.get(key)
        count, since = self._begun.pop(whose, (0, 0))
        if count > 1:
            self._begun[whose] = count - 1, since
        elif not count:
            return False
        if since >= ended[_END] or (held is not None and ended[_END] < held[_START]):
            return False
        perhaps = [*ended]
        perhaps[_START] = perhaps[_FIRST] = since
        perhaps[_ENDING] = Ending.BESIDE
        self._end(key, perhaps)
        return True

    def _is_another(self, held: Held, new: Held) -> bool:
        """Whether what is said of one with the same name is of another beginning."""
        if new[_SESSION]:
            # A beginning alone may be told again, by a server that does not say how late.
            is_known = new[_START] < new[_SEEN] or new[_START] > held[_START] + BEGINS_AGAIN
            is_later: bool = held[_SEEN] + SESSIONS_APART < new[_START] and is_known
            is_before: bool = new[_START] + SESSIONS_APART < held[_START] and new[_SEEN] <= held[_SEEN]
            return is_later or is_before
        # A renewal begins as it is said.
        return bool(self._tells_ends and held[_SEEN] + SESSIONS_APART < new[_START] < new[_SEEN])

    def _is_beside_it(self, held: Held, new: Held) -> bool:
        """Whether a subscriber's session begins as another of theirs has, as those of services do, and need
        not end that."""
        soon = 0 <= new[_START] - held[_START] <= _SOON
        return bool(self._names_all and soon and held[_SESSION] and held[_SUBSCRIBER] == new[_SUBSCRIBER])

    def _back(self, key: Key, subscriber: str, start: int) -> int:
        """How long before a time its first reading is, in ms; 0 where it has one alone."""
        end, back = self._perhaps.get((key, subscriber), (0, 0))
        return back if end == start else 0

    def _is_order_in_doubt(self, key: Key, held: Held, start: int, back: int) -> bool:
        """Whether what begins at a time, or so long before, may have begun before what is held, or that
        before it."""
        later: int = start - held[_START]
        if back:
            return (0 if held[_ENDING] not in _UNSURE else -back) <= later < back
        return -self._back(key, held[_SUBSCRIBER], held[_START]) <= later < 0

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
        held[_START], held[_FIRST], held[_ENDING] = at, at, Ending.DECLINED
        if held[_END] == FOREVER:
            self._hold(key, held)
        else:
            self._end(key, held)
            self._drop(key)

    # What is written

    def _put_beside(self, key: Key, new: Held) -> None:
        """Keep what is said out of order."""
        there = self._beside.setdefault((key, new[_SESSION] or new[_SUBSCRIBER]), [])
        apart = SESSIONS_APART if new[_SESSION] else 0
        for held in there:
            same = (held[_SUBSCRIBER], held[_MOVED]) == (new[_SUBSCRIBER], new[_MOVED])
            # It may have had another in between, but for what is told in order.
            goes_on = not (self._names_all and self.is_in_order) or new[_SEEN] >= self.told
            if same and goes_on and abs(held[_START] - new[_START]) <= apart:
                held[_START], held[_FIRST] = (min(held[_START], new[_START]), min(held[_FIRST], new[_FIRST]))
                held[_SEEN] = max(held[_SEEN], new[_SEEN])
                self.changes.held[key, held[_LANE]] = held
                return
        there.append(new)
        self._note(key, new)
        self._write_beside(key, new)

    def _take_in(self, key: Key, held: Held) -> None:
        """Take away what was said out of order of what is held, which says no less as it ends."""
        for one in [*self._beside.get((key, held[_SESSION]), ())]:
            if one[_SUBSCRIBER] == held[_SUBSCRIBER] and abs(one[_START] - held[_START]) <= SESSIONS_APART:
                held[_FIRST] = held[_FIRST] if held[_MOVED] else min(held[_FIRST], one[_FIRST])
                self._take_away(key, one)

    def _take_away(self, key: Key, one: Held) -> None:
        """Take away what was said out of order, as it is known as a whole."""
        there = self._beside[key, one[_SESSION]]
        there.remove(one)
        if not there:
            del self._beside[key, one[_SESSION]]
        self.changes.held.pop((key, one[_LANE]), None)
        self.changes.gone.add((key, one[_LANE]))

    def _put_end(self, key: Key, new: Held) -> None:
        """Keep an end whose beginning is not known."""
        self.changes.skipped += not new[_SESSION]
        new[_ENDING], new[_FIRST] = Ending.OWN, new[_END]
        self._write_beside(key, new)

    def _write_beside(self, key: Key, new: Held) -> None:
        new[_LANE] = beside(self._source, key[1], new)
        self.changes.held[key, new[_LANE]] = new
        self.changes.gone.discard((key, new[_LANE]))

    def _end_within(self, key: Key, ended: Held, doubt: int) -> None:
        """End an assignment at its end, or up to so many ms before."""
        if doubt:
            perhaps = [*ended]
            perhaps[_START] = perhaps[_FIRST] = max(ended[_START], ended[_END] - doubt)
            perhaps[_ENDING] = Ending.DOUBT
            self._end(key, perhaps)
            ended[_END] -= doubt
        self._end(key, ended)

    def _hold(self, key: Key, held: Held) -> None:
        held[_LANE] = self.lane
        self._held[key] = held
        self._note(key, held)
        self.changes.held[key, self.lane] = held
        self.changes.gone.discard((key, self.lane))

    def _drop(self, key: Key) -> None:
        self._held[key] = None
        self.changes.held.pop((key, self.lane), None)
        self.changes.gone.add((key, self.lane))

    def _end(self, key: Key, held: Held) -> None:
        if held[_START] < held[_END] < FOREVER:
            self.changes.ended.append(ended_row(self._source, key[0], key[1], held))


def _new(sighting: Sighting) -> Held:
    _, network, _, last, start, end, seen, subscriber, session, _ = sighting
    return [network, last, start, end, seen, Ending.NONE, subscriber, session, max(seen, start), False, 0]


def _after(start: int, end: int) -> int:
    """An end behind a start: what is over within a second was there nevertheless."""
    return max(end, start + 1)
