"""Holding connections, with transports that only remember."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.test_probing import client
from urlward.proxy.express import Express
from urlward.proxy.live import Live
from urlward.proxy.pacing import Pacer
from urlward.proxy.probing import MAX_WAIT

CLIENT = client("192.0.2.7")


class Transport:
    def __init__(self) -> None:
        self.said: list[str] = []

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


class Carrier(Express):
    """One whose sockets are not there."""

    def __init__(self) -> None:
        self.client = CLIENT
        self.transport = Transport()
        self.readable = True
        self.was_cut = 0

    @property
    def client_transport(self) -> Any:
        return self.transport

    def may_read(self) -> bool:
        return self.readable

    def cut(self) -> None:
        self.was_cut += 1


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
def pacer(carrier: Carrier) -> Pacer:
    live = Live()
    live.add(carrier)
    return Pacer(live, lambda _: None)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_connection_is_not_read_for_a_while(pacer: Pacer, carrier: Carrier) -> None:
    pacer.hold(CLIENT, 0.01)
    assert carrier.transport.said == ["pause"]
    await until(lambda: carrier.transport.said == ["pause", "resume"])


async def test_the_last_hold_of_several_counts(pacer: Pacer, carrier: Carrier) -> None:
    for seconds in (0.01, 0.02, 0.03):
        pacer.hold(CLIENT, seconds)
    await until(lambda: "resume" in carrier.transport.said)
    assert carrier.transport.said == ["pause"] * 3 + ["resume"]
    assert not pacer._held


async def test_what_the_origin_does_not_take_is_not_read_all_the_same(pacer: Pacer, carrier: Carrier) -> None:
    carrier.readable = False
    pacer.hold(CLIENT, 0.01)
    await until(lambda: not pacer._held)
    assert carrier.transport.said == ["pause"]


async def test_too_long_a_hold_is_the_end(pacer: Pacer, carrier: Carrier) -> None:
    pacer.hold(CLIENT, MAX_WAIT + 1)
    assert not carrier.was_cut
    await asyncio.sleep(0)
    assert carrier.was_cut == 1
    assert carrier.transport.said == []


async def test_one_that_has_ended_meanwhile(carrier: Carrier) -> None:
    live = Live()
    live.add(carrier)
    pacer = Pacer(live, lambda _: None)
    pacer.hold(CLIENT, 0.01)
    live.forget(CLIENT)
    await until(lambda: not pacer._held)
    assert carrier.transport.said == ["pause"]
    pacer.hold(CLIENT, 0.01)
    assert not pacer._held
