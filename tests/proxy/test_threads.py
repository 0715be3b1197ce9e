"""Threads beside the event loop: turns, and who has to make room."""

import asyncio
import threading
import weakref
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import until
from urlward.proxy import threads as threads_module
from urlward.proxy.threads import Threads


class Held:
    """Work that waits until it may end, and takes notes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.may = threading.Semaphore(0)

    def __call__(self, work: str) -> str:
        self.may.acquire(timeout=60)
        self.done.append(work)
        return work


def nothing(work: int) -> int:
    return work


async def test_turns_go_round_the_networks() -> None:
    held, told = Held(), list[str]()
    threads = Threads(held, "held", threads=1)
    for network, work in (("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("c", "1")):
        assert threads.ask(network, work, told.append)
    assert threads.works == 4
    held.may.release(4)
    await until(lambda: len(told) == 5)
    assert (held.done, told) == (["1", "2", "4", "3"], ["1", "1", "2", "4", "3"])
    assert not threads.works


async def test_of_one_network_so_many_are_under_way() -> None:
    """The next one begins without the loop, which may be busy; what is done then is not done again."""
    held, told = Held(), list[str]()
    threads = Threads(held, "held", threads=3, of_one=2)
    for work in "1234":
        threads.ask("a", work, told.append)
    assert not threads.begins_at_once("a")
    assert threads.begins_at_once("b")
    held.may.release(4)
    while len(held.done) < 4:
        pass
    threads.ask("b", "4", told.append)
    await until(lambda: len(told) == 5)
    assert sorted(held.done) == list("1234")


async def test_who_has_none_under_way_has_a_thread_where_others_have_all() -> None:
    """Somebody with many networks may ask by all of them."""
    held, told = Held(), list[str]()
    threads = Threads(held, "held", threads=4, of_one=2, beyond=2)
    for network in "abc":
        for number in range(3):
            threads.ask(network, f"{network}{number}", told.append)
    assert not threads.begins_at_once("c")
    assert threads.begins_at_once("d")
    threads.ask("d", "d0", told.append)
    assert not threads.begins_at_once("e")
    threads.ask("e", "e0", told.append)
    assert threads._running == {"a": 2, "b": 2, "c": 1, "d": 1}
    held.may.release(11)
    await until(lambda: len(told) == 11)
    assert not threads.works


async def test_what_nobody_waits_for_any_more_is_let_go() -> None:
    """Before its turn, which those of its network may keep from coming for long."""

    class Work(str):
        pass  # unlike a string it can be referred to weakly

    held, told = Held(), list[Any]()
    threads = Threads(held, "held", threads=1)
    threads.ask("a", "under way", told.append)
    work = Work("waits")
    kept, waiter = weakref.ref(work), threads.ask("a", work, told.append)
    assert waiter
    del work
    waiter.cancel()
    assert threads.works == 1
    assert kept() is None
    held.may.release(2)
    threads.ask("a", "last", told.append)
    await until(lambda: told == ["under way", "last"])


async def test_a_passing_shortage_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "AGAIN", 0.01)
    held, told, tried, start = Held(), list[str](), list[Any](), threading.Thread.start
    held.may.release(2)

    def short(thread: threading.Thread) -> None:
        tried.append(thread)
        if len(tried) < 4:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", short)
    threads = Threads(held, "held", threads=9)
    for network in "ab":
        threads.ask(network, network, told.append)
    await until(lambda: sorted(told) == ["a", "b"])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=120),
    st.integers(1, 12),
)
def test_a_network_gets_in_wherever_another_has_more(steps: list[tuple[int, int, int]], most: int) -> None:
    async def go() -> None:
        threads = Threads(nothing, "never", threads=0, most=most)
        waits: dict[int, tuple[str, int]] = {}
        """Who is inside, by a number of their own."""
        told: list[tuple[int, Any]] = []

        def tell(number: int, found: Any) -> None:
            told.append((number, found))

        for number, (network, action, work) in enumerate(steps):
            if not action:
                threads._tell(work, work)
                assert sorted(told) == sorted((n, work) for n, (_, w) in waits.items() if w == work)
                waits = {n: each for n, each in waits.items() if each[1] != work}
                told.clear()
                continue
            name = str(network)
            counts = {each: 0 for each, _ in waits.values()} | {name: 0}
            for each, _ in waits.values():
                counts[each] += 1
            largest = max(counts.values())
            entered = threads.ask(name, work, partial(tell, number))
            assert bool(entered) == (len(waits) < most or counts[name] + 1 < largest)
            await asyncio.sleep(0)
            for gone, found in told:
                assert found is None
                assert counts[waits.pop(gone)[0]] == largest
            told.clear()
            if entered:
                waits[number] = name, work
            assert len(waits) <= most
            assert threads.works == len({work for _, work in waits.values()})

    asyncio.run(go())
