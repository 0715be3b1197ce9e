"""A process beside the filter lives as long as the filter, and no longer."""

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from urlward.proxy import companion
from urlward.proxy.companion import FEEDS, Companion, Keeping

PROGRAM = """
import json, os, pathlib, signal, sys
request = json.loads(sys.stdin.readline())
out = pathlib.Path(sys.argv[1])
def note(*_):
    with out.open("a") as file:
        file.write("refresh\\n")
signal.signal(signal.SIGHUP, note)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
with out.open("a") as file:
    file.write(json.dumps([os.getpid(), request]) + "\\n")
while True:
    signal.pause()
"""


@asynccontextmanager
async def running(command: tuple[str, ...]) -> AsyncIterator[Keeping]:
    fed = Keeping(Companion("feeds", FEEDS, Path("some.toml"), "some.key"), command)
    task = asyncio.create_task(fed.run())
    try:
        yield fed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def lines(path: Path, count: int) -> list[str]:
    """So many lines of a file, once they are there."""
    async with asyncio.timeout(60):
        while not path.exists() or len(found := path.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_is_told_what_to_fetch_and_when(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with running((sys.executable, "-c", PROGRAM, str(out))) as fed:
        pid, request = json.loads((await lines(out, 1))[0])
        assert request.pop("channel") > 2
        assert request == {"config": "some.toml", "key": "some.key", "admin": "", "parent": os.getpid()}
        fed.refresh()
        assert (await lines(out, 2))[1] == "refresh"
        assert alive(pid)
    assert not alive(pid)


async def test_a_refresh_asked_for_too_early_is_late(tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = "import time; time.sleep(0.5)\n" + PROGRAM
    async with running((sys.executable, "-c", slow, str(out))) as fed:
        async with asyncio.timeout(60):
            while fed._process is None:
                await asyncio.sleep(0.01)
        fed.refresh()
        await lines(out, 2)


async def test_another_takes_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "BACKOFF", (0.0, 0.01))
    out = tmp_path / "out"
    async with running((sys.executable, "-c", PROGRAM, str(out))) as fed:
        first = json.loads((await lines(out, 1))[0])[0]
        os.kill(first, 9)
        second = json.loads((await lines(out, 2))[1])[0]
        assert second != first
        assert not alive(first)
        fed.refresh()
        await lines(out, 3)
    assert "ended with -9; a new one takes its place" in caplog.text
    assert not alive(second)


@pytest.mark.parametrize("said", [True, False])
async def test_one_that_hangs_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    """It is stopped, or never comes so far as to say that it lives."""
    monkeypatch.setattr(companion, "BACKOFF", (0.0, 0.01))
    monkeypatch.setattr(companion, "_START_WITHIN", 60.0 if said else 0.0)
    out = tmp_path / "out"
    beats = "import os; os.write(request['channel'], b'{}')\n" * said
    program = PROGRAM.replace("while True:", f"{beats}while True:")
    fed = Keeping(
        Companion("feeds", FEEDS, Path("some.toml"), timeout=2), (sys.executable, "-c", program, str(out))
    )
    task = asyncio.create_task(fed.run())
    first = json.loads((await lines(out, 1))[0])[0]
    os.kill(first, signal.SIGSTOP)
    second = json.loads((await lines(out, 2))[1])[0]
    assert not alive(first)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not alive(second)
    assert f"feeds (process {first}) has not answered for " in caplog.text


async def test_one_that_cannot_start_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(companion, "BACKOFF", (0.0, 0.01))
    async with running((str(tmp_path / "nothing"),)) as fed:
        fed.refresh()
        async with asyncio.timeout(60):
            while len(caplog.records) < 3:
                await asyncio.sleep(0.01)
    assert "No such file or directory" in caplog.text


async def test_one_that_has_no_descriptor_left_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(companion, "BACKOFF", (0.0, 0.01))
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    async with running((sys.executable, "-c", PROGRAM, str(out))):
        try:
            async with asyncio.timeout(60):
                while not caplog.records:
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await lines(out, 1)
    assert "ended with Too many open files; a new one takes its place" in caplog.text
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
