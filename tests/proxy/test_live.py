import asyncio
import logging
import weakref
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest
from mitmproxy.connection import Client

from proxy.driver import make_context, make_matcher
from urlward.config import PageTable
from urlward.engine.matcher import Matcher
from urlward.proxy import live as live_module
from urlward.proxy import runner
from urlward.proxy.block_page import BlockPage
from urlward.proxy.guard import Guard
from urlward.proxy.live import HEAD_TIMEOUT, Live, Member
from urlward.proxy.names import Names

pytestmark = pytest.mark.usefixtures("compiles_here")

OLD, NEW = (
    make_matcher("other.test"),
    make_matcher("a.test id=E-1", "http://b.test/page id=E-2", "192.0.2.66"),
)


class Exchange(Member):
    def __init__(self, *names: Names, client: Client | None = None) -> None:
        self.client = client or make_context().client
        self.names = names
        self.reading: int | None = None
        self.touched = 0
        self.leaving = False
        self.rate = 0.0
        self.was_cut = False

    def live(self) -> tuple[Names, ...]:
        return self.names

    def head(self) -> int | None:
        return self.reading

    def idle(self) -> bool:
        return not self.names

    def progress(self) -> float:
        return self.rate

    def touch(self, now: float) -> None:
        self.touched += 1

    def leave(self) -> None:
        self.leaving = True

    def cut(self) -> None:
        self.was_cut = True


def names(host: str, target: str = "", address: str = "") -> Names:
    return Names((host,), (80,), address, target)


class Lists:
    matcher: Matcher = OLD

    def guard(self, **changes: Any) -> Guard:
        return Guard(lambda: self.matcher, BlockPage(PageTable()), **changes)


@pytest.mark.parametrize(
    ("under_way", "intercept", "cut"),
    [
        (names("a.test", "/x"), "listed", True),
        (names("c.test", "/x"), "listed", False),
        (names("b.test", "/page"), "listed", True),
        (names("b.test", "/other"), "listed", False),
        (names("c.test", "/x", "192.0.2.66"), "listed", True),
        # TLS relayed unread: any page on its host could be what it carries.
        (names("b.test")._replace(tls=True), "listed", True),
        (names("b.test")._replace(tls=True), "none", False),
        (names("b.test"), "listed", False),
        (names("a.test"), "none", True),
        (names("c.test"), "listed", False),
    ],
)
async def test_what_a_new_list_cuts(
    under_way: Names, intercept: str, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lists, live, member = Lists(), Live(), Exchange(under_way)
    guard = lists.guard(intercept=intercept)
    live.add(member)
    assert await live.recheck(guard) == 0
    lists.matcher = NEW
    assert await live.recheck(guard) == cut
    assert member.was_cut is cut
    assert caplog.text.count(" cut client=") == cut


async def test_what_goes_on_where_nothing_is_blocked_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lists, live = Lists(), Live()
    # Two requests on one connection; one that was told when it began; one that ends.
    both = Exchange(names("a.test", "/1"), names("a.test", "/2"))
    begun, ending = Exchange(names("a.test", "/3")._replace(told=True)), Exchange(names("a.test", "/4"))
    for member in (both, begun, ending):
        live.add(member)
    guard = lists.guard(monitor=True)
    assert await live.recheck(guard) == 0
    assert caplog.messages == []
    lists.matcher = NEW
    for _ in range(3):
        assert await live.recheck(guard) == 0
        assert caplog.text.count(" would-cut client=") == 3
        live.discard(ending)
    both.names = (*both.names, names("a.test", "/5"))
    await live.recheck(guard)
    assert caplog.text.count(" would-cut client=") == 4
    assert not any(member.was_cut for member in (both, begun, ending))
    assert len(live._told) == 4, "what is over is not kept"
    assert await live.recheck(lists.guard()) == 2, "where monitoring has ended"


async def test_a_fault_does_as_the_operator_says() -> None:
    def fail() -> Matcher:
        raise RuntimeError

    for on_error, cut in (("block", 1), ("pass", 0)):
        live = Live()
        live.add(Exchange(names("a.test", "/")))
        guard = Guard(fail, BlockPage(PageTable()), on_error=on_error)
        assert await live.recheck(guard) == cut


async def test_many_give_way_to_traffic() -> None:
    live = Live()
    for _ in range(1000):
        live.add(Exchange(names("a.test", "/")))
    lists = Lists()
    lists.matcher = NEW
    assert await live.recheck(lists.guard()) == 1000


async def test_networks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests on one connection, of 30 ms each, kept all others waiting for seconds."""
    monkeypatch.setattr(live_module, "_SLICE", -1.0)
    live, guard, turn, asked = Live(), Lists().guard(), 0, list[tuple[int, str]]()
    members = [Exchange(*(names(f"{host}{n}.test", "/") for n in range(3))) for host in "ab"]
    members[1].client.peername = ("192.0.2.2", 1)
    for member in members:
        live.add(member)

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def review(names: Names, _: Client, *, told: bool) -> str:
        asked.append((turn, names.hosts[0]))
        return "passes"

    monkeypatch.setattr(guard, "review", review)
    task = asyncio.create_task(others())
    await live.recheck(guard)
    assert [host for _, host in asked[:2]] == ["a0.test", "b0.test"]
    assert len({turn for turn, _ in asked}) == len(asked) == 6
    asked.clear()
    await live.recheck(guard, lambda: len(asked) < 2)
    assert len(asked) == 6
    asked.clear()
    monkeypatch.setattr(live_module, "_ENOUGH", -1.0)
    await live.recheck(guard, lambda: len(asked) < 2)
    assert len(asked) == 2, "other lists are in force, and who has much waits for the next time"
    task.cancel()


async def test_what_has_ended_meanwhile_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    live, lists, one = Live(), Lists(), Exchange(names("c.test", "/"), names("a.test", "/"))
    live.add(one)
    lists.matcher = NEW
    guard = lists.guard()
    review = guard.review

    def end(under_way: Names, client: Client, *, told: bool) -> str:
        one.names = (names("c.test", "/next"),)
        return review(under_way, client, told=told)

    monkeypatch.setattr(guard, "review", end)
    assert await live.recheck(guard) == 0
    assert not one.was_cut


async def test_a_head_may_not_take_for_ever() -> None:
    live, slow, quick, busy = Live(), Exchange(), Exchange(), Exchange()
    live.add(slow)
    live.add(quick)
    live.add(busy)
    slow.reading = quick.reading = busy.reading = 0
    await live.tick(100)
    quick.reading = None
    busy.reading = 7  # always in the middle of a head, but of another each time
    await live.tick(100 + HEAD_TIMEOUT / 2)
    quick.reading = 0
    busy.reading = 9
    await live.tick(100 + HEAD_TIMEOUT)
    assert (slow.was_cut, quick.was_cut, busy.was_cut) == (True, False, False)
    assert (slow.touched, quick.touched) == (3, 3)


async def test_what_has_ended_is_not_held_until_the_next_look() -> None:
    """Hundreds of failed handshakes were, with what OpenSSL has of each."""
    client = make_context().client
    live, one = Live(), Exchange(client=client)
    one.reading = 0
    live.add(one)
    await live.tick(100)
    live.discard(one)
    gone = weakref.ref(one)
    del one
    assert gone() is None


async def test_one_that_breaks_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Exchange):
        def live(self) -> tuple[Names, ...]:
            raise RuntimeError

        def touch(self, now: float) -> None:
            raise RuntimeError

    live, lists, other = Live(), Lists(), Exchange(names("a.test", "/x"))
    live.add(Broken())
    live.add(other)
    await live.tick(1)
    assert other.touched == 1
    lists.matcher = NEW
    assert await live.recheck(lists.guard()) == 1
    assert caplog.text.count("RuntimeError") == 2


def test_membership() -> None:
    live, one = Live(), Exchange()
    other = Exchange(client=one.client)
    live.add(one)
    live.add(other)
    live.add(one)
    assert list(live) == [one, other]
    live.discard(one)
    live.discard(one)
    assert list(live) == [other]
    live.forget(one.client)
    live.discard(other)
    assert list(live) == []


def test_closing_what_is_at_rest() -> None:
    live, at_rest, busy = Live(), Exchange(), Exchange(names("a.test", "/"))
    live.add(at_rest)
    live.add(busy)
    other = Exchange(names("a.test", "/"), client=busy.client)
    live.add(other)
    assert live.close_idle() == 1, "connections, of which one may have many streams"
    assert (at_rest.was_cut, busy.was_cut) == (True, False)
    assert busy.leaving
    assert other.leaving


def among(live: Live, address: str, rates: Sequence[float], *under_way: Names) -> list[Exchange]:
    """Members of a client each, by how they get on."""
    made = []
    for rate in rates:
        member = Exchange(*under_way)
        member.client.peername = (address, 1)
        member.rate = rate
        live.add(member)
        made.append(member)
    return made


def let_go(live: Live, *members: Exchange) -> list[Exchange]:
    """Those that were cut, which are no members any more."""
    found = [each for each in members if each.was_cut]
    for each in found:
        live.discard(each)
        each.was_cut = False
    return found


def test_room_is_made_by_who_has_most() -> None:
    live, busy = Live(), names("a.test", "/x")
    few = among(live, "192.0.2.1", [0.0] * 2)
    resting = among(live, "192.0.2.3", [0.0] * 2)
    slow = among(live, "192.0.2.3", [30.0, 10.0, 20.0], busy)
    quick = among(live, "192.0.2.3", [1e6] * 9, busy)
    everyone = (*few, *resting, *slow, *quick)
    assert live.make_room(1) == 1
    assert let_go(live, *everyone) == resting[:1], "at rest, the oldest first"
    assert live.make_room(5) == 1
    assert let_go(live, *everyone) == resting[1:]
    for each in (slow[1], slow[2], slow[0]):
        assert live.make_room(5) == 1
        assert let_go(live, *everyone) == [each], "what gets on least"
    # Who gets on goes as well, rather than what is at rest of whoever has few.
    assert live.make_room(5) == 1
    assert len(let_go(live, *quick)) == 1
    assert live.make_room(5) == 2, "which is no longer so where they have nearly as many"
    assert let_go(live, *everyone) == few
    for left in range(8, 0, -1):
        assert live.make_room(100) == 1, left
        let_go(live, *everyone)
    assert live.make_room(100) == 0


def test_networks_are_counted_and_not_addresses() -> None:
    live, busy = Live(), names("a.test", "/x")
    many = [among(live, f"2001:db8::{n:x}", [1.0], busy)[0] for n in range(1, 9)]
    few = among(live, "192.0.2.1", [0.0] * 3, busy)
    for _ in range(4):
        assert live.make_room(4) == 1
        assert len(let_go(live, *many)) == 1
    assert not any(each.was_cut for each in few)


def test_streams_count_and_go_with_their_connection() -> None:
    """Nearly each has a connection to an origin of its own."""
    live, busy = Live(), names("a.test", "/x")
    (first,) = among(live, "192.0.2.1", [1.0], busy)
    streams = [Exchange(busy, client=first.client) for _ in range(8)]
    for stream in streams:
        live.add(stream)
    others = among(live, "192.0.2.2", [0.0] * 4, busy)
    assert live.exchanges == 9 + 4
    assert live.make_room(1) == 1
    assert live.exchanges == 4
    assert all(each.was_cut for each in (first, *streams))
    assert not any(each.was_cut for each in others)
    live.forget(first.client)
    assert live.make_room(1) == 1
    assert sum(each.was_cut for each in others) == 1


def test_who_has_most_gives_a_part() -> None:
    live = Live()
    among(live, "192.0.2.1", [1.0] * 320, names("a.test", "/x"))
    assert live.make_room(1) == 20


def test_room_that_is_asked_for_again_before_anybody_is_gone_is_made_by_others() -> None:
    live = Live()
    members = among(live, "192.0.2.1", [1.0] * 320, names("a.test", "/x"))
    first = live.make_room(1)
    assert sum(each.was_cut for each in members) == first > 0
    second = live.make_room(1)
    assert second > 0
    assert sum(each.was_cut for each in members) == first + second


async def test_a_drain_looks_after_what_is_under_way_to_tell_what_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "DRAIN_LOOK", 0)
    live, member = Live(), Exchange(names("c.test", "/x"))
    live.add(member)

    def close_idle() -> int:
        if member.touched > 2:
            member.names = ()
        return Live.close_idle(live)

    monkeypatch.setattr(live, "close_idle", close_idle)
    proxy = Mock()
    proxy.addons.get = {"urlward": Mock(live=live), "proxyserver": Mock(servers=[])}.__getitem__
    ended = asyncio.Event()
    proxy.shutdown = ended.set
    runner.Drain(proxy, Mock()).begin()
    await ended.wait()
    assert member.was_cut
    assert member.touched == 3
