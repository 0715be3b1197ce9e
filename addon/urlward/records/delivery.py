"""Delivery of events from the outbox to one store: a thread that reads at the store's cursor, and writes.

No store waits for another. What a store does not take stays in the outbox, and is tried again, in order, when
the store is back. A store that has taken events when the process is killed may be given them again, which it
knows by their ids.

`StoreAlarms` tells of a store that is down, slow or back, and of lost events.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread

from urlward.engine.errors import fault_text
from urlward.records.event import Event
from urlward.records.metrics import PUBLISHING, TROUBLES
from urlward.records.outbox import Next, Outbox, Position
from urlward.records.store import ReplacedError, Store, StoreError

DROPS_AGAIN = 60.0
"""Seconds between two reports of events dropped, while that goes on."""

LAG = 60.0
"""Seconds that events may wait on the disk for a store that is up."""

ENDS = {
    "store-back": "store-down",
    "store-level": "store-lagging",
    "clock-settled": "clock-set",
    "list-back": "refused-list",
    "rules-right": "rules-wrong",
    "included-back": "included",
    "twin-gone": "twin-node",
} | {end: kind for kind, (end, _) in (*TROUBLES.items(), *PUBLISHING.items())}
"""What is told like an alarm and is the end of one, and of which."""

CHUNK = 2_000
"""Events in one write."""

POLL = 0.2
"""Seconds between two looks for new events."""

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds until a store is tried again, after one failure in a row and more."""

LOOK = 1.0
"""Seconds between two looks whether a store that has nothing to write still has its files."""

HUNG = 10.0
"""Seconds after which a write that lasts is an alarm."""

PATIENCE = 2.0
"""Seconds for which events may wait for a store that is not behind."""


class StoreAlarms:
    """Alarms of one store.

    Args:
        store: its name.
        tell: takes an alarm's kind and text.
        clock: seconds.
        down: whether it was down when a process before this one ended, which has said so.
        lasts: takes the same of what lasts that such a process has said.

    Attributes:
        down: whether it has been said to be down, and not yet to be back.
    """

    def __init__(
        self,
        store: str,
        tell: Callable[[str, str], None],
        clock: Callable[[], float],
        *,
        down: bool,
        lasts: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self.down = down
        self._lasts = lasts
        self._knows_why = False
        self._store = store
        self._tell = tell
        self._clock = clock
        self._arrived = 0
        self._waiting_since = clock()
        self._lagging = False
        self._lost = 0
        self._lost_at = float("-inf")

    def say(self, alarm: str, text: str) -> None:
        """Raise an alarm of this store."""
        self._tell(alarm, f"store {self._store}: {text}")

    def failed(self, text: str) -> None:
        """Report that the store does not take events; once."""
        text = f"{text}; events wait on the disk"
        if not self.down:
            self.down = True
            self.say("store-down", text)
        elif not self._knows_why:
            self._lasts("store-down", f"store {self._store}: {text}")
        self._knows_why = True

    def waiting(self, count: int) -> None:
        """Report the number of events on the disk; an alarm, once, where some wait for long though it
        takes events."""
        now = self._clock()
        if not count:
            if self._lagging:
                self._lagging = False
                self.say("store-level", "takes events as they come again")
            self._waiting_since = now
        elif not self.down and not self._lagging and now - self._waiting_since > LAG:
            self._lagging = True
            self.say("store-lagging", f"takes events more slowly than they come; {count} wait on the disk")

    def arrived(self, count: int) -> None:
        """Count waiting events that have arrived."""
        self._arrived += count

    def back(self) -> None:
        """Report that the store takes events, and none waits any more."""
        if self.down:
            # Said first: another thread says what was lost as soon as this is not down, and that comes after.
            self.say("store-back", f"takes events again, {self._arrived} that waited have arrived")
            self.down = False
        self._arrived = 0

    def lost(self, dropped: int, *, behind: bool = False) -> None:
        """Report dropped events now and then, and their number once there is room again.

        Args:
            dropped: since the start.
            behind: whether the store has yet to take what waits.
        """
        new = dropped - self._lost
        if not new or ((self.down or behind) and self._clock() - self._lost_at < DROPS_AGAIN):
            return
        self._lost_at = self._clock()
        if not self.down:
            self._lost = dropped
        self.say("dropped", f"{new} events were dropped, as no room was left for them")


@dataclass(frozen=True, slots=True)
class StoreState:
    """State of a store's delivery; counts are since the start.

    Attributes:
        up: whether it takes events; not before it has been opened.
        written: events.
        failures: attempts to write that failed.
        waiting: events that it does not have yet.
        behind: whether they wait since it is down or slow.
        dropped: events that it will not get, as there was no room for them.
    """

    up: bool = True
    written: int = 0
    failures: int = 0
    waiting: int = 0
    behind: bool = False
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class RecorderState:
    """State of the recorder for metrics, health and status; counts are since its start.

    Attributes:
        events: taken, by kind.
        queue: events on their way to the store that most wait for.
        spool_events: events that wait for stores that are down or slow, once for each store.
        spool_bytes: they take on the disk.
        spool_limit: bytes that they may take.
        dropped: events that found no place, once for each store.
        stores: by name.
        alarms: what each one that lasts says, by kind.
        raised: how often each kind of alarm has begun.
    """

    events: Mapping[str, int] = field(default_factory=dict)
    queue: int = 0
    spool_events: int = 0
    spool_bytes: int = 0
    spool_limit: int = 0
    dropped: int = 0
    stores: Mapping[str, StoreState] = field(default_factory=dict)
    alarms: Mapping[str, str] = field(default_factory=dict)
    raised: Mapping[str, int] = field(default_factory=dict)


class Delivery:
    """Delivery: the thread that writes to one store.

    Args:
        name: of the store.
        place: of it, which its cursor goes by.
        state: the state folder.
        open_store: opens it; called again where that fails.
        tell: takes an alarm's kind and text, from any thread.
        lasts: takes those that a process before this one has told.

    Attributes:
        name: of the store.
        place: of it.
        position: up to where it has all.
        refused: what was no event, since the start.
        dropped: as in `StoreState`.
        tried: whether the store has been opened, or could not be.
        reading: is held while it reads what it is given next, and by whoever drops what it would read.
    """

    def __init__(
        self,
        name: str,
        place: str,
        state: Path,
        open_store: Callable[[], Store],
        tell: Callable[[str, str], None],
        lasts: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self.name = name
        self.place = place
        self.position = Position()
        self.refused = self.dropped = 0
        self.tried = False
        self._open = open_store
        self._store: Store | None = None
        self._outbox = Outbox(state)
        self._alarms = StoreAlarms(name, tell, time.monotonic, down=False, lasts=lasts)
        self._clock = time.monotonic
        self._closing = Flag()
        self._end_at = 0.0
        self._in_a_row = self._failures = self._written = self._waiting = 0
        self._retry_at = self._look_at = 0.0
        self._busy_since: float | None = None
        self._ends: deque[tuple[float, Position]] = deque()
        self._behind = False
        self._given: Position | None = None
        """Up to where it is being given what waits."""
        self.reading = Lock()
        self._thread = Thread(target=self._deliver, name=f"records-{name}", daemon=True)

    def start(self, position: Position, *, down: bool) -> None:
        """Start the delivery, unless that is done.

        Args:
            position: up to where it has all.
            down: whether it has been said to be down.

        Raises:
            RuntimeError: no thread can be had now.
        """
        if self._thread.ident is None:
            self.position, self._alarms.down = position, down
            self._thread.start()

    @property
    def down(self) -> bool:
        """Whether the store has been reported down, and not yet back."""
        return self._alarms.down

    @property
    def reached(self) -> Position:
        """Up to where it has all, or is just being given it, which is not to be counted as dropped."""
        return self._given or self.position

    @property
    def behind(self) -> bool:
        """Whether events wait for a store that is down or slow."""
        return self._behind or (self.down and self._waiting > 0)

    def state(self) -> StoreState:
        """State of the store."""
        return StoreState(
            up=self.tried and not self.down,
            written=self._written,
            failures=self._failures,
            waiting=self._waiting,
            behind=self.behind,
            dropped=self.dropped,
        )

    def look(self, end: Position, waiting: int) -> None:
        """Raise or end the store's alarms; call it a few times a second.

        Args:
            end: of the outbox now.
            waiting: events that the store does not have yet.
        """
        now = self._clock()
        self._waiting = waiting
        self._ends.append((now, end))
        while len(self._ends) > 1 and self._ends[1][0] <= now - PATIENCE:
            self._ends.popleft()
        at, then = self._ends[0]
        position = self.position
        self._behind = at <= now - PATIENCE and position.file == then.file and position.seq < then.seq
        if self._busy_since is not None and now - self._busy_since > HUNG:
            self._alarms.failed(f"a write has not ended for {HUNG:.0f} s")
        self._alarms.waiting(waiting if self.behind else 0)
        self._alarms.lost(self.dropped, behind=self.behind)

    def close(self, within: float) -> None:
        """Deliver what is left, and close the store.

        Args:
            within: seconds; what it has not taken then stays in the outbox.
        """
        self._end_at = self._clock() + within
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(within)

    def _deliver(self) -> None:
        self._write([])
        self.tried = True
        while True:
            closing = self._closing.is_set()
            try:
                if not self._step() and closing:
                    break
            except Exception as e:  # noqa: BLE001 - a bug of ours must not end all delivery
                self._failed(e)
            if closing and (self._in_a_row or self._clock() >= self._end_at):
                break
            self._closing.wait(max(self._retry_at - self._clock(), 0.0))
        if self._store is not None:
            self._store.close()
        self._outbox.close()

    def _step(self) -> bool:
        """Deliver the next batch; False where there is none."""
        try:
            with self.reading:
                following = self._outbox.read(self.place, self.position, CHUNK)
                if following.count:
                    self._given = following.last
        except StoreError:
            # Who keeps the outbox in order says so.
            self._closing.wait(BACKOFF[0])
            return False
        if not following.count:
            self.position = following.last
            self._idle()
            return False
        try:
            if self._write(following.events):
                self._delivered(following)
        finally:
            self._given = None
        return True

    def _idle(self) -> None:
        if self._clock() >= self._look_at or self._in_a_row:
            self._look_at = self._clock() + LOOK
            opened = self._store is None
            if self._write([]) and opened:
                self._alarms.back()
        self._closing.wait(POLL)

    def _delivered(self, taken: Next) -> None:
        self.position = taken.last
        self.refused += taken.count - len(taken.events)
        if self._alarms.down:
            self._alarms.arrived(len(taken.events))
        if taken.count < CHUNK:
            self._alarms.back()

    def _write(self, events: Sequence[Event]) -> bool:
        """Write events to the store, which is opened first where it is not open; whether it has them."""
        self._busy_since = self._clock()
        try:
            if self._store is None:
                self._store = self._open()
            if not events or self._in_a_row:
                self._store.check()
            if events:
                self._store.write(events)
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
        self._alarms.failed(fault_text(error))
