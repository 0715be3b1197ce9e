"""A front with an origin behind it: real sockets in one process; mitmproxy is a stand-in that takes notes."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from mitmproxy import platform
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy import mode_specs
from mitmproxy.test import taddons

from conftest import until
from e2e.support import make_authority
from proxy.test_addon import loaded
from urlward.proxy.acceptor import Acceptor
from urlward.proxy.addon import Urlward
from urlward.proxy.front import Front
from urlward.proxy.session import Session
from urlward.proxy.threads import Waiter

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET /%b HTTP/1.1\r\nHost: plain.example\r\n\r\n"
BLOCKED = b"GET /%b HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

LONG = 60.0
"""Seconds that anything may take on a machine that has much to do."""


class Rig:
    """A front before an origin.

    Attributes:
        addon: decides.
        tctx: mitmproxy's options.
        handed: what mitmproxy was given to carry.
        front: that of the mode started last.
        port: where it listens.
        origin_port: where the origin does.
        errors: what the event loop has had to complain of.
    """

    def __init__(self, addon: Urlward, tctx: taddons.context, authority: Path) -> None:
        self.addon = addon
        self.tctx = tctx
        self.authority = authority
        self.handed: list[bytes] = []
        self.port = self.origin_port = 0
        self.origins: list[asyncio.Server] = []
        self.errors: list[str] = []
        self.front: Front
        self._acceptors: list[Acceptor] = []

    async def start(
        self,
        serve: Serve | int,
        spec: str = "reverse:http://127.0.0.1",
        *,
        tls: bool = False,
        http2: bool = False,
    ) -> None:
        """Begin to listen, before an origin of its own or at a port that there is already.

        In transparent mode the destination is always the origin.
        """
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.authority / "origin.pem", self.authority / "origin.key")
            if http2 or serve is answer_http2:
                context.set_alpn_protocols(["h2"])
        if isinstance(serve, int):
            self.origin_port = serve
        else:
            origin = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
            self.origin_port = origin.sockets[0].getsockname()[1]
            self.origins.append(origin)
        mode = mode_specs.ProxyMode.parse(
            f"{spec}:{self.origin_port}" if spec.startswith("reverse") else spec
        )
        instance = SimpleNamespace(mode=mode, handle_stream=self._mitmproxy)
        self.front = Front(instance, self.addon)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        acceptor = Acceptor(self.front.take, listening)
        self.port = listening.getsockname()[1]
        self.addon.ports.add(self.port)
        self._acceptors.append(acceptor)

    async def _mitmproxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handed.append(await reader.read())
        writer.close()

    def complain(self, _: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
        if "client_connected_cb" not in found["message"]:  # an origin's of a test
            self.errors.append(str(found))

    async def connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *pieces: bytes, end: bool = True) -> bytes:
        """Send on a connection of its own, and read to the end."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        if end:
            with suppress(OSError):
                writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), LONG)
        writer.close()
        return answer

    async def secure(self, streams: Streams, name: str, *alpn: str) -> str:
        """Speak TLS on a connection, and trust the filter's authority and the origin's; which it was of."""
        _, writer = streams
        context = self.client_context()
        if alpn:
            context.set_alpn_protocols(alpn)
        await writer.start_tls(context, server_hostname=name)
        issuer = writer.get_extra_info("peercert")["issuer"]
        return str(dict(each[0] for each in issuer)["commonName"])

    def lead(self, *addresses: tuple[str, int]) -> None:
        """Have every name lead to the origin, or to these addresses."""

        def look_up(_host: str, _port: int, _client: str, done: Callable[[Any], None]) -> Waiter:
            lookup = Waiter(done)
            found = addresses or (("127.0.0.1", self.origin_port),)
            asyncio.get_running_loop().call_soon(lookup.tell, found)
            return lookup

        self.addon.resolver.look_up = look_up  # type: ignore[method-assign]

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority / "origin-ca.pem"))
        context.load_verify_locations(str(self.authority / "mitmproxy-ca-cert.pem"))
        return context

    @property
    def session(self) -> Session:
        """The only one."""
        (member,) = self.addon.live
        assert isinstance(member, Session)
        return member

    async def relist(self, *lines: str) -> None:
        """Take other entries into use."""
        assert self.addon.keeper is not None
        self.addon.keeper.files[0].path.write_text("".join(f"{line}\n" for line in lines))
        await self.addon.keeper.reload()

    async def settled(self) -> None:
        """Nothing is left of any connection."""
        await until(lambda: not list(self.addon.live))
        self.addon.pool.clear()
        assert self.errors == []

    def close(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for origin in self.origins:
            origin.close()


@asynccontextmanager
async def rig_in(folder: Path, authority: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A rig with options of its own, and an authority that is shared."""
    addon = Urlward()
    config = TlsConfig()
    with loaded(
        addon, folder, config, urlward_flows=False, keep_host_header=True, urlward_http2=False
    ) as tctx:
        tctx.configure(
            config,
            confdir=str(authority),
            ssl_verify_upstream_trusted_ca=str(authority / "origin-ca.pem"),
        )
        rig = Rig(addon, tctx, authority)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(rig.complain)
        monkeypatch.setattr(platform, "original_addr", lambda _: ("127.0.0.1", rig.origin_port))
        yield rig
        rig.close()
        addon.done()


def make_authorities(folder: Path) -> Path:
    """A folder with mitmproxy's authority, and an origin's with a certificate."""
    make_authority(folder, ("plain.example", "paged.example", "sub.example", "localhost"))
    config = TlsConfig()
    with taddons.context(config) as tctx:
        tctx.configure(config, confdir=str(folder))
    return folder


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin."""
    with suppress(asyncio.IncompleteReadError, OSError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)
    writer.close()


async def answer_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin that speaks HTTP/2."""
    one = H2Connection(H2Configuration(client_side=False))
    one.initiate_connection()
    writer.write(one.data_to_send())
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            for event in one.receive_data(data):
                if isinstance(event, StreamEnded):
                    one.send_headers(event.stream_id, [(":status", "200"), ("content-length", "2")])
                    one.send_data(event.stream_id, b"ok", end_stream=True)
            writer.write(one.data_to_send())
    one._frame_dispatch_table.clear()
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer sees a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether a connection ends, in whatever way, without a byte."""
    try:
        return await asyncio.wait_for(reader.read(), LONG) == b""
    except ConnectionError:
        return True
