"""Request parameters of people and scripts, parsed strictly."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address

from urlward.config.problem import SettingError
from urlward.dashboard.history import SPANS
from urlward.engine.errors import UrlwardError
from urlward.engine.signing import MAX_SERIAL
from urlward.lists.explain import parse_at
from urlward.objections.objections import Grant
from urlward.policy.allows import duration
from urlward.policy.reasons import reason_of
from urlward.records.event import KINDS, parse_reference
from urlward.records.store import EventQuery
from urlward.state.audit_view import TOPICS, ChangeQuery
from urlward.units import whole

MAX_URL = 8_192
MAX_TEXT = 200
MAX_LIMIT = 1_000

_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?=[Zz]?$)").match
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]").search
_ID = re.compile(r"[0-9a-f]{32}").fullmatch
_TEXTS = ("reference", "list", "category", "entry")


def moment(name: str, text: str) -> float | None:
    """Seconds since 1970-01-01 UTC of a date or time, also to the minute; None for nothing.

    Raises:
        UrlwardError: neither.
    """
    text = text.strip()
    if not text:
        return None
    if minute := _MINUTE(text):
        text = f"{minute[0]}:00Z"
    try:
        return parse_at(text)
    except SettingError as e:
        raise UrlwardError(f"{name}: not a date or time (UTC), such as 2027-01-31 or 2027-01-31 08:30") from e


OF_EVENTS = (*_TEXTS, "kind", "since", "until", "limit", "before")
"""Names of what `event_filter` takes."""


def only(given: Iterable[str], names: Sequence[str]) -> None:
    """Refuse names that are not among these.

    Raises:
        UrlwardError: one is not.
    """
    for name in given:
        if name not in names:
            raise UrlwardError(
                f"{name[:MAX_TEXT]!r}: there is none of that name here, but {', '.join(names)}"
            )


OF_AUDIT = ("kind", "who", "list", "since", "until", "limit", "before")
"""Names of what `change_query` takes."""


def heeded(given: Mapping[str, Sequence[bytes]], names: Sequence[str]) -> None:
    """Refuse a query that would not be heeded as it is written: who asks for some would get all.

    Args:
        given: the values of each name, as they came.
        names: that there are.

    Raises:
        UrlwardError: a name is none of these, a value is empty or has control characters, or there are two
            where one counts.
    """
    only(given, names)
    for name, values in given.items():
        if len(values) > 1 and name != "kind":
            raise UrlwardError(f"{name}: given more than once")
        for value in values:
            if not value.strip() or _CONTROL(value):
                raise UrlwardError(f"{name}: empty, or with a control character")


def event_filter(one: Callable[[str], str], kinds: list[str], *, limit: int) -> EventQuery:
    """Parse a filter of events.

    Args:
        one: the value of a name, empty where it is not given.
        kinds: as given.
        limit: where none is given.

    Raises:
        UrlwardError: a value does not fit.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UrlwardError(f"kind: there are {', '.join(KINDS)}")
    since, until = moment("since", one("since")), moment("until", one("until"))
    before = one("before").strip()
    if before and not _ID(before):
        raise UrlwardError("before: the id of an event, 32 hexadecimal digits")
    limit = _limit(one("limit"), limit)
    texts = {name: _text(name, one(name)) for name in _TEXTS}
    return EventQuery(
        kinds=tuple(dict.fromkeys(kinds)),
        since=None if since is None else round(since * 1000),
        until=None if until is None else round(until * 1000),
        reference=_reference(texts["reference"]),
        list=texts["list"] or None,
        category=texts["category"] or None,
        entry=texts["entry"] or None,
        before=before or None,
        limit=limit,
    )


def change_query(one: Callable[[str], str], kinds: list[str], *, limit: int) -> ChangeQuery:
    """Parse a filter of the audit log. Arguments as of `event_filter`.

    Raises:
        UrlwardError: a value does not fit.
    """
    if any(kind not in TOPICS for kind in kinds):
        raise UrlwardError(f"kind: there are {', '.join(TOPICS)}")
    return ChangeQuery(
        topics=tuple(dict.fromkeys(kinds)),
        who=_text("who", one("who")),
        list=_text("list", one("list")),
        since=moment("since", one("since")),
        until=moment("until", one("until")),
        before=_whole(one("before"), 10**15, "before: the older of the page before"),
        limit=_limit(one("limit"), limit),
    )


def _limit(given: str, otherwise: int) -> int:
    limit = _whole(given, MAX_LIMIT, f"limit: 1 to {MAX_LIMIT}")
    if limit == 0:
        raise UrlwardError(f"limit: 1 to {MAX_LIMIT}")
    return otherwise if limit is None else limit


def _whole(text: str, most: int, refusal: str) -> int | None:
    """A whole number; None for nothing."""
    try:
        return whole(text.strip(), most) if text.strip() else None
    except ValueError:
        raise UrlwardError(refusal) from None


def span(text: str) -> str:
    """Parse a span of the history; a day where none is given.

    Raises:
        UrlwardError: there is none of that name.
    """
    if text and text not in SPANS:
        raise UrlwardError(f"span: there are {', '.join(SPANS)}")
    return text or next(iter(SPANS))


def url(text: str) -> str:
    """Parse a URL as typed.

    Raises:
        UrlwardError: none, or longer than any that is filtered.
    """
    text = text.strip()
    if not text or len(text) > MAX_URL:
        raise UrlwardError(f"url: needed, at most {MAX_URL} characters")
    return text


def client(text: str) -> str:
    """Parse a client's address; it may be empty.

    Raises:
        UrlwardError: something else.
    """
    text = text.strip()
    try:
        return str(ip_address(text)) if text else ""
    except ValueError as e:
        raise UrlwardError("client: not an IP address") from e


def seconds(text: str) -> int:
    """Parse a length of time such as ``2h``; seconds.

    Raises:
        UrlwardError: none.
    """
    return duration(text.strip())


def days(text: str) -> int | None:
    """Parse a number of days; None for nothing.

    Raises:
        UrlwardError: none.
    """
    return _whole(text, 9_999, "days: a number")


def serial(text: str) -> int | None:
    """Parse a list's serial; None for nothing.

    Raises:
        UrlwardError: none.
    """
    return _whole(text, MAX_SERIAL, "serial: a number")


def grant(one: Callable[[str], str]) -> Grant | None:
    """Parse what to allow because of an objection; None where it is declined.

    Raises:
        UrlwardError: neither granted nor declined, or no length of time.
    """
    answer = one("answer")
    if answer not in ("grant", "decline"):
        raise UrlwardError("answer: grant or decline")
    if answer == "decline":
        return None
    if not one("url").strip():
        return Grant()
    return Grant(url(one("url")), seconds(one("for")), one("host") == "yes")


def why(text: str) -> str:
    """Parse the reason, for the record.

    Raises:
        UrlwardError: none, not one line, or a URL in it.
    """
    return reason_of(text)


def texts(found: object) -> Mapping[str, str]:
    """Members of a JSON object, as texts.

    Raises:
        UrlwardError: not an object of texts.
    """
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UrlwardError("body: not a JSON object whose members are texts")
    try:
        "".join(found.values()).encode()
    except UnicodeEncodeError as e:  # half of a pair, as JSON can write it
        raise UrlwardError("body: a text with a character that is none") from e
    return found


def _reference(text: str) -> str | None:
    try:
        return parse_reference(text) if text else None
    except UrlwardError as e:
        raise UrlwardError(str(e)) from e


def _text(name: str, text: str) -> str:
    text = text.strip()
    if len(text) > MAX_TEXT or not (text.isprintable()):
        raise UrlwardError(f"{name}: one line of at most {MAX_TEXT} characters")
    return text
