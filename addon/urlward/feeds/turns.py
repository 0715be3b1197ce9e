"""Turns of refreshes: of those that are under way, so many compute at a time, while others wait for their
servers.

Compiling takes memory and processors, waiting takes neither. A server that stalls would keep all other feeds
from being refreshed if it took a turn. Locks on a memory file that the processes share say who has one
(fcntl_locking(2)), so that the kernel takes back what a killed process had.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 2
"""Refreshes that compute at a time."""

_LOOK = 0.05
"""Seconds between two tries: who waits in the kernel uses no processor, so seems to hang."""


class Turn:
    """Turn of one process.

    Args:
        fd: of the memory file that all share; None where there are no others.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd
        self._taken: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it inside the block."""
        self._take()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave the turn to others inside the block, such as while a server is asked."""
        self._leave()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        while self._fd is not None and self._taken is None:
            for place in range(AT_ONCE):
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except (BlockingIOError, PermissionError):
                    continue
                self._taken = place
                return
            time.sleep(_LOOK)

    def _leave(self) -> None:
        if self._fd is not None and self._taken is not None:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._taken)
            self._taken = None
