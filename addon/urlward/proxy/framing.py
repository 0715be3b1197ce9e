"""Body framing of HTTP/1 messages: where a body ends (RFC 9112 sections 6 and 7), and requests hidden in one.

A body is not read, only counted: `feed` is given what has arrived and says how far the body goes in it.
"""

import re
from collections.abc import Iterator
from typing import Final

from urlward.proxy.head import forwards_url

MAX_LINE: Final = 1 << 13
"""Bytes of a chunk's head."""

_LENIENT_LINE: Final = 1 << 15
"""Bytes of that in a response."""

MAX_TRAILERS: Final = 1 << 14
"""Bytes of all that stands behind a chunked body."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# RFC 9112 section 7.1.1, to the letter: an origin that takes no chunks could take the line for a request's.
_CHUNK = re.compile(
    rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r" % (_TOKEN, _TOKEN, _QUOTED)
).fullmatch
# Some servers pad the size with blanks, to its right or left.
_PADDED_CHUNK = re.compile(rb"[ \t]*0*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r").fullmatch
# curl and Firefox pass over whatever is behind it, and over a missing CR; Chromium over that, and extensions
# of up to 16 KiB. Firefox reads it as C does (strtoul).
_LENIENT_CHUNK = re.compile(
    rb"[\t\x0b-\r ]*\+?(?:0[xX](?=[0-9a-fA-F]))?0*([0-9a-fA-F]{1,15})(?:[^0-9a-fA-FxX][^\n]*)?"
).fullmatch
_EMPTY_LINES = re.compile(rb"(?:\r?\n)+").match
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

MAX_REQUEST_LINE: Final = 1 << 12
"""Bytes in which a request's line is looked for, but HTTP/0.9's."""

# What origins pass over before a request: line breaks and blanks, Python's too, if not NULs, which only make
# one doubtful.
PASSED_OVER = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0"
_BEFORE_ANY = b"\0" + PASSED_OVER
_CONTROLS = bytes([*range(0x21), *range(0x7F, 0xA1)])
"""What Netty passes over besides, which knows no HTTP/0.9. The lengths in binary formats are such."""
# Whoever reads a line up to a blank as a method takes any bytes for one; with NULs between, as in the lengths
# of binary protocols, only uWSGI, which reads on to a space, over the ends of lines too, and takes any words
# for a version.
_BLANK = rb"[\t\x0b-\r\x1c-\x20\x85\xa0]"  # RFC 9112 section 3 has CR among them
_TARGET = rb"(?:[/*\\%]|[A-Za-z][A-Za-z0-9+.-]*:)"
_LATE = re.compile(rb"[^\0\t-\r\x1c-\x20\x85\xa0]++%b++%b" % (_BLANK, _TARGET)).match
_TO_UWSGI = re.compile(rb"(?:[^ ]*+ )?%b[^ ]*+ [^\r]*+\r\n" % _TARGET).match
# Where that could be text, with all its fields, none of which is without a colon.
_HEAD_TO_UWSGI = re.compile(
    rb"(?:[^ ]*+ )?%b[^ ]*+ [^\r]*+\r\n(?:[^\r:]*+:[^\r]*+(?:\r\n[ \t][^\r]*+)*+\r\n)*+\r\n" % _TARGET
).match
_VERSION = b"HTTP/"
# A request line as a whole: no two of its repeats take the same bytes beside each other, since then the time
# for a line would grow faster than the line.
_LINE = rb"[^\0-\x20][^\0-\x20\x85\xa0]*+%b[^\n]*%b(?i:HTTP)/\d+\.\d+%b*+\n" % ((_BLANK,) * 3)
# Or HTTP/0.9's, which has a target of any form, or that in the next line to webfs; where prose may begin like
# that, only one that looks like it.
_GET = rb"[Gg][Ee][Tt]%b+" % _BLANK
_IN_CONTENT = re.compile(
    rb"^(?:%b|%b[^\0-\x20\x85\xa0]*+%b*+\n|%b%b)" % (_LINE, _GET, _BLANK, _GET, _TARGET), re.MULTILINE
)
_LINE_AT_ITS_BEGINNING = re.compile(_LINE).match
is_request_line = re.compile(_LINE).fullmatch
"""Whether a line with its end could be a request's, to an origin that takes any bytes for a method."""
_AT_ITS_BEGINNING = re.compile(rb"%b|%b%b" % (_LINE, _GET, _TARGET))
_WITHOUT_CONTENT = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
"""Methods that give content no meaning (RFC 9110 section 9.3); origins may leave it unread."""

_SEEN = 1 << 16
"""Bytes in which a request is looked for: Python's servers take a line of so many."""
_SHORT = 32
"""Bytes of a line in which HTTP/0.9's is looked for before it has ended."""


def is_heeded(trailer: bytes) -> bool:
    """Whether a trailer of a request, a line without its line feed, is more than that to some origin.

    Starman is done with a body at its last chunk, and takes `X: /a HTTP/1.1` for the next request. lighttpd
    1.4.80 gives programs trailers as fields, and so those by which they take another host or target.
    """
    name = trailer.partition(b":")[0]
    return bool(_OF_WEIGHT(trailer) or forwards_url(name) or is_request_line(trailer + b"\n"))


def _content_of(run: bytes) -> Iterator[bytes]:
    """What the chunks of a run of small ones hold."""
    position = 0
    while position < len(run):
        size = int(run[position : position + 1], 16)
        yield run[position + 3 : position + 3 + size]
        position += size + 5


class FramingError(ValueError):
    """A body that another reader could read differently."""


class Counted:
    """Body of a given length; one of 0 is done at once."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = not length

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body`."""
        here = len(data) - position
        if here < self.left:
            self.left -= here
            return len(data)
        self.done = True
        return position + self.left


class Unbounded:
    """Body that ends with its connection."""

    __slots__ = ()
    done = False

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body`."""
        return max(len(data), position)


class Chunked:
    """Body in chunked transfer coding.

    Args:
        lenient: whether a size may be any, with anything behind it, lines end without CR, or be empty, or be
            missing behind a chunk, and a trailer be named as any field, as some clients bear. For responses:
            nothing is judged by them, but for known files.

    Attributes:
        content: gets what the chunks hold, piece by piece; None where nobody reads it.
        begun: whether the first chunk has begun.
        odd: whether some clients would not bear it, or find its end elsewhere.
        unread: bytes of a line that has not ended.
    """

    __slots__ = (
        "_chunk", "_left", "_lenient", "_most", "_room", "_trailers", "begun", "content", "done", "odd",
        "unread",
    )  # fmt: skip

    def __init__(self, *, lenient: bool = False) -> None:
        self.begun = self.done = self.odd = False
        self.content: list[bytes] | None = None
        self._lenient = lenient
        self._chunk = _PADDED_CHUNK if lenient else _CHUNK
        self._most = _LENIENT_LINE if lenient else MAX_LINE
        # Bytes of data that are left in the chunk, and of the line break behind them.
        self._left = 0
        self.unread = b""
        self._trailers = False
        self._room = MAX_TRAILERS

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body`."""
        end = len(data)
        while position < end:
            if self._left > 2:
                step = min(self._left - 2, end - position)
                if self.content is not None:
                    self.content.append(data[position : position + step])
                position += step
                self._left -= step
            elif self._left:
                byte = data[position]
                if byte != (13 if self._left == 2 else 10):
                    self._bear("a chunk that is longer than its size")
                position += byte in b"\r\n"
                self._left = 1 if byte == 13 else 0
            else:
                if not self.unread and not self._trailers:
                    run = _SMALL_CHUNKS(data, position)
                    if run is not None:
                        self.begun = True
                        if self.content is not None:
                            self.content += _content_of(run[0])
                        position = run.end()
                        continue
                    if self._lenient and (empty := _EMPTY_LINES(data, position)):
                        self.odd, position = True, empty.end()
                        continue
                newline = data.find(b"\n", position)
                if newline < 0:
                    self._keep(data[position:])
                    return end
                line = data[position:newline]
                if self.unread:
                    line, self.unread = self.unread + line, b""
                position = newline + 1
                if self._lenient and line[-1:] != b"\r":
                    self.odd = True
                    line += b"\r"
                if self._trailers:
                    if line == b"\r":
                        self.done = True
                        return position
                    self._room -= len(line)
                    if self._room < 0:
                        raise FramingError("trailers without end")
                    self.read_trailer(line)
                else:
                    if self._lenient and line == b"\r":
                        self.odd = True
                        continue
                    match = self._chunk(line)
                    if match is None or len(line) > MAX_LINE:
                        self._bear("a chunk without a size")
                        match = _LENIENT_CHUNK(line)
                        if match is None:
                            raise FramingError("a chunk without a size")
                    self.begun = True
                    size = int(match[1], 16)
                    if size >> _MOST_BITS and not self._lenient:
                        raise FramingError("a chunk whose size not all can count")
                    if size:
                        self._left = size + 2
                    else:
                        self._trailers = True
        return position

    def _bear(self, what: str) -> None:
        """Note what only some clients bear.

        Raises:
            FramingError: it is not to be borne.
        """
        if not self._lenient:
            raise FramingError(what)
        self.odd = True

    def _keep(self, part: bytes) -> None:
        self.unread += part
        if len(self.unread) > self._most:
            raise FramingError("a chunk's head or a trailer without end")

    def read_trailer(self, line: bytes) -> None:
        """Take a trailer, a line without its line feed."""
        if _TRAILER(line) is None:
            raise FramingError("trailers that are none")
        if not self._lenient and is_heeded(line):
            raise FramingError("a trailer that another reader heeds")


type Body = Counted | Unbounded | Chunked | Unread
"""Body that is being received. It is fed what has arrived, with the position in that where it goes on, and
gives where it ends there, or the end of the data; FramingError where that cannot be told. Then it is done."""


class Unread:
    """A body that its origin may leave unread, and take for further requests.

    Args:
        body: it.
        method: of the request.
    """

    __slots__ = ("_body", "_late")

    def __init__(self, body: Body, method: bytes) -> None:
        self._body = body
        self._late = LateRequest(method, chunked=isinstance(body, Chunked))

    @property
    def done(self) -> bool:
        """Whether the whole body has been received."""
        return self._body.done

    def feed(self, data: bytes, position: int) -> int:
        """Count what has arrived; see `Body`."""
        end = self._body.feed(data, position)
        if not self._late.done and self._late.found(data[position:end]):
            raise FramingError("a request in the content of another")
        return end


class LateRequest:
    """Detector of an HTTP request in relayed bytes that an origin could find at their beginning.

    Args:
        method: of the request whose content they are: there are origins that leave it unread, and then read
            it as the next request. Where that gives content a meaning (RFC 9110 section 9.3), only the first
            line counts, which is where such an origin would begin, since it may quote requests further on, as
            a batch of them does. None where they are what is neither HTTP nor TLS.
        chunked: whether content is in chunks, of which uWSGI knows nothing: a method may be `28\\r\\nPUT`.
    """

    __slots__ = ("_chunked", "_content", "_controls", "_first", "_held", "done")

    done: bool
    """Whether so much has come that no origin would look for a request any more."""

    def __init__(self, method: bytes | None = None, *, chunked: bool = False) -> None:
        self.done = False
        self._content = method is not None
        self._controls = False
        self._chunked = chunked
        self._first = self._content and method not in _WITHOUT_CONTENT
        self._held = bytearray()

    def found(self, data: bytes) -> bool:
        """Whether the new bytes complete a request with the ones before."""
        if self.done:
            return False
        held = self._held
        if not held:
            data = data.lstrip(_BEFORE_ANY)
            if self._content and data[:1] and data[0] in _CONTROLS:
                data = data.lstrip(_CONTROLS)
                self._controls = True
        seen = len(held)
        held += data[: _SEEN - seen]
        ended = b"\n" in data  # without that, no expression of a whole line finds more than before
        if self._content:
            start = held.rfind(b"\n", 0, seen) + 1
            look = _IN_CONTENT.search
            if self._first:
                look = _LINE_AT_ITS_BEGINNING if self._controls else _AT_ITS_BEGINNING.match
            past = self._first and start > 0
            found = not past and (ended or seen - start < _SHORT) and look(held, start) is not None
            # What comes byte by byte is not to be read as a whole for each of them.
            whole = self._chunked and held.find(b"\r\n\r\n", max(seen - 3, 0)) >= 0
            found = found or (whole and _HEAD_TO_UWSGI(held) is not None)
        else:
            found = (
                held.find(_VERSION, max(seen - len(_VERSION), 0), MAX_REQUEST_LINE) >= 0
                or _LATE(held) is not None
                or (ended and _TO_UWSGI(held) is not None)
            )
        self.done = len(held) >= _SEEN or (self._first and not self._chunked and b"\n" in held)
        if self.done:
            held.clear()
        return found
