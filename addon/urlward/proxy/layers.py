"""Layers in mitmproxy's stack that enforce decisions, where mitmproxy carries the connection.

mitmproxy's own HTTP stream asks its hooks at the head of a request but answers only when the body
has come in, and refuses to answer a streamed one at all. These layers answer at the head. Its HTTP/1
connections read a head of any size, stop at trailers, take an interim response for the final one, and send
the body of an HTTP/2 request that names no length unframed, so that its origin reads further requests out of
it. A request that nobody has judged must not reach an origin that way.
"""

import asyncio
import re
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from math import inf
from typing import Any, Protocol, runtime_checkable

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.context import Context

from urlward.proxy import mitm
from urlward.proxy.block_page import ACCESS_DENIED, BlockResponse
from urlward.proxy.connection import leave_unsent
from urlward.proxy.framing import LateRequest, is_heeded
from urlward.proxy.guard import Guard
from urlward.proxy.head import MAX_HEAD
from urlward.proxy.live import Live, Member
from urlward.proxy.mitm import commands, cut_off, events, is_full, layer, transport_of
from urlward.proxy.names import NO_NAMES, Client, Names, head_of, is_multiplexed
from urlward.proxy.probing import MAX_WAIT
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import LINGER, Ends
from urlward.proxy.turns import read_much

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[ \r\n]").match
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"

type Lookup = Callable[[Client], mitm.ConnectionHandler | None]
"""The handler of a client's connection, or None in a test without sockets."""


class ListedAddress(str):
    """A connection's error where the name has this listed address, and so is not connected to."""

    __slots__ = ()


class Carried(Member):
    """Member of `Live` on a connection of which mitmproxy carries the bytes, and keeps the time limits."""

    _lookup: Lookup

    def cut(self) -> None:
        """Close the connection at once, and send nothing that waits."""
        handler = self._lookup(self.client)
        _reset(transport_of(handler))
        cut_off(handler)


def _reset(transport: asyncio.Transport | None) -> None:
    """Close a connection without what waits to be sent, here and in the system."""
    if transport is not None:
        with suppress(OSError):  # it is closed
            leave_unsent(transport.get_extra_info("socket"))
        transport.abort()


class WardHttpLayer(mitm.HttpLayer):
    """mitmproxy's HTTP layer, with streams that ask the guard first."""

    def __init__(
        self, context: Context, mode: mitm.HTTPMode, guard: Guard, live: Live, lookup: Lookup
    ) -> None:
        super().__init__(context, mode)
        self._guard = guard
        self._live = live
        self._lookup = lookup

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start) and not is_multiplexed(self.context):
            self.connections.setdefault(self.context.client, WardHttp1Server(self.context.fork()))
        yield from super()._handle_event(event)

    def register_connection(self, command: mitm.RegisterHttpConnection) -> layer.CommandGenerator[None]:
        """Take a new connection to an origin into use."""
        if isinstance(command.connection.error, ListedAddress):
            command.err = command.connection.error
        part: layer.Layer | None = self.connections[command.connection]
        while part is not None:
            if isinstance(part, mitm.Http1Client):
                WardHttp1Client.adopt(part)
            part = getattr(part, "child_layer", None)
        yield from super().register_connection(command)

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Start a stream for one request."""
        stream = WardHttpStream(self.context.fork(), stream_id, self._guard, self._live, self._lookup)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class WardHttpStream(Carried, mitm.HttpStream):
    """One request: decided at its head, answered at once or relayed as it comes."""

    def __init__(self, context: Context, stream_id: int, guard: Guard, live: Live, lookup: Lookup) -> None:
        super().__init__(context, stream_id)
        self.client = context.client
        self._guard = guard
        self._live = live
        self._lookup = lookup
        self._names = NO_NAMES
        self._answered = False
        self._judged: object = None
        self._late: LateRequest | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Wakeup):
            yield from self._stop_lingering()
        elif not self._answered:
            if (
                isinstance(event, mitm.RequestData)
                and self._late is not None
                and self._late.found(event.data)
            ):
                self._late = None
                self._guard.refused("match")
                yield commands.CloseConnection(self.context.client)
                event = mitm.RequestProtocolError(
                    self.stream_id, "a request in the content of another", mitm.ErrorCode.GENERIC_CLIENT_ERROR
                )
            yield from super()._handle_event(event)
            # A WebSocket, which is a layer around what follows, goes on until its connection ends.
            if self.child_layer is None and self._over(self.client_state) and self._over(self.server_state):
                self._live.discard(self)

    def state_wait_for_request_headers(self, event: mitm.RequestHeaders) -> layer.CommandGenerator[None]:
        """Ask the guard before mitmproxy changes anything about the request."""
        if not self.context.client.state & ConnectionState.CAN_WRITE:
            # A head that could not be read has been answered: it is only shown, to be dropped.
            self._answered = True
            yield mitm.DropStream(self.stream_id)
            return
        answer = NO_NAMES if event.replay_flow else self._guard.answer(event.request, self.context)
        if isinstance(answer, Names):
            self._names = answer
            if answer.target:
                self._live.add(self)
            # A connection to an origin is shared with nobody's further requests where the client's is.
            if not is_multiplexed(self.context):
                chunked = "chunked" in event.request.headers.get("transfer-encoding", "").lower()
                self._late = LateRequest(event.request.data.method, chunked=chunked)
            passing = super().state_wait_for_request_headers(event)
            reply = None
            with suppress(StopIteration):
                while True:
                    command = passing.send(reply)
                    if isinstance(command, mitm.HttpRequestHeadersHook):
                        # mitmproxy has made of it what it will, and other addons have yet to see it.
                        self._judged = _asked(self.flow.request)
                    reply = yield command
            return
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        self.flow.live = True
        self.flow.metadata["urlward"] = "answered"
        yield mitm.HttpRequestHeadersHook(self.flow)
        yield from self._answer(answer, event.end_stream)

    def check_invalid(self, request: bool) -> layer.CommandGenerator[bool]:
        """mitmproxy's own checks; the first thing that happens to a flow, which is marked as decided on."""
        if request:
            # What names no host is asked of the proxy; mitmproxy would lead it to where the Host field says.
            of_proxy = self.mode is not mitm.HTTPMode.transparent and not self.flow.request.host
            self.flow.metadata["urlward"] = "own" if of_proxy else "passed"
        return (yield from super().check_invalid(request))

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, unless the name turns out to have a listed address, or another addon has made a request of
        this one that is listed."""
        request, server = self.flow.request, self.flow.server_conn
        if _asked(request) != self._judged and request.data.method != b"CONNECT":
            answer = self._guard.answer(request, self.context)
            if isinstance(answer, BlockResponse):
                yield from self._answer(answer, self.client_state == self.state_done)
                return False
            self._names = answer
        connection, error = yield mitm.GetHttpConnection(
            (request.host, request.port), request.scheme == "https", server.via, server.transport_protocol
        )
        if error and not isinstance(error, ListedAddress):
            yield from self.handle_protocol_error(
                mitm.ResponseProtocolError(self.stream_id, error, mitm.ErrorCode.CONNECT_FAILED)
            )
            return False
        address = str(error) if error else connection.peername and connection.peername[0]
        refusal = (
            self._guard.answer_connected(head_of(request), self._names, self.client, address, request.port)
            if address
            else None
        )
        if refusal is not None:
            yield from self._answer(refusal, self.client_state == self.state_done)
            return False
        if error:
            # Listed a moment ago, and no longer.
            yield from self.handle_protocol_error(
                mitm.ResponseProtocolError(self.stream_id, "not connected", mitm.ErrorCode.CONNECT_FAILED)
            )
            return False
        if address:
            self._names = self._names._replace(address=address)
        self.context.server = self.flow.server_conn = connection
        return True

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Stream the body, unless another addon has answered: mitmproxy would then raise."""
        if self.flow.response:
            self.client_state = self.state_consume_request_body
        else:
            yield from super().start_request_stream()

    def _answer(self, answer: BlockResponse, complete: bool) -> layer.CommandGenerator[None]:
        answer_now(self.flow, answer)
        assert self.flow.response is not None
        if (not complete or answer.status == 400) and not is_multiplexed(self.context):
            self.flow.response.headers["Connection"] = "close"
        yield mitm.HttpResponseHeadersHook(self.flow)
        # What follows of the request is dropped with the stream, so it counts as done.
        self.client_state = self.state_done
        yield from self.send_response()
        self._answered = True
        if not complete:
            yield commands.RequestWakeup(LINGER)

    @property
    def told(self) -> bool:
        """Whether the request would have been blocked, and so everything inside its tunnel."""
        return self._names.told

    def _over(self, state: object) -> bool:
        return state in (self.state_done, self.state_errored)

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """The names that the exchange under way passed under."""
        return (self._names,)

    def cut(self) -> None:
        """Close the connection at once, since mitmproxy would end a single stream only at its next event."""
        self._live.discard(self)
        super().cut()

    def _stop_lingering(self) -> layer.CommandGenerator[None]:
        if is_multiplexed(self.context):
            yield mitm.SendHttp(
                mitm.ResponseProtocolError(self.stream_id, "blocked", mitm.ErrorCode.CANCEL),
                self.context.client,
            )
        else:
            yield commands.CloseConnection(self.context.client)


class RefuseTlsLayer(layer.Layer):
    """Ends a TLS connection with an alert, before anything is sent upstream."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.SendData(self.context.client, ACCESS_DENIED)
            yield commands.CloseConnection(self.context.client)


class CloseLayer(layer.Layer):
    """Closes a connection that could not be judged."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


class Undecided(layer.NextLayer):
    """Layer that waits for enough bytes to detect a connection's protocol.

    Args:
        context: the connection's.
        decide: sets the layer, or leaves it None to wait for more.
    """

    def __init__(self, context: Context, decide: Callable[[layer.NextLayer], None]) -> None:
        super().__init__(context)
        self._decide = decide

    def _ask(self) -> layer.CommandGenerator[None]:
        self._decide(self)
        asking = super()._ask()  # type: ignore[no-untyped-call]
        next(asking)  # the hook, which would go to mitmproxy's addon as well
        yield from asking


def _asked(request: http.Request) -> tuple[object, ...]:
    """The parts of a request that say what is asked for."""
    data = request.data
    return data.scheme, data.authority, data.host, data.port, data.path, data.headers.get_all("host")


def answer_now(flow: http.HTTPFlow, answer: BlockResponse) -> None:
    """Set a flow's response."""
    now = time.time()
    flow.response = http.Response(
        b"HTTP/1.1",
        answer.status,
        answer.reason.encode(),
        http.Headers(answer.headers),
        answer.body,
        None,
        now,
        now,
    )
    flow.metadata["urlward"] = "answered"


class RelayLayer(Carried, Ends, layer.Layer):
    """Bytes both ways, unread and unrecorded, unless the address connected to is listed.

    Args:
        context: of the connection.
        guard: decides.
        live: where the layer will be a member.
        lookup: finds the handler that carries it.
        names: what the connection passed under.
    """

    def __init__(self, context: Context, guard: Guard, live: Live, lookup: Lookup, names: Names) -> None:
        super().__init__(context)
        self._names = names
        self.relay = RawRelay(self, names)
        self.client = context.client
        self._guard = guard
        self._live = live
        self._lookup = lookup
        self._out: list[commands.Command] = []
        self._opening = False
        self._reads_much = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            self._live.add(self)
            yield from self._begin()
        else:
            self._feed(event)
            if not self._reads_much and self.relay.unread:
                self._reads_much = True
                read_much(self._lookup(self.client), client=inf, servers=inf)
        while self._out:
            out, self._out = self._out, []
            yield from out

    def _begin(self) -> layer.CommandGenerator[None]:
        server = self.context.server
        error = None
        if server.state is ConnectionState.CLOSED:
            error = yield from self._open()
        listed = server.error if isinstance(server.error, ListedAddress) else None
        address = listed or (server.peername and server.peername[0])
        allowed = not address or self._guard.address_allowed(self.context, self._names, str(address))
        if error or not allowed:
            self.close()
        elif address:
            self.relay.connected(str(address))

    def _feed(self, event: events.Event) -> None:
        try:
            match event:
                case events.DataReceived():
                    if event.connection is self.context.client:
                        self.relay.client_data(event.data)
                    else:
                        self.relay.server_data(event.data)
                case events.ConnectionClosed():
                    if event.connection is self.context.client:
                        self.relay.client_ended()
                    else:
                        self.relay.server_ended()
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            self._guard.broken(e, self.client)
            self._out.clear()
            self.close()

    # -- what the relay asks for

    def _open(self) -> layer.CommandGenerator[str | None]:
        """Open the connection to the origin; nothing is read of the client meanwhile."""
        transport = transport_of(self._lookup(self.client))
        if transport is not None:
            transport.pause_reading()
        self._opening = True
        error = yield commands.OpenConnection(self.context.server)
        self._opening = False
        if transport is not None:
            transport.resume_reading()
        return error  # type: ignore[no-any-return]

    def send_client(self, data: bytes) -> None:
        """Send data to the client."""
        if self.context.client.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.SendData(self.context.client, data))

    def send_server(self, data: bytes) -> None:
        """Send data to the origin."""
        if self.context.server.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.SendData(self.context.server, data))

    def end_client(self) -> None:
        """Send the client no more."""
        if self.context.client.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.CloseTcpConnection(self.context.client, half_close=True))

    def end_server(self) -> None:
        """Send the origin no more."""
        if self.context.server.state & ConnectionState.CAN_WRITE:
            self._out.append(commands.CloseTcpConnection(self.context.server, half_close=True))

    def close(self) -> None:
        """Close both connections."""
        self._live.discard(self)
        for connection in (self.context.server, self.context.client):
            if connection.state is not ConnectionState.CLOSED:
                self._out.append(commands.CloseConnection(connection))

    def refused(self, stage: str) -> None:
        """Count what could not be read."""
        self._guard.refused(stage)

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """The names that the exchange under way passed under."""
        return self.relay.live

    def may_read(self) -> bool:
        """Whether the origin's connection is open, so that the client is read."""
        return not self._opening

    def cut(self) -> None:
        """Close both connections at once."""
        self._live.discard(self)
        super().cut()


class Handshake(Carried):
    """A TLS handshake with a client, as a member of `Live`: it may take as long as a request's head."""

    def __init__(self, client: Client, lookup: Lookup) -> None:
        self.client = client
        self._lookup = lookup

    def head(self) -> int:
        """The handshake, in place of a request's head that has begun and not ended."""
        return 0

    def idle(self) -> bool:
        """Always: closing disturbs no exchange."""
        return True


class _Trailers:
    """Body reader on top of mitmproxy's that keeps the trailers mitmproxy would stop at."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self.fields: list[tuple[bytes, bytes]] = []

    def __call__(self, buffer: Any) -> Any:
        event = self._read(buffer)
        if isinstance(event, h11.EndOfMessage) and event.headers:
            # Lower case, as HTTP/2 must have them (RFC 9113 section 8.2).
            self.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            return h11.EndOfMessage()
        return event

    def read_eof(self) -> Any:
        return self._read.read_eof()


class _Trailing:
    """HTTP/1 connection, with a client or with an origin, whose messages may have trailers.

    Attributes:
        trailers_event: by which trailers come.
        error_event: by which a message is broken off.
        error_code: with that.
    """

    trailers_event: Any
    error_event: Any
    error_code: mitm.ErrorCode
    _reader: _Trailers
    _outgoing: http.Headers | None = None

    @property
    def body_reader(self) -> _Trailers:
        return self._reader

    @body_reader.setter
    def body_reader(self, read: Any) -> None:
        self._reader = _Trailers(read)

    def read_body(self: Any, event: events.Event) -> layer.CommandGenerator[None]:
        """Read a part of a body; the trailers that have been read come before the end of their message."""
        for command in super().read_body(event):  # type: ignore[misc]
            ends = isinstance(command, mitm.ReceiveHttp) and isinstance(
                command.event, self.ReceiveEndOfMessage
            )
            if ends and self._reader.fields:
                trailers = http.Headers(self._reader.fields)
                yield mitm.ReceiveHttp(self.trailers_event(command.event.stream_id, trailers))
                self._reader.fields = []
            yield command
        # What the reader leaves is a chunk's head or trailers; neither may grow without end.
        if self.state == self.read_body and len(self.buf) > MAX_HEAD:
            yield from self.refuse("chunk head or trailers are too large")

    def refuse(self: Any, message: str) -> layer.CommandGenerator[None]:
        """Break off a message, and close the connection."""
        self.buf = ReceiveBuffer()
        self.state = self.done
        yield commands.CloseConnection(self.conn)
        yield mitm.ReceiveHttp(self.error_event(self.stream_id, message, self.error_code))

    def sending_trailers(self, send: Generator[commands.Command, Any, None]) -> layer.CommandGenerator[None]:
        """Put the trailers to be sent into the last chunk; a message with a length has no place for them."""
        for command in send:
            if self._outgoing and isinstance(command, commands.SendData) and command.data == _LAST_CHUNK:
                fields = b"".join(b"%s: %s\r\n" % field for field in self._outgoing.fields)
                command = commands.SendData(command.connection, b"0\r\n" + fields + b"\r\n")
                self._outgoing = None
            yield command


class WardHttp1Server(_Trailing, mitm.Http1Server):  # type: ignore[misc]
    """HTTP/1 connection with a client."""

    trailers_event, error_event = mitm.RequestTrailers, mitm.RequestProtocolError
    error_code = mitm.ErrorCode.GENERIC_CLIENT_ERROR

    def send(self, event: mitm.HttpEvent) -> layer.CommandGenerator[None]:
        """Send a part of a response."""
        if isinstance(event, mitm.ResponseTrailers):
            self._outgoing = event.trailers
        else:
            yield from self.sending_trailers(super().send(event))

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read a request head, behind any empty lines (RFC 9112 section 2.2), up to `MAX_HEAD`."""
        size = len(self.buf)
        yield from super().read_headers(event)
        while isinstance(event, events.DataReceived) and self._reads_head() and 0 < len(self.buf) < size:
            size = len(self.buf)
            yield from super().read_headers(event)
        if self._reads_head() and len(self.buf) > MAX_HEAD:
            yield commands.SendData(self.conn, _TOO_LARGE)
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    def _reads_head(self) -> bool:
        return bool(self.state == self.read_headers)


class WardHttp1Client(_Trailing, mitm.Http1Client):  # type: ignore[misc]
    """HTTP/1 connection with an origin."""

    trailers_event, error_event = mitm.ResponseTrailers, mitm.ResponseProtocolError
    error_code = mitm.ErrorCode.GENERIC_SERVER_ERROR

    _interim = 0
    """Bytes of interim responses before the next one."""

    @classmethod
    def adopt(cls, client: mitm.Http1Client) -> None:
        """Make one of an `Http1Client` that has sent nothing yet; mitmproxy asks nobody which to make."""
        client.__class__ = cls
        client.state = client.read_headers

    def send(self, event: mitm.HttpEvent) -> layer.CommandGenerator[None]:
        """Send a part of a request."""
        if isinstance(event, mitm.RequestTrailers):
            fields = event.trailers.fields
            self._outgoing = http.Headers([f for f in fields if not is_heeded(b"%b: %b\r" % f)])
            return
        if isinstance(event, mitm.RequestHeaders) and not event.end_stream and _has_no_frame(event.request):
            request = event.request.copy()
            request.headers["transfer-encoding"] = "chunked"
            event = mitm.RequestHeaders(event.stream_id, request, event.end_stream)
        yield from self.sending_trailers(super().send(event))

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read a response head, behind any interim responses, up to `MAX_HEAD`."""
        if isinstance(event, events.DataReceived) and self.request:
            size = len(self.buf)
            while self._interim <= MAX_HEAD and _INTERIM(bytes(self.buf)) and self.buf.maybe_extract_lines():
                self._interim += size - len(self.buf)
                size = len(self.buf)
            if self._interim > MAX_HEAD:
                yield from self.refuse("interim responses are too many")
                return
            if not self.buf:
                return
        yield from super().read_headers(event)
        if self.state != self.read_headers:
            self._interim = 0
        elif self.stream_id is not None and len(self.buf) > MAX_HEAD:
            yield from self.refuse("response head is too large")


def _has_no_frame(request: http.Request) -> bool:
    """Whether HTTP/1 could not tell where this request's body ends."""
    return (request.is_http2 or request.is_http3) and "content-length" not in request.headers


@runtime_checkable
class Paced(Protocol):
    """Member of `Live` that reads its client by itself."""

    def slow(self, *, held: bool) -> None:
        """Stop reading from a slowed client, or go on."""


class Pacer:
    """Pauses reading from clients' connections for a while.

    Args:
        live: knows those that mitmproxy does not carry.
        lookup: finds mitmproxy's handler of the others.
    """

    def __init__(self, live: Live, lookup: Lookup) -> None:
        self._live = live
        self._lookup = lookup
        self._held: dict[Client, asyncio.TimerHandle] = {}

    def hold(self, client: Client, seconds: float) -> None:
        """Read nothing of a client for a while; close its connection where that is more than `MAX_WAIT`."""
        loop = asyncio.get_running_loop()
        if seconds > MAX_WAIT:
            # Not at once: it may be in the midst of being read.
            loop.call_soon(self._cut, client)
            return
        slow = self._way(client)
        if slow is None:
            return
        if client in self._held:
            self._held[client].cancel()
        slow(held=True)
        self._held[client] = loop.call_later(seconds, self._release, client)

    def _release(self, client: Client) -> None:
        del self._held[client]
        slow = self._way(client)
        if slow is not None and all(member.may_read() for member in self._live.of(client)):
            slow(held=False)

    def _cut(self, client: Client) -> None:
        for member in self._live.of(client):
            member.cut()
        cut_off(self._lookup(client))

    def _way(self, client: Client) -> Callable[..., None] | None:
        """By which reading from a client is stopped, or gone on with, where that is nobody else's to do."""
        for member in self._live.of(client):
            if isinstance(member, Paced):
                return member.slow
        handler = self._lookup(client)
        # A reader that has stopped by itself, full of what nobody has taken, goes on by itself.
        transport = None if handler is None or is_full(handler) else transport_of(handler)
        if transport is None:
            return None
        return lambda *, held: (transport.pause_reading if held else transport.resume_reading)()
