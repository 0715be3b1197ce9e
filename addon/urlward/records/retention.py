"""Retention: deletes records that are older than their days.

A record is deleted before it is older than its days, not at the first look after: each run takes what will
be over by the next.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Self

from urlward.config.records import DaysTable, RecordsTable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.records.database import Database
from urlward.records.event import KINDS, PERSONAL, canonical_reference
from urlward.records.holds import held_references
from urlward.records.store import AbsentError, KeepingStore, Node, StoreError, node_of
from urlward.records.stores import open_store
from urlward.state.folder import StateError, locked, made_folder, read_kept, write_kept

logger = logging.getLogger("urlward.records")

INTERVAL = 3_600.0
"""Seconds between two runs."""

AGAIN = 60.0
"""Seconds until the next run after one that failed."""

CLOCK = "retention.json"

SET = 2 * 86_400.0
"""Seconds that the clock may be from what it should be before it counts as set."""

SETTLED = 86_400.0
"""Seconds for which a clock that was set is not gone by alone."""


def days_of(days: DaysTable) -> dict[str, int]:
    """Days of each kind of event; kinds that are kept for ever are not in it."""
    found = {kind: days.blocks if kind in PERSONAL else days.operations for kind in KINDS}
    return {kind: number for kind, number in found.items() if number is not None}


class KeepingStores:
    """Stores of a configuration that can delete, each opened when possible.

    Args:
        records: the configuration.
        state: the state folder.
        make: whether files that are not there are made; otherwise there is nothing to delete.

    Attributes:
        node: whose configuration it is.

    Raises:
        StateError: the state folder cannot be used.
    """

    def __init__(self, records: RecordsTable, state: Path, *, make: bool = True) -> None:
        shared = any(table.kind == "postgresql" for table in records.store)
        self.node = node_of(records.node, state) if shared else Node(records.node, "")
        self._state = state
        self._make = make
        self._tables = [table for table in records.store if table.kind != "syslog"]
        self._opened: dict[int, KeepingStore] = {}

    def all(self) -> tuple[list[KeepingStore], list[StoreError]]:
        """Opened stores, and the errors of those that cannot be opened."""
        errors = []
        for n, opened in [*self._opened.items()]:
            try:
                if isinstance(opened, Database):
                    opened.check()
            except StoreError:
                # Deleted or moved: what is to be forgotten is in another file now.
                self._opened.pop(n).close()
        for n, table in enumerate(self._tables):
            if n not in self._opened:
                try:
                    store = open_store(table, self._state, make=self._make)
                except AbsentError:
                    continue
                except StoreError as e:
                    errors.append(e)
                else:
                    assert isinstance(store, KeepingStore)
                    self._opened[n] = store
        return list(self._opened.values()), errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all stores."""
        for store in self._opened.values():
            store.close()
        self._opened.clear()


class RetentionClock:
    """Clock for retention: the wall clock, unless that was set by days.

    A clock that runs ahead would have everything deleted, and holds ended, and nothing brings them back.
    Where it is more than `SET` from what it should be, by the last look and a clock that nobody sets, the
    earlier of the two times counts until that has lasted for `SETTLED`: time to see to it, and no more than
    that late after a machine was off for long. How far that is stands in ``retention.json`` in the state
    folder.

    May be called from several threads.

    Args:
        state: the state folder.
        tell: takes an alarm's kind and text.
        wall: seconds since 1970-01-01 UTC.
        steady: seconds of a clock that is not set.

    Attributes:
        is_set: whether the wall clock was set by days, as the last look has found.
    """

    def __init__(
        self,
        state: Path,
        tell: Callable[[str, str], None],
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = state / CLOCK
        self._tell = tell
        self._wall = wall
        self._steady = steady
        self._lock = Lock()
        self._last = steady()
        self.is_set = False
        self._time, self._waited = self._read()

    def __call__(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        with self._lock:
            wall, steady = self._wall(), self._steady()
            elapsed, self._last = steady - self._last, steady
            expected = wall if self._time is None else self._time + elapsed
            self._time = expected
            if abs(wall - expected) <= SET:
                self._take(wall)
            else:
                self._waited += elapsed
                if self._waited >= SETTLED:
                    self._take(wall)
                elif not self.is_set:
                    self.is_set = True
                    says, should = time_text(wall), time_text(expected)
                    self._tell(
                        "clock-set",
                        f"the clock says {says} where it should be {should}: for a day nothing is deleted "
                        "that is not over by both; set it, or delete now with urlward records purge",
                    )
            self._write()
            return min(wall, self._time)

    def _take(self, wall: float) -> None:
        self._time, self._waited = wall, 0.0
        if self.is_set:
            self.is_set = False
            self._tell(
                "clock-settled", f"records are deleted by the clock again, which says {time_text(wall)}"
            )

    def _read(self) -> tuple[float | None, float]:
        try:
            found = read_kept(self._path, 1, "clock", _clock, StateError, "made anew")
        except StateError as e:
            logger.warning("records: %s; made anew", e)
            found = []
        return found[0] if found else (None, 0.0)

    def _write(self) -> None:
        try:
            with locked(made_folder(self._path.parent)):
                write_kept(self._path, 1, "clock", [{"time": self._time, "waited": self._waited}])
        except StateError as e:
            logger.error("records: %s", e)


def _clock(stored: dict[str, Any]) -> tuple[float | None, float]:
    return float(stored["time"]), float(stored["waited"])


async def retain(
    records: RecordsTable,
    state: Path,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Enforce a configuration's days in all its stores, until cancelled.

    Args:
        records: the configuration.
        state: the state folder.
        clock: seconds since 1970-01-01 UTC.
        sleep: waits that many seconds.
    """

    async def wait(seconds: float) -> None:
        # A machine without a clock of its own has the right time as soon as the network is there.
        await sleep(AGAIN if isinstance(clock, RetentionClock) and clock.is_set else seconds)

    stores, days = KeepingStores(records, state), days_of(records.days)
    await run_retention(stores, days, lambda: held_references(state, clock()), clock, wait)


async def run_retention(
    stores: KeepingStores,
    days: Mapping[str, int],
    holds: Callable[[], Mapping[str, int]],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run retention until cancelled, and log what it does.

    Args:
        stores: to delete from; they are closed at the end.
        days: of each kind, as of `days_of`.
        holds: references whose records stay, with their ends, as they are at the moment
            (`urlward.records.holds`).
        clock: seconds since 1970-01-01 UTC; called in a thread, like `holds`.
        sleep: waits that many seconds.
    """
    try:
        while True:
            deleted, errors = await asyncio.to_thread(
                lambda: purge(stores, days, holds, clock(), ahead=INTERVAL)
            )
            for name, number in deleted.items():
                if number:
                    logger.info("records: %s: %d deleted, their days are over", name, number)
            for error in errors:
                logger.error("records: not deleted, though their days are over: %s", error)
            await sleep(AGAIN if errors else INTERVAL)
    finally:
        stores.close()


def purge(
    stores: KeepingStores,
    days: Mapping[str, int],
    holds: Callable[[], Mapping[str, int]],
    now: float,
    *,
    ahead: float = 0.0,
) -> tuple[dict[str, int], list[UrlwardError]]:
    """Delete expired records.

    Args:
        stores: to delete from.
        days: of each kind.
        holds: references whose evidence stays, with the seconds since 1970-01-01 UTC until which it does. A
            database is told of them first; what other nodes hold there stays too.
        now: seconds since 1970-01-01 UTC.
        ahead: what is over within so many seconds is deleted too.

    Returns:
        How many events of each store were deleted, and what stood in the way.
    """
    try:
        here = holds()
    except UrlwardError as e:
        return {}, [e]
    opened, found = stores.all()
    until = {reference: seconds * 1000 for reference, seconds in here.items()}
    untold = in_databases(opened, lambda database: database.hold(until, stores.node))
    others, unasked = held_elsewhere(opened, now)
    unasked = {**untold, **unasked}
    held = {*here, *others}
    errors: list[UrlwardError] = [*found, *unasked.values()]
    deleted = {}
    for store in opened:
        if store.name in unasked:
            continue
        try:
            deleted[store.name] = store.purge(days, int((now + ahead) * 1000), held, stores.node)
        except UrlwardError as e:
            errors.append(e)
    return deleted, errors


def in_databases(
    opened: Iterable[KeepingStore], do: Callable[[Database], None], *, shared: bool = False
) -> dict[str, UrlwardError]:
    """Do something in each store that is a database, or in each that nodes share.

    Returns:
        By the names of stores, what went wrong.
    """
    errors: dict[str, UrlwardError] = {}
    for store in opened:
        if isinstance(store, Database) and not (shared and store.is_file):
            try:
                do(store)
            except UrlwardError as e:
                errors[store.name] = e
    return errors


def held_elsewhere(
    opened: Iterable[KeepingStore], now: float
) -> tuple[dict[str, int], dict[str, UrlwardError]]:
    """Holds of all nodes in shared databases, and the databases that cannot be read.

    Args:
        opened: stores.
        now: seconds since 1970-01-01 UTC.

    Returns:
        References with the seconds until which they are held, and by the names of stores what went wrong.
    """
    found: dict[str, int] = {}

    def ask(database: Database) -> None:
        for reference, until in database.held(int(now * 1000)).items():
            name = canonical_reference(reference)
            found[name] = max(found.get(name, 0), until // 1000)

    return found, in_databases(opened, ask)


def held_by_all(
    records: RecordsTable, opened: Collection[KeepingStore], found: Iterable[UrlwardError], now: float
) -> dict[str, int]:
    """As `held_elsewhere`, where each server's database has to answer: a file's holds are those of this
    machine, which are known.

    Args:
        records: the configuration.
        opened: its stores that can be opened.
        found: why others cannot.
        now: seconds since 1970-01-01 UTC.

    Raises:
        StoreError: one does not.
    """
    held, unasked = held_elsewhere(opened, now)
    asked = [
        store
        for store in opened
        if isinstance(store, Database) and not store.is_file and store.name not in unasked
    ]
    if len(asked) < sum(table.kind == "postgresql" for table in records.store):
        why = "; ".join(str(e) for e in dict.fromkeys([*unasked.values(), *found]))
        raise StoreError(f"it is not known what other nodes hold: {why}")
    return held
