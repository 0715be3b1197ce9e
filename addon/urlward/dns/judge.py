"""DNS judge: looks up the names of a DNS message in the lists, and says what goes wrong at a limited rate."""

import logging
import re
import time
from collections.abc import Callable, Iterable

from urlward.engine.errors import UrlwardError, place_of
from urlward.engine.matcher import Matcher

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


type Found = int
"""`BELOW` and `WHOLE` of the hosts of a message, or neither."""

NOTHING: Found = 0
BELOW: Found = 1
"""A host has entries below host level: some of its pages may be listed."""
WHOLE: Found = 2
"""A host is listed whole."""

# A port's service records stand below the host (RFC 9460 section 9.1).
_OF_PORT = re.compile(r"_[0-9]+\._https\.").match
_LEVELS = {"": NOTHING, "below": BELOW, "whole": WHOLE}


class Judge:
    """Lookup of names in the matcher in force.

    Args:
        matcher: gives it.
        faults: are told what goes wrong.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        matcher: Callable[[], Matcher],
        faults: Faults,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._matcher = matcher
        self._faults = faults
        self._clock = clock

    def find(self, hosts: Iterable[str]) -> Found:
        """The lists' finding on any of these hosts, as `urlward.dns.wire` names them. Never raises."""
        found = NOTHING
        try:
            level, now = self._matcher().level, self._clock()
            for host in hosts:
                if host:
                    of_port = _OF_PORT(host) if host[0] == "_" else None
                    found |= _LEVELS[level(host[of_port.end() :] if of_port else host, now)]
        except Exception as e:  # noqa: BLE001 - whether it is listed is not known, and it may well not be
            self._faults.say(e, "a name could not be judged, its addresses are not steered")
        return found

    def allows(self, host: str) -> bool:
        """Whether an entry allows a host whole: what it is an alias for does not count then. Never raises."""
        try:
            return bool(host) and self._matcher().check_host(host, (), self._clock()).action == "allow"
        except Exception as e:  # noqa: BLE001 - the lists' word on the others is known
            self._faults.say(e, "a name could not be judged, it counts as one that is not allowed")
            return False
