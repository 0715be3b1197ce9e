"""Addresses of the lab: documentation addresses (RFC 5737, RFC 3849) and nothing else.

Each network has a veth pair, one end in the gateway. Origins' addresses are on their loopback, so that
any number of them is one route.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

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
class Place:
    """IPv4 and IPv6 address of one or more hosts."""

    v4: str
    v6: str

    @property
    def both(self) -> tuple[str, str]:
        """The addresses: IPv4, IPv6."""
        return self.v4, self.v6


def place(number: int) -> Place:
    """Addresses of origins by number, 1 to 254."""
    return Place(str(IPv4Address("203.0.113.0") + number), str(IPv6Address("2001:db8:113::") + number))
