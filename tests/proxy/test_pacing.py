"""Holding connections, with transports that only remember."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import until
from proxy.test_probing import client
from urlward.proxy.layers import Pacer
from urlward.proxy.live import Live, Member
from urlward.proxy.probing import MAX_WAIT
from urlward.proxy.session import Session

CLIENT = client("192.0.2.7")


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.said: list[str] = []

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


class Carrier(Session):
    """One whose sockets are not there."""

    def __init__(self) -> None:
        self.client = CLIENT  # type: ignore[assignment]
        self.said: list[str] = []
        self.was_cut = 0

    def slow(self, *, held: bool) -> None:
        self.said.append("pause" if held else "resume")

    def cut(self) -> None:
        self.was_cut += 1


class Stream(Member):
    """An exchange on a connection that mitmproxy carries."""

    client = CLIENT

    def __init__(self) -> None:
        self.readable = True

    def may_read(self) -> bool:
        return self.readable


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
def pacer(carrier: Carrier) -> Pacer:
    live = Live()
    live.add(carrier)
    return Pacer(live, lambda _: None)


async def test_a_connection_is_not_read_for_a_while(pacer: Pacer, carrier: Carrier) -> None:
    pacer.hold(CLIENT, 0.01)
    assert carrier.said == ["pause"]
    await until(lambda: carrier.said == ["pause", "resume"])


async def test_the_last_hold_of_several_counts(pacer: Pacer, carrier: Carrier) -> None:
    for seconds in (0.01, 0.02, 0.03):
        pacer.hold(CLIENT, seconds)
    await until(lambda: "resume" in carrier.said)
    assert carrier.said == ["pause"] * 3 + ["resume"]
    assert not pacer._held


@pytest.mark.parametrize("readable", [True, False])
async def test_a_connection_that_mitmproxy_carries(readable: bool) -> None:
    transport, stream, live = Transport(), Stream(), Live()
    live.add(stream)  # type: ignore[arg-type]
    writer = asyncio.StreamWriter(transport, asyncio.Protocol(), None, asyncio.get_running_loop())
    io = SimpleNamespace(writer=writer, reader=asyncio.StreamReader())
    handler: Any = SimpleNamespace(client=CLIENT, transports={CLIENT: io})
    pacer = Pacer(live, lambda _: handler)
    pacer.hold(CLIENT, 0.01)
    assert transport.said == ["pause"]
    stream.readable = readable  # what its origin does not take is not read all the same
    await until(lambda: not pacer._held)
    assert transport.said == ["pause", "resume"][: 1 + readable]


async def test_too_long_a_hold_is_the_end(pacer: Pacer, carrier: Carrier) -> None:
    pacer.hold(CLIENT, MAX_WAIT + 1)
    assert not carrier.was_cut
    await asyncio.sleep(0)
    assert carrier.was_cut == 1
    assert carrier.said == []


async def test_one_that_has_ended_meanwhile(carrier: Carrier) -> None:
    live = Live()
    live.add(carrier)
    pacer = Pacer(live, lambda _: None)
    pacer.hold(CLIENT, 0.01)
    live.forget(CLIENT)
    await until(lambda: not pacer._held)
    assert carrier.said == ["pause"]
    pacer.hold(CLIENT, 0.01)
    assert not pacer._held
