"""Queries of every kind, told to the service directly."""

import asyncio
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import free_port, until
from gateway.dns_support import GOOD, PATIENT, Rig, Upstream, records, serving, wait_so_long
from resolver.test_wire import question
from urlward.dns import policy
from urlward.dns import service as dns_service


class Asker:
    """A client that keeps its answers."""

    def __init__(self, host: str = "192.0.2.7") -> None:
        self.host, self.asker = host, policy.Asker(host, 4000)
        self.answers: list[bytes] = []

    def answer(self, data: bytes) -> None:
        self.answers.append(data)

    @property
    def place(self) -> "Asker":
        return self

    @property
    def codes(self) -> list[int]:
        return [data[3] & 15 for data in self.answers]


def wire(name: str = "plain.example", kind: str = "A", **values: object) -> bytes:
    return dns.message.make_query(name, kind, **values).to_wire()  # type: ignore[arg-type]


async def test_long_answers_are_looked_at_by_turns(rig: Rig, upstream: Upstream) -> None:
    """Of hundreds that came at once each took milliseconds, for which all else had to wait."""
    upstream.answer = lambda _: None
    ours, theirs = Asker(), Asker("192.0.2.8")
    names = [f"n{n}.example" for n in range(4)]
    for name in names:
        rig.service.ask(wire(name, "TXT", use_edns=0, payload=4096), theirs if name == names[-1] else ours)
    for asked in list(rig.service._under_way[False].values()):
        response = dns.message.make_response(dns.message.from_wire(asked.query))
        response.answer.append(
            dns.rrset.from_text(
                response.question[0].name, 60, "IN", "TXT", *("abcdefgh"[i] * 200 for i in range(8))
            )
        )
        rig.forwarders[0]._finish(asked, response.to_wire(max_size=4096))
    rounds = []
    while len(ours.answers) + len(theirs.answers) < len(names):
        await asyncio.sleep(0)
        rounds.append((len(ours.answers), len(theirs.answers)))
    assert rounds == [(1, 0), (1, 1), (2, 1), (3, 1)]


async def test_answers_are_steered_by_turns(rig: Rig, upstream: Upstream) -> None:
    """A client that asked for 3,000 names of a listed host in a second kept all others from an answer."""
    upstream.answer = lambda _: None
    ours, theirs = Asker(), Asker("192.0.2.8")
    for n in range(100):
        rig.service.ask(wire(f"n{n}.blocked.example"), ours)
    rig.service.ask(wire("theirs.blocked.example"), theirs)
    for asked in list(rig.service._under_way[False].values()):
        response = dns.message.make_response(dns.message.from_wire(asked.query))
        response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", "A", "192.0.2.1"))
        rig.forwarders[0]._finish(asked, response.to_wire())
    while not theirs.answers:
        await asyncio.sleep(0)
    assert len(ours.answers) < 20
    await until(lambda: len(ours.answers) == 100)
    assert not any(ours.codes)


async def test_answers_of_the_filters_own_are_made_by_turns(rig: Rig) -> None:
    """Each takes half a millisecond: a client that asked for 3,000 a second had a worker to itself."""
    ours, theirs = Asker(), Asker("192.0.2.8")
    for n in range(100):
        rig.service.ask(wire("mask.icloud.com", ("A", "AAAA")[n % 2], payload=1_000 + n), ours)
    rig.service.ask(wire("use-application-dns.net"), theirs)
    same = wire("MASK.icloud.com")
    for n in range(9):
        rig.service.ask(n.to_bytes(2) + same[2:], ours)
    assert len(rig.service._under_way[False]) == 102, "who asks the same meanwhile shares an answer"
    while not theirs.answers:
        await asyncio.sleep(0)
    assert len(ours.answers) < 20
    await until(lambda: len(ours.answers) == 109)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_an_answer_for_many_is_sent_by_turns(rig: Rig, upstream: Upstream, is_answered: bool) -> None:
    """Whoever has as many addresses had thousands ask the same, and all else wait for a tenth of a second."""
    upstream.answer = lambda _: None
    query, many, other = wire(), [Asker(f"2001:db8:0:{n % 8}::{n:x}") for n in range(250)], Asker()
    for client in many:
        rig.service.ask(query, client)
    (asked,) = rig.service._under_way[False].values()
    response = dns.message.make_response(dns.message.from_wire(query)).to_wire()
    rig.forwarders[0]._finish(asked, response if is_answered else None)
    rig.service.ask(query, other)
    rounds = []
    while not rounds or rounds[-1] < len(many):
        await asyncio.sleep(0)
        rounds.append(sum(len(client.answers) for client in many))
    assert rounds == [100, 200, 250]
    assert not other.answers, "who asks later has an answer of its own"
    assert rig.service._owed == [1, 0]


@pytest.mark.parametrize("data", [b"", b"x" * 11, b"\0\0\x80" + bytes(9)], ids=["empty", "short", "answer"])
async def test_what_gets_no_answer(rig: Rig, data: bytes) -> None:
    client = Asker()
    assert not rig.service.ask(data, client)
    assert client.answers == []


async def test_an_answer_sent_to_us(rig: Rig) -> None:
    client = Asker()
    assert not rig.service.ask(dns.message.make_response(question()).to_wire(), client)
    assert client.answers == []


@pytest.mark.parametrize("code", [dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE])
async def test_other_opcodes(rig: Rig, code: dns.opcode.Opcode) -> None:
    query = dns.message.make_query("plain.example", "A")
    query.set_opcode(code)
    client = Asker()
    assert rig.service.ask(query.to_wire(), client)
    got = dns.message.from_wire(client.answers[0])
    assert (got.rcode(), got.opcode(), got.id) == (dns.rcode.NOTIMP, code, query.id)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:4] + b"\0\0" + data[6:],
        lambda data: data[:4] + b"\0\2" + data[6:],
        lambda data: data[:6] + b"\0\1" + data[8:],
        lambda data: data[:-2],
        lambda data: data[:12] + b"\xc0\x0c" + data[14:],
    ],
    ids=["no question", "two", "an answer in it", "cut short", "a pointer to itself"],
)
async def test_queries_in_error(rig: Rig, change: object) -> None:
    client = Asker()
    data = change(wire())  # type: ignore[operator]
    assert rig.service.ask(data, client)
    assert client.codes == [dns.rcode.FORMERR]
    assert len(client.answers[0]) <= len(data), "no more than was sent"


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
async def test_transfers(rig: Rig, kind: str) -> None:
    client = Asker()
    rig.service.ask(wire(kind=kind), client)
    assert client.codes == [dns.rcode.REFUSED]


async def test_edns_and_flags_pass_as_they_are(rig: Rig, upstream: Upstream) -> None:
    query = dns.message.make_query("plain.example", "A", use_edns=0, want_dnssec=True, payload=1400)
    query.flags |= dns.flags.CD | dns.flags.AD
    query.use_edns(
        0, dns.flags.DO, 1400, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")]
    )
    rig.service.ask(query.to_wire(), Asker())
    await until(lambda: upstream.wires, "the query")
    assert upstream.wires[0][2:] == query.to_wire()[2:]
    assert upstream.wires[0][:2] != query.to_wire()[:2] or upstream.peers, "the id is another"


@pytest.mark.parametrize("tcp", [False, True])
async def test_who_asks_without_recursion_is_answered_all_the_same(
    rig: Rig, upstream: Upstream, *, tcp: bool
) -> None:
    """Resolvers at clients that ask authoritative servers come here; most resolvers refuse what they ask."""

    def recurse(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NOERROR if query.flags & dns.flags.RD else dns.rcode.REFUSED)
        return response.to_wire()

    upstream.answer = recurse
    query = dns.message.make_query("plain.example", "A", flags=0)
    for number in range(2):
        client = Asker()
        rig.service.ask(query.to_wire(), client, tcp=tcp)
        await until(lambda client=client: client.codes, "the answer")
        assert client.codes == [dns.rcode.NOERROR], number
        # As of an authoritative server: BIND takes others for lame, and none of their answers.
        flags = dns.message.from_wire(client.answers[0]).flags
        assert flags & (dns.flags.AA | dns.flags.RD | dns.flags.RA) == dns.flags.AA


async def test_who_asks_without_recursion_shares_no_answer_with_who_asks_with_it(
    rig: Rig, upstream: Upstream
) -> None:
    upstream.answer = lambda query: dns.message.make_response(query, recursion_available=True).to_wire()
    one, other = Asker(), Asker()
    rig.service.ask(dns.message.make_query("plain.example", "A", flags=0).to_wire(), one)
    rig.service.ask(wire("plain.example"), other)
    await until(lambda: one.answers and other.answers, "the answers")
    flags = dns.message.from_wire(other.answers[0]).flags
    assert flags & (dns.flags.AA | dns.flags.RD | dns.flags.RA) == dns.flags.RD | dns.flags.RA


async def test_the_same_query_is_asked_once(tmp_path: Path, upstream: Upstream) -> None:
    upstream.answer = lambda _: None
    one, other = Asker(), Asker()
    rest = wire()[2:]
    async with serving(tmp_path, upstream, timeout=0.5) as rig:
        assert rig.service.ask(b"\0\1" + rest, one)
        assert rig.service.ask(b"\0\2" + rest, other)
        assert not rig.service.ask(b"\0\1" + rest, one), "again, since there is no answer yet"
        await until(lambda: one.answers and other.answers, "the end")
        assert [data[:2] for data in one.answers + other.answers] == [b"\0\1", b"\0\2"]
        assert one.codes == other.codes == [dns.rcode.SERVFAIL]
        assert len({w[2:] for w in upstream.wires}) == 1
        assert len(upstream.wires) == 2, "and once again where there is no answer"
        wait_so_long(rig.forwarders[0], PATIENT)
        upstream.answer = GOOD
        rig.service.ask(b"\0\3" + rest, one)
        await until(lambda: len(one.answers) == 2, "the answer")
        assert one.codes[1] == dns.rcode.NOERROR


async def test_letter_case_of_the_question_comes_back(rig: Rig, upstream: Upstream) -> None:
    def shout(query: dns.message.Message) -> bytes:
        reply = GOOD(query)
        assert isinstance(reply, bytes)
        return reply.replace(b"pLaIn", b"PLAIN")

    upstream.answer = shout
    client = Asker()
    rig.service.ask(wire("pLaIn.example"), client)
    await until(lambda: client.answers, "the answer")
    assert b"pLaIn" in client.answers[0]


async def test_answers_that_cannot_be_read(rig: Rig, upstream: Upstream) -> None:
    def cut(query: dns.message.Message) -> bytes:
        reply = GOOD(query)
        assert isinstance(reply, bytes)
        return reply[:-3]

    upstream.answer = cut
    client = Asker()
    rig.service.ask(wire(), client)
    await until(lambda: client.answers, "the answer")
    assert client.codes == [dns.rcode.SERVFAIL]


@pytest.mark.parametrize("missing", [0, 3])
async def test_truncated_answers_pass(rig: Rig, upstream: Upstream, missing: int) -> None:
    def cut(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
        response.flags |= dns.flags.TC
        wire = response.to_wire()
        return wire[: len(wire) - missing]

    upstream.answer = cut
    client = Asker()
    rig.service.ask(wire(), client)
    await until(lambda: client.answers, "the answer")
    assert dns.message.from_wire(client.answers[0]).flags & dns.flags.TC


async def test_an_answer_larger_than_the_client_takes(rig: Rig, upstream: Upstream) -> None:
    upstream.answer = records(*(f"60 A 192.0.2.{i}" for i in range(60)))
    for edns, cut in ((None, True), (512, True), (4000, False)):
        client = Asker()
        values = {} if edns is None else {"use_edns": 0, "payload": edns}
        rig.service.ask(wire(**values), client)
        await until(lambda: client.answers, "the answer")  # noqa: B023
        got = dns.message.from_wire(client.answers[0])
        assert bool(got.flags & dns.flags.TC) is cut
        assert bool(got.answer) is not cut
    client = Asker()
    rig.service.ask(wire(), client, tcp=True)
    await until(lambda: client.answers, "the answer")
    assert len(dns.message.from_wire(client.answers[0]).answer[0]) == 60


async def test_answers_whose_fragments_are_lost(tmp_path: Path) -> None:
    """A client that would ask for shorter ones itself, where nobody answers, has an answer from us."""

    def lossy(query: dns.message.Message) -> bytes | tuple[()]:
        response = dns.message.make_response(query)
        name = query.question[0].name
        if name.to_text().startswith("long"):
            strings = [f'"{i:04}{"x" * 200}"' for i in range(9)]
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *strings))
        rig.forwarders[0]._interval = PATIENT  # from here on
        data = response.to_wire(max_size=query.payload or 65_535, prefer_truncation=True)
        return data if len(data) <= 1400 or not query.payload else ()

    upstream = await Upstream(lossy).start()
    async with serving(tmp_path, upstream) as rig:
        wait_so_long(rig.forwarders[0], 0.1)
        query = dns.message.make_query("long.example", "TXT", use_edns=0, want_dnssec=True, payload=4096)
        got = await rig.send(query)
        assert (got.rcode(), bool(got.flags & dns.flags.TC)) == (dns.rcode.NOERROR, True)
        first, second = map(dns.message.from_wire, upstream.wires)
        assert (first.payload, second.payload) == (4096, 1232)
        second.use_edns(0, second.ednsflags, 4096)
        assert second.to_wire()[2:] == query.to_wire()[2:] == upstream.wires[0][2:], "all else is as it was"
        assert len((await rig.ask("long.example", "TXT", tcp=True)).answer[0]) == 9
        await rig.send(dns.message.make_query("short.example", "TXT", use_edns=0, payload=4096))
        assert dns.message.from_wire(upstream.wires[-1]).payload == 4096, "the first time all is as it came"


async def test_no_more_than_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that is slow, and clients that ask on: nothing piles up."""
    monkeypatch.setattr(dns_service, "OWED", (50, 50))
    monkeypatch.setattr(dns_service, "OWED_TO_ONE", (20, 20))
    upstream = await Upstream(lambda _: None).start()
    async with serving(tmp_path, upstream, timeout=0.5) as rig:
        greedy, other = Asker("192.0.2.1"), Asker("192.0.2.2")
        for number in range(100):
            rig.service.ask(wire(f"n{number}.example"), greedy)
        assert greedy.codes == [dns.rcode.SERVFAIL] * 80
        rig.service.ask(wire(), other)
        assert other.codes == []
        more = [Asker(f"198.51.100.{i}") for i in range(100)]
        for client in more:
            rig.service.ask(wire(f"of-{client.host}.example"), client)
        assert sum(len(client.answers) for client in more) == 71
        await until(lambda: len(greedy.answers) == 100 and other.answers, "the end")
        await until(lambda: all(client.answers for client in more), "the end")
        assert rig.service._owed == [0, 0]
        assert rig.service._owed_to == ({}, {})
        assert rig.service._under_way == ({}, {})


async def test_no_more_than_so_many_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may have all addresses of a network of IPv6."""
    monkeypatch.setattr(dns_service, "OWED_TO_NETWORK", (30, 10))
    upstream = await Upstream(lambda _: None).start()
    async with serving(tmp_path, upstream, timeout=0.5) as rig:
        for tcp, most in ((False, 30), (True, 10)):
            greedy = [Asker(f"2001:db8:1:2::{i:x}") for i in range(100)]
            others = [Asker(f"2001:db8:1:{i:x}::1") for i in range(3, 100)]
            others += [Asker(f"fe80::{i:x}%lan0") for i in range(100)]
            others += [Asker(f"::ffff:192.0.2.{i}") for i in range(100)]
            for number, client in enumerate([*greedy, *others]):
                rig.service.ask(wire(f"n{number}.example"), client, tcp=tcp)
            assert sum(len(client.answers) for client in greedy) == 100 - most
            assert not any(client.answers for client in others)
            await until(lambda g=greedy, o=others: all(one.answers for one in (*g, *o)), "the end")
        assert rig.service._owed_to == ({}, {})


async def test_no_client_has_all_whatever_networks_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many a line has 256 networks of IPv6."""
    monkeypatch.setattr(dns_service, "OWED", (1_000, 800))
    monkeypatch.setattr(dns_service, "OWED_TO_NETWORK", (500, 400))
    upstream = await Upstream(lambda _: None).start()
    async with serving(tmp_path, upstream, timeout=0.5) as rig:
        greedy = [Asker(f"2001:db8:1:{i:x}::1") for i in range(10)]
        for number in range(5_000):
            rig.service.ask(wire(f"n{number}.example"), greedy[number % len(greedy)])
        others = [Asker(f"2001:db8:2:{i:x}::1") for i in range(20)]
        for number, client in enumerate(others):
            rig.service.ask(wire(f"of-{number}.example"), client)
        assert not any(client.answers for client in others)
        await until(lambda: all(client.answers for client in others), "the end")
        await until(lambda: not any(rig.service._owed), "the end")


async def test_over_tcp_there_is_room_for_others_at_the_resolver(tmp_path: Path) -> None:
    """It takes 800 at a time, which five clients may ask for."""
    upstream = await Upstream(lambda _: None).start()
    async with serving(tmp_path, upstream, timeout=0.5) as rig:
        greedy, other = [Asker(f"192.0.2.{i}") for i in range(5)], Asker("192.0.2.200")
        for number in range(1_000):
            rig.service.ask(wire(f"n{number}.example"), greedy[number // 200], tcp=True)
        rig.service.ask(wire(), other, tcp=True)
        assert not other.answers
        await until(lambda: other.answers, "the end")


async def test_nobody_to_ask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, free_port(), timeout=30.0) as rig:
        clients = [Asker() for _ in range(300)]
        for number, client in enumerate(clients):
            rig.service.ask(wire(f"n{number}.example"), client)
        await until(lambda: all(client.answers for client in clients), "the end")
        assert {code for client in clients for code in client.codes} == {dns.rcode.SERVFAIL}
        assert len([line for line in caplog.messages if "no DNS resolver answers" in line]) == 1


async def test_a_slow_kernel_holds_up_listed_names_alone(rig: Rig) -> None:
    rig.kernel.gate = asyncio.Event()
    listed, plain = Asker(), Asker()
    rig.service.ask(wire("blocked.example"), listed)
    rig.service.ask(wire(), plain)
    await until(lambda: plain.answers, "the other")
    assert not listed.answers
    rig.kernel.gate.set()
    await until(lambda: listed.answers, "the answer")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
@given(st.lists(st.tuples(st.binary(max_size=80), st.booleans()), min_size=10, max_size=20))
def test_any_bytes(tmp_path: Path, asked: list[tuple[bytes, bool]]) -> None:
    async def ask() -> None:
        async with serving(tmp_path, 9, timeout=0.02) as rig:
            for rest, tcp in asked:
                for data in (rest, rest[:2] + b"\1\0\0\1\0\0\0\0\0\0" + rest[2:]):
                    client = Asker()
                    if rig.service.ask(data, client, tcp=tcp):
                        await until(lambda: client.answers, "an answer")  # noqa: B023
                    assert len(client.answers) <= 1

    asyncio.run(ask())
