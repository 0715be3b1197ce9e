"""Deletes what is older than it may be.

A record is deleted before it is older than its days, not at the first look after: each run takes what will
be over by the next.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from urlward.config.records import DaysTable, RecordsTable
from urlward.engine.errors import UrlwardError
from urlward.records.database import Database
from urlward.records.event import KINDS, PERSONAL
from urlward.records.holds import held_references
from urlward.records.store import AbsentError, KeepingStore, StoreError, open_store

logger = logging.getLogger("urlward.records")

INTERVAL = 3_600.0
"""Seconds between two runs."""

AGAIN = 60.0
"""Seconds until the next run after one that failed."""


def days_of(days: DaysTable) -> dict[str, int]:
    """Days of each kind of event; kinds that are kept for ever are not in it."""
    found = {kind: days.blocks if kind in PERSONAL else days.operations for kind in KINDS}
    return {kind: number for kind, number in found.items() if number is not None}


class KeepingStores:
    """The stores of a configuration that can forget, each opened when it can be.

    Args:
        records: the configuration.
        state: the state folder.
        make: whether files that are not there are made; otherwise there is nothing to delete.
    """

    def __init__(self, records: RecordsTable, state: Path, *, make: bool = True) -> None:
        self._state = state
        self._make = make
        self._tables = [table for table in records.store if table.kind != "syslog"]
        self._opened: dict[int, KeepingStore] = {}

    def all(self) -> tuple[list[KeepingStore], list[StoreError]]:
        """Those that can be used, and why others cannot."""
        errors = []
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

    def close(self) -> None:
        """Close them."""
        for store in self._opened.values():
            store.close()
        self._opened.clear()


async def retain(records: RecordsTable, state: Path, clock: Callable[[], float] = time.time) -> None:
    """Enforce a configuration's days in all its stores, until cancelled.

    Args:
        records: the configuration.
        state: the state folder.
        clock: seconds since 1970-01-01 UTC.
    """
    stores = KeepingStores(records, state)
    await run_retention(stores, days_of(records.days), lambda: held_references(state, clock()), clock)


async def run_retention(
    stores: KeepingStores,
    days: Mapping[str, int],
    holds: Callable[[], Collection[str]],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Delete until cancelled, and say so.

    Args:
        stores: to delete from; they are closed at the end.
        days: of each kind, as of `days_of`.
        holds: references whose records stay, as they are at the moment (`urlward.records.holds`).
        clock: seconds since 1970-01-01 UTC.
        sleep: waits that many seconds.
    """
    try:
        while True:
            deleted, errors = await asyncio.to_thread(purge, stores, days, holds, clock(), ahead=INTERVAL)
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
    holds: Callable[[], Collection[str]],
    now: float,
    *,
    ahead: float = 0.0,
) -> tuple[dict[str, int], list[UrlwardError]]:
    """Delete what is over.

    Args:
        stores: to delete from.
        days: of each kind.
        holds: references whose records stay; what other nodes hold in the same database stays too.
        now: seconds since 1970-01-01 UTC.
        ahead: what is over within so many seconds is deleted too.

    Returns:
        How many events of each store were deleted, and what stood in the way.
    """
    try:
        held = holds()
    except UrlwardError as e:
        return {}, [e]
    opened, found = stores.all()
    errors: list[UrlwardError] = [*found]
    deleted = {}
    for store in opened:
        try:
            deleted[store.name] = store.purge(days, int((now + ahead) * 1000), held_in(store, held, now))
        except UrlwardError as e:
            errors.append(e)
    return deleted, errors


def held_in(store: KeepingStore, held: Collection[str], now: float) -> set[str]:
    """References whose events stay in a store: those held here, and those that any node holds in it.

    Raises:
        StoreError: they cannot be read.
    """
    return {*held, *(store.held(int(now * 1000)) if isinstance(store, Database) else ())}
