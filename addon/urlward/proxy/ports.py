"""The two ends of a relay that goes on without mitmproxy: protocols on asyncio's transports."""

import asyncio
import socket
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from OpenSSL import SSL

_TLS_READ = 1 << 16


class Owner(Protocol):
    """Whose ports they are.

    Attributes:
        active: set to the time whenever something comes, by `time.perf_counter`.
    """

    active: float

    def broken(self, error: Exception) -> None:
        """Something of ours has failed."""

    def lost(self, port: "Port") -> None:
        """A connection is closed."""


def _ignore(data: bytes) -> None:
    """Take nothing."""


def _nothing() -> None:
    """Do nothing."""


class Port(asyncio.Protocol):
    """One of the two connections.

    Args:
        owner: of both.
        transport: of a connection that is open; otherwise the event loop gives it.

    Attributes:
        peer: the other connection's, once there is one.
        receive: takes what comes.
        ended: is told that no more will come.
        gone: whether nothing is to be sent any more.
        full: whether the receiver is slower than the sender, whose connection is not read meanwhile.
        broken: whether the connection has not ended but been reset.
        streams: the protocol whose place this one has taken, which waits for the end.
    """

    def __init__(self, owner: Owner, transport: asyncio.Transport | None = None) -> None:
        self.peer: Port | None = None
        self.receive: Callable[[bytes], None] = _ignore
        self.ended: Callable[[], None] = _nothing
        self.gone = False
        self.full = False
        self.broken = False
        self.streams: asyncio.BaseProtocol | None = None
        self._owner = owner
        if transport is not None:
            self.transport = transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def write(self, data: bytes) -> None:
        """Send."""
        if not self.gone:
            self.transport.write(data)

    def end(self) -> None:
        """Send no more."""
        if not self.gone and not self.transport.is_closing():
            self._write_eof()

    def _write_eof(self) -> None:
        self.gone = True
        try:
            self.transport.write_eof()
        except OSError:
            self.transport.abort()  # reset by the peer, of which the event loop does not know yet

    def reset(self) -> None:
        """Close once all is sent, but so that the peer cannot take it for the end."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        Port.close(self)

    def close(self) -> None:
        """Close once all is sent."""
        self.gone = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._owner.active = perf_counter()
        try:
            self.receive(data)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            self._owner.broken(e)

    def eof_received(self) -> bool:
        """Called by the event loop; the other direction stays open."""
        try:
            self.ended()
        except Exception as e:  # noqa: BLE001 - as above
            self._owner.broken(e)
        return True

    def forget(self) -> None:
        """Nothing more will come; what it referred to is not kept."""
        self.receive, self.ended = _ignore, _nothing
        if self.peer is not None:
            self.peer.peer = None
            self.peer = None

    def pause_writing(self) -> None:
        """Called by the event loop: the receiver is slower than the sender."""
        self.full = True
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.full = False
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop; mitmproxy's reader learns of it here."""
        self.gone = True
        self.broken = exc is not None
        if self.streams is not None:
            self.streams.connection_lost(exc)
        self._owner.lost(self)


class TlsPort(Port):
    """One whose bytes OpenSSL wraps, in a session that mitmproxy has begun."""

    def __init__(self, owner: Owner, transport: asyncio.Transport, tls: SSL.Connection) -> None:
        super().__init__(owner, transport)
        self._tls = tls
        self._shut = False

    def write(self, data: bytes) -> None:
        """Send."""
        if not self.gone:
            self._tls.sendall(data)
            self._flush()

    def end(self) -> None:
        """Send no more, and say so inside the session, where a cut could not forge it."""
        if not self.gone and not self.transport.is_closing():
            self._shut_down()
            self._write_eof()

    def close(self) -> None:
        """Likewise, and close."""
        if not self.gone and not self.transport.is_closing():
            self._shut_down()
        super().close()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._owner.active = perf_counter()
        try:
            self._tls.bio_write(data)
            parts = []
            ended = False
            try:
                while True:
                    parts.append(self._tls.recv(_TLS_READ))
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                ended = True
            except SSL.Error:
                # What was whole is passed on; nothing behind it can be.
                ended = True
            if parts:
                self.receive(parts[0] if len(parts) == 1 else b"".join(parts))
            # A key update or the like may have to be answered.
            if not self.gone:
                self._flush()
            if ended:
                self.ended()
        except Exception as e:  # noqa: BLE001 - as above
            self._owner.broken(e)

    def _flush(self) -> None:
        try:
            while True:
                self.transport.write(self._tls.bio_read(_TLS_READ))
        except SSL.WantReadError:
            pass

    def _shut_down(self) -> None:
        if not self._shut:
            self._shut = True
            try:
                self._tls.shutdown()
            except SSL.Error:
                return
            self._flush()
