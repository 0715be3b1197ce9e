"""The exchanges under way: asked again when the lists change, and kept from lasting without end.

A stream that began before its page was listed would go on for hours. So whatever is under way keeps
the names that it passed under, and after a reload is judged again by them; what is listed now is cut.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Protocol

from urlward.proxy.guard import Guard
from urlward.proxy.names import Client, Names

TICK = 5.0
"""Seconds between two looks at everything that is under way."""

HEAD_TIMEOUT = 60.0
"""Seconds that a request head may take to come in."""

QUIET = 10.0
"""Seconds after which what is under way may be closed for want of room."""

_SLICE = 0.002

logger = logging.getLogger("urlward")


class Member(Protocol):
    """A connection, or a stream of one."""

    @property
    def client(self) -> Client:
        """Whose."""

    def live(self) -> Iterable[Names]:
        """What is under way."""

    def head(self) -> int | None:
        """Which request's head has begun and not ended, if one has."""

    def idle(self) -> bool:
        """Whether nothing is under way, so that closing disturbs nobody."""

    def quiet(self, now: float) -> float:
        """Seconds for which nothing has come either way; 0 where that is not known."""

    def may_read(self) -> bool:
        """Whether nothing but a client's being slowed keeps more from being read of it."""

    def touch(self, now: float) -> None:
        """See to time limits; called every few seconds.

        Args:
            now: seconds on a clock that does not go back.
        """

    def leave(self) -> None:
        """Take nothing more, where the client can be told so, and end with what is under way."""

    def cut(self) -> None:
        """Close the connection at once."""


class Live:
    """All members."""

    def __init__(self) -> None:
        self._members: dict[Client, dict[int, Member]] = {}
        self._heads: dict[int, tuple[Member, int, float]] = {}
        self._told: dict[int, Names] = {}
        """What is listed and goes on, since nothing is blocked: said once, not at each reload."""

    def __iter__(self) -> Iterator[Member]:
        for members in list(self._members.values()):
            yield from list(members.values())

    def add(self, member: Member) -> None:
        """Take a member in."""
        self._members.setdefault(member.client, {})[id(member)] = member

    def discard(self, member: Member) -> None:
        """Let it go, if it is there."""
        members = self._members.get(member.client)
        if members is not None:
            members.pop(id(member), None)
            if not members:
                del self._members[member.client]

    def clients(self) -> set[str]:
        """Ids of the connections that have members."""
        return {client.id for client in self._members}

    def of(self, client: Client) -> list[Member]:
        """A connection's members."""
        return list(self._members.get(client, {}).values())

    def forget(self, client: Client) -> None:
        """Let all members of a connection go that has ended."""
        self._members.pop(client, None)

    async def recheck(self, guard: Guard) -> int:
        """Judge everything under way again, and cut what is listed; how many that is."""
        cut = 0
        told: dict[int, Names] = {}
        until = time.monotonic() + _SLICE
        for member in self:
            try:
                if self._is_cut(member, guard, told):
                    cut += 1
                    member.cut()
            except Exception as e:  # noqa: BLE001 - one that cannot be looked at must not hide the others
                guard.broken(e, member.client)
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + _SLICE
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
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """One look.

        Args:
            now: seconds on a clock that does not go back.
        """
        heads: dict[int, tuple[Member, int, float]] = {}
        for member in self:
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
        """Close what is at rest, and have the rest take nothing more; how many connections those are."""
        busy = set()
        for member in self:
            member.leave()
            if member.idle():
                member.cut()
            else:
                busy.add(member.client)
        return len(busy)

    def make_room(self, connections: int, now: float) -> int:
        """Close some that are at rest, those that have been longest first; how many that is.

        Where too few are, a part of those that the client with the most has, the quietest first: who opens
        connections and lets them wait keeps nobody else out.
        """
        closed = 0
        for member in self:
            if closed == connections:
                return closed
            if member.idle():
                member.cut()
                closed += 1
        by_address: dict[str, list[tuple[float, Member]]] = {}
        for member in self:
            quiet = member.quiet(now)
            if quiet >= QUIET:
                by_address.setdefault(str(member.client.peername[0]), []).append((quiet, member))
        most = max(by_address.values(), key=lambda quiet: len(quiet), default=[])
        most.sort(key=itemgetter(0), reverse=True)
        for _, member in most[: max(connections - closed, len(most) // 16)]:
            member.cut()
            closed += 1
        return closed
