"""Control of the rules in the kernel: install, remove, read; and the end of connections that came by them, by
a reset of the kernel's (sock_diag(7), ``SOCK_DESTROY``).
"""

import errno
import re
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from math import inf
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.gateway.netlink import ACK, DUMP, REQUEST, answers, attributes, header
from urlward.gateway.nft import Nft
from urlward.gateway.routing import Routing
from urlward.gateway.rules import RulesPlan, outdated, rules, setup_of
from urlward.gateway.steerable import Address
from urlward.gateway.system import own_addresses
from urlward.gateway.table import (
    ALIVE,
    CANARY,
    CONTESTED,
    CUT,
    ENTRY,
    FAMILY_AND_NAME,
    LISTED,
    STEERED,
    NoTableError,
    Setup,
    interfaces_of,
)

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

_MULTIPORT = {"xt": {"type": "match", "name": "multiport"}}
"""Ports, which ufw, Shorewall and others write so, and of which JSON has the name alone."""

_TABLE = re.compile(r"table (\S+) (\S+) \{").match
_PORTS = re.compile(r"\t[^\"]*?\b(\w+) dport (!= )?([\d-]+|\{[ \d,-]+\}) .*# handle (\d+)$").match

_COUNTED = {"steered": STEERED, "listed": LISTED, "cut": CUT}


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


@dataclass(frozen=True, slots=True)
class Status:
    """Status of the rules in the kernel.

    Attributes:
        setup: what the rules are for; None where there are none, or another hand has made the table dormant.
        alive: whether a worker lives.
        contested: whether another hand has removed the rules again and again, and they were put back.
        interfaces: where clients come in, as the rules have them.
        canary: by worker, what its canary has come to: ``ok``, or what fails; None where there is none.
        routes: ``yes`` where what the rules mark is delivered here, else why it is not; None where they mark
            nothing.
        counts: elements of sets, for IPv4 and IPv6.
    """

    setup: Setup | None
    alive: bool
    contested: bool
    interfaces: tuple[str, ...]
    canary: dict[str, str] | None
    routes: str | None
    counts: dict[str, tuple[int, int]]

    @property
    def filters(self) -> bool:
        """Whether traffic is filtered, as far as the kernel knows."""
        sings = self.canary is None or (bool(self.canary) and set(self.canary.values()) == {"ok"})
        return (
            self.setup is not None
            and self.alive
            and not self.contested
            and sings
            and self.routes in ("yes", None)
        )

    def as_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        return {
            "up": self.setup is not None,
            "alive": self.alive,
            "contested": self.contested,
            "canary": self.canary,
            "routes": None if self.routes is None else self.routes == "yes",
            "routes_fault": None if self.routes == "yes" else self.routes,
            "setup": None if self.setup is None else asdict(self.setup),
            **{name: {"ipv4": four, "ipv6": six} for name, (four, six) in self.counts.items()},
        }


def up(nft: Nft, plan: RulesPlan, *, replace: bool = False) -> bool:
    """Install the rules, in place of those that are there.

    Args:
        nft: the kernel.
        plan: what they are made from.
        replace: whether those of a filter that lives and listens elsewhere may be replaced.

    Returns:
        Whether there were rules before.

    Raises:
        UrlwardError: such a filter lives, the plan does not make sense, or there is no policy routing for it.
        NftError: the kernel refuses; nothing has changed.
    """
    # Where two do so at once, what one has read would not be so any more.
    with nft.turn():
        return _up(nft, plan, replace=replace)


def _up(nft: Nft, plan: RulesPlan, *, replace: bool) -> bool:
    existing = _listing(nft)
    before = Setup.of(existing)
    if before is not None and not replace and _conflict(before, setup_of(plan)) and _alive(nft):
        raise UrlwardError(
            f"the rules are for a filter on port {before.listen}, which lives: end it first, or say --replace"
        )
    for name in outdated(plan, existing):
        existing += _with_elements(nft, name, existing)
    script = rules(plan, existing)
    try:
        if _is_dormant(existing):
            nft.run(f"add table {FAMILY_AND_NAME}")  # alone, or the kernel refuses both
        nft.check(script)
        with closing(Routing()) as routing:
            try:
                # Before what is marked, and not taken away before nothing is marked any more.
                if plan.gateway.keep_source:
                    routing.up()
                nft.run(script)
            except BaseException:
                if before is None or before.source != "kept":
                    routing.down()
                raise
            if not plan.gateway.keep_source:
                routing.down()
                if before is not None and before.source == "kept":
                    # What is open has clients' addresses, and would hang.
                    with suppress(OSError):
                        reset_connections({before.listen, before.intercept} - {0}, foreign=True)
    except NoTableError as e:
        # All that the script names it makes itself, so what is missing is a part of nf_tables.
        raise UrlwardError(
            "this kernel lacks something of nf_tables that the rules need: "
            "the modules nft_ct, nft_nat, nft_redir, nft_masq, nft_reject_inet, nft_fib_inet"
            + (", nft_tproxy, nft_socket" if plan.gateway.keep_source else "")
        ) from e
    return before is not None


def down(nft: Nft) -> None:
    """Remove the rules, if they are there, and end connections that were led to the filter.

    They would hang: without the rules, what the filter sends comes from an address that no client knows, or
    what clients and origins send to its connections goes past it.

    Raises:
        UrlwardError: the kernel refuses.
    """
    with nft.turn():
        if (setup := Setup.of(_listing(nft))) is not None:
            nft.run(f"flush chain {FAMILY_AND_NAME} {ENTRY}")  # so that no more of them begin
            with suppress(OSError):
                reset_connections(
                    {setup.listen, setup.dns, setup.intercept} - {0}, foreign=setup.source == "kept"
                )
        nft.run(f"add table {FAMILY_AND_NAME}; delete table {FAMILY_AND_NAME}")
        with closing(Routing()) as routing:
            routing.down()


def status(nft: Nft) -> Status:
    """Read the installed rules and the workers' signs of life.

    Raises:
        NftError: the kernel refuses.
    """
    listing = _listing(nft)
    setup = None if _is_dormant(listing) else Setup.of(listing)
    counts = {
        kind: (_count(nft, listing, names[0]), _count(nft, listing, names[1]))
        for kind, names in _COUNTED.items()
    }
    sent = any(one.get("rule", {}).get("chain") == "output" for one in listing)
    alive = _alive(nft)
    return Status(
        setup,
        alive,
        bool(_elements(nft, CONTESTED)),
        interfaces_of(listing),
        # What a worker has said last is no news of it once none lives.
        (_canary(nft) if alive else {}) if sent else None,
        _routes() if setup is not None and setup.source == "kept" else None,
        counts,
    )


def all_rules(nft: Nft) -> list[dict[str, Any]]:
    """List the rules of all tables, without the elements of sets, and with the ports that ``multiport`` of
    iptables names.

    Raises:
        NftError: the kernel refuses.
    """
    listing = nft.json("list ruleset", terse=True)
    if any(_MULTIPORT in one["rule"].get("expr", ()) for one in listing if "rule" in one):
        _tell_ports(listing, nft.shown("list ruleset"))
    return listing


def _tell_ports(listing: Iterable[dict[str, Any]], text: str) -> None:
    """Put the condition in place of `_MULTIPORT`, where the text of the same rules has it."""
    told: dict[tuple[str, ...], dict[str, Any]] = {}
    table: tuple[str, ...] = ()
    for line in text.splitlines():
        if found := _TABLE(line):
            table = found.groups()
        elif found := _PORTS(line):
            protocol, other, ports, handle = found.groups()
            ends = [[int(end) for end in one.split("-")] for one in ports.strip("{ }").split(", ")]
            told[*table, handle] = {
                "op": "!=" if other else "==",
                "left": {"payload": {"protocol": protocol, "field": "dport"}},
                "right": {"set": [{"range": one} if one[1:] else one[0] for one in ends]},
            }
    for rule in (one["rule"] for one in listing if "rule" in one):
        match = told.get((rule["family"], rule["table"], str(rule["handle"])))
        if match and "expr" in rule:
            rule["expr"] = [{"match": match} if part == _MULTIPORT else part for part in rule["expr"]]


def _conflict(one: Setup, other: Setup) -> bool:
    return replace(one, fail="", config="") != replace(other, fail="", config="")


def _listing(nft: Nft) -> list[dict[str, Any]]:
    """The table without the elements of its sets; empty where it is not there."""
    try:
        return nft.json(f"list table {FAMILY_AND_NAME}", terse=True)
    except NoTableError:
        return []


def _is_dormant(listing: Iterable[dict[str, Any]]) -> bool:
    """Whether the kernel has the table, and no packet comes to it."""
    return any("dormant" in one.get("table", {}).get("flags", ()) for one in listing)


def _routes() -> str:
    with closing(Routing()) as routing:
        return routing.fault() or "yes"


def _set_of(listing: Iterable[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((one["set"] for one in listing if "set" in one and one["set"]["name"] == name), None)


def _count(nft: Nft, listing: Iterable[dict[str, Any]], name: str) -> int:
    return 0 if _set_of(listing, name) is None else nft.count(name)


def _with_elements(nft: Nft, name: str, listing: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A listing of a set with its elements."""
    found = _set_of(listing, name)
    if name not in (*STEERED, *CUT) or found is None:
        return nft.json(f"list set {FAMILY_AND_NAME} {name}")
    elements = [
        str(ip_address(key)) if left == inf else {"elem": {"val": str(ip_address(key)), "expires": left}}
        for left, key in nft.each(name)
    ]
    return [{"set": found | {"elem": elements}}]


def _alive(nft: Nft) -> bool:
    return bool(_elements(nft, ALIVE))


def _canary(nft: Nft) -> dict[str, str]:
    found: dict[int, str] = {}
    for one in _elements(nft, CANARY):
        elem: dict[str, Any] = one["elem"]
        found[elem["val"]] = elem.get("comment", "")
    return {f"worker {number}": what for number, what in sorted(found.items())}


def _elements(nft: Nft, name: str) -> Sequence[Any]:
    try:
        elements: list[Any] = nft.json(f"list set {FAMILY_AND_NAME} {name}")[0]["set"].get("elem", [])
    except NoTableError:
        return []
    return elements
