"""The sieve: never a false negative, few false positives, nothing but its own bytes accepted."""

from array import array
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.engine import sieve
from urlward.engine.errors import ArtifactError
from urlward.engine.sieve import Sieves, read_sieve, write_sieve

LABEL = st.text("abcdefgh01-", min_size=1, max_size=6)
HOSTS = st.lists(st.lists(LABEL, min_size=1, max_size=4).map(".".join), max_size=40)


def quiet(host: str, *sieves: sieve.Sieve) -> bool:
    return Sieves(sieves, {}, None).are_quiet(host)


def made(hosts: list[str], names: list[str] = [], segments: list[str] = []) -> sieve.Sieve:  # noqa: B006 - read only
    def crcs(texts: list[str]) -> list[int]:
        return [crc32(text.encode()) for text in texts]

    return read_sieve(write_sieve(array("I", crcs(hosts)), crcs(names), crcs(segments)))


@given(HOSTS, LABEL)
def test_listed_hosts_and_what_is_below_them_fall_through(hosts: list[str], label: str) -> None:
    found = made(hosts)
    assert not any(quiet(host, found) or quiet(f"{label}.{host}", found) for host in hosts)


def test_most_unlisted_hosts_are_held_back() -> None:
    found = made([f"host{n}.test" for n in range(20_000)])
    through = sum(not quiet(f"other{n}.example", found) for n in range(20_000))
    assert through < 20_000 * 0.06
    assert quiet("any.test", made([]))


def test_what_is_known_of_a_domain_says_nothing_of_what_is_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "_MOST_QUIET", 4)
    found = Sieves([made(["listed.b.test"]), made(["listed.c.test"], names=["hopping"])], {}, None)
    for n in range(20):
        assert found.are_quiet(f"a.x{n}.b.test")
        assert found.are_quiet(f"host.suffix-{n}x")
        assert not found.are_quiet("listed.b.test")
        assert not found.are_quiet("a.listed.b.test")
        assert not found.are_quiet("listed.c.test")
        assert not found.are_quiet("a.hopping.test")
    assert len(found.quiet) <= 4


@each_row(
    "host",
    [
        *("", ".", "a..test", ".test", "test.", "Test", "a.Test", "a.192", "a.0x1", "192.0.2.1", "a.%74est"),
        *("a/b.test", "a b.test", "é.test", "a~.test", "[2001:db8::1]", "a.\udcff.test", "a." * 200 + "test"),
    ],
)
def test_what_is_no_plain_name_is_not_quiet(host: str) -> None:
    found = Sieves([made([])], {}, None)
    assert found.are_quiet("a.test")
    for name in (host, f"a.{host}", f"a.b.{host}", host):
        assert not found.are_quiet(name)


@given(HOSTS, HOSTS)
def test_where_all_are_quiet_none_lists(hosts: list[str], listed: list[str]) -> None:
    sieves = [made(listed[::2]), made(listed[1::2])]
    found = Sieves(sieves, {}, None)
    for host in (*hosts, *listed):
        assert found.are_quiet(host) == all(quiet(host, each) for each in sieves)


def test_a_name_under_any_suffix_falls_through_wherever_its_label_stands() -> None:
    found = made([], names=["hopping"])
    assert not quiet("hopping.test", found)
    assert not quiet("a.hopping.co.example", found)
    assert quiet("hop.test", found)


def test_segments_are_those_given() -> None:
    assert made([], segments=["one", "two", "one"]).segments == {crc32(b"one"), crc32(b"two")}


def test_too_many_names_let_all_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "_MOST", 2)
    found = made([], names=["a", "b", "c"], segments=["a", "b", "c"])
    assert found.names is None
    assert found.segments is None
    assert not quiet("any.test", found)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50), st.randoms())
def test_order_does_not_show(values: list[int], random: object) -> None:
    assert write_sieve(array("I", values), values, values) == write_sieve(
        array("I", sorted(values)), sorted(values), sorted(values, reverse=True)
    )


@given(st.binary(max_size=80))
def test_other_bytes_are_damage(data: bytes) -> None:
    try:
        read_sieve(data)
    except ArtifactError:
        return
    assert len(data) >= 12


def test_a_cut_sieve_is_damage() -> None:
    whole = write_sieve(array("I", [1, 2]), [3], [4])
    for length in range(len(whole)):
        with pytest.raises(ArtifactError):
            read_sieve(whole[:length])
