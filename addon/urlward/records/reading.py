"""Readings of events: lines of the audit log that tell who was shown events of clients, and which they asked
for."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from urlward.engine.dates import time_text
from urlward.records.store import EventQuery
from urlward.state.audit import append

AGAIN = 3_600.0
"""Seconds in which the same search is told once: a page that is open looks for new events by itself, and a
script for those since its last look."""


class Readings:
    """Readings of events of clients by whoever comes to one process. Thread-safe.

    Args:
        state: the state folder.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(self, state: Path, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._told: dict[tuple[str, str, EventQuery, float, float], float] = {}
        """When somebody was told to have read in a form what a search finds, since when and until when."""

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
        # Further pages are of the same search, and so is what is of a part of its time.
        sought = replace(query, before=None, limit=0, since=None, until=None)
        since, until = query.since or 0, math.inf if query.until is None else query.until
        told = {reading: at for reading, at in self._told.copy().items() if 0 <= now - at < AGAIN}
        if not any(one[:3] == (who, form, sought) and one[3] <= since and until <= one[4] for one in told):
            append(self._state, who, "events-read", now, form=form, **_fields(query))
            told[who, form, sought, since, until] = now
        self._told = told


def _fields(query: EventQuery) -> dict[str, object]:
    times = {"since": query.since, "until": query.until}
    found = {
        "kinds": [*query.kinds],
        **{name: time_text(at // 1000) for name, at in times.items() if at is not None},
        **{name: getattr(query, name) for name in ("list", "category", "entry", "group", "reference")},
        "of_one_client": query.client is not None,
    }
    return {name: value for name, value in found.items() if value}
