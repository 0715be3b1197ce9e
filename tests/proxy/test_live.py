import logging
from typing import Any

import pytest
from mitmproxy.connection import Client

from proxy.driver import make_context, make_matcher
from urlward.engine.matcher import Matcher
from urlward.proxy.block_page import BlockPage, BlockPageSettings
from urlward.proxy.guard import Guard
from urlward.proxy.live import HEAD_TIMEOUT, Live
from urlward.proxy.names import Names

pytestmark = pytest.mark.usefixtures("compiles_here")

OLD, NEW = (
    make_matcher("other.test"),
    make_matcher("a.test id=E-1", "http://b.test/page id=E-2", "192.0.2.66"),
)


class Member:
    def __init__(self, *names: Names, client: Client | None = None) -> None:
        self.client = client or make_context().client
        self.names = names
        self.reading: int | None = None
        self.touched = 0
        self.leaving = False
        self.since = 0.0
        self.was_cut = False

    def live(self) -> tuple[Names, ...]:
        return self.names

    def head(self) -> int | None:
        return self.reading

    def idle(self) -> bool:
        return not self.names

    def quiet(self, now: float) -> float:
        return now - self.since

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
        return Guard(lambda: self.matcher, BlockPage(BlockPageSettings()), **changes)


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
    lists, live, member = Lists(), Live(), Member(under_way)
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
    both = Member(names("a.test", "/1"), names("a.test", "/2"))
    begun, ending = Member(names("a.test", "/3")._replace(told=True)), Member(names("a.test", "/4"))
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
        live.add(Member(names("a.test", "/")))
        guard = Guard(fail, BlockPage(BlockPageSettings()), on_error=on_error)
        assert await live.recheck(guard) == cut


async def test_many_give_way_to_traffic() -> None:
    live = Live()
    for _ in range(3000):
        live.add(Member(names("a.test", "/")))
    lists = Lists()
    lists.matcher = NEW
    assert await live.recheck(lists.guard()) == 3000


def test_a_head_may_not_take_for_ever() -> None:
    live, slow, quick, busy = Live(), Member(), Member(), Member()
    live.add(slow)
    live.add(quick)
    live.add(busy)
    slow.reading = quick.reading = busy.reading = 0
    live.tick(100)
    quick.reading = None
    busy.reading = 7  # always in the middle of a head, but of another each time
    live.tick(100 + HEAD_TIMEOUT / 2)
    quick.reading = 0
    busy.reading = 9
    live.tick(100 + HEAD_TIMEOUT)
    assert (slow.was_cut, quick.was_cut, busy.was_cut) == (True, False, False)
    assert (slow.touched, quick.touched) == (3, 3)


async def test_one_that_breaks_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Member):
        def live(self) -> tuple[Names, ...]:
            raise RuntimeError

        def touch(self, now: float) -> None:
            raise RuntimeError

    live, lists, other = Live(), Lists(), Member(names("a.test", "/x"))
    live.add(Broken())
    live.add(other)
    live.tick(1)
    assert other.touched == 1
    lists.matcher = NEW
    assert await live.recheck(lists.guard()) == 1
    assert caplog.text.count("RuntimeError") == 2


def test_membership() -> None:
    live, one = Live(), Member()
    other = Member(client=one.client)
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
    live, at_rest, busy = Live(), Member(), Member(names("a.test", "/"))
    live.add(at_rest)
    live.add(busy)
    other = Member(names("a.test", "/"), client=busy.client)
    live.add(other)
    assert live.close_idle() == 1, "connections, of which one may have many streams"
    assert (at_rest.was_cut, busy.was_cut) == (True, False)
    assert busy.leaving
    assert other.leaving


def test_room_is_made_by_what_is_at_rest_and_then_by_who_has_most() -> None:
    live = Live()

    def member(address: str, since: float, *under_way: Names) -> Member:
        made = Member(*under_way)
        made.client.peername = (address, 1)
        made.since = since
        live.add(made)
        return made

    busy = names("a.test", "/x")
    resting = [member("192.0.2.1", 0.0) for _ in range(2)]
    few = [member("192.0.2.2", 0.0, busy)]
    waiting = [member("192.0.2.3", n, busy) for n in (30.0, 10.0, 20.0)]
    new = [member("192.0.2.3", 99.0, busy) for _ in range(9)]

    def cut(connections: int) -> list[Member]:
        assert live.make_room(connections, 100.0) == connections
        found = [each for each in (*resting, *few, *waiting, *new) if each.was_cut]
        for each in found:
            live.discard(each)
            each.was_cut = False
        return found

    assert cut(1) == resting[:1]
    assert cut(2) == [resting[1], waiting[1]]
    assert cut(1) == [waiting[2]]
    # Never what something has just come on.
    for _ in range(2):
        assert live.make_room(100, 100.0) == 1
        for each in (*few, waiting[0]):
            if each.was_cut:
                live.discard(each)
    assert live.make_room(100, 100.0) == 0
    assert not any(each.was_cut for each in new)


def test_who_has_most_gives_a_part() -> None:
    live = Live()
    members = [Member(names("a.test", "/x")) for _ in range(320)]
    for each in members:
        each.client.peername = ("192.0.2.1", 1)
        live.add(each)
    assert live.make_room(1, 100.0) == 20
