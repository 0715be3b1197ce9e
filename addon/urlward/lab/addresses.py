"""Addresses of the lab: documentation addresses (RFC 5737, RFC 3849) and nothing else; and the hosts of a
scenario at theirs.

Each network has a veth pair, one end in the gateway. Origins' addresses are on their loopback, so that any
number of them is one route.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from urlward.lab.errors import LabError
from urlward.lab.made import DOMAIN
from urlward.lab.scenario import Host, Scenario

GATEWAY = "gateway"


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
        LabError: there are more places than addresses.
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
        raise LabError(f"hosts: {len(places)} places are more than the lab has addresses for ({_MOST})")
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
