"""Syslog store: RFC 5424 messages over TCP (RFC 6587) or TLS (RFC 5425), octet-counted in both.

What the event has to say is structured data, one parameter for each field that applies. The protocol has no
acknowledgement. What comes nearest is taken for one: that the server's machine has taken all octets. Where it
has not, the batch is sent again on a new connection, so that a server may get a message twice; its ``id``
tells.
"""

import fcntl
import re
import socket
import ssl
import struct
import termios
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from urlward.config.records import FACILITIES, StoreTable
from urlward.config.tables import split_address
from urlward.engine.dates import time_text_ms
from urlward.feeds.source import FetchError
from urlward.feeds.tls import context
from urlward.records.event import FIELDS, PERSONAL, VERSION, Event
from urlward.records.store import StoreError

TIMEOUT = 10.0
"""Seconds for a connection, and for a batch to be taken."""

REMEMBERED = 100_000
"""Ids that are known again."""

SD_ID = "event@32473"
"""32473 is the number that RFC 5612 gives to documentation: urlward has none of its own."""

_ERROR, _WARNING, _NOTICE, _INFORMATIONAL = 3, 4, 5, 6
_SEVERITIES = {"alarm": _ERROR, "gap": _WARNING, **dict.fromkeys(PERSONAL, _NOTICE)}
_SAID = ("id", *(name for name in FIELDS if name not in ("id", "time", "kind", "node")))
_ESCAPED = re.compile(r'[\\"\]]')
_NOT_A_NAME = re.compile(r"[^!-~]")


def message(event: Event, facility: str) -> bytes:
    """Format one RFC 5424 message, without a frame.

    Args:
        event: to be told.
        facility: of `FACILITIES`.
    """
    priority = FACILITIES.index(facility) * 8 + _SEVERITIES.get(event.kind, _INFORMATIONAL)
    host = _NOT_A_NAME.sub("", event.node)[:255] or "-"
    said = [("version", str(VERSION))]
    said += [(name, str(value)) for name in _SAID if (value := getattr(event, name))]
    data = " ".join(f'{name}="{_ESCAPED.sub(r"\\\g<0>", value)}"' for name, value in said)
    return f"<{priority}>1 {time_text_ms(event.time)} {host} urlward - {event.kind} [{SD_ID} {data}]".encode()


def frames(events: Iterable[Event], facility: str) -> bytes:
    """Frame messages with their lengths (RFC 6587, section 3.4.1)."""
    return b"".join(b"%d %b" % (len(one), one) for one in (message(event, facility) for event in events))


class SyslogStore:
    """Syslog store: a connection to the server, opened on demand.

    Args:
        address: HOST:PORT.
        facility: of `FACILITIES`.
        context: of TLS; None for plain TCP.

    Attributes:
        name: for messages.
    """

    def __init__(self, address: str, facility: str, context: ssl.SSLContext | None) -> None:
        self.name = f"syslog {address}"
        self._address = split_address(address)
        self._facility = facility
        self._context = context
        self._socket: socket.socket | None = None
        self._sent: OrderedDict[str, None] = OrderedDict()

    def write(self, events: Sequence[Event]) -> None:
        """As `Store.write`; a batch counts as written whole or not at all, whatever of it the server has
        got."""
        new = {event.id: event for event in events if event.id not in self._sent}
        if not new:
            return
        self._send(frames(new.values(), self._facility))
        self._sent |= dict.fromkeys(new)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    def check(self) -> None:
        """As `Store.check`; a server that is gone is missed before there is anything to send to it."""
        self._send(b"")

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            try:
                _send_all(self._socket, data)
                return
            except OSError:
                # Servers end connections that are idle, and are restarted: once more.
                self.close()
        try:
            self._socket = self._connect()
            _send_all(self._socket, data)
        except OSError as e:
            self.close()
            raise StoreError(f"{self.name}: {_reason(e)}") from e

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=TIMEOUT)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # A machine that is gone without a word is missed within two minutes, not hours.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
            if self._context is not None:
                return self._context.wrap_socket(connection, server_hostname=self._address[0])
        except BaseException:
            connection.close()
            raise
        return connection


def open_syslog(table: StoreTable) -> SyslogStore:
    """Open the syslog store of a configuration's table; it connects at the first write.

    Raises:
        StoreError: the file of authorities cannot be read.
    """
    assert table.address is not None
    secured = None
    if table.tls:
        try:
            secured = context(table.ca)
        except FetchError as e:
            raise StoreError(str(e)) from e
    return SyslogStore(table.address, table.facility, secured)


def _send_all(connection: socket.socket, data: bytes) -> None:
    """Send, and wait until the peer has acknowledged all of it.

    Raises:
        OSError: it has not, or has ended the connection.
    """
    _look_for_end(connection)
    connection.sendall(data)
    end, pause = time.monotonic() + TIMEOUT, 0.0005
    while _not_taken(connection):
        if time.monotonic() > end:
            raise TimeoutError("timed out")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    _look_for_end(connection)


def _not_taken(connection: socket.socket) -> int:
    """Number of octets that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0])


def _look_for_end(connection: socket.socket) -> None:
    """Check for the end of the connection: a server sends nothing, so data is an end, or of TLS.

    Raises:
        OSError: the connection is at its end.
    """
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
        raise ConnectionResetError("the server has ended the connection")
    except (BlockingIOError, ssl.SSLWantReadError):
        return
    finally:
        connection.settimeout(TIMEOUT)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify: {error.verify_message}"
    return error.strerror or str(error)
