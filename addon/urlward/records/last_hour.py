"""Counts of the last hour, from counters that only grow."""

from collections import deque

from urlward.records.snapshot import Counts

HOUR = 3_600.0
STEP = 60.0
"""Seconds between two looks that are kept."""


class LastHour:
    """Samples of the counters for each minute of the last hour."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Counts]] = deque(maxlen=int(HOUR / STEP) + 1)

    def is_due(self, now: float) -> bool:
        """Whether the next sample is due."""
        return not self._looks or now - self._looks[-1][0] >= STEP

    def note(self, now: float, total: Counts) -> None:
        """Add a sample."""
        self._looks.append((now, total))

    def since(self, now: float, total: Counts) -> Counts:
        """Counts of the hour up to now, or since the first sample."""
        before = next((counts for at, counts in self._looks if now - at <= HOUR), None)
        if before is None:
            return {}
        return {key: count - before.get(key, 0) for key, count in total.items() if count > before.get(key, 0)}
