"""Events, and a PostgreSQL server, for tests."""

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from urlward.records.event import Event, make_event
from urlward.records.store import Node

START = 1_795_000_000_000
"""Milliseconds: a day in November 2026."""

_CREATED = 0x100
"""IN_CREATE."""

HOUR = 3_600_000
DAY = 24 * HOUR


def an_event(n: int = 0, kind: Any = "block", at: int | None = None, **fields: Any) -> Event:
    """The n-th event, n seconds after the start where no time is given; as it would be recorded."""
    now = START + n * 1000 if at is None else at
    fields = {
        "reference": f"REF0-{n // 10_000:04d}-{n % 10_000:04d}",
        "client": "192.0.2.7",
        "list": "one",
        **fields,
    }
    return make_event(kind, now * 1_000_000, n.to_bytes(8), **fields)


def node(name: str, identity: str = "") -> Node:
    """One with a state folder of its own, unless it has another's."""
    return Node(name, identity or f"of {name}")


def own_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What urlward has said itself; others' loggers tell of what a test before has left, at any time."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("urlward")]


def versions() -> tuple[list[Event], list[Event]]:
    """What answers for the reference of the first event, and what does not."""
    hit = an_event(0, serial=7)
    return [
        hit,
        an_event(1, kind="list", serial=7, reference="", client="", detail='{"entries":3}'),
        an_event(2, kind="feed", serial=7, reference="", client=""),
        an_event(3, kind="objection", reference=hit.reference, list=""),
    ], [
        an_event(4, serial=7),
        an_event(5, kind="list", serial=8, reference="", client=""),
        an_event(6, kind="list", serial=7, list="two", reference="", client=""),
    ]


@contextlib.contextmanager
def made_in(folder: Path) -> Iterator[list[str]]:
    """Names of files that are made in a folder meanwhile, in order, however soon they are gone (inotify(7)).

    The list is filled at the end.
    """
    libc, names = ctypes.CDLL(None), list[str]()
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watch >= 0
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(folder), _CREATED) >= 0
        yield names
        with contextlib.suppress(BlockingIOError):
            while data := os.read(watch, 1 << 16):
                while data:
                    end = 16 + int.from_bytes(data[12:16], sys.byteorder)
                    names.append(data[16:end].rstrip(b"\0").decode())
                    data = data[end:]
    finally:
        os.close(watch)


def without_server() -> str:
    """Why there is no PostgreSQL here, or nothing."""
    return "" if _programs() else "PostgreSQL is not installed"


def _programs() -> Path | None:
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def postgresql_server() -> Iterator[str]:
    """A server of its own in a folder of its own, as fast as one may be that loses everything; the folder of
    its socket."""
    programs = _programs()
    assert programs is not None
    # It refuses to be root; the folders of tests are for their user alone.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="urlward-pg-"))
    if user:
        shutil.chown(folder, user)

    def run(*command: object) -> None:
        done = subprocess.run(
            [*map(str, command)], user=user, cwd=folder, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            pytest.fail(f"{command[0]}: {done.stdout}{done.stderr}")

    data = folder / "data"
    run(programs / "initdb", "-D", data, "-U", "urlward", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=16MB"
    # Now and then that would lock a table, or see rows, that a test has just deleted.
    options += " -c autovacuum=off"
    log = folder / "log"
    try:
        run(programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        yield str(folder)
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def role_without_ownership(url: str) -> Iterator[str]:
    """URL of a database for a role that may read and write all tables in it, now and later, and owns none."""
    role = f"filter{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {role} LOGIN")
        for what in ("TABLES", "SEQUENCES"):
            server.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO {role}")
            server.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {what} TO {role}")
        yield url.replace("//urlward@", f"//{role}@")
        server.execute(f"DROP OWNED BY {role}")
        server.execute(f"DROP ROLE {role}")


def in_the_heap(folder: str, database: str = "") -> bytes:
    """All that a server has in its tables' files, when everything is written, or in one database."""
    with psycopg.connect(host=folder, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute("CHECKPOINT")
    found = []
    for path in Path(folder, "data/base", database).rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the server deletes some in its time
            found.append(path.read_bytes())
    return b"".join(found)
