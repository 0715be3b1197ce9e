import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from conftest import run_command, wait_for
from records.support import DAY, START, an_event
from urlward.config import Config
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.lists.state import local_key, set_aside
from urlward.records.holds import hold
from urlward.records.leftovers import purge_leftovers
from urlward.records.objections import add_objection, read_objections
from urlward.records.records_commands import add_records_commands
from urlward.records.services import Services
from urlward.records.spool import LOCK, SPOOL, Spool

NOW = START / 1000
RECORDS = RecordsTable(
    days=DaysTable(blocks=1, operations=9),
    store=(StoreTable(kind="sqlite"),),
    assignments=StoreTable(kind="sqlite", path="/nowhere/assignments.db"),
)
HELD = an_event(2).reference


def waiting(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*.spool"))


def spooled(state: Path, name: str) -> Spool:
    spool = Spool(state / SPOOL / name, 1 << 20, state)
    for n in range(3):
        assert spool.append([an_event(n, client=f"192.0.2.{n}"), an_event(n + 9, "list", client="")])
    return spool


def test_what_waits_for_a_store_has_an_end(tmp_path: Path) -> None:
    spooled(tmp_path, "sqlite").close()
    over = NOW + 2 * DAY / 1000
    assert purge_leftovers(RECORDS, tmp_path, {HELD}, NOW) == (
        {"objections": 0, "damaged files": 0, "waiting for a store": 0},
        [],
    )
    assert purge_leftovers(RECORDS, tmp_path, {HELD}, over)[0]["waiting for a store"] == 2
    assert b"192.0.2.0" not in waiting(tmp_path)
    assert b"192.0.2.2" in waiting(tmp_path), "it is held"
    # Who opens it then goes on with what is left.
    spool = Spool(tmp_path / SPOOL / "sqlite", 1 << 20, tmp_path)
    assert spool.append([an_event(7)])
    kinds = []
    while segment := spool.oldest():
        assert not segment.damaged
        kinds += [event.kind for event in segment.events]
        spool.remove_oldest()
    assert kinds == ["list", "list", "block", "list", "block"]


def test_in_the_process_that_writes_it(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "sqlite")
    events, size = spool.events, spool.size
    assert spool.purge(lambda event: event.kind == "block") == 3
    assert (spool.events, spool.size < size) == (events - 3, True)
    assert spool.size == len(waiting(tmp_path))
    assert spool.append([an_event(7)])
    assert spool.purge(lambda _: True) == 4
    assert (spool.events, bool(spool)) == (0, True)
    for _ in range(2):
        segment = spool.oldest()
        assert segment is not None
        assert (segment.events, segment.damaged) == ([], 0)
        spool.remove_oldest()
    assert not spool


def test_what_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    spooled(tmp_path, "sqlite")
    fd = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    over = NOW + 20 * DAY / 1000
    assert "waiting for a store" not in purge_leftovers(RECORDS, tmp_path, (), over)[0]
    os.close(fd)
    assert purge_leftovers(RECORDS, tmp_path, (), over)[0]["waiting for a store"] == 6


def test_damaged_files_of_every_store_have_an_end(tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "assignments.db"
    records = RECORDS.model_copy(update={"assignments": StoreTable(kind="sqlite", path=str(there))})
    for path in (there, tmp_path / "objections.json", tmp_path / "audit.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("192.0.2.7")
        set_aside(path.parent, path, "damaged")
    assert purge_leftovers(records, tmp_path, (), time.time())[0]["damaged files"] == 0
    assert purge_leftovers(records, tmp_path, (), time.time() + 86_401)[0]["damaged files"] == 2
    (left,) = tmp_path.rglob("damaged/*")
    assert left.name.startswith("audit.jsonl.")


def test_purge_deletes_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(
        f'state = "{tmp_path}"\n[records.days]\nblocks = 1\noperations = 1\n'
        '[[records.store]]\nkind = "jsonl"\n'
    )
    key, now = local_key(tmp_path), time.time()
    for reference in (HELD, "0000-0000-0000"):
        add_objection(tmp_path, key, reference, "old", client="192.0.2.7", now=now - 3 * 86_400)
    add_objection(tmp_path, key, "0000-0000-0000", "new", client="192.0.2.7", now=now)
    hold(tmp_path, HELD, int(now) + 999, "asked for", "ann", now=now)
    old = Spool(tmp_path / SPOOL / "postgresql", 1 << 20, tmp_path)
    old.append([an_event(at=round(now * 1000) - 3 * DAY)])
    assert run_command(add_records_commands, "records", "purge", "--config", config) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "objections: 1 deleted",
        "waiting for a store: 1 deleted",
    ]
    assert [one.reference for one in read_objections(tmp_path)] == [HELD, "0000-0000-0000"]


async def test_the_process_that_records_does_so_each_hour(tmp_path: Path) -> None:
    """Also of stores that the configuration does not name any more, and where no objections are taken."""
    records = RECORDS.model_copy(update={"assignments": None})
    key = local_key(tmp_path)
    add_objection(tmp_path, key, "0000-0000-0000", "old", client="192.0.2.7", now=NOW)
    for name in ("sqlite", "jsonl-of-before"):
        spooled(tmp_path, name)
    services = Services(Config(records=records, state=str(tmp_path)), tmp_path, key)
    task = asyncio.ensure_future(services.beside()["mending"]())
    await asyncio.to_thread(
        wait_for, lambda: not read_objections(tmp_path) and b"192.0.2" not in waiting(tmp_path), "the end"
    )
    task.cancel()
