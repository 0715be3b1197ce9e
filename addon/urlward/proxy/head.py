"""Heads of HTTP/1 messages: llhttp reads them, and what two readers could read differently is refused.

A request that the filter reads in one way and its origin in another is a request that nobody has
judged (RFC 9112 section 11.2). So a request head must be beyond doubt: its line is taken apart here by
one strict pattern, its fields by llhttp without leniencies, its framing by the rules of RFC 9112
section 6.3 without the choices that they leave.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import httptools

MAX_HEAD: Final = 1 << 16
"""Bytes that a request or response head may have."""

_MAX_FIELDS: Final = 1_000
"""Fields of a request: common origins take 100 to 1,000. Reading 15,000 takes a worker some milliseconds."""

_KNOWN: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"PATCH"})
"""Methods that need no look at their letters."""

REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""Methods without effect (RFC 9110 section 9.2.1), so that a request may be sent twice."""

_ALTERNATIVES = [
    (re.compile(mark + rb"[Aa](?=[Ll][Tt]-[Ss][Vv][Cc][ \t]*:)").sub, mark + b"X") for mark in (b"\n", b"\r")
]
"""Finds Alt-Svc (RFC 7838) in a response's head; browsers end lines at a bare CR too. Two literals
are found several times as fast as a class of both."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NOT_IN_TARGETS: Final = bytes([*range(0x21), 0x7F])
_VERSIONS: Final = frozenset({b"HTTP/1.0", b"HTTP/1.1"})
_IS_TOKEN = re.compile(_TOKEN).fullmatch
_NO_LETTERS = re.compile(rb"[^0-9A-Za-z]+").sub
# What frames, addresses or switches a message (RFC 9112): nobody must be able to read it in another name.
_OF_WEIGHT = frozenset(
    {b"connection", b"contentlength", b"expect", b"host", b"http2settings", b"te", b"trailer",
     b"transferencoding", b"upgrade"}
)  # fmt: skip
_CONNECTION_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection"})
_OF_HOP = frozenset({b"te", b"proxy-connection", b"proxy-authorization"})
# To CGI and what follows it `-` and `_` are one; so is a dot to PHP, and any sign to lighttpd.
_FORWARDS_URL = re.compile(
    rb"(?i:forwarded|x[^0-9A-Za-z](?:(?:rewrite|original)[^0-9A-Za-z]url|forwarded[^0-9A-Za-z]host))"
).fullmatch
# W3C Fetch and its forerunners: a browser asks ahead of whoever sits in front of it.
_SAYS_PURPOSE = re.compile(rb"(?i:(?:sec-)?purpose|x-moz)").fullmatch
_ALMOST_FRAMES = re.compile(rb"(?i:content[^0-9A-Za-z]length|transfer[^0-9A-Za-z]encoding)").fullmatch
_WHOLE_LINE = re.compile(_TOKEN + rb" [^\x00-\x20\x7f]+ HTTP/1\.[01]\r?").fullmatch
_STATUS_LINE = re.compile(rb"(?i:HTTP)/1\.[0-9][ \t]+([1-9][0-9][0-9])(?:[ \t]|$)").match
_BREAK = re.compile(rb"\r?\n|\r")  # a bare CR to Chromium
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FRAMING_LINE = re.compile(rb"\r\n((?i:content-length|transfer-encoding)):[^\r\n]*")
_PLAIN_FRAMING_LINE = re.compile(rb"\r\n[A-Za-z-]+: ?(?:chunked|0|[1-9][0-9]*)").fullmatch
_UPGRADE_LINES = re.compile(rb"\r\n(?i:upgrade|http2-settings)[ \t]*:[^\r\n]*").sub
_NEUTRAL_LINE = b"POST / HTTP/1."
# A field's name that is no token, as servers bear it: no control, blank or colon in it, and no byte beyond
# ASCII, at which Python's own reader of heads takes all that follows for a body.
_ODD_NAMES = re.compile(rb"(?<=\r\n)[!-9;-~]+(?=:)").sub
_MAX_DIGITS = 18
_REMEMBERED: Final = 8
"""Response heads: HTTP/2 reads what the relay has read, and many of an origin's are the same for a second."""
_REQUESTS_REMEMBERED: Final = 128
"""Fields of requests: those that a page loads mostly differ in their first lines alone."""
_SHORT: Final = 1 << 11
"""Bytes of those that are remembered."""
# Schemes by which each request says who the client is. Others may speak for the connection, as NTLM does.
_OF_ITSELF = re.compile(rb"[ \t]*(?i:basic|bearer|digest|aws4-hmac-sha256)[ \t]").match


class HeadError(Exception):
    """A request head that is refused.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False, slots=True)
class RequestFields:
    """Fields of an HTTP/1 request, and what they say; the same object for requests that have the same.

    Attributes:
        minor: of the version in front of them, 0 or 1.
        keep_alive: whether the client will send further requests.
        all: names and values as sent, without white space around them.
        hosts: values of the Host fields.
        length: of the body in bytes, or None where it is chunked.
        expects: whether the body waits for an interim response (RFC 9110 section 10.1.1).
        websocket: whether an upgrade to WebSocket is asked for.
        other_upgrade: whether another is.
        options: of its Connection fields, in lower case, with commas between.
        of_hop: whether there are fields of this hop alone, beside Host.
        authorizes_connection: whether they say who the client is in a way that holds for what follows on its
            connection (RFC 4559 section 6).
        onward: what the explicit proxy sends behind the target, and for which authority; once that is known.
        forwarded: fields by which a server in front tells a program which host or target it was asked for.
    """

    minor: int
    keep_alive: bool
    all: list[tuple[bytes, bytes]] = field(default_factory=list)
    hosts: list[bytes] = field(default_factory=list)
    length: int | None = 0
    expects: bool = False
    websocket: bool = False
    other_upgrade: bool = False
    options: bytes = b""
    of_hop: bool = False
    authorizes_connection: bool = False
    onward: tuple[str, bytes] = ("", b"")
    forwarded: list[tuple[bytes, bytes]] = field(default_factory=list)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; llhttp calls this."""
        self.all.append((name, value))


@dataclass(eq=False, slots=True)
class RequestHead:
    """Parsed head of an HTTP/1 request.

    Attributes:
        method: as sent.
        target: as sent, in any of the forms of RFC 9112 section 3.2.
        fields: what follows.
        absolute: scheme, authority and path of a target in absolute form, where that has been read.
    """

    method: bytes
    target: bytes
    fields: RequestFields
    absolute: tuple[str, str, str] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the request is safe and has no body, so that it may be sent twice."""
        return self.method in REPEATABLE and self.fields.length == 0 and not self.fields.websocket

    @property
    def prefetches(self) -> bool:
        """Whether it says that nobody has asked for the page yet, as browsers do that load pages ahead."""
        return any(
            value.partition(b";")[0].strip().lower() == b"prefetch"
            for name, value in self.fields.all
            if _SAYS_PURPOSE(name)
        )

    def get(self, name: bytes) -> bytes:
        """The first value of a field, by its lower-case name, or empty."""
        return next((value for n, value in self.fields.all if n.lower() == name), b"")


@dataclass(eq=False, slots=True)
class ResponseHead:
    """Parsed head of an HTTP/1 response.

    Attributes:
        status: its code.
        fields: as sent.
        length: of the body in bytes; None where it is chunked, -1 where it ends with the connection.
        doubtful: whether another reader could find another end.
        minor: of the version, 0 or what is taken for 1.
        options: of its Connection and Proxy-Connection fields, in lower case, with commas between.
        of_hop: number of its fields that are of this hop alone; more than one where that is not known.
        alternatives: whether it may name another way to its host.
        onward: it as the explicit proxy sends it on, once that is known.
        translated: it as HTTP/2 has it, and whether the connection is closed behind it; likewise.
    """

    minor: int = 1
    status: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = -1
    doubtful: bool = False
    options: bytes = b""
    of_hop: int = 0
    alternatives: bool = False
    onward: bytes = b""
    translated: tuple[list[tuple[bytes, bytes]], bool] | None = None

    @property
    def switches(self) -> bool:
        """Whether a 101 agrees on a WebSocket (RFC 6455 section 4.1): a program that answers with whatever
        status it is asked for goes on with HTTP."""
        return any(
            n.lower() == b"upgrade" and v.strip(b" \t").lower() == b"websocket" for n, v in self.fields
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; llhttp calls this."""
        self.fields.append((name, value))


def read_request_head(data: bytes) -> RequestHead:
    """Read a request head, from its first letter to its empty line.

    Raises:
        HeadError: it is malformed, or could be read in more than one way.
    """
    # RFC 9112 section 3, with the bytes of UTF-8 in a target, which some clients send as they are. A regular
    # expression would take twice as long.
    end = data.find(b"\r\n")
    parts = data[:end].split(b" ")
    if len(parts) != 3 or end < 0:
        raise HeadError(400, "not a request line of HTTP/1.1")
    method, target, version = parts
    if (
        version not in _VERSIONS
        or not target
        or target.translate(None, _NOT_IN_TARGETS) != target
        or (method not in _KNOWN and not _IS_TOKEN(method))
    ):
        raise HeadError(400, "not a request line of HTTP/1.1")
    rest = data[end - 1 :]
    fields = _known_fields(rest) if len(rest) <= _SHORT else _read_fields(rest)
    return RequestHead(method, target, fields)


def head_end(data: bytes | bytearray, position: int) -> int:
    """Where a head ends, behind its empty line as lenient readers see it; -1 where it has not."""
    end = data.find(b"\n\r\n", position)
    bare = data.find(b"\n\n", position, end + 1 if end >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return end + 3 if end >= 0 else -1


@lru_cache(_REMEMBERED)
def read_response_head(data: bytes, to_head: bool) -> ResponseHead:
    """Read a response head, from its first letter to its empty line; nothing is changed in what it gives.

    Args:
        data: the head.
        to_head: whether it answers a HEAD request.

    Raises:
        ValueError: it is malformed; what it frames cannot be told.
    """
    head = ResponseHead(0 if data.startswith(b"HTTP/1.0") else 1)
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(data)
        status = parser.get_status_code()
    except httptools.HttpParserUpgrade:
        status = parser.get_status_code()
    except httptools.HttpParserError:
        # Nothing is judged by a response, and clients bear much.
        status = _read_leniently(head, data)
        head.doubtful = head.alternatives = True
        head.of_hop = 2
    if not status:
        raise ValueError("no response at all")
    head.status = status
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in head.fields:
        # By length first: most fields are none of these.
        match len(name):
            case 7:
                if name.lower() == b"alt-svc":
                    head.alternatives = True
            case 10 | 16:
                if name.lower() in _CONNECTION_FIELDS:
                    head.of_hop += 1
                    if len(name) != 10 or name[0] in b"Cc":
                        head.options += b"," + value.lower() if head.options else value.lower()
            case 14:
                if name.lower() == b"content-length":
                    lengths += [part.strip(b" \t") for part in value.split(b",")]
            case 17:
                if name.lower() == b"transfer-encoding":
                    codings.append(value)
    if to_head or status < 200 or status in (204, 304):
        head.length = 0
        return head
    if codings:
        head.doubtful = head.doubtful or bool(lengths) or not head.minor
        named = b",".join(codings)
        last = named.rpartition(b",")[2].strip(b" \t").lower()
        # A length beside it does not count (RFC 9112 section 6.3).
        head.length = None if is_chunked(named) else -1
        head.doubtful = head.doubtful or (head.length is None and last != b"chunked")
    if codings and (head.length is None or not lengths or last != b"identity"):
        return head
    if lengths:
        if len(set(lengths)) > 1:
            raise ValueError("two lengths")
        if not lengths[0].isdigit() or len(lengths[0]) > _MAX_DIGITS:
            head.doubtful = True  # none to browsers, as scripts send that do not know it
        else:
            head.length = int(lengths[0])
    return head


def _read_leniently(head: ResponseHead, data: bytes) -> int:
    """Read a response head that llhttp does not: line breaks without CR, folded and malformed fields.

    Raises:
        ValueError: it has no status line.
    """
    line, *lines = _BREAK.split(_FOLD.sub(b" ", data))
    match = _STATUS_LINE(line)
    if match is None:
        raise ValueError("not a response of HTTP/1.1")
    head.fields = _lenient_fields(lines)
    return int(match[1])


def unread_response_head(data: bytes) -> ResponseHead:
    """What clients may find in a response's head that is malformed, or that is none: its fields, if any."""
    return ResponseHead(status=200, fields=_lenient_fields(_BREAK.split(_FOLD.sub(b" ", data))[1:]))


def _lenient_fields(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    parted = (field.partition(b":") for field in lines)
    return [(name.rstrip(b" \t"), value.strip(b" \t")) for name, _, value in parted]


def is_chunked(codings: bytes) -> bool:
    """Whether a response of these transfer codings is in chunks to browsers, wherever in them that stands."""
    return b"chunked" in codings.lower().replace(b",", b" ").split()


def could_be_head(data: bytes | bytearray) -> bool:
    """Whether a head whose end has not come yet has begun like one.

    An origin that speaks HTTP/0.9 would not wait for the end of anything else.
    """
    line, newline, _ = data.partition(b"\n")
    return not newline or _WHOLE_LINE(line) is not None


def without_upgrade(data: bytes) -> bytes:
    """A head without the fields that offer another protocol, in which requests would pass unread."""
    return _UPGRADE_LINES(b"", data)


def with_plain_framing(fields: RequestFields, data: bytes) -> bytes:
    """A request's head, or its end, with the field that says where its body ends in its plainest spelling.

    `chunked` is not that to Starman where a blank follows. The name stays as it is, in lower case in HTTP/2.
    """
    if fields.length == 0:
        return data
    found = _FRAMING_LINE.search(data)
    assert found is not None
    if _PLAIN_FRAMING_LINE(found[0]):
        return data
    value = b"chunked" if fields.length is None else b"%d" % fields.length
    return b"%b\r\n%b: %b%b" % (data[: found.start()], found[1], value, data[found.end() :])


def _neutral_name(match: re.Match[bytes]) -> bytes:
    """A name as it is, or letters that mean nothing in place of one that is no token.

    One that a lenient reader could take for a name of weight stays as it is, and is refused.
    """
    name = match[0]
    return name if _IS_TOKEN(name) or _NO_LETTERS(b"", name).lower() in _OF_WEIGHT else b"X" * len(name)


def frames_to_some(name: bytes) -> bool:
    """Whether a field's name frames a message to some origins, and to others not.

    To CGI and what follows it (RFC 3875 section 4.1.18) `-` and `_` are one: uWSGI takes `Content_Length` for
    a body's length, and the first of the two.
    """
    return _ALMOST_FRAMES(name) is not None and b"-" not in name


def forwards_url(name: bytes) -> bool:
    """Whether a field is one of `RequestFields.forwarded`."""
    return _FORWARDS_URL(name) is not None


def _read_fields(rest: bytes) -> RequestFields:
    """Read what follows the target of a request but the line's beginning, from its minor version on.

    Raises:
        HeadError: as `read_request_head`.
    """
    if rest.count(b"\n") > _MAX_FIELDS + 2:
        raise HeadError(431, "a head of too many fields")
    # Methods, and targets in UTF-8, that llhttp does not know are somebody's, and judged by us.
    fields = RequestFields(int(rest[:1]), rest[:1] == b"1")
    try:
        try:
            _feed(fields, _NEUTRAL_LINE + rest)
        except httptools.HttpParserError:
            # So are letters in names that it does not know.
            del fields.all[:]
            _feed(fields, _NEUTRAL_LINE + _ODD_NAMES(_neutral_name, rest))
    except httptools.HttpParserError as e:
        raise HeadError(400, "a head that is not of HTTP/1.1") from e
    _weigh(fields)
    return fields


_known_fields = lru_cache(_REQUESTS_REMEMBERED)(_read_fields)


def _feed(fields: RequestFields, data: bytes) -> None:
    try:
        httptools.HttpRequestParser(fields).feed_data(data)
    except httptools.HttpParserUpgrade:
        return  # llhttp stops at the end of a head that asks for one, which is where we stop


def _weigh(fields: RequestFields) -> None:
    length: bytes | None = None
    chunked = False
    for name, value in fields.all:
        # By length first: most fields are none of these.
        match len(name):
            case 9 | 13 | 14 | 16 if forwards_url(name):
                fields.forwarded.append((name, value))
            case 2 | 16 | 19:
                fields.of_hop = fields.of_hop or name.lower() in _OF_HOP
            case 4:
                if name.lower() == b"host":
                    fields.hosts.append(value)
            case 6:
                if name.lower() == b"expect":
                    fields.expects = True
            case 7:
                if name.lower() == b"upgrade":
                    fields.of_hop = True
                    if value.strip(b" \t").lower() == b"websocket" and not fields.websocket:
                        fields.websocket = True
                    else:
                        fields.other_upgrade = True
            case 10:
                fields.of_hop = fields.of_hop or name.lower() in _CONNECTION_FIELDS
                if name.lower() == b"connection":
                    options = value.lower()
                    fields.options = fields.options + b"," + options if fields.options else options
                    if b"close" in options:
                        fields.keep_alive = False
                    elif b"keep-alive" in options:
                        fields.keep_alive = True
            case 13:
                if name.lower() == b"authorization" and not _OF_ITSELF(value):
                    fields.authorizes_connection = True
            case 14:
                fields.of_hop = fields.of_hop or name.lower() == b"http2-settings"
                if name.lower() == b"content-length":
                    if length is not None:
                        raise HeadError(400, "more than one Content-Length")
                    length = value.strip(b" \t")
                elif frames_to_some(name):
                    raise HeadError(400, "a field that some take for Content-Length")
            case 17:
                if name.lower() == b"transfer-encoding":
                    if chunked or value.strip(b" \t").lower() != b"chunked" or not fields.minor:
                        raise HeadError(400, "a Transfer-Encoding other than chunked")
                    chunked = True
                elif frames_to_some(name):
                    raise HeadError(400, "a field that some take for Transfer-Encoding")
    if chunked:
        if length is not None:
            raise HeadError(400, "Content-Length beside Transfer-Encoding")
        fields.length = None
    elif length is not None:
        if not length.isdigit() or len(length) > _MAX_DIGITS:
            raise HeadError(400, "a Content-Length that is no number")
        fields.length = int(length)
    if fields.other_upgrade:
        fields.websocket = False


def without_alternatives(head: bytes) -> bytes:
    """A response's head with Alt-Svc under a name of that length that means nothing.

    It would have the client come back by another address or protocol, past the filter.
    """
    for replaced, name in _ALTERNATIVES:
        head = replaced(name, head)
    return head
