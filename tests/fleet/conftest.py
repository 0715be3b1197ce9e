from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet.nodes import Wire
from fleet.servers import Server, valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with valkey(tmp_path / "valkey") as made:
        yield made


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    made = await Wire(server.port).start()
    yield made
    await made.end()
