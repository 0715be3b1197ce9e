"""Reloads of the filter that the service process asks for, and what it hears of them."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from conftest import until
from urlward.plan import Reloads


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
