"""TCP connections of this machine: ended by the kernel with a reset (sock_diag(7), ``SOCK_DESTROY``)."""

import errno
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from ipaddress import ip_address

from urlward.gateway.netlink import ACK, DUMP, REQUEST, answers, attributes, header
from urlward.gateway.steerable import Address
from urlward.gateway.system import own_addresses

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_LISTENS = 10
_ALL_BUT_LISTENING = 0xFFF & ~(1 << _LISTENS)
_PORT, _ADDRESS, _ID = 4, 8, slice(4, 52)
"""Offsets in a response: own port and address; both ports, addresses, interface and cookie of a socket."""

_ATTRIBUTES = 72
"""Offset of the attributes in a response (``struct inet_diag_msg``)."""

_OPTIONS, _TRANSPARENT = 22, 1 << (5 if sys.byteorder == "little" else 2)
"""INET_DIAG_SOCKOPT, and IP_TRANSPARENT in its first byte (Linux 5.10)."""

_PATIENCE = 10.0


def reset_connections(ports: Collection[int], *, foreign: bool = False) -> int | None:
    """Reset connections that were accepted at these ports, in the network namespace of this thread.

    Args:
        ports: of this machine.
        foreign: whether those end as well whose sockets take connections to any address (IP_TRANSPARENT), or
            of which the kernel does not tell, and whose own address is not this machine's.

    The other side gets a reset, by the way that its packets came; so do those whose process has ended
    already, and left something to be sent.

    Returns:
        How many; None where this kernel cannot, or this process may not.
    """
    ended = 0
    own = own_addresses() if foreign else None
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as s:
        s.settimeout(_PATIENCE)
        for family in (socket.AF_INET, socket.AF_INET6):
            for number, one in enumerate(list(_found(s, family, ports, own)), 2):
                s.send(_request(_DESTROY, REQUEST | ACK, number, family, one))
                code = -struct.unpack_from("=i", s.recv(8192), 16)[0]
                if code in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
                    return None
                ended += not code
    return ended


def _found(
    s: socket.socket, family: int, ports: Collection[int], own: Collection[Address] | None
) -> Iterator[bytes]:
    s.send(_request(_BY_FAMILY, REQUEST | DUMP, 1, family, bytes(48)))
    for _, answer in answers(s, 1):
        if struct.unpack_from("!H", answer, _PORT)[0] in ports or (
            own is not None and _is_foreign(family, answer, own)
        ):
            yield answer[_ID]


def _is_foreign(family: int, answer: bytes, own: Collection[Address]) -> bool:
    options = dict(attributes(answer[_ATTRIBUTES:])).get(_OPTIONS)
    if options is not None:
        return bool(options[0] & _TRANSPARENT)
    address = ip_address(answer[_ADDRESS : _ADDRESS + (4 if family == socket.AF_INET else 16)])
    address = getattr(address, "ipv4_mapped", None) or address
    return address not in own and not address.is_loopback and not address.is_unspecified


def _request(kind: int, flags: int, number: int, family: int, one: bytes) -> bytes:
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_BUT_LISTENING) + one
    return header(kind, flags, number, body)
