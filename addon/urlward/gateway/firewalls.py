"""Foreign firewall rules that affect the filter: those that close its ports, those that keep what is not
filtered from being routed, and those that clamp segments.

What comes to the filter goes through every base chain at the hook ``input``, and through those at
``prerouting`` that come after it is redirected or marked: a lookup of the way back to its source (`fib`)
by the mark finds this machine. What is not steered goes through those at ``forward``, which Docker's start
closes. The canary does not tell whether others' let clients through, since it comes from inside. So these
chains are walked as a client's first packet would: what is certain ends the walk, and what is not known
here counts for the packet.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from itertools import product
from typing import Any

from urlward.gateway.table import MARK, TABLE, Setup

type Listing = Sequence[Mapping[str, Any]]

_MARKED_AT = -145
"""Priority of our chain at ``prerouting`` that marks."""

_REDIRECTED_AT = -100
"""Priority at which the kernel translates, whatever those of the chains that say so."""

_TRACKED_AT = -200
"""Priority of the kernel's that tracks connections; `notrack` behind it does nothing."""

_TRANSPORTS = {"tcp": 6, "udp": 17}
_OTHER_HEADERS = ("icmp", "icmpv6", "igmp", "sctp", "dccp", "udplite", "esp", "ah", "comp", "tcp", "udp")
_NO_CONDITIONS = frozenset(
    "accept drop reject queue return continue jump goto vmap counter log mangle notrack".split()  # noqa: SIM905
)
"""Statements that each packet meets which comes to them."""

_TRACKED = ("conntrack", "state")
"""Extensions of iptables whose conditions nft does not show; mostly they mean what is established."""


_BY_DESTINATION = "addrtype"
"""Extension whose conditions nft does not show either; mostly they mean this machine's own addresses, or
those of many: a redirected packet may have one, and others have none."""


_CLAMPED = re.compile(r"tcp option maxseg size set (\d+)").findall


class _Fate(Enum):
    """Fate of a packet in a chain."""

    MAY_PASS = 1
    ENDS = 2
    GOES_ON = 3
    MAY_GO_ON = 4


@dataclass(frozen=True, slots=True)
class _Packet:
    """First packet of a client's connection, or a DNS query, as it comes to `input` or `forward`.

    Attributes:
        version: of IP.
        transport: ``tcp`` or ``udp``.
        port: of the filter, or with `keep_source` and of what is routed an origin's.
        interface: where it came in; may end in ``*``.
        marked: whether it has `MARK`.
        way_out: interface that it is routed to; empty where it is for the filter.
    """

    version: int
    transport: str
    port: int
    interface: str
    marked: bool = False
    way_out: str = ""

    @property
    def is_redirected(self) -> bool:
        """Whether its destination is this machine's own address by now."""
        return not self.marked and not self.way_out


def clamps(listing: Listing, shown: Callable[[str], str]) -> set[int]:
    """TCP segment sizes (MSS) that foreign rules set on forwarded traffic.

    Args:
        listing: of all rules, as libnftables-json(5) has it.
        shown: gives what nft shows for a command.
    """
    found = set()
    of_iptables = set()
    for one in listing:
        rule = one.get("rule", {})
        for part in rule.get("expr", ()) if rule.get("table") != TABLE else ():
            mangle = _member(part, "mangle")
            value = _member(mangle, "value")
            option = _member(_member(mangle, "key"), "tcp option")
            if _member(option, "name") == "maxseg" and isinstance(value, int):
                found.add(value)
            if _member(_member(part, "xt"), "name") == "TCPMSS":
                of_iptables.add(f"{rule['family']} {rule['table']}")
    # JSON has iptables' targets by name alone, and text all of those of one family: IPv6's is the smaller.
    for table in sorted(of_iptables, reverse=True):
        found.update(map(int, _CLAMPED(shown(f"list table {table}"))))
    return found


def closed(
    listing: Listing,
    setup: Setup,
    interfaces: Sequence[str],
    ports: Sequence[int],
    families: Iterable[int],
    ways_out: Mapping[int, str],
) -> list[str]:
    """Foreign chains that keep clients from the filter, or from what is not filtered, a line each, with the
    rule that is lacking; and those that keep the filter from connections.

    Args:
        listing: of all rules, as libnftables-json(5) has it.
        setup: what ours are for.
        interfaces: where clients come in.
        ports: of origins, that are filtered.
        families: 4, 6 or both.
        ways_out: interface that leads to origins, by family; a family without one is not routed.
    """
    packets = list(_packets(setup, interfaces, ports, families, ways_out))
    clients = [
        _Packet(n, "tcp", port, i, way_out="lo") for n in families for i in interfaces for port in ports
    ]
    said = []
    tables = [one["table"] for one in listing if "table" in one]
    passed_over = {("inet", TABLE)}
    passed_over |= {(one["family"], one["name"]) for one in tables if "dormant" in one.get("flags", ())}
    for chain in (one["chain"] for one in listing if "hook" in one.get("chain", {})):
        if (chain["family"], chain["table"]) in passed_over:
            continue
        versions = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}.get(chain["family"], ())
        rules = _Rules(listing, chain["family"], chain["table"])
        met = [one for one in packets if one.version in versions and _meets(chain, one)]
        lost = [one for one in met if not rules.let_through(chain, one)]
        if lost:
            said.append(_line(chain, lost, listing))
        if chain["hook"] == "prerouting" and chain.get("prio", 0) < _TRACKED_AT:
            of_these = [one for one in clients if one.version in versions]
            if untracking := rules.untracking(chain["name"], of_these):
                said.append(
                    f"table {chain['family']} {chain['table']}, chain {untracking}: has clients' connections "
                    "untracked, so that what is to be filtered hangs: except from notrack what comes in by "
                    "gateway.interfaces"
                )
    if setup.source != "kept":
        said += _astray(listing, clients, passed_over)
    return said


def _astray(
    listing: Listing, clients: Sequence[_Packet], passed_over: Collection[tuple[str, str]]
) -> Iterator[str]:
    """Foreign chains that keep the filter from what is redirected to it: it is led to another's socket all
    the same, or has a zone, of which the kernel does not tell where a connection was to go."""
    rules = [one["rule"] for one in listing if "rule" in one]
    for acts, what in ((_gives_zone, _ZONED), (_has_socket, _LED_AWAY)):
        chains = {
            (rule["family"], rule["table"], rule["chain"]): None
            for rule in rules
            if (rule["family"], rule["table"]) not in passed_over
            and any(map(acts, rule.get("expr", ())))
            and any(all(_holds(part, one) is not False for part in rule["expr"]) for one in clients)
        }
        for family, table, chain in chains:
            yield f"table {family} {table}, chain {chain}: {what}"


_ZONED = (
    "gives clients' connections a zone in both directions, so that the filter does not learn where one was "
    "to go, and closes it: ct original zone set, or gateway.keep_source"
)
_LED_AWAY = (
    "leads clients' connections to another's socket (tproxy), so that what is to be filtered is reset: "
    "gateway.keep_source, or except what comes in by gateway.interfaces"
)


def _has_socket(part: Any) -> bool:
    """Whether a statement leads to a socket."""
    return _member(part, "tproxy") is not None or _member(_member(part, "xt"), "name") == "TPROXY"


def _gives_zone(part: Any) -> bool:
    """Whether a statement sets a zone that answers have, too."""
    mangle = _member(part, "mangle")
    ct = _member(_member(mangle, "key"), "ct")
    return (
        _member(ct, "key") == "zone" and _member(ct, "dir") != "original" and bool(_member(mangle, "value"))
    )


def _meets(chain: Mapping[str, Any], packet: _Packet) -> bool:
    """Whether a packet comes to a base chain as that."""
    if chain["hook"] == "prerouting":
        after = _MARKED_AT if packet.marked else _REDIRECTED_AT
        return not packet.way_out and chain["type"] != "nat" and chain.get("prio", 0) > after
    return bool(chain["hook"] == ("forward" if packet.way_out else "input"))


def _packets(
    setup: Setup,
    interfaces: Sequence[str],
    ports: Sequence[int],
    families: Iterable[int],
    ways_out: Mapping[int, str],
) -> Iterator[_Packet]:
    marked = setup.source == "kept"
    taken = ports if marked else filter(None, (setup.listen, setup.intercept))
    kinds = [("tcp", port, marked) for port in taken]
    kinds += [(transport, setup.dns, False) for transport in _TRANSPORTS if setup.dns]
    for version in families:
        for interface in interfaces:
            for transport, port, has_mark in kinds:
                yield _Packet(version, transport, port, interface, has_mark)
            # Without steering all of these ports comes to the filter.
            for port in ports if setup.dns and version in ways_out else ():
                yield _Packet(version, "tcp", port, interface, way_out=ways_out[version])


def _line(chain: Mapping[str, Any], lost: Sequence[_Packet], listing: Listing) -> str:
    place = f"{chain['family']} {chain['table']}"
    interfaces = list(dict.fromkeys(one.interface for one in lost))
    if chain["hook"] == "forward":
        ports = ", ".join(map(str, sorted({one.port for one in lost})))
        lacking = "; ".join(_lacking_on_the_way(chain, interfaces, lost[0].way_out, listing))
        return (
            f"table {place}, chain {chain['name']}: drops what goes from {', '.join(interfaces)} to "
            f"{lost[0].way_out}, tcp {ports}, so what is not filtered hangs: {lacking}"
        )
    named = {
        transport: sorted({one.port for one in lost if one.transport == transport and not one.marked})
        for transport in _TRANSPORTS
    }
    marked = sorted({one.port for one in lost if one.marked})
    what = [f"{transport} {', '.join(map(str, ports))}" for transport, ports in named.items() if ports]
    what += ["what has the filter's mark"] if marked else []
    lacking = "; ".join(_lacking(chain, named, interfaces, marked))
    return f"table {place}, chain {chain['name']}: drops {' and '.join(what)}, so clients hang: {lacking}"


def _lacking(
    chain: Mapping[str, Any],
    named: Mapping[str, Sequence[int]],
    interfaces: Sequence[str],
    marked: Sequence[int],
) -> Iterator[str]:
    """The commands that would let the packet through, for the program that owns the chain.

    Args:
        chain: that drops it.
        named: ports of the filter, by transport.
        interfaces: where it comes in.
        marked: ports of origins.
    """
    if (chain["table"], chain["family"]) == ("firewalld", "inet"):  # which takes rules of nobody else
        if chain["hook"] == "prerouting":
            yield "IPv6_rpfilter=strict-forward in firewalld.conf, and systemctl restart firewalld"
            return
        # It lets in what is redirected, whatever its port; or, by this setting, none of that.
        if any(named.values()):
            yield "StrictForwardPorts=no in firewalld.conf, and systemctl restart firewalld"
        if marked:
            opened = " ".join(f"--add-port={port}/tcp" for port in marked)
            yield (
                f"firewall-cmd --permanent {opened} (with --zone=, where {', '.join(interfaces)} is "
                "not in the default one), and firewall-cmd --reload"
            )
        return
    if (chain["table"], chain["name"]) == ("filter", "INPUT") and chain["family"] != "inet":
        program = "iptables" if chain["family"] == "ip" else "ip6tables"
        if marked:
            yield f"{program} -I INPUT -m mark --mark {MARK:#x}/{MARK:#x} -j ACCEPT"
        for transport, ports in named.items():
            # A rule for each: of several ports in one, not each build of nftables shows which.
            for interface, port in product(interfaces, ports):
                place = f"-i {interface.replace('*', '+')} -p {transport} --dport {port}"
                yield f"{program} -I INPUT {place} -j ACCEPT"
        return
    insert = f"nft insert rule {chain['family']} {chain['table']} {chain['name']}"
    if marked:
        yield f"{insert} meta mark and {MARK:#x} != 0 accept"
    for transport, ports in named.items():
        for interface in interfaces if ports else ():
            dports = f"{transport} dport {{ {', '.join(map(str, ports))} }}"
            yield f"{insert} iifname {interface} {dports} accept"


def _lacking_on_the_way(
    chain: Mapping[str, Any], interfaces: Sequence[str], way_out: str, listing: Listing
) -> Iterator[str]:
    """The commands that would have what is not filtered routed, and its answers.

    Args:
        chain: that drops it.
        interfaces: where it comes in.
        way_out: where it leaves.
        listing: of all rules.
    """
    family, table, name = chain["family"], chain["table"], chain["name"]
    if (table, family) == ("firewalld", "inet"):
        yield (
            f"a policy from the zone of {', '.join(interfaces)} to that of {way_out} with the target ACCEPT "
            "(firewall-cmd --permanent --new-policy)"
        )
        return
    tables = (table, name) == ("filter", "FORWARD") and family != "inet"
    if tables:
        chains = {
            one["chain"]["name"] for one in listing if "chain" in one and one["chain"]["table"] == table
        }
        # Docker puts its own rules before others', but for those there.
        name = "DOCKER-USER" if "DOCKER-USER" in chains else name
    program = "iptables" if family == "ip" else "ip6tables"
    for interface in interfaces:
        if tables:
            pattern = interface.replace("*", "+")
            yield f"{program} -I {name} -i {pattern} -j ACCEPT"
            yield f"{program} -I {name} -o {pattern} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        else:
            insert = f"nft insert rule {family} {table} {name}"
            yield f"{insert} iifname {interface} accept"
            yield f"{insert} oifname {interface} ct state established,related accept"


class _Rules:
    """Rules of one table, by chain."""

    def __init__(self, listing: Listing, family: str, table: str) -> None:
        self._chains: dict[str, list[Sequence[Any]]] = {}
        self._walked: dict[tuple[str, _Packet], _Fate] = {}
        for rule in (one["rule"] for one in listing if "rule" in one):
            if (rule.get("family"), rule.get("table")) == (family, table):
                self._chains.setdefault(rule["chain"], []).append(rule.get("expr", ()))

    def let_through(self, chain: Mapping[str, Any], packet: _Packet) -> bool:
        """Whether a base chain may let a packet through."""
        fate = self._walk(chain["name"], packet)
        return fate is _Fate.MAY_PASS or (fate is _Fate.GOES_ON and chain.get("policy") != "drop")

    def untracking(self, chain: str, packets: Sequence[_Packet]) -> str:
        """The chain, of this one and those it jumps to, that for certain has some of these packets untracked;
        empty for none."""
        for parts in self._chains.get(chain, ()):
            met = [one for one in packets if all(_holds(part, one) for part in parts)]
            for part in parts if met else ():
                if isinstance(part, dict) and "notrack" in part:
                    return chain
                target = _member(_member(part, "jump") or _member(part, "goto"), "target")
                if target and (found := self.untracking(target, met)):
                    return found
            packets = [one for one in packets if self._meet(parts, one) is None]
        return ""

    def _walk(self, chain: str, packet: _Packet) -> _Fate:
        """The fate of a packet in a chain, to which thousands of rules may jump; the kernel has no loops."""
        if (chain, packet) not in self._walked:
            self._walked[chain, packet] = self._fate_in(chain, packet)
        return self._walked[chain, packet]

    def _fate_in(self, chain: str, packet: _Packet) -> _Fate:
        may_go_on = False
        for parts in self._chains.get(chain, ()):
            fate = self._meet(parts, packet)
            if fate is _Fate.MAY_GO_ON:
                may_go_on = True
            elif fate is _Fate.ENDS and may_go_on:
                return _Fate.GOES_ON
            elif fate is not None:
                return fate
        return _Fate.GOES_ON

    def _meet(self, parts: Sequence[Any], packet: _Packet) -> _Fate | None:
        """The fate that a rule gives a packet, where its way through the chain ends there, or may; otherwise
        None."""
        certain, may_go_on = True, False
        is_named = any(_holds(part, packet) for part in parts if _names_packets(part))
        for part in parts:
            holds = _holds(part, packet)
            if isinstance(part, dict) and "xt" in part:
                extension = _member(_member(part, "xt"), "name")
                if extension in ("REJECT", "DROP"):
                    return _Fate.ENDS if certain else None
                # Of a rule that names the port, or where clients come in, the rest will fit.
                unmet = extension in (*_TRACKED, None) or (
                    extension == _BY_DESTINATION and not packet.is_redirected
                )
                holds = False if unmet and not is_named else None
            if holds is False:
                return None
            certain = certain and holds is True
            for verdict, is_taken in _verdicts(part, packet):
                fate = self._fate(verdict, packet)
                if fate is _Fate.MAY_PASS or (fate is not None and certain and is_taken):
                    return fate
                may_go_on |= fate is _Fate.GOES_ON
        return _Fate.MAY_GO_ON if may_go_on else None

    def _fate(self, verdict: Mapping[str, Any], packet: _Packet) -> _Fate | None:
        if "accept" in verdict or "queue" in verdict:
            return _Fate.MAY_PASS
        if "drop" in verdict or "reject" in verdict:
            return _Fate.ENDS
        if "return" in verdict:
            return _Fate.GOES_ON
        if "goto" in verdict:
            return self._walk(verdict["goto"]["target"], packet)
        if "jump" in verdict:
            fate = self._walk(verdict["jump"]["target"], packet)
            return None if fate is _Fate.GOES_ON else fate
        return None


def _verdicts(part: Any, packet: _Packet) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Possible verdicts of a statement, and whether it decides for certain."""
    if not isinstance(part, dict):
        return
    table = part.get("vmap")
    if table is None:
        yield part, True
        return
    pairs = _member(_member(table, "data"), "set")
    if not isinstance(pairs, list):  # a map with a name, whose elements are not listed
        yield {"accept": None}, False
        return
    for key, verdict in pairs:
        holds = _compare(_member(table, "key"), "==", key, packet)
        if holds is not False:
            yield verdict, holds is True


def _names_packets(part: Any) -> bool:
    left = _member(_member(part, "match"), "left")
    field, key = _member(_member(left, "payload"), "field"), _member(_member(left, "meta"), "key")
    return field == "dport" or key in ("iifname", "iif")


def _holds(part: Any, packet: _Packet) -> bool | None:
    """Whether a packet meets a condition; None where that is not known."""
    match = _member(part, "match")
    if not isinstance(match, dict):
        return True if isinstance(part, dict) and not part.keys().isdisjoint(_NO_CONDITIONS) else None
    return _compare(match.get("left"), str(match.get("op")), match.get("right"), packet)


def _compare(left: object, op: str, right: object, packet: _Packet) -> bool | None:
    kind, value = _value(left, packet)
    if kind == "other":
        return False  # of a header that the packet does not have
    if value is None:
        return _by_address(left, right, packet) if op in ("==", "in") else None
    if op in ("==", "in", "!="):
        holds = _is_among(kind, value, right)
        return holds if holds is None or op != "!=" else not holds
    if isinstance(value, int) and isinstance(right, int):
        return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}.get(op)
    return None


def _value(left: object, packet: _Packet) -> tuple[str, str | int | None]:
    """The field of a packet that an expression reads, and its value; None where that is not known."""
    masked = _member(left, "&")
    if isinstance(masked, list) and _member(_member(masked[0], "meta"), "key") == "mark":
        mask = masked[1]
        return "mark", MARK & mask if packet.marked and isinstance(mask, int) else None
    payload = _member(left, "payload")
    if payload is not None:
        protocol, field = _member(payload, "protocol"), _member(payload, "field")
        if protocol in ("ip", "ip6"):
            if protocol != f"ip{'6' if packet.version == 6 else ''}":
                return "other", None
            return "transport", packet.transport if field in ("protocol", "nexthdr") else None
        if protocol in _OTHER_HEADERS and protocol != packet.transport:
            return "other", None
        return "port", packet.port if field == "dport" else None
    lookup = _member(left, "fib")
    if lookup is not None:
        by_mark = {"saddr", "mark"} <= {*(_member(lookup, "flags") or ())} and packet.marked
        return "way back", False if by_mark and _member(lookup, "result") in ("oif", "oifname") else None
    key = _member(_member(left, "meta"), "key")
    values: dict[object, tuple[str, str | int | None]] = {
        "iifname": ("interface", packet.interface),
        "iif": ("interface", packet.interface),
        "oifname": ("interface", packet.way_out or None),
        "oif": ("interface", packet.way_out or None),
        "l4proto": ("transport", packet.transport),
        "nfproto": ("family", f"ipv{packet.version}"),
        "protocol": ("family", "ip" if packet.version == 4 else "ip6"),
        "pkttype": ("pkttype", "host"),
        "mark": ("mark", MARK if packet.marked else None),
    }
    if key in values:
        return values[key]
    tracked = _member(_member(left, "ct"), "key")
    if tracked == "state":
        return "state", "new"
    if tracked == "status":
        return "status", "dnat" if packet.is_redirected else ""
    return "", None


def _is_among(kind: str, value: str | int, right: object) -> bool | None:
    """Whether a value is among those of a condition."""
    if isinstance(right, list):
        return any(_is_among(kind, value, one) for one in right)
    if isinstance(right, dict):
        if isinstance(several := right.get("set"), list):
            return _is_among(kind, value, several)
        if isinstance(ends := right.get("range"), list) and isinstance(value, int):
            return bool(ends[0] <= value <= ends[1])
        return None
    if isinstance(right, str) and right.startswith("@"):
        return None
    if kind == "interface" and isinstance(right, str) and isinstance(value, str):
        return _overlap(value, right)
    if kind == "transport":
        return right in (value, _TRANSPORTS[str(value)])
    return right == value


def _overlap(one: str, other: str) -> bool:
    """Whether two names of interfaces, which may end in ``*``, can match the same interface."""
    if other.endswith("*"):
        return one.startswith(other[:-1])
    return other.startswith(one[:-1]) if one.endswith("*") else one == other


def _by_address(left: object, right: object, packet: _Packet) -> bool | None:
    """Whether a condition on addresses matches: not where clients' are those of single machines, and so not
    of all, as origins' are, or where the destination's are of many, as for mDNS, whose port the filter's for
    DNS is too."""
    field = _member(_member(left, "payload"), "field")
    several = _member(right, "set") if isinstance(right, dict) else [right]
    if not isinstance(several, list):
        return None
    if field == "saddr" or (field == "daddr" and packet.way_out):
        single = all(isinstance(one, str) and not one.startswith("@") for one in several)
        return False if single else None
    if field == "daddr":
        return False if all(map(_is_multicast, several)) else None
    return None


def _is_multicast(one: object) -> bool:
    try:
        return ip_address(str(_member(_member(one, "prefix"), "addr") or one)).is_multicast
    except ValueError:
        return False


def _member(of: object, name: str) -> Any:
    """A member of an object; others' rules may have a text where libnftables has no JSON for a statement."""
    return of.get(name) if isinstance(of, dict) else None
