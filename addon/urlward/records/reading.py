"""Readings of events: lines of the audit log that tell who was shown events of clients, and which they asked
for."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from urlward.engine.dates import time_text
from urlward.records.store import EventQuery
from urlward.state.audit import append
from urlward.units import DAY_MS

AGAIN = 3_600.0
"""Seconds in which the same search is told once: a page that is open looks for new events by itself, and
scripts do so with times that move."""


class Readings:
    """Readings of events of clients by whoever comes to one process. Thread-safe.

    Args:
        state: the state folder.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(self, state: Path, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._told: dict[tuple[str, EventQuery, str], tuple[float, EventQuery]] = {}

    def tell(self, who: str, query: EventQuery, form: str) -> None:
        """Note that somebody reads events of clients. Nothing deletes the line, so that it names no client.

        Args:
            who: reads them.
            query: they asked for.
            form: how they are shown, such as ``csv``.

        Raises:
            StateError: it cannot be written; then no such event may be shown.
        """
        now = self._clock()
        # Further pages are of the same search.
        same = who, replace(query, since=None, until=None, before=None, limit=0), form
        told = {reading: one for reading, one in self._told.copy().items() if 0 <= now - one[0] < AGAIN}
        at, before = told.get(same, (now, query))
        if same not in told or not _is_within(query, before):
            if same in told:
                query = _widened(query, before)
            append(self._state, who, "events-read", now, form=form, **_fields(query))
            told[same] = at, query
        self._told = told


def _is_within(query: EventQuery, other: EventQuery) -> bool:
    """Whether a search's times are within those of another."""
    ends = other.until is None or (query.until is not None and query.until <= other.until)
    return (query.since or 0) >= (other.since or 0) and ends


def _widened(query: EventQuery, other: EventQuery) -> EventQuery:
    """A search of the times of both, from the beginning of a day on, so that there are not many of these."""
    since = min(query.since or 0, other.since or 0)
    return replace(query, since=since - since % DAY_MS or None, until=None)


def _fields(query: EventQuery) -> dict[str, object]:
    times = {"since": query.since, "until": query.until}
    found = {
        "kinds": [*query.kinds],
        **{name: time_text(at // 1000) for name, at in times.items() if at is not None},
        **{name: getattr(query, name) for name in ("list", "category", "entry", "group", "reference")},
        "of_one_client": query.client is not None,
    }
    return {name: value for name, value in found.items() if value}
