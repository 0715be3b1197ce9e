"""Frame Streams, as a receiver reads them, and dnstap's messages in them.

A stream is of frames with four bytes of length before each; a length of zero says that a control frame
follows (https://farsightsec.github.io/fstrm/). Sender and receiver agree first: READY, ACCEPT, START, and in
the end STOP, FINISH. Each frame is a message in protocol buffers (https://dnstap.info, ``dnstap.proto``), of
which a few fields count here.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from urlward.dns.wire import WireError, host_of
from urlward.engine.errors import UrlwardError

CONTENT_TYPE = b"protobuf:dnstap.Dnstap"

MOST_FRAME = 3 << 16
"""Bytes of a frame: two DNS messages, and what is beside them."""

_MOST_CONTROL = 512
_ACCEPT, _START, _STOP, _READY, _FINISH = range(1, 6)
_CONTENT_TYPE_FIELD = 1
_NUMBER = struct.Struct(">I")
_PAIR = struct.Struct(">II")

RESOLVER_RESPONSE, CLIENT_RESPONSE, FORWARDER_RESPONSE = 4, 6, 8
"""Kinds of messages (``Message.Type``) that are answers of resolvers, or to them."""

_KINDS = frozenset((RESOLVER_RESPONSE, CLIENT_RESPONSE, FORWARDER_RESPONSE))
_MESSAGE = 1
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MOST_VARINT = 10


class DnstapError(UrlwardError):
    """A stream that is not what a resolver sends."""


class Tapped(NamedTuple):
    """Response that a resolver tells of.

    Attributes:
        kind: `CLIENT_RESPONSE`, as a client got it, or `RESOLVER_RESPONSE` or `FORWARDER_RESPONSE`, as the
            resolver did.
        message: in DNS wire format, as yet unread.
        zone: of the server that sent it to the resolver: it has no say on names that are not below; empty for
            the root, and where the resolver does not tell.
    """

    kind: int
    message: bytes
    zone: str


class FrameStream:
    """One sender's stream.

    Attributes:
        reply: bytes that are to be sent; the caller empties it.
        started: whether both sides have agreed.
        ended: whether the sender has said its last.
    """

    def __init__(self) -> None:
        self.reply = b""
        self.started = self.ended = False
        self._accepted = False
        self._data = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data frames that these bytes complete.

        Raises:
            DnstapError: they are none, or not in their order.
        """
        data = self._data + data
        at, size = 0, len(data)
        while size >= at + 4:
            (length,) = _NUMBER.unpack_from(data, at)
            begin = at + 4
            if length:
                if not self.started or self.ended:
                    raise DnstapError("a frame where none is expected")
                if length > MOST_FRAME:
                    raise DnstapError(f"a frame of {length} bytes")
                if size < begin + length:
                    break
                yield data[begin : begin + length]
            else:
                if size < begin + 4:
                    break
                (length,) = _NUMBER.unpack_from(data, begin)
                if not 4 <= length <= _MOST_CONTROL:
                    raise DnstapError(f"a control frame of {length} bytes")
                begin += 4
                if size < begin + length:
                    break
                self._control(data[begin : begin + length])
            at = begin + length
        self._data = data[at:]

    def _control(self, frame: bytes) -> None:
        (kind,) = _NUMBER.unpack_from(frame)
        if kind == _READY and not self._accepted:
            types = _content_types(frame)
            if types and CONTENT_TYPE not in types:
                raise DnstapError("a stream of something else than dnstap")
            self._accepted = True
            self.reply += _control(_ACCEPT, CONTENT_TYPE)
        elif kind == _START and self._accepted and not self.started:
            if _content_types(frame) != [CONTENT_TYPE]:
                raise DnstapError("a stream of something else than dnstap")
            self.started = True
        elif kind == _START and not self._accepted:
            raise DnstapError("a stream that begins without a handshake: have it be bidirectional")
        elif kind == _STOP and self.started and not self.ended:
            self.ended = True
            self.reply += _control(_FINISH)
        else:
            raise DnstapError("a control frame where none is expected")


def _control(kind: int, content_type: bytes = b"") -> bytes:
    field = _PAIR.pack(_CONTENT_TYPE_FIELD, len(content_type)) + content_type if content_type else b""
    return _PAIR.pack(0, 4 + len(field)) + _NUMBER.pack(kind) + field


def _content_types(frame: bytes) -> list[bytes]:
    found, at = [], 4
    while at < len(frame):
        if len(frame) < at + 8:
            raise DnstapError("a control frame that ends early")
        kind, length = _PAIR.unpack_from(frame, at)
        at += 8 + length
        if kind != _CONTENT_TYPE_FIELD or at > len(frame):
            raise DnstapError("a control frame that ends early, or says what is not known")
        found.append(frame[at - length : at])
    return found


def read_tapped(frame: bytes) -> Tapped | None:
    """Read a frame; None for one that tells of no response, or of one to nobody here.

    Raises:
        DnstapError: it cannot be read.
    """
    outer = _fields(frame, {15: _VARINT, 14: _BYTES})
    message = outer.get(14)
    if outer.get(15) != _MESSAGE or not isinstance(message, bytes):
        raise DnstapError("a frame that has no message")
    inner = _fields(message, {1: _VARINT, 11: _BYTES, 14: _BYTES})
    kind = inner.get(1)
    if not isinstance(kind, int):
        raise DnstapError("a message that says nothing of its kind")
    response, zone = inner.get(14), inner.get(11, b"")
    if kind not in _KINDS or not isinstance(response, bytes):
        return None
    return Tapped(kind, response, _zone(zone) if isinstance(zone, bytes) and kind != CLIENT_RESPONSE else "")


def _zone(name: bytes) -> str:
    try:
        return host_of(name) if name else ""
    except (WireError, IndexError) as e:
        raise DnstapError("a zone that is no name") from e


def _fields(data: bytes, wanted: dict[int, int]) -> dict[int, int | bytes]:
    """Fields of a message in protocol buffers; of one that is there several times the last counts.

    Args:
        data: the message.
        wanted: wire types by the fields' numbers; others are passed over.

    Raises:
        DnstapError: it cannot be read.
    """
    found: dict[int, int | bytes] = {}
    at, size = 0, len(data)
    value: int | bytes
    while at < size:
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, at - 1)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _BYTES:
            length, at = _varint(data, at)
            begin, at = at, at + length
            value = data[begin:at] if number in wanted else b""
        elif wire_type == _VARINT:
            value, at = _varint(data, at)
        elif wire_type in (_FOUR, _EIGHT):
            value = 0
            at += 4 if wire_type == _FOUR else 8
        else:
            raise DnstapError("a field of a kind that is not known")
        if at > size or not number:
            raise DnstapError("a field that ends early, or has no number")
        if number in wanted:
            if wire_type != wanted[number]:
                raise DnstapError("a field of another kind than it has")
            found[number] = value
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and the offset behind it."""
    value = 0
    for shift, byte in enumerate(data[at : at + _MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise DnstapError("a number that does not end")
