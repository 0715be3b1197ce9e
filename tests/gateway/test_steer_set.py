import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from conftest import until
from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward.config import DnsTable, GatewayTable
from urlward.engine.errors import UrlwardError
from urlward.gateway import control
from urlward.gateway import steer_set as steer_set_
from urlward.gateway.canary import BEAT
from urlward.gateway.nft import Nft
from urlward.gateway.rules import RulesPlan
from urlward.gateway.steer_set import ALIVE_FOR, SteerSet
from urlward.gateway.table import CUT_FOR, NoTableError, SetFullError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

GATEWAY = GatewayTable(interfaces=("lan0",), steer=True, max_addresses=4, dns=DnsTable(max_ttl=100))
LONGER = 120


class Watched(Nft):
    """Counts what changes the kernel."""

    def __init__(self) -> None:
        self.changes = 0
        super().__init__()

    def run(self, commands: str) -> None:
        self.changes += 1
        super().run(commands)


@pytest.fixture
def nft() -> Iterator[Watched]:
    with own_network():
        made = Watched()
        control.up(made, RulesPlan(GATEWAY, 8080))
        made.changes = 0
        yield made
        made.close()


@pytest.fixture
async def steer_set(nft: Watched) -> AsyncIterator[SteerSet]:
    made = SteerSet(GATEWAY, nft)
    yield made
    await made.close()


def held(nft: Nft, name: str) -> dict[str, int]:
    """Elements and the seconds that each has left."""
    elements = nft.json(f"list set inet urlward {name}")[0]["set"].get("elem", [])
    return {one["elem"]["val"]: one["elem"]["expires"] for one in elements}


def keys(nft: Nft, name: str) -> list[str]:
    elements: list[Any] = nft.json(f"list set inet urlward {name}")[0]["set"].get("elem", [])
    return [str(one) for one in elements]


def test_check(nft: Watched) -> None:
    steer_set = SteerSet(GATEWAY, nft)
    steer_set.check(8080, 5353)
    for ports, message in (
        ((9090, 5353), "for port 8080, this filter has 9090: run `urlward gateway up`"),
        ((8080, 53), "for DNS port 5353, this filter has 53"),
        ((8080, 0), "rules steer, this filter does not"),
    ):
        with pytest.raises(UrlwardError, match=message):
            steer_set.check(*ports)
    strict = SteerSet(GATEWAY.model_copy(update={"steered": "intercept"}), nft)
    with pytest.raises(UrlwardError, match="for intercept_port none, this filter has 8090"):
        strict.check(8080, 5353)
    keeping = SteerSet(GATEWAY.model_copy(update={"keep_source": True}), nft)
    with pytest.raises(
        UrlwardError, match=r"do not keep clients' addresses \(keep_source\), this filter does: "
    ):
        keeping.check(8080, 5353)
    nft.run('flush chain inet urlward setup; add rule inet urlward setup return comment "something"')
    with pytest.raises(UrlwardError, match="another release"):
        steer_set.check(8080, 5353)
    control.down(nft)
    with pytest.raises(UrlwardError, match="no rules in the kernel: run `urlward gateway up` first"):
        steer_set.check(8080, 5353)


async def test_steer(steer_set: SteerSet, nft: Watched) -> None:
    addresses = [
        "192.0.2.1",
        "::ffff:192.0.2.2",
        "2001:db8::1",
        "192.0.2.1",
        "10.0.0.1",
        "nonsense",
        "8.8.8.8",
    ]
    assert await steer_set.steer(addresses, 30) == 3
    assert list(held(nft, "steer4")) == ["192.0.2.1", "192.0.2.2"]
    assert set(held(nft, "steer6")) == {"2001:db8::1"}, "IPv4 takes no second place"
    assert all(30 < left <= 30 + LONGER for left in held(nft, "steer4").values())
    assert nft.changes == 1
    assert await steer_set.steer(["10.0.0.1"], 30) == 0
    assert nft.changes == 1


async def test_what_stays_long_enough_needs_no_command(steer_set: SteerSet, nft: Watched) -> None:
    await steer_set.steer(["192.0.2.1"], 100)
    for _ in range(10):
        assert await steer_set.steer(["192.0.2.1"], 100) == 1
    assert nft.changes == 1
    await steer_set.steer(["192.0.2.1"], 500)
    assert held(nft, "steer4")["192.0.2.1"] > 500
    await steer_set.steer(["192.0.2.1", "192.0.2.2"], 100)
    assert held(nft, "steer4")["192.0.2.1"] > 500, "not shortened by a later call"


async def test_a_worker_does_not_shorten_what_another_has_promised(steer_set: SteerSet, nft: Watched) -> None:
    other = SteerSet(GATEWAY, nft)
    await steer_set.steer(["192.0.2.1", "2001:db8::1"], 86_400)
    await other.steer(["192.0.2.1", "2001:db8::1", "192.0.2.2"], 10)
    assert held(nft, "steer4")["192.0.2.1"] > 86_390
    assert held(nft, "steer6")["2001:db8::1"] > 86_390
    assert 10 < held(nft, "steer4")["192.0.2.2"] <= 10 + LONGER
    changes = nft.changes
    await other.steer(["192.0.2.1"], 80_000)
    assert nft.changes == changes, "and knows it from then on"
    await other.steer(["192.0.2.1"], 90_000)
    assert held(nft, "steer4")["192.0.2.1"] > 89_990


async def test_a_full_set(steer_set: SteerSet, nft: Watched) -> None:
    await steer_set.steer(["192.0.2.1", "192.0.2.2", "192.0.2.3"], 1000)
    assert not await steer_set.is_full()
    with pytest.raises(SetFullError, match="max_addresses"):
        await steer_set.steer(["192.0.2.1", "192.0.2.4", "192.0.2.5"], 1500)
    assert sorted(held(nft, "steer4")) == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert await steer_set.is_full()
    assert held(nft, "steer4")["192.0.2.1"] > 1500, "what is there is renewed all the same"
    # What was not taken is asked for again.
    with pytest.raises(SetFullError):
        await steer_set.steer(["192.0.2.5"], 30)


async def test_room_is_made_of_what_was_told_longest_ago(steer_set: SteerSet, nft: Watched) -> None:
    full: list[int] = []
    steer_set.on_full = full.append
    for number, seconds in ((1, 300), (2, 500), (3, 400), (4, 1200)):
        await steer_set.steer([f"192.0.2.{number}"], seconds)
    other = SteerSet(GATEWAY, nft)
    await other.steer(["192.0.2.1"], 100)
    await steer_set.steer(["192.0.2.5", "192.0.2.6"], 1200)
    assert sorted(held(nft, "steer4")) == ["192.0.2.2", "192.0.2.4", "192.0.2.5", "192.0.2.6"]
    assert full == [2]
    await other.steer(["192.0.2.1"], 100)
    assert "192.0.2.1" in held(nft, "steer4"), "whoever believed it there looks again"
    await steer_set.steer(["192.0.2.1"], 1200)
    assert len(full) == 1, "no other set is in question"
    with pytest.raises(SetFullError):
        await steer_set.steer(["192.0.2.7"], 1200)
    assert full == [2, 0], "what clients may still use stays"
    assert await steer_set.steer(["2001:db8::1"], 1200) == 1, "the other family has room"


async def test_nat64_is_steered_once_a_client_uses_it(steer_set: SteerSet, nft: Watched) -> None:
    await steer_set.steer(["192.0.2.1"], 100)
    await steer_set.steer(["192.0.2.2"], 500)
    await steer_set.cut(["192.0.2.1"], 200)
    await steer_set.beat()
    assert not held(nft, "steer6")
    nft.run("add element inet urlward nat64 { 6 }")
    await steer_set.beat()
    await rounds_until(lambda: len(held(nft, "steer6")) == 2 and held(nft, "cut6"))
    for four, six in (("192.0.2.1", "64:ff9b::c000:201"), ("192.0.2.2", "64:ff9b::c000:202")):
        assert held(nft, "steer6")[six] == pytest.approx(held(nft, "steer4")[four], abs=5)
    assert held(nft, "cut6")["64:ff9b::c000:201"] > 150
    await steer_set.steer(["192.0.2.3"], 100)
    assert "64:ff9b::c000:203" in held(nft, "steer6")


async def test_nat64_where_elements_have_no_end_or_no_room(steer_set: SteerSet, nft: Watched) -> None:
    for number in range(1, 5):  # more than may go, told longest ago
        await steer_set.steer([f"2001:db8::{number}"], 100)
    nft.run(
        "add set inet urlward endless { type ipv4_addr; }\nadd element inet urlward endless { 192.0.2.1 }"
    )
    assert steer_set._mirrored(("endless", "steer6"))[0][0] == 365 * 86_400
    await steer_set.steer(["192.0.2.1"], 1000)
    nft.run("add element inet urlward nat64 { 6 }")
    await steer_set.beat()
    await rounds_until(lambda: "64:ff9b::c000:201" in held(nft, "steer6"))


async def test_a_bug_in_mirroring_is_tried_again(
    steer_set: SteerSet, nft: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(steer_set, "_mirrored", fails)
    nft.run("add element inet urlward nat64 { 6 }")
    await steer_set.beat()
    await rounds_until(lambda: not steer_set._nat64_seen)


async def test_a_full_set_stops_no_other(steer_set: SteerSet, nft: Watched) -> None:
    for number in range(1, 5):
        await steer_set.steer([f"192.0.2.{number}"], 1200)
        await steer_set.steer([f"2001:db8::{number}"], 100)
    with pytest.raises(SetFullError):
        await steer_set.steer(["192.0.2.5"], 100)
    assert await steer_set.steer(["2001:db8::5"], 100) == 1, "here some may go"


async def rounds_until(condition: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


async def test_cut(steer_set: SteerSet, nft: Watched) -> None:
    await steer_set.cut(["192.0.2.1", "2001:db8::1", "127.0.0.1"])
    await steer_set.cut(["192.0.2.1"], 1000)
    assert 900 < held(nft, "cut4")["192.0.2.1"] <= 1000
    assert held(nft, "cut6")["2001:db8::1"] == pytest.approx(CUT_FOR, abs=5)
    assert set(held(nft, "cut6")) == {"2001:db8::1"}
    assert len(held(nft, "cut4")) == 1
    await steer_set.cut(["192.0.2.1"], 10)
    assert held(nft, "cut4")["192.0.2.1"] > 900
    assert {key for key, left in held(nft, "cutting").items() if left > 900} == {"tcp", "udp"}


async def test_what_clients_know_already_is_steered_and_cut_once(steer_set: SteerSet, nft: Watched) -> None:
    for _ in 1, 2, 3:
        await steer_set.follow(["192.0.2.1", "127.0.0.1", "nonsense"], 3_600)
    assert nft.changes == 2, "one to cut, one to steer"
    assert held(nft, "steer4")["192.0.2.1"] >= 3_600
    assert held(nft, "cut4")["192.0.2.1"] == pytest.approx(CUT_FOR, abs=5)
    assert set(held(nft, "cutting")) == {"tcp", "udp"}
    assert set(held(nft, "cut4")) == {"192.0.2.1"}

    # Whoever steers it, older connections pass it by.
    await steer_set.steer(["192.0.2.2"], 3_600)
    assert "192.0.2.2" not in held(nft, "cut4")
    await steer_set.follow(["192.0.2.2"], 3_600)
    assert "192.0.2.2" in held(nft, "cut4")

    # The kernel has lost it, and so has the filter.
    nft.run("flush set inet urlward cut4; flush set inet urlward steer4")
    steer_set.forget()
    await steer_set.follow(["192.0.2.2"], 3_600)
    assert set(held(nft, "cut4")) == set(held(nft, "steer4")) == {"192.0.2.2"}


async def test_a_full_set_of_what_is_cut_does_not_keep_an_address_from_being_steered(
    steer_set: SteerSet, nft: Watched
) -> None:
    await steer_set.cut([f"192.0.2.{n}" for n in range(1, 5)])
    with pytest.raises(SetFullError):
        await steer_set.follow(["192.0.2.9"], 3_600)
    assert set(held(nft, "steer4")) == {"192.0.2.9"}
    nft.run("flush set inet urlward cut4")
    await steer_set.follow(["192.0.2.9"], 3_600)
    assert set(held(nft, "cut4")) == {"192.0.2.9"}, "made good"


async def test_listed_networks_replace_each_other(steer_set: SteerSet, nft: Watched) -> None:
    await steer_set.list_networks(["192.0.2.0/24", "192.0.2.7", "198.51.100.7", "2001:db8::/32"], cut=True)
    assert len(keys(nft, "listed4")) == 2
    assert len(keys(nft, "listed6")) == 3, "with what the two are called behind NAT64"
    assert set(held(nft, "cut_listed")) == set(held(nft, "cutting")) == {"tcp", "udp"}
    await steer_set.list_networks(["203.0.113.0/24"])
    assert keys(nft, "listed4") == ["{'prefix': {'addr': '203.0.113.0', 'len': 24}}"]
    assert held(nft, "cut_listed") == {}
    await steer_set.list_networks([])
    assert keys(nft, "listed4") == keys(nft, "listed6") == []


async def test_the_same_networks_are_put_in_once_for_all_workers(steer_set: SteerSet, nft: Watched) -> None:
    assert not await steer_set.has_listed([], cut=True)
    other = SteerSet(GATEWAY, nft)
    for one in (steer_set, other, steer_set):
        await one.list_networks(["192.0.2.0/24", "198.51.100.0/24"])
    assert nft.changes == 1


@pytest.mark.ours
async def test_tens_of_thousands_of_networks_stop_nothing_else(nft: Watched) -> None:
    steer_set = SteerSet(GATEWAY)
    networks = [f"198.18.{i >> 7 & 255}.{i * 2 & 255}" for i in range(30_000)]
    task = asyncio.create_task(steer_set.list_networks(networks))
    beats = 0
    while not task.done():
        await steer_set.beat()
        beats += 1
    await task
    assert beats > 1
    assert len(keys(nft, "listed4")) == 30_000
    await steer_set.close()


async def beaten(steer_set: SteerSet, nft: Nft) -> list[float]:
    """What a sign of life has left, for TCP and UDP, behind it; one that is over by then is repeated."""
    left = [0.0]
    for _ in range(20):
        await steer_set.beat()
        left = [nft.left("alive", bytes([protocol])) for protocol in (6, 17)]
        if all(left):
            break
    return left


async def test_beat(steer_set: SteerSet, nft: Watched) -> None:
    for _ in range(2):
        assert all(0 < left <= ALIVE_FOR for left in await beaten(steer_set, nft))
        assert held(nft, "alive").keys() <= {"tcp", "udp"}


async def test_the_kernel_notices_within_two_seconds_that_no_worker_lives(
    steer_set: SteerSet, nft: Watched
) -> None:
    """docs/gateway.md, What happens when; and a worker may miss two beats in a row."""
    assert all(0 < left <= 2 for left in await beaten(steer_set, nft))
    assert 3 * BEAT < ALIVE_FOR <= 2


async def test_signs_of_life_while_no_transaction_is_taken(
    steer_set: SteerSet, nft: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a reload of others' rules fills a set with hundreds of thousands of elements."""
    ends, asked = threading.Event(), 0

    def serves() -> bool:
        nonlocal asked
        if asked < 3:  # as while it ends
            assert not nft.left("alive", bytes([6]))
        asked += 1
        return asked > 3

    monkeypatch.setattr(steer_set, "_beat", lambda: ends.wait(60) and False)
    monkeypatch.setattr(steer_set_, "_SIGNS", 0.01)
    beat = asyncio.get_running_loop().create_task(steer_set.beat(serves))
    try:
        await until(lambda: all(nft.left("alive", bytes([protocol])) for protocol in (6, 17)), "the signs")
        assert nft.changes == 0
    finally:
        ends.set()
    assert not await beat


async def test_a_worker_that_the_kernel_has_taken_for_dead_says_so(
    steer_set: SteerSet, nft: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(steer_set_, "monotonic", lambda: now)
    for later in (0.0, ALIVE_FOR):
        now += later
        await steer_set.beat()
    assert caplog.text == ""
    now += 7.0
    await steer_set.beat()
    assert "no sign of life of this worker for 7.0 s" in caplog.text
    control.down(nft)
    with pytest.raises(NoTableError):
        await steer_set.beat()
    control.up(nft, RulesPlan(GATEWAY, 8080))
    caplog.clear()
    now += 7.0
    await steer_set.beat()
    assert caplog.text == "", "which others have said"


@pytest.mark.parametrize("seen", [True, False])
async def test_once_the_rules_are_gone_nothing_counts_as_steered(
    steer_set: SteerSet, nft: Watched, *, seen: bool
) -> None:
    assert not await steer_set.beat()
    await steer_set.steer(["192.0.2.1"], 30)
    control.down(nft)
    if seen:
        with pytest.raises(NoTableError):
            await steer_set.beat()
    control.up(nft, RulesPlan(GATEWAY, 8080))
    assert await steer_set.beat()
    assert not await steer_set.beat(), "once"
    await steer_set.steer(["192.0.2.1"], 30)
    assert list(held(nft, "steer4")) == ["192.0.2.1"]


async def test_a_slow_kernel_does_not_stop_the_event_loop(
    steer_set: SteerSet, nft: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(nft, "run", lambda _: go_on.wait(10))
    task = asyncio.create_task(steer_set.steer(["192.0.2.1"], 30))
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    assert await task == 1


async def test_an_answer_waits_for_other_nodes_too(steer_set: SteerSet) -> None:
    told: list[tuple[list[bytes], int]] = []
    done = asyncio.get_running_loop().create_future()

    def share(addresses: list[bytes], seconds: int) -> "asyncio.Future[None]":
        told.append((addresses, seconds))
        return done

    steer_set.share = share
    # What must never be steered is nobody else's to steer.
    waiting = asyncio.ensure_future(steer_set.steer(["192.0.2.1", "127.0.0.1"], 100))
    while not await steer_set.held():
        await asyncio.sleep(0.01)
    await asyncio.wait((waiting,), timeout=0.2)
    assert not waiting.done()
    done.set_result(None)
    assert await waiting == 1
    assert told == [([b"\xc0\0\2\1"], 100)]


async def test_other_nodes_are_told_what_there_is_no_room_for_here(steer_set: SteerSet) -> None:
    told: list[bytes] = []
    steer_set.share = lambda addresses, _: told.extend(addresses)
    with pytest.raises(SetFullError):
        await steer_set.steer([f"192.0.2.{n}" for n in range(1, 7)], 3_600)
    assert len(told) == 6


async def test_what_another_node_steers_stays_as_long_as_there(steer_set: SteerSet, nft: Watched) -> None:
    told: list[object] = []
    steer_set.share = lambda *arguments: told.append(arguments)
    steer_set.share_cut = steer_set.share
    v4, v6, own = b"\xc0\0\2\1", bytes.fromhex("20010db8") + bytes(11) + b"\1", b"\x7f\0\0\1"
    await steer_set.adopt({v4: 100, v6: 130, own: 100})
    await steer_set.adopt({v4: 50})
    assert held(nft, "steer4")["192.0.2.1"] in (98, 99, 100)
    assert held(nft, "steer6")["2001:db8::1"] in (128, 129, 130)
    assert [*held(nft, "steer4")] == ["192.0.2.1"]
    await steer_set.adopt({v4: 130}, many=True)
    assert held(nft, "steer4")["192.0.2.1"] in (178, 179, 180)
    steer_set.monitor = True
    await steer_set.adopt_cuts([v4, own], 60)
    assert [*held(nft, "cut4")] == [], "where nothing is blocked, nothing ends because of other nodes"
    steer_set.monitor = False
    await steer_set.adopt_cuts([v4, own], 60)
    assert [*held(nft, "cut4")] == ["192.0.2.1"]
    assert told == []
    found = await steer_set.held()
    assert {address: round(left, -1) for address, left in found.items()} == {v4: 180, v6: 130}


async def test_many_that_are_there_in_part_are_lengthened_and_never_shortened(
    steer_set: SteerSet, nft: Watched
) -> None:
    first, second, third = (bytes((192, 0, 2, n)) for n in (1, 2, 3))
    await steer_set.steer(["192.0.2.1"], 900)
    await steer_set.adopt({first: 120, second: 120}, many=True)
    await steer_set.adopt({second: 300, third: 300}, many=True)
    left = {address: round(seconds, -1) for address, seconds in held(nft, "steer4").items()}
    assert left == {"192.0.2.1": 1_020, "192.0.2.2": 300, "192.0.2.3": 300}


async def test_many_take_what_room_there_is(steer_set: SteerSet, nft: Watched) -> None:
    full: list[int] = []
    steer_set.on_full = full.append
    with pytest.raises(SetFullError):
        await steer_set.adopt({bytes((192, 0, 2, n)): 3_600 for n in range(1, 8)}, many=True)
    assert len(held(nft, "steer4")) == 4
    assert full == [0]


async def test_the_canary_s_addresses_are_taken_once_however_often_clients_ask_for_it(
    steer_set: SteerSet, nft: Watched
) -> None:
    addresses = tuple(map(ip_address, GATEWAY.canary.addresses))
    await asyncio.gather(*(steer_set.prove(addresses, 10) for _ in range(9)))
    assert nft.changes == 1
    steer_set.forget()
    await steer_set.prove(addresses, 10)
    assert nft.changes == 2


async def test_the_canary_is_each_node_s_own(steer_set: SteerSet) -> None:
    await steer_set.prove(map(ip_address, GATEWAY.canary.addresses), 10)
    assert await steer_set.held() == {}


async def test_cuts_are_told_to_other_nodes(steer_set: SteerSet) -> None:
    told: list[tuple[list[bytes], int]] = []
    steer_set.share_cut = lambda addresses, seconds: told.append((addresses, seconds))
    await steer_set.cut(["192.0.2.1", "127.0.0.1"])
    assert told == [([b"\xc0\0\2\1"], CUT_FOR)]
