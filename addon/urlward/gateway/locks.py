"""Locks of a network namespace: one filter steers in it, since two would silently undo each other's work, and
one process at a time reads the kernel's state and changes it.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from urlward.gateway.errors import GatewayError

NAME = "\0urlward-steer"
"""A Unix socket outside the file system, whose names a network namespace has for itself (`unix(7)`)."""


def alone() -> socket.socket:
    """Take the lock, which is held for as long as the socket is open.

    Raises:
        GatewayError: another is.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(NAME)
    except OSError as e:
        claim.close()
        if e.errno == errno.EADDRINUSE:
            raise GatewayError("another urlward steers in this network namespace") from e
        raise GatewayError(f"cannot see whether another urlward steers: {e.strerror or e}") from e
    return claim


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
