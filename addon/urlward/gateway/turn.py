"""Lock for one process at a time in a network namespace, between reading the kernel's state and a change."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 0.5
"""Seconds after which another's turn is no longer waited for: it may have been stopped in the middle."""

_LOOK = 0.0005


class Turn:
    """Lock on the network namespace of the thread that makes it: the same file for all processes in it."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Context that holds the lock, or has waited long enough for it."""
        end = time.monotonic() + _PATIENCE
        while not self._try() and time.monotonic() < end:
            time.sleep(_LOOK)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock's file."""
        os.close(self._file)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
