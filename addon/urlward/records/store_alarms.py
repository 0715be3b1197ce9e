"""Alarms about a store: down, slow, back, and lost events."""

from collections.abc import Callable

from urlward.records.labels import TROUBLES

DROPS_AGAIN = 60.0
"""Seconds between two reports of events dropped, while that goes on."""

LAG = 60.0
"""Seconds that events may wait on the disk for a store that is up."""


ENDS = {
    "store-back": "store-down",
    "store-level": "store-lagging",
    "clock-settled": "clock-set",
    "list-back": "refused-list",
    "rules-right": "rules-wrong",
} | {end: kind for kind, (end, _) in TROUBLES.items()}
"""What is told like an alarm and is the end of one, and of which."""


class StoreAlarms:
    """Alarms of one store.

    Args:
        store: its name.
        tell: takes an alarm's kind and text.
        clock: seconds.
        down: whether it was down when a process before this one ended, which has said so.

    Attributes:
        down: whether it has been said to be down, and not yet to be back.
    """

    def __init__(
        self, store: str, tell: Callable[[str, str], None], clock: Callable[[], float], *, down: bool
    ) -> None:
        self.down = down
        self._store = store
        self._tell = tell
        self._clock = clock
        self._arrived = 0
        self._waiting_since = clock()
        self._lagging = False
        self._lost = 0
        self._lost_at = float("-inf")

    def say(self, alarm: str, text: str) -> None:
        """Raise an alarm of this store."""
        self._tell(alarm, f"store {self._store}: {text}")

    def failed(self, text: str) -> None:
        """Report that the store does not take events; once."""
        if not self.down:
            self.down = True
            self.say("store-down", f"{text}; events wait on the disk")

    def waiting(self, count: int) -> None:
        """Report the number of events on the disk; an alarm, once, where some wait for long though it
        takes events."""
        now = self._clock()
        if not count:
            if self._lagging:
                self._lagging = False
                self.say("store-level", "takes events as they come again")
            self._waiting_since = now
        elif not self.down and not self._lagging and now - self._waiting_since > LAG:
            self._lagging = True
            self.say("store-lagging", f"takes events more slowly than they come; {count} wait on the disk")

    def arrived(self, count: int) -> None:
        """Count waiting events that have arrived."""
        self._arrived += count

    def back(self) -> None:
        """Report that the store takes events, and none waits any more."""
        if self.down:
            # Said first: another thread says what was lost as soon as this is not down, and that comes after.
            self.say("store-back", f"takes events again, {self._arrived} that waited have arrived")
            self.down = False
        self._arrived = 0

    def lost(self, dropped: int, *, behind: bool = False) -> None:
        """Report dropped events now and then, and their number once there is room again.

        Args:
            dropped: since the start.
            behind: whether the store has yet to take what waits.
        """
        new = dropped - self._lost
        if not new or ((self.down or behind) and self._clock() - self._lost_at < DROPS_AGAIN):
            return
        self._lost_at = self._clock()
        if not self.down:
            self._lost = dropped
        self.say("dropped", f"{new} events were dropped, as no room was left for them")
