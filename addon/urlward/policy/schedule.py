"""Schedules of wall-clock times: whether one is in force, and when that will change.

The clock on the wall decides, not the length of a span. A time that the clock skips in spring is in no
schedule that day, and one that it shows twice in autumn is in it both times.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from urlward.config.policy import DAYS, ScheduleTable

LOOK_AHEAD = 9
"""Days that are searched for a change: a weekly span that one clock change skips comes a week later."""

_DAY = 24 * 60


class Schedule:
    """Schedule of rules.

    Args:
        table: from the configuration.
    """

    def __init__(self, table: ScheduleTable) -> None:
        self._zone = ZoneInfo(table.zone)
        self._days = frozenset(map(DAYS.index, table.days))
        self._begins, self._ends = table.begins, table.ends

    def holds(self, now: float) -> bool:
        """Whether it is in force at a time, seconds since 1970-01-01 UTC."""
        local = datetime.fromtimestamp(now, self._zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self._begins < self._ends:
            return day in self._days and self._begins <= minute < self._ends
        # What begins on one day ends on the next.
        begun_today = day in self._days and minute >= self._begins
        return begun_today or ((day - 1) % 7 in self._days and minute < self._ends)

    def next_change(self, now: float) -> float:
        """Time when it will begin or end; where it does not within `LOOK_AHEAD` days, when to compute
        again."""
        held = self.holds(now)
        for moment in sorted(self._moments(now)):
            if moment > now and self.holds(moment) != held:
                return moment
        return now + LOOK_AHEAD * 86_400

    def _moments(self, now: float) -> Iterator[float]:
        """Times at which it may come into force, or go out of it, by the clock on the wall."""
        today = datetime.fromtimestamp(now, self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0, tzinfo=None
        )
        for days in range(-1, LOOK_AHEAD + 1):
            midnight = today + timedelta(days=days)
            for minutes in (0, self._begins, self._ends % _DAY):
                local = midnight + timedelta(minutes=minutes)
                for fold in (0, 1):
                    yield local.replace(tzinfo=self._zone, fold=fold).timestamp()
            start = midnight.replace(tzinfo=UTC).timestamp()
            if self._offset(start) != self._offset(start + 86_400):
                yield self._clock_change(start, start + 86_400)

    def _clock_change(self, before: float, after: float) -> float:
        """Find the second in which the clock on the wall jumps."""
        old = self._offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == old:
                before = middle
            else:
                after = middle
        return after

    def _offset(self, moment: float) -> timedelta | None:
        return datetime.fromtimestamp(moment, self._zone).utcoffset()
