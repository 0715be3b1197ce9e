"""What a relay asks of its two connections."""

from typing import Final, Protocol

LINGER: Final = 2.0
"""Seconds that a client's sending is read and dropped behind an answer."""


FRESH: Final = 2.0
"""Seconds after an answer in which what cannot be sent twice may follow it on its connection. Servers
close what is at rest for longer (gunicorn after 2, Apache and Node after 5), and a request may cross that."""


class Ends(Protocol):
    """The two connections."""

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""

    def turn_is_over(self) -> bool:
        """Whether the client has had its turn, so that what more it asks should wait."""

    def go_on_later(self) -> None:
        """Have `HttpRelay.read_on` called in its next turn; nothing is read of the client until then."""

    def connect(self) -> None:
        """Open the one to the origin; `HttpRelay.connected` or `HttpRelay.not_connected` follows."""

    def send_client(self, data: bytes) -> None:
        """Send."""

    def send_server(self, data: bytes) -> None:
        """Send."""

    def end_client(self) -> None:
        """Send the client no more, but go on reading."""

    def end_server(self) -> None:
        """Likewise for the origin."""

    def close_server(self) -> None:
        """Close the connection to the origin, if there is one."""

    def close(self) -> None:
        """Close both, once all that was sent is out."""

    def refused(self, stage: str) -> None:
        """Count something that could not be read, and so does not pass, at a stage of the metrics."""

    def linger(self) -> None:
        """Close both in a while, or when the client has ended: it may still be sending, and a connection
        that is closed on unread data is reset, which can take the answer with it (RFC 9112 section 9.6)."""


class _NoEnds:
    """Takes all and does nothing."""

    def connect(self) -> None:
        """Nothing."""

    def send_client(self, data: bytes) -> None:
        """Nothing."""

    def send_server(self, data: bytes) -> None:
        """Nothing."""

    def client_is_behind(self) -> bool:
        """No."""
        return False

    turn_is_over = client_is_behind

    def refused(self, stage: str) -> None:
        """Nothing."""

    end_client = end_server = close_server = close = linger = go_on_later = connect


NO_ENDS: Ends = _NoEnds()
"""Before a relay has been given its ends, and after they are closed."""
