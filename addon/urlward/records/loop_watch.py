"""How late a worker's event loop comes back to what is due.

While one task keeps the loop, all traffic of the worker waits: what this measures each connection feels.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from urlward.records.metrics import Metrics

INTERVAL = 0.05
"""Seconds between two looks."""

WINDOW = 30.0
"""Seconds of one window; the longest stall that is shown is of one or two of them."""


async def watch_loop(
    metrics: Metrics,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Measure until cancelled.

    Args:
        metrics: that are told.
        clock: seconds.
        sleep: waits for seconds.
    """
    window = clock() + WINDOW
    while True:
        due = clock() + INTERVAL
        await sleep(INTERVAL)
        now = clock()
        metrics.stall(max(now - due, 0.0))
        if now >= window:
            metrics.stall_window()
            window = now + WINDOW
