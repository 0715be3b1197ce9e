"""What is said of a store: when it fails, when it is back, and what was lost meanwhile."""

from collections.abc import Callable

DROPS_AGAIN = 60.0
"""Seconds between two reports of events dropped, while that goes on."""


class StoreAlarms:
    """One store's.

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
        self._lost = 0
        self._lost_at = float("-inf")

    def say(self, alarm: str, text: str) -> None:
        """Say something of it."""
        self._tell(alarm, f"store {self._store}: {text}")

    def failed(self, text: str) -> None:
        """It does not take events; said once."""
        if not self.down:
            self.down = True
            self.say("store-down", f"{text}; events wait on the disk")

    def arrived(self, count: int) -> None:
        """So many events have arrived that waited."""
        self._arrived += count

    def back(self) -> None:
        """It takes events, and none waits any more."""
        if self.down:
            self.down = False
            self.say("store-back", f"takes events again, {self._arrived} that waited have arrived")
        self._arrived = 0

    def has_lost(self, dropped: int) -> bool:
        """Whether there is something to say of so many events dropped since the start."""
        return dropped > self._lost

    def lost(self, dropped: int) -> None:
        """Say now and then that events are dropped, and how many they were once there is room again."""
        new = dropped - self._lost
        if not new or (self.down and self._clock() - self._lost_at < DROPS_AGAIN):
            return
        self._lost_at = self._clock()
        if not self.down:
            self._lost = dropped
        self.say("dropped", f"{new} events were dropped, as no room was left for them")
