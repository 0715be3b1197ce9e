"""The short way: bytes go from socket to socket without mitmproxy's tasks, events and commands.

mitmproxy reads through streams: a wakeup, two locks and a chain of generators stand between a socket
and a layer, several times the cost of all that urlward does with a request. A layer that will do no more
than relay puts protocols of its own on the two transports (``asyncio``'s `set_protocol`). mitmproxy's tasks
keep waiting for data, and see the end of both connections, from which they clean up as ever.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy import layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler
from OpenSSL import SSL

from urlward.proxy.guard import Guard
from urlward.proxy.live import Live
from urlward.proxy.names import Names
from urlward.proxy.relay import Ends

LINGER = 2.0
"""Seconds that a client's sending is read and dropped behind an answer."""

_TLS_READ = 1 << 16


class Relay(Protocol):
    """What becomes of the bytes.

    Attributes:
        ends: where they go.
    """

    ends: Ends

    @property
    def inside_tls(self) -> bool:
        """Whether they are those inside the TLS sessions, if there are any."""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""

    @property
    def reads_head(self) -> bool:
        """Whether a request head has begun and not ended."""

    @property
    def live(self) -> Iterable[Names]:
        """What is under way."""

    def client_data(self, data: bytes) -> None:
        """The client has sent something."""

    def client_ended(self) -> None:
        """The client will send no more."""

    def server_data(self, data: bytes) -> None:
        """The origin has sent something."""

    def server_ended(self) -> None:
        """The origin will send no more."""


class Port(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self, express: "Express", transport: asyncio.Transport) -> None:
        self.transport = transport
        self.peer: Port
        self.receive: Callable[[bytes], None]
        self.ended: Callable[[], None]
        self.gone = False
        self._express = express
        self._streams = transport.get_protocol()

    def write(self, data: bytes) -> None:
        """Send."""
        if not self.gone:
            self.transport.write(data)

    def end(self) -> None:
        """Send no more."""
        if not self.gone and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close once all is sent."""
        self.gone = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._express.active = True
        try:
            self.receive(data)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            self._express.broken(e)

    def eof_received(self) -> bool:
        """Called by the event loop; the other direction stays open."""
        try:
            self.ended()
        except Exception as e:  # noqa: BLE001 - as above
            self._express.broken(e)
        return True

    def pause_writing(self) -> None:
        """Called by the event loop: the receiver is slower than the sender."""
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop; mitmproxy's reader learns of it here."""
        self.gone = True
        self._streams.connection_lost(exc)
        self._express.lost(self)


class TlsPort(Port):
    """One whose bytes OpenSSL wraps, in a session that mitmproxy has begun."""

    def __init__(self, express: "Express", transport: asyncio.Transport, tls: SSL.Connection) -> None:
        super().__init__(express, transport)
        self._tls = tls
        self._shut = False

    def write(self, data: bytes) -> None:
        """Send."""
        if not self.gone:
            self._tls.sendall(data)
            self._flush()

    def end(self) -> None:
        """Send no more, and say so inside the session, where a cut could not forge it."""
        if not self.gone and not self.transport.is_closing():
            self._shut_down()
            self.transport.write_eof()

    def close(self) -> None:
        """Likewise, and close."""
        if not self.gone and not self.transport.is_closing():
            self._shut_down()
        super().close()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._express.active = True
        try:
            self._tls.bio_write(data)
            parts = []
            ended = False
            try:
                while True:
                    parts.append(self._tls.recv(_TLS_READ))
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                ended = True
            except SSL.Error:
                # What was whole is passed on; nothing behind it can be.
                self._flush()
                self._express.close_after(self.receive, b"".join(parts))
                return
            if parts:
                self.receive(parts[0] if len(parts) == 1 else b"".join(parts))
            # A key update or the like may have to be answered.
            self._flush()
            if ended:
                self.ended()
        except Exception as e:  # noqa: BLE001 - as above
            self._express.broken(e)

    def _flush(self) -> None:
        try:
            while True:
                self.transport.write(self._tls.bio_read(_TLS_READ))
        except SSL.WantReadError:
            pass

    def _shut_down(self) -> None:
        if not self._shut:
            self._shut = True
            try:
                self._tls.shutdown()
            except SSL.Error:
                return
            self._flush()


class Express:
    """Both connections of a relay, and what it asks of them (`urlward.proxy.relay.Ends`).

    Attributes:
        client: whose.
        active: whether anything has come since this was last set to False.
    """

    def __init__(self, handler: ConnectionHandler, relay: Relay, guard: Guard, live: Live) -> None:
        self.client: Client = handler.client
        self.active = False
        self._handler = handler
        self._relay = relay
        relay.ends = self
        self._guard = guard
        self._live = live
        self._lost = 0
        self._client: Port
        self._server: Port

    def take(self, client: Port, server: Port) -> None:
        """Take the transports over."""
        self._client, self._server = client, server
        client.peer, server.peer = server, client
        client.receive, client.ended = self._relay.client_data, self._relay.client_ended
        server.receive, server.ended = self._relay.server_data, self._relay.server_ended
        self.send_client, self.send_server = client.write, server.write
        client.transport.set_protocol(client)
        server.transport.set_protocol(server)
        self._live.add(self)

    def connect(self) -> None:
        """Never called: both are open."""
        raise AssertionError

    def end_client(self) -> None:
        """Send the client no more."""
        self._client.end()

    def end_server(self) -> None:
        """Send the origin no more."""
        self._server.end()

    def close_server(self) -> None:
        """Close the connection to the origin."""
        self._server.close()

    def close(self) -> None:
        """Close both."""
        self._client.close()
        self._server.close()

    def linger(self) -> None:
        """Close both in a while."""
        self._client.transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER, self.close)

    def broken(self, error: Exception) -> None:
        """Something of ours has failed."""
        self._guard.failed(error, self.client)
        self.cut()

    def close_after(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """A TLS session has broken down behind these bytes."""
        if data:
            receive(data)
        self.close()

    def lost(self, port: Port) -> None:
        """A connection is closed."""
        self._lost += 1
        if self._lost == 2:
            self._live.discard(self)
        elif port is self._client:
            self._server.close()
        else:
            try:
                self._relay.server_ended()
            except Exception as e:  # noqa: BLE001 - as above
                self.broken(e)
            self._client.transport.resume_reading()

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """What is under way."""
        return self._relay.live

    def reads_head(self) -> bool:
        """Whether a request head has begun and not ended."""
        return self._relay.reads_head

    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._relay.idle

    def touch(self) -> None:
        """Tell mitmproxy's time limit that something has come."""
        if self.active:
            self.active = False
            self._handler.timeout_watchdog.register_activity()

    def cut(self) -> None:
        """Close both at once."""
        for port in (self._client, self._server):
            port.gone = True
            port.transport.abort()


def take_over(
    context: Context, handler: ConnectionHandler | None, relay: Relay, guard: Guard, live: Live
) -> bool:
    """Take a relay's connections over.

    Args:
        context: of the layer that relays.
        handler: of the client's connection.
        relay: both connections of which are open.
        guard: logs what fails.
        live: where the relay will be a member.

    Returns:
        False where mitmproxy must go on carrying it, perhaps only for now.
    """
    if handler is None or context.server.via is not None:
        return False
    ways: list[tuple[asyncio.Transport, SSL.Connection | None]] = []
    for connection, kind in (
        (context.client, layers.ClientTLSLayer),
        (context.server, layers.ServerTLSLayer),
    ):
        transport = _free_transport(handler, connection)
        sessions = [layer for layer in context.layers if isinstance(layer, kind)]
        if transport is None or len(sessions) > 1:
            return False
        ways.append((transport, sessions[0].tls if sessions and relay.inside_tls else None))
    express = Express(handler, relay, guard, live)
    client, server = (TlsPort(express, t, tls) if tls else Port(express, t) for t, tls in ways)
    express.take(client, server)
    return True


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
