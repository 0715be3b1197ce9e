"""Pacing of a client's connection: for a while nothing is read from it.

What it sends meanwhile waits in the kernel, and then with the client; nothing is kept of it here.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from urlward.proxy.live import Live
from urlward.proxy.mitm import ConnectionHandler, cut_off, is_full, transport_of
from urlward.proxy.names import Client
from urlward.proxy.probing import MAX_WAIT

type Lookup = Callable[[Client], ConnectionHandler | None]


@runtime_checkable
class Paced(Protocol):
    """Member of `Live` that reads its client by itself."""

    def slow(self, *, held: bool) -> None:
        """Stop reading from a slowed client, or go on."""


class Pacer:
    """Pauses reading from clients' connections for a while.

    Args:
        live: knows those that mitmproxy does not carry.
        lookup: finds mitmproxy's handler of the others.
    """

    def __init__(self, live: Live, lookup: Lookup) -> None:
        self._live = live
        self._lookup = lookup
        self._held: dict[Client, asyncio.TimerHandle] = {}

    def hold(self, client: Client, seconds: float) -> None:
        """Read nothing of a client for a while; close its connection where that is more than `MAX_WAIT`."""
        loop = asyncio.get_running_loop()
        if seconds > MAX_WAIT:
            # Not at once: it may be in the midst of being read.
            loop.call_soon(self._cut, client)
            return
        session = self._session(client)
        transport = None if session is not None else self._transport(client)
        if session is None and transport is None:
            return
        if client in self._held:
            self._held[client].cancel()
        if session is not None:
            session.slow(held=True)
        elif transport is not None:
            transport.pause_reading()
        self._held[client] = loop.call_later(seconds, self._release, client)

    def _release(self, client: Client) -> None:
        del self._held[client]
        session = self._session(client)
        if session is not None:
            session.slow(held=False)
            return
        transport = self._transport(client)
        if transport is not None and all(member.may_read() for member in self._live.of(client)):
            transport.resume_reading()

    def _cut(self, client: Client) -> None:
        for member in self._live.of(client):
            member.cut()
        cut_off(self._lookup(client))

    def _session(self, client: Client) -> Paced | None:
        found = (member for member in self._live.of(client) if isinstance(member, Paced))
        return next(found, None)

    def _transport(self, client: Client) -> asyncio.Transport | None:
        """A client's transport, where reading from it is nobody else's to stop or go on with."""
        handler = self._lookup(client)
        # A reader that has stopped by itself, full of what nobody has taken, goes on by itself.
        return None if handler is None or is_full(handler) else transport_of(handler)
