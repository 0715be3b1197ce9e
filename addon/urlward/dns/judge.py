"""DNS judge: looks up the names of a DNS message in the lists."""

import logging
import re
import time
from collections.abc import Callable, Iterable

from urlward.dns.faults import Faults
from urlward.engine.matcher import Matcher

logger = logging.getLogger("urlward.gateway")

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
