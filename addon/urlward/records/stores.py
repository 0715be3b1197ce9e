"""Kinds of event stores, and how one is opened."""

from contextlib import nullcontext
from pathlib import Path
from threading import Lock

from urlward.config.records import RecordsTable, StoreTable
from urlward.records.jsonl_store import open_jsonl
from urlward.records.store import Store
from urlward.records.syslog_store import open_syslog

_opening = Lock()
"""No SQLite file is opened while another is: the first time changes how it is written, which fails then. A
server that says nothing is waited for by nobody else."""


def searchable(records: RecordsTable | None) -> StoreTable | None:
    """The first store of a configuration that can be searched; None where there is none."""
    tables = records.store if records is not None else ()
    return next((table for table in tables if table.kind in ("sqlite", "postgresql")), None)


def open_store(table: StoreTable, state: Path, *, make: bool = True) -> Store:
    """Open the store of a configuration's table, made where it is not there yet.

    Args:
        table: what is to be opened.
        state: the state folder.
        make: whether a file that is not there is made.

    Raises:
        AbsentError: it is not there, and is not to be made.
        StoreError: it cannot be used now.
    """
    if table.kind == "syslog":
        return open_syslog(table)
    if table.kind == "jsonl":
        return open_jsonl(table, state, make=make)
    from urlward.records.database import open_database  # brings SQLAlchemy

    with _opening if table.kind == "sqlite" else nullcontext():
        return open_database(table, state, make=make)
