"""Intervals: an address or prefix, and some of its ports, were a subscriber's from one time to another; and
sightings of them, at times as sources write them.

Times are milliseconds since 1970-01-01 UTC, and an interval ends before its `end` (half-open). An address is
found by its *place*, one whole number for an address with a prefix length, so that one index serves both
families; IPv4 in IPv6's clothes (RFC 4291, section 2.5.5.2) is IPv4.

A local time that the clock showed twice, when it was put back, has two readings, and a source does not say
which of them is meant; one of a day, an hour or a minute alone has all that are in it. One that the clock
never showed, when it was put forward, has none.

What is certain in both readings is said as such. What is so in one alone is said beside it, as a span in
which the subscriber may have had it: whoever is asked for a time in it names no single subscriber.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import IntEnum
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, NamedTuple

from urlward.engine.errors import UrlwardError

FOREVER = 1 << 62
"""The end of an interval of which no end is known."""

LAST_PORT = 65_535

MOST_APART = 3_600_000
"""The most that clocks may be apart in a question, in ms: what is held has all candidates by that too."""

SECOND = 1000
"""In ms. Sources write whole seconds: what ended at one may have lasted to its end, and another's begun
in it."""

BEGINS_AGAIN = 60_000
"""Milliseconds for which a server without an answer goes on to tell it that a session begins (RFC 5080 has 30
s), and gives none the same name."""
SESSIONS_APART = 2 * SECOND
"""The most that two beginnings of one session may be apart, in ms: its end says how many seconds it took."""

type Place = int
type Sighting = tuple[Place, str, int, int, int, int, int, str, str, int]
"""What a source says at one point: place, network as text, first and last port, start, end (or `FOREVER`),
when it was said (of an end: the earliest that it may have been), subscriber, session (or empty), and
`SightingKind`. A plain tuple, since there are millions."""

_MAPPED = bytes(10) + b"\xff\xff"

_MS_FROM = 100_000_000_000
"""Numbers from here on are milliseconds: the year 5138 in seconds, 1973 in milliseconds."""
_LONGEST = 30
FIRST = 631_152_000_000
"""The year 1990, in ms: numbers before it are dates as ``20261128``, not seconds."""
LAST = 1 << 43
"""The year 2248, in ms."""

_ZERO = timedelta()
_STEPS = {0: timedelta(days=1), 2: timedelta(hours=1), 4: timedelta(minutes=1)}
"""What a time is exact to that has fewer than six digits of the clock, by their number."""


class AssignmentError(UrlwardError):
    """Assignments that cannot be read or kept."""


class RowError(ValueError):
    """A row that cannot be understood; the message names nobody and may be shown."""


class SightingKind(IntEnum):
    """Kind of a sighting: what it says of the assignment."""

    HELD = 0
    """The subscriber has it from start on, and has it until end if nothing else is said."""
    ENDED = 1
    """It was the subscriber's until end, and is not any more."""
    RELEASED = 2
    """It has been given back before its end, the source does not say when."""
    WHOLE = 3
    """From start to end, and nothing else will be said of it."""
    RESTARTED = 4
    """All sessions whose name begins as `session` ended at start; some time before, where
    `subscriber` (which is nobody then) is empty."""
    PERHAPS = 5
    """From start to end, in one of two readings of a local time; what is said next may begin at that end."""
    DECLINED = 6
    """Whoever has it gave it back at start (0: the source does not say when), since somebody else uses it."""
    STOPPED = 7
    """The session ended at end, or since seen, whatever it had; it began at start (0: that is not told)."""
    OVER = 8
    """As ENDED, of whoever had it from start on, and may be named no more; else it may never have been."""


class Ending(IntEnum):
    """Certainty of an interval's end."""

    TOLD = 0
    EXPIRY = 1
    NEXT = 2
    RELEASED = 3
    NONE = 4
    SECOND = 5
    DOUBT = 6
    ORDER = 7
    DECLINED = 8
    LATE = 9
    UNREAD = 10
    WITHIN = 11
    MISSED = 12
    DELETED = 13
    BESIDE = 14
    GIVEN_BACK = 15
    MOVED = 16
    OWN = 17
    """Of a row that is an end alone, whose beginning was read elsewhere, or not at all; `who` shows none."""
    RESTARTED = 18
    """Likewise of one that says when a server restarted."""
    SILENT = 19
    """Of no row: nothing was said any more, and the end is not told, by a source that tells ends."""
    SAID = 20
    """Of no row: up to when it was said last, by a source that tells ends, of which this one is not told."""
    NEWER = -1
    """Written to a shared database by a node with a newer release."""

    @classmethod
    def _missing_(cls, _: object) -> "Ending":
        return cls.NEWER

    @property
    def text(self) -> str:
        """Words to put after the end's time."""
        return {
            Ending.TOLD: "as the source says",
            Ending.EXPIRY: "when it expires or expired",
            Ending.NEXT: "when it was the next subscriber's",
            Ending.RELEASED: "at the latest: given back before, at a time that the source does not say",
            Ending.NONE: "no end is known",
            Ending.SECOND: "no end is known; it began then or before, by a time that has two readings",
            Ending.DOUBT: "in doubt: by a time that is not exact, or that the clock showed twice",
            Ending.ORDER: "in doubt: who came last is not known, by times with two readings",
            Ending.DECLINED: "in doubt: given back before, as an address that somebody else uses",
            Ending.LATE: "in doubt: this, or its own end, was read after what followed",
            Ending.UNREAD: "in doubt: its source is read up to an earlier time, and may have ended it since",
            Ending.WITHIN: "in doubt: within that second",
            Ending.MISSED: "in doubt: its log was rotated, or written anew, before it was read to its end",
            Ending.DELETED: "in doubt: whoever had it just before, or also, is deleted by now",
            Ending.BESIDE: "in doubt: its own end is told behind the next one's beginning",
            Ending.GIVEN_BACK: "in doubt: given back, and its file of leases was written anew since",
            Ending.MOVED: "in doubt: when its session got it, or got another for it, is not told",
            Ending.OWN: "as the source says",
            Ending.RESTARTED: "as its server restarted",
            Ending.SILENT: "in doubt: nothing was said of it since, and its end was not told",
            Ending.SAID: "when it was said last: its end was not told",
            Ending.NEWER: "in doubt: by a node with a newer release, which knows why",
        }[self]


UP_TO_A_GAP = {Ending.MISSED: Ending.NONE, Ending.GIVEN_BACK: Ending.RELEASED}
"""Kinds of ends that are in doubt since a file of leases was written anew; and what is known of each up to
when it was seen: the file was read before."""


@dataclass(frozen=True, slots=True)
class SightingSource:
    """Source of intervals: a file, database or formula, by the operator's name.

    Attributes:
        name: the operator's.
        format: of what was read.
        path: of the file that something was taken from last, which need not be the one of each interval, or
            the database without its password; of a formula, what it maps.
        read: up to when it is read, in ms; 0 for never.
    """

    id: int
    name: str
    format: str
    path: str
    read: int = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval: one assignment of an address or prefix, and ports, to a subscriber.

    Attributes:
        network: address, or prefix with its length.
        ports: first and last, 0 and 65535 for all.
        start: in ms.
        end: in ms, not part of it; `FOREVER` where none is known.
        seen: when its source last said so, in ms; 0 where it was said once and as a whole.
        ending: how the end is known.
        subscriber: as the source names them.
        session: the source's, empty where it has none.
        source: what said so.
    """

    network: str
    ports: tuple[int, int]
    start: int
    end: int
    seen: int
    ending: Ending
    subscriber: str
    session: str
    source: SightingSource


def place_of(text: str) -> tuple[Place, str]:
    """The place of an address, or of a prefix with its length, and its canonical text.

    Raises:
        ValueError: neither.
    """
    if "/" in text:
        return _network(ip_network(text, strict=False))
    try:
        if ":" in text:
            return _v6(inet_pton(AF_INET6, text))
        # Whether the system takes other spellings than dotted decimals, inet_pton(3) does not.
        return 32 << 32 | int.from_bytes(inet_pton(AF_INET, text)), text
    except (OSError, UnicodeError):
        raise ValueError(f"{text[:50]!r} is not an address") from None


def places_of(text: str, lengths: Iterable[int]) -> dict[Place, str]:
    """Places of all prefixes of some lengths that an address is in, with their texts.

    Args:
        text: the address.
        lengths: prefix lengths, those of IPv4 as numbers from -32 to 0: see `length_of`.

    Raises:
        ValueError: not an address.
    """
    place, canonical = place_of(text)
    if "/" in canonical:
        raise ValueError(f"{text[:50]!r} is a prefix, not an address")
    is_v4 = ":" not in canonical
    found = {place: canonical}
    for length in lengths:
        if (length <= 0) == is_v4:
            network = ip_network(f"{canonical}/{-length if is_v4 else length}", strict=False)
            prefix, name = _network(network)
            found[prefix] = name
    return found


def length_of(network: str) -> int:
    """The prefix length of a canonical text; IPv4's as a number from -32 to 0."""
    address, slash, length = network.partition("/")
    if ":" in address:
        return int(length) if slash else 128
    return -int(length) if slash else -32


def _network(network: IPv4Network | IPv6Network) -> tuple[Place, str]:
    if network.prefixlen == network.max_prefixlen:
        return place_of(str(network.network_address))
    if isinstance(network, IPv4Network):
        return network.prefixlen << 32 | int(network.network_address), str(network)
    mapped = network.network_address.ipv4_mapped
    if mapped is not None and network.prefixlen >= 96:
        return _network(ip_network(f"{mapped}/{network.prefixlen - 96}"))
    return _hashed(network.network_address.packed, network.prefixlen), str(network)


def _v6(packed: bytes) -> tuple[Place, str]:
    if packed.startswith(_MAPPED):
        return 32 << 32 | int.from_bytes(packed[12:]), inet_ntop(AF_INET, packed[12:])
    return _hashed(packed, 128), inet_ntop(AF_INET6, packed)


def _hashed(packed: bytes, length: int) -> Place:
    """Hashed place of an IPv6 network: negative, where those of IPv4 are positive. Collisions are resolved
    by text."""
    digest = int.from_bytes(blake2b(packed + bytes((length,)), digest_size=8).digest())
    return -1 - (digest >> 1)


def is_address(text: str) -> bool:
    """Whether a subscriber's name is an address: of the inner side of a translator."""
    try:
        return "/" not in place_of(text)[1]
    except ValueError:
        return False


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
    at = datetime.fromisoformat(text)
    first, last = _readings(at, zone)
    # A day, an hour or a minute is some time in it.
    said = re.split("[Z+-]", text.replace("T", " ").partition(" ")[2])[0].replace(":", "")
    if step := _STEPS.get(len(said)):
        last = sane(_readings(at + step, zone).last - 1)
    return Moment(first, last)


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
