"""Local times that a clock shows twice, or never, in each format that has local times."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from assignments.support import START, read
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import Imported
from urlward.assignments.interval import to_ms
from urlward.assignments.radacct import import_radacct
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, answer_lines, who

CASES = json.loads((Path(__file__).parents[1] / "data" / "records" / "clock_changes.json").read_bytes())
A = "198.51.100.7"
MADRID = ZoneInfo("Europe/Madrid")
NONE_OF = "a local time that there was none of, since the clock was put forward"


def radius(path: Path, rows: list[str]) -> str:
    """A database with the table, in which times are local; its URL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE radacct (acctuniqueid TEXT PRIMARY KEY, username TEXT,"
            " acctstarttime TEXT, acctupdatetime TEXT, acctstoptime TEXT, framedipaddress TEXT)"
        )
        cells = [[cell or None for cell in row.split(",")] for row in rows]
        connection.executemany("INSERT INTO radacct VALUES (?, ?, ?, ?, ?, ?)", cells)
        connection.commit()
    return f"sqlite:///{path}"


def imported(store: AssignmentStore, case: dict[str, Any], folder: Path) -> Imported:
    options = ReadOptions(zone=ZoneInfo(case["zone"]))
    if case["format"] == "radacct":
        url = radius(folder / "radius.db", case["lines"])
        return import_radacct(store, store.source("radacct", "radacct", url), url, options, START / 1000)
    path = folder / "file"
    path.write_text("".join(f"{line}\n" for line in case["lines"]))
    done = read(store, case["format"], path, options)
    store.looked(store.sources()[1], START)
    return done


def test_there_are_as_many() -> None:
    assert len(CASES) == 23
    assert {case["format"] for case in CASES} == {"csv", "cgn", "detail", "radacct"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_case(sqlite_store: AssignmentStore, tmp_path: Path, case: dict[str, Any]) -> None:
    done = imported(sqlite_store, case, tmp_path)
    lines = [line for line, _ in done.faults]
    # What is gone through by a row of its own in `detail` has no time at all: that is its fault.
    reasons = {reason for _, reason in done.faults} - {"no Timestamp"}
    assert (lines, done.faulty) == (case.get("faults", []), len(case.get("faults", [])))
    assert reasons <= {NONE_OF}
    for at, verdict, subscribers in case["asked"]:
        answer = who(sqlite_store, WhoQuestion(A, case.get("port"), to_ms(at)))
        found = sorted({one.interval.subscriber for one in answer.candidates})
        assert (at, answer.verdict, " ".join(found)) == (at, verdict, subscribers)


def test_what_is_in_doubt_is_told(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "address,from,to,subscriber\n"
        f"{A},2026-10-24 20:00:00,2026-10-25 02:05:00,alice\n"
        f"{A},2026-10-25 02:10:00,2026-10-25 09:00:00,bob\n"
    )
    read(store, "csv", path, ReadOptions(zone=MADRID))
    doubt = "(in doubt: by a time that is not exact, or that the clock showed twice)"
    lines = answer_lines(who(store, WhoQuestion(A, None, to_ms("2026-10-25T00:30:00Z"))))
    assert lines[1:4] == [
        "ambiguous: 2 subscribers",
        "alice",
        f"  {A} from 2026-10-25T00:05:00Z until 2026-10-25T01:05:00Z {doubt}",
    ]
    assert f"  {A} from 2026-10-25T00:10:00Z until 2026-10-25T01:10:00Z {doubt}" in lines
    assert answer_lines(who(store, WhoQuestion(A, None, to_ms("2026-10-25T00:07:00Z"))))[1] == (
        "ambiguous: one subscriber, or nobody"
    )


def test_a_table_is_read_on_while_the_hour_comes_again(
    sqlite_store: AssignmentStore, postgresql: str
) -> None:
    """What is written in the second hour has times before those of the first that were seen."""
    with psycopg.connect(host=postgresql, user="urlward", dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE radius_of_two_hours")
    place = {"host": postgresql, "user": "urlward", "dbname": "radius_of_two_hours"}
    url = f"postgresql+psycopg://urlward@/{place['dbname']}?host={postgresql}"
    source = sqlite_store.source("radacct", "radacct", url)

    def read_after(unique: str, start: str, address: str) -> Imported:
        with psycopg.connect(**place, autocommit=True) as radius:
            radius.execute(
                "CREATE TABLE IF NOT EXISTS radacct (acctuniqueid text, username text, framedipaddress text,"
                " acctstarttime timestamp, acctupdatetime timestamp, acctstoptime timestamp)"
            )
            radius.execute(
                "INSERT INTO radacct (acctuniqueid, username, framedipaddress, acctstarttime)"
                " VALUES (%s, %s, %s, %s)",
                (unique, f"of {unique}", address, start),
            )
        return import_radacct(sqlite_store, source, url, ReadOptions(zone=MADRID), START / 1000)

    assert read_after("u1", "2026-10-25 02:50:00", A).rows == 1
    assert read_after("u2", "2026-10-25 02:10:00", "198.51.100.8").rows == 2
    answer = who(sqlite_store, WhoQuestion("198.51.100.8", None, to_ms("2026-10-25T05:00:00Z")))
    assert (answer.verdict, answer.candidates[0].interval.subscriber) == ("one", "of u2")
