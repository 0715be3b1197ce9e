"""HTTP server of Tornado's whose connections are bounded: they are to leave descriptors for all else that its
process does, such as records.

Where there are too many, the network that has most makes room, by its oldest. So a client that opens
connections and says nothing keeps out nobody but itself. Nor does one keep others waiting that asks for much
at once, or whose body comes in very many pieces: networks take turns by the request, and by the piece.
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets

from urlward.records.privacy import network_of

BACKLOG = 128
"""Connections that may wait to be taken."""

MOST = 256
"""Connections at a time, or a quarter of the descriptors where those are few."""

_MOST_HEAD = 1 << 14
"""Bytes of a request's head: Tornado takes half a microsecond for each."""

_MOST_PARTS = 400
"""Lines and cookies of it: each takes ten microseconds, of which a head has room for thousands. Browsers send
some thirty lines, and Chrome keeps 180 cookies of a site."""


class _ByTurns(HTTPMessageDelegate):
    """Message whose body is read by turns: Tornado reads on without a pause while anything has come, which of
    64 KiB in chunks of one byte takes seconds.

    Args:
        message: that gets what is read.
    """

    def __init__(self, message: HTTPMessageDelegate) -> None:
        self._message = message
        self.finish = message.finish  # type: ignore[method-assign]
        self.on_connection_close = message.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Called by Tornado."""
        return self._message.headers_received(start_line, headers)

    async def data_received(self, chunk: bytes) -> None:
        """Called by Tornado, which waits until this returns."""
        taken = self._message.data_received(chunk)
        if taken is not None:
            await taken
        await asyncio.sleep(0)


type Held = Mapping[tuple[str, int], Sequence[socket.socket]]
"""Sockets that another process holds for this one and those after it, by host and port as configured."""


class BoundedServer(HTTPServer):
    """HTTP server that takes no more than `MOST` connections at a time, and bodies by turns."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Called by Tornado."""
        kwargs["max_header_size"] = _MOST_HEAD
        super().initialize(*args, **kwargs)
        self._open: dict[IOStream, str] = {}
        """Clients' networks by connection, the oldest first."""
        self._waiting = Counter[str]()
        """Requests that wait for their turn, by network."""

    def listen_at(self, host: str, port: int, held: Held) -> None:
        """Listen at an address, on the sockets that are held where there are some.

        Raises:
            OSError: that is not possible.
        """
        sockets = [one.dup() for one in held.get((host, port), ())]  # `stop` closes them
        for one in sockets:
            one.listen(BACKLOG)
        self.add_sockets(sockets or bind_sockets(port, host, backlog=BACKLOG))

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado with a new connection."""
        for other in [other for other in self._open if other.closed()]:
            del self._open[other]
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self._open) >= min(MOST, limit // 4):
            ((greedy, _),) = Counter(self._open.values()).most_common(1)
            oldest = next(other for other, one in self._open.items() if one == greedy)
            del self._open[oldest]
            oldest.close()
        self._open[stream] = network = network_of(str(address[0]))
        read = partial(self._read_head, stream, network, stream.read_until_regex)
        stream.read_until_regex = read  # type: ignore[method-assign]
        super().handle_stream(stream, address)

    async def _read_head(
        self, stream: IOStream, network: str, read: Callable[..., Awaitable[bytes]], *args: Any, **kwargs: Any
    ) -> bytes:
        """Read a request's head, which Tornado then parses and answers: one of each network in a round of the
        loop, and none of a connection that is gone, of which Tornado goes on to answer what it has read."""
        head = await read(*args, **kwargs)
        if head.count(b"\n") + head.count(b";") > _MOST_PARTS:
            raise HTTPInputError("a head of too many parts")
        if b"multipart/form-data" in head.lower():
            raise HTTPInputError("no form here is of that kind, whose parts have heads of their own")
        waiting = self._waiting
        waiting[network] += 1
        try:
            for _ in range(waiting[network]):
                await asyncio.sleep(0)
                if stream.closed():
                    raise StreamClosedError
        finally:
            waiting[network] -= 1
            if not waiting[network]:
                del waiting[network]
        return head

    def on_close(self, server_conn: object) -> None:
        """Called by Tornado when a connection has ended."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        del server_conn.stream.read_until_regex  # which leads back to it
        super().on_close(server_conn)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado for each request."""
        return _ByTurns(super().start_request(server_conn, request_conn))
