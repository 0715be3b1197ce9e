"""Server at a socket in the file system that resolvers of this machine connect to."""

import asyncio
import socket
from collections.abc import Callable

from urlward.proxy.acceptor import Acceptor, Transports


class ResolverSocket:
    """Server of resolvers' connections.

    Args:
        make: makes the protocol of one, which says when it is `opened` and `closed`.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make
        self._acceptors: list[Acceptor] = []
        self._open: set[asyncio.BaseTransport] = set()

    @property
    def connections(self) -> int:
        """Count of those that are open."""
        return len(self._open)

    async def serve(self, one: socket.socket) -> Acceptor:
        """Take resolvers' connections from a bound socket.

        Raises:
            OSError: another process listens there.
        """
        made = Acceptor(Transports(self._make).take, one)
        self._acceptors.append(made)
        return made

    def end(self) -> None:
        """Stop; resolvers connect to another worker."""
        for acceptor in self._acceptors:
            acceptor.close()
        for transport in tuple(self._open):
            transport.close()

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """A resolver has connected."""
        self._open.add(transport)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """A resolver's connection has ended."""
        self._open.discard(transport)
