"""What is protected cannot be blocked whole by guarded lists, and all else can."""

import pytest

from engine.support import OTHER_SECRET, build, key
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher

PROTECTED = ("good.test", "0.0.0.0 alone.test", "192.0.2.7", "198.51.100.0/24", "brand.*")


def guarded(*lines: str, own: tuple[str, ...] = ()) -> Matcher:
    under = key()
    lists = [load(build(lines, under, "feed"), under, guarded=True)]
    if own:
        lists.append(load(build(own, under, "own"), under))
    other = Key(OTHER_SECRET)
    return Matcher(lists, protected=[load(build(PROTECTED, other), other)])


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("good.test", "good.test"),
        ("good.test", "a.GOOD.test."),
        ("0.0.0.0 a.good.test", "a.good.test"),
        ("||test^", "good.test"),
        ("good.*", "good.test"),
        ("0.0.0.0 alone.test", "alone.test"),
        ("brand.*", "brand.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.0/24", "[::ffff:192.0.2.7]"),
        ("198.51.100.9", "198.51.100.9"),
    ],
)
def test_protected_hosts_are_not_blocked_whole(entry: str, host: str) -> None:
    found = guarded(entry)
    assert not found.check_host(host).blocked
    assert not found.check(host, "/").blocked
    assert not found.check_address(host.strip("[]")).blocked
    assert found.level(host) == ""
    assert found.protects(host)
    assert guarded("x.test", own=(entry,)).check_host(host).blocked, "the operator's own list counts"


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("bad.test", "bad.test"),
        ("0.0.0.0 a.alone.test", "a.alone.test"),
        ("192.0.2.0/24", "192.0.2.8"),
        ("198.51.0.0/16", "198.51.101.1"),
    ],
)
def test_the_rest_of_a_wide_entry_is_blocked(entry: str, host: str) -> None:
    found = guarded(entry)
    assert found.check_host(host).blocked
    assert not found.protects(host)


@pytest.mark.parametrize("entry", ["||test^", "||co.uk^", "||blogspot.com^"])
def test_a_public_suffix_is_not_blocked_by_a_guarded_list(entry: str) -> None:
    suffix = entry[2:-1]
    for host in (suffix, f"a.{suffix}", f"b.a.{suffix}"):
        assert not guarded(entry).check_host(host).blocked
        assert guarded("x.test", own=(entry,)).check_host(host).blocked


def test_what_is_below_a_public_suffix_is_blocked() -> None:
    assert guarded("a.co.uk").check_host("b.a.co.uk").blocked


def test_pages_of_protected_hosts_are_blocked() -> None:
    found = guarded("http://good.test/page", "*/x/y/*")
    assert found.check("good.test", "/page").blocked
    assert found.check("good.test", "/x/y/z").blocked
    assert not found.check("good.test", "/").blocked
    assert found.lists_below("good.test") == ("feed",)


def test_an_exception_in_a_guarded_list_counts() -> None:
    found = guarded("@@good.test", own=("good.test",))
    assert found.check("good.test", "/").action == "allow"
