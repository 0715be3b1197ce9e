"""Policy routing for `keep_source`: packets with `MARK` are delivered here, whatever their destination.

For each family a rule (``fwmark``) leads to a table of its own, whose one route makes every address local.
Formats: rtnetlink(7), ``linux/rtnetlink.h``, ``linux/fib_rules.h``; needs CAP_NET_ADMIN, and no program.
"""

import errno
import os
import socket
import struct
from typing import Final

from urlward.gateway.errors import GatewayError
from urlward.gateway.netlink import ACK, CREATE, ERROR, REQUEST, attribute, attributes, header, split
from urlward.gateway.system import sysctl
from urlward.gateway.table import MARK

TABLE: Final = 21365
"""Number of the routing table, which nobody else is likely to take."""

PREFERENCE: Final = 90
"""Of the rules: before those of VPNs and of several uplinks, which look at other bits of a mark."""

_NUMBERS: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANYWHERE: Final = {4: "240.0.0.1", 6: "100::1"}
"""Addresses that no machine has (RFC 1112 section 4, RFC 6666), to look where marked packets go."""

_NEWROUTE, _GETROUTE, _NEWRULE = 24, 26, 32
_DELETE: Final = 1
"""From the number of what makes something to that of what deletes it."""

_EXCLUSIVE: Final = 0x200
"""NLM_F_EXCL."""

_LOCAL, _LOOKUP = 2, 1
"""RTN_LOCAL, FR_ACT_TO_TBL."""

_HOST_SCOPE, _LOOKUP_TABLE = 254, 0x1000
"""RT_SCOPE_HOST, RTM_F_LOOKUP_TABLE."""

_BY_US: Final = 213
"""Protocol of both, by which others can tell whose they are."""

_DESTINATION, _LINK, _ROUTE_TABLE, _ROUTE_MARK = 1, 4, 15, 16
_RULE_PREFERENCE, _RULE_MARK, _RULE_TABLE, _RULE_MASK, _RULE_PROTOCOL = 6, 10, 15, 16, 21
_GROUPS: Final = (8, 19)
"""RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE."""

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_PATIENCE: Final = 5.0


class Routing:
    """The rules and routes, in the network namespace of the thread that makes this.

    Raises:
        OSError: no netlink.
    """

    def __init__(self) -> None:
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_PATIENCE)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def up(self) -> bool:
        """Put what is missing there; whether anything was.

        Raises:
            GatewayError: the kernel refuses, or another's rule takes marked packets elsewhere.
        """
        changed = False
        for family in _families():
            for kind, body in _wanted(family):
                changed = self._do(kind, body, CREATE | _EXCLUSIVE, errno.EEXIST) or changed
        if not self.delivers():
            raise GatewayError(
                f"routing: others' rules before {PREFERENCE} take what has the mark {MARK:#x}: see `ip rule`"
            )
        return changed

    def down(self) -> None:
        """Take all of it away.

        Raises:
            GatewayError: the kernel refuses.
        """
        for family in _NUMBERS:
            for kind, body in reversed(_wanted(family)):
                # A rule that is not there is ENOENT, a route ESRCH, a family EAFNOSUPPORT or EOPNOTSUPP.
                absent = (errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
                self._do(kind + _DELETE, body, 0, *absent)

    def delivers(self) -> bool:
        """Whether packets with the mark are delivered here because of the table, in both families."""
        return all(map(self._delivers, _families()))

    def _delivers(self, family: int) -> bool:
        to = socket.inet_pton(_NUMBERS[family], _ANYWHERE[family])
        head = struct.pack("=BBBBBBBBI", _NUMBERS[family], 8 * len(to), 0, 0, 0, 0, 0, 0, _LOOKUP_TABLE)
        body = head + attribute(_DESTINATION, to) + attribute(_ROUTE_MARK, struct.pack("=I", MARK))
        try:
            answer = self._ask(_GETROUTE, body, 0)
        except OSError:
            return False  # there is no way at all, or another's rule forbids it
        found = dict(attributes(answer[12:]))
        table = struct.unpack("=I", found.get(_ROUTE_TABLE, bytes(4)))[0]
        return (answer[7], table) == (_LOCAL, TABLE)

    def _do(self, kind: int, body: bytes, flags: int, *expected: int) -> bool:
        try:
            self._ask(kind, body, ACK | flags)
        except OSError as e:
            if e.errno in expected:
                return False
            why = "lo is down" if e.errno == errno.ENETDOWN else (e.strerror or str(e)).lower()
            raise GatewayError(f"routing: {why}") from e
        return True

    def _ask(self, kind: int, body: bytes, flags: int) -> bytes:
        """The answer to a request; empty where that is an acknowledgement."""
        self._number += 1
        self._socket.send(header(kind, REQUEST | flags, self._number, body))
        while True:
            for of, number, _, rest in split(self._socket.recv(1 << 16)):
                if number != self._number:
                    continue
                if of != ERROR:
                    return rest
                code = -struct.unpack_from("=i", rest)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return b""


def rules_changed() -> socket.socket:
    """A socket that has something to read whenever somebody has changed a rule.

    Raises:
        OSError: no netlink.
    """
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    for group in _GROUPS:
        one.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return one


def commands() -> list[str]:
    """The same, for ip(8)."""
    return [
        line
        for ip in ("ip", "ip -6")
        for line in (
            f"{ip} route add local default dev lo table {TABLE} proto {_BY_US}",
            f"{ip} rule add pref {PREFERENCE} fwmark {MARK:#x}/{MARK:#x} lookup {TABLE} proto {_BY_US}",
        )
    ]


def _families() -> list[int]:
    """Those that the loopback interface has."""
    return [4, *([6] if sysctl("net.ipv6.conf.lo.disable_ipv6") == "0" else [])]


def _wanted(family: int) -> list[tuple[int, bytes]]:
    """The messages that make a family's route and rule, in that order."""
    number = _NUMBERS[family]
    table = struct.pack("=I", TABLE)
    route = struct.pack(
        "=BBBBBBBBI", number, 0, 0, 0, 0, _BY_US, _HOST_SCOPE if family == 4 else 0, _LOCAL, 0
    )
    route += attribute(_ROUTE_TABLE, table)
    route += attribute(_LINK, struct.pack("=I", socket.if_nametoindex("lo")))
    rule = struct.pack("=BBBBBBBBI", number, 0, 0, 0, 0, 0, 0, _LOOKUP, 0)
    for kind, value in (
        (_RULE_PREFERENCE, struct.pack("=I", PREFERENCE)),
        (_RULE_MARK, struct.pack("=I", MARK)),
        (_RULE_MASK, struct.pack("=I", MARK)),
        (_RULE_TABLE, table),
        (_RULE_PROTOCOL, bytes([_BY_US])),
    ):
        rule += attribute(kind, value)
    return [(_NEWROUTE, route), (_NEWRULE, rule)]
