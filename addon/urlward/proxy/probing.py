"""Probing detection: clients that draw so many block pages that they must be reading the list out.

Counted are different entries, not blocks: a page that loads one listed picture a hundred times is no probe.
Whoever is slowed is slowed in all that they ask for. Were only what is listed to come late, the delay would
tell what is, to whom the block page did not.

The rate is kept by reservations: each thing that is asked for takes the client's next moment, and one
connection waits for it while it is not read from (`urlward.proxy.layers`). Whoever connects takes the moment
of the first request in advance, so that many connections at once gain nothing.

Each worker counts for itself what comes to it. With a fleet the workers of all nodes count together as well
(`urlward.fleet.throttles`), and who is noticed by one is slowed by all.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from urlward.config import ProbingTable
from urlward.engine.verdict import Verdict
from urlward.proxy.names import Client
from urlward.records.privacy import network_of

if TYPE_CHECKING:
    from urlward.fleet.throttles import SharedProbing

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
        node: of the fleet that has noticed it; empty for this process.
    """

    client: str
    entries: int
    window: float
    slowed: bool
    node: str = ""


@dataclass(slots=True)
class _Drawn:
    """Block pages drawn by a client: times by list and entry, the latest last; when an alarm was raised."""

    times: dict[bytes, float] = field(default_factory=dict)
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
        shared: the counts of all nodes together; None where this node is alone.

    Attributes:
        slowing: whether anybody is slowed. While it is False, nothing else need be asked.
    """

    _table: ProbingTable
    _alarm: Callable[[Probe], None]
    hold: Callable[[Client, float], None]
    _clock: Callable[[], float] = time.monotonic
    shared: "SharedProbing | None" = None
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
        drawn = self._drawn_by(name)
        times, entry = drawn.times, _entry(verdict)
        before = len(times)
        times.pop(entry, None)
        times[entry] = now
        _forget_older(times, now - self._table.window)
        is_probe = len(times) > self._table.entries
        if is_probe:
            del times[next(iter(times))]
        self._entries += len(times) - before
        self._make_room()
        if self.shared is not None:
            self.shared.drew(name, entry)
        if is_probe:
            self._noticed(name, drawn, now)

    def drawn(self) -> Iterator[tuple[str, bytes, float]]:
        """What clients have drawn within the window: client, entry, and how many seconds ago."""
        now = self._clock()
        for name, drawn in list(self._drawn.items()):
            for entry, at in list(drawn.times.items()):
                if now - at < self._table.window:
                    yield name, entry, now - at

    def noticed(self, name: str) -> None:
        """A client draws more than it may, as all nodes together have counted."""
        self._noticed(name, self._drawn_by(name), self._clock())
        self._make_room()

    def noticed_elsewhere(self, name: str, node: str, ago: float) -> None:
        """Another process of the fleet has noticed a client, and raised the alarm.

        Args:
            name: of the client, as in `Probe`.
            node: of that process.
            ago: seconds since then.
        """
        now = self._clock()
        drawn = self._drawn_by(name)
        drawn.told = max(drawn.told, now - ago)
        self._make_room()
        if self._table.slow and ago < self._table.window and self._slow(name, now - ago):
            self._alarm(Probe(name, self._table.entries + 1, self._table.window, True, node))

    def _drawn_by(self, name: str) -> _Drawn:
        drawn = self._drawn.setdefault(name, _Drawn())
        self._drawn.move_to_end(name)
        return drawn

    def _make_room(self) -> None:
        while max(self._entries, len(self._drawn)) > MAX_DRAWN:
            self._entries -= len(self._drawn.popitem(last=False)[1].times)

    def asked(self, client: Client) -> None:
        """A client asks for something; its connection is held until its next moment, if it is slowed."""
        wait = self._take(client, connects=False)
        if wait:
            self.hold(client, wait)

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
        if self.shared is not None:
            self.shared.tell(name)
        if now - drawn.told >= table.window:
            drawn.told = now
            self._alarm(Probe(name, table.entries + 1, table.window, table.slow))

    def _slow(self, name: str, since: float) -> bool:
        """Slow a client; returns whether it was not slowed before."""
        until, now = since + self._table.window, self._clock()
        slowed = self._slowed.get(name)
        if slowed is not None and now < slowed.until:
            slowed.until = max(slowed.until, until)
            return False
        if len(self._slowed) >= MAX_SLOWED:
            self._slowed = {name: one for name, one in self._slowed.items() if now < one.until}
        if len(self._slowed) >= MAX_SLOWED:
            return False
        self._slowed[name] = _Slowed(until, now + 1 / self._table.rate)
        self.slowing = True
        return True


def _entry(verdict: Verdict) -> bytes:
    """Tells an entry of a list from others, in all processes alike."""
    name = f"{verdict.list}\0{verdict.entry}".encode("utf-8", "surrogatepass")
    return blake2b(name, digest_size=8).digest()


def _forget_older(times: dict[bytes, float], oldest: float) -> None:
    while times:
        first = next(iter(times))
        if times[first] > oldest:
            return
        del times[first]
