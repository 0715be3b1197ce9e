"""DNS server: sockets of both families and transports on this machine, with resolvers behind them.

Over UDP a response is sent from the address that was queried, whichever of this machine's. Over TCP
(RFC 7766) there are several queries at a time on a connection, each answered when it can be.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any
from weakref import WeakSet

from urlward.dns.handling import Answers
from urlward.dns.judge import Faults
from urlward.dns.policy import Asker
from urlward.dns.resolver_addresses import ResolverAddress
from urlward.dns.service import QueryService, counted_by
from urlward.dns.upstream import Forwarder, OutageLog, TcpWay, UdpWay
from urlward.dns.wire import StreamMessages, framed
from urlward.proxy.acceptor import Acceptor, Transports

logger = logging.getLogger("urlward.gateway")

_READS = 64
"""Datagrams that are read before something else has its turn."""

_BUFFER = 1 << 20
_MOST_QUERY = 4096
_ANCILLARY = 64
_LINK_LOCAL = b"\xfe\x80"
# Known to Python only from version 3.14 on.
_IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)


class UdpEndpoint:
    """UDP socket that receives queries.

    Args:
        service: answers them.
        one: bound; closed with this.
    """

    def __init__(self, service: QueryService, one: socket.socket) -> None:
        self._service = service
        self._socket = one
        self._six = one.family == socket.AF_INET6
        self.port: int = one.getsockname()[1]
        self._owed = 0
        self._ends = False
        self._prepare()
        self.send = one.sendmsg
        asyncio.get_running_loop().add_reader(one, self._read)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket, as `asyncio.Server` has them."""
        return () if self._ends else (self._socket,)

    def close(self) -> None:
        """Accept no more queries; pending responses are still sent."""
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().remove_reader(self._socket)
            self._close_if_done()

    end = close

    def answered(self) -> None:
        """A query from this endpoint has been answered."""
        self._owed -= 1
        if self._ends:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._owed <= 0:
            self._socket.close()

    def _prepare(self) -> None:
        option = self._socket.setsockopt
        option(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        option(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        if self._six:
            option(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            option(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _read(self) -> None:
        receive, ask, local = self._socket.recvmsg, self._service.ask, _local6 if self._six else _local4
        for _ in range(_READS):
            try:
                query, ancillary, flags, peer = receive(_MOST_QUERY, _ANCILLARY)
            except OSError:
                return  # nothing more, or what the network says of an earlier answer
            if flags & socket.MSG_TRUNC:
                continue
            try:
                owed = ask(query, UdpClient(self, peer, local(ancillary)))
                self._owed += owed  # which may be paid already
            except Exception as e:  # noqa: BLE001 - one query must not end the reading of all
                self._service.failed(e)
            if self._ends:
                return


class UdpClient:
    """Sender of a query over UDP."""

    __slots__ = ("_endpoint", "_local", "_peer", "host")

    def __init__(
        self, endpoint: UdpEndpoint, peer: tuple[Any, ...], local: list[tuple[int, int, bytes]]
    ) -> None:
        self._endpoint = endpoint
        self._peer = peer
        self._local = local
        self.host: str = peer[0]

    def answer(self, data: bytes) -> None:
        """Send a response; see `QueryClient.answer`."""
        try:
            self._endpoint.send((data,), self._local, 0, self._peer)
        except OSError:
            return  # clients ask again
        finally:
            self._endpoint.answered()

    @property
    def place(self) -> Hashable:
        """See `QueryClient.place`."""
        return self._peer

    @property
    def asker(self) -> Asker:
        """See `QueryClient.asker`."""
        address = ""
        for level, _, data in self._local:
            six = level == socket.IPPROTO_IPV6
            address = socket.inet_ntop(
                socket.AF_INET6 if six else socket.AF_INET, data[:16] if six else data[4:8]
            )
        return Asker(self.host, self._peer[1], socket.IPPROTO_UDP, (address, self._endpoint.port))


def _local4(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Source address of a response: `struct in_pktinfo` of ip(7), the interface left to routing."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return [(level, kind, b"\0\0\0\0" + data[4:8] + b"\0\0\0\0")]
    return []


def _local6(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The same for IPv6: `struct in6_pktinfo` (RFC 3542 section 6); a link-local one needs its interface."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            interface = data[16:] if data.startswith(_LINK_LOCAL) else b"\0\0\0\0"
            return [(level, kind, data[:16] + interface)]
    return []


CONNECTIONS = 1_000
"""At a time. Beyond any of these numbers, the one makes room that has been idle for longest."""

CONNECTIONS_OF_ONE = 50
"""Connections of one address."""

CONNECTIONS_OF_NETWORK = 500
"""Connections of one IPv6 network."""

OUTSTANDING = 64
"""Queries of a connection that wait for their answers; the next are read when one is there."""

AT_ONCE = 16
"""Queries that are taken of a client network's connections in a round of the loop."""

UNREAD = 1 << 18
"""Bytes of answers that may wait for a client that does not read; one for which more do is closed."""

IDLE = 10.0
"""Seconds that a connection may take for its next query, or to take an answer."""


class TcpEndpoint:
    """Listener for TCP connections.

    Args:
        service: answers queries.
    """

    def __init__(self, service: QueryService) -> None:
        self.service = service
        self._server: Acceptor | None = None
        self._connections: set[TcpClient] = set()
        self._of: dict[str, set[TcpClient]] = {}
        """Connections by address and network."""
        self._waiting: dict[str, deque[TcpClient]] = {}
        """Connections with queries that are yet to be taken, by network."""

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

    def soon(self, client: "TcpClient") -> None:
        """Have some queries of a connection taken in its network's turn: a client may have hundreds of
        connections, and queries on each whose answers are made here."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next_round)
        network = (counted_by(client.host) or ("",))[-1]
        self._waiting.setdefault(network, deque()).append(client)

    def _next_round(self) -> None:
        turn = [self._next_of(waiting) for waiting in self._waiting.values()]
        self._waiting = {network: waiting for network, waiting in self._waiting.items() if waiting}
        if self._waiting:  # before any that is taken comes again, for which there is one round as well
            asyncio.get_running_loop().call_soon(self._next_round)
        for client in turn:
            client.take()

    def _next_of(self, waiting: "deque[TcpClient]") -> "TcpClient":
        """The next of a network's connections, past those that are closed: a client may close hundreds in a
        round, each with a query, and they count no more."""
        client = waiting.popleft()
        while client not in self._connections and waiting:
            client = waiting.popleft()
        return client

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
        asker: see `QueryClient.asker`.
        until: when it has been idle for too long, by the loop's clock.
    """

    def __init__(self, endpoint: TcpEndpoint) -> None:
        self.host = ""
        self.asker = Asker("")
        self._endpoint = endpoint
        self._messages = StreamMessages()
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
        return not self._owed and not self._messages.whole

    def retire(self) -> None:
        """Close at once, to make room; what is still owed goes nowhere."""
        self._gone = True
        self._endpoint.forget(self)
        waits = self._messages.begun or self._transport.get_write_buffer_size()
        self._transport.abort() if waits else self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if peer:
            self.host = peer[0]
            ours = transport.get_extra_info("sockname")
            self.asker = Asker(self.host, peer[1], socket.IPPROTO_TCP, ours[:2])
        if not self._endpoint.admit(self):
            self._gone = True
            transport.abort()
            return
        self._active()
        self._timer = self._loop.call_later(IDLE, self._look)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._ends:
            return
        self._active()
        self._messages.add(data)
        if self._taking:  # others of its network are before it, and as much has come as there is a turn for
            self._pause(waits=True)
        self._take_soon()

    def eof_received(self) -> bool:
        """Called by the event loop: pending responses are still sent."""
        self._ends = True
        self._take_soon()
        return True

    def finish(self) -> None:
        """Accept no more queries, and close when all responses are sent."""
        self._ends = True
        self._messages.clear()
        self.take()

    def answer(self, data: bytes) -> None:
        """Send a response; see `QueryClient.answer`."""
        self._owed -= 1
        if self._gone:
            return
        if self._transport.get_write_buffer_size() > UNREAD:
            self.retire()  # what was asked before it was `_full` may be many times as much
            return
        self._active()
        self._transport.write(framed(data))
        if self._messages.whole or self._paused or self._ends:
            self._take_soon()

    @property
    def place(self) -> Hashable:
        """See `QueryClient.place`. Nothing is lost on a stream, so a repeated query is answered again."""
        return object()

    def pause_writing(self) -> None:
        """Called by the event loop: the client does not read responses."""
        self._full = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._full = False
        self._active()
        self._take_soon()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        self._gone = True
        self._messages.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._endpoint.forget(self)

    def _take_soon(self) -> None:
        """Schedule `take`, not from within the service, and so that others have their turn before."""
        if not self._taking:
            self._taking = True
            self._endpoint.soon(self)

    def take(self) -> None:
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
        for _ in range(AT_ONCE):
            if not self._may_ask() or (query := self._messages.take()) is None:
                break
            self._owed += 1
            if not self._endpoint.service.ask(query, self, tcp=True):
                return False
        return True

    def _may_ask(self) -> bool:
        return self._messages.whole and self._owed < OUTSTANDING and not self._full and not self._gone

    def _read_on(self) -> None:
        if self._may_ask():
            self._take_soon()
        if self._ends:
            if not self._messages.whole and not self._owed:
                self._transport.close()
            return
        self._pause(waits=self._messages.whole or self._owed >= OUTSTANDING or self._full)

    def _pause(self, *, waits: bool) -> None:
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


def make_service(
    resolvers: Sequence[ResolverAddress],
    timeout: float,
    answers: Answers,
    faults: Faults,
    trouble: Callable[[str], None] = lambda _: None,
) -> tuple[QueryService, tuple[Forwarder, Forwarder]]:
    """Create a service with its forwarders to the resolvers.

    Args:
        resolvers: in the order of preference.
        timeout: seconds that an answer may take.
        answers: see `QueryService`.
        faults: likewise.
        trouble: see `OutageLog`.
    """
    report = OutageLog((), trouble)
    udp, tcp = Forwarder((), timeout, report), Forwarder((), timeout, report)
    lead_to(resolvers, udp, tcp)
    return QueryService(udp, tcp, answers, faults), (udp, tcp)


def lead_to(resolvers: Sequence[ResolverAddress], udp: Forwarder, tcp: Forwarder) -> None:
    """Have a service's forwarders ask these resolvers from now on."""
    udp.take_ways([UdpWay(resolver) for resolver in resolvers])
    tcp.take_ways([TcpWay(resolver) for resolver in resolvers])


class DnsServer:
    """DNS server at one address, as one of mitmproxy's servers.

    Args:
        service: answers queries.
        lingers: seconds for which queries are still answered after `close`: the kernel does not notice at
            once.
        stopping: called at `close`.
    """

    def __init__(self, service: QueryService, lingers: float, stopping: Callable[[], None]) -> None:
        self._service = service
        self._lingers = lingers
        self._stopping = stopping
        self._endpoints: list[UdpEndpoint | TcpEndpoint] = []
        self._served: WeakSet[UdpEndpoint | TcpEndpoint] = WeakSet()
        """Endpoints, also another worker's: closed when it is back, they may owe responses still."""
        self._closing: asyncio.TimerHandle | None = None

    async def serve(self, one: socket.socket) -> UdpEndpoint | TcpEndpoint:
        """Answer queries from a bound socket.

        Args:
            one: closed with what is given, once that owes no answer, or where there is an error.

        Raises:
            OSError: another process listens there.
        """
        endpoint: UdpEndpoint | TcpEndpoint
        if one.type == socket.SOCK_DGRAM:
            endpoint = UdpEndpoint(self._service, one)
        else:
            endpoint = TcpEndpoint(self._service)
            endpoint.serve(one)
        self._served.add(endpoint)
        return endpoint

    def take(self, endpoints: Iterable[UdpEndpoint | TcpEndpoint]) -> None:
        """Add endpoints that end with this server."""
        self._endpoints += endpoints

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets."""
        return [each for endpoint in self._endpoints for each in endpoint.sockets]

    def close(self) -> None:
        """Begin a graceful stop."""
        if self._closing is None:
            self._stopping()
            self._closing = asyncio.get_running_loop().call_later(self._lingers, self.end)

    @property
    def lingering(self) -> float:
        """Seconds for which queries are still answered after `close`."""
        if self._closing is None or self._closing.cancelled():
            return 0.0
        return max(0.0, self._closing.when() - asyncio.get_running_loop().time())

    @property
    def owes(self) -> bool:
        """See `QueryService.owes`."""
        return self._service.owes

    def end(self) -> None:
        """Stop at once."""
        if self._closing is not None:
            self._closing.cancel()
        for endpoint in tuple(self._served):
            endpoint.end()
