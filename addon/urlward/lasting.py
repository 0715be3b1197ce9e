"""Tasks that are to last as long as their process: begun again after an error.

What ends one may be over in a moment, such as a shortage of memory or of files. If it ended for good, a
worker would go on to filter, and never again take a changed list or end a connection that takes too long.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

AGAIN = 5.0
"""Seconds until it is begun again."""

logger = logging.getLogger("urlward")


async def lasting(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work until it returns, or is cancelled.

    Args:
        what: the work, for the log.
        work: is called again after an error.
    """
    while True:
        try:
            await work()
        except Exception as e:  # noqa: BLE001 - see above
            first = e
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            logger.error("%s: %s; begun again in %.0f s", what, type(first).__name__, AGAIN)
            await asyncio.sleep(AGAIN)
        else:
            return
