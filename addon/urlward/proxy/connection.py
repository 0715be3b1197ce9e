"""One TCP connection of the data path: a non-blocking socket, read and written when the poller tells.

asyncio's transports and tasks are most of what a connection costs; here are neither. TLS is OpenSSL on memory
buffers beside the socket, so that it can begin in the midst of a connection, and inside another.
"""

import errno
import socket
import ssl
import struct
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from urlward.proxy.poller import CAN_READ, CAN_WRITE, READ, SLICE, WRITE, Poller, Share, Task
from urlward.proxy.threads import Threads, Waiter
from urlward.proxy.tls import MOST_EMPTY, Tls, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

_READ: Final = 1 << 14
"""Bytes that are read at once at first."""

_LEAST_READ, _MOST_READ = 1 << 12, 1 << 18
"""Bytes read at once: where they take long, such as a byte in a record, and where they do not."""

_WIDE: Final = 1 << 17
"""Bytes that are read at once from which on the kernel is to receive as many as are read at most."""

_MOST_TLS: Final = 1 << 16
"""Most bytes read at once of TLS, whose buffers keep the room that they have once needed."""

HIGH: Final = 1 << 16
"""Bytes that wait to be sent from which on the other connection is not read."""

LOW: Final = 1 << 14
"""Waiting bytes at which reading resumes."""

_PROBES: Final = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""When a peer that is silent, or takes nothing, counts as gone (tcp(7))."""

_SELDOM: Final = {socket.TCP_KEEPIDLE: 600, socket.TCP_KEEPINTVL: 60, socket.TCP_KEEPCNT: 5}
"""The same of one that may be asleep: each probe wakes a phone's radio."""

BEHIND, CONNECTING, HELD, SLOWED, LATER, INSPECTED, SHAKING = 1, 2, 4, 8, 32, 64, 128
"""Why a connection is not read: the other one takes no more; that is being opened; a request waits for the
one before it; the client is slowed; what has come is yet to be looked at; or a response, to be inspected; or
a handshake goes on in a thread."""

_NOT_STARTED: Final = 16

LOCAL_FOR: Final = 2.0
"""Seconds for which an address is this machine's once it has been found to be."""

_SHAKES, _SHAKES_OF_ONE, _NICE = 16, 2, 10
"""Handshakes with origins that are under way at a time, and of a client network; how far they give way."""

_local_until: dict[str, float] = {}

_INFO_AT, _INFO_END = 120, 136
"""Offsets of ``tcpi_bytes_acked`` and ``tcpi_bytes_received`` (``linux/tcp.h``)."""


class Owner(Protocol):
    """Owner of connections: hears of failures and of their end.

    Attributes:
        active: set to the time whenever something comes, by `time.perf_counter`.
        share: the client's, for whom what comes is looked at.
    """

    active: float
    share: Share

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own."""

    def lost(self, connection: "Connection") -> None:
        """A connection is closed; called once, when what closed it is done."""


class Peer(Protocol):
    """Other connection of a relay, which is paused and resumed as this one fills and drains.

    Attributes:
        room: bytes that it takes at once; 0 where there is no bound but its pauses.
        peer: the connection.
    """

    peer: Any

    @property
    def room(self) -> int:
        """Bytes that it takes at once; 0 where there is no bound but its pauses."""

    def pause(self, why: int) -> None:
        """Send it no more, for the reason given."""

    def resume(self, why: int) -> None:
        """Withdraw a reason to pause."""


def is_local(host: str, *scope: int) -> bool:
    """Whether an IP address is one of this machine's.

    Args:
        host: the address.
        scope: of an IPv6 one, as the socket module has it behind the port.

    Raises:
        OSError: there is no socket to find out with.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0, *scope))
        except OSError as e:
            return e.errno != errno.EADDRNOTAVAIL  # all ports of it may be in use
    return True


def leave_unsent(sock: socket.socket) -> None:
    """Have a connection's close send nothing that waits, but what the peer cannot take for the end.

    Raises:
        OSError: it is closed.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Connection:
    """One TCP connection of the data path, with or without TLS.

    Args:
        poller: tells when it can be read or written.
        sock: connected; closed with this.
        owner: is told of what fails, and of the end.
        address: the peer's IP address, where that matters.
        events: for which the socket is registered with the poller; 0 where it is not.

    Attributes:
        address: as given.
        receive: takes what comes, decrypted.
        ended: is told that no more will come.
        peer: the other connection, which is not read while this one takes no more.
        at_end: whether the peer has said that it sends no more.
        gone: whether nothing is to be sent any more.
        full: whether the receiver is slower than the sender.
        broken: whether the connection has not ended but been reset.
        cut_off: whether it is broken in that an origin has ended it inside TLS without saying so.
        tls: its session, where TLS ends here.
    """

    __slots__ = (
        "_closing", "_end_wanted", "_events", "_fd", "_local", "_out", "_owner", "_paused", "_poller",
        "_shakes", "_share", "_size", "_sock", "address", "at_end", "broken", "cut_off", "ended", "full",
        "gone", "peer", "receive", "tls",
    )  # fmt: skip

    def __init__(
        self, poller: Poller, sock: socket.socket, owner: Owner, address: str = "", events: int = 0
    ) -> None:
        self.begin(owner, address)
        self._poller = poller
        self._share = owner.share
        self._sock = sock
        self._fd = sock.fileno()
        self._local = ""
        """The address that it is from, once that was looked at."""
        self._out = bytearray()
        self._size = _READ
        self._events = events
        """Events registered with the poller."""
        self._closing = self._end_wanted = False
        self._shakes: Waiter | None = None
        """The handshake's turn in a thread."""

    room = 0

    def begin(self, owner: Owner | None, address: str = "") -> None:
        """Initialise what every connection has, with a socket or without one."""
        self.receive: Callable[[bytes], None] = nothing
        self.ended: Callable[[], None] = nothing
        self.peer: Peer | None = None
        self.gone = self.full = self.broken = self.cut_off = self.at_end = False
        self.tls: Tls | None = None
        self.address = address
        self._owner = owner
        self._paused = _NOT_STARTED

    @property
    def own_address(self) -> str:
        """The local IP address that the connection came to."""
        return str(self._sock.getsockname()[0])

    @property
    def has_address(self) -> bool:
        """Whether the address that it is from is still one of this machine's.

        Where a lease has brought another, what is sent goes nowhere, and nothing says so for minutes.
        """
        now = perf_counter()
        if now < _local_until.get(self._local, 0.0):
            return True
        try:
            self._local, _, *scope = self._sock.getsockname()
            if not is_local(self._local, *scope):
                return False
            _local_until[self._local] = now + LOCAL_FOR
        except OSError:  # no descriptor to ask with
            pass
        return True

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._out)

    @property
    def open(self) -> bool:
        """Whether it is neither closed nor closing."""
        return self._fd >= 0 and not self._closing

    @property
    def silent(self) -> bool:
        """Whether it is open and nothing has come that is yet to be read, such as its end."""
        if self._fd < 0 or self.at_end:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    @property
    def turn_is_over(self) -> bool:
        """Whether the rest of what has come should be looked at `later`."""
        return self._poller.turn_is_over

    def later(self, task: Task) -> None:
        """Schedule a call in the client's next turn."""
        self._poller.later(self._share, task)

    @property
    def taken(self) -> int:
        """Bytes received, and bytes sent that the peer has acknowledged (tcp(7), TCP_INFO)."""
        if self._fd < 0:
            return 0
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_END)
        return sum(struct.unpack_from("QQ", info, _INFO_AT)) if len(info) == _INFO_END else 0

    def start(self) -> None:
        """Begin to read."""
        self.resume(_NOT_STARTED)

    def pause(self, why: int) -> None:
        """Stop reading, for the reason given."""
        # The poller hears of it when something comes, which it seldom does in the meantime.
        self._paused |= why

    def resume(self, why: int) -> None:
        """Withdraw a reason not to read."""
        if self._paused & why:
            self._paused &= ~why
            self._watch()

    def write(self, data: bytes) -> None:
        """Send."""
        if self.gone:
            return
        tls = self.tls
        if tls is not None:
            try:
                data = tls.encrypted(data)
                if tls.outer is not None:
                    data = tls.outer.encrypted(data)
            except ssl.SSLError:
                self._fail()  # the peer has broken the session off
                return
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._cannot_send()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        self._watch()
        if len(self._out) > HIGH:
            self.fill(full=True)

    def end(self) -> None:
        """Send no more; inside TLS send close_notify, which a cut could not forge."""
        if self.gone:
            return
        self._shut_down_tls()
        self.gone = True
        if self._out:
            self._end_wanted = True
        elif self._fd >= 0:
            self._half_close()

    def close(self) -> None:
        """Close once all is sent."""
        if self._closing or self._fd < 0:
            return
        if not self.gone:
            self._shut_down_tls()
        self.gone = self._closing = True
        if self._out:
            self._watch()
        else:
            self._close_now()

    def reset(self, *, as_tls: bool = False) -> None:
        """Close once all is sent, but so that the peer cannot take it for the end.

        Args:
            as_tls: whether it is enough inside TLS to leave out what would say so.
        """
        if self._fd >= 0:
            if not as_tls or self.tls is None:
                leave_unsent(self._sock)
            self.gone = True
            self.close()

    def abort(self) -> None:
        """Close at once."""
        if self._fd >= 0:
            self._out.clear()
            self._close_now()

    def abandon(self) -> None:
        """Close, and wait for no peer that has yet to take something, be it the end of TLS alone."""
        self.close()
        if self.waiting:
            self.abort()

    def start_tls(self, tls: Tls) -> None:
        """Begin a handshake, as a client at once; inside the session that there is already."""
        tls.outer = self.tls
        self.tls = tls
        if tls.client_side:
            self._shake(tls)

    def take(self, data: bytes) -> None:
        """Process data of its TLS session as if it had just been received."""
        assert self.tls is not None
        self._decrypt(self.tls, data)

    def belong(self, owner: Owner) -> None:
        """Hand the connection to another owner."""
        self._owner = owner
        self._share = owner.share
        if self._events:
            self._poller.entrust(self._fd, self._share)

    def probe(self, *, seldom: bool = False) -> None:
        """Enable TCP keepalive, so that the kernel notices a peer that is gone."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (_SELDOM if seldom else _PROBES).items():
            self._sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def spoil(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        """Close at once if unexpected data arrives while the connection is idle."""
        self.abort()

    def fill(self, *, full: bool) -> None:
        """Note whether the receiver is slower than the sender, which is not read then."""
        if full is not self.full:
            self.full = full
            if self.peer is not None:
                (self.peer.pause if full else self.peer.resume)(BEHIND)

    def attach(self, peer: "Connection") -> None:
        """Join with the other connection of a relay."""
        self.peer, peer.peer = peer, self
        if peer.full:
            self.pause(BEHIND)
        if self.full:
            peer.pause(BEHIND)

    def detach(self) -> None:
        """Part from the other connection of a relay; what arrives is passed to nobody."""
        self.receive, self.ended = nothing, nothing
        if self.peer is not None:
            self.peer.resume(BEHIND)
            self.peer.peer = None
            self.peer = None
        self.resume(BEHIND)

    def forget(self) -> None:
        """Drop all references once nothing more will arrive, or is of use."""
        self._owner = None
        self.detach()
        if self.tls is not None:
            self.tls.forget()

    # -- what the poller tells

    def _happened(self, events: int) -> None:
        if events & CAN_READ and self._events & READ:
            self._readable(events)
        if events & CAN_WRITE and self._events & WRITE:
            self._writable()

    def _readable(self, events: int) -> None:  # noqa: ARG002 - what else there is, reading tells
        if self._paused:
            self._watch()
            return
        peer, size = self.peer, self._size
        if peer is not None and (room := peer.room):
            size = min(size, room)
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail()
            return
        owner = self._owner
        if owner is None:
            return
        owner.active = start = perf_counter()
        tls = self.tls
        try:
            if not data and tls is not None and tls.client_side and tls.ready:
                self.cut_off = True  # without close_notify (RFC 9112 section 9.8)
                self._fail()
            elif not data:
                self._at_end()
            elif tls is None:
                self.receive(data)
            else:
                self._decrypt(tls.outer or tls, data)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            owner.broken(e)
            return
        # What fills the room that it is given may have more behind it.
        if len(data) == self._size:
            if perf_counter() - start > SLICE:
                self._size = max(self._size >> 1, _LEAST_READ)
            else:
                self._size = min(self._size << 1, _MOST_READ if self.tls is None else _MOST_TLS)
                if self._size == _WIDE:
                    self._widen()

    def _widen(self) -> None:
        """Have the kernel receive more at a time: where the sender is near, it never finds out by itself that
        whoever takes long with a piece, such as to hash it, would take larger ones."""
        with suppress(OSError):
            # The one way to a larger buffer that it goes on to adapt (tcp_set_rcvlowat in the kernel).
            for least in (_MOST_READ, 1):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def _writable(self) -> None:
        out = self._out
        try:
            sent = self._sock.send(out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._cannot_send()
            return
        del out[:sent]
        if len(out) <= LOW:
            self.fill(full=False)
        if out:
            return
        self._watch()
        if self._closing:
            self._close_now()
        elif self._end_wanted:
            self._half_close()

    def _cannot_send(self) -> None:
        """Handle a failed send; what the peer has sent before, such as an error, may still be read."""
        self.gone = self.broken = True
        self._out.clear()
        self._watch()
        self.fill(full=False)
        if self._closing or self.at_end or self._paused:
            self._close_now()

    def _half_close(self) -> None:
        self._end_wanted = False
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._fail()  # reset by the peer

    # -- TLS

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        if tls.ready:
            tls.incoming.write(data)
            tls.empty += len(data)
        else:
            rest = self._without_hello(tls, data) if tls.client_side else data
            if rest is None or not self._shake(tls, rest):
                return
        self._take_decrypted(tls)

    def _without_hello(self, tls: Tls, data: bytes) -> bytes | None:
        """What an origin sends behind its ServerHello where that goes on with an earlier session, of which no
        certificates come, or where there is no thread; None where all the rest is for one."""
        end = tls.hello_end(data)
        if end:
            error = _shake((tls, data[:end]))
            if not isinstance(error, ssl.SSLWantReadError):
                self._go_on_from(tls, error)
                return None
            data = data[end:]
        if tls.session.session_reused or _shaking.is_short:
            return data
        self.pause(SHAKING)
        self._shakes = _shaking.ask(self._share, (tls, data), partial(self._shaken, tls))
        return None

    def _shaken(self, tls: Tls, error: Exception | None) -> None:
        """Go on, in a turn of the client's network, with a handshake that was continued in a thread."""
        self._shakes = None
        self._poller.soon(self._share, partial(self._go_on_shaken, tls, error))

    def _take_decrypted(self, tls: Tls) -> None:
        data, ended = tls.decrypted()
        if data:
            tls.empty = 0
            if self.tls is None or tls is not self.tls.outer:
                self.receive(data)
            else:
                self._decrypt(self.tls, data)
        if tls.outgoing.pending and not self.gone:
            self._flush(tls)  # a key update or the like is to be answered
        if tls.damaged or tls.empty > MOST_EMPTY:
            self._fail()
        elif ended:
            self._at_end()

    def _shake(self, tls: Tls, data: bytes = b"") -> bool:
        """Continue a TLS handshake; returns whether it is done."""
        return self._go_on_from(tls, _shake((tls, data)))

    def _go_on_shaken(self, tls: Tls, error: Exception | None) -> None:
        self.resume(SHAKING)
        owner = self._owner
        if owner is None or self._closing:
            return  # it was closed meanwhile
        owner.active = perf_counter()
        try:
            if self._go_on_from(tls, error):
                self._take_decrypted(tls)
        except Exception as e:  # noqa: BLE001 - as in `_readable`
            owner.broken(e)

    def _go_on_from(self, tls: Tls, error: Exception | None) -> bool:
        self._flush(tls)  # an alert, too
        if isinstance(error, ssl.SSLWantReadError):
            return False
        if error is not None:
            failed = tls.failed
            tls.forget()
            failed(error)
            return False
        established = tls.established
        tls.forget()
        established()
        return self.tls is tls

    def _flush(self, tls: Tls) -> None:
        if not tls.outgoing.pending:
            return
        data = tls.outgoing.read()
        if self._fd < 0:
            return
        try:
            self._out += data if tls.outer is None else tls.outer.encrypted(data)
        except ssl.SSLError:
            self._fail()
            return
        self._writable()
        self._watch()
        # OpenSSL answers by itself; a peer that asks and asks, and reads nothing, must not fill the memory.
        if len(self._out) > 4 * _MOST_READ:
            self._fail()

    def _shut_down_tls(self) -> None:
        tls = self.tls
        while tls is not None:
            if tls.ready:
                tls.shut_down()
                self._flush(tls)
            tls = tls.outer

    # -- ends

    def _at_end(self) -> None:
        if not self.at_end:
            self.at_end = True
            if self.broken:
                self._close_now()  # nothing can be sent any more, nor does anything come
                return
            self.ended()
            self._watch()  # unless it is closed now

    def _fail(self) -> None:
        self.broken = True
        self._out.clear()
        self._close_now()

    def _close_now(self) -> None:
        if self._events:
            self._poller.closes(self._fd)
            self._events = 0
        self._fd = -1
        self.gone = self._closing = True
        self._sock.close()
        if self._shakes is not None:
            self._shakes.cancel()
        if self._owner is not None:
            owner, self._owner = self._owner, None
            self._poller.afterwards(owner.lost, self)

    def _watch(self) -> None:
        """Register with the poller for the events that are of use now."""
        if self._fd < 0:
            return
        events = 0 if self._paused or self.at_end or self._closing else READ
        if self._out:
            events |= WRITE
        if events == self._events:
            return
        tell = self._happened if events & WRITE else self._readable
        if not self._events:
            self._poller.watch(self._fd, events, tell, self._share)
        elif events:
            self._poller.change(self._fd, events, tell)
        else:
            self._poller.forget(self._fd)
        self._events = events


def _shake(handshake: tuple[Tls, bytes]) -> Exception | None:
    """Continue a TLS handshake by what has come; returns why it is not done."""
    tls, data = handshake
    try:
        tls.shake(data)
    except (ssl.SSLError, ssl.CertificateError, ValueError, OSError, MemoryError) as e:
        return e.with_traceback(None)  # or it, and the frames of those who keep it, kept each other
    return None


_shaking: Threads[tuple[Tls, bytes], Exception | None] = Threads(
    _shake, "urlward-handshakes", threads=_SHAKES, of_one=_SHAKES_OF_ONE, nice=_NICE
)
"""Does handshakes with origins: OpenSSL reads the keys of all certificates before it verifies any, which
takes it minutes where they are of elliptic curves of the origin's own. Other threads run meanwhile. What goes
on with an earlier session has no certificates, and is done at once."""
