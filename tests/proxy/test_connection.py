"""One connection of the data path, with real sockets."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import until
from urlward.proxy import connection as connection_module
from urlward.proxy.connection import _MOST_READ, BEHIND, HELD, HIGH, SLOWED, Connection
from urlward.proxy.poller import READ, WRITE, Share, running_loop
from urlward.proxy.threads import Threads
from urlward.proxy.tls import Tls

LARGE = bytes(range(256)) * (1 << 13)  # 2 MiB: more than the sockets hold


class Side:
    """A connection and its peer, and what became of it."""

    def __init__(self, *, room: int = 0) -> None:
        self.active = 0.0
        self.share = Share()
        self.got = bytearray()
        self.ends = 0
        self.faults: list[Exception] = []
        self.losses: list[Connection] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            if room:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            self.peer = socket.create_connection(server.getsockname())
            if room:
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            sock, address = server.accept()
        for each in (sock, self.peer):
            each.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(running_loop().poller, sock, self, address[0])
        self.connection.receive = self.got.extend
        self.connection.ended = self._ended

    def _ended(self) -> None:
        self.ends += 1

    def broken(self, error: Exception) -> None:
        self.faults.append(error)
        self.connection.abort()

    def lost(self, connection: Connection) -> None:
        self.losses.append(connection)
        connection.forget()

    async def read(self, size: int = 0) -> bytes:
        """What the peer gets: so much, or all to the end."""
        found = bytearray()
        async with asyncio.timeout(30):
            while not size or len(found) < size:
                data = await self.loop.sock_recv(self.peer, 1 << 16)
                if not data:
                    break
                found += data
        return bytes(found)

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.peer, data)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


@pytest.fixture
async def sides() -> AsyncIterator[list[Side]]:
    """Two, that begin to read."""
    made = [Side(room=1 << 17), Side(room=1 << 17)]
    for side in made:
        side.connection.start()
    yield made
    for side in made:
        side.connection.abort()
        side.peer.close()
        await asyncio.sleep(0)
        assert side.losses == [side.connection], "said once"


@pytest.fixture
def side(sides: list[Side]) -> Side:
    return sides[0]


@pytest.mark.parametrize("way", [0, 1])
async def test_who_takes_no_more_holds_the_other_back(sides: list[Side], way: int) -> None:
    sender, receiver = sides[way], sides[1 - way]
    sides[0].connection.attach(sides[1].connection)
    for one, other in (sides, sides[::-1]):
        one.connection.receive = other.connection.write
    sending = asyncio.create_task(sender.send(LARGE))
    await until(lambda: receiver.connection.full and not sender.connection._events & READ)
    await asyncio.sleep(0.02)
    assert receiver.connection.waiting <= HIGH + _MOST_READ
    assert not sending.done()
    # The other way goes on all the same.
    await receiver.send(b"back")
    assert await sender.read(4) == b"back"
    assert await receiver.read(len(LARGE)) == LARGE
    await sending
    assert not receiver.connection.full
    assert receiver.connection.waiting == 0
    assert not receiver.connection._events & WRITE


class Noted:
    """A socket, of which is noted what is set."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.options: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((option, value))
        self.sock.setsockopt(level, option, value)


async def test_who_reads_much_is_sent_more_at_a_time() -> None:
    side = Side()
    side.connection._sock = noted = Noted(side.connection._sock)  # type: ignore[assignment]
    side.connection.start()
    sending = asyncio.create_task(side.send(LARGE * 4))
    await until(lambda: len(side.got) == len(LARGE * 4))
    await sending
    assert noted.options[:2] == [(socket.SO_RCVLOWAT, _MOST_READ), (socket.SO_RCVLOWAT, 1)]
    assert noted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= _MOST_READ
    await side.send(b"!")
    await until(lambda: side.got.endswith(b"!"))
    side.connection.abort()
    side.peer.close()
    await asyncio.sleep(0)


async def test_what_is_written_in_parts(side: Side) -> None:
    for start in range(0, len(LARGE), 100_000):
        side.connection.write(LARGE[start : start + 100_000])
    assert side.connection.full
    assert side.connection.waiting > HIGH
    assert await side.read(len(LARGE)) == LARGE
    await until(lambda: not side.connection._events & WRITE)
    assert (side.connection.full, side.connection.waiting) == (False, 0)


async def test_a_half_close_each_way(side: Side) -> None:
    side.connection.end()
    side.connection.write(b"late")
    assert await side.read() == b""
    await side.send(b"still")
    await until(lambda: side.got == b"still")
    side.peer.shutdown(socket.SHUT_WR)
    await until(lambda: side.ends)
    await asyncio.sleep(0.01)
    assert (side.ends, side.losses) == (1, [])
    assert not side.connection._events & READ, "an end is not read again and again"


@pytest.mark.parametrize("how", ["end", "close"])
async def test_an_end_with_bytes_waiting(side: Side, how: str) -> None:
    side.connection.write(LARGE)
    getattr(side.connection, how)()
    side.connection.write(b"late")
    assert side.connection.waiting
    assert side.connection.open is (how == "end")
    assert await side.read() == LARGE
    assert side.connection.open is (how == "end")
    assert side.losses == ([side.connection] if how == "close" else [])


async def test_a_cut_with_bytes_waiting(side: Side) -> None:
    side.connection.write(LARGE)
    side.connection.abort()
    assert side.connection.waiting == 0
    with suppress(ConnectionError):
        assert len(await side.read()) < len(LARGE)
    side.connection.write(b"late")
    side.connection.end()
    side.connection.close()
    side.connection.reset()


async def test_a_reset_by_the_peer(side: Side) -> None:
    side.reset()
    await until(lambda: side.losses)
    assert side.connection.broken
    assert side.ends == 0
    side.connection.write(b"late")
    side.connection.end()


async def test_a_reset_that_is_found_by_sending(side: Side) -> None:
    side.reset()
    while not side.connection.broken:
        side.connection.write(b"x")
    assert side.connection.open, "what the peer has said before may still be read"
    await until(lambda: side.losses)
    assert side.ends == 0


async def test_a_reset_by_the_peer_in_the_midst_of_sending(side: Side) -> None:
    side.connection.pause(SLOWED)
    side.connection.write(LARGE)
    side.reset()
    await until(lambda: side.losses)
    assert side.connection.broken


async def test_a_reset_of_ours(side: Side) -> None:
    side.connection.write(b"half")
    side.connection.reset()
    with pytest.raises(ConnectionResetError):
        await side.read()
    assert not side.connection.broken


async def test_each_reason_to_read_nothing(side: Side) -> None:
    for why in (HELD, SLOWED, BEHIND):
        side.connection.pause(why)
    await side.send(b"x")
    for why in (BEHIND, HELD, HELD):
        side.connection.resume(why)
        await asyncio.sleep(0.01)
        assert side.got == b""
    side.connection.resume(SLOWED)
    await until(lambda: side.got == b"x")
    assert side.active > 0


async def test_one_that_has_not_started_reads_nothing() -> None:
    side = Side()
    await side.send(b"x")
    side.connection.pause(HELD)
    side.connection.resume(HELD)
    await asyncio.sleep(0.01)
    assert side.got == b""
    side.connection.start()
    await until(lambda: side.got == b"x")
    side.connection.abort()
    side.peer.close()


async def test_a_peer_that_is_parted_with(sides: list[Side]) -> None:
    one, other = (side.connection for side in sides)
    other.write(LARGE)
    assert other.full
    one.attach(other)
    await sides[0].send(b"x")
    await asyncio.sleep(0.01)
    assert sides[0].got == b"", "the other takes no more"
    one.detach()
    assert (one.peer, other.peer) == (None, None)
    await asyncio.sleep(0.01)
    assert sides[0].got == b"", "nothing reaches anybody"


@pytest.mark.parametrize("what", ["receive", "ended"])
async def test_a_fault_is_said(side: Side, what: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    setattr(side.connection, what, fail)
    await side.send(b"x")
    side.peer.shutdown(socket.SHUT_WR)
    await until(lambda: side.losses)
    assert [type(error) for error in side.faults] == [RuntimeError]


# -- TLS


class Secured:
    """Two connections with TLS between them: a server's and a client's."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, resumed: ssl.SSLSession | None = None
    ) -> None:
        self.got = bytearray(), bytearray()
        self.said: list[str] = []
        self.faults: list[Exception] = []
        self.active = 0.0
        self.share = Share()
        poller = running_loop().poller
        with socket.create_server(("127.0.0.1", 0)) as listening:
            near = socket.create_connection(listening.getsockname())
            far, _ = listening.accept()
        for each in (near, far):
            each.setblocking(False)
        self.server, self.client = (Connection(poller, each, self) for each in (far, near))
        near_tls = Tls(client, client_side=True, server_name=b"plain.example", resumed=resumed)
        sessions = Tls(server, client_side=False), near_tls
        for number, (connection, tls) in enumerate(zip((self.server, self.client), sessions, strict=True)):
            name = "client" if number else "server"
            connection.receive = self.got[number].extend
            connection.ended = lambda name=name: self.said.append(f"{name} ended")  # type: ignore[misc]
            tls.established = lambda name=name: self.said.append(f"{name} established")  # type: ignore[misc]
            tls.failed = lambda e, name=name: self.said.append(  # type: ignore[misc]
                f"{name} failed {type(e).__name__}"
            )
            connection.start()
            connection.start_tls(tls)

    def broken(self, error: Exception) -> None:
        self.faults.append(error)

    def lost(self, connection: Connection) -> None:
        self.said.append(f"{'client' if connection is self.client else 'server'} lost")
        connection.forget()

    async def ready(self) -> "Secured":
        await until(lambda: len(self.said) >= 2)
        assert sorted(self.said) == ["client established", "server established"]
        self.said.clear()
        return self

    async def over(self) -> None:
        for connection in (self.server, self.client):
            connection.abort()
        await asyncio.sleep(0)
        assert self.faults == []


@pytest.fixture
def server_context(authorities: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authorities / "origin.pem", authorities / "origin.key")
    return context


@pytest.fixture
def client_context(authorities: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authorities / "origin-ca.pem"))


@pytest.fixture
async def secured(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> AsyncIterator[Secured]:
    made = await Secured(server_context, client_context).ready()
    yield made
    await made.over()


async def test_both_ways_inside_tls(secured: Secured) -> None:
    for connection in (secured.server, secured.client):
        connection.write(LARGE[:300_000])
        connection.write(b"!")
    expected = LARGE[:300_000] + b"!"
    await until(lambda: all(got == expected for got in secured.got))
    assert secured.said == []


async def test_an_end_inside_tls_is_of_one_way(secured: Secured) -> None:
    secured.client.write(b"request")
    secured.client.end()
    await until(lambda: secured.said)
    assert secured.got[0] == b"request"
    secured.server.write(LARGE[:300_000])
    secured.server.close()
    await until(lambda: "client ended" in secured.said)
    assert secured.got[1] == LARGE[:300_000]
    assert secured.said[0] == "server ended"
    assert secured.said.count("server ended") == 1


async def test_a_close_notify_without_the_end_of_the_connection(secured: Secured) -> None:
    assert secured.server.tls is not None
    secured.server.tls.shut_down()
    secured.server._flush(secured.server.tls)
    await until(lambda: secured.said)
    assert secured.said == ["client ended"]
    assert secured.server.open


async def test_an_end_without_close_notify(secured: Secured) -> None:
    secured.client._half_close()
    await until(lambda: secured.said)
    assert secured.said == ["server ended"]


async def test_what_has_been_tampered_with_is_no_end(secured: Secured) -> None:
    secured.client.write(b"whole")
    secured.client._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    await until(lambda: "server lost" in secured.said)
    assert secured.server.broken
    assert secured.got[0] == b"whole", "what was whole is passed on"
    assert "server ended" not in secured.said


@pytest.mark.parametrize("size", [1, 100])
async def test_records_in_pieces(
    server_context: ssl.SSLContext, size: int, client_context: ssl.SSLContext
) -> None:
    side = Side()
    tls = Tls(server_context, client_side=False)
    side.connection.start()
    side.connection.start_tls(tls)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(incoming, outgoing, server_hostname="plain.example")
    done = False
    while not tls.ready:
        with suppress(ssl.SSLWantReadError):
            if not done:
                client.do_handshake()
                done = True
                client.write(b"hello")  # which comes with the end of the handshake
        data = outgoing.read()
        for start in range(0, len(data), size):
            side.connection.take(data[start : start + size])
        with suppress(BlockingIOError):
            incoming.write(side.peer.recv(1 << 16))
    assert side.got == b"hello"
    side.connection.abort()
    side.peer.close()


async def test_a_handshake_that_fails(server_context: ssl.SSLContext) -> None:
    secured = Secured(server_context, ssl.create_default_context())
    await until(lambda: len(secured.said) == 2)
    assert sorted(secured.said) == ["client failed SSLCertVerificationError", "server failed SSLError"]
    for connection in (secured.client, secured.server):
        assert connection.tls is not None
        assert not connection.tls.ready
    await secured.over()


async def test_a_handshake_with_an_origin_keeps_nobody_waiting(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL reads certificates that take it minutes."""
    shake, may_go_on = Tls.shake, threading.Event()

    def slowly(tls: Tls, data: bytes) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert may_go_on.wait(20)
        elif tls.client_side and data:
            assert tls.hello_end(data) == len(data), "certificates are behind it"
        shake(tls, data)

    monkeypatch.setattr(Tls, "shake", slowly)
    one, closed = (Secured(server_context, client_context) for _ in range(2))
    await until(lambda: bool(one.client._paused and closed.client._paused))
    assert connection_module._shaking.works == 2
    closed.client.abort()
    assert connection_module._shaking.works == 1
    await until(lambda: "client lost" in closed.said)
    may_go_on.set()
    await one.ready()
    one.server.write(b"hello")
    await until(lambda: one.got[1] == b"hello")
    assert "client established" not in closed.said
    assert not one.faults + closed.faults
    closed.server.abort()
    await one.over()


async def test_handshakes_with_origins_where_there_is_no_thread(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as at a container's limit of processes: those after the first one, which finds that out."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    shaking = Threads(connection_module._shake, "handshakes", threads=1)
    monkeypatch.setattr(connection_module, "_shaking", shaking)
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", start)
        first = Secured(server_context, client_context)
        await until(lambda: shaking.is_short)
        await (await Secured(server_context, client_context).ready()).over()
    await (await first.ready()).over()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_handshake_that_goes_on_with_an_earlier_session_needs_no_thread(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
) -> None:
    """It has no certificates."""
    client_context.maximum_version = ssl.TLSVersion[version]
    first = await Secured(server_context, client_context).ready()
    first.server.write(b"hello")
    await until(lambda: first.got[1] == b"hello")
    assert first.client.tls is not None
    session = first.client.tls.session.session
    await first.over()
    monkeypatch.setattr(connection_module, "_shaking", None)
    again = await Secured(server_context, client_context, session).ready()
    assert again.client.tls is not None
    assert again.client.tls.session.session_reused
    await again.over()


async def test_what_is_abandoned_is_closed_though_the_end_of_tls_does_not_get_out(secured: Secured) -> None:
    secured.server.pause(HELD)
    with suppress(BlockingIOError):
        while True:
            secured.client._sock.send(bytes(1 << 10))
    assert not secured.client.waiting
    secured.client.abandon()
    await until(lambda: secured.said == ["client lost"])


async def test_one_that_sends_no_data_for_long(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """Of it, changes of keys and tickets alone, some microseconds each, no time limit would be the end."""
    server_context.num_tickets = 1_000
    secured = await Secured(server_context, client_context).ready()
    await until(lambda: "client lost" in secured.said)
    assert secured.client.broken
    await secured.over()


async def test_a_key_update(server_context: ssl.SSLContext) -> None:
    """Another implementation's client asks for one (RFC 8446 section 4.6.3)."""
    side = Side()
    side.connection.start()
    side.connection.start_tls(Tls(server_context, client_side=False))
    with socket.create_server(("127.0.0.1", 0)) as between:
        client = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{between.getsockname()[1]}", "-tls1_3",
            stdin=-1, stdout=-1, stderr=-1,
        )  # fmt: skip
        between.setblocking(False)
        far, _ = await side.loop.sock_accept(between)

    said = 0

    async def carry(source: socket.socket, target: socket.socket) -> None:
        nonlocal said
        while data := await side.loop.sock_recv(source, 1 << 16):
            await side.loop.sock_sendall(target, data)
            said += source is far

    carriers = [asyncio.create_task(carry(*pair)) for pair in ((far, side.peer), (side.peer, far))]
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"before\n")
        await until(lambda: side.got == b"before\n")
        for _ in range(2):
            before = said
            client.stdin.write(b"K\n")  # its command to update keys, of both sides, where it is read alone
            await until(lambda: said > before)  # noqa: B023
        client.stdin.write(b"behind\n")
        await until(lambda: side.got == b"before\nbehind\n")
        side.connection.write(b"answer\n")
        async with asyncio.timeout(30):
            while await client.stdout.readline() != b"answer\n":
                pass
    finally:
        client.kill()
        await client.wait()
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)
        side.connection.abort()
        side.peer.close()
        far.close()
    assert side.faults == []
