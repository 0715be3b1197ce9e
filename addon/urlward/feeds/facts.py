"""Facts of a feed, kept with its artifact: a small JSON file that nothing depends on for good.

Whoever cannot read it, or a part of it, goes on without: the artifact says itself what is in force, and
the next refresh writes the facts anew. A checksum tells where it is not as it was written: a serial in which
one bit is another would refuse every issue from then on.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from urlward.state.folder import sum_of

VERSION = 1


@dataclass(slots=True)
class Refused:
    """Refused candidate, waiting for an operator's acceptance.

    Attributes:
        reason: the guard's.
        content: tells this candidate from others; keyed.
        entries: how many it has.
        before: how many are in force.
        at: when it was first seen, seconds since 1970-01-01 UTC.
    """

    reason: str
    content: str
    entries: int
    before: int
    at: float


@dataclass(slots=True)
class Accepted:
    """Operator's acceptance, good for one refresh.

    Attributes:
        content: of the candidate that it is for; empty for whatever comes next.
        entries: of that candidate.
        at: when it was given, seconds since 1970-01-01 UTC.
    """

    content: str
    entries: int
    at: float


@dataclass(slots=True)
class Held:
    """Operator's rollback: an earlier list is in force, and stays until it is released.

    Attributes:
        serial: of the list that was put in force.
        before: serial of the one that was.
        at: when, seconds since 1970-01-01 UTC.
        who: did it.
        why: the operator's words.
    """

    serial: int
    before: int
    at: float
    who: str
    why: str


@dataclass(slots=True)
class Facts:
    """Facts of one feed; times are seconds since 1970-01-01 UTC, 0 for never.

    Attributes:
        since: when the feed was first seen.
        recipe: tells whether the feed is configured as it was (`urlward.feeds.source.recipe`).
        trusted: whom its operator trusted then.
        kind: of the body: ``text`` or ``artifact``.
        checksum: of the artifact that `content` and the validators belong to, in hexadecimal.
        content: of the body that it was made of; keyed.
        etag, last_modified, validators_of: what the server called that body
            (`urlward.feeds.source.Validators`).
        last_attempt, last_success, last_change: when it was asked, answered well, and gave a new list.
        serial, highest: of the artifact in force, and the highest that the feed has had from its body.
        entries, added, removed: in force; by the last change.
        bad, unsupported: lines of the last text that were not taken.
        whole: whether its last line had an end.
        failures: in a row.
        reason, error: of the last failure, empty where the last attempt was none.
        next_run: when it is asked next.
        not_before: until when the server wants to be left alone.
        refused, accepted, held: see there.
        alarms: what is wrong for longer, by kind.
        more: what another release has written here.
    """

    since: float = 0.0
    recipe: str = ""
    trusted: str = ""
    kind: str = ""
    checksum: str = ""
    content: str = ""
    etag: str = ""
    last_modified: str = ""
    validators_of: str = ""
    last_attempt: float = 0.0
    last_success: float = 0.0
    last_change: float = 0.0
    serial: int = 0
    highest: int = 0
    entries: int = 0
    added: int = 0
    removed: int = 0
    bad: int = 0
    unsupported: int = 0
    whole: bool = True
    failures: int = 0
    reason: str = ""
    error: str = ""
    next_run: float = 0.0
    not_before: float = 0.0
    refused: Refused | None = None
    accepted: Accepted | None = None
    held: Held | None = None
    alarms: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def dump_facts(facts: Facts) -> bytes:
    """Encode as a JSON object."""
    data = asdict(facts)
    more = data.pop("more")
    data = {"version": VERSION, **more, **data}
    return json.dumps(data | {"sum": sum_of(data)}, indent=1).encode() + b"\n"


def parse_facts(data: bytes) -> Facts | None:
    """Decode what can be read; the rest is as if it had never been known. None where nothing can."""
    try:
        found = json.loads(data)
        # What was written before there were checksums has none.
        if found.get("sum") not in (None, sum_of(found)):
            return None
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    found.pop("version", None)
    found.pop("sum", None)
    readers: dict[str, Callable[[Any], Any]] = {
        "refused": lambda value: _record(Refused, value),
        "accepted": lambda value: _record(Accepted, value),
        "held": lambda value: _record(Held, value),
        "alarms": _texts,
    }
    facts = Facts()
    for part in fields(Facts):
        if part.name in found and part.name != "more":
            value = found.pop(part.name)
            default = getattr(facts, part.name)
            read = readers.get(part.name, lambda value, default=default: _like(default, value))
            if (value := read(value)) is not None:
                setattr(facts, part.name, value)
    facts.more = found
    return facts


def _like(default: Any, value: Any) -> Any:
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    fits = type(value) is type(default) and (not isinstance(value, int | float) or 0 <= value < 1 << 64)
    return value if fits else None


def _record[T](kind: type[T], value: Any) -> T | None:
    if not isinstance(value, dict):
        return None
    parts = {}
    for part in fields(kind):  # type: ignore[arg-type]
        assert part.default is MISSING
        read = _like({str: "", int: 0, float: 0.0}[part.type], value.get(part.name))  # type: ignore[index]
        if read is None:
            return None
        parts[part.name] = read
    return kind(**parts)


def _texts(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return None
    return value
