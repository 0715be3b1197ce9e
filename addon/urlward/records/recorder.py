"""What the process that records does: takes events from workers, and has every store keep them."""

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from urlward.config import RecordsTable
from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.lists.state import StateError
from urlward.records.asking import reply
from urlward.records.event import RANDOM, Event, EventError, Kind, detail_of, make_event, time_text
from urlward.records.heartbeat import BEAT, Heartbeat
from urlward.records.server import Server
from urlward.records.sink import StoreSink
from urlward.records.spool import SPOOL, Spool
from urlward.records.store import Store
from urlward.records.store_alarms import ENDS
from urlward.records.wire import Hello

logger = logging.getLogger("urlward.records")

SOCKET = "records.sock"
"""In the state folder."""

WORKERS_WITHIN = 10.0
"""Seconds that workers have at the end to hand in what they have, and to end: what they serve they finish."""

STORES_WITHIN = 1.5
"""Seconds that stores have at the end to take it; what they do not take is spooled."""

SETTLED_WITHIN = 10.0
"""Seconds that stores have to be opened before whatever else wants them."""

AFTER_FAULT = 30.0
"""Seconds after which a task beside is tried again that ended."""

OVER_AFTER = {
    "store-replaced": 3_600.0, "dropped": 3_600.0, "spool-damaged": 3_600.0, "rules-removed": 300.0,
}  # fmt: skip
"""Seconds that an alarm lasts which says that something was lost, and which nothing ends."""

MAX_ALARM = 40
"""Characters of an alarm's kind."""

type Opener = Callable[[StoreTable, Path], Store]


class Measures(Protocol):
    """Adds up what workers count; see `urlward.records.exposition`."""

    def take(self, worker: str, snapshot: dict[str, Any]) -> None:
        """Take what a worker has counted since its start."""

    def gone(self, worker: str) -> None:
        """A worker has ended."""


class Recorder:
    """Takes events until told to stop.

    Args:
        records: the configuration.
        state: the state folder.
        open_store: opens a store; called in a thread of that store's own.
        measures: takes what workers count.
        answers: to what may be asked over the socket.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        sinks: one for each store.
        taken: events by kind, since the start.
        raised: how often each kind of alarm was raised, likewise.
    """

    def __init__(
        self,
        records: RecordsTable,
        state: Path,
        open_store: Opener,
        *,
        measures: Measures | None = None,
        answers: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._answers = answers or {}
        self.taken: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self._lasting: dict[tuple[str, str], tuple[str, float]] = {}
        self._node = records.node
        self._path = state / SOCKET
        self._spools = state / SPOOL
        self._measures = measures
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heartbeat = Heartbeat(state)
        self._server = Server(self._path, self, lambda: clock() / 1e9)
        limit = records.spool // len(records.store)
        self.sinks = tuple(
            StoreSink(
                name,
                partial(open_store, table, state),
                Spool(state / SPOOL / name, limit, state),
                partial(self.alarm, whose=name),
            )
            for name, table in zip(store_names(records.store), records.store, strict=True)
        )

    @property
    def alarms(self) -> Mapping[str, str]:
        """What each alarm of ours that lasts says, by kind."""
        now = time.monotonic()
        found: dict[str, list[str]] = {}
        for (kind, _), (text, until) in self._lasting.items():
            if now < until:
                found.setdefault(kind, []).append(text)
        return {kind: "; ".join(texts) for kind, texts in found.items()}

    async def run(
        self, stop: asyncio.Event, beside: Mapping[str, Callable[[], Awaitable[None]]] | None = None
    ) -> None:
        """Record until told to stop; everything is safe then.

        Args:
            stop: set to end.
            beside: tasks to run meanwhile, by name; one that ends or fails is begun again.

        Raises:
            StateError: the state folder cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        missing = self._heartbeat.begin(now := self._now())
        for sink in self.sinks:
            sink.start()
        # Made before anybody can hand in anything, so that it is the first.
        start = self._event("start", {"process": "records"})
        try:
            await self._server.start()
        except StateError:
            self._heartbeat.end()
            raise
        self.take([start], _pass)
        if missing is not None:
            # A clock that was set back meanwhile has them in the other order.
            self._gap(min(missing, now), max(missing, now), "the process that records ended without a word")
        self._look_for_strays()
        tasks = [asyncio.ensure_future(self._beat())]
        tasks += [asyncio.ensure_future(_always(name, task)) for name, task in (beside or {}).items()]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    async def settled(self) -> None:
        """Wait until each store has been opened, or could not be, or has taken too long."""
        end = time.monotonic() + SETTLED_WITHIN
        while not all(sink.tried for sink in self.sinks) and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def _look_for_strays(self) -> None:
        """Say what is spooled for stores that are no longer configured, since nobody else would ever look."""
        names = {sink.name for sink in self.sinks}
        with suppress(OSError):
            for folder in self._spools.iterdir():
                if folder.name not in names:
                    logger.warning(
                        "records: %s: events wait for a store that is not configured; configure or delete it",
                        folder,
                    )

    async def _end(self) -> None:
        await self._server.close(WORKERS_WITHIN)
        self._path.unlink(missing_ok=True)
        self.tell("stop", {"process": "records"})
        ends = [asyncio.to_thread(sink.close, STORES_WITHIN) for sink in self.sinks]
        if all(await asyncio.gather(*ends)):
            self._heartbeat.end()
        else:
            logger.error("records: not all events could be kept; the next start says so")

    def tell(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """Record an event of this process.

        Args:
            kind: of event.
            detail: what JSON can say.
            fields: further fields of `Event`.
        """
        self.take([self._event(kind, detail, **fields)], _pass)

    def _event(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> Event:
        fields = {"node": self._node, "detail": detail} | fields
        return make_event(kind, self._clock(), os.urandom(RANDOM), **fields)

    def tell_from_thread(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """The same, from any thread."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody records any more
            self._loop.call_soon_threadsafe(partial(self.tell, kind, detail, **fields))

    def alarm(self, alarm: str, text: str, whose: str = "", **fields: Any) -> None:
        """Record an alarm, from any thread, and write it to the log.

        Args:
            alarm: its kind, a word of ours.
            text: what is wrong.
            whose: which store's or list's it is.
            fields: further fields of `Event`.
        """
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody records any more
            self._loop.call_soon_threadsafe(partial(self._alarm, alarm, text, whose, **fields))

    def take(self, events: Sequence[Event], safe: Callable[[], None]) -> None:
        """As `urlward.records.server.Taker` says."""
        self.taken.update([event.kind for event in events])
        self.raised.update(filter(None, [_alarm_of(event) for event in events if event.kind == "alarm"]))
        if not events:
            safe()
            return
        together = _Together(len(self.sinks), safe)
        for sink in self.sinks:
            sink.put(events, together)

    @property
    def crowded(self) -> bool:
        """As `urlward.records.server.Taker` says."""
        return any(sink.crowded for sink in self.sinks)

    def measure(self, worker: str, metrics: dict[str, Any]) -> None:
        """As `urlward.records.server.Taker` says."""
        if self._measures is not None:
            self._measures.take(worker, metrics)

    def answer(self, question: str) -> bytes:
        """As `urlward.records.server.Taker` says."""
        return reply(question, self._answers)

    def refused(self, worker: str, count: int) -> None:
        """As `urlward.records.server.Taker` says."""
        self._alarm("refused", f"worker {worker}: {count} of its events are none, and are not kept", "")

    def gone(self, worker: Hello, killed: float | None) -> None:
        """As `urlward.records.server.Taker` says."""
        if self._measures is not None:
            self._measures.gone(worker.worker)
        if killed is not None:
            when = round(killed * 1000)
            self._gap(when - 1000, when, f"worker {worker.worker} ended without a word", worker.node)

    def _gap(self, since: int, until: int, why: str, node: str = "") -> None:
        times = {"since": time_text(since), "until": time_text(until)}
        logger.error("records: %s; events from %s to %s may be missing", why, *times.values())
        self.tell("gap", times | {"text": why}, node=node or self._node)

    def _alarm(self, alarm: str, text: str, whose: str, **fields: Any) -> None:
        logger.log(logging.INFO if alarm in ENDS else logging.ERROR, "records: %s", text)
        if alarm in ENDS:
            self._lasting.pop((ENDS[alarm], whose), None)
        elif alarm in ENDS.values():
            self._lasting[alarm, whose] = text, math.inf
        elif alarm in OVER_AFTER:
            self._lasting[alarm, whose] = text, time.monotonic() + OVER_AFTER[alarm]
        self.tell("alarm", {"alarm": alarm, "text": text}, **fields)

    async def _beat(self) -> None:
        while True:
            with suppress(OSError):
                self._heartbeat.beat(self._now())
            await asyncio.sleep(BEAT)

    def _now(self) -> int:
        return self._clock() // 1_000_000


class _Together:
    """Called once for each of several, calls on when all have."""

    __slots__ = ("_left", "_lock", "_then")

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left = count
        self._then = then
        self._lock = Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._then()


def store_names(tables: Iterable[StoreTable]) -> list[str]:
    """A name for each store: its kind, numbered from the second of a kind on."""
    seen: Counter[str] = Counter()
    names = []
    for table in tables:
        seen[table.kind] += 1
        names.append(table.kind if seen[table.kind] == 1 else f"{table.kind}-{seen[table.kind]}")
    return names


async def _always(name: str, task: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await task()
        except UrlwardError as e:
            logger.error("records: %s: %s", name, e)
        except Exception as e:  # noqa: BLE001 - a bug beside must not end the records
            logger.error("records: %s: a bug: %s", name, type(e).__name__)
        await asyncio.sleep(AFTER_FAULT)


def _alarm_of(event: Event) -> str:
    """The kind of an alarm, or empty where it does not say."""
    try:
        return str(detail_of(event).get("alarm", ""))[:MAX_ALARM]
    except EventError:
        return ""


def _pass() -> None:
    """Nobody waits for it."""
