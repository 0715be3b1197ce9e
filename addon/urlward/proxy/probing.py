"""Probing detection: clients that draw so many block pages that they must be reading the list out.

Counted are different entries, not blocks: a page that loads one listed picture a hundred times is no probe.
Whoever is slowed is slowed in all that they ask for. Were only what is listed to come late, the delay would
tell what is, to whom the block page did not.

The rate is kept by reservations: each thing that is asked for takes the client's next moment, and one
connection waits for it while it is not read from (`urlward.proxy.layers`). Whoever connects takes the moment
of the first request in advance, so that many connections at once gain nothing.

Each worker counts for itself what comes to it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from urlward.config import ProbingTable
from urlward.engine.verdict import Verdict
from urlward.proxy.names import Client
from urlward.records.network import network_of

MAX_DRAWN = 100_000
"""Entries that are remembered in all; of more, those go of the client that has drawn none for longest."""

MAX_SLOWED = 10_000
"""Clients that are slowed at a time."""

MAX_WAIT = 20.0
"""Seconds that a connection may have to wait; one that would have to longer is closed."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Detected probe of the list by a client.

    Attributes:
        client: IPv4 address, or IPv6 network of 64 bits.
        entries: different ones that it drew block pages for, at least.
        window: seconds within which it did.
        slowed: whether it is slowed now.
    """

    client: str
    entries: int
    window: float
    slowed: bool


@dataclass(slots=True)
class _Drawn:
    """Block pages drawn by a client: times by hash of list and entry, the latest last; when last logged."""

    times: dict[int, float] = field(default_factory=dict)
    told: float = float("-inf")


@dataclass(slots=True)
class _Slowed:
    """Slowed client: until when, its next moment, and moments taken in advance."""

    until: float
    next: float
    advance: int = 0


@dataclass(eq=False)
class Probing:
    """Detector of probing clients: counts the entries they draw, and limits the rate of slowed ones.

    Args:
        table: the thresholds.
        alarm: called once for each client and window.
        hold: is to keep a client from being read for some seconds.
        clock: seconds on a clock that does not go back.

    Attributes:
        slowing: whether anybody is slowed. While it is False, nothing else need be asked.
    """

    _table: ProbingTable
    _alarm: Callable[[Probe], None]
    _hold: Callable[[Client, float], None]
    _clock: Callable[[], float] = time.monotonic
    slowing: bool = False
    _drawn: OrderedDict[str, _Drawn] = field(default_factory=OrderedDict)
    _entries: int = 0
    _slowed: dict[str, _Slowed] = field(default_factory=dict)

    def drew(self, client: Client, verdict: Verdict) -> None:
        """Count a block page shown to a client.

        Args:
            client: whose connection it is.
            verdict: of what is listed.
        """
        name, now = network_of(client.peername[0]), self._clock()
        drawn = self._drawn.setdefault(name, _Drawn())
        self._drawn.move_to_end(name)
        times, entry = drawn.times, hash((verdict.list, verdict.entry))
        before = len(times)
        times.pop(entry, None)
        times[entry] = now
        _forget_older(times, now - self._table.window)
        is_probe = len(times) > self._table.entries
        if is_probe:
            del times[next(iter(times))]
        self._entries += len(times) - before
        while self._entries > MAX_DRAWN:
            self._entries -= len(self._drawn.popitem(last=False)[1].times)
        if is_probe:
            self._noticed(name, drawn, now)

    def asked(self, client: Client) -> None:
        """A client asks for something; its connection is held until its next moment, if it is slowed."""
        wait = self._take(client, connects=False)
        if wait:
            self._hold(client, wait)

    def connecting(self, client: Client) -> float:
        """Reserve a slowed client's next moment for the connection it opens.

        Returns:
            Seconds for which nothing is to be read of it. Where they are more than `MAX_WAIT` no moment was
            taken, and the connection is to be closed.
        """
        return self._take(client, connects=True)

    def _take(self, client: Client, *, connects: bool) -> float:
        name, now = network_of(client.peername[0]), self._clock()
        slowed = self._slowed.get(name)
        if slowed is None:
            return 0.0
        if now >= slowed.until:
            del self._slowed[name]
            self.slowing = bool(self._slowed)
            return 0.0
        if slowed.advance and not connects:
            slowed.advance -= 1
            return 0.0
        wait = max(slowed.next - now, 0.0)
        if connects and wait > MAX_WAIT:
            return wait
        slowed.next = now + wait + 1 / self._table.rate
        slowed.advance += connects
        return wait

    def _noticed(self, name: str, drawn: _Drawn, now: float) -> None:
        table = self._table
        if table.slow:
            self._slow(name, now)
        if now - drawn.told >= table.window:
            drawn.told = now
            self._alarm(Probe(name, table.entries + 1, table.window, table.slow))

    def _slow(self, name: str, now: float) -> None:
        until = now + self._table.window
        if name in self._slowed:
            self._slowed[name].until = until
            return
        if len(self._slowed) >= MAX_SLOWED:
            self._slowed = {name: one for name, one in self._slowed.items() if now < one.until}
        if len(self._slowed) < MAX_SLOWED:
            self._slowed[name] = _Slowed(until, now + 1 / self._table.rate)
            self.slowing = True


def _forget_older(times: dict[int, float], oldest: float) -> None:
    while times:
        first = next(iter(times))
        if times[first] > oldest:
            return
        del times[first]
