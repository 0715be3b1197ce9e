"""A client's connection and those to its origins, with real sockets in one process."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import platform

from conftest import nobody_listens, until
from e2e.support import client_hello
from proxy.rig import BLOCKED, GET, LONG, OK, Rig, Streams, answer, closed, reset
from urlward.engine.scope import Scope
from urlward.proxy import connection, forward, front, upstream
from urlward.proxy.connection import BEHIND, LOW, Connection, is_local
from urlward.proxy.guard import Guard
from urlward.proxy.poller import READ, Poller
from urlward.proxy.relay import HttpRelay
from urlward.proxy.session import CONNECT_WITHIN, ENDED_FOR, GONE_AFTER, Session
from urlward.proxy.threads import Waiter
from urlward.proxy.upstream import KEPT_FOR, Address, Opening


async def test_requests_pass_and_are_blocked(rig: Rig) -> None:
    await rig.start(answer)
    assert await rig.ask(GET % b"a", GET % b"b") == OK * 2
    blocked = await rig.ask(BLOCKED % b"a")
    assert blocked.startswith(b"HTTP/1.1 451 ")
    in_turn = await rig.ask(GET % b"a" + BLOCKED % b"a" + GET % b"b")
    assert in_turn.startswith(OK + b"HTTP/1.1 451 ")
    assert rig.handed == []
    await rig.settled()


@pytest.mark.parametrize(("kind", "name"), [(Session, "close_server"), (HttpRelay, "closed")])
async def test_a_fault_at_the_end_keeps_no_connection_in_mind(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:
    await rig.start(answer)
    reader, writer = await rig.connect()
    writer.write(GET % b"a")
    assert await reader.readexactly(len(OK)) == OK
    done = getattr(kind, name)

    def fail(*_: object) -> None:
        monkeypatch.setattr(kind, name, done)
        raise RuntimeError

    monkeypatch.setattr(kind, name, fail)
    reset(writer)
    await rig.settled()


async def test_every_byte_by_itself(rig: Rig) -> None:
    await rig.start(answer)
    reader, writer = await rig.connect()
    for byte in GET % b"a":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert await reader.readexactly(len(OK)) == OK
    writer.close()
    await rig.settled()


async def test_tls_that_is_relayed(rig: Rig) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16you said " + await reader.read(65536))
        writer.write_eof()

    await rig.start(greet, "transparent")
    hello = client_hello("plain.example")
    assert await rig.ask(hello) == b"\x16you said " + hello
    refused = await rig.ask(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
    assert refused == bytes([21, 3, 3, 0, 2, 2, 49])
    assert rig.handed == []
    await rig.settled()


@pytest.mark.parametrize("ends", [False, True], ids=["waits", "has ended"])
async def test_what_is_relayed_unread_may_rest(rig: Rig, ends: bool) -> None:
    """A mailbox that is watched, or a shell, may be silent for longer than anything that is answered."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"\x16")
        if ends:
            writer.write_eof()
        await reader.read()

    await rig.start(greet, "transparent")
    reader, writer = await rig.connect()
    writer.write(client_hello("plain.example"))
    assert await (reader.read() if ends else reader.readexactly(1)) == b"\x16"
    session, now = rig.session, time.monotonic()
    server = session._server
    assert server is not None
    session.touch(now)
    session.touch(now + rig.addon.tcp_timeout + 1)
    await asyncio.sleep(0)
    assert session._over is ends
    if not ends:
        for connection in (session._client, server):
            assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "asked meanwhile"
        session.touch(now + rig.addon.quiet_timeout + 1)
        await asyncio.sleep(0)
        assert session._over
    writer.close()
    await rig.settled()


@pytest.mark.parametrize(
    "there", [(0, 0, 0), (1, 1, 1), (1, 1, 0)], ids=["gone", "there", "gone for a moment"]
)
@pytest.mark.parametrize("relayed", [True, False], ids=["relayed", "http"])
async def test_what_leads_out_by_an_address_that_is_gone_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, there: tuple[int, ...], relayed: bool
) -> None:
    """A lease has brought another: the answer to what a client sends on an open connection never comes."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await rig.start(hang, "transparent")
    _, writer = await rig.connect()
    writer.write(client_hello("plain.example") if relayed else GET % b"x")
    await until(lambda: rig.session._server is not None)
    session, now = rig.session, time.monotonic()
    for seconds, is_there in zip((0, GONE_AFTER - 1, GONE_AFTER + 1), there, strict=True):
        assert not session._over
        monkeypatch.setattr(connection, "_local_until", {})
        monkeypatch.setattr(connection, "is_local", lambda *_, said=is_there: bool(said))
        session.touch(now + seconds)
    await asyncio.sleep(0)
    assert session._over is not any(there)
    session.cut()
    await rig.settled()


async def test_a_slow_client_gets_what_has_come_by_an_address_that_is_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await flood(writer)

    await rig.start(serve)
    _, writer = await rig.connect()
    writer.write(GET % b"x")
    await held_back(rig, upload=False)
    monkeypatch.setattr(connection, "_local_until", {})
    monkeypatch.setattr(connection, "is_local", lambda *_: False)
    session, now = rig.session, time.monotonic()
    for later in range(1, 4):
        session.touch(now + later * GONE_AFTER)
    assert session._client.open
    session.cut()
    writer.transport.abort()
    await rig.settled()


def test_an_address_is_this_machines_though_all_its_ports_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(errno.EADDRINUSE, "")

    with monkeypatch.context() as busy:
        busy.setattr(socket, "socket", Busy)
        assert is_local("127.0.0.1")


async def test_what_is_neither_is_judged_before_it_is_relayed(rig: Rig) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.read(65536))
        writer.close()

    rig.tctx.options.update(urlward_other="relay")
    await rig.start(greet)
    assert await rig.ask(b"SSH-2.0-x\r\n") == b"you said SSH-2.0-x\r\n"
    await rig.relist("127.0.0.1 id=A-9")
    assert await rig.ask(b"SSH-2.0-x\r\n") == b""
    await rig.settled()


@pytest.mark.parametrize("mode", ["reverse:http://127.0.0.1", "regular"])
async def test_requests_that_come_together_take_turns(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Each of them is a turn, and all are answered, also where the client has ended behind the last."""
    turns: list[Session] = []
    later = Session.go_on_later

    def noted(self: Session) -> None:
        turns.append(self)
        later(self)

    monkeypatch.setattr(Poller, "turn_is_over", True)
    # Not `Poller.later`: that has what a share does that is behind, too, as on a machine that stands still.
    monkeypatch.setattr(Session, "go_on_later", noted)
    await rig.start(answer, mode)
    rig.lead()
    one = GET % b"a" if "reverse" in mode else absolute(rig)
    assert (await rig.ask(one * 5)).count(b"HTTP/1.1 200 ") == 5
    assert len(turns) >= 4 if "reverse" in mode else not turns, "of a proxy each waits for the one before"
    await rig.settled()


async def test_requests_inside_tls_take_turns(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Poller, "turn_is_over", True)
    await rig.start(answer, "transparent", tls=True)
    streams = await rig.connect()
    await rig.secure(streams, "paged.example")
    streams[1].write((GET % b"a").replace(b"plain", b"paged") * 5)
    assert await streams[0].readexactly(5 * len(OK)) == OK * 5
    streams[1].close()
    await rig.settled()


async def test_a_burst_of_connections_waits_or_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MOST_WAITING", 2)
    await rig.start(answer)
    share = rig.front.poller.share("127.0.0.1")
    share.left = -10.0
    made = []
    for _ in range(3):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        share.round = rig.front.poller._round
        rig.front.take(near, ("127.0.0.1", 1))
        made.append(far)
    assert len(share.waiting) == 2
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(made[2], 1) == b""
    for far in made[:2]:
        await loop.sock_sendall(far, GET % b"a")
        assert await loop.sock_recv(far, 1 << 10) == OK
    for far in made:
        far.close()
    await rig.settled()


async def test_an_origin_that_is_not_there(rig: Rig) -> None:
    with nobody_listens() as port:
        await rig.start(port)
        assert (await rig.ask(GET % b"a")).startswith(b"HTTP/1.1 502 ")
        await rig.start(port, "transparent")
        assert await rig.ask(client_hello("plain.example")) == b""
    await rig.settled()


@pytest.mark.parametrize("listed", ["127.0.0.66", "127.0.0.1"])
async def test_a_name_whose_address_is_listed(rig: Rig, listed: str) -> None:
    await rig.relist(f"{listed} id=A-9")
    await rig.start(answer, "reverse:http://localhost")
    found = await rig.ask(GET % b"a")
    assert found.startswith(b"HTTP/1.1 451 " if listed == "127.0.0.1" else OK)
    await rig.settled()


@pytest.mark.parametrize(("excused", "passes"), [("http://127.0.0.1/page", False), ("127.0.0.1", True)])
async def test_a_page_on_an_address_that_is_listed(rig: Rig, excused: str, passes: bool) -> None:
    """As in all modes, the address has to be excused, not the page alone."""
    await rig.relist("127.0.0.1 id=A-9", f"@@{excused}")
    await rig.start(answer, "regular")
    page = b"GET http://127.0.0.1:%d/page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % rig.origin_port
    assert (await rig.ask(page)).startswith(b"HTTP/1.1 200 " if passes else b"HTTP/1.1 451 ")
    await rig.settled()


@pytest.mark.parametrize("entry", ["http://127.0.0.1/page", "http://127.0.0.1/other"])
async def test_a_page_on_the_address_that_a_name_leads_to(rig: Rig, entry: str) -> None:
    """As where the client dials the address, on a new connection and on one that is open, and for all that
    comes at once."""
    await rig.relist(f"{entry} id=A-9")
    await rig.start(answer, "reverse:http://localhost")
    page = b"HTTP/1.1 451 " if entry.endswith("page") else OK
    assert (await rig.ask(GET % b"page")).startswith(page)
    assert (await rig.ask(GET % b"a" + GET % b"page")).startswith(OK + page)
    assert (await rig.ask(GET % b"a", GET % b"page")).startswith(OK + page)
    await rig.start(answer, "regular")
    rig.lead()
    for _ in range(2):
        found = await rig.ask(absolute(rig).replace(b"/ HTTP", b"/page HTTP"))
        assert found.startswith(page[:13])
    await rig.settled()


async def test_monitoring_lets_everything_pass(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig.tctx.options.update(urlward_monitor=True)
    await rig.start(answer, "reverse:http://localhost")
    await rig.relist("blocked.example id=A-1", "127.0.0.1 id=A-9")
    caplog.clear()
    # The address is told with each request, like a host; what is listed twice is told once.
    assert await rig.ask(GET % b"a" + BLOCKED % b"b", GET % b"c") == OK * 3
    assert [message.partition(" entry=")[2][:3] for message in caplog.messages] == ["A-9", "A-1", "A-9"]
    assert caplog.text.count(" would-block ") == 3
    await rig.settled()


@pytest.mark.parametrize("on_error", ["block", "pass"])
async def test_a_fault_does_as_the_operator_says(
    rig: Rig, on_error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer)
    rig.tctx.options.update(urlward_on_error=on_error)

    def fail(*_: object) -> None:
        raise RuntimeError

    async def gets_nothing(request: bytes) -> None:
        reader, writer = await rig.connect()
        writer.write(request)
        writer.write_eof()
        assert await closed(reader)
        writer.close()

    monkeypatch.setattr("urlward.proxy.session.decide", fail)
    await gets_nothing(b"anything")
    assert rig.handed == []
    monkeypatch.undo()
    monkeypatch.setattr(HttpRelay, "client_data", fail)
    # What has happened to its bytes is not known, so a relay that breaks is cut in either case.
    await gets_nothing(GET % b"a")
    assert "request=cut" in caplog.text
    await rig.settled()


async def test_no_descriptor_for_the_origin_is_said_to_the_client_and_the_log(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer)
    reader, writer = await rig.connect()
    writer.write(GET % b"a")
    assert await reader.readexactly(len(OK)) == OK
    await until(rig.session.idle)
    other, asking = await rig.connect()

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    await until(lambda: len(list(rig.addon.live)) == 2)
    monkeypatch.setattr("urlward.proxy.upstream.socket", SimpleNamespace(**vars(socket) | {"socket": fail}))
    asking.write(GET % b"b")
    assert (await other.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503 ")
    asking.close()
    assert [line for line in caplog.messages if "raise LimitNOFILE" in line]
    assert await reader.read() == b"", "one at rest has made room"
    writer.close()
    monkeypatch.undo()
    await rig.settled()


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def held_back(rig: Rig, *, upload: bool) -> tuple[Connection, Connection]:
    """Wait until one side of the only connection is no longer read; that, and the other."""
    found: list[Connection] = []

    def look() -> bool:
        session = next(iter(rig.addon.live), None)
        assert session is None or isinstance(session, Session)
        if session is None or session._over or session._server is None:
            return False
        sides = session._client, session._server
        found[:] = sides if upload else sides[::-1]
        return bool(found[0]._paused & BEHIND) and not found[0]._events & READ

    await until(look)
    return found[0], found[1]


async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin that reads no more than a stream's buffer."""
    await asyncio.sleep(60)


async def test_an_upload_that_comes_at_once_waits_for_its_origin(rig: Rig) -> None:
    await rig.start(stalled)
    _, writer = await rig.connect()
    # More than a socket holds, in the first read already.
    writer.write(
        b"POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 10**7
    )
    task = asyncio.create_task(flood(writer))
    _, server = await held_back(rig, upload=True)
    assert server.waiting < 1 << 20
    task.cancel()
    writer.transport.abort()
    rig.session.cut()
    await rig.settled()


@pytest.mark.parametrize("upload", [True, False])
async def test_a_slow_receiver_holds_the_sender_back(rig: Rig, upload: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if upload:
            await asyncio.sleep(60)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        await flood(writer)

    await rig.start(serve)
    _, writer = await rig.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: %d\r\n\r\n" % (10**9 * upload))
    task = asyncio.create_task(flood(writer)) if upload else None
    _, receiver = await held_back(rig, upload=upload)
    assert LOW < receiver.waiting < 1 << 20, "it goes on where there is less"
    if task:
        task.cancel()
    writer.transport.abort()
    rig.session.cut()
    await rig.settled()


@pytest.mark.parametrize("who", ["client", "origin"])
async def test_a_reset(rig: Rig, who: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    await rig.start(serve)
    reader, writer = await rig.connect()
    writer.write(GET % b"a")
    assert await reader.readexactly(len(OK)) == OK
    if who == "client":
        reset(writer)
    else:
        writer.write(GET % b"b")
        assert await asyncio.wait_for(reader.read(), LONG) == b"", "so that it is tried again"
        writer.close()
    await rig.settled()


@pytest.mark.parametrize("spec", ["reverse:http://127.0.0.1", "regular"])
async def test_who_aborts_a_download_ends_it_at_the_origin(rig: Rig, spec: str) -> None:
    """The reset is found by sending or by reading, whichever comes first."""
    sending = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sending
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        sending += 1
        with suppress(OSError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        sending -= 1
        writer.close()

    await rig.start(serve, spec)
    rig.lead()
    for _ in range(10):
        reader, writer = await rig.connect()
        writer.write(absolute(rig) if spec == "regular" else GET % b"a")
        await reader.read(1 << 16)
        reset(writer)
    await rig.settled()
    await until(lambda: not sending)


async def test_who_sends_a_line_break_behind_its_body_gets_all_of_a_download(rig: Rig) -> None:
    """A connection that was closed would be reset on it, and what waits in the kernel be lost."""
    size = 300_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nbody")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()

    await rig.start(serve)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    client.connect(("127.0.0.1", rig.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1 << 12)
    head = GET.replace(b"GET", b"POST").replace(
        b"\r\n\r\n", b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    )
    writer.write(head % b"a" + b"body")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
    await until(lambda: rig.session._server is None)  # all of it has come, and nothing is relayed any more
    writer.write(b"\r\n")
    assert len(await asyncio.wait_for(reader.read(), LONG)) == size
    writer.close()
    await rig.settled()


async def test_a_download_that_breaks_off_does_not_look_whole(rig: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.1)
        reset(writer)

    await rig.start(serve)
    reader, writer = await rig.connect()
    writer.write(GET % b"a")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), LONG)
    writer.close()
    await rig.settled()


async def test_time_limits(rig: Rig) -> None:
    await rig.start(answer)
    silent, begun, at_rest = [await rig.connect() for _ in range(3)]
    begun[1].write(b"GET / HTTP/1.1\r\nHost: pl")
    at_rest[1].write(GET % b"a")
    await at_rest[0].readexactly(len(OK))
    live = rig.addon.live
    now = asyncio.get_running_loop().time()
    await live.tick(now)
    await live.tick(now + 61)
    for reader, _ in (begun, silent):
        assert await closed(reader), "a head may take a minute"
    assert len(list(live)) == 1
    await live.tick(now + rig.addon.tcp_timeout + 62)
    assert await closed(at_rest[0])
    await rig.settled()


@pytest.mark.parametrize("how", ["leaves", "is cut", "waits too long"])
async def test_a_client_that_leaves_while_the_origin_is_sought(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer, "regular")
    sought: list[Waiter] = []

    def look_up(_host: str, _port: int, _client: str, done: Callable[[Any], None]) -> Waiter:
        sought.append(Waiter(done))
        return sought[-1]

    monkeypatch.setattr(rig.addon.resolver, "look_up", look_up)
    reader, writer = await rig.connect()
    writer.write(absolute(rig))
    await until(lambda: sought)
    if how == "waits too long":
        rig.session.touch(time.monotonic() + CONNECT_WITHIN)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 502 ")
    elif how == "is cut":
        rig.session.cut()
    writer.transport.abort()
    await asyncio.sleep(0.05)
    if how == "leaves":  # which is found out when reading goes on
        assert sought[0].done is not None
        sought[0].done([("127.0.0.1", rig.origin_port)])
    else:
        assert sought[0].done is None
    await rig.settled()
    assert caplog.text == ""


# -- explicit proxy, SOCKS and TLS


def absolute(rig: Rig, host: str = "plain.example", more: bytes = b"") -> bytes:
    return b"GET http://%b:%d/ HTTP/1.1\r\nHost: x\r\n%b\r\n" % (host.encode(), rig.origin_port, more)


async def tunnel(rig: Rig, host: str) -> Streams:
    streams = await rig.connect()
    streams[1].write(f"CONNECT {host}:{rig.origin_port} HTTP/1.1\r\n\r\n".encode())
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return streams


class Counting:
    """An origin that says on which connection of its own it was asked: the first is 0."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.writers)
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"Content-Length: 2" in head:
                    await reader.readexactly(2)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % number)


async def which(rig: Rig, streams: Streams, host: str = "plain.example", more: bytes = b"") -> int:
    """On which connection the origin was asked."""
    streams[1].write(absolute(rig, host, more))
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return int(await streams[0].readexactly(2))


async def resting(rig: Rig) -> Streams:
    """A client whose connection to a.example is at rest, and to b.example its own."""
    await rig.start(Counting(), "regular")
    rig.lead()
    streams = await rig.connect()
    assert [await which(rig, streams, host) for host in ("a.example", "b.example")] == [0, 1]
    return streams


async def test_connections_to_origins_are_kept_for_all_clients(rig: Rig) -> None:
    await rig.start(Counting(), "regular")
    rig.lead()
    one, other = await rig.connect(), await rig.connect()
    assert [await which(rig, one, host) for host in ("a.example", "b.example", "a.example")] == [0, 1, 0]
    assert await which(rig, other, "b.example") == 1
    assert await which(rig, other, "a.example") == 2, "that of the first client is not at rest"
    one[1].close()
    await until(lambda: len(rig.addon.pool) == 2)
    assert await which(rig, other, "a.example") == 2
    third = await rig.connect()
    assert await which(rig, third, "a.example") == 0
    closes = await rig.connect()
    assert await which(rig, closes, "b.example", b"Connection: close\r\n") == 1
    assert await closes[0].read() == b""
    assert await which(rig, third, "b.example") == 1
    for streams in (other, third, closes):
        streams[1].close()
    await rig.settled()


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate", "kerberos"])
async def test_a_connection_that_counts_as_one_clients_is_nobody_elses(rig: Rig, scheme: str) -> None:
    await rig.start(Counting(), "regular")
    rig.lead()
    one, other = await rig.connect(), await rig.connect()
    own = f"Authorization: {scheme} TlRMTVNTUAAB\r\n".encode()
    assert [await which(rig, one, "a.example", more) for more in (own, b"")] == [0, 0]
    one[1].close()
    await until(lambda: len(list(rig.addon.live)) == 1)
    assert await which(rig, other, "a.example") == 1
    assert await which(rig, other, "a.example", own) == 1
    assert await which(rig, other, "b.example") == 2
    assert await which(rig, other, "a.example", b"Authorization: Basic eDp5\r\n") == 3
    assert await which(rig, other, "b.example") == 2
    assert await which(rig, other, "a.example") == 3, "a password in each request is of that request"
    other[1].close()
    await rig.settled()


async def test_what_cannot_be_sent_twice_goes_over_a_connection_of_its_own(rig: Rig) -> None:
    streams = await resting(rig)
    streams[1].write(absolute(rig, "a.example", b"Content-Length: 2\r\n").replace(b"GET", b"POST", 1) + b"xy")
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert await streams[0].readexactly(2) == b"02"
    streams[1].close()
    await rig.settled()


async def test_what_nobody_asked_for_ends_a_connection_at_rest(rig: Rig) -> None:
    origin = Counting()
    await rig.start(origin, "regular")
    rig.lead()
    streams = await rig.connect()
    for number, ends in enumerate(("says", "closes", "resets")):
        assert await which(rig, streams, "a.example") == 2 * number
        assert await which(rig, streams, "b.example") == 2 * number + 1
        if ends == "says":
            origin.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        elif ends == "closes":
            origin.writers[2].close()
        else:
            reset(origin.writers[4])
        await until(lambda: not len(rig.addon.pool))
        rig.addon.pool.clear()
        origin.writers[2 * number + 1].close()
        await until(lambda: rig.session._server is None)
    streams[1].close()
    await rig.settled()


@pytest.mark.parametrize(("most", "files"), [(4, 1000), (1000, 19)])
async def test_connections_at_rest_have_a_bound_and_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, most: int, files: int
) -> None:
    with monkeypatch.context() as limited:
        limited.setattr(upstream.resource, "getrlimit", lambda _: (files, files))
        rig.addon.pool = upstream.Pool(most)
    monkeypatch.setattr(upstream, "MOST_OF_ONE", 2)
    await rig.start(Counting(), "regular")
    rig.lead()
    streams = await rig.connect()
    for number in range(8):
        assert await which(rig, streams, f"host{number}.example") == number
    assert len(rig.addon.pool) == 4
    assert await which(rig, streams, "host4.example") == 4
    assert await which(rig, streams, "host3.example") == 8, "that of the longest rest has made room"
    rig.addon.pool.clear()
    many = [await rig.connect() for _ in range(4)]
    for one in many:
        await which(rig, one, "one.example")
    for one in many:
        one[1].close()
    await until(lambda: len(list(rig.addon.live)) == 1)
    assert len(rig.addon.pool) == 2
    now = time.monotonic()
    rig.addon.pool.expire(now + KEPT_FOR - 1)
    assert len(rig.addon.pool) == 2
    rig.addon.pool.expire(now + KEPT_FOR + 1)
    assert not len(rig.addon.pool)
    streams[1].close()
    await rig.settled()


async def test_a_connection_from_an_address_that_is_gone_is_not_used(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease has brought another: what goes out from the one before is lost, and no error comes of it."""
    streams = await resting(rig)
    assert [is_local(host) for host in ("127.0.0.1", "192.0.2.1")] == [True, False]
    with monkeypatch.context() as rested:
        rested.setattr(upstream, "FRESH", -1.0)
        rested.setattr(forward, "FRESH", -1.0)
        rested.setattr(connection, "LOCAL_FOR", LONG)
        assert [await which(rig, streams, host) for host in ("b.example", "a.example")] == [1, 0], "as ever"
        rested.setattr(connection, "is_local", lambda *_: pytest.fail("the system was asked again"))
        assert [await which(rig, streams, host) for host in ("a.example", "b.example")] == [0, 1], "known"
        connection._local_until.clear()
        rested.setattr(connection, "is_local", unknown)
        assert [await which(rig, streams, host) for host in ("a.example", "b.example")] == [0, 1], (
            "no telling"
        )
        rested.setattr(connection, "is_local", lambda *_: False)
        assert await which(rig, streams, "b.example") == 2, "that of its own"
        assert await which(rig, streams, "a.example") == 3, "that at rest"
    streams[1].close()
    await rig.settled()


def unknown(*_: object) -> bool:
    raise OSError(errno.EMFILE, "")


async def test_what_has_just_been_in_use_is_not_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = await resting(rig)
    monkeypatch.setattr(connection, "is_local", lambda *_: pytest.fail("a request asked the system"))
    assert [await which(rig, streams, host) for host in ("b.example", "a.example")] == [1, 0]
    streams[1].close()
    await rig.settled()


async def test_a_connection_at_rest_leads_nobody_where_they_may_not_go(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = await resting(rig)
    monkeypatch.setattr(rig.addon, "may_reach", lambda client, address, port, named: False)
    streams[1].write(absolute(rig, "a.example"))
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
    streams[1].close()
    await rig.settled()


async def test_a_connection_at_rest_whose_address_came_to_be_listed(rig: Rig) -> None:
    streams = await resting(rig)
    await rig.relist("127.0.0.1")
    streams[1].write(absolute(rig, "a.example"))
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 451 ")
    streams[1].close()
    await rig.settled()


async def test_connections_at_rest_make_room_first(rig: Rig) -> None:
    streams = await resting(rig)
    rig.addon.short(OSError(errno.EMFILE, ""))
    assert not len(rig.addon.pool)
    assert await which(rig, streams, "b.example") == 1
    streams[1].close()
    await rig.settled()


async def test_a_lack_of_ports_is_said_and_closes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing would free none, and who has most connections is not to blame."""
    streams = await resting(rig)
    at_rest = len(rig.addon.pool)
    counted, alarms = list[str](), list[tuple[str, str]]()
    recording = SimpleNamespace(alarm=lambda *told: alarms.append(told))
    with monkeypatch.context() as patch:
        patch.setattr(rig.addon, "recording", recording)
        patch.setattr(rig.addon, "metrics", SimpleNamespace(error=counted.append))
        for _ in range(3):
            rig.addon.short(OSError(errno.EADDRNOTAVAIL, ""))
        assert len(rig.addon.pool) == at_rest > 0
        rig.addon.short(OSError(errno.EMFILE, ""))
    assert counted == ["ports"] * 3 + ["descriptors"]
    assert [kind for kind, _ in alarms] == ["ports", "descriptors"]
    assert caplog.text.count("no free port for a connection to an origin") == 1
    streams[1].close()
    await rig.settled()


async def test_who_takes_little_of_what_is_sent_gets_on_less(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same time: no more is on its way to the first than buffers hold."""
    monkeypatch.setattr("urlward.proxy.session.perf_counter", lambda: 1.0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with suppress(OSError):
            while await reader.read(1):
                writer.write(bytes(1 << 20))
        writer.close()

    await rig.start(serve)
    rates = []
    for taken in (1 << 10, 1 << 24):
        streams = await rig.connect()
        streams[1].write(GET % b"x")
        await streams[0].readexactly(taken)
        session = rig.session
        rates.append(session.progress())
        reset(streams[1])
        await rig.settled()
        assert session.progress() == 0.0
    assert 0 < rates[0] < rates[1]
    assert rates[1] >= 1 << 24


async def test_an_origin_that_closes_each_connection_is_asked_twice(rig: Rig) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if len(asked) == 1:
                writer.write(OK)
                await reader.readuntil(b"\r\n\r\n")
        writer.close()

    await rig.start(serve, "regular")
    rig.lead()
    found = await rig.ask(absolute(rig), absolute(rig))
    assert found.count(b"HTTP/1.1 200 ") == 1
    assert found.count(b"HTTP/1.1 502 ") == 1
    assert len(asked) == 2
    await rig.settled()


@pytest.mark.parametrize(
    ("found", "silent", "least", "listed", "passes"),
    [
        (("127.0.0.2", "127.0.0.1"), False, Scope.HOST, "", True),
        (("127.0.0.2", "127.0.0.1"), True, Scope.HOST, "", True),
        (("127.0.0.3", "127.0.0.1"), False, Scope.HOST, "", False),
        (("127.0.0.2",), False, Scope.HOST, "", False),
        (("127.0.0.2", "127.0.0.1"), False, Scope.GLOBAL, "", False),
        (("127.0.0.2", "127.0.0.1"), False, Scope.LINK, "", False),
        (("127.0.0.2", "127.0.0.3", "127.0.0.1"), True, Scope.HOST, "127.0.0.3", True),
    ],
    ids=[
        "refuses",
        "is silent",
        "is not its own",
        "is its only one",
        "is farther",
        "is not this machine's",
        "is silent, and another listed",
    ],
)
async def test_where_a_dialled_address_does_not_answer_others_of_its_name_are_tried(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[str, ...],
    silent: bool,
    least: Scope,
    listed: str,
    passes: bool,
) -> None:
    """A client does so by itself, but here each address takes its connection. None is nearer to the filter:
    the client may run the name, and name its neighbours there."""
    connect = Opening._connect

    def wait(opening: Opening, address: Address) -> bool:
        assert address[0] != listed
        return (silent and address[0] == "127.0.0.2") or connect(opening, address)

    monkeypatch.setattr(Opening, "_connect", wait)
    monkeypatch.setattr("urlward.proxy.session.UNANSWERED_FOR", 0.0)
    is_far = {"127.0.0.2": least, "127.0.0.3": least, "127.0.0.1": min(least, Scope.LINK)}
    monkeypatch.setattr("urlward.proxy.session.scope", is_far.__getitem__)
    await rig.start(answer, "transparent")
    monkeypatch.setattr(Guard, "lists_address", lambda _, address, *__: address == listed)
    monkeypatch.setattr(platform, "original_addr", lambda _: ("127.0.0.2", rig.origin_port))
    rig.lead(*((address, rig.origin_port) for address in found))
    assert (await rig.ask(GET % b"a")).startswith(OK if passes else b"HTTP/1.1 502 ")
    await rig.settled()


async def test_requests_are_judged_by_the_address_in_the_place_of_the_one_dialled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.relist("http://127.0.0.1/page id=A-9")
    monkeypatch.setattr("urlward.proxy.session.scope", lambda _: Scope.LINK)
    monkeypatch.setattr("urlward.proxy.session.is_local", lambda _: False)
    await rig.start(answer, "transparent")
    monkeypatch.setattr(platform, "original_addr", lambda _: ("127.0.0.2", rig.origin_port))
    rig.lead(("127.0.0.2", rig.origin_port), ("127.0.0.1", rig.origin_port))
    assert OK not in await rig.ask(GET % b"a" + GET % b"page"), "both were judged by the other one"
    reader, writer = await rig.connect()
    for path, status in ((b"a", b"200"), (b"page", b"451")):
        writer.write(GET % path)
        assert (await asyncio.wait_for(reader.readline(), LONG)).split()[1] == status
        while await reader.readline() != b"\r\n":
            pass
        if status == b"200":
            await reader.readexactly(2)
    writer.close()
    await rig.settled()


async def test_a_name_without_an_address_is_no_origin_that_is_silent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.start(answer, "regular")

    def look_up(_host: str, _port: int, _client: str, done: Callable[[Any], None]) -> Waiter:
        lookup = Waiter(done)
        asyncio.get_running_loop().call_soon(lookup.tell, ())
        return lookup

    monkeypatch.setattr(rig.addon.resolver, "look_up", look_up)
    found = await rig.ask(absolute(rig))
    assert found.startswith(b"HTTP/1.1 502 ")
    assert found.endswith(b"\r\n\r\nNo address was found for this name.\n")
    await rig.settled()


async def test_no_address_of_the_filter_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.start(answer, "regular")
    monkeypatch.setattr(rig.addon, "may_reach", lambda client, address, port, named: address != "127.0.0.1")
    rig.lead(("127.0.0.2", 9), ("127.0.0.1", rig.origin_port))
    assert (await rig.ask(absolute(rig))).startswith(b"HTTP/1.1 502 ")
    await rig.settled()


async def test_what_an_origin_does_not_take_has_its_time(rig: Rig) -> None:
    await rig.start(stalled)
    _, writer = await rig.connect()
    writer.write(
        b"POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 10**7
    )
    _, server = await held_back(rig, upload=True)
    session = rig.session
    reset(writer)
    assert not session._over
    session._client.resume(BEHIND)  # where its end is seen
    await until(lambda: session._over)
    assert server.waiting
    assert rig.session is session, "somebody looks after it"
    for seconds in (0, rig.addon.tcp_timeout + 1):
        session.touch(time.monotonic() + seconds)
    await rig.settled()
    assert not server.open


@pytest.mark.parametrize(
    ("ends", "begun", "sent", "patience"),
    [
        (True, True, GET % b"x", ENDED_FOR),
        (True, False, GET % b"x", GONE_AFTER),
        (True, False, GET.replace(b"GET", b"POST") % b"x", ENDED_FOR),
        (False, False, GET % b"x", 0),
    ],
    ids=["begun", "not begun", "upload", "goes on"],
)
async def test_a_client_that_ends_has_less_time_for_its_answer(
    rig: Rig, ends: bool, begun: bool, sent: bytes, patience: float
) -> None:
    """Where nothing of it has come, most such clients have gone; an origin that hangs had a connection kept
    for a minute for each. An upload may be on its way for longer."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" if begun else b"")
        await reader.read()

    await rig.start(hang)
    reader, writer = await rig.connect()
    writer.write(sent)
    await until(lambda: rig.session._server is not None)
    session = rig.session
    if begun:
        await reader.readuntil(b"half")
    if ends:
        writer.write_eof()
        await until(lambda: not session._over and session._client.at_end)
    now = time.monotonic()
    assert rig.addon.tcp_timeout > ENDED_FOR + 5
    for seconds in (0, patience - 5, patience + 5):
        assert not session._over
        session.touch(now + seconds)
    await asyncio.sleep(0)
    assert session._over is ends
    session.cut()
    await rig.settled()


async def test_an_origin_that_never_ends_its_head_keeps_no_client_that_has_ended(rig: Rig) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        await reader.read()

    await rig.start(trickle)
    _, writer = await rig.connect()
    writer.write(GET % b"x")
    await until(lambda: rig.session._server is not None)
    session = rig.session
    writer.write_eof()
    await until(lambda: session._client.at_end)
    now = time.monotonic() + ENDED_FOR  # as of one whose connection had been at rest
    for seconds in (0, GONE_AFTER - 5, GONE_AFTER + 5):
        assert not session._over
        session.active = 1.0  # something has come
        session.touch(now + seconds)
    await rig.settled()
    assert session._over


async def test_a_client_that_has_ended_gets_answers_that_take_long_one_after_the_other(rig: Rig) -> None:
    may_go_on = asyncio.Semaphore(0)

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            await may_go_on.acquire()
            writer.write(OK)

    await rig.start(slowly)
    reader, writer = await rig.connect()
    writer.write(GET % b"x" * 2)
    await until(lambda: rig.session._server is not None)
    session = rig.session
    writer.write_eof()
    await until(lambda: session._client.at_end)
    now = time.monotonic() + ENDED_FOR
    session.touch(now)
    may_go_on.release()
    await reader.readuntil(OK)
    session.touch(now + GONE_AFTER - 1)
    session.active = 1.0  # the second begins to come
    session.touch(now + GONE_AFTER + 1)
    may_go_on.release()
    assert await asyncio.wait_for(reader.read(), LONG) == OK
    await rig.settled()


async def test_one_that_says_nothing_to_socks_is_at_rest(rig: Rig) -> None:
    await rig.start(answer, "socks5")
    _, writer = await rig.connect()
    await until(lambda: list(rig.addon.live))
    assert rig.session.idle()
    writer.write(b"\x05\x01")
    await until(lambda: not rig.session.idle())
    writer.close()
    await rig.settled()


async def test_a_tunnel_to_a_listed_page(rig: Rig) -> None:
    await rig.start(answer, "regular", tls=True)
    rig.lead()
    streams = await tunnel(rig, "paged.example")
    assert await rig.secure(streams, "paged.example") == "mitmproxy"
    page = (GET % b"listed").replace(b"plain", b"paged")
    for request, status in ((page, b"451"), (page.replace(b"listed", b"x"), b"200")):
        streams[1].write(request)
        head = await streams[0].readuntil(b"\r\n\r\n")
        assert head.split()[1] == status
        await streams[0].readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
    streams[1].close()
    streams = await tunnel(rig, "plain.example")
    assert await rig.secure(streams, "plain.example") == "Test origin CA"
    streams[1].close()
    await rig.settled()


async def test_tls_with_the_proxy_itself(rig: Rig) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    streams = await rig.connect()
    assert await rig.secure(streams, "127.0.0.1") == "mitmproxy"
    streams[1].write(absolute(rig))
    assert (await streams[0].readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
    streams[1].close()
    await rig.settled()


async def test_tls_inside_tls_is_not_relayed(rig: Rig) -> None:
    await rig.start(answer, "transparent", tls=True)
    streams = await rig.connect()
    await rig.secure(streams, "paged.example")
    streams[1].write(client_hello("plain.example"))
    assert await closed(streams[0])
    streams[1].close()
    await rig.settled()


async def test_an_origin_whose_certificate_is_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.start(answer, "transparent", tls=True)
    rig.tctx.options.update(ssl_verify_upstream_trusted_ca=None)
    streams = await rig.connect()
    await rig.secure(streams, "paged.example")
    streams[1].write((GET % b"x").replace(b"plain", b"paged"))
    head = await streams[0].readuntil(b".\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"The certificate of the origin is not valid: unable to get local issuer certificate." in head
    assert "paged.example" not in caplog.text
    streams[1].close()
    await rig.settled()


async def test_a_name_with_a_nul_leads_nowhere(rig: Rig) -> None:
    rig.tctx.options.update(urlward_other="relay")
    await rig.start(answer, "socks5")
    streams = await rig.connect()
    streams[1].write(b"\x05\x01\x00\x05\x01\x00\x03\x0blocalhost\0x" + rig.origin_port.to_bytes(2))
    await streams[0].readexactly(12)
    streams[1].write(GET % b"a")
    assert not (await streams[0].read(1 << 16)).startswith(b"HTTP/1.1 200 ")
    streams[1].close()
    await rig.settled()


async def test_a_slowed_client_is_not_read(rig: Rig) -> None:
    await rig.start(answer)
    reader, writer = await rig.connect()
    await until(lambda: list(rig.addon.live))
    rig.session.slow(held=True)
    writer.write(GET % b"a")
    await asyncio.sleep(0.02)
    assert rig.session._relay.pending == ()
    rig.session.slow(held=False)
    assert await reader.readexactly(len(OK)) == OK
    writer.close()
    await rig.settled()


@pytest.mark.parametrize("how", ["whole URL", "tunnel", "TLS"])
async def test_a_reload_cuts_what_goes_to_an_address_that_is_listed_now(rig: Rig, how: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x16HTTP" if how == "TLS" else b"HTTP/1.1 200 OK\r\n\r\nHTTP")
        await reader.read()
        writer.close()

    await rig.start(serve, "regular")
    rig.lead()
    reader, writer = await rig.connect() if how == "whole URL" else await tunnel(rig, "plain.example")
    requests = {"whole URL": absolute(rig), "tunnel": GET % b"a", "TLS": client_hello("plain.example")}
    writer.write(requests[how])
    await reader.readuntil(b"\r\n\r\nHTTP" if how != "TLS" else b"HTTP")
    assert [names.address for names in rig.session.live()] == ["127.0.0.1"]
    await rig.relist("127.0.0.1")
    assert rig.addon.guard is not None
    await rig.addon.live.recheck(rig.addon.guard)  # where the addon has not done so by itself meanwhile
    assert await closed(reader)
    writer.close()
    await rig.settled()


@pytest.mark.parametrize(
    ("field", "entry"), [(b"", "plain.example"), (b"X-Original-URL: /b\r\n", "http://plain.example/b")]
)
async def test_a_reload_cuts_what_is_listed_now(rig: Rig, field: bytes, entry: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nwithout end")
        await reader.read()
        writer.close()

    await rig.start(serve)
    reader, writer = await rig.connect()
    writer.write((GET % b"a")[:-2] + field + b"\r\n")
    await reader.readuntil(b"without end")
    assert [names.hosts[0] for names in rig.session.live()] == ["plain.example"]
    assert not rig.session.idle()
    await rig.relist(entry)
    assert rig.addon.guard is not None
    await rig.addon.live.recheck(rig.addon.guard)  # where the addon has not done so by itself meanwhile
    assert await closed(reader)
    writer.close()
    await rig.settled()


async def test_a_reload_takes_back_what_the_system_has_yet_to_send(rig: Rig) -> None:
    """Of a client that reads slowly it may have megabytes; their end would look like that of the response."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await flood(writer)

    await rig.start(serve)
    reader, writer = await rig.connect()
    writer.write(GET % b"a")
    await until(lambda: list(rig.addon.live) and rig.session._client.full)
    await rig.relist("plain.example")
    assert rig.addon.guard is not None
    await rig.addon.live.recheck(rig.addon.guard)  # where the addon has not done so by itself meanwhile
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    await rig.settled()


async def test_responses_that_are_whole_reach_their_client_though_the_next_never_comes(rig: Rig) -> None:
    size = 200_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await reader.read()

    await rig.start(serve)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", rig.port))
        await loop.sock_sendall(client, GET % b"a" + GET % b"b")
        await until(lambda: list(rig.addon.live) and getattr(rig.session._relay, "_answered", None))
        assert not rig.session._client.waiting
        rig.session.cut()
        found = 0
        while data := await loop.sock_recv(client, 1 << 16):
            found += len(data)
    assert found > size
    await rig.settled()
