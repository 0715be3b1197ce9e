"""HTTP/2 with a client (RFC 9113): each stream is an exchange of the data path, as if it came over HTTP/1.1.

The h2 library reads and writes frames. A stream's request is written as HTTP/1.1 into a lane, which is the
client's connection of a session of its own, with a connection to the origin (`urlward.proxy.session`); what
comes back is read into frames again. A lane carries one stream after another. What a client sends beyond what
its requests need is bounded by a budget (CVE-2019-9511 to 9518, CVE-2023-44487).
"""

import asyncio
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from urlward.proxy.answers import plain
from urlward.proxy.block_page import BlockResponse
from urlward.proxy.connection import BEHIND, HIGH, LOW, Connection, Owner, Peer
from urlward.proxy.head import END, MAX_HEAD, HeadError, read_response_head
from urlward.proxy.http2_messages import (
    Chunks,
    Encoder,
    Fields,
    MalformedError,
    Request,
    last_chunk,
    read_request,
    response_fields,
)

MAX_STREAMS: Final = 100
"""Streams that a client may have open."""

MAX_LANES: Final = 32
"""Connections to the origin for one client's connection; streams beyond wait for one of them."""

WINDOW: Final = 1 << 17
"""Bytes of a request's body that may be on their way, or wait here."""

CONNECTION_WINDOW: Final = 1 << 19
"""Likewise of all that come over a connection."""

_FIRST_WINDOW: Final = (1 << 16) - 1
_CLOSED_STREAMS: Final = 1 << 11

_FRAME_HEAD: Final = 9
_PREFACE: Final = 24
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9
_END_STREAM, _PADDED = 1, 8
_SMALL: Final = 32
_MAX_CONTINUATIONS: Final = 60

# What is spent on frames of a kind.
_ON_REQUEST, _ON_RESET, _ON_CONTROL, _ON_SMALL_DATA = 5, 20, 10, 1
_AT_FIRST, _AT_MOST, _PER_SECOND = 2_000.0, 10_000.0, 1_000.0
# What is earned by a response, and by a frame of data, or by how many bytes where a small window has cut it.
_BY_RESPONSE, _BY_DATA, _BYTES_FOR_ONE = 10, 20, 800

_LONG_HEAD: Final = 1 << 13
"""Bytes of a request's head beyond which each 1 KB is spent on: clients can name long fields by a byte."""


class Exchange(Owner, Protocol):
    """The session of a lane."""

    def close(self) -> None:
        """Close both connections, once all that was sent is out."""

    def cut(self) -> None:
        """Close both at once."""


class Http2Ends(Protocol):
    """What is asked of the session that a client's connection has."""

    active: float

    def send_client(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """Close, once all that was sent is out."""

    def refused(self, stage: str) -> None:
        """Count what could not be read."""

    def broken(self, error: Exception) -> None:
        """Something of ours has failed, and the connection with it."""

    def exchange(self, lane: "Lane") -> None:
        """Begin a session for a lane."""

    def hold_client(self, *, held: bool) -> None:
        """Read nothing of the client for now, or go on."""


class _NoEnds:
    """Takes all and does nothing."""

    active = 0.0

    def send_client(self, data: Any) -> None:
        """Nothing."""

    refused = broken = exchange = send_client

    def close(self) -> None:
        """Nothing."""

    def hold_client(self, *, held: bool) -> None:
        """Nothing."""


class _Frames(H2Connection):
    """The library's connection; it remembers of fewer streams how they ended."""

    MAX_CLOSED_STREAMS = _CLOSED_STREAMS
    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEAD


class Budget:
    """What may be spent on frames that a client sends beyond what its requests need.

    Args:
        now: the time, by `time.perf_counter`.
    """

    __slots__ = ("_at", "_block", "_continuations", "_head", "_left", "_skip")

    def __init__(self, now: float) -> None:
        self._left = _AT_FIRST
        self._at = now
        self._skip = _PREFACE
        """Bytes to come of the frame that has begun."""
        self._head = b""
        self._block = self._continuations = 0

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self._left < 0

    def earn(self, amount: int) -> None:
        """Have more to spend."""
        self._left = min(self._left + amount, _AT_MOST)

    def spend(self, amount: int) -> None:
        """Have less."""
        self._left -= amount

    def read(self, data: bytes, now: float) -> bool:
        """Spend on the frames in what has come; whether there was enough for that."""
        left = min(self._left + (now - self._at) * _PER_SECOND, _AT_MOST)
        self._at = now
        if self._head:
            data, self._head = self._head + data, b""
        position, size = self._skip, len(data)
        while position + _FRAME_HEAD <= size:
            length = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
            kind = data[position + 3]
            if kind == _DATA:
                flags = data[position + 4]
                if length < _SMALL or flags & _PADDED:
                    left -= _ON_SMALL_DATA if length or flags & _END_STREAM else _ON_CONTROL
            elif kind == _HEADERS:
                left -= _ON_REQUEST
                self._block, self._continuations = length, 0
            elif kind == _CONTINUATION:
                left -= _ON_CONTROL
                self._block += length
                self._continuations += 1
                if self._continuations > _MAX_CONTINUATIONS or self._block > MAX_HEAD:
                    return False
            elif kind == _RST_STREAM:
                left -= _ON_RESET
            else:
                left -= _ON_CONTROL + (length >> 4)
            position += _FRAME_HEAD + length
        if position < size:
            self._head, self._skip = data[position:], 0
        else:
            self._skip = position - size
        self._left = left
        return left >= 0


class Stream:
    """A request and its response.

    Attributes:
        id: its number.
        request: its head.
        held: what follows that, before a lane has it.
        unread: bytes of its body for which the client has no room again yet.
        ended: whether the client has sent all of it.
        lane: that carries it.
        begun: whether a response has.
        out: what waits to be sent of its body.
        whole: whether there is no more of it.
        over: whether its end is sent.
        trailers: behind its body.
    """

    __slots__ = (
        "begun",
        "ended",
        "held",
        "id",
        "lane",
        "out",
        "over",
        "request",
        "trailers",
        "unread",
        "whole",
    )

    def __init__(self, number: int, request: Request, *, ended: bool) -> None:
        self.id = number
        self.request = request
        self.held: list[bytes] = []
        self.unread = 0
        self.ended = ended
        self.lane: Lane | None = None
        self.begun = self.whole = self.over = False
        self.out = bytearray()
        self.trailers: Fields = []


class Lane(Connection):
    """A client's connection as a session sees it: streams, one after another, in place of a socket.

    Args:
        loop: the event loop.
        http2: whose streams they are.

    Attributes:
        stream: that is carried, if one is.
    """

    __slots__ = (
        "_chunks",
        "_exchange",
        "_held",
        "_http2",
        "_last",
        "_left",
        "_mode",
        "_seen",
        "_served",
        "stream",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, http2: "Http2") -> None:
        self.begin(loop, None)
        self.stream: Stream | None = None
        self._http2 = http2
        self._exchange: Exchange | None = None
        self._served = 0
        self._mode = "head"
        """What comes next of a response: its ``head``, or a ``counted``, ``chunked`` or ``endless`` body; or
        what a ``tunnel`` has."""
        self._held = b""
        """Of a head that has not ended."""
        self._seen = 0
        self._left = 0
        self._chunks: Chunks | None = None
        self._last = False
        """Whether the origin closes its connection behind this response."""

    def owned(self, exchange: Exchange) -> "Lane":
        """Be of a session."""
        self._owner = self._exchange = exchange
        return self

    # -- the client's side

    def carry(self, stream: Stream) -> None:
        """Have a stream's request relayed."""
        self.stream, stream.lane = stream, self
        self._served += 1
        self._last = False
        held, stream.held = stream.held, []
        head = stream.request.head
        self.request(b"".join((head, *held)) if held else head)
        if self.stream is stream:
            if stream.ended and stream.request.websocket:
                self.request_ended()
            if not self._paused and stream.unread:
                self._http2.took(stream)

    def request(self, data: bytes) -> None:
        """Have more of it."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.active = perf_counter()
        try:
            self.receive(data)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged, or end other streams
            exchange.broken(e)

    def request_ended(self) -> None:
        """No more comes through a tunnel."""
        if self._exchange is not None:
            try:
                self.ended()
            except Exception as e:  # noqa: BLE001 - as above
                self._exchange.broken(e)

    @property
    def pausing(self) -> bool:
        """Whether no more of the request is wanted now."""
        return bool(self._paused)

    def sent(self, *, reuse: bool) -> None:
        """The response is out."""
        if self.stream is not None:
            self.stream.lane = None
            self.stream = None
        self.relieve()
        if self.gone or self._exchange is None:
            return
        if not reuse or self._mode != "head":
            self._exchange.cut()
        elif self._last:
            self._exchange.close()
        else:
            self._http2.at_rest(self)

    def drop(self) -> None:
        """The client has given the stream up, or cannot be sent any more of it."""
        if self.stream is not None:
            self.stream.lane = None
            self.stream = None
        if self._exchange is not None:
            self._exchange.cut()

    def burden(self) -> None:
        """More waits for the client than may."""
        if not self.full:
            self.full = True
            if self.peer is not None:
                self.peer.pause(BEHIND)

    def relieve(self) -> None:
        """It has taken that."""
        if self.full:
            self.full = False
            if self.peer is not None:
                self.peer.resume(BEHIND)

    # -- as the session's connection

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        return len(self.stream.out) if self.stream is not None else 0

    def write(self, data: bytes) -> None:
        """Take what the origin answers, or the filter."""
        stream = self.stream
        if stream is None or self.gone:
            return
        try:
            self._read(stream, data)
        except ValueError:
            self.stream = stream.lane = None
            self._http2.give_up(
                stream, plain(502, "The response is none of HTTP.", head=stream.request.is_head)
            )
            if self._exchange is not None:
                self._exchange.cut()
        self._http2.flush()

    def end(self) -> None:
        """Send no more."""
        if self._mode == "tunnel" and self.stream is not None:
            self._http2.send(self.stream, b"", whole=True)
            self._http2.flush()
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

    def forget(self) -> None:
        """Nothing more will come; what it referred to is not kept."""
        super().forget()
        self._exchange = None

    def _watch(self) -> None:
        if not self._paused and self.stream is not None and self.stream.unread:
            self._http2.took(self.stream)
            self._http2.flush()

    def _over(self, *, broken: bool) -> None:
        if self.gone:
            return
        self.gone = True
        self._http2.gone(self)
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.lane = None
            if not stream.whole:
                self._part_with(stream, broken=broken)
            self._http2.flush()
        owner, self._owner = self._owner, None
        if owner is not None:
            self._loop.call_soon(owner.lost, self)

    def _part_with(self, stream: Stream, *, broken: bool) -> None:
        """End a response in its midst."""
        if broken:
            self._http2.reset(stream)
        elif self._mode in ("endless", "tunnel"):
            self._http2.send(stream, b"", whole=True)
        elif stream.request.repeatable and self._served > 1 and not (stream.begun or self._held):
            # The connection was closed while the request was on its way (RFC 9112 section 9.3.1).
            stream.request = stream.request._replace(repeatable=False)
            self._http2.again(stream)
        else:
            answer = plain(502, "The origin does not answer.", head=stream.request.is_head)
            self._http2.give_up(stream, answer)

    # -- responses

    def _read(self, stream: Stream, data: bytes) -> None:
        """Send on what of a response has come.

        Raises:
            ValueError: it is none.
        """
        position = 0
        if self._mode == "head":
            if self._held:
                data, self._held = self._held + data, b""
            position = self._read_head(stream, data)
            if position < 0 or self.stream is not stream:
                return
        parts: list[bytes] = []
        trailers: Fields = []
        whole = False
        if self._mode == "counted":
            part = data[position : position + self._left]
            self._left -= len(part)
            whole = not self._left
            parts.append(part)
        elif self._mode == "chunked":
            assert self._chunks is not None
            self._chunks.feed(data, position, parts)
            whole, trailers = self._chunks.done, self._chunks.trailers
        else:
            parts.append(data[position:] if position else data)
        if whole:
            self._mode, self._chunks = "head", None
        part = parts[0] if len(parts) == 1 else b"".join(parts)
        if part or whole:
            self._http2.send(stream, part, whole=whole, trailers=trailers)

    def _read_head(self, stream: Stream, data: bytes) -> int:
        """Where a response's head ends, which is sent on; -1 where it has not ended yet."""
        position = 0
        while True:
            while position < len(data) and data[position] in b"\r\n":
                position += 1
            found = END(data, position + max(self._seen - 3, 0))
            if found is None:
                self._held = data[position:]
                self._seen = len(self._held)
                if self._seen > MAX_HEAD:
                    raise ValueError("a head that is too large")
                return -1
            self._seen = 0
            head = read_response_head(data[position : found.end()], to_head=stream.request.is_head)
            position = found.end()
            if head.status >= 200:
                break
            if head.status == 101:
                if not stream.request.websocket:
                    raise ValueError("another protocol, which nobody asked for")
                self._mode = "tunnel"
                fields, _ = response_fields(head, status=200)
                self._http2.respond(
                    stream, [field for field in fields if field[0] != b"sec-websocket-accept"], whole=False
                )
                return position
            self._http2.inform(stream, response_fields(head)[0])
        fields, self._last = response_fields(head)
        if head.length is None:
            self._mode, self._chunks = "chunked", Chunks()
        elif head.length < 0:
            self._mode = "endless"
        elif head.length:
            self._mode, self._left = "counted", head.length
        self._http2.respond(stream, fields, whole=head.length == 0)
        return position


class Http2:
    """A client's connection.

    Args:
        ends: its session.
        loop: the event loop.

    Attributes:
        ends: its session.
        peer: the connection itself, which is not read by this one's reasons.
    """

    __slots__ = (
        "_blocked",
        "_budget",
        "_busy",
        "_client_ended",
        "_closed",
        "_frames",
        "_heads",
        "_lanes",
        "_loop",
        "_resting",
        "_scheduled",
        "_streams",
        "_waiting",
        "ends",
        "peer",
    )

    live: Final = ()
    endless: Final = False
    unbounded: Final = False

    def __init__(self, ends: Http2Ends, loop: asyncio.AbstractEventLoop) -> None:
        self.ends = ends
        self.peer: Peer | None = None
        self._loop = loop
        config = H2Configuration(
            client_side=False,
            header_encoding=False,
            # A request that is none is refused by `read_request`, and is one stream's matter.
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._frames = frames = _Frames(config)
        frames.encoder = Encoder()  # type: ignore[assignment]
        frames.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            },
        )
        self._budget = Budget(perf_counter())
        self._streams: dict[int, Stream] = {}
        self._waiting: deque[Stream] = deque()
        """For a lane."""
        self._lanes: set[Lane] = set()
        self._resting: list[Lane] = []
        self._heads = 0
        self._blocked = False
        """Whether the client's connection takes no more."""
        self._busy = False
        """Whether what is to be sent goes together, at the end of what is read."""
        self._scheduled = False
        self._client_ended = False
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether no stream is open."""
        return not self._streams

    @property
    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has; the first while nothing has come."""
        frames = self._frames
        begun = not self._heads or frames.incoming_buffer._headers_buffer
        return self._heads if begun and not self._closed else None

    def start(self) -> None:
        """Say what is spoken here."""
        self._frames.initiate_connection()
        self._frames.increment_flow_control_window(CONNECTION_WINDOW - _FIRST_WINDOW)
        self.flush()

    def client_data(self, data: bytes) -> None:
        """The client has sent something."""
        if self._closed:
            return
        self._busy = True
        try:
            if not self._budget.read(data, perf_counter()):
                self._calm()
                return
            for event in self._frames.receive_data(data):
                self._take(event)
                if self._budget.spent:
                    self._calm()
                    return
            self._dispatch()
        except H2Error:
            self._end(None)  # of theirs; the library has put the reason into what is to be sent
        finally:
            self._busy = False
            self.flush()

    def client_ended(self) -> None:
        """The client will send no more."""
        self._client_ended = True
        if not self._streams:
            self._end()

    def closed(self) -> None:
        """The client's connection is closed."""
        self._end()
        self.ends = _NoEnds()
        self._frames._frame_dispatch_table.clear()  # which refers to its connection

    def server_ended(self) -> None:
        """Of no connection of this one."""

    def flush(self) -> None:
        """Send what is to be sent."""
        if self._busy:
            return
        data = self._frames.data_to_send()
        if data:
            self.ends.active = perf_counter()
            self.ends.send_client(data)

    # -- as the connection's peer, which is told how that gets on

    def pause(self, why: int) -> None:  # noqa: ARG002 - one reason
        """The client is behind: neither what it asks nor what it is answered is read, heads included."""
        self._blocked = True
        self.ends.hold_client(held=True)
        for lane in self._lanes:
            lane.burden()

    def resume(self, why: int) -> None:  # noqa: ARG002 - one reason
        """It has caught up."""
        self._blocked = False
        try:
            self._go_on()
            if not self._blocked:
                for lane in list(self._lanes):
                    if lane.waiting <= LOW:
                        lane.relieve()
                self.ends.hold_client(held=False)
                self._schedule()
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.ends.broken(e)

    # -- requests

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._request(event)
            case DataReceived():
                self._content(event)
            case StreamEnded():
                self._content_ended(event.stream_id)
            case TrailersReceived():
                self._trailers(event)
            case WindowUpdated():
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    self._push(stream)
                elif not event.stream_id:
                    self._go_on()
            case RemoteSettingsChanged():
                self._heads = self._heads or 1
                self._go_on()
            case StreamReset():
                self._budget.spend(_ON_RESET if not event.remote_reset else 0)
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    self._drop(stream)
            case ConnectionTerminated():
                self._end()

    def _request(self, event: RequestReceived) -> None:
        self._heads += 1
        number = event.stream_id
        assert number is not None
        assert event.headers is not None
        ended = event.stream_ended is not None
        fields: Any = event.headers
        try:
            request = read_request(fields, ended=ended)
        except MalformedError:
            self.ends.refused("match")
            self._budget.spend(_ON_RESET)
            self._reset(number, ErrorCodes.PROTOCOL_ERROR)
            return
        except HeadError as e:
            self.ends.refused("match")
            stream = Stream(number, Request(b"", False, False, False, False), ended=ended)
            self._streams[number] = stream
            self.give_up(stream, plain(e.status, str(e)))
            return
        if len(request.head) > _LONG_HEAD:
            self._budget.spend((len(request.head) - _LONG_HEAD) >> 10)
        self._streams[number] = stream = Stream(number, request, ended=ended)
        self._waiting.append(stream)

    def _content(self, event: DataReceived) -> None:
        number, size = event.stream_id, event.flow_controlled_length
        assert number is not None
        assert size is not None
        stream = self._streams.get(number)
        if stream is None:
            self._frames.acknowledge_received_data(size, number)
            return
        stream.unread += size
        data = event.data
        if data:
            if stream.request.chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            self._pass(stream, data)
        if stream.lane is not None and not stream.lane.pausing and stream.unread:
            self.took(stream)

    def _trailers(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            return
        fields: Any = event.headers
        try:
            end = last_chunk(fields)
        except MalformedError:
            self.ends.refused("match")
            self._budget.spend(_ON_RESET)
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        stream.ended = True
        if stream.request.chunked:
            self._pass(stream, end)

    def _content_ended(self, number: int | None) -> None:
        stream = self._streams.get(number or 0)
        if stream is None or stream.ended:
            return  # with its head, or with trailers
        stream.ended = True
        if stream.request.chunked:
            self._pass(stream, last_chunk())
        elif stream.request.websocket and stream.lane is not None:
            stream.lane.request_ended()

    def _pass(self, stream: Stream, data: bytes) -> None:
        if stream.lane is None:
            if not stream.whole:
                stream.held.append(data)
        else:
            stream.lane.request(data)

    def took(self, stream: Stream) -> None:
        """Let the client send as much again as has been passed on."""
        size, stream.unread = stream.unread, 0
        if size and not self._closed:
            with suppress(H2Error):
                self._frames.acknowledge_received_data(size, stream.id)

    def _dispatch(self) -> None:
        """Give streams to lanes."""
        self._scheduled = False
        while self._waiting and not (self._closed or self._blocked):
            if not self._resting:
                if len(self._lanes) >= MAX_LANES:
                    break
                lane = Lane(self._loop, self)
                self._lanes.add(lane)
                self.ends.exchange(lane)
            else:
                lane = self._resting.pop()
            stream = self._waiting.popleft()
            if self._streams.get(stream.id) is stream:
                lane.carry(stream)
            elif not lane.gone:
                self._resting.append(lane)

    def _schedule(self) -> None:
        """Do that soon, but not in the midst of what a relay does."""
        if self._waiting and not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._dispatch_now)

    def _dispatch_now(self) -> None:
        try:
            self._dispatch()
            self.flush()
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.ends.broken(e)

    def at_rest(self, lane: Lane) -> None:
        """A lane can carry another stream."""
        self._resting.append(lane)
        self._schedule()

    def gone(self, lane: Lane) -> None:
        """A lane can carry none any more."""
        self._lanes.discard(lane)
        if lane in self._resting:
            self._resting.remove(lane)
        self._schedule()

    def again(self, stream: Stream) -> None:
        """Have another lane carry a stream."""
        self._waiting.appendleft(stream)
        self._schedule()

    # -- responses

    def inform(self, stream: Stream, fields: Fields) -> None:
        """Send an interim response."""
        self._send_head(stream, fields, whole=False)

    def respond(self, stream: Stream, fields: Fields, *, whole: bool) -> None:
        """Send a response's head, which may be the whole of it."""
        stream.begun = True
        stream.whole = stream.over = whole
        self._send_head(stream, fields, whole=whole)
        if whole:
            self._finish(stream)

    def send(self, stream: Stream, data: bytes, *, whole: bool, trailers: Fields | None = None) -> None:
        """Send more of a response's body, as soon as the client has room for it."""
        if self._streams.get(stream.id) is not stream or stream.whole:
            return
        stream.whole = whole
        if trailers:
            stream.trailers = trailers
        if not stream.out:
            sent = self._put(stream, data)
            data = data[sent:] if sent else data
        stream.out += data
        if not stream.out:
            if whole:
                self._finish(stream)
        elif len(stream.out) > HIGH and stream.lane is not None:
            stream.lane.burden()

    def give_up(self, stream: Stream, answer: BlockResponse) -> None:
        """Answer for an origin that does not, or end a response that it has begun."""
        if stream.begun:
            self.reset(stream)
            return
        fields = [(b":status", b"%d" % answer.status)]
        fields += ((name.lower(), value) for name, value in answer.headers)
        self.respond(stream, fields, whole=not answer.body)
        if answer.body:
            self.send(stream, answer.body, whole=True)

    def reset(self, stream: Stream, why: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """End a stream in its midst."""
        if self._streams.get(stream.id) is stream:
            self._reset(stream.id, why)
            self._drop(stream)

    def _reset(self, number: int, why: ErrorCodes) -> None:
        if not self._closed:
            with suppress(H2Error):
                self._frames.reset_stream(number, why)

    def _send_head(self, stream: Stream, fields: Fields, *, whole: bool) -> None:
        if self._streams.get(stream.id) is not stream or self._closed:
            return
        try:
            self._frames.send_headers(stream.id, fields, end_stream=whole)
        except H2Error:
            self._drop(stream)

    def _put(self, stream: Stream, data: bytes | bytearray) -> int:
        """Send as much as the client has room for; how much that was."""
        frames = self._frames
        position, size, since = 0, len(data), 0
        try:
            while position < size and not (self._blocked or self._closed):
                window = frames.local_flow_control_window(stream.id)
                step = min(window, frames.max_outbound_frame_size, size - position)
                if step <= 0:
                    break
                last = stream.whole and not stream.trailers and position + step == size
                part = bytes(data[position : position + step])
                frames.send_data(stream.id, part, end_stream=last)
                stream.over = last
                # A client that opens its window by a few bytes at a time has to pay for that.
                self._budget.earn(_BY_DATA if step < window else step // _BYTES_FOR_ONE)
                position += step
                since += step
                if since >= HIGH:
                    since = 0
                    busy, self._busy = self._busy, False
                    self.flush()
                    self._busy = busy
        except H2Error:
            self._drop(stream)
            return size
        return position

    def _push(self, stream: Stream) -> None:
        """Send what waits of a stream."""
        if not stream.out:
            return
        sent = self._put(stream, stream.out)
        del stream.out[:sent]
        if not stream.out and stream.whole:
            self._finish(stream)
        elif len(stream.out) <= LOW and stream.lane is not None:
            stream.lane.relieve()

    def _go_on(self) -> None:
        """Send what waits of all, each in its turn."""
        for stream in [stream for stream in self._streams.values() if stream.out]:
            if self._blocked or self._closed:
                break
            self._push(stream)
            if stream.out and stream.id in self._streams:
                self._streams[stream.id] = self._streams.pop(stream.id)
        self.flush()

    def _finish(self, stream: Stream) -> None:
        """All of a response is sent but, perhaps, that this is all."""
        if self._streams.get(stream.id) is not stream or self._closed:
            return
        try:
            if not stream.over and stream.trailers:
                self._frames.send_headers(stream.id, stream.trailers, end_stream=True)
            elif not stream.over:
                self._frames.end_stream(stream.id)
        except H2Error:
            self._drop(stream)
            return
        self._budget.earn(_BY_RESPONSE)
        del self._streams[stream.id]
        self.took(stream)
        if not stream.ended:
            # The rest of its body is not wanted (RFC 9113 section 8.1).
            self._reset(stream.id, ErrorCodes.NO_ERROR)
        if stream.lane is not None:
            stream.lane.sent(reuse=stream.ended)
        self._rest()

    def _drop(self, stream: Stream) -> None:
        """A stream is no more."""
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
        stream.out.clear()
        stream.held.clear()
        self.took(stream)
        if stream.lane is not None:
            stream.lane.drop()
        self._rest()

    def _rest(self) -> None:
        if self._client_ended and not self._streams:
            self._end()

    # -- ends

    def _calm(self) -> None:
        """The client asks too much of us beside its requests."""
        self.ends.refused("match")
        self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _end(self, why: ErrorCodes | None = ErrorCodes.NO_ERROR) -> None:
        if self._closed:
            return
        if why is not None:
            with suppress(H2Error):
                self._frames.close_connection(why)
        self._closed = True
        self._busy = False
        self.flush()
        self._streams.clear()
        self._waiting.clear()
        self._resting.clear()
        lanes = list(self._lanes)
        self._lanes.clear()
        for lane in lanes:
            lane.drop()
        self.ends.close()
