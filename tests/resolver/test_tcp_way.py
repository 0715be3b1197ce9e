"""Resolvers over TCP."""

import asyncio
import socket
from contextlib import ExitStack

import dns.message
import dns.rcode
import pytest

from conftest import free_port, until
from gateway.dns_support import GOOD, PATIENT, Upstream, records, wait_so_long
from resolver.asking import Make, making
from resolver.test_forward import Query
from urlward.dns import upstream as dns_tcp_way
from urlward.dns.upstream import LINES, TcpWay
from urlward.dns.wire import framed

make = making(TcpWay)


async def test_a_connection_is_used_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_tcp_way, "IDLE", PATIENT)
    upstream = await Upstream(GOOD).start()
    asker = make(upstream.port)
    for number in range(5):
        if number == 4:
            monkeypatch.setattr(dns_tcp_way, "IDLE", 0.2)
        assert await asker.ask()
    assert upstream.connections == 1
    await until(lambda: not asker.ways[0]._lines, "it is not kept for long")
    assert await asker.ask()
    assert upstream.connections == 2
    upstream.close()


async def test_many_at_once(make: Make) -> None:
    upstream = await Upstream(GOOD).start()
    asker = make(upstream.port)
    assert await asker.ask_many(500) == 500
    assert upstream.connections <= LINES
    upstream.close()


async def test_more_than_there_is_room_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_tcp_way, "ON_A_LINE", 2)
    monkeypatch.setattr(dns_tcp_way, "ENOUGH", 1)
    upstream = await Upstream(lambda _: None).start()
    asker = make(upstream.port, timeout=0.5)
    assert await asker.ask_many(100) == 0
    assert len(upstream.asked) <= 2 * LINES * 2, "asked twice each at most"
    upstream.close()


async def test_a_connection_loses_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow name that were asked for again each second would leave others no room."""
    monkeypatch.setattr(dns_tcp_way, "ASKED_AGAIN", 0.05)
    upstream = await Upstream(lambda _: None).start()
    asker = make(upstream.port, timeout=0.2)
    assert await asker.ask_many(50) == 0
    assert len(upstream.asked) == 50
    upstream.close()


async def test_one_that_fails_is_asked_again_at_once_where_no_other_answers(make: Make) -> None:
    upstream = await Upstream(
        lambda query: dns.message.make_response(query).to_wire()[:3] + b"\x82" + query.to_wire()[4:]
    ).start()
    data = await make(upstream.port, free_port(), timeout=5).ask()
    assert data is not None
    assert dns.message.from_wire(data).rcode() == dns.rcode.SERVFAIL
    assert len(upstream.asked) == 2
    upstream.close()


async def test_answers_out_of_order(make: Make) -> None:
    held: list[dns.message.Message] = []

    def last_first(query: dns.message.Message) -> list[bytes]:
        held.append(query)
        if len(held) < 4:
            return []
        return [reply for q in reversed(held) if isinstance(reply := GOOD(q), bytes)]

    upstream = await Upstream(last_first).start()
    assert await make(upstream.port).ask_many(4) == 4
    assert upstream.connections == 1
    upstream.close()


async def test_one_that_closes_after_each_answer(make: Make) -> None:
    """dnsmasq does after a hundred; what else it was asked is asked again, and it is not called unwell."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        size = int.from_bytes(await reader.readexactly(2))
        reply = GOOD(dns.message.from_wire(await reader.readexactly(size)))
        assert isinstance(reply, bytes)
        writer.write(framed(reply))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    asker = make(server.sockets[0].getsockname()[1], free_port())
    assert await asker.ask_many(20) == 20
    assert connections >= 20
    assert asker.ways[0].well
    server.close()


async def test_one_that_closes_without_an_answer(make: Make) -> None:
    bad = await Upstream(lambda _: None).start()

    def hang_up(query: dns.message.Message) -> None:
        bad.close_connections()

    bad.answer = hang_up
    good = await Upstream(GOOD).start()
    asker = make(bad.port, good.port)
    assert await asker.ask(), "without waiting"
    assert not asker.ways[0].well
    bad.close()
    good.close()


async def test_nobody_there(make: Make) -> None:
    good = await Upstream(GOOD).start()
    assert await make(free_port(), good.port).ask()
    assert await make(free_port()).ask() is None
    good.close()


async def test_rubbish(make: Make) -> None:
    def rubbish(query: dns.message.Message) -> list[bytes]:
        other = GOOD(dns.message.make_query("other.example", "A", id=query.id))
        good = GOOD(query)
        assert isinstance(good, bytes)
        assert isinstance(other, bytes)
        return [b"\xff" * 12, other, query.to_wire(), good]

    upstream = await Upstream(rubbish).start()
    assert await make(upstream.port).ask()
    upstream.answer = lambda _: b"x"
    assert await make(upstream.port).ask() is None, "too short for a message: nothing can follow"
    upstream.close()


async def test_a_connection_that_has_died(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packets vanish, as where a firewall has forgotten it."""
    monkeypatch.setattr(dns_tcp_way, "SILENT", 0.0)
    upstream = await Upstream(GOOD).start()
    asker = make(upstream.port)
    assert await asker.ask()
    upstream.answer = lambda _: None
    wait_so_long(asker.forwarder, 0.2)
    assert await asker.ask() is None
    wait_so_long(asker.forwarder, PATIENT)
    upstream.answer = GOOD
    before = upstream.connections
    assert await asker.ask()
    assert upstream.connections > before
    upstream.close()


async def test_one_that_reads_nothing_keeps_no_connection(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_tcp_way, "IDLE", 0.0)
    with socket.create_server(("127.0.0.1", 0), backlog=LINES) as silent:
        asker = make(silent.getsockname()[1], timeout=0.5)
        queries = [Query() for _ in range(LINES * 50)]
        lines = set()
        for query in queries:
            query.query += bytes(60_000)
            assert asker.forwarder.ask(query)
            lines |= {*asker.ways[0]._lines}
        await until(lambda: any(one._transport is not None for one in lines), "a connection")
        await until(lambda: all(query.got is None for query in queries), "nothing to come of it")
        await until(lambda: all(is_closed(one) for one in lines), "their end")


def is_closed(line: dns_tcp_way._Line) -> bool:
    transport = line._transport
    return transport is None or transport.get_extra_info("socket").fileno() < 0


async def test_one_that_takes_no_connection_keeps_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would try for minutes."""
    monkeypatch.setattr(dns_tcp_way, "SILENT", 0.0)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        asker = make(full.getsockname()[1], timeout=0.2)
        assert await asker.ask_many(20) == 0
        await until(lambda: not asker.ways[0]._connecting, "the end of all attempts")


async def test_a_long_answer(make: Make) -> None:
    upstream = await Upstream(records(*(f"60 A 192.0.2.{i}" for i in range(250)))).start()
    data = await make(upstream.port).ask()
    assert data is not None
    assert len(data) > 3000
    upstream.close()


async def test_a_connection_that_dribbles_is_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never ends is none."""
    monkeypatch.setattr(dns_tcp_way, "SILENT", 0.1)
    connections = []

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while not writer.is_closing():
            writer.write(b"\xff")
            await asyncio.sleep(0.01)

    async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
        asker = make(server.sockets[0].getsockname()[1], timeout=0.3)
        assert await asker.ask() is None
        assert await asker.ask() is None
        assert len(connections) == 2
