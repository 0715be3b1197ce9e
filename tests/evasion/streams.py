"""Sends rows of HTTP/2: frames made by hand, since no client would send what stands in them."""

import socket
import time
from contextlib import suppress

from h2.connection import H2Connection
from hpack import Decoder, Encoder
from hyperframe.exceptions import InvalidFrameError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from evasion.client import PATIENCE, Answer, Encrypted, open_connection, word
from evasion.lab import Lab, Way
from evasion.rows import StreamRow, Tls

SILENCE = 1.5
Fields = tuple[tuple[str, str], ...]


class Streams:
    """A client side of HTTP/2 that checks nothing."""

    def __init__(self, connection: Encrypted) -> None:
        self.connection = connection
        self.outcomes: dict[int, str] = {}
        self.ended: set[int] = set()
        self._encoder, self._decoder = Encoder(), Decoder()
        self._buffer = b""
        self._next = 1
        preface = H2Connection()
        preface.initiate_connection()
        connection.send(preface.data_to_send())

    def start(self, fields: Fields, body: bytes = b"", frames: str = "") -> int:
        """Send a request, and say on which stream."""
        stream, self._next = self._next, self._next + 2
        block = self._encoder.encode([(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields])
        first = HeadersFrame(stream, block)
        data = b""
        if not body:
            first.flags.add("END_STREAM")
        if frames == "padded":
            first.flags.add("PADDED")
            first.pad_length = 20
        if frames == "priority":
            first.flags.add("PRIORITY")
            first.depends_on, first.stream_weight, first.exclusive = 0, 15, False
        if frames == "continuation":
            pieces = [block[i : i + 7] for i in range(0, len(block), 7)]
            first.data = pieces[0]
            rest = [ContinuationFrame(stream, piece) for piece in pieces[1:]]
            rest[-1].flags.add("END_HEADERS")
            data = b"".join(frame.serialize() for frame in rest)
        else:
            first.flags.add("END_HEADERS")
        data = first.serialize() + data
        if body:
            data += DataFrame(stream, body, flags=["END_STREAM"]).serialize()
        if frames == "every":
            for i in range(len(data)):
                self.connection.send(data[i : i + 1])
                time.sleep(0.001)
        else:
            self.connection.send(data)
        return stream

    def until_ended(self, stream: int, answer: Answer, *, answered: bool) -> None:
        """Read until a stream or the connection is at its end.

        Args:
            stream: it.
            answer: takes what comes.
            answered: whether a response must come.
        """
        while stream not in self.ended and not answer.ended:
            due = answered and stream not in self.outcomes
            try:
                data = self.connection.receive(PATIENCE if due else SILENCE)
            except TimeoutError:
                answer.silent = True
                return
            answer.ended = not data
            answer.data += data
            self._buffer += data
            self._read(answer)

    def _read(self, answer: Answer) -> None:
        while len(self._buffer) >= 9:
            try:
                frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            except InvalidFrameError:
                answer.ended = True
                return
            if len(self._buffer) < 9 + length:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            self._take(frame, answer)

    def _take(self, frame: Frame, answer: Answer) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.connection.send(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, GoAwayFrame):
            answer.ended = True
        elif isinstance(frame, RstStreamFrame):
            self.ended.add(frame.stream_id)
        elif isinstance(frame, HeadersFrame):
            head = [(bytes(n), bytes(v)) for n, v in self._decoder.decode(frame.data, raw=True)]
            status = int(dict(head).get(b":status", b"0"))
            if status >= 200:
                self.outcomes[frame.stream_id] = word(status, repr(head).encode())
        if "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)


def exchange_streams(lab: Lab, way: Way, row: StreamRow) -> tuple[Answer, list[str]]:
    """Send a row, and say what came back and what became of each stream."""
    answer = Answer()
    outcomes: list[str] = []
    try:
        connection = open_connection(lab, way, Tls(sni=row.sni, alpn=("h2",)))
    except OSError as e:
        return Answer(ended=True, error=str(e)), outcomes
    assert isinstance(connection, Encrypted)
    try:
        if connection.tls.selected_alpn_protocol() != "h2":
            return Answer(error="HTTP/2 was not agreed on"), ["no HTTP/2"]
        streams = Streams(connection)
        for fields in filter(None, (row.before, row.fields)):
            last = fields is row.fields
            with suppress(ConnectionError, socket.timeout):
                stream = streams.start(fields, row.body if last else b"", row.frames if last else "")
            try:
                must = not last or row.expected in ("blocked", "served")
                if way.engine == "bare":
                    must = way.origin in row.bare
                streams.until_ended(stream, answer, answered=must)
            except OSError as e:
                answer.ended, answer.error = True, str(e)
            outcomes.append(streams.outcomes.get(stream, "refused"))
    finally:
        connection.close()
    return answer, outcomes
