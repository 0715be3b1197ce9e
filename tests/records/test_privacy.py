import pytest

from rows import each_row
from urlward.records.privacy import Privacy, UrlDigest, kept_client

SECRET, OTHER = bytes(range(32)), bytes(32)
DAY = 86_400_000


@each_row(
    ("level", "address", "kept"),
    [
        ("full", "192.0.2.77", "192.0.2.77"),
        ("full", "::ffff:192.0.2.77", "192.0.2.77"),
        ("full", "fe80::7%eth0", "fe80::7"),
        ("full", "2001:db8::7", "2001:db8::7"),
        ("short", "192.0.2.77", "192.0.2.0/24"),
        ("short", "::ffff:192.0.2.77", "192.0.2.0/24"),
        ("short", "2001:db8:1:2::3", "2001:db8:1::/48"),
        ("short", "fe80::1%eth0", "fe80::/48"),
        ("short", "nonsense", ""),
        ("digest", "nonsense", ""),
        ("counts", "192.0.2.77", ""),
    ],
)
def test_levels(level: str, address: str, kept: str) -> None:
    assert Privacy(level, SECRET).client(address, 0) == kept  # type: ignore[arg-type]


def test_a_digest_is_the_same_for_a_day_and_for_no_longer() -> None:
    privacy = Privacy("digest", SECRET)
    first = privacy.client("192.0.2.7", 5 * DAY)
    assert len(first) == 32
    assert privacy.client("::ffff:192.0.2.7", 6 * DAY - 1) == first
    assert privacy.client("192.0.2.8", 5 * DAY) != first
    assert privacy.client("192.0.2.7", 6 * DAY) != first
    assert privacy.client("192.0.2.7", 5 * DAY) == first
    assert Privacy("digest", SECRET).client("192.0.2.7", 5 * DAY) == first
    assert Privacy("digest", OTHER).client("192.0.2.7", 5 * DAY) != first


def test_what_is_remembered_is_bounded() -> None:
    privacy = Privacy("digest", SECRET)
    for n in range(40_000):
        privacy.client(f"192.0.{n >> 8}.{n & 255}", 0)
    assert len(privacy._known) < 20_000


def test_only_the_whole_address_comes_with_its_port() -> None:
    assert Privacy("full", SECRET).keeps_ports
    assert not any(Privacy(level, SECRET).keeps_ports for level in ("short", "digest", "counts"))
    assert not Privacy("counts", SECRET).keeps_persons


def test_equal_urls_have_equal_digests_under_one_key() -> None:
    digest = UrlDigest(SECRET)
    assert digest("http://example.test/a") == UrlDigest(SECRET)("http://example.test/a")
    assert len({digest("http://example.test/a"), digest("http://example.test/b"), UrlDigest(OTHER)("a")}) == 3
    assert len(digest("\udcff\u00e9")) == 32


@each_row(
    ("typed", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("AB" * 16, "ab" * 16),
    ],
)
def test_what_is_asked_for_is_as_it_is_kept(typed: str, kept: str) -> None:
    assert kept_client(typed) == kept


@each_row("typed", ["192.0.2.0/25", "192.0.2.7/32", "2001:db8::/32"])
def test_a_network_that_no_event_has_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="networks that events have"):
        kept_client(typed)
