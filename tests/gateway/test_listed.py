from ipaddress import IPv4Address, ip_network, summarize_address_range
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from urlward.engine.nat64 import WELL_KNOWN, Nat64
from urlward.gateway.steer_set import Listed, digest_of, merged

NAT64 = Nat64([WELL_KNOWN, "2001:db9:122:344::/64"])


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40))))
def test_merged_ranges_are_the_same_addresses(pairs: list[tuple[int, int]]) -> None:
    ranges = [(first, first + length) for first, length in pairs]
    found = list(merged(list(ranges)))
    assert {n for a, b in found for n in range(a, b + 1)} == {n for a, b in ranges for n in range(a, b + 1)}
    assert all(one[1] + 1 < other[0] for one, other in pairwise(found))


def test_commands() -> None:
    listed = Listed(["192.0.2.7", "192.0.2.8/29", "2001:db8::/32", "192.0.2.0/29"], NAT64, cut=False)
    assert listed.commands().splitlines() == [
        "flush set inet urlward listed4",
        "flush set inet urlward listed6",
        "flush set inet urlward cut_listed",
        "add element inet urlward listed4 { 192.0.2.0-192.0.2.15 }",
        "add element inet urlward listed6 "
        "{ 64:ff9b::c000:200-64:ff9b::c000:20f, 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff, "
        "2001:db9:122:344:c0:2::-2001:db9:122:344:c0:2:fff:ffff }",
        "flush chain inet urlward listed_digest",
        f'add rule inet urlward listed_digest return comment "{listed.digest}"',
    ]
    cutting = Listed(["192.0.2.0/24"], NAT64, cut=True).commands()
    assert "add element inet urlward cut_listed { 6 timeout 300s, 17 timeout 300s }" in cutting


def test_digests_tell_contents_apart() -> None:
    one = Listed(["192.0.2.0/25", "192.0.2.128/25"], NAT64, cut=False)
    assert one.digest == Listed(["192.0.2.0/24"], NAT64, cut=False).digest
    others = [
        Listed(["192.0.2.0/24"], NAT64, cut=True),
        Listed(["192.0.2.0/23"], NAT64, cut=False),
        Listed([], NAT64, cut=False),
    ]
    others.append(Listed(["192.0.2.0/24"], Nat64([]), cut=False))
    assert len({one.digest, *(other.digest for other in others)}) == 5


def test_everything() -> None:
    listed = Listed(["0.0.0.0/0", "::/0"], NAT64, cut=False).commands()
    assert "{ 0.0.0.0-255.255.255.255 }" in listed
    whole = ip_network("0.0.0.0/0")
    assert list(summarize_address_range(IPv4Address(0), IPv4Address(2**32 - 1))) == [whole]


def test_digest_of_a_listing() -> None:
    assert digest_of([{"chain": {}}, {"rule": {"comment": "abc"}}]) == "abc"
    assert digest_of([{"chain": {}}]) == digest_of([{"rule": {}}]) == ""
