"""Events: a record of each block, cut connection, list change, failure and alarm. Schema version 1.

An event never holds a URL, a host or a path. Requests that pass leave none. An exported one is a JSON object
(`as_json`) with ``version``, ``id``, ``time``, ``kind`` and those of the other fields that apply:

====================  ===================================================================================
``version``           1; a field may be added under the same number, none is ever given another meaning
``id``                32 hexadecimal digits, unique, in order of time (UUID version 7, RFC 9562 section 5.7)
``time``              UTC with milliseconds, RFC 3339
``kind``              ``block``; ``cut``, a connection under way; ``would-block`` and ``would-cut``, what
                      passed although it is listed, since it is only to be told of; ``file``, a response
                      that was a known file; ``list``, one in force changed; ``feed``, a refresh; ``alarm``;
                      ``allow``; ``objection``; ``audit``, a head of the audit log; ``start`` and ``stop`` of
                      a worker or of the process that records; ``gap``, events may be missing
``node``              the machine
``client``            address, as the privacy level leaves it (`urlward.records.privacy`)
``client_port``       its source port (RFC 6302), where the address is whole
``protocol``          ``http``, ``tls``, ``tcp``, ``dns``
``destination``       address
``destination_port``  likewise
``stage``             that decided: ``dns``, ``peek`` (TLS ClientHello), ``match`` (HTTP), ``body``
``list``              by name
``serial``            of that list
``entry``             its id
``category``          likewise
``verdict``           ``block``, or ``monitor``
``reference``         as on the block page
``digest``            of the canonical URL, keyed: equal URLs have equal ones; 32 hexadecimal digits
``group``             that the client is in
``detail``            an object, by kind: ``list`` and ``feed`` have ``entries``, ``added``, ``removed``;
                      ``alarm`` has ``alarm`` and ``text``; ``gap`` has ``since``, ``until``, ``text``;
                      ``audit`` has ``line``, ``hash`` and ``time`` of the last line, and ``counter``;
                      ``file`` has ``algorithm``, ``action`` (``cut``, ``learn``, ``alert``), ``media``,
                      ``size`` (bytes), and where they apply ``distance``, ``score``, ``part``, ``frame`` (s);
                      it, ``block`` and ``would-block`` have ``purpose`` (``prefetch``), where the request
                      said that nobody had asked for it yet
====================  ===================================================================================
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from urlward.engine.dates import time_text_ms
from urlward.engine.errors import UrlwardError

VERSION = 1

Kind = Literal[
    "block", "would-block", "cut", "would-cut", "file", "list", "feed", "alarm", "allow", "objection",
    "audit", "start", "stop", "gap",
]  # fmt: skip

KINDS: tuple[str, ...] = get_args(Kind)
HITS: frozenset[str] = frozenset(("block", "would-block", "cut", "would-cut", "file"))
"""Kinds of what was listed: the ones that a reference is made for."""

VERSIONS: frozenset[str] = frozenset(("list", "feed"))
"""Kinds that tell what a version of a list is, and when it came: by its name and serial."""

PERSONAL: frozenset[str] = HITS | {"objection"}
"""Kinds that hold a client. An objection has the reference that somebody typed."""

RANDOM = 8
"""Bytes of randomness in an id, two bits of which go to the variant."""

MAX_TEXT = 8_192
"""Characters in all texts of an event."""

MAX_FIELD = 512
"""Characters of a text other than ``detail``: what indexes of every database take."""

_LAST_TIME = 253_402_300_800_000
"""The end of the year 9999: no calendar of ours goes further."""

_LAST_NUMBER = (1 << 63) - 1


_REFERENCE = re.compile(r"[0-9A-HJKMNP-TV-Z]{12}").fullmatch
_BETWEEN = re.compile(r"[\s_.\u00ad\u2010-\u2015\u2212-]+")
# Crockford's base32 has no I, L and O (https://www.crockford.com/base32.html).
_MISREAD = str.maketrans("ILO", "110")


def parse_reference(text: str) -> str:
    """A reference as the block page and the records have it, such as ``7Q4M-2XKD-93FH``, from what somebody
    has typed: in any case, with or without hyphens and blanks, I and L for 1, O for 0.

    Raises:
        UrlwardError: it is none.
    """
    letters = _BETWEEN.sub("", text[:64]).upper().translate(_MISREAD)
    if not _REFERENCE(letters):
        raise UrlwardError("reference: not three groups of four letters and digits, as on the block page")
    return f"{letters[:4]}-{letters[4:8]}-{letters[8:]}"


def canonical_reference(text: str) -> str:
    """Normalise a reference as `parse_reference`; a text that is none stays as it is."""
    try:
        return parse_reference(text)
    except UrlwardError:
        return text


class Event(NamedTuple):
    """Event record; empty text and 0 stand for what does not apply. Fields as in the module's table.

    Attributes:
        time: milliseconds since 1970-01-01 UTC.
        detail: a JSON object, or empty.
    """

    id: str
    time: int
    kind: Kind
    node: str = ""
    client: str = ""
    client_port: int = 0
    protocol: str = ""
    destination: str = ""
    destination_port: int = 0
    stage: str = ""
    list: str = ""
    serial: int = 0
    entry: str = ""
    category: str = ""
    verdict: str = ""
    reference: str = ""
    digest: str = ""
    group: str = ""
    detail: str = ""


FIELDS = Event._fields

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

_texts = itemgetter(*(n for n, name in enumerate(FIELDS) if Event.__annotations__[name] is not int))
_CONTROLS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]").search
_ID = frozenset("0123456789abcdef")
_READ = msgspec.json.Decoder(list[Event])
_PLACE = re.compile(r"\$\[([0-9]+)\]").search


def event_id(now: int, random: bytes) -> str:
    """Make an event id: UUID version 7, with the rest of the millisecond ahead of the randomness (RFC 9562,
    sections 5.7 and 6.2, method 3).

    Args:
        now: nanoseconds since 1970-01-01 UTC.
        random: `RANDOM` bytes that nobody can foresee.
    """
    milliseconds, rest = divmod(now, 1_000_000)
    tail = int.from_bytes(random) & 0x3FFF_FFFF_FFFF_FFFF
    number = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (rest * 4096 // 1_000_000) << 64
    return f"{number | 0x2 << 62 | tail:032x}"


def make_event(kind: Kind, now: int, random: bytes, **values: Any) -> Event:
    """Make an event of this moment.

    Args:
        kind: of event.
        now: nanoseconds since 1970-01-01 UTC.
        random: as for `event_id`.
        values: further fields of `Event`; a ``detail`` that is a mapping is put into JSON.
    """
    if isinstance(detail := values.get("detail"), dict):
        values["detail"] = json.dumps(detail, separators=(",", ":"))
    return Event(event_id(now, random), now // 1_000_000, kind, **values)


def gap(since: int, until: int, text: str) -> dict[str, str]:
    """The detail of a gap, also over a clock that was set back meanwhile.

    Args:
        since: ms since 1970-01-01 UTC.
        until: likewise.
        text: what has made it.
    """
    first, last = sorted((since, until))
    return {"since": time_text_ms(first), "until": time_text_ms(last), "text": text}


def events_of(data: bytes | msgspec.Raw) -> tuple[list[Event], int]:
    """The events in a JSON array of arrays, each the values of one in the order of `FIELDS` as far as they
    go, and how many others there are. They may come from anywhere.

    Raises:
        UrlwardError: no such array.
    """
    try:
        # Nearly always all of them are what they should be, which is quickly seen.
        return [_checked(event) for event in _READ.decode(data)], 0
    except (msgspec.MsgspecError, UrlwardError, RecursionError, UnicodeDecodeError):
        pass
    try:
        rows = msgspec.json.decode(data, type=list[Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise UrlwardError("not a JSON array") from e
    found = []
    for row in rows:
        with suppress(UrlwardError):
            found.append(event_of(row))
    return found, len(rows) - len(found)


def event_of(row: object) -> Event:
    """Decode one event; as `events_of`.

    Raises:
        UrlwardError: they are no event, or one too large to keep.
    """
    try:
        return _checked(msgspec.convert(row, Event))
    except msgspec.ValidationError as e:
        where = _PLACE(str(e))
        raise UrlwardError(
            f"{FIELDS[int(where[1])] if where else 'an array'}: not what it should be"
        ) from None


def _checked(event: Event) -> Event:
    """Check that the values have the right types, and make an event of them."""
    texts: tuple[str, ...] = _texts(event)
    text = "".join(texts)
    if len(text) > MAX_TEXT:
        raise UrlwardError(f"{len(text)} characters, at most {MAX_TEXT}")
    # What no database takes would stay in the way of what comes after it.
    if len(text) > MAX_FIELD and max(map(len, texts[:-1])) > MAX_FIELD:
        raise UrlwardError(f"a field has more than {MAX_FIELD} characters")
    # No database of ours keeps NUL, and lone surrogates are no text.
    if not text.isprintable() and _CONTROLS(text):
        raise UrlwardError("control characters, or what is no character")
    if len(event.id) != 32 or not _ID.issuperset(event.id):
        raise UrlwardError("id: not 32 hexadecimal digits")
    if len(event.digest) not in (0, 32):
        raise UrlwardError("digest: not 32 hexadecimal digits")
    if not 0 <= event.time < _LAST_TIME or not 0 <= event.serial <= _LAST_NUMBER:
        raise UrlwardError("time or serial: out of range")
    if not 0 <= event.client_port < 65_536 or not 0 <= event.destination_port < 65_536:
        raise UrlwardError("port: out of range")
    if event.detail and not isinstance(detail_of(event), dict):
        raise UrlwardError("detail: not a JSON object")
    return event


def detail_of(event: Event) -> dict[str, Any]:
    """Decode an event's detail; empty for none.

    Raises:
        UrlwardError: it is not JSON.
    """
    try:
        found: dict[str, Any] = json.loads(event.detail or "{}")
    except (ValueError, RecursionError):
        raise UrlwardError("detail: not JSON") from None
    return found


def as_json(event: Event) -> dict[str, Any]:
    """Export an event as JSON: the module's table, without what does not apply."""
    given: dict[str, Any] = {name: value for name, value in zip(FIELDS, event, strict=True) if value}
    given |= {"time": time_text_ms(event.time)}
    if event.detail:
        given["detail"] = detail_of(event)
    return {"version": VERSION, **given}


def from_json(given: Mapping[str, Any]) -> Event:
    """An event from what `as_json` has of it.

    Raises:
        UrlwardError: it is none.
    """
    try:
        values = {name: given[name] for name in FIELDS if name in given}
        values["time"] = time_of(given)
        if "detail" in values:
            values["detail"] = json.dumps(values["detail"], separators=(",", ":"))
        return event_of([*Event(**values)])
    except (KeyError, TypeError, ValueError) as e:
        raise UrlwardError("not an event as it is exported") from e


def time_of(given: Mapping[str, Any]) -> int:
    """The time of an event as `as_json` has it, in ms.

    Raises:
        KeyError, TypeError, ValueError: it has none.
    """
    return round(datetime.fromisoformat(given["time"]).timestamp() * 1000)


def csv_cells(event: Event) -> list[str]:
    """An event as a row of CSV, in the order of `FIELDS`; as `as_json` has it, and empty for what does not
    apply.

    A text that a spreadsheet would take for a formula has an apostrophe before it, since names of lists,
    entries and categories come from others (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    given = event._asdict() | {"time": time_text_ms(event.time)}
    return [plain_cell(str(value)) if value else "" for value in given.values()]


def plain_cell(text: str) -> str:
    """Text for a cell of CSV that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
