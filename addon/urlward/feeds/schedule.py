"""Schedule of a feed's refreshes, and their turns.

- After a success, and after a body that was refused for what it holds: the interval, moved at random by its
  jitter. A server that calls its answer fresh for longer (RFC 9111, section 4.2.1) is left alone for so
  long, within `MOST_FRESH`.
- After a failure to get a body: a minute, or an interval where that is shorter; then twice as long each
  time, to an hour, or 16 intervals where that is shorter. A server that says when to come back (RFC 9110,
  section 10.2.3) is not asked before, within a day.
- At the start: a feed without any artifact at once; one whose time has come while nothing ran within half a
  minute, since there may be many.

Of refreshes that are under way so many compute at a time, while others wait for their servers: compiling
takes memory and processors, waiting takes neither. A server that stalls would keep all other feeds from being
refreshed if it took a turn.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_RETRY = 60.0
"""Seconds until a failed fetch is tried again."""

LAST_RETRY = 3_600.0
"""Seconds between tries at most."""

RETRY_INTERVALS = 16
"""Intervals between tries at most."""

LONGEST = 86_400.0
"""Seconds that a server may have us wait at most."""

MOST_FRESH = 4
"""Intervals that an answer may be fresh for at most."""

SPREAD = 30.0
"""Seconds over which feeds that are due at the start are spread."""

type Random = Callable[[], float]
"""Gives a number from 0 to 1 (excluded)."""


def after_success(
    now: float, interval: float, jitter: float, random: Random, *, fresh_for: float | None = None
) -> float:
    """Time of the next run after one that went well, or whose body was refused.

    Args:
        now: seconds since any moment; the answer is too.
        interval: seconds between two runs.
        jitter: share of it.
        random: for the jitter.
        fresh_for: seconds that the server calls its answer fresh.
    """
    fresh = min(fresh_for or 0.0, MOST_FRESH * interval, max(LONGEST, interval))
    return now + max(_jittered(interval, jitter, random), fresh)


def after_failure(
    now: float,
    interval: float,
    jitter: float,
    random: Random,
    *,
    failures: int,
    retry_after: float | None = None,
) -> float:
    """Time of the next run after one that got no body.

    Args:
        now, interval, jitter, random: as for `after_success`.
        failures: in a row, this one counted.
        retry_after: seconds that the server asked to be left alone.
    """
    first = min(FIRST_RETRY, interval)
    most = max(min(LAST_RETRY, RETRY_INTERVALS * interval), first)
    back_off = min(first * 2.0 ** min(max(failures, 1) - 1, 32), most)
    return now + max(_jittered(back_off, jitter, random), min(retry_after or 0.0, LONGEST))


def at_start(
    now: float, interval: float, random: Random, *, next_run: float, not_before: float, has_artifact: bool
) -> float:
    """Time of the first run of a process.

    Args:
        now, interval, random: as for `after_success`.
        next_run: what was planned before, 0 for nothing.
        not_before: when the server allows it, 0 for always.
        has_artifact: whether there is a list to filter with meanwhile.
    """
    allowed = min(not_before, now + LONGEST)
    if not has_artifact:
        return max(now, allowed)
    if is_due(now, interval, next_run):
        return max(now + min(SPREAD, interval) * random(), allowed)
    # One of a longer interval, which was configured before, is not waited for.
    return min(next_run, max(now + MOST_FRESH * interval, allowed))


def is_due(now: float, interval: float, next_run: float) -> bool:
    """Whether a planned run's time has come, or is so far away that the plan is of a clock that was wrong.

    Args:
        now, interval: as for `after_success`.
        next_run: the plan.
    """
    return not now < next_run <= now + 1.5 * max(MOST_FRESH * interval, LONGEST)


class Waiting:
    """Wait for a planned run: until its time, and no longer than was left when it was planned.

    So a clock that is set back by a day does not leave a feed alone for a day.

    Args:
        next_run: the plan, seconds since 1970-01-01 UTC.
        interval: as for `after_success`.
        now: seconds since 1970-01-01 UTC.
        steady: seconds on a clock that is not set.
    """

    def __init__(self, next_run: float, interval: float, now: float, steady: float) -> None:
        self._next_run = next_run
        self._interval = interval
        self._until = steady + (next_run - now)

    def left(self, now: float, steady: float) -> float:
        """Seconds left; 0 where it is due."""
        if is_due(now, self._interval, self._next_run):
            return 0.0
        return max(min(self._next_run - now, self._until - steady), 0.0)


def _jittered(length: float, jitter: float, random: Random) -> float:
    return length * (1 + jitter * (2 * random() - 1))


AT_ONCE = 2
"""Refreshes that compute at a time."""

_LOOK = 0.05
"""Seconds between two tries: who waits in the kernel uses no processor, so seems to hang."""


class Turn:
    """Turn of one process: locks on a memory file that all share say who has one (fcntl_locking(2)), so that
    the kernel takes back what a killed process had.

    Args:
        fd: of the memory file that all share; None where there are no others.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd
        self._taken: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it inside the block."""
        self._take()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave the turn to others inside the block, such as while a server is asked."""
        self._leave()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        while self._fd is not None and self._taken is None:
            for place in range(AT_ONCE):
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except (BlockingIOError, PermissionError):
                    continue
                self._taken = place
                return
            time.sleep(_LOOK)

    def _leave(self) -> None:
        if self._fd is not None and self._taken is not None:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._taken)
            self._taken = None
