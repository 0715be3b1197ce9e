"""What the resolver's tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.dns_support import GOOD, Rig, Upstream, serving
from resolver.hook_support import KINDS


@pytest.fixture(autouse=True)
def lists_are_compiled_here(compiles_here: None) -> None:
    """The process that compiles a list has tests of its own."""


@pytest.fixture
async def upstream() -> Upstream:
    return await Upstream(GOOD).start()


@pytest.fixture
async def rig(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Rig]:
    """A server in front of it."""
    async with serving(tmp_path, upstream, host="") as rig:
        yield rig


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of resolver."""
    return str(request.param)
