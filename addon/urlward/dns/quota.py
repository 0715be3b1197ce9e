"""Quota of addresses that one listed site may have steered.

Whoever runs a listed name answers with whatever addresses they like. Without a bound, a few answers would
fill the kernel's set, so that no other name could be steered, and lead any number of other people's
services here.
"""

import logging
import time
from collections.abc import Callable, Iterable

from cachetools import TTLCache

from urlward.engine.hosts import labels_before_suffix

logger = logging.getLogger("urlward.gateway")

MOST = 512
"""Addresses of one registrable domain in a `Quota`'s time."""

_DOMAINS = 10_000


class Quota:
    """Quota of steered addresses for each site.

    Args:
        seconds: the time after which a domain may come with other addresses.
        clock: seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._taken: TTLCache[str, set[str]] = TTLCache(_DOMAINS, seconds, clock)
        self._said: TTLCache[str, bool] = TTLCache(_DOMAINS, seconds, clock)

    def take(self, host: str, addresses: Iterable[str]) -> list[str]:
        """Reserve addresses for a host; returns those that it may steer.

        Args:
            host: that is listed, in canonical form.
            addresses: as an answer gives them.
        """
        before = labels_before_suffix(host)
        # A public suffix that is listed itself stands for itself.
        domain = ".".join(host.split(".")[max(len(before) - 1, 0) :])
        taken = self._taken.get(domain)
        if taken is None:
            taken = self._taken[domain] = set()
        allowed: list[str] = []
        for address in addresses:
            if address in taken or len(taken) < MOST:
                taken.add(address)
                allowed.append(address)
            elif domain not in self._said:
                self._said[domain] = True
                logger.warning(
                    "a listed site has %d addresses: no more are steered, nor told, for a while", MOST
                )
        return allowed
