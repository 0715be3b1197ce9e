"""HTTP/2 messages (RFC 9113 section 8) translated to HTTP/1.1 and back.

Whatever a client puts into a field, it comes out as one request that all readers read alike, or not at all.
"""

import base64
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import hpack
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from urlward.proxy.framing import MAX_TRAILERS, Chunked
from urlward.proxy.head import MAX_HEAD, REPEATABLE, HeadError, ResponseHead, frames_to_some

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9a-z]+"
_NAME = re.compile(_TOKEN).fullmatch
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_TARGET = re.compile(rb"[^\0-\x20\x7f]+").fullmatch
_NOT_OF_A_VALUE = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z").search
_CONTROLS: Final = bytes((*range(9), *range(10, 32), 127))
_BREAK = re.compile(rb"[\0\r\n]").search
_STATUS = re.compile(rb"[1-9][0-9][0-9]").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch

_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_OF_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
"""Fields that HTTP/2 does not have (RFC 9113 section 8.2.2)."""

_NO_TRAILERS: Final = _OF_CONNECTION | {b"host", b"content-length", b"te", b"trailer"}
# Alt-Svc goes by the second name, too: `head.without_alternatives`.
_NOT_PASSED_ON: Final = _OF_CONNECTION | {b"alt-svc", b"xlt-svc"}
_REMEMBERED, _SHORT = 1 << 12, 64
"""Fields of which it is remembered what was made, and their bytes: long ones would fill the memory."""

_WITH_CONTENT: Final = frozenset({b"POST", b"PUT", b"PATCH"})

# RFC 9113 section 8.2.1; other controls are what no value of RFC 9110 has.
_MALFORMED: Final = frozenset({b"\0", b"\r", b"\n", b" ", b"\t"})

type Fields = list[tuple[bytes, bytes]]


class MalformedError(Exception):
    """A malformed HTTP/2 message (RFC 9113 section 8.1.1)."""


class Request(NamedTuple):
    """Head of an HTTP/2 request, written as HTTP/1.1.

    Attributes:
        head: as HTTP/1.1, to its empty line.
        is_head: whether its method is HEAD.
        chunked: whether its body is to be chunked, since it has no length.
        websocket: whether it asks for a WebSocket (RFC 8441).
        repeatable: whether it has no effect, nor a body, so that it may be sent twice.
        bodiless: whether there is nothing but the head of it.
        length: of its body, as it says; 0 where it says none.
    """

    head: bytes
    is_head: bool = False
    chunked: bool = False
    websocket: bool = False
    repeatable: bool = False
    bodiless: bool = False
    length: int = 0


@lru_cache(_REMEMBERED)
def _is_name(name: bytes) -> bool:
    """Whether a request may have a field of this name."""
    return name not in _OF_CONNECTION and _NAME(name) is not None


@lru_cache(_REMEMBERED)
def _response_name(name: bytes) -> bytes:
    """A response field's name as HTTP/2 has it, empty where it is not passed on."""
    name = name.lower()
    return b"" if name in _NOT_PASSED_ON or _NAME(name) is None else name


def _has_control(value: bytes) -> bool:
    """Whether a value has a control character other than a tab; a regular expression takes longer."""
    return len(value.translate(None, _CONTROLS)) != len(value)


def _not_of_a_value(value: bytes) -> bytes:
    """The first byte because of which this is none; empty where it is one."""
    if value.strip(b" \t") == value and not _has_control(value):
        return b""
    found = _NOT_OF_A_VALUE(value)
    assert found is not None
    return found[0]


def read_request(fields: Iterable[tuple[bytes, bytes]], *, ended: bool) -> Request:
    """Write a request's head as HTTP/1.1.

    Args:
        fields: of the head, names and values.
        ended: whether no body follows.

    Raises:
        MalformedError: it is none.
        HeadError: it is one that nobody here answers.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    cookies: list[bytes] = []
    host: bytes | None = None
    length: int | None = None
    regular = False
    for name, value in fields:
        odd = _not_of_a_value(value)
        if odd:
            if odd in _MALFORMED:
                raise MalformedError("a field's value with a line break, or with blanks around it")
            raise HeadError(400, "a control character in a field")
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO:
                raise MalformedError("a pseudo-field that is unknown, twice there, or behind others")
            pseudo[name] = value
            continue
        regular = True
        if not (_is_name if len(name) <= _SHORT else _is_name.__wrapped__)(name):
            raise MalformedError("a field that HTTP/2 does not have")
        match name:
            case b"cookie":
                cookies.append(value)
                continue
            case b"host":
                if host is not None:
                    raise MalformedError("more than one Host field")
                host = value
                continue
            case b"te":
                if value.lower() != b"trailers":
                    raise MalformedError("a TE other than trailers")
                lines.append(b"connection: TE\r\n")
            case b"content-length":
                if length is not None or not _LENGTH(value):
                    raise MalformedError("a Content-Length that is no number, or twice there")
                length = int(value)
            case b"sec-websocket-key" if b":protocol" in pseudo:
                continue  # HTTP/2 has none
        lines.append(b"%b: %b\r\n" % (name, value))
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD(method):
        raise MalformedError("no method")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT":
        if protocol is None:
            raise HeadError(405, "no proxy is asked for here")
    elif protocol is not None:
        raise MalformedError("a protocol for a request other than CONNECT")
    if not _TARGET(path) or not (path[:1] == b"/" or (path == b"*" and method == b"OPTIONS")):
        raise MalformedError("a path that is none")
    if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise MalformedError("a scheme that is none")
    authority = pseudo.get(b":authority", host)
    if not authority or not _TARGET(authority):
        raise MalformedError("no authority")
    if host is not None and host.lower() != authority.lower():
        raise MalformedError("a Host field other than the authority")
    if protocol not in (None, b"websocket"):
        raise HeadError(501, "a protocol that is not spoken here")
    if cookies:
        lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
    if ended and length:
        # The rest would be looked for in what follows (RFC 9113 section 8.1.1).
        raise MalformedError("a body that is too short")
    chunked = not (ended or length is not None or protocol)
    if protocol:
        key = base64.b64encode(os.urandom(16))
        lines.append(b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: %b\r\n" % key)
    elif chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length is None and method in _WITH_CONTENT:
        lines.append(b"content-length: 0\r\n")
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (
        b"GET" if protocol else method,
        path,
        authority,
        b"".join(lines),
    )
    if len(head) > MAX_HEAD:
        raise HeadError(431, "a head that is too large")
    repeatable = ended and method in REPEATABLE
    return Request(head, method == b"HEAD", chunked, bool(protocol), repeatable, ended, length or 0)


def chunk(data: bytes) -> bytes:
    """Data as a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(fields: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The end of a chunked body, with a request's trailers.

    Raises:
        MalformedError: they are none.
    """
    lines = []
    for name, value in fields:
        if not _is_name.__wrapped__(name) or _not_of_a_value(value):
            raise MalformedError("a trailer that HTTP/2 does not have")
        if name not in _NO_TRAILERS and not frames_to_some(name):
            lines.append(b"%b: %b\r\n" % (name, value))
    trailers = b"".join(lines)
    if len(trailers) > MAX_TRAILERS:
        raise MalformedError("trailers without end")
    return b"0\r\n%b\r\n" % trailers


def response_fields(head: ResponseHead, status: int = 0) -> tuple[Fields, bool]:
    """A response's head as HTTP/2 has it, and whether its connection is closed behind it; nothing is changed
    in what it gives.

    Args:
        head: it.
        status: in place of its own.
    """
    if head.translated is not None and not status:
        return head.translated
    fields = [(b":status", b"%d" % (status or head.status))]
    options: set[bytes] = set()
    length = b"%d" % head.length if head.length is not None and head.length > 0 else None
    for name, value in head.fields:
        known = (_response_name if len(name) <= _SHORT else _response_name.__wrapped__)(name)
        if known == b"content-length":
            # Once, and only where it is the body's (RFC 9112 section 6.3), or would be.
            if head.length == 0 and head.status >= 200 and head.status != 204:
                length = value.partition(b",")[0].strip(b" \t")
        elif known:
            if not _has_control(value):
                fields.append((known, value.strip(b" \t")))
        elif name.lower() == b"connection":
            options.update(option.strip(b" \t") for option in value.lower().split(b","))
    if length is not None and _LENGTH(length):
        fields.append((b"content-length", length))
    closes = b"close" in options or not (head.minor or b"keep-alive" in options)
    if options:
        fields = [field for field in fields if field[0] not in options]
    if not status:
        head.translated = fields, closes
    return fields, closes


def request_fields(head: bytes) -> tuple[Fields, int | None]:
    """The head of a request as HTTP/2 has it, and the length of its body, None where it is chunked.

    Args:
        head: as `read_request` writes it.
    """
    line, *lines = head[:-4].split(b"\r\n")
    method, path, _ = line.split(b" ")
    fields = [(b":method", method), (b":scheme", b"https"), (b":path", path)]
    length: int | None = 0
    for each in lines:
        name, _, value = each.partition(b": ")
        if name == b"host":
            fields.insert(2, (b":authority", value))
        elif name == b"transfer-encoding":
            length = None
        elif name != b"connection":
            fields.append((name, value))
            if name == b"content-length":
                length = int(value)
    return fields, length


def read_response(fields: Iterable[Any], *, to_head: bool, ended: bool) -> tuple[bytes, int | None]:
    """Write the head of an origin's response as HTTP/1.1.

    Args:
        fields: names and values.
        to_head: whether none has a body that answers this.
        ended: whether no body follows.

    Returns:
        The head, and the length of the body that follows; None where it is to be chunked.

    Raises:
        MalformedError: it is none.
    """
    status = 0
    length: int | None = None
    grpc = False
    lines: list[bytes] = []
    for name, value in fields:
        if name == b":status" and not (status or lines) and _STATUS(value):
            status = int(value)
        elif not _NAME(name) or _BREAK(value):
            raise MalformedError("a pseudo-field that is unknown, or a field that is none")
        elif name == b"content-length":
            if not _LENGTH(value) or length not in (None, int(value)):
                raise MalformedError("a Content-Length that is no number, or not the only one")
            length = int(value)
        elif name not in _OF_CONNECTION:
            grpc = grpc or (name == b"content-type" and value.startswith(b"application/grpc"))
            lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    if status < 200:
        if status in (0, 101) or ended:
            raise MalformedError("a status that is none, or an interim response and nothing behind it")
        return b"HTTP/1.1 %d \r\n%b\r\n" % (status, b"".join(lines)), 0
    left = length
    if to_head or status in (204, 304):
        left = 0
    elif ended:
        if length:
            raise MalformedError("a body that is too short")
        length = left = 0
    elif length is None or grpc:
        # With a length it could have no trailers.
        length = left = None
        lines.append(b"transfer-encoding: chunked\r\n")
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    return b"HTTP/1.1 %d \r\n%b\r\n" % (status, b"".join(lines)), left


class Chunks(Chunked):
    """A chunked body whose content and trailers are wanted.

    Attributes:
        trailers: that came behind it.
    """

    __slots__ = ("trailers",)

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.content: list[bytes] = []
        self.trailers: Fields = []

    def read_trailer(self, line: bytes) -> None:
        """Take a trailer, if HTTP/2 has it; each takes room beyond its bytes (RFC 9113 section 6.5.2)."""
        self._room -= 32
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t\r")
        if _NAME(name) and name not in _NO_TRAILERS and not _has_control(value):
            self.trailers.append((name, value))


_STATIC_FIELDS: Final = ((b"", b""), *HeaderTable.STATIC_TABLE)
"""By their indexes, which begin at 1 (RFC 7541, appendix A)."""
_ENCODER: Final = hpack.Encoder()


@lru_cache(_REMEMBERED)
def _encoded(name: bytes, value: bytes) -> bytes:
    """A field that is kept in no table (RFC 7541 section 6.2.3), or is in the static one."""
    return _ENCODER.add((name, value), sensitive=True)


class Encoder:
    """HPACK encoder (RFC 7541) without a dynamic table, in place of the library's.

    That searches its table field by field, as long as the client wants it, and costs more than all else of
    a response; without one there is nothing that a client could make grow, or learn from sizes.
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said = False

    @property
    def header_table_size(self) -> int:
        """Size of the dynamic table: 0."""
        return 0

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:  # noqa: ARG002 - the client's
        self._said = False

    def encode(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A block of fields; the first one says that there is no table (section 4.2)."""
        encoded = _encoded
        block = b"".join(
            [
                (encoded if len(name) + len(value) <= _SHORT else encoded.__wrapped__)(name, value)
                for name, value in headers
            ]
        )
        if not self._said:
            self._said = True
            block = b"\x20" + block
        return block


class Decoder(hpack.Decoder):
    """HPACK decoder (RFC 7541) that reads each byte of a block once.

    The library copies the rest of a block three times for each literal in it: 270 KB take it eight seconds.

    Attributes:
        size: bytes of the fields that were decoded last, as RFC 7541 section 4.1 counts them.
    """

    size = 0

    def decode(self, data: bytes, raw: bool = False) -> Fields:  # type: ignore[override]  # noqa: ARG002
        """The fields of a block, as bytes."""
        fields: Fields = []
        table, static, room, at = self.header_table, _STATIC_FIELDS, self.max_header_list_size, 0
        try:
            while at < len(data):
                first = data[at]
                if first & 0x80:
                    index, at = first & 0x7F, at + 1
                    if index == 0x7F:
                        index, at = _read_number(data, at - 1, 0x7F)
                    field = static[index] if 0 < index < len(static) else table.get_by_index(index)
                elif first & 0xE0 == 0x20:
                    size, at = _read_number(data, at, 0x1F)
                    if fields or size > self.max_allowed_table_size:
                        raise hpack.InvalidTableSizeError(
                            "a table that is too large, or a size behind fields"
                        )
                    self.header_table_size = size
                    room -= 32
                    if room < 0:
                        raise hpack.OversizedHeaderListError("sizes of a table without end")
                    continue
                else:
                    index, at = _read_number(data, at, 0x3F if first & 0x40 else 0x0F)
                    if not index:
                        name, at = _read_string(data, at)
                    else:
                        name = (static[index] if index < len(static) else table.get_by_index(index))[0]
                    value, at = _read_string(data, at)
                    field = name, value
                    if first & 0x40:
                        table.add(name, value)
                fields.append(field)
                room -= 32 + len(field[0]) + len(field[1])
                if room < 0:
                    raise hpack.OversizedHeaderListError("fields that are too large")
        except IndexError as e:
            raise hpack.HPACKDecodingError("a block that ends early") from e
        self._assert_valid_table_size()
        self.size = self.max_header_list_size - room
        return fields


def _read_number(data: bytes, at: int, most: int) -> tuple[int, int]:
    """An integer in the last bits of a byte and those behind it (RFC 7541 section 5.1), and where it ends."""
    number = data[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise hpack.HPACKDecodingError("a number that is too large")


def _read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string (RFC 7541 section 5.2), and where it ends."""
    first = data[at]
    size, at = first & 0x7F, at + 1
    if size == 0x7F:
        size, at = _read_number(data, at - 1, 0x7F)
    text = data[at : at + size]
    if len(text) < size:
        raise hpack.HPACKDecodingError("a string that ends early")
    if first & 0x80:
        text = _plain(text) if size <= _SHORT else _plain.__wrapped__(text)
    return text, at + size


_plain = lru_cache(_REMEMBERED)(decode_huffman)
"""Text in Huffman code (RFC 7541 section 5.2) decoded."""
