"""Waiting room for pieces of work, in turns of the clients' networks.

It has room for a number of connections, of any networks. Where it is full, a network that takes up less of it
than another gets a place of the one that takes up most, so that none keeps the others out.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Final

type Done = Callable[[], None]


class WaitingRoom[Work: Hashable]:
    """Queue of waiting connections, by client network and piece of work.

    Args:
        most: connections that there is room for.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._size = 0
        self._networks: dict[str, dict[Work, list[Done]]] = {}
        """Work that each network waits for, in order; the next turn is the first network's."""
        self._holders: dict[Work, set[str]] = {}
        """Which networks wait for a piece of work."""
        self._counts: dict[str, int] = {}
        self._by_count: list[dict[str, None]] = [{}]
        """Networks by how many connections of theirs wait; no trailing one is empty."""

    def __len__(self) -> int:
        """Number of connections that wait."""
        return self._size

    def __contains__(self, work: Work) -> bool:
        """Whether any connection waits for a piece of work."""
        return work in self._holders

    @property
    def works(self) -> int:
        """Number of pieces of work that are waited for."""
        return len(self._holders)

    def enter(self, network: str, work: Work, done: Done) -> tuple[bool, Done | None]:
        """Add a connection to the queue.

        Args:
            network: whose it is.
            work: what it waits for; the same for all that wait for the same.
            done: is given back by `leave`.

        Returns:
            Whether there was room; and, of a connection that had to make room, its `done`.
        """
        out = None
        if self._size >= self._most:
            if self._counts.get(network, 0) + 1 >= len(self._by_count) - 1:
                return False, None
            out = self._put_out(next(iter(self._by_count[-1])))
        self._networks.setdefault(network, {}).setdefault(work, []).append(done)
        self._holders.setdefault(work, set()).add(network)
        self._count(network, 1)
        return True, out

    def next(self) -> Work | None:
        """The piece of work whose turn it is; None where nobody waits. It is waited for until `leave`."""
        if not self._networks:
            return None
        network, works = next(iter(self._networks.items()))
        del self._networks[network]
        self._networks[network] = works  # behind the others
        return next(iter(works))

    def leave(self, work: Work) -> Iterable[Done]:
        """Remove all connections that wait for a piece of work.

        Returns:
            The `done` of each.
        """
        gone: list[Done] = []
        for network in self._holders.pop(work, ()):
            found = self._networks[network].pop(work)
            if not self._networks[network]:
                del self._networks[network]
            self._count(network, -len(found))
            gone += found
        return gone

    def _put_out(self, network: str) -> Done:
        """Remove the newest connection of a network's last piece of work; returns its `done`."""
        works = self._networks[network]
        work = next(reversed(works))
        done = works[work].pop()
        if not works[work]:
            del works[work]
            self._holders[work].discard(network)
            if not self._holders[work]:
                del self._holders[work]
        if not works:
            del self._networks[network]
        self._count(network, -1)
        return done

    def _count(self, network: str, change: int) -> None:
        self._size += change
        before = self._counts.pop(network, 0)
        self._by_count[before].pop(network, None)
        if count := before + change:
            self._counts[network] = count
            while len(self._by_count) <= count:
                self._by_count.append({})
            self._by_count[count][network] = None
        while len(self._by_count) > 1 and not self._by_count[-1]:
            self._by_count.pop()
