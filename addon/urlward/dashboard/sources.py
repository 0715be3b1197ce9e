"""Interface of the dashboard to the rest of urlward; and the history of traffic: the last ten minutes, second
by second, from the workers' counters.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from urlward.engine.errors import UrlwardError

type Row = dict[str, Any]
"""By the names that the interface for scripts has too."""

SPAN = 600
"""Seconds that are kept."""

SET_BACK = 5
"""Seconds by which the clock must have been set back for what is kept to be of no use."""

_STAGES = ("peek", "match")
"""Whose requests are traffic; a name that is asked for is none yet."""


class AdminError(UrlwardError):
    """A request that the dashboard cannot fulfil, or a dashboard that cannot be served."""


class NotConfiguredError(AdminError):
    """A part that is not configured; the message says how it would be."""


class EventPage(NamedTuple):
    """Page of events, newest first.

    Attributes:
        events: by the names of an event's fields.
        older: the `EventQuery.before` of the next page; empty where there is none.
    """

    events: list[Row]
    older: str


class Now(TypedDict):
    """Current traffic: the last ten minutes, and the workers.

    Keys:
        time: of the newest second, seconds since 1970-01-01 UTC; 0 where none is known yet.
        seconds: those of the last ten minutes that are known, ascending.
        requests, blocks: in each of these seconds.
        latency: that the filter added to a request, milliseconds, the mean of each second; None without one.
        stall: the longest of the event loops, milliseconds.
        connections: open now.
        workers: each with ``name``, ``since`` (RFC 3339), ``connections``, ``queue`` and ``dropped``.
    """

    time: int
    seconds: list[int]
    requests: list[int]
    blocks: list[int]
    latency: list[float | None]
    stall: list[float]
    connections: int
    workers: list[Row]


class _Totals(NamedTuple):
    requests: int
    blocks: int
    added: int
    added_sum: float

    def since(self, before: "_Totals") -> "_Totals":
        return _Totals(
            self.requests - before.requests,
            self.blocks - before.blocks,
            self.added - before.added,
            self.added_sum - before.added_sum,
        )


class _Second(NamedTuple):
    second: int
    requests: int
    blocks: int
    latency: float | None
    stall: float


class History:
    """History of the last ten minutes: the counts that each second has added.

    A worker that is new adds what it has counted, one that is gone takes nothing away.
    """

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque(maxlen=SPAN)
        self._before: dict[str, _Totals] = {}
        self._connections = 0

    def sample(self, snapshots: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Add a second from the workers' counters; call it once a second.

        Args:
            snapshots: the newest of each worker that lives, as `Metrics.snapshot` has it.
            now: seconds since 1970-01-01 UTC.
        """
        second = int(now)
        if self._seconds and second < self._seconds[-1].second - SET_BACK:
            self._seconds.clear()
        elif self._seconds and second <= self._seconds[-1].second:
            return
        totals = {f"{name} {one['started']}": _totals(one) for name, one in snapshots.items()}
        self._connections = sum(int(one["open"]) for one in snapshots.values())
        first = not self._seconds and not self._before
        changes = [
            total.since(self._before.get(name, _NONE))
            for name, total in totals.items()
            # What was counted before anybody looked is not of this second.
            if not first
        ]
        self._before = totals
        added = sum(change.added for change in changes)
        latency = round(1000 * sum(change.added_sum for change in changes) / added, 3) if added else None
        stall = max((float(one.get("stall_newest", 0.0)) for one in snapshots.values()), default=0.0)
        requests = sum(change.requests for change in changes)
        blocks = sum(change.blocks for change in changes)
        self._seconds.append(_Second(second, requests, blocks, latency, round(1000 * stall, 2)))

    def now(self, workers: Iterable[Row]) -> Now:
        """History of the last ten minutes.

        Args:
            workers: as `Now` has them.
        """
        newest = self._seconds[-1].second if self._seconds else 0
        kept = [one for one in self._seconds if one.second > newest - SPAN]
        return Now(
            time=newest,
            seconds=[one.second for one in kept],
            requests=[one.requests for one in kept],
            blocks=[one.blocks for one in kept],
            latency=[one.latency for one in kept],
            stall=[one.stall for one in kept],
            connections=self._connections,
            workers=list(workers),
        )


_NONE = _Totals(0, 0, 0, 0.0)


def _totals(snapshot: Mapping[str, Any]) -> _Totals:
    requests = snapshot["requests"]
    added = snapshot["histograms"]["added"]
    return _Totals(
        sum(sum(requests.get(stage, {}).values()) for stage in _STAGES),
        sum(sum(counts.values()) for counts in snapshot["blocks"].values()),
        sum(added["counts"]),
        float(added["sum"]),
    )


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
