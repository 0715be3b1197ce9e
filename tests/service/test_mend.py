"""What is damaged at the start of the process that records is set aside, and begun anew."""

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from obstacles import permissions_hold
from records.recording import events
from records.support import own_messages
from rows import each_row
from urlward.assignments.schema import FILE as ASSIGNMENTS
from urlward.assignments.store import AssignmentStore
from urlward.config import RecordsTable
from urlward.config.records import StoreTable
from urlward.dashboard.handler import Sessions
from urlward.records.asking import Desk
from urlward.records.outbox import Outbox, batch_of
from urlward.records.store import EventQuery, StoreError
from urlward.service.mend import mend_assignments, mend_token, open_mended
from urlward.service.services import set_aside_alarm
from urlward.state.folder import forget_damaged
from urlward.state.people import People, admit
from urlward.state.token import read_token
from urlward.state.watch import Signature

SQLITE, JSONL = StoreTable(kind="sqlite"), StoreTable(kind="jsonl")


def _flip(path: Path, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.with_name("nowhere") / "at all")


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "cut": lambda path: os.truncate(path, 5000),
    "empty": lambda path: os.truncate(path, 0),
    "noise": lambda path: path.write_bytes(b"\x81\x00\xff" * 3000) and None,
    "folder": _folder,
    "pipe": _pipe,
    "dangling": _dangling,
    "unreadable": lambda path: path.chmod(0),
}


def aside(folder: Path) -> list[str]:
    return sorted(path.name.partition(".2")[0] for path in (folder / "damaged").glob("*"))


@each_row("damage", DAMAGES)
def test_a_database(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    open_mended(SQLITE, tmp_path).close()
    store = open_mended(SQLITE, tmp_path)
    store.write(events(500))
    store.close()
    assert aside(tmp_path) == []
    DAMAGES[damage](tmp_path / "records.db")
    with permissions_hold():
        store = open_mended(SQLITE, tmp_path)
        store.write(events(3, 500))
        assert len(store.find(EventQuery())) == 3  # type: ignore[attr-defined]
        store.close()
    assert aside(tmp_path) == ["records.db"]
    (line,) = own_messages(caplog)
    assert line.endswith("; a new one is begun")
    alarm = set_aside_alarm(RecordsTable(), tmp_path)["set-aside"]
    assert alarm.startswith("damaged and set aside: records.db.2")


def test_one_for_which_a_disk_has_no_room_is_not_there(tmp_path: Path) -> None:
    """An empty one was set aside at each try, and was an alarm for a day."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(StoreError):
                open_mended(StoreTable(kind="sqlite"), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    open_mended(StoreTable(kind="sqlite"), tmp_path).close()
    assert aside(tmp_path) == []


def test_a_page_of_a_database_and_its_log_that_is_a_folder(tmp_path: Path) -> None:
    store = open_mended(SQLITE, tmp_path)
    store.write(events(2000))
    store.close()
    path = tmp_path / "records.db"
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 9 * 4096] = os.urandom(4096)
    path.write_bytes(data)
    (tmp_path / "records.db-wal").mkdir()
    (tmp_path / "records.db-shm").write_bytes(b"x")
    store = open_mended(SQLITE, tmp_path)
    store.write(events(1))
    store.close()
    assert aside(tmp_path) == ["records.db", "records.db-shm", "records.db-wal"]


READER = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM sqlite_schema")
connection.close()
"""


def _read_by_another_process(path: Path) -> None:
    subprocess.run([sys.executable, "-c", READER, path], check=True)


@pytest.mark.parametrize("named", [False, True])
def test_what_is_open_already_keeps_its_locks_and_so_its_log(tmp_path: Path, named: bool) -> None:
    table = StoreTable(kind="sqlite", path="records.db") if named else SQLITE
    first = open_mended(table, tmp_path)
    first.write(events(1))
    second = open_mended(table, tmp_path)
    _read_by_another_process(tmp_path / "records.db")
    second.check()
    first.check()
    first.write(events(2))
    assert len(second.find(EventQuery())) == 2  # type: ignore[attr-defined]
    second.close()
    first.close()
    assert aside(tmp_path) == []


def test_assignments_that_are_open_already_keep_their_log(tmp_path: Path) -> None:
    path = tmp_path / ASSIGNMENTS
    first = AssignmentStore(path)
    assert first.status() == []
    with first.reading():
        AssignmentStore(path).close()
        mend_assignments(RecordsTable(), tmp_path)
        _read_by_another_process(path)
        assert path.with_name(f"{ASSIGNMENTS}-wal").exists()
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_database_of_whose_tables_sqlite_cannot_even_speak(tmp_path: Path) -> None:
    store = open_mended(SQLITE, tmp_path)
    store.write(events(10))
    store.close()
    path = tmp_path / "records.db"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"AUTOINCREMENT", b"\xe5\xaaTOINCREMENT"))
    store = open_mended(SQLITE, tmp_path)
    store.write(events(1))
    assert len(store.find(EventQuery())) == 1  # type: ignore[attr-defined]
    store.close()
    assert aside(tmp_path) == ["records.db"]


def test_one_that_is_locked_or_of_a_later_version_stays(tmp_path: Path) -> None:
    store = open_mended(SQLITE, tmp_path)
    store.write(events(1))
    with sqlite3.connect(tmp_path / "records.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        open_mended(StoreTable(kind="jsonl"), tmp_path).close()
        other.rollback()
    store.close()
    open_mended(SQLITE, tmp_path).close()
    assert aside(tmp_path) == []


def test_a_database_elsewhere_is_set_aside_there(tmp_path: Path) -> None:
    table = StoreTable(kind="sqlite", path=str(tmp_path / "srv/events.db"))
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/damaged").mkdir()
    (tmp_path / "srv/damaged/others.txt").touch()
    os.utime(tmp_path / "srv/damaged/others.txt", (0, 0))
    (tmp_path / "srv/events.db").write_bytes(b"SQLite format 3\0 and noise")
    open_mended(table, tmp_path / "state").close()
    forget_damaged(tmp_path / "srv", time.time() + 1e9)
    (tmp_path / "srv/damaged/others.txt").unlink()
    assert aside(tmp_path / "srv") == []
    (tmp_path / "srv/events.db").write_bytes(b"SQLite format 3\0 and noise")
    open_mended(table, tmp_path / "state").close()
    assert aside(tmp_path / "srv") == ["events.db"]
    assert "srv/damaged" in set_aside_alarm(RecordsTable(store=(table,)), tmp_path / "state")["set-aside"]


def _other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")


OTHERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("my own words\n"),
    "lines": lambda path: path.write_text('{"id": "1"}\n{"id": "2"}\n'),
    "database": _other_database,
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
}


@each_row("kind", ["sqlite", "jsonl", "jsonl, the one before"])
@each_row("other", OTHERS)
def test_what_is_anothers_stays_as_it_is(tmp_path: Path, kind: str, other: str) -> None:
    kind, _, before = kind.partition(", ")
    path = tmp_path / "srv" / ("own.7" if before else "own")
    path.parent.mkdir()
    OTHERS[other](path)
    seen = Signature.of(path)
    table = StoreTable.model_validate({"kind": kind, "path": str(path.with_name("own"))})
    with pytest.raises(StoreError, match=f"^{path}: [^\n]*$"):
        open_mended(table, tmp_path / "state")
    if kind == "sqlite":
        assignments = RecordsTable(assignments=table)
        mend_assignments(assignments, tmp_path / "state")
    assert Signature.of(path) == seen
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_a_named_file_may_be_empty_and_of_a_start_before(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own"
    path.touch()
    table = StoreTable.model_validate({"kind": kind, "path": str(path)})
    for n in range(2):
        store = open_mended(table, tmp_path / "state")
        store.write(events(3, n * 3))
        store.close()
    assert not (tmp_path / "damaged").exists()
    path.write_bytes(b'{"version":1,"id' if kind == "jsonl" else b"SQLite format 3\0")
    store = open_mended(table, tmp_path / "state")
    store.write(events(1))
    store.close()
    assert aside(tmp_path) == ["own"]


@each_row("damage", sorted(DAMAGES.keys() - {"flipped", "cut", "dangling"}))
def test_json_lines(tmp_path: Path, damage: str) -> None:
    store = open_mended(JSONL, tmp_path)
    store.write(events(50))
    path = tmp_path / "records.jsonl"
    DAMAGES[damage](path)
    with permissions_hold():
        open_mended(JSONL, tmp_path).write(events(3))
    assert aside(tmp_path) == ["records.jsonl"]
    assert len(path.read_bytes().splitlines()) == 3


def test_json_lines_of_which_some_are_damaged_stay(tmp_path: Path) -> None:
    open_mended(JSONL, tmp_path).write(events(50))
    _flip(tmp_path / "records.jsonl", 3)
    open_mended(JSONL, tmp_path).write(events(3, 50))
    assert aside(tmp_path) == []


@each_row("damage", DAMAGES)
def test_assignments(tmp_path: Path, damage: str) -> None:
    AssignmentStore(tmp_path / ASSIGNMENTS).close()
    mend_assignments(RecordsTable(), tmp_path)
    assert aside(tmp_path) == []
    DAMAGES[damage](tmp_path / ASSIGNMENTS)
    with permissions_hold():
        mend_assignments(RecordsTable(), tmp_path)
        AssignmentStore(tmp_path / ASSIGNMENTS).close()
    assert aside(tmp_path) == [ASSIGNMENTS]


@each_row("damage", sorted(DAMAGES.keys() - {"flipped", "cut", "dangling"}))
def test_the_token_and_the_sessions(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "admin.token"
    token = read_token(path)
    mend_token(path, tmp_path)
    assert read_token(path) == token
    admit(tmp_path, path, 1e9)
    people = People(tmp_path)
    admin = people.by_token(token, 1e9)
    assert admin is not None
    session = Sessions(tmp_path, people).begin(admin, 1e9)
    DAMAGES[damage](path)
    DAMAGES[damage](tmp_path / "admin.json")
    with permissions_hold():
        mend_token(path, tmp_path)
        admit(tmp_path, path, 1e9)
        assert read_token(path) != token
        assert people.by_token(token, 1e9) is None
        assert people.by_token(read_token(path), 1e9) is not None
        assert Sessions(tmp_path, people).visitor(session, 1e9) is None
    assert aside(tmp_path) == ["admin.json", "admin.token"]


def test_a_token_that_others_may_read_or_that_is_elsewhere_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    path.write_bytes(b"short")
    path.chmod(0o644)
    mend_token(path, tmp_path)
    path.chmod(0o600)
    mend_token(path, tmp_path / "state")
    assert path.read_bytes() == b"short"


@each_row("damage", ["folder", "pipe", "unreadable", "noise"])
def test_the_outbox(tmp_path: Path, damage: str) -> None:
    outbox = Outbox(tmp_path)
    outbox.append([batch_of([])])
    outbox.close()
    DAMAGES[damage](outbox.path)
    with permissions_hold():
        with suppress(StoreError):
            outbox.check()
        outbox.append([batch_of([])])
        outbox.close()
    assert aside(tmp_path) == ["outbox.db"]


async def test_the_socket(tmp_path: Path) -> None:
    (tmp_path / "records.sock").mkdir()
    desk = Desk(tmp_path, {}, lambda *_: None)
    await desk.start()
    await desk.close()
    assert aside(tmp_path) == ["records.sock"]
