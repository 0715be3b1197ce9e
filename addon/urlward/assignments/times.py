"""Times as sources write them, and constructors of sightings at them, also for local times with two possible
readings.

A local time that the clock showed twice, when it was put back, has two readings, and a source does not say
which of them is meant. One that the clock never showed, when it was put forward, has none.

What is certain in both readings is said as such. What is so in one alone is said beside it, as a span in
which the subscriber may have had it: whoever is asked for a time in it names no single subscriber.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from urlward.assignments.interval import FOREVER, Place, Sighting, SightingKind
from urlward.assignments.parsers import RowError

_MS_FROM = 100_000_000_000
"""Numbers from here on are milliseconds: the year 5138 in seconds, 1973 in milliseconds."""
_LONGEST = 30
FIRST = 631_152_000_000
"""The year 1990, in ms: numbers before it are dates as ``20261128``, not seconds."""
LAST = 1 << 43
"""The year 2248, in ms."""

_ZERO = timedelta()


class Moment(NamedTuple):
    """The earliest and the latest reading of a time, in ms since 1970-01-01 UTC; nearly always they are
    one."""

    first: int
    last: int


def moment_of(value: Any, zone: tzinfo = UTC) -> Moment:
    """The readings of a time.

    Args:
        value: a number of seconds or milliseconds, also as text; seconds in hexadecimal behind ``0x``; a
            datetime; or ISO 8601 text.
        zone: of times that do not say theirs.

    Raises:
        RowError: a local time that the zone's clock never showed.
        ValueError: none of these, or out of all reason.
    """
    try:
        return _moment_of(value, zone)
    except OverflowError as e:  # of the first and the last years, where a zone's offset leads out of them
        raise ValueError("not a time of this age") from e


def _moment_of(value: Any, zone: tzinfo) -> Moment:
    if isinstance(value, datetime):
        return _readings(value, zone)
    text = str(value).strip()
    if text.isdecimal() or text.replace(".", "", 1).isdecimal():
        if len(text) > _LONGEST:
            raise ValueError("not a time")
        number = float(text)
        return _exact(int(number) if number >= _MS_FROM else round(number * 1000))
    if text[:2].lower() == "0x":
        return _exact(int(text[:_LONGEST], 16) * 1000)
    return _readings(datetime.fromisoformat(text), zone)


def to_ms(value: Any) -> int:
    """A time in milliseconds since 1970-01-01 UTC, as `moment_of`; one that does not say its zone is UTC.

    Raises:
        ValueError: as `moment_of`.
    """
    return moment_of(value).first


def back_of(at: datetime, zone: tzinfo) -> timedelta:
    """Amount by which the clock of a zone was put back over a local time without a zone; zero where it was
    not.

    Raises:
        RowError: the clock never showed it.
    """
    # The offset before a change is that of fold 0, and the one after it that of fold 1 (PEP 495).
    before, after = (zone.utcoffset(at.replace(fold=fold)) or _ZERO for fold in (0, 1))
    if before < after:
        raise RowError("a local time that there was none of, since the clock was put forward")
    return before - after


def ms_text(ms: int) -> str:
    """RFC 3339 with milliseconds where there are some."""
    at = datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None)
    return f"{at.isoformat()}.{ms % 1000:03}Z" if ms % 1000 else f"{at.isoformat()}Z"


def _readings(at: datetime, zone: tzinfo) -> Moment:
    if at.tzinfo is not None:
        return _exact(round(at.timestamp() * 1000))
    if zone is UTC:
        return _exact(round(at.replace(tzinfo=UTC).timestamp() * 1000))
    back = back_of(at, zone)
    before = zone.utcoffset(at.replace(fold=0)) or _ZERO
    first = round((at - before).replace(tzinfo=UTC).timestamp() * 1000)
    return Moment(sane(first), sane(first + back // timedelta(milliseconds=1)))


def _exact(ms: int) -> Moment:
    return Moment(sane(ms), ms)


def sane(ms: int) -> int:
    """Check that a time in ms is plausible, and return it.

    Raises:
        ValueError: it is out of all reason, and perhaps more than a database takes.
    """
    if not FIRST <= ms < LAST:
        raise ValueError("not a time of this age")
    return ms


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
    held = (*what, since.last, FOREVER, max(seen, since.last), subscriber, session, int(SightingKind.HELD))
    return [*_perhaps(what, since, subscriber, session), held]


def held_until(
    what: What, since: Moment | None, until: Moment, subscriber: str, session: str
) -> list[Sighting]:
    """Sighting: a subscriber had it until a time; since when, where the source says so."""
    start = since.last if since else 0
    ended = (*what, start, until.last, until.first, subscriber, session, int(SightingKind.ENDED))
    return [*(_perhaps(what, since, subscriber, session) if since else []), ended]


def held_between(what: What, since: Moment, until: Moment, subscriber: str, session: str) -> list[Sighting]:
    """Sighting: a subscriber had it from one time to another, and nothing else will be said of it."""
    whose = subscriber, session
    if since.last < until.first or (since.first == since.last and until.first == until.last):
        whole = (*what, since.last, until.first, 0, *whose, int(SightingKind.WHOLE))
        return [*_perhaps(what, since, *whose), whole, *_perhaps(what, until, *whose)]
    return _perhaps(what, Moment(since.first, until.last), *whose)


def _perhaps(what: What, when: Moment, subscriber: str, session: str) -> list[Sighting]:
    if when.first == when.last:
        return []
    return [(*what, when.first, when.last, 0, subscriber, session, int(SightingKind.PERHAPS))]
