"""Constructors of sightings, also from local times with two possible readings.

What is certain in both readings is said as such. What is so in one alone is said beside it, as a span in
which the subscriber may have had it: whoever is asked for a time in it names no single subscriber.
"""

from urlward.assignments.interval import FOREVER, Place, Said, Sighting
from urlward.assignments.times import Moment

type What = tuple[Place, str, int, int]
"""Place, network as text, first and last port."""


def held_from(what: What, since: Moment, subscriber: str, session: str, seen: int) -> list[Sighting]:
    """Sighting: a subscriber has it from a time on.

    Args:
        what: they have.
        since: from when.
        subscriber: their name.
        session: or empty.
        seen: when it was last said, in ms.
    """
    # Not before the last reading: who had it till then may have had it till then.
    held = (*what, since.last, FOREVER, max(seen, since.last), subscriber, session, int(Said.HELD))
    return [*_perhaps(what, since, subscriber, session), held]


def held_until(
    what: What, since: Moment | None, until: Moment, subscriber: str, session: str
) -> list[Sighting]:
    """Sighting: a subscriber had it until a time; since when, where the source says so."""
    start = since.last if since else 0
    ended = (*what, start, until.last, until.first, subscriber, session, int(Said.ENDED))
    return [*(_perhaps(what, since, subscriber, session) if since else []), ended]


def held_between(what: What, since: Moment, until: Moment, subscriber: str, session: str) -> list[Sighting]:
    """Sighting: a subscriber had it from one time to another, and nothing else will be said of it."""
    whose = subscriber, session
    if since.last < until.first or (since.first == since.last and until.first == until.last):
        whole = (*what, since.last, until.first, 0, *whose, int(Said.WHOLE))
        return [*_perhaps(what, since, *whose), whole, *_perhaps(what, until, *whose)]
    return _perhaps(what, Moment(since.first, until.last), *whose)


def _perhaps(what: What, when: Moment, subscriber: str, session: str) -> list[Sighting]:
    if when.first == when.last:
        return []
    return [(*what, when.first, when.last, 0, subscriber, session, int(Said.PERHAPS))]
