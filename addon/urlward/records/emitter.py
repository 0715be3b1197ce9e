"""A worker's end of the records: hands its events to the process that records, and never waits for it.

Events are put into batches five times a second, and kept until they are acknowledged; what was not is sent
again over the next connection. Where more wait than may, the newest are dropped and counted, and an alarm
says how many once there is room.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from urlward.records.event import RANDOM, Event, make_event
from urlward.records.heartbeat import note_lost
from urlward.records.wire import BATCH, MAX_LINE, WireError, decode_ack, encode, encode_batch, socket_address

logger = logging.getLogger("urlward.records")

TICK = 0.2
"""Seconds between two batches."""

METRICS = 1.0
"""Seconds between two snapshots of what is counted."""

END_WITHIN = 1.0
"""Seconds that the last events have at the end."""

SILENT_FOR = 30.0
"""Seconds without the process that records after which that is said: it takes some to start."""

DROPS_AGAIN = 10.0
"""Seconds between two alarms of events dropped."""

BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds until it connects again, after one failure in a row and more."""


class _Sent(NamedTuple):
    events: int
    line: bytes


class Emitter:
    """Takes events, in the thread of the event loop that `run` is in.

    Args:
        path: the socket of the process that records.
        worker: a name that no other process has or had.
        node: the machine.
        limit: events kept while they cannot be handed over.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        metrics: gives what is counted, to be passed on once a second; None for nothing.
        dropped: events, since the start.
    """

    def __init__(
        self,
        path: Path,
        worker: str,
        node: str,
        *,
        limit: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.metrics: Callable[[], dict[str, Any]] | None = None
        self.dropped = 0
        self._path = path
        self._worker = worker
        self._node = node
        self._limit = limit
        self._clock = clock
        self._new: deque[Event | Callable[[], Event]] = deque()
        self._batches: dict[int, _Sent] = {}
        self._batched = 0
        self._number = 0
        self._told_dropped = 0
        self._told_at = float("-inf")
        self._metrics_at = float("-inf")
        self._told_metrics = False
        self._closing = asyncio.Event()
        self._running: asyncio.Task[Any] | None = None
        self._ended = False
        self._alone_since: float | None = None
        self._alone_at = clock()
        self._told_alone = False

    @property
    def waiting(self) -> int:
        """Events that are not known to be safe yet."""
        return len(self._new) + self._batched

    def emit(self, event: Event | Callable[[], Event]) -> None:
        """Have an event recorded. Neither waits nor raises.

        Args:
            event: or what makes it. Many are made in one go, for a third of what each costs amid other work.
        """
        if len(self._new) + self._batched < self._limit:
            self._new.append(event)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Hand events over until cancelled, or until `close` has seen the last of them off."""
        self._running = asyncio.current_task()
        failures = 0
        self._alone_since = time.monotonic()
        try:
            while not self._ended:
                number = self._number
                try:
                    await self._connected()
                except (OSError, EOFError, ValueError, WireError):
                    self._say()
                except Exception as e:  # noqa: BLE001 - a bug of ours must not end the records
                    logger.error("records: a bug: %s; trying again", type(e).__name__)
                failures = 0 if self._number > number else failures + 1
                await self._pause(BACKOFF[min(failures, len(BACKOFF) - 1)])
        finally:
            self._running = None

    async def close(self) -> None:
        """Have the last events handed over, within a second."""
        self._closing.set()
        running = self._running or asyncio.ensure_future(self.run())
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running], timeout=END_WITHIN)
        running.cancel()
        if self.waiting:
            logger.error("records: %d events could not be handed over, and are lost", self.waiting)
            note_lost(self._path.parent, self._alone_at // 1_000_000)

    async def _connected(self) -> None:
        reader, writer = await self._connect()
        acknowledged = asyncio.ensure_future(self._read(reader))
        try:
            writer.write(encode({"hello": self._worker, "node": self._node}))
            waited = self.waiting
            sent = next(iter(self._batches), self._number + 1) - 1
            told = self._told_metrics
            while not acknowledged.done():
                await self._collect(connected=True)
                while sent < self._number:
                    sent += 1
                    if batch := self._batches.get(sent):
                        writer.write(batch.line)
                        await writer.drain()
                self._send_metrics(writer, told=told)
                await writer.drain()
                if self._closing.is_set() and not self.waiting:
                    writer.write(encode({"bye": True}))
                    await writer.drain()
                    self._ended = True
                    return
                await asyncio.wait([acknowledged], timeout=self._tick())
                if not acknowledged.done():
                    self._say_back(waited)
            acknowledged.result()
        finally:
            acknowledged.cancel()
            with suppress(asyncio.CancelledError, OSError, EOFError, ValueError, WireError):
                await acknowledged
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with socket_address(self._path) as address:
                await asyncio.get_running_loop().sock_connect(made, address)
            return await asyncio.open_unix_connection(sock=made, limit=MAX_LINE)
        except BaseException:
            made.close()
            raise

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            batch = self._batches.pop(decode_ack(line), None)
            if batch is not None:
                self._batched -= batch.events
        raise ConnectionResetError

    async def _pause(self, seconds: float) -> None:
        """Wait, with what is new put into batches, which take less memory."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await self._collect(connected=False)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), min(left, TICK))
                # There is little time left at the end.
                await asyncio.sleep(min(left, BACKOFF[0]))
                return

    def _tick(self) -> float:
        return TICK / 10 if self._closing.is_set() else TICK

    async def _collect(self, *, connected: bool) -> None:
        """Put what is new into batches, with room for the traffic in between."""
        if connected:
            self._tell_dropped()
        left = len(self._new)
        while left > 0:
            taken = list(islice(self._new, min(BATCH, left)))
            self._batch([event for event in map(self._made, taken) if event is not None])
            left -= len(taken)
            for _ in taken:
                self._new.popleft()
            if left > 0:
                await asyncio.sleep(0)

    def _made(self, event: Event | Callable[[], Event]) -> Event | None:
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
            line = encode_batch(self._number + 1, events)
        except (WireError, AttributeError):
            # One that cannot be said must not take the others with it.
            if len(events) == 1:
                self.dropped += 1
                return
            half = len(events) // 2
            self._batch(events[:half])
            self._batch(events[half:])
            return
        self._number += 1
        self._batches[self._number] = _Sent(len(events), line)
        self._batched += len(events)

    def _tell_dropped(self) -> None:
        new = self.dropped - self._told_dropped
        now = time.monotonic()
        if new and self.waiting < self._limit and now - self._told_at >= DROPS_AGAIN:
            self._told_dropped, self._told_at = self.dropped, now
            text = f"worker {self._worker}: {new} events were dropped, as too many waited to be recorded"
            logger.error("records: %s", text)
            detail = {"alarm": "dropped", "text": text, "events": new}
            self.emit(make_event("alarm", self._clock(), os.urandom(RANDOM), node=self._node, detail=detail))

    def _send_metrics(self, writer: asyncio.StreamWriter, *, told: bool) -> None:
        """Pass on what is counted, and whether some of it was over another connection: who adds up may be
        another process than then."""
        now = time.monotonic()
        if self.metrics is None or (now - self._metrics_at < METRICS and not self._closing.is_set()):
            return
        self._metrics_at = now
        try:
            metrics = self.metrics()
            writer.write(encode({"metrics": metrics | {"told": True} if told else metrics}))
            self._told_metrics = True
        except Exception as e:  # noqa: BLE001 - what is counted must not cost what is recorded
            logger.error("records: the metrics cannot be told: %s", type(e).__name__)

    def _say(self) -> None:
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since, self._alone_at = now, self._clock()
        if not self._told_alone and now - self._alone_since >= SILENT_FOR:
            self._told_alone = True
            logger.warning("records: the process that records does not answer; events wait in memory")

    def _say_back(self, waited: int) -> None:
        self._alone_since = None
        if self._told_alone:
            self._told_alone = False
            logger.info("records: the process that records answers again; %d events have waited", waited)
