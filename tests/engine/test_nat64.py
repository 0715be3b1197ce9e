import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from engine.support import key, load_lines
from rows import each_row
from urlward.engine.matcher import Matcher
from urlward.engine.nat64 import WELL_KNOWN, Nat64, nat64_prefix, prefixes_in

# RFC 6052 section 2.4.
TABLE = {
    "2001:db8::/32": "2001:db8:c000:221::",
    "2001:db8:100::/40": "2001:db8:1c0:2:21::",
    "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
    "2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
    "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
    "2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
    WELL_KNOWN: "64:ff9b::192.0.2.33",
}


@each_row(("prefix", "form"), TABLE.items())
def test_forms(prefix: str, form: str) -> None:
    nat64, address = Nat64([prefix, prefix]), IPv4Address("192.0.2.33")
    assert list(nat64.addresses(address)) == [IPv6Address(form)]
    assert nat64.inner(IPv6Address(form)) == address
    told = [*nat64.addresses(IPv4Address("192.0.0.170")), *nat64.addresses(IPv4Address("192.0.0.171"))]
    assert prefixes_in([*told, IPv6Address("2001:db8::1")]) == set(nat64.prefixes)
    assert nat64.inner(IPv6Address("2001:db9::1")) is None
    for length in range(33):
        network = IPv4Network((address, length), strict=False)
        (six,) = nat64.forms(network)
        for end in (network[0], network[-1]):
            assert next(nat64.addresses(end)) in six
        if length:
            beyond = IPv4Address(int(network[0]) ^ 1 << (32 - length))
            assert next(nat64.addresses(beyond)) not in six


def test_the_longest_prefix_decides() -> None:
    nat64 = Nat64(["2001:db8::/32", "2001:db8:122:344::/96"])
    assert nat64.inner(IPv6Address("2001:db8:122:344::192.0.2.33")) == IPv4Address("192.0.2.33")
    assert nat64.inner(IPv6Address("2001:db8:c000:221::")) == IPv4Address("192.0.2.33")


@each_row(
    ("text", "why"),
    [
        ("2001:db8::/33", "its length is not one of 32, 40, 48, 56, 64, 96"),
        ("2001:db8::1/96", "has host bits set"),
        ("192.0.2.0/24", "'192.0.2.0'"),
        ("2001:db8:0:0:100::/96", "bits 64 to 71 are not zero"),
    ],
)
def test_no_prefixes(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        nat64_prefix(text)


def test_what_is_reached_under_a_prefix_is_judged_as_ipv4() -> None:
    listed = [load_lines(["192.0.2.32/28", "http://192.0.2.7/a", "@@http://192.0.2.34/b"], key())]
    matcher = Matcher(listed, nat64=Nat64(["2001:db8:122:344::/64"]))
    form = "2001:db8:122:344:c0:2:2100::"
    assert matcher.check_address(form).blocked
    assert not matcher.check_address("2001:db8:122:344:c0:2:3000::").blocked
    assert matcher.check(f"[{form}]", "/").blocked
    assert not matcher.is_quiet([f"[{form}]"], "")
    page, excused = "[2001:db8:122:344:c0:2:700::]", "[2001:db8:122:344:c0:2:2200::]"
    assert [matcher.check(page, path).blocked for path in ("/a", "/b")] == [True, False]
    assert [matcher.check_request([excused], path).blocked for path in ("/a", "/b")] == [True, False]
    assert matcher.check(excused, "/b").blocked, "the destination is listed, whatever is excused on it"
    assert not Matcher(listed).check_address(form).blocked
