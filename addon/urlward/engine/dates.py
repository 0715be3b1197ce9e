"""Points in time as people write them: dates, and times of RFC 3339."""

import re
from datetime import UTC, datetime

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DAY = 86400


def parse_moment(text: str) -> float:
    """Read a date, which is its beginning in UTC, or a time with its offset.

    Args:
        text: such as ``2027-01-31`` or ``2027-01-31T12:00:00.250Z``.

    Returns:
        Seconds since 1970-01-01 UTC.

    Raises:
        ValueError: neither, not in the calendar, or before 1970.
    """
    is_date = bool(_DATE.fullmatch(text))
    if not is_date and not _TIME.fullmatch(text):
        raise ValueError("not a date such as 2027-01-31 nor a time such as 2027-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(f"{text}T00:00:00Z" if is_date else text.upper()).timestamp()
    except ValueError:
        raise ValueError("no such date or time") from None
    if moment < 0:
        raise ValueError("before 1970")
    return moment


def parse_time(text: str, *, whole_day: bool = False) -> int:
    """Read a date or time as `parse_moment`, in whole seconds.

    Args:
        text: likewise.
        whole_day: a date is the end of that day, not its beginning.
    """
    seconds = int(parse_moment(text))
    return seconds + _DAY if whole_day and _DATE.fullmatch(text) else seconds


def time_text(seconds: float) -> str:
    """A time as RFC 3339 has it, such as ``2027-01-31T12:00:00Z``; the number itself beyond the year 9999."""
    try:
        return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return str(int(seconds))


def time_text_ms(milliseconds: int) -> str:
    """A time as RFC 3339 has it, with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def time_or_none(seconds: float) -> str | None:
    """As `time_text`; None for 0, which stands for never."""
    return time_text(seconds) if seconds else None


def age_or_none(seconds: float, now: float) -> int | None:
    """Whole seconds since a time, not below 0 where a clock was wrong; None for 0, as `time_or_none`."""
    return max(round(now - seconds), 0) if seconds else None
