"""Tasks that are begun again after an error."""

import asyncio
from contextlib import suppress

import pytest

from urlward import lasting as module
from urlward.engine.errors import UrlwardError
from urlward.lasting import lasting


async def test_work_is_begun_again_after_an_error_until_it_returns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.0)
    ends: list[Exception | None] = [
        MemoryError("confidential"), ExceptionGroup("", [ExceptionGroup("", [OSError(24, "no file")])]),
        RuntimeError("can't start new thread"), RuntimeError("confidential"), None
    ]  # fmt: skip

    async def work() -> None:
        if (end := ends.pop(0)) is not None:
            raise end

    await lasting("the work", work)
    assert ends == []
    assert caplog.messages == [
        f"the work: {what}; begun again in 0 s"
        for what in ("MemoryError", "no file", "can't start new thread", "a bug: RuntimeError")
    ]  # fmt: skip


async def test_work_that_is_cancelled_is_not() -> None:
    begun = []

    async def work() -> None:
        begun.append(1)
        await asyncio.Future()

    task = asyncio.create_task(lasting("the work", work))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert begun == [1]


async def test_work_that_is_stopped_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(stop.set)
        raise UrlwardError("no room")

    async with asyncio.timeout(60):
        await lasting("the work", work, again=3_600.0, stop=stop)
    assert caplog.messages == ["the work: no room; begun again in 3600 s"]
