from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.assignments.interval import is_address, length_of, place_of, places_of

networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(8, 32)).map(
        lambda t: ip_network(f"{t[0]}/{t[1]}", strict=False)
    ),
    st.tuples(st.ip_addresses(v=6), st.integers(16, 128)).map(
        lambda t: ip_network(f"{t[0]}/{t[1]}", strict=False)
    ),
    # Those around the addresses of IPv4, which are in no network of IPv6.
    st.integers(80, 128).map(lambda length: ip_network(f"::ffff:192.0.2.7/{length}", strict=False)),
)


def one_of(network: IPv4Network | IPv6Network) -> str:
    """An address in it that is of its kind."""
    middle = network[network.num_addresses // 2]
    is_other = isinstance(middle, IPv6Address) and middle.ipv4_mapped is not None and network.prefixlen < 96
    return str(network[0] if is_other else middle)


@each_row(
    ("text", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("2001:db8::7/128", "2001:db8::7"),
        ("2001:db8::7/56", "2001:db8::/56"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
    ],
)
def test_one_place_for_all_spellings(text: str, canonical: str) -> None:
    assert place_of(text)[1] == canonical
    assert place_of(text) == place_of(canonical)


@each_row("text", ["", "192.0.2", "192.0.2.256", "0x1.2.3.4", "example.test", "2001:db8::/129", "a\0b", "é"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        place_of(text)
    assert not is_address(text)


@given(network=networks)
def test_an_address_is_found_in_its_network(network: IPv4Network | IPv6Network) -> None:
    place, text = place_of(str(network))
    inside = one_of(network)
    assert places_of(inside, [length_of(text)])[place] == text
    assert len(places_of(inside, [])) == 1


def test_a_prefix_is_no_address() -> None:
    with pytest.raises(ValueError, match="is a prefix"):
        places_of("192.0.2.0/24", [])
