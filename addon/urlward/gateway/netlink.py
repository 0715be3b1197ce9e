"""Netlink: nf_tables without libnftables (queries, notifications, transactions), and routing (rtnetlink(7):
links, routes and rules, with queries, changes, notifications).

libnftables parses text and copies whole sets; for one element, or for what must be back within milliseconds,
that takes too long. Formats: ``linux/netlink.h``, ``linux/netfilter/nf_tables.h``, ``linux/rtnetlink.h``.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, Self

from urlward.gateway.table import TABLE, NftError

NETLINK_NETFILTER = 12
INET = 1
"""NFPROTO_INET: the family of the table."""

REQUEST, ACK, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
"""Flags of a message."""

_ERROR, _DONE = 2, 3
"""Kinds of messages that are an answer's end."""

_BATCH_BEGIN, _BATCH_END = 16, 17
_BATCH_GENERATION = 1
_SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES."""

_GROUP = 7
"""NFNLGRP_NFTABLES."""

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SNDBUFFORCE, _RCVBUFFORCE = 32, 33
_RESTART = 85
"""ERESTART: the generation of the rules is another by now."""

_TYPE = 0x3FFF
"""Mask of an attribute's type, without the bits that say how it is encoded."""

_ELEMENTS = 3
_OF_ELEMENT = (1, 2, 3, 7, 9, 10, 11)
"""Key, data, flags, expressions, object, end of the key."""

_FLAGS, _END_OF_INTERVAL = 3, 1
_USERDATA, TIMEOUT, _EXPIRATION = 6, 4, 5
"""Attributes of an element."""

_RECEIVE = 1 << 20
_PATIENCE = 10.0
_QUEUE = 64 << 20
"""Bytes of notifications that may wait; twice what a full set has."""


class MessageKind(IntEnum):
    """Message types of nf_tables (NFT_MSG_*)."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    DELCHAIN = 5
    NEWRULE = 6
    GETRULE = 7
    DELRULE = 8
    NEWSET = 9
    GETSET = 10
    DELSET = 11
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    NEWGEN = 15
    GETGEN = 16


_NEW_GENERATION = _SUBSYSTEM << 8 | MessageKind.NEWGEN
_HEADER = struct.Struct("=IH6xI").unpack_from
_LEAST = 20
"""Bytes of the two headers."""


class Message(NamedTuple):
    """Message of nf_tables.

    Attributes:
        kind: one of `MessageKind`, or a number that is none.
        family: of the table.
        port: of the socket whose transaction it tells of.
        body: attributes.
    """

    kind: int
    family: int
    port: int
    body: bytes


class Netlink:
    """nf_tables connection, in the network namespace of the thread that makes it.

    Args:
        notified: whether it gets notifications, and nothing else.
    """

    def __init__(self, *, notified: bool = False) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._number = 0
        try:
            self._socket.bind((0, 0))
            if notified:
                _force(self._socket, _RCVBUFFORCE, socket.SO_RCVBUF, _QUEUE)
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
                self._socket.setblocking(False)
            else:
                _force(self._socket, _RCVBUFFORCE, socket.SO_RCVBUF, 1 << 22)
                self._socket.settimeout(_PATIENCE)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]
        """Netlink port by which notifications identify this socket's transactions."""

    def fileno(self) -> int:
        """File descriptor, to wait for notifications."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(
        self, kind: MessageKind, attributes: bytes = b"", flags: int = 0, family: int = INET
    ) -> list[Message]:
        """Send a query and read the response.

        Args:
            kind: a GET.
            attributes: of it.
            flags: `DUMP`, where there is more than one answer.
            family: of the table.

        Raises:
            OSError: the kernel refuses; ENOENT where there is no such thing.
        """
        self._number += 1
        self._socket.send(_message(kind, REQUEST | flags, self._number, attributes, family))
        found: list[Message] = []
        for message, _ in answers(self._socket, self._number):
            assert message is not None
            found.append(message)
            if not flags & DUMP:
                break
        return found

    def generation(self) -> int:
        """Current generation number of the kernel's rules."""
        return generation_of(self.ask(MessageKind.GETGEN, family=0)[0].body)[0]

    def commit(self, messages: Sequence[tuple[MessageKind, int, bytes]], generation: int) -> bool:
        """Run a transaction: all of it, or nothing; False where the rules have changed since `generation`.

        Args:
            messages: kind, flags and attributes of each.
            generation: of the rules that it was made from.

        Raises:
            OSError: the kernel refuses.
        """
        first = self._number + 1
        last = first + len(messages)
        self._number = last + 1
        made_from = attribute(_BATCH_GENERATION, struct.pack("!I", generation))
        parts = [_batch(_BATCH_BEGIN, first, made_from)]
        for number, (kind, flags, attributes) in enumerate(messages, first + 1):
            # Older kernels do not acknowledge the end, so the last message is what is waited for.
            acknowledged = ACK if number == last else 0
            parts.append(_message(kind, REQUEST | flags | acknowledged, number, attributes, INET))
        parts.append(_batch(_BATCH_END, self._number))
        data = b"".join(parts)
        _force(self._socket, _SNDBUFFORCE, socket.SO_SNDBUF, len(data) + 4096)
        self._socket.send(data)
        while True:
            for of, number, _, rest in split(self._socket.recv(_RECEIVE)):
                if of != _ERROR or not first <= number <= last:
                    continue
                code = -struct.unpack_from("=i", rest)[0]
                if code == _RESTART:
                    return False
                if code:
                    raise OSError(code, os.strerror(code))
                if number == last:
                    return True

    def notifications(self) -> Iterator[Message]:
        """Read the notifications that have arrived of the table ``inet urlward``, and of generations.

        A reload of others' rules may bring hundreds of thousands, of a set of blocked addresses, before ours.

        Raises:
            NftError: some were lost, since more came than was read.
        """
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise NftError("nftables: notifications were lost") from e
                raise
            at, end = 0, len(data)
            while end - at >= _LEAST:
                length, kind, port = _HEADER(data, at)
                if length < _LEAST:
                    break
                if kind == _NEW_GENERATION or data.startswith(OURS, at + _LEAST):
                    yield Message(kind & 0xFF, data[at + 16], port, data[at + _LEAST : at + length])
                at += length + 3 & ~3


def generation_of(body: bytes) -> tuple[int, int, str]:
    """Parse NEWGEN: the generation's number, and number and name of the process that has made it."""
    found = dict(attributes(body))
    number = struct.unpack("!I", found[1])[0]
    process = struct.unpack("!I", found[2])[0] if 2 in found else 0
    return number, process, text_of(found.get(3, b""))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Parse a sequence of attributes."""
    for kind, piece in pieces(data):
        yield kind, piece[4 : struct.unpack_from("=H", piece)[0]]


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a sequence of attributes into pieces, each with its header and padding."""
    at, end = 0, len(data)
    while end - at >= 4:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        following = at + (length + 3 & ~3)
        yield kind & _TYPE, data[at:following]
        at = following


def set_elements(body: bytes) -> Iterator[tuple[bytes, int | None, bytes]]:
    """Parse the elements in a message: what makes each, its key first; the milliseconds that it stays,
    None where it has no timeout; and what libnftables keeps with it for itself."""
    # There may be a hundred thousand.
    data = next((value for kind, value in attributes(body) if kind == _ELEMENTS), b"")
    unpack, number = struct.Struct("=HH").unpack_from, struct.Struct("!Q").unpack_from
    following, end = 0, len(data)
    while following < end:
        at = following + 4
        following += unpack(data, following)[0] + 3 & ~3
        key, more, left = b"", b"", None
        while at < following:
            length, kind = unpack(data, at)
            stop = at + (length + 3 & ~3)
            kind &= _TYPE
            if kind == _EXPIRATION or (kind == TIMEOUT and left is None):
                left = number(data, at + 4)[0]
            elif kind in _OF_ELEMENT:
                key += data[at:stop]
            elif kind == _USERDATA:
                more = data[at:stop]
            at = stop
        yield key, left, more


def ends_interval(element: bytes) -> bool:
    """Whether what `set_elements` gives of an element is the end of an interval, and none of its own."""
    flags = dict(attributes(element)).get(_FLAGS)
    return flags is not None and bool(struct.unpack("!I", flags)[0] & _END_OF_INTERVAL)


def only(data: bytes, kinds: Iterable[int]) -> bytes:
    """The attributes of these kinds, from a sequence of attributes."""
    return b"".join(piece for kind, piece in pieces(data) if kind in kinds)


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, value: bytes) -> bytes:
    """Encode an attribute whose value is attributes."""
    return attribute(kind | 0x8000, value)


def text(kind: int, value: str) -> bytes:
    """Encode an attribute whose value is a text."""
    return attribute(kind, value.encode() + b"\0")


OURS = text(1, TABLE)
"""Attribute that each message begins with that concerns a table of that name."""


def text_of(value: bytes) -> str:
    """Decode the text of an attribute's value."""
    return value.rstrip(b"\0").decode(errors="replace")


def _message(kind: int, flags: int, number: int, body: bytes, family: int) -> bytes:
    return header(_SUBSYSTEM << 8 | kind, flags, number, struct.pack("=BBH", family, 0, 0) + body)


def _batch(kind: int, number: int, body: bytes = b"") -> bytes:
    return header(kind, REQUEST, number, struct.pack("=BBH", 0, 0, socket.htons(_SUBSYSTEM)) + body)


def header(kind: int, flags: int, number: int, rest: bytes) -> bytes:
    """Encode a netlink message: its header, and the payload behind it."""
    return struct.pack("=IHHII", 16 + len(rest), kind, flags, number, 0) + rest


def split(data: bytes) -> Iterator[tuple[int, int, Message | None, bytes]]:
    """Split bytes into messages: kind, number, nf_tables header, and what follows the header."""
    at, end = 0, len(data)
    while end - at >= 16:
        length, kind, _, number, port = struct.unpack_from("=IHHII", data, at)
        if length < 16:
            return
        message = None
        if kind >> 8 == _SUBSYSTEM and length >= 20:
            message = Message(kind & 0xFF, data[at + 16], port, data[at + 20 : at + length])
        yield kind, number, message, data[at + 16 : at + length]
        at += length + 3 & ~3


def answers(of: socket.socket, number: int) -> Iterator[tuple[Message | None, bytes]]:
    """Read the response to a request up to its end: of each message its nf_tables header, and what follows
    the header.

    Raises:
        OSError: the kernel refuses.
    """
    while True:
        for kind, to, message, rest in split(of.recv(_RECEIVE)):
            if to != number:
                continue
            if kind in (_ERROR, _DONE):
                code = -struct.unpack_from("=i", rest)[0] if len(rest) >= 4 else 0
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield message, rest


def _force(of: socket.socket, forced: int, otherwise: int, size: int) -> None:
    """Set a buffer size beyond the system's limit, which CAP_NET_ADMIN allows."""
    try:
        of.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        of.setsockopt(socket.SOL_SOCKET, otherwise, size)


_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_UNICAST, _ROUTE_TO, _ROUTE_LINK = 1, 1, 4
"""RTN_UNICAST, RTA_DST, RTA_OIF."""

_ADDRESS, _LOCAL_ADDRESS = 1, 2
"""IFA_ADDRESS, IFA_LOCAL."""

_ADDRESSES: Mapping[int, Callable[[bytes], IPv4Address | IPv6Address]] = {
    socket.AF_INET: IPv4Address,
    socket.AF_INET6: IPv6Address,
}

_STRICT = 12
"""NETLINK_GET_STRICT_CHK."""

_NAME, _LOWER, _MASTER, _INFO, _MASK, _LOWER_ELSEWHERE = 3, 5, 10, 18, 29, 37
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_LOWER = 3
_WITHOUT_STATISTICS = 1 << 3
"""RTEXT_FILTER_SKIP_STATS."""

_RULES = (8, 19)
"""RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE."""

_ROUTE_PATIENCE = 5.0


class RouteNetlink:
    """rtnetlink connection, in the network namespace of the thread that makes it.

    Raises:
        OSError: no netlink.
    """

    def __init__(self) -> None:
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_ROUTE_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def heed_all(self) -> None:
        """Have the kernel heed all that a query of objects says; otherwise it gives those of a family."""
        self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)

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
        kind: as the kernel calls it, such as ``vrf`` or ``vlan``; empty of a device.
        lower: index of the interface that it is made of, as a VLAN is; 0 where it is of none.
    """

    name: str
    master: int
    kind: str = ""
    lower: int = 0


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
            info = dict(attributes(its.get(_INFO, b"")))
            kind = text_of(info.get(_INFO_KIND, b""))
            if kind == "vxlan":
                its[_LOWER] = dict(attributes(info.get(_INFO_DATA, b""))).get(_VXLAN_LOWER, bytes(4))
            # The number is of another network namespace where that is said.
            here = _LOWER in its and _LOWER_ELSEWHERE not in its
            lower = struct.unpack("=I", its[_LOWER])[0] if here else 0
            index = struct.unpack_from("=i", answer, 4)[0]
            found[index] = Link(text_of(its[_NAME]), master, kind, lower)
    return found


def addresses() -> Iterator[tuple[int, IPv4Address | IPv6Address]]:
    """The addresses of this thread's network namespace, each with the index of its interface. However many
    routes there are, none is looked at.

    Raises:
        OSError: the kernel refuses.
    """
    with RouteNetlink() as netlink:
        found = netlink.dump(_GETADDR, struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0))
    for answer in found:
        its = dict(attributes(answer[8:]))
        # Where the two ends of an interface have addresses, the second is the other's.
        packed = its.get(_LOCAL_ADDRESS) or its.get(_ADDRESS, b"")
        if answer[0] in _ADDRESSES:
            yield struct.unpack_from("=I", answer, 4)[0], _ADDRESSES[answer[0]](packed)


def routed_to(index: int, family: int = socket.AF_INET) -> list[IPv4Network | IPv6Network]:
    """Networks that are routed to an interface, by any table; none to one that is gone by now. The kernel
    looks for its routes alone: there may be a million.

    Raises:
        OSError: the kernel refuses.
    """
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _UNICAST, 0)
    with RouteNetlink() as netlink:
        netlink.heed_all()
        try:
            found = netlink.dump(_GETROUTE, head + attribute(_ROUTE_LINK, struct.pack("=I", index)))
        except OSError as e:
            if e.errno != errno.ENODEV:
                raise
            return []
    none = bytes(4 if family == socket.AF_INET else 16)
    return [ip_network((dict(attributes(one[12:])).get(_ROUTE_TO, none), one[1])) for one in found]


def routed_by(address: IPv4Address | IPv6Address) -> int:
    """Index of the interface by which packets of this machine leave for an address; 0 where they do not.

    Raises:
        OSError: no netlink.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBBBBBI", family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    with RouteNetlink() as netlink:
        try:
            answer = netlink.ask(_GETROUTE, head + attribute(_ROUTE_TO, address.packed))
        except OSError:
            return 0  # no route, or one that forbids it
    its = dict(attributes(answer[12:]))
    unicast = answer[7:8] == bytes((_UNICAST,)) and _ROUTE_LINK in its
    return int(struct.unpack("=I", its[_ROUTE_LINK])[0]) if unicast else 0


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
