"""Rules of the table ``inet urlward``, as text for nft: pure, the same for the same plan.

What is to be filtered is redirected while a worker lives (the set ``alive``). While none does, ``fail`` says
what becomes of it. ``open``: it passes, DNS goes straight to a resolver, and everything else never notices.
``closed``: new connections to the filtered ports are rejected and DNS gets no answer, whatever the sets
hold, since only a worker can tell what is not listed.

With ``keep_source`` connections are led here without translation (``tproxy``). Packets for the filter's
sockets, which have addresses of origins and of clients, are marked; `urlward.gateway.routing` has what is
marked delivered here.

A change is one transaction: chains and what the configuration fixes are replaced, what workers have put into
sets stays.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_address, ip_network
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from urlward.config import GatewayTable, Problem
from urlward.config.problem import SettingError
from urlward.config.tables import join_address
from urlward.gateway.errors import GatewayError
from urlward.gateway.routing import commands
from urlward.gateway.steerable import NAT64, NEVER_STEERED, PUBLIC_RESOLVERS, Network
from urlward.gateway.table import (
    ALIVE,
    BOTH_PROTOCOLS,
    CANARY,
    CONTESTED,
    CUT,
    CUT_LISTED,
    CUTTING,
    FAMILY_AND_NAME,
    LISTED,
    LISTED_DIGEST,
    MARK,
    NAT64_SEEN,
    SETUP,
    STEERED,
    Setup,
)

_CHAINS = (
    *("prerouting_raw", "prerouting", "output", "postrouting", "forward", "input", "clamp_in", "clamp_out"),
    *("prerouting_names", "output_names", "asked"),
    *(
        "questions",
        "from_canary",
        "apart",
        "from_clients",
        "filtered",
        "names",
        "to_origins",
        "missed",
        "from_origins",
    ),
    *("known", "open", "cut_to", "end_to", "cut_from", "end_from", "strangers", SETUP, LISTED_DIGEST),
)
_FIXED = ("clients", "exempt", "never", "unsteered")
"""Sets that the configuration fills, of both families each."""

_LINK_LOCAL = ip_network("fe80::/10")

_ZONE = 21365
"""Conntrack zone for DNS while no worker lives; a number that nobody else is likely to take."""

_TOLD_MOST, _TOLD_FOR = 65_536, 60
"""Clients' ports whose connection is being ended, and seconds that each is remembered."""

_NAT64_FOR = 7 * 86_400
"""Seconds that NAT64 is taken to be in use after a connection that has shown it."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}|[A-Za-z0-9_.@-]{1,14}\*")


@dataclass(frozen=True, slots=True)
class Plan:
    """Input from which rules are made.

    Attributes:
        gateway: the configuration.
        listen: port of the transparent proxy.
        resolvers: addresses and ports that DNS goes to while no worker lives; the first of each family.
        families: 4, 6 or both; those that are filtered.
    """

    gateway: GatewayTable
    listen: int
    resolvers: tuple[tuple[IPv4Address | IPv6Address, int], ...] = ()
    families: tuple[int, ...] = (4, 6)

    @property
    def intercepts(self) -> bool:
        """Whether some connections go to a port of their own."""
        return self.gateway.steer and self.gateway.steered == "intercept"


@dataclass(frozen=True, slots=True)
class SetDefinition:
    """Definition of one of the table's sets.

    Attributes:
        name: of it.
        type: of its elements, as nft writes it.
        flags: as nft writes them.
        size: how many it may hold, 0 for any number.
        timeout: seconds that an element stays which does not say, 0 for ever.
        elements: that it begins with.
        fixed: whether its elements are the configuration's; otherwise workers fill it, and they stay.
    """

    name: str
    type: str
    flags: str
    size: int = 0
    timeout: int = 0
    elements: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def body(self) -> str:
        """Definition without the elements, as nft writes it."""
        size = f" size {self.size};" if self.size else ""
        timeout = f" timeout {self.timeout}s;" if self.timeout else ""
        return f"type {self.type}; flags {self.flags};{size}{timeout}"

    def is_as(self, listed: Mapping[str, Any]) -> bool:
        """Whether a set in a listing has this definition."""
        kind = listed["type"] if isinstance(listed["type"], str) else " . ".join(listed["type"])
        flags = listed.get("flags", [])
        return (kind, set(flags), listed.get("size", 0), listed.get("timeout", 0)) == (
            self.type,
            set(self.flags.split(",")),
            self.size,
            self.timeout,
        )


def setup_of(plan: Plan) -> Setup:
    """The setup that the rules of a plan state."""
    return Setup(
        listen=plan.listen,
        dns=plan.gateway.dns.port if plan.gateway.steer else 0,
        intercept=plan.gateway.intercept_port if plan.intercepts else 0,
        fail=plan.gateway.fail,
        source="kept" if plan.gateway.keep_source else "own",
        config=blake2b(repr(plan).encode(), digest_size=8).hexdigest(),
    )


def rules(plan: Plan, existing: Sequence[Mapping[str, Any]] = ()) -> str:
    """Commands that install the rules, whatever exists of them.

    Args:
        plan: what they are made from.
        existing: a listing of the table, and of each of those sets that `outdated` names, with elements.

    Raises:
        GatewayError: the plan does not make sense.
    """
    gateway, setup = plan.gateway, setup_of(plan)
    _check(plan, setup)
    old = {one["set"]["name"]: one["set"] for one in existing if "set" in one}
    own_ports = sorted({port for port in (setup.listen, setup.dns, setup.intercept) if port})
    replaced = outdated(plan, existing)
    sets = [
        _with_old(one, old[one.name]) if one.name in replaced and not one.fixed else one
        for one in _sets(gateway)
    ]
    return _template().render(
        table=FAMILY_AND_NAME,
        chains=_CHAINS,
        outdated=replaced,
        sets=sets,
        setup=setup,
        setup_chain=SETUP,
        listed_chain=LISTED_DIGEST,
        zone=_ZONE,
        nat64=str(NAT64),
        kept=gateway.keep_source,
        mark=f"{MARK:#x}",
        routing=commands(),
        interfaces=gateway.interfaces,
        clients=bool(gateway.clients),
        exempt=bool(gateway.exempt),
        never=bool(gateway.never),
        steer=gateway.steer,
        closed=gateway.fail == "closed",
        ports=", ".join(map(str, sorted(set(gateway.ports)))),
        mss=gateway.mss,
        own_ports=own_ports,
        # Of the filter's side towards clients, which has the origins' ports where they are not translated.
        clamped=", ".join(map(str, sorted({*own_ports, *(gateway.ports if gateway.keep_source else ())}))),
        families=[_family(plan, n) for n in plan.families],
    )


def outdated(plan: Plan, existing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of sets whose definition differs from the plan's."""
    wanted = {definition.name: definition for definition in _sets(plan.gateway)}
    found = [one["set"] for one in existing if "set" in one and one["set"]["name"] in wanted]
    return list(dict.fromkeys(one["name"] for one in found if not wanted[one["name"]].is_as(one)))


def interface_problems(gateway: GatewayTable) -> Iterator[Problem]:
    """Problems with the interfaces that rules are to be made for."""
    if not gateway.interfaces:
        yield Problem("gateway.interfaces", 'say where clients come in, such as interfaces = ["eth1"]')
    for name in gateway.interfaces:
        if not _INTERFACE.fullmatch(name) or name == "lo":
            yield Problem("gateway.interfaces", f"{name!r} is not the name of an interface of clients")


def _check(plan: Plan, setup: Setup) -> None:
    for problem in interface_problems(plan.gateway):
        raise SettingError(problem.key, problem.text)
    own = [port for port in (setup.listen, setup.dns, setup.intercept) if port]
    twice = next((port for port in own if own.count(port) > 1), None)
    if twice:
        raise GatewayError(
            f"port {twice} twice: --listen, gateway.dns.port and gateway.intercept_port must differ"
        )


def _sets(gateway: GatewayTable) -> Iterator[SetDefinition]:
    unsteered = [*map(str, NEVER_STEERED), *map(str, PUBLIC_RESOLVERS)]
    for kind, values in zip(_FIXED, (gateway.clients, gateway.exempt, gateway.never, unsteered), strict=True):
        networks = [ip_network(value) for value in values]
        if kind == "clients" and any(network.version == 6 for network in networks):
            # Where the router's own link-local address is the resolver, clients ask it from theirs.
            networks.append(_LINK_LOCAL)
        for n in (4, 6):
            elements = _collapsed(networks, n)
            yield SetDefinition(f"{kind}{n}", f"ipv{n}_addr", "interval", elements=elements, fixed=True)
    for n in (4, 6):
        key = f"ipv{n}_addr . inet_service"
        yield SetDefinition(f"told{n}", key, "timeout,dynamic", _TOLD_MOST, _TOLD_FOR, fixed=True)
    for names in (STEERED, CUT):
        for name, n in zip(names, (4, 6), strict=True):
            yield SetDefinition(name, f"ipv{n}_addr", "timeout", gateway.max_addresses)
    for name, n in zip(LISTED, (4, 6), strict=True):
        yield SetDefinition(name, f"ipv{n}_addr", "interval")
    yield SetDefinition(CANARY, "mark", "timeout")
    yield SetDefinition(NAT64_SEEN, "inet_proto", "timeout,dynamic", len(BOTH_PROTOCOLS), _NAT64_FOR)
    for name in (ALIVE, CUTTING, CUT_LISTED, CONTESTED):
        yield SetDefinition(name, "inet_proto", "timeout")


def _collapsed(networks: Iterable[Network], version: int) -> tuple[str, ...]:
    of_family: Any = [network for network in networks if network.version == version]
    # A network of one address is written as nft writes it.
    return tuple(str(n).removesuffix(f"/{n.max_prefixlen}") for n in collapse_addresses(of_family))


def _with_old(definition: SetDefinition, old: Mapping[str, Any]) -> SetDefinition:
    """Definition with the elements of the set it replaces, as many as there is room for."""
    elements = [_element(one) for one in old.get("elem", [])]
    elements.sort(reverse=True)
    room = definition.size or len(elements)
    texts = (f"{key} timeout {left}s" if left else key for left, key in elements[:room])
    return replace(definition, elements=tuple(texts))


def _element(one: Any) -> tuple[int, str]:
    """Parse an element: seconds left, 0 where it has no timeout, and the key."""
    left = 0
    if isinstance(one, dict) and "elem" in one:
        left, one = max(int(one["elem"].get("expires", 0)), 1), one["elem"]["val"]
    if isinstance(one, dict) and "prefix" in one:
        return left, f"{one['prefix']['addr']}/{one['prefix']['len']}"
    if isinstance(one, dict) and "range" in one:
        return left, "-".join(one["range"])
    return left, str(one)


def _family(plan: Plan, version: int) -> dict[str, Any]:
    pages = map(ip_address, plan.gateway.dns.page_addresses)
    canaries = map(ip_address, plan.gateway.canary.addresses)
    resolver = next((one for one in plan.resolvers if one[0].version == version), None)
    return {
        "n": version,
        "ip": "ip" if version == 4 else "ip6",
        "name": f"ipv{version}",
        "pages": [str(page) for page in pages if page.version == version],
        "canary": next((str(one) for one in canaries if one.version == version), ""),
        "resolver": resolver and join_address(str(resolver[0]), resolver[1]),
    }


@cache
def _template() -> Template:
    loader = PackageLoader("urlward.gateway")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - not HTML
    return environment.get_template("rules.nft.j2")
