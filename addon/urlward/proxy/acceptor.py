"""Acceptor: takes connections from a listening socket, and leaves file descriptors to others."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from functools import cache
from typing import Any

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted; its own limit is `net.core.somaxconn`."""

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before something else has its turn."""

ACCEPT_AGAIN = 1.0
"""Seconds until the next attempt after one that failed."""

RESERVE = 64
"""File descriptors that clients' connections leave free, or an eighth of all: half of them for connections to
origins, half for lists, records and metrics."""


@cache
def enough(*, origins: bool = False) -> int:
    """The lowest file descriptor that clients may not use; the kernel always gives the lowest that is free.

    To be asked for once the limit is raised (`raise_limit`).

    Args:
        origins: whether it is of a connection to an origin.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = min(RESERVE, limit // 8)
    return limit - (reserve // 2 if origins else reserve)


def is_shortage(error: OSError) -> bool:
    """Whether the system has no descriptor or memory for another connection."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Transports:
    """Gives each connection that is taken a transport of asyncio's, and a protocol.

    Args:
        make: makes the protocol.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, sock: socket.socket, peername: tuple[Any, ...] = ()) -> None:  # noqa: ARG002
        """Take an accepted connection."""
        task = asyncio.get_running_loop().create_task(self._take(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._make, sock)
        except OSError:
            sock.close()  # it has ended already


class Acceptor:
    """Accepts from a bound socket, in the event loop; what mitmproxy takes for an `asyncio.Server`.

    asyncio's own knows nothing of a shortage of file descriptors before there is none left, also for lists
    and connections to origins; then it tries once a second, and reports each of its 64 attempts.

    Args:
        take: takes a connection, and its peer's address.
        one: closed with this, or where there is an error.
        short: told of a shortage; gives seconds to wait until the next attempt.

    Raises:
        OSError: another process listens there.
    """

    def __init__(
        self,
        take: Callable[[socket.socket, tuple[Any, ...]], None],
        one: socket.socket,
        short: Callable[[OSError], float] | None = None,
    ) -> None:
        self._take = take
        self._socket = one
        self._short = short
        self._loop = asyncio.get_running_loop()
        self._enough = enough()
        self._family = one.family
        try:
            if one.family != socket.AF_UNIX:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections have it from there
            one.listen(BACKLOG)
        except OSError:
            one.close()
            raise
        self._loop.add_reader(one, self._accept)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket."""
        return (self._socket,) if self._socket.fileno() >= 0 else ()

    def close(self) -> None:
        """Accept no more; what has been accepted goes on."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                # As `accept` does, which asks for the family and the type, as enumerations, each time.
                fd, peer = self._socket._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                self._pause(e)
                return
            connection = socket.socket(self._family, socket.SOCK_STREAM, 0, fd)
            connection.setblocking(False)
            try:
                self._take(connection, peer)
            except OSError:
                connection.close()  # it has ended already
            if connection.fileno() >= self._enough:
                self._pause(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
                return

    def _pause(self, error: OSError) -> None:
        wait = ACCEPT_AGAIN
        if self._short is not None and is_shortage(error):
            wait = self._short(error)
        # First, since it takes memory: nobody would go on to accept otherwise.
        self._loop.call_later(wait, self._resume)
        self._loop.remove_reader(self._socket)

    def _resume(self) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            self._loop.add_reader(self._socket, self._accept)
        except (OSError, MemoryError):
            self._loop.call_later(ACCEPT_AGAIN, self._resume)
