"""Response fields that say when to come back: Retry-After, and freshness by Cache-Control and Expires.

How long an answer is fresh is RFC 9111, section 4.2; a private cache's view, so s-maxage does not count.
"""

import re
import time
from collections.abc import Mapping

from werkzeug.http import parse_date, parse_dict_header

_SECONDS = re.compile(r"\s*(\d{1,10})\s*", re.ASCII)
_MOST = 2**31
"""Seconds: what a number too large counts as (RFC 9111, section 1.2.2)."""


def retry_after(fields: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks to wait: a number of them, or a date; None where it has neither."""
    value = fields.get("retry-after")
    return _seconds(value) if value is None or _SECONDS.fullmatch(value) else _until(value, time.time())


def fresh_for(fields: Mapping[str, str]) -> float | None:
    """Seconds that an answer is fresh: 0 where it must be asked for anew, None where nothing is said."""
    cache = parse_dict_header(fields.get("cache-control", "").lower())
    if "no-store" in cache or cache.get("no-cache", "") is None:
        return 0.0
    lifetime = _seconds(cache.get("max-age"))
    if lifetime is None and "expires" in fields:
        # A date that is none, such as 0, is in the past.
        lifetime = _until(fields["expires"], _date(fields)) or 0.0
    if lifetime is None:
        return None
    return max(0.0, lifetime - (_seconds(fields.get("age")) or 0.0))


def _date(fields: Mapping[str, str]) -> float:
    date = parse_date(fields.get("date"))
    return date.timestamp() if date else time.time()


def _until(value: str, start: float) -> float | None:
    date = parse_date(value)
    return max(0.0, date.timestamp() - start) if date else None


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    match = _SECONDS.fullmatch(value)
    if match:
        return float(min(int(match[1]), _MOST))
    return float(_MOST) if re.fullmatch(r"\s*\d+\s*", value, re.ASCII) else None
