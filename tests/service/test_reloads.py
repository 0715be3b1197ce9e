"""Reloads of the filter that the service process asks for, and what it hears of them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import until
from urlward.config import Config, RecordsTable
from urlward.plan import Reloads
from urlward.records.status import health_of
from urlward.service.services import Services
from urlward.state.folder import local_key


@pytest.fixture
def asked() -> Iterator[list[int]]:
    """SIGUSR2 that this process has had, in the place of a supervisor."""
    found: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGUSR2, before)


async def heard(reloads: Reloads, said: str) -> None:
    await until(lambda: reloads.said == said)


async def test_what_came_of_one_is_heard(asked: list[int], caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    reloads = Reloads(os.getpid(), theirs.fileno())
    reloads.listen(asyncio.get_running_loop())
    with ours, theirs:
        assert not reloads.under_way
        reloads.ask()
        assert asked == [signal.SIGUSR2]
        assert reloads.under_way
        ours.send(json.dumps({"reload": "feed.0: no; what runs stays"}).encode())
        await heard(reloads, "feed.0: no; what runs stays")
        assert not reloads.under_way
        ours.send(b"[]")
        ours.send(json.dumps({"reload": "done"}).encode())
        await heard(reloads, "done")
        assert caplog.messages == ["service: what the supervisor says of a reload is not understood"]
        reloads.ask()
        assert (reloads.said, reloads.under_way) == ("", True)
        theirs.send(b"never read")  # so that the end is a reset
        ours.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_reader(theirs.fileno()), "it listens to nobody any more"
        assert len(caplog.messages) == 1, "that the supervisor has ended is no message"


async def test_that_a_supervisor_is_stopped_is_told(tmp_path: Path) -> None:
    """As by Ctrl-Z: all was green, and no worker that ended was replaced."""
    config = Config(records=RecordsTable(privacy="counts"), state=str(tmp_path))
    with subprocess.Popen(["sleep", "99"]) as supervisor:
        services = Services(config, tmp_path, local_key(tmp_path), reloads=Reloads(supervisor.pid, None))

        def is_told() -> bool:
            return "the supervisor is stopped" in health_of(services._measures).checks["workers"]

        try:
            assert not is_told()
            supervisor.send_signal(signal.SIGSTOP)
            await until(is_told)
            supervisor.send_signal(signal.SIGCONT)
            await until(lambda: not is_told())
        finally:
            supervisor.kill()
