"""DNS server over TCP (RFC 7766): several queries at a time on a connection, each answered when it can be."""

import asyncio
import socket
from collections import deque
from collections.abc import Collection

from urlward.dns.service import Client, Service, counted_by
from urlward.dns.stream import Messages, framed
from urlward.proxy.acceptor import Acceptor, Transports

CONNECTIONS = 1_000
"""At a time. Beyond any of these numbers, the one makes room that has been idle for longest."""

CONNECTIONS_OF_ONE = 50
"""Connections of one address."""

CONNECTIONS_OF_NETWORK = 500
"""Connections of one IPv6 network."""

OUTSTANDING = 64
"""Queries of a connection that wait for their answers; the next are read when one is there."""

IDLE = 10.0
"""Seconds that a connection may take for its next query, or to take an answer."""


class TcpEndpoint:
    """Listener for TCP connections.

    Args:
        service: answers queries.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._server: Acceptor | None = None
        self._connections: set[TcpClient] = set()
        self._of: dict[str, set[TcpClient]] = {}
        """Connections by address and network."""

    def serve(self, one: socket.socket) -> None:
        """Accept connections from a bound socket.

        Raises:
            OSError: another process listens there.
        """
        self._server = Acceptor(Transports(lambda: TcpClient(self)).take, one)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, as `asyncio.Server` has them."""
        return self._server.sockets if self._server is not None else ()

    def close(self) -> None:
        """Accept no more connections; those that are open go on."""
        if self._server is not None:
            self._server.close()

    def end(self) -> None:
        """Accept no more connections, and no more queries on those that are open."""
        self.close()
        for client in tuple(self._connections):
            client.finish()

    def admit(self, client: "TcpClient") -> bool:
        """Count a connection, if there is room for it, or can be made."""
        keys = counted_by(client.host)
        bounds = zip(keys, (CONNECTIONS_OF_ONE, CONNECTIONS_OF_NETWORK), strict=False)
        if not (
            all(_has_room(self._of.get(key, ()), most) for key, most in bounds)
            and _has_room(self._connections, CONNECTIONS)
        ):
            return False
        self._connections.add(client)
        for key in keys:
            self._of.setdefault(key, set()).add(client)
        return True

    def forget(self, client: "TcpClient") -> None:
        """Forget a closed connection."""
        if client not in self._connections:
            return
        self._connections.discard(client)
        for key in counted_by(client.host):
            self._of[key].discard(client)
            if not self._of[key]:
                del self._of[key]


def _has_room(clients: "Collection[TcpClient]", most: int) -> bool:
    """Whether there are fewer than so many, after closing the one idle for longest if need be."""
    if len(clients) < most:
        return True
    oldest = min((one for one in clients if one.is_idle), key=lambda one: one.until, default=None)
    if oldest is None:
        return False
    oldest.retire()
    return True


class TcpClient(asyncio.Protocol):
    """Connection from a client.

    Attributes:
        host: address of the other side.
        until: when it has been idle for too long, by the loop's clock.
    """

    def __init__(self, endpoint: TcpEndpoint) -> None:
        self.host = ""
        self._endpoint = endpoint
        self._messages = Messages()
        self._unread: deque[bytes] = deque()
        self._taking = False
        self._owed = 0
        self._gone = False
        self._ends = False
        self._paused = False
        self._full = False
        self.until = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no response is pending, nor a query to be read."""
        return not self._owed and not self._unread

    def retire(self) -> None:
        """Close at once, to make room."""
        self._gone = True
        self._endpoint.forget(self)
        waits = self._messages.begun or self._transport.get_write_buffer_size()
        self._transport.abort() if waits else self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.host = str(peer[0]) if peer else ""
        if not self._endpoint.admit(self):
            self._gone = True
            transport.abort()
            return
        self._active()
        self._timer = self._loop.call_later(IDLE, self._look)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._active()
        self._unread.extend(self._messages.feed(data))
        if not self._taking:
            self._take()

    def eof_received(self) -> bool:
        """Called by the event loop: pending responses are still sent."""
        self._ends = True
        self._take()
        return True

    def finish(self) -> None:
        """Accept no more queries, and close when all responses are sent."""
        self._ends = True
        self._unread.clear()
        self._take()

    def answer(self, data: bytes) -> None:
        """Send a response; see `Client.answer`."""
        self._owed -= 1
        if self._gone:
            return
        self._active()
        self._transport.write(framed(data))
        if self._unread or self._paused or self._ends:
            self._take_soon()

    def same(self, other: Client) -> bool:  # noqa: ARG002
        """See `Client.same`. Nothing is lost on a stream, so a repeated query is answered again."""
        return False

    def pause_writing(self) -> None:
        """Called by the event loop: the client does not read responses."""
        self._full = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._full = False
        self._active()
        self._take()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        self._gone = True
        self._unread.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._endpoint.forget(self)

    def _take_soon(self) -> None:
        """Schedule `_take`, not from within the service, and so that others have their turn before."""
        if not self._taking:
            self._taking = True
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        """Pass on the queries that are allowed now, and read on if those are all."""
        self._taking = True
        try:
            going_on = self._ask_some()
        except Exception as e:  # noqa: BLE001 - as over UDP
            self._endpoint.service.failed(e)
            going_on = False
        self._taking = False
        if not going_on:
            self._transport.abort()
        elif not self._gone:
            self._read_on()

    def _ask_some(self) -> bool:
        """Pass some queries to the service; False where one was malformed."""
        for _ in range(OUTSTANDING):
            if not self._may_ask():
                break
            self._owed += 1
            if not self._endpoint.service.ask(self._unread.popleft(), self, tcp=True):
                return False
        return True

    def _may_ask(self) -> bool:
        return bool(self._unread) and self._owed < OUTSTANDING and not self._full and not self._gone

    def _read_on(self) -> None:
        if self._may_ask():
            self._take_soon()
        if self._ends:
            if not self._unread and not self._owed:
                self._transport.close()
            return
        waits = bool(self._unread) or self._owed >= OUTSTANDING or self._full
        if waits != self._paused:
            self._paused = waits
            if waits:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _active(self) -> None:
        self.until = self._loop.time() + IDLE

    def _look(self) -> None:
        """Close the connection if it has been idle for too long; pending responses are waited for."""
        now = self._loop.time()
        if now < self.until or (self._owed and not self._full):
            self._timer = self._loop.call_later(max(self.until - now, IDLE / 10), self._look)
        else:
            self._transport.abort() if self._full or self._messages.begun else self._transport.close()
