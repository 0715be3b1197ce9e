"""Layers in mitmproxy's stack that enforce decisions.

mitmproxy's own HTTP stream asks its hooks at the head of a request but answers only when the body
has come in, and refuses to answer a streamed one at all. These layers answer at the head.
"""

import time
from collections.abc import Callable, Iterable
from math import inf

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.context import Context

from urlward.proxy.answers import ACCESS_DENIED
from urlward.proxy.block_page import BlockResponse
from urlward.proxy.ends import LINGER
from urlward.proxy.guard import Guard
from urlward.proxy.http1 import WardHttp1Client, WardHttp1Server
from urlward.proxy.http_layer import ListedAddress, Lookup
from urlward.proxy.kind import LateRequest
from urlward.proxy.live import Live
from urlward.proxy.mitm import (
    DropStream,
    ErrorCode,
    GetHttpConnection,
    Http1Client,
    HttpLayer,
    HTTPMode,
    HttpRequestHeadersHook,
    HttpResponseHeadersHook,
    HttpStream,
    RegisterHttpConnection,
    RequestData,
    RequestHeaders,
    RequestProtocolError,
    ResponseProtocolError,
    SendHttp,
    commands,
    cut_off,
    events,
    layer,
)
from urlward.proxy.names import NO_NAMES, Names, is_multiplexed


class WardHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, with streams that ask the guard first."""

    def __init__(self, context: Context, mode: HTTPMode, guard: Guard, live: Live, lookup: Lookup) -> None:
        super().__init__(context, mode)
        self._guard = guard
        self._live = live
        self._lookup = lookup

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start) and not is_multiplexed(self.context):
            self.connections.setdefault(self.context.client, WardHttp1Server(self.context.fork()))
        yield from super()._handle_event(event)

    def register_connection(self, command: RegisterHttpConnection) -> layer.CommandGenerator[None]:
        """Take a new connection to an origin into use."""
        if isinstance(command.connection.error, ListedAddress):
            command.err = command.connection.error
        part: layer.Layer | None = self.connections[command.connection]
        while part is not None:
            if isinstance(part, Http1Client):
                WardHttp1Client.adopt(part)
            part = getattr(part, "child_layer", None)
        yield from super().register_connection(command)

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Start a stream for one request."""
        stream = WardHttpStream(self.context.fork(), stream_id, self._guard, self._live, self._lookup)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class WardHttpStream(HttpStream):
    """One request: decided at its head, answered at once or relayed as it comes."""

    def __init__(self, context: Context, stream_id: int, guard: Guard, live: Live, lookup: Lookup) -> None:
        super().__init__(context, stream_id)
        self.client = context.client
        self._guard = guard
        self._live = live
        self._lookup = lookup
        self._names = NO_NAMES
        self._answered = False
        self._late: LateRequest | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Wakeup):
            yield from self._stop_lingering()
        elif not self._answered:
            if isinstance(event, RequestData) and self._late is not None and self._late.found(event.data):
                self._late = None
                self._guard.refused("match")
                yield commands.CloseConnection(self.context.client)
                event = RequestProtocolError(
                    self.stream_id, "a request in the content of another", ErrorCode.GENERIC_CLIENT_ERROR
                )
            yield from super()._handle_event(event)
            if self._over(self.client_state) and self._over(self.server_state):
                self._live.discard(self)

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Ask the guard before mitmproxy changes anything about the request."""
        if not self.context.client.state & ConnectionState.CAN_WRITE:
            # A head that could not be read has been answered: it is only shown, to be dropped.
            self._answered = True
            yield DropStream(self.stream_id)
            return
        answer = NO_NAMES if event.replay_flow else self._guard.answer(event.request, self.context)
        if isinstance(answer, Names):
            self._names = answer
            if answer.target:
                self._live.add(self)
            # A connection to an origin is shared with nobody's further requests where the client's is.
            if not is_multiplexed(self.context):
                chunked = "chunked" in event.request.headers.get("transfer-encoding", "").lower()
                self._late = LateRequest.in_content(event.request.data.method, chunked=chunked)
            yield from super().state_wait_for_request_headers(event)
            return
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        self.flow.live = True
        self.flow.metadata["urlward"] = "answered"
        yield HttpRequestHeadersHook(self.flow)
        yield from self._answer(answer, event.end_stream)

    def check_invalid(self, request: bool) -> layer.CommandGenerator[bool]:
        """mitmproxy's own checks; the first thing that happens to a flow, which is marked as decided on."""
        if request:
            self.flow.metadata["urlward"] = "passed"
        return (yield from super().check_invalid(request))

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, unless the name turns out to have a listed address."""
        request, server = self.flow.request, self.flow.server_conn
        connection, error = yield GetHttpConnection(
            (request.host, request.port), request.scheme == "https", server.via, server.transport_protocol
        )
        if error and not isinstance(error, ListedAddress):
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, error, ErrorCode.CONNECT_FAILED)
            )
            return False
        address = str(error) if error else connection.peername and connection.peername[0]
        answer = (
            self._guard.answer_connected(request, self._names, self.client, address, request.port)
            if address
            else None
        )
        if answer is not None:
            yield from self._answer(answer, self.client_state == self.state_done)
            return False
        if error:
            # Listed a moment ago, and no longer.
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, "not connected", ErrorCode.CONNECT_FAILED)
            )
            return False
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
        yield HttpResponseHeadersHook(self.flow)
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

    def head(self) -> int | None:
        """None: mitmproxy reads heads."""

    def idle(self) -> bool:
        """Never: a stream that is done is no member."""
        return False

    def progress(self) -> float:
        """Infinite: the rate is not known here."""
        return inf

    def may_read(self) -> bool:
        """Always: mitmproxy's reader stops by itself."""
        return True

    def touch(self, now: float) -> None:
        """Do nothing: mitmproxy carries the bytes and keeps the time limits."""

    def leave(self) -> None:
        """Do nothing: the connection ends with the process."""

    def cut(self) -> None:
        """Close the connection at once, since mitmproxy would end a single stream only at its next event."""
        self._live.discard(self)
        cut_off(self._lookup(self.client))

    def _stop_lingering(self) -> layer.CommandGenerator[None]:
        if is_multiplexed(self.context):
            yield SendHttp(
                ResponseProtocolError(self.stream_id, "blocked", ErrorCode.CANCEL), self.context.client
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


class Later(layer.Layer):
    """Layer that creates its replacement when the connection around it is established.

    Args:
        context: the connection's.
        make: makes it.
    """

    def __init__(self, context: Context, make: Callable[[], layer.Layer]) -> None:
        super().__init__(context)
        self._make = make

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        assert isinstance(event, events.Start)
        self.context.layers.remove(self)
        made = self._make()
        self.handle_event = self._handle_event = made.handle_event  # type: ignore[method-assign]
        yield from made.handle_event(event)


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
