"""Lock that lets one filter steer in a network namespace: two would silently undo each other's work."""

import errno
import socket

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
