"""Rate limit of attempts with wrong secrets, by address."""

from collections import OrderedDict

BURST = 5
"""Wrong guesses in a row."""

EVERY = 12.0
"""Seconds after which one more is let."""

MAX_ADDRESSES = 10_000


class Attempts:
    """Counter of wrong guesses by address: a leaky bucket."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds that an address has to wait; 0 where it may guess.

        Args:
            address: whose guess.
            now: seconds of a clock that is not set.
        """
        return max(0.0, self._level(address, now) - (BURST - 1) * EVERY)

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong guess."""
        self._full_at[address] = now + self._level(address, now) + EVERY
        self._full_at.move_to_end(address)
        # An address that was pushed out has had ten thousand others after it.
        while len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)

    def _level(self, address: str, now: float) -> float:
        return max(0.0, self._full_at.get(address, 0.0) - now)
