"""Deletes what is older than it may be.

A record is deleted before it is older than its days, not at the first look after: each run takes what will
be over by the next.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from urlward.config.records import DaysTable
from urlward.engine.errors import UrlwardError
from urlward.records.event import KINDS, PERSONAL
from urlward.records.store import KeepingStore

logger = logging.getLogger("urlward.records")

INTERVAL = 3_600.0
"""Seconds between two runs."""

AGAIN = 60.0
"""Seconds until the next run after one that failed."""


def days_of(days: DaysTable) -> dict[str, int]:
    """Days of each kind of event; kinds that are kept for ever are not in it."""
    found = {kind: days.blocks if kind in PERSONAL else days.operations for kind in KINDS}
    return {kind: number for kind, number in found.items() if number is not None}


async def run_retention(
    stores: Sequence[KeepingStore],
    days: Mapping[str, int],
    holds: Callable[[], Sequence[str]],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Delete until cancelled.

    Args:
        stores: to delete from.
        days: of each kind, as of `days_of`.
        holds: references whose records stay, as they are at the moment.
        clock: seconds since 1970-01-01 UTC.
        sleep: waits that many seconds.
    """
    while True:
        well = await asyncio.to_thread(purge_all, stores, days, holds, clock() + INTERVAL)
        await sleep(INTERVAL if well else AGAIN)


def purge_all(
    stores: Sequence[KeepingStore], days: Mapping[str, int], holds: Callable[[], Sequence[str]], now: float
) -> bool:
    """Delete what is over at a time, and say so; whether nothing stood in the way."""
    try:
        held = holds()
    except UrlwardError as e:
        logger.error("records: nothing is deleted: %s", e)
        return False
    well = True
    for store in stores:
        try:
            deleted = store.purge(days, int(now * 1000), held)
        except UrlwardError as e:
            logger.error("records: not deleted, though their days are over: %s", e)
            well = False
        else:
            if deleted:
                logger.info("records: %s: %d deleted, their days are over", store.name, deleted)
    return well
