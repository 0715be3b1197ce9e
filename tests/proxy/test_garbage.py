"""Nothing of a closed connection is left for the collector, of whatever kind and however it has ended."""

import asyncio
import gc
import ssl
import time
import types
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from conftest import nobody_listens, until
from e2e.support import client_hello
from proxy.rig import BLOCKED, GET, LONG, OK, Rig, Serve, Streams, answer, answer_http2, closed, reset
from urlward.proxy.connection import Connection
from urlward.proxy.http2 import ClientStream, Http2, Lane
from urlward.proxy.http2_frames import Budget
from urlward.proxy.http2_origin import Http2Origin, OriginLane, SharedOrigin
from urlward.proxy.live import HEAD_TIMEOUT
from urlward.proxy.passwords import Passwords
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import HttpRelay, Pending
from urlward.proxy.session import Server, Session, SessionClient, SessionContext
from urlward.proxy.socks import SocksHandshake
from urlward.proxy.threads import Waiter
from urlward.proxy.tls import Tls
from urlward.proxy.upstream import Opening

TIMES = 3
OURS = (
    Session, SessionClient, SessionContext, Server, Connection, HttpRelay, Pending, RawRelay, SocksHandshake,
    Tls, Opening, Http2, Lane, ClientStream, Budget, SharedOrigin, Http2Origin, OriginLane,
)  # fmt: skip

type Kind = Callable[[Rig, Streams], Awaitable[None]]

KINDS: dict[str, tuple[str, Serve, bool, Kind]] = {}


def kind(mode: str, serve: Serve = answer, *, tls: bool = False) -> Callable[[Kind], Kind]:
    """A kind of connection: by mode, behaviour of the origin, and whether that speaks TLS."""

    def declare(run: Kind) -> Kind:
        KINDS[run.__name__] = f"{mode}:http://127.0.0.1" if mode == "reverse" else mode, serve, tls, run
        return run

    return declare


def is_ours(each: object) -> bool:
    """Whether the product has made it."""
    if isinstance(each, types.FrameType):
        return "/urlward/" in each.f_code.co_filename
    module = each.__module__ if isinstance(each, types.FunctionType) else type(each).__module__
    return str(module).startswith("urlward.")


# -- what passes, and what does not


async def get(streams: Streams, request: bytes = GET % b"a", expected: bytes = b"HTTP/1.1 200 ") -> None:
    streams[1].write(request)
    head = await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), LONG)
    assert head.startswith(expected), head
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
    await streams[0].readexactly(length)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin that says what it has heard."""
    with suppress(OSError, asyncio.IncompleteReadError):
        writer.write(b"\x16heard " + await reader.read(1 << 16))
        await reader.read()
    writer.close()


@kind("reverse")
async def relayed(rig: Rig, streams: Streams) -> None:
    await get(streams)


@kind("reverse")
async def relayed_and_kept_alive(rig: Rig, streams: Streams) -> None:
    for _ in range(3):
        await get(streams)


@kind("reverse")
async def relayed_to_who_asks_nothing_more(rig: Rig, streams: Streams) -> None:
    await get(streams, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"a")
    assert await closed(streams[0])


@kind("reverse")
async def blocked(rig: Rig, streams: Streams) -> None:
    for _ in range(2):
        await get(streams, BLOCKED % b"a", b"HTTP/1.1 451 ")


@kind("reverse")
async def blocked_in_its_turn(rig: Rig, streams: Streams) -> None:
    streams[1].write(GET % b"a" + BLOCKED % b"a")
    await get(streams, b"")
    await get(streams, b"", b"HTTP/1.1 451 ")
    assert await closed(streams[0])


@kind("reverse")
async def blocked_before_its_body(rig: Rig, streams: Streams) -> None:
    post = b"POST / HTTP/1.1\r\nHost: blocked.example\r\nContent-Length: 9\r\n\r\nabc"
    await get(streams, post, b"HTTP/1.1 451 ")


@kind("reverse")
async def not_http(rig: Rig, streams: Streams) -> None:
    await get(streams, b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 400 ")


@kind("reverse")
async def silent_and_closed(rig: Rig, streams: Streams) -> None:
    streams[1].write(b"GET /")


def absolute(rig: Rig, host: str = "plain.example", path: str = "") -> bytes:
    return f"GET http://{host}:{rig.origin_port}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@kind("regular")
async def absolute_form(rig: Rig, streams: Streams) -> None:
    await get(streams, absolute(rig))
    await get(streams, absolute(rig))


@kind("regular")
async def absolute_form_to_many(rig: Rig, streams: Streams) -> None:
    for number in range(12):
        await get(streams, absolute(rig, f"host{number % 10}.example"))
    await get(streams, absolute(rig, "blocked.example"), b"HTTP/1.1 451 ")


async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    with suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
    writer.close()


@kind("regular", once)
async def sent_again(rig: Rig, streams: Streams) -> None:
    for _ in range(3):
        await get(streams, absolute(rig))


async def tunnel(rig: Rig, streams: Streams, host: str) -> None:
    streams[1].write(f"CONNECT {host}:{rig.origin_port} HTTP/1.1\r\n\r\n".encode())
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@kind("regular", tls=True)
async def tunnel_relayed(rig: Rig, streams: Streams) -> None:
    await tunnel(rig, streams, "plain.example")
    assert await rig.secure(streams, "plain.example") == "Test origin CA"
    await get(streams)


@kind("regular", tls=True)
async def tunnel_intercepted(rig: Rig, streams: Streams) -> None:
    await tunnel(rig, streams, "paged.example")
    assert await rig.secure(streams, "paged.example") == "mitmproxy"
    page = (GET % b"other").replace(b"plain", b"paged")
    for _ in range(2):
        await get(streams, page)
    await get(streams, page.replace(b"other", b"listed"), b"HTTP/1.1 451 ")


@kind("regular", tls=True)
async def http2_streams(rig: Rig, streams: Streams) -> None:
    rig.addon.http2 = True
    await tunnel(rig, streams, "paged.example")
    assert await rig.secure(streams, "paged.example", "h2") == "mitmproxy"
    reader, writer = streams
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client = H2Connection(H2Configuration(header_encoding="ascii"))
    client.initiate_connection()
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "paged.example")]
    for stream, path in ((1, "/other"), (3, "/listed"), (5, "/other")):
        client.send_headers(stream, [*head, (":path", path)], end_stream=True)
    client.send_headers(7, [(":method", "POST"), *head[1:], (":path", "/other")])
    found: dict[int, str] = {}
    while not {1, 3, 5, 9} <= found.keys():
        if 5 in found and client.highest_outbound_stream_id < 9:
            client.send_headers(9, [*head, (":path", "/other")], end_stream=True)  # on a session at rest
        writer.write(client.data_to_send())
        data = await asyncio.wait_for(reader.read(1 << 16), LONG)
        assert data
        for event in client.receive_data(data):
            if isinstance(event, ResponseReceived):
                found[event.stream_id or 0] = str(event.headers[0][1])  # type: ignore[index]
    assert (found[1], found[3], found[5], found[9]) == ("200", "451", "200", "200")
    client._frame_dispatch_table.clear()


@kind("regular", answer_http2, tls=True)
async def http2_streams_to_http2(rig: Rig, streams: Streams) -> None:
    await http2_streams(rig, streams)


@kind("regular")
async def tunnel_with_http(rig: Rig, streams: Streams) -> None:
    await get(streams, absolute(rig))
    await tunnel(rig, streams, "plain.example")
    await get(streams)


@kind("regular")
async def tunnel_abandoned(rig: Rig, streams: Streams) -> None:
    await tunnel(rig, streams, "plain.example")


@kind("socks5")
async def socks(rig: Rig, streams: Streams) -> None:
    streams[1].write(b"\x05\x01\x00\x05\x01\x00\x03\x0dplain.example" + rig.origin_port.to_bytes(2))
    await streams[0].readexactly(12)
    await get(streams)


@kind("socks5")
async def socks_refused(rig: Rig, streams: Streams) -> None:
    streams[1].write(b"\x04\x01")
    assert await closed(streams[0])


def asks_for_a_password(rig: Rig) -> bytes:
    """Credentials that have to be looked at each time, since they are others."""
    if rig.addon.access.passwords is None:
        rig.addon.take_passwords(Passwords("any"))
    return b64encode(b"user:%d" % time.monotonic_ns())


@kind("regular")
async def password(rig: Rig, streams: Streams) -> None:
    asks_for_a_password(rig)
    await get(streams, absolute(rig), b"HTTP/1.1 407 ")
    authorization = b"Proxy-Authorization: Basic %b\r\n\r\n" % asks_for_a_password(rig)
    await get(streams, absolute(rig)[:-2] + authorization)


@kind("regular")
async def left_while_a_password_is_looked_at(rig: Rig, streams: Streams) -> None:
    authorization = b"Proxy-Authorization: Basic %b\r\n\r\n" % asks_for_a_password(rig)
    streams[1].write(absolute(rig)[:-2] + authorization)
    reset(streams[1])


@kind("socks5")
async def socks_with_a_password(rig: Rig, streams: Streams) -> None:
    begun = rig.addon.access.passwords is not None
    token = b64decode(asks_for_a_password(rig)).partition(b":")[2]
    if not begun:
        return  # this one began before
    destination = b"\x05\x01\x00\x03\x0dplain.example" + rig.origin_port.to_bytes(2)
    streams[1].write(b"\x05\x01\x02\x01\x04user" + bytes([len(token)]) + token + destination)
    await streams[0].readexactly(14)
    await get(streams)


@kind("regular")
async def port_that_is_not_allowed(rig: Rig, streams: Streams) -> None:
    await get(streams, absolute(rig).replace(b":%d" % rig.origin_port, b":25"), b"HTTP/1.1 403 ")


@kind("transparent", greet)
async def tls_relayed(rig: Rig, streams: Streams) -> None:
    hello = client_hello("plain.example")
    streams[1].write(hello)
    assert await streams[0].readexactly(7 + len(hello)) == b"\x16heard " + hello


@kind("transparent", tls=True)
async def tls_intercepted(rig: Rig, streams: Streams) -> None:
    await rig.secure(streams, "paged.example")
    await get(streams, (GET % b"other").replace(b"plain", b"paged"))


@kind("transparent")
async def tls_refused(rig: Rig, streams: Streams) -> None:
    streams[1].write(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
    assert await streams[0].read() == bytes([21, 3, 3, 0, 2, 2, 49])


@kind("transparent")
async def handshake_that_the_client_ends(rig: Rig, streams: Streams) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        await streams[1].start_tls(ssl.create_default_context(), server_hostname="paged.example")


@kind("transparent")
async def handshake_that_never_goes_on(rig: Rig, streams: Streams) -> None:
    streams[1].write(client_hello("paged.example"))
    await streams[0].read(10)


@kind("transparent", tls=True)
async def origin_that_is_not_trusted(rig: Rig, streams: Streams) -> None:
    rig.tctx.options.update(ssl_verify_upstream_trusted_ca=None)
    await rig.secure(streams, "paged.example")
    await get(streams, (GET % b"x").replace(b"plain", b"paged"), b"HTTP/1.1 502 ")


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(OK)
    await writer.drain()
    writer.close()


@kind("transparent", speak_http)
async def origin_without_tls(rig: Rig, streams: Streams) -> None:
    await rig.secure(streams, "paged.example")
    await get(streams, (GET % b"x").replace(b"plain", b"paged"), b"HTTP/1.1 502 ")


# -- ends in every way


@kind("regular")
async def origin_unreachable(rig: Rig, streams: Streams) -> None:
    with nobody_listens() as port:
        rig.lead(("127.0.0.1", port), ("127.0.0.2", port))
        await get(streams, absolute(rig), b"HTTP/1.1 502 ")


@kind("regular")
async def origin_without_address(rig: Rig, streams: Streams) -> None:
    def look_up(_host: str, _port: int, _client: str, done: Callable[[Any], None]) -> Waiter:
        lookup = Waiter(done)
        asyncio.get_running_loop().call_soon(lookup.tell, ())
        return lookup

    rig.addon.resolver.look_up = look_up  # type: ignore[method-assign]
    await get(streams, absolute(rig), b"HTTP/1.1 502 ")


@kind("regular")
async def origin_looked_up_in_a_thread(rig: Rig, streams: Streams) -> None:
    with suppress(AttributeError):
        del rig.addon.resolver.look_up
    await get(streams, absolute(rig, "localhost"))


@kind("regular")
async def gone_while_the_origin_is_sought(rig: Rig, streams: Streams) -> None:
    sought: list[Waiter] = []

    def look_up(_host: str, _port: int, _client: str, done: Callable[[Any], None]) -> Waiter:
        sought.append(Waiter(done))
        return sought[-1]

    rig.addon.resolver.look_up = look_up  # type: ignore[method-assign]
    streams[1].write(absolute(rig))
    await until(lambda: sought)
    rig.session.cut()
    assert await closed(streams[0])
    assert sought.pop().done is None


@kind("regular")
async def gone_while_the_origin_is_silent(rig: Rig, streams: Streams) -> None:
    rig.lead(("192.0.2.7", 9))
    streams[1].write(absolute(rig))
    await until(lambda: list(rig.addon.live) and isinstance(rig.session._reaching, Opening))
    rig.session.cut()
    assert await closed(streams[0])


@kind("reverse")
async def client_reset(rig: Rig, streams: Streams) -> None:
    await get(streams)
    reset(streams[1])


@kind("reverse", greet)
async def client_reset_under_way(rig: Rig, streams: Streams) -> None:
    streams[1].write(GET % b"a")
    await streams[0].read(1)
    reset(streams[1])


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.02)
    reset(writer)


@kind("reverse", hang_up)
async def origin_reset(rig: Rig, streams: Streams) -> None:
    streams[1].write(GET % b"a")
    await streams[0].readuntil(b"half")
    assert await closed(streams[0])


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    reset(writer)


@kind("regular", refuse)
async def origin_reset_before_an_answer(rig: Rig, streams: Streams) -> None:
    await get(streams, absolute(rig), b"HTTP/1.1 502 ")


@kind("reverse")
async def client_half_closed(rig: Rig, streams: Streams) -> None:
    streams[1].write(GET % b"a")
    streams[1].write_eof()
    assert await streams[0].read() == OK


@kind("transparent", greet)
async def relay_half_closed(rig: Rig, streams: Streams) -> None:
    streams[1].write(client_hello("plain.example"))
    streams[1].write_eof()
    assert (await streams[0].read()).startswith(b"\x16heard ")


async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
    writer.write(await reader.read(2))
    await reader.read()
    writer.close()


@kind("reverse", switch)
async def websocket(rig: Rig, streams: Streams) -> None:
    streams[1].write((GET % b"a")[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await streams[0].readuntil(b"\r\n\r\n")
    streams[1].write(b"hi")
    assert await streams[0].readexactly(2) == b"hi"


@kind("reverse", switch)
async def websocket_half_closed(rig: Rig, streams: Streams) -> None:
    streams[1].write((GET % b"a")[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    streams[1].write_eof()
    assert (await streams[0].read()).startswith(b"HTTP/1.1 101 ")  # the origin hears the end, and closes


@kind("reverse")
async def cut_off(rig: Rig, streams: Streams) -> None:
    await get(streams)
    rig.session.cut()
    assert await closed(streams[0])


@kind("reverse")
async def head_that_takes_too_long(rig: Rig, streams: Streams) -> None:
    streams[1].write(b"GET /")
    await until(lambda: list(rig.addon.live) and rig.session.head() is not None)
    rig.session.touch(time.monotonic() + HEAD_TIMEOUT)
    await rig.addon.live.tick(time.monotonic())
    await rig.addon.live.tick(time.monotonic() + HEAD_TIMEOUT)
    assert await closed(streams[0])


@kind("regular", greet)
async def silence_that_takes_too_long(rig: Rig, streams: Streams) -> None:
    streams[1].write(absolute(rig))
    await streams[0].read(1)
    for seconds in (0, rig.addon.tcp_timeout + 1):
        rig.session.touch(time.monotonic() + seconds)
    with suppress(ConnectionError):
        await streams[0].read()


@kind("reverse")
async def fault(rig: Rig, streams: Streams) -> None:
    await get(streams)
    session = rig.session
    session._relay.judge = None
    del session
    streams[1].write(GET % b"a")
    assert await closed(streams[0])


def alive() -> list[str]:
    """What the collector has not had to do with."""
    return [type(each).__name__ for each in gc.get_objects() if isinstance(each, OURS)]


@pytest.mark.parametrize("name", KINDS)
async def test_nothing_is_left(rig: Rig, name: str) -> None:
    mode, serve, tls, run = KINDS[name]
    await rig.start(serve, mode, tls=tls)
    rig.lead()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        for _ in range(TIMES):
            streams = await rig.connect()
            await run(rig, streams)
            streams[1].close()
            await rig.settled()
        del streams
        await asyncio.sleep(0.01)
        # A thread that has looked up a name, or at a password, may be yet to let go.
        with suppress(TimeoutError):
            await until(lambda: not alive())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage if is_ours(each)]
        gc.garbage.clear()
        found = alive()
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
    assert found == []
