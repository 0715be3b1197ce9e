"""What is told of sockets, and of which."""

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import until
from urlward.proxy import poller as poller_module
from urlward.proxy.poller import CAN_READ, CAN_WRITE, READ, SLICE, WRITE, Delay, Share, running_loop

type Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for each in made:
        for one in each:
            one.close()


async def test_an_end_is_told_of_whatever_is_watched(
    pairs: Pairs,
) -> None:
    (near, far), *_ = pairs
    poller = running_loop().poller
    told: list[int] = []
    far.close()
    for events, wanted in ((READ, CAN_READ), (WRITE, CAN_WRITE)):
        poller.watch(near.fileno(), events, told.append, Share())
        await until(lambda: told)
        assert all(each & wanted for each in told)
        poller.forget(near.fileno())
        told.clear()


async def test_a_number_that_is_another_sockets_now(pairs: Pairs) -> None:
    """Both can be read; who is told first closes the other, and a new one gets its number."""
    poller = running_loop().poller
    told: list[str] = []
    late: list[socket.socket] = []

    def happened(own: int, other: int) -> None:
        told.append("first")
        poller.forget(pairs[own][0].fileno())
        number = pairs[other][0].fileno()
        poller.forget(number)
        with socket.socket() as new:
            os.dup2(new.fileno(), number, inheritable=False)
        pairs[other][0].detach()
        late.append(socket.socket(fileno=number))
        poller.watch(number, WRITE, lambda _: told.append("late"), Share())

    for own, other in ((0, 1), (1, 0)):
        pairs[own][1].send(b"a")
        poller.watch(pairs[own][0].fileno(), READ, lambda _, a=own, b=other: happened(a, b), Share())  # type: ignore[misc]
    await until(lambda: "late" in told)
    assert told.count("first") == 1
    poller.forget(late[0].fileno())
    late[0].close()


async def test_a_fault_keeps_no_others_waiting(pairs: Pairs) -> None:
    loop = asyncio.get_running_loop()
    poller = running_loop().poller
    faults: list[object] = []
    told: set[int] = set()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def happened(number: int) -> None:
        poller.forget(pairs[number][0].fileno())
        told.add(number)
        raise ValueError(number)

    for number, (near, far) in enumerate(pairs):
        far.send(b"a")
        poller.watch(near.fileno(), READ, lambda _, n=number: happened(n), Share())  # type: ignore[misc]
    await until(lambda: len(told) == 3)
    assert [type(fault) for fault in faults] == [ValueError] * 3


class Clock:
    """Time that goes by with work alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, slices: float = 1.0) -> None:
        self.now += slices * SLICE * 1.01


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(poller_module, "perf_counter", made)
    return made


async def test_what_is_watched_is_told(pairs: Pairs, clock: Clock) -> None:
    (near, far), *_ = pairs
    poller = running_loop().poller
    told: list[int] = []
    poller.watch(near.fileno(), READ, told.append, Share())
    await asyncio.sleep(0.01)
    assert told == []
    far.send(b"a")
    await until(lambda: told)
    assert all(events & CAN_READ and not events & WRITE for events in told)
    near.recv(1)
    poller.change(near.fileno(), READ | WRITE)
    told.clear()
    await until(lambda: told)
    assert all(events & CAN_WRITE and not events & READ for events in told)
    poller.forget(near.fileno())
    far.close()
    told.clear()
    await asyncio.sleep(0.01)
    assert told == []


async def test_who_asks_for_little_has_its_turn_between_those_of_others(pairs: Pairs, clock: Clock) -> None:
    """Each task takes a slice, and one is done in a round."""
    poller = running_loop().poller
    greedy, modest = poller.share("192.0.2.1"), poller.share("192.0.2.2")
    done: list[str] = []

    def work() -> None:
        clock.work()
        done.append("greedy")

    for _ in range(20):
        poller.later(greedy, work)
    near, far = pairs[0]
    poller.watch(near.fileno(), READ, lambda _: done.append("modest") or near.recv(1), modest)  # type: ignore[arg-type,return-value]
    for _ in range(3):
        far.send(b"a")
        before = len(done)
        await until(lambda n=before: "modest" in done[n:])  # type: ignore[misc]
        assert done[before:].index("modest") <= 4
    await until(lambda: done.count("greedy") == 20)
    poller.forget(near.fileno())


@pytest.mark.parametrize("alone", [True, False])
async def test_what_was_not_served_in_a_round_goes_first_in_the_next(clock: Clock, alone: bool) -> None:
    """All can be read for good: of one client, whose slice one event takes, or of many, who take a round."""
    poller = running_loop().poller
    many = [socket.socketpair() for _ in range(40)]
    shares = [poller.share("192.0.2.1" if alone else f"10.{number}.0.1") for number in range(len(many))]
    told: list[int] = []

    def happened(number: int) -> None:
        clock.work(1.0 if alone else 0.8)
        told.append(number)

    for number, (near, far) in enumerate(many):
        far.send(b"a")
        poller.watch(near.fileno(), READ, lambda _, n=number: happened(n), shares[number])  # type: ignore[misc]
    await until(lambda: len(told) >= 4 * len(many))
    for near, far in many:
        poller.forget(near.fileno())
        near.close()
        far.close()
    counts = [told[: 4 * len(many)].count(number) for number in range(len(many))]
    assert min(counts) >= 3


async def test_events_and_queued_work_share_a_round(clock: Clock) -> None:
    """Where there is more of both than a round takes, neither waits for the other without end; nor others."""
    poller = running_loop().poller
    many = [socket.socketpair() for _ in range(40)]
    queued = [poller.share(f"10.{number}.1.1") for number in range(40)]
    told = tasks = 0

    def happened() -> None:
        nonlocal told
        clock.work(0.9)
        told += 1

    def work(share: Share) -> None:
        nonlocal tasks
        clock.work(0.9)
        tasks += 1
        poller.later(share, lambda: work(share))

    for number, (near, far) in enumerate(many):
        far.send(b"a")
        poller.watch(near.fileno(), READ, lambda _: happened(), poller.share(f"10.{number}.0.1"))
    for share in queued:
        poller.later(share, lambda share=share: work(share))  # type: ignore[misc]
    rounds: list[tuple[float, int, int]] = []
    for _ in range(20):
        before = clock.now, told, tasks
        await asyncio.sleep(0)
        rounds.append((clock.now - before[0], told - before[1], tasks - before[2]))
    for near, far in many:
        poller.forget(near.fileno())
        near.close()
        far.close()
    longest, _, _ = max(rounds)
    assert longest < 0.0165
    # Of events as many as in a round that has nothing else to do.
    assert min(events for _, events, _ in rounds[1:]) >= 20
    assert min(done for _, _, done in rounds[1:]) >= 10


async def test_tasks_of_one_are_done_in_their_order_and_by_turns_with_its_events(
    pairs: Pairs, clock: Clock
) -> None:
    poller = running_loop().poller
    share = poller.share("192.0.2.1")
    done: list[int] = []

    def again(number: int, left: int) -> None:
        clock.work()
        done.append(number)
        if left:
            poller.later(share, lambda: again(number, left - 1))

    poller.later(share, lambda: again(0, 9))
    poller.later(share, lambda: again(1, 9))
    for number, (near, far) in enumerate(pairs, 2):
        far.send(b"a")
        poller.watch(
            near.fileno(),
            READ,
            lambda _, n=number, s=near: (s.recv(1), clock.work(), done.append(n)),
            share,  # type: ignore[misc]
        )
    await until(lambda: len(done) == 23)
    assert [done.index(number) < 12 for number in (2, 3, 4)] == [True] * 3
    assert [number for number in done if number < 2] == [0, 1] * 10
    for near, _ in pairs:
        poller.forget(near.fileno())


async def test_a_turn_that_takes_too_long_counts_against_the_next_ones(clock: Clock) -> None:
    poller = running_loop().poller
    long, short = poller.share("192.0.2.1"), poller.share("192.0.2.2")
    done: list[str] = []
    for _ in range(2):
        poller.later(long, lambda: (clock.work(5), done.append("long")))  # type: ignore[arg-type,return-value]
    for _ in range(10):
        poller.later(short, lambda: (clock.work(), done.append("short")))  # type: ignore[arg-type,return-value]
    await until(lambda: len(done) == 12)
    assert done[0] == "long"
    assert done[1:4] == ["short"] * 3


async def test_who_took_much_too_much_rests_for_as_long(pairs: Pairs, clock: Clock) -> None:
    """What another asks and its answer have no second such piece between them, however many rounds."""
    loop = asyncio.get_running_loop()
    poller = running_loop().poller
    (greedy, its), (modest, client), (origin, server) = pairs
    told: list[str] = []

    def answer(rounds: int) -> None:
        clock.work(0.05)
        if rounds:
            loop.call_soon(answer, rounds - 1)
        else:
            server.send(b"a")

    def asked(_: int) -> None:
        modest.recv(1)
        told.append("asked")
        answer(40)

    share = Share()
    poller.watch(greedy.fileno(), READ, lambda _: (clock.work(8), told.append("greedy")), Share())  # type: ignore[arg-type,return-value]
    poller.watch(modest.fileno(), READ, asked, share)
    poller.watch(origin.fileno(), READ, lambda _: told.append("answered") or origin.recv(1), share)  # type: ignore[arg-type,return-value]
    its.send(b"a")
    await until(lambda: told)
    client.send(b"a")
    await until(lambda: "answered" in told)
    at = told.index("asked")
    assert told[at - 1 : at + 2] == ["greedy", "asked", "answered"]
    for one in (greedy, modest, origin):
        poller.forget(one.fileno())


async def test_what_has_to_wait_does_not_hide_what_need_not(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """More is ready than is told of at a time."""
    monkeypatch.setattr(poller_module, "_AT_ONCE", 2)
    poller = running_loop().poller
    greedy = poller.share("192.0.2.1")
    told: list[str] = []

    def happened(near: socket.socket) -> None:
        near.recv(1)
        clock.work()
        told.append("greedy")

    more = [socket.socketpair() for _ in range(20)]
    for near, far in more:
        far.send(b"a" * 10)
        poller.watch(near.fileno(), READ, lambda _, near=near: happened(near), greedy)  # type: ignore[misc]
    (near, far), *_ = pairs
    far.send(b"a")
    poller.watch(near.fileno(), READ, lambda _: told.append("modest") or near.recv(1), Share())  # type: ignore[arg-type,return-value]
    await until(lambda: "modest" in told)
    assert told.index("modest") < 20
    await until(lambda: told.count("greedy") == 200)
    poller.forget(near.fileno())
    for each in more:
        poller.forget(each[0].fileno())
        for one in each:
            one.close()


async def test_what_waits_for_its_turn_may_be_changed_or_forgotten(pairs: Pairs, clock: Clock) -> None:
    poller = running_loop().poller
    share = poller.share("192.0.2.1")
    told: list[int] = []
    goes_on = True

    def again() -> None:
        clock.work()
        if goes_on:
            poller.later(share, again)

    poller.later(share, again)
    for number, (near, far) in enumerate(pairs, 1):
        far.send(b"a")
        poller.watch(near.fileno(), READ, lambda _, n=number: told.append(n), share)  # type: ignore[misc]
    watched = [poller._told[near.fileno()] for near, _ in pairs]
    poller.select(0)
    assert [each.aside for each in watched] == [True] * 3
    poller.forget(pairs[0][0].fileno())
    poller.change(pairs[1][0].fileno(), WRITE)
    await until(lambda: not watched[1].aside and not watched[2].aside)
    assert told[:2] == [2, 3], "what has happened is told, and then what is asked for"
    goes_on = False
    await until(lambda: told.count(2) > 3)
    for near, _ in pairs[1:]:
        poller.forget(near.fileno())
    assert 1 not in told


async def test_a_network_has_one_share() -> None:
    poller = running_loop().poller
    one = poller.share("2001:db8::1")
    assert poller.share("2001:db8::2") is one
    assert poller.share("2001:db8:0:1::1") is not one
    assert poller.share("::ffff:192.0.2.1") is poller.share("192.0.2.1")


async def test_a_fault_in_a_turn_keeps_no_others_waiting() -> None:
    loop = asyncio.get_running_loop()
    poller = running_loop().poller
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    done: list[int] = []
    poller.later(Share(), lambda: done[0])  # type: ignore[arg-type,return-value]
    poller.later(Share(), lambda: done.append(1))
    await until(lambda: done)
    assert [type(fault) for fault in faults] == [IndexError]


async def test_nobody_waits_where_there_is_nobody_else(clock: Clock) -> None:
    """Each task takes far more than a slice, and one is done in each round all the same."""
    poller = running_loop().poller
    share = poller.share("192.0.2.1")
    done: list[int] = []
    poller.later(share, lambda: done.append(0))
    await until(lambda: done)
    clock.now += 10.0  # nobody else has been here for long
    first = poller._round
    for number in range(1, 11):
        poller.later(share, lambda n=number: (clock.work(20), done.append(n)))  # type: ignore[misc]
    await until(lambda: len(done) == 11)
    assert poller._round - first <= 11


async def test_calls_after_a_while_are_made_in_order_unless_withdrawn() -> None:
    delay = Delay(0.02)
    made: list[int] = []
    calls = [delay.call(lambda n=number: made.append(n)) for number in range(4)]  # type: ignore[misc]
    calls[1].clear()
    await until(lambda: len(made) == 3)
    assert made == [0, 2, 3]
    delay.call(lambda: made.append(4))
    await until(lambda: len(made) == 4)


async def test_a_call_that_cannot_be_made_costs_none_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no memory for it."""
    delay, made, loop = Delay(0.01), list[str](), asyncio.get_running_loop()
    tried, soon = list[Any](), loop.call_soon

    def fail_once(call: Any, *arguments: Any, **more: Any) -> Any:
        if call is lost and not tried:
            tried.append(call)
            raise MemoryError
        return soon(call, *arguments, **more)

    def lost() -> None:
        made.append("lost")

    monkeypatch.setattr(loop, "call_soon", fail_once)
    delay.call(lost)
    await until(lambda: tried)
    delay.call(lambda: made.append("next"))
    await until(lambda: made == ["next"])


async def test_what_a_socket_of_the_data_path_has_closed_is_nobodys(pairs: Pairs) -> None:
    """Its event of the same round is not asyncio's any more."""
    (near, far), (other, its), *_ = pairs
    loop = running_loop()
    told: list[str] = []

    def tell(_: int) -> None:
        near.recv(1)
        if other.fileno() >= 0:
            loop.remove_reader(other)
            other.close()
        told.append("ours")

    loop.add_reader(other, told.append, "asyncio's")
    loop.poller.watch(near.fileno(), READ, tell, Share())
    far.send(b"a")
    its.send(b"a")
    await until(lambda: told)
    await asyncio.sleep(0)
    assert told == ["ours"]
    loop.poller.forget(near.fileno())


async def test_nobody_waits_for_what_is_nobodys(pairs: Pairs, clock: Clock) -> None:
    (near, far), (pooled, origin), *_ = pairs
    poller = running_loop().poller
    client = Share()
    poller.watch(near.fileno(), READ, lambda _: (near.recv(1), clock.work(3)), client)  # type: ignore[arg-type,return-value]
    poller.watch(pooled.fileno(), READ, lambda _: pooled.recv(1), Share(nobodys=True))  # type: ignore[arg-type,return-value]
    clock.work(10_000)
    far.send(b"a")
    await until(lambda: client.round)
    clock.work(10_000)
    origin.send(b"a")
    await asyncio.sleep(0.01)
    far.send(b"a")
    await asyncio.sleep(0.01)
    assert not client.rests
    for one in (near, pooled):
        poller.forget(one.fileno())


async def test_a_number_that_the_kernel_tells_twice(pairs: Pairs, clock: Clock) -> None:
    """A child that has not begun its program holds what is closed here: the kernel tells of that still, by a
    number that is another's now. Who is put aside already is not put aside again, which ended the worker."""
    (near, far), (other, its), *_ = pairs
    poller, number = running_loop().poller, near.fileno()
    poller.watch(number, READ, lambda _: None, poller.share("192.0.2.1"))
    held = os.dup(number)
    far.send(b"a")
    poller.closes(number)
    near.close()
    os.dup2(other.fileno(), number)
    its.send(b"a")
    share, told = poller.share("192.0.2.2"), list[int]()
    poller.watch(number, READ, told.append, share)
    for _ in range(3):
        poller.later(share, clock.work)
    await until(lambda: told)
    poller.forget(number)
    os.close(held)
    os.close(number)
