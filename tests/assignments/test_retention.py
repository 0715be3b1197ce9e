import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from sqlalchemy import Engine

from assignments.support import DAY, START, at, held, intervals, sighting, taken
from assignments.test_rotation import Log, asked, record
from records.support import an_event, in_the_heap
from urlward.assignments import retention, schema
from urlward.assignments.deterministic import Formula, add_formula
from urlward.assignments.formats import DETERMINISTIC, ReadOptions
from urlward.assignments.importing import follow, import_file
from urlward.assignments.interval import MOST_APART, AssignmentError, SightingKind, ms_text
from urlward.assignments.radacct import import_radacct
from urlward.assignments.retention import (
    delete_source,
    first_purge,
    has_ended_before,
    hold_assignments,
    hold_configured,
    oldest_assignment,
    purge_assignments,
    release_assignments,
)
from urlward.assignments.store import NOT_YET, AssignmentStore, KeepingNode
from urlward.assignments.who import WhoQuestion, answer_fields, answer_lines, who
from urlward.config.records import RecordsTable
from urlward.records import sql
from urlward.records.holds import Evidence

A = "192.0.2.7"
DAYS = DAY / 1000
MARKS = ("marked-short", "marked-long", "marked-session")


def filled(store: AssignmentStore) -> None:
    taken(
        store,
        sighting(A, 0, 60, "marked-short", SightingKind.WHOLE),
        sighting("192.0.2.8", 0, 20 * DAYS, "marked-long", SightingKind.WHOLE),
        sighting("192.0.2.9", 0, None, "marked-session", session="n/1"),
        sighting(A, 40 * DAYS, 41 * DAYS, "kept", SightingKind.WHOLE),
    )


def test_what_ended_before(store: AssignmentStore) -> None:
    assert oldest_assignment(store) is None
    filled(store)
    assert oldest_assignment(store) == START
    # What ends at that time is not before it; the session was last heard of at the start.
    assert purge_assignments(store, START) == 0
    assert purge_assignments(store, at(60)) == 1
    assert purge_assignments(store, at(19 * DAYS)) == 1
    assert purge_assignments(store, at(21 * DAYS)) == 1
    assert [one[0] for one in intervals(store, A)] == ["kept"]
    assert purge_assignments(store, at(100 * DAYS)) == 1
    assert oldest_assignment(store) is None


def test_a_source_is_taken_back_and_read_anew(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"address,subscriber,from,to\n{A},anna,2026-11-18T12:00:00,2026-11-18T13:00:00\n"
        f"{A},berta,2026-11-18T13:00:00,\n"
    )
    taken(store, sighting("192.0.2.8", 0, None, "other"), name="right")

    def read(zone: str) -> int:
        source = store.source("wrong", "csv", str(path))
        return import_file(
            store, source, path, ReadOptions(zone=ZoneInfo(zone)), lambda: at(DAYS) / 1000
        ).rows

    def verdict(seconds: float, address: str = A) -> tuple[str, list[str]]:
        answer = who(store, WhoQuestion(address, None, at(seconds)))
        return answer.verdict, [one.interval.subscriber for one in answer.candidates]

    # It is read as it was, though nothing has changed in it.
    assert (read("UTC"), read("Europe/Berlin")) == (2, 0)
    assert verdict(3600) == ("one", ["anna"])
    hold_assignments(store, "REF", at(9 * DAYS), [(A, 0, at(3600))])
    with pytest.raises(AssignmentError, match=r"^source 'wrong': some of it is held for REF: not deleted"):
        delete_source(store, "wrong", START)
    release_assignments(store, "REF")
    assert delete_source(store, "wrong", START) == 2
    answer = who(store, WhoQuestion(A, None, at(3600)))
    assert answer_fields(answer)["unread"] == [
        {"source": "right", "to": ms_text(START)},
        {"source": "wrong", "to": None},
    ]
    assert "  of source wrong nothing is read yet, or again since it was deleted" in answer_lines(answer)
    assert store.status()[1]["read"] is None
    assert verdict(0, "192.0.2.8") == ("one", ["other"])
    assert read("Europe/Berlin") == 2
    assert verdict(3600) == ("one", ["berta"])
    # Of another format it is another's; and nothing is left once there is nothing of it.
    delete_source(store, "wrong", START)
    assert store.source("wrong", "kea", "a.csv").format == "kea"
    assert delete_source(store, "wrong", START) == 0
    assert [one.name for one in store.sources().values()] == ["right"]
    with pytest.raises(AssignmentError, match="no source is called 'wrong'"):
        delete_source(store, "wrong", START)


def test_whoever_follows_what_is_taken_back_reads_it_anew(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path, source, now = tmp_path / "fixed.csv", sqlite_store.source("fixed", "csv", "fixed.csv"), [0.0]
    export(path, "fixed")
    looks = follow(
        sqlite_store, source, path, ReadOptions(), clock=lambda: at(now[0]) / 1000, wait=lambda _: True
    )
    next(looks)
    delete_source(sqlite_store, "fixed", START)
    now[0] = DAYS
    next(looks)
    assert sqlite_store.status()[0]["read"] is None
    with path.open("a") as file:
        file.write(f"{A},added,{at(0)},\n")
    next(looks)
    looks.close()
    assert [held(sqlite_store, address, DAYS) for address in (FIXED, A)] == [["fixed"], ["added"]]


def test_formulas_are_taken_back(sqlite_store: AssignmentStore) -> None:
    formula = Formula(IPv4Network("100.64.0.0/24"), IPv4Network("198.51.100.0/30"), 1008)
    with sqlite_store.importing("nat", DETERMINISTIC, "") as source:
        add_formula(sqlite_store, source, formula)
    question = WhoQuestion("198.51.100.0", 1024, at(0))
    hold_assignments(sqlite_store, "REF", at(9 * DAYS), [(question.address, 1024, at(0))])
    with pytest.raises(AssignmentError, match="held for REF"):
        delete_source(sqlite_store, "nat", START)
    assert delete_source(sqlite_store, "nat", at(10 * DAYS)) == 0
    assert who(sqlite_store, question).unread == (("nat", NOT_YET),)
    with sqlite_store.importing("nat", DETERMINISTIC, "") as source:
        add_formula(sqlite_store, source, formula)
    assert who(sqlite_store, question).verdict == "one"
    assert who(sqlite_store, replace(question, address=A)).unread == ()


def test_it_cannot_be_read_back_from_sqlite(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    filled(sqlite_store)

    def stored() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert all(mark.encode() in stored() for mark in MARKS)
    purge_assignments(sqlite_store, at(30 * DAYS))
    assert not [mark for mark in MARKS if mark.encode() in stored()]
    assert b"kept" in stored()
    delete_source(sqlite_store, "test", START)
    assert b"kept" not in stored()


def test_no_copy_of_what_was_deleted_is_left_in_sqlite(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """SQLite moves rows from page to page as others come, and overwrites no copy that it leaves behind."""
    order = [(n * 7_919) % 20_000 for n in range(20_000)]
    rows = [
        sighting(
            f"10.{n >> 8 & 255}.{n & 255}.7", n, n + 60 if n % 3 else 500 * DAYS, f"marked-{n:05d}-{n}",
            SightingKind.WHOLE if n % 2 else SightingKind.HELD,
        )
        for n in order
    ]  # fmt: skip
    taken(sqlite_store, *rows, batch=1_000)
    purge_assignments(sqlite_store, at(100 * DAYS))
    with sqlite_store.reading() as connection:
        kept = {
            row[0].encode()
            for table in ("assignments", "assignments_current")
            for row in connection.exec_driver_sql(f"SELECT subscriber FROM {table}")
        }
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    found = set(re.findall(rb"marked-\d{5}-\d+", stored))
    assert 0 < len(kept) < len(order)
    assert not {one for one in found if not any(each.startswith(one) for each in kept)}


def test_a_file_of_an_urlward_that_wrote_none_anew_is_written_once(
    sqlite_store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of what that deleted are in it."""
    rewritten: list[bool] = []
    monkeypatch.setattr(sql, "SHARE", 1e9)
    wipe = retention.wipe_sqlite

    def watched(engine: Engine, pause: Callable[[float], None], *, rewrite: bool) -> None:
        rewritten.append(rewrite)
        wipe(engine, pause, rewrite=rewrite)

    monkeypatch.setattr(retention, "wipe_sqlite", watched)
    filled(sqlite_store)
    for _ in range(2):
        assert purge_assignments(sqlite_store, START) == 0
    assert purge_assignments(sqlite_store, at(60)) == 1
    assert purge_assignments(sqlite_store, at(60)) == 0
    assert rewritten == [True, False, True, False]


def test_what_is_deleted_while_the_file_is_written_anew_is_not_forgotten(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process: the file is written anew again."""
    rewritten: list[bool] = []
    monkeypatch.setattr(sql, "SHARE", 1e9)
    wipe = retention.wipe_sqlite

    def interrupted(engine: Engine, pause: Callable[[float], None], *, rewrite: bool) -> None:
        wipe(engine, pause, rewrite=rewrite)
        rewritten.append(rewrite)
        if len(rewritten) == 1:
            (pace,) = [one for url, one in retention._paces.items() if url == str(engine.url)]
            after, pace.after = pace.after, float("inf")
            other = AssignmentStore(tmp_path / "assignments.db")
            assert purge_assignments(other, at(30 * DAYS)) == 2
            other.close()
            pace.after = after

    monkeypatch.setattr(retention, "wipe_sqlite", interrupted)
    filled(sqlite_store)
    assert purge_assignments(sqlite_store, at(60)) == 1
    for _ in range(2):
        assert purge_assignments(sqlite_store, at(30 * DAYS)) == 0
    assert rewritten == [True, False, True, False]


def test_a_log_that_is_in_use_is_told(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0)
    monkeypatch.setattr(sql, "TRIES", 2)
    store = AssignmentStore(tmp_path / "assignments.db")
    filled(store)
    with sqlite_store.reading() as reader:
        reader.exec_driver_sql("BEGIN")
        assert reader.exec_driver_sql("SELECT count(*) FROM assignments").scalar() == 3
        with pytest.raises(
            AssignmentError, match=r"assignments\.db: what was deleted is still in the write-ahead"
        ):
            purge_assignments(store, at(30 * DAYS))
    assert purge_assignments(store, at(30 * DAYS)) == 0
    assert not [mark for mark in MARKS if any(mark.encode() in p.read_bytes() for p in tmp_path.iterdir())]
    store.close()


def test_it_cannot_be_read_back_from_postgresql(postgresql: str, tmp_path: Path) -> None:
    with psycopg.connect(host=postgresql, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE purged")
    store = AssignmentStore(f"postgresql://urlward@/purged?host={postgresql}")
    filled(store)
    purge_assignments(store, at(30 * DAYS))
    tables = in_the_heap(postgresql)
    assert b"kept" in tables
    assert not [mark for mark in MARKS if mark.encode() in tables]
    store.close()


FIXED, OTHER = "203.0.113.5", "198.51.100.7"


def export(path: Path, *subscribers: str) -> None:
    """A provider's export of fixed assignments, which have no end."""
    networks = {"fixed": "203.0.113.0/28", "other": OTHER}
    rows = [f"198.51.100.{n},long-{n},{at(0)},\n" for n in range(100, 250)]  # more than a file is known by
    rows += [f"{networks[name]},{name},{at(0)},\n" for name in subscribers]
    path.write_text("address,subscriber,from,to\n" + "".join(rows))


def imported(store: AssignmentStore, path: Path, seconds: float) -> int:
    source = store.source("fixed", "csv", str(path))
    return import_file(store, source, path, ReadOptions(), lambda: at(seconds) / 1000).rows


def test_what_has_no_end_stays_while_its_file_has_it(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "fixed.csv"
    export(path, "fixed", "other")
    assert imported(store, path, 0) == 152
    # Nothing new is read of it, and it still has all.
    assert imported(store, path, 200 * DAYS) == 0
    assert first_purge(store, {1: 7, 2: 0}) == at(207 * DAYS)
    assert not has_ended_before(store, at(199 * DAYS))
    assert purge_assignments(store, at(199 * DAYS)) == 0
    assert held(store, FIXED, 200 * DAYS) == ["fixed"]
    # Another export, with the same beginning, that one of them is no more in.
    export(path, "fixed")
    assert imported(store, path, 300 * DAYS) == 151
    assert imported(store, path, 390 * DAYS) == 0
    assert purge_assignments(store, at(200 * DAYS)) == 0
    assert purge_assignments(store, at(201 * DAYS)) == 1
    assert held(store, OTHER, 390 * DAYS) == []
    assert held(store, FIXED, 390 * DAYS) == ["fixed"]
    # The source is gone.
    assert purge_assignments(store, at(390 * DAYS)) == 0
    assert purge_assignments(store, at(391 * DAYS)) == 151
    assert held(store, FIXED, 390 * DAYS) == []


@pytest.mark.parametrize("end", ["2099-12-31T00:00:00Z", str(at(40 * 366 * DAYS) // 1000)])
def test_an_end_that_is_far_is_none(sqlite_store: AssignmentStore, tmp_path: Path, end: str) -> None:
    """It stays as long as its source has it, and not for a century."""
    path = tmp_path / "fixed.csv"
    rows = f"{FIXED},fixed,{at(0)},{end}\n{OTHER},other,{at(0)},{at(9 * 366 * DAYS)}\n"
    path.write_text(f"address,subscriber,from,to\n{rows}")
    imported(sqlite_store, path, 0)
    assert held(sqlite_store, FIXED, 300 * DAYS) == ["fixed"]
    assert imported(sqlite_store, path, 200 * DAYS) == 0
    assert purge_assignments(sqlite_store, at(199 * DAYS)) == 0
    path.write_text("address,subscriber,from,to\n")
    imported(sqlite_store, path, 300 * DAYS)
    assert purge_assignments(sqlite_store, at(201 * DAYS)) == 1
    assert held(sqlite_store, OTHER, 201 * DAYS) == ["other"], "an end that is meant"


def test_a_lease_for_a_century_is_one_without_an_end(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "kea-leases4.csv"
    century = 0xFFFFFFFE
    path.write_text(
        "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n"
        f"{A},02:00:00:00:00:01,,{century},{at(0) // 1000 + century},1,0,0,,0\n"
    )
    source = sqlite_store.source("kea", "kea", str(path))
    import_file(sqlite_store, source, path, ReadOptions(), lambda: START / 1000)
    assert intervals(sqlite_store, A) == [("02:00:00:00:00:01", 0, None, "NONE")]


def test_another_file_of_the_source_renews_none_of_it(store: AssignmentStore, tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    export(first, "fixed")
    second.write_text(f"address,subscriber,from,to\n{OTHER},other,{at(0)},\n")
    imported(store, first, 0)
    imported(store, second, 0)
    assert imported(store, second, 200 * DAYS) == 0
    assert purge_assignments(store, at(100 * DAYS)) == 151
    assert held(store, OTHER, 200 * DAYS) == ["other"]


def test_following_renews_it_too(store: AssignmentStore, tmp_path: Path) -> None:
    path, now = tmp_path / "fixed.csv", [0.0]
    export(path, "fixed")
    looks = follow(
        store, store.source("fixed", "csv", str(path)), path, ReadOptions(),
        clock=lambda: at(now[0]) / 1000, wait=lambda _: True,
    )  # fmt: skip
    next(looks)
    now[0] = 200 * DAYS
    next(looks)
    looks.close()
    assert purge_assignments(store, at(199 * DAYS)) == 0
    # Read while the clock was ahead: what it says then counts again.
    assert imported(store, path, 100 * DAYS) == 0
    assert purge_assignments(store, at(101 * DAYS)) == 151


def test_what_was_given_back_is_not_renewed(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "leases.csv"
    columns = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state"
    lease = "{},02:00:00:00:00:0{},,4294967295,{},1,0,0,h,{}\n"
    lines = [lease.format(FIXED, 1, at(0) // 1000, 0), lease.format(OTHER, 2, at(0) // 1000, 0)]
    path.write_text(columns + "\n" + "".join(lines) + lease.format(OTHER, 2, at(60) // 1000, 3))
    source = store.source("kea", "kea", str(path))
    for seconds in (0.0, 200 * DAYS):
        import_file(store, source, path, ReadOptions(), lambda: at(seconds) / 1000)  # noqa: B023
    assert purge_assignments(store, at(100 * DAYS)) == 1
    assert held(store, FIXED, 200 * DAYS) == ["02:00:00:00:00:01"]


def test_a_session_stays_while_the_table_has_it(store: AssignmentStore, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/radius.db"
    radius = sqlite3.connect(tmp_path / "radius.db", isolation_level=None)
    radius.execute(
        "CREATE TABLE radacct (acctuniqueid TEXT, username TEXT, acctstarttime INTEGER,"
        " acctupdatetime INTEGER, acctstoptime INTEGER, framedipaddress TEXT)"
    )
    for name, address in (("fixed", FIXED), ("other", OTHER)):
        radius.execute(
            "INSERT INTO radacct VALUES (?, ?, ?, NULL, NULL, ?)", (name, name, at(0) / 1000, address)
        )
    source = store.source("radacct", "radacct", url)

    def read(seconds: float) -> None:
        import_radacct(store, source, url, ReadOptions(), at(seconds) / 1000)

    read(0)
    # Others change meanwhile.
    times = at(199 * DAYS) // 1000, at(200 * DAYS) // 1000
    radius.execute("INSERT INTO radacct VALUES ('new', 'new', ?, NULL, ?, '192.0.2.9')", times)
    read(200 * DAYS)
    assert purge_assignments(store, at(150 * DAYS)) == 0
    radius.execute("DELETE FROM radacct WHERE username = 'other'")
    radius.close()
    read(300 * DAYS)
    assert held(store, OTHER, 300 * DAYS) == ["other"]
    times = at(199 * DAYS), at(250 * DAYS)  # it may have ended, and its row been put away, since it was found
    assert [who(store, WhoQuestion(OTHER, None, one)).verdict for one in times] == ["one", "ambiguous"]
    assert who(store, WhoQuestion(FIXED, None, times[1])).verdict == "one"
    assert purge_assignments(store, at(250 * DAYS)) == 2
    assert held(store, OTHER, 300 * DAYS) == []
    assert held(store, FIXED, 300 * DAYS) == ["fixed"]


def test_what_is_held_stays_after_its_source(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "fixed.csv"
    export(path, "fixed", "other")
    imported(store, path, 0)
    hold_assignments(store, "REF", at(900 * DAYS), [(FIXED, 0, at(10))])
    assert purge_assignments(store, at(200 * DAYS), at(380 * DAYS)) == 151
    assert held(store, FIXED, 380 * DAYS) == ["fixed"]
    release_assignments(store, "REF")
    assert purge_assignments(store, at(200 * DAYS), at(380 * DAYS)) == 1


def test_what_is_held_answers_as_before_however_far_clocks_may_be_apart(
    sqlite_store: AssignmentStore,
) -> None:
    """Who had it up to the first of that may have had it for the rest of that second."""
    taken(
        sqlite_store,
        sighting(A, 0, 60, "anna", SightingKind.WHOLE),
        sighting(A, 61, 9000, "berta", SightingKind.WHOLE),
    )
    question = WhoQuestion(A, None, at(3660.5), MOST_APART)
    before = who(sqlite_store, question)
    assert [one.interval.subscriber for one in before.candidates] == ["anna", "berta"]
    hold_assignments(sqlite_store, "REF", at(900 * DAYS), [(A, 0, question.at)])
    assert purge_assignments(sqlite_store, at(200 * DAYS), at(380 * DAYS)) == 0
    assert who(sqlite_store, question) == before


def test_each_nodes_sources_go_by_that_nodes_days(store: AssignmentStore) -> None:
    for name in ("short", "long", "unsaid"):
        taken(store, sighting(A, 0, 60, name, SightingKind.WHOLE), name=name)
    short, long = KeepingNode("of short", 10), KeepingNode("of long", 100)
    for keeper, name in ((short, "short"), (long, "long")):
        with store.importing(name, "csv", "test.csv", keeper):
            pass

    def purged(keeper: KeepingNode, days: float) -> int:
        store.say_days(keeper)
        limits = {source: at((days - each) * DAYS) for source, each in store.days(keeper).items()}
        return purge_assignments(store, limits)

    def kept() -> list[str]:
        return sorted(held(store, A, 30))

    if isinstance(store.database, Path):  # which is this machine's
        assert purged(short, 11) == 3
        return
    assert purged(long, 9) == 0
    assert purged(short, 11) == 1
    assert kept() == ["long", "unsaid"]
    # It is told by one node what another has said, and said anew by that one alone.
    assert purged(short, 99) == 0
    assert purged(KeepingNode("of long", 50), 51) == 1
    assert kept() == ["unsaid"]
    assert purged(short, 101) == 1


def test_a_source_that_another_node_has_just_begun_waits_for_its_own_days(store: AssignmentStore) -> None:
    """Whoever deletes has read the days before: another's may be longer."""
    taken(store, sighting(A, 0, 60, "mine", SightingKind.WHOLE), name="mine")
    keeper = KeepingNode("of mine", 10)
    store.say_days(keeper)
    limits = {source: at((11 - each) * DAYS) for source, each in store.days(keeper).items()}
    taken(store, sighting(A, 0, 60, "of another", SightingKind.WHOLE), name="theirs")
    assert purge_assignments(store, limits) == 1
    assert held(store, A, 30) == ["of another"]


@pytest.mark.parametrize(("end", "moment", "tolerance"), [(98, 99.0, 5000), (100, 100.4, 0)])
def test_what_was_ambiguous_stays_so_as_one_of_both_is_deleted(
    store: AssignmentStore, end: int, moment: float, tolerance: int
) -> None:
    taken(
        store,
        sighting(A, 0, end, "anna", SightingKind.WHOLE),
        sighting(A, 100, 20 * DAYS, "berta", SightingKind.WHOLE),
        sighting("192.0.2.8", 50, 20 * DAYS, "carla", SightingKind.WHOLE),
    )

    def asked(address: str, seconds: float, tolerance: int) -> tuple[str, list[tuple[str, str]]]:
        answer = who(store, WhoQuestion(address, None, at(seconds), tolerance))
        found = [(one.interval.subscriber, one.interval.ending.name) for one in answer.candidates]
        return answer.verdict, found

    assert asked(A, moment, tolerance)[0] == "ambiguous"
    assert asked("192.0.2.8", 52, 5000)[0] == "one"
    purge_assignments(store, at(10 * DAYS))
    assert asked(A, moment, tolerance) == ("ambiguous", [("berta", "DELETED")])
    assert asked("192.0.2.8", 52, 5000) == ("ambiguous", [("carla", "DELETED")])
    # Who had it all the time, and what is held, is known as before.
    assert asked(A, 106, 5000) == ("one", [("berta", "TOLD")])
    # That nobody is known is not to be taken for that there was nobody.
    gone, later = (who(store, WhoQuestion("192.0.2.9", None, at(days * DAYS))) for days in (5, 11))
    assert answer_lines(gone)[1].endswith(f": what ended before {ms_text(at(10 * DAYS))} is deleted")
    assert answer_fields(gone)["deleted_before"] == ms_text(at(10 * DAYS))
    assert (answer_lines(later)[1][-8:], answer_fields(later)["deleted_before"]) == ("is known", None)
    hold_assignments(store, "REF", at(99 * DAYS), [("192.0.2.8", 0, at(52))])
    assert asked("192.0.2.8", 52, 5000) == ("ambiguous", [("carla", "DELETED")])


def test_a_hold_waits_for_a_purge_and_says_what_that_has_deleted(
    store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store, sighting(A, 0, 60, "anna", SightingKind.WHOLE))
    is_over = retention._held_and_over

    def hold_at_once() -> None:
        if isinstance(store.database, Path):
            sqlite3.connect(store.database, timeout=0).execute("DELETE FROM assignment_holds")
            return
        with psycopg.connect(str(store.database)) as other:
            other.execute("LOCK TABLE assignment_holds IN ROW EXCLUSIVE MODE NOWAIT")

    def meanwhile(*args: Any) -> Any:
        found = is_over(*args)
        with pytest.raises((sqlite3.OperationalError, psycopg.errors.LockNotAvailable)):
            hold_at_once()
        return found

    def purged_first(*args: Any) -> None:
        assert purge_assignments(store, at(100)) == 1
        hold(*args)

    hold = retention._hold
    monkeypatch.setattr(retention, "_held_and_over", meanwhile)
    monkeypatch.setattr(retention, "_hold", purged_first)
    monkeypatch.setattr(retention, "open_configured", lambda *_: AssignmentStore(store.database))
    event = an_event(at=at(30), client=A, reference="REF")
    with pytest.raises(AssignmentError, match=r"^assignments: 1 of what is held was deleted meanwhile$"):
        hold_configured(RecordsTable(), tmp_path, {"REF": at(9000)}, Evidence({"records": [event]}, ()))


def test_files_of_what_is_over_are_forgotten_but_the_last(store: AssignmentStore, tmp_path: Path) -> None:
    for day in range(5):
        log = Log(store, tmp_path / f"detail-2026111{day}", "detail")
        now = round(day * DAYS)
        log.write(record("Start", now + 10, f"u{day}", Acct_Session_Id=f"s{day}"))
        if day != 1:  # that session is open until the next one's
            log.write(record("Stop", now + 500, f"u{day}", 490, Acct_Session_Id=f"s{day}"))
        log.read(now + 600)
    before = [asked(store, round(day * DAYS) + 100).verdict for day in range(5)]
    hold_assignments(store, "R", at(900 * DAYS), [("198.51.100.7", 0, at(100))])
    purge_assignments(store, at(3.5 * DAYS), at(4 * DAYS))
    (shown,) = store.status()
    assert [one["read"] for one in shown["files"]] == [ms_text(at(4 * DAYS + 600))]
    assert [asked(store, round(day * DAYS) + 100).verdict for day in range(5)] == [
        before[0], "none", "none", "none", before[4],
    ]  # fmt: skip
    purge_assignments(store, at(300 * DAYS), at(4 * DAYS))
    assert len(store.status()[0]["files"]) == 1, "up to when it tells is known"


def test_what_is_out_of_order_goes_though_its_log_grows(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    late = record("Start", 1000, "berta", Acct_Session_Id="s2", Acct_Delay_Time="500")
    log.write(record("Start", 10), record("Interim-Update", 1000, took=990), late)
    for seconds in (1100, 99 * DAYS):
        log.read(round(seconds))
    purge_assignments(sqlite_store, at(50 * DAYS), at(99 * DAYS))
    assert held(sqlite_store, "198.51.100.7", 99 * DAYS) == ["anna"]
    with sqlite_store.reading() as connection:
        assert connection.exec_driver_sql("SELECT subscriber FROM assignments_current").scalars().all() == [
            "anna"
        ]


def test_what_was_deleted_before_it_was_held_is_told_still(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, 9600, "anna", SightingKind.WHOLE),
        sighting(A, 9603, None, "berta"),
        now=at(99 * DAYS),
    )

    def answers() -> list[str]:
        return [
            who(sqlite_store, WhoQuestion(A, None, at(seconds), 5000)).verdict for seconds in (9605, 9000)
        ]

    assert answers() == ["ambiguous", "one"]
    purge_assignments(sqlite_store, at(20_000), at(99 * DAYS))
    assert answers() == ["ambiguous", "none"]
    for _ in range(2):  # as it is held again with each purge
        hold_assignments(sqlite_store, "R", at(900 * DAYS), [(A, 0, at(9605)), (A, 0, at(50_000))])
    assert answers() == ["ambiguous", "none"]
    assert who(sqlite_store, WhoQuestion(A, None, at(9000))).deleted == at(20_000)
    purge_assignments(sqlite_store, at(60_000), at(99 * DAYS))
    hold_assignments(sqlite_store, "R", at(900 * DAYS), [(A, 0, at(9605)), (A, 0, at(50_000))])
    assert who(sqlite_store, WhoQuestion(A, None, at(50_000))).deleted == 0
