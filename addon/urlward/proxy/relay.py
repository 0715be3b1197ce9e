"""One client and its origin, relayed over HTTP/1: each request is judged at its head, the rest is counted.

Sans-IO: bytes and ends of connections come in through methods, and go out through `Ends`.
What passes is passed on as it came, but that no response names another way to its host. A request that
must not pass is answered in its turn, behind the responses to those before it, and nothing that follows
it is read.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from urlward.proxy.block_page import BlockResponse, on_wire, plain
from urlward.proxy.framing import Body, Chunked, Counted, FramingError, Unbounded, Unread
from urlward.proxy.head import (
    MAX_HEAD,
    HeadError,
    RequestHead,
    ResponseHead,
    could_be_head,
    head_end,
    is_chunked,
    read_request_head,
    read_response_head,
    unread_response_head,
    with_plain_framing,
    without_alternatives,
    without_upgrade,
)
from urlward.proxy.names import Names

if TYPE_CHECKING:
    from urlward.files.body import Inspection

LINGER: Final = 2.0
"""Seconds that a client's sending is read and dropped behind an answer."""


FRESH: Final = 2.0
"""Seconds after an answer in which what cannot be sent twice may follow it on its connection. Servers
close what is at rest for longer (gunicorn after 2, Apache and Node after 5), and a request may cross that."""


class Origin(NamedTuple):
    """Origin of a request: host, port, and whether TLS is spoken there.

    Attributes:
        host: name or address.
        port: its port.
        tls: whether TLS is spoken there.
    """

    host: str
    port: int
    tls: bool


NOWHERE: Final = Origin("", 0, False)


class Ends:
    """Client's and origin's connections, as a relay uses them; these are none, and nothing happens."""

    __slots__ = ()

    def send_client(self, data: bytes) -> None:
        """Send data to the client."""

    def send_server(self, data: bytes) -> None:
        """Send data to the origin."""

    def end_client(self) -> None:
        """Send the client no more, but go on reading."""

    def end_server(self) -> None:
        """Send the origin no more, but go on reading."""

    def close(self) -> None:
        """Close both connections, once all that was sent is out."""

    def refused(self, stage: str) -> None:
        """Count something that could not be read, and so does not pass, at a stage of the metrics."""


class HttpEnds(Ends):
    """The same, with what relays of requests need beyond it.

    Attributes:
        active: as `urlward.proxy.connection.Owner`.
    """

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = 0.0

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""
        return False

    def turn_is_over(self) -> bool:
        """Whether the client has had its turn, so that what else there is of it should wait."""
        return False

    def go_on_later(self) -> None:
        """Have `HttpRelay.read_on` called in its next turn; nothing is read of the client until then."""

    def hold_client(self, *, held: bool) -> None:
        """Stop reading from the client, or go on."""

    def connect(self) -> None:
        """Connect to the origin; `HttpRelay.connected` or `HttpRelay.not_connected` follows."""

    def close_server(self) -> None:
        """Close the connection to the origin, if there is one."""

    def leave_server(self) -> None:
        """Close the connection to the origin, which is heard of no more; another may follow."""

    def linger(self) -> None:
        """Close both in a while, or when the client has ended: it may still be sending, and a connection
        that is closed on unread data is reset, which can take the answer with it (RFC 9112 section 9.6)."""

    def hold_server(self, *, held: bool) -> None:
        """Stop reading from the origin, or go on."""

    def inspect_later(self) -> None:
        """Have `HttpRelay.inspect_on` called in the client's next turn."""

    def pass_later(self) -> None:
        """Have `HttpRelay.pass_tail` called in a while."""

    def break_off(self) -> None:
        """Close both connections, so that the client cannot take it for the end of a response."""

    def reset_client(self, *, as_tls: bool) -> None:
        """Close the client's connection, as `urlward.proxy.connection.Connection.reset`."""

    def keep_server(self, origin: Origin) -> None:
        """Return an idle connection to an origin to the pool, for any client's later request."""

    def has_way(self) -> bool:
        """Whether what is sent to the origin, whose connection has been at rest, may still get there."""
        return False

    def asks(self, *, connected: bool) -> None:
        """Prepare for judging a request; its origin may be the one connected to."""

    def tunnel(self, origin: Origin, rest: bytes, *, told: bool) -> None:
        """Go on as if the client had connected to an origin itself; what it has sent already is `rest`."""

    def switch(self, names: Names, early: bytes, *, ended: bool) -> None:
        """Relay unread what comes from here on: both sides have left HTTP.

        Args:
            names: of the request by which they have.
            early: what the client has sent behind that.
            ended: whether the client sends no more.
        """

    def exchange(self, lane: Any) -> None:
        """Begin a session for a lane of HTTP/2."""

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own, which breaks the connection."""


NO_ENDS: Final = HttpEnds()
"""Connections before a relay has been given them, and after they are closed: nothing happens."""


MAX_HELD: Final = 1 << 16
"""Bytes kept of what a client sends before its upgrade is answered."""

MAX_PENDING: Final = 128
"""Requests without a response that a client may have sent."""

MAX_UNDER_WAY: Final = 1 << 18
"""Bytes of heads of requests without a response; what goes beyond waits until all before it are answered."""

COST_OF_INTERIM: Final = 128
"""Bytes of `MAX_HEAD` that an interim response takes at least: 512 may come before a response."""

_PIPELINED: Final = frozenset({b"GET", b"HEAD"})
"""Methods of requests that go out, where they have no body, while others of these are unanswered. Of what
comes beside another, or a body, Starman drops as much as it has read, and takes the rest for a request."""

MAX_BLANK: Final = 8
"""Bytes of empty lines before a request (RFC 9112 section 2.2 asks to bear one line)."""

# Chromium passes over what precedes `HTTP`, takes any version, and heads four times as long as ours may be.
_HEAD = rb".{0,8}?(?i:http|icy)"
_LIKE_HEAD = re.compile(_HEAD, re.DOTALL).match
_LEAST_HEAD: Final = 12
"""Bytes by which that is told."""
_LIKE_INTERIM = re.compile(_HEAD + rb"\S*\s+0*1\d\d(?!\d)", re.DOTALL).match

type Judge = Callable[[RequestHead], Names | BlockResponse | None]
"""What a request is answered with, or the names that it passed under; None where that is not known yet, and
it is to be asked again. Never raises."""


type Inspected = Inspection[BlockResponse]
"""Inspection of a response's body, with what the client gets in the place of one that must not pass."""

type Inspect = Callable[[Pending, ResponseHead], Inspected | None]
"""Chooses the inspection of the body of a response; None for none. Never raises."""

TAIL: Final = 1 << 14
"""Last bytes of a response under inspection, as it goes to the client, that wait for what is found."""

REST: Final = 1.0
"""Seconds after which what waits of a response goes on, where no more has come of it since."""


class _UnreadError(Exception):
    """A head that a client could read, or one behind it, and this filter cannot."""


def _said_unasked(data: bytes, position: int) -> bool | None:
    """Whether an unsolicited response may pass, as an error does; None where too little has come.

    Anything else answers a request that the origin has found where nobody judged one.
    """
    seen = data[position : position + 32]
    text = seen.lstrip(b"\r\n")[:10]
    if not (b"HTTP/1.1 4".startswith(text) or b"HTTP/1.0 4".startswith(text)):
        return False
    return True if len(text) == 10 else None if len(seen) < 32 else False


def _joined(parts: list[bytes], data: bytes, start: int, end: int) -> bytes:
    """Buffered parts and a slice of new data, joined."""
    rest = data if not start and end == len(data) else data[start:end]
    return b"".join((*parts, rest)) if parts else rest


@dataclass(eq=False, slots=True)
class Pending:
    """Request that awaits its response from the origin."""

    raw: bytes | None
    """Its head as it came, until its origin is connected to, or while its response may be inspected."""
    names: Names
    is_head: bool
    alone: bool
    websocket: bool
    unasked: bool
    """Whether its body is to wait until the origin asks for it (``100 Continue``), which it has not done yet.

    What comes of that all the same, Netty takes for the next request, once it has refused (417, 413).
    """
    closes: bool
    """Whether its client has said that it sends nothing more on this connection."""
    begun: bool = False
    """Whether any of its response has come."""
    body_begun: bool = False
    """Whether any of its body has been sent on."""

    @property
    def head(self) -> RequestHead | None:
        """Its head, if that is kept; read anew, since in parts it takes many times the room."""
        return None if self.raw is None else read_request_head(self.raw)


@dataclass(eq=False, slots=True)
class HttpRelay:
    """HTTP/1 relay between one client connection and one origin.

    Attributes:
        ends: the connections.
        judge: decides on each request.
        pending: requests under way, the oldest first.
        inspect: chooses the responses whose bodies are inspected; None where none is.
    """

    ends: HttpEnds
    judge: Judge
    pending: deque[Pending] = field(default_factory=deque)
    inspect: Inspect | None = None
    _answered: Names | None = None
    """Names of the request answered last, whose response the client may have yet to take."""
    _heads: int = 0
    _requests: int = 0
    """Number of requests that have passed."""

    _held: bytearray = field(default_factory=bytearray)
    """Bytes of a head that has not ended, or behind an upgrade that is not answered."""
    _blank: int = 0
    _waits: bool = False
    """Whether the client has had its turn, and what is held waits for the next."""
    _behind: bool = False
    """Whether what is held waits for the responses to what is before it."""
    _end_waits: bool = False
    """Whether the client has ended behind that, or behind its turn."""
    _body: Body | None = None
    """Body of the request that is being received."""
    _sending: Pending | None = None
    """Request that this body belongs to."""
    _under_way: int = 0
    """Bytes of heads of requests since none was under way."""
    _switching: bool = False
    """Whether an upgrade waits for its answer, or a request for its judge."""
    _deaf: bool = False
    """Whether what the client sends is dropped."""
    _client_ended: bool = False

    _server: Literal["none", "opening", "open", "closed"] = "none"
    _early: list[bytes] = field(default_factory=list)
    _response: Body | None = None
    """Body of the response that is being received."""
    _parsed: ResponseHead | None = None
    """Its head; None where that cannot be read."""
    _response_held: bytes = b""
    _response_seen: int = 0
    """Bytes of it that have been looked through."""
    _interim: int = 0
    """Bytes of the interim responses that have come before it."""
    _server_ended: bool = False
    _inspection: Inspected | None = None
    """Of the response that is being received."""
    _tail: bytes = b""
    """Bytes of that response that wait for what is found."""
    _tail_rests: bool = False
    """Whether nothing has come since it was last looked at whether anything does."""
    _passing: bool = False
    """Whether `pass_tail` is about to be called."""
    _shown: bool = False
    """Whether any of it has been sent to the client."""
    _awaited: bool = False
    """Whether all of it has come, and what follows it waits, too."""
    _server_held: bool = False
    """Whether nothing is read of the origin meanwhile."""
    _inspecting: bool = False
    """Whether `inspect_on` is about to be called."""
    _then: Callable[[], None] | None = None
    """What the origin's end calls for, once that is known."""
    _answer: bytes | None = None
    """Ours, waiting for its turn."""
    _last: bool = False
    """Whether the response that is coming in is the last."""
    _lost_place: bool = False
    """Whether nobody knows where it ends."""
    _mute: bool = False
    """Whether what the origin sends is dropped."""
    _done: bool = False

    _in_turn: ClassVar[bool] = False
    """Whether a request is read only when all before it are answered."""

    endless: ClassVar[bool] = False
    """Whether what is relayed has no end that could be known; then silence is all the rest there is."""

    @property
    def live(self) -> list[Names]:
        """The names that the requests under way passed under."""
        found = [pending.names for pending in self.pending]
        if self._sending is not None and self._sending not in self.pending:
            found.append(self._sending.names)  # answered before all of it was sent
        if self._answered is not None and self.ends.client_is_behind():
            found.append(self._answered)
        return found

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, so that closing disturbs nobody."""
        return not (self.pending or self._held or self._body or self._answer)

    @property
    def takes_more(self) -> bool:
        """Whether what the client sends next is read as a request, and its origin can get it."""
        return not (self._deaf or self._done or self._mute or self._last or self._body)

    @property
    def unanswered(self) -> bool:
        """Whether a GET or HEAD is under way of whose response nothing has come. Of others, the origin may
        have yet to take what the system still sends it."""
        return bool(self.pending) and not (self.pending[0].begun or self.pending[0].alone)

    @property
    def unbounded(self) -> bool:
        """Whether only the end of the connection tells where a response ends."""
        return isinstance(self._response, Unbounded)

    @property
    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has."""
        waits = self._waits or self._behind or self._switching or (self._in_turn and self.pending)
        return self._heads if self._held and not waits else None

    def client_data(self, data: bytes) -> None:
        """The client has sent something."""
        if self._deaf:
            if self._lost_place and not (self._done or self._then or self._is_to_wait(self._finish)):
                # The client has understood the response, and asks on. It will ask again on a new connection.
                self._finish()
            return
        held = self._held
        if not held:
            self._read_requests(data)
            return
        seen = len(held)
        held += data
        if self._waits:
            return
        if self._behind or self._switching or (self._in_turn and self.pending):
            self._bound_held()
        # Each byte is looked at once, however slowly they come.
        elif held.find(b"\r\n\r\n", max(seen - 3, 0)) < 0:
            self._look_at_start(seen)
        else:
            self._read_held()

    def read_on(self) -> None:
        """The client has its turn again."""
        self._waits = False
        self._read_held()
        if self._end_waits and not (self._waits or self._behind):
            self.client_ended()

    def client_ended(self) -> None:
        """The client will send no more."""
        if self._client_ended:
            return
        if self._waits or (self._behind and not self._deaf):
            self._end_waits = True
            return
        self._client_ended = True
        if self._done or self._held or self._body or not (self.pending or self._answer):
            # Cut off in the middle, or at rest. A client that only ends its sending gets its responses.
            self.ends.close()
        self._deaf = True

    def connected(self, address: str = "") -> None:
        """The connection to the origin is open.

        Args:
            address: where its name has led to, which may come to be listed; empty where it was named so.
        """
        self._server = "open"
        for pending in self.pending:
            # Where there is one at most, that may yet go to another origin.
            if not self._in_turn and self.inspect is None:
                pending.raw = None
            if address:
                pending.names = pending.names._replace(address=address)
        early, self._early = b"".join(self._early), []
        if early:
            self.ends.send_server(early)

    def not_connected(self, answer: BlockResponse | None = None) -> None:
        """The origin cannot be reached, or must not be.

        Args:
            answer: where it must not be.
        """
        self._server = "closed"
        self._early.clear()
        self._fail(answer)

    def server_data(self, data: bytes) -> None:
        """The origin has sent something."""
        if self._done or self._mute:
            return
        if self._response_held:
            data = self._response_held + data
            self._response_held = b""
        switching = self._switching
        # What goes to the client otherwise than it came, and what precedes it; and where the rest begins.
        parts: list[bytes] = []
        start = position = 0
        size = len(data)
        while position < size or (self._response is not None and self._response.done):
            body = self._response
            if body is None:
                if not self.pending:
                    if self._in_turn:
                        self._leave_behind()
                        break
                    said = _said_unasked(data, position)
                    if said is None:
                        self._response_held = data[position:]
                        break
                    if not said:
                        self._pass_on(_joined(parts, data, start, position))
                        self.ends.refused("match")
                        self._finish()
                        return
                try:
                    end, head = self._read_response_head(data, position)
                except _UnreadError:
                    self._refuse_response(_joined(parts, data, start, position))
                    return
                if end < 0:
                    self._response_held = data[position:]
                    self._response_seen = size - position
                    break
                self._response_seen = 0
                if self._inspection is not None:
                    if before := _joined(parts, data, start, position):
                        self.ends.send_client(before)
                    parts, start = [], position
                if head and (shown := self._incoming(head)) is not head:
                    parts += data[start : end - len(head)], shown
                    start = end
                length = end - position
                position = end
                body = self._response
                if body is None:
                    if self._parsed is not None and self._parsed.status == 101:
                        self.ends.send_client(_joined(parts, data, start, size))
                        names, early = self.pending[0].names, bytes(self._held)
                        self.ends.switch(names, early, ended=self._client_ended)
                        return
                    self._interim += max(length, COST_OF_INTERIM)
                    if self._interim > MAX_HEAD:
                        self._refuse_response(_joined(parts, data, start, position))
                        return
                    continue
                self._interim = 0
            if not body.done:
                begin, before, is_lost = position, b"", False
                if self._inspection is not None and isinstance(body, Chunked):
                    before = body.unread
                try:
                    position = body.feed(data, position)
                except FramingError:
                    # Whatever it is, the client can make of it what it can.
                    self._lose_place()
                    position, is_lost = size, True
                if isinstance(body, Chunked) and body.odd and not self._lost_place:
                    self._lose_place()
                    self._response = body
                if self._inspection is not None:
                    content = data[begin:position]
                    if is_lost and isinstance(body, Chunked) and not body.begun:
                        # In no chunks at all, as Chromium takes it behind HTTP/1.0.
                        body, content, is_lost = Unbounded(), before + content, False
                    self._look_into(self._inspection, body, content)
                    if is_lost and self._inspection is not None:
                        self._settled(self._inspection)  # nobody knows when the client takes it for whole
                    if self._done:
                        return
            if body.done:
                if self._inspection is not None and not self._settled(self._inspection):
                    if self._done:
                        return
                    self._response_held = data[position:]
                    break
                self._response = None
                answered = self.pending.popleft()
                self._answered = answered.names
                if answered.closes and not (self._in_turn or self.pending or self._may_come_more()):
                    self._client_ended = True
                if not self.pending and (self._answer or self._last or self._client_ended):
                    self._pass_on(_joined(parts, data, start, position))
                    if self._last and self._body is not None and not self._client_ended:
                        # Its body may still come, but what the origin makes of it does not reach the client.
                        self._mute = True
                    else:
                        self._end_turn()
                    return
                if self._body is not None or answered.unasked:
                    # What the origin takes the body for, which may still come, nobody knows, so that nothing
                    # follows there.
                    if not self._in_turn:
                        self._mute = True
                        break
                    self._leave_behind()
        self._pass_on(_joined(parts, data, start, position))
        if switching and not self._switching:
            self._read_held()  # the upgrade has been refused, and what was sent behind it may go on
        if self._behind and not (self.pending or self._deaf):
            self._behind = False
            self.ends.hold_client(held=False)
            self.read_on()
        if self._in_turn and not self.pending:
            self._turn_over()

    def _may_come_more(self) -> bool:
        """Whether the client may be sending, or take another end of the response for its own."""
        return bool(self._body or self._held) or self._parsed is None or self._parsed.doubtful

    def server_ended(self) -> None:
        """The origin will send no more."""
        if self._server_ended or self._done or self._is_to_wait(self.server_ended):
            return
        self._server_ended = True
        self._server = "closed"
        if self._response_held:
            self.ends.send_client(self._response_held)
            self._response_held = b""
            self._finish()
        elif self.pending and not self.pending[0].begun and self._requests == 1:
            self._fail()
        else:
            # On a connection that has served before, clients try again by themselves where that is safe.
            self._finish()

    def leave_server(self) -> None:
        """Have the requests that follow go over another connection to the origin."""
        self.ends.leave_server()
        self._server, self._mute, self._requests = "none", False, 0

    def server_broke(self, *, as_tls: bool) -> None:
        """The connection to the origin has broken in the midst of a response that only its end would end.

        Args:
            as_tls: as `urlward.proxy.connection.Connection.reset`.
        """
        if not (self._done or self._is_to_wait(partial(self.server_broke, as_tls=as_tls))):
            # A clean end would say that this is all there is.
            self.ends.reset_client(as_tls=as_tls)

    def _refuse_response(self, before: bytes) -> None:
        """Answer in place of an origin's response.

        Args:
            before: what has come before it, and passes.
        """
        if before:
            self.ends.send_client(before)
        self.ends.refused("match")
        self._fail(text="The response is none of HTTP.")

    def _leave_behind(self) -> None:
        """Have no further request go over the connection to the origin."""
        raise NotImplementedError

    def _turn_over(self) -> None:
        """All requests that were sent on are answered, where one waits for the one before it."""

    # -- requests

    def _read_requests(self, data: bytes) -> None:
        position = start = 0
        size = len(data)
        read = False
        while position < size:
            if self._body is not None:
                try:
                    position = self._body.feed(data, position)
                except FramingError as e:
                    # The origin, which waits for the rest, might find a request in it.
                    begun = self._response is not None or (bool(self.pending) and self.pending[0].begun)
                    self.pending.clear()
                    if begun:
                        self.ends.refused("match")
                        self._finish()
                    else:
                        self._refuse(HeadError(400, str(e)))
                    return
                if self._sending is not None:
                    self._sending.body_begun = True
                if self._body.done:
                    self._body = self._sending = None
                    if self._last:
                        self._deaf = True
                        size = position
                        break
                continue
            if start < position:
                self._to_server(data[start:position])
                if self._done:
                    return
                start = position
            if self._behind or self._switching or (self._in_turn and self.pending):
                self._held += data[position:]
                self._bound_held()
                return
            if read and self.ends.turn_is_over():
                self._held += data[position:]
                self._waits = True
                self.ends.go_on_later()
                return
            if data[position] in b"\r\n":
                position = start = position + 1
                self._blank += 1
                if self._blank > MAX_BLANK:
                    self._refuse(HeadError(400, "empty lines before a request"))
                    return
                continue
            end = data.find(b"\r\n\r\n", position) + 4
            if end < 4:
                self._held += data[position:]
                self._look_at_start(0)
                return
            raw = data if not position and end == size else data[position:end]
            head = self._judged(raw, more=end < size)
            position, read = end, True
            if head is None:
                if self._deaf:
                    return
                start = end
                continue
            if head.method == b"CONNECT":
                self._tunnel(data[end:])
                return
            sent = self._outgoing(head, raw)
            if sent is None:
                return
            if sent is not raw:
                self._to_server(sent)
                if self._done:
                    return  # answered for an origin that cannot be reached
                start = position
        if start < size:
            self._to_server(data if not start and size == len(data) else data[start:size])
        if self._mute and self._last and self._body is None:
            self._finish()

    def _judged(self, raw: bytes, *, more: bool) -> RequestHead | None:
        """A request that passes; None where it does not, and has been answered."""
        self._blank = 0
        self._heads += 1
        try:
            if len(raw) > MAX_HEAD:
                raise HeadError(431, "a head that is too large")
            head = read_request_head(raw)
            self._check(head)
            if len(self.pending) >= MAX_PENDING:
                raise HeadError(429, "too many requests without waiting for a response")
        except HeadError as e:
            self._refuse(e)
            return None
        fields = head.fields
        # Behind all responses, and the next one behind its own.
        alone = fields.length != 0 or head.method not in _PIPELINED
        size = len(raw) + self._under_way if self.pending else len(raw)
        waits = alone or size > MAX_UNDER_WAY
        if self.pending and (waits or self.pending[-1].alone or self._is_yet_to_be_found):
            self._held += raw
            self._behind = True
            return None
        found = self.judge(head)
        if found is None:
            self._held += raw
            self._switching = True
            return None
        if not isinstance(found, Names):
            whole = (self._in_turn or not more) and fields.length == 0 and found.status != 400
            # A client that does not take our pages gets no more of them.
            keep_alive = whole and fields.keep_alive and not self.pending and not self.ends.client_is_behind()
            self._answer_with(found, keep_alive=keep_alive)
            return None
        if self._mute:
            # The request before was answered before it was whole; this one has another connection.
            self.leave_server()
        kept = raw if self._server != "open" or self._in_turn or self.inspect is not None else None
        unasked = fields.expects and fields.length != 0
        # Behind a body some clients send a line break, on which a connection that is closed would be reset.
        closes = fields.minor == 1 and not (fields.keep_alive or fields.length != 0)
        pending = Pending(kept, found, head.method == b"HEAD", alone, fields.websocket, unasked, closes)
        self.pending.append(pending)
        self._under_way = size
        self._requests += 1
        if fields.length != 0:
            body = Chunked() if fields.length is None else Counted(fields.length)
            self._body, self._sending = Unread(body, head.method), pending
        if fields.websocket:
            self._switching = True
        return head

    @property
    def _is_yet_to_be_found(self) -> bool:
        """Whether the origin's address, by which requests are judged, too, is known once it is reached."""
        return self._server == "opening" and not self.pending[-1].names.address

    def _check(self, head: RequestHead) -> None:
        """Raise HeadError where this request cannot be taken here."""
        if head.method == b"CONNECT":
            raise HeadError(405, "no proxy is asked for here")

    def _tunnel(self, rest: bytes) -> None:
        """A CONNECT that `_check` has let by, and what has come behind it."""
        raise NotImplementedError

    def _outgoing(self, head: RequestHead, raw: bytes) -> bytes | None:
        """The head to send to the origin, `raw` itself where unchanged; None where it has been answered."""
        raw = with_plain_framing(head.fields, raw)
        return without_upgrade(raw) if head.fields.other_upgrade else raw

    def _look_at_start(self, seen: int) -> None:
        """Check that what has arrived of a head may become one."""
        held = self._held
        if len(held) > MAX_HEAD:
            self._refuse(HeadError(431, "a head that is too large"))
        elif (held.find(b"\n", seen) >= 0 and held.find(b"\n") >= seen and not could_be_head(held)) or (
            head_end(held, max(seen - 3, 0)) >= 0
        ):
            self._refuse(HeadError(400, "not a head of HTTP/1.1"))

    def _bound_held(self) -> None:
        if len(self._held) <= MAX_HELD:
            return
        if self._switching and self.pending:
            self._finish()  # of what is behind an upgrade nobody needs so much before it is answered
        else:
            self.ends.hold_client(held=True)

    def _read_held(self) -> None:
        if self._deaf:
            return
        data = bytes(self._held)
        self._held.clear()
        self._read_requests(data)

    def _to_server(self, data: bytes) -> None:
        if self._server == "open":
            self.ends.send_server(data)
        elif self._server != "closed":
            self._early.append(data)
            if self._server == "none":
                self._server = "opening"
                self.ends.connect()

    # -- responses

    def _read_response_head(self, data: bytes, position: int) -> tuple[int, bytes]:
        """Read a response's head.

        Returns:
            Where it ends, -1 where it has not ended yet; and it, without what may precede it.

        Raises:
            _UnreadError: it is not to reach the client.
        """
        self._parsed = None
        if data[position] in b"\r\n":  # behind a body, as some servers put them
            end = len(data) - len(data[position:].lstrip(b"\r\n"))
            return end, data[position:end]
        if not self.pending:
            # Said unasked, such as 408 before an idle connection is closed.
            self._relay_until_close()
            return position, b""
        if (
            not data.startswith(b"HTTP/", position)
            and len(data) - position >= _LEAST_HEAD
            and not _LIKE_HEAD(data, position)
        ):
            self._lose_place(unread_response_head(b""))  # HTTP/0.9, to a browser: all is content
            return position, b""
        end = head_end(data, position + max(self._response_seen - 3, 0))
        if end < 0 or end - position > MAX_HEAD:
            if len(data) - position > MAX_HEAD:
                raise _UnreadError
            return -1, b""
        raw = data[position:end]
        pending = self.pending[0]
        try:
            head = self._parsed = read_response_head(raw, pending.is_head)
        except ValueError:
            if _LIKE_INTERIM(data, position):
                raise _UnreadError from None
            self._lose_place(unread_response_head(raw))
            return end, raw  # browsers heed what leads them past the filter
        pending.begun = True
        self._answered = None  # what the client has yet to take is this one's from here on, nearly always
        if head.status == 101:
            if not (pending.websocket and head.switches and len(self.pending) == 1):
                raise _UnreadError
            return end, raw
        if head.status < 200:
            pending.unasked = pending.unasked and head.status != 100
            return end, raw
        if head.length is None:
            self._response = Chunked(lenient=True)
        elif head.length < 0:
            self._relay_until_close()
        else:
            self._response = Counted(head.length)
        if self.inspect is not None and head.length != 0:
            self._begin_inspection(self.inspect(pending, head))
        if pending.websocket:
            self._switching = False
        if self._body is not None and pending.unasked and not pending.body_begun:
            # Answered before its body: the origin may take what comes next for the body or for a request.
            self._last = True
        return end, raw

    def _incoming(self, head: bytes) -> bytes:
        """A response's head as the client gets it, itself where nothing is changed."""
        parsed = self._parsed
        return head if parsed is not None and not parsed.alternatives else without_alternatives(head)

    def _relay_until_close(self) -> None:
        """Relay what comes as one response; no further request would be answered, so none is read."""
        self._response = Unbounded()
        self._last = True
        self._deaf = self._body is None
        self._held.clear()
        if self._behind:
            # What comes is dropped, and its end is to be heard.
            self._behind = False
            self.ends.hold_client(held=False)

    def _lose_place(self, head: ResponseHead | None = None) -> None:
        """Relay what comes without knowing where the response ends.

        Args:
            head: what its client may find in its head, where that has just come.
        """
        if self.pending:
            # Such as `ICY 200 OK` of a radio: this request's response, and none of ours may follow it.
            self.pending[0].begun = True
        self._relay_until_close()
        self._deaf = self._lost_place = True
        if self.inspect is not None and head is not None:
            if any(n.lower() == b"transfer-encoding" and is_chunked(v) for n, v in head.fields):
                self._response = Chunked(lenient=True)
            self._begin_inspection(self.inspect(self.pending[0], head))

    # -- inspection of responses

    def inspect_on(self) -> None:
        """More is known of the response under inspection, or there is time to look at more of it."""
        self._inspecting = False
        inspection = self._inspection
        if inspection is None or self._done:
            return
        if inspection.behind:
            inspection.work()
        if not self._may_go_on(inspection):
            return
        if inspection.over:
            self._release()
        elif self._awaited:
            return
        awaited, self._awaited = self._awaited, False
        then, self._then = self._then, None
        self._hold_server(held=False)
        if awaited:
            if then is not None and self._in_turn and self._response is not None and self._response.done:
                # Its end is the end of this response's connection, and the next may have another.
                self._leave_behind()
                then = None
            self.server_data(b"")
        if then is not None:
            then()

    def closed(self) -> None:
        """The client's connection is closed."""
        if self._inspection is not None:
            self._be_done()

    def _begin_inspection(self, inspection: Inspected | None) -> None:
        if inspection is None:
            return
        self._inspection = inspection
        self._shown = False
        inspection.changed, inspection.turn_is_over = self._inspect_later, self.ends.turn_is_over
        if isinstance(self._response, Chunked):
            self._response.content = []

    def _look_into(self, inspection: Inspected, body: Body, data: bytes) -> None:
        """Inspect what has come of a body."""
        if isinstance(body, Chunked):
            assert body.content is not None
            data = b"".join(body.content)
            body.content.clear()
        inspection.feed(data)
        if self._may_go_on(inspection) and inspection.over:
            self._release()

    def _settled(self, inspection: Inspected) -> bool:
        """Whether a response that has come may go on, as a whole; otherwise it waits, or is broken off."""
        if not self._awaited:
            self._awaited = True
            inspection.end()
        if not self._may_go_on(inspection):
            return False
        if not inspection.over:
            self._hold_server(held=True)
            return False
        self._awaited = False
        self._release()
        return True

    def _is_to_wait(self, then: Callable[[], None]) -> bool:
        """Whether an end of the origin's waits for what is found in the response that it ends."""
        inspection = self._inspection
        if inspection is None:
            return False
        if not self._awaited and self._settled(inspection):
            return False
        if not self._done:
            self._then = then
        return True

    def _may_go_on(self, inspection: Inspected) -> bool:
        """Whether what has come has been looked at and passes; otherwise it is broken off, or looked at
        later."""
        if inspection.answer is not None:
            self._break_off(inspection.answer)
            return False
        if inspection.behind:
            self._hold_server(held=True)
            if not inspection.waits:
                self._inspect_later()
            return False
        if not inspection.holds:
            self._send_tail()
        return True

    def _hold_server(self, *, held: bool) -> None:
        if held is not self._server_held:
            self._server_held = held
            self.ends.hold_server(held=held)

    def _inspect_later(self) -> None:
        if not self._inspecting:
            self._inspecting = True
            self.ends.inspect_later()

    def pass_tail(self) -> None:
        """Send what waits of a response on where its origin rests, which may say one thing at a time, and
        nobody knows that it is not all. The end of it waits in any case."""
        self._passing = False
        inspection = self._inspection
        if inspection is None or not self._tail or self._awaited:
            return
        if not (self._tail_rests and self._may_rest()):
            self._pass_later()
            return
        inspection.rest()
        if inspection.answer is not None:
            self._break_off(inspection.answer)
        else:
            self._send_tail()

    def _may_rest(self) -> bool:
        """Whether the response may not be at its end, and it is the origin that rests."""
        body = self._response
        at_end = isinstance(body, Counted) and body.left <= TAIL
        return not (at_end or self._server_held or self.ends.client_is_behind())

    def _pass_later(self) -> None:
        self._tail_rests = True
        if not self._passing:
            self._passing = True
            self.ends.pass_later()

    def _pass_on(self, data: bytes) -> None:
        """Send what has come of responses, if anything has, but for the tail of one under inspection."""
        if not data:
            return
        if self._inspection is None or not self._inspection.holds:
            self._show(data)
            return
        ahead = self._tail
        if len(data) < TAIL:
            data = ahead + data
            ahead, data = data[:-TAIL], data[-TAIL:]
        self._tail = data
        self._tail_rests = False
        if not self._passing:
            self._pass_later()
        self._show(ahead)

    def _send_tail(self) -> None:
        data, self._tail = self._tail, b""
        self._show(data)

    def _show(self, data: bytes) -> None:
        if data:
            self._shown = True
            self.ends.send_client(data)

    def _release(self) -> None:
        """Inspect the response no further."""
        self._send_tail()
        self._drop_inspection()

    def _drop_inspection(self) -> None:
        inspection, self._inspection = self._inspection, None
        if inspection is not None:
            inspection.drop()
            if isinstance(self._response, Chunked):
                self._response.content = None  # nobody reads on
            self._tail = b""
            self._hold_server(held=False)

    def _break_off(self, answer: BlockResponse) -> None:
        """The response must not arrive whole.

        Args:
            answer: in its place, where none of it has been sent.
        """
        if self._shown:
            self._be_done()
            self.ends.break_off()
        else:
            self._fail(answer)

    # -- answers and ends

    def _refuse(self, error: HeadError) -> None:
        self.ends.refused("match")
        self._answer_with(plain(error.status, str(error)), keep_alive=False)

    def _answer_with(self, answer: BlockResponse, *, keep_alive: bool) -> None:
        """Send a response in its turn."""
        data = on_wire(answer, keep_alive=keep_alive)
        if keep_alive:
            self.ends.send_client(data)
            return
        self._deaf = True
        self._held.clear()
        self._answer = data
        if not self.pending:
            self._end_turn()

    def _fail(
        self, answer: BlockResponse | None = None, *, text: str = "The origin does not answer."
    ) -> None:
        """Send an error response for an origin that does not answer."""
        answer = answer or plain(502, text)
        if self.pending and self.pending[0].is_head:
            answer = replace(answer, body=b"")
        self.pending.clear()
        self._answer_with(answer, keep_alive=False)

    def _end_turn(self) -> None:
        """All responses are out: send the filter's own, if there is one, and end."""
        if self._answer is not None:
            self.ends.send_client(self._answer)
            self._answer = None
        self._finish()

    def _finish(self) -> None:
        self._be_done()
        if self._client_ended or self._end_waits:
            self.ends.close()
        else:
            self.ends.close_server()
            self.ends.end_client()
            self.ends.linger()

    def _be_done(self) -> None:
        self._done = self._deaf = True
        self.pending.clear()
        self._held.clear()
        self._early.clear()
        self._then = None
        self._drop_inspection()
