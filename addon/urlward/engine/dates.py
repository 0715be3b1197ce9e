"""Points in time as people write them: dates, and times of RFC 3339."""

import re
from datetime import UTC, datetime

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DAY = 86400


def parse_time(text: str, *, whole_day: bool = False) -> int:
    """Read a date, in UTC, or a time with its offset.

    Args:
        text: such as ``2027-01-31`` or ``2027-01-31T12:00:00Z``.
        whole_day: a date is the end of that day, not its beginning.

    Returns:
        Seconds since 1970-01-01 UTC.

    Raises:
        ValueError: neither, not in the calendar, or before 1970.
    """
    is_date = bool(_DATE.fullmatch(text))
    if not is_date and not _TIME.fullmatch(text):
        raise ValueError("not a date such as 2027-01-31 nor a time such as 2027-01-31T12:00:00Z")
    try:
        seconds = int(datetime.fromisoformat(f"{text}T00:00:00Z" if is_date else text.upper()).timestamp())
    except ValueError:
        raise ValueError("no such date or time") from None
    if seconds < 0:
        raise ValueError("before 1970")
    return seconds + _DAY if is_date and whole_day else seconds


def time_text(seconds: float) -> str:
    """A time as RFC 3339 has it, such as ``2027-01-31T12:00:00Z``; the number itself beyond the year 9999."""
    try:
        return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return str(int(seconds))


def time_or_none(seconds: float) -> str | None:
    """As `time_text`; None for 0, which stands for never."""
    return time_text(seconds) if seconds else None
