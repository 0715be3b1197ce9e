"""Where connections arrive: plain HTTP and what is relayed unread never enter mitmproxy.

mitmproxy spends a dozen tasks and hooks on each connection. For a connection of a mode whose destination
is known (transparent, reverse), the first bytes are looked at here. What is to be ended as TLS, or what
an option of mitmproxy's says something about, is handed to mitmproxy with all that has come of it.
"""

import asyncio
import logging
import os
import socket
import time
from typing import Any

from mitmproxy import ctx, platform
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from urlward.proxy.addon import Urlward
from urlward.proxy.answers import ACCESS_DENIED
from urlward.proxy.block_page import BlockResponse
from urlward.proxy.decide import Decision
from urlward.proxy.ends import NO_ENDS
from urlward.proxy.express import Express, Relay
from urlward.proxy.guard import Guard
from urlward.proxy.head import RequestHead
from urlward.proxy.http_layer import ListedAddress
from urlward.proxy.live import HEAD_TIMEOUT
from urlward.proxy.names import Names, Place
from urlward.proxy.ports import Port
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import HttpRelay

logger = logging.getLogger("urlward")

_ACCEPTED_AT_ONCE = 64
_BACKLOG = 1024
"""Connections that the kernel keeps until they are taken; asyncio's own `backlog` is both numbers at once."""


class Front(asyncio.Protocol):
    """A client's connection before it is known what it is.

    Args:
        instance: mitmproxy's server of this mode.
        addon: decides.
    """

    def __init__(self, instance: Any, addon: Urlward) -> None:
        self._instance = instance
        self._addon = addon
        self._data = b""
        self._context: Context | None = None
        self._since = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._addon.recording is not None:
            self._addon.recording.metrics.opened += 1
        if not self._addon.is_alone(self._instance.mode) or self._addon.guard is None:
            self._to_mitmproxy()
            return
        try:
            context = self._make_context(self._addon.guard)
        except Exception as e:  # noqa: BLE001 - nothing is known of where it should go
            logger.error("no original destination: %s", type(e).__name__)
            transport.abort()
            return
        if self._is_direct(context):
            transport.close()
            return
        self._context = context
        self.client = context.client
        self._addon.live.add(self)
        self._addon.pace(self.client, transport)

    def _make_context(self, guard: Guard) -> Context:
        self._guard = guard
        transport, mode = self._transport, self._instance.mode
        client = Client(
            peername=transport.get_extra_info("peername"),
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            proxy_mode=mode,
            state=ConnectionState.OPEN,
        )
        context = Context(client, ctx.options)
        if isinstance(mode, mode_specs.ReverseMode):
            context.server.address = mode.address
        else:
            assert platform.original_addr is not None
            context.server.address = client.sockname = platform.original_addr(
                transport.get_extra_info("socket")
            )
        return context

    def _is_direct(self, context: Context) -> bool:
        """Whether no rule has redirected a connection here, which would be one of the filter to itself."""
        if isinstance(self._instance.mode, mode_specs.ReverseMode):
            return False
        host, port = self._transport.get_extra_info("sockname")[:2]
        return context.server.address == (host.partition("%")[0], port)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._data += data
        assert self._context is not None
        try:
            self._begin(self._addon.decide(self._context, self._data, self._guard), self._context)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            if self._guard.failed(e, self.client):
                self._to_mitmproxy()
            else:
                self.cut()

    def eof_received(self) -> bool:
        """Called by the event loop: nothing that could be judged has come."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        if self._context is not None:
            self._addon.live.discard(self)

    def _begin(self, decision: Decision, context: Context) -> None:
        match decision.what:
            case "relay":
                raw = RawRelay(NO_ENDS, decision.names, self._data)
                self._express(raw, context).connect()
            case "http":
                place, guard, client = Place(context), self._guard, self.client

                def judge(head: RequestHead) -> Names | BlockResponse:
                    return guard.answer_head(head, place, client, arrived=express.active)

                express = self._express(HttpRelay(NO_ENDS, judge), context)
                express.place = place
                express.port.data_received(self._data)
            case "refuse":
                self._transport.write(ACCESS_DENIED)
                self._transport.close()
            case "close":
                self._transport.close()
            case "tls":
                self._to_mitmproxy()

    def _express(self, relay: Relay, context: Context) -> "Direct":
        self._addon.live.discard(self)
        express = Direct(relay, context, self._addon, self._guard)
        express.port = Port(express, self._transport)
        express.take_client(express.port)
        self._transport.set_protocol(express.port)
        return express

    def _to_mitmproxy(self) -> None:
        """Let mitmproxy carry the connection, as if it had from the start."""
        if self._context is not None:
            self._addon.live.discard(self)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        streams = asyncio.StreamReaderProtocol(reader, self._instance.handle_stream, loop=loop)
        self._transport.set_protocol(streams)
        streams.connection_made(self._transport)
        if self._data:
            streams.data_received(self._data)

    # -- as a member of `Live`

    def live(self) -> tuple[Names, ...]:
        """Nothing yet."""
        return ()

    def head(self) -> int | None:
        """Whether something has begun and is not known yet."""
        return 0 if self._data else None

    def idle(self) -> bool:
        """Whether nothing has come."""
        return not self._data

    def may_read(self) -> bool:
        """Always: nothing is open yet."""
        return True

    def touch(self, now: float) -> None:
        """Close what stays silent."""
        if now - self._since >= min(self._addon.tcp_timeout, HEAD_TIMEOUT):
            self.cut()

    def cut(self) -> None:
        """Close."""
        self._transport.abort()


class Direct(Express):
    """A relay whose connection to the origin is opened here, once something is to be sent.

    Attributes:
        port: the client's.
        place: what is known of the connection, where requests are judged by it.
    """

    port: Port
    place: Place | None = None

    def __init__(self, relay: Relay, context: Context, addon: Urlward, guard: Guard) -> None:
        super().__init__(context.client, relay, guard, addon.live, addon.tcp_timeout)
        self._context = context
        self._addon = addon
        self._opening: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Open the connection; nothing is read of the client meanwhile."""
        self.port.transport.pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def may_read(self) -> bool:
        """Not while the connection to the origin is being opened."""
        return (self._opening is None or self._opening.done()) and super().may_read()

    def lost(self, port: Port) -> None:
        """A connection is closed."""
        super().lost(port)
        if self._client is None and self._opening is not None:
            self._opening.cancel()

    async def _open(self) -> None:
        try:
            answer, connected = await self._reach()
            if self._client is None:
                return
            # Before what has come so far is sent on: if that is more than the origin takes, it stops again.
            self.port.transport.resume_reading()
            if connected:
                self._relay.connected()
            else:
                self._relay.not_connected(answer)
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.broken(e)

    async def _reach(self) -> tuple[BlockResponse | None, bool]:
        """Connect; what is answered where that must not be, and whether the connection is open."""
        server = self._context.server
        assert server.address is not None
        host, port = server.address[:2]
        # mitmproxy's own addons look after the local address, and after connections to itself.
        data = ServerConnectionHookData(server, self.client)
        ctx.master.addons.get("proxyserver").server_connect(data)
        if server.error is None:
            await self._addon.server_connect(data)
        if isinstance(server.error, ListedAddress):
            return self._listed(str(server.error), port), False
        if server.error is not None:
            return None, False
        try:
            _, ours = await asyncio.get_running_loop().create_connection(
                lambda: Port(self), host, port, local_addr=server.sockname
            )
        except OSError:
            return None, False
        if self._client is None:
            ours.transport.abort()
            return None, False
        self.take_server(ours)
        address = ours.transport.get_extra_info("peername")[0]
        if address == host:
            return None, True  # judged before, as the destination
        if self.place is not None:
            self.place.reached(address)
        answer = self._listed(address, port)
        return answer, answer is None

    def _listed(self, address: str, port: int) -> BlockResponse | None:
        """What is answered where a name has this address, None where that is not listed."""
        if isinstance(self._relay, HttpRelay):
            if not self._relay.pending:
                return None  # it has ended meanwhile
            first = self._relay.pending[0]
            return self._guard.answer_connected(first.head, first.names, self.client, address, port)
        (names,) = self._relay.live
        return None if self._guard.address_allowed(self._context, names, address) else NOT_SHOWN


NOT_SHOWN = BlockResponse(451, "", (), b"")
"""For a relay that nobody reads, and that so shows nothing."""


def listen_in_front(addon: Urlward, *, reuse_port: bool) -> None:
    """Let mitmproxy's servers of the modes that a front serves begin with one.

    Args:
        addon: decides.
        reuse_port: whether other processes listen on the same addresses.
    """
    original = mode_servers.AsyncioServerInstance.listen

    async def listen(self: Any, host: str, port: int) -> list[Any]:
        mode = self.mode
        served = isinstance(mode, mode_specs.TransparentMode) or (
            isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "http"
        )
        if not served or not port:  # mitmproxy looks for a free port itself
            return await original(self, host, port)
        server = await asyncio.get_running_loop().create_server(
            lambda: Front(self, addon), host, port, reuse_port=reuse_port, backlog=_ACCEPTED_AT_ONCE
        )
        for listening in server.sockets:
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(_BACKLOG)
        return [server]

    mode_servers.AsyncioServerInstance.listen = listen  # type: ignore[method-assign]
