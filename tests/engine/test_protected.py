"""What is protected cannot be blocked whole by guarded lists, and all else can."""

import pytest

from engine.support import OTHER_SECRET, build, key
from rows import each_row
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


@each_row(
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


@each_row(
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


@each_row("entry", ["||test^", "||co.uk^", "||blogspot.com^"])
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
    assert found.lists_below("good.test") == (), "it is not decrypted for that"
    assert guarded("http://bad.test/page").lists_below("bad.test") == ("feed",)
    own = guarded("http://good.test/page", own=("http://good.test/page",))
    assert own.lists_below("good.test") == ("own",)


@each_row(
    ("entry", "host"),
    [
        ("http://good.test/*", "good.test"),
        ("http://good.test/*", "www.good.test"),
        ("http://good.test/* nocase", "good.test"),
        ("http://good.test/* subdomains", "a.good.test"),
    ],
)
def test_all_pages_of_a_protected_host_are_not_blocked_at_once(entry: str, host: str) -> None:
    assert not guarded(entry).check(host, "/A/b").blocked
    assert not guarded(entry).check(host, "/").blocked
    assert guarded("x.test", own=(entry,)).check(host, "/A/b").blocked, "the operator's own list counts"
    assert guarded(entry, own=("@@http://good.test/*",)).check("good.test", "/a").action == "allow"


def test_a_folder_of_a_protected_host_is_blocked() -> None:
    assert guarded("http://good.test/a/*").check("good.test", "/a/b").blocked


@each_row("suffix", ["test", "co.uk", "blogspot.com"])
@each_row("target", ["*", "", "a/*", "?a=1"])
def test_pages_of_all_hosts_under_a_suffix_are_not_blocked(suffix: str, target: str) -> None:
    entry = f"http://{suffix}/{target} subdomains"
    asked = f"/{target.replace('*', 'x')}"
    assert not guarded(entry).check(f"b.a.{suffix}", asked).blocked
    assert guarded("x.test", own=(entry,)).check(f"b.a.{suffix}", asked).blocked
    assert guarded(f"http://a.{suffix}/{target} subdomains").check(f"b.a.{suffix}", asked).blocked


@each_row(
    ("entry", "address"),
    [
        ("0.0.0.0/0", "203.0.113.9"),
        ("192.0.0.0/7", "192.0.2.9"),
        ("[::ffff:0:0]/96", "203.0.113.9"),
        ("[::]/0", "2001:db8::7"),
        ("[2000::]/15", "2001:db8::7"),
    ],
)
def test_a_large_part_of_all_addresses_is_not_blocked_by_a_guarded_list(entry: str, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert not guarded(entry).check_address(address).blocked
    assert not guarded(entry).check(host, "/").blocked
    assert guarded(f"@@{entry}", own=(host,)).check_address(address).blocked
    assert guarded("x.test", own=(entry,)).check_address(address).blocked


@pytest.mark.parametrize(
    ("entry", "address"), [("203.0.0.0/8", "203.0.113.9"), ("[2001::]/16", "2001:db8::7")]
)
def test_what_somebody_may_have_is_blocked_by_a_guarded_list(entry: str, address: str) -> None:
    assert guarded(entry).check_address(address).blocked


def test_an_exception_in_a_guarded_list_counts_against_its_own_entries_alone() -> None:
    found = guarded("@@bad.test", "bad.test", "*/x/y/*")
    assert found.check("bad.test", "/").action == "allow"
    assert found.check("bad.test", "/x/y/").action == "allow"
    found = guarded("@@||test^", "bad.test", own=("other.test", "@@http://other.test/ok", "192.0.2.9"))
    assert found.check("other.test", "/").blocked
    assert found.check("other.test", "/ok").action == "allow"
    assert found.check_host("other.test").blocked
    assert found.level("other.test") == "below"
    assert found.check("bad.test", "/").action == "allow"
    assert guarded("@@192.0.2.9", own=("192.0.2.9",)).check_address("192.0.2.9").blocked


def test_an_exception_of_the_operators_excuses_from_a_guarded_list() -> None:
    assert guarded("bad.test", own=("@@bad.test",)).check("bad.test", "/").action == "allow"
