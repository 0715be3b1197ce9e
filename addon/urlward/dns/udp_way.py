"""Upstream over UDP: a response is accepted only from the resolver's address, to the query's port, and with
its id and question (RFC 5452).

Sockets are connected, so that the kernel drops what comes from elsewhere and reports unreachable ports.
There are a few at a time, each with a random port and for so many queries.
"""

import asyncio
import os
import socket

from urlward.dns.forward import Exchange, Forwarder
from urlward.dns.resolvers import Resolver
from urlward.dns.wire import HEADER

SOURCES = 8
"""Sockets, and so ports, in use at a time."""

QUERIES = 500
"""Queries that a socket sends."""

_READS = 64
_BUFFER = 1 << 20
_MESSAGE = bytearray(1 << 16)
_VIEW = memoryview(_MESSAGE)


class UdpWay:
    """Upstream resolver over UDP.

    Args:
        resolver: whom.

    Attributes:
        forwarder: takes the answers; it is made later.
    """

    def __init__(self, resolver: Resolver) -> None:
        self.text = str(resolver)
        self.well = True
        self.again = self.heard = 0.0
        self.forwarder: Forwarder
        self._resolver = resolver
        self._sources: list[_Source | None] = [None] * SOURCES

    def send(self, exchange: Exchange) -> None:
        """Send a query; see `Way.send`."""
        by_chance = os.urandom(3)
        index = by_chance[2] % SOURCES
        source = self._sources[index]
        if source is None or source.spent:
            source = self._sources[index] = _Source(self, self._resolver)
        source.send(exchange, by_chance[:2])

    def close(self) -> None:
        """Close all sockets; see `Way.close`."""
        for source in self._sources:
            if source is not None:
                source.close()
        self._sources = [None] * SOURCES


class _Source:
    """Socket with a random port, and the queries sent from it."""

    __slots__ = ("_left", "_socket", "_waiting", "_way")

    def __init__(self, way: UdpWay, resolver: Resolver) -> None:
        self._way = way
        self._waiting: dict[int, Exchange] = {}
        self._left = QUERIES
        self._socket = socket.socket(resolver.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.connect(resolver.address)
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    @property
    def spent(self) -> bool:
        """Whether the socket is to send no more queries."""
        return self._left <= 0

    def send(self, exchange: Exchange, by_chance: bytes) -> None:
        """Send a query."""
        number = int.from_bytes(by_chance)
        waiting = self._waiting
        while number in waiting:
            by_chance = os.urandom(2)
            number = int.from_bytes(by_chance)
        self._left -= 1
        waiting[number] = exchange
        exchange.places.append((self, number))
        try:
            self._socket.send(by_chance + exchange.query[2:])
        except BlockingIOError:
            return  # as if it had been lost on the way
        except ConnectionError:
            # What the kernel has to say of an earlier query; this one has not been sent. The others have
            # their turn by themselves, for each may come to this again.
            asyncio.get_running_loop().call_soon(self._unreachable)
            raise

    def release(self, number: int) -> None:
        """Stop waiting for a response; see `Place.release`."""
        self._waiting.pop(number, None)
        if self._left <= 0 and not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        receive, waiting = self._socket.recv_into, self._waiting
        way = self._way
        for _ in range(_READS):
            try:
                size = receive(_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                self._unreachable()
                return
            if size < HEADER:
                continue
            exchange = waiting.get(_MESSAGE[0] << 8 | _MESSAGE[1])
            if exchange is None:
                continue
            data = bytes(_VIEW[:size])
            if exchange.is_answer(data):
                way.forwarder.take(exchange, way, data)
            elif exchange.is_refusal(data):
                way.forwarder.failed(exchange, way)
            if self._socket.fileno() < 0:
                return

    def _unreachable(self) -> None:
        """The kernel reports that the port or the host cannot be reached."""
        for exchange in list(self._waiting.values()):
            self._way.forwarder.failed(exchange, self._way)
