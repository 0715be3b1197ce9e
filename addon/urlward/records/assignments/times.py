"""Times as sources write them."""

from datetime import UTC, datetime, tzinfo
from typing import Any

_MS_FROM = 100_000_000_000
"""Numbers from here on are milliseconds: the year 5138 in seconds, 1973 in milliseconds."""
_LONGEST = 30
LAST = 1 << 43
"""The year 2248, in ms."""


def to_ms(value: Any, zone: tzinfo = UTC) -> int:
    """A time in milliseconds since 1970-01-01 UTC.

    Args:
        value: a number of seconds or milliseconds, also as text; a datetime; or ISO 8601 text.
        zone: of times that do not say theirs.

    Raises:
        ValueError: none of these, or out of all reason.
    """
    if isinstance(value, datetime):
        at = value
    else:
        text = str(value).strip()
        if text.isdecimal() or text.replace(".", "", 1).isdecimal():
            if len(text) > _LONGEST:
                raise ValueError("not a time")
            number = float(text)
            return _sane(int(number) if number >= _MS_FROM else round(number * 1000))
        at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    return _sane(round(at.timestamp() * 1000))


def ms_text(ms: int) -> str:
    """RFC 3339 with milliseconds where there are some."""
    at = datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None)
    return f"{at.isoformat()}.{ms % 1000:03}Z" if ms % 1000 else f"{at.isoformat()}Z"


def _sane(ms: int) -> int:
    if not 0 < ms < LAST:
        raise ValueError("not a time of this age")
    return ms
