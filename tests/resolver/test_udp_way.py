"""Resolvers over UDP that do what they should not."""

import asyncio
import socket
import subprocess

import dns.message
import dns.rcode
import pytest

from conftest import free_port, until
from e2e.test_modes import may_make_namespaces
from gateway.dns_support import GOOD, PATIENT, Answer, Upstream, wait_so_long
from gateway.inside import own_network
from lists.support import descriptors
from resolver.asking import Asker, Make, making
from resolver.test_forward import NOTHING, Query
from urlward.dns import upstream as dns_udp_way
from urlward.dns.resolver_addresses import parse_resolver
from urlward.dns.upstream import SOURCES, UdpWay

make = making(UdpWay)


def wrong_id(query: dns.message.Message) -> bytes:
    data = GOOD(query)
    assert isinstance(data, bytes)
    return bytes([data[0] ^ 1]) + data[1:]


def wrong_question(query: dns.message.Message) -> bytes:
    other = dns.message.make_query("other.example", "A", id=query.id)
    data = GOOD(other)
    assert isinstance(data, bytes)
    return data


def after(*bad: bytes | Answer) -> Answer:
    """Rubbish, and then the answer."""

    def answer(query: dns.message.Message) -> list[bytes]:
        replies = [one if isinstance(one, bytes) else one(query) for one in (*bad, GOOD)]
        return [reply for reply in replies if isinstance(reply, bytes)]

    return answer


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"x", b"\xff" * 12, wrong_id, wrong_question, lambda query: query.to_wire()],
    ids=["empty", "short", "garbage", "id", "question", "query"],
)
async def test_what_is_no_answer_is_passed_over(make: Make, rubbish: bytes | Answer) -> None:
    upstream = await Upstream(after(rubbish)).start()
    data = await make(upstream.port).ask()
    assert data is not None
    assert dns.message.from_wire(data).answer[0][0].address == "192.0.2.1"
    upstream.close()


async def test_an_answer_from_elsewhere(make: Make) -> None:
    upstream = await Upstream(lambda _: None).start()
    asker = make(upstream.port, timeout=0.4)
    query = Query()
    asker.forwarder.ask(query)
    await until(lambda: upstream.peers, "the query")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        reply = GOOD(dns.message.from_wire(upstream.wires[0]))
        assert isinstance(reply, bytes)
        s.sendto(reply, upstream.peers[0])
    await until(lambda: query.got is not NOTHING, "the end")
    assert query.got is None, "right id and question, wrong address"
    upstream.close()


async def test_ports_and_ids_by_chance(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_udp_way, "QUERIES", 10)
    upstream = await Upstream(GOOD).start()
    asker = make(upstream.port)
    for _ in range(100):
        assert await asker.ask()
    ids = [wire[:2] for wire in upstream.wires]
    assert len(set(ids)) > 95
    assert len(set(upstream.peers)) >= 100 // 10, "each port for so many queries"
    assert len(set(upstream.peers[:50])) > 5
    await until(lambda: sum(source is not None for source in asker.ways[0]._sources) <= SOURCES, "sockets")
    upstream.close()


async def test_sockets_that_are_done_are_closed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_udp_way, "QUERIES", 1)
    upstream = await Upstream(GOOD).start()
    asker = make(upstream.port)
    before = descriptors("socket:")
    for _ in range(50):
        await asker.ask()
    assert len(descriptors("socket:") - before) <= SOURCES
    upstream.answer = lambda _: None
    asker = make(upstream.port, timeout=0.2)
    await asyncio.gather(*(asker.ask() for _ in range(50)))
    assert len(descriptors("socket:") - before) <= SOURCES
    upstream.close()


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
async def test_this_machine_has_another_address() -> None:
    """As after a lease or PPPoE: from sockets that are connected the kernel sends nothing any more."""
    resolver, before, now = "192.0.2.53", "192.0.2.10", "192.0.2.11"

    def sent_from(address: str) -> None:
        route = f"route replace local {resolver} dev lo table local src {address}"
        for line in (f"addr add {address}/32 dev lo", route):
            subprocess.run(["ip", *line.split()], check=True)

    def answer() -> None:
        data, peer = server.recvfrom(4096)
        reply = GOOD(dns.message.from_wire(data))
        assert isinstance(reply, bytes)
        server.sendto(reply, peer)

    with own_network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as server:
        subprocess.run(["ip", "addr", "add", f"{resolver}/32", "dev", "lo"], check=True)
        server.bind((resolver, 0))
        loop = asyncio.get_running_loop()
        loop.add_reader(server, answer)
        sent_from(before)
        asker = Asker([UdpWay(parse_resolver(f"{resolver}:{server.getsockname()[1]}"))], PATIENT)
        try:
            for _ in range(40):
                assert await asker.ask()
            sent_from(now)
            subprocess.run(["ip", "addr", "del", f"{before}/32", "dev", "lo"], check=True)
            for _ in range(20):
                assert await asker.ask()
        finally:
            loop.remove_reader(server)
            asker.forwarder.close()


async def test_nothing_comes_back_to_the_sockets_that_are_open(make: Make) -> None:
    """As after such a change of IPv6, or where a translator has forgotten them: all of them are left."""
    gone: set[object] = set()

    def answer(query: dns.message.Message) -> bytes | None:
        return None if upstream.peers[-1] in gone else GOOD(query)

    upstream = await Upstream(answer).start()
    asker = make(upstream.port, timeout=2.0)
    for _ in range(100):
        assert await asker.ask()
    gone.update(upstream.peers)
    await asker.ask()  # which may be the one that finds it out
    for _ in range(20):
        assert await asker.ask()
    upstream.close()


async def test_nothing_comes_back_to_some_of_the_sockets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where some are younger than such a change: these are answered, and the others left one by one."""
    monkeypatch.setattr(dns_udp_way, "SILENT", 0.0)
    gone: set[object] = set()

    def answer(query: dns.message.Message) -> bytes | None:
        return None if upstream.peers[-1] in gone else GOOD(query)

    upstream = await Upstream(answer).start()
    asker = make(upstream.port, timeout=0.2)
    monkeypatch.setattr(
        asker.forwarder, "mark", lambda _: None
    )  # as where others' queries are answered all the time
    for _ in range(100):
        assert await asker.ask()
    gone.update(list(dict.fromkeys(upstream.peers))[: SOURCES // 2])
    before = len(upstream.peers)
    for _ in range(30):
        await asker.ask()
    lost = [peer for peer in upstream.peers[before:] if peer in gone]
    assert len(lost) <= 2 * len(gone), "both times that a query was asked"
    upstream.close()


async def test_other_resolvers_leave_no_socket_of_those_before(make: Make) -> None:
    before, now = await Upstream(GOOD).start(), await Upstream(GOOD).start()
    opened = descriptors("socket:")
    asker = make(before.port)
    for _ in range(40):
        assert await asker.ask()
    before.answer = lambda _: None
    wait_so_long(asker.forwarder, 0.2)
    query = Query("waits.example")
    assert asker.forwarder.ask(query)
    asker.forwarder.take_ways([UdpWay(parse_resolver(f"127.0.0.1:{now.port}"))])
    await until(lambda: query.got is not NOTHING, "an answer")
    assert query.got, "of the other, as the first has had its turn"
    assert now.asked == ["waits.example"]
    assert len(descriptors("socket:") - opened) == 1
    before.close()
    now.close()


async def test_nobody_there(make: Make) -> None:
    upstream = await Upstream(GOOD).start()
    asker = make(free_port(), upstream.port)
    assert await asker.ask(), "the next at once, since the kernel says so"
    assert not asker.ways[0].well
    upstream.close()


async def test_nobody_anywhere(make: Make) -> None:
    asker = make(free_port(), free_port())
    assert await asyncio.gather(*(asker.ask() for _ in range(200))) == [None] * 200
    assert asker.forwarder.under_way == 0


async def test_a_network_that_cannot_be_reached(make: Make) -> None:
    asker = make(free_port())
    # The kernel refuses to connect there.
    asker.ways[0]._resolver = parse_resolver("255.255.255.255")
    assert await asker.ask() is None


async def test_a_resolver_that_refuses_without_a_word(make: Make) -> None:
    def refuse(query: dns.message.Message) -> bytes:
        return query.id.to_bytes(2) + b"\x80\x05" + bytes(8)

    one, other = await Upstream(refuse).start(), await Upstream(GOOD).start()
    assert await make(one.port, other.port).ask()
    one.close()
    other.close()


async def test_a_query_that_no_resolver_can_read(make: Make) -> None:
    """Unbound leaves out the question; any client can send such."""
    upstream = await Upstream(lambda query: query.id.to_bytes(2) + b"\x81\x01" + bytes(8)).start()
    asker = make(upstream.port)
    data = await asker.ask()
    assert data is not None
    assert dns.message.from_wire(data).rcode() == dns.rcode.FORMERR
    assert asker.ways[0].well
    assert len(upstream.wires) == 1, "asked once"
    upstream.close()


async def test_twice_the_same_answer(make: Make) -> None:
    def twice(query: dns.message.Message) -> list[bytes]:
        reply = GOOD(query)
        assert isinstance(reply, bytes)
        return [reply, reply]

    upstream = await Upstream(twice).start()
    asker = make(upstream.port)
    for _ in range(10):
        assert await asker.ask()
    upstream.close()
