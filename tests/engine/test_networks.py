import pytest

from engine.support import OTHER_SECRET, build, key
from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError
from urlward.engine.table import blocking_networks

JUNE = 20_240 * 86_400.0  # 2025-06-01


def networks_of(*lines: str) -> list[str]:
    return sorted(blocking_networks(parse(build(lines, key())), key(), JUNE))


def test_addresses_and_networks_of_both_families() -> None:
    lines = ("192.0.2.7", "[2001:db8::7]", "198.51.100.0/24", "2001:db8:1::/48", "::ffff:203.0.113.9")
    assert networks_of(*lines, "a.test", "http://b.test/", "*/x/*") == [
        "192.0.2.7/32",
        "198.51.100.0/24",
        "2001:db8:1::/48",
        "2001:db8::7/128",
        "203.0.113.9/32",
    ]
    assert networks_of("a.test") == []


def test_addresses_that_have_pages_listed() -> None:
    lines = ("http://192.0.2.9/page", "http://[2001:db8::9]/a/*", "http://192.0.2.10/a?id=5", "192.0.2.11")
    expected = ["192.0.2.10", "192.0.2.11/32", "192.0.2.9", "2001:db8::9"]
    assert networks_of(*lines) == expected
    assert networks_of(*lines, "@@192.0.2.12") == expected


def test_what_blocks_nothing_is_left_out() -> None:
    lines = (
        "198.51.100.0/24 category=phishing",
        "@@198.51.100.7",
        "192.0.2.1 expires=2025-05-31",
        "192.0.2.2 expires=2025-06-01",
        "192.0.2.3 port=8443",
        "@@2001:db8::7",
        "2001:db8::7 port=443",
        "@@2001:db8::8",
    )
    assert networks_of(*lines) == ["192.0.2.2/32", "192.0.2.3/32", "198.51.100.0/24", "2001:db8::7/128"]


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ArtifactError):
        blocking_networks(parse(build(["192.0.2.7"], key())), Key(OTHER_SECRET), JUNE)
