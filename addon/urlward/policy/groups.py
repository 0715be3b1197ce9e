"""Groups of clients: by MAC address, else by the longest prefix that contains the client's address."""

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from urlward.config.policy import GroupTable
from urlward.engine.entry import canonical_network

type MacOf = Callable[[str], str | None]
"""A client's address, in its usual spelling, to its MAC address in lower case with colons, where known."""


class Membership(NamedTuple):
    """Group of a client, and how it was found.

    Attributes:
        group: its index in the configuration; -1 for none.
        place: the key in the configuration that says so, or empty.
    """

    group: int
    place: str = ""


NOBODYS = Membership(-1)


class Groups:
    """Groups of clients, already checked by `urlward.config.read_config`.

    Args:
        tables: from the configuration.
        mac_of: asked for a client's MAC address, where any group names one.
    """

    def __init__(self, tables: Sequence[GroupTable], mac_of: MacOf | None = None) -> None:
        self._mac_of = mac_of
        self._macs: dict[str, Membership] = {}
        self._networks: dict[tuple[int, int], dict[int, Membership]] = {}
        for index, table in enumerate(tables):
            for n, mac in enumerate(table.macs):
                self._macs[mac] = Membership(index, f"group.{index}.macs.{n}")
            for n, text in enumerate(table.networks):
                network = canonical_network(text)
                same_length = self._networks.setdefault((network.version, network.prefixlen), {})
                place = f"group.{index}.networks.{n}"
                same_length[int(network.network_address)] = Membership(index, place)
        self._lengths = sorted(self._networks, reverse=True)

    def find(self, client: str) -> Membership:
        """Find a client's group by its address; text that is no address is in none."""
        try:
            address = canonical_network(str(ip_address(client.partition("%")[0])))
        except ValueError:
            return NOBODYS
        if self._macs and self._mac_of is not None:
            mac = self._mac_of(str(address.network_address))
            if mac is not None and mac in self._macs:
                return self._macs[mac]
        number = int(address.network_address)
        for version, length in self._lengths:
            if version == address.version:
                # Bits below the prefix are cleared.
                low = address.max_prefixlen - length
                found = self._networks[version, length].get(number >> low << low)
                if found is not None:
                    return found
        return NOBODYS
