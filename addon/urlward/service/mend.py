"""Mending at the service's start: damaged stores and files are set aside.

A store that cannot be read takes no event for ever, and a process that ends over one damaged file counts and
shows nothing. So what is damaged is set aside (`urlward.state.folder`), each file in its own folder,
and begun anew. Databases of servers are their operators' to mend.

A file that the configuration names may be another's, by mistake. It is set aside only where it has the form
of one of ours; any other stays as it is, and is no store.
"""

import json
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from urlward.assignments.interval import AssignmentError
from urlward.assignments.retention import database_of
from urlward.config.records import RecordsTable, StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records.jsonl_store import numbered
from urlward.records.sql import WAIT
from urlward.records.sqlite import DAMAGED, code_of, damage_in, files_of, obstacle
from urlward.records.store import Store, StoreError
from urlward.records.stores import open_store
from urlward.regular import lines_of, open_regular
from urlward.state.folder import StateError, is_damage, locked, set_aside, unusable
from urlward.state.token import read_token
from urlward.state.watch import Signature

_EMPTY = "empty"
_ANEW = "a new one is begun"
_SQLITE = b"SQLite format 3\0"
"""What a database begins with (sqlite.org/fileformat2.html, section 1.3)."""
_BEGIN = b'{"version":'
"""What a line of JSON Lines begins with (`urlward.records.event.as_json`)."""
_EVENTS, _ASSIGNMENTS = "events", "assignments"
"""Tables."""


def open_mended(table: StoreTable, state: Path) -> Store:
    """Open a store as `open_store`, with damaged files of it set aside before. Takes seconds for large ones.

    Raises:
        StoreError: it cannot be used, or is not one of ours.
        StateError: nor be set aside.
    """
    if table.kind == "sqlite":
        mend_sqlite(state / table.file, _EVENTS, named=table.path is not None)
    elif table.kind == "jsonl":
        mend_jsonl(state / table.file, named=table.path is not None)
    return open_store(table, state)


def folders_of(records: RecordsTable, state: Path) -> set[Path]:
    """Folders in which something may be set aside."""
    tables = [*records.store, *filter(None, [records.assignments])]
    return {state} | {(state / table.file).parent for table in tables if table.file}


def mend_assignments(records: RecordsTable, state: Path) -> None:
    """Set a damaged database of assignments aside, as `mend_sqlite`.

    Raises:
        StateError: they cannot be set aside.
    """
    named = records.assignments is not None and records.assignments.path is not None
    with suppress(AssignmentError, StoreError):  # whoever uses them says so
        if isinstance(database := database_of(records, state), Path):
            mend_sqlite(database, _ASSIGNMENTS, named=named)


def mend_sqlite(path: Path, table: str, *, named: bool = False) -> None:
    """Set a damaged SQLite database aside, with its write-ahead log.

    Args:
        path: of the database.
        table: that one of ours has.
        named: whether the configuration names it.

    Raises:
        StateError: it cannot be set aside.
        StoreError: it is not one of ours.
    """
    if not os.path.lexists(path):
        return
    files = files_of(path)
    with locked(path.parent):
        seen = Signature.of(path)
        reason = _damage_of(files)
        if named and not _is_our_database(path, table, sound=not reason):
            raise _foreign(path)
        if named and reason == _EMPTY and not any(map(os.path.lexists, files[1:])):
            return  # made for it to be used
        if reason:
            set_aside(path.parent, path, reason, _ANEW, seen=seen, beside=files[1:])


def _is_our_database(path: Path, table: str, *, sound: bool) -> bool:
    """Whether a file begins as a database, and has a table of ours if any; an empty one is nobody's.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        if not sound:  # nobody in this process has any use for what it may have open of that
            with open_regular(path) as file:
                return file.read(len(_SQLITE)) in (b"", _SQLITE)
        with closing(sqlite3.connect(path, timeout=WAIT)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        return not names or table in names
    except OSError as e:
        raise StoreError(f"{path}: {e.strerror or e}") from e
    except sqlite3.Error:
        return True  # locked, or too little memory: whoever opens it says so


def _foreign(path: Path) -> StoreError:
    return StoreError(f"{path}: not a file of urlward's, so it stays as it is: name another, or move it away")


def _damage_of(files: tuple[Path, ...]) -> str:
    """Damage of a database; empty for none, or where another file would not help."""
    for file in files:
        wrong = obstacle(file)
        if isinstance(wrong, FileNotFoundError):
            if file.is_symlink():
                return f"{file.name}: a link to nothing: {wrong.strerror}"
        elif wrong is not None:
            return f"{file.name}: {wrong.strerror}" if is_damage(wrong) else ""
    if not files[0].stat().st_size:
        return _EMPTY
    try:
        with closing(sqlite3.connect(files[0], timeout=WAIT)) as connection:
            return damage_in(connection)
    except sqlite3.Error as e:
        return str(e) if code_of(e) in DAMAGED else ""


def mend_jsonl(path: Path, *, named: bool = False) -> None:
    """Set files of JSON Lines aside in which there is no event, or that cannot be read.

    One with some lines that are none stays: they are left out wherever it is read.

    Args:
        path: of the file that is written.
        named: whether the configuration names it.

    Raises:
        StateError: it cannot be set aside.
        StoreError: one of the files is not one of ours.
    """
    try:
        files = (path, *numbered(path).values())
    except OSError:
        return  # whoever opens it makes the folder, or says why not
    for file in files:
        _mend_lines(file, named=named)


def _mend_lines(file: Path, *, named: bool) -> None:
    seen, begin = Signature.of(file), b""
    try:
        with open_regular(file) as opened:
            begin = opened.read(len(_BEGIN))
            opened.seek(0)
            damaged = not any(map(_is_event, lines_of(opened)))
    except FileNotFoundError:
        return
    except OSError as e:
        if named:
            raise StoreError(f"{file}: {e.strerror or e}") from e
        if not is_damage(e):
            raise unusable(file, e) from e
        set_aside(file.parent, file, unusable(file, e), _ANEW)
        return
    if not damaged or (named and not begin):
        return
    if named and begin != _BEGIN:
        raise _foreign(file)
    set_aside(file.parent, file, "no event is in it", _ANEW, seen=seen)


def _is_event(line: bytes) -> bool:
    try:
        return line.startswith(_BEGIN) and isinstance(json.loads(line)["id"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def mend_token(path: Path, state: Path) -> None:
    """Set the dashboard's token aside where it is invalid, and is one that urlward has made.

    Raises:
        StateError: it cannot be set aside.
    """
    if path.parent != state or not os.path.lexists(path):
        return
    seen = Signature.of(path)
    with suppress(OSError):
        if path.is_file() and path.stat().st_mode & 0o027:
            return  # is told to who has made it so
    try:
        read_token(path)
    except StateError as e:
        if isinstance(e.__cause__, OSError) and is_damage(e.__cause__):
            set_aside(state, path, e, _ANEW)
    except UrlwardError:
        set_aside(state, path, "not a token", _ANEW, seen=seen)
