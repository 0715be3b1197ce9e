from collections.abc import Generator
from ipaddress import ip_address
from typing import Any

import pytest

from rows import each_row
from urlward.dns.judge import BELOW, NOTHING, WHOLE, Found
from urlward.dns.resolved import MARGIN, MOST_TTL, Newly, Resolved


def packed(*addresses: str) -> bytes:
    return b"".join(ip_address(address).packed for address in addresses)


def run(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as e:
            return e.value


class Memory(Resolved):
    """One with a clock that is set."""

    def __init__(self, names: int = 100) -> None:
        self.now = 1000.0
        super().__init__(names, lambda: self.now)

    def see(
        self, *hosts: str, four: bytes = b"", six: bytes = b"", ttl: int = 60, found: Found = NOTHING
    ) -> None:
        self.remember(hosts, four, six, ttl, found)

    def newly(self, **levels: Found) -> list[Newly]:
        """What is newly listed where these hosts of ``.example`` are."""

        def find(hosts: tuple[str, ...]) -> Found:
            found = NOTHING
            for host in hosts:
                found |= levels.get(host.removesuffix(".example"), NOTHING)
            return found

        newly: list[Newly] = run(self.changes(find))
        return newly


def test_no_more_is_kept_than_of_use() -> None:
    memory = Memory()
    chain = [f"n{n}.{'a.' * 100}example" for n in range(10)]
    memory.see(*chain, four=bytes(range(1, 201)) * 4 * 50)
    ((key, (_, _, addresses, _)),) = memory._known.items()
    assert key == " ".join(("4", *chain[:4]))
    assert len(addresses) == 4 * 50


def test_a_name_that_comes_to_be_listed() -> None:
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1", "192.0.2.2"), six=packed("2001:db8::1"))
    memory.see("b.example", four=packed("192.0.2.3"))
    assert memory.newly() == []
    found = memory.newly(a=WHOLE)
    assert {one.key[0] for one in found} == {"4", "6"}
    assert dict(pair for one in found for pair in one.addresses) == {
        "192.0.2.1": 60 + MARGIN,
        "192.0.2.2": 60 + MARGIN,
        "2001:db8::1": 60 + MARGIN,
    }
    assert all(one.found == WHOLE for one in found)
    assert memory.newly(a=WHOLE) == found, "until it is settled"
    for one in found:
        memory.settle(one.key, one.found)
    assert memory.newly(a=WHOLE) == []
    assert memory.newly() == [], "not listed any more"
    assert len(memory.newly(a=WHOLE)) == 2, "and again"


def test_any_name_on_the_way() -> None:
    memory = Memory()
    memory.see("a.example", "edge.example", "pool.example", four=packed("192.0.2.1"))
    assert memory.newly(pool=BELOW)
    assert memory.newly(edge=BELOW)


def test_from_whole_to_below() -> None:
    """It was steered before."""
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1"), found=WHOLE)
    assert memory.newly(a=WHOLE) == []
    assert memory.newly(a=BELOW) == []
    assert memory.newly(a=WHOLE) == []


def test_an_answer_between_the_change_and_the_look_hides_nothing() -> None:
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1"))
    memory.see("a.example", four=packed("192.0.2.1"), found=WHOLE)
    memory.see("a.example", four=packed("192.0.2.2"), found=WHOLE)
    (one,) = memory.newly(a=WHOLE)
    assert {address for address, _ in one.addresses} == {"192.0.2.1", "192.0.2.2"}


def test_addresses_that_take_turns_are_all_kept_for_their_time() -> None:
    memory = Memory()
    for number in range(1, 5):
        memory.see("a.example", four=packed(f"192.0.2.{number}"))
        memory.now += 300
    (one,) = memory.newly(a=WHOLE)
    assert dict(one.addresses) == {"192.0.2.4": 660, "192.0.2.3": 360, "192.0.2.2": 60}
    memory.see("a.example", four=packed("192.0.2.2"))
    (one,) = memory.newly(a=WHOLE)
    assert dict(one.addresses) == {"192.0.2.2": 960, "192.0.2.4": 660, "192.0.2.3": 360}


def test_the_order_of_an_answer_means_nothing() -> None:
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1", "192.0.2.2"))
    memory.now += 100
    memory.see("a.example", four=packed("192.0.2.2", "192.0.2.1"))
    (one,) = memory.newly(a=WHOLE)
    assert [left for _, left in one.addresses] == [960, 960]


def test_many_addresses_are_bounded() -> None:
    memory = Memory()
    for start in range(0, 4000, 100):
        memory.see("a.example", six=b"".join(packed(f"2001:db8::{i:x}") for i in range(start, start + 100)))
        memory.see("b.example", four=packed(f"198.51.100.{start // 20}"))
    for one in memory.newly(a=WHOLE, b=WHOLE):
        assert len(one.addresses) <= 64


def test_time() -> None:
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1"), ttl=0)
    memory.see("b.example", four=packed("192.0.2.2"), ttl=2**31 - 1)
    memory.now += MARGIN
    (one,) = memory.newly(a=WHOLE, b=WHOLE)
    assert one.addresses == (("192.0.2.2", MOST_TTL),)
    memory.now += MOST_TTL
    run(memory.sweep())
    assert len(memory) == 0


def test_a_number_of_names() -> None:
    memory = Memory(100)
    for number in range(1000):
        memory.see(f"n{number}.example", four=packed("192.0.2.1"))
        memory.see("often.example", four=packed("192.0.2.9"))
    assert len(memory) == 200
    assert memory.newly(often=WHOLE)
    nothing = Memory(0)
    nothing.see("a.example", four=packed("192.0.2.1"))
    assert len(nothing) == 0


def test_those_used_last_come_first() -> None:
    memory = Memory()
    for name in "abc":
        memory.see(f"{name}.example", four=packed("192.0.2.1"))
        memory.now += 10
    assert [one.key for one in memory.newly(a=WHOLE, b=WHOLE, c=WHOLE)] == [
        "4 c.example",
        "4 b.example",
        "4 a.example",
    ]


def test_what_is_listed() -> None:
    memory = Memory()
    memory.see("a.example", four=packed("192.0.2.1"), found=BELOW)
    memory.see("b.example", four=packed("192.0.2.2"))
    (one,) = run(memory.listed())
    assert (one.found, one.addresses) == (BELOW, (("192.0.2.1", 960),))


def test_changes_while_looking() -> None:
    memory = Memory()
    for number in range(100):
        memory.see(f"n{number}.example", four=packed("192.0.2.1"))
    steps = memory.changes(lambda _: WHOLE)
    next(steps)
    memory._known.clear()
    assert len(run(steps)) < 100
    memory.settle("4 n1.example", WHOLE)
    assert len(memory) == 0


@pytest.mark.ours
def test_a_hundred_thousand_names_are_looked_at_once_and_a_few_at_a_time() -> None:
    memory = Memory(100_000)
    for number in range(100_000):
        memory.see(f"www.n{number}.example", four=packed("192.0.2.1"))
    looked = 0

    def look(_: object) -> Found:
        nonlocal looked
        looked += 1
        return NOTHING

    most = before = 0
    for _ in memory.changes(look):
        most, before = max(most, looked - before), looked
    assert looked >= 100_000
    assert most <= 100


@each_row("hosts", [("",), ("a.example", ""), tuple(f"n{i}.example" for i in range(100))])
def test_odd_hosts(hosts: tuple[str, ...]) -> None:
    memory = Memory()
    memory.see(*hosts, four=packed("192.0.2.1"))
    seen: list[tuple[str, ...]] = []

    def find(some: tuple[str, ...]) -> Found:
        seen.append(some)
        return NOTHING

    run(memory.changes(find))
    assert seen == [hosts[:16]]
