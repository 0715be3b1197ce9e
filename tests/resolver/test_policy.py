"""What clients get for names that are listed, with a resolver that knows them."""

import asyncio
import logging
import re
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from conftest import until
from gateway.dns_support import LIST, Rig, Upstream, records, serving
from rows import each_row
from urlward.dns import service as dns_service
from urlward.dns.policy import MOST, Asker
from urlward.dns.resolved import MARGIN
from urlward.dns.wire import framed
from urlward.gateway.table import NftError, SetFullError

NORMAL = records("600 A 192.0.2.1", "600 AAAA 2001:db8::1", '600 HTTPS 1 . alpn="h3,h2"', "600 TXT text")


def alias(query: dns.message.Message) -> bytes:
    """Every name is one for blocked.example."""
    response = dns.message.make_response(query, recursion_available=True)
    name = query.question[0].name
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "x.Blocked.example."))
    response.answer.append(dns.rrset.from_text("x.Blocked.example.", 60, "IN", "A", "192.0.2.1"))
    return response.to_wire()


@pytest.fixture
async def upstream() -> Upstream:
    return await Upstream(NORMAL).start()


def addresses(message: dns.message.Message) -> list[str]:
    return [r.address for rrset in message.answer for r in rrset if hasattr(r, "address")]


async def test_what_is_not_listed_passes_as_it_is(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path, upstream) as rig:
        for kind in ("A", "AAAA", "HTTPS", "TXT", "MX"):
            query = dns.message.make_query("Plain.Example", kind, use_edns=0, want_dnssec=True)
            got = await rig.send(query)
            expected = dns.message.from_wire(bytes(NORMAL(query) or b""))  # type: ignore[arg-type]
            assert got.to_text() == expected.to_text()
        assert not rig.kernel.steered


@pytest.mark.parametrize("name", ["blocked.example", "PAGED.example"])
async def test_addresses_are_steered_before_they_are_told(
    tmp_path: Path, upstream: Upstream, name: str
) -> None:
    async with serving(tmp_path, upstream, max_ttl=120) as rig:
        rig.kernel.gate = asyncio.Event()
        asking = asyncio.create_task(rig.ask(name))
        await until(lambda: rig.kernel.waiting, "the kernel to be told")
        assert not asking.done(), "the answer waits for the kernel"
        rig.kernel.gate.set()
        got = await asking
        assert (addresses(got), got.answer[0].ttl) == (["192.0.2.1"], 120)
        assert rig.kernel.steered == [(["192.0.2.1"], 120 + MARGIN)]
        assert addresses(await rig.ask(name, "AAAA")) == ["2001:db8::1"]
        assert rig.kernel.addresses == {"192.0.2.1", "2001:db8::1"}


async def test_names_that_lead_to_one(tmp_path: Path) -> None:
    upstream = await Upstream(alias).start()
    async with serving(tmp_path, upstream) as rig:
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        assert rig.kernel.addresses == {"192.0.2.1"}


async def test_what_one_leads_to_is_told_as_its_own(tmp_path: Path) -> None:
    def aliases(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, 900, "IN", "CNAME", "x.cdn.example."))
        if query.question[0].rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text("x.cdn.example.", 60, "IN", "A", "192.0.2.1"))
        return response.to_wire()

    upstream = await Upstream(aliases).start()
    async with serving(tmp_path, upstream) as rig:
        (record,) = (await rig.ask("paged.example")).answer
        assert (record.name.to_text(), record.ttl, record[0].address) == ("paged.example.", 60, "192.0.2.1")
        assert rig.kernel.addresses == {"192.0.2.1"}
        for kind in ("AAAA", "HTTPS"):
            got = await rig.ask("paged.example", kind)
            assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
        assert len((await rig.ask("plain.example")).answer) == 2


async def test_service_records_of_a_port(tmp_path: Path, upstream: Upstream) -> None:
    upstream.answer = records('60 HTTPS 1 . alpn="h2" ech=AAT+DQAA ipv4hint=192.0.2.7')
    async with serving(tmp_path, upstream) as rig:
        (record,) = (await rig.ask("_8443._https.paged.example", "HTTPS")).answer
        assert "ech" not in record[0].to_text()
        assert rig.kernel.addresses == {"192.0.2.7"}


async def test_service_records(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path, upstream) as rig:
        (record,) = (await rig.ask("paged.example", "HTTPS")).answer
        assert record[0].to_text() == '1 . alpn="h2"'
        assert not rig.kernel.steered
        upstream.answer = records("600 HTTPS 1 . ipv4hint=192.0.2.7 ipv6hint=2001:db8::7")
        await rig.ask("paged.example", "HTTPS")
        assert rig.kernel.addresses == {"192.0.2.7", "2001:db8::7"}


async def test_service_records_that_cannot_be_read_are_not_told(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is less strict than we must not find a way past the filter in them."""

    def odd(query: dns.message.Message) -> bytes:
        good = records('60 HTTPS 1 . alpn="h3"')(query)
        assert isinstance(good, bytes)
        # The length of a protocol's name is not that of the parameter.
        return good.replace(b"\x02h3", b"\x09h3")

    upstream.answer = odd
    async with serving(tmp_path, upstream) as rig:
        got = await rig.ask("paged.example", "HTTPS")
        assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
        assert (await rig.ask("plain.example", "TXT")).rcode() == dns.rcode.NOERROR
        assert not caplog.messages


async def test_other_types_of_listed_names_pass(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path, upstream) as rig:
        got = await rig.ask("blocked.example", "TXT")
        assert (got.answer[0].ttl, got.answer[0][0].to_text()) == (600, '"text"')
        assert (await rig.ask("blocked.example", "MX")).rcode() == dns.rcode.NOERROR
        assert not rig.kernel.steered


async def test_more_addresses_than_are_steered_are_not_told(tmp_path: Path) -> None:
    upstream = await Upstream(records(*(f"60 A 192.0.2.{i}" for i in range(200)))).start()
    async with serving(tmp_path, upstream) as rig:
        got = addresses(await rig.ask("blocked.example", tcp=True))
        assert len(got) == 64
        assert set(got) == rig.kernel.addresses


@each_row(
    ("kind", "lines"),
    [
        ("A", [f"192.0.{i // 250}.{i % 250}" for i in range(4_000)]),
        ("HTTPS", ["1 . ipv4hint=" + ",".join(["192.0.2.1"] * 3_000)]),
        ("HTTPS", [f"1 t{i}.{'a.' * 90}example." for i in range(20)]),
    ],
    ids=["records", "bytes", "labels"],
)
@pytest.mark.ours
async def test_a_response_that_would_take_long_to_rewrite_is_not_told(
    tmp_path: Path, kind: str, lines: list[str]
) -> None:
    """Whoever runs a listed name may send thousands of records, over and over."""
    upstream = await Upstream(records(*(f"60 {kind} {line}" for line in lines))).start()
    async with serving(tmp_path, upstream) as rig:
        assert len((await rig.ask("plain.example", kind, tcp=True)).answer[0]) == len(lines)
        for name in ("blocked.example", "paged.example"):
            got = await rig.ask(name, kind, tcp=True)
            assert (got.rcode(), got.answer) == (dns.rcode.SERVFAIL, [])
        assert not rig.kernel.addresses


async def test_a_response_with_a_name_that_cannot_be_read_is_not_told(tmp_path: Path) -> None:
    """Nor where faults let pass: whoever runs a listed name chooses what else it has."""

    def answer(query: dns.message.Message) -> bytes:
        data = bytearray(records("60 A 192.0.2.1")(query))
        data[9] += 1  # an NS record, whose owner would be behind it
        return bytes(data) + b"\xff\xff\0\2\0\1\0\0\0\x3c\0\1\0"

    async with serving(tmp_path, await Upstream(answer).start()) as rig:
        rig.policy.on_error = "pass"
        for name in ("blocked.example", "paged.example"):
            assert (await rig.ask(name, use_edns=-1)).rcode() == dns.rcode.SERVFAIL


async def test_one_domain_does_not_fill_the_set(tmp_path: Path) -> None:
    count = 0

    def others(query: dns.message.Message) -> bytes:
        nonlocal count
        count += 1
        answer = records(*(f"60 AAAA 2001:db8:{count:x}::{i}" for i in range(1, 65)))(query)
        assert isinstance(answer, bytes)
        return answer

    upstream = await Upstream(others).start()
    async with serving(tmp_path, upstream) as rig:
        told = set()
        for i in range(12):
            told.update(addresses(await rig.ask(f"n{i}.blocked.example", "AAAA", tcp=True)))
        assert len(told) == MOST
        assert told == rig.kernel.addresses
        assert len(addresses(await rig.ask("paged.example", "AAAA", tcp=True))) == 64


async def test_a_name_of_very_many_addresses_goes_on_being_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of stores of objects change with each answer."""
    monkeypatch.setattr("urlward.dns.policy.MOST", 32)
    count = 0

    def others(query: dns.message.Message) -> bytes:
        nonlocal count
        count += 1
        kind = query.question[0].rdtype.name
        prefix = "2001:db8::" if kind == "AAAA" else "192.0.2."
        answer = records(*(f"5 {kind} {prefix}{count // 2 * 8 + i}" for i in range(8)))(query)
        assert isinstance(answer, bytes)
        message = dns.message.from_wire(answer)
        message.additional.append(dns.rrset.from_text("c.blocked.example.", 5, "IN", "HTTPS", "1 . alpn=h2"))
        return message.to_wire()

    upstream = await Upstream(others).start()
    async with serving(tmp_path, upstream) as rig:
        told = set()
        for kind in ("AAAA", "A") * 6:
            got = await rig.ask("a.blocked.example", kind)
            assert [rrset.ttl for rrset in got.answer] == [5]
            told.update(addresses(got))
        assert len(told) == 32
        assert told == rig.kernel.addresses
        for name in ("b", "c"):
            got = await rig.ask(f"{name}.blocked.example")
            assert (got.rcode(), addresses(got)) == (0, []), "a name that has had none"


def mail(query: dns.message.Message) -> bytes:
    """An unlisted name whose mail goes to a listed host, and to another."""
    response = dns.message.make_response(query, recursion_available=True)
    name = query.question[0].name
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "MX", "1 x.blocked.example.", "2 y.example."))
    for host, address in (("x.blocked.example.", "192.0.2.8"), ("y.example.", "192.0.2.9")):
        response.additional.append(dns.rrset.from_text(host, 900, "IN", "A", address))
    return response.to_wire()


@pytest.mark.parametrize("listed_hosts", ["steer", "nxdomain"])
async def test_what_an_answer_speaks_of_beside(tmp_path: Path, listed_hosts: str) -> None:
    upstream = await Upstream(mail).start()
    async with serving(tmp_path, upstream, listed_hosts=listed_hosts) as rig:
        got = await rig.ask("plain.example", "MX")
        assert len(got.answer[0]) == 2, "a host listed whole is not what was asked for"
        assert [r[0].address for r in got.additional] == ["192.0.2.8", "192.0.2.9"]
        assert rig.kernel.addresses == {"192.0.2.8"}
        assert len(rig.resolved) == 2
        rig.kernel.fault = NftError("the kernel refused")
        assert (await rig.ask("plain.example", "MX", use_edns=0)).answer
        upstream.answer = records("60 A 192.0.2.1")
        rig.kernel.fault = None
        assert (await rig.ask("x.blocked.example")).rcode() == (3 if listed_hosts == "nxdomain" else 0)


def refusing(tmp_path: Path, upstream: Upstream, **values: Any) -> AbstractAsyncContextManager[Rig]:
    return serving(tmp_path, upstream, listed_hosts="nxdomain", **values)


async def test_nxdomain(tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with refusing(tmp_path, upstream, max_ttl=10) as rig:
        for kind in ("A", "AAAA", "HTTPS", "TXT"):
            got = await rig.ask("www.Blocked.example", kind, use_edns=0)
            assert got.rcode() == dns.rcode.NXDOMAIN
            assert got.authority[0].ttl == 10
            assert isinstance(got.options[0], dns.edns.EDEOption)
        assert upstream.asked == []
        assert addresses(await rig.ask("paged.example")) == ["192.0.2.1"], "not listed whole"
        assert rig.kernel.addresses == {"192.0.2.1"}
        upstream.answer = alias
        assert (await rig.ask("plain.example")).rcode() == dns.rcode.NXDOMAIN
        lines = list(caplog.messages)
        recorded: list[tuple[str, str]] = []
        rig.policy.logs = False
        rig.policy.record = lambda verdict, host, *_: recorded.append((verdict.entry, host))
        await rig.ask("blocked.example", "A")
        assert recorded == [("D-1", "blocked.example")]
        assert caplog.messages == lines
    assert len(lines) == 3, "one for each address asked for"
    for line in lines:
        assert re.fullmatch(
            r"\S+Z block client=127\.0\.0\.1 list=list entry=D-1 category=phishing reference=\S+ by=dns", line
        )


async def test_all_who_ask_at_a_time_are_recorded(tmp_path: Path) -> None:
    upstream = await Upstream(lambda _: None).start()
    hosts = ("127.0.0.1", "::1", "127.0.0.1")
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(refusing(tmp_path, upstream, host=""))
        recorded: list[tuple[str, int]] = []
        rig.policy.record = lambda _, __, client, port, ___: recorded.append((client, port))
        came_to: list[tuple[object, ...]] = []
        rig.policy.port_of = lambda transport, ours, peer: came_to.append((transport, ours)) or peer[1]
        query = dns.message.make_query("plain.example", "A").to_wire()
        streams = [await asyncio.open_connection(host, rig.port) for host in hosts]
        for _, writer in streams:
            stack.callback(writer.close)
            writer.write(framed(query))
        await until(lambda: sum(rig.service._owed) == len(hosts))
        upstream.answer = alias
        upstream.answer_held()
        for reader, _ in streams:
            await reader.readexactly(2)
        assert sorted(recorded) == sorted(writer.get_extra_info("sockname")[:2] for _, writer in streams)
        assert sorted(came_to) == sorted((socket.IPPROTO_TCP, (host, rig.port)) for host in hosts)


async def test_who_asks_several_servers_from_one_port_is_recorded_once(
    tmp_path: Path, upstream: Upstream
) -> None:
    """musl's resolver does: the kernel has what is redirected come from different ports then."""
    async with refusing(tmp_path, upstream, host="") as rig:
        recorded: list[tuple[str, int]] = []
        rig.policy.record = lambda _, __, client, port, ___: recorded.append((client, port))
        came_to: list[tuple[object, ...]] = []
        rig.policy.port_of = lambda transport, ours, _: came_to.append((transport, ours)) or 1234
        for host in ("127.0.0.1", "::1"):
            await rig.ask("blocked.example", host=host)
        assert recorded == [("127.0.0.1", 1234), ("::1", 1234)]
        assert came_to == [(socket.IPPROTO_UDP, (host, rig.port)) for host in ("127.0.0.1", "::1")]
        rig.policy._log(("blocked.example",), [Asker("192.0.2.1", port) for port in (1, 2)])
        assert recorded[2:] == [("192.0.2.1", 1234)]


async def test_the_page(tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pages = ("192.0.2.80",)
    async with serving(tmp_path, upstream, listed_hosts="page", page_addresses=pages) as rig:
        assert addresses(await rig.ask("blocked.example")) == ["192.0.2.80"]
        for kind in ("AAAA", "HTTPS"):
            got = await rig.ask("blocked.example", kind)
            assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
        assert rig.kernel.addresses == {"192.0.2.80"}, "the connection there must come to the filter"
        upstream.answer = alias
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.80"]
        assert rig.kernel.addresses == {"192.0.2.80"}
    assert not caplog.messages, "the request is what is blocked"


@pytest.mark.parametrize("listed_hosts", ["nxdomain", "page"])
async def test_a_host_that_is_allowed_is_not_refused_for_what_it_is_an_alias_for(
    tmp_path: Path, listed_hosts: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As where it is steered: an entry that allows lifts what is listed, such as a block by mistake."""
    upstream = await Upstream(alias).start()
    text = f"{LIST}@@good.example\n@@http://part.example/page\n@@z.blocked.example\n"
    async with serving(tmp_path, upstream, text=text, listed_hosts=listed_hosts) as rig:
        for name in ("good.example", "www.Good.example", "z.blocked.example"):
            rig.kernel.steered.clear()
            got = await rig.ask(name)
            assert (got.rcode(), addresses(got)) == (dns.rcode.NOERROR, ["192.0.2.1"])
            assert rig.kernel.addresses == {"192.0.2.1"}, "the request is what is judged"
        for name in ("plain.example", "part.example", "paged.example", "x.blocked.example"):
            got = await rig.ask(name)
            assert addresses(got) == []
            assert got.rcode() == (dns.rcode.NXDOMAIN if listed_hosts == "nxdomain" else dns.rcode.NOERROR)
    assert not [one for one in caplog.messages if "could not be judged" in one]


TUNNEL = ("tunnel.googlezip.net", "dns-tunnel-check.googlezip.net")
"""By which Chrome fetches pages ahead that Google's search has found."""


async def test_off_switches(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path, upstream) as rig:
        for name in ("use-application-dns.net", "Mask.icloud.com", "mask-h2.icloud.com", *TUNNEL):
            for kind in ("A", "AAAA"):
                assert (await rig.ask(name, kind)).rcode() == dns.rcode.NXDOMAIN
        got = await rig.ask("_dns.resolver.arpa", "SVCB")
        assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
        assert upstream.asked == []
        for name in ("icloud.com", "x.use-application-dns.net", "notresolver.arpa"):
            assert (await rig.ask(name)).answer
    upstream = await Upstream(NORMAL).start()
    async with serving(tmp_path, upstream, canary=False) as rig:
        for name in ("use-application-dns.net", "mask.icloud.com", "_dns.resolver.arpa", *TUNNEL):
            assert (await rig.ask(name)).answer


@pytest.mark.parametrize("listed_hosts", ["nxdomain", "page"])
async def test_monitoring_refuses_nothing(
    tmp_path: Path, upstream: Upstream, listed_hosts: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path, upstream, listed_hosts=listed_hosts) as rig:
        rig.policy.monitor = True
        assert addresses(await rig.ask("blocked.example")) == ["192.0.2.1"]
        assert rig.kernel.addresses == {"192.0.2.1"}
        upstream.answer = alias
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        assert not caplog.messages
        rig.kernel.fault = NftError("the kernel refused")
        assert addresses(await rig.ask("blocked.example", "A", use_edns=0)) == ["192.0.2.1"]
        assert caplog.messages == ["the kernel refused: an answer passes, not steered"]


@pytest.mark.parametrize("fault", [NftError("nft is dead"), SetFullError("the set is full"), RuntimeError()])
async def test_a_fault_blocks_what_has_an_entry_of_any_kind(
    tmp_path: Path, upstream: Upstream, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, upstream) as rig:
        rig.kernel.fault = fault
        for _ in range(3):
            assert (await rig.ask("blocked.example")).rcode() == dns.rcode.SERVFAIL
            assert (await rig.ask("paged.example")).rcode() == dns.rcode.SERVFAIL
            assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        assert len(caplog.messages) == 1, "a line for each kind"
        rig.policy.on_error = "pass"
        for name in ("blocked.example", "paged.example"):
            assert addresses(await rig.ask(name)) == ["192.0.2.1"]
        rig.kernel.fault = None
        rig.policy.on_error = "block"
        assert (await rig.ask("blocked.example")).answer[0].ttl == 300, "and it works again"


@pytest.mark.parametrize("what", ["find", "reason", "answer", "own_answer"])
async def test_a_fault_anywhere(
    tmp_path: Path,
    upstream: Upstream,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(tmp_path, upstream, listed_hosts="nxdomain") as rig:

        def fail(*_: Any) -> None:
            raise RuntimeError("blocked.example")

        if what == "find":
            monkeypatch.setattr(rig.judge, "_matcher", fail)
        else:
            monkeypatch.setattr(rig.policy, what, fail)
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        paged = await rig.ask("paged.example")
        if what == "answer":
            assert paged.rcode() == dns.rcode.SERVFAIL
        else:
            assert addresses(paged) == ["192.0.2.1"]
        code = (await rig.ask("blocked.example")).rcode()
        expected = {"find": dns.rcode.NOERROR, "reason": dns.rcode.NXDOMAIN, "answer": dns.rcode.NXDOMAIN}
        assert code == expected.get(what, dns.rcode.SERVFAIL)
        rig.policy.on_error = "pass"
        await rig.ask("blocked.example")
        assert "blocked.example" not in caplog.text
        assert caplog.messages


async def test_an_answer_that_breaks_us(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, upstream) as rig:
        monkeypatch.setattr(dns_service, "scan", lambda *_: 1 / 0)
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        for name in ("blocked.example", "paged.example"):
            assert (await rig.ask(name)).rcode() == dns.rcode.SERVFAIL
        assert len(caplog.messages) == 2


async def test_what_cannot_be_remembered_passes(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, upstream) as rig:
        monkeypatch.setattr(rig.resolved, "remember", lambda *_: 1 / 0)
        assert addresses(await rig.ask("plain.example")) == ["192.0.2.1"]
        assert len(caplog.messages) == 1
