"""Server for dnstap: takes what resolvers tell of answers that they have sent, and steers the addresses in
those that concern the lists.

Each answer has left before, so a client may have connected: what it has opened ends (`DnsPolicy.follow`). One
worker takes the streams of all resolvers, since what they tell has to meet (`urlward.dns.resolved.Aliases`).

A stream is in Frame Streams: frames with four bytes of length before each; a length of zero says that a
control frame follows (https://farsightsec.github.io/fstrm/). Sender and receiver agree first: READY, ACCEPT,
START, and in the end STOP, FINISH. Each frame is a message in protocol buffers (https://dnstap.info,
``dnstap.proto``), of which a few fields count here.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from urlward.dns.handling import Answers
from urlward.dns.hook import ResolverSocket
from urlward.dns.judge import Faults
from urlward.dns.resolved import Aliases
from urlward.dns.wire import HEADER, Scan, WireError, host_of, read_question, scan
from urlward.engine.errors import UrlwardError

logger = logging.getLogger("urlward.gateway")

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
_MOST_FIELDS = 64
"""Fields of a message, of which the format has fifteen: tens of thousands would keep others waiting."""


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
            UrlwardError: they are none, or not in their order.
        """
        data = self._data + data
        at, size = 0, len(data)
        while size >= at + 4:
            (length,) = _NUMBER.unpack_from(data, at)
            begin = at + 4
            if length:
                if not self.started or self.ended:
                    raise UrlwardError("a frame where none is expected")
                if length > MOST_FRAME:
                    raise UrlwardError(f"a frame of {length} bytes")
                if size < begin + length:
                    break
                yield data[begin : begin + length]
            else:
                if size < begin + 4:
                    break
                (length,) = _NUMBER.unpack_from(data, begin)
                if not 4 <= length <= _MOST_CONTROL:
                    raise UrlwardError(f"a control frame of {length} bytes")
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
                raise UrlwardError("a stream of something else than dnstap")
            self._accepted = True
            self.reply += _control(_ACCEPT, CONTENT_TYPE)
        elif kind == _START and self._accepted and not self.started:
            if _content_types(frame) != [CONTENT_TYPE]:
                raise UrlwardError("a stream of something else than dnstap")
            self.started = True
        elif kind == _START and not self._accepted:
            raise UrlwardError("a stream that begins without a handshake: have it be bidirectional")
        elif kind == _STOP and self.started and not self.ended:
            self.ended = True
            self.reply += _control(_FINISH)
        else:
            raise UrlwardError("a control frame where none is expected")


def _control(kind: int, content_type: bytes = b"") -> bytes:
    field = _PAIR.pack(_CONTENT_TYPE_FIELD, len(content_type)) + content_type if content_type else b""
    return _PAIR.pack(0, 4 + len(field)) + _NUMBER.pack(kind) + field


def _content_types(frame: bytes) -> list[bytes]:
    found, at = [], 4
    while at < len(frame):
        if len(frame) < at + 8:
            raise UrlwardError("a control frame that ends early")
        kind, length = _PAIR.unpack_from(frame, at)
        at += 8 + length
        if kind != _CONTENT_TYPE_FIELD or at > len(frame):
            raise UrlwardError("a control frame that ends early, or says what is not known")
        found.append(frame[at - length : at])
    return found


def read_tapped(frame: bytes) -> Tapped | None:
    """Read a frame; None for one that tells of no response, or of one to nobody here.

    Raises:
        UrlwardError: it cannot be read.
    """
    outer = _fields(frame, {15: _VARINT, 14: _BYTES})
    message = outer.get(14)
    if outer.get(15) != _MESSAGE or not isinstance(message, bytes):
        raise UrlwardError("a frame that has no message")
    inner = _fields(message, {1: _VARINT, 11: _BYTES, 14: _BYTES})
    kind = inner.get(1)
    if not isinstance(kind, int):
        raise UrlwardError("a message that says nothing of its kind")
    response, zone = inner.get(14), inner.get(11, b"")
    if kind not in _KINDS or not isinstance(response, bytes):
        return None
    return Tapped(kind, response, _zone(zone) if isinstance(zone, bytes) and kind != CLIENT_RESPONSE else "")


def _zone(name: bytes) -> str:
    try:
        return host_of(name) if name else ""
    except (WireError, IndexError) as e:
        raise UrlwardError("a zone that is no name") from e


def _fields(data: bytes, wanted: dict[int, int]) -> dict[int, int | bytes]:
    """Fields of a message in protocol buffers; of one that is there several times the last counts.

    Args:
        data: the message.
        wanted: wire types by the fields' numbers; others are passed over.

    Raises:
        UrlwardError: it cannot be read.
    """
    found: dict[int, int | bytes] = {}
    at, size, left = 0, len(data), _MOST_FIELDS
    value: int | bytes
    while at < size:
        if not left:
            raise UrlwardError("a message with too many fields")
        left -= 1
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
            raise UrlwardError("a field of a kind that is not known")
        if at > size or not number:
            raise UrlwardError("a field that ends early, or has no number")
        if number in wanted:
            if wire_type != wanted[number]:
                raise UrlwardError("a field of another kind than it has")
            found[number] = value
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and the offset behind it."""
    value = 0
    for shift, byte in enumerate(data[at : at + _MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise UrlwardError("a number that does not end")


_PIECE = 16_384
"""Bytes that are read before something else has its turn: some 100 answers, which take 3 ms."""

_RESPONSE = 0x80


class DnstapServer(ResolverSocket):
    """Server at a socket for dnstap.

    What a resolver sends is read as fast as it is acted on: the kernel and the resolver hold the rest, and
    the resolver drops what is too much.

    Args:
        answers: what becomes of them.
        aliases: puts the resolvers' own questions together.
        faults: are told what goes wrong.
        count: told of each response: ``passed``, ``steered`` or ``unread``.
    """

    def __init__(
        self,
        answers: Answers,
        aliases: Aliases,
        faults: Faults,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(self._protocol)
        self._answers = answers
        self._aliases = aliases
        self._faults = faults
        self._count = count

    def _protocol(self) -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(_PIECE), self._take)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened(writer.transport)
        stream = FrameStream()
        try:
            while not stream.ended and (data := await reader.read(_PIECE)):
                before = stream.started
                await self._act(stream, data)
                if stream.started and not before:
                    logger.info("dnstap: a resolver tells of its answers (%d connections)", self.connections)
                if stream.reply:
                    writer.write(stream.reply)
                    stream.reply = b""
        except OSError:
            pass  # it has gone
        except Exception as e:  # noqa: BLE001 - one resolver must not end what others tell
            self._faults.say(e, "a dnstap connection ends, and what the resolver had yet to tell is lost")
        finally:
            self.closed(writer.transport)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if stream.started:
            logger.info("dnstap: a resolver has gone (%d connections)", self.connections)

    async def _act(self, stream: FrameStream, data: bytes) -> None:
        """Act on what a resolver says.

        Raises:
            UrlwardError: that ends with what is not to be read.
        """
        work: list[Coroutine[Any, Any, None]] = []
        try:
            for frame in stream.feed(data):
                work += self._work(frame)
        finally:
            # Even what is there already is read only when others have had their turn.
            await asyncio.gather(asyncio.sleep(0), *work)

    def _work(self, frame: bytes) -> list[Coroutine[Any, Any, None]]:
        """What is to be done about a frame.

        Raises:
            UrlwardError: it cannot be read.
        """
        tapped = read_tapped(frame)
        if tapped is None:
            return []
        try:
            reads = self._read(tapped)
        except WireError as e:
            # Such as a listed name's servers can have sent it, and the resolver passed on.
            self._count("unread")
            self._faults.say(
                e, "an answer that dnstap tells of is not understood: its addresses are not steered"
            )
            return []
        listed = [read for read in reads if self._answers.look(read) and _leads(read)]
        self._count("steered" if listed else "passed")
        return [self._answers.follow(read) for read in listed]

    def _read(self, tapped: Tapped) -> list[Scan]:
        data = tapped.message
        if len(data) < HEADER or not data[2] & _RESPONSE or data[4:6] != b"\0\1":
            raise WireError
        question = read_question(data)
        read = scan(data, question)
        if tapped.kind == CLIENT_RESPONSE:
            return [self._aliases.told(read)]
        return self._aliases.take(read, tapped.zone)


def _leads(read: Scan) -> bool:
    return bool(read.four or read.six or read.beside)
