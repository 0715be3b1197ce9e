"""SQLite databases of records: their files, their settings, and signs of damage."""

import sqlite3
from pathlib import Path

PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "temp_store = MEMORY",  # nothing of a record is to be in another file
)
"""Settings of a connection. What is committed is on the disk: a write-ahead log that is synchronised at each
commit survives the end of the process and of the machine (sqlite.org/pragma.html#pragma_synchronous). What is
deleted is overwritten where it stands."""

DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
"""Codes of `code_of` for a file that is damaged."""

_PRIMARY = 0xFF
"""Bits of an SQLite error code that say what it is; those above say more (sqlite.org/rescode.html)."""


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Files of a database: itself, its write-ahead log, and the index of that."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def code_of(error: sqlite3.Error) -> int:
    """Primary code of an error; 0 for one of the driver's own."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & _PRIMARY


def damage_in(connection: sqlite3.Connection) -> str:
    """Check the structure of a database; returns what is wrong, empty for nothing. Reads all of it.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except UnicodeDecodeError:  # SQLite's message has their text in it
        return "its tables cannot be read"
    return "" if found == "ok" else str(found).splitlines()[-1]
