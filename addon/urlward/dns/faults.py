"""Fault log: errors of the filter, in one line each and at a limited rate."""

import logging
import time
from collections.abc import Callable

from urlward.engine.errors import UrlwardError
from urlward.lines import place_of

logger = logging.getLogger("urlward.gateway")

SAID_AGAIN = 10.0
"""Seconds between two lines on the same fault."""


_KINDS = 100


class Faults:
    """Rate-limited error log.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def say(self, error: Exception, outcome: str) -> None:
        """Log a fault.

        Args:
            error: its own words are told where they are ours; others might name what is listed.
            outcome: what has become of it.
        """
        if isinstance(error, UrlwardError):
            what = str(error)
        else:
            what = f"{type(error).__name__} at {place_of(error)}"
        line = f"{what}: {outcome}"
        now = self._clock()
        if now < self._said.get(line, float("-inf")) + SAID_AGAIN:
            self._untold[line] = self._untold.get(line, 0) + 1
            return
        if len(self._said) >= _KINDS:
            self._said.clear()
            self._untold.clear()
        untold = self._untold.pop(line, 0)
        self._said[line] = now
        logger.error("%s%s", line, f" (and {untold} times before)" if untold else "")
