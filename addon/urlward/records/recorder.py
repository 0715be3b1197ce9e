"""Recorder: delivers the events of the node's outbox to every store, and keeps the outbox in order.

Events that waited for a store in a spool, as versions before the outbox had it, are taken in once.

``spool/STORE/*.spool``: a line that says what it is, then frames: four bytes of length, four with the number
of events, eight of checksum (BLAKE2b), and the events as a JSON array.
"""

import asyncio
import logging
import math
import os
import re
import shutil
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from urlward.config import RecordsTable
from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError, fault_text
from urlward.lasting import lasting
from urlward.records.asking import Desk
from urlward.records.delivery import ENDS, Delivery, RecorderState
from urlward.records.event import RANDOM, Event, Kind, gap, make_event
from urlward.records.exposition import Exposition
from urlward.records.outbox import Batch, LostOutboxError, Outbox, Position, batch_of
from urlward.records.store import Store, StoreError
from urlward.records.writer import Process, Writer, processes
from urlward.regular import read_regular
from urlward.state.folder import locked, read_kept, set_aside, write_kept

logger = logging.getLogger("urlward.records")

SPOOL = "spool"
"""In the state folder: that of all stores."""

RUN = "records.run"
"""In the state folder: the last sign of life."""

_HEAD = b"urlward spool 1\n"
_FRAME = struct.Struct(">II8s")
_NAME = re.compile(r"[0-9]{12}\.spool").fullmatch

KEEP = 0.5
"""Seconds between two looks after the outbox."""

LOOK = 0.5
"""Seconds between two looks for processes that ended without a word."""

WORKERS_WITHIN = 10.0
"""Seconds that workers have at the end to finish what they serve."""

STORES_WITHIN = 1.5
"""Seconds that stores have at the end to take what there is; the rest stays in the outbox."""

SPOOLS_AGAIN = 60.0
"""Seconds until the outbox is tried again that has not taken what waits in a spool of a version before."""

AFTER_FAULT = 30.0
"""Seconds after which a task beside is begun again that failed."""
STARTS_WITHIN = 15.0
"""Seconds within which such a task fails again, if it does."""

FULL = 7 / 8
"""Share of the outbox above which events are dropped that only stores which are behind do not have: what is
above is room for those of all others."""

LEVEL = "outbox.level"
"""In the state folder: the outbox's id, and when all stores last had all."""

LEVEL_AGAIN = 10_000
"""Milliseconds between two times that this is written."""

OVER_AFTER = {
    "store-replaced": 3_600.0, "dropped": 3_600.0, "spool-damaged": 3_600.0, "rules-removed": 300.0,
    "known-file": 3_600.0, "learned-full": 3_600.0,
    "lease-lost": 3_600.0,
}  # fmt: skip
"""Seconds that an alarm lasts which says that something has happened, and which nothing ends."""

MAX_ALARM = 40
"""Characters of an alarm's kind."""

type Opener = Callable[[StoreTable, Path], Store]


def take_in_spools(state: Path, places: Mapping[str, str]) -> None:
    """Move the events of spools to the outbox, each for its store alone, and delete the spools.

    Args:
        state: the state folder.
        places: of the stores that are configured, by their names.

    Raises:
        StoreError: it does not take it; the rest stays where it is.
        OSError: likewise.
        StateError: a damaged segment cannot be set aside.
    """
    folder = state / SPOOL
    if not folder.is_dir():
        return
    outbox = Outbox(state)
    for spool in sorted(folder.iterdir()):
        segments = sorted(path for path in spool.glob("*.spool") if _NAME(path.name))
        if spool.name not in places:
            if segments:
                logger.warning("records: %s: waits for a store that is not configured: deleted", spool)
            continue
        for path in segments:
            try:
                data = read_regular(path)
            except OSError as e:
                set_aside(state, path, e.strerror or e, "events in it are lost")
                continue
            frames, is_whole = _read(data)
            if frames:
                outbox.append(frames, places[spool.name])
            if is_whole:
                path.unlink()
            else:
                set_aside(state, path, "damaged", "what can be read of it is kept")
    outbox.close()
    shutil.rmtree(folder.resolve())
    folder.unlink(missing_ok=True)  # was a link


def sign_of_life(state: Path) -> int | None:
    """Time of the last sign of life of such a version's recorder that ended unexpectedly; deletes it.

    Returns:
        ms since 1970-01-01 UTC; None where there was none.

    Raises:
        OSError: it cannot be looked at.
    """
    path = state / RUN
    try:
        said = read_regular(path)
    except FileNotFoundError:
        return None
    path.unlink()
    return int(said) if said.strip().isdigit() else None


def _read(data: bytes) -> tuple[list[Batch], bool]:
    """Read the events of a segment, and whether those are all that was in it."""
    found: list[Batch] = []
    at = len(_HEAD)
    while data.startswith(_HEAD) and at + _FRAME.size <= len(data):
        size, count, checksum = _FRAME.unpack_from(data, at)
        start = at + _FRAME.size
        frame = data[start : start + size]
        if len(frame) < size or blake2b(frame, digest_size=8).digest() != checksum:
            break
        found.append(Batch(count, "{}", frame))
        at = start + size
    return found, at == len(data)


class Recorder:
    """Recorder: runs the deliveries until it is stopped.

    Args:
        records: the configuration.
        state: the state folder.
        open_store: opens a store; called in a thread of that store's own.
        measures: takes what workers count.
        answers: to what may be asked over the socket.
        clock: nanoseconds since 1970-01-01 UTC.

    Attributes:
        deliveries: one for each store.
        taken: events by kind, since the start.
        raised: how often each kind of alarm was raised, likewise.
    """

    def __init__(
        self,
        records: RecordsTable,
        state: Path,
        open_store: Opener,
        *,
        measures: Exposition | None = None,
        answers: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.taken: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self._lasting: dict[tuple[str, str], tuple[str, float]] = {}
        self._node = records.node
        self._state = state
        self._measures = measures
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._records = records
        who = "the process that records"
        name = f"{records.node[:100]}-records-{os.getpid()}-{os.urandom(4).hex()}"
        self._writer = Writer(state, name, records.node, who, limit=records.queue, clock=clock)
        self._desk = Desk(state, answers or {}, self._measure)
        self.deliveries = tuple(
            Delivery(
                name,
                place_of(table),
                state,
                partial(open_store, table, state),
                self._tell_of(name),
                partial(self.lasts, whose=name),
            )
            for name, table in zip(store_names(records.store), records.store, strict=True)
        )
        self._outbox = Outbox(state)
        self._begun = self._ending = False
        self._end = Position()
        self._level_at = self._now()
        self._level, self._looked = state / LEVEL, self._level_at
        self._level_written = 0, 0
        self._settled: object = None
        self._count_at = 0.0
        self._used = self._refused = 0
        self._waiting: Mapping[str, int] = {}
        self._trouble = ""
        self._dropping_since: dict[str, int] = {}
        self._measured: set[str] = set()
        self._look_at = 0.0
        self._spools_at = 0.0

    @property
    def alarms(self) -> Mapping[str, str]:
        """Texts of our alarms that last, by kind."""
        now = time.monotonic()
        found: dict[str, list[str]] = {}
        for (kind, _), (text, until) in self._lasting.items():
            if now < until:
                found.setdefault(kind, []).append(text)
        return {kind: "; ".join(texts) for kind, texts in found.items()}

    def state(self, more: Mapping[str, str] | None = None) -> RecorderState:
        """Current state of the recorder.

        Args:
            more: alarms that last beside its own, by kind.
        """
        stores = {delivery.name: delivery.state() for delivery in self.deliveries}
        behind = sum(store.waiting for store in stores.values() if store.behind)
        return RecorderState(
            events=dict(self.taken),
            queue=max((store.waiting for store in stores.values() if not store.behind), default=0),
            spool_events=behind,
            spool_bytes=self._used if behind else 0,
            spool_limit=self._records.spool,
            dropped=self._writer.dropped + sum(store.dropped for store in stores.values()),
            stores=stores,
            alarms={**self.alarms, **(more or {})},
            raised={kind: count for kind, count in self.raised.items() if kind not in ENDS},
        )

    async def run(
        self,
        stop: asyncio.Event,
        beside: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
        *,
        replaced: asyncio.Event | None = None,
    ) -> None:
        """Run until stopped; what is not in every store then is in the outbox.

        Args:
            stop: set to end, once the workers have.
            replaced: set before, where they go on, and others deliver what they say.
            beside: tasks to run meanwhile, by name; one that fails is begun again.

        Raises:
            StateError: the state folder cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self.tell("start", {"process": "records"})
        await self._desk.start()
        writing = asyncio.ensure_future(lasting("records: writing", self._writer.run))
        keeping = asyncio.ensure_future(self._keep_always())
        tasks = [
            asyncio.ensure_future(
                lasting(f"records: {name}", partial(self._do, name, task), again=AFTER_FAULT)
            )
            for name, task in (beside or {}).items()
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if replaced is None or not replaced.is_set():
            await self._until_workers_end()
        self.tell("stop", {"process": "records"})
        await self._writer.close()
        await writing
        await asyncio.gather(*(asyncio.to_thread(one.close, STORES_WITHIN) for one in self.deliveries))
        self._ending = True
        await keeping
        await self._desk.close()

    async def _do(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task; while it fails, which the log says, there is an alarm, too: nobody can look at a
        dashboard that is not there."""
        try:
            await task()
        except Exception as e:
            text, kind = f"{name}: {fault_text(e)}", "begun-again"
            if text not in self.alarms.get(kind, ""):
                self.tell("alarm", {"alarm": kind, "text": text})
            self._lasting[kind, name] = text, time.monotonic() + AFTER_FAULT + STARTS_WITHIN
            raise

    async def _until_workers_end(self) -> None:
        end = time.monotonic() + WORKERS_WITHIN
        while time.monotonic() < end:
            with suppress(OSError):
                if not any(one.lives and one.name != self._writer.name for one in processes(self._state)):
                    return
            await asyncio.sleep(0.05)

    def tell(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """Record an event of this process.

        Args:
            kind: of event.
            detail: what JSON can say.
            fields: further fields of `Event`.
        """
        self._writer.emit(self._event(kind, detail, **fields))

    def _event(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> Event:
        fields = {"node": self._node, "detail": detail} | fields
        return make_event(kind, self._clock(), os.urandom(RANDOM), **fields)

    def tell_from_thread(self, kind: Kind, detail: dict[str, Any], **fields: Any) -> None:
        """As `tell`, from any thread."""
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

    def _alarm(self, alarm: str, text: str, whose: str, **fields: Any) -> None:
        logger.log(logging.INFO if alarm in ENDS else logging.ERROR, "records: %s", text)
        if alarm in ENDS:
            self._lasting.pop((ENDS[alarm], whose), None)
        elif alarm in ENDS.values():
            self._lasting[alarm, whose] = text, math.inf
        elif alarm in OVER_AFTER:
            self._lasting[alarm, whose] = text, time.monotonic() + OVER_AFTER[alarm]
        self.tell("alarm", {"alarm": alarm, "text": text}, **fields)
        if alarm == "dropped":
            since = self._dropping_since.pop(whose, None) or self._now()
            self.tell("gap", gap(since, self._now(), text))

    def lasts(self, alarm: str, text: str, whose: str) -> None:
        """Take an alarm that lasts, and was recorded before this process began, from any thread."""
        assert self._loop is not None
        if alarm in ENDS.values():
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                lasting = self._lasting.__setitem__
                self._loop.call_soon_threadsafe(lasting, (alarm, whose), (text, math.inf))

    def _tell_of(self, store: str) -> Callable[[str, str], None]:
        return partial(self.alarm, whose=store)

    def _measure(self, worker: str, metrics: dict[str, Any]) -> None:
        self._measured.add(worker)
        if self._measures is not None:
            self._measures.take(worker, metrics)

    async def _keep_always(self) -> None:
        """Keep the outbox in order until the end, and once more then."""
        ending = False
        while not ending:
            ending = self._ending
            try:
                await asyncio.to_thread(self._keep)
                self._say_trouble(self._writer.trouble)
            except LostOutboxError:
                pass  # the next look finds another
            except (StoreError, OSError) as e:
                self._say_trouble(str(e))
            except Exception as e:  # noqa: BLE001 - a bug of ours must not end the records
                self._say_trouble(fault_text(e), "the outbox may fill up")
            if not ending:
                await asyncio.sleep(KEEP)
        self._outbox.close()

    def _say_trouble(self, trouble: str, then: str = "events wait in memory") -> None:
        if trouble and not self._trouble:
            self._alarm("spool-down", f"{trouble}; {then}", "")
        elif self._trouble and not trouble:
            self._alarm("spool-back", "events that the disk did not take have a place again", "")
        self._trouble = trouble

    def _keep(self) -> None:
        """Do one round of keeping the outbox."""
        if not self._begun:
            self._begin()
        self._looked = self._now() - 1_000  # an event is written up to a moment after it was made
        news = self._outbox.news(self._end)
        if news.last.file != self._end.file:
            self._begun_anew()
        self.taken += news.kinds
        self.raised += Counter({kind[:MAX_ALARM]: count for kind, count in news.alarms.items()})
        self._end = news.last
        failed: Exception | None = None
        steps = (self._take_in, self._settle, self._make_room, self._tell_stores, self._look_for_processes)
        for step in steps:
            try:
                step()
            except (StoreError, OSError) as e:
                failed = failed or e
        if failed is not None:
            raise failed

    def _begin(self) -> None:
        self._read_level()
        with suppress(LostOutboxError):  # said below
            self._outbox.check()
        self._take_in()
        cursors = self._outbox.cursors()
        for place in cursors.keys() - {"", *(one.place for one in self.deliveries)}:
            if count := self._outbox.waiting(place, cursors[place][0]):
                logger.warning("records: %d events waited for a store that is not configured any more", count)
        start = Position(self._outbox.file)
        if self._end.file not in (0, start.file):
            self._begun_anew()
        if self._end.file != start.file:
            self._is_level(start.file, self._level_at)
        self._end, _ = cursors.get("", (start, False))
        for delivery in self.deliveries:
            position, down = cursors.get(delivery.place, (start, False))
            delivery.start(position, down=down)
        self._begun = True

    def _take_in(self) -> None:
        """Take in what a version before has left, once."""
        now = time.monotonic()
        if now < self._spools_at:
            return
        again, self._spools_at = self._spools_at, math.inf
        try:
            take_in_spools(self._state, {one.name: one.place for one in self.deliveries})
            if (since := sign_of_life(self._state)) is not None:
                text = "the process that records ended without a word"
                self.tell_from_thread("gap", gap(since, self._now(), text))
        except StoreError as e:
            self._spools_at = now + SPOOLS_AGAIN
            if not again:
                logger.error("records: what waits in a spool of a version before is tried again: %s", e)
        except (UrlwardError, OSError) as e:
            # What has been taken in may be there still, and is not to be taken in each minute.
            logger.error(
                "records: what waits in a spool of a version before stays there until the next start: %s", e
            )

    def _begun_anew(self) -> None:
        text = "the outbox was damaged, deleted or replaced, and is begun anew; what waited in it is lost"
        self.alarm("spool-damaged", text)
        self.tell_from_thread("gap", gap(self._level_at, self._now(), text))

    def _settle(self) -> None:
        """Save the stores' cursors, and delete what they all have."""
        here, looked = self._outbox.file, self._looked
        cursors = {one.place: (one.position, one.down) for one in self.deliveries}
        cursors[""] = self._end, False
        if cursors != self._settled:
            up_to = min(position.seq if position.file == here else 0 for position, _ in cursors.values())
            self._outbox.settle(cursors, Position(here, up_to))
            self._settled = cursors
        if all(one.position == self._end for one in self.deliveries):
            self._is_level(here, looked)

    def _read_level(self) -> None:
        lost = "whether the outbox was another before is not known"
        try:
            found = read_kept(
                self._level, 1, "level", lambda one: (int(one["file"]), int(one["time"])), StoreError, lost
            )
        except UrlwardError as e:
            logger.error("records: %s; %s", e, lost)
            return
        for file, since in found:
            self._end, self._level_at = Position(file), since

    def _is_level(self, file: int, time: int) -> None:
        self._level_at = time
        if self._level_written[0] == file and 0 <= time - self._level_written[1] < LEVEL_AGAIN:
            return
        with suppress(UrlwardError, OSError):  # a full disk must not keep events from the stores
            with locked(self._state):
                write_kept(self._level, 1, "level", [{"file": file, "time": time}])
            self._level_written = file, time

    def _make_room(self) -> None:
        """Drop events for stores that are behind, where there is no room left."""
        self._used = self._outbox.used()
        if self._used <= self._records.spool * FULL:
            return
        behind = {one.place: one for one in self.deliveries if one.behind}
        up_to = min((one.position for one in self.deliveries if not one.behind), default=self._end)
        with ExitStack() as none_reads:
            for one in behind.values():
                none_reads.enter_context(one.reading)  # or it would be given what counts as dropped
            lost = self._outbox.drop(
                int(self._records.spool * FULL),
                min(up_to, self._end),
                {p: one.reached for p, one in behind.items()},
            )
        for place, count in lost.items():
            if count:
                self._dropping_since.setdefault(behind[place].name, self._looked)
                behind[place].dropped += count
        self._used = self._outbox.used()

    def _tell_stores(self) -> None:
        begun = time.monotonic()
        if begun >= self._count_at:
            self._waiting = {
                one.place: self._outbox.waiting(one.place, one.position) for one in self.deliveries
            }
            # Counting what waits for a store that was down for hours takes a while.
            self._count_at = begun + 20 * (time.monotonic() - begun)
        for one in self.deliveries:
            one.look(self._end, self._waiting[one.place])
        refused = max((one.refused for one in self.deliveries), default=0)
        if refused > self._refused:
            self.alarm("refused", f"{refused - self._refused} events are none, and are not kept")
            self._refused = refused

    def _look_for_processes(self) -> None:
        """Report processes that ended unexpectedly, once each, and clear those that are done."""
        if (now := time.monotonic()) < self._look_at:
            return
        self._look_at = now + LOOK
        found = processes(self._state)
        for one in found:
            if not one.lives:
                self._tell_of_end(one)
        here = {one.name for one in found if one.lives} | self._desk.connected
        for name in self._measured - here:
            self._measured.discard(name)
            if self._measures is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._measures.gone, name)

    def _tell_of_end(self, one: Process) -> None:
        text = f"{one.who} ended without a word"
        detail = gap(one.since, self._now(), text)
        event = self._event("gap", detail, node=one.node or self._node)
        self._outbox.append([batch_of([event])])
        one.path.unlink(missing_ok=True)
        logger.error(
            "records: %s; events from %s to %s may be missing", text, detail["since"], detail["until"]
        )

    def _now(self) -> int:
        return self._clock() // 1_000_000


def store_names(tables: Iterable[StoreTable]) -> list[str]:
    """Name the stores: by kind, numbered from the second of a kind on."""
    seen: Counter[str] = Counter()
    names = []
    for table in tables:
        seen[table.kind] += 1
        names.append(table.kind if seen[table.kind] == 1 else f"{table.kind}-{seen[table.kind]}")
    return names


def place_of(table: StoreTable) -> str:
    """Key that identifies a store, whatever its order in the configuration."""
    return " ".join(filter(None, (table.kind, table.file, table.url_file, table.url_env, table.address)))
