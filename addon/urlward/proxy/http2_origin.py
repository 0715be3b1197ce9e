"""HTTP/2 with origins: a client's streams go over one connection, where the origin speaks it.

What a session sends into a lane is HTTP/1.1, judged as ever, and goes out as a stream; what answers that
comes back as HTTP/1.1. A lane has one stream. What the origin has not begun to process is retried.
"""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from urlward.proxy.connection import Connection
from urlward.proxy.head import MAX_HEAD
from urlward.proxy.http2_frames import (
    BY_MESSAGE,
    MAX_STREAMS,
    MAX_WAITING,
    OF_NEW,
    ON_REQUEST,
    Credit,
    Exchange,
    Multiplexed,
    Stream,
    StreamLane,
    Windows,
)
from urlward.proxy.http2_messages import MalformedError, read_response, request_fields
from urlward.proxy.poller import Share
from urlward.proxy.upstream import KEPT_FOR

LEAST_WINDOW: Final = 1 << 12
"""Bytes of a response's body that may be on their way, or wait here, however many there are."""

WINDOW: Final = 1 << 19
"""Bytes of the window of a stream that flows; origins are far away."""

CREDIT: Final = 1 << 19
"""Bytes that the windows of all streams of a client may have beyond the least."""

MAX_LANES: Final = 32
"""Connections to an origin that speaks HTTP/1.1, for one client's connection, streams beyond wait for one;
and sessions that rest until its next streams, for some seconds where they have no connection to keep."""

_MOST_AHEAD: Final = 2 * MAX_WAITING
"""Bytes that the origin has yet to take with which another stream begins; bodies alone are seldom as many."""

_FIRST_STREAMS: Final = 10
"""Streams that are begun before the origin has said how many it takes."""

_QUIET_FOR: Final = 5.0
"""Seconds of silence of a connection after which its origin is asked whether it is there, and in which it
has to say so."""


@dataclass(eq=False, slots=True)
class SharedOrigin:
    """The origin of all streams of a client's connection.

    One session finds out what it speaks, before the others connect.

    Attributes:
        client: that connection, until it is closed.
        http2: the connection to the origin, if there is one over which HTTP/2 is spoken.
        credit: that its connections share.
    """

    _loop: asyncio.AbstractEventLoop
    client: Multiplexed | None
    http2: "Http2Origin | None" = None
    credit: Credit = field(default_factory=lambda: Credit(CREDIT))
    _asking: Exchange | None = None
    _known: bool = False
    """Whether each session connects for itself."""
    _waiting: list[Exchange] = field(default_factory=list)
    _connections: set["Http2Origin"] = field(default_factory=set)
    """Those over which HTTP/2 is spoken, also the ones that take no more streams."""

    @property
    def address(self) -> str:
        """The IP address that the streams go to, empty where there is no connection for them."""
        return self.http2.address if self.http2 is not None else ""

    @property
    def room(self) -> int:
        """How many sessions there may be."""
        return MAX_STREAMS if self.http2 is not None else MAX_LANES

    def lane(self, session: Exchange, *, surely: bool) -> "OriginLane | None":
        """A lane for a session, where the origin speaks HTTP/2 and takes another stream.

        Args:
            session: it.
            surely: whether its request cannot be sent twice, and waits until the origin has been heard.
        """
        if self.http2 is None or not self.http2.free or (not self.http2.answers() and surely):
            return None
        return self.http2.lane(session)

    def waits(self, session: Exchange) -> bool:
        """Whether a session has to wait until its `connect` is called again; else it has to connect."""
        if self.http2 is None:
            if self._known:
                return False
            if self._asking is None:
                self._asking = session
                return False
        self._waiting.append(session)
        return True

    def adopt(self, connection: Connection, session: Exchange) -> "OriginLane":
        """Take over a connection over which HTTP/2 is spoken."""
        if self.http2 is not None:
            self.http2.close()
        self.http2 = http2 = Http2Origin(connection, self, self._loop, session.share)
        self._connections.add(http2)
        http2.hold(held=self.client is not None and self.client.blocked)
        lane = http2.lane(session)
        lane.tls = connection.tls  # by which one lane has its ticket kept
        http2.start()
        self._known = False
        self.leave(session)
        return lane

    def leave(self, session: Exchange) -> None:
        """A session no longer waits here."""
        if session is self._asking:
            self._asking = None
            self._known = self.http2 is None
            self._loop.call_soon(self._go_on)  # there may be room for more sessions
        elif session in self._waiting:
            self._waiting.remove(session)

    def left(self, http2: "Http2Origin") -> None:
        """A connection takes no more streams."""
        if self.http2 is http2:
            self.http2 = None
            self.wake()

    def wake(self) -> None:
        """Wake sessions that wait, since there may be room."""
        if self._waiting:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting and (self.http2 is None or self.http2.free):
            session = waiting.pop(0)
            try:
                session.connect()
            except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
                session.broken(e)
        self._waiting += waiting
        if self.client is not None:
            self.client.dispatch()

    def hold(self, *, held: bool) -> None:
        """Read nothing over HTTP/2, or go on."""
        for http2 in self._connections:
            http2.hold(held=held)

    def over(self, http2: "Http2Origin") -> None:
        """A connection is closed."""
        self._connections.discard(http2)
        self.left(http2)

    def touch(self, now: float) -> None:
        """Check time limits."""
        if self.http2 is not None:
            self.http2.touch(now)

    def close(self) -> None:
        """The client's connection is closed."""
        self.client = None
        if self.http2 is not None:
            self.http2.close()


@dataclass(eq=False, slots=True)
class _Stream(Stream):
    """Stream to an origin.

    Attributes:
        to_head: whether a HEAD request.
    """

    lane: "OriginLane | None" = None
    to_head: bool = False


class OriginLane(StreamLane):
    """Lane to the origin: a stream that a session sees as a connection."""

    __slots__ = ()

    http2: "Http2Origin"
    peer: Any  # an `urlward.proxy.http2.Lane`

    def write(self, data: bytes) -> None:
        """Take a request from the session."""
        if self.gone:
            return
        position = 0
        if self.stream is None:
            position = data.index(b"\r\n\r\n") + 4
            fields, length = request_fields(data[:position])
            if not self.http2.ask(self, fields, whole=length == 0):
                return
            self.expect_body(length)
        if position < len(data) and not self.stream.whole:
            self.send_body(data, position)
        self.http2.flush()

    def end(self) -> None:
        """Do nothing: a request itself says where it ends."""

    def reset(self, *, as_tls: bool = False) -> None:  # noqa: ARG002
        """Abort the request under way."""
        if not self.gone:
            self.gone = True
            self.http2.gone(self)
            self._leave()

    close = abort = reset

    @property
    def repeatable(self) -> bool:
        """Whether its request may be sent twice."""
        return self.peer is not None and bool(self.peer.repeatable)

    def fail(self, why: int | None, *, unprocessed: bool = False) -> None:
        """Report to the client's side how the stream has ended, as `urlward.proxy.http2.Lane.failed`."""
        self.part()
        if self.peer is not None:
            self.peer.failed(why, unprocessed=unprocessed)


class Http2Origin(Multiplexed):
    """HTTP/2 connection to an origin.

    Args:
        connection: it.
        shared: has it.
        loop: the event loop.
        share: the client's.

    Attributes:
        active: as `urlward.proxy.connection.Owner`.
        share: as `urlward.proxy.connection.Owner`.
    """

    __slots__ = (
        "_asked", "_connection", "_heard", "_lanes", "_most", "_retired", "_shared", "_since", "_told",
        "active", "share",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, shared: SharedOrigin, loop: asyncio.AbstractEventLoop, share: Share
    ) -> None:
        settings: dict[Any, int] = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
        }
        windows = Windows(LEAST_WINDOW, WINDOW, shared.credit)
        super().__init__(loop, client_side=True, settings=settings, windows=windows)
        self._connection = connection
        self._shared = shared
        self.share = share
        self._retired = False
        """Whether no more streams begin."""
        self._lanes: set[OriginLane] = set()
        self._most = _FIRST_STREAMS
        self._told = False
        """Whether the origin has said how many it takes."""
        self.active = self._heard = perf_counter()
        self._since = 0.0
        self._asked = 0.0
        """When the origin was asked whether it is there, 0 where it was not since it has said so."""
        connection.belong(self)
        connection.probe()
        connection.receive, connection.ended = self.read, self._ended
        connection.peer, self.peer = self, connection

    @property
    def address(self) -> str:
        """The origin's IP address."""
        return self._connection.address

    @property
    def free(self) -> bool:
        """Whether another stream may begin: of what is not taken, heads stay although clients give them up.
        Behind a few they go: there is always some of an upload that is faster than the origin takes it."""
        return len(self._lanes) < self._most and self._connection.waiting <= _MOST_AHEAD

    def lane(self, session: Exchange) -> OriginLane:
        """A lane for a session."""
        lane = OriginLane(self, session)
        lane.address = self.address
        self._lanes.add(lane)
        return lane

    def answers(self) -> bool:
        """Whether the origin has sent its limit of streams, and anything of late; else it is sent a PING."""
        if not self._told:
            return False
        now = perf_counter()
        if now - max(self.active, self._heard) < _QUIET_FOR:
            return True
        if not self._asked and not self._closed:
            self._asked = now
            self._frames.ping(b"urlward?")
            self.flush()
        return False

    def ask(self, lane: OriginLane, fields: Any, *, whole: bool) -> bool:
        """Start the stream of a lane; returns whether that was possible."""
        frames = self._frames
        try:
            number = frames.get_next_available_stream_id()
            frames.ask(number, fields, whole=whole)
        except H2Error:
            self.close()  # it has no numbers left, or takes fewer than it did
            lane.fail(ErrorCodes.REFUSED_STREAM, unprocessed=True)
            return False
        lane.stream = stream = _Stream(number, lane, to_head=fields[0][1] == b"HEAD")
        stream.whole = stream.over = whole
        self._streams[number] = stream
        self._widen(stream, OF_NEW)
        self._budget.earn(BY_MESSAGE)
        return True

    def gone(self, lane: OriginLane) -> None:
        """A lane is closed."""
        self._lanes.discard(lane)
        stream = lane.part()
        if stream is not None:
            under_way = self._remove(stream)
            self.took(stream)
            if under_way and not (stream.ended and stream.over):
                self.reset(stream.id, ErrorCodes.CANCEL)
            self.flush()
        self._shared.wake()
        self._rest()

    def touch(self, now: float) -> None:
        """Check time limits."""
        self._heard = max(self._heard, self.active)
        if self._heard > self._asked or self._held:
            self._asked = 0.0
        if self._asked and perf_counter() - self._asked >= _QUIET_FOR:
            self._silent()
        elif self._lanes or self.active:
            self.active, self._since = 0.0, now
        elif now - self._since >= (KEPT_FOR if self._most else _QUIET_FOR):
            # Of one that takes no stream at all, another may: those that wait connect anew.
            self._end()

    def _silent(self) -> None:
        """The origin does not answer a PING: further requests go over a new connection."""
        self._asked = 0.0
        self.close()
        for stream in list(self._streams.values()):
            # What cannot be asked again has a chance left.
            if not stream.begun and stream.lane is not None and stream.lane.repeatable:
                self.reset(stream.id, ErrorCodes.CANCEL)
                self._fail(stream, None)
        self.flush()

    def close(self) -> None:
        """Close the connection once it has no streams."""
        self._retired = True
        self._shared.left(self)
        self._rest()

    # -- as the connection's peer

    def resume(self, why: int) -> None:
        """The origin has caught up: send again, and begin what waits, though there is more to send."""
        super().resume(why)
        self._shared.wake()

    # -- as the owner of the connection

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        client = self._shared.client
        self._end(None)
        if client is not None:
            client.failed(error)

    failed = broken

    def lost(self, connection: Connection) -> None:
        """The connection is closed."""
        connection.forget()
        self.forget()

    def _ended(self) -> None:
        self._read_rest()
        self._end(None)

    # -- what comes

    def _take(self, event: events.Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is not None and not isinstance(event, events.WindowUpdated):
            self._take_response(stream, event)
            return
        match event:
            case events.RemoteSettingsChanged():
                self._told = True
                self._most = min(MAX_STREAMS, self._frames.remote_settings.max_concurrent_streams)
                self._go_on()
                self._shared.wake()
            case events.PingAckReceived():
                self._heard, self._asked = perf_counter(), 0.0
                self._shared.wake()
            case events.ConnectionTerminated():
                self.close()
                for stream in [
                    each for each in self._streams.values() if each.id > (event.last_stream_id or 0)
                ]:
                    self._fail(stream, ErrorCodes.REFUSED_STREAM, unprocessed=True)
            case events.WindowUpdated():
                self._go_on(event.stream_id)
            case events.DataReceived():
                self._body(event)

    def _take_response(self, stream: _Stream, event: events.Event) -> None:
        assert stream.lane is not None
        # Known before its end is passed on, behind which the stream is given up.
        stream.ended = stream.ended or getattr(event, "stream_ended", None) is not None
        try:
            match event:
                case events.InformationalResponseReceived():
                    self._budget.earn(ON_REQUEST)  # the session bounds those
                    stream.lane.deliver(read_response(event.headers, to_head=True, ended=False)[0])
                case events.ResponseReceived():
                    ended = event.stream_ended is not None
                    head, stream.left = read_response(event.headers, to_head=stream.to_head, ended=ended)
                    stream.begun = True
                    stream.lane.deliver(head)
                case events.DataReceived() | events.TrailersReceived():
                    self._body(event)
                case events.StreamEnded():
                    self._body(event)
                    if stream.over:
                        self._answered(stream)
                case events.StreamReset():
                    # Only by that could its client know that it may ask again (RFC 9113 section 8.7).
                    refused = event.error_code == ErrorCodes.REFUSED_STREAM
                    why = event.error_code or (ErrorCodes.NO_ERROR if stream.begun else ErrorCodes.CANCEL)
                    self._fail(stream, why, unprocessed=refused)
        except MalformedError:
            stream.ended = False
            self.reset(stream.id, ErrorCodes.PROTOCOL_ERROR)
            self._fail(stream, ErrorCodes.PROTOCOL_ERROR)

    # -- ends

    def _rest(self) -> None:
        if self._retired and not self._lanes:
            self._end()

    def _fail(self, stream: _Stream, why: int | None, *, unprocessed: bool = False) -> None:
        """A stream has ended before its response was complete."""
        if stream.ended:
            # Its response is whole, whatever of the request is not wanted (RFC 9113 section 8.1).
            stream.whole = stream.over = True
            self._answered(stream)
            if stream.lane is not None:
                stream.lane.relieve()
            return
        self._remove(stream)
        self.took(stream)
        if stream.lane is not None:
            stream.lane.fail(why, unprocessed=unprocessed)

    def _drop(self, stream: _Stream) -> None:
        self._fail(stream, None)

    def _sent(self, stream: _Stream) -> None:
        if stream.ended:
            self._answered(stream)

    def _answered(self, stream: _Stream) -> None:
        """A stream is complete both ways; what its client has yet to take stays lent to it."""
        self._remove(stream)
        if not stream.unread:
            self.took(stream)

    def _other(self) -> Multiplexed | None:
        return self._shared.client

    def _write(self, data: bytes) -> None:
        self._connection.write(data)

    def _over(self, streams: list[_Stream]) -> None:
        self._shared.over(self)
        for stream in streams:
            self._fail(stream, None)
        self._connection.abandon()
