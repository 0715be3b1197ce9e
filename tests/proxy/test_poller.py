"""What is told of sockets, and of which."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from proxy.rig import until
from urlward.proxy.poller import CAN_READ, CAN_WRITE, READ, WRITE, Poller

type Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for each in made:
        for one in each:
            one.close()


async def test_what_is_watched_is_told(pairs: Pairs) -> None:
    (near, far), *_ = pairs
    poller = Poller(asyncio.get_running_loop())
    told: list[int] = []
    poller.watch(near.fileno(), READ, told.append)
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


async def test_an_end_is_told_of_whatever_is_watched(
    pairs: Pairs,
) -> None:
    (near, far), *_ = pairs
    poller = Poller(asyncio.get_running_loop())
    told: list[int] = []
    far.close()
    for events, wanted in ((READ, CAN_READ), (WRITE, CAN_WRITE)):
        poller.watch(near.fileno(), events, told.append)
        await until(lambda: told)
        assert all(each & wanted for each in told)
        poller.forget(near.fileno())
        told.clear()


async def test_a_number_that_is_another_sockets_now(pairs: Pairs) -> None:
    """Both can be read; who is told first closes the other, and a new one gets its number."""
    poller = Poller(asyncio.get_running_loop())
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
        poller.watch(number, WRITE, lambda _: told.append("late"))

    for own, other in ((0, 1), (1, 0)):
        pairs[own][1].send(b"a")
        poller.watch(pairs[own][0].fileno(), READ, lambda _, a=own, b=other: happened(a, b))  # type: ignore[misc]
    await until(lambda: "late" in told)
    assert told.count("first") == 1
    poller.forget(late[0].fileno())
    late[0].close()


async def test_a_fault_keeps_no_others_waiting(pairs: Pairs) -> None:
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    faults: list[object] = []
    told: set[int] = set()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def happened(number: int) -> None:
        poller.forget(pairs[number][0].fileno())
        told.add(number)
        raise ValueError(number)

    for number, (near, far) in enumerate(pairs):
        far.send(b"a")
        poller.watch(near.fileno(), READ, lambda _, n=number: happened(n))  # type: ignore[misc]
    await until(lambda: len(told) == 3)
    assert [type(fault) for fault in faults] == [ValueError] * 3
