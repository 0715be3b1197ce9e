"""A front with an origin behind it, for tests with real sockets; and what is recorded, for those without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lists.support import SECRET
from proxy.rig import Rig, make_authorities, rig_in
from urlward.config.records import DaysTable, RecordsTable
from urlward.proxy.poller import Loop
from urlward.records.event import Event
from urlward.records.worker import Recording


def pytest_asyncio_loop_factories() -> dict[str, type[Loop]]:
    return {"urlward": Loop}


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of mitmproxy's authority and of an origin's."""
    return make_authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture
async def rig(
    tmp_path: Path, authorities: Path, monkeypatch: pytest.MonkeyPatch, compiles_here: None
) -> AsyncIterator[Rig]:
    async with rig_in(tmp_path, authorities, monkeypatch) as made:
        yield made


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """What a worker records by."""
    table = RecordsTable(node="gw1", days=DaysTable(blocks=1, operations=1))
    return Recording(table, tmp_path, SECRET, "0")


@pytest.fixture
def told(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Events that are recorded."""
    found: list[Event] = []
    monkeypatch.setattr(
        recording.writer, "emit", lambda event: found.append(event() if callable(event) else event)
    )
    return found
