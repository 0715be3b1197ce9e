import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assignments.support import at, sighting, taken
from conftest import run_command
from obstacles import audit_on_a_full_disk
from records.support import DAY, HOUR, an_event
from urlward.assignments.interval import FOREVER, SightingKind, ms_text, place_of
from urlward.assignments.merging import Merger
from urlward.assignments.retention import database_of, purge_configured
from urlward.assignments.store import AssignmentStore
from urlward.commands.records import add_records_commands
from urlward.commands.who import add_who_command
from urlward.config import read_config
from urlward.config.records import StoreTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import add_objection, purge_objections, read_objections
from urlward.records.database import open_database
from urlward.records.holds import current_holds, held_references, hold
from urlward.records.outbox import Outbox, batch_of
from urlward.records.stores import open_store
from urlward.state.audit import read_audit
from urlward.state.folder import StateError

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
HELD = "7Q4M-2XKD-93FH"
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
                an_event(2, at=NOW - 10 * DAY, reference=HELD),
                an_event(3, kind="list", at=NOW - 4 * DAY, reference=""),
            ]
        )
        store.close()


@pytest.mark.usefixtures("recorded")
def test_status_purge_hold_and_release(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--config", config)
    assert run("hold", "7q4m2xkd93fh", "--until", "2999-01-01", "--why", "asked for", *at) == 0
    assert capsys.readouterr().out == "7Q4M-2XKD-93FH: held until 2999-01-02T00:00:00Z\n"
    database = open_database(StoreTable(kind="sqlite"), tmp_path)
    assert [*database.held(NOW)] == [HELD]
    assert run("status", "--json", *at) == 1
    shown = json.loads(capsys.readouterr().out)
    names = ("store", "kind", "count", "held", "days", "over")
    rows = [tuple(row[name] for name in names) for row in shown["records"]]
    stores = str(tmp_path / "records.db"), str(tmp_path / "records.jsonl")
    assert rows == [
        row for store in stores for row in ((store, "block", 3, 1, 2, True), (store, "list", 1, 0, 5, False))
    ]
    assert [(one["reference"], one["until"]) for one in shown["holds"]] == [(HELD, "2999-01-02T00:00:00Z")]

    assert run("purge", *at) == 0
    assert capsys.readouterr().out == "".join(f"{store}: 1 deleted\n" for store in stores)
    assert run("status", *at) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["STORE", "KIND", "COUNT", "HELD", "OLDEST", "DAYS", "NEXT", "PURGE"]
    assert [line.split()[:4] for line in lines[:4]] == [
        [store, kind, *counts]
        for store in stores
        for kind, *counts in (("block", "2", "1"), ("list", "1", "-"))
    ]
    assert lines[4].startswith("held: 7Q4M-2XKD-93FH until 2999-01-02T00:00:00Z  ")

    assert run("release", "7q4m 2xkd 93fh", "--why", "done with", *at) == 0
    assert (
        capsys.readouterr().out
        == "7Q4M-2XKD-93FH: released; all that it held is deleted when its days are over\n"
    )
    assert run("status", *at) == 1
    assert database.held(NOW) == {}
    database.close()
    assert "(over!)" in capsys.readouterr().out
    assert run("purge", *at) == 0
    assert run("status", *at) == 0
    told = [line for line in read_audit(tmp_path) if line]
    actions = [line["action"] for line in told]
    assert actions == ["held", "purge", "purged", "released", "purge", "purged"]
    assert told[1]["days"] == {"blocks": 2, "operations": 5}
    assert (told[2]["deleted"], told[2]["errors"]) == (dict.fromkeys(stores, 1), [])
    assert all(line["who"] for line in told)


@pytest.mark.usefixtures("recorded")
def test_where_a_purge_cannot_be_recorded_nothing_is_deleted(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with audit_on_a_full_disk(), pytest.raises(StateError):
        run("purge", "--config", config)
    assert capsys.readouterr().out == ""
    with closing(open_database(StoreTable(kind="sqlite"), tmp_path)) as store:
        assert store.ages()["block"].count == 3


def test_assignments_are_records_too(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = AssignmentStore(tmp_path / "assignments.db")
    taken(store, sighting("192.0.2.7", 0, 60, "somebody", SightingKind.WHOLE))
    store.close()
    assert run("status", "--config", config) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:4] == [str(tmp_path / "assignments.db"), "assignments", "1", "-"]
    assert line[5:] == ["-", "never"]
    assert run("purge", "--config", config) == 0
    assert "assignments: " not in capsys.readouterr().out
    Path(config).write_text(CONFIG.replace("[records.days]", "[records.days]\nassignments = 1"))
    assert run("status", "--config", config) == 1
    end = ms_text(at(60) + 86_400_000)
    assert capsys.readouterr().out.splitlines()[1].endswith(f" 1     {end} (over!)")
    assert run("purge", "--config", config) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "assignments: 1 deleted"
    assert run("status", "--config", config) == 0


def test_what_is_not_there_yet(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--config", config) == 0
    assert capsys.readouterr().out == "STORE  KIND  COUNT  HELD  OLDEST  DAYS  NEXT PURGE\n"
    assert run("purge", "--config", config) == 0
    told = {"audit.jsonl", "audit.head", "key", "key.copy", "lock", "urlward.toml"}
    assert not {path.name for path in tmp_path.iterdir()} - told


@pytest.mark.usefixtures("recorded")
def test_a_store_in_trouble_is_told(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records.db").write_bytes(b"\1" * 4096)
    for command in ("status", "purge"):
        assert run(command, "--config", config) == 1
        out, err = capsys.readouterr()
        assert str(tmp_path / "records.jsonl") in out
        assert err == f"urlward: {tmp_path / 'records.db'}: file is not a database\n"


@pytest.mark.usefixtures("recorded")
def test_a_reference_that_nothing_has_is_not_held(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--until", "2999-01-01", "--why", "a", "--config", config)
    assert run("hold", "nope-nope-nope", *at) == 1
    told = "urlward: no event has the reference N0PE-N0PE-N0PE: nothing is held\n"
    assert capsys.readouterr() == ("", told)
    with pytest.raises(UrlwardError):
        run("hold", "R", *at)
    assert current_holds(tmp_path, 0) == ()


def test_a_hold_of_before_ends_as_it_is_written(config: str, tmp_path: Path) -> None:
    hold(tmp_path, "held-in-lower-case", 1 << 35, "why", "ann", now=0)
    assert run("release", "held-in-lower-case", "--why", "a", "--config", config) == 0
    assert current_holds(tmp_path, 0) == ()


@pytest.mark.usefixtures("recorded")
def test_what_cannot_be_done(config: str, tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match=r"^--until: 'soon': not a date"):
        run("hold", HELD, "--until", "soon", "--why", "a", "--config", config)
    with pytest.raises(UrlwardError, match=r"^until: a time to come"):
        run("hold", HELD, "--until", "2020-01-01", "--why", "a", "--config", config)
    with pytest.raises(UrlwardError, match=r"'7Q4M-2XKD-93FH' is not held"):
        run("release", HELD, "--why", "a", "--config", config)
    Path(config).write_text("")
    with pytest.raises(UrlwardError, match=r"no \[records\]: nothing is recorded$"):
        run("status", "--config", config)
    assert current_holds(tmp_path, 0) == ()


def test_a_hold_that_a_database_is_not_told_of(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records.db").write_bytes(b"\1" * 4096)
    at = ("--why", "a", "--config", config)
    told = f"urlward: not told: {tmp_path / 'records.db'}: file is not a database"
    # It may be there: held, and said that nothing that can be read has it.
    assert run("hold", HELD, "--until", "2999-01-01", *at) == 1
    assert capsys.readouterr().err == f"{told}, and nothing else has the reference; do it again\n"
    assert [one.reference for one in current_holds(tmp_path, 0)] == [HELD]
    store = open_store(StoreTable(kind="jsonl"), tmp_path)
    store.write([an_event(2, reference=HELD)])
    store.close()
    assert run("hold", HELD, "--until", "2999-01-01", *at) == 1
    assert capsys.readouterr().err == f"{told}; do it again\n"
    assert run("release", HELD, *at) == 1
    assert capsys.readouterr().err == f"{told}; do it again\n"
    assert [one.reference for one in current_holds(tmp_path, 0)] == [HELD]


@pytest.mark.usefixtures("recorded")
def test_what_a_purge_deletes_before_it_knows_of_a_hold_is_told(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def purged_first(*args: Any, **more: Any) -> Any:
        assert run("purge", "--config", config) == 0
        return hold(*args, **more)

    monkeypatch.setattr("urlward.records.holds.hold", purged_first)
    assert run("hold", HELD, "--until", "2999-01-01", "--why", "a", "--config", config) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"urlward: {tmp_path / name}: 1 of what is held was deleted meanwhile"
        for name in ("records.db", "records.jsonl")
    ]


def test_an_event_that_waits_for_its_store_is_known(config: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.append([batch_of([an_event(2, reference=HELD)])]) == 1
    outbox.close()
    assert run("hold", HELD, "--until", "2999-01-01", "--why", "a", "--config", config) == 0


A, INNER = "198.51.100.7", "100.64.0.9"
NEAR = HOUR // 2


@pytest.fixture(params=["sqlite", "postgresql", "jsonl"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A configuration whose days are over for an event, and for what answers for it."""
    path, table = tmp_path / "urlward.toml", '[[records.store]]\nkind = "sqlite"\n'
    if request.param == "jsonl":
        table += '[[records.store]]\nkind = "jsonl"\n'
    if request.param == "postgresql":
        (tmp_path / "url").write_text(request.getfixturevalue("postgresql_url"))
        keys = f'kind = "postgresql"\nurl_file = "{tmp_path}/url"\n'
        table = f"[[records.store]]\n{keys}[records.assignments]\n{keys}"
    days = "[records.days]\nblocks = 2\noperations = 2\nassignments = 2\n"
    path.write_text(f'state = "{tmp_path}"\n{days}{table}')
    records = read_config(path).records
    assert records is not None
    at = NOW - 10 * DAY
    hit = an_event(0, at=at, reference=HELD, client=A, client_port=1500, serial=7)
    version = an_event(1, kind="list", at=at - DAY, serial=7, reference="", client="")
    for one in records.store:
        store = open_store(one, tmp_path)
        store.write(
            [hit, version, an_event(2, at=at), an_event(3, kind="list", at=at, reference="", serial=8)]
        )
        store.close()
    assignments = AssignmentStore(database_of(records, tmp_path))
    for name, rows in {
        "nat": [
            (A, (1024, 2047), at - DAY, at + NEAR, INNER),
            (A, (1024, 2047), at + NEAR, at + DAY, "100.64.0.8"),
            (A, (2048, 3071), at - DAY, at + DAY, "another-port"),
            ("198.51.100.8", (1024, 2047), at - DAY, at + DAY, "another-address"),
        ],
        "leases": [
            (INNER, (0, 65_535), at - NEAR, at + NEAR, "anna"),
            (INNER, (0, 65_535), at - DAY, at - 2 * HOUR, "another-time"),
        ],
    }.items():
        source = assignments.source(name, "csv", "")
        merger = Merger(assignments, source.id, source.format)
        whole = ("", int(SightingKind.WHOLE))
        merger.take([(*place_of(net), *ports, *times, 0, who, *whole) for net, ports, *times, who in rows])
        assignments.write(source, merger.finished(), NOW)
    # One that never ended, and was last heard of then.
    taken(
        assignments, (*place_of(INNER), 0, 65_535, at - DAY, FOREVER, at, "open", "s", int(SightingKind.HELD))
    )
    assignments.close()
    key = Key(bytes(32))
    for reference in (HELD, "7Q4M-2XKD-93FJ"):
        add_objection(tmp_path, key, reference, "why", client=A, now=at / 1000)
    return str(path)


def who(reference: str, *more: str) -> int:
    return run_command(
        add_who_command,
        "who",
        "--reference",
        reference,
        "--why",
        "x",
        *more,
    )


def test_a_hold_keeps_all_that_answers_for_an_event(
    kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--config", kept)

    def answers() -> list[tuple[int, str]]:
        return [
            (who(HELD, *at, "--json", "--tolerance", tolerance), capsys.readouterr().out)
            for tolerance in ("0s", "1h")
        ]

    before = answers()
    assert [code for code, _ in before] == [1, 1]
    assert {one["subscriber"] for one in json.loads(before[0][1])["candidates"]} == {"anna", "open"}
    assert run("hold", HELD.lower(), "--until", "2999-01-01", "--why", "asked for", *at) == 0
    capsys.readouterr()
    for _ in range(2):
        assert run("purge", *at) == 0
        records = read_config(Path(kept)).records
        assert records is not None
        assert purge_configured(records, tmp_path, time.time(), ahead=3600) == 0
        purge_objections(tmp_path, 2, time.time(), held_references(tmp_path, time.time()))
        capsys.readouterr()
        assert answers() == before
    assert run("status", "--json", *at) == 0
    shown = json.loads(capsys.readouterr().out)
    (held,) = shown["holds"]
    assert (held["reference"], held["until"], held["why"]) == (HELD, "2999-01-02T00:00:00Z", "asked for")
    assert held["who"]
    counts = Counter({one["kind"]: 0 for one in held["kept"]})
    for one in held["kept"]:
        counts[one["kind"]] += one["count"]
    stores = len(records.store)
    assert counts == {"block": stores, "list": stores, "assignments": 4, "objection": 1}
    names = ("kind", "count", "held", "purged", "over")
    assert {tuple(row[name] for name in names) for row in shown["records"]} == {
        ("block", 1, 1, None, False), ("list", 1, 1, None, False), ("assignments", 4, 4, None, False),
    }  # fmt: skip
    assert run("status", *at) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith(": 4 assignments") for line in lines)
    assert any(line.startswith(f"held: {HELD} until 2999-01-02T00:00:00Z  ") for line in lines)

    assert run("release", HELD, "--why", "done", *at) == 0
    assert run("status", *at) == 1
    assert run("purge", *at) == 0
    purge_objections(tmp_path, 2, time.time())
    capsys.readouterr()
    assert run("status", "--json", *at) == 0
    assert json.loads(capsys.readouterr().out) == {"records": [], "holds": []}
    assert read_objections(tmp_path) == []


@pytest.mark.parametrize("kept", ["postgresql"], indirect=True)
def test_another_node_keeps_what_is_held_in_a_database_that_they_share(
    kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("hold", HELD, "--until", "2999-01-01", "--why", "a", "--config", kept) == 0
    (other := tmp_path / "other").mkdir()
    text = Path(kept).read_text().replace("[records.days]", '[records]\nnode = "other"\n[records.days]')
    (tmp_path / "other.toml").write_text(text)
    at = ("--config", str(tmp_path / "other.toml"), "--state", str(other))
    for reference in (HELD, "7Q4M-2XKD-93FJ"):
        add_objection(other, Key(bytes(32)), reference, "why", client=A, now=NOW / 1000 - 10 * 86_400)
    assert run("purge", *at) == 0
    assert [one.reference for one in read_objections(other)] == [HELD]
    capsys.readouterr()
    assert run("status", *at) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"held: {HELD} until 2999-01-02T00:00:00Z  by another node" in out
    assert any(line.endswith(": 4 assignments") for line in out)
    with pytest.raises(UrlwardError, match="is not held here"):
        run("release", HELD, "--why", "a", *at)
    assert who(HELD, "--config", kept) == 1
    # What others hold since cannot be asked.
    url = (tmp_path / "url").read_text()
    (tmp_path / "down").write_text(url.replace("host=", "host=/nonexistent"))
    down = tmp_path / "down.toml"
    down.write_text(text.replace(f'"{tmp_path}/url"', f'"{tmp_path}/down"', 1))
    assert run("purge", "--config", str(down), "--state", str(other)) == 1
    out, err = capsys.readouterr()
    assert "assignments: " not in out
    assert "urlward: objections: none is deleted: it is not known what other nodes hold: postgresql " in err
    assert "urlward: assignments: none is deleted: it is not known what other nodes hold: postgresql " in err


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_no_assignment_is_deleted_while_it_is_not_known_which_is_held(
    kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(tmp_path, HELD, 1 << 35, "why", "ann", now=0)
    whole = (tmp_path / "records.db").read_bytes()
    (tmp_path / "records.db").write_bytes(b"\1" * 4096)
    assert run("purge", "--config", kept) == 1
    err = capsys.readouterr().err
    assert (
        f"assignments: none is deleted: {HELD} is held, and its event may be in a store that cannot be" in err
    )
    (tmp_path / "records.db").write_bytes(whole)
    assert run("purge", "--config", kept) == 0
    assert "assignments: 3 deleted" in capsys.readouterr().out
