"""Text summary of the last ten minutes, for those who see no plot."""

from urlward.dashboard.sources import Now, Row

_MINUTE = 60
_RATE = 10
"""Seconds that the newest figures are of."""


def by_minute(now: Now) -> list[Row]:
    """Totals of each minute, newest first.

    Returns:
        ``begin`` (seconds since 1970-01-01 UTC), ``requests`` and ``blocks`` (a second, on average),
        ``latency`` (ms, mean; None without a request) and ``stall`` (ms, longest).
    """
    rows: dict[int, list[int]] = {}
    for n, second in enumerate(now["seconds"]):
        rows.setdefault(second - second % _MINUTE, []).append(n)
    return [{"begin": begin} | _figures(now, places) for begin, places in reversed(rows.items())]


def newest(now: Now) -> Row:
    """Totals of the last ten seconds."""
    return _figures(now, list(range(len(now["seconds"])))[-_RATE:])


def _figures(now: Now, places: list[int]) -> Row:
    count = max(len(places), 1)
    weighed = [(t, now["requests"][n]) for n in places if (t := now["latency"][n]) is not None]
    requests = sum(weight for _, weight in weighed)
    return {
        "requests": round(sum(now["requests"][n] for n in places) / count, 1),
        "blocks": round(sum(now["blocks"][n] for n in places) / count, 1),
        "latency": round(sum(t * weight for t, weight in weighed) / requests, 2) if requests else None,
        "stall": round(max((now["stall"][n] for n in places), default=0.0), 1),
    }
