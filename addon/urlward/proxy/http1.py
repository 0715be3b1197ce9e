"""mitmproxy's HTTP/1 connections with trailers, interim responses and bounded heads.

mitmproxy reads a head of any size, stops at trailers, takes an interim response for the final one,
and sends the body of an HTTP/2 request that names no length unframed, so that its origin reads
further requests out of it. A request that nobody has judged must not reach an origin that way.
"""

import re
from collections.abc import Generator
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http

from urlward.proxy.framing import is_heeded
from urlward.proxy.head import MAX_HEAD
from urlward.proxy.mitm import (
    ErrorCode,
    Http1Client,
    Http1Server,
    HttpEvent,
    ReceiveHttp,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseProtocolError,
    ResponseTrailers,
    commands,
    events,
    layer,
)

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[ \r\n]").match
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class _Trailers:
    """Body reader on top of mitmproxy's that keeps the trailers mitmproxy would stop at."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self.fields: list[tuple[bytes, bytes]] = []

    def __call__(self, buffer: Any) -> Any:
        event = self._read(buffer)
        if isinstance(event, h11.EndOfMessage) and event.headers:
            # Lower case, as HTTP/2 must have them (RFC 9113 section 8.2).
            self.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            return h11.EndOfMessage()
        return event

    def read_eof(self) -> Any:
        return self._read.read_eof()


class _Trailing:
    """Trailer handling shared by both sides of a relay."""

    _reader: _Trailers
    _outgoing: http.Headers | None = None

    @property
    def body_reader(self) -> _Trailers:
        return self._reader

    @body_reader.setter
    def body_reader(self, read: Any) -> None:
        self._reader = _Trailers(read)

    def with_trailers(
        self, read: Generator[commands.Command, Any, None], end: type[HttpEvent], trailers: Any
    ) -> layer.CommandGenerator[None]:
        """Put the trailers that have been read before the end of their message."""
        for command in read:
            if isinstance(command, ReceiveHttp) and isinstance(command.event, end) and self._reader.fields:
                yield ReceiveHttp(trailers(command.event.stream_id, http.Headers(self._reader.fields)))
                self._reader.fields = []
            yield command

    def sending_trailers(self, send: Generator[commands.Command, Any, None]) -> layer.CommandGenerator[None]:
        """Put the trailers to be sent into the last chunk; a message with a length has no place for them."""
        for command in send:
            if self._outgoing and isinstance(command, commands.SendData) and command.data == _LAST_CHUNK:
                fields = b"".join(b"%s: %s\r\n" % field for field in self._outgoing.fields)
                command = commands.SendData(command.connection, b"0\r\n" + fields + b"\r\n")
                self._outgoing = None
            yield command


class WardHttp1Server(_Trailing, Http1Server):  # type: ignore[misc]
    """HTTP/1 connection with a client."""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """Send a part of a response."""
        if isinstance(event, ResponseTrailers):
            self._outgoing = event.trailers
        else:
            yield from self.sending_trailers(super().send(event))

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read a request head, behind any empty lines (RFC 9112 section 2.2), up to `MAX_HEAD`."""
        size = len(self.buf)
        yield from super().read_headers(event)
        while isinstance(event, events.DataReceived) and self._reads_head() and 0 < len(self.buf) < size:
            size = len(self.buf)
            yield from super().read_headers(event)
        if self._reads_head() and len(self.buf) > MAX_HEAD:
            yield commands.SendData(self.conn, _TOO_LARGE)
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Read a part of a request's body."""
        yield from self.with_trailers(super().read_body(event), self.ReceiveEndOfMessage, RequestTrailers)
        # What the reader leaves is a chunk's head or trailers; neither may grow without end.
        if self.state == self.read_body and len(self.buf) > MAX_HEAD:
            self.buf = ReceiveBuffer()
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            message = "chunk head or trailers are too large"
            yield ReceiveHttp(RequestProtocolError(self.stream_id, message, ErrorCode.GENERIC_CLIENT_ERROR))

    def _reads_head(self) -> bool:
        return bool(self.state == self.read_headers)


class WardHttp1Client(_Trailing, Http1Client):  # type: ignore[misc]
    """HTTP/1 connection with an origin."""

    _interim = 0
    """Bytes of interim responses before the next one."""

    @classmethod
    def adopt(cls, client: Http1Client) -> None:
        """Make one of an `Http1Client` that has sent nothing yet; mitmproxy asks nobody which to make."""
        client.__class__ = cls
        client.state = client.read_headers

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """Send a part of a request."""
        if isinstance(event, RequestTrailers):
            fields = event.trailers.fields
            self._outgoing = http.Headers([f for f in fields if not is_heeded(b"%b: %b\r" % f)])
            return
        if isinstance(event, RequestHeaders) and not event.end_stream and _has_no_frame(event.request):
            request = event.request.copy()
            request.headers["transfer-encoding"] = "chunked"
            event = RequestHeaders(event.stream_id, request, event.end_stream)
        yield from self.sending_trailers(super().send(event))

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read a response head, behind any interim responses, up to `MAX_HEAD`."""
        if isinstance(event, events.DataReceived) and self.request:
            size = len(self.buf)
            while self._interim <= MAX_HEAD and _INTERIM(bytes(self.buf)) and self.buf.maybe_extract_lines():
                self._interim += size - len(self.buf)
                size = len(self.buf)
            if self._interim > MAX_HEAD:
                yield from self._refuse("interim responses are too many")
                return
            if not self.buf:
                return
        yield from super().read_headers(event)
        if self.state != self.read_headers:
            self._interim = 0
        elif self.stream_id is not None and len(self.buf) > MAX_HEAD:
            yield from self._refuse("response head is too large")

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Read a part of a response's body."""
        yield from self.with_trailers(super().read_body(event), self.ReceiveEndOfMessage, ResponseTrailers)
        # As of a request's.
        if self.state == self.read_body and len(self.buf) > MAX_HEAD:
            yield from self._refuse("chunk head or trailers are too large")

    def _refuse(self, message: str) -> layer.CommandGenerator[None]:
        assert self.stream_id is not None
        self.buf = ReceiveBuffer()
        self.state = self.done
        yield commands.CloseConnection(self.conn)
        yield ReceiveHttp(ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR))


def _has_no_frame(request: http.Request) -> bool:
    """Whether HTTP/1 could not tell where this request's body ends."""
    return (request.is_http2 or request.is_http3) and "content-length" not in request.headers
