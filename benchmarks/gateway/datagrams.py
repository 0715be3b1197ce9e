"""What a packet costs on its way from the client through a gateway to the origin's socket."""

import socket
import time
from collections.abc import Sequence

from benchmarks.gateway.network import Network, entered

_COUNT = 20_000
"""Datagrams of a turn."""

_PORT = 4443
_PATIENCE = 5.0


class Datagrams:
    """Sends datagrams of one byte, one after the other.

    A packet is taken through both wires, and the gateway between, before the call that sends it returns:
    so the time for a call has all of it.

    Args:
        made: the network; this thread is in the client's namespace.
        addresses: of the origin, one behind each gateway.
    """

    def __init__(self, made: Network, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        with entered(made.world):
            self._origin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # What finds the buffer full is dropped, at the same cost for all.
        self._origin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._origin.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)
        self._origin.bind(("", _PORT))
        self._origin.settimeout(_PATIENCE)

    def nanoseconds(self, gateway: int) -> float:
        """The mean of a turn, for a datagram in a connection that has had an answer."""
        self._drain()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(_PATIENCE)
            client.connect((self._addresses[gateway], _PORT))
            client.send(b"x")
            data, ancillary, _, peer = self._origin.recvmsg(16, 64)
            self._origin.sendmsg([data], ancillary, 0, peer)
            client.recv(16)
            send = client.send
            start = time.perf_counter()
            for _ in range(_COUNT):
                send(b"x")
            return (time.perf_counter() - start) * 1e9 / _COUNT

    def close(self) -> None:
        """End it."""
        self._origin.close()

    def _drain(self) -> None:
        self._origin.setblocking(False)
        try:
            while True:
                self._origin.recv(16)
        except BlockingIOError:
            self._origin.settimeout(_PATIENCE)
