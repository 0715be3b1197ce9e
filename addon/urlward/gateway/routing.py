"""Policy routing for `keep_source`: packets with `MARK` are delivered here, whatever their destination.

For each family a rule (``fwmark``) leads to a table of its own, whose one route makes every address local.
The rule is to come before any other that can take such packets. A rule that is added without a preference
comes before all others, so the place of ours is not fixed: `PREFERENCE`, or before the first of those.
Formats: rtnetlink(7), ``linux/rtnetlink.h``, ``linux/fib_rules.h``; needs CAP_NET_ADMIN, and no program.
"""

import errno
import socket
import struct
from typing import Final, NamedTuple

from urlward.engine.errors import UrlwardError
from urlward.gateway.netlink import ACK, CREATE, RouteNetlink, attribute, attributes
from urlward.gateway.system import sysctl
from urlward.gateway.table import MARK

TABLE: Final = 21365
"""Number of the routing table, which nobody else is likely to take."""

PREFERENCE: Final = 90
"""Preference of the rules, where no other demands a lower one: before those of VPNs and of several
uplinks, which look at other bits of a mark."""

_NUMBERS: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANYWHERE: Final = {4: "240.0.0.1", 6: "100::1"}
"""Addresses that no machine has (RFC 1112 section 4, RFC 6666), to look where marked packets go."""

_NEWROUTE, _DELROUTE, _GETROUTE, _NEWRULE, _DELRULE, _GETRULE = 24, 25, 26, 32, 33, 34
_EXCLUSIVE: Final = 0x200
"""NLM_F_EXCL."""

_LOCAL, _LOOKUP, _NOTHING = 2, 1, 3
"""RTN_LOCAL; FR_ACT_TO_TBL, FR_ACT_NOP."""

_INVERT: Final = 2
"""FIB_RULE_INVERT."""

_LOCAL_TABLE: Final = 255
"""RT_TABLE_LOCAL, which delivers here what it knows."""

_HOST_SCOPE, _LOOKUP_TABLE = 254, 0x1000
"""RT_SCOPE_HOST, RTM_F_LOOKUP_TABLE."""

_BY_US: Final = 213
"""Protocol of both, by which others can tell whose they are."""

_DESTINATION, _LINK, _ROUTE_TABLE, _ROUTE_MARK = 1, 4, 15, 16
_RULE_PREFERENCE, _RULE_MARK, _RULE_TABLE, _RULE_MASK, _RULE_PROTOCOL = 6, 10, 15, 16, 21
_RULE_SUPPRESS = (13, 14)
"""FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN: of what a table says, and so no condition."""

_RULE_PAD: Final = 18
_NO_CONDITIONS: Final = {
    *(_RULE_PREFERENCE, _RULE_MARK, _RULE_TABLE, _RULE_MASK, _RULE_PROTOCOL, _RULE_PAD),
    *_RULE_SUPPRESS,
}

_ABSENT: Final = (errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""Error codes where a rule, a route or a family does not exist."""


class _Rule(NamedTuple):
    """Routing rule, as far as it matters here.

    Attributes:
        preference: its place.
        ours: whether it is one that `Routing` has made.
        takes: whether it can keep a packet with the mark from getting to one of ours.
    """

    preference: int
    ours: bool
    takes: bool


class Routing:
    """Policy routing rules and routes, in the network namespace of the thread that makes this.

    Raises:
        OSError: no netlink.
    """

    def __init__(self) -> None:
        self._netlink = RouteNetlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def up(self) -> str:
        """Add missing rules and routes, and put the rules before those that would take marked packets.

        Returns:
            What another hand has done, in words, where that was put right; otherwise empty.

        Raises:
            UrlwardError: the kernel refuses, or another's rule takes marked packets elsewhere.
        """
        said = ""
        for family in _families():
            said = self._up(family) or said
        if (why := self.fault()) is not None:
            raise UrlwardError(why)
        return said

    def down(self) -> None:
        """Remove the rules and routes.

        Raises:
            UrlwardError: the kernel refuses.
        """
        for family in _NUMBERS:
            for rule in self._rules(family):
                if rule.ours:
                    self._do(_DELRULE, _rule(family, rule.preference), 0)
            self._do(_DELROUTE, _route(family), 0)

    def fault(self) -> str | None:
        """Reason why the table does not deliver packets with the mark here, in both families."""
        return next(filter(None, map(self._fault, _families())), None)

    def _up(self, family: int) -> str:
        added = self._do(_NEWROUTE, _route(family), CREATE | _EXCLUSIVE)
        rules = self._rules(family)
        ours: list[int] = []
        wanted = first = PREFERENCE
        for rule in rules:
            if rule.ours:
                ours.append(rule.preference)
            elif rule.takes:
                # Of those at one place, the first that was added comes first; before 0 there is none.
                wanted = max(min(wanted, rule.preference - (rule.preference not in ours)), 0)
                first = min(first, rule.preference)
        # There is one at every time: the new one first.
        if wanted not in ours:
            self._do(_NEWRULE, _rule(family, wanted), CREATE | _EXCLUSIVE)
        for preference in ours:
            if preference != wanted:
                self._do(_DELRULE, _rule(family, preference), 0)
        if ours and not added:
            return f"somebody's routing rule {first} came before ours" if wanted < min(ours) else ""
        return "somebody took policy routing away"

    def _fault(self, family: int) -> str | None:
        for rule in self._rules(family):
            if rule.takes:
                return (
                    f"routing: another's rule {rule.preference} takes filtered traffic: "
                    f"move it behind {PREFERENCE} (ip rule)"
                )
            if rule.ours:
                break
        to = socket.inet_pton(_NUMBERS[family], _ANYWHERE[family])
        head = struct.pack("=BBBBBBBBI", _NUMBERS[family], 8 * len(to), 0, 0, 0, 0, 0, 0, _LOOKUP_TABLE)
        body = head + attribute(_DESTINATION, to) + attribute(_ROUTE_MARK, struct.pack("=I", MARK))
        try:
            answer = self._netlink.ask(_GETROUTE, body)
        except OSError:
            answer = bytes(12)  # there is no way at all
        found = dict(attributes(answer[12:]))
        table = struct.unpack("=I", found.get(_ROUTE_TABLE, bytes(4)))[0]
        if (answer[7], table) == (_LOCAL, TABLE):
            return None
        return f"routing: what has the mark {MARK:#x} is not delivered here (ip rule)"

    def _rules(self, family: int) -> list[_Rule]:
        """The first rules, in order, up to the last place ours may have; none without that family."""
        try:
            dumped = self._netlink.dump(_GETRULE, struct.pack("=BBBBBBBBI", _NUMBERS[family], *[0] * 8))
        except OSError as e:
            if e.errno in _ABSENT:
                return []
            raise UrlwardError(f"routing: {(e.strerror or str(e)).lower()}") from e
        found = []
        for rule in map(_read, dumped):
            if rule.preference > PREFERENCE:
                break
            found.append(rule)
        return found

    def _do(self, kind: int, body: bytes, flags: int) -> bool:
        """Add or delete something; returns whether that changed anything."""
        try:
            self._netlink.ask(kind, body, ACK | flags)
        except OSError as e:
            if e.errno in ((errno.EEXIST,) if flags else _ABSENT):
                return False
            why = "lo is down" if e.errno == errno.ENETDOWN else (e.strerror or str(e)).lower()
            raise UrlwardError(f"routing: {why}") from e
        return True


def commands() -> list[str]:
    """Commands for ip(8) that do the same."""
    return [
        line
        for ip in ("ip", "ip -6")
        for line in (
            f"{ip} route add local default dev lo table {TABLE} proto {_BY_US}",
            f"{ip} rule add pref {PREFERENCE} fwmark {MARK:#x}/{MARK:#x} lookup {TABLE} proto {_BY_US}",
        )
    ]


def _families() -> list[int]:
    """Address families that the loopback interface has."""
    return [4, *([6] if sysctl("net.ipv6.conf.lo.disable_ipv6") == "0" else [])]


def _route(family: int) -> bytes:
    """Netlink message for a family's route."""
    scope = _HOST_SCOPE if family == 4 else 0
    return (
        struct.pack("=BBBBBBBBI", _NUMBERS[family], 0, 0, 0, 0, _BY_US, scope, _LOCAL, 0)
        + attribute(_ROUTE_TABLE, struct.pack("=I", TABLE))
        + attribute(_LINK, struct.pack("=I", socket.if_nametoindex("lo")))
    )


def _rule(family: int, preference: int) -> bytes:
    """Netlink message for a family's rule."""
    made = struct.pack("=BBBBBBBBI", _NUMBERS[family], 0, 0, 0, 0, 0, 0, _LOOKUP, 0)
    for kind, value in (
        (_RULE_PREFERENCE, struct.pack("=I", preference)),
        (_RULE_MARK, struct.pack("=I", MARK)),
        (_RULE_MASK, struct.pack("=I", MARK)),
        (_RULE_TABLE, struct.pack("=I", TABLE)),
        (_RULE_PROTOCOL, bytes([_BY_US])),
    ):
        made += attribute(kind, value)
    return made


def _read(answer: bytes) -> _Rule:
    """Parse a rule from the kernel."""
    _, to, source, tos, table, _, _, action, flags = struct.unpack_from("=BBBBBBBBI", answer)
    its = dict(attributes(answer[12:]))

    def number(kind: int, otherwise: int = 0) -> int:
        value: int = struct.unpack("=I", its[kind])[0] if kind in its else otherwise
        return value

    mark, mask, table = number(_RULE_MARK), number(_RULE_MASK), number(_RULE_TABLE, table)
    others = bool(to or source or tos or its.keys() - _NO_CONDITIONS)
    looks_up = action == _LOOKUP and table
    ours = (looks_up, mark, mask, others, flags & _INVERT) == (TABLE, MARK, MARK, False, 0)
    # Of a packet's mark, one bit is known.
    if flags & _INVERT:
        never = not others and not mask & ~MARK and mark == mask
    else:
        never = bool(mask & MARK and not mark & MARK)
    takes = action != _NOTHING and looks_up not in (_LOCAL_TABLE, TABLE) and not never
    return _Rule(number(_RULE_PREFERENCE), ours and its.get(_RULE_PROTOCOL) == bytes([_BY_US]), takes)
