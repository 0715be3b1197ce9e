"""Databases for the tests of assignments: an SQLite file, and a PostgreSQL server that they share."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from records import support
from urlward.assignments.store import AssignmentStore

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The folder of a server's socket: another server than that in which other tests leave such rows."""
    if reason := support.without_server():
        pytest.skip(reason)
    with support.postgresql_server() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty one of each kind."""
    if request.param == "sqlite":
        return tmp_path / "assignments.db"
    folder = request.getfixturevalue("postgresql")
    name = f"assignments{next(_numbers)}"
    with psycopg.connect(host=folder, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql://urlward@/{name}?host={folder}"


@pytest.fixture
def store(database: Path | str) -> Iterator[AssignmentStore]:
    store = AssignmentStore(database)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[AssignmentStore]:
    store = AssignmentStore(tmp_path / "assignments.db")
    yield store
    store.close()
