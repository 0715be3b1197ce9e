"""Real clients over UDP."""

import asyncio
import socket

import dns.exception
import dns.message
import pytest

from conftest import until
from gateway.dns_support import GOOD, PATIENT, Rig, Upstream
from resolver.test_wire import question
from urlward.dns.server import UdpEndpoint
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.77", "::1"])
async def test_answers_leave_from_the_address_that_was_asked(rig: Rig, host: str) -> None:
    """dnspython refuses any other."""
    assert (await rig.ask("plain.example", host=host)).answer
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.connect((host, rig.port))
        s.send(question().to_wire())
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(s, 4096), PATIENT)


async def test_both_families_are_listened_on(rig: Rig) -> None:
    names = {(s.family, s.type) for s in rig.server.sockets}
    assert len(names) == 4


async def test_many_at_once(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.ask(f"n{i}.example") for i in range(300)))
    assert {a.question[0].name.to_text() for a in answers} == {f"n{i}.example." for i in range(300)}


async def test_what_is_no_query_is_dropped(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.connect(("127.0.0.1", rig.port))
        for data in (
            b"",
            b"x",
            dns.message.make_response(question()).to_wire(),
            question().to_wire() + bytes(5000),
        ):
            s.send(data)
        s.send(good := question().to_wire())
        assert (await asyncio.wait_for(loop.sock_recv(s, 4096), PATIENT))[:2] == good[:2]
        with pytest.raises(BlockingIOError):
            s.recv(1)


async def test_a_client_that_is_gone(rig: Rig) -> None:
    """Its port says so, by ICMP; others are answered on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:  # before them: it gets no port of theirs
        other.setblocking(False)
        other.connect(("127.0.0.1", rig.port))
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.connect(("127.0.0.1", rig.port))
                s.send(question().to_wire())
        other.send((query := question("plain.example")).to_wire())
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 4096), PATIENT)
    response = dns.message.from_wire(received)
    assert query.is_response(response)
    assert response.answer


async def test_a_fault_costs_one_query(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def fail(*_: object, **__: object) -> bool:
        asked.append(1)
        raise RuntimeError

    monkeypatch.setattr(rig.service, "ask", fail)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", rig.port))
        s.send(question().to_wire())
        await until(lambda: asked, "the query")
    monkeypatch.undo()
    assert (await rig.ask("plain.example")).answer
    assert "RuntimeError" in caplog.text


async def test_a_socket_can_be_given_up_twice(rig: Rig) -> None:
    one = UdpEndpoint(rig.service, open_sockets(Address("127.0.0.1", 0, "udp"))[0])
    assert one.sockets
    one.close()
    one.close()
    assert one.sockets == ()


@pytest.mark.parametrize("ends", [False, True])
async def test_answers_that_are_owed_at_a_socket_that_is_given_up(
    rig: Rig, upstream: Upstream, ends: bool
) -> None:
    """As where another worker has come back, whose clients were served meanwhile."""
    upstream.answer = lambda _: None
    (one,) = open_sockets(Address("127.0.0.1", 0, "udp"))
    endpoint = await rig.server.serve(one)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.connect(one.getsockname())
        queries = [question(f"n{i}.example").to_wire() for i in range(3)]
        for query in (*queries, queries[0]):
            s.send(query)
        await until(lambda: len(upstream.asked) == 3, "the queries")
        rig.server.end() if ends else endpoint.close()
        assert endpoint.sockets == ()
        s.send(question("late.example").to_wire())
        upstream.answer = GOOD
        upstream.answer_held()
        got = [await asyncio.wait_for(loop.sock_recv(s, 4096), PATIENT) for _ in queries]
    assert {data[:2] for data in got} == {query[:2] for query in queries}
    assert "late.example" not in upstream.asked
    await until(lambda: one.fileno() < 0, "the end")


async def test_the_end(rig: Rig) -> None:
    rig.server.end()
    with pytest.raises((dns.exception.DNSException, OSError)):
        await asyncio.wait_for(rig.ask("plain.example"), 0.3)
