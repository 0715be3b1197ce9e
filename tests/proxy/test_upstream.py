"""Reaching origins: addresses that are dead, silent or of either family, with real sockets."""

import asyncio
import errno
import gc
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port, until
from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from lists.support import descriptors
from urlward.proxy import upstream
from urlward.proxy.poller import WRITE, Share, running_loop
from urlward.proxy.upstream import (
    KNOWN_FOR,
    LOOKUPS_OF_ONE,
    MOST_ADDRESSES,
    NONE_FOR,
    Address,
    Opening,
    Resolver,
    literal_address,
)

ONE, OTHER = "192.0.2.1", "192.0.2.2"


class Attempt:
    """An opening and what it has come to."""

    def __init__(self, *addresses: Address, local: str = "") -> None:
        self.found: list[tuple[socket.socket | None, OSError | None]] = []
        self.shortages: list[OSError] = []
        poller = running_loop().poller
        self.opening = Opening(poller, Share(), addresses, self._done, self.shortages.append, local)
        self.opening.start()

    def _done(self, sock: socket.socket | None, error: OSError | None) -> None:
        if sock is not None:
            running_loop().poller.forget(sock.fileno())
        self.found.append((sock, error))

    async def outcome(self, *, keep: bool = False) -> tuple[socket.socket | None, OSError | None]:
        await until(lambda: self.found)
        await asyncio.sleep(0)
        (found,) = self.found
        if found[0] is not None and not keep:
            found[0].close()
        assert self.opening._pending == {}
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "STAGGER", 0.02)


def listening(stack: ExitStack, host: str = "127.0.0.1") -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = stack.enter_context(socket.create_server((host, 0), family=family))
    return tuple(server.getsockname())


def silent(stack: ExitStack) -> Address:
    """Where the kernel drops what asks for a connection: the queue of those to be accepted is full."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(4):
        one = stack.enter_context(socket.socket())
        one.setblocking(False)
        one.connect_ex(server.getsockname())
    return tuple(server.getsockname())


def dead() -> Address:
    return "127.0.0.1", free_port()


async def test_the_first_address(stack: ExitStack) -> None:
    first, second = listening(stack), listening(stack)
    attempt = Attempt(first, second)
    await until(lambda: attempt.found)
    one = attempt.found[0][0]
    assert one is not None
    assert one.getpeername() == first
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not one.getblocking()
    await attempt.outcome()


@pytest.mark.parametrize("first", ["dead", "silent", "both"])
async def test_an_address_that_does_not_answer(stack: ExitStack, first: str) -> None:
    answering = listening(stack)
    before = {"dead": [dead()], "silent": [silent(stack)], "both": [silent(stack), dead()]}[first]
    attempt = Attempt(*before, answering)
    one, _ = await attempt.outcome()
    assert one is not None


async def test_a_connection_is_closed_where_a_fault_keeps_it_from_being_taken() -> None:
    faults: list[Any] = []
    loop = running_loop()
    loop.set_exception_handler(lambda _, found: faults.append(found["exception"]))

    def fail(*_: object) -> None:
        raise RuntimeError

    with socket.create_server(("127.0.0.1", 0)) as server:
        Opening(loop.poller, Share(), [server.getsockname()], fail, fail).start()
        server.setblocking(False)
        one, _ = await loop.sock_accept(server)
    with one:
        async with asyncio.timeout(60):
            assert await loop.sock_recv(one, 1) == b""
    assert [type(each) for each in faults] == [RuntimeError]


async def test_an_event_that_was_of_another_socket_connects_none(stack: ExitStack) -> None:
    attempt = Attempt(silent(stack))
    (fd,) = attempt.opening._pending
    running_loop().poller._told[fd].tell(WRITE)
    assert attempt.found == []
    assert list(attempt.opening._pending) == [fd]
    attempt.opening.cancel()


@pytest.mark.parametrize("hosts", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
async def test_both_families(stack: ExitStack, hosts: tuple[str, str]) -> None:
    addresses = [listening(stack, host) for host in hosts]
    attempt = Attempt(*addresses)
    await until(lambda: attempt.found)
    one = attempt.found[0][0]
    assert one is not None
    assert one.getpeername() == addresses[0]
    await attempt.outcome()
    assert (await Attempt(("::1", free_port("::1"), 0, 0), listening(stack)).outcome())[0] is not None


async def test_none_answers() -> None:
    one, error = await Attempt(dead(), dead()).outcome()
    assert one is None
    assert error is not None
    assert error.errno == errno.ECONNREFUSED


async def test_given_up(stack: ExitStack) -> None:
    before = descriptors("socket:")
    with ExitStack() as inner:
        attempt = Attempt(silent(inner), silent(inner), listening(inner))
        await asyncio.sleep(0)
        attempt.opening.cancel()
        await asyncio.sleep(0.06)
        assert attempt.found == []
        assert attempt.opening._timer is None
    assert descriptors("socket:") <= before


async def test_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:  # an event loop needs sockets, too
        patched.setattr(upstream.socket, "socket", fail)
        attempt = Attempt(("127.0.0.1", 9), ("127.0.0.1", 10))
    ((one, error),) = attempt.found
    assert one is None
    assert error is not None
    assert error.errno == errno.EMFILE


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
@pytest.mark.parametrize("local", ["", "127.0.0.1"])
async def test_no_port(stack: ExitStack, local: str) -> None:
    """Which is told, and is no other error: an address that is not this machine's, or none to begin at."""
    stack.enter_context(own_network())
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40000")
    origin, other = (
        tuple(stack.enter_context(socket.create_server(("127.0.0.1", port))).getsockname())
        for port in (80, 81)
    )
    first, error = await Attempt(origin, local=local).outcome(keep=True)
    assert (error, first is not None) == (None, True)
    assert first is not None
    stack.enter_context(first)
    attempt = Attempt(origin, local=local)
    one, error = await attempt.outcome()
    assert one is None
    assert error is not None
    assert [each.errno for each in (error, *attempt.shortages)] == [errno.EADDRNOTAVAIL] * 2
    attempt = Attempt(other, local=local)
    assert (await attempt.outcome())[1] is None, "another origin can be reached from the same"
    assert attempt.shortages == []
    attempt = Attempt(other, local="192.0.2.9")
    one, error = await attempt.outcome()
    assert error is not None
    assert (error.errno, attempt.shortages) == (errno.EADDRNOTAVAIL, [])


async def test_an_address_to_begin_at_is_no_lack_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of IPv6 where there are routes, and no address but link-local ones."""
    connect = socket.socket.connect_ex
    monkeypatch.setattr(upstream, "_has_source", lambda *_: False)

    class Refused(socket.socket):
        def connect_ex(self, address: Address) -> int:
            return errno.EADDRNOTAVAIL if address[0] == ONE else connect(self, address)

    monkeypatch.setattr(upstream, "_within_limit", lambda family: Refused(family, socket.SOCK_STREAM))
    attempt = Attempt((ONE, 80))
    one, error = await attempt.outcome()
    assert (one, attempt.shortages) == (None, [])
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL


async def test_an_address_of_this_machine(stack: ExitStack) -> None:
    target = listening(stack)
    attempt = Attempt(("::1", 9, 0, 0), target, local="127.0.0.5")  # which no IPv6 connection comes from
    await until(lambda: attempt.found)
    one = attempt.found[0][0]
    assert one is not None
    assert one.getsockname()[0] == "127.0.0.5"
    await attempt.outcome()


async def test_nothing_is_left_for_the_collector(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    gc.disable()
    try:
        for attempt in (
            Attempt(dead(), ("::1", 9, 0, 0), local="127.0.0.5"),
            Attempt(silent(stack), listening(stack)),
        ):
            await attempt.outcome()
        given_up = Attempt(("::1", 9, 0, 0), silent(stack), local="127.0.0.5")
        given_up.opening.cancel()
        del attempt, given_up
        await asyncio.sleep(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, Opening | OSError | socket.socket)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


# -- names


async def look_up(host: str, port: int = 80) -> Sequence[Address]:
    found: list[Sequence[Address]] = []
    Resolver().look_up(host, port, "192.0.2.1", found.append)
    await until(lambda: found)
    return found[0]


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.7", ("192.0.2.7", 80)), ("2001:db8::7", ("2001:db8::7", 80, 0, 0))],
)
async def test_an_address_stands_for_itself(host: str, address: Address) -> None:
    assert literal_address(host, 80) == address


async def test_who_asks_for_the_same_shares_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def getaddrinfo(host: bytes, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, 1, 6, "", (f"192.0.2.{n}", port)) for n in range(1, 99)]

    resolver = Resolver()
    found: list[Sequence[Address]] = []
    monkeypatch.setattr(upstream.socket, "getaddrinfo", getaddrinfo)
    first, _, third = [resolver.look_up("a.example", 80, ONE, found.append) for _ in range(3)]
    first.cancel()
    await until(lambda: len(found) == 2)
    assert len(found[0]) == MOST_ADDRESSES
    assert asked == [b"a.example"]
    third.cancel()  # which is too late, and harmless
    given_up = resolver.look_up("b.example", 80, ONE, found.append)
    given_up.cancel()
    resolver.look_up("c.example", 80, ONE, found.append)
    # What is given up is asked all the same; of the system's resolver, were this over before.
    await until(lambda: len(found) == len(asked) == 3)
    # And remembered, for who asks again.
    resolver.look_up("b.example", 80, ONE, found.append)
    await until(lambda: len(found) == 4)
    assert len(asked) == 3


class Names:
    """The system's resolver; silent about names that begin with ``silent``, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        monkeypatch.setattr(upstream.socket, "getaddrinfo", self._find)

    def _find(self, host: bytes, port: int, **_: Any) -> list[Any]:
        name = host.decode()
        self.asked.append(name)
        if name.startswith("silent"):
            self.release.wait(60)
        if name.startswith("none"):
            raise OSError
        return [(socket.AF_INET, 1, 6, "", ("192.0.2.7", port))]


@pytest.mark.parametrize("ones", [(ONE,), ("2001:db8::1", "2001:db8::2:1")], ids=["address", "network"])
async def test_nobody_has_all_lookups(ones: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "LOOKUPS", LOOKUPS_OF_ONE)  # somebody has, with more networks
    names, resolver = Names(monkeypatch), Resolver()
    found: dict[str, list[Sequence[Address]]] = {"one": [], "other": []}
    for n in range(4 * LOOKUPS_OF_ONE):
        resolver.look_up(f"silent{n}.test", 80, ones[n % len(ones)], found["one"].append)
    await until(lambda: len(names.asked) >= LOOKUPS_OF_ONE)
    resolver.look_up("a.test", 80, OTHER, found["other"].append)
    # Also what waits in the first one's queue.
    shared = f"silent{4 * LOOKUPS_OF_ONE - 1}.test"
    resolver.look_up(shared, 80, OTHER, found["other"].append)
    await until(lambda: found["other"])
    await until(lambda: shared in names.asked)
    assert (len(names.asked), found["one"]) == (LOOKUPS_OF_ONE + 2, [])
    names.release.set()
    await until(lambda: len(found["one"]) == 4 * LOOKUPS_OF_ONE)
    assert len(names.asked) == len(set(names.asked)) == 4 * LOOKUPS_OF_ONE + 1
    assert not resolver._threads.works


async def test_clients_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "LOOKUPS", 1)
    monkeypatch.setattr(upstream, "LOOKUPS_BEYOND", 0)
    names, resolver = Names(monkeypatch), Resolver()
    found: list[Sequence[Address]] = []
    resolver.look_up("silent", 80, ONE, found.append)
    resolver.look_up("one0", 80, ONE, lambda _: pytest.fail("cancelled")).cancel()
    for name, client in [*((f"one{n}", ONE) for n in range(1, 4)), ("other", OTHER)]:
        resolver.look_up(name, 80, client, found.append)
    names.release.set()
    await until(lambda: len(found) == 5)
    assert names.asked == ["silent", "one1", "other", "one2", "one3"]


async def test_a_passing_shortage_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    names, resolver, starts = Names(monkeypatch), Resolver(), threading.Thread.start
    found: list[Sequence[Address]] = []

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver.look_up("silent", 80, ONE, found.append)
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", start)
        resolver.look_up("after", 80, ONE, found.append)  # waits for the only one
    assert threading.Thread.start is starts
    resolver.look_up("other", 80, OTHER, found.append)
    await until(lambda: len(names.asked) >= 2)
    names.release.set()
    await until(lambda: len(found) == 3)
    assert sorted(names.asked) == ["after", "other", "silent"]
    assert not resolver._threads.works


async def test_a_name_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    names, now = Names(monkeypatch), [0.0]
    resolver = Resolver(lambda: now[0])

    async def ask(name: str) -> Sequence[Address]:
        found: list[Sequence[Address]] = []
        resolver.look_up(name, 80, ONE, found.append)
        assert found == [], "later, in any case"
        await until(lambda: found)
        return found[0]

    for name, kept in (("a", KNOWN_FOR), ("none", NONE_FOR)):
        names.asked.clear()
        first = await ask(name)
        now[0] += kept - 0.01
        assert await ask(name) == first
        assert names.asked == [name]
        now[0] += 0.02
        assert await ask(name) == first
        assert names.asked == [name] * 2
    assert await ask("x" * 256) == []
    assert "x" * 256 not in names.asked
    resolver.look_up("a", 80, ONE, lambda _: pytest.fail("cancelled")).cancel()
    await asyncio.sleep(0.01)


async def test_families_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def getaddrinfo(host: bytes, port: int, **_: Any) -> list[Any]:
        asked.append((host, threading.current_thread().name[:14]))
        four = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{n}", port)) for n in (1, 2, 3, 1)]
        six = [(socket.AF_INET6, 1, 6, "", ("2001:db8::1", port, 0, 0))]
        return six + four

    monkeypatch.setattr(upstream.socket, "getaddrinfo", getaddrinfo)
    found = await look_up("b\xfc.example")
    assert [each[0] for each in found] == ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert asked == [(b"b\xfc.example", "urlward-lookup")], "as it was sent, and in a thread"


@pytest.mark.parametrize(
    "host",
    ["no.such.invalid", "", "a b", "localhost\0.example", "\u2603.example", "x" * 300],
)
async def test_a_name_without_an_address(host: str) -> None:
    assert list(await look_up(host)) == []


async def test_a_zone_is_the_resolvers() -> None:
    ((host, *_, zone),) = await look_up("fe80::1%lo")
    assert host.partition("%")[0] == "fe80::1"
    assert zone == socket.if_nametoindex("lo")
