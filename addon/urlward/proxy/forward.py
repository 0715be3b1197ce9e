"""The explicit proxy: requests in absolute form, each to the origin that it names, and tunnels.

One request of a client's connection is under way at a time; connections to origins are kept for those that
follow. What is of a hop alone is not passed on (RFC 9110 section 7.6, RFC 9112 section 9).
"""

import re
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar, Final

from urlward.engine.errors import UrlError
from urlward.engine.url import split_authority
from urlward.proxy.block_page import BlockResponse
from urlward.proxy.framing import Unbounded
from urlward.proxy.head import HeadError, RequestFields, RequestHead, with_plain_framing
from urlward.proxy.names import split_absolute
from urlward.proxy.relay import FRESH, NOWHERE, HttpRelay, Origin

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

_KEPT: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"cache-control", b"close", b"keep-alive", b"te",
     b"upgrade", b"trailer", b"via", b"cookie", b"authorization"}
)  # fmt: skip
"""Names that no Connection field takes out of a message: they are of weight, or seen to here."""

_LINES = re.compile(rb"\r?\n([^:\r\n]+):[^\r\n]*").sub
_REQUEST_LINES = re.compile(
    rb"\r\n(?i:connection|keep-alive|proxy-connection|proxy-authorization|upgrade|http2-settings|te|host)"
    rb"[ \t]*:[^\r\n]*"
).sub
_MAX_FORWARDS = re.compile(rb"\r\n(?i:max-forwards)[ \t]*:[^\r\n]*").sub
_SENSITIVE_LINES = re.compile(rb"\r\n(?i:(?:proxy-)?authorization|cookie)[ \t]*:[^\r\n]*").sub
# With a literal before all choices it is found several times as fast.
_RESPONSE_LINES = re.compile(rb"\n(?i:connection|keep-alive|proxy-connection)[ \t]*:[^\r\n]*\r?").sub
_USER = re.compile(rb"\A([A-Za-z]+://)[^/?#@]*@").sub
_USUAL: Final = frozenset({b"", b"keep-alive", b"close"})
_COUNTED_DOWN: Final = frozenset({b"TRACE", b"OPTIONS"})
_MOST_FORWARDS: Final = 10**9
_NO_PREFIX: Final = b" "
"""No target begins with it."""


@dataclass(eq=False, slots=True)  # of which the class is made anew: `super()` would know the one before
class ForwardRelay(HttpRelay):
    """HTTP/1 relay between a client of the explicit proxy and the origin of each of its requests.

    Attributes:
        asked: the origin of the request that is judged; `NOWHERE` where that is for the proxy itself.
        origin: of that which is under way.
        reused: whether the connection to it has been used before, so that it may be about to be closed.
    """

    origin: Origin = NOWHERE
    asked: Origin = NOWHERE
    reused: bool = False
    _authority: str = ""
    _scheme: str = ""
    _prefix: bytes = _NO_PREFIX
    """What a target begins with that is for the same origin as the one before."""
    _path: bytes = b""
    _connected: bool = False
    """Whether the connection to the next request's origin is open, and takes that."""
    _again: bytes | None = None
    """The request, where it may be sent again."""
    _keep_alive: bool = False
    """Whether the origin keeps the connection open."""
    _close_wanted: bool = False
    """Whether the client asks nothing more."""
    _bound: bool = False
    """Whether the connection counts as this client's by what it has said of who it is."""
    _minor: int = 1
    _rests_since: float = 0.0
    """When the last response had come."""

    _in_turn: ClassVar[bool] = True

    def client_ended(self) -> None:
        """The client will send no more; requests already received are answered in turn."""
        if self._held and not self._body and bool(self.pending) is not self._switching:
            self._end_waits = True
            return
        if self.idle:
            self._leave(keep=self._keep_alive)  # for others
        HttpRelay.client_ended(self)

    def server_ended(self) -> None:
        """The origin will send no more."""
        if self._done:
            return
        if not self.pending:
            self._leave(keep=False)
            if self._body is not None:
                self._server = "closed"  # which takes no more of it
        elif self.pending[0].begun or self._response_held:
            HttpRelay.server_ended(self)
        elif self.reused and self._again is not None:
            # It was closed while the request was on its way (RFC 9112 section 9.3.1).
            self._leave(keep=False)
            self.reused = False
            self._to_server(self._again)
        else:
            self._server = "closed"
            self._fail()

    @property
    def repeatable(self) -> bool:
        """Whether the request that is under way may be sent again."""
        return self._again is not None

    def go_on(self) -> None:
        """Judge the request that was waiting."""
        self._switching = False
        self._read_next()

    # -- requests

    def _check(self, head: RequestHead) -> None:
        if head.method != b"CONNECT" and head.target.startswith(self._prefix):
            # As the request before.
            self._path = path = head.target[len(self._prefix) - 1 :]
            head.absolute = self._scheme, self._authority, path.decode("latin-1")
        elif not self._find_origin(head):
            return
        connected = self._server == "open" and self._keep_alive and self.asked == self.origin
        if connected and perf_counter() - self._rests_since > FRESH:
            # What cannot be sent twice goes over one that has just been in use, or counts as its client's.
            connected = head.repeatable or self._bound
            if not self.ends.has_way():
                connected = self._keep_alive = False
        if not (connected and self._connected):
            self._connected = connected
            self.ends.asks(connected=connected)

    def _find_origin(self, head: RequestHead) -> bool:
        """Find what a request asks for; returns whether that is a URL, so that it is sent on."""
        self._authority = self._scheme = ""  # should it be refused, the next request is not for there
        self._prefix = _NO_PREFIX
        # Origins get none of it (RFC 9110 section 4.2.4), so nobody can take it for the host.
        if b"@" in head.target:
            head.target = _USER(rb"\1", head.target, 1)
        target = head.target.decode("latin-1")
        if target.startswith("/"):
            self.asked = NOWHERE
            return False
        try:
            if head.method == b"CONNECT":
                host, port = split_authority(target)
                if port is None or head.fields.length != 0:
                    raise HeadError(400, "a CONNECT without a port, or with a body")
                self.asked = Origin(host.strip("[]"), port, False)
                self._connected = False
                self.ends.asks(connected=False)
                return False
            head.absolute = scheme, authority, path = split_absolute(target)
            host, port = split_authority(authority)
        except UrlError as e:
            raise HeadError(400, "a proxy needs to be asked for a whole URL") from e
        tls = scheme == "https"
        if port is None:
            port = 443 if tls else 80
        if not port:
            raise HeadError(400, "port 0")
        self.asked = Origin(host.strip("[]"), port, tls)
        self._authority, self._scheme = authority, scheme
        self._prefix = head.target[: target.index("://") + 3 + len(authority)] + b"/"
        self._path = path.encode("latin-1")
        return True

    def _tunnel(self, rest: bytes) -> None:
        names = self.pending.pop().names
        if self._end_waits:
            self._finish()
            return
        self._leave(keep=False)
        self._done = self._deaf = True
        self.ends.send_client(ESTABLISHED)
        self.ends.tunnel(self.asked, rest, told=names.told)

    def _outgoing(self, head: RequestHead, raw: bytes) -> bytes | None:
        assert self.asked is not NOWHERE
        forwards = b""
        if head.method in _COUNTED_DOWN and (forwards := head.get(b"max-forwards").strip(b" \t")).isdigit():
            forwards = forwards.lstrip(b"0")
            if not forwards:
                self._answer_last(head, raw)
                return None
        fields = head.fields
        self._minor = fields.minor
        self._close_wanted = not fields.keep_alive
        if self._connected:
            self.reused = True
        else:
            self._leave(keep=self._keep_alive)
            self.origin = self.asked
            self.reused = False
        self._keep_alive = False
        if fields.authorizes_connection:
            self._bound = True
        authority, onward = fields.onward
        if authority != self._authority or forwards:
            onward = self._onward(fields, raw, forwards)
            if not forwards:
                fields.onward = self._authority, onward
        sent = b"%b %b%b" % (head.method, self._path, onward)
        self._again = sent if head.repeatable else None
        return sent

    def _onward(self, fields: RequestFields, raw: bytes, forwards: bytes) -> bytes:
        """What is sent on behind a request's target."""
        rest = with_plain_framing(fields, raw[raw.index(b"\r\n") : -2])
        if fields.of_hop or len(fields.hosts) != 1 or (at := rest.find(b"\r\nHost:")) < 0:
            rest = _without(_REQUEST_LINES(b"", rest), fields.options)
        else:
            rest = rest[:at] + rest[rest.index(b"\r\n", at + 2) :]
        if forwards.isdigit():
            left = int(forwards) - 1 if len(forwards) < 10 else _MOST_FORWARDS
            rest = b"\r\nMax-Forwards: %d" % left + _MAX_FORWARDS(b"", rest)
        return b" HTTP/1.%d\r\nHost: %b%bVia: 1.%d urlward\r\n%b\r\n" % (
            fields.minor,
            self._authority.encode("latin-1"),
            rest,
            fields.minor,
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if fields.websocket else b"",
        )

    def _answer_last(self, head: RequestHead, raw: bytes) -> None:
        """Answer what is to be forwarded no further (RFC 9110 sections 7.6.2, 9.3.8)."""
        self.pending.clear()
        trace = head.method == b"TRACE"
        body = _SENSITIVE_LINES(b"", raw) if trace else b""
        fields = [(b"Content-Length", b"%d" % len(body)), (b"Cache-Control", b"no-store")]
        fields += [(b"Content-Type", b"message/http")] * trace
        self._answer_with(BlockResponse(200, "OK", tuple(fields), body), keep_alive=False)

    def _read_requests(self, data: bytes) -> None:
        answered = self._body is not None and not self.pending
        HttpRelay._read_requests(self, data)
        if answered and self._body is None and not self.pending:
            self._turn_over()

    def _leave(self, *, keep: bool) -> None:
        """Release the connection to the origin, if there is one."""
        if self._server == "open" and keep and not self._bound:
            self.ends.keep_server(self.origin)
        elif self._server != "none":
            self.ends.close_server()
        self._server = "none"
        self._server_ended = self._bound = self._connected = False
        self._response_held = b""

    def _leave_behind(self) -> None:
        self._keep_alive = False

    def _turn_over(self) -> None:
        if self._done:
            return
        self._rests_since = perf_counter()
        if self._body is not None:
            # Its body may still come. What the origin takes that for nobody knows, so nothing follows there.
            self._keep_alive = False
            return
        if not self._keep_alive or self._close_wanted:
            self._leave(keep=self._keep_alive)
        if self._close_wanted:
            self._finish()
            return
        self._read_next()

    def _read_next(self) -> None:
        if self._held and not self._waits:
            self.ends.hold_client(held=False)
            self.read_on()

    # -- responses

    def _incoming(self, head: bytes) -> bytes:
        parsed = self._parsed
        if parsed is not None and parsed.onward and self._minor and not self._close_wanted:
            self._keep_alive = True
            return parsed.onward
        head = HttpRelay._incoming(self, head)
        if self._lost_place:
            return head
        if self._response is None or parsed is None:
            # An interim response, which HTTP/1.0 does not know (RFC 9110 section 15.2), or the last of HTTP.
            return head if self._minor or (parsed is not None and parsed.status == 101) else b""
        options = parsed.options
        unbounded = isinstance(self._response, Unbounded)
        keeps = b"close" not in options if b"HTTP/1.1" in head[:12] else b"keep-alive" in options
        self._keep_alive = keeps and not unbounded and not parsed.doubtful
        # Where a client could read another end out of it, what follows must not be another origin's.
        self._close_wanted = self._close_wanted or parsed.doubtful
        if parsed.of_hop == 1 and options in _USUAL and (at := head.find(b"\r\nConnection:")) >= 0:
            head = head[:at] + head[head.index(b"\r\n", at + 2) :]
        elif parsed.of_hop:
            head = _without(_RESPONSE_LINES(b"", head), options)
        added = b"Via: 1.1 urlward\r\n"
        if unbounded or self._close_wanted:
            added += b"Connection: close\r\n"
        elif not self._minor:
            added += b"Connection: keep-alive\r\n"
        cut = len(head) - (2 if head.endswith(b"\r\n") else 1)
        head = head[:cut] + added + head[cut:]
        if self._keep_alive and self._minor and not self._close_wanted:
            parsed.onward = head
        return head


def _without(lines: bytes, options: bytes) -> bytes:
    """Field lines without those that a Connection field names as of this hop alone."""
    if options in _USUAL:
        return lines
    names = {option.strip(b" \t") for option in options.lower().split(b",")} - _KEPT
    if not names:
        return lines
    return _LINES(lambda line: b"" if line[1].rstrip(b" \t").lower() in names else line[0], lines)
