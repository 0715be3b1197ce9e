"""Databases for the tests of assignments: an SQLite file, and a PostgreSQL server that they share."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from urlward.records.assignments.store import AssignmentStore

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The folder of a server's socket."""
    if not _PROGRAMS:
        pytest.skip("PostgreSQL is not installed")
    programs = _PROGRAMS[-1].parent
    # It refuses to be root; the folders of tests are for their user alone.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="urlward-pg-"))
    if user:
        shutil.chown(folder, user)

    def run(*command: object) -> None:
        done = subprocess.run([*map(str, command)], user=user, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"{command[0]}: {done.stdout}{done.stderr}")

    data = folder / "data"
    run(programs / "initdb", "-D", data, "-U", "urlward", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=16MB"
    try:
        run(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
        yield str(folder)
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


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
