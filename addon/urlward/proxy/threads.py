"""Threads beside the event loop for what takes long, by turns of the client networks that ask for it.

A name whose server is silent, a password's hash, or a few bytes that unfold to very many keep those waiting
who have asked for it, and others of their network. Those who ask for the same wait for it together. The
threads are daemons, since what they wait for, such as the system's resolver, cannot be interrupted: an end
waits for none of them.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

from urlward.process import give_way

AGAIN: Final = 0.5
"""Seconds between two tries to have a thread where there is none."""

logger = logging.getLogger("urlward")


@dataclass(eq=False, slots=True)
class Waiter:
    """One who waits for a piece of work.

    Args:
        done: is given what came of it, or None where another got this one's room; not called any more after
            `cancel`.
        network: whose it is.
        work: the piece.
        leave: is told where this one waits no longer.
    """

    done: Callable[[Any], None] | None
    network: Hashable = ""
    work: Hashable = None
    leave: "Callable[[Waiter], None]" = lambda _: None

    def cancel(self) -> None:
        """Do not call `done`, nor begin or keep the piece for this one."""
        self.leave(self)
        self.done = self.work = None

    def tell(self, found: Any) -> None:
        """Pass what was found to `done`, unless that was cancelled."""
        if self.done is not None:
            self.done(found)


class Threads[Work: Hashable, Found]:
    """Threads that do one kind of work, and those who wait for it.

    Where too many wait, a network that has fewer among them than another gets a place of the one that has
    most, so that none keeps the others out.

    Args:
        do: does a piece of work, in a thread; raises nothing.
        name: of the threads, for the log.
        keep: is given each piece and what came of it in the event loop, also where nobody waits any more.
        threads: how many there are at most.
        of_one: pieces of one network that are under way at a time.
        beyond: threads more, for networks that have none under way, where others have all.
        most: who may wait at a time.
        nice: steps by which the threads come behind traffic.
    """

    def __init__(
        self,
        do: Callable[[Work], Found],
        name: str,
        *,
        keep: Callable[[Work, Found], object] = lambda *_: None,
        threads: int,
        of_one: int = 1,
        beyond: int = 0,
        most: float = inf,
        nice: int = 0,
    ) -> None:
        self._do, self._keep = do, keep
        self._name, self._nice = name, nice
        self._most_threads, self._of_one, self._beyond, self._most = threads, of_one, beyond, most
        self._lock = Lock()
        """Around all that follows: the next piece is begun without the event loop, which may be busy."""
        self._networks: dict[Hashable, dict[Waiter, None]] = {}
        """Who waits, by network, in order."""
        self._works: dict[Hashable, dict[Waiter, None]] = {}
        """Who waits, by what for."""
        self._size = 0
        """Number of those who wait."""
        self._pending: dict[Hashable, deque[Waiter]] = {}
        """Those whose work may be yet to begin; the next turn is the first network's."""
        self._begun: set[Hashable] = set()
        """What is under way, or done and yet to be told of."""
        self._running: Counter[Hashable] = Counter()
        """Pieces under way, by the network whose turn it was."""
        self._queue: SimpleQueue[tuple[asyncio.AbstractEventLoop, Hashable, Work]] = SimpleQueue()
        self._threads = 0
        self._short = False
        """Whether no thread could be had the last time."""

    @property
    def works(self) -> int:
        """Number of pieces of work that are waited for."""
        return len(self._works)

    @property
    def is_short(self) -> bool:
        """Whether not a single thread could be had, and what is asked for waits until there is one."""
        return self._short and not self._threads

    def ask(self, network: Hashable, work: Work, done: Callable[[Any], None]) -> Waiter | None:
        """Have a piece of work done, unless somebody has already; None where there is no room to wait.

        Args:
            network: for whom.
            work: the same for all that ask for the same.
            done: see `Waiter`; called later in this thread.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._size >= self._most:
                most = max(self._networks.values(), key=len)
                if len(self._networks.get(network, ())) + 1 >= len(most):
                    return None
                out = next(reversed(most))
                self._forget(out)
                loop.call_soon(out.tell, None)
            one = Waiter(done, network, work, self._leave)
            self._networks.setdefault(network, {})[one] = None
            self._works.setdefault(work, {})[one] = None
            self._size += 1
            if work not in self._begun:
                self._pending.setdefault(network, deque()).append(one)
                self._begin(loop)
        self._staff(loop)
        return one

    def begins_at_once(self, network: Hashable) -> bool:
        """Whether what a network asks for now is begun at once."""
        with self._lock:
            return self._may_begin(network, self._running.total())

    def _may_begin(self, network: Hashable, running: int) -> bool:
        """Whether there is a thread for a network's next piece, where so many are under way."""
        own = self._running[network]
        return own < self._of_one and running < self._most_threads + (0 if own else self._beyond)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin what is next."""
        running = self._running.total()
        for network in list(self._pending):
            if running >= self._most_threads + self._beyond:
                return
            if not self._may_begin(network, running):
                continue
            pending = self._pending.pop(network)
            work = self._next(pending)
            if pending:
                self._pending[network] = pending  # behind the others
            if work is not None:
                self._begun.add(work)
                self._running[network] += 1
                running += 1
                self._queue.put((loop, network, work))

    def _next(self, pending: deque[Waiter]) -> Any:
        """What is waited for and not under way."""
        while pending:
            one = pending.popleft()
            if one.work not in self._begun and one in self._works.get(one.work, ()):
                return one.work  # else it is for others, too, or no more
        return None

    def _leave(self, one: Waiter) -> None:
        with self._lock:
            if one in self._works.get(one.work, ()):
                self._forget(one)

    def _forget(self, one: Waiter) -> None:
        self._size -= 1
        for table, key in (self._networks, one.network), (self._works, one.work):
            del table[key][one]
            if not table[key]:
                del table[key]

    def _staff(self, loop: asyncio.AbstractEventLoop, *, again: bool = False) -> None:
        """Have a thread for each piece under way; those that there are come to the others."""
        while self._threads < self._running.total():
            try:
                Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError as e:
                if not self._short:
                    logger.error("%s: %s: %d at a time", self._name, e, self._threads)
                if not self._threads and (again or not self._short):
                    loop.call_later(AGAIN, partial(self._staff, loop, again=True))
                self._short = True
                return
            self._short = False
            self._threads += 1

    def _run(self) -> None:
        give_way(self._nice)
        while True:
            loop, network, work = self._queue.get()
            found = self._do(work)
            with self._lock:
                self._running[network] -= 1
                if not self._running[network]:
                    del self._running[network]
                self._begin(loop)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._tell, work, found)
            del loop, network, work, found  # or they were kept until the next piece comes

    def _tell(self, work: Work, found: Found) -> None:
        self._keep(work, found)
        with self._lock:
            self._begun.discard(work)
            waiting = list(self._works.get(work, ()))
            for one in waiting:
                self._forget(one)
        for one in waiting:
            one.tell(found)
