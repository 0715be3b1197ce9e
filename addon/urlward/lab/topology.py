"""Topology of the lab: a namespace for each machine, joined by the gateway, which routes; their addresses,
the hosts of a scenario at theirs, and generated lists of hosts.

It is made inside namespaces that end with the lab (`urlward.lab.isolation`), so nothing here undoes anything.

Addresses are documentation addresses (RFC 5737, RFC 3849) and nothing else. Each network has a veth pair, one
end in the gateway. Origins' addresses are on their loopback, so that any number of them is one route.

A generated list has entries of reserved names; the same number and seed give the same list. Of ten entries,
six are pages, two are prefixes, one is a parameter and one a host.
"""

import random
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from urlward.engine.errors import UrlwardError
from urlward.lab.scenario import Host, Scenario

DOMAIN = "made.example"
_PAGES_PER_HOST = 8

GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Drawn:
    """URLs drawn from a generated list: listed ones, and unlisted ones on the same hosts."""

    listed: tuple[str, ...]
    unlisted: tuple[str, ...]


def lines(entries: int, seed: int = 1) -> Iterator[str]:
    """Lines of the generated list, one an entry."""
    for number in range(entries):
        yield f"{_entry(number, seed)} id=MADE-{number} category=made\n"


def draw(entries: int, count: int, seed: int = 1) -> Drawn:
    """Draw URLs from a generated list, `count` of each kind."""
    chosen = random.Random(seed).choices(range(entries), k=count)
    return Drawn(
        tuple(_listed(number, seed) for number in chosen),
        tuple(f"http://{_host(number)}/free/{number * 7919 + seed}.html" for number in chosen),
    )


def _host(number: int) -> str:
    return f"h{number // _PAGES_PER_HOST}.{DOMAIN}"


def _entry(number: int, seed: int) -> str:
    match number % 10:
        case 9:
            return f"whole{number}-{seed}.{DOMAIN}"
        case 8:
            return f"http://{_host(number)}/view?item={number}-{seed}"
        case 6 | 7:
            return f"http://{_host(number)}/dir{number}-{seed}/*"
    return f"http://{_host(number)}/p{number}-{seed}.html"


def _listed(number: int, seed: int) -> str:
    entry = _entry(number, seed)
    match number % 10:
        case 9:
            return f"http://{entry}/any"
        case 8:
            return f"{entry}&page=2"
        case 6 | 7:
            return entry.replace("*", "deep/page.html")
    return entry


@dataclass(frozen=True, slots=True)
class Network:
    """Network of one machine beside the gateway.

    Attributes:
        name: of the machine's namespace.
        link: the gateway's interface.
        host4, gateway4, prefix4: IPv4; empty where the machine has none.
        host6, gateway6: IPv6, always of 64 bits.
        more: further addresses of the machine.
    """

    name: str
    link: str
    host4: str
    gateway4: str
    prefix4: int
    host6: str
    gateway6: str
    more: tuple[str, ...] = ()


CLIENT = Network(
    "client", "lan0", "192.0.2.10", "192.0.2.1", 26, "2001:db8:1::10", "2001:db8:1::1",
    more=("192.0.2.40", "2001:db8:1::40"),
)  # fmt: skip
CLIENT6 = Network("client6", "lan1", "", "", 0, "2001:db8:2::10", "2001:db8:2::1")
NEIGHBOUR = Network("neighbour", "nbr0", "192.0.2.130", "192.0.2.129", 26, "2001:db8:3::10", "2001:db8:3::1")
RESOLVER = Network(
    "resolver", "res0", "198.51.100.53", "198.51.100.1", 25, "2001:db8:53::53", "2001:db8:53::1",
    more=("198.51.100.54", "2001:db8:53::54"),
)  # fmt: skip
ORIGIN = Network("origin", "net0", "198.51.100.130", "198.51.100.129", 26, "2001:db8:4::10", "2001:db8:4::1")
NETWORKS = (CLIENT, CLIENT6, NEIGHBOUR, RESOLVER, ORIGIN)

FILTERED_LINKS = (CLIENT.link, CLIENT6.link)
EXEMPT = CLIENT.more
OTHER_RESOLVER = RESOLVER.more

ROUTER_PLACE = 1
"""Place of the router in a network of the nodes of a fleet; see `urlward.lab.fleet`."""


@dataclass(frozen=True, slots=True)
class Side:
    """Network of a fleet's nodes and the router: on the side of clients, or of origins.

    Attributes:
        bridge: the router's interface.
        link: a node's.
        base4, base6: of its 26 and 64 bits.
    """

    bridge: str
    link: str
    base4: str
    base6: str

    def at(self, place: int, family: int = 4) -> str:
        """The address of a place, 1 to 62."""
        return str(ip_address(self.base6 if family == 6 else self.base4) + place)

    def network(self, family: int) -> str:
        """The network."""
        return f"{self.base6}/64" if family == 6 else f"{self.base4}/26"


NODES_FRONT = Side("fr0", "in0", "192.0.2.64", "2001:db8:66::")
NODES_BACK = Side("bk0", "out0", "198.51.100.192", "2001:db8:77::")


def node_place(number: int) -> int:
    """Place of a node, from 1, in its networks."""
    return 10 + number


ORIGINS4, ORIGINS6 = "203.0.113.0/24", "2001:db8:113::/64"


@dataclass(frozen=True, slots=True)
class AddressPair:
    """IPv4 and IPv6 address of one or more hosts."""

    v4: str
    v6: str

    @property
    def both(self) -> tuple[str, str]:
        """The addresses: IPv4, IPv6."""
        return self.v4, self.v6


def place(number: int) -> AddressPair:
    """Addresses of origins by number, 1 to 254."""
    return AddressPair(str(IPv4Address("203.0.113.0") + number), str(IPv6Address("2001:db8:113::") + number))


def via(number: int) -> AddressPair:
    """Addresses of the client whose connections the router of a fleet gives to one node, from 1."""
    return AddressPair(f"192.0.2.{20 + number}", f"2001:db8:1::2{number}")


_MOST = 200


@dataclass(frozen=True, slots=True)
class Site:
    """Host of the lab, as its DNS and its certificate know it.

    Attributes:
        name: of the host.
        place: its addresses; None for an alias.
        host: what the scenario says of it.
    """

    name: str
    place: AddressPair | None
    host: Host


def sites(scenario: Scenario) -> dict[str, Site]:
    """All hosts, by name: those in ``[hosts]``, and those that URLs name.

    Raises:
        UrlwardError: there are more places than addresses.
    """
    hosts = dict(scenario.hosts)
    for name in _named(scenario):
        covered = any(name.endswith(f".{parent}") and host.subdomains for parent, host in hosts.items())
        if name not in hosts and not covered:
            hosts[name] = Host()
    if scenario.list.make:
        hosts[DOMAIN] = Host(subdomains=True)
    places: dict[str, AddressPair] = {}
    found = {}
    for name, host in hosts.items():
        at = None
        if not host.alias:
            at = places.setdefault(host.at or f"{name}.", place(len(places) + 1))
        found[name] = Site(name, at, host)
    if len(places) > _MOST:
        raise UrlwardError(f"hosts: {len(places)} places are more than the lab has addresses for ({_MOST})")
    return found


def _named(scenario: Scenario) -> Iterable[str]:
    urls = [request.url for step in scenario.steps for request in step.requests if request.url]
    urls += [measured.url for step in scenario.steps if step.measure for measured in step.measure.urls]
    for url in urls:
        name = (urlsplit(url).hostname or "").rstrip(".").lower()
        if not is_address(name):
            yield name


def is_address(name: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """Command line that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def run(command: Sequence[str], text: str | None = None) -> str:
    """Run a program to its end.

    Raises:
        UrlwardError: it fails; with its last words.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the lab's own commands
            list(command), input=text, capture_output=True, text=True, check=False
        )
    except OSError as e:
        raise UrlwardError(f"lab: {command[0]}: {e.strerror}") from e
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
        ours = [line.removeprefix("urlward: ") for line in lines if line.startswith("urlward: ")]
        raise UrlwardError(f"lab: {ours[0]}" if ours else f"lab: {' '.join(command[:6])}: {lines[0]}")
    return done.stdout


def make_network(ipv6: bool) -> None:
    """Make all namespaces and links, and let the gateway forward.

    Raises:
        UrlwardError: the kernel refuses.
    """
    for name in (GATEWAY, *(network.name for network in NETWORKS)):
        run(["ip", "netns", "add", name])
    for network in NETWORKS:
        ip_commands(network.name, _machine(network, ipv6))
    ip_commands(GATEWAY, _gateway(ipv6))
    forward = ["net.ipv4.ip_forward"] + (["net.ipv6.conf.all.forwarding"] if ipv6 else [])
    for setting in forward:
        set_sysctl(GATEWAY, setting, "1")


def add_origins(addresses: Iterable[str]) -> None:
    """Give the origins' machine these addresses."""
    ip_commands(ORIGIN.name, (f"addr replace {a}/{128 if ':' in a else 32} dev lo" for a in addresses))


def set_sysctl(namespace: str, name: str, value: str) -> None:
    """Set a kernel setting of a namespace, such as ``net.ipv4.ip_forward``."""
    path = Path("/proc/sys") / name.replace(".", "/")
    run(inside(namespace, ["tee", str(path)]), value)


def ip_commands(namespace: str, lines: Iterable[str], *options: str) -> None:
    """Run commands of ``ip`` in a namespace, with options such as ``-6`` where no address tells the family.

    Raises:
        UrlwardError: one fails.
    """
    run(["ip", *options, "-n", namespace, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def _machine(network: Network, ipv6: bool) -> Iterable[str]:
    yield "link set lo up"
    yield f"link add eth0 type veth peer name {network.link} netns {GATEWAY}"
    if network.host4:
        yield f"addr add {network.host4}/{network.prefix4} dev eth0"
    if ipv6:
        yield f"addr add {network.host6}/64 dev eth0 nodad"
    for address in network.more:
        if ":" not in address:
            yield f"addr add {address}/{network.prefix4} dev eth0"
        elif ipv6:
            yield f"addr add {address}/64 dev eth0 nodad preferred_lft 0"
    yield "link set eth0 up"
    if network.host4:
        yield f"route add default via {network.gateway4}"
    if ipv6:
        yield f"route add default via {network.gateway6} dev eth0"


def _gateway(ipv6: bool) -> Iterable[str]:
    yield "link set lo up"
    for network in NETWORKS:
        if network.host4:
            yield f"addr add {network.gateway4}/{network.prefix4} dev {network.link}"
        if ipv6:
            yield f"addr add {network.gateway6}/64 dev {network.link} nodad"
        yield f"link set {network.link} up"
    yield f"route add {ORIGINS4} via {ORIGIN.host4}"
    if ipv6:
        yield f"route add {ORIGINS6} via {ORIGIN.host6} dev {ORIGIN.link}"
