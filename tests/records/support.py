"""Events, and a PostgreSQL server, for tests."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from urlward.records.event import Event, make_event

START = 1_795_000_000_000
"""Milliseconds: a day in November 2026."""

HOUR = 3_600_000
DAY = 24 * HOUR


def an_event(n: int = 0, kind: Any = "block", at: int | None = None, **fields: Any) -> Event:
    """The n-th event, n seconds after the start where no time is given; as it would be recorded."""
    now = START + n * 1000 if at is None else at
    fields = {"reference": f"REF-{n:06d}", "client": "192.0.2.7", "list": "one", **fields}
    return make_event(kind, now * 1_000_000, n.to_bytes(8), **fields)


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
            [*map(str, command)], user=user, cwd=folder, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            pytest.fail(f"{command[0]}: {done.stdout}{done.stderr}")

    data = folder / "data"
    run(programs / "initdb", "-D", data, "-U", "urlward", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=16MB"
    log = folder / "log"
    try:
        run(programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        yield str(folder)
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
