"""Relay of bytes that are not read, except the first of them."""

from typing import Final

from urlward.proxy.block_page import BlockResponse
from urlward.proxy.client_hello import ClientHelloError, SecondHello
from urlward.proxy.framing import LateRequest
from urlward.proxy.names import Names
from urlward.proxy.relay import Ends

_TLS_ANSWERS: Final = b"\x15\x16"
"""Types of the records that answer a ClientHello: an alert, a handshake."""


class RawRelay:
    """Relay of unread bytes. Of TLS, no second ClientHello with another name passes, nor a response
    that is no TLS: there are servers of HTTP that find a request in the free bytes of a ClientHello. Of
    what is neither TLS nor HTTP, no request behind other bytes passes. What HTTP has led to is all unread.

    Args:
        ends: the connections.
        names: what is relayed passed under these.
        early: what has come from the client before the other connection is open.
    """

    __slots__ = ("_answered", "_client_ended", "_early", "_hello", "_late", "_server_ended", "ends", "live")

    idle: Final = False
    endless: Final = True
    unanswered: Final = False
    unbounded: Final = False
    takes_more: Final = False
    head: Final = None

    def __init__(self, ends: Ends, names: Names, early: bytes = b"") -> None:
        self.ends = ends
        self.live = [names]
        self._early = early
        self._hello = SecondHello() if names.tls else None
        self._late = None if names.tls or names.target else LateRequest()
        self._answered = not names.tls
        self._client_ended = False
        self._server_ended = False

    @property
    def unread(self) -> bool:
        """Whether what comes from now on passes unread."""
        return self._answered and self._hello is None and self._late is None

    def connected(self, address: str = "") -> None:
        """The connection to the origin is open; as `urlward.proxy.relay.HttpRelay.connected`."""
        if address:
            self.live = [names._replace(address=address) for names in self.live]
        early, self._early = self._early, b""
        if early:
            self.client_data(early)

    def not_connected(self, answer: BlockResponse | None = None) -> None:  # noqa: ARG002
        """The connection cannot be opened, or must not be."""
        self.ends.close()

    def client_data(self, data: bytes) -> None:
        """The client has sent something."""
        if self._hello is not None:
            try:
                data = self._hello.client(data)
            except ClientHelloError:
                self._refuse()
                return
            if self._hello.done:
                self._hello = None
            if not data:
                return
        if self._late is not None:
            if self._late.found(data):
                self._refuse()
                return
            if self._late.done:
                self._late = None
        self.ends.send_server(data)

    def _refuse(self) -> None:
        self.ends.refused("peek")
        self.ends.close()

    def client_ended(self) -> None:
        """The client will send no more."""
        self._client_ended = True
        if self._server_ended:
            self.ends.close()
        else:
            self.ends.end_server()

    def server_data(self, data: bytes) -> None:
        """The origin has sent something."""
        if not self._answered:
            self._answered = True
            if data[0] not in _TLS_ANSWERS:
                self._refuse()
                return
        if self._hello is not None:
            self._hello.server(data)
            if self._hello.done:
                self.client_data(b"")  # what was held
        self.ends.send_client(data)

    def server_ended(self) -> None:
        """The origin will send no more."""
        self._server_ended = True
        if self._client_ended:
            self.ends.close()
        else:
            self.ends.end_client()
