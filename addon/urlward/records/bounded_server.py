"""HTTP server of Tornado's whose connections are bounded: they are to leave descriptors for all else that its
process does, such as records.

Where there are too many, the network that has most makes room, by its oldest. So a client that opens
connections and says nothing keeps out nobody but itself.
"""

import resource
from collections import Counter
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from urlward.records.network import network_of

MOST = 256
"""Connections at a time, or a quarter of the descriptors where those are few."""


class BoundedServer(HTTPServer):
    """HTTP server that takes no more than `MOST` connections at a time."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Called by Tornado."""
        super().initialize(*args, **kwargs)
        self._open: dict[IOStream, str] = {}
        """Clients' networks by connection, the oldest first."""

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
