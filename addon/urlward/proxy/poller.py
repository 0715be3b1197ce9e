"""Poller for the sockets of the data path: the event loop's selector, with fair turns for clients.

asyncio makes a handle for each registration and runs each event in a context of its own, which is more than
all else that a new connection costs. Here an event is one look into a table, and one call, made while the
loop still waits for events; it gets to see those of other sockets alone.

Clients share the processor by their networks. In a round of the event loop each has a slice; what it asks
beyond that waits for a later round, behind what others ask in this one. A slice is looked at between two
pieces of work, so that a piece may go beyond it, and what it took too much is taken off later slices. Rounds
may follow each other at once, though, and what others ask next, such as of an origin's answer, would come
behind another piece like it: so a network that has taken two slices too much rests for as long. Nobody
waits where there is nobody else: whoever has a round for itself, and does not rest, owes nothing.
"""

import asyncio
import os
import select
import selectors
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final
from weakref import WeakValueDictionary

from urlward.records.privacy import network_of

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

_ENDS: Final = select.EPOLLHUP | select.EPOLLERR
CAN_READ: Final = READ | _ENDS
"""Events after which reading tells more."""

CAN_WRITE: Final = WRITE | _ENDS
"""Events after which writing tells more."""

SLICE: Final = 0.0005
"""Seconds that a client network has in a round."""

_ALONE: Final = 10
"""Times as many where it has been the only one for a while."""

_A_WHILE: Final = 1.0
"""Seconds."""

_MOST_OWED: Final = 0.01
"""Seconds beyond its slices that are held against one; more is something else's, such as the machine's."""

_MUCH: Final = -2 * SLICE
"""What is left of its slice to one that has taken so much too much that it rests."""

_AT_ONCE: Final = 256
"""Events that are asked for at a time."""

_ROUND: Final = 0.01
"""Seconds that a round takes: events first, then what is queued, which has half of them at least."""

type Task = Callable[[], None]


class Share:
    """A client network's share of the processor.

    Attributes:
        left: seconds of its slice; below 0 where it has taken more.
        round: for which that is.
        waiting: what it has to be done in later rounds.
        queued: whether it is among those who wait for their turn.
        arriving: its connections that have been accepted and wait for their turn to begin.
        rests: until when it has no turn.
        nobodys: whether it is no client's, so that clients do not wait for each other because of it.
    """

    __slots__ = ("__weakref__", "arriving", "left", "nobodys", "queued", "rests", "round", "waiting")

    def __init__(self, *, nobodys: bool = False) -> None:
        self.nobodys = nobodys
        self.left = SLICE
        self.round = 0
        self.waiting: deque[Task] = deque()
        self.queued = False
        self.arriving = 0
        self.rests = 0.0

    @property
    def behind(self) -> bool:
        """Whether it has had its slice, or has more to be done already."""
        return self.left <= 0 or self.queued


@dataclass(eq=False, slots=True)
class _Watched:
    """Socket registered with the poller.

    Attributes:
        tell: is given its events.
        events: that are told of.
        share: by which it is.
        aside: whether an event of it waits for its turn, and no other is told of meanwhile.
    """

    tell: Callable[[int], None]
    events: int
    share: Share
    aside: bool = False


class Poller(selectors.EpollSelector):
    """Selector of an event loop that sees to some sockets itself, and gives client networks turns."""

    def __init__(self) -> None:
        super().__init__()
        # The same kernel's table. What is registered here has no key, which is how it is told apart.
        self._epoll = select.epoll.fromfd(os.dup(self.fileno()))
        self._keys = self.get_map()
        self._told: dict[int, _Watched] = {}
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self._behind: deque[Share] = deque()
        """Shares with queued calls; the one whose turn it is comes first."""
        self._skipped: dict[int, int] = {}
        """Sockets that something was to be told of in the last round, and was not; with their order."""
        self._done: deque[tuple[Callable[[Any], None], Any]] = deque()
        """Calls to be made once what is under way is done, with their argument."""
        self._round = 0
        self._slice = SLICE
        self._last: Share | None = None
        """Share that was served last."""
        self._alone = False
        """Whether it had the last round for itself."""
        self._others = 0.0
        """When that was another than before."""
        self._until = 0.0
        """When the turn ends of who has it."""

    def close(self) -> None:
        """Close it, with its loop."""
        self._epoll.close()
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, and see to those of the data path; the others are returned."""
        wait = 0 if self._done else self._wait(timeout) if self._behind else timeout
        told, keys = self._told, self._keys
        # Who is meant is found first: what one does may close another, and its number be that of a third.
        polled = self._epoll.poll(wait, _AT_ONCE)
        found = [(fd, events, told[fd]) for fd, events in polled if fd in told]
        others: list[tuple[selectors.SelectorKey, int]] = []
        if len(found) < len(polled):
            for fd, events in polled:
                if fd not in told and (key := keys.get(fd)) is not None:
                    wanted = selectors.EVENT_READ if events & ~WRITE else 0
                    wanted |= selectors.EVENT_WRITE if events & ~READ else 0
                    others.append((key, wanted & key.events))
        if found or self._behind or self._done:
            self._run(found)
            # What that has closed is nobody's any more, and what it has changed is told again.
            others = [one for one in others if keys.get(one[0].fd) is one[0]]
        return others

    def _wait(self, timeout: float | None) -> float | None:
        """Seconds until one of the networks that have something queued does not rest."""
        now = perf_counter()
        rest = float("inf")
        for share in self._behind:
            if share.rests <= now:
                return 0
            rest = min(rest, share.rests - now)
        return rest if timeout is None else min(rest, timeout)

    # -- sockets

    def watch(self, fd: int, events: int, tell: Callable[[int], None], share: Share) -> None:
        """Register a socket.

        Args:
            fd: the socket's.
            events: `READ`, `WRITE`, or both; ends and errors are told of in any case.
            tell: is given the events.
            share: whose it is.
        """
        self._epoll.register(fd, events)
        self._told[fd] = _Watched(tell, events, share)

    def change(self, fd: int, events: int, tell: Callable[[int], None] | None = None) -> None:
        """Change the events a socket is watched for, and who is given them where that is another."""
        watched = self._told[fd]
        watched.events = events
        if tell is not None:
            watched.tell = tell
        if not watched.aside:
            self._epoll.modify(fd, events)

    def entrust(self, fd: int, share: Share) -> None:
        """Hand a socket to another share."""
        self._told[fd].share = share

    def forget(self, fd: int) -> None:
        """Unregister a socket, which is not closed yet."""
        if not self._told.pop(fd).aside:
            self._epoll.unregister(fd)

    def closes(self, fd: int) -> None:
        """Forget a socket that is closed at once, and which the kernel unregisters by that."""
        del self._told[fd]

    # -- turns

    def share(self, address: str) -> Share:
        """The share of an IP address's network."""
        network = network_of(address)
        found = self._shares.get(network)
        if found is None:
            found = self._shares[network] = Share()
        return found

    @property
    def turn_is_over(self) -> bool:
        """Whether the client whose turn it is has used up its slice, and should do the rest `later`."""
        return perf_counter() >= self._until

    def later(self, share: Share, task: Task) -> None:
        """Schedule a call in a later round, behind what this client has queued before."""
        share.waiting.append(task)
        if not share.queued:
            share.queued = True
            self._behind.append(share)

    def soon(self, share: Share, task: Task) -> None:
        """Make a call now if there is time for it, else `later`."""
        start = perf_counter()
        if self._alone and share is self._last and not share.queued and start >= share.rests:
            share.left = max(share.left, self._slice)
        else:
            self._refill(share, start)
            if share.behind:
                self.later(share, task)
                return
        self._until = start + share.left
        task()
        now = perf_counter()
        share.left -= now - start
        if share.left < _MUCH:
            self._rest(share, now)

    def _rest(self, share: Share, now: float) -> None:
        """Have a network rest for as long as it has taken too much, where there are others."""
        if now - self._others < _A_WHILE:
            share.rests = now + min(-share.left, _MOST_OWED)

    def afterwards[T](self, call: Callable[[T], None], argument: T) -> None:
        """Make a call once what is under way is done."""
        self._done.append((call, argument))

    def _refill(self, share: Share, now: float) -> None:
        if share.round != self._round and now >= share.rests:
            left = max(share.left, -_MOST_OWED) + self._slice * (self._round - share.round)
            share.left = min(left, self._slice)
            share.round = self._round

    def _run(self, found: list[tuple[int, int, _Watched]]) -> None:
        """Run one round: handle events, then queued calls."""
        told = self._told
        now = perf_counter()
        end = now + _ROUND
        self._round = number = self._round + 1
        last = self._last
        self._slice = whole = SLICE if now - self._others < _A_WHILE else _ALONE * SLICE
        shares = {watched.share for _, _, watched in found if not watched.share.nobodys}
        shares.update(self._behind)
        self._alone = len(shares) == 1 and len(found) < _AT_ONCE
        if self._alone:
            (share,) = shares
            if share is not last:
                last, self._others = share, now
            if now < share.rests:
                self._alone = False
            else:
                share.left, share.round = whole, number
                if share.queued:
                    now = self._go_on(now, end)
        if order := self._skipped:
            # The kernel tells in the same order again: the first would have all of a slice, or the round.
            found.sort(key=lambda one: order.get(one[0], _AT_ONCE))
        skipped: list[int] = []
        rest = iter(found)
        for fd, events, watched in rest:
            if told.get(fd) is not watched or watched.aside:
                continue  # closed meanwhile, or told twice: a child may yet hold what had this number before
            share = watched.share
            if share is not last and not share.nobodys:
                last, self._others = share, now
            left = share.left
            if share.round != number:
                if left > 0:
                    left = share.left = whole
                    share.round = number
                else:
                    self._refill(share, now)
                    left = share.left
            if left <= 0 or share.queued:
                # The kernel tells of it again; where that would be at once and in vain, or would keep it from
                # telling of others, not yet.
                if share.queued or len(found) == _AT_ONCE or now < share.rests:
                    self._put_aside(fd, events, watched)
                else:
                    skipped.append(fd)
                continue
            self._until = now + left
            try:
                watched.tell(events)
            except Exception as e:  # noqa: BLE001 - one must not keep the others waiting
                self._complain(e)
            start, now = now, perf_counter()
            share.left = left = left - (now - start)
            if left < _MUCH:
                self._rest(share, now)
            if now > end:
                skipped += [fd for fd, _, _ in rest]
                break  # the kernel tells of the rest again
        self._skipped = {fd: n for n, fd in enumerate(skipped)}
        self._last = last
        if self._behind:
            self._go_on(now, max(end, now + _ROUND / 2))
        done = self._done
        while done:
            call, argument = done.popleft()
            try:
                call(argument)
            except Exception as e:  # noqa: BLE001 - as above
                self._complain(e)

    def _put_aside(self, fd: int, events: int, watched: _Watched) -> None:
        self._epoll.unregister(fd)
        watched.aside = True
        self.later(watched.share, partial(self._bring_back, fd, events, watched))

    def _bring_back(self, fd: int, events: int, watched: _Watched) -> None:
        if self._told.get(fd) is watched:
            self._epoll.register(fd, watched.events)
            watched.aside = False
            watched.tell(events)

    def _go_on(self, now: float, end: float) -> float:
        """Give queued networks their turns, until a time; returns what time it is then."""
        for _ in range(len(self._behind)):
            share = self._behind[0]
            waiting = share.waiting
            self._refill(share, now)
            while waiting and share.left > 0:
                self._until = now + share.left
                try:
                    waiting.popleft()()
                except Exception as e:  # noqa: BLE001 - as above
                    self._complain(e)
                start, now = now, perf_counter()
                share.left -= now - start
                if share.left < _MUCH:
                    self._rest(share, now)
            if waiting:
                self._behind.rotate(-1)
            else:
                share.queued = False
                self._behind.popleft()
            if now > end:
                break
        return now

    def _complain(self, error: Exception) -> None:
        """Log an exception as asyncio does for a callback."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a socket of the data path", "exception": error}
        )


class Delay:
    """Calls that are made once a while has passed, the same for all, which have one timer together.

    Args:
        seconds: how long that is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: deque[tuple[float, list[Task]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def call(self, task: Task) -> list[Task]:
        """Make a call then, unless what is returned is emptied before."""
        tasks = [task]
        self._due.append((perf_counter() + self._seconds, tasks))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)
        return tasks

    def _look(self) -> None:
        loop, now = asyncio.get_running_loop(), perf_counter()
        self._timer = None  # whatever goes wrong here, as without memory, the next call has another
        while self._due and self._due[0][0] <= now:
            for task in self._due.popleft()[1]:
                loop.call_soon(task)
        if self._due:
            self._timer = loop.call_later(self._due[0][0] - now, self._look)


class Loop(asyncio.SelectorEventLoop):
    """Event loop of the data path.

    Attributes:
        poller: its selector.
    """

    def __init__(self) -> None:
        self.poller = Poller()
        super().__init__(self.poller)


def running_loop() -> Loop:
    """The data path's event loop, in which this is called."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop
