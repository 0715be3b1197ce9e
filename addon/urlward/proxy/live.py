"""Live exchanges and request heads: judged again when the lists change, and ended when they last too long.

A stream that began before its page was listed would go on for hours. So whatever is under way keeps
the names that it passed under, and after a reload is judged again by them; what is listed now is cut.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, islice
from math import inf

from urlward.proxy.guard import Guard
from urlward.proxy.names import Client, Names
from urlward.records.privacy import network_of

TICK = 5.0
"""Seconds between two looks at everything that is under way."""

HEAD_TIMEOUT = 60.0
"""Seconds that a request head may take to come in."""

_SLICE, _REST = 0.002, 3
"""Seconds before others have their turn, and how many times as long they have after what took longer."""
_ENOUGH = 1.0
"""Seconds that all exchanges of a client network but an attacker's take to be judged again."""
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

    async def recheck(self, guard: Guard, is_current: Callable[[], bool] = lambda: True) -> int:
        """Judge everything under way again, and cut what is listed; returns how many were cut.

        Client networks take turns: of one, a hundred requests on each of its connections may take 30 ms each.

        Args:
            guard: decides.
            is_current: whether what that goes by is still in force; where it is not, those who have very much
                under way are left for the next time.
        """
        cut, told, order = set[Member](), dict[int, Names](), count()
        turns = [(0.0, next(order), _under_way(one, guard)) for one in list(self._networks.values())]
        begun = time.monotonic()
        while turns:
            used, _, under_way = heappop(turns)  # that has had least
            start = now = time.monotonic()
            for member, names in under_way:
                if member not in cut:
                    self._review(member, names, guard, cut, told)
                now = time.monotonic()
                if now - start > _SLICE:
                    heappush(turns, (used + now - start, next(order), under_way))
                    break
            if now - begun > _SLICE:
                # After what takes long, all else has its time.
                await asyncio.sleep(_REST * (now - start) if now - start > 2 * _SLICE else 0)
                begun = time.monotonic()
                if turns and turns[0][0] > _ENOUGH and not is_current():
                    self._told |= told
                    break
        else:
            self._told = told
        return len(cut)

    def _review(
        self, member: Member, names: Names, guard: Guard, cut: set[Member], told: dict[int, Names]
    ) -> None:
        """Judge an exchange again."""
        try:
            review = guard.review(names, member.client, told=id(names) in self._told)
            if review == "told":
                told[id(names)] = names  # kept, so that no other comes to have this number
            elif review == "cut" and _is_under_way(names, member):
                cut.add(member)
                member.cut()
        except Exception as e:  # noqa: BLE001 - one that cannot be looked at must not hide the others
            guard.broken(e, member.client)

    async def look_after(self, pool: Callable[[float], None]) -> None:
        """End what takes too long, until cancelled.

        Args:
            pool: ends connections that are in nobody's use likewise (`urlward.proxy.upstream.Pool.expire`).
        """
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            pool(now)
            await self.tick(now)

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


def _under_way(network: _Network, guard: Guard) -> Iterator[tuple[Member, Names]]:
    """The exchanges of a network, each with what it is a part of."""
    for members in list(network.clients.values()):
        for member in list(members.values()):
            try:
                found = list(member.live())
            except Exception as e:  # noqa: BLE001 - as of `Live.recheck`
                guard.broken(e, member.client)
                continue
            for names in found:
                yield member, names


def _is_under_way(names: Names, member: Member) -> bool:
    """Whether a part of a member still has these names, or has them with an address by now."""
    return any((each.hosts, each.target) == (names.hosts, names.target) for each in member.live())


def _some(clients: list[Client], number: int) -> list[Client]:
    """All of these in their order, or so many at random."""
    return clients if len(clients) <= number else random.sample(clients, number)
