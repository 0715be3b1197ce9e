"""A PostgreSQL server that the tests of records share."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from records import support


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The folder of a server's socket."""
    if reason := support.without_server():
        pytest.skip(reason)
    with support.postgresql_server() as folder:
        yield folder


_numbers = itertools.count()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """URL of an empty database."""
    name = f"urlward{next(_numbers)}"
    with psycopg.connect(
        host=postgresql_server, user="urlward", dbname="postgres", autocommit=True
    ) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql://urlward@/{name}?host={postgresql_server}"
