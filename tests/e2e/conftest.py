"""Origins and filters shared by the end-to-end tests."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from e2e.support import Authority, Filter, Nginx, RawOrigin, make_authority, nginx, running

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("*.example", "blocked.example", "paged.example", "plain.example", "localhost")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The origins' certificate authority."""
    return make_authority(tmp_path_factory.mktemp("origin"), NAMES)


@pytest.fixture(scope="session")
def nginx_server(authority: Authority) -> Iterator[Nginx]:
    with nginx(authority.folder) as server:
        yield server


@pytest.fixture
def origin(nginx_server: Nginx) -> Nginx:
    """nginx over HTTP, HTTPS and HTTP/2, its log read up to here."""
    nginx_server.requests()
    return nginx_server


@pytest.fixture
def raw() -> Iterator[RawOrigin]:
    """An origin that counts connections."""
    with RawOrigin() as server:
        yield server


def trust(authority: Authority) -> tuple[str, ...]:
    """Arguments by which a filter trusts the origins."""
    return ("--set", f"ssl_verify_upstream_trusted_ca={authority.certificate}")


@pytest.fixture(scope="session")
def shared_filter(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    """One filter in regular and SOCKS5 mode for all tests that do not change it."""
    folder: Path = tmp_path_factory.mktemp("filter")
    with running(folder, *trust(authority), modes=("regular", "socks5")) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_filter: Filter) -> Iterator[Filter]:
    """That filter; its log is checked after each test."""
    yield shared_filter
    shared_filter.check_log()
