"""The outbox keeps what it is given, in order, until every store has it, whatever becomes of its file."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import wait_for
from obstacles import a_folder, a_pipe
from records.recording import appending, events, kill
from records.support import START, an_event, made_in
from rows import each_row
from urlward.records import outbox as module
from urlward.records.event import Event
from urlward.records.outbox import (
    FILE,
    FOLDER,
    UNWIPED,
    LostOutboxError,
    Outbox,
    Position,
    StoreError,
    batch_of,
)


def put(outbox: Outbox, some: list[Event], store: str = "") -> None:
    assert outbox.append([batch_of(some)], store) == 1


def all_of(outbox: Outbox, store: str = "a", after: Position | None = None) -> list[Event]:
    """What a store is given, a few at a time."""
    found: list[Event] = []
    after = after or Position()
    while (following := outbox.read(store, after, 7)).count:
        found += following.events
        after = following.last
    return found


def files(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (state / FOLDER).iterdir())


def test_what_waits_is_written_nowhere_else(tmp_path: Path) -> None:
    """While the file is written anew, where temporary files usually go: that may be another disk."""
    outbox = Outbox(tmp_path)
    some = [an_event(n, detail=f'{{"text":"{"x" * 5_000}"}}') for n in range(2_000)]
    for i in range(0, len(some), 500):
        put(outbox, some[i : i + 500])
    with made_in(outbox.path.parent) as names:
        assert outbox.purge({}) == 0
    assert [name[:7] for name in names if name.startswith("etilqs_")] == ["etilqs_"]
    assert all_of(outbox) == some
    assert Outbox(tmp_path / "other", make=False).purge({}) == 0, "where there is none, and no folder"


def test_what_was_put_in_comes_out_in_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.read("a", Position(), 10).count == 0
    assert outbox.append([batch_of(events(5)), batch_of(events(20, 5))]) == 2
    put(outbox, events(1, 25))
    assert all_of(outbox) == events(26)
    assert all_of(Outbox(tmp_path)) == events(26)
    assert stat.S_IMODE(outbox.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(outbox.path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox.path.parent.iterdir()} == {0o600}


def test_a_transaction_that_took_long_leaves_others_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, now, slept = Outbox(tmp_path), 100.0, list[float]()
    commit = outbox._transaction

    @contextmanager
    def slow() -> Iterator[sqlite3.Connection]:
        nonlocal now
        with commit() as db:
            yield db
        now += 0.5

    monkeypatch.setattr(outbox, "_transaction", slow)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, sleep=slept.append))
    put(outbox, events(1))
    now += 0.1
    put(outbox, events(1, 1))
    outbox.hurries = True
    put(outbox, events(1, 2))
    assert slept == [0, pytest.approx(0.4)]
    assert all_of(outbox) == events(3)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "deliver a", "deliver b", "open anew"]), st.integers(1, 9)))
)
def test_every_store_gets_every_event_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    state = tmp_path_factory.mktemp("state")
    outbox, count = Outbox(state), 0
    given_: dict[str, list[Event]] = {"a": [], "b": []}
    at = dict.fromkeys(given_, Position())

    def settle() -> None:
        outbox.settle({store: (position, False) for store, position in at.items()}, min(at.values()))

    def deliver(store: str, most: int) -> None:
        rows = outbox.read(store, at[store], most)
        given_[store] += rows.events
        at[store] = rows.last
        settle()

    for step, number in steps:
        if step == "put":
            put(outbox, events(number, count))
            count += number
        elif step == "open anew":
            settle()
            outbox.close()
            outbox = Outbox(state)
            at = {store: position for store, (position, _) in outbox.cursors().items()}
        else:
            deliver(step[-1], number)
    for store in given_:
        deliver(store, 1000)
        assert given_[store] == events(count)
    assert outbox.read("c", Position(), 10).count == 0, "what all have is deleted"
    outbox.close()


def test_a_number_is_not_given_twice(tmp_path: Path) -> None:
    """A cursor would take what comes for its own past."""
    outbox = Outbox(tmp_path)
    put(outbox, events(3))
    last = outbox.read("a", Position(), 10).last
    outbox.settle({"a": (last, True)}, last)
    outbox.close()
    outbox = Outbox(tmp_path)
    assert outbox.cursors() == {"a": (last, True)}
    put(outbox, events(2, 3))
    assert all_of(outbox, after=last) == events(2, 3)
    outbox.settle({"b": (last, False)}, Position())
    assert [*outbox.cursors()] == ["b"]


def test_what_is_for_one_store_no_other_gets(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, events(2), "a")
    put(outbox, events(1, 2))
    assert all_of(outbox, "a") == events(3)
    assert all_of(outbox, "b") == events(1, 2)
    assert (outbox.waiting("a", Position()), outbox.waiting("b", Position())) == (3, 1)


def test_what_is_new_is_counted_by_kind(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    alarm = an_event(1, "alarm", detail='{"alarm":"canary","text":"…"}')
    put(outbox, [an_event(0), alarm, an_event(2, "alarm", detail=""), an_event(3, "alarm", detail="{")])
    news = outbox.news(Position())
    assert news.kinds == {"block": 1, "alarm": 3}
    assert news.alarms == {"canary": 1}
    put(outbox, events(5))
    again = outbox.news(news.last)
    assert again.kinds == {"block": 5}
    assert outbox.news(again.last).kinds == {}


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 1 << 20)
    some = batch_of(events(100, size=400))
    taken = outbox.append([some] * 50)
    assert 10 < taken < 30
    assert outbox.append([some]) == 0
    assert outbox.used() < (1 << 20) + 2 * len(some.data)
    assert len(all_of(outbox)) == taken * 100


def test_the_newest_are_dropped_that_only_stores_which_are_behind_do_not_have(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for n in range(0, 2000, 100):
        put(outbox, events(100, n, size=400))
    half = Position(outbox.file, 15)
    lost = outbox.drop(1 << 19, half, {"down": Position(outbox.file, 1), "slow": Position(outbox.file, 14)})
    assert outbox.used() <= 1 << 19
    left = [event.reference for event in all_of(outbox)]
    gone = 2000 - len(left)
    assert lost == {"down": gone, "slow": 100}
    kept = 1500 - gone
    assert left == [str(n) for n in (*range(kept), *range(1500, 2000))]
    assert outbox.drop(0, half, {}) == {}


def test_what_says_what_is_missing_is_not_dropped(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    gaps = [an_event(n, "gap", detail="{}") for n in range(3)]
    for n in range(0, 1000, 100):
        put(outbox, events(100, n, size=400))
    for gap in gaps:
        put(outbox, [gap])
        put(outbox, events(100, 1000, size=400))
    end = outbox.news(Position()).last
    assert outbox.drop(0, end, {"down": Position(outbox.file)}) == {"down": 1300}
    assert all_of(outbox) == gaps


def test_what_is_deleted_is_in_no_file_any_more(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, [an_event(n, client=f"192.0.2.{n}") for n in range(200)])
    held = an_event(3).reference
    assert outbox.purge({"block": START + 100_000, "list": START}, [held]) == 99
    found = files(tmp_path)
    assert b'"192.0.2.50"' not in found
    assert b'"192.0.2.3"' in found
    assert b'"192.0.2.100"' in found
    assert len(all_of(outbox)) == 101
    # What stores have is forgotten too, as soon as it is looked after.
    end = outbox.read("a", Position(), 1000).last
    outbox.settle({"a": (end, False)}, end)
    assert outbox.purge({}) == 0
    assert b"192.0.2" not in files(tmp_path)


def test_what_a_purge_has_left_in_the_files_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Outbox) -> None:
        raise StoreError("outbox.db: database or disk is full")

    monkeypatch.setattr(module, "SMALL", -1)
    outbox = Outbox(tmp_path)
    put(outbox, [an_event(n, client=f"192.0.2.{n}") for n in range(200)])
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_wipe", fails)
        for _ in range(2):
            with pytest.raises(StoreError):
                outbox.purge({"block": START + 100_000})
    other = Outbox(tmp_path)
    assert len(all_of(other)) == 100
    outbox.close()
    outbox = Outbox(tmp_path)
    assert b'"192.0.2.50"' in files(tmp_path), "the log is there while somebody has it open"
    assert outbox.purge({"block": START + 100_000}) == 0
    assert b'"192.0.2.50"' not in files(tmp_path)
    assert b'"192.0.2.100"' in files(tmp_path)
    assert not outbox.path.with_name(UNWIPED).exists()
    monkeypatch.setattr(Outbox, "_wipe", fails)
    assert outbox.purge({"block": START + 100_000}) == 0, "once"
    other.close()


def test_evidence_of_a_reference(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, [an_event(n) for n in range(9)])
    assert outbox.evidence([an_event(3).reference, "none"]) == [an_event(3)]
    assert Outbox(tmp_path / "none", make=False).evidence(["none"]) == []
    assert not (tmp_path / "none").exists()


@each_row("kinds", ["'?'", "CAST(x'7bff7d' AS TEXT)", "x'00ff'", "7", '\'{"block":"2"}\'', "'[[\"block\"]]'"])
def test_a_batch_that_is_damaged_costs_no_other(tmp_path: Path, kinds: str) -> None:
    outbox = Outbox(tmp_path)
    for n in range(3):
        put(outbox, events(2, 2 * n))
    with closing(sqlite3.connect(outbox.path)) as db:
        db.execute(f"UPDATE batch SET data = '[', kinds = {kinds} WHERE seq = 2")
        db.commit()
    following = outbox.read("a", Position(), 10)
    assert (following.count, following.events) == (6, [*events(2), *events(2, 4)])
    assert outbox.news(Position()).kinds == {"block": 4}
    assert outbox.news(Position(outbox.file, 1)).kinds == {"block": 2}
    assert outbox.evidence(["5"]) == events(1, 5)
    assert outbox.purge({"block": 1 << 40}) == 4
    assert (outbox.read("a", Position(), 10).count, outbox.purge({"block": 1 << 40})) == (2, 0)
    bad = events(1)[0]._replace(kind="nonsense")  # type: ignore[arg-type]
    put(outbox, [bad, an_event(2)])
    following = outbox.read("a", following.last, 10)
    assert (following.count, following.events) == (2, [an_event(2)])


def test_nothing_of_a_damaged_batch_is_kept_for_ever(tmp_path: Path) -> None:
    """Its events have no days that could be over, and no store gets them; one may be down for long."""
    outbox = Outbox(tmp_path)
    put(outbox, events(2))
    put(outbox, events(2, 2))
    with closing(sqlite3.connect(outbox.path)) as db:
        db.execute("UPDATE batch SET data = '[[\"a person''s' WHERE seq = 2")
        db.commit()
    assert outbox.purge({}) == 0
    following = outbox.read("a", Position(), 10)
    assert (following.count, following.events) == (4, events(2)), "its stores learn that there was something"
    outbox.close()
    assert all(b"a person's" not in path.read_bytes() for path in outbox.path.parent.iterdir())


def _noise(path: Path) -> None:
    path.write_bytes(b"\x81\x00\xff\x1f" * 700)


def _other(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other (id)")
        db.execute("PRAGMA user_version = 1")


def _page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def _version(path: Path) -> None:
    """As of a database that is to be made yet."""
    _put(path, 60, bytes(4))


def _format(path: Path) -> None:
    _put(path, 47, b"\x84")


def _column(path: Path) -> None:
    _put(path, path.read_bytes().index(b"kinds TEXT"), b"q")


def _syntax(path: Path) -> None:
    """What SQLite says of it has these bytes in it."""
    _put(path, path.read_bytes().index(b"AUTOINCREMENT"), b"\xe5\xaa")


def _put(path: Path, at: int, data: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])


@each_row(
    ("damage", "under_way"),
    [
        (damage, False)
        for damage in (_noise, a_folder, a_pipe, _other, _page, _version, _format, _column, _syntax)
    ]
    + [(damage, True) for damage in (a_folder, a_pipe)],
)
def test_what_is_damaged_is_set_aside_and_begun_anew(
    tmp_path: Path, damage: Callable[[Path], object], under_way: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writer, reader = Outbox(tmp_path), Outbox(tmp_path)
    for n in range(20):
        put(writer, events(10, 10 * n, size=100))
    after = reader.read("a", Position(), 10).last
    if not under_way:
        writer.close()
        reader.close()
    for end in ("-wal", "-shm"):
        writer.path.with_name(FILE + end).unlink(missing_ok=True)
    damage(writer.path)
    for _ in range(4):  # what one has set aside the other finds gone
        for each in (writer, reader):
            with suppress(StoreError):
                each.check()
    put(writer, events(3, 500))
    assert reader.read("a", after, 10).events == events(3, 500), "from the start of the other file"
    assert len([text for text in caplog.messages if "set aside as damaged/outbox.db" in text]) == 1
    assert next((tmp_path / "damaged").iterdir()).name.startswith("outbox.db.")


@pytest.mark.parametrize("log", [False, True])
def test_one_that_was_begun_on_a_full_disk_is_not_damaged(tmp_path: Path, log: bool) -> None:
    """An empty file, unless what was in it is in a log yet."""
    outbox = Outbox(tmp_path)
    put(outbox, events(3))
    outbox.close()
    os.truncate(outbox.path, 0)
    if log:
        outbox.path.with_name(FILE + "-wal").write_bytes(b"x")
    put(Outbox(tmp_path), events(3, 10))
    assert all_of(Outbox(tmp_path)) == events(3, 10)
    assert (tmp_path / "damaged").exists() == log


def test_a_damaged_one_says_so(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, events(200, size=100))
    outbox.close()
    _page(outbox.path)
    with pytest.raises(LostOutboxError, match=r"outbox\.db: was damaged"):
        outbox.check()
    outbox.check()


@each_row("names", ["outbox.db*", "outbox.db", "outbox.db-wal", ""])
def test_what_is_deleted_under_way_is_not_written_to_in_silence(tmp_path: Path, names: str) -> None:
    outbox, other = Outbox(tmp_path), Outbox(tmp_path)
    put(outbox, events(3))
    put(other, events(3))
    if not names:
        shutil.rmtree(tmp_path / FOLDER)
    for path in [*(tmp_path / FOLDER).glob(names)] if names else []:
        path.unlink()
    for each, first in ((outbox, 10), (other, 20)):
        try:
            put(each, events(3, first))
        except StoreError:
            put(each, events(3, first))
    found = {event.reference for event in all_of(Outbox(tmp_path))}
    assert {str(n) for n in (*range(10, 13), *range(20, 23))} <= found


@each_row("names", ["outbox.db*", "outbox.db", "outbox.db-wal"])
def test_what_is_deleted_within_a_transaction_is_not_said_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    outbox, used = Outbox(tmp_path), Outbox._used
    put(outbox, events(3))

    def removed(self: Outbox, db: sqlite3.Connection) -> int:
        monkeypatch.undo()
        for path in (tmp_path / FOLDER).glob(names):
            path.unlink()
        return used(self, db)

    monkeypatch.setattr(Outbox, "_used", removed)
    with pytest.raises(StoreError):
        put(outbox, events(3, 10))
    put(outbox, events(3, 10))
    assert all_of(Outbox(tmp_path))[-3:] == events(3, 10)


def test_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, events(3))
    outbox.close()
    with closing(sqlite3.connect(outbox.path)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match=r"outbox\.db: of another version of urlward: use that one, or move"):
        outbox.append([batch_of(events(1))])
    assert not (tmp_path / "damaged").exists()


def test_several_processes_write_at_once_and_a_cursor_passes_over_nothing(tmp_path: Path) -> None:
    writers = [appending(tmp_path, name, 2000) for name in "abc"]
    outbox, after = Outbox(tmp_path), Position()
    found: dict[str, list[int]] = {name: [] for name in "abc"}
    try:

        def drained() -> bool:
            nonlocal after
            while (rows := outbox.read("x", after, 100)).count:
                after = rows.last
                for event in rows.events:
                    found[event.client].append(event.time // 1000)
                outbox.settle({"x": (after, False)}, after)
            return all(len(numbers) == 2000 for numbers in found.values())

        wait_for(drained, "all of them")
    finally:
        kill(*writers)
    assert all(numbers == [*range(2000)] for numbers in found.values())


def test_killed_while_it_writes_it_keeps_all_or_nothing_of_a_batch(tmp_path: Path) -> None:
    for n in range(5):
        process = appending(tmp_path, str(n), 1 << 30)
        outbox = Outbox(tmp_path)
        name = str(n)
        wait_for(lambda name=name, outbox=outbox: any(e.client == name for e in all_of(outbox)), "events")
        kill(process)
        numbers = [e.time // 1000 for e in all_of(outbox) if e.client == name]
        assert numbers == [*range(len(numbers))]
        assert len(numbers) % 10 == 0
        outbox.check()
        outbox.close()
