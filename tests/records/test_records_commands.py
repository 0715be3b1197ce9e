import json
import time
from pathlib import Path

import pytest

from conftest import run_command
from records.assignments.support import sighting, taken
from records.support import DAY, an_event
from urlward.config.records import StoreTable
from urlward.records.assignments.interval import Said
from urlward.records.assignments.store import AssignmentStore
from urlward.records.database import open_database
from urlward.records.holds import HoldError, current_holds
from urlward.records.records_commands import RecordsCommandError, add_records_commands
from urlward.records.store import open_store

CONFIG = """
state = "."
[records.days]
blocks = 2
operations = 5
[[records.store]]
kind = "sqlite"
[[records.store]]
kind = "jsonl"
[[records.store]]
kind = "syslog"
address = "192.0.2.1:514"
"""
NOW = int(time.time() * 1000)


def run(*arguments: str) -> int:
    return run_command(add_records_commands, "records", *arguments)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "urlward.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def recorded(tmp_path: Path) -> None:
    for kind in ("sqlite", "jsonl"):
        store = open_store(StoreTable(kind=kind), tmp_path)
        store.write(
            [
                an_event(0, at=NOW - 3 * DAY),
                an_event(1, at=NOW - DAY),
                an_event(2, at=NOW - 10 * DAY, reference="HELD"),
                an_event(3, kind="list", at=NOW - 4 * DAY, reference=""),
            ]
        )
        store.close()


@pytest.mark.usefixtures("recorded")
def test_status_purge_hold_and_release(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--config", config)
    assert run("hold", "HELD", "--until", "2999-01-01", "--why", "asked for", *at) == 0
    assert capsys.readouterr().out == "HELD: held until 2999-01-02T00:00:00Z\n"
    database = open_database(StoreTable(kind="sqlite"), tmp_path)
    assert database.held(NOW) == {"HELD"}
    assert run("status", "--json", *at) == 1
    shown = json.loads(capsys.readouterr().out)
    rows = [(row["store"], row["kind"], row["count"], row["days"], row["over"]) for row in shown["records"]]
    stores = str(tmp_path / "records.db"), str(tmp_path / "records.jsonl")
    assert rows == [
        row for store in stores for row in ((store, "block", 2, 2, True), (store, "list", 1, 5, False))
    ]
    assert [(one["reference"], one["until"]) for one in shown["holds"]] == [("HELD", "2999-01-02T00:00:00Z")]

    assert run("purge", *at) == 0
    assert capsys.readouterr().out == "".join(f"{store}: 1 deleted\n" for store in stores)
    assert run("status", *at) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["STORE", "KIND", "COUNT", "OLDEST", "DAYS", "NEXT", "PURGE"]
    assert [line.split()[:3] for line in lines[:4]] == [
        [store, kind, "1"] for store in stores for kind in ("block", "list")
    ]
    assert lines[4].startswith("held: HELD until 2999-01-02T00:00:00Z  ")

    assert run("release", "HELD", "--why", "done with", *at) == 0
    assert capsys.readouterr().out == "HELD: released; it is deleted when its days are over\n"
    assert run("status", *at) == 1
    assert database.held(NOW) == set()
    database.close()
    assert "(over!)" in capsys.readouterr().out
    assert run("purge", *at) == 0
    assert run("status", *at) == 0
    actions = [json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert actions == ["held", "released"]


def test_assignments_are_records_too(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = AssignmentStore(tmp_path / "assignments.db")
    taken(store, sighting("192.0.2.7", 0, 60, "somebody", Said.WHOLE))
    store.close()
    assert run("status", "--config", config) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:3] == [str(tmp_path / "assignments.db"), "assignments", "1"]
    assert line[4:] == ["-", "never"]
    assert run("purge", "--config", config) == 0
    assert "assignments: " not in capsys.readouterr().out
    Path(config).write_text(CONFIG.replace("[records.days]", "[records.days]\nassignments = 1"))
    assert run("status", "--config", config) == 1
    assert capsys.readouterr().out.splitlines()[1].endswith(" 1     as they end (over!)")
    assert run("purge", "--config", config) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "assignments: 1 deleted"
    assert run("status", "--config", config) == 0


def test_what_is_not_there_yet(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--config", config) == 0
    assert capsys.readouterr().out == "STORE  KIND  COUNT  OLDEST  DAYS  NEXT PURGE\n"
    assert run("purge", "--config", config) == 0
    assert not [path for path in tmp_path.iterdir() if path.name != "urlward.toml"]


@pytest.mark.usefixtures("recorded")
def test_a_store_in_trouble_is_told(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records.db").write_bytes(b"\1" * 4096)
    for command in ("status", "purge"):
        assert run(command, "--config", config) == 1
        out, err = capsys.readouterr()
        assert str(tmp_path / "records.jsonl") in out
        assert err == f"urlward: {tmp_path / 'records.db'}: file is not a database\n"


def test_what_cannot_be_done(config: str, tmp_path: Path) -> None:
    with pytest.raises(RecordsCommandError, match=r"^--until: 'soon': not a date"):
        run("hold", "R", "--until", "soon", "--why", "a", "--config", config)
    with pytest.raises(HoldError, match=r"^until: a time to come"):
        run("hold", "R", "--until", "2020-01-01", "--why", "a", "--config", config)
    with pytest.raises(HoldError, match=r"'R' is not held"):
        run("release", "R", "--why", "a", "--config", config)
    Path(config).write_text("")
    with pytest.raises(RecordsCommandError, match=r"no \[records\]: nothing is recorded$"):
        run("status", "--config", config)
    assert current_holds(tmp_path, 0) == ()


def test_a_hold_that_a_database_is_not_told_of(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records.db").write_bytes(b"\1" * 4096)
    at = ("--why", "a", "--config", config)
    assert run("hold", "R", "--until", "2999-01-01", *at) == 1
    told = f"urlward: not told: {tmp_path / 'records.db'}: file is not a database; do it again\n"
    assert capsys.readouterr().err == told
    assert [one.reference for one in current_holds(tmp_path, 0)] == ["R"]
    assert run("release", "R", *at) == 1
    assert capsys.readouterr().err == told
    assert [one.reference for one in current_holds(tmp_path, 0)] == ["R"]
