"""HTTP/2 with a client (RFC 9113): each stream is an exchange of the data path, as if it came over HTTP/1.1.

A stream's request is written as HTTP/1.1 into a lane, which is the client's connection of a session of its
own, with a connection to the origin (`urlward.proxy.session`), or a stream of one (`http2_origin`);
what comes back is read into frames again. A lane carries one stream after another.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Final, Literal

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.head import MAX_HEAD, HeadError, head_end, read_response_head
from urlward.proxy.http2_frames import (
    BY_MESSAGE,
    MAX_STREAMS,
    OF_NEW,
    ON_RESET,
    Credit,
    Exchange,
    Multiplexed,
    Stream,
    StreamLane,
    Windows,
)
from urlward.proxy.http2_messages import (
    Fields,
    MalformedError,
    Request,
    read_request,
    response_fields,
)
from urlward.proxy.http2_origin import MAX_LANES, SharedOrigin
from urlward.proxy.relay import FRESH, NO_ENDS, HttpEnds

LEAST_WINDOW: Final = 1 << 13
"""Bytes of a request's body that may be on their way, or wait here, however many there are."""

WINDOW: Final = 1 << 17
"""Bytes of the window of a stream that flows."""

CREDIT: Final = 1 << 19
"""Bytes that the windows of all streams of a connection may have beyond the least."""

_LONG_HEAD: Final = 1 << 13
"""Bytes of a request's head beyond which each 1 KB is spent on: clients can name long fields by a byte."""

MAX_UNDER_WAY: Final = 1 << 21
"""Bytes of heads of requests under way, beyond which no long one is taken. Few sites take more than 16 KB of
cookies, which all requests of a page have."""


_NONE: Final = Request(b"")


@dataclass(eq=False, slots=True)
class ClientStream(Stream):
    """Stream of a client: its request and its response.

    Attributes:
        request: its head.
    """

    lane: "Lane | None" = None
    request: Request = _NONE


class Lane(StreamLane):
    """Lane of an HTTP/2 client: streams, one after another, that a session sees as a client's connection.

    Args:
        http2: whose streams they are.

    Attributes:
        stream: that is carried, if one is.
    """

    __slots__ = ("_held", "_last", "_rests_since", "_served")

    http2: "Http2"
    stream: ClientStream | None

    def __init__(self, http2: "Http2") -> None:
        super().__init__(http2, None)
        self._served = 0
        self._held = b""
        """Bytes of a head that has not ended."""
        self._last = False
        """Whether the origin closes its connection behind this response."""
        self._rests_since = 0.0

    def owned(self, exchange: Exchange) -> "Lane":
        """Attach to a session."""
        self._owner = self._exchange = exchange
        return self

    # -- the client's side

    def carry(self, stream: ClientStream) -> None:
        """Relay the request of a stream."""
        self.stream, stream.lane = stream, self
        self._served += 1
        self._last = False
        held, stream.held = stream.held, []
        head = stream.request.head
        self.deliver(b"".join((head, *held)) if held else head)
        if self.stream is stream:
            if stream.ended and stream.request.websocket:
                self.deliver(b"")
            if not self._paused and stream.unread:
                self.http2.took(stream)

    def sent(self, *, reuse: bool) -> None:
        """The response has been sent."""
        self.part()
        self.relieve()
        if self.gone or self._exchange is None:
            return
        if not reuse or self._mode != "head":
            self._exchange.cut()
        elif self._last:
            self._exchange.close()
        else:
            self._rests_since = perf_counter()
            self._exchange.rest()
            self.http2.at_rest(self)

    @property
    def repeatable(self) -> bool:
        """Whether the request under way may be sent twice."""
        return self.stream is not None and not self.stream.begun and self.stream.request.repeatable

    @property
    def useful(self) -> bool:
        """Whether further streams may use this lane."""
        return self._exchange is not None and self._exchange.takes_more(surely=False)

    def takes(self, stream: ClientStream) -> bool:
        """Whether a stream may.

        An origin may close what is at rest, or be gone without a word: what cannot be sent twice goes only
        where it has just answered. Nothing goes where the response before, which has arrived, is still looked
        into.
        """
        exchange = self._exchange
        if exchange is None or not exchange.idle():
            return False
        if stream.request.repeatable:
            return True
        return perf_counter() - self._rests_since <= FRESH and exchange.takes_more(surely=True)

    def drop(self) -> None:
        """The client has reset the stream, or cannot be sent any more of it."""
        self.part()
        if self._exchange is not None:
            self._exchange.cut()

    def failed(self, why: int | None, *, unprocessed: bool) -> None:
        """The stream to the origin has ended before its response was complete.

        Args:
            why: as the origin says (RFC 9113 section 7); None where that has said nothing, or nonsense.
            unprocessed: whether it says that nothing has been done for the request.
        """
        stream = self.part()
        if stream is not None and not stream.whole:
            request = stream.request
            if not stream.begun and (request.bodiless if unprocessed else why is None and request.repeatable):
                self.http2.again(stream)
            elif why is None:
                self.http2.give_up(stream)
            elif why == ErrorCodes.NO_ERROR:
                self.http2.cut(stream)
            else:
                self.http2.end_stream(stream, why)
            self.http2.flush()
        self.drop()

    # -- as the session's connection

    def write(self, data: bytes) -> None:
        """Take a response from the origin, or from the filter."""
        stream = self.stream
        if stream is None or stream.whole or self.gone:
            return  # what an origin says unasked, such as 408, is no part of a response that waits
        try:
            position, seen = 0, len(self._held)
            if self._mode == "head":
                data, self._held = self._held + data, b""
                position = self._read_head(stream, data, seen)
            if position >= 0 and self.stream is stream:
                self.send_body(data, position)
        except ValueError:
            self.part()
            self.http2.give_up(stream, "The response is none of HTTP.")
            self.drop()
        self.http2.flush()

    def end(self) -> None:
        """Send no more."""
        if self._mode == "tunnel" and self.stream is not None:
            self.http2.send(self.stream, b"", whole=True)
            self.http2.flush()
        else:
            self._over(broken=False)

    def close(self) -> None:
        """Close once all is sent."""
        self._over(broken=False)

    def reset(self, *, as_tls: bool = False) -> None:
        """Close, but so that the client cannot take it for the end.

        What TLS alone would say cannot be said of a stream. Browsers bear a close_notify that is missing, and
        show nothing of a stream that is reset, so it ends.
        """
        self._over(broken=not as_tls)

    abort = reset

    def _over(self, *, broken: bool) -> None:
        if self.gone:
            return
        self.gone = True
        self.http2.gone(self)
        stream = self.part()
        if stream is not None:
            if broken or not stream.whole:
                self._part_with(stream, broken=broken)
            self.http2.flush()
        self._leave()

    def _part_with(self, stream: ClientStream, *, broken: bool) -> None:
        """Abort a response that is incomplete, or that the client has yet to take."""
        if broken:
            self.http2.end_stream(stream)
        elif self._mode in ("endless", "tunnel"):
            self.http2.send(stream, b"", whole=True)
        elif stream.request.repeatable and self._served > 1 and not (stream.begun or self._held):
            # The connection was closed while the request was on its way (RFC 9112 section 9.3.1).
            self.http2.again(stream)
        else:
            self.http2.give_up(stream)

    def _read_head(self, stream: ClientStream, data: bytes, seen: int) -> int:
        """Read and send on a response's head; returns where it ends, -1 where it has not ended yet.

        Args:
            stream: whose.
            data: what has come of it.
            seen: bytes of that which have been looked through.
        """
        position = 0
        while True:
            while position < len(data) and data[position] in b"\r\n":
                position += 1
            end = head_end(data, max(seen - 3, position))
            if end < 0:
                self._held = data[position:]
                if len(self._held) > MAX_HEAD:
                    raise ValueError("a head that is too large")
                return -1
            head = read_response_head(data[position:end], stream.request.is_head)
            position = end
            if head.status >= 200:
                break
            if head.status == 101:
                if not stream.request.websocket:
                    raise ValueError("another protocol, which nobody asked for")
                self._mode = "tunnel"
                fields, _ = response_fields(head, 200)
                self.http2.respond(
                    stream, [field for field in fields if field[0] != b"sec-websocket-accept"], whole=False
                )
                return position
            self.http2.send_head(stream, response_fields(head)[0], whole=False)
        fields, self._last = response_fields(head)
        self.expect_body(head.length)
        self.http2.respond(stream, fields, whole=head.length == 0)
        return position


class Http2(Multiplexed):
    """HTTP/2 connection with a client.

    Args:
        ends: its session.
        loop: the event loop.

    Attributes:
        ends: its session.
        origin: where its streams go.
    """

    __slots__ = (
        "_client_ended", "_heads", "_lanes", "_leaving", "_resting", "_scheduled", "_waiting", "ends",
        "origin",
    )  # fmt: skip

    live: Final = ()
    endless: Final = False
    unanswered: Final = False

    def __init__(self, ends: HttpEnds, loop: asyncio.AbstractEventLoop) -> None:
        settings: dict[Any, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        }
        windows = Windows(LEAST_WINDOW, WINDOW, Credit(CREDIT))
        super().__init__(loop, client_side=False, settings=settings, windows=windows)
        self.ends: Any = ends
        self.origin = SharedOrigin(loop, self)
        self._waiting: deque[ClientStream] = deque()
        """Streams that wait for a lane."""
        self._lanes: set[Lane] = set()
        self._resting: list[Lane] = []
        self._heads = 0
        self._scheduled = False
        self._leaving: Literal["", "soon", "now"] = ""
        """Whether no more streams are taken."""
        self._client_ended = False

    @property
    def idle(self) -> bool:
        """Whether no stream is open, nor may be on its way."""
        return not self._streams and self._leaving != "soon"

    @property
    def head(self) -> int | None:
        """The request head that has begun and not ended, if any; the first while nothing has come."""
        frames = self._frames
        begun = not self._heads or frames.incoming_buffer._headers_buffer
        return self._heads if begun and not self._closed else None

    client_data = Multiplexed.read

    def client_ended(self) -> None:
        """The client will send no more: incomplete requests are dropped, and responses for which its windows
        have no room, since it cannot open them any more."""
        self._read_rest()
        self._client_ended = True
        for stream in list(self._streams.values()):
            if not stream.ended or (stream.out and not self.blocked):
                self._drop(stream)
        self._rest()

    def leave(self) -> None:
        """Take no more streams, and close behind those that there are.

        Asked once, it says so; asked again, when the client has heard of that and what was on its way has
        come, it refuses what follows.
        """
        if self._closed or self._leaving == "now":
            return
        self._leaving = "now" if self._leaving else "soon"
        self._frames.go_away(soon=self._leaving == "soon")
        self.flush()
        self._rest()

    def closed(self) -> None:
        """The client's connection is closed."""
        self.forget()
        self.ends = NO_ENDS

    def failed(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        self.ends.broken(error)

    def _write(self, data: bytes) -> None:
        self.ends.active = perf_counter()
        self.ends.send_client(data)

    # -- as the connection's peer, which is told how that gets on

    def pause(self, why: int) -> None:
        """The client is slow: neither its requests nor their responses are read, heads included."""
        super().pause(why)
        self.ends.hold_client(held=True)
        self.origin.hold(held=True)
        for lane in self._lanes:
            lane.fill(full=True)

    def _caught_up(self) -> None:
        self.origin.hold(held=False)
        for lane in list(self._lanes):
            lane.relieve()
        self.ends.hold_client(held=False)
        self._schedule()

    # -- requests

    def _take(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                self._request(event)
            case events.DataReceived() | events.TrailersReceived() | events.StreamEnded():
                self._content(event)
            case events.WindowUpdated():
                self._go_on(event.stream_id)
            case events.SettingsAcknowledged():
                self._open_window()
            case events.RemoteSettingsChanged():
                self._heads = self._heads or 1
                self._go_on()
            case events.StreamReset():
                self._budget.spend(ON_RESET if not event.remote_reset else 0)
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    self._drop(stream)
            case events.ConnectionTerminated():
                self._client_ended = True
                if event.error_code:
                    self._end()
                self._rest()

    def _request(self, event: events.RequestReceived) -> None:
        self._heads += 1
        number = event.stream_id
        assert number is not None
        assert event.headers is not None
        if self._leaving == "now":
            self.reset(number, ErrorCodes.REFUSED_STREAM)
            return
        ended = event.stream_ended is not None
        fields: Any = event.headers
        try:
            request = read_request(fields, ended=ended)
        except MalformedError:
            self.ends.refused("match")
            self._budget.spend(ON_RESET)
            self.reset(number, ErrorCodes.PROTOCOL_ERROR)
            return
        except HeadError as e:
            self.ends.refused("match")
            self._streams[number] = stream = ClientStream(number, ended=ended, left=inf)
            self._answer(stream, plain(e.status, str(e), head=(b":method", b"HEAD") in fields))
            return
        if len(request.head) > _LONG_HEAD:
            self._budget.spend((len(request.head) - _LONG_HEAD) >> 10)
            under_way = sum(len(each.request.head) for each in self._streams.values())
            if under_way + len(request.head) > MAX_UNDER_WAY:
                self.ends.refused("match")
                self.reset(number, ErrorCodes.REFUSED_STREAM)
                return
        left = None if request.chunked else inf if request.websocket else request.length
        self._streams[number] = stream = ClientStream(number, ended=ended, request=request, left=left)
        if not ended:
            self._widen(stream, OF_NEW)
        self._waiting.append(stream)

    def _content(self, event: Any) -> None:
        stream: Any = self._streams.get(event.stream_id)
        try:
            self._body(event)
        except MalformedError:
            self.ends.refused("match")
            self._budget.spend(ON_RESET)
            self.end_stream(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        if stream is not None and stream.ended and stream.request.websocket and stream.lane is not None:
            stream.lane.deliver(b"")

    # -- lanes

    def _other(self) -> Multiplexed | None:
        return self.origin.http2

    def _settle(self) -> None:
        """Assign waiting streams to lanes."""
        while self._waiting and not (self._closed or self.blocked):
            stream = self._waiting[0]
            if self._streams.get(stream.id) is not stream:
                self._waiting.popleft()
                continue
            lane = self._lane(stream)
            if lane is None:
                break
            self._waiting.popleft()
            lane.carry(stream)
            if self._turn_is_over():
                self._schedule()
                break

    def _lane(self, stream: ClientStream) -> Lane | None:
        """A lane for a stream; None where there is no room."""
        while self._resting and not self._resting[-1].useful:
            self._resting[-1].drop()
        if self._resting and self._resting[-1].takes(stream):
            return self._resting.pop()
        if len(self._lanes) >= self.origin.room:
            if not self._resting:
                return None
            self._resting[0].drop()
        lane = Lane(self)
        self._lanes.add(lane)
        self.ends.exchange(lane)
        return lane

    def _schedule(self) -> None:
        """Assign streams soon, but not while a relay is at work."""
        if self._waiting and not self._scheduled and not self._closed and self.peer is not None:
            self._scheduled = True
            self.peer.later(self.dispatch)

    def dispatch(self) -> None:
        """Assign waiting streams to lanes, where there is room again."""
        self._scheduled = False
        try:
            self._settle()
            self.flush()
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.ends.broken(e)

    def at_rest(self, lane: Lane) -> None:
        """A lane is idle and can carry another stream."""
        if len(self._resting) < MAX_LANES:
            self._resting.append(lane)
        else:
            lane.drop()
        self._schedule()

    def gone(self, lane: Lane) -> None:
        """A lane can carry no more streams."""
        self._lanes.discard(lane)
        if lane in self._resting:
            self._resting.remove(lane)
        self._schedule()

    def again(self, stream: ClientStream) -> None:
        """Retry a stream on another lane, once."""
        stream.request = stream.request._replace(repeatable=False, bodiless=False)
        self._waiting.appendleft(stream)
        self._schedule()

    # -- responses

    def respond(self, stream: ClientStream, fields: Fields, *, whole: bool) -> None:
        """Send a response's head, which may be the whole of it."""
        stream.begun = True
        stream.whole = stream.over = whole
        self.send_head(stream, fields, whole=whole)
        if whole:
            self._finish(stream)

    def give_up(self, stream: ClientStream, why: str = "The origin does not answer.") -> None:
        """Send an error response for a failed origin, or abort a response that has begun."""
        if stream.begun:
            self.end_stream(stream)
        else:
            self._answer(stream, plain(502, why, head=stream.request.is_head))

    def _answer(self, stream: ClientStream, answer: BlockResponse) -> None:
        fields = [(b":status", b"%d" % answer.status)]
        fields += ((name.lower(), value) for name, value in answer.headers)
        self.respond(stream, fields, whole=not answer.body)
        if answer.body:
            self.send(stream, answer.body, whole=True)

    def cut(self, stream: ClientStream) -> None:
        """Reset a stream after what has been received of its response, so that it does not look complete.

        Node ends so what has had to wait for a window; clients take it for the end.
        """
        stream.cut = True
        self.send(stream, b"", whole=True)

    def end_stream(self, stream: ClientStream, why: int = ErrorCodes.INTERNAL_ERROR) -> None:
        """Reset a stream before it is complete."""
        if self._streams.get(stream.id) is stream:
            self.reset(stream.id, why)
            self._drop(stream)

    def send_head(self, stream: ClientStream, fields: Fields, *, whole: bool) -> None:
        """Send a head, of an interim response too."""
        if self._streams.get(stream.id) is not stream or self._closed:
            return
        try:
            self._frames.head(stream.id, fields, whole=whole)
        except H2Error:
            self._drop(stream)

    def _sent(self, stream: ClientStream) -> None:
        self._budget.earn(BY_MESSAGE)
        self._remove(stream)
        self.took(stream)
        if not stream.ended:
            # The rest of its body is not wanted (RFC 9113 section 8.1).
            self.reset(stream.id, ErrorCodes.NO_ERROR)
        if stream.lane is not None:
            stream.lane.sent(reuse=stream.ended)
        self._rest()

    def _drop(self, stream: ClientStream) -> None:
        """Forget a stream that has ended."""
        self._remove(stream)
        stream.held.clear()
        self.took(stream)
        if stream.lane is not None:
            stream.lane.drop()
        else:
            with suppress(ValueError):
                self._waiting.remove(stream)
        self._rest()

    # -- ends

    def _rest(self) -> None:
        if (self._client_ended or self._leaving == "now") and not self._streams:
            self._end()

    def _calm(self) -> None:
        self.ends.refused("match")
        super()._calm()

    def _over(self, streams: list[ClientStream]) -> None:  # noqa: ARG002 - lanes see to them
        self._waiting.clear()
        self._resting.clear()
        lanes = list(self._lanes)
        self._lanes.clear()
        for lane in lanes:
            lane.drop()
        self.origin.close()
        self.ends.close()
