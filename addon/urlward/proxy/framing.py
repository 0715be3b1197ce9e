"""Body framing of HTTP/1 messages: where a body ends (RFC 9112 sections 6 and 7).

A body is not read, only counted: `feed` is given what has arrived and says how far the body goes in it.
"""

import re
from typing import Final, Protocol

from urlward.proxy.kind import LateRequest, is_request_line

MAX_LINE: Final = 1 << 13
"""Bytes of a chunk's head."""

MAX_TRAILERS: Final = 1 << 16
"""Bytes of all that stands behind a chunked body."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# RFC 9112 section 7.1.1, to the letter: an origin that takes no chunks could take the line for a request's.
_CHUNK = re.compile(
    rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r" % (_TOKEN, _TOKEN, _QUOTED)
).fullmatch
# Some servers pad the size with blanks, to its right or left.
_LENIENT_CHUNK = re.compile(rb"[ \t]*0*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r").fullmatch
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r").fullmatch
# What frames, addresses or switches a message is no trailer (RFC 9110 section 6.5.1), and origins that merge
# trailers into the head would heed it.
_OF_WEIGHT = re.compile(
    rb"(?i:connection|content[^:]length|expect|host|http2-settings|te|trailer|transfer[^:]encoding|upgrade):"
).match

_MOST_BITS: Final = 31
"""Bits of a chunk's size in a request: some origins count in so many, and overflow beyond."""


# Runs of chunks of up to 15 bytes, at one call: chunk by chunk they would cost a thousand times their size.
_SMALL_CHUNKS = re.compile(
    rb"(?:" + b"|".join(b"[%x%X]\\r\\n.{%d}\\r\\n" % (n, n, n) for n in range(1, 16)) + rb")+", re.DOTALL
).match


def is_heeded(trailer: bytes) -> bool:
    """Whether a trailer of a request, a line without its line feed, is more than that to some origin.

    Starman is done with a body at its last chunk, and takes `X: /a HTTP/1.1` for the next request.
    """
    return bool(_OF_WEIGHT(trailer) or is_request_line(trailer + b"\n"))


class FramingError(Exception):
    """A body that another reader could read differently."""


class Body(Protocol):
    """Message body that is being received."""

    @property
    def done(self) -> bool:
        """Whether the whole body has been received."""

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived.

        Args:
            data: what has arrived.
            position: where in it the body goes on.

        Returns:
            Where the body ends in it, or its length.

        Raises:
            FramingError: that cannot be told.
        """


class Counted:
    """Body of a given length, more than 0."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body.feed`."""
        here = len(data) - position
        if here < self._left:
            self._left -= here
            return len(data)
        self.done = True
        return position + self._left


class Unbounded:
    """Body that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body.feed`."""
        return max(len(data), position)


class Chunked:
    """Body in chunked transfer coding.

    Args:
        lenient: whether a size may be any, with blanks around it, and a trailer be named as any field. For
            responses: nothing is judged by them.
    """

    __slots__ = ("_chunk", "_left", "_lenient", "_line", "_room", "_trailers", "done")

    def __init__(self, *, lenient: bool = False) -> None:
        self.done = False
        self._lenient = lenient
        self._chunk = _LENIENT_CHUNK if lenient else _CHUNK
        # Bytes of data that are left in the chunk, and of the line break behind them.
        self._left = 0
        self._line = b""
        self._trailers = False
        self._room = MAX_TRAILERS

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body.feed`."""
        end = len(data)
        while position < end:
            if self._left > 2:
                step = min(self._left - 2, end - position)
                position += step
                self._left -= step
            elif self._left:
                if data[position] != (13 if self._left == 2 else 10):
                    raise FramingError("a chunk that is longer than its size")
                position += 1
                self._left -= 1
            else:
                if not self._line and not self._trailers:
                    run = _SMALL_CHUNKS(data, position)
                    if run is not None:
                        position = run.end()
                        continue
                newline = data.find(b"\n", position)
                if newline < 0:
                    self._keep(data[position:])
                    return end
                line = data[position:newline]
                if self._line:
                    line, self._line = self._line + line, b""
                position = newline + 1
                if self._trailers:
                    self._read_trailer(line)
                    if self.done:
                        return position
                else:
                    match = self._chunk(line)
                    if match is None or len(line) > MAX_LINE:
                        raise FramingError("a chunk without a size")
                    size = int(match[1], 16)
                    if size >> _MOST_BITS and not self._lenient:
                        raise FramingError("a chunk whose size not all can count")
                    if size:
                        self._left = size + 2
                    else:
                        self._trailers = True
        return position

    def _keep(self, part: bytes) -> None:
        self._line += part
        if len(self._line) > MAX_LINE:
            raise FramingError("a chunk's head or a trailer without end")

    def _read_trailer(self, line: bytes) -> None:
        if line == b"\r":
            self.done = True
            return
        self._room -= len(line)
        if self._room < 0 or _TRAILER(line) is None:
            raise FramingError("trailers that are none")
        if not self._lenient and is_heeded(line):
            raise FramingError("a trailer that another reader heeds")


class Empty:
    """Message without a body."""

    __slots__ = ()
    done = True

    def feed(self, data: bytes, position: int) -> int:  # noqa: ARG002
        """Count what has arrived; see `Body.feed`."""
        return position


class Unread:
    """A body that its origin may leave unread, and take for further requests.

    Args:
        body: it.
        method: of the request.
    """

    __slots__ = ("_body", "_late")

    def __init__(self, body: Body, method: bytes) -> None:
        self._body = body
        self._late = LateRequest.in_content(method, chunked=isinstance(body, Chunked))

    @property
    def done(self) -> bool:
        """Whether the whole body has been received."""
        return self._body.done

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body.feed`."""
        end = self._body.feed(data, position)
        if not self._late.done and self._late.found(data[position:end]):
            raise FramingError("a request in the content of another")
        return end
