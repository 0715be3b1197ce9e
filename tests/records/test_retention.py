import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from conftest import until
from records.support import DAY, HOUR, START, an_event, node, own_messages
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records import database as module
from urlward.records import sql
from urlward.records.database import Database, open_database
from urlward.records.event import KINDS
from urlward.records.holds import held_references, hold
from urlward.records.jsonl_store import open_jsonl
from urlward.records.retention import (
    AGAIN,
    INTERVAL,
    KeepingStores,
    RetentionClock,
    days_of,
    purge,
    retain,
    run_retention,
)
from urlward.records.store import EventQuery


class Clock:
    """Moved by whoever waits; ends when all of its times are over."""

    def __init__(self, *steps: float) -> None:
        self.now = START / 1000
        self.steps = list(steps)
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        if not self.steps:
            raise asyncio.CancelledError
        self.now += self.steps.pop(0)


SQLITE = StoreTable(kind="sqlite")
JSONL = StoreTable(kind="jsonl")
SYSLOG = StoreTable(kind="syslog", address="192.0.2.1:514")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_database(SQLITE, tmp_path)
    yield made
    made.close()


def stores(state: Path, *tables: StoreTable) -> KeepingStores:
    return KeepingStores(RecordsTable(store=tables), state)


async def retained(stores: KeepingStores, days: DaysTable, clock: Clock, state: Path) -> None:
    with pytest.raises(asyncio.CancelledError):
        await run_retention(
            stores,
            days_of(days),
            lambda: held_references(state, clock()),
            clock,
            clock.sleep,
        )


def test_days_of_each_kind() -> None:
    days = days_of(DaysTable(blocks=3, operations=9))
    assert set(days) == set(KINDS)
    assert {kind for kind, number in days.items() if number == 3} == {
        *("block", "would-block", "cut", "would-cut", "file", "objection"),
    }
    assert days_of(DaysTable()) == {}
    assert set(days_of(DaysTable(blocks=1))) == {
        "block",
        "would-block",
        "cut",
        "would-cut",
        "file",
        "objection",
    }


async def test_nothing_is_ever_older_than_it_may_be(database: Database, tmp_path: Path) -> None:
    other = open_jsonl(JSONL, tmp_path)
    some = [an_event(n, at=START + n * HOUR) for n in range(4)]
    lists = an_event(9, kind="list", at=START)
    for store in (database, other):
        store.write([*some, lists])
    hold(tmp_path, some[0].reference, (START + 2 * DAY) // 1000, "asked for", "ann", now=START / 1000)
    held_until = START + 2 * DAY
    seen: list[set[str]] = []

    class Watched(Clock):
        async def sleep(self, seconds: float) -> None:
            # Right before the next run what is there has reached its greatest age.
            found = database.find(EventQuery())
            assert other.ages() == database.ages()
            next_run = int(self.now * 1000 + seconds * 1000)
            held = self.now * 1000 < held_until
            assert all(
                next_run - event.time <= (2 if event.kind == "list" else 1) * DAY
                for event in found
                if not (held and event.reference == some[0].reference)
            )
            seen.append({event.id for event in found})
            await super().sleep(seconds)

    clock = Watched(22 * 3600.0, 1 * 3600.0, 1 * 3600.0, 1 * 3600.0, 22 * 3600.0, 3600.0)
    await retained(
        stores(tmp_path, SQLITE, SYSLOG, JSONL), DaysTable(blocks=1, operations=2), clock, tmp_path
    )
    assert clock.waited == [INTERVAL] * 7
    assert [len(ids) for ids in seen] == [5, 5, 5, 5, 4, 2, 0]


async def test_a_store_in_trouble_does_not_keep_others_from_it(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = StoreTable(kind="jsonl", path="b.jsonl")
    away = StoreTable(kind="postgresql", url_env="NOT_THERE")
    (tmp_path / "b.jsonl.1").mkdir()
    database.write([an_event()])
    clock = Clock()
    clock.now += 10 * 86_400
    with caplog.at_level(logging.INFO, "urlward.records"):
        await retained(stores(tmp_path, table, away, SQLITE), DaysTable(blocks=1), clock, tmp_path)
    assert clock.waited == [AGAIN]
    assert database.find(EventQuery()) == []
    failed = "records: not deleted, though their days are over:"
    assert own_messages(caplog) == [
        f"records: {tmp_path}/records.db: 1 deleted, their days are over",
        f"{failed} {tmp_path}/b.jsonl.1: Is a directory",
        f"{failed} url_env: NOT_THERE is not in the environment",
    ]


async def test_as_configured(database: Database, tmp_path: Path) -> None:
    database.write([an_event(n) for n in range(3)])
    hold(tmp_path, an_event(1).reference, START // 1000 + DAY, "asked for", "ann", now=START / 1000)
    days = DaysTable(blocks=1, operations=1)
    task = asyncio.create_task(
        retain(RecordsTable(store=(SQLITE,), days=days), tmp_path, lambda: START / 1000 + 86_000)
    )

    async def deleted() -> bool:
        return len(await asyncio.to_thread(database.find, EventQuery())) == 1

    await until(deleted)
    task.cancel()
    assert database.find(EventQuery()) == [an_event(1)]


def test_nothing_is_deleted_while_holds_are_not_known(database: Database, tmp_path: Path) -> None:
    def damaged() -> dict[str, int]:
        raise UrlwardError("holds.json: damaged")

    database.write([an_event()])
    deleted, errors = purge(stores(tmp_path, SQLITE), {"block": 1}, damaged, START + DAY)
    assert (deleted, [*map(str, errors)]) == ({}, ["holds.json: damaged"])
    assert len(database.find(EventQuery())) == 1


def test_writers_go_on_meanwhile(database: Database, tmp_path: Path) -> None:
    database.write([an_event(n) for n in range(10_000)])
    opened = stores(tmp_path, SQLITE)
    done = threading.Thread(target=purge, args=(opened, {"block": 1}, dict, START / 1000 + 10 * 86_400))
    done.start()
    late = [an_event(n, at=START + 20 * DAY + n) for n in range(50)]
    for event in late:
        database.write([event])
    done.join()
    opened.close()
    assert database.find(EventQuery()) == late[::-1]


def test_what_is_deleted_while_the_file_is_written_anew_is_not_forgotten(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, as of ``urlward records purge``: the file is written anew again."""
    rewritten: list[bool] = []
    monkeypatch.setattr(sql, "SHARE", 1e9)
    wipe = sql.wipe_sqlite

    def watched(engine: Engine, pause: Callable[[float], None], *, rewrite: bool) -> None:
        rewritten.append(rewrite)
        wipe(engine, pause, rewrite=rewrite)

    monkeypatch.setattr(module, "wipe_sqlite", watched)
    database.write([an_event(n, at=START + n * DAY) for n in range(4)])
    reader = database.engine.connect()
    reader.exec_driver_sql("SELECT count(*) FROM events").scalar_one()

    def interrupted(_: float) -> None:
        """While it waits for a reader."""
        reader.close()
        other = open_database(SQLITE, tmp_path)
        other._pace.after = float("inf")
        assert other.purge({"block": 2}, START + 3 * DAY + 1) == 1
        other.close()

    database._pause = interrupted
    assert database.purge({"block": 2}, START + 2 * DAY + 1) == 1
    for _ in range(2):
        assert database.purge({"block": 2}, START + 3 * DAY + 1) == 0
    assert rewritten == [True, False, True]


def test_what_another_node_holds_stays(database: Database, tmp_path: Path) -> None:
    database.write([an_event(n) for n in range(2)])
    database.hold({an_event(0).reference: START + 10 * DAY}, node("other"))
    opened = stores(tmp_path, SQLITE)
    now = START / 1000 + 5 * 86_400
    assert purge(opened, {"block": 1}, dict, now, ahead=6 * 86_400) == ({database.name: 1}, [])
    assert purge(opened, {"block": 1}, dict, now + 5 * 86_400) == ({database.name: 1}, [])
    opened.close()


def test_each_purge_tells_the_database_what_this_node_holds(database: Database, tmp_path: Path) -> None:
    """It could not be reached when that was asked for, or another node has ended its own."""
    reference, until = an_event(0).reference, START // 1000 + 10 * 86_400
    hold(tmp_path, reference, until, "asked for", "ann", now=START / 1000)
    database.write([an_event(n) for n in range(2)])
    opened = stores(tmp_path, SQLITE)
    now = START / 1000 + 5 * 86_400
    held = lambda: held_references(tmp_path, now)  # noqa: E731
    assert purge(opened, {"block": 1}, held, now) == ({database.name: 1}, [])
    opened.close()
    assert database.held(int(now * 1000)) == {reference: until * 1000}


class SetClock:
    """A wall clock that may be set, and one that may not."""

    def __init__(self, state: Path) -> None:
        self.wall = START / 1000
        self.steady = 1_000.0
        self.said: list[tuple[str, str]] = []
        self.state = state
        self.begin()

    def begin(self) -> None:
        """As a process that begins."""
        self.clock = RetentionClock(
            self.state, lambda *said: self.said.append(said), lambda: self.wall, lambda: self.steady
        )

    def passes(self, seconds: float) -> float:
        self.wall += seconds
        self.steady += seconds
        return self.clock()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]


SECONDS_A_DAY = 86_400.0


def test_retention_goes_by_the_clock(tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    for seconds in (0.0, 3_600.0, 90 * SECONDS_A_DAY):
        assert clock.passes(seconds) == clock.wall
    clock.wall += 3_600  # as summer time by hand
    assert clock.passes(0) == clock.wall
    clock.wall -= 3_600
    assert clock.passes(0) == clock.wall
    assert clock.said == []


def test_a_clock_that_is_set_ahead_deletes_nothing_for_a_day(tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    before = clock.passes(3_600)
    clock.wall += 5_000 * SECONDS_A_DAY
    assert clock.passes(3_600) == before + 3_600
    assert clock.passes(20 * 3_600) == before + 21 * 3_600
    assert clock.kinds() == ["clock-set"]
    assert "records purge" in clock.said[0][1]
    # A restart is no way around it, nor one that begins the day anew.
    clock.begin()
    assert clock.passes(3_600) == before + 22 * 3_600
    assert clock.passes(3 * 3_600) == clock.wall
    assert clock.kinds() == ["clock-set", "clock-set", "clock-settled"]
    assert clock.passes(3_600) == clock.wall


def test_a_clock_that_is_set_right_again_has_deleted_nothing(tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    before = clock.passes(0)
    clock.wall += 5_000 * SECONDS_A_DAY
    assert clock.passes(3_600) == before + 3_600
    clock.wall -= 5_000 * SECONDS_A_DAY
    assert clock.passes(3_600) == clock.wall == before + 7_200
    assert clock.kinds() == ["clock-set", "clock-settled"]


def test_a_machine_whose_clock_begins_in_1970_waits_for_the_time(tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    now = clock.passes(0)
    clock.wall = 0.0
    clock.begin()
    assert clock.passes(60) == 60  # nothing is over by then
    clock.wall = now + 600
    assert clock.passes(60) == now + 660
    assert clock.kinds() == ["clock-set", "clock-settled"]


async def test_a_clock_that_is_wrong_until_the_network_is_there_is_looked_at_soon(tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    now = clock.passes(0)
    clock.wall = 0.0
    clock.begin()
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.wall = now
        if len(waited) == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retain(RecordsTable(store=(SQLITE,)), tmp_path, clock.clock, sleep)
    assert waited == [AGAIN, INTERVAL]
    assert clock.kinds() == ["clock-set", "clock-settled"]


@pytest.mark.parametrize("damage", ["cut", "pipe"])
def test_a_damaged_record_of_the_time_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "retention.json"
    path.write_bytes(b"{") if damage == "cut" else os.mkfifo(path)
    clock = SetClock(tmp_path)
    assert clock.passes(60) == clock.wall
    assert json.loads((tmp_path / "retention.json").read_bytes())["clock"][0]["time"] == clock.wall


async def test_a_clock_that_is_set_ahead_ends_no_hold_and_deletes_no_event(
    database: Database, tmp_path: Path
) -> None:
    some = [an_event(n) for n in range(3)]
    database.write(some)
    hold(tmp_path, some[0].reference, START // 1000 + 10 * 86_400, "asked for", "ann", now=START / 1000)
    clock = SetClock(tmp_path)
    clock.passes(60)
    clock.wall += 5_000 * SECONDS_A_DAY
    task = asyncio.create_task(
        retain(RecordsTable(store=(SQLITE,), days=DaysTable(blocks=2)), tmp_path, clock.clock)
    )
    async with asyncio.timeout(60):
        while not clock.said:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert len(database.find(EventQuery())) == 3
    # Whoever makes a hold meanwhile ends none by it.
    hold(tmp_path, "another", int(clock.wall) + 60, "asked for", "ann", now=clock.wall)
    assert some[0].reference in held_references(tmp_path, START / 1000)
