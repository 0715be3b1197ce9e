import pytest

from rows import each_row
from urlward.records.privacy import network_of, plain_address


@each_row(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_network_of(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_plain_address() -> None:
    assert str(plain_address("::ffff:192.0.2.7")) == "192.0.2.7"
    assert str(plain_address("fe80::1%eth0")) == "fe80::1"
    with pytest.raises(ValueError):
        plain_address("192.0.2.7:80")
