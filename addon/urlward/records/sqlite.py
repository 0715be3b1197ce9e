"""SQLite databases of records: their files, their settings, and signs of damage.

No file of a database that may be open in this process is opened by any hand but SQLite's: the system ends all
locks that a process has on a file when it closes any descriptor of that file, and other processes would then
cut the index of the log while it is in use, which ends this one with SIGBUS (sqlite.org/howtocorrupt.html,
section 2.2).
"""

import errno
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from urlward.state.folder import locked, write_private

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


def make_sqlite(path: Path) -> None:
    """Make a database for its owner alone, where there is none. Its folder must be there.

    Raises:
        StateError: it cannot be made.
        sqlite3.Error: likewise.
    """
    with locked(path.parent):
        if path.exists():
            return
        write_private(path, b"")
        # Of several connections that are the first to say so, all but one would fail at once.
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error:
            path.unlink(missing_ok=True)  # an empty one, as of a full disk, is taken for a damaged one
            raise


def write_anew(connection: sqlite3.Connection) -> None:
    """Write a database anew, without what has been deleted from it (``VACUUM``).

    The new one may not fit into memory. It is in a file without a name beside the old one: where temporary
    files usually go (``/var/tmp``) may be another disk, without that one's room or encryption.

    Args:
        connection: to it, with the `PRAGMAS`.

    Raises:
        sqlite3.Error: it cannot be done.
    """
    (path,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    folder = os.path.dirname(path)  # noqa: PTH120 - of one in memory there is none
    connection.execute("PRAGMA temp_store = FILE")
    try:
        # Of the whole process, and not to be changed while another connection has such a file made.
        if folder and connection.execute("PRAGMA temp_store_directory").fetchone() != (folder,):
            connection.execute("PRAGMA temp_store_directory = '{}'".format(folder.replace("'", "''")))
        connection.execute("VACUUM")
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")


def obstacle(path: Path) -> OSError | None:
    """Error that opening a file for reading and writing would give, without opening it; None for none."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            code = errno.EISDIR
        elif not stat.S_ISREG(mode):
            return OSError(errno.ENXIO, "not a regular file", str(path))
        elif os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            return None
        else:
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
    except OSError as e:
        return e
    return OSError(code, os.strerror(code), str(path))


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
