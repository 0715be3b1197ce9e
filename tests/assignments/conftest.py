"""Databases for the tests of assignments: an SQLite file, and a PostgreSQL server that they share."""

import itertools
import shutil
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


# To have the tables made anew for each test takes longer than most tests do: they are copied.


@pytest.fixture(scope="session")
def made_in_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables and nothing in them."""
    path = tmp_path_factory.mktemp("assignments") / "assignments.db"
    AssignmentStore(path).close()
    return path


def _database(folder: str, template: str = "template1") -> tuple[str, str]:
    """A database's name, and its URL."""
    name = f"assignments{next(_numbers)}"
    with psycopg.connect(host=folder, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name, f"postgresql://urlward@/{name}?host={folder}"


@pytest.fixture(scope="session")
def made_in_postgresql(postgresql: str) -> str:
    """The name of a database with the same."""
    name, url = _database(postgresql)
    AssignmentStore(url).close()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """One of each kind."""
    if request.param == "sqlite":
        return Path(shutil.copy(request.getfixturevalue("made_in_file"), tmp_path))
    template = request.getfixturevalue("made_in_postgresql")
    return _database(request.getfixturevalue("postgresql"), template)[1]


@pytest.fixture
def store(database: Path | str) -> Iterator[AssignmentStore]:
    store = AssignmentStore(database)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(made_in_file: Path, tmp_path: Path) -> Iterator[AssignmentStore]:
    store = AssignmentStore(Path(shutil.copy(made_in_file, tmp_path)))
    yield store
    store.close()
