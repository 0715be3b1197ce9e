"""Merging of sightings into intervals: renewals extend one, and the next holder ends the last.

Two that began in the hour that the clock showed twice came in an order that their times do not tell. Neither
is taken for the one that came last, until something is said of one of them at a time that is certain.
"""

from collections.abc import Iterable, Sequence

from urlward.assignments.interval import FOREVER, Ending, Place, Sighting, SightingKind
from urlward.assignments.store import AssignmentStore, Changes, Held, Key, ended_row

_MOST_KEPT = 300_000

_HELD, _ENDED, _RELEASED, _WHOLE, _RESTARTED, _PERHAPS, _DECLINED, _STOPPED = map(int, SightingKind)
_UNSURE = (Ending.SECOND, Ending.ORDER)
_LAST, _START, _END, _SEEN, _ENDING, _SUBSCRIBER, _SESSION = range(1, 8)


class Merger:
    """Merger: one source's current assignments, updated by sightings in order."""

    def __init__(self, store: AssignmentStore, source: int) -> None:
        """Start with what the store has."""
        self._store = store
        self._source = source
        self._held: dict[Key, Held | None] = {}
        self._sessions: dict[str, set[Key]] = {}
        self._over: set[tuple[Key, str]] = set()
        self._perhaps: tuple[Key, int, str] | None = None
        """Whose span in doubt was the last, and its end."""
        self._back = 0
        """How long that was: by how much the clock was put back, in ms."""
        self.changes = Changes()

    def take(self, sightings: Sequence[Sighting]) -> None:
        """Take in a batch; `changes` has then what is to be written."""
        self._load(sightings)
        for sighting in sightings:
            if sighting[9] in (_RESTARTED, _STOPPED):
                self._end_sessions(sighting[8], sighting[4], all_of=sighting[9] == _RESTARTED)
            else:
                self._take(sighting)

    def _end_sessions(self, beginning: str, at: int, *, all_of: bool) -> None:
        """End the sessions whose name begins so, or that of this name alone."""
        held = {key: held for key, held in self._held.items() if held is not None}
        stored = self._store.sessions(self._source, beginning)
        for key, one in {**{k: v for k, v in stored.items() if k not in self._held}, **held}.items():
            name = one[_SESSION] if not all_of else one[_SESSION][: len(beginning)]
            if name == beginning and one[_START] < at:
                one[_END], one[_ENDING] = min(one[_END], at), Ending.TOLD
                self._end(key, one)
                self._drop(key)

    def finished(self) -> Changes:
        """The changes, which are not touched any more; new ones begin."""
        changes, self.changes = self.changes, Changes()
        changes.held = {key: [*held] for key, held in changes.held.items()}
        if len(self._held) > _MOST_KEPT:
            # What is about to be written cannot be read from the store yet.
            self._held = {key: [*held] for key, held in changes.held.items()} | dict.fromkeys(changes.gone)
            self._sessions = {}
            for key, held in changes.held.items():
                self._note(key, held)
        self._over = set()
        return changes

    def _load(self, sightings: Iterable[Sighting]) -> None:
        keys = {(s[0], s[2]) for s in sightings if s[9] < _WHOLE or s[9] == _DECLINED}
        missing = keys - self._held.keys()
        if missing:
            known = self._store.held(self._source, {place for place, _ in missing})
            for key in missing:
                self._keep(key, known.get(key))
        # What ends has addresses that its end need not name.
        ending = {s[8] for s in sightings if s[9] == _ENDED and s[8]} - self._sessions.keys()
        if ending:
            for key, held in self._store.held(self._source, ending).items():
                if key not in self._held:
                    self._keep(key, held)

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
        if said in (_WHOLE, _PERHAPS):
            new[_ENDING] = Ending.TOLD if said == _WHOLE else Ending.DOUBT
            new[_END] = _after(start, end)
            self._end(key, new)
            if said == _PERHAPS:
                self._perhaps, self._back = (key, end, subscriber), end - start
            return
        held = self._held[key]
        if said == _DECLINED:
            if held is not None:
                self._decline(key, held, start)
            return
        same = held is not None and held[_SUBSCRIBER] == subscriber and held[_SESSION] == session
        if said == _HELD:
            new[_ENDING] = Ending.NONE if end == FOREVER else Ending.EXPIRY
            twice = self._perhaps == (key, start, subscriber)
            if twice and seen <= start:
                new[_ENDING] = Ending.SECOND
            if held is None:
                self._hold(key, new)
            elif same:
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
            held[_START] = new[_START]
            self._hold(key, held)

    def _follow(self, key: Key, held: Held, new: Held) -> None:
        """Apply another subscriber's sighting: the later one ends the earlier."""
        earlier, later = (held, new) if new[_START] >= held[_START] else (new, held)
        if earlier[_END] > later[_START]:
            # Two of the same second are both told, since which of them came first is not known.
            earlier[_END] = _after(earlier[_START], later[_START])
            if earlier[_ENDING] not in (Ending.ORDER, Ending.DECLINED):
                earlier[_ENDING] = Ending.NEXT
        self._end(key, earlier)
        if later is new:
            self._hold(key, new)

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
        if (key, session) in self._over:
            return
        doubt = max(new[_END] - new[_SEEN], 0)
        if held is not None and new[_END] >= held[_START]:
            new[_START] = held[_START]
            self._drop(key)
            for other in self._sessions.pop(session, ()):
                self._end_with(other, new, doubt)
        elif new[_START] <= 0:
            self.changes.skipped += 1
            return
        new[_END] = _after(new[_START], new[_END])
        self._end_within(key, new, doubt)

    def _end_with(self, key: Key, ended: Held, doubt: int) -> None:
        """End another address of a session that has ended."""
        held = self._held.get(key)
        if held is not None and held[_SESSION] == ended[_SESSION] and held[_START] <= ended[_END]:
            held[_END], held[_ENDING] = _after(held[_START], ended[_END]), Ending.TOLD
            self._end_within(key, held, doubt)
            self._drop(key)
            self._over.add((key, ended[_SESSION]))

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
