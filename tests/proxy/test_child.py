"""The service process beside a mitmproxy that has loaded the addon lives as long as that, and no longer."""

import asyncio
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from conftest import until
from urlward.plan import Service
from urlward.proxy import addon, child
from urlward.proxy.addon import Urlward

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

type Programs = Callable[[str], None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def runs(out: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Sets what runs in place of the service."""

    def set_program(code: str) -> None:
        monkeypatch.setattr(child, "module_command", lambda _: [sys.executable, "-c", code, str(out)])

    monkeypatch.setattr(child, "BACKOFF", (0.0, 0.01))
    monkeypatch.setattr(addon, "BACKOFF", (0.0, 0.01))
    set_program(PROGRAM)
    return set_program


@asynccontextmanager
async def running(timeout: int = 0) -> AsyncIterator[Urlward]:
    made = Urlward()
    task = asyncio.create_task(made._keep(Service({"config": "some.toml", "key": "some.key"}, timeout)))
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def lines(path: Path, count: int) -> list[str]:
    """So many lines of a file, once they are there."""
    await until(lambda: path.exists() and path.read_text().count("\n") >= count)
    return path.read_text().splitlines()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_is_told_what_to_do_and_when(out: Path) -> None:
    async with running() as made:
        pid, request = json.loads((await lines(out, 1))[0])
        assert request.pop("channel") > 2
        assert request == {
            "config": "some.toml", "key": "some.key", "parent": os.getpid(), "sockets": [],
        }  # fmt: skip
        made.reload()
        assert (await lines(out, 2))[1] == "refresh"
        assert alive(pid)
    assert not alive(pid)


async def test_a_refresh_asked_for_too_early_is_late(out: Path, runs: Programs) -> None:
    runs("import time; time.sleep(0.5)\n" + PROGRAM)
    async with running() as made:
        await until(lambda: made.service)
        made.reload()
        await lines(out, 2)


async def test_another_takes_its_place(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as made:
        first = json.loads((await lines(out, 1))[0])[0]
        os.kill(first, 9)
        second = json.loads((await lines(out, 2))[1])[0]
        assert second != first
        assert not alive(first)
        made.reload()
        await lines(out, 3)
    said = f"service (process {first}) was ended by signal 9 (out of memory?); a new one takes its place"
    assert said in capsys.readouterr().err
    assert not alive(second)


@pytest.mark.parametrize("said", [True, False])
async def test_one_that_hangs_is_replaced(
    out: Path,
    runs: Programs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: bool,
) -> None:
    """It is stopped, or never comes so far as to say that it lives."""
    monkeypatch.setattr(child, "START_WITHIN", 60.0 if said else 0.0)
    monkeypatch.setattr(child, "STARVED", 60 if said else 1)
    beats = "import os; os.write(request['channel'], b'{\"ready\": true}')\n" * said
    # Before it is heard of, or it may be stopped in between.
    runs(PROGRAM.replace("signal.signal(", f"{beats}signal.signal(", 1))
    async with running(2):
        first = json.loads((await lines(out, 1))[0])[0]
        os.kill(first, signal.SIGSTOP)
        second = json.loads((await lines(out, 2))[1])[0]
        assert not alive(first)
    assert not alive(second)
    text = "has not answered for" if said else "does not serve"
    assert f"service (process {first}) {text} " in capsys.readouterr().err


def test_one_that_waits_for_a_disk_is_ended_once(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        hangs = child.Child("service", pytest.fail, process, None, 1)
        with patch.object(process, "poll", return_value=None), patch.object(process, "kill") as kill:
            hangs.started = hangs.heard = -1000.0
            for _ in range(3):
                hangs.end_if_hung(0.0)
            kill.assert_called_once()
    assert capsys.readouterr().err.count("it is ended") == 1


async def test_one_that_cannot_start_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "module_command", lambda _: [str(tmp_path / "nothing")])
    async with running() as made:
        made.reload()
        await until(lambda: len(caplog.records) >= 3)
    assert "service: no process for it: No such file or directory; tried again" in caplog.text


async def test_one_that_has_no_descriptor_left_is_tried_again(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    async with running():
        try:
            await until(lambda: caplog.records)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await lines(out, 1)
    assert "service: no process for it: Too many open files; tried again" in caplog.text
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
