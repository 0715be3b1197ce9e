"""When garbage is looked for in a worker."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conftest import until
from urlward.proxy import runner
from urlward.proxy.runner import FEW, Ready


class Circle:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def live() -> SimpleNamespace:
    return SimpleNamespace(exchanges=0)


@pytest.fixture
async def collections(monkeypatch: pytest.MonkeyPatch, live: SimpleNamespace) -> AsyncIterator[list[int]]:
    """Collections from when the filter is ready; the generation of each."""
    monkeypatch.setattr(runner, "INTERVAL", 0.001)
    seen: list[int] = []

    def called(phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            seen.append(told["generation"])

    before = asyncio.all_tasks()
    server, worker = SimpleNamespace(servers=[]), SimpleNamespace(ready=lambda: None)
    Ready(cast("Any", server), cast("Any", worker), cast("Any", live)).running()
    (task,) = asyncio.all_tasks() - before
    await until(lambda: not gc.isenabled())
    gc.callbacks.append(called)
    try:
        yield seen
    finally:
        gc.callbacks.remove(called)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert gc.isenabled()


async def test_what_is_in_use_is_not_looked_through_again_and_again(collections: list[int]) -> None:
    """Python would for each 2,000."""
    used = []
    for number in range(FEW + 1):
        used.append([number])
        if number == FEW // 2:
            await asyncio.sleep(0.01)
            assert collections == []
    await until(lambda: collections)
    used += [[number] for number in range(FEW)]
    await asyncio.sleep(0.01)
    assert collections == [2], "not before it has doubled"
    used += [[number] for number in range(FEW)]
    await until(lambda: collections == [2, 2])


async def test_what_exchanges_have_use_for_is_not_looked_through(
    collections: list[int], live: SimpleNamespace
) -> None:
    live.exchanges = FEW // runner.OF_ONE
    used = [[number] for number in range(2 * FEW - 1000)]
    await asyncio.sleep(0.01)
    assert collections == []
    live.exchanges = 0  # and what they have made stays
    await until(lambda: collections == [2])
    assert used


async def test_garbage_is_collected(collections: list[int]) -> None:
    first = weakref.ref(Circle())
    assert first() is not None
    for _ in range(FEW):
        Circle()
    await until(lambda: first() is None)
    assert collections
