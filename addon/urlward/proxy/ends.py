"""Interface between a relay and its two connections, the client's and the origin's."""

from typing import Final, Protocol

LINGER: Final = 2.0
"""Seconds that a client's sending is read and dropped behind an answer."""


FRESH: Final = 2.0
"""Seconds after an answer in which what cannot be sent twice may follow it on its connection. Servers
close what is at rest for longer (gunicorn after 2, Apache and Node after 5), and a request may cross that."""


class Ends(Protocol):
    """Client's and origin's connections, as a relay uses them."""

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""

    def turn_is_over(self) -> bool:
        """Whether the client has had its turn, so that its further requests should wait."""

    def go_on_later(self) -> None:
        """Have `HttpRelay.read_on` called in its next turn; nothing is read of the client until then."""

    def connect(self) -> None:
        """Connect to the origin; `HttpRelay.connected` or `HttpRelay.not_connected` follows."""

    def send_client(self, data: bytes) -> None:
        """Send data to the client."""

    def send_server(self, data: bytes) -> None:
        """Send data to the origin."""

    def end_client(self) -> None:
        """Send the client no more, but go on reading."""

    def end_server(self) -> None:
        """Send the origin no more, but go on reading."""

    def close_server(self) -> None:
        """Close the connection to the origin, if there is one."""

    def close(self) -> None:
        """Close both connections, once all that was sent is out."""

    def refused(self, stage: str) -> None:
        """Count something that could not be read, and so does not pass, at a stage of the metrics."""

    def linger(self) -> None:
        """Close both in a while, or when the client has ended: it may still be sending, and a connection
        that is closed on unread data is reset, which can take the answer with it (RFC 9112 section 9.6)."""


class HttpEnds(Ends, Protocol):
    """The same, with what a relay of requests needs beyond it."""

    def hold_client(self, *, held: bool) -> None:
        """Stop reading from the client, or go on."""

    def leave_server(self) -> None:
        """Close the connection to the origin, which is heard of no more; another may follow."""


class _NoEnds:
    """Null implementation of `HttpEnds`, once the connections are gone."""

    def connect(self) -> None:
        """Do nothing."""

    def send_client(self, data: bytes) -> None:
        """Do nothing."""

    def send_server(self, data: bytes) -> None:
        """Do nothing."""

    def client_is_behind(self) -> bool:
        """Never."""
        return False

    turn_is_over = client_is_behind

    def hold_client(self, *, held: bool) -> None:
        """Do nothing."""

    def refused(self, stage: str) -> None:
        """Do nothing."""

    end_client = end_server = close_server = leave_server = close = linger = go_on_later = connect


NO_ENDS: HttpEnds = _NoEnds()
"""Before a relay has been given its ends, and after they are closed."""
