import asyncio
import gc
import time

import pytest

from urlward.records.metrics import INTERVAL, WINDOW, Metrics, watch_loop


class Time:
    """Moves as sleepers sleep, and by what they are late."""

    def __init__(self, *late: float) -> None:
        self.now = 100.0
        self.late = list(late)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if not self.late:
            raise asyncio.CancelledError
        self.now += seconds + self.late.pop(0)


async def watched(*late: float) -> Metrics:
    time_, metrics = Time(*late), Metrics(0.0)
    with pytest.raises(asyncio.CancelledError):
        await watch_loop(metrics, clock=time_.clock, sleep=time_.sleep)
    return metrics


async def test_lateness_is_noted() -> None:
    found = (await watched(0.0, 0.3, 0.002, -0.01)).snapshot()
    assert found["stall_longest"] == pytest.approx(0.3)
    assert sum(found["histograms"]["stall"]["counts"]) == 4
    assert found["histograms"]["stall"]["sum"] == pytest.approx(0.302)


async def test_pauses_of_the_collector_are_counted() -> None:
    metrics, callbacks = Metrics(0.0), list(gc.callbacks)
    task = asyncio.create_task(watch_loop(metrics))
    await asyncio.sleep(0)
    gc.collect()
    assert sum(metrics.snapshot()["histograms"]["collector"]["counts"]) >= 1
    task.cancel()
    await asyncio.wait([task])
    assert gc.callbacks == callbacks


async def test_windows_pass() -> None:
    rounds = int(WINDOW / INTERVAL)
    assert (await watched(0.3, *[0.0] * rounds)).snapshot()["stall_longest"] == pytest.approx(0.3)
    assert (await watched(0.3, *[0.0] * 3 * rounds)).snapshot()["stall_longest"] == pytest.approx(0.0)


async def test_a_loop_that_is_kept() -> None:
    metrics = Metrics(0.0)
    task = asyncio.create_task(watch_loop(metrics))
    await asyncio.sleep(0)
    time.sleep(INTERVAL + 0.2)
    await asyncio.sleep(INTERVAL * 2)
    task.cancel()
    assert metrics.snapshot()["stall_longest"] >= 0.1
