import os
from collections.abc import Iterator
from ipaddress import ip_address
from time import monotonic

import pytest

from e2e.test_modes import may_make_namespaces
from urlward.gateway import nft as nft_module
from urlward.gateway.nft import Expiry, Nft
from urlward.gateway.table import NftError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

SETS = """\
add table inet t
add set inet t four { type ipv4_addr; flags timeout; }
add set inet t six { type ipv6_addr; flags timeout; }
add set inet t protocols { type inet_proto; flags timeout; }
"""


@pytest.fixture
def nft(nft: Nft) -> Nft:
    nft.run(SETS)
    return nft


@pytest.fixture
def expiry(nft: Nft) -> Iterator[Expiry]:
    made = Expiry("t")
    yield made
    made.close()


def test_all_elements_of_a_set(nft: Nft, expiry: Expiry) -> None:
    """More than one message holds, of different times and lengths."""
    assert list(expiry.each("four")) == []
    wanted = {ip_address(f"198.51.{i // 256}.{i % 256}").packed: 60 + i for i in range(3_000)}
    elements = ", ".join(f"{ip_address(key)} timeout {left}s" for key, left in wanted.items())
    nft.run(
        f"add element inet t four {{ {elements}, 203.0.113.1 }}\n"
        "add element inet t six { 2001:db8::1 timeout 9s }"
    )
    found = {key: left for left, key in expiry.each("four")}
    assert found.pop(ip_address("203.0.113.1").packed) == float("inf")
    assert found.keys() == wanted.keys()
    assert all(wanted[key] - 30 < left <= wanted[key] for key, left in found.items())
    assert [key for _, key in expiry.each("six")] == [ip_address("2001:db8::1").packed]
    with pytest.raises(NftError):
        list(expiry.each("nothing"))


@pytest.mark.parametrize("tells", [True, False])
def test_how_many_elements_a_set_has(
    nft: Nft, expiry: Expiry, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    """A kernel that tells is not asked for all of them: of a million that took minutes."""
    nft.run(
        "add set inet t networks { type ipv4_addr; flags interval; }\n"
        "add element inet t networks { 192.0.2.0/25, 198.51.100.1, 203.0.113.0/24 }\n"
        "add element inet t six { 2001:db8::1 timeout 60s, 2001:db8::2 }"
    )
    if not tells:
        monkeypatch.setattr(nft_module, "_COUNT", 999)
    elif tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 18):
        monkeypatch.delattr(Expiry, "each")
    assert [expiry.count(name) for name in ("four", "six", "networks")] == [0, 2, 3]
    with pytest.raises(NftError):
        expiry.count("nothing")


@pytest.mark.parametrize("seconds", [1, 59, 3600, 90_061, 700_000])
@pytest.mark.parametrize(
    ("name", "key", "packed"),
    [
        ("four", "192.0.2.1", ip_address("192.0.2.1").packed),
        ("six", "2001:db8::1", ip_address("2001:db8::1").packed),
        ("protocols", "17", b"\x11"),
    ],
)
def test_what_time_is_left(
    nft: Nft, expiry: Expiry, name: str, key: str, packed: bytes, seconds: int
) -> None:
    assert expiry.left(name, packed) == 0
    before = monotonic()
    nft.run(f"add element inet t {name} {{ {key} timeout {seconds}s }}")
    left = expiry.left(name, packed)
    assert seconds - (monotonic() - before) - 0.1 < left <= seconds
    assert left or seconds == 1, "it was there"
    assert expiry.left(name, packed[:-1] + b"\xfe") == 0


def test_no_timeout(nft: Nft, expiry: Expiry) -> None:
    nft.run("add element inet t four { 192.0.2.1 }")
    assert expiry.left("four", ip_address("192.0.2.1").packed) == float("inf")


def test_what_is_not_there(nft: Nft, expiry: Expiry) -> None:
    assert expiry.left("nowhere", b"\0\0\0\0") == 0
    nft.run("delete table inet t")
    assert expiry.left("four", b"\0\0\0\0") == 0


def test_a_key_of_another_size(expiry: Expiry) -> None:
    with pytest.raises(NftError, match=r"^nftables: "):
        expiry.left("four", b"\0")
    assert expiry.left("four", b"\0\0\0\0") == 0, "the next answer is to the next question"


def test_a_full_set_takes_no_longer(nft: Nft, expiry: Expiry) -> None:
    addresses = [f"198.18.{i >> 8}.{i & 255} timeout 60s" for i in range(20_000)]
    nft.run(f"add element inet t four {{ {', '.join(addresses)} }}")
    packed = ip_address("198.18.0.1").packed
    assert all(0 < expiry.left("four", packed) <= 60 for _ in range(1000))
