"""DNS server: sockets of both families and transports on this machine, with resolvers behind them."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakSet

from urlward.dns.faults import Faults
from urlward.dns.forward import Forwarder, Report
from urlward.dns.judge import Judge
from urlward.dns.policy import Policy
from urlward.dns.resolved import Resolved
from urlward.dns.resolvers import Resolver
from urlward.dns.service import Service
from urlward.dns.tcp import TcpEndpoint
from urlward.dns.tcp_way import TcpWay
from urlward.dns.udp import UdpEndpoint
from urlward.dns.udp_way import UdpWay


def make_service(
    resolvers: Sequence[Resolver],
    timeout: float,
    judge: Judge,
    policy: Policy,
    resolved: Resolved,
    faults: Faults,
    trouble: Callable[[str], None] = lambda _: None,
) -> tuple[Service, tuple[Forwarder, Forwarder]]:
    """Create a service with its forwarders to the resolvers.

    Args:
        resolvers: in the order of preference.
        timeout: seconds that an answer may take.
        judge: see `Service`.
        policy: likewise.
        resolved: likewise.
        faults: likewise.
        trouble: see `Report`.
    """
    report = Report([str(resolver) for resolver in resolvers], trouble)
    udp_ways = [UdpWay(resolver) for resolver in resolvers]
    tcp_ways = [TcpWay(resolver) for resolver in resolvers]
    udp, tcp = Forwarder(udp_ways, timeout, report), Forwarder(tcp_ways, timeout, report)
    for way in udp_ways:
        way.forwarder = udp
    for line in tcp_ways:
        line.forwarder = tcp
    return Service(udp, tcp, judge, policy, resolved, faults), (udp, tcp)


class DnsServer:
    """DNS server at one address, as one of mitmproxy's servers.

    Args:
        service: answers queries.
        lingers: seconds for which queries are still answered after `close`: the kernel does not notice at
            once.
        stopping: called at `close`.
    """

    def __init__(self, service: Service, lingers: float, stopping: Callable[[], None]) -> None:
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

    def end(self) -> None:
        """Stop at once."""
        if self._closing is not None:
            self._closing.cancel()
        for endpoint in tuple(self._served):
            endpoint.end()
