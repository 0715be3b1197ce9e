"""Turns between client networks, where mitmproxy carries their connections.

mitmproxy handles what is read of a connection as it comes, in a millisecond or so, and so what is read of a
thousand before what comes behind that. Here each network has one thing handled in a round of the event loop:
a connection begun, something read, or an answer of the filter's own sent. What else there is waits, and no
more is read of its connections than their buffers hold.

What is read may be a thousand requests, chunks or fields of a few bytes each, which take a hundred times as
long as the same bytes of a file. So it is not much at a time, and of a network of which something took long
it is little, until it has sent or been sent a good deal that took none: the more, the more often it was so
lately. Where there are others, such a network rests for as long as that took. What takes as long as its
bytes are many, whatever they are, is read in greater pieces: by twice as many of them a download takes a
quarter more of the processor.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

from urlward.proxy.mitm import ConnectionHandler, time_events
from urlward.proxy.names import Client
from urlward.records.privacy import network_of

_ALONE = 16
"""Turns in a round of a network that is the only one: a round in itself costs a tenth of a request."""


_MOST = 1 << 15
"""Bytes that are read at a time; chunks of a byte, these take a fifth of a second."""

_MUCH = 1 << 16
"""Bytes that are read at a time of what is only passed on. mitmproxy asks for one less, and of what a reader
holds, twice this, two bytes stay for a read of their own."""

_BEFORE = 4 * _MOST
"""Bytes of a body that may have been read before its length was told."""

_LITTLE = 1 << 11
"""The same of a network of which something took long lately."""

LONG = 0.01
"""Seconds that are long; where little is read, a third of it."""

_LATELY = 60.0
"""Seconds for which little is read then, at most."""

_ENOUGH = 1 << 18
"""Bytes that are read so for the first time, and twice as many for each time more."""

_MOST_DOUBLED = 10

_MOST_REST = 0.1
_A_WHILE = 1.0
"""Seconds after which a network counts as the only one."""

_NETWORKS = 1_000
"""Networks from which on those are forgotten that count no more."""


@dataclass
class _Slow:
    """Network of which something took long lately.

    Attributes:
        until: when it counts no more as such.
        times: how often something did.
        left: bytes of which little is read at a time.
    """

    until: float
    times: int
    left: int


class Turns:
    """Gives client networks turns: one of each in a round, several of one that is alone."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By networks that have had their turn in this round, or rest."""
        self._slow: dict[str, _Slow] = {}
        self._rests: dict[str, float] = {}
        """Until when they rest."""
        self._last = ""
        """Network that was here last."""
        self._others = -inf
        """When that was another than before."""
        self._round: asyncio.Handle | None = None
        """The next round, if there is one."""

    async def wait(self, client: Client) -> None:
        """Wait for a turn of a client's network: for none where it has not had one in this round."""
        loop, network, now = asyncio.get_running_loop(), network_of(client.peername[0]), perf_counter()
        if network != self._last:
            self._last, self._others = network, now
        rests = self._rests.get(network, 0.0) > now
        if self._round is None or not rests:
            self._soon()
        waiting = self._waiting.get(network)
        if waiting is None:
            waiting = self._waiting[network] = deque()
            if not rests:
                return
        turn = loop.create_future()
        waiting.append(turn)
        await turn

    def size(self, client: Client) -> int:
        """How many bytes are read at a time of a client's connections."""
        return _LITTLE if self._slow and self._is_slow(network_of(client.peername[0])) else _MOST

    def read(self, client: Client, size: int) -> None:
        """Take note of how many bytes were read."""
        if self._slow and (slow := self._slow.get(network_of(client.peername[0]))) is not None:
            slow.left -= size

    def took(self, client: Client, seconds: float) -> None:
        """Take note of how long it took to handle something of a client."""
        if seconds < LONG / 3:
            return
        network, now = network_of(client.peername[0]), perf_counter()
        if seconds < LONG and not self._is_slow(network):
            return
        if len(self._slow) > _NETWORKS:
            self._slow = {one: slow for one, slow in self._slow.items() if slow.until > now}
            self._rests = {one: until for one, until in self._rests.items() if until > now}
        last = self._slow.get(network)
        times = last.times + 1 if last is not None and last.until > now else 0
        self._slow[network] = _Slow(now + _LATELY, times, _ENOUGH << min(times, _MOST_DOUBLED))
        if now - self._others < _A_WHILE:
            self._rests[network] = now + min(seconds, _MOST_REST)

    def _is_slow(self, network: str) -> bool:
        slow = self._slow.get(network)
        return slow is not None and slow.left > 0 and slow.until > perf_counter()

    def _soon(self) -> None:
        """Have the next round at once."""
        if isinstance(self._round, asyncio.TimerHandle):
            self._round.cancel()
            self._round = None
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._round = None
        now, soonest = perf_counter(), inf
        alone = len(self._waiting) == 1
        for network, waiting in list(self._waiting.items()):
            if (rest := self._rests.get(network, 0.0) - now) > 0 and waiting:
                soonest = min(soonest, rest)
                continue
            given, turns = 0, _ALONE if alone and not self._is_slow(network) else 1
            while waiting and given < turns:
                turn = waiting.popleft()
                if not turn.done():  # else its connection has been closed meanwhile
                    turn.set_result(None)
                    given += 1
            if given:
                soonest = 0.0
            else:
                del self._waiting[network]
        if not soonest:
            self._soon()
        elif self._waiting:
            self._round = asyncio.get_running_loop().call_later(soonest, self._next_round)


class InTurn:
    """Reader of a connection, each of whose reads waits for a turn.

    Args:
        reader: mitmproxy's.
        turns: gives them.
        client: whose turns they are.
    """

    even: float = 0
    """Bytes to come that take as long as they are many, whatever they are."""

    def __init__(self, reader: Any, turns: Turns, client: Client) -> None:
        self._reader = reader
        self._turns = turns
        self._client = client

    async def read(self, size: int) -> bytes:
        """Read, and wait for a turn; the end comes in one as well."""
        most = self._turns.size(self._client)
        # Of TLS more than a body may be in what is read, such as updates of keys alone.
        most = _MUCH if self.even >= _MUCH and most == _MOST else min(size, most)
        data: bytes = await self._reader.read(most)
        self.even -= len(data)
        self._turns.read(self._client, len(data))
        await self._turns.wait(self._client)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def take_turns(handler: ConnectionHandler, connection: Any, turns: Turns) -> None:
    """Have what is read of a connection, a client's or an origin's, wait for the client's turns."""
    io = handler.transports.get(connection)
    if io is not None and io.reader is not None:
        io.reader = InTurn(io.reader, turns, handler.client)  # type: ignore[assignment]


def measure(handler: ConnectionHandler, turns: Turns) -> None:
    """Have turns take note of how long it takes to handle what is read of a client, or for it."""
    time_events(handler, lambda seconds: turns.took(handler.client, seconds))


def read_much(handler: ConnectionHandler | None, *, servers: float, client: float | None = None) -> None:
    """Have much read at a time of what takes as long as it has bytes, until that ends.

    Args:
        handler: of the client's connection.
        servers: bytes to come from origins, of a body whose head was read last; or infinite.
        client: the same from the client; None for no change.
    """
    if handler is None:
        return
    for connection, io in handler.transports.items():
        length = client if connection is handler.client else servers
        if length is not None and isinstance(io.reader, InTurn):
            io.reader.even = length - _BEFORE
