"""What is odd about exchanges of HTTP/1, the same in every mode: with real sockets, one table for all.

The origin's part is data: it sends, and waits for what it has to have got. What the client gets is compared
without the fields that an explicit proxy has to add or take away.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from proxy.rig import LONG, Rig, Serve, Streams

pytestmark = pytest.mark.usefixtures("compiles_here")

END = b"\r\n\r\n"


async def reverse(rig: Rig) -> Streams:
    return await rig.connect()


async def connect(rig: Rig) -> Streams:
    streams = await rig.connect()
    streams[1].write(f"CONNECT plain.example:{rig.origin_port} HTTP/1.1\r\n\r\n".encode())
    assert (await streams[0].readuntil(END)).startswith(b"HTTP/1.1 200 ")
    return streams


async def socks(rig: Rig) -> Streams:
    streams = await rig.connect()
    streams[1].write(b"\x05\x01\x00\x05\x01\x00\x03\x0dplain.example" + rig.origin_port.to_bytes(2))
    assert (await streams[0].readexactly(12))[:4] == b"\x05\x00\x05\x00"
    return streams


async def secured(rig: Rig) -> Streams:
    streams = await rig.connect()
    assert await rig.secure(streams, "paged.example") == "mitmproxy"
    return streams


@dataclass(frozen=True)
class Mode:
    """How a client gets to the origin.

    Attributes:
        spec: the mode.
        open: opens a connection.
        absolute: whether targets are whole URLs.
        tls: whether the client speaks TLS, which is ended.
    """

    spec: str
    open: Callable[[Rig], Awaitable[Streams]]
    absolute: bool = False
    tls: bool = False


MODES = {
    "reverse": Mode("reverse:http://127.0.0.1", reverse),
    "transparent": Mode("transparent", reverse),
    "connect": Mode("regular", connect),
    "whole URLs": Mode("regular", reverse, absolute=True),
    "socks5": Mode("socks5", socks),
    "TLS that is ended": Mode("transparent", secured, tls=True),
}

type Step = bytes | float | str
"""What the origin does: wait for bytes to come (bytes), send (text), or say no more (0)."""


@dataclass(frozen=True)
class Case:
    """One exchange, or several.

    Attributes:
        sent: by the client, in pieces.
        between: whether the client has to have got a head before it sends the second one.
        origin: what the origin does.
        got: by the client, all of it.
        ends: whether the client ends its sending behind what it has sent.
        explicit: what it gets where it asks for whole URLs, if that differs.
        half: whether it needs an end of one direction alone, which asyncio's TLS does not know.
    """

    sent: tuple[bytes, ...]
    origin: tuple[Step, ...]
    got: bytes
    between: bool = False
    ends: bool = False
    explicit: bytes | None = None
    half: bool = False


GET = b"GET /a HTTP/1.1\r\nHost: plain.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 4\r\n"
OLD = b"GET /a HTTP/1.0\r\nHost: plain.example\r\n\r\n"
OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET /a HTTP/1.1\r\nHost: plain.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
GZIP = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

ICY = "ICY 200 OK\r\nicy-name: x\r\n\r\n"
LINE_FEEDS = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"
CHUNKED = b"Host: plain.example\r\nTransfer-Encoding: chunked\r\n\r\n"
NONE, UNCHANGED = "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"

CASES = {
    "a response": Case((GET,), (END, OK), OK.encode()),
    "two, one behind the other": Case((GET + GET,), (END, OK, END, OK), 2 * OK.encode()),
    "a body in two pieces": Case((POST + b"\r\nab", b"cd"), (b"abcd", OK), OK.encode()),
    "Expect, and leave": Case(
        (POST + b"Expect: 100-continue\r\n\r\n", b"abcd"),
        (END, "HTTP/1.1 100 Continue\r\n\r\n", b"abcd", OK),
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK.encode(),
        between=True,
    ),
    "Expect, and none": Case(
        (POST + b"Expect: 100-continue\r\n\r\n",),
        (END, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
        b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
    ),
    "an early response": Case((POST + b"\r\nab",), (b"ab", OK), OK.encode()),
    "interim responses": Case(
        (GET,),
        (END, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", OK),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK.encode(),
    ),
    "interim responses to HTTP/1.0": Case(
        (OLD,),
        (END, "HTTP/1.1 102 Processing\r\n\r\n", OK, 0.0),
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK.encode(),
        explicit=OK.encode(),
    ),
    "to the end of the connection": Case(
        (GET,), (END, "HTTP/1.1 200 OK\r\n\r\nall", " of it", 0.0), b"HTTP/1.1 200 OK\r\n\r\nall of it"
    ),
    "HTTP/1.0": Case((OLD,), (END, "HTTP/1.0 200 OK\r\n\r\nold", 0.0), b"HTTP/1.0 200 OK\r\n\r\nold"),
    "ICY": Case((GET,), (END, ICY + "music", 0.0), ICY.encode() + b"music"),
    "no head at all": Case((GET,), (END, "SSH-2.0-x\r\n", 0.0), b"SSH-2.0-x\r\n"),
    "chunks, with a trailer": Case(
        (GET,),
        (END, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "0\r\nX: y\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    ),
    "gzip, chunked": Case((GET + GET,), (END, GZIP, END, OK), GZIP.encode() + OK.encode()),
    "a chunked upload": Case(
        (b"PUT /a HTTP/1.1\r\n" + CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n"),
        (b"1\r\na\r\n0\r\n\r\n", OK),
        OK.encode(),
    ),
    "HEAD": Case(
        (b"HEAD" + GET[3:] + GET,),
        (END, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", END, OK),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + OK.encode(),
    ),
    "no content": Case((GET + GET,), (END, NONE, END, UNCHANGED), (NONE + UNCHANGED).encode()),
    "a WebSocket": Case(
        (UPGRADE, b"\x81\x85mask"),
        (END, SWITCHED + "hello", b"mask", "bye", 0.0),
        SWITCHED.encode() + b"hellobye",
        between=True,
    ),
    "a WebSocket that is refused": Case(
        (UPGRADE + GET,),
        (END, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", END, OK),
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" + OK.encode(),
    ),
    "another upgrade": Case(
        (GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",), (END, OK), OK.encode()
    ),
    "a client that ends its sending": Case((GET,), (END, OK), OK.encode(), ends=True, half=True),
    "one that ends it in an upgrade": Case(
        (UPGRADE, b"bye"),
        (END, SWITCHED, b"bye", "and you", 0.0),
        SWITCHED.encode() + b"and you",
        between=True,
        ends=True,
        half=True,
    ),
    "blanks that fold": Case(
        (GET,),
        (END, "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok", 0.0),
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    ),
    "line feeds alone": Case(
        (GET,),
        (END, LINE_FEEDS, 0.0),
        LINE_FEEDS.encode(),
        explicit=LINE_FEEDS.replace("2\n", "2\r\n").encode(),
    ),
}


def origin_of(case: Case, found: list[bytes]) -> Serve:
    """An origin that plays its part, over as many connections as it takes."""
    steps = list(case.origin)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while steps:
            step = steps.pop(0)
            if isinstance(step, bytes):
                try:
                    found.append(await reader.readuntil(step))
                except asyncio.IncompleteReadError as e:
                    found.append(e.partial)
                    steps.insert(0, step)  # on the next connection
                    break
            elif isinstance(step, str):
                writer.write(step.encode())
                await asyncio.sleep(0.005)  # so that it comes by itself
            else:
                break
        else:
            await reader.read()
        writer.close()

    return serve


def _bare(data: bytes) -> bytes:
    """Without what an explicit proxy says of this hop."""
    return re.sub(rb"\r?\n(?i:via|connection):[^\r\n]*", b"", data)


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_in_every_mode(rig: Rig, mode: str) -> None:
    faults = []
    for name, case in CASES.items():
        # asyncio's TLS ends both directions at once.
        if not (case.half and MODES[mode].tls):
            fault = await tried(rig, MODES[mode], case)
            faults += [f"{name}: {fault}"] if fault else []
    assert faults == []


async def tried(rig: Rig, way: Mode, case: Case) -> str:
    """What is not as it has to be."""
    found: list[bytes] = []
    await rig.start(origin_of(case, found), way.spec, tls=way.tls)
    rig.lead()
    reader, writer = await way.open(rig)
    wanted = case.explicit if way.absolute and case.explicit is not None else case.got
    got = b""
    for number, piece in enumerate(case.sent):
        if number and case.between:
            async with asyncio.timeout(LONG):
                got += await reader.readuntil(END)
        if way.absolute:
            piece = piece.replace(b" /a HTTP", b" http://plain.example:%d/a HTTP" % rig.origin_port)
        writer.write(piece.replace(b"plain", b"paged") if way.tls else piece)
        await asyncio.sleep(0.02 if number + 1 < len(case.sent) else 0)  # so that it comes by itself
    if case.ends:
        writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LONG):
            while len(_bare(got)) < len(_bare(wanted)):
                data = await reader.read(1 << 16)
                if not data:
                    break
                got += data
    writer.close()
    await rig.settled()
    heads = b"".join(found)
    if _bare(got) != _bare(wanted):
        return f"the client got {got!r}"
    if heads.count(b" /a HTTP/1.") != b"".join(case.sent).count(b" /a HTTP/1.") or b"h2c" in heads:
        return f"the origin got {heads!r}"
    return ""
