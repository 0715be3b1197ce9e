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
from collections.abc import Mapping, Sequence
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from urlward.records.privacy import network_of

BACKLOG = 128
"""Connections that may wait to be taken."""

MOST = 256
"""Connections at a time, or a quarter of the descriptors where those are few."""


class _ByTurns(HTTPMessageDelegate):
    """Message that is read by turns: Tornado goes on without a pause while anything has come, which of 64 KiB
    in chunks of one byte takes seconds, as it does to answer as much of small requests; and it answers these
    also where their connection has been closed meanwhile.

    Args:
        message: that gets what is read.
        connection: of the request.
        network: of its client.
        waiting: how many requests of each network wait for their turn.
    """

    def __init__(
        self,
        message: HTTPMessageDelegate,
        connection: HTTP1Connection,
        network: str,
        waiting: Counter[str],
    ) -> None:
        self._message = message
        self._connection = connection
        self._network = network
        self._waiting = waiting
        self.finish = message.finish  # type: ignore[method-assign]
        self.on_connection_close = message.on_connection_close  # type: ignore[method-assign]

    async def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Called by Tornado, which waits until this returns."""
        waiting, network, stream = self._waiting, self._network, self._connection.stream
        waiting[network] += 1
        try:
            for _ in range(waiting[network]):
                if not stream.closed():
                    await asyncio.sleep(0)
        finally:
            waiting[network] -= 1
            if not waiting[network]:
                del waiting[network]
        if stream.closed():
            self._connection.detach()  # nothing more of it is read
            return
        taken = self._message.headers_received(start_line, headers)
        if taken is not None:
            await taken

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
        super().initialize(*args, **kwargs)
        self._open: dict[IOStream, str] = {}
        """Clients' networks by connection, the oldest first."""
        self._waiting = Counter[str]()

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
        self._open[stream] = network_of(str(address[0]))
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado for each request."""
        assert isinstance(request_conn, HTTP1Connection)
        message = super().start_request(server_conn, request_conn)
        network = self._open.get(request_conn.stream, "")  # none of one that has made room
        return _ByTurns(message, request_conn, network, self._waiting)
