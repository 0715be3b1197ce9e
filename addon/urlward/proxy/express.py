"""The short way: bytes go from socket to socket without mitmproxy's tasks, events and commands.

mitmproxy reads through streams: a wakeup, two locks and a chain of generators stand between a socket
and a layer, several times the cost of all that urlward does with a request. A layer that will do no more
than relay puts protocols of its own on the two transports (``asyncio``'s `set_protocol`). mitmproxy's tasks
keep waiting for data, and see the end of both connections, from which they clean up as ever.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Protocol

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy import layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler
from OpenSSL import SSL

from urlward.proxy.block_page import BlockResponse
from urlward.proxy.ends import NO_ENDS, Ends
from urlward.proxy.guard import Guard
from urlward.proxy.live import Live
from urlward.proxy.names import Names, is_multiplexed
from urlward.proxy.ports import Port, TlsPort

LINGER = 2.0
"""Seconds that a client's sending is read and dropped behind an answer."""


class Relay(Protocol):
    """What becomes of the bytes.

    Attributes:
        ends: where they go.
    """

    ends: Ends

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""

    @property
    def endless(self) -> bool:
        """Whether what is relayed has no end that could be known."""

    @property
    def unbounded(self) -> bool:
        """Whether only the end of the connection tells where a response ends."""

    @property
    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has."""

    @property
    def live(self) -> Iterable[Names]:
        """What is under way."""

    def connected(self) -> None:
        """The connection to the origin is open."""

    def not_connected(self, answer: BlockResponse | None = None) -> None:
        """The origin cannot be reached, or must not be."""

    def client_data(self, data: bytes) -> None:
        """The client has sent something."""

    def client_ended(self) -> None:
        """The client will send no more."""

    def server_data(self, data: bytes) -> None:
        """The origin has sent something."""

    def server_ended(self) -> None:
        """The origin will send no more."""


class Express:
    """Both connections of a relay, and what it asks of them (`urlward.proxy.ends.Ends`).

    Args:
        client: whose.
        relay: decides on what comes.
        guard: logs what fails.
        live: where this becomes a member.
        limit: seconds without a byte after which both are closed; infinite where mitmproxy sees to that.

    Attributes:
        client: whose.
        active: when something came last, by `time.perf_counter`; 0 where nothing has since the last look.
    """

    def __init__(self, client: Client, relay: Relay, guard: Guard, live: Live, limit: float) -> None:
        self.client = client
        self.active = perf_counter()
        self._relay = relay
        relay.ends = self
        self._guard = guard
        self._live = live
        self._limit = limit
        self._since = 0.0
        self._client: Port | None = None
        self._server: Port | None = None
        # The ports' own methods, for one call less in sending.
        self.send_client: Callable[[bytes], None] = _nowhere
        self.send_server: Callable[[bytes], None] = _nowhere

    def take_client(self, port: Port) -> None:
        """Take the client's connection over."""
        self._client = port
        port.receive, port.ended = self._relay.client_data, self._relay.client_ended
        self.send_client = port.write
        self._live.add(self)

    def take_server(self, port: Port) -> None:
        """Take the connection to the origin over."""
        assert self._client is not None
        self._server = port
        port.receive, port.ended = self._relay.server_data, self._relay.server_ended
        self.send_server = port.write
        port.peer, self._client.peer = self._client, port

    def connect(self) -> None:
        """Never called: both are open."""
        raise AssertionError

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""
        return self._client is not None and self._client.transport.get_write_buffer_size() > 0

    def end_client(self) -> None:
        """Send the client no more."""
        if self._client is not None:
            self._client.end()

    def end_server(self) -> None:
        """Send the origin no more."""
        if self._server is not None:
            self._server.end()

    def close_server(self) -> None:
        """Close the connection to the origin."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Close both."""
        if self._client is not None:
            self._client.close()
        self.close_server()

    def linger(self) -> None:
        """Close both in a while."""
        if self._client is not None:
            self._client.transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER, self.close)

    def broken(self, error: Exception) -> None:
        """Something of ours has failed."""
        self._guard.broken(error, self.client)
        self.cut()

    def lost(self, port: Port) -> None:
        """A connection is closed."""
        port.forget()
        if port is self._client:
            self._client = None
            self.close_server()
        else:
            self._server = None
            if self._client is not None and port.broken and self._relay.unbounded:
                # A clean end would say that this is all there is.
                self._client.reset()
            elif self._client is not None:
                try:
                    self._relay.server_ended()
                except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
                    self.broken(e)
                if self._relay.endless:
                    self._client.close()
                else:
                    self._client.transport.resume_reading()
        if self._client is None:
            self._live.discard(self)
        if self._client is None and self._server is None:
            # What is over refers to itself no more, and goes without waiting for the collector.
            self._relay.ends = NO_ENDS
            self.send_client = self.send_server = _nowhere

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """What is under way."""
        return self._relay.live

    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has."""
        return self._relay.head

    def idle(self) -> bool:
        """Whether nothing is under way, or nothing has come since the last look where that cannot be told."""
        if any(port is not None and port.transport.get_write_buffer_size() for port in self._ports()):
            return False
        return self._relay.idle or (self._relay.endless and not self.active)

    def may_read(self) -> bool:
        """Whether the origin takes what comes."""
        return self._server is None or not self._server.full

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """The client's, while it is connected."""
        return self._client.transport if self._client is not None else None

    def _ports(self) -> tuple[Port | None, Port | None]:
        return self._client, self._server

    def touch(self, now: float) -> None:
        """See that something comes now and then."""
        if self.active:
            self.active = 0.0
            self._since = now
        elif now - self._since >= self._limit:
            self.cut()

    def cut(self) -> None:
        """Close both at once."""
        for port in self._ports():
            if port is not None:
                port.gone = True
                port.transport.abort()


def _nowhere(data: bytes) -> None:
    """Send on a connection that is not open, or no more."""


class TakenOver(Express):
    """One whose connections mitmproxy has opened, and will clean up."""

    def __init__(self, handler: ConnectionHandler, relay: Relay, guard: Guard, live: Live) -> None:
        super().__init__(handler.client, relay, guard, live, limit=float("inf"))
        self._handler = handler

    def touch(self, now: float) -> None:
        """Tell mitmproxy's time limit that something has come."""
        if self.active:
            self._handler.timeout_watchdog.register_activity()
        super().touch(now)


def take_over(
    context: Context, handler: ConnectionHandler | None, relay: Relay, guard: Guard, live: Live
) -> TakenOver | None:
    """Take a relay's connections over.

    Args:
        context: of the layer that relays.
        handler: of the client's connection.
        relay: both connections of which are open.
        guard: logs what fails.
        live: where the relay will be a member.

    Returns:
        Who carries it now; None where mitmproxy must go on, perhaps only for a while.
    """
    if handler is None or context.server.via is not None or is_multiplexed(context):
        return None
    if getattr(handler._server_event_lock, "_waiters", None):
        return None  # something that came before is on its way to the layer
    ways: list[tuple[asyncio.Transport, SSL.Connection | None]] = []
    for connection, kind in (
        (context.client, layers.ClientTLSLayer),
        (context.server, layers.ServerTLSLayer),
    ):
        transport = _free_transport(handler, connection)
        sessions = [layer for layer in context.layers if isinstance(layer, kind)]
        if transport is None or len(sessions) > 1:
            return None
        ways.append((transport, sessions[0].tls if sessions else None))
    express = TakenOver(handler, relay, guard, live)
    ports = [TlsPort(express, t, tls) if tls else Port(express, t) for t, tls in ways]
    express.take_client(ports[0])
    express.take_server(ports[1])
    for port in ports:
        port.streams = port.transport.get_protocol()
        port.transport.set_protocol(port)
    return express


def _free_transport(handler: ConnectionHandler, connection: Connection) -> asyncio.Transport | None:
    """A connection's transport, if it is asyncio's and nothing is on its way through mitmproxy."""
    io = handler.transports.get(connection)
    if io is None or not isinstance(io.writer, asyncio.StreamWriter):
        return None
    transport = io.writer.transport
    # What has been read but not handed on would be overtaken; asyncio has no public word for it.
    held = getattr(io.reader, "_buffer", None)
    if held is None or len(held) or io.reader.at_eof() or transport.is_closing():  # type: ignore[union-attr]
        return None
    if transport.get_write_buffer_size() or not isinstance(transport, asyncio.Transport):
        return None
    return transport
