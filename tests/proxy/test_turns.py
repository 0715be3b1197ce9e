"""Turns of client networks, where mitmproxy carries their connections."""

import asyncio
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, Response
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import taddons
from mitmproxy.test.tflow import tflow
from mitmproxy.test.tutils import treq, tresp

from conftest import until
from urlward.proxy import mitm
from urlward.proxy import turns as turns_module
from urlward.proxy.addon import Urlward
from urlward.proxy.mitm import is_full
from urlward.proxy.turns import Turns, take_turns

MANY = 50


def client(address: str) -> Client:
    return Client(peername=(address, 1234), sockname=("127.0.0.1", 8080))


def handler_of(client: Client, *connections: Any) -> Any:
    transports = {each: SimpleNamespace(reader=asyncio.StreamReader(), writer=None) for each in connections}
    return SimpleNamespace(client=client, transports=transports, _server_event_lock=None)


@pytest.mark.parametrize("what", ["begin", "request", "response", "answer"])
async def test_another_waits_for_one_of_a_network_at_most(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    addon, done = Urlward(), []
    clients = [*(client(f"2001:db8::{n:x}") for n in range(MANY)), client("192.0.2.1")]
    handlers = {each.id: handler_of(each, each, Server(address=None)) for each in clients}
    monkeypatch.setattr(addon, "handler", lambda one: handlers[one.id])

    async def use(one: Client) -> None:
        own, server = handlers[one.id].transports
        if what == "begin":
            await addon.client_connected(one)
        elif what == "answer":
            flow = tflow(client_conn=one)
            flow.metadata["urlward"] = "answered"
            await addon.response(flow)
        else:
            reader = handlers[one.id].transports[own if what == "request" else server].reader
            assert await reader.read(9) == b"12345"
        done.append(one)

    if what in ("request", "response"):
        for one in clients:
            await addon.client_connected(one)
            _, server = handlers[one.id].transports
            addon.server_connected(ServerConnectionHookData(server, one))
    tasks = [asyncio.create_task(use(each)) for each in clients]
    await asyncio.sleep(0)
    for handler in handlers.values():
        for io in handler.transports.values():
            io.reader.feed_data(b"12345")
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert done.index(clients[-1]) <= 1, "behind one of the other's"
    done.remove(clients[-1])
    assert done == clients[:-1], "in their order"
    await until(lambda: not addon.turns._waiting)


async def test_a_full_reader_is_told_behind_its_turns() -> None:
    one = client("192.0.2.1")
    handler = handler_of(one, one)
    handler.transports[one].reader = SimpleNamespace(_paused=True)
    take_turns(handler, one, Turns())
    assert is_full(handler)


async def test_those_that_have_gone_take_no_turn() -> None:
    turns, one, done = Turns(), client("192.0.2.1"), []

    async def use(number: int) -> None:
        await turns.wait(one)
        done.append(number)

    tasks = [asyncio.create_task(use(n)) for n in range(6)]
    await asyncio.sleep(0)
    for gone in (1, 3, 5):
        tasks[gone].cancel()
    await asyncio.wait(tasks)
    assert done == [0, 2, 4]
    await until(lambda: not turns._waiting)


@pytest.mark.parametrize(("seconds", "waits"), [(0.001, False), (0.001, True), (1.0, False)])
async def test_little_is_read_where_something_took_long(
    seconds: float, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a piece of chunks of a byte, or of requests, a client had all others wait for half a second. What
    others take while something waits for its turn at its connection is not its client's."""
    addon, one, now = Urlward(), client("192.0.2.1"), [5.0]
    handler = handler_of(one, one)
    handler._server_event_lock = asyncio.Lock()

    async def handle(takes: float) -> None:
        async with handler._server_event_lock:
            now[0] += takes

    handler.server_event = handle
    monkeypatch.setattr(addon, "handler", lambda _: handler)
    monkeypatch.setattr(mitm, "thread_time", lambda: now[0])
    await addon.client_connected(one)
    if waits:
        await handler._server_event_lock.acquire()
        task = asyncio.create_task(handler.server_event(seconds))
        await asyncio.sleep(0)
        now[0] += 1.0
        handler._server_event_lock.release()
        await task
    else:
        await handler.server_event(seconds)
    reader = handler.transports[one].reader
    reader.even = inf if seconds > turns_module.LONG else 0  # of a body, in TLS that has more
    reader._reader.feed_data(b"x" * 65_536)
    little = 1 << 11
    assert len(await reader.read(65_535)) == (little if seconds > turns_module.LONG else 1 << 15)
    assert addon.turns.size(client("192.0.2.2")) == 1 << 15


async def test_much_is_read_again_behind_much_that_took_not_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary download had a tenth of its pace for a minute; who does so again and again has it yet."""
    monkeypatch.setattr(turns_module, "_LATELY", 1e9)
    turns, one, needed = Turns(), client("192.0.2.1"), []
    for _ in range(3):
        turns.took(one, 1.0)
        needed.append(0)
        while (size := turns.size(one)) < 1 << 15:
            turns.read(one, size)
            needed[-1] += size
    assert needed == [1 << 18, 1 << 19, 1 << 20]


@pytest.mark.parametrize(
    ("response", "method", "read"),
    [
        (tresp(headers=Headers(content_length="1000000")), "GET", 1 << 16),
        (tresp(headers=Headers()), "GET", 1 << 16),  # until the connection ends
        (tresp(headers=Headers(content_length="150000")), "GET", 1 << 15),
        (tresp(headers=Headers(content_length="1000000")), "HEAD", 1 << 15),
        (tresp(headers=Headers(transfer_encoding="chunked")), "GET", 1 << 15),
        (tresp(headers=Headers(), http_version=b"HTTP/2.0"), "GET", 1 << 15),
    ],
)
async def test_much_is_read_of_what_is_only_passed_on(
    response: Response, method: str, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download took a quarter more of the processor than by mitmproxy itself. What is behind a body may be
    anything."""
    addon, one = Urlward(), client("192.0.2.1")
    flow = tflow(client_conn=one, req=treq(method=method.encode(), headers=Headers()))
    server = Server(address=("192.0.2.9", 3128))  # of the next proxy, which is not the flow's own
    handler = handler_of(one, one, server)
    monkeypatch.setattr(addon, "handler", lambda _: handler)
    monkeypatch.setattr(addon, "guard", SimpleNamespace())
    flow.metadata["urlward"] = "passed"
    await addon.client_connected(one)
    addon.server_connected(ServerConnectionHookData(server, one))
    with taddons.context(addon):
        addon.requestheaders(flow)
        flow.response = response
        addon.responseheaders(flow)
    own, origins = (io.reader for io in handler.transports.values())
    own._reader.feed_data(b"x" * 100_000)
    origins._reader.feed_data(b"x" * 1_100_000)
    assert len(await own.read(65_535)) == 1 << 15
    taken = last = len(await origins.read(65_535))
    assert last == read
    while taken < 1_000_000:
        taken += (last := len(await origins.read(65_535)))
    assert last == (read if response.headers.fields == () else 1 << 15)


async def test_a_network_rests_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "_A_WHILE", 1e9)
    monkeypatch.setattr(turns_module, "_MOST_REST", 1e9)
    turns, one, other, done = Turns(), client("192.0.2.1"), client("192.0.2.2"), []

    async def use(which: Client, number: int) -> None:
        await turns.wait(which)
        done.append((which, number))

    await use(one, 0)
    turns.took(one, 1e9)
    rests = [asyncio.create_task(use(one, n)) for n in (1, 2)]
    await asyncio.gather(*(use(other, n) for n in range(20)))
    assert done == [(one, 0), *((other, n) for n in range(20))]
    turns._rests.clear()
    await use(other, 20)
    await asyncio.wait_for(asyncio.gather(*rests), 10)
    assert done[21:] == [(other, 20), (one, 1), (one, 2)]
    await until(lambda: not turns._waiting)
