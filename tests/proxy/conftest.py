"""A front with an origin behind it, for tests with real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.rig import Rig, make_authorities, rig_in
from urlward.proxy.poller import Loop


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
