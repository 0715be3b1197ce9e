"""One server of feeds for all modules that need one."""

from collections.abc import Iterator

import pytest

from lists.fetch_support import Server, running


@pytest.fixture(scope="session")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("feeds")) as server:
        yield server
