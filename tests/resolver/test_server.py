"""The whole of it in front of dnsmasq."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest

from conftest import free_port, until
from gateway.dns_support import (
    PATIENT,
    Upstream,
    dnsmasq,
    listen,
    records,
    serving,
    wait_so_long,
)
from rows import each_row
from urlward.dns.server import DnsServer
from urlward.dns.upstream import Forwarder

ZONE = (
    "host-record=plain.example,192.0.2.1,2001:db8::1",
    "host-record=blocked.example,192.0.2.2,2001:db8::2",
    "host-record=paged.example,192.0.2.3",
    "cname=alias.example,middle.example",
    "cname=middle.example,www.blocked.example",
    "host-record=www.blocked.example,192.0.2.4",
    "txt-record=long.example," + ",".join(["x" * 200] * 4),
    *(f"host-record=many.example,198.51.100.{i}" for i in range(1, 121)),
    "local-ttl=3600",
)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with dnsmasq(tmp_path_factory.mktemp("dnsmasq"), *ZONE) as port:
        yield port


@each_row("tcp", [False, True], ids=["udp", "tcp"])
@each_row("host", ["127.0.0.1", "::1"])
async def test_it_works(tmp_path: Path, resolver: int, tcp: bool, host: str) -> None:
    async with serving(tmp_path, resolver, host="") as rig:

        async def ask(name: str, kind: str = "A") -> dns.message.Message:
            return await rig.ask(name, kind, host=host, tcp=tcp, use_edns=0)

        got = await ask("plain.example")
        assert (got.answer[0][0].address, got.answer[0].ttl) == ("192.0.2.1", 3600)
        assert (await ask("plain.example", "AAAA")).answer[0][0].address == "2001:db8::1"
        assert not rig.kernel.steered
        got = await ask("alias.example")
        assert [r.ttl for r in got.answer] == [300, 300, 300]
        assert got.answer[2][0].address == "192.0.2.4"
        assert rig.kernel.addresses == {"192.0.2.4"}
        assert (await ask("blocked.example", "AAAA")).answer[0].ttl == 300
        assert (await ask("nothing.example")).rcode() in (dns.rcode.NXDOMAIN, dns.rcode.REFUSED)
        assert len(rig.resolved) == 4


async def test_long_answers_come_over_tcp(tmp_path: Path, resolver: int) -> None:
    async with serving(tmp_path, resolver) as rig:
        got = await rig.ask("long.example", "TXT")
        assert got.flags & dns.flags.TC
        got = await rig.ask("long.example", "TXT", tcp=True)
        assert len(got.answer[0][0].strings) == 4


async def test_more_queries_than_dnsmasq_takes_on_a_connection(tmp_path: Path, resolver: int) -> None:
    async with serving(tmp_path, resolver) as rig:
        for _ in range(3):
            answers = await asyncio.gather(*(rig.ask("plain.example", tcp=True, id=i) for i in range(40)))
            assert all(a.answer for a in answers)


async def test_a_dead_resolver_before_a_living_one(tmp_path: Path, resolver: int) -> None:
    silent = await Upstream(lambda _: None).start()
    async with serving(tmp_path, silent, free_port(), resolver) as rig:
        for forwarder, tcp in zip(rig.forwarders, (False, True), strict=True):

            def asked_in_vain(_: object, waits: Forwarder = forwarder) -> None:
                wait_so_long(waits, PATIENT)  # for the others

            silent.answer = asked_in_vain
            wait_so_long(forwarder, 0.2)
            assert (await rig.ask("plain.example", tcp=tcp)).answer
        asked = len(silent.asked)
        assert asked == 2
        for _ in range(20):
            assert (await rig.ask("plain.example")).answer
        assert len(silent.asked) == asked, "it is remembered"


async def test_a_resolver_that_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with serving(tmp_path, port) as rig:
        for _ in range(3):
            assert (await rig.ask("plain.example")).rcode() == dns.rcode.SERVFAIL
        upstream = await Upstream(records("60 A 192.0.2.1")).start(port)
        assert (await rig.ask("plain.example")).answer, "where it is the only one, at once"
        assert [m for m in caplog.messages if "resolver" in m] == [
            f"no DNS resolver answers (127.0.0.1:{port}): clients are told that the server has failed",
            "DNS resolvers answer again",
        ]
        upstream.close()


async def test_a_kernel_without_ipv6(tmp_path: Path, resolver: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket.bind

    def bind(self: socket.socket, address: tuple[object, ...]) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(99, "Cannot assign requested address")
        original(self, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    async with serving(tmp_path, resolver, host="") as rig:
        assert {s.family for s in rig.server.sockets} == {socket.AF_INET}
        assert (await rig.ask("plain.example")).answer


async def test_the_end_is_later_than_it_is_asked_for(tmp_path: Path, resolver: int) -> None:
    """The kernel sends queries here until it has learned of the end."""
    asked = []
    async with serving(tmp_path, resolver) as rig:
        server = DnsServer(rig.service, PATIENT, lambda: asked.append(1))
        rig.port = free_port()
        await listen(server, "127.0.0.1", rig.port)
        assert server.lingering == 0
        server.close()
        server.close()
        assert asked == [1]
        assert server.lingering > 0
        assert (await rig.ask("plain.example")).answer
        server.end()
        server = DnsServer(rig.service, 0.1, lambda: asked.append(2))
        await listen(server, "127.0.0.1", rig.port)
        server.close()
        await until(lambda: server.lingering == 0, "the end")
        await until(lambda: server.sockets == [], "the end")
        assert asked == [1, 2]
        with pytest.raises((dns.exception.DNSException, OSError)):
            await rig.ask("plain.example", tcp=True)
