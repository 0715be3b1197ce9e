"""The front and the short way, with real sockets in one process; mitmproxy is a stand-in that takes notes."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import platform
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.test import taddons

from conftest import free_port
from e2e.support import client_hello
from proxy.test_addon import loaded
from urlward.proxy.addon import Urlward
from urlward.proxy.express import Express
from urlward.proxy.front import Front, listen_in_front
from urlward.proxy.relay import HttpRelay

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GET = b"GET /%b HTTP/1.1\r\nHost: plain.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Rig:
    """A front before an origin."""

    def __init__(self, addon: Urlward, tctx: taddons.context) -> None:
        self.addon = addon
        self.tctx = tctx
        self.handed: list[bytes] = []
        self.port = self.origin_port = 0
        self._servers: list[asyncio.Server] = []

    async def start(self, serve: Serve, spec: str = "reverse:http://127.0.0.1") -> None:
        """Begin to listen; in transparent mode the destination is always the origin."""
        origin = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.origin_port = origin.sockets[0].getsockname()[1]
        mode = mode_specs.ProxyMode.parse(spec if spec == "transparent" else f"{spec}:{self.origin_port}")
        instance = SimpleNamespace(mode=mode, handle_stream=self._mitmproxy)
        front = await asyncio.get_running_loop().create_server(
            lambda: Front(instance, self.addon), "127.0.0.1", 0
        )
        self.port = front.sockets[0].getsockname()[1]
        self._servers += [origin, front]

    async def _mitmproxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handed.append(await reader.read())
        writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *pieces: bytes) -> bytes:
        """Send on a connection of its own, and read to the end."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        with suppress(OSError):
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer

    async def settled(self) -> None:
        """Nothing is left of any connection."""
        for _ in range(200):
            if not list(self.addon.live):
                return
            await asyncio.sleep(0.01)
        pytest.fail("something is left")

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    addon = Urlward()
    with loaded(addon, tmp_path, urlward_flows=False, keep_host_header=True) as tctx:
        rig = Rig(addon, tctx)
        monkeypatch.setattr(platform, "original_addr", lambda _: ("127.0.0.1", rig.origin_port))
        yield rig
        rig.close()
        addon.done()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)
    writer.close()


async def test_requests_pass_and_are_blocked(rig: Rig) -> None:
    await rig.start(answer)
    assert await rig.ask(GET % b"a", GET % b"b") == OK * 2
    blocked = await rig.ask(GET.replace(b"plain", b"blocked") % b"a")
    assert blocked.startswith(b"HTTP/1.1 451 ")
    in_turn = await rig.ask(GET % b"a" + GET.replace(b"plain", b"blocked") % b"a" + GET % b"b")
    assert in_turn.startswith(OK + b"HTTP/1.1 451 ")
    assert rig.handed == []
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


async def test_what_is_not_ours_goes_to_mitmproxy_whole(rig: Rig) -> None:
    await rig.start(answer)
    hello = client_hello("plain.example")
    await rig.ask(hello[:2], hello[2:9], hello[9:])
    assert rig.handed == [hello]
    for option, value in (
        ("ignore_hosts", ["x"]),
        ("urlward_flows", True),
        ("keep_host_header", False),
        ("tcp_hosts", ["y"]),
    ):
        rig.tctx.options.update(**{option: value})
        await rig.ask(b"anything")
        assert rig.handed.pop() == b"anything"
        rig.tctx.options.reset()
        rig.tctx.options.update(urlward_flows=False, keep_host_header=True)
    await rig.settled()


async def test_tls_that_is_relayed(rig: Rig) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.read(65536))
        writer.write_eof()

    await rig.start(greet, "transparent")
    hello = client_hello("plain.example")
    assert await rig.ask(hello) == b"you said " + hello
    refused = await rig.ask(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
    assert refused == bytes([21, 3, 3, 0, 2, 2, 49])
    assert rig.handed == []
    await rig.settled()


async def test_what_is_neither_is_judged_before_it_is_relayed(rig: Rig) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.read(65536))
        writer.close()

    rig.tctx.options.update(urlward_other="relay")
    await rig.start(greet)
    assert await rig.ask(b"SSH-2.0-x\r\n") == b"you said SSH-2.0-x\r\n"
    rig.addon.keeper.files[0].path.write_text("127.0.0.1 id=A-9\n")  # type: ignore[union-attr]
    await rig.addon.keeper.reload()  # type: ignore[union-attr]
    assert await rig.ask(b"SSH-2.0-x\r\n") == b""
    await rig.settled()


async def test_an_origin_that_is_not_there(rig: Rig) -> None:
    await rig.start(answer)
    rig._servers[0].close()
    await asyncio.sleep(0.05)
    assert (await rig.ask(GET % b"a")).startswith(b"HTTP/1.1 502 ")
    await rig.start(answer, "transparent")
    rig._servers[2].close()
    await asyncio.sleep(0.05)
    assert await rig.ask(client_hello("plain.example")) == b""
    await rig.settled()


@pytest.mark.parametrize("listed", ["127.0.0.66", "127.0.0.1"])
async def test_a_name_whose_address_is_listed(rig: Rig, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.addon.keeper.files[0].path.write_text(f"{listed} id=A-9\n")  # type: ignore[union-attr]
    await rig.addon.keeper.reload()  # type: ignore[union-attr]
    await rig.start(answer, "reverse:http://localhost")
    found = await rig.ask(GET % b"a")
    assert found.startswith(b"HTTP/1.1 451 " if listed == "127.0.0.1" else OK)
    await rig.settled()


async def test_a_connection_to_itself_is_not_made(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.start(answer)
    server = rig.tctx.master.addons.get("proxyserver")
    itself = SimpleNamespace(
        listen_addrs=[("127.0.0.1", rig.origin_port)], mode=SimpleNamespace(transport_protocol="tcp")
    )
    monkeypatch.setattr(server, "servers", [itself])
    assert (await rig.ask(GET % b"a")).startswith(b"HTTP/1.1 502 ")


async def test_a_connection_that_nothing_has_redirected_is_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer, "transparent")
    monkeypatch.setattr(platform, "original_addr", lambda s: s.getsockname()[:2])
    reader, writer = await rig.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b"", "without waiting for what it has to say"
    writer.close()
    await rig.settled()
    assert caplog.text == ""


async def test_monitoring_lets_everything_pass(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig.tctx.options.update(urlward_monitor=True)
    await rig.start(answer, "reverse:http://localhost")
    rig.addon.keeper.files[0].path.write_text("blocked.example id=A-1\n127.0.0.1 id=A-9\n")  # type: ignore[union-attr]
    await rig.addon.keeper.reload()  # type: ignore[union-attr]
    caplog.clear()
    # The address is told with each request, like a host; what is listed twice is told once.
    assert await rig.ask(GET % b"a" + GET.replace(b"plain", b"blocked") % b"b", GET % b"c") == OK * 3
    assert [message.partition(" entry=")[2][:3] for message in caplog.messages] == ["A-1", "A-9", "A-9"]
    assert caplog.text.count(" would-block ") == 3
    await rig.settled()


@pytest.mark.parametrize("shared", [True, False])
async def test_workers_share_the_ports_of_every_mode(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setattr(
        mode_servers.AsyncioServerInstance, "listen", mode_servers.AsyncioServerInstance.listen
    )
    listen_in_front(Urlward(), reuse_port=shared)
    listen = mode_servers.AsyncioServerInstance.listen
    for spec in ("transparent", "transparent@8090", "reverse:http://127.0.0.1"):
        instance: Any = SimpleNamespace(mode=mode_specs.ProxyMode.parse(spec))
        port = free_port()
        (server,) = await listen(instance, "127.0.0.1", port)
        (listening,) = server.sockets
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == shared
        if shared:
            (other,) = await listen(instance, "127.0.0.1", port)
            other.close()
        server.close()


@pytest.mark.parametrize("on_error", ["block", "pass"])
async def test_a_fault_does_as_the_operator_says(
    rig: Rig, on_error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer)
    rig.tctx.options.update(urlward_on_error=on_error)

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(rig.addon, "decide", fail)
    assert await rig.ask(b"anything") == b""
    assert rig.handed == ([] if on_error == "block" else [b"anything"])
    monkeypatch.undo()
    monkeypatch.setattr(HttpRelay, "client_data", fail)
    # What has happened to its bytes is not known, so a relay that breaks is cut in either case.
    assert await rig.ask(GET % b"a") == b""
    assert "request=cut" in caplog.text
    await rig.settled()


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def test_an_upload_that_comes_at_once_waits_for_its_origin(rig: Rig) -> None:
    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    await rig.start(stalled)
    _, writer = await rig.connect()
    # More than a socket holds, in the first read already.
    writer.write(
        b"POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 10**7
    )
    task = asyncio.create_task(flood(writer))
    await asyncio.sleep(1)
    (express,) = rig.addon.live
    assert isinstance(express, Express)
    assert express._server is not None
    assert express._server.transport.get_write_buffer_size() < 1 << 20
    task.cancel()
    writer.transport.abort()
    express.cut()
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
    await asyncio.sleep(1)
    (express,) = rig.addon.live
    assert isinstance(express, Express)
    held = [port.transport.get_write_buffer_size() for port in (express._client, express._server) if port]
    assert max(held) < 1 << 20
    assert not (express._client if upload else express._server).transport.is_reading()  # type: ignore[union-attr]
    if task:
        task.cancel()
    writer.transport.abort()
    express.cut()
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
        assert await asyncio.wait_for(reader.read(), 5) == b"", "so that it is tried again"
        writer.close()
    await rig.settled()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


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
        await asyncio.wait_for(reader.read(), 5)
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
    live.tick(now)
    live.tick(now + 61)
    for reader, _ in (begun, silent):
        assert await asyncio.wait_for(closed(reader), 5), "a head may take a minute"
    assert len(list(live)) == 1
    live.tick(now + rig.addon.tcp_timeout + 62)
    assert await asyncio.wait_for(closed(at_rest[0]), 5)
    await rig.settled()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("cut", [True, False])
async def test_a_client_that_leaves_while_the_origin_is_sought(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer)
    sought = asyncio.Event()

    async def slow(data: Any) -> None:
        sought.set()
        await asyncio.sleep(0.2)

    monkeypatch.setattr(rig.addon, "server_connect", slow)
    _, writer = await rig.connect()
    writer.write(GET % b"a")
    await sought.wait()
    if cut:
        (express,) = rig.addon.live
        express.cut()
    writer.transport.abort()
    await asyncio.sleep(0.4)
    await rig.settled()
    assert caplog.text == ""
