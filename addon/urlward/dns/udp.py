"""DNS server over UDP: a response is sent from the address that was queried, whichever of this machine's."""

import asyncio
import logging
import socket
from typing import Any

from urlward.dns.service import Client, Service

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

    def __init__(self, service: Service, one: socket.socket) -> None:
        self._service = service
        self._socket = one
        self._six = one.family == socket.AF_INET6
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

    def __init__(self, endpoint: UdpEndpoint, peer: Any, local: list[tuple[int, int, bytes]]) -> None:
        self._endpoint = endpoint
        self._peer = peer
        self._local = local
        self.host: str = peer[0]

    def answer(self, data: bytes) -> None:
        """Send a response; see `Client.answer`."""
        try:
            self._endpoint.send((data,), self._local, 0, self._peer)
        except OSError:
            return  # clients ask again
        finally:
            self._endpoint.answered()

    def same(self, other: Client) -> bool:
        """Whether a response to one reaches the other; see `Client.same`."""
        return isinstance(other, UdpClient) and self._peer == other._peer


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
