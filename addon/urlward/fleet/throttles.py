"""Shared throttles: what a client has drawn and guessed counts on all nodes together.

Two things are shared. *Notices* are short messages that all processes of a kind take: a client probes, an
address has guessed a token wrong. Each is sealed with its kind, time and a random number, so that none can be
made, or sent again, without the key; a sorted set has those of the last while by time, for a process that
begins or comes back, and a channel brings them to the others at once. *Draws* are counted in Valkey, where
all that many clients meet in a day would be too much for each process to take: a sorted set for each client,
which has digests of the entries that it has drawn block pages of, by time.

No address is written there: in notices it is sealed, and a set is named by a keyed digest that is another
each day. A set and a notice are over with their window. What is counted here in a process stays what it goes
by while Valkey is away, and is given to Valkey when it is back.

Nothing waits for any of it: the path of traffic leaves a note, and a task sends what has come together.
"""

import asyncio
import logging
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import batched
from typing import Protocol

import msgspec

from urlward.config import ProbingTable
from urlward.engine.digest import derived
from urlward.engine.errors import ArtifactError
from urlward.fleet.connection import CLOCK_SET, FleetConnection

logger = logging.getLogger("urlward.fleet")

GATHER = 0.2
"""Seconds in which draws are gathered."""

A_LOOK = 100
"""Clients of which draws are sent at a time, and notices that are opened at a time."""

MOST_NOTICES = 10_000
"""Notices of a kind that are kept; of more, the oldest go."""

MOST_WAITING = 10_000
"""Draws that wait to be sent; what is more counts in this process alone."""

MOST_CLIENTS = 100_000
"""Clients that have draws in Valkey; of more, those go that have drawn none for longest."""

_DAY = 86_400.0

type Command = Sequence[str | bytes | int | float]


class _Notice(msgspec.Struct, array_like=True, frozen=True):
    kind: str
    at: float
    node: str
    number: str
    text: str


class SharedNotices:
    """Notices of a kind that processes give each other.

    Args:
        connection: of this process.
        kind: of notices.
        window: seconds for which one means something.
        take: is given each that another process has made, once: text, node, and how many seconds ago.
    """

    def __init__(
        self,
        connection: FleetConnection,
        kind: str,
        window: float,
        take: Callable[[str, str, float], None],
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._window = window
        self._take = take
        self._name = connection.name(f"notices-{kind}")
        self._known: OrderedDict[bytes, float] = OrderedDict()
        """Notices as they are sealed, and since when each is known here (`time.monotonic`)."""
        self._unsent: deque[tuple[float, str]] = deque(maxlen=MOST_NOTICES)
        """Notices that were given while Valkey was away, whose clock is then unknown, and when."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = False
        connection.listen(self._name, self._come)
        connection.on_begin(self._begin)

    def tell(self, text: str) -> None:
        """Give a notice; returns at once. Where Valkey is away it goes when that is back."""
        if not self._connection.up:
            self._unsent.append((time.monotonic(), text))
            return
        task = asyncio.get_running_loop().create_task(self._send(*self._sealed(text, 0.0)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sealed(self, text: str, ago: float) -> tuple[float, bytes]:
        """Time of a notice by Valkey's clock, and the notice."""
        connection, at = self._connection, self._connection.now() - ago
        notice = _Notice(self._kind, at, connection.node, os.urandom(6).hex(), text)
        sealed = connection.seal.seal(msgspec.json.encode(notice))
        self._know(sealed)
        return at, sealed

    async def _send(self, at: float, sealed: bytes) -> None:
        since = self._connection.now() - self._window
        await self._connection.ask(
            ("ZADD", self._name, at, sealed),
            ("PUBLISH", self._name, sealed),
            ("ZREMRANGEBYSCORE", self._name, "-inf", since),
            ("ZREMRANGEBYRANK", self._name, 0, -MOST_NOTICES - 1),
            ("EXPIRE", self._name, math.ceil(self._window)),
        )

    def _know(self, sealed: bytes) -> None:
        now = time.monotonic()
        self._known[sealed] = now
        while self._known:
            first = next(iter(self._known))
            # Twice as long, since one that comes from another node is counted from when it came.
            if len(self._known) <= MOST_NOTICES and self._known[first] > now - 2 * self._window:
                return
            del self._known[first]

    def _come(self, sealed: bytes) -> None:
        notice = self._opened(sealed)
        if notice is not None:
            self._taken(sealed, notice)

    def _opened(self, sealed: bytes) -> _Notice | None:
        """Open a notice; None for one that is known, over, or none of this kind."""
        if sealed in self._known:
            return None
        try:
            notice = msgspec.json.decode(self._connection.seal.unseal(sealed), type=_Notice)
        except (ArtifactError, ValueError):
            if not self._said:
                self._said = True
                logger.error("fleet: a notice of another node is not understood (%s)", self._kind)
            return None
        ago = self._connection.now() - notice.at
        return notice if notice.kind == self._kind and -CLOCK_SET < ago < self._window else None

    def _taken(self, sealed: bytes, notice: _Notice) -> None:
        self._know(sealed)
        self._take(notice.text, notice.node, max(self._connection.now() - notice.at, 0.0))

    async def _begin(self) -> None:
        """Take what others have given, and give Valkey what it lacks."""
        unsent, here = [*self._unsent], time.monotonic()
        self._unsent.clear()
        for then, text in unsent:
            self._sealed(text, here - then)
        found = await self._connection.ask(("ZRANGE", self._name, -MOST_NOTICES, -1))
        if found is None:
            return
        there = {*found[0]}
        new = []
        for some in batched(found[0], A_LOOK):
            new += [(one, notice) for one in some if (notice := self._opened(one)) is not None]
            await asyncio.sleep(0)
        for some in batched(sorted(new, key=lambda pair: pair[1].at), A_LOOK):
            for one, notice in some:
                self._taken(one, notice)
            await asyncio.sleep(0)
        for known in [one for one in self._known if one not in there]:
            try:
                notice = msgspec.json.decode(self._connection.seal.unseal(known), type=_Notice)
            except (ArtifactError, ValueError):
                continue
            if self._connection.now() - notice.at < self._window:
                await self._send(notice.at, known)


class Throttle(Protocol):
    """Part of `urlward.proxy.probing.Probing` that is needed; a client is named as in its `Probe`."""

    def drawn(self) -> Iterator[tuple[str, bytes, float]]:
        """What clients have drawn within the window: client, entry, and how many seconds ago."""

    def noticed(self, name: str) -> None:
        """A client draws more than it may."""

    def noticed_elsewhere(self, name: str, node: str, ago: float) -> None:
        """Another process has noticed a client."""


class SharedProbing:
    """Counts of what clients draw, by the processes of all nodes together, and who is noticed.

    Args:
        connection: of this process.
        table: the limits, which are to be the same on all nodes.

    Attributes:
        throttle: counts here, and slows clients; set before `run`.
    """

    def __init__(self, connection: FleetConnection, table: ProbingTable) -> None:
        self.throttle: Throttle | None = None
        self._connection = connection
        self._table = table
        self._notices = SharedNotices(connection, "probing", table.window, self._noticed_elsewhere)
        self._secret = derived(connection.seal.secret, b"urlward drawn")
        self._drawers = connection.name("drawers")
        self._waiting: dict[str, dict[bytes, float]] = {}
        """Draws to be sent, by client: entries, and when each was drawn (`time.monotonic`)."""
        self._number = 0
        self._told: OrderedDict[str, float] = OrderedDict()
        """When each client was told of last (`time.monotonic`)."""
        self._wake = asyncio.Event()
        self._day = -1
        connection.on_begin(self._begin)

    def drew(self, name: str, entry: bytes) -> None:
        """Count a block page that a client was shown; returns at once."""
        if self._number >= MOST_WAITING or not self._connection.up:
            return
        entries = self._waiting.setdefault(name, {})
        self._number += entry not in entries
        entries[entry] = time.monotonic()
        self._wake.set()

    def tell(self, name: str) -> None:
        """Have the others slow a client; returns at once."""
        now = time.monotonic()
        if now - self._told.get(name, float("-inf")) < self._table.window / 4:
            return
        self._told[name] = now
        self._told.move_to_end(name)
        if len(self._told) > MOST_NOTICES:
            self._told.popitem(last=False)
        self._notices.tell(name)

    async def run(self) -> None:
        """Send what is drawn, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER)
            self._wake.clear()
            waiting, self._waiting, self._number = self._waiting, {}, 0
            if self._day != self._today():
                self._day = self._today()
                await self._offer()
            for some in batched(waiting.items(), A_LOOK):
                await self._send(some)

    def _today(self) -> int:
        return int(self._connection.now() // _DAY)

    async def _begin(self) -> None:
        self._day = self._today()
        await self._offer()

    async def _offer(self) -> None:
        """Give Valkey all that has been drawn here within the window."""
        if self.throttle is None:
            return
        for some in batched(self.throttle.drawn(), A_LOOK):
            draws: dict[str, dict[bytes, float]] = {}
            for name, entry, ago in some:
                draws.setdefault(name, {})[entry] = time.monotonic() - ago
            await self._send([*draws.items()])

    async def _send(self, draws: Sequence[tuple[str, dict[bytes, float]]]) -> None:
        now, here, table = self._connection.now(), time.monotonic(), self._table
        since, commands = now - table.window, list[Command]()
        digests = [self._digest(name) for name, _ in draws]
        for digest, (_, entries) in zip(digests, draws, strict=True):
            key = self._key(digest)
            scored: list[bytes | float] = []
            for entry, at in entries.items():
                scored += (now - (here - at), self._member(digest, entry))
            commands += (
                ("ZADD", key, "GT", *scored),
                ("ZREMRANGEBYSCORE", key, "-inf", since),
                ("ZREMRANGEBYRANK", key, 0, -table.entries - 2),
                ("EXPIRE", key, math.ceil(table.window)),
                ("ZCARD", key),
            )
        scores = [part for digest in digests for part in (now, digest)]
        commands += (
            ("ZADD", self._drawers, "GT", *scores),
            ("ZREMRANGEBYSCORE", self._drawers, "-inf", since),
            ("EXPIRE", self._drawers, math.ceil(table.window)),
            ("ZCARD", self._drawers),
        )
        found = await self._connection.ask(*commands)
        if found is None:
            return
        counts = found[4 : 5 * len(draws) : 5]
        for (name, _), count in zip(draws, counts, strict=True):
            if count > table.entries and self.throttle is not None:
                self.throttle.noticed(name)
        if found[-1] > MOST_CLIENTS:
            await self._make_room(found[-1] - MOST_CLIENTS)

    async def _make_room(self, number: int) -> None:
        found = await self._connection.ask(("ZPOPMIN", self._drawers, number))
        if found is not None and found[0]:
            await self._connection.ask(("UNLINK", *map(self._key, found[0][::2])))

    def _key(self, digest: bytes) -> str:
        return self._connection.name(f"drawn-{digest.hex()}")

    def _digest(self, name: str) -> bytes:
        data = b"%d %s" % (self._day, name.encode("utf-8", "surrogatepass"))
        return blake2b(data, key=self._secret, digest_size=16).digest()

    def _member(self, digest: bytes, entry: bytes) -> bytes:
        return blake2b(digest + entry, key=self._secret, digest_size=8).digest()

    def _noticed_elsewhere(self, name: str, node: str, ago: float) -> None:
        if self.throttle is not None:
            self.throttle.noticed_elsewhere(name, node, ago)
