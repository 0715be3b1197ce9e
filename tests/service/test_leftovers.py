import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assignments.support import sighting, taken
from conftest import run_command, wait_for
from records.support import DAY, START, an_event
from urlward.assignments.store import AssignmentStore
from urlward.commands.records import add_records_commands
from urlward.config import Config, FilesTable, read_config
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.engine.errors import UrlwardError
from urlward.feeds import learn
from urlward.lists.build import written_atomically
from urlward.objections.objections import add_objection, read_objections
from urlward.policy.own import draft, learn_own, own_entries
from urlward.records.event import Event
from urlward.records.holds import hold
from urlward.records.outbox import FOLDER, Outbox, Position, batch_of
from urlward.records.retention import RetentionClock
from urlward.records.stores import open_store
from urlward.service import leftovers
from urlward.service.leftovers import purge_leftovers, unheeded, without_end
from urlward.service.services import Services
from urlward.state.folder import local_key, locked, set_aside, write_private

NOW = START / 1000
RECORDS = RecordsTable(
    days=DaysTable(blocks=1, operations=9),
    store=(StoreTable(kind="sqlite"),),
    assignments=StoreTable(kind="sqlite", path="/nowhere/assignments.db"),
)
HELD = an_event(2).reference


def files(state: Path) -> bytes:
    found = b""
    for path in (state / FOLDER).glob("outbox.db*"):
        with suppress(FileNotFoundError):  # SQLite takes some away as it closes
            found += path.read_bytes()
    return found


def put(state: Path, some: list[Event]) -> None:
    outbox = Outbox(state)
    assert outbox.append([batch_of(some)]) == 1
    outbox.close()


def in_outbox(state: Path) -> list[Event]:
    outbox = Outbox(state)
    try:
        return outbox.read("a", Position(), 100).events
    finally:
        outbox.close()


SOME = [an_event(n, client=f"192.0.2.{n}") for n in range(3)]
SOME += [an_event(n + 9, "list", client="") for n in range(3)]


def test_what_waits_for_a_store_has_an_end(tmp_path: Path) -> None:
    put(tmp_path, SOME)
    over = NOW + 2 * DAY / 1000
    assert purge_leftovers(RECORDS, tmp_path, {HELD}, NOW) == (
        {"objections": 0, "damaged files": 0, "unfinished files": 0, "waiting for a store": 0},
        [],
    )
    assert purge_leftovers(RECORDS, tmp_path, {HELD}, over)[0]["waiting for a store"] == 2
    assert b"192.0.2.0" not in files(tmp_path)
    assert b"192.0.2.2" in files(tmp_path), "it is held"
    # Whoever goes on with it gets what is left.
    put(tmp_path, [an_event(7)])
    assert in_outbox(tmp_path) == [*SOME[2:], an_event(7)]


def test_while_others_write_and_read_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.append([batch_of(SOME)])
    over = NOW + 20 * DAY / 1000
    assert purge_leftovers(RECORDS, tmp_path, (), over)[0]["waiting for a store"] == 6
    assert outbox.read("a", Position(), 10).count == 0
    assert b"192.0.2" not in files(tmp_path)
    outbox.append([batch_of([an_event(7)])])
    assert outbox.read("a", Position(), 10).events == [an_event(7)]
    outbox.close()


def test_where_nothing_was_recorded_nothing_is_made(tmp_path: Path) -> None:
    assert purge_leftovers(RECORDS, tmp_path, (), NOW)[1] == []
    assert not (tmp_path / FOLDER).exists()


def test_what_a_killed_writer_left_has_an_end(tmp_path: Path) -> None:
    """A copy of objections, say: nothing writes the file itself until one comes, or is over."""
    key, now = local_key(tmp_path), time.time()
    add_objection(tmp_path, key, "R", "text", client="192.0.2.7", now=now)
    left = tmp_path / ".objections.json.tmp"
    left.write_bytes((tmp_path / "objections.json").read_bytes())
    # What others write there, without the lock.
    with written_atomically(tmp_path / "dashboard.toml") as file:
        assert len([*tmp_path.glob(".*.tmp")]) == 2
        assert purge_leftovers(RECORDS, tmp_path, (), now)[0]["unfinished files"] == 1
        file.write(b"whole")
    assert (tmp_path / "dashboard.toml").read_bytes() == b"whole"
    left.write_bytes((tmp_path / "objections.json").read_bytes())
    beside = {path: path.read_bytes() for path in tmp_path.iterdir() if path != left}
    with locked(tmp_path):
        # Whoever writes a file now finishes it.
        other = threading.Thread(target=purge_leftovers, args=(RECORDS, tmp_path, (), now))
        other.start()
        write_private(tmp_path / "another", b"whole")
        assert left.exists()
    other.join()
    assert not left.exists()
    assert purge_leftovers(RECORDS, tmp_path, (), now)[1] == []
    assert (tmp_path / "another").read_bytes() == b"whole"
    assert {path: path.read_bytes() for path in beside} == beside


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


def test_objections_that_nothing_deletes_are_told(tmp_path: Path) -> None:
    """As of a time with days: with `privacy = "counts"` none are needed."""
    counts = RECORDS.model_copy(update={"privacy": "counts", "days": DaysTable()})
    assert without_end(counts, tmp_path) == []
    add_objection(tmp_path, local_key(tmp_path), "R", "text", client="", now=time.time())
    (told,) = without_end(counts, tmp_path)
    assert str(told).startswith("objections.json: 1 objections from before, which nothing ever deletes")
    assert without_end(counts.model_copy(update={"days": DaysTable(blocks=30)}), tmp_path) == []


def test_what_was_a_store_and_is_none_any_more_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of persons, and nothing deletes it: the store, or the days, were taken out of the configuration."""
    some = [an_event(1, client="192.0.2.7")]
    for kind in ("sqlite", "jsonl"):
        store = open_store(StoreTable(kind=kind), tmp_path)
        store.write(some)
        store.close()
    (tmp_path / "records.jsonl").rename(tmp_path / "records.jsonl.1")
    taken(AssignmentStore(tmp_path / "assignments.db"), sighting("192.0.2.7", 0, None, "anna"))
    left = ["records.jsonl.1", "assignments.db"]
    assert [str(one).partition(":")[0] for one in without_end(RECORDS, tmp_path)] == [
        str(tmp_path / name) for name in reversed(left)
    ]
    elsewhere = RECORDS.model_copy(
        update={"store": (StoreTable(kind="jsonl", path=str(tmp_path / "records.jsonl")),)}
    )
    assert [str(one).partition(":")[0] for one in without_end(elsewhere, tmp_path)] == [
        str(tmp_path / name) for name in ("records.db", "assignments.db")
    ]
    mine = RECORDS.model_copy(
        update={"assignments": None, "store": (*RECORDS.store, StoreTable(kind="jsonl"))}
    )
    assert without_end(mine, tmp_path) == []
    config = tmp_path / "urlward.toml"
    config.write_text(
        f'state = "{tmp_path}"\n[records]\nprivacy = "counts"\nstore = [{{ kind = "sqlite" }}]\n'
    )
    assert run_command(add_records_commands, "records", "status", "--config", config) == 1
    told = capsys.readouterr().err
    assert "records.jsonl.1: no store any more, so that nothing in it is ever deleted" in told
    assert "1 events of persons from before, which nothing ever deletes: say for how many days" in told
    assert run_command(add_records_commands, "records", "purge", "--config", config) == 1
    assert capsys.readouterr().err == told


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
    put(tmp_path, [an_event(at=round(now * 1000) - 3 * DAY)])
    assert run_command(add_records_commands, "records", "purge", "--config", config) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "objections: 1 deleted",
        "waiting for a store: 1 deleted",
    ]
    assert [one.reference for one in read_objections(tmp_path)] == [HELD, "0000-0000-0000"]


async def test_the_process_that_records_does_so_each_hour(tmp_path: Path) -> None:
    """Also where no objections are taken."""
    records = RECORDS.model_copy(update={"assignments": None})
    key = local_key(tmp_path)
    add_objection(tmp_path, key, "0000-0000-0000", "old", client="192.0.2.7", now=NOW)
    put(tmp_path, SOME)
    services = Services(Config(records=records, state=str(tmp_path)), tmp_path, key)
    task = asyncio.ensure_future(services.beside()["mending"]())
    await asyncio.to_thread(
        wait_for, lambda: not read_objections(tmp_path) and b"192.0.2" not in files(tmp_path), "the end"
    )
    task.cancel()


def test_what_stays_where_nothing_is_recorded_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, file = local_key(tmp_path), tmp_path / "urlward.toml"
    assert unheeded(Config(state=str(tmp_path))) == []
    add_objection(tmp_path, key, "0000-0000-0000", "old", client="192.0.2.7", now=NOW)
    learn_own(tmp_path, key, [draft("http://listed.example/a")], 9, now=NOW)
    store = open_store(StoreTable(kind="sqlite"), tmp_path)
    store.write([an_event(1)])
    store.close()
    told = [f"{tmp_path}/{name}: records of persons" for name in ("records.db", "objections.json")]
    found = unheeded(Config(state=str(tmp_path)))
    assert all(line.startswith(start) for line, start in zip(found, told, strict=True))
    assert unheeded(Config(state=str(tmp_path), records=RECORDS)) == []
    assert unheeded(Config(state=str(tmp_path / ("x" * 300)))) == [], "what cannot be looked at"
    file.write_text('state = "."\n')
    with pytest.raises(UrlwardError, match=r"nothing is recorded; .*records\.db: records of persons"):
        run_command(add_records_commands, "records", "status", "--config", file)
    file.write_text("")
    monkeypatch.setattr(leftovers, "state_folder", lambda _: tmp_path)
    assert unheeded(read_config(file)) == [], "the default folder may be another's"
    monkeypatch.setattr(leftovers, "SYSTEM", file)
    assert "own.json: 1 own entry, not in force" in unheeded(read_config(file))[0]


async def test_what_was_learned_is_looked_after_whatever_is_configured_since(tmp_path: Path) -> None:
    records = RECORDS.model_copy(update={"assignments": None})
    key = local_key(tmp_path)
    learn_own(
        tmp_path,
        key,
        [draft("http://listed.example/a", note="reference 7", expires="2026-01-01")],
        9,
        now=0.0,
    )
    services = Services(Config(records=records, state=str(tmp_path)), tmp_path, key)
    task = asyncio.ensure_future(services.beside()["known files"]())
    await asyncio.to_thread(wait_for, lambda: not own_entries(tmp_path), "the end of what is over")
    task.cancel()


async def test_a_clock_that_was_set_by_days_removes_nothing_that_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would bring it back, and a fleet's other nodes would remove it too."""
    monkeypatch.setattr(learn, "CLEAN", 0.0)
    records = RECORDS.model_copy(update={"assignments": None})
    key, now, passed = local_key(tmp_path), NOW, 0.0
    config = Config(records=records, files=FilesTable(), state=str(tmp_path))
    services = Services(config, tmp_path, key)
    clock = RetentionClock(tmp_path, lambda *_: None, lambda: now, lambda: passed)
    monkeypatch.setattr(services, "_retention_clock", clock)
    learning = services.beside()["known files"].__self__  # type: ignore[attr-defined]
    expires = datetime.fromtimestamp(NOW + 7 * 86_400, UTC).date().isoformat()
    learn_own(tmp_path, key, [draft("http://listed.example/a", expires=expires)], 9, now=NOW)
    learning.look()
    now += 40 * 86_400
    monkeypatch.setattr(learning, "clock", lambda: now)
    learner = learn.Learner(tmp_path, key)
    learner.learn(learn.Match("listed.example/new", "hotline", "H-7", "csam", HELD))
    learner.close()
    learning.look()
    first, new = own_entries(tmp_path)
    assert (first.expires, new.created) == (expires, now)
    assert new.expires > datetime.fromtimestamp(now, UTC).date().isoformat(), "whatever the clock was before"
    now, passed = now + 90_000, passed + 90_000
    learning.look()
    assert own_entries(tmp_path) == [new], "it was right, and a day was there to see to it"
