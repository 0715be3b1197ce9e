"""Pool of idle connections to origins, for whichever client of the explicit proxy needs one next.

Clients go from host to host, and come back by other connections of theirs. What is kept has nothing under way
(RFC 9112 section 9.3), and whoever takes it is judged as if it were new.
"""

import asyncio
import logging
import resource
import time
from itertools import islice
from typing import Final

from urlward.proxy.connection import Connection
from urlward.proxy.poller import Share

KEPT_FOR: Final = 60.0
"""Seconds that a connection is kept."""

MOST: Final = 1 << 13
"""Connections that are kept at a time, or a quarter of the files that may be open; the longest makes room."""

MOST_OF_ONE: Final = 32
"""Connections kept to one origin."""

type Key = tuple[object, ...]
"""Key of equal connections: the origin, and the address that it sees."""

logger = logging.getLogger("urlward")


class Pool:
    """Pool of idle connections to origins.

    Args:
        most: how many those may be.

    Attributes:
        active: nothing is made of it; connections set it on their owner.
        share: of nobody.
    """

    __slots__ = ("_by_key", "_most", "_since", "_timer", "active", "share")

    def __init__(self, most: int = MOST) -> None:
        self.active = 0.0
        self.share = Share(nobodys=True)
        self._most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._by_key: dict[Key, list[Connection]] = {}
        self._since: dict[Connection, tuple[Key, float]] = {}
        """The longest first."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def keep(self, key: Key, connection: Connection) -> None:
        """Add a connection that has nothing under way."""
        if not connection.open or connection.waiting or len(self._by_key.get(key, ())) >= MOST_OF_ONE:
            connection.abort()
            return
        # Nothing is asked of it: whatever it says, it is of no use any more.
        connection.belong(self)
        connection.receive, connection.ended = connection.spoil, connection.abort
        self._by_key.setdefault(key, []).append(connection)
        self._since[connection] = key, time.monotonic()
        if len(self._since) > self._most:
            self._close(next(iter(self._since)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_FOR, self._look_after)

    def take(self, key: Key) -> Connection | None:
        """The most recently used connection of these, if there is one."""
        while some := self._by_key.get(key):
            connection = some[-1]
            self._part_with(connection)
            if connection.open:
                return connection
        return None

    def clear(self, most: int | None = None) -> int:
        """Close all connections, or so many, longest idle first; returns how many."""
        closing = list(islice(self._since, most))
        for connection in closing:
            self._close(connection)
        return len(closing)

    def expire(self, now: float) -> float:
        """Close connections that have been idle for too long.

        Args:
            now: seconds on a clock that does not go back.

        Returns:
            Seconds until the next will have been; 0 where there is none.
        """
        for connection, (_, since) in list(self._since.items()):
            if now - since < KEPT_FOR:
                return since + KEPT_FOR - now
            self._close(connection)
        return 0.0

    def _look_after(self) -> None:
        self._timer = None  # whatever goes wrong here, as without memory, the next one kept has another
        wait = self.expire(time.monotonic())
        if wait:
            self._timer = asyncio.get_running_loop().call_later(wait, self._look_after)

    def _close(self, connection: Connection) -> None:
        self._part_with(connection)
        connection.abort()

    def _part_with(self, connection: Connection) -> None:
        key, _ = self._since.pop(connection)
        some = self._by_key[key]
        some.remove(connection)
        if not some:
            del self._by_key[key]

    # -- what the connections say (`urlward.proxy.connection.Owner`)

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        logger.error("%s at a connection at rest", type(error).__name__)
        self.clear()

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        connection.forget()
        if connection in self._since:
            self._part_with(connection)
