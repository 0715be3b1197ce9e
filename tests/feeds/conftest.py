"""Servers of feeds, shared by tests that need one, and the log."""

import logging
import shutil
from collections.abc import Iterator

import pytest

from feeds import feed_support, fetch_support


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Without what asyncio says of tasks that an earlier test has left, as they are collected."""

    def is_of_this_test(record: logging.LogRecord) -> bool:
        return record.name != "asyncio"

    caplog.handler.addFilter(is_of_this_test)
    yield caplog
    caplog.handler.removeFilter(is_of_this_test)


@pytest.fixture(scope="session")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fetch_support.Server]:
    """A server with each way of answering."""
    with fetch_support.running(tmp_path_factory.mktemp("feeds")) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[feed_support.Server]:
    """An nginx for the module's tests, with nothing in it."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with feed_support.server(tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.fixture
def site(nginx: feed_support.Server) -> feed_support.Server:
    """The same, with nothing left of the test before."""
    for path in (nginx.folder / "www").rglob("feed*"):
        path.unlink()
    nginx.seen()
    return nginx
