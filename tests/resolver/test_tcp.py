"""Real clients over TCP."""

import asyncio
import socket
from typing import Any
from unittest.mock import create_autospec

import dns.message
import pytest

from conftest import until
from gateway.dns_support import GOOD, PATIENT, Rig, Upstream, records, wait_so_long
from resolver.test_wire import question
from urlward.dns import server as dns_tcp
from urlward.dns.server import TcpClient, TcpEndpoint
from urlward.dns.service import OWED_TO_ONE
from urlward.dns.wire import framed
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets


async def connect(rig: Rig, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", rig.port, local_addr=(source, 0))


async def receive(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(PATIENT):
        size = int.from_bytes(await reader.readexactly(2))
        return dns.message.from_wire(await reader.readexactly(size))


def wire(name: str) -> bytes:
    return framed(question(name).to_wire())


def name(message: dns.message.Message) -> str:
    return message.question[0].name.to_text(omit_final_dot=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_query(rig: Rig, host: str) -> None:
    assert (await rig.ask("plain.example", host=host, tcp=True)).answer


async def test_pipelined_and_in_pieces(rig: Rig, upstream: Upstream) -> None:
    reader, writer = await connect(rig)
    stream = b"".join(wire(f"n{i}.example") for i in range(200))
    for at in range(0, len(stream), 97):
        writer.write(stream[at : at + 97])
        await writer.drain()
    got = {name(await receive(reader)) for _ in range(200)}
    assert got == {f"n{i}.example" for i in range(200)}
    writer.close()


async def test_a_slow_name_holds_up_no_other(rig: Rig, upstream: Upstream) -> None:
    upstream.answer = lambda query: None if "slow" in query.question[0].to_text() else GOOD(query)
    reader, writer = await connect(rig)
    writer.write(wire("slow.example") + wire("quick.example"))
    assert name(await receive(reader)) == "quick.example"
    upstream.answer = GOOD
    upstream.answer_held()
    assert name(await receive(reader)) == "slow.example"
    writer.close()


async def test_so_many_under_way_on_a_connection(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_tcp, "OUTSTANDING", 3)
    upstream.answer = lambda _: None
    reader, writer = await connect(rig)
    for i in range(10):
        writer.write(wire(f"n{i}.example"))
    await until(lambda: len(upstream.asked) == 3, "the first")
    assert rig.service._owed == [0, 3]
    upstream.answer = GOOD
    upstream.answer_held()
    assert {name(await receive(reader)) for _ in range(10)} == {f"n{i}.example" for i in range(10)}
    writer.close()


async def test_an_end_behind_queries(rig: Rig) -> None:
    """What was asked before is answered, and then the connection ends."""
    reader, writer = await connect(rig)
    for i in range(100):
        writer.write(wire(f"n{i}.example"))
    writer.write_eof()
    for _ in range(100):
        await receive(reader)
    assert await reader.read() == b""
    writer.close()


async def test_what_is_no_query_ends_the_connection(rig: Rig) -> None:
    reader, writer = await connect(rig)
    writer.write(framed(b"short"))
    assert await closed(reader)
    writer.close()
    reader, writer = await connect(rig)
    writer.write(wire("plain.example"))
    await receive(reader)
    writer.write(framed(dns.message.make_response(question()).to_wire()))
    assert await closed(reader)
    writer.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENT):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def test_many_that_are_answered_at_once(rig: Rig) -> None:
    reader, writer = await connect(rig)
    bad = question().to_wire()
    writer.write(framed(bad[:2] + b"\x28" + bad[3:]) * 5000)
    for _ in range(5000):
        assert (await receive(reader)).rcode() == 4
    writer.write(wire("plain.example"))
    assert (await receive(reader)).answer
    writer.close()


async def test_a_fault_costs_one_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr(rig.service, "ask", fail)
    reader, writer = await connect(rig)
    writer.write(wire("plain.example"))
    assert await closed(reader)
    writer.close()
    monkeypatch.undo()
    assert (await rig.ask("plain.example", tcp=True)).answer
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("begun", [b"", b"\0\x20half"])
async def test_idle_connections_end(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(dns_tcp, "IDLE", 0.2)
    wait_so_long(rig.forwarders[1], 0.2)
    upstream.answer = lambda _: None
    reader, writer = await connect(rig)
    writer.write(wire("slow.example"))
    assert (await receive(reader)).rcode() == 2, "a query that waits is no idleness"
    writer.write(begun)
    assert await closed(reader)
    writer.close()


async def test_a_client_that_reads_nothing(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither answered without end nor kept."""
    monkeypatch.setattr(dns_tcp, "IDLE", 0.3)
    long = records(*(f"60 A 192.0.{i // 250}.{i % 250}" for i in range(4000)))(question("plain.example"))
    assert isinstance(long, bytes)
    upstream.answer = lambda query: query.id.to_bytes(2) + long[2:]
    reader, writer = await connect(rig)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    stream = wire("plain.example") * 1000
    with pytest.raises(ConnectionError):  # noqa: PT012
        async with asyncio.timeout(60):
            while True:
                writer.write(stream)
                await writer.drain()
    await until(lambda: rig.service._owed == [0, 0], "nothing owed")
    writer.transport.abort()


async def test_what_a_client_has_asked_for_and_does_not_read_is_bounded(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers may have 64 KB each, and come all at once."""
    upstream.answer = lambda _: None
    answers, most = TcpClient.answer, [0]

    def answer(client: TcpClient, data: bytes) -> None:
        answers(client, data)
        if not client._gone:
            most[0] = max(most[0], client._transport.get_write_buffer_size())

    monkeypatch.setattr(TcpClient, "answer", answer)
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.setblocking(False)
        await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", rig.port))
        for n in range(dns_tcp.OUTSTANDING):
            query = framed(question(f"n{n}.example", "TXT").to_wire())
            await asyncio.get_running_loop().sock_sendall(silent, query)
        await until(lambda: len(upstream.asked) == dns_tcp.OUTSTANDING, "the queries")
        upstream.answer = records(*(f'60 TXT "{n:03}{"x" * 250}"' for n in range(230)))
        upstream.answer_held()
        await until(lambda: rig.service._owed == [0, 0], "nothing owed")
        assert most[0] <= dns_tcp.UNREAD + 0xFFFF + 2
    assert (await rig.ask("plain.example", "TXT", tcp=True)).answer


@pytest.mark.parametrize(
    ("bound", "source"),
    [
        ("CONNECTIONS_OF_ONE", "127.0.0.1"),
        ("CONNECTIONS_OF_NETWORK", "127.0.0.2"),
        ("CONNECTIONS", "127.0.0.2"),
    ],
)
async def test_so_many_connections(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, bound: str, source: str
) -> None:
    """The one goes that has been idle for longest; none goes that is owed an answer."""
    monkeypatch.setattr(dns_tcp, bound, 3)
    if bound == "CONNECTIONS_OF_NETWORK":
        monkeypatch.setattr(dns_tcp, "counted_by", lambda host: (host, "2001:db8::/64"))
    open_ones = [await connect(rig) for _ in range(3)]
    for number in (1, 0, 2):
        reader, writer = open_ones[number]
        writer.write(wire("plain.example"))
        await receive(reader)
    upstream.answer = lambda _: None
    open_ones[1][1].write(wire("slow.example"))
    await until(lambda: upstream.asked[-1] == "slow.example", "the query")
    upstream.answer = GOOD
    reader, writer = await connect(rig, source)
    writer.write(wire("plain.example"))
    assert (await receive(reader)).answer
    writer.close()
    assert await closed(open_ones[0][0]), "idle for longest"
    upstream.answer = lambda _: None
    for number in (1, 2):
        open_ones[number][1].write(wire(f"slow{number}.example"))
    await until(lambda: {"slow1.example", "slow2.example"} <= set(upstream.asked), "the queries")
    reader, writer = await connect(rig, source)
    writer.write(wire("slow3.example"))
    await until(lambda: "slow3.example" in upstream.asked, "the queries")
    late, late_writer = await connect(rig, source)
    assert await closed(late), "nobody is idle"
    late_writer.close()
    upstream.answer = GOOD
    upstream.answer_held()
    assert {name(await receive(open_ones[1][0])) for _ in range(2)} == {"slow.example", "slow1.example"}
    assert name(await receive(open_ones[2][0])) == "slow2.example"
    assert name(await receive(reader)) == "slow3.example"
    for one in (writer, *(writer for _, writer in open_ones)):
        one.close()
    endpoint = next(e for e in rig.server._endpoints if isinstance(e, TcpEndpoint))
    await until(lambda: not endpoint._of and not endpoint._connections, "all gone")


async def test_a_client_that_does_not_read_makes_room_too(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_tcp, "CONNECTIONS_OF_ONE", 1)
    reader, writer = await connect(rig)
    writer.write(b"\0\x20half")
    endpoint = next(e for e in rig.server._endpoints if isinstance(e, TcpEndpoint))
    await until(lambda: any(one._messages.begun for one in endpoint._connections), "what was begun")
    assert (await rig.ask("plain.example", tcp=True)).answer
    assert await closed(reader)
    writer.close()


async def test_one_client_s_queries_leave_room_at_the_resolver(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver takes so many over TCP at a time, and keeps them while a name is slow."""
    upstream.answer = lambda query: None if "slow" in query.question[0].to_text() else GOOD(query)
    ask, taken = rig.service.ask, [0]

    def counts(*arguments: Any, **values: Any) -> bool:
        taken[0] += 1
        return ask(*arguments, **values)

    monkeypatch.setattr(rig.service, "ask", counts)
    open_ones = [await connect(rig) for _ in range(20)]
    for number, (_, writer) in enumerate(open_ones):
        writer.write(b"".join(wire(f"slow{number}-{i}.example") for i in range(64)))
    await until(lambda: taken[0] == 20 * 64, "the queries")
    assert (await rig.ask("plain.example", host="::1", tcp=True)).answer
    assert rig.service._owed == [0, OWED_TO_ONE[1]]
    for _, writer in open_ones:
        writer.transport.abort()


async def test_a_client_that_leaves_before_the_answer(rig: Rig, upstream: Upstream) -> None:
    upstream.answer = lambda _: None
    _, writer = await connect(rig)
    writer.write(wire("slow.example"))
    await until(lambda: upstream.asked, "the query")
    writer.transport.abort()
    upstream.answer = GOOD
    upstream.answer_held()
    await until(lambda: rig.service._owed == [0, 0], "the end")
    assert (await rig.ask("slow.example", tcp=True)).answer


async def test_the_end(rig: Rig, upstream: Upstream) -> None:
    """Answers that are owed are sent."""
    upstream.answer = lambda _: None
    reader, writer = await connect(rig)
    idle, idle_writer = await connect(rig)
    idle_writer.write(wire("idle.example"))
    writer.write(wire("plain.example"))
    await until(lambda: len(upstream.asked) == 2, "the queries")
    rig.server.end()
    upstream.answer = GOOD
    upstream.answer_held()
    assert (await receive(reader)).answer
    assert await closed(reader)
    await receive(idle)
    assert await closed(idle)
    writer.close()
    idle_writer.close()


async def test_connections_at_a_socket_that_is_given_up_go_on(rig: Rig) -> None:
    """As where another worker has come back, whose clients were served meanwhile."""
    (one,) = open_sockets(Address("127.0.0.1", 0, "tcp"))
    endpoint = await rig.server.serve(one)
    reader, writer = await asyncio.open_connection(*one.getsockname())
    writer.write(wire("plain.example"))
    await receive(reader)
    endpoint.close()
    assert endpoint.sockets == ()
    writer.write(wire("other.example"))
    assert name(await receive(reader)) == "other.example"
    rig.server.end()
    assert await closed(reader)
    writer.close()


async def test_connections_of_a_network_take_turns(rig: Rig) -> None:
    """A client's hundreds, each with questions for listed names, held up all else."""
    endpoint = TcpEndpoint(rig.service)
    taken: list[tuple[str, int]] = []

    class Client(TcpClient):
        def __init__(self, host: str) -> None:
            super().__init__(endpoint)
            self.host = host
            assert endpoint.admit(self)

        def take(self) -> None:
            taken.append((self.host, rounds))
            if self.host == "192.0.2.1" and rounds < 5:
                endpoint.soon(self)  # has more, and alone in the end

    rounds = 0
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8::4", "2001:db8::5", "2001:db8::3", "192.0.2.1", ""):
        client = Client(host)
        endpoint.soon(client)
        if host.endswith((":4", ":5")):
            client.connection_lost(None)  # has no turn, in which they would pile up
    while endpoint._waiting:
        await asyncio.sleep(0)
        rounds += 1
    assert [who for who in taken if who[0] != "192.0.2.1"] == [
        ("2001:db8::1", 0), ("", 0), ("2001:db8::2", 1), ("2001:db8::3", 2),
    ]  # fmt: skip
    assert [number for host, number in taken if host == "192.0.2.1"] == [0, 1, 2, 3, 4, 5]


async def test_what_comes_before_its_turn_is_read_once(rig: Rig) -> None:
    """Hundreds of connections of a network filled the memory, each until its turn came."""
    client, transport = TcpClient(TcpEndpoint(rig.service)), create_autospec(asyncio.Transport, instance=True)
    transport.get_extra_info.return_value = ("192.0.2.1", 5)
    client.connection_made(transport)
    client.data_received(b"\0")
    transport.pause_reading.assert_not_called()
    client.data_received(b"\x20")
    transport.pause_reading.assert_called_once()
    await asyncio.sleep(0)
    transport.resume_reading.assert_called_once()
    client.connection_lost(None)
