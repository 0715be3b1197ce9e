"""What stands around DNS under test: resolvers that do as they are told, a kernel that takes notes."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import dns.rrset
import pytest

from conftest import free_port, wait_for
from urlward.config import DnsTable, GatewayTable
from urlward.dns.handling import Answers
from urlward.dns.judge import Faults, Judge
from urlward.dns.policy import DnsPolicy
from urlward.dns.resolved import Resolved
from urlward.dns.resolver_addresses import ResolverAddress, parse_resolver
from urlward.dns.server import DnsServer, make_service
from urlward.dns.upstream import Forwarder
from urlward.engine.digest import Key
from urlward.feeds.keeper import Keeper
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets

LIST = """\
blocked.example id=D-1 category=phishing
http://paged.example/listed.html id=D-2
"""

type Answer = Callable[[dns.message.Message], Iterable[bytes] | bytes | None]

PATIENT = 30.0
"""Seconds that a resolver has where its answer counts, on a machine that has much to do."""


def records(*lines: str) -> Answer:
    """Answer with records such as ``60 A 192.0.2.1``, whatever is asked, where the type fits."""

    def answer(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        for line in lines:
            ttl, kind, data = line.split(" ", 2)
            rrset = dns.rrset.from_text(query.question[0].name, int(ttl), "IN", kind, data)
            if rrset.rdtype == query.question[0].rdtype:
                response.answer.append(rrset)
        return response.to_wire(max_size=65535)

    return answer


GOOD = records("60 A 192.0.2.1")


class Upstream(asyncio.DatagramProtocol):
    """A resolver over UDP and TCP.

    Attributes:
        answer: what is answered to a query; nothing, or what `answer_held` gives it later.
        asked: names, in order, those over TCP too.
        peers: that have asked over UDP.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.wires: list[bytes] = []
        self.peers: list[Any] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._held: list[tuple[dns.message.Message, Callable[[bytes], object]]] = []

    async def start(self, port: int = 0, *, host: str = "127.0.0.1") -> "Upstream":
        loop = asyncio.get_running_loop()
        port = port or free_port(host)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        # Hundreds of queries may come while it does not have its turn.
        one: socket.socket = self._transport.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = port
        return self

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.peers.append(addr)
        self._reply(data, lambda reply: self._transport.sendto(reply, addr))

    def _reply(self, data: bytes, send: Callable[[bytes], object]) -> None:
        query = dns.message.from_wire(data)
        self.wires.append(data)
        self.asked.append(query.question[0].name.to_text(omit_final_dot=True))
        found = self.answer(query)
        if found is None:
            self._held.append((query, send))
        for reply in () if found is None else (found,) if isinstance(found, bytes) else found:
            send(reply)

    def answer_held(self) -> None:
        """Answer what has had no answer, as all from here on."""
        held, self._held = self._held, []
        for query, send in held:
            found = self.answer(query)
            assert isinstance(found, bytes)
            send(found)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                self._reply(
                    await reader.readexactly(size),
                    lambda reply: writer.write(len(reply).to_bytes(2) + reply),
                )
        writer.close()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def close(self) -> None:
        self._transport.close()
        self.close_connections()
        if self._server is not None:
            self._server.close()


class Kernel:
    """In place of `SteerSet`.

    Attributes:
        steered: calls, as (addresses, seconds).
        followed: the same of `follow`.
        cuts: addresses of calls.
        networks: as last listed.
        fault: raised where it is set.
        gate: waited for where it is set.
        waiting: how often it has been waited for.
        refused: how often `fault` was raised.
        on_full: as `SteerSet` has it.
        leads: whether queries are led here.
        looks: how often that was asked.
    """

    def __init__(self) -> None:
        self.steered: list[tuple[list[str], int]] = []
        self.followed: list[tuple[list[str], int]] = []
        self.cuts: list[list[str]] = []
        self.networks: list[str] = []
        self.listings: list[bool] = []
        self.beats = 0
        self.forgotten = 0
        self.proved: list[list[str]] = []
        self.on_full: Callable[[int], None] = lambda _: None
        self.closed = False
        self.fault: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.waiting = self.refused = 0
        self.leads = True
        self.looks = 0

    async def leads_here(self) -> bool:
        self.looks += 1
        return self.leads

    @property
    def addresses(self) -> set[str]:
        return {address for addresses, _ in self.steered for address in addresses}

    @property
    def told(self) -> set[str]:
        """Addresses that are followed."""
        return {address for addresses, _ in self.followed for address in addresses}

    async def _pass(self) -> None:
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
        if self.fault is not None:
            self.refused += 1
            raise self.fault

    async def steer(self, addresses: Iterable[str], seconds: int) -> int:
        await self._pass()
        self.steered.append((list(addresses), seconds))
        return len(self.steered[-1][0])

    async def follow(self, addresses: Iterable[str], seconds: int) -> None:
        await self._pass()
        self.followed.append((list(addresses), seconds))

    async def cut(self, addresses: Iterable[str]) -> None:
        await self._pass()
        self.cuts.append(list(addresses))

    async def list_networks(self, networks: Iterable[str], *, cut: bool = False) -> None:
        await self._pass()
        self.networks = sorted(networks)
        self.listings.append(cut)

    async def has_listed(self, networks: Iterable[str], *, cut: bool = False) -> bool:
        await self._pass()
        return self.networks == sorted(networks)

    async def beat(self, serves: Callable[[], bool]) -> None:
        self.serves = serves
        await self._pass()
        self.beats += 1

    async def prove(self, addresses: Iterable[object], seconds: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.proved.append([str(one) for one in addresses])

    def forget(self) -> None:
        self.forgotten += 1

    async def close(self) -> None:
        self.closed = True


def keep(folder: Path, text: str = LIST) -> Keeper:
    """Lists in force."""
    path = folder / "list.txt"
    path.write_text(text)
    keeper = Keeper([path], Key(bytes(32)))
    keeper.load()
    return keeper


class Rig:
    """A server with resolvers behind it."""

    def __init__(self, keeper: Keeper, gateway: GatewayTable, resolvers: Sequence[ResolverAddress]) -> None:
        self.kernel = Kernel()
        self.keeper = keeper
        self.faults = Faults()
        self.judge = Judge(lambda: self.keeper.matcher, self.faults)
        self.policy = DnsPolicy(gateway, self.kernel, self.judge, lambda: self.keeper.matcher)
        self.resolved = Resolved(gateway.dns.remember)
        self.answers = Answers(self.judge, self.policy, self.resolved, self.faults)
        self.service, self.forwarders = make_service(
            resolvers, gateway.dns.timeout, self.answers, self.faults
        )
        self.server = DnsServer(self.service, 0.0, lambda: None)
        self.port = 0

    async def ask(
        self, name: str, kind: str = "A", *, host: str = "127.0.0.1", tcp: bool = False, **values: Any
    ) -> dns.message.Message:
        """As a client does."""
        query = dns.message.make_query(name, kind, **values)
        return await self.send(query, host=host, tcp=tcp)

    async def send(
        self, query: dns.message.Message, *, host: str = "127.0.0.1", tcp: bool = False
    ) -> dns.message.Message:
        how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await how(query, host, timeout=60, port=self.port)


@asynccontextmanager
async def serving(
    folder: Path,
    *upstreams: Upstream | int,
    text: str = LIST,
    host: str = "127.0.0.1",
    gateway: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[Rig]:
    """Run a server.

    Args:
        folder: for the list.
        upstreams: resolvers, or the ports of some.
        text: of the list.
        host: to listen on.
        gateway: further values of ``[gateway]``.
        values: of ``[gateway.dns]``; resolvers have much time where nothing else is said.
    """
    resolvers = [parse_resolver(f"127.0.0.1:{u if isinstance(u, int) else u.port}") for u in upstreams]
    table = GatewayTable(dns=DnsTable(**{"timeout": PATIENT, **values}), **(gateway or {}))
    rig = Rig(keep(folder, text), table, resolvers)
    rig.port = free_port()
    await listen(rig.server, host, rig.port)
    try:
        yield rig
    finally:
        rig.server.end()
        for forwarder in rig.forwarders:
            forwarder.close()
        for upstream in upstreams:
            if isinstance(upstream, Upstream):
                upstream.close()


def wait_so_long(forwarder: Forwarder, seconds: float) -> None:
    """Have resolvers that say nothing be given up after so long, from the next question on."""
    forwarder._interval = seconds
    for waiting in list(forwarder._deadlines):
        if waiting[1].over:
            forwarder._deadlines.remove(waiting)


async def listen(server: DnsServer, host: str, port: int) -> None:
    """Have a server answer at an address of both transports."""
    for kind in ("udp", "tcp"):
        server.take([await server.serve(one) for one in open_sockets(Address(host, port, kind))])


@contextmanager
def dnsmasq(
    folder: Path, *lines: str, port: int = 0, address: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> Iterator[int]:
    """Run dnsmasq over configuration lines such as ``host-record=a.example,192.0.2.1``; gives its port."""
    program = shutil.which("dnsmasq")
    if program is None:
        pytest.skip("needs dnsmasq")
    port = port or free_port()
    config = folder / f"dnsmasq-{port}.conf"
    config.write_text(
        "\n".join(
            (f"port={port}", f"listen-address={address}", "bind-interfaces", "no-resolv", "no-hosts", *lines)
        )
    )
    command = [
        *prefix,
        program,
        "--keep-in-foreground",
        "--user=root",
        f"--conf-file={config}",
        "--pid-file=",
    ]
    log = folder / f"dnsmasq-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--log-facility=-"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        wait_for(lambda: process.poll() is not None or "started" in log.read_text(), "dnsmasq")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(60)
