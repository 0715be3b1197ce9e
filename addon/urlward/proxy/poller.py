"""Which sockets of the data path can be read or written: an epoll of their own inside the event loop's.

asyncio makes a handle for each registration and runs each event in a context of its own, which is more than
all else that a new connection costs. Here an event is one look into a table, and one call.
"""

import asyncio
import select
from collections.abc import Callable
from time import perf_counter
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

_ENDS: Final = select.EPOLLHUP | select.EPOLLERR
CAN_READ: Final = READ | _ENDS
"""Events after which reading tells more."""

CAN_WRITE: Final = WRITE | _ENDS
"""Events after which writing tells more."""

_AT_ONCE: Final = 256
"""Events that are seen to before the event loop goes on with others."""

_TURN: Final = 0.02
"""Seconds after which it does so in any case."""


class Poller:
    """Tells of sockets.

    Args:
        loop: the event loop.

    Attributes:
        loop: likewise.
    """

    __slots__ = ("_epoll", "_told", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[int], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._run)

    def watch(self, fd: int, events: int, tell: Callable[[int], None]) -> None:
        """Begin to tell of a socket.

        Args:
            fd: the socket's.
            events: `READ`, `WRITE`, or both; ends and errors are told of in any case.
            tell: is given the events.
        """
        self._epoll.register(fd, events)
        self._told[fd] = tell

    def change(self, fd: int, events: int) -> None:
        """Tell of other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Tell no more of a socket, which is not closed yet."""
        self._epoll.unregister(fd)
        del self._told[fd]

    def _run(self) -> None:
        told = self._told
        until = perf_counter() + _TURN
        # Who is meant is found first: what one does may close another, and its number be that of a third.
        for fd, events, tell in [(fd, events, told[fd]) for fd, events in self._epoll.poll(0, _AT_ONCE)]:
            if told.get(fd) is tell:
                try:
                    tell(events)
                except Exception as e:  # noqa: BLE001 - as asyncio does: one must not keep the others waiting
                    self.loop.call_exception_handler({"message": "a socket of the data path", "exception": e})
            if perf_counter() > until:
                return  # the kernel tells of the rest again
