"""What was counted in the last hour, of counters that only grow."""

from collections import deque

from urlward.records.snapshot import Counts

HOUR = 3_600.0
STEP = 60.0
"""Seconds between two looks that are kept."""


class LastHour:
    """Keeps a look at the counters for each minute of the last hour."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Counts]] = deque(maxlen=int(HOUR / STEP) + 1)

    def is_due(self, now: float) -> bool:
        """Whether it is time for another look."""
        return not self._looks or now - self._looks[-1][0] >= STEP

    def note(self, now: float, total: Counts) -> None:
        """Keep a look."""
        self._looks.append((now, total))

    def since(self, now: float, total: Counts) -> Counts:
        """What has been added in the hour up to now, or since the first look."""
        before = next((counts for at, counts in self._looks if now - at <= HOUR), None)
        if before is None:
            return {}
        return {key: count - before.get(key, 0) for key, count in total.items() if count > before.get(key, 0)}
