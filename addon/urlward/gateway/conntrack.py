"""Kernel's table of connections: the port that a client sent from.

Where two connections from one port to different destinations are redirected, both to the same port here, the
kernel has the second come from another port; also while it remembers the first, two minutes after that has
ended. A translator (CGNAT) before this machine may have given the port to somebody else by then, and the
other one is somebody else's as well: records are to name the first (RFC 6302). Formats:
``linux/netfilter/nfnetlink_conntrack.h``; needs CAP_NET_ADMIN.
"""

import socket
import struct
from contextlib import suppress
from typing import Any

from urlward.gateway.netlink import NETLINK_NETFILTER, REQUEST, answers, attribute, attributes, header, nest
from urlward.gateway.steerable import plain

_GET = 1 << 8 | 1
"""IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK."""

_BEFORE, _AFTER = 1, 2
"""CTA_TUPLE_ORIG, CTA_TUPLE_REPLY: as the client sends, and as it is answered from here."""

_ADDRESSES, _PORTS = 1, 2
_SOURCE_4, _SOURCE_6 = 1, 3
"""The destination's numbers are one more."""

_TRANSPORT, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_PORT = struct.Struct("!H")


class Conntrack:
    """Connection to the kernel's table, in the network namespace of the thread that makes it.

    Raises:
        OSError: no netlink.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def port(self, transport: int, ours: tuple[Any, ...], peer: tuple[Any, ...]) -> int:
        """Port from which a client has sent what has come here. Never raises.

        Args:
            transport: such as ``socket.IPPROTO_TCP``.
            ours: address and port where it has come.
            peer: address and port that it seems to come from.

        Returns:
            `peer`'s where the kernel does not know better.
        """
        with suppress(OSError, ValueError, LookupError, struct.error):
            return self._port(transport, ours, peer)
        return int(peer[1])

    def _port(self, transport: int, ours: tuple[Any, ...], peer: tuple[Any, ...]) -> int:
        here, client = plain(str(ours[0])), plain(str(peer[0]))
        if here is None or client is None:
            raise ValueError
        source = _SOURCE_4 if here.version == 4 else _SOURCE_6
        addresses = attribute(source, here.packed) + attribute(source + 1, client.packed)
        ports = attribute(_TRANSPORT, bytes([transport]))
        ports += attribute(_SOURCE_PORT, _PORT.pack(ours[1])) + attribute(
            _DESTINATION_PORT, _PORT.pack(peer[1])
        )
        asked = nest(_AFTER, nest(_ADDRESSES, addresses) + nest(_PORTS, ports))
        family = socket.AF_INET if here.version == 4 else socket.AF_INET6
        self._number += 1
        self._socket.send(header(_GET, REQUEST, self._number, struct.pack("=BBH", family, 0, 0) + asked))
        _, answer = next(answers(self._socket, self._number))
        before = dict(attributes(dict(attributes(answer[4:]))[_BEFORE]))
        port: int = _PORT.unpack(dict(attributes(before[_PORTS]))[_SOURCE_PORT])[0]
        return port
