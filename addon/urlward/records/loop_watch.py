"""Event loop lag of a worker, and pauses of the garbage collector.

While one task keeps the loop, all traffic of the worker waits: what this measures each connection feels.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

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
    """Measure the lag until cancelled.

    Args:
        metrics: that are told.
        clock: seconds.
        sleep: waits for seconds.
    """
    window = clock() + WINDOW
    with _collector_timed(metrics):
        while True:
            due = clock() + INTERVAL
            await sleep(INTERVAL)
            now = clock()
            metrics.stall(max(now - due, 0.0))
            if now >= window:
                metrics.stall_window()
                window = now + WINDOW


@contextmanager
def _collector_timed(metrics: Metrics) -> Iterator[None]:
    """Count the garbage collector's pauses: one cause of stalls that is Python's own."""
    begun = 0.0

    def called(phase: str, _: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            metrics.collected(time.perf_counter() - begun)

    gc.callbacks.append(called)
    try:
        yield
    finally:
        gc.callbacks.remove(called)
