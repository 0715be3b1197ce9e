"""Tasks that are to last as long as their process: begun again after an error.

What ends one may be over in a moment, such as a shortage of memory or of files. If it ended for good, a
worker would go on to filter, and never again take a changed list or end a connection that takes too long.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from urlward.engine.errors import fault_text

AGAIN = 5.0
"""Seconds until it is begun again."""

logger = logging.getLogger("urlward")


async def lasting(
    what: str,
    work: Callable[[], Awaitable[None]],
    *,
    again: float | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Do some work until it returns, or is cancelled.

    Args:
        what: the work, for the log.
        work: is called again after an error.
        again: seconds until then; `AGAIN` where not given.
        stop: set where it is not to be called again.
    """
    stop = stop or asyncio.Event()
    while not stop.is_set():
        try:
            await work()
        except Exception as e:  # noqa: BLE001 - see above
            wait = AGAIN if again is None else again
            logger.error("%s: %s; begun again in %.0f s", what, fault_text(e), wait)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)
        else:
            return
