"""mitmproxy's insides: methods that are patched, private attributes, and modules outside its API reference.

They are those of mitmproxy 12.2 and 12.3, the range in pyproject.toml, both ends of which CI runs. Whoever
widens it compares what is here first. Other modules import of mitmproxy itself what is in its API reference
(docs.mitmproxy.org/stable/api); ruff's `banned-api` keeps them from the rest.
"""

import asyncio
import logging
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from math import inf
from time import thread_time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mitmproxy import platform
from mitmproxy.addons.block import Block
from mitmproxy.addons.core import Core
from mitmproxy.addons.dns_resolver import DnsResolver
from mitmproxy.addons.next_layer import NeedsMoreData, NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.strip_dns_https_records import StripDnsHttpsRecords
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.addons.upstream_auth import UpstreamAuth
from mitmproxy.http import HTTPFlow
from mitmproxy.log import LegacyLogEvents
from mitmproxy.master import Master
from mitmproxy.net import check, tls
from mitmproxy.net.http import http1, url
from mitmproxy.optmanager import OptManager, unset
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import websocket
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    HTTPMode,
    HttpStream,
    RegisterHttpConnection,
    SendHttp,
)
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server
from mitmproxy.proxy.layers.modes import HttpProxy, HttpUpstreamProxy, Socks5AuthData
from mitmproxy.proxy.layers.tcp import TCPLayer
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.server import ConnectionHandler

from urlward.proxy.names import is_host
from urlward.records.privacy import network_of

type Listen = Callable[[Any, str, int], Awaitable[list[Any]]]
"""Listens for one of mitmproxy's servers, at a host and port; gives what is closed in the end."""

type _ParseAuthority = Callable[[str | bytes, bool], tuple[str, int | None]]

_AUTHORITY = re.compile(rb"([^:]+)(?::(\d{1,5}))?").fullmatch
_MAX_HOST = 255
_MAX_LABEL = 63
_MAX_PORT = 0xFFFF


# -- patched


def take_hosts_as_sent() -> None:
    """Have mitmproxy take every host in CONNECT, absolute form and ``:authority`` that the guard can judge.

    It would refuse what Python's IDNA 2003 refuses, such as A-labels of names with ß, ς or a joiner.
    """
    if getattr(url.parse_authority, "as_sent", False):
        return
    valid: Any = check.is_valid_host
    parse: _ParseAuthority = url.parse_authority  # type: ignore[assignment]

    def is_valid_host(host: str | bytes) -> bool:
        return bool(valid(host)) or _can_be_looked_up(
            host if isinstance(host, bytes) else host.encode(errors="surrogateescape")
        )

    def parse_authority(authority: str | bytes, check: bool) -> tuple[str, int | None]:
        try:
            return parse(authority, True)
        except ValueError:
            match = _AUTHORITY(
                authority if isinstance(authority, bytes) else authority.encode(errors="surrogateescape")
            )
            port = int(match[2]) if match and match[2] else None
            if match and _can_be_looked_up(match[1]) and (port or 0) <= _MAX_PORT:
                return match[1].decode(), port
            return parse(authority, check)

    parse_authority.as_sent = True  # type: ignore[attr-defined]
    check.is_valid_host = url.is_valid_host = is_valid_host  # type: ignore[attr-defined]
    url.parse_authority = parse_authority


def _can_be_looked_up(host: bytes) -> bool:
    """Whether a host, in ASCII, is one that a resolver takes (RFC 1035 section 2.3.4)."""
    labels = host.removesuffix(b".").split(b".")
    fits = len(host) <= _MAX_HOST and all(0 < len(label) <= _MAX_LABEL for label in labels)
    return host.isascii() and fits and is_host(host.decode())


def fail_handshakes_at_once() -> None:
    """Have mitmproxy end a connection to an origin whose handshake fails before its first byte.

    It drops that error, as where OpenSSL will not look for a name in a certificate, and waits for the origin
    to hang up, and the client with it.
    """
    ServerTLSLayer.start_handshake = _start_handshake  # type: ignore[method-assign]


_real_start_handshake = ServerTLSLayer.start_handshake


def _start_handshake(self: ServerTLSLayer) -> layer.CommandGenerator[None]:
    if not self.command_to_reply_to and isinstance(self.child_layer, ClientTLSLayer):
        yield from _real_start_handshake(self)  # which waits for the client's first
        return
    yield from self.start_tls()
    failed: str | None = "no session was made"
    if self.tls:
        _, failed = yield from self.receive_handshake_data(b"")
    if failed:
        yield from self.on_handshake_error(failed)
        yield from self._handshake_finished(failed)


def relay_websockets() -> None:
    """Have WebSockets pass as they are, as those do that mitmproxy does not carry.

    It takes each message apart, keeps it until its end, and has it wait for addons for a round of the event
    loop, while what is read meanwhile, of which a piece may be thousands, is kept without a bound.
    """
    websocket.WebsocketLayer = _relayed  # type: ignore[assignment,misc]


def _relayed(context: Context, flow: HTTPFlow) -> layer.Layer:  # noqa: ARG001 - as mitmproxy calls it
    return TCPLayer(context, ignore=True)


def listen_by(make: Callable[[Listen], Listen]) -> None:
    """Replace the way that mitmproxy's servers listen.

    Args:
        make: given the way that there was, makes the one that takes its place.
    """
    AsyncioServerInstance.listen = make(AsyncioServerInstance.listen)  # type: ignore[method-assign, assignment]


# -- servers and their connections


def streams(instance: Any) -> asyncio.StreamReaderProtocol:
    """asyncio streams for a connection that mitmproxy carries, as `asyncio.start_server` makes them."""
    loop = asyncio.get_running_loop()
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), instance.handle_stream, loop=loop)


def bound_streams(instance: Any, most: int) -> None:
    """Have a server close the connections of a client network beyond so many at a time: to mitmproxy each
    datagram from another port is one, of 50 KB, which it keeps for 20 s."""
    handle, under_way = instance.handle_stream, Counter[str]()

    async def handle_stream(reader: Any, writer: Any = None) -> None:
        stream = reader if writer is None else writer
        network = network_of(stream.get_extra_info("peername")[0])
        if under_way[network] >= most:
            stream.close()
            return
        under_way[network] += 1
        try:
            await handle(reader, writer)
        finally:
            under_way[network] -= 1
            if not under_way[network]:
                del under_way[network]

    instance.handle_stream = handle_stream


async def datagrams(instance: Any, host: str, port: int) -> Any:
    """The server of a mode's datagrams, where it takes both those and streams."""
    return await instance.start_udp_based_server(host, port)


def original_destination(sock: socket.socket) -> tuple[str, int]:
    """Destination of a connection before a rule of the kernel redirected it; raises anything."""
    assert platform.original_addr is not None
    return platform.original_addr(sock)


def transport_of(handler: ConnectionHandler | None) -> asyncio.Transport | None:
    """Transport of a client's connection that mitmproxy carries, where it has one."""
    io = handler.transports.get(handler.client) if handler is not None else None
    writer = io.writer if io is not None else None
    transport = writer.transport if isinstance(writer, asyncio.StreamWriter) else None
    return transport if isinstance(transport, asyncio.Transport) else None


def is_full(handler: ConnectionHandler) -> bool:
    """Whether the client's reader has stopped by itself, full of what nobody has taken."""
    io = handler.transports.get(handler.client)
    return io is not None and bool(getattr(io.reader, "_paused", False))


def is_at_rest(handler: ConnectionHandler) -> bool:
    """Whether nothing keeps a client's connection from timing out."""
    return not handler.timeout_watchdog.blocker


def cut_off(handler: ConnectionHandler | None) -> None:
    """Close a client's connection that mitmproxy carries, and with it those to origins."""
    if handler is None:
        return
    io = handler.transports.get(handler.client)
    if io is not None and io.handler is not None:
        io.handler.cancel("listed")


# -- addons


def is_left_alone(builtin: NextLayer, nextlayer: layer.NextLayer) -> bool:
    """Whether ``ignore_hosts``, ``allow_hosts`` or ``tcp_hosts`` make mitmproxy relay this connection, or
    that is not known yet."""
    context = nextlayer.context
    try:
        if builtin._ignore_connection(context, nextlayer.data_client(), nextlayer.data_server()):
            return True
    except NeedsMoreData:
        return True
    return bool(builtin._is_destination_in_hosts(context, builtin.tcp_hosts))


def authority_of(
    tlsconfig: TlsConfig,
) -> tuple[x509.Certificate, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, bytes]:
    """Certificate and key of the interception authority, and what clients need besides, as PEM."""
    store = tlsconfig.certstore
    chain = store.default_chain_file.read_bytes() if store.default_chain_file else b""
    return store.default_ca._cert, store.default_privatekey, chain


def ldap(spec: str) -> Callable[[str, str], bool]:
    """A check of users and passwords by an LDAP server, of mitmproxy's option ``proxyauth``; raises
    anything."""
    from mitmproxy.addons.proxyauth import Ldap

    return Ldap(spec)


def forget_log_events(root: logging.Logger) -> None:
    """Remove mitmproxy's handlers that make an event of each line of the log: no addon here listens to it."""
    for handler in list(root.handlers):
        if isinstance(handler, LegacyLogEvents):
            root.removeHandler(handler)


def tls_version(word: str) -> int | None:
    """Number of a TLS version in mitmproxy's options; None for no bound."""
    value: Any = tls.Version[word].value
    return value or None


def is_set(options: OptManager, name: str) -> bool:
    """Whether somebody has given an option a value, be it the one that it has by itself."""
    return options._options[name].value is not unset


def length_of_body(flow: HTTPFlow) -> float:
    """Bytes of a body whose head was read last: infinite until its connection ends, 0 where that is unknown,
    such as in chunks, or over HTTP/2."""
    if not all(each.http_version.startswith("HTTP/1") for each in (flow.request, flow.response) if each):
        return 0
    try:
        length = http1.expected_http_body_size(flow.request, flow.response)
    except ValueError:
        return 0
    return inf if length == -1 else length or 0


class _TimedLock(asyncio.Lock):
    """mitmproxy's lock around what is done of an event, in which nothing is waited for.

    Args:
        took: is told the seconds of the processor's time between it being taken and released. What is before
            that may be others' time: an event that comes of another waits until that has been done.
    """

    def __init__(self, took: Callable[[float], None]) -> None:
        super().__init__()
        self._took = took
        self._start = 0.0

    async def __aenter__(self) -> None:
        await super().__aenter__()
        self._start = thread_time()

    async def __aexit__(self, *raised: Any) -> None:
        self._took(thread_time() - self._start)
        await super().__aexit__(*raised)


def time_events(handler: ConnectionHandler, took: Callable[[float], None]) -> None:
    """Have the time measured that each event of a connection takes, such as a piece that has been read.

    Args:
        handler: the connection's, before its first event.
        took: is told the seconds of the processor's time.
    """
    handler._server_event_lock = _TimedLock(took)
