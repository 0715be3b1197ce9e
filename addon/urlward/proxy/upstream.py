"""Reaching an origin: looking its name up, and connecting to the first of its addresses that answers."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

from urlward.proxy.listeners import make_transparent
from urlward.proxy.poller import WRITE, Poller

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside those that have not answered yet (RFC 8305 section 5)."""

MOST_ADDRESSES: Final = 8
"""Addresses of a name that are tried."""

_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT (ip(7)), for both families: connect() chooses the port, which knows the origin, so
that connections to different ones can have the same."""

LOOKUPS: Final = 64
"""Names that are looked up at a time; one whose server is silent takes a thread for half a minute."""

type Address = tuple[Any, ...]
"""As the socket module has it: host and port, and for IPv6 what else it needs."""


class Lookup:
    """A name that is being looked up.

    Args:
        done: is given its addresses; not called any more after `cancel`.
    """

    __slots__ = ("done",)

    def __init__(self, done: Callable[[Sequence[Address]], None]) -> None:
        self.done: Callable[[Sequence[Address]], None] | None = done

    def cancel(self) -> None:
        """Have nobody be told."""
        self.done = None


class Resolver:
    """Looks names up, by the system's resolver.

    Each lookup has a thread, and those who ask for the same share one. The threads are daemons, since the
    resolver cannot be interrupted: an end waits for none of them.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], list[Lookup]] = {}
        self._asked: SimpleQueue[tuple[str, int, asyncio.AbstractEventLoop]] = SimpleQueue()
        self._threads = 0

    def look_up(self, host: str, port: int, done: Callable[[Sequence[Address]], None]) -> Lookup:
        """Look a name up.

        Args:
            host: the name.
            port: of the addresses.
            done: is given them later, the two families by turns, in the order in which they are to be
                tried; none where the name has none.
        """
        lookup = Lookup(done)
        others = self._waiting.setdefault((host, port), [])
        others.append(lookup)
        if len(others) == 1:
            self._asked.put((host, port, asyncio.get_running_loop()))
            if self._threads < min(len(self._waiting), LOOKUPS):
                self._threads += 1
                Thread(target=self._run, name="urlward-lookup", daemon=True).start()
        return lookup

    def _run(self) -> None:
        while True:
            host, port, loop = self._asked.get()
            wanted = any(lookup.done is not None for lookup in list(self._waiting.get((host, port), ())))
            found = _find(host, port) if wanted else []
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._tell, host, port, found)

    def _tell(self, host: str, port: int, found: list[Address]) -> None:
        for lookup in self._waiting.pop((host, port), ()):
            if lookup.done is not None:
                lookup.done(found)


def literal_address(host: str, port: int) -> Address | None:
    """The address that a host is, if it is an IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)  # none with a zone, which the resolver knows
    except (OSError, ValueError):
        return None
    return (host, port) if family is socket.AF_INET else (host, port, 0, 0)


def _find(host: str, port: int) -> list[Address]:
    if "\0" in host:
        return []  # the resolver would look up what stands before it
    try:
        found = socket.getaddrinfo(host.encode("latin-1"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    by_family: dict[int, list[Address]] = {}
    for family, _, _, _, address in dict.fromkeys(found):
        by_family.setdefault(family, []).append(address)
    turns = chain.from_iterable(zip_longest(*by_family.values()))
    return [address for address in turns if address is not None][:MOST_ADDRESSES]


class Opening:
    """A connection to an origin that is being opened.

    Args:
        poller: tells when an address has answered.
        addresses: to try in this order, at least one.
        done: is given the socket, or why there is none; not called any more after `cancel`.
        local: address to connect from, or empty.
        foreign: whether that is not this machine's but the client's.
    """

    __slots__ = ("_addresses", "_done", "_error", "_foreign", "_local", "_pending", "_poller", "_timer")

    def __init__(
        self,
        poller: Poller,
        addresses: Sequence[Address],
        done: Callable[[socket.socket | None, OSError | None], None],
        local: str = "",
        *,
        foreign: bool = False,
    ) -> None:
        self._poller = poller
        self._foreign = foreign
        self._addresses = list(reversed(addresses))
        self._done: Callable[[socket.socket | None, OSError | None], None] | None = done
        self._local = local
        self._pending: dict[int, socket.socket] = {}
        self._error: OSError | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Try the first address; `done` may be called at once."""
        self._try_next()

    def cancel(self) -> None:
        """Give up."""
        self._done = None
        self._end()

    def _try_next(self) -> None:
        self._timer = None
        while self._addresses and self._done is not None:
            if self._connect(self._addresses.pop()):
                if self._addresses and self._done is not None:
                    self._timer = self._poller.loop.call_later(STAGGER, self._try_next)
                return
        if not self._pending:
            self._finish(None)

    def _connect(self, address: Address) -> bool:
        """Begin to connect; whether that is under way or done."""
        try:
            one = socket.socket(socket.AF_INET6 if len(address) > 2 else socket.AF_INET, socket.SOCK_STREAM)
        except OSError as e:
            self._error = e
            return False
        try:
            one.setblocking(False)
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
        if code == errno.EINPROGRESS:
            self._pending[one.fileno()] = one
            self._poller.watch(one.fileno(), WRITE, lambda _: self._answered(one))
            return True
        return self._connected(one, code)

    def _answered(self, one: socket.socket) -> None:
        self._poller.forget(one.fileno())
        del self._pending[one.fileno()]
        if not self._connected(one, one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            if self._timer is not None:
                self._timer.cancel()
            self._try_next()

    def _connected(self, one: socket.socket, code: int) -> bool:
        if code:
            self._error = OSError(code, os.strerror(code))
            one.close()
            return False
        self._finish(one)
        return True

    def _finish(self, one: socket.socket | None) -> None:
        done, self._done = self._done, None
        error = self._error
        self._end()
        if done is not None:
            done(one, error)
        elif one is not None:
            one.close()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._addresses.clear()
        self._error = None  # whose traceback refers to this
        for fd, one in self._pending.items():
            self._poller.forget(fd)
            one.close()
        self._pending.clear()
