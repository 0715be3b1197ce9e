"""Outbox: events on the disk until every store has them.

``outbox/outbox.db`` in the state folder is an SQLite database with a write-ahead log. Every process of the
filter appends batches of events to it, and the recorder delivers from it, each store from a cursor of its
own. SQLite has one writer at a time and numbers rows within its transaction, so numbers grow in the order of
commits, and a cursor passes over no row that becomes visible later.

What is committed survives the end of the process and of the machine (`urlward.records.sqlite`). What every
store has is deleted and overwritten. A file that is damaged is set aside and begun anew.
"""

import json
import math
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from urlward.engine.errors import UrlwardError
from urlward.records.event import Event, detail_of, events_of
from urlward.records.sqlite import DAMAGED, PRAGMAS, code_of, damage_in, files_of, obstacle, write_anew
from urlward.records.store import Inode, StoreError, identity
from urlward.state.folder import (
    StateError,
    is_damage,
    locked,
    made_folder,
    set_aside,
    unusable,
    write_private,
)

FOLDER = "outbox"
"""In the state folder."""

FILE = "outbox.db"

WAIT = 10.0
"""Seconds that a transaction waits for the end of another's."""

VERSION = 1

MOST_REST = 1.0
"""Seconds that a process leaves to others after a transaction, at most."""

ROWS = 40
"""Batches that are looked at or deleted in one transaction, during which nobody appends."""

SMALL = 16 << 20
"""Bytes up to which the file is rewritten even where nothing was too old: what stores have was deleted."""

UNWIPED = "unwiped"
"""Beside it while something that was deleted may be in the files still."""

_TABLES = (
    # AUTOINCREMENT: a number that was deleted is not given again, which a cursor would take for its own past.
    "CREATE TABLE batch (seq INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, events INTEGER NOT NULL,"
    " kinds TEXT NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE cursor (store TEXT PRIMARY KEY, seq INTEGER NOT NULL, down INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)
_COLUMNS = (
    "SELECT seq, store, events, kinds, data FROM batch LIMIT 0",
    "SELECT store, seq, down FROM cursor LIMIT 0",
)
_encode = msgspec.json.Encoder().encode
_kinds_of = msgspec.json.Decoder(dict[str, int]).decode
_ROW = "seq, CAST(events AS INTEGER), CAST(ifnull(data, '') AS BLOB)"  # whatever damage has made of it
_NOTHING = b"", b"[]"
_LOST = "begun anew; events in it are lost"
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class LostOutboxError(StoreError):
    """The outbox was damaged, and is set aside; the message says what was wrong with it."""


class Batch(NamedTuple):
    """Batch of events in the form that is written.

    Attributes:
        events: how many.
        kinds: a JSON object, how many of each kind.
        data: a JSON array of the events.
    """

    events: int
    kinds: str
    data: bytes


def batch_of(events: Sequence[Event]) -> Batch:
    """A batch of some events.

    Raises:
        TypeError, ValueError, RecursionError, msgspec.MsgspecError: one of them cannot be said in JSON.
    """
    kinds = Counter(map(attrgetter("kind"), events))
    return Batch(len(events), json.dumps(kinds), _encode(events))


class Position(NamedTuple):
    """Cursor of a store in the outbox.

    Attributes:
        file: id of the file: one that was begun anew is read from its start.
        seq: number of the last batch.
    """

    file: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """Next batch for a store.

    Attributes:
        last: where it ends.
        count: events that there should be; 0 for nothing.
        events: that there are; what is damaged is none.
    """

    last: Position
    count: int = 0
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class News:
    """Summary of the batches appended since a cursor.

    Attributes:
        last: where it ends.
        kinds: events by kind.
        alarms: alarms by kind.
    """

    last: Position
    kinds: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)


class Outbox:
    """Outbox: a connection to its file, opened on demand. Not for several threads at once.

    Args:
        state: the state folder.
        limit: bytes that events may take; any number where not given.
        make: whether it is made where there is none; otherwise it is empty then.

    Attributes:
        path: of the file.
        file: its id, 0 before it has been opened.
        hurries: whether transactions leave others no turn between them.
    """

    def __init__(self, state: Path, limit: float = math.inf, *, make: bool = True) -> None:
        self.path = state / FOLDER / FILE
        self.file = 0
        self.hurries = False
        self._state = state
        self._limit = limit
        self._make = make
        self._paths = files_of(self.path)
        self._opened: tuple[Inode, ...] = ()
        self._db: sqlite3.Connection | None = None
        self._page = 0
        self._rests = 0.0
        """When the next transaction may begin."""

    def append(self, batches: Sequence[Batch], store: str = "") -> int:
        """Add events, on the disk when this returns.

        Args:
            batches: of events, at least one.
            store: the only one that they are for; all where empty.

        Returns:
            How many batches there was room for, from the first on.

        Raises:
            StoreError: nothing has been added.
        """
        with self._writing() as db:
            taken, size = 0, self._used(db)
            while taken < len(batches) and size < self._limit:
                size += len(batches[taken].data)
                taken += 1
            if taken:
                # One statement: after each the thread waits for the interpreter, which traffic has.
                rows = ", ".join(["(?, ?, ?, ?)"] * taken)
                db.execute(
                    f"INSERT INTO batch (store, events, kinds, data) VALUES {rows}",  # noqa: S608
                    [value for batch in batches[:taken] for value in (store, *batch)],
                )
        return taken

    def read(self, store: str, after: Position, most: int) -> Next:
        """Read the next batch for a store.

        Args:
            store: which.
            after: up to where it has all.
            most: events, at which no further batch is read.

        Raises:
            StoreError: it cannot be read.
        """
        count, found = 0, list[Event]()
        with self._reading() as db:
            last = self._seq(after)
            rows = db.execute(
                f"SELECT {_ROW} FROM batch WHERE seq > ? AND store IN ('', ?) ORDER BY seq",  # noqa: S608
                (last, store),
            )
            for seq, events, data in rows:
                last, count = seq, count + events
                found += _events(data)
                if count >= most:
                    break
            rows.close()
            return Next(Position(self.file, last), count, found)

    def news(self, after: Position) -> News:
        """Summarise what was appended after a cursor, for all stores.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT seq, kinds, CASE WHEN instr(kinds, 'alarm') THEN CAST(data AS BLOB) END"
                " FROM batch WHERE seq > ? AND store = ''",
                (self._seq(after),),
            ).fetchall()
            found = News(Position(self.file, rows[-1][0] if rows else self._seq(after)))
        for _, kinds, data in rows:
            with suppress(msgspec.MsgspecError, TypeError):  # it is damaged
                found.kinds.update(_kinds_of(kinds))
            found.alarms.update(alarm for event in _events(data or b"[]") if (alarm := _alarm_of(event)))
        return found

    def cursors(self) -> dict[str, tuple[Position, bool]]:
        """Cursors of all stores, and whether each was down when its cursor was written.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as db:
            rows = db.execute("SELECT store, seq, down FROM cursor").fetchall()
            return {store: (Position(self.file, seq), bool(down)) for store, seq, down in rows}

    def waiting(self, store: str, after: Position) -> int:
        """Number of events after a cursor.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as db:
            wanted = "SELECT CAST(total(events) AS INTEGER) FROM batch WHERE seq > ? AND store IN ('', ?)"
            return int(db.execute(wanted, (self._seq(after), store)).fetchone()[0])

    def evidence(self, references: Collection[str]) -> list[Event]:
        """Find the events with one of some references.

        Raises:
            StoreError: it cannot be read.
        """
        texts, found = [reference.encode() for reference in references], list[Event]()
        with self._reading() as db:
            for _, _, data in db.execute(f"SELECT {_ROW} FROM batch ORDER BY seq"):  # noqa: S608
                if any(text in data for text in texts):  # far sooner than by reading it
                    found += [event for event in _events(data) if event.reference in references]
        return found

    def used(self) -> int:
        """Size of the events in bytes.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as db:
            return self._used(db)

    def settle(self, cursors: Mapping[str, tuple[Position, bool]], up_to: Position) -> None:
        """Save the cursors, forget all other stores, and delete the events that all have.

        Args:
            cursors: by store, up to where it has all, and whether it is down.
            up_to: up to where they all have all.

        Raises:
            StoreError: it is not done, and stores may be given again what they have.
        """
        marks = ", ".join("?" * len(cursors))
        with self._writing() as db:
            db.execute(f"DELETE FROM cursor WHERE store NOT IN ({marks})", [*cursors])  # noqa: S608
            db.executemany(
                "INSERT INTO cursor VALUES (?, ?, ?) ON CONFLICT (store) DO UPDATE"
                " SET seq = excluded.seq, down = excluded.down",
                [(store, self._seq(position), down) for store, (position, down) in cursors.items()],
            )
        chunk = f"SELECT seq FROM batch WHERE seq <= ? ORDER BY seq LIMIT {ROWS}"  # noqa: S608
        deleted = ROWS
        while deleted == ROWS:
            with self._writing() as db:
                done = db.execute(f"DELETE FROM batch WHERE seq IN ({chunk})", (self._seq(up_to),))  # noqa: S608
                deleted = done.rowcount

    def drop(self, size: int, up_to: Position, behind: Mapping[str, Position]) -> dict[str, int]:
        """Delete the newest events until the rest takes no more than so many bytes.

        Args:
            size: bytes.
            up_to: up to where all other stores have all.
            behind: up to where those have all that are behind.

        Returns:
            How many events each of these will not get.

        Raises:
            StoreError: it is not done.
        """
        lost = dict.fromkeys(behind, 0)
        gone = [(0, 0)]
        while gone:
            gone = []
            with self._writing() as db:
                cursors = {store: self._seq(position) for store, position in behind.items()}
                last, first = self._seq(up_to), min(cursors.values(), default=self._seq(up_to))
                newest = (
                    f"SELECT {_ROW} FROM batch WHERE seq <= ? AND seq > ? "  # noqa: S608
                    "AND NOT instr(kinds, 'gap') ORDER BY seq DESC LIMIT 1"
                )
                while len(gone) < ROWS and self._used(db) > size:
                    if (found := db.execute(newest, (last, first)).fetchone()) is None:
                        break
                    gone.append(found[:2])
                    db.execute("DELETE FROM batch WHERE seq = ?", found[:1])
            for store, cursor in cursors.items():
                lost[store] += sum(events for seq, events in gone if seq > cursor)
        return lost

    def purge(self, limits: Mapping[str, int], held: Collection[str] = ()) -> int:
        """Delete events that are too old, so that the files no longer hold them; returns how many. What
        is too damaged to be read goes at once.

        Args:
            limits: by kind, the time in ms since 1970-01-01 UTC before which they go.
            held: references of what stays.

        Raises:
            StoreError: not all is deleted.
        """
        deleted = after = 0
        changed = False
        unwiped = self.path.with_name(UNWIPED)
        while True:
            with self._writing() as db:
                wanted = f"SELECT {_ROW} FROM batch WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
                if not (rows := db.execute(wanted, (after, ROWS)).fetchall()):
                    break
                after = rows[-1][0]
                for seq, count, data in rows:
                    events = _events(data)
                    kept = [event for event in events if not _is_over(event, limits, held)]
                    if len(kept) == len(events) and (events or data in _NOTHING):
                        continue
                    if not changed:
                        changed = True
                        with suppress(OSError):
                            unwiped.touch(0o600)
                    if not events:
                        # Nobody can say how old it is, or have it; that it is lost its stores still learn.
                        db.execute("UPDATE batch SET kinds = '{}', data = '[]' WHERE seq = ?", (seq,))
                        continue
                    deleted += count - len(kept)
                    if kept:
                        new = batch_of(kept)
                        db.execute(
                            "UPDATE batch SET events = ?, kinds = ?, data = ? WHERE seq = ?", (*new, seq)
                        )
                    else:
                        db.execute("DELETE FROM batch WHERE seq = ?", (seq,))
        if changed or unwiped.exists() or self.used() <= SMALL:
            self._wipe()
            unwiped.unlink(missing_ok=True)
        return deleted

    def check(self) -> None:
        """Check that it is sound; one that is not is set aside.

        Raises:
            LostOutboxError: it was not.
            StoreError: it cannot be told.
        """
        with self._reading() as db:
            why = damage_in(db)
        if why:
            self.close()
            self._set_aside(why)
            raise LostOutboxError(f"{self.path}: was damaged ({why})")

    def close(self) -> None:
        """Close the connection; no error is raised."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _seq(self, position: Position) -> int:
        return position.seq if position.file == self.file else 0

    def _wipe(self) -> None:
        """Wipe what has been deleted from the files: SQLite leaves copies where it has moved something
        within the file, and in the write-ahead log pages as they were."""
        with self._reading() as db:
            write_anew(db)
            # Writers wait while this waits for readers, so it is to give up soon.
            db.execute("PRAGMA busy_timeout = 20")
            end = time.monotonic() + WAIT
            while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > end:
                    raise StoreError(f"{self.path}: what was deleted is still in the write-ahead log")
                time.sleep(0.05)
            db.execute(f"PRAGMA busy_timeout = {WAIT * 1000:.0f}")

    def _used(self, db: sqlite3.Connection) -> int:
        pages, free = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(pages - free) * self._page

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write transaction on the file that is at the path: all of it is done, or nothing.

        The next one begins after as long as it has taken: SQLite has those who wait look again now and then,
        so that one who goes on at once, on a disk that takes a while, would leave the others no turn.
        """
        if not self.hurries:
            time.sleep(max(self._rests - time.monotonic(), 0.0))
        start = time.monotonic()
        try:
            with self._transaction() as db:
                yield db
        finally:
            now = time.monotonic()
            self._rests = now + min(now - start, MOST_REST)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            # Only now: what is committed to files that are gone by then is in no file that anybody can open.
            if self._is_replaced():
                raise StoreError(f"{self.path}: was deleted, moved or replaced while it was open")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Connection for reading; after an error it is made anew."""
        try:
            if self._db is not None and self._is_replaced():
                self._save_log()
                self.close()
            if self._db is None:
                self._db = self._open() if self._make or self.path.exists() else _empty()
            yield self._db
        except sqlite3.Error as e:
            if self._db is not None and code_of(e) in _NO_ROOM:
                with suppress(sqlite3.Error):  # a log that begins anew needs no more room than it has
                    self._db.execute("PRAGMA wal_checkpoint(RESTART)")
            self.close()
            if code_of(e) in DAMAGED:
                self._set_aside(e)
                raise LostOutboxError(f"{self.path}: was damaged ({e})") from e
            raise StoreError(f"{self.path}: {e}") from e
        except OSError as e:
            self.close()
            raise StoreError(str(unusable(Path(e.filename or self.path), e))) from e
        except StateError as e:
            self.close()
            raise StoreError(str(e)) from e
        except StoreError:
            self.close()
            raise

    def _save_log(self) -> None:
        """Copy what is only in a deleted log into the file, unless another has begun a log anew."""
        with locked(made_folder(self.path.parent, self._state)):
            database, log, _ = identity(*self._paths)
            if self._db is not None and log is None and database == self._opened[0]:
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA wal_checkpoint")

    def _is_replaced(self) -> bool:
        try:
            return bool(self._opened) and identity(*self._paths) != self._opened
        except OSError:
            return True

    def _open(self) -> sqlite3.Connection:
        with locked(made_folder(self.path.parent, self._state)):
            self._look_at_files()
            if not self.path.exists():
                for path in self._paths[1:]:  # of one that was deleted
                    path.unlink(missing_ok=True)
                write_private(self.path, b"", self._state)
            self._opened = identity(*self._paths)
            db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            db.text_factory = _text  # one that is damaged keeps nobody from reading the others
            try:
                for pragma in PRAGMAS:
                    db.execute(f"PRAGMA {pragma}")
                if not (version := db.execute("PRAGMA user_version").fetchone()[0]):
                    db.execute("BEGIN IMMEDIATE")
                    for statement in (*_TABLES, f"PRAGMA application_id = {secrets.randbelow(1 << 31)}"):
                        db.execute(statement)
                    db.execute("COMMIT")
                elif version != VERSION:
                    raise StoreError(
                        f"{self.path}: of another version of urlward: use that one, or move the file away"
                    )
                for statement in _COLUMNS:
                    db.execute(statement)
                self._page, self.file = (
                    db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "application_id")
                )
                self._opened = identity(*self._paths)
            except (sqlite3.OperationalError, UnicodeDecodeError) as e:  # the latter of a message's own text
                db.close()
                if isinstance(e, UnicodeDecodeError) or code_of(e) == sqlite3.SQLITE_ERROR:
                    damaged = sqlite3.DatabaseError("its header or its tables are not an outbox's")
                    damaged.sqlite_errorcode = sqlite3.SQLITE_NOTADB
                    raise damaged from e
                raise
            except BaseException:
                db.close()
                raise
            return db

    def _look_at_files(self) -> None:
        """Set aside files that cannot be written."""
        for path in self._paths:
            if not os.path.lexists(path):
                continue
            why = obstacle(path)
            if why is None and path == self.path and not path.stat().st_size:
                if not any(map(os.path.lexists, self._paths[1:])):
                    path.unlink()  # was begun on a full disk: nothing was in it
                    continue
                set_aside(self._state, path, "empty", _LOST)
            elif why is not None and (is_damage(why) or isinstance(why, FileNotFoundError)):
                set_aside(self._state, path, why.strerror, _LOST)

    def _set_aside(self, why: object) -> None:
        """Set the open file aside, unless another process has."""
        with suppress(StateError, OSError), locked(self.path.parent):
            if self._opened and identity(self.path) == self._opened[:1]:
                set_aside(self._state, self.path, why, _LOST, beside=self._paths[1:])


def _is_over(event: Event, limits: Mapping[str, int], held: Collection[str]) -> bool:
    return event.time < limits.get(event.kind, 0) and event.reference not in held


def _alarm_of(event: Event) -> str:
    """Kind of the alarm that an event is; empty for none."""
    try:
        return str(detail_of(event).get("alarm", "")) if event.kind == "alarm" else ""
    except UrlwardError:
        return ""


def _events(data: bytes) -> list[Event]:
    """Decode the events of a batch; what is none is left out."""
    try:
        return events_of(data)[0]
    except UrlwardError:
        return []


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _empty() -> sqlite3.Connection:
    """Make an empty outbox."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in _TABLES:
        db.execute(statement)
    return db
