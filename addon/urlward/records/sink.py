"""Between the process that records and one of its stores: a thread that writes, and the spool behind it.

Whoever hands over events never waits for a store. What a store does not take, or takes too slowly, goes to
its spool, and from there to the store, in order, when it is back. Events are safe, and said to be, when they
are in the store or in the spool on the disk. Where the disk takes nothing either they wait in memory, up to a
limit; what is beyond is dropped and counted.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import NamedTuple

from urlward.engine.errors import UrlwardError
from urlward.records.event import Event
from urlward.records.spool import Spool, SpoolError
from urlward.records.store import ReplacedError, Store
from urlward.records.store_alarms import StoreAlarms

QUEUE = 50_000
"""Events of one store that wait in memory at most."""

CHUNK = 2_000
"""Events in one write, and in one frame of the spool."""

PATIENCE = 0.5
"""Seconds that a write may take before what waits behind it goes to the spool."""

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds until a store is tried again, after one failure in a row and more."""

SPOOL_AGAIN = 0.5
"""Seconds until the disk is tried again that took nothing."""

LOOK = 1.0
"""Seconds between two looks whether a store that has nothing to write still has its files."""

HUNG = 10.0
"""Seconds after which a write that lasts is an alarm."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """How a store does; counts are since the start.

    Attributes:
        up: whether it takes events; not before it has been opened.
        written: events.
        failures: writes that were none.
        queued: events that wait in memory.
        spooled: events that wait on the disk.
        spool_bytes: they take there.
        dropped: events that neither store, spool nor memory had room for.
    """

    up: bool
    written: int
    failures: int
    queued: int
    spooled: int
    spool_bytes: int
    dropped: int


class _Handed(NamedTuple):
    events: Sequence[Event]
    safe: Callable[[], None]


class StoreSink:
    """Hands events to one store.

    Args:
        name: of the store.
        open_store: opens it; called again where that fails.
        spool: of this store alone.
        tell: takes an alarm's kind and text, from any thread.
        clock: seconds.

    Attributes:
        name: of the store.
        dropped: events that neither store, spool nor memory had room for, since the start.
        tried: whether the store has been opened, or could not be.
    """

    def __init__(
        self,
        name: str,
        open_store: Callable[[], Store],
        spool: Spool,
        tell: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.dropped = 0
        self.tried = False
        self._open = open_store
        self._store: Store | None = None
        self._spool = spool
        self._spooling = Lock()
        self._alarms = StoreAlarms(name, tell, clock, down=bool(spool))
        self._clock = clock
        self._changed = Condition()
        self._queue: deque[_Handed] = deque()
        self._queued = self._in_hand = 0
        self._closing = False
        self._end_at = 0.0
        self._in_a_row = self._failures = self._written = 0
        self._retry_at = self._look_at = 0.0
        self._busy_since: float | None = None
        self._writing: list[Event] = []
        self._stuck = False
        self._threads = [
            Thread(target=run, name=f"records-{name}", daemon=True) for run in (self._write, self._watch)
        ]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    @property
    def crowded(self) -> bool:
        """Whether it does well to hand over no more for a moment."""
        return self._queued > QUEUE // 2 and not self._stuck

    def state(self) -> SinkState:
        """How the store does."""
        return SinkState(
            up=self.tried and not self._alarms.down,
            written=self._written,
            failures=self._failures,
            queued=self._queued,
            spooled=self._spool.events,
            spool_bytes=self._spool.size,
            dropped=self.dropped,
        )

    def put(self, events: Sequence[Event], safe: Callable[[], None]) -> None:
        """Hand over events. Neither waits nor raises.

        Args:
            events: to keep.
            safe: called from any thread when a crash no longer loses them, or when they had to be dropped.
        """
        with self._changed:
            waiting = self._queued + self._in_hand
            fits = not waiting or waiting + len(events) <= QUEUE
            if fits:
                self._queue.append(_Handed(events, safe))
                self._queued += len(events)
                self._changed.notify_all()
            else:
                self.dropped += len(events)
        if not fits:
            safe()

    def close(self, within: float) -> bool:
        """Have everything in the store or the spool, and let go of both.

        Args:
            within: seconds.

        Returns:
            False where something is neither.
        """
        with self._changed:
            self._end_at = self._clock() + within / 2
            self._closing = True
            self._changed.notify_all()
        self._threads[0].join(within)
        kept = self._spill()
        if self._threads[0].is_alive():
            # It may end yet, or not: a store that is given them again keeps them once.
            kept = self._keep(list(self._writing)) and kept
        with self._spooling:
            self._spool.close()
        # What the other thread has failed to spool meanwhile is back in the queue.
        return kept and not self._queue and not self._in_hand

    def _keep(self, events: list[Event]) -> bool:
        try:
            with self._spooling:
                return not events or self._spool.append(events)
        except SpoolError:
            return False

    def _write(self) -> None:
        self._stored([])
        self.tried = True
        while True:
            with self._changed:
                if self._stuck and not self._closing:
                    self._changed.wait(SPOOL_AGAIN)
                self._changed.wait_for(lambda: self._queue or self._closing, self._wait())
                if self._closing and not self._goes_on():
                    break
            try:
                self._step()
            except Exception as e:  # noqa: BLE001 - a bug of ours must not end all writing
                self._failed(e)
        if self._store is not None:
            self._store.close()

    def _goes_on(self) -> bool:
        """Whether there is something to do yet at the end."""
        if self._queue:
            return not self._stuck
        return bool(self._spool) and not self._in_a_row and self._clock() < self._end_at

    def _wait(self) -> float:
        """Seconds after which there is something to do even if nothing comes."""
        if self._in_a_row:
            return max(self._retry_at - self._clock(), 0.0)
        return 0.0 if self._spool else LOOK

    def _step(self) -> None:
        due = self._clock() >= self._retry_at
        if self._spool:
            self._spill()
            if due:
                self._replay()
        elif due:
            self._write_queue()
        else:
            self._spill()
        self._alarms.lost(self.dropped)

    def _write_queue(self) -> None:
        taken = self._take(CHUNK)
        if not taken:
            # The other thread was quicker, or nothing waits: a look whether the store is still there.
            if self._clock() >= self._look_at or self._in_a_row:
                self._look_at = self._clock() + LOOK
                opened = self._store is None
                if self._stored([]) and opened:
                    self._alarms.back()
            return
        events = [event for handed in taken for event in handed.events]
        self._writing = events
        stored = self._stored(events)
        self._writing = []
        if not stored:
            self._to_spool(taken)
            return
        self._unstuck()
        self._done(taken, len(events))
        self._alarms.back()

    def purge(self, over: Callable[[Event], bool]) -> int:
        """As `Spool.purge` of what waits on the disk, from any thread."""
        with self._spooling:
            return self._spool.purge(over)

    def _replay(self) -> None:
        try:
            with self._spooling:
                segment = self._spool.oldest()
            if segment is None:
                return
            if segment.damaged:
                lost = f"{segment.path.name}: {segment.damaged} bytes of it are damaged, and lost"
                self._alarms.say("spool-damaged", lost)
            if segment.events and not self._stored(segment.events):
                return
            with self._spooling:
                self._spool.remove_oldest(damaged=segment.damaged > 0)
        except SpoolError as e:
            self._failed(e)
            return
        self._alarms.arrived(len(segment.events))
        if not self._spool:
            self._alarms.back()

    def _stored(self, events: Sequence[Event]) -> bool:
        """Whether the store has them, which is opened for that where it is not open."""
        self._busy_since = self._clock()
        try:
            if self._store is None:
                self._store = self._open()
            if events:
                self._store.write(events)
            else:
                self._store.check()
        except ReplacedError as e:
            # What it has open nobody else can read: it is opened, and so made, anew.
            store, self._store = self._store, None
            if store is not None:
                store.close()
            self._alarms.say("store-replaced", f"{e}; what it had is gone, and it is begun anew")
            self._failed(e)
            return False
        except Exception as e:  # noqa: BLE001 - a store's bug must not cost the events
            self._failed(e)
            return False
        finally:
            self._busy_since = None
        self._in_a_row, self._retry_at = 0, 0.0
        self._written += len(events)
        return True

    def _failed(self, error: Exception) -> None:
        self._retry_at = self._clock() + BACKOFF[min(self._in_a_row, len(BACKOFF) - 1)]
        self._in_a_row += 1
        self._failures += 1
        said = str(error) if isinstance(error, UrlwardError) else f"a bug: {type(error).__name__}"
        self._alarms.failed(said)

    def _watch(self) -> None:
        """Take from behind a write that lasts what would wait for it."""
        while not self._closing:
            time.sleep(PATIENCE / 4)
            self._alarms.waiting(self._spool.events)
            since = self._busy_since
            took = 0.0 if since is None else self._clock() - since
            if took > HUNG:
                self._alarms.failed(f"a write has not ended for {HUNG:.0f} s")
            if self._queue and (took > PATIENCE or self._queued > QUEUE // 2):
                self._spill()

    def _take(self, most: int) -> list[_Handed]:
        taken: list[_Handed] = []
        count = 0
        with self._changed:
            while self._queue and (not taken or count + len(self._queue[0].events) <= most):
                taken.append(self._queue.popleft())
                count += len(taken[-1].events)
            self._queued -= count
            self._in_hand += count
        return taken

    def _spill(self) -> bool:
        """Move what waits in memory to the spool; False where the disk does not take it."""
        while taken := self._take(CHUNK):
            if not self._to_spool(taken):
                return False
        return True

    def _to_spool(self, taken: list[_Handed]) -> bool:
        """Put into the spool, or where the disk does not take it back into memory."""
        events = [event for handed in taken for event in handed.events]
        try:
            with self._spooling:
                fits = self._spool.append(events)
        except SpoolError as e:
            self._give_back(taken, len(events))
            if not self._stuck:
                self._stuck = True
                self._alarms.say("spool-down", f"{e}; events wait in memory, up to {QUEUE}")
            return False
        self._unstuck()
        if not fits:
            with self._changed:
                self.dropped += len(events)
        self._done(taken, len(events))
        return True

    def _unstuck(self) -> None:
        if self._stuck:
            self._stuck = False
            self._alarms.say("spool-back", "events that the disk did not take have a place again")

    def _done(self, taken: list[_Handed], count: int) -> None:
        with self._changed:
            self._in_hand -= count
        for handed in taken:
            handed.safe()

    def _give_back(self, taken: list[_Handed], count: int) -> None:
        with self._changed:
            self._queue.extendleft(reversed(taken))
            self._in_hand -= count
            self._queued += count
            # Whoever writes may have found the queue empty meanwhile, and wait for what comes next.
            self._changed.notify_all()
