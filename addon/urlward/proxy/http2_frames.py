"""Shared HTTP/2 core (RFC 9113), for connections with clients and with origins alike.

The h2 library reads frames, and keeps the states of streams. A stream's messages are HTTP/1.1 in a lane,
which is a connection of a session, without a socket (`urlward.proxy.session`). What the other side sends
beyond what its messages need is bounded by a budget (CVE-2019-9511 to 9518, CVE-2023-44487), and for how long
others wait by turns (`urlward.proxy.poller`).
"""

import asyncio
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol

import h2.stream
import hyperframe.frame
from h2.config import H2Configuration
from h2.connection import (
    AllowedStreamIDs,
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
    _decode_headers,
)
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PriorityUpdated,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import (
    DenialOfServiceError,
    FrameTooLargeError,
    H2Error,
    ProtocolError,
    StreamClosedError,
    TooManyStreamsError,
)
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2StreamStateMachine, StreamClosedBy, StreamInputs
from h2.utilities import is_informational_response
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PriorityFrame, WindowUpdateFrame

from urlward.proxy.connection import HELD, HIGH, LATER, LOW, Connection, Owner
from urlward.proxy.head import MAX_HEAD
from urlward.proxy.http2_messages import Chunks, Decoder, Encoder, Fields, MalformedError, chunk, last_chunk

MAX_STREAMS: Final = 100
"""Streams of a client."""

MAX_WAITING: Final = 1 << 18
"""Bytes that wait to be sent over all streams of a connection; of one, `HIGH` at most."""

MAX_BLOCK: Final = 4 * MAX_HEAD
"""Bytes of a head, in its frames and decoded, that are read, to keep the tables of HPACK in step. One of more
than `MAX_HEAD` is refused, which is one stream's matter."""

_LEAST_READ: Final = 1 << 13
"""Bytes that are read for a stream though `MAX_WAITING` wait."""

_FIRST_WINDOW: Final = (1 << 16) - 1
_MAX_FRAME: Final = 1 << 14
_LAST_STREAM: Final = (1 << 31) - 1
_CLOSED_STREAMS: Final = 1 << 11
_FORGOTTEN: Final = 16
"""New streams after which those that are closed are forgotten."""

_DATA, _HEADERS, _RST_STREAM, _WINDOW, _CONTINUATION = 0, 1, 3, 8, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 32
_SMALL: Final = 128
"""Bytes of a frame of data below which it costs more than it is worth."""

_MAX_CONTINUATIONS: Final = 60

# What is spent on frames of a kind.
ON_RESET: Final = 20
ON_REQUEST: Final = 5
_ON_CONTROL: Final = 10
_AT_FIRST, _AT_MOST, _PER_SECOND = 2_000.0, 10_000.0, 1_000.0
# What is earned by a message, and by a frame of data, or by how many bytes where a small window has cut it.
BY_MESSAGE: Final = 10
_BY_DATA, _BYTES_FOR_ONE = 20, 800

_SMALL_AT_MOST, _SMALL_PER_SECOND = 20_000.0, 10_000.0
"""Small frames of data that are read as fast as they come; of more, only some at a time."""

OF_NEW, _OF_FLOWING = 16, 4
"""Parts of the credit that is left which a stream gets at its beginning, and whenever it has flowed."""

_AT_ONCE: Final = 32
"""Frames that are read before a look at the clock."""

_OF_ONE: Final = 1 << 10
"""Bytes of decoded fields that count as a frame more: a few bytes can name long ones, many times."""

_REST: Final = 0.02
"""Seconds between two turns in which small frames are read."""


_WINDOW_UPDATE = struct.Struct(">5sII").pack
_FRAME_START = struct.Struct(">HBBBI")
_INFORMATIONAL: Final = StreamInputs.SEND_INFORMATIONAL_HEADERS

# The library writes each frame that comes out in full, for a log that nobody keeps; has flags in a set that
# checks whether they are known, which those that it has just read are; and looks steps up by enumerations,
# whose members Python hashes by their names.
Frame.__repr__ = object.__repr__  # type: ignore[method-assign]
_library: Any = hyperframe.frame
_library.Flags = lambda _: set()
for _each in (ConnectionState, ConnectionInputs, StreamInputs):
    _each.__hash__ = object.__hash__  # type: ignore[method-assign]


def _reset_stream_on_error(machine: Any, _: object) -> None:
    """Reset a stream as the library does, whose error refers to itself by a frame of its traceback: with the
    stream it would wait for the collector of garbage, which keeps others waiting."""
    machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
    raise _stream_closed(machine.stream_id)


def _stream_closed(number: int) -> StreamClosedError:
    error = StreamClosedError(number)
    reset = StreamReset(stream_id=number, error_code=ErrorCodes.STREAM_CLOSED, remote_reset=False)
    error._events = [reset]
    return error


_of_ours: dict[Any, Any] = {H2StreamStateMachine.reset_stream_on_error: _reset_stream_on_error}
_machines: tuple[Any, Any] = h2.stream, H2ConnectionStateMachine
for _machine in _machines:
    _machine._transitions = {
        step: (_of_ours.get(call, call), state) for step, (call, state) in _machine._transitions.items()
    }


def _frame(kind: int, flags: int, number: int, data: bytes) -> bytes:
    """A frame of a stream (RFC 9113 section 4.1)."""
    size = len(data)
    return _FRAME_START.pack(size >> 8, size & 0xFF, kind, flags, number) + data


class Exchange(Owner, Protocol):
    """Session of a lane: both its connections."""

    def connect(self) -> None:
        """Open a connection to the origin, or join one that is shared."""

    def close(self) -> None:
        """Close both connections, once all that was sent is out."""

    def cut(self) -> None:
        """Close both at once."""

    def rest(self) -> None:
        """A response is sent, and another request may follow."""

    def idle(self) -> bool:
        """Whether nothing is under way."""

    def takes_more(self, *, surely: bool) -> bool:
        """Whether another request may follow.

        Args:
            surely: whether that cannot be sent twice.
        """


class Credit:
    """Shared credit of bytes by which the windows of streams may be wider than the least.

    Attributes:
        size: all of them.
        left: those that are not lent.
    """

    __slots__ = ("left", "size")

    def __init__(self, size: int) -> None:
        self.size = self.left = size


class Windows(NamedTuple):
    """Flow-control limits: how much may be received that has yet to be passed on.

    All streams' windows together are no more than the connection's, so that streams which wait for their
    origin, or for their client, leave the others theirs.

    Attributes:
        least: bytes of any stream.
        most: of one that has flowed.
        credit: what the windows of streams may be wider.
    """

    least: int
    most: int
    credit: Credit


@dataclass(eq=False, slots=True)
class Budget:
    """Budget for HTTP/2 frames beyond what messages need.

    Args:
        now: the time, by `time.perf_counter`.

    Attributes:
        small: small frames of data that have been read since somebody asked.
    """

    _at: float
    small: int = 0
    _updates: int = 0
    """Updates of windows that cost nothing."""
    _left: float = _AT_FIRST
    _small: float = _SMALL_AT_MOST

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self._left < 0

    @property
    def behind(self) -> bool:
        """Whether more small frames of data have come than are to be read at once."""
        return self._small < 0

    def earn(self, amount: float) -> None:
        """Add to the budget."""
        self._left = min(self._left + amount, _AT_MOST)

    def allow(self, messages: int) -> None:
        """Allow window updates for some small messages, one for each."""
        self._updates = min(self._updates + messages, int(_SMALL_AT_MOST))

    def spend(self, amount: int) -> None:
        """Take from the budget."""
        self._left -= amount

    def pass_time(self, now: float) -> None:
        """Earn what the time brings."""
        self.earn((now - self._at) * _PER_SECOND)
        self._small = min(self._small + (now - self._at) * _SMALL_PER_SECOND, _SMALL_AT_MOST)
        self._at = now

    def read(self, frame: Frame) -> None:
        """Spend on a frame."""
        kind = frame.type
        if kind == _DATA:
            assert isinstance(frame, DataFrame)
            if len(frame.data) >= _SMALL:
                self.earn(len(frame.data) / _BYTES_FOR_ONE)
            elif "END_STREAM" not in frame.flags:
                if frame.data:
                    self._small -= 1
                    self.small += 1
                else:
                    self._left -= _ON_CONTROL
        elif kind == _HEADERS:
            self._left -= ON_REQUEST
        elif kind == _RST_STREAM:
            self._left -= ON_RESET
        elif kind == _WINDOW and self._updates:
            self._updates -= 1
        elif kind == _CONTINUATION:
            self._left -= _ON_CONTROL
        else:
            self._left -= _ON_CONTROL + (frame.body_len >> 4)


class _Buffer(FrameBuffer):
    """Buffer of received bytes; it gives out a bounded number of frames at a time, and window updates of 0,
    too."""

    budget: Budget
    given = 0

    def __next__(self) -> Frame:
        if self.given >= _AT_ONCE:
            raise StopIteration
        self.given += 1
        data = self._data
        size = int.from_bytes(data[:3])
        if size > _MAX_FRAME:
            raise FrameTooLargeError  # for the end of which nobody is to wait
        if len(data) >= 9 + size and data[3] <= _HEADERS and not self._headers_buffer:
            # Nearly every frame is a whole head, or data, and nothing but that: the library takes its time.
            _, _, kind, flags, number = _FRAME_START.unpack_from(data)
            number &= _LAST_STREAM
            if number and not flags & (_PADDED | _PRIORITY) and (kind == _DATA or flags & _END_HEADERS):
                frame = (HeadersFrame if kind else DataFrame)(number, bytes(data[9 : 9 + size]))
                if flags & _END_STREAM:
                    frame.flags.add("END_STREAM")
                del data[: 9 + size]
                self.budget.read(frame)
                return frame
        try:
            return super().__next__()
        except ProtocolError:
            head = bytes(self._data[:13])
            if self._headers_buffer or head[:4] != b"\0\0\4\x08" or any(head[9:]):
                raise
            del self._data[:13]
            update = WindowUpdateFrame(int.from_bytes(head[5:9]) & 0x7FFFFFFF, 0)
            self.budget.read(update)
            return update

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        assert f is not None
        self.budget.read(f)
        found = super()._update_header_buffer(f)
        block = self._headers_buffer
        if block and (len(block) > _MAX_CONTINUATIONS or sum(len(each.data) for each in block) > MAX_BLOCK):
            raise DenialOfServiceError("a head that is too large")
        return found


class _Configuration(H2Configuration):
    """The library's, without a function of its own for what it asks eight times a request."""

    client_side = True


class Frames(H2Connection):
    """The h2 library's connection, with bounded memory and reads in turns.

    It remembers of fewer streams how they ended, reads by turns, and lets the streams go on that GOAWAY does.
    """

    MAX_CLOSED_STREAMS = _CLOSED_STREAMS
    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_BLOCK
    incoming_buffer: _Buffer
    decoder: Decoder

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.incoming_buffer = _Buffer(server=not config.client_side)
        self.encoder = Encoder()  # type: ignore[assignment]
        self.decoder = Decoder(self.DEFAULT_MAX_HEADER_LIST_SIZE)
        self._begun = 0

    @property
    def more(self) -> bool:
        """Whether there may be more to read; resets the flag."""
        more = self.incoming_buffer.given >= _AT_ONCE
        self.incoming_buffer.given = 0
        return more

    def _open_streams(self, remainder: int) -> int:
        """How many streams are open, or a bound of that which is enough: the library looks at each of them,
        and forgets those that are closed, for each new one."""
        settings = self.remote_settings if self.config.client_side else self.local_settings
        self._begun += 1
        if self._begun % _FORGOTTEN and len(self.streams) < settings.max_concurrent_streams:
            return len(self.streams)
        return super()._open_streams(remainder)

    def expect_first_window(self) -> None:
        """Accept data within the default window until our settings are known (RFC 9113 section 6.9.2)."""
        known = self.local_settings._settings[SettingCodes.INITIAL_WINDOW_SIZE]
        known.appendleft(_FIRST_WINDOW)

    def settle_windows(self) -> None:
        """Send the window updates of streams that have used the default window, which has shrunk since."""
        for number, stream in self.streams.items():
            windows = stream._inbound_window_manager
            taken, windows._bytes_processed = windows._bytes_processed, 0
            if taken and stream.open:
                windows.current_window_size += taken
                self._data_to_send += _WINDOW_UPDATE(b"\0\0\4\x08\0", number, taken)

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        """Accept a head, or trailers, as the library does, without its look at the fields: a message that is
        none is refused by those who read it, and is one stream's matter. Where fields are many, or long, the
        clock is looked at sooner."""
        number, ended = frame.stream_id, "END_STREAM" in frame.flags
        stream = self.streams.get(number)
        if stream is None and self.open_inbound_streams >= self.local_settings.max_concurrent_streams:
            raise TooManyStreamsError("too many streams")
        fields: Any = _decode_headers(self.decoder, frame.data)
        self.incoming_buffer.given += self.decoder.size // _OF_ONE
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        if stream is None:
            theirs = AllowedStreamIDs.EVEN if self.config.client_side else AllowedStreamIDs.ODD
            if self.config.client_side and not number % 2:
                # It would need a promise (RFC 9113 section 8.4), which none may make here.
                raise ProtocolError("a stream that an origin begins")
            stream = self._begin_new_stream(number, theirs)
        machine, informs = stream.state_machine, is_informational_response(fields)
        events: list[Any] = machine.process_input(
            StreamInputs.RECV_INFORMATIONAL_HEADERS if informs else StreamInputs.RECV_HEADERS
        )
        head = events[0]
        if ended:
            events += machine.process_input(StreamInputs.RECV_END_STREAM)
            head.stream_ended = events[-1]
        if ended if informs else isinstance(head, TrailersReceived) and not ended:
            raise ProtocolError("a stream that ends with an interim response, or goes on behind trailers")
        head.headers = fields
        return [], events

    def _receive_data_frame(self, frame: DataFrame) -> tuple[list[Frame], list[Event]]:
        """Accept a frame for a window that has shrunk below 0; the library refuses even an empty one."""
        stream = self.streams.get(frame.stream_id) if not frame.flow_controlled_length else None
        if stream is None or stream._inbound_window_manager.current_window_size >= 0:
            return super()._receive_data_frame(frame)
        windows = stream._inbound_window_manager
        owed, windows.current_window_size = windows.current_window_size, 0
        found = super()._receive_data_frame(frame)
        windows.current_window_size += owed
        return found

    def took(self, number: int, size: int) -> None:
        """Open a stream's window by what was taken; as the library does, at a fifth of its cost."""
        more = self._inbound_flow_control_window_manager.process_bytes(size)
        if more:
            self._data_to_send += _WINDOW_UPDATE(b"\0\0\4\x08\0", 0, more)
        stream = self.streams.get(number)
        if stream is not None and stream.open:
            more = stream._inbound_window_manager.process_bytes(size)
            if more:
                self._data_to_send += _WINDOW_UPDATE(b"\0\0\4\x08\0", number, more)

    def widen(self, number: int, size: int) -> None:
        """Widen a stream's window before data is passed on; the library would only reopen it."""
        windows = self.streams[number]._inbound_window_manager
        windows.current_window_size += size
        windows.max_window_size += size
        self._data_to_send += _WINDOW_UPDATE(b"\0\0\4\x08\0", number, size)

    def head(self, number: int, fields: Fields, *, whole: bool) -> None:
        """Send a head, or trailers; as the library does, which takes its time to look at them."""
        machine = self._get_stream_by_id(number).state_machine
        informs = fields[0][0] == b":status" and fields[0][1].startswith(b"1")
        machine.process_input(_INFORMATIONAL if informs else StreamInputs.SEND_HEADERS)
        if whole:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        block, kind, flags = self.encoder.encode(fields), _HEADERS, _END_STREAM if whole else 0
        while block:
            part, block = block[:_MAX_FRAME], block[_MAX_FRAME:]
            self._data_to_send += _frame(kind, flags if block else flags | _END_HEADERS, number, part)
            kind, flags = _CONTINUATION, 0

    def ask(self, number: int, fields: Fields, *, whole: bool) -> None:
        """Begin a stream by the head of its request; as the library does, likewise.

        Raises:
            H2Error: the origin takes no more streams, or there are no numbers left.
        """
        if self.open_outbound_streams >= self.remote_settings.max_concurrent_streams:
            raise TooManyStreamsError("no more streams")
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        self._begin_new_stream(number, AllowedStreamIDs.ODD)
        self.head(number, fields, whole=whole)

    def content(self, number: int, data: bytes, *, last: bool) -> None:
        """Send data, for which there is room."""
        stream = self.streams[number]
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if last:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= len(data)
        self.outbound_flow_control_window -= len(data)
        self._data_to_send += _frame(_DATA, _END_STREAM if last else 0, number, data)

    def go_away(self, *, soon: bool) -> None:
        """Send GOAWAY: no more streams are taken, and those that exist go on (RFC 9113 section 6.8).

        Args:
            soon: whether those are still taken that are on their way.
        """
        last = _LAST_STREAM if soon else self.highest_inbound_stream_id
        self._prepare_for_sending([GoAwayFrame(last_stream_id=last)])

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> tuple[list[Frame], list[Event]]:
        """Ignore priorities (RFC 9113 section 5.3), even where a stream depends on itself."""
        event = PriorityUpdated()
        event.stream_id = frame.stream_id
        return [], [event]

    def _receive_window_update_frame(self, frame: WindowUpdateFrame) -> tuple[list[Frame], list[Event]]:
        """One of 0 is an error of its stream, where it has one (RFC 9113 section 6.9)."""
        if frame.window_increment:
            return super()._receive_window_update_frame(frame)
        if not frame.stream_id:
            raise ProtocolError("a window that is opened by nothing")
        if frame.stream_id not in self.streams:
            return [], []
        self.reset_stream(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)
        event = StreamReset(
            stream_id=frame.stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False
        )
        return [], [event]

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


@dataclass(eq=False, slots=True)
class Stream:
    """HTTP/2 stream: a request and its response.

    Attributes:
        id: its number.
        lane: that carries it.
        held: what comes before a lane has it.
        left: bytes that are to come of the body, None where it is to be chunked; `inf` for a tunnel.
        unread: bytes of what comes for which the sender has no room again yet.
        lent: bytes by which its window is wider than the least.
        ended: whether all of that has come.
        out: what waits to be sent.
        whole: whether there is no more of that.
        over: whether its end is sent.
        cut: whether its end is a reset that says nothing is wrong.
        trailers: behind it.
        begun: whether its response has.
    """

    id: int
    lane: "StreamLane | None" = None
    held: list[bytes] = field(default_factory=list)
    left: float | None = 0
    ended: bool = False
    unread: int = 0
    lent: int = 0
    out: bytearray = field(default_factory=bytearray)
    whole: bool = False
    over: bool = False
    cut: bool = False
    trailers: Fields = field(default_factory=list)
    begun: bool = False


class StreamLane(Connection):
    """Lane: a stream that a session sees as a connection, in place of a socket."""

    __slots__ = ("_chunks", "_exchange", "_left", "_mode", "http2", "stream")

    def __init__(self, http2: "Multiplexed", exchange: Exchange | None) -> None:
        self.begin(exchange)
        self.http2 = http2
        self.stream: Any = None
        self._exchange = exchange
        self._mode = "head"
        """What is written next: the ``head`` of a message, or a ``counted``, ``chunked`` or ``endless`` body;
        or what a ``tunnel`` has."""
        self._left = 0
        self._chunks: Chunks | None = None

    @property
    def has_address(self) -> bool:
        """Whether there is a way: its connection finds out, which asks (PING)."""
        return True

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        return len(self.stream.out) if self.stream is not None else 0

    @property
    def room(self) -> int:  # type: ignore[override]
        """Bytes that the other connection may read at once."""
        return max(self.http2.spare, _LEAST_READ)

    def deliver(self, data: bytes) -> None:
        """Pass received data to the session; the end of the message is not signalled."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.active = perf_counter()
        try:
            if data:
                self.receive(data)
            else:
                self.ended()
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged, or end other streams
            exchange.broken(e)

    def relieve(self) -> None:
        """Pending data has been sent."""
        if self.waiting <= min(LOW, self.http2.spare):
            self.fill(full=False)

    def part(self) -> Any:
        """Detach from the stream, which is returned."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.lane = None
        return stream

    def forget(self) -> None:
        """Drop all references once nothing more will arrive, or is of use."""
        super().forget()
        self._exchange = None

    def send_body(self, data: bytes, position: int) -> None:
        """Send what of a message's body has been written.

        Raises:
            ValueError: it is none.
        """
        part, whole = data[position:], False
        trailers: Fields = []
        if self._mode == "counted":
            part = part[: self._left]
            self._left -= len(part)
            whole = not self._left
        elif self._chunks is not None:
            self._chunks.feed(data, position)
            part, whole, trailers = b"".join(self._chunks.content), self._chunks.done, self._chunks.trailers
            self._chunks.content.clear()
        if whole:
            self._mode, self._chunks = "head", None
        if part or whole:
            self.http2.send(self.stream, part, whole=whole, trailers=trailers)

    def expect_body(self, length: int | None) -> None:
        """Set the framing of the body behind a head: a length, chunked (None), or until the end (-1)."""
        if length is None:
            self._mode, self._chunks = "chunked", Chunks()
        elif length < 0:
            self._mode = "endless"
        elif length:
            self._mode, self._left = "counted", length

    def _watch(self) -> None:
        if not self._paused and self.stream is not None and self.stream.unread:
            self.http2.took(self.stream)
            self.http2.flush()

    def _leave(self) -> None:
        """Tell the session that this lane is closed."""
        owner, self._owner = self._owner, None
        if owner is not None:
            self.http2._loop.call_soon(owner.lost, self)


def _joined(events: Iterable[Any]) -> Iterator[Event]:
    """The same events, with consecutive data of one stream merged."""
    for number, row in groupby(events, lambda event: isinstance(event, DataReceived) and event.stream_id):
        if not number:
            yield from row
            continue
        first, *rest = row
        if rest:
            first.data = b"".join([first.data, *(event.data for event in rest)])
            first.flow_controlled_length += sum(event.flow_controlled_length for event in rest)
            first.stream_ended = rest[-1].stream_ended
        yield first


class Multiplexed:
    """Base of a connection that speaks HTTP/2, with a client or with an origin.

    Args:
        loop: the event loop.
        client_side: whether the streams are begun here.
        settings: what is announced.
        windows: how much may come that is yet to be passed on.

    Attributes:
        blocked: whether the connection takes no more.
        peer: the connection itself, which is not read by this one's reasons; None before there is one, and
            when it is closed.
    """

    __slots__ = (
        "_budget", "_busy", "_closed", "_frames", "_held", "_loop", "_more", "_opened", "_streams", "_waits",
        "_windows", "blocked", "peer",
    )  # fmt: skip

    room: Final = 0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        client_side: bool,
        settings: dict[Any, int],
        windows: Windows,
    ) -> None:
        self.peer: Connection | None = None
        self.blocked = False
        self._loop = loop
        self._frames = frames = Frames(_Configuration(client_side=client_side))
        frames.local_settings = Settings(
            client=client_side, initial_values=settings | {SettingCodes.INITIAL_WINDOW_SIZE: windows.least}
        )
        self._budget = frames.incoming_buffer.budget = Budget(perf_counter())
        self._streams: dict[int, Any] = {}
        self._waits = 0
        """Bytes that wait to be sent."""
        self._windows = windows
        self._busy = False
        """Whether what is to be sent goes together, at the end of what is read."""
        self._closed = False
        self._held = False
        """Whether nothing is read."""
        self._more = False
        """Whether some of what has come is yet to be read."""
        self._opened = False
        """Whether the connection's window is what it is meant to be."""

    def start(self) -> None:
        """Send the preface and settings."""
        self._frames.initiate_connection()
        if self._frames.config.client_side:
            self._open_window()  # nothing comes before our settings are known
        else:
            self._frames.expect_first_window()
        self.flush()

    def read(self, data: bytes) -> None:
        """Process received bytes."""
        if self._closed:
            return
        self._busy = True
        frames, budget, other = self._frames, self._budget, self._other()
        if other is not None:
            other._busy = True
        try:
            budget.pass_time(perf_counter())
            more = True
            while more and not budget.spent:
                for event in _joined(frames.receive_data(data)):
                    self._take(event)
                more, data = frames.more, b""
                if self._held or self._turn_is_over():
                    break
            if other is not None:
                # Each may be a message, for which the other side opens its window (as gRPC does).
                other._budget.allow(budget.small)
            budget.small = 0
            if budget.spent:
                self._calm()
                return
            self._more = more
            self._settle()
            if (more or budget.behind) and self.peer is not None and not self._held:
                self.peer.pause(LATER)
                if budget.behind:
                    self._loop.call_later(_REST, self._read_on)
                else:
                    self.peer.later(self._read_on)
        except DenialOfServiceError:
            self._calm()
        except H2Error:
            self._end(None)  # of theirs; the library has put the reason into what is to be sent
        finally:
            self._busy = False
            self.flush()
            if other is not None:
                other._busy = False
                other.flush()

    def hold(self, *, held: bool) -> None:
        """Read no more, or go on: heads have no windows, and would wait here."""
        if held is self._held or self.peer is None:
            return
        self._held = held
        (self.peer.pause if held else self.peer.resume)(HELD)
        if self._more and not held:
            self.peer.later(self._read_on)

    def _read_on(self) -> None:
        if self.peer is not None:
            self.peer.resume(LATER)
        try:
            self.read(b"")
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.failed(e)

    def _read_rest(self) -> None:
        """The other side has ended: read what it has sent before, while that can be answered."""
        while self._more and not self._closed:
            self._more = False
            self.read(b"")

    def _turn_is_over(self) -> bool:
        return self.peer is not None and self.peer.turn_is_over

    def flush(self) -> None:
        """Send pending frames."""
        if self._busy:
            return
        data = self._frames.data_to_send()
        if data:
            self._write(data)

    def forget(self) -> None:
        """Drop references once the connection is closed."""
        self._end()
        self._frames._frame_dispatch_table.clear()  # which refers to its connection

    # -- as the connection's peer, which is told how that gets on

    def pause(self, why: int) -> None:  # noqa: ARG002 - one reason
        """The receiver is slow: stop sending."""
        self.blocked = True

    def resume(self, why: int) -> None:  # noqa: ARG002 - one reason
        """The receiver has caught up: send again."""
        self.blocked = False
        try:
            self._go_on()
            if not self.blocked:
                self._caught_up()
        except Exception as e:  # noqa: BLE001 - no fault of ours may leave it hanging
            self.failed(e)

    # -- streams

    @property
    def spare(self) -> int:
        """Bytes that may still be queued for sending."""
        return max(MAX_WAITING - self._waits, 0)

    def took(self, stream: Stream) -> None:
        """Open the window by what has been passed on, or more."""
        size, stream.unread = stream.unread, 0
        over = self._streams.get(stream.id) is not stream
        if over and stream.lent:
            self._windows.credit.left += stream.lent
            stream.lent = 0
        if not size or self._closed:
            return
        self._frames.took(stream.id, size)
        if not (over or stream.ended):
            self._widen(stream, _OF_FLOWING)

    def _body(self, event: Any) -> None:
        """Pass on what has come of a message's body: data, trailers, or its end.

        Raises:
            MalformedError: it is longer or shorter than was said, or has trailers that are none.
        """
        number = event.stream_id
        stream = self._streams.get(number)
        if isinstance(event, DataReceived):
            if stream is None:
                self._frames.took(number, event.flow_controlled_length)
                return
            stream.unread += event.flow_controlled_length
            if data := event.data:
                if stream.left is not None:
                    stream.left -= len(data)
                    if stream.left < 0:
                        raise MalformedError("a body that is too long")
                self._pass(stream, chunk(data) if stream.left is None else data)
            if stream.unread and stream.lane is not None and not stream.lane._paused:
                self.took(stream)
        elif stream is not None:
            stream.ended = True
            end = last_chunk(event.headers if isinstance(event, TrailersReceived) else ())
            if stream.left is None:
                stream.left = 0
                self._pass(stream, end)
            elif 0 < stream.left < inf:
                raise MalformedError("a body that is too short")

    def _pass(self, stream: Stream, data: bytes) -> None:
        if stream.lane is not None:
            stream.lane.deliver(data)
        elif not stream.whole:
            stream.held.append(data)

    def _open_window(self) -> None:
        """Let all streams together send as much as each by itself may.

        The library tells a sender of new room when that is half of the window.
        """
        if not self._opened:
            self._opened = True
            least, _, credit = self._windows
            window = 2 * (MAX_STREAMS * least + credit.size)
            self._frames.increment_flow_control_window(window - _FIRST_WINDOW)
            self._frames.settle_windows()

    def _widen(self, stream: Stream, part: int) -> None:
        """Let more of a stream come, by a part of what is left for all."""
        least, most, credit = self._windows
        more = min(most - least - stream.lent, credit.left // part)
        if more >= least and self._opened and stream.id in self._frames.streams:
            self._frames.widen(stream.id, more)
            credit.left -= more
            stream.lent += more

    def _remove(self, stream: Stream) -> bool:
        """Forget a stream; returns whether it was known."""
        if self._streams.get(stream.id) is not stream:
            return False
        del self._streams[stream.id]
        self._waits -= len(stream.out)
        stream.out.clear()
        return True

    def send(self, stream: Stream, data: bytes, *, whole: bool, trailers: Fields | None = None) -> None:
        """Send more of a message's body, as soon as there is room for it."""
        if self._streams.get(stream.id) is not stream or stream.whole:
            return
        stream.whole = whole
        if trailers:
            stream.trailers = trailers
        if not stream.out:
            sent = self._put(stream, data)
            data = data[sent:] if sent else data
        stream.out += data
        self._waits += len(data)
        if not stream.out:
            if whole:
                self._finish(stream)
        elif len(stream.out) > min(HIGH, self.spare) and stream.lane is not None:
            stream.lane.fill(full=True)

    def reset(self, number: int, why: int) -> None:
        """Reset a stream before it is complete."""
        if not self._closed:
            with suppress(H2Error):
                self._frames.reset_stream(number, why)

    def _put(self, stream: Stream, data: bytes | bytearray) -> int:
        """Send as much of a stream as there is room for; returns how many bytes."""
        frames = self._frames
        position, size, since = 0, len(data), 0
        try:
            while position < size and not (self.blocked or self._closed):
                window = frames.local_flow_control_window(stream.id)
                step = min(window, frames.max_outbound_frame_size, size - position)
                if step <= 0:
                    break
                last = stream.whole and not (stream.trailers or stream.cut) and position + step == size
                part = bytes(data[position : position + step])
                frames.content(stream.id, part, last=last)
                stream.over = last
                # Who opens a window by a few bytes at a time has to pay for that.
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
        """Send pending data of a stream."""
        sent = self._put(stream, stream.out)
        if self._streams.get(stream.id) is not stream:
            return
        del stream.out[:sent]
        self._waits -= sent
        if not stream.out and stream.whole:
            self._finish(stream)
        elif stream.lane is not None:
            stream.lane.relieve()

    def _go_on(self, number: int | None = None) -> None:
        """Send pending data of a stream, or of all, each in its turn."""
        streams = [self._streams.get(number)] if number else list(self._streams.values())
        for stream in streams:
            if stream is None or not stream.out:
                continue
            if self.blocked or self._closed:
                break
            self._push(stream)
            if stream.out and stream.id in self._streams:
                self._streams[stream.id] = self._streams.pop(stream.id)
        self.flush()

    def _finish(self, stream: Stream) -> None:
        """The whole of a message is sent, except perhaps its END_STREAM flag."""
        if self._streams.get(stream.id) is not stream or self._closed:
            return
        if stream.cut:
            self.reset(stream.id, ErrorCodes.NO_ERROR)
            self._drop(stream)
            return
        try:
            if not stream.over and stream.trailers:
                self._frames.head(stream.id, stream.trailers, whole=True)
            elif not stream.over:
                self._frames.end_stream(stream.id)
        except H2Error:
            self._drop(stream)
            return
        stream.over = True
        self._sent(stream)

    # -- ends

    def _calm(self) -> None:
        """The other side has exceeded its budget: close the connection with ENHANCE_YOUR_CALM."""
        self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _end(self, why: ErrorCodes | None = ErrorCodes.NO_ERROR) -> None:
        """Send GOAWAY with a reason, and close the connection with all its streams."""
        if self._closed:
            return
        if why is not None:
            with suppress(H2Error):
                self._frames.close_connection(why)
        self._closed = True
        self._busy = False
        self.flush()
        streams = list(self._streams.values())
        self._streams.clear()
        self._over(streams)

    # -- of those with clients, and with origins

    def _take(self, event: Event) -> None:
        """Handle one event of the library."""
        raise NotImplementedError

    def dispatch(self) -> None:
        """There may be room for streams that wait."""

    def _settle(self) -> None:
        """Called when all received bytes have been processed."""

    def _caught_up(self) -> None:
        """All that had to wait for the connection is sent."""

    def _other(self) -> "Multiplexed | None":
        """Connection that most of what arrives is relayed to; its data is sent together."""
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        """Write bytes to the connection."""
        raise NotImplementedError

    def _sent(self, stream: Any) -> None:
        """A message has been sent completely."""
        raise NotImplementedError

    def _drop(self, stream: Any) -> None:
        """Forget a stream that has ended."""
        raise NotImplementedError

    def _over(self, streams: list[Any]) -> None:
        """Close everything; returns the streams that were under way."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        raise NotImplementedError
