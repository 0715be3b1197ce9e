"""Rules of the table ``inet urlward``, rendered from ``templates/rules.nft.j2``: pure, the same for the same
plan; and the plan, from a configuration and a machine.

What is to be filtered is redirected while a worker lives (the set ``alive``). While none does, ``fail`` says
what becomes of it. ``open``: it passes, DNS goes straight to a resolver, and everything else never notices.
``closed``: new connections to the filtered ports are rejected and DNS gets no answer, whatever the sets hold,
since only a worker can tell what is not listed.

With ``keep_source`` connections are led here without translation (``tproxy``). Packets for the filter's
sockets, which have addresses of origins and of clients, are marked; `urlward.gateway.routing` has what is
marked delivered here.

A change is one transaction: chains and what the configuration fixes are replaced, what workers have put into
sets stays.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import blake2b
from ipaddress import collapse_addresses, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from mitmproxy.proxy import mode_specs

from urlward.config import Config, GatewayTable, Problem
from urlward.config.problem import SettingError
from urlward.config.tables import join_address, named_address
from urlward.dns.resolver_addresses import SYSTEM, resolvers
from urlward.engine.errors import UrlwardError
from urlward.engine.nat64 import Nat64
from urlward.gateway.routing import commands
from urlward.gateway.steerable import Address, Network, is_within, unsteered, with_forms
from urlward.gateway.system import (
    FORWARDING,
    come_in_elsewhere,
    enslaved_interfaces,
    first_few,
    has_ipv6,
    interfaces_to_the_world,
    is_beyond,
    missing_interfaces,
    overheard_bridges,
    own_addresses,
    sysctl,
    unnamed_uppers,
    unnumbered_interfaces,
    vrf_interfaces,
)
from urlward.gateway.table import (
    ALIVE,
    ALIVE_FOR,
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
    SIGN,
    STEERED,
    Setup,
)

_CHAINS = (
    *("prerouting_raw", "prerouting", "output", "postrouting", "forward", "input", "clamp_in", "clamp_out"),
    *("prerouting_names", "output_names", "asked", "untranslated", "shortcuts", "signs"),
    *(
        "questions",
        "floods",
        "from_canary",
        "apart",
        "from_clients",
        "filtered",
        "names",
        "to_origins",
        "missed",
        "comes_again",
        "from_origins",
    ),
    *("known", "open", "cut_to", "end_to", "cut_from", "end_from", "strangers", SETUP, LISTED_DIGEST),
)
_FIXED = ("clients", "exempt", "never", "unsteered")
"""Sets that the configuration fills, of both families each."""

_LINK_LOCAL = ip_network("fe80::/10")

_ZONE = 21365
"""Conntrack zone for DNS, and the one after it for DNS while no worker lives; numbers that nobody else is
likely to take."""

_TOLD_MOST, _TOLD_FOR = 65_536, 60
"""Clients' ports whose connection is being ended, and seconds that each is remembered."""

ASKED_AT_MOST = 3_000
"""DNS queries a second over UDP that an address, or a network of IPv6, may ask; the kernel drops more, which
would fill the sockets' buffers and take others' places."""

_ASKING_MOST, _ASKING_FOR = 65_536, 60
"""Clients whose queries are counted, and seconds that each is remembered."""

PASSING = frozenset(f"{name}{n}" for name in ("told", "asking") for n in (4, 6))
"""Sets that the kernel fills for a minute, and nothing is lost with."""

_ALIVE_MOST = 64
"""Elements of `ALIVE`: more than two, since the kernel clears away late what has expired."""

_NAT64_FOR = 7 * 86_400
"""Seconds that NAT64 is taken to be in use after a connection that has shown it."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}|[A-Za-z0-9_.@-]{1,14}\*")

_STUB_OF = Path("/run/systemd/resolve/resolv.conf")
"""The resolvers behind systemd-resolved, which itself answers this machine alone."""

_DEFAULT_LISTEN = ":8080"


@dataclass(frozen=True, slots=True)
class RulesPlan:
    """Input from which rules are made. What it is called is in their fingerprint (`setup_of`).

    Attributes:
        gateway: the configuration.
        listen: port of the transparent proxy.
        resolvers: addresses and ports that DNS goes to while no worker lives; the first of each family.
        families: 4, 6 or both; those that are filtered.
        shared: whether answers to what was routed here may come back by another gateway.
    """

    gateway: GatewayTable
    listen: int
    resolvers: tuple[tuple[Address, int], ...] = ()
    families: tuple[int, ...] = (4, 6)
    shared: bool = False

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


def setup_of(plan: RulesPlan) -> Setup:
    """The setup that the rules of a plan state; another release's are told from ours by its digest."""
    made_from = plan, _template().source
    return Setup(
        listen=plan.listen,
        dns=plan.gateway.dns.port if plan.gateway.steer else 0,
        intercept=plan.gateway.intercept_port if plan.intercepts else 0,
        fail=plan.gateway.fail,
        source="kept" if plan.gateway.keep_source else "own",
        config=blake2b(repr(made_from).encode(), digest_size=8).hexdigest(),
    )


def rules(plan: RulesPlan, existing: Sequence[Mapping[str, Any]] = ()) -> str:
    """Commands that install the rules, whatever exists of them.

    Args:
        plan: what they are made from.
        existing: a listing of the table, and of each of those sets that `outdated` names, with elements.

    Raises:
        UrlwardError: the plan does not make sense.
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
    return _template().made.render(
        table=FAMILY_AND_NAME,
        chains=_CHAINS,
        outdated=replaced,
        sets=sets,
        setup=setup,
        setup_chain=SETUP,
        listed_chain=LISTED_DIGEST,
        zone=_ZONE,
        sign=SIGN,
        other=BOTH_PROTOCOLS[0] ^ BOTH_PROTOCOLS[1],
        alive=ALIVE,
        alive_for=ALIVE_FOR,
        asked_at_most=ASKED_AT_MOST,
        nat64=", ".join(map(str, collapse_addresses(Nat64(gateway.nat64).prefixes))),
        kept=gateway.keep_source,
        mark=f"{MARK:#x}",
        routing=commands(),
        interfaces=gateway.interfaces,
        clients=bool(gateway.clients),
        exempt=bool(gateway.exempt),
        never=bool(gateway.never),
        steer=gateway.steer,
        shared=plan.shared,
        closed=gateway.fail == "closed",
        ports=", ".join(map(str, sorted(set(gateway.ports)))),
        mss=gateway.mss,
        own_ports=own_ports,
        # Of the filter's side towards clients, which has the origins' ports where they are not translated.
        clamped=", ".join(map(str, sorted({*own_ports, *(gateway.ports if gateway.keep_source else ())}))),
        families=[_family(plan, n) for n in plan.families],
    )


def outdated(plan: RulesPlan, existing: Sequence[Mapping[str, Any]]) -> list[str]:
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


def _check(plan: RulesPlan, setup: Setup) -> None:
    for problem in interface_problems(plan.gateway):
        raise SettingError(problem.key, problem.text)
    own = [port for port in (setup.listen, setup.dns, setup.intercept) if port]
    twice = next((port for port in own if own.count(port) > 1), None)
    if twice:
        raise UrlwardError(
            f"port {twice} twice: --listen, gateway.dns.port and gateway.intercept_port must differ"
        )


@lru_cache(1)
def _sets(gateway: GatewayTable) -> tuple[SetDefinition, ...]:
    return tuple(_definitions(gateway))  # read three times, and there may be tens of thousands of networks


def _definitions(gateway: GatewayTable) -> Iterator[SetDefinition]:
    nat64 = Nat64(gateway.nat64)
    clients, exempt, never = (
        map(ip_network, one) for one in (gateway.clients, gateway.exempt, gateway.never)
    )
    values = clients, exempt, with_forms(never, nat64), unsteered(nat64)
    for kind, networks in zip(_FIXED, map(list, values), strict=True):
        if kind == "clients" and any(network.version == 6 for network in networks):
            # Where the router's own link-local address is the resolver, clients ask it from theirs.
            networks.append(_LINK_LOCAL)
        for n in (4, 6):
            elements = _collapsed(networks, n)
            yield SetDefinition(f"{kind}{n}", f"ipv{n}_addr", "interval", elements=elements, fixed=True)
    for n in (4, 6):
        key = f"ipv{n}_addr . inet_service"
        yield SetDefinition(f"told{n}", key, "timeout,dynamic", _TOLD_MOST, _TOLD_FOR, fixed=True)
    for n in (4, 6):
        yield SetDefinition(
            f"asking{n}", f"ipv{n}_addr", "timeout,dynamic", _ASKING_MOST, _ASKING_FOR, fixed=True
        )
    for names in (STEERED, CUT):
        for name, n in zip(names, (4, 6), strict=True):
            yield SetDefinition(name, f"ipv{n}_addr", "timeout", gateway.max_addresses)
    for name, n in zip(LISTED, (4, 6), strict=True):
        yield SetDefinition(name, f"ipv{n}_addr", "interval")
    yield SetDefinition(CANARY, "mark", "timeout")
    yield SetDefinition(NAT64_SEEN, "inet_proto", "timeout,dynamic", len(BOTH_PROTOCOLS), _NAT64_FOR)
    yield SetDefinition(ALIVE, "inet_proto", "timeout,dynamic", _ALIVE_MOST)
    for name in (CUTTING, CUT_LISTED, CONTESTED):
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


def _family(plan: RulesPlan, version: int) -> dict[str, Any]:
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


class _Template(NamedTuple):
    """Template of the rules of a plan, and its text."""

    made: Template
    source: str


@cache
def _template() -> _Template:
    loader, name = PackageLoader("urlward.gateway"), "rules.nft.j2"
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - not HTML
    return _Template(environment.get_template(name), loader.get_source(environment, name)[0])


@dataclass(frozen=True, slots=True)
class Planned:
    """Plan, with notes for the operator.

    Attributes:
        plan: see there.
        notes: a line each.
    """

    plan: RulesPlan
    notes: tuple[str, ...]


def planned(config: Config, listen: str | None = None, system: Path = SYSTEM) -> Planned:
    """Make a plan for this machine.

    Args:
        config: the whole configuration.
        listen: where the filter listens, before what `config` says.
        system: file that names the system's resolvers.

    Raises:
        UrlwardError: the filter cannot listen so; there is no resolver; see also `rules`.
    """
    gateway = config.gateway
    host, port = _listens(config, listen)
    notes: list[str] = []
    families = _families(host, notes)
    # Where nothing passes while no worker lives, names are not answered then either.
    resolves = gateway.steer and gateway.fail == "open"
    found = _resolvers(gateway, families, system, notes) if resolves else ()
    notes += first_few(
        f"gateway.interfaces: there is no {name} on this machine, or not yet"
        for name in missing_interfaces(gateway.interfaces, whatever=True)
    )
    notes += first_few(
        f"gateway.interfaces: {name} is a port of {master}, as which packets come in: name {master}"
        for name, master in enslaved_interfaces(gateway.interfaces).items()
    )
    notes += first_few(
        f"gateway.interfaces: {name} is in the VRF {vrf}, which is not supported"
        if name != vrf
        else f"gateway.interfaces: {name} is a VRF, which is not supported"
        for name, vrf in vrf_interfaces(gateway.interfaces).items()
    )
    notes += first_few(
        f"gateway.interfaces: what comes in by {name}, made of {lower}, is not filtered: name {name} too "
        "where clients are in it"
        for name, lower in unnamed_uppers(gateway.interfaces).items()
    )
    notes += first_few(
        f"gateway.interfaces: {setting} is 1, so what comes in by {name} for the filter gets lost "
        f"(keep_source): sysctl -w {setting}=0"
        if gateway.keep_source
        else f"gateway.interfaces: {setting} is 1, so what {name} passes from port to port, DNS to servers "
        f"there too, comes to the filter: sysctl -w {setting}=0, or name what is there in gateway.never"
        for name, setting in overheard_bridges(gateway.interfaces).items()
    )
    if not gateway.clients:
        notes += first_few(
            f"gateway.interfaces: a default route leads to {name}, and gateway.clients is empty: all that "
            "come in there are clients"
            + (", and are answered DNS" if gateway.steer else "")
            + ": say who is one"
            for name in interfaces_to_the_world(gateway.interfaces)
        )
    elif come_in_elsewhere(gateway.interfaces, map(ip_network, gateway.clients)):
        notes.append(
            "gateway.clients: none of these networks comes in by gateway.interfaces, by the routes "
            "as they are now, so that nothing would be filtered"
        )
    if gateway.steer:
        notes += first_few(
            f"gateway.dns.resolvers: {address} is a client, whose own questions come to the filter and back "
            "to it: name one behind this machine; clients may ask this one all the same"
            for address in _resolvers_at_clients(gateway, system)
        )
    if gateway.steer or not gateway.keep_source:
        notes += first_few(
            f"gateway.interfaces: {name} has no IPv4 address, without which the kernel drops what is to be "
            f"redirected there: give it one, such as another's of this machine (ip addr add …/32 dev {name})"
            for name in unnumbered_interfaces(gateway.interfaces)
        )
    if 6 in families and _clients_of_ipv4_alone(gateway):
        notes.append(
            "gateway.clients: no IPv6 network, but IPv6 is routed: what comes over it is not filtered"
        )
    plan = RulesPlan(gateway, port, found, families, config.fleet is not None)
    return Planned(plan, tuple(notes))


def gateway_problems(
    gateway: GatewayTable, modes: Sequence[str], listen: tuple[str, int], *, steer: bool
) -> Iterator[Problem]:
    """Problems that keep rules from leading to a filter, whatever the kernel has; conflicts of ports are not
    checked.

    Args:
        gateway: as configured.
        modes: mitmproxy mode specifications.
        listen: host and port where those listen that say nothing else.
        steer: whether it steers.
    """
    host, port = listen

    def resolve() -> None:
        if steer:
            resolvers(gateway.dns.resolvers, own_addresses(), gateway.dns.port)

    for check in (
        lambda: check_modes(gateway, modes, port, steer=steer),
        lambda: _check_host(_transparent_at(gateway, modes, host, port)[0]),
        resolve,
    ):
        try:
            check()
        except SettingError as e:
            yield e.problem
    yield from interface_problems(gateway)


def steering_modes(gateway: GatewayTable) -> tuple[str, ...]:
    """mitmproxy modes for a filter that steers."""
    intercept = (f"transparent@{gateway.intercept_port}",) if gateway.steered == "intercept" else ()
    return ("transparent", *intercept, f"dns@{gateway.dns.port}")


def default_modes(gateway: GatewayTable, *, steer: bool) -> tuple[str, ...]:
    """mitmproxy modes for a filter of which none is said: those that take what the kernel's rules lead to it,
    where there are such rules."""
    if steer:
        return steering_modes(gateway)
    return ("transparent",) if gateway.interfaces else ("regular",)


def default_listen(gateway: GatewayTable, modes: Sequence[str], *, steer: bool) -> str | None:
    """Where a filter listens of which nothing is said: on all addresses where the kernel's rules lead to it;
    None for the proxy's default.

    Args:
        gateway: as configured.
        modes: mitmproxy mode specifications, as configured.
        steer: whether it steers.
    """
    return _DEFAULT_LISTEN if steer or (gateway.interfaces and not modes) else None


def transparent_port(modes: Sequence[str], port: int) -> int | None:
    """Port where redirected connections arrive, or None where none are taken.

    Args:
        modes: mitmproxy mode specifications.
        port: where those listen that say nothing else.
    """
    for spec in modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError:
            continue  # the start will refuse it
        if isinstance(mode, mode_specs.TransparentMode):
            return mode.custom_listen_port or port
    return None


def redirected_port(gateway: GatewayTable, modes: Sequence[str], port: int, *, steer: bool) -> int | None:
    """`transparent_port`, where the kernel's rules are to lead to this filter; None where they are not."""
    return transparent_port(modes, port) if steer or gateway.interfaces else None


def check_modes(gateway: GatewayTable, modes: Sequence[str], port: int, *, steer: bool) -> int:
    """Port where redirected connections arrive, at a filter that takes what its rules lead to it.

    Args:
        gateway: as configured.
        modes: mitmproxy mode specifications.
        port: where those listen that say nothing else.
        steer: whether it steers.

    Raises:
        SettingError: none of them takes connections, or where it steers answers DNS.
    """
    takes = transparent_port(modes, port)
    if takes is None and not steer:
        raise SettingError("mode", "the rules lead to a transparent proxy, and none is here: add transparent")
    if takes is None or (steer and not any(_answers(spec, gateway.dns.port) for spec in modes)):
        wanted = ", ".join(steering_modes(gateway))
        raise SettingError("mode", f"steering needs {wanted}; that is the default: leave mode out")
    return takes


def _answers(spec: str, port: int) -> bool:
    """Whether a mode answers DNS at a port."""
    try:
        mode = mode_specs.ProxyMode.parse(spec)
    except ValueError:
        return False
    return isinstance(mode, mode_specs.DnsMode) and mode.custom_listen_port == port


def _listens(config: Config, listen: str | None) -> tuple[str, int]:
    """Address where redirected connections arrive."""
    host, port = named_address("listen", listen or config.listen or _DEFAULT_LISTEN, any_host=True)
    for n, spec in enumerate(config.mode):
        try:
            mode_specs.ProxyMode.parse(spec)
        except ValueError as e:
            raise SettingError(f"mode.{n}", f"{spec!r}: {e}") from e
    host, port = _transparent_at(config.gateway, config.mode, host, port)
    if config.mode:
        check_modes(config.gateway, config.mode, port, steer=config.gateway.steer)
    return host, port


def _transparent_at(gateway: GatewayTable, modes: Sequence[str], host: str, port: int) -> tuple[str, int]:
    """Address of the first transparent mode that is not at `GatewayTable.intercept_port`."""
    for spec in modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError:
            continue
        own = mode.custom_listen_port
        if isinstance(mode, mode_specs.TransparentMode) and own != gateway.intercept_port:
            return mode.listen_host(host), own or port
    return host, port


def _check_host(host: str) -> None:
    if host == "::":
        raise SettingError(
            "listen", "[::] is IPv6 alone, and what comes over IPv4 would find nobody; :8080 is both families"
        )
    if host not in ("", "0.0.0.0"):  # noqa: S104 - compared, not bound to
        raise SettingError(
            "listen", f"redirected connections do not arrive at {host}; listen on all addresses, as in :8080"
        )


def _families(host: str, notes: list[str]) -> tuple[int, ...]:
    _check_host(host)
    if not has_ipv6():
        notes.append("this kernel has no IPv6: IPv4 alone is filtered")
        return (4,)
    if host == "0.0.0.0":  # noqa: S104
        notes.append("listen: 0.0.0.0 is IPv4 alone, so IPv6 is not filtered; :8080 is both")
        return (4,)
    return (4, 6)


def _clients_of_ipv4_alone(gateway: GatewayTable) -> bool:
    versions = {ip_network(network).version for network in gateway.clients}
    return versions == {4} and sysctl(FORWARDING[6]) not in (None, "0")


def _resolvers(
    gateway: GatewayTable, families: Sequence[int], system: Path, notes: list[str]
) -> tuple[tuple[Address, int], ...]:
    """Resolvers for clients' queries while no worker lives, one of each family."""
    own, port = own_addresses(), gateway.dns.port
    usable = _reachable(resolvers(gateway.dns.resolvers, own, port, system))
    if not usable and not gateway.dns.resolvers:
        try:
            usable = _reachable(resolvers((), own, port, _STUB_OF))
        except SettingError:
            usable = []
    chosen = []
    for family in families:
        one = next((pair for pair in usable if pair[0].version == family), None)
        if one is not None:
            chosen.append(one)
        elif family == 4 or not chosen:
            notes.append(
                f"gateway.dns.resolvers: none that clients can be sent to over IPv{family}, "
                "so that such queries fail while no worker lives"
            )
    return tuple(chosen)


def _resolvers_at_clients(gateway: GatewayTable, system: Path) -> Iterator[Address]:
    """Resolvers whose own questions come to the filter."""
    clients, exempt = (tuple(map(ip_network, some)) for some in (gateway.clients, gateway.exempt))
    with suppress(SettingError):
        for address, _ in _reachable(
            resolvers(gateway.dns.resolvers, own_addresses(), gateway.dns.port, system)
        ):
            is_client = is_within(address, clients) if clients else is_beyond(gateway.interfaces, address)
            if is_client and not is_within(address, exempt):
                yield address


def _reachable(found: Sequence[tuple[str, int, int, object]]) -> list[tuple[Address, int]]:
    """Resolvers without those that only this machine, or one of its links, can reach."""
    pairs = [(ip_address(host), port) for host, port, *_ in found]
    return [(a, port) for a, port in pairs if not (a.is_loopback or a.is_unspecified or a.is_link_local)]
