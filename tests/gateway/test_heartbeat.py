import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.proxy import mode_specs

from rows import each_row
from urlward.config import CanaryTable, GatewayTable
from urlward.gateway import canary
from urlward.gateway.canary import Heartbeat
from urlward.gateway.rules import transparent_port
from urlward.gateway.table import NftError, NoTableError

WITHOUT_CANARY = GatewayTable(canary=CanaryTable(addresses=()))


class Kernel:
    """In place of `SteerSet`."""

    def __init__(self) -> None:
        self.beats = asyncio.Semaphore(0)
        self.errors: list[Exception] = []
        self.closed = False

    async def beat(self, serves: Callable[[], bool]) -> None:
        self.serves = serves
        if self.errors:
            raise self.errors.pop(0)
        self.beats.release()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    servers = [
        SimpleNamespace(mode=mode_specs.ProxyMode.parse(spec), is_running=True)
        for spec in ("regular@3128", "transparent@8080")
    ]
    addons = SimpleNamespace(get=lambda _: SimpleNamespace(servers=servers))
    monkeypatch.setattr(ctx, "master", SimpleNamespace(addons=addons), raising=False)
    monkeypatch.setattr(canary, "BEAT", 0.01)
    return servers


async def test_it_beats_while_connections_are_taken(servers: list[Any]) -> None:
    kernel = Kernel()
    addon = Heartbeat(WITHOUT_CANARY, kernel)  # type: ignore[arg-type]
    addon.running()
    for _ in range(3):
        await asyncio.wait_for(kernel.beats.acquire(), 60)
    assert kernel.serves()
    servers[1].is_running = False
    assert not kernel.serves()
    while not kernel.beats.locked():
        await kernel.beats.acquire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kernel.beats.acquire(), 0.1)
    servers[1].is_running = True
    await asyncio.wait_for(kernel.beats.acquire(), 60)
    await addon.done()
    assert kernel.closed


async def test_errors_end_nothing(servers: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    kernel.errors = [NoTableError("gone"), NoTableError("gone"), NftError("other"), ValueError("192.0.2.7")]
    addon = Heartbeat(WITHOUT_CANARY, kernel)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        addon.running()
        await asyncio.wait_for(kernel.beats.acquire(), 60)
    await addon.done()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3, "each once"
    assert lines[0] == "gone: nothing is filtered; run `urlward gateway up`"
    assert not any("192.0.2.7" in line for line in lines)


@each_row(
    ("modes", "port"),
    [
        (["regular"], None),
        (["transparent"], 8080),
        (["regular", "transparent@8443"], 8443),
        (["nonsense", "transparent"], 8080),
        ([], None),
    ],
)
def test_where_redirected_connections_arrive(modes: list[str], port: int | None) -> None:
    assert transparent_port(modes, 8080) == port
