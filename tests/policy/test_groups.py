from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.config.policy import GroupTable
from urlward.policy.policy import NOBODYS, ClientGroups, Membership

MACS = {"192.0.2.9": "02:00:00:00:00:0a", "2001:db8:1::9": "02:00:00:00:00:0b"}

TABLES = (
    GroupTable(name="wide", networks=("192.0.2.0/24", "2001:db8::/32")),
    GroupTable(name="narrow", networks=("192.0.2.128/25", "192.0.2.7/32", "2001:db8:1::/48")),
    GroupTable(name="machines", macs=("02:00:00:00:00:0a", "02:00:00:00:00:0b")),
)


@each_row(
    ("client", "expected"),
    [
        ("192.0.2.1", Membership(0, "group.0.networks.0")),
        ("192.0.2.129", Membership(1, "group.1.networks.0")),
        ("192.0.2.7", Membership(1, "group.1.networks.1")),
        ("::ffff:192.0.2.7", Membership(1, "group.1.networks.1")),
        ("::ffff:c000:207", Membership(1, "group.1.networks.1")),
        ("2001:db8:1::1", Membership(1, "group.1.networks.2")),
        ("2001:DB8:0001::1", Membership(1, "group.1.networks.2")),
        ("2001:db8:2::1", Membership(0, "group.0.networks.1")),
        ("2001:db8:2::1%eth0", Membership(0, "group.0.networks.1")),
        ("192.0.2.9", Membership(2, "group.2.macs.0")),
        ("::ffff:192.0.2.9", Membership(2, "group.2.macs.0")),
        ("2001:db8:1:0::9", Membership(2, "group.2.macs.1")),
        ("2001:db8:1::9%eth0", Membership(2, "group.2.macs.1")),
        ("198.51.100.1", NOBODYS),
        ("2001:db9::1", NOBODYS),
        ("192.0.2.0/24", NOBODYS),
        ("/run/socket", NOBODYS),
        ("", NOBODYS),
    ],
)
def test_find(client: str, expected: Membership) -> None:
    assert ClientGroups(TABLES, MACS.get).find(client) == expected


def test_without_known_macs_networks_decide() -> None:
    assert ClientGroups(TABLES).find("192.0.2.9").group == 0
    assert ClientGroups(TABLES, {"192.0.2.9": "02:00:00:00:00:ff"}.get).find("192.0.2.9").group == 0


def test_macs_are_not_asked_for_where_none_are_configured() -> None:
    def ask(_: str) -> None:
        pytest.fail("asked")

    assert ClientGroups(TABLES[:2], ask).find("192.0.2.9").group == 0


addresses = st.ip_addresses(network="192.0.2.0/28") | st.ip_addresses(network="2001:db8::/124")


@given(
    networks=st.lists(
        st.tuples(addresses, st.integers(0, 8)).map(
            lambda pair: str(ip_network((pair[0], pair[0].max_prefixlen - pair[1]), strict=False))
        ),
        unique=True,
        max_size=12,
    ),
    client=addresses,
)
def test_the_longest_prefix_that_holds_a_client(networks: list[str], client: object) -> None:
    groups = ClientGroups(
        [GroupTable(name=str(n), networks=(network,)) for n, network in enumerate(networks)]
    )
    holding = [n for n in networks if ip_address(str(client)) in ip_network(n)]
    expected = max(holding, key=lambda n: ip_network(n).prefixlen, default=None)
    found = groups.find(str(client)).group
    assert (networks[found] if found >= 0 else None) == expected
