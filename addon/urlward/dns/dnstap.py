"""Server for dnstap: takes what resolvers tell of answers that they have sent, and steers the addresses in
those that concern the lists.

Each answer has left before, so a client may have connected: what it has opened ends (`DnsPolicy.follow`). One
worker takes the streams of all resolvers, since what they tell has to meet (`urlward.dns.resolved.Aliases`).

A stream is in Frame Streams: frames with four bytes of length before each; a length of zero says that a
control frame follows (https://farsightsec.github.io/fstrm/). Sender and receiver agree first: READY, ACCEPT,
START, and in the end STOP, FINISH. Each frame is a message in protocol buffers (https://dnstap.info,
``dnstap.proto``), of which a few fields count here.

Some resolvers find out that a connection has ended only by telling the next answer, which is lost. So a
worker that ends hands its connections over to the one that has taken its place: it connects to the socket as
a resolver does, and sends the connection's descriptor (SCM_RIGHTS, unix(7)) with what it has read of a frame.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, override

from urlward.dns.handling import Answers
from urlward.dns.hook import ResolverSocket
from urlward.dns.judge import Faults
from urlward.dns.resolved import Aliases
from urlward.dns.wire import HEADER, Scan, WireError, host_of, read_question, scan
from urlward.engine.errors import UrlwardError
from urlward.proxy.acceptor import Acceptor

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

    @property
    def untouched(self) -> bool:
        """Whether nothing has come yet."""
        return not self._accepted and not self._data

    def left(self) -> bytes:
        """What another stream needs to go on with what the sender says next."""
        return bytes((self._accepted, self.started)) + self._data

    @classmethod
    def resumed(cls, left: bytes) -> "FrameStream":
        """A stream that goes on where another has `left`."""
        made = cls()
        made._accepted, made.started, made._data = bool(left[0]), bool(left[1]), left[2:]
        return made

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


_PIECE = 4_096
"""Bytes that are read before something else has its turn: some 30 answers, which take 1 ms, or 5 where all
are of listed names or have long chains of aliases."""

_RESPONSE = 0x80

END_WITHIN = 2.0
"""Seconds for which a worker that ends waits until what it has read is steered."""

_PEER = struct.Struct("3i")
"""Process, user and group of a peer (SO_PEERCRED)."""

_MOST_LEFT = MOST_FRAME + 2 * _PIECE


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
        super().__init__()
        self._answers = answers
        self._aliases = aliases
        self._faults = faults
        self._count = count
        self._open: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Future[bool]] = set()
        """Set to True where there is something to read, and to False where this worker ends."""
        self._path = ""
        self._ending = False

    @property
    @override
    def connections(self) -> int:
        return len(self._open)

    @override
    async def serve(self, one: socket.socket) -> Acceptor:
        self._path = one.getsockname()
        return await super().serve(one)

    @override
    def take(self, sock: socket.socket, peername: tuple[Any, ...] = ()) -> None:
        self._start(sock, FrameStream())

    @override
    async def end(self) -> None:
        await super().end()
        self._ending = True
        for one in self._waiting:
            if not one.done():
                one.set_result(False)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_WITHIN)

    def _start(self, sock: socket.socket, stream: FrameStream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(sock, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, stream: FrameStream) -> None:
        self._open.add(sock)
        goes_on = False
        try:
            goes_on = await self._read_all(sock, stream) and self._hand_over(sock, stream)
        except OSError:
            pass  # it has gone
        except Exception as e:  # noqa: BLE001 - one resolver must not end what others tell
            self._faults.say(e, "a dnstap connection ends, and what the resolver had yet to tell is lost")
        finally:
            self._open.discard(sock)
            sock.close()
        if stream.started and not goes_on:
            logger.info("dnstap: a resolver has gone (%d connections)", self.connections)

    async def _read_all(self, sock: socket.socket, stream: FrameStream) -> bool:
        """Act on all that a resolver says.

        Returns:
            Whether there is more to come, and this worker ends.

        Raises:
            OSError: the connection is lost.
            UrlwardError: what is said is not to be read.
        """
        while not stream.ended:
            found = await self._received(sock)
            if found is None:
                return True
            data, fds = found
            if fds:
                await self._take_over(sock, stream, data, _given(fds[0]))
                return False
            if not data:
                return False
            before = stream.started
            await self._act(stream, data)
            if stream.started and not before:
                logger.info("dnstap: a resolver tells of its answers (%d connections)", self.connections)
            if stream.reply:
                reply, stream.reply = stream.reply, b""
                await asyncio.get_running_loop().sock_sendall(sock, reply)
        return False

    async def _received(self, sock: socket.socket) -> tuple[bytes, list[int]] | None:
        """Next bytes and descriptors; None where this worker ends.

        Raises:
            OSError: the connection is lost.
        """
        loop = asyncio.get_running_loop()
        while not self._ending:
            try:
                data, fds, _, _ = socket.recv_fds(sock, _PIECE, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                readable = loop.create_future()
                self._waiting.add(readable)
                loop.add_reader(sock, _tell, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(sock)
                    self._waiting.discard(readable)
            else:
                return data, fds
        return None

    def _hand_over(self, sock: socket.socket, stream: FrameStream) -> bool:
        """Give a connection to the worker that has taken this one's place; False where there is none."""
        left = stream.left()
        message = _NUMBER.pack(len(left)) + left
        try:
            with socket.socket(socket.AF_UNIX) as to:
                to.setblocking(False)
                to.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(message))
                to.connect(self._path)
                sent = socket.send_fds(to, [message], [sock.fileno()])
                while sent < len(message):
                    sent += to.send(message[sent:])
        except OSError:
            return False
        return True

    async def _take_over(
        self, sock: socket.socket, stream: FrameStream, data: bytes, given: socket.socket
    ) -> None:
        """Take the connection that the worker before hands over on another.

        Raises:
            OSError: that is lost.
            UrlwardError: it is no such worker, or hands over something else.
        """
        try:
            _, user, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            is_stream = (given.family, given.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
            if user != os.geteuid() or not stream.untouched or not is_stream:
                raise UrlwardError("a descriptor where none is expected")
            while len(data) < 4 or len(data) < 4 + _NUMBER.unpack_from(data)[0]:
                found = await self._received(sock)
                if found is None or not found[0] or found[1] or len(data) > _MOST_LEFT:
                    _close(found[1] if found else ())
                    raise UrlwardError("a connection is not handed over whole")
                data += found[0]
            if not 2 <= len(data) - 4 <= _MOST_LEFT:
                raise UrlwardError("a connection is not handed over whole")
            given.setblocking(False)
        except BaseException:
            given.close()
            raise
        self._start(given, FrameStream.resumed(data[4:]))

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


def _tell(readable: "asyncio.Future[bool]") -> None:
    if not readable.done():
        readable.set_result(True)


def _given(fd: int) -> socket.socket:
    """Connection of a descriptor.

    Raises:
        UrlwardError: it is none of a socket.
    """
    try:
        return socket.socket(fileno=fd)
    except OSError as e:
        os.close(fd)
        raise UrlwardError("a descriptor that is of no connection") from e


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _leads(read: Scan) -> bool:
    return bool(read.four or read.six or read.beside)
