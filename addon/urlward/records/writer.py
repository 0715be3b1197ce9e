"""Writer: a process's end of the outbox, which takes events without waiting and writes them in a thread.

Events are made on the event loop, in slices between which traffic goes on, and written five times a second.
What the disk does not take waits in memory. Where more waits than may, the newest are dropped and counted,
and an alarm and a gap say so once there is room.

While it runs a process holds a lock on a file of its own, ``outbox/*.writer``. Its modification time is the
moment up to which all that the process has said is on the disk. It removes the file when it ends in order:
whoever finds one that nobody holds knows that a process ended without a word, and since when events are
missing, though nobody looked on.
"""

import asyncio
import fcntl
import json
import logging
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import msgspec

from urlward.engine.errors import fault_text
from urlward.records.event import RANDOM, Event, Kind, gap, make_event
from urlward.records.outbox import FOLDER, Batch, Outbox, batch_of
from urlward.records.store import StoreError
from urlward.state.folder import give_to_owner_of, made_folder

logger = logging.getLogger("urlward.records")

TICK = 0.2
"""Seconds between two writes."""

BATCH = 250
"""Events that are made at a time: a millisecond or two of the event loop's."""

MAX_BATCH = 1 << 20
"""Bytes of a batch."""

TOGETHER = 20
"""Batches in one transaction, which others wait for."""

END_WITHIN = 3.0
"""Seconds that the last events have at the end."""

DROPS_AGAIN = 10.0
"""Seconds between two alarms of events dropped."""

_MARK = ".writer"

type Made = Event | Callable[[], Event]


@dataclass(slots=True)
class _Until:
    """Marker between batches: all events from before a time are in the batches before it.

    Attributes:
        time: ns since 1970-01-01 UTC.
    """

    time: int


class Writer:
    """Writer: takes events in the thread of the event loop that `run` is in.

    Args:
        state: the state folder.
        name: a name that no other process has or had.
        node: the machine.
        who: the process, in words.
        limit: events kept in memory while they cannot be written.
        size: bytes that the outbox may have; any number where not given.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        name: as above.
        dropped: events, since the start.
        trouble: why events wait in memory; empty where they do not.
    """

    def __init__(
        self,
        state: Path,
        name: str,
        node: str,
        who: str = "",
        *,
        limit: int,
        size: float = math.inf,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self.dropped = 0
        self.trouble = ""
        self._node = node
        self._limit = limit
        self._clock = clock
        self._who = who or f"worker {name}"
        self._mark = Mark(state, name, node, self._who)
        self._outbox = Outbox(state, size)
        self._new: deque[Made] = deque()
        self._batches: deque[Batch | _Until] = deque()
        self._batched = self._written = 0  # events: the first is the event loop's, the second the thread's
        self._told_dropped = 0
        self._dropping_since = 0
        self._told_at = float("-inf")
        self._closing = asyncio.Event()
        self._work = Flag()
        self._ending = self._given_up = False
        self._thread = Thread(target=self._write, name="records-outbox", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of events that are not on the disk yet."""
        return len(self._new) + self._batched - self._written

    def emit(self, event: Made) -> None:
        """Emit an event. Neither waits nor raises.

        Args:
            event: or what makes it. Many are made in one go, for a third of what each costs amid other work.
        """
        if len(self._new) + self._batched - self._written < self._limit:
            self._new.append(event)
            return
        if self.dropped == self._told_dropped:
            self._dropping_since = self._clock()
        self.dropped += 1

    async def run(self) -> None:
        """Write events until cancelled, or until `close`."""
        self._start()
        while not self._closing.is_set():
            await self._collect()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), TICK)

    async def close(self) -> None:
        """Write the last events, within `END_WITHIN`."""
        self._closing.set()
        self._start()
        await self._collect()
        self._ending = self._outbox.hurries = True
        self._work.set()
        await asyncio.to_thread(self._thread.join, END_WITHIN)
        if self._thread.is_alive():
            self._given_up = True
            if self.waiting:
                logger.error("records: %d events could not be written, and are lost", self.waiting)

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    async def _collect(self) -> None:
        """Put new events into batches, with room for the traffic in between."""
        self._tell_dropped()
        until = self._clock()
        left = len(self._new)
        while left > 0 and self._new:
            taken = list(islice(self._new, min(BATCH, left)))
            self._batch([event for event in map(self._made, taken) if event is not None])
            left -= len(taken)
            for _ in taken:
                self._new.popleft()
            if left > 0:
                await asyncio.sleep(0)
        last: object = None
        with suppress(IndexError):  # the thread may take the last one at any time
            last = self._batches[-1]
        if isinstance(last, _Until):
            last.time = until
        else:
            self._batches.append(_Until(until))
        self._work.set()

    def _made(self, event: Made) -> Event | None:
        if isinstance(event, Event):
            return event
        try:
            return event()
        except Exception as e:  # noqa: BLE001 - it must not take the others with it
            logger.error("records: an event could not be made: %s", type(e).__name__)
            self.dropped += 1
            return None

    def _batch(self, events: list[Event]) -> None:
        if not events:
            return
        try:
            batch = batch_of(events)
            if len(batch.data) > MAX_BATCH:
                raise ValueError("too large")
        except (TypeError, ValueError, RecursionError, AttributeError, msgspec.MsgspecError):
            # One that cannot be said must not take the others with it.
            if len(events) == 1:
                self.dropped += 1
                return
            half = len(events) // 2
            self._batch(events[:half])
            self._batch(events[half:])
            return
        self._batched += len(events)
        self._batches.append(batch)

    def _tell_dropped(self) -> None:
        new = self.dropped - self._told_dropped
        now = time.monotonic()
        if new and self.waiting < self._limit and now - self._told_at >= DROPS_AGAIN:
            since, self._told_dropped, self._told_at = self._dropping_since, self.dropped, now
            text = f"{self._who}: {new} events were dropped, as too many waited to be recorded"
            logger.error("records: %s", text)
            self._tell("alarm", {"alarm": "dropped", "text": text, "events": new})
            self._tell("gap", gap((since or self._clock()) // 1_000_000, self._clock() // 1_000_000, text))

    def _tell(self, kind: Kind, detail: Mapping[str, object]) -> None:
        self.emit(make_event(kind, self._clock(), os.urandom(RANDOM), node=self._node, detail=dict(detail)))

    def _write(self) -> None:
        """Thread that writes to the disk: nothing else waits for it."""
        while not self._given_up:
            self._work.wait()
            self._work.clear()
            ending = self._ending
            try:
                self._mark.make()
                while self._batches and not self._given_up:
                    self._write_next()
                if ending:
                    self._mark.remove()
                    break
            except Exception as e:  # noqa: BLE001 - a bug of ours must not end the records
                self._say(str(e) if isinstance(e, OSError) else fault_text(e))
                if ending:
                    time.sleep(TICK / 4)
                    self._work.set()
        self._mark.close()
        self._outbox.close()

    def _write_next(self) -> None:
        """Write what waits, the more the longer the disk takes."""
        # Between two is one marker at most. An iterator would break where the event loop adds one meanwhile.
        some = (self._batches[at] for at in range(min(len(self._batches), 2 * TOGETHER)))
        batches = [one for one in some if isinstance(one, Batch)]
        taken = self._outbox.append(batches) if batches else 0
        if batches and not taken:
            raise StoreError(f"{self._outbox.path}: full")
        until = 0
        while self._batches and (taken or isinstance(self._batches[0], _Until)):
            one = self._batches.popleft()
            if isinstance(one, _Until):
                until = one.time
            else:
                taken -= 1
                self._written += one.events
        if until:
            self._mark.set(until)
        self._say("")

    def _say(self, trouble: str) -> None:
        if trouble and not self.trouble:
            logger.error("records: %s; events wait in memory, up to %d", trouble, self._limit)
        elif self.trouble and not trouble:
            logger.info("records: the disk takes events again")
        self.trouble = trouble


class Mark:
    """Mark: the file by which a writing process is known.

    Args:
        state: the state folder.
        name: of the process.
        node: the machine.
        who: the process, in words.
    """

    def __init__(self, state: Path, name: str, node: str, who: str) -> None:
        self._state = state
        self._path = state / FOLDER / f"{os.getpid()}-{secrets.token_hex(4)}{_MARK}"
        self._said = {"name": name, "node": node, "who": who}
        self._fd = -1

    def make(self) -> None:
        """Create and lock the file, where it is not there.

        Raises:
            OSError: it cannot be made.
            StateError: nor its folder.
        """
        if self._fd >= 0 and os.fstat(self._fd).st_nlink:
            return
        self.close()
        folder = made_folder(self._path.parent, self._state)
        # Under another name until it is locked, since one that nobody holds says that its process has ended.
        new = folder / f".{self._path.stem}.tmp"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            give_to_owner_of(folder, fd)
            os.write(fd, json.dumps(self._said).encode())
            new.replace(self._path)
        except BaseException:
            os.close(fd)
            new.unlink(missing_ok=True)
            raise
        self._fd = fd

    def set(self, until: int) -> None:
        """Set the time up to which all is on the disk.

        Args:
            until: ns since 1970-01-01 UTC.

        Raises:
            OSError: the disk does not take it.
        """
        os.utime(self._fd, ns=(until, until))

    def remove(self) -> None:
        """Delete the file: the process has ended in order."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Unlock the file: one that is left means that its process ended unexpectedly."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True)
class Process:
    """Writing process, also one that ended unexpectedly.

    Attributes:
        path: of its file.
        name: its name.
        node: its machine.
        who: the process, in words.
        since: ms since 1970-01-01 UTC, up to when all that it has said is on the disk.
        lives: whether it has not ended.
    """

    path: Path
    name: str
    node: str
    who: str
    since: int
    lives: bool


def processes(state: Path) -> list[Process]:
    """List the processes that write to the outbox, and those that ended unexpectedly.

    Raises:
        OSError: they cannot be looked for.
    """
    folder = state / FOLDER
    return [*filter(None, map(_process, folder.glob(f"*{_MARK}")))] if folder.is_dir() else []


def _process(path: Path) -> Process | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # it has ended in order meanwhile
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            lives = False
        except BlockingIOError:
            lives = True
        if not os.fstat(fd).st_nlink:
            return None
        since = os.fstat(fd).st_mtime_ns // 1_000_000
        try:
            said = json.loads(os.read(fd, 1 << 12))
            name, node, who = (str(said[key]) for key in ("name", "node", "who"))
        except (ValueError, KeyError, TypeError, OSError):
            name, node, who = path.stem, "", f"process {path.stem}"
        return Process(path, name, node, who, since, lives)
    finally:
        os.close(fd)
