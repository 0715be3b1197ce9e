"""Live exchanges and request heads: judged again when the lists change, and ended when they last too long.

A stream that began before its page was listed would go on for hours. So whatever is under way keeps
the names that it passed under, and after a reload is judged again by them; what is listed now is cut.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from urlward.proxy.guard import Guard
from urlward.proxy.names import Client, Names
from urlward.records.privacy import network_of

TICK = 5.0
"""Seconds between two looks at everything that is under way."""

HEAD_TIMEOUT = 60.0
"""Seconds that a request head may take to come in."""

_SLICE = 0.002
_COMPARED = 512
"""Connections of a client network of which some are closed for want of room."""

logger = logging.getLogger("urlward")


class Member:
    """Exchange under way: a connection, or a stream of one; by itself one that is over when it is no member
    any more, has its time limits elsewhere, and ends with the process.

    Attributes:
        client: whose it is.
    """

    __slots__ = ()

    client: Client

    def live(self) -> Iterable[Names]:
        """The names that the exchanges under way passed under."""
        return ()

    def head(self) -> int | None:
        """The request head that has begun and not ended, if there is one."""
        return None

    def idle(self) -> bool:
        """Whether nothing is under way, so that closing disturbs nobody."""
        return False

    def progress(self) -> float:
        """Bytes a second that have gone either way; infinite where that is not known."""
        return inf

    def may_read(self) -> bool:
        """Whether nothing but a client's being slowed keeps more from being read of it."""
        return True

    def touch(self, now: float) -> None:
        """Check time limits; called every few seconds.

        Args:
            now: seconds on a clock that does not go back.
        """

    def leave(self) -> None:
        """Accept nothing more, where the protocol can say so, and end with what is under way."""

    def cut(self) -> None:
        """Close the connection at once."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class _Network:
    """Connections of one client network.

    Attributes:
        clients: its connections, the oldest first, with their members.
        held: how many members those are, nearly each of which has a connection to an origin.
    """

    clients: dict[Client, dict[int, Member]] = field(default_factory=dict)
    held: int = 0


class Live:
    """Registry of all exchanges under way."""

    def __init__(self) -> None:
        self._networks: dict[str, _Network] = {}
        self._heads: dict[int, tuple[Member, int, float]] = {}
        self._told: dict[int, Names] = {}
        """Listed exchanges that go on, since nothing is blocked: logged once, not at each reload."""

    def __iter__(self) -> Iterator[Member]:
        for network in list(self._networks.values()):
            for members in list(network.clients.values()):
                yield from list(members.values())

    async def _in_turns(self) -> AsyncIterator[Member]:
        """All members, while others have their turns."""
        until = time.monotonic() + _SLICE
        for member in self:
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + _SLICE
            yield member

    @property
    def exchanges(self) -> int:
        """Number of members."""
        return sum(network.held for network in self._networks.values())

    def add(self, member: Member) -> None:
        """Add a member."""
        client = member.client
        name = network_of(client.peername[0])
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = _Network()
        members = network.clients.get(client)
        if members is None:
            members = network.clients[client] = {}
        if id(member) not in members:
            network.held += 1
        members[id(member)] = member

    def discard(self, member: Member) -> None:
        """Remove a member, if it is there."""
        self._part_with(member.client, id(member))

    def clients(self) -> set[str]:
        """Ids of the connections that have members."""
        return {client.id for network in self._networks.values() for client in network.clients}

    def of(self, client: Client) -> list[Member]:
        """Members of one connection."""
        network = self._networks.get(network_of(client.peername[0]))
        return list(network.clients.get(client, {}).values()) if network is not None else []

    def forget(self, client: Client) -> None:
        """Remove all members of a connection that has ended."""
        self._part_with(client, *map(id, self.of(client)))

    def _part_with(self, client: Client, *gone: int) -> None:
        """Remove members of a connection, by their ids, as far as they are there."""
        for number in gone:
            self._heads.pop(number, None)  # or its memory, as of TLS, would be held until the next look
        name = network_of(client.peername[0])
        network = self._networks.get(name)
        members = network.clients.get(client) if network is not None else None
        if network is None or members is None:
            return
        network.held -= sum(members.pop(number, None) is not None for number in gone)
        if not members:
            del network.clients[client]
            if not network.clients:
                del self._networks[name]

    async def recheck(self, guard: Guard) -> int:
        """Judge everything under way again, and cut what is listed; returns how many were cut."""
        cut = 0
        told: dict[int, Names] = {}
        async for member in self._in_turns():
            try:
                if self._is_cut(member, guard, told):
                    cut += 1
                    member.cut()
            except Exception as e:  # noqa: BLE001 - one that cannot be looked at must not hide the others
                guard.broken(e, member.client)
        self._told = told
        return cut

    def _is_cut(self, member: Member, guard: Guard, told: dict[int, Names]) -> bool:
        for names in member.live():
            review = guard.review(names, member.client, told=id(names) in self._told)
            if review == "cut":
                return True
            if review == "told":
                told[id(names)] = names  # kept, so that no other comes to have this number
        return False

    async def look_after(self) -> None:
        """End what takes too long, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            await self.tick(time.monotonic())

    async def tick(self, now: float) -> None:
        """Check all members once.

        Args:
            now: seconds on a clock that does not go back.
        """
        heads: dict[int, tuple[Member, int, float]] = {}
        async for member in self._in_turns():
            try:
                member.touch(now)
                head = member.head()
                if head is not None:
                    # Kept with the member, so that no other comes to have its number.
                    of, known, since = self._heads.get(id(member), (member, head, now))
                    since = since if of is member and known == head else now
                    if now - since >= HEAD_TIMEOUT:
                        member.cut()
                    else:
                        heads[id(member)] = member, head, since
            except Exception as e:  # noqa: BLE001 - as above
                logger.error("%s in looking after a connection", type(e).__name__)
        self._heads = heads

    def close_idle(self) -> int:
        """Close what is idle, have the rest accept nothing more; returns how many connections remain."""
        busy = set()
        for member in self:
            member.leave()
            if member.idle():
                member.cut()
            else:
                busy.add(member.client)
        return len(busy)

    def make_room(self, connections: int) -> int:
        """Close some connections of the client networks that have most; how many that is.

        Those at rest go first, the oldest first, of the network with most and then of others that have a
        quarter as many at least; where there are none, a sixteenth of what that network has, those which get
        on least: who has most makes the room for all.

        Args:
            connections: that are closed at most, of those at rest; or a sixteenth of that network's.
        """
        networks = sorted(self._networks.values(), key=lambda network: network.held, reverse=True)
        if not networks:
            return 0
        most = networks[0]
        part = max(most.held // 16, 1)
        wanted = max(connections, part)
        closing: list[Client] = []
        for network in networks:
            if len(closing) >= wanted or network.held * 4 < most.held:
                break
            some = _some(list(network.clients), max(_COMPARED, 2 * wanted))
            at_rest = (one for one in some if all(member.idle() for member in network.clients[one].values()))
            closing += islice(at_rest, wanted - len(closing))
        if not closing:
            some = _some(list(most.clients), max(_COMPARED, 2 * part))
            some.sort(key=lambda one: min(member.progress() for member in most.clients[one].values()))
            closing = some[:part]
        for client in closing:
            for member in self.of(client):
                member.cut()
            self.forget(client)  # who asks again before they are gone is to close others
        return len(closing)


def _some(clients: list[Client], number: int) -> list[Client]:
    """All of these in their order, or so many at random."""
    return clients if len(clients) <= number else random.sample(clients, number)
