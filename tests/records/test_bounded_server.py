"""Connections to the servers beside the filter: who has most makes room, and bodies come by turns."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from urlward.records import bounded_server as module
from urlward.records.bounded_server import BoundedServer

GREEDY, MODEST = "127.0.0.66", "127.0.0.5"


class Page(RequestHandler):
    def get(self) -> None:
        self.finish("here")

    def post(self) -> None:
        self.finish(f"{len(self.request.body)} bytes")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = BoundedServer(Application([("/", Page)], log_function=lambda _: None))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield sockets[0].getsockname()[1]
    server.stop()
    await server.close_all_connections()


class Client:
    def __init__(self, port: int, address: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
        self.socket.setblocking(False)

    async def read(self) -> bytes:
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)

    async def asks(self) -> bytes:
        self.socket.send(b"GET / HTTP/1.1\r\nHost: gateway.example\r\n\r\n")
        return await self.read()


@pytest.mark.parametrize("scarce", [False, True])
async def test_who_has_most_makes_room(port: int, monkeypatch: pytest.MonkeyPatch, scarce: bool) -> None:
    if scarce:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    else:
        monkeypatch.setattr(module, "MOST", 4)
    modest = Client(port, MODEST)
    greedy = [Client(port, GREEDY) for _ in range(10)]
    for each in greedy[:7]:
        assert await each.read() == b"", "the oldest is closed"
    other = Client(port, MODEST)
    assert (await other.asks()).endswith(b"here")
    assert await greedy[7].read() == b""
    assert (await modest.asks()).endswith(b"here")
    assert (await greedy[9].asks()).endswith(b"here")
    for each in (modest, other, *greedy):
        each.socket.close()


async def test_a_body_of_many_pieces_keeps_nobody_waiting(port: int) -> None:
    greedy, modest = Client(port, GREEDY), Client(port, MODEST)
    head = b"POST / HTTP/1.1\r\nHost: gateway.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    greedy.socket.send(head + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
    assert (await modest.asks()).endswith(b"here")
    with pytest.raises(BlockingIOError):
        greedy.socket.recv(1)  # not yet answered
    assert (await greedy.read()).endswith(b"5000 bytes")
    for each in (modest, greedy):
        each.socket.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of clients, by request that is answered."""
    asked: list[str] = []
    monkeypatch.setattr(Page, "prepare", lambda page: asked.append(page.request.remote_ip))
    return asked


async def test_many_requests_at_once_keep_nobody_waiting(port: int, asked: list[str]) -> None:
    greedy, modest = [Client(port, GREEDY) for _ in range(40)], Client(port, MODEST)
    for each in greedy:
        each.socket.send(b"GET / HTTP/1.1\r\nHost: gateway.example\r\n\r\n" * 20)
    assert (await modest.asks()).endswith(b"here")
    assert asked.count(GREEDY) < 20
    for each in (modest, *greedy):
        each.socket.close()


async def test_requests_of_a_connection_that_is_gone_are_not_answered(port: int, asked: list[str]) -> None:
    gone, other = Client(port, GREEDY), Client(port, MODEST)
    gone.socket.send(b"GET / HTTP/1.1\r\nHost: gateway.example\r\n\r\n" * 200)
    await gone.read()
    gone.socket.close()  # with answers unread: a reset
    for _ in range(100):
        await other.asks()
    assert asked.count(GREEDY) < 50
    other.socket.close()


async def test_a_long_head_is_refused(port: int, asked: list[str]) -> None:
    """Tornado takes 33 ms for one of 64 KiB."""
    client = Client(port, GREEDY)
    client.socket.send(b"GET / HTTP/1.1\r\nHost: gateway.example\r\n" + b"a:\r\n" * 10_000 + b"\r\n")
    with suppress(ConnectionResetError):
        assert await client.read() == b""
    assert not asked
    client.socket.close()


PARTS = 3000


@pytest.mark.parametrize(
    "fields",
    [
        b"a:\r\n" * PARTS,
        b"a:\r\n" + b" \r\n" * PARTS,
        b"Cookie: " + b"a=1;" * PARTS + b"\r\n",
        b"Content-Type: Multipart/Form-Data; boundary=x\r\n",
    ],
    ids=["fields", "folded", "cookies", "multipart"],
)
async def test_a_request_that_takes_long_to_read_is_refused(
    port: int, asked: list[str], fields: bytes
) -> None:
    client = Client(port, GREEDY)
    client.socket.send(b"GET / HTTP/1.1\r\nHost: gateway.example\r\n" + fields + b"\r\n")
    assert (await client.read()).startswith(b"HTTP/1.1 400 ")
    assert not asked
    client.socket.close()


async def test_a_browsers_cookies_are_read(port: int) -> None:
    client = Client(port, MODEST)
    client.socket.send(
        b"GET / HTTP/1.1\r\nHost: gateway.example\r\n"
        + b"".join(b"Field-%d: a\r\n" % n for n in range(40))
        + b"Cookie: " + b"; ".join(b"name-%d=value" % n for n in range(180)) + b"\r\n\r\n"
    )  # fmt: skip
    assert (await client.read()).endswith(b"here")
    client.socket.close()
