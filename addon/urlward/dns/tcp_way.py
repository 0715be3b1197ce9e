"""Upstream over TCP (RFC 7766): a few persistent connections, each with several queries under way."""

import asyncio
import os
from contextlib import suppress

from urlward.dns.forward import Exchange, Forwarder
from urlward.dns.resolvers import Resolver
from urlward.dns.stream import Messages, framed
from urlward.dns.wire import HEADER

LINES = 8
"""Connections to a resolver."""

ON_A_LINE = 100
"""Queries under way on one connection."""

ENOUGH = 4
"""Queries under way from which another connection is opened, for resolvers that take them in turn."""

IDLE = 5.0
"""Seconds that a connection is kept for the next query."""

SILENT = 1.0
"""Seconds without a byte after which a query that goes unanswered is the last on its connection."""


class TcpWay:
    """Upstream resolver over TCP.

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
        self.resolver = resolver
        self._lines: list[_Line] = []
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange) -> None:
        """Send a query; see `Way.send`."""
        line = min(self._lines, key=len, default=None)
        if line is None or (len(line) >= ENOUGH and len(self._lines) < LINES):
            line = _Line(self)
            self._lines.append(line)
            line.send(exchange)
            task = asyncio.get_running_loop().create_task(self._connect(line))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        elif len(line) >= ON_A_LINE:
            raise BlockingIOError
        else:
            line.send(exchange)

    def close(self) -> None:
        """Close all connections; see `Way.close`."""
        for task in self._connecting:
            task.cancel()
        for line in tuple(self._lines):
            line.close()

    def drop(self, line: "_Line") -> None:
        """This connection takes no more queries."""
        with suppress(ValueError):
            self._lines.remove(line)

    async def _connect(self, line: "_Line") -> None:
        try:
            host, port = self.resolver.address[:2]
            if self.resolver.family.name == "AF_INET6" and self.resolver.address[3]:
                host = self.resolver.host  # with its zone
            await asyncio.get_running_loop().create_connection(lambda: line, host, port)
        except OSError:
            line.lost(reached=False)


class _Line(asyncio.Protocol):
    """Connection to the resolver."""

    def __init__(self, way: TcpWay) -> None:
        self._way = way
        self._waiting: dict[int, Exchange] = {}
        self._messages = Messages()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._answers = 0
        self._heard = self._loop.time()
        self._dropped = False
        self._idle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, exchange: Exchange) -> None:
        """Send a query, now or once connected."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        by_chance = os.urandom(2)
        while int.from_bytes(by_chance) in self._waiting:
            by_chance = os.urandom(2)
        number = int.from_bytes(by_chance)
        self._waiting[number] = exchange
        exchange.places.append((self, number))
        if self._transport is not None:
            self._write(number, exchange)

    def _write(self, number: int, exchange: Exchange) -> None:
        assert self._transport is not None
        self._transport.write(framed(number.to_bytes(2) + exchange.query[2:]))

    def release(self, number: int) -> None:
        """Stop waiting for a response; see `Place.release`."""
        if self._waiting.pop(number, None) is not None and self._loop.time() > self._heard + SILENT:
            self._drop()  # it may be that nothing comes through any more
        if not self._waiting and self._idle is None and self._transport is not None:
            self._idle = self._loop.call_later(0 if self._dropped else IDLE, self.close)

    def _drop(self) -> None:
        self._dropped = True
        self._way.drop(self)

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        if self._idle is not None:
            self._idle.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for number, exchange in tuple(self._waiting.items()):
            self._write(number, exchange)
        if not self._waiting:
            self.release(-1)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        way = self._way
        self._heard = self._loop.time()
        for message in self._messages.feed(data):
            if len(message) < HEADER:
                self.close()
                return
            exchange = self._waiting.get(message[0] << 8 | message[1])
            if exchange is None:
                continue
            if exchange.is_answer(message):
                self._answers += 1
                del self._waiting[message[0] << 8 | message[1]]
                way.forwarder.take(exchange, way, message)
            elif exchange.is_refusal(message):
                way.forwarder.failed(exchange, way)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        self.lost(reached=True)

    def lost(self, *, reached: bool) -> None:
        """Send the connection's pending queries again elsewhere.

        Args:
            reached: whether there has been a connection. One that has carried answers may be closed at any
                time, also with queries on their way (RFC 7766 section 6.2.4); the resolver may be well.
        """
        self.close()
        way = self._way
        again = reached and self._answers > 0
        for exchange in tuple(self._waiting.values()):
            if exchange.way is not way or exchange.over:
                continue
            if again:
                with suppress(OSError):
                    way.send(exchange)
                    continue
            way.forwarder.failed(exchange, way)
        self._waiting.clear()
