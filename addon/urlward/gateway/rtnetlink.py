"""Routing over netlink (rtnetlink(7)): links, routes and rules, with queries, changes, notifications."""

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

from urlward.gateway.netlink import DUMP, REQUEST, answers, attribute, attributes, header, text_of

_GETLINK = 18
_NAME, _MASTER, _MASK = 3, 10, 29
_WITHOUT_STATISTICS = 1 << 3
"""RTEXT_FILTER_SKIP_STATS."""

_RULES = (8, 19)
"""RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE."""

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_PATIENCE = 5.0


class RouteNetlink:
    """rtnetlink connection, in the network namespace of the thread that makes it.

    Raises:
        OSError: no netlink.
    """

    def __init__(self) -> None:
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        """Send a request and read its response; empty where that is an acknowledgement.

        Raises:
            OSError: the kernel refuses.
        """
        return next(self._answers(kind, body, flags), b"")

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects of a kind, in the kernel's order.

        Raises:
            OSError: the kernel refuses.
        """
        return list(self._answers(kind, body, DUMP))

    def _answers(self, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
        self._number += 1
        self._socket.send(header(kind, REQUEST | flags, self._number, body))
        for _, rest in answers(self._socket, self._number):
            yield rest


class Link(NamedTuple):
    """Network interface.

    Attributes:
        name: of it.
        master: index of the bridge, bond or the like that it is a port of; 0 where it is none.
    """

    name: str
    master: int


def links() -> dict[int, Link]:
    """The interfaces of this thread's network namespace, by index.

    Raises:
        OSError: the kernel refuses.
    """
    found = {}
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(_MASK, struct.pack("=I", _WITHOUT_STATISTICS))
    with RouteNetlink() as netlink:
        for answer in netlink.dump(_GETLINK, body):
            its = dict(attributes(answer[16:]))
            master = struct.unpack("=I", its[_MASTER])[0] if _MASTER in its else 0
            found[struct.unpack_from("=i", answer, 4)[0]] = Link(text_of(its[_NAME]), master)
    return found


def rules_changed() -> socket.socket:
    """A socket that has something to read whenever somebody has changed a rule of routing.

    Raises:
        OSError: no netlink.
    """
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    one.bind((0, 0))  # one without an address is told nothing
    for group in _RULES:
        one.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return one
