"""Upstream connections: an origin is looked up, the first address that answers connected to, and kept.

Clients of the explicit proxy go from host to host, and come back by other connections of theirs. What is kept
has nothing under way (RFC 9112 section 9.3), and whoever takes it is judged as if it were new.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from typing import Any, Final

from cachetools import TLRUCache

from urlward.proxy.acceptor import enough, is_shortage
from urlward.proxy.connection import Connection
from urlward.proxy.listeners import make_transparent
from urlward.proxy.names import as_address
from urlward.proxy.poller import WRITE, Poller, Share
from urlward.proxy.relay import FRESH
from urlward.proxy.threads import Threads, Waiter
from urlward.records.privacy import network_of

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside those that have not answered yet (RFC 8305 section 5)."""

MOST_ADDRESSES: Final = 8
"""Addresses of a name that are tried."""

_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT (ip(7)), for both families: connect() chooses the port, which knows the origin, so
that connections to different ones can have the same."""

LOOKUPS: Final = 256
"""Names that are looked up at a time."""

LOOKUPS_OF_ONE: Final = 16
"""Names that are looked up at a time for one client."""

LOOKUPS_BEYOND: Final = 256
"""Names that are looked up beside these, for clients for whom none is: somebody with many networks (a /56 of
IPv6 has 256) may have all others wait for silent servers."""

KNOWN_FOR, NONE_FOR = 5.0, 1.0
"""Seconds for which a name's addresses are remembered, and that it has none."""

MAX_NAME: Final = 255
"""Bytes of a name that can have an address (RFC 1035 section 2.3.4)."""

REMEMBERED: Final = 1 << 12
"""Names that are remembered."""

KEPT_FOR: Final = 60.0
"""Seconds that a connection is kept."""

MOST: Final = 1 << 13
"""Connections that are kept at a time, or a quarter of the files that may be open; the longest makes room."""

MOST_HANDSHAKES: Final = 1 << 23
"""Bytes of origins' handshakes that are kept with them: of certificates OpenSSL makes ten times as many."""

MOST_OF_ONE: Final = 32
"""Connections kept to one origin."""

logger = logging.getLogger("urlward")

type Address = tuple[Any, ...]
"""Socket address: host and port, and for IPv6 what else the socket module needs."""


class Resolver:
    """Name lookup through the system's resolver.

    A name whose server is silent keeps its thread for half a minute, so no client has many at a time, and
    clients take turns.

    Args:
        clock: seconds that do not go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: TLRUCache[tuple[str, int], list[Address]] = TLRUCache(
            REMEMBERED, lambda _, found, now: now + (KNOWN_FOR if found else NONE_FOR), timer=clock
        )
        self._threads = Threads(
            _find,
            "urlward-lookup",
            keep=self._known.__setitem__,
            threads=LOOKUPS,
            of_one=LOOKUPS_OF_ONE,
            beyond=LOOKUPS_BEYOND,
        )

    def look_up(self, host: str, port: int, client: str, done: Callable[[Sequence[Address]], None]) -> Waiter:
        """Look a name up.

        Args:
            host: the name.
            port: of the addresses.
            client: for whom: an IP address; its network is a client, which may have any number of them.
            done: is given them later, the two families by turns, in the order in which they are to be
                tried; none where the name has none.
        """
        key = host, port
        known = self._known.get(key) if len(host) <= MAX_NAME else []
        if known is None:
            asked = self._threads.ask(network_of(client), key, done)
            assert asked is not None  # of those who may wait there is no bound
            return asked
        lookup = Waiter(done)
        asyncio.get_running_loop().call_soon(lookup.tell, known)
        return lookup


def literal_address(host: str, port: int) -> Address | None:
    """The address that a host is, if it is an IP address."""
    if not host or as_address(host) != host:
        return None  # or with a zone, which the resolver knows
    return (host, port, 0, 0) if ":" in host else (host, port)


def _find(name: tuple[str, int]) -> list[Address]:
    host, port = name
    if "\0" in host:
        return []  # the resolver would look up what stands before it
    try:
        found = socket.getaddrinfo(host.encode("latin-1"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, MemoryError):  # or the thread would end, and all that wait wait on
        return []
    by_family: dict[int, list[Address]] = {}
    for family, _, _, _, address in dict.fromkeys(found):
        by_family.setdefault(family, []).append(address)
    turns = chain.from_iterable(zip_longest(*by_family.values()))
    return [address for address in turns if address is not None][:MOST_ADDRESSES]


def _has_source(family: int, address: Address) -> bool:
    """Whether this machine has an address to reach another from: what it lacks is a free port then."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            return not probe.connect_ex(address)
    except OSError:
        return False


@dataclass(eq=False, slots=True)
class Opening:
    """Connection attempt to an origin.

    Args:
        poller: tells when an address has answered.
        share: the client's, for whom that is.
        addresses: to try in this order, at least one.
        done: is given the socket, registered with the poller for writing, or why there is none; not called
            any more after `cancel`.
        short: told of a shortage: of descriptors or memory, to make room, or of ports (EADDRNOTAVAIL).
        local: address to connect from, or empty.
        foreign: whether that is not this machine's but the client's.
    """

    _poller: Poller
    _share: Share
    _addresses: Sequence[Address]
    _done: Callable[[socket.socket | None, OSError | None], None] | None
    _short: Callable[[OSError], object]
    _local: str = ""
    _foreign: bool = False
    _pending: dict[int, socket.socket] = field(default_factory=dict)
    _error: OSError | None = None
    _timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Give up the attempt."""
        self._done = None
        self._end()

    def add(self, addresses: Sequence[Address]) -> None:
        """Try these, too, beside those that have yet to answer."""
        self._addresses = [*self._addresses, *addresses]
        if self._timer is None and self._addresses:
            self.start()

    def start(self) -> None:
        """Try the next address; `done` may be called at once."""
        self._timer = None
        while self._addresses and self._done is not None:
            address, *self._addresses = self._addresses
            if self._connect(address):
                if self._addresses and self._done is not None:
                    self._timer = asyncio.get_running_loop().call_later(STAGGER, self.start)
                return
        if not self._pending:
            self._finish(None)

    def _connect(self, address: Address) -> bool:
        """Start connecting; returns whether that is under way or done."""
        try:
            family = socket.AF_INET6 if len(address) > 2 else socket.AF_INET
            try:
                one = _within_limit(family)
            except OSError as e:
                if not is_shortage(e):
                    raise
                self._short(e)  # makes room
                one = _within_limit(family)
        except OSError as e:
            self._error = e
            return False
        if self._done is None:
            one.close()  # room was made by this client
            return False
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._foreign:
                make_transparent(one)
            if self._local:
                one.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                one.bind((self._local, 0))
            code = one.connect_ex(address)
        except OSError as e:
            self._error = e
            one.close()
            return False
        if code not in (0, errno.EINPROGRESS):
            self._error = OSError(code, os.strerror(code))
            one.close()
            if code == errno.EADDRNOTAVAIL and (self._local or _has_source(family, address)):
                self._short(self._error)
            return False
        self._pending[one.fileno()] = one
        self._poller.watch(one.fileno(), WRITE, lambda _: self._answered(one), self._share)
        return True

    def _answered(self, one: socket.socket) -> None:
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            try:
                one.getpeername()
            except OSError:
                return  # under way: told of what had its number before, which a child may yet hold
        if self._pending.pop(one.fileno(), None) is None:
            self._close(one)  # whoever was given it has failed, and would be told of it for ever
            return
        if not code:
            self._finish(one)
            return
        self._error = OSError(code, os.strerror(code))
        self._close(one)
        if self._timer is not None:
            self._timer.cancel()
        self.start()

    def _close(self, one: socket.socket) -> None:
        self._poller.closes(one.fileno())
        one.close()

    def _finish(self, one: socket.socket | None) -> None:
        done, self._done = self._done, None
        error = self._error
        self._end()
        if done is not None:
            done(one, error)
        elif one is not None:
            self._close(one)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._addresses = ()
        self._error = None  # whose traceback refers to this
        for one in self._pending.values():
            self._close(one)
        self._pending.clear()


def _within_limit(family: int) -> socket.socket:
    """Create a socket whose descriptor is none of those reserved for other things.

    Raises:
        OSError: there is none.
    """
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if one.fileno() >= enough(origins=True):
        one.close()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return one


class Pool:
    """Pool of idle connections to origins.

    Args:
        most: how many those may be.

    Attributes:
        active: nothing is made of it; connections set it on their owner.
        share: of nobody.
    """

    __slots__ = ("_by_key", "_handshakes", "_most", "_since", "active", "share")

    def __init__(self, most: int = MOST) -> None:
        self._handshakes = 0
        self.active = 0.0
        self.share = Share(nobodys=True)
        self._most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._by_key: dict[object, list[Connection]] = {}
        self._since: dict[Connection, tuple[object, float, int]] = {}
        """The longest first, with the bytes of their handshakes."""

    def __len__(self) -> int:
        return len(self._since)

    def keep(self, key: object, connection: Connection) -> None:
        """Add a connection that has nothing under way.

        Args:
            key: the same of those that lead to the same origin.
            connection: it.
        """
        is_large = connection.tls is not None and connection.tls.is_large
        if (
            not connection.open
            or connection.waiting
            or is_large
            or len(self._by_key.get(key, ())) >= MOST_OF_ONE
        ):
            connection.abort()
            return
        # Nothing is asked of it: whatever it says, it is of no use any more.
        connection.belong(self)
        connection.receive, connection.ended = connection.spoil, connection.abort
        self._by_key.setdefault(key, []).append(connection)
        handshake = connection.tls.handshake if connection.tls is not None else 0
        self._handshakes += handshake
        self._since[connection] = key, time.monotonic(), handshake
        while len(self._since) > self._most or self._handshakes > MOST_HANDSHAKES:
            self._close(next(iter(self._since)))

    def take(self, key: object) -> Connection | None:
        """The most recently used connection of these, if there is one that leads anywhere."""
        while some := self._by_key.get(key):
            connection = some[-1]
            rested = time.monotonic() - self._since[connection][1]
            self._part_with(connection)
            if not connection.open:
                continue
            if rested <= FRESH or connection.has_address:
                return connection
            connection.abort()
        return None

    def clear(self, most: int | None = None) -> int:
        """Close all connections, or so many, longest idle first; returns how many."""
        closing = list(islice(self._since, most))
        for connection in closing:
            self._close(connection)
        return len(closing)

    def expire(self, now: float) -> None:
        """Close connections that have been idle for too long; called every few seconds.

        Args:
            now: seconds on a clock that does not go back.
        """
        for connection, (_, since, _) in list(self._since.items()):
            if now - since < KEPT_FOR:
                return
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._part_with(connection)
        connection.abort()

    def _part_with(self, connection: Connection) -> None:
        key, _, handshake = self._since.pop(connection)
        self._handshakes -= handshake
        some = self._by_key[key]
        some.remove(connection)
        if not some:
            del self._by_key[key]

    # -- what the connections say (`urlward.proxy.connection.Owner`)

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        logger.error("%s at a connection at rest", type(error).__name__)
        self.clear()

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        connection.forget()
        if connection in self._since:
            self._part_with(connection)
