"""TCP connections of this machine, ended by the kernel with a reset (sock_diag(7), ``SOCK_DESTROY``)."""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator

from urlward.gateway.netlink import ACK, DONE, DUMP, ERROR, REQUEST, header, split

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_LISTENS = 10
_ALL_BUT_LISTENING = 0xFFF & ~(1 << _LISTENS)
_PORT, _ID = 4, slice(4, 52)
"""Of an answer: its own port; both ports, addresses, interface and cookie of a socket."""

_PATIENCE = 10.0


def reset_connections(ports: Collection[int]) -> int | None:
    """End those that were accepted at these ports, in the network namespace of this thread.

    The other side gets a reset, by the way that its packets came; so do those whose process has ended
    already, and left something to be sent.

    Returns:
        How many; None where this kernel cannot, or this process may not.
    """
    ended = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as s:
        s.settimeout(_PATIENCE)
        for family in (socket.AF_INET, socket.AF_INET6):
            for number, one in enumerate(list(_found(s, family, ports)), 2):
                s.send(_request(_DESTROY, REQUEST | ACK, number, family, one))
                code = -struct.unpack_from("=i", s.recv(8192), 16)[0]
                if code in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
                    return None
                ended += not code
    return ended


def _found(s: socket.socket, family: int, ports: Collection[int]) -> Iterator[bytes]:
    s.send(_request(_BY_FAMILY, REQUEST | DUMP, 1, family, bytes(48)))
    while True:
        for kind, _, _, answer in split(s.recv(1 << 18)):
            if kind == DONE:
                return
            if kind == ERROR:
                code = -struct.unpack_from("=i", answer)[0]
                raise OSError(code, os.strerror(code))
            if struct.unpack_from("!H", answer, _PORT)[0] in ports:
                yield answer[_ID]


def _request(kind: int, flags: int, number: int, family: int, one: bytes) -> bytes:
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_BUT_LISTENING) + one
    return header(kind, flags, number, body)
