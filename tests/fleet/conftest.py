from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet.nodes import Wire
from fleet.servers import PATIENCE, Server, valkey
from urlward.fleet import connection


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Valkey that has to wait for a processor is not away; of one that hangs, tests say so (`hanging`)."""
    monkeypatch.setattr(connection, "ANSWER_WITHIN", PATIENCE)
    monkeypatch.setattr(connection, "CONNECT_WITHIN", PATIENCE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with valkey(tmp_path / "valkey") as made:
        yield made


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    made = await Wire(server.port).start()
    yield made
    await made.end()
