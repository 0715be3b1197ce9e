import argparse
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assignments.support import at, sighting, taken
from obstacles import audit_on_a_full_disk
from urlward import cli
from urlward.assignments.interval import AssignmentError, SightingKind, ms_text
from urlward.assignments.retention import purge_configured
from urlward.assignments.store import AssignmentStore
from urlward.commands import assignments as assignment_commands
from urlward.commands.assignments import add_assignment_commands
from urlward.commands.who import Seen, add_who_command, read_time, read_tolerance, split_address
from urlward.config import ConfigError, configured
from urlward.engine.errors import UrlwardError
from urlward.state.audit import read_audit, verify
from urlward.state.folder import StateError

A = "198.51.100.7"
WHEN = "2026-11-18T11:07:30Z"
R1, R2, R3, R9 = (f"7Q4M-2XKD-93F{n}" for n in "1239")
ASK = (f"{A}:40213", "--at", WHEN, "--why", "case 5")

type Run = Callable[..., int]


@pytest.fixture
def urlward(tmp_path: Path) -> Run:
    def find_events(config: object, state: Path, reference: str) -> Sequence[Seen]:
        return {
            R1: [Seen(A, 40_213, at(50))],
            R2: [Seen("198.51.100.0/24", 0, at(50))],
            R3: [Seen(A, 0, at(50)), Seen(A, 0, at(5000))],
        }.get(reference, [])

    def run(command: str, *arguments: str | Path) -> int:
        commands = argparse.ArgumentParser().add_subparsers()

        def declare(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
            sub = commands.add_parser(name, help=help_text)
            sub.set_defaults(command=function)
            return sub

        add_who_command(declare, find_events)
        add_assignment_commands(declare)
        config = tmp_path / "urlward.toml"
        if not config.exists():
            config.write_text("[records.days]\nblocks = 30\noperations = 30\nassignments = 180\n")
        where = ("--state", str(tmp_path / "state"), "--config", str(config))
        parsed = commands.choices[command].parse_args([*map(str, arguments), *where])
        code: int = parsed.command(parsed)
        return code

    return run


@pytest.mark.parametrize("command", [["who", *ASK], ["assignments", "status"]])
def test_nobody_is_no_answer_where_no_filter_was_named(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty database that the question itself made would say so of every address."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with pytest.raises(SystemExit) as raised:
        cli.main(command)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("urlward: no --config given, and there is no ")
    assert not (tmp_path / "state").exists()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    store = AssignmentStore(folder / "assignments.db")
    taken(
        store,
        sighting(A, 0, 100, "anna", SightingKind.WHOLE),
        sighting(A, 100, 200, "berta", SightingKind.WHOLE),
    )
    store.close()
    return folder


def asked(state: Path) -> list[dict[str, Any]]:
    return [line for line in read_audit(state) if line]


def test_an_answer_is_told_and_recorded(
    urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert urlward("who", *ASK) == 0
    assert capsys.readouterr().out.splitlines()[1] == "anna"
    (line,) = asked(state)
    assert (line["action"], line["why"], line["address"], line["port"]) == ("who", "case 5", A, 40_213)
    assert (line["at"], line["answer"], line["candidates"][0]["subscriber"]) == (WHEN, "one", "anna")
    assert line["who"]
    assert verify(state).holds


def test_ambiguous_and_none(urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward("who", *ASK, "--tolerance", "1m", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["tolerance"], len(answer["candidates"])) == ("ambiguous", 60.0, 2)
    assert urlward("who", "192.0.2.1", "--at", WHEN, "--why", "case 5") == 1
    assert "nobody: no assignment" in capsys.readouterr().out
    assert [line["answer"] for line in asked(state)] == ["ambiguous", "none"]


def test_where_it_cannot_be_recorded_nothing_is_answered(
    urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with audit_on_a_full_disk(), pytest.raises(StateError):
        urlward("who", *ASK)
    assert "anna" not in capsys.readouterr().out


def test_a_source_is_taken_back(urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delete = ("assignments", "delete", "--source", "test", "--why", "read in a wrong zone")
    with audit_on_a_full_disk(), pytest.raises(AssignmentError, match="No space left"):
        urlward(*delete)
    assert urlward("who", *ASK) == 0
    capsys.readouterr()
    assert urlward(*delete) == 0
    assert capsys.readouterr().out == "test: 2 deleted; who knows nothing of it until it is imported again\n"
    line = asked(state)[-1]
    assert (line["action"], line["source"], line["deleted"]) == ("source-deleted", "test", 2)
    assert line["why"] == "read in a wrong zone"
    assert urlward("who", *ASK) == 1
    capsys.readouterr()
    assert urlward(*delete) == 0
    assert capsys.readouterr().out == "test: 0 deleted; and its name with it\n"


def test_a_question_that_no_database_answers_is_recorded(urlward: Run, state: Path, tmp_path: Path) -> None:
    """Whoever asks leaves a line, also where the events' store or the assignments' database is down."""
    config = tmp_path / "urlward.toml"
    server = tmp_path / "url"
    server.write_text(f"postgresql://urlward@/none?host={tmp_path}")
    config.write_text(
        "[records.days]\nblocks = 30\noperations = 30\nassignments = 180\n"
        f'[records.assignments]\nkind = "postgresql"\nurl_file = "{server}"\n'
    )
    with pytest.raises(AssignmentError, match="the assignments' database"):
        urlward("who", *ASK)
    (line,) = asked(state)
    assert (line["action"], line["address"], line["answer"]) == ("who", f"{A}:40213", "error")


def test_a_question_about_an_event_that_no_store_answers_for_is_recorded(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text('[records.days]\nblocks = 30\noperations = 30\n[[records.store]]\nkind = "jsonl"\n')
    with pytest.raises(SystemExit) as raised:
        cli.main(
            ["who", "--reference", R1, "--why", "case 5", "--state", str(state), "--config", str(config)]
        )
    assert raised.value.code == 2
    (line,) = asked(state)
    assert (line["action"], line["reference"], line["answer"]) == ("who", R1, "error")


@pytest.mark.parametrize("there", [False, True])
def test_nobody_is_no_answer_of_a_folder_without_assignments(
    urlward: Run, tmp_path: Path, *, there: bool
) -> None:
    """Such as one that is mistyped: an empty database that the question made would say so of everybody."""
    state = tmp_path / "state"
    if there:
        state.mkdir()
    for command in (["who", *ASK], ["assignments", "status"]):
        with pytest.raises((AssignmentError, StateError), match=r"state.*: (not there|No such file)"):
            urlward(*command)
    assert not (state / "assignments.db").exists()


def test_by_reference(urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward("who", "--reference", R1, "--why", "case 5") == 0
    assert capsys.readouterr().out.splitlines()[1] == "anna"
    assert asked(state)[0]["reference"] == R1
    assert urlward("who", "--reference", R3, "--why", "case 5") == 1
    with pytest.raises(AssignmentError, match="does not have the client's whole address"):
        urlward("who", "--reference", R2, "--why", "case 5")
    assert urlward("who", "--reference", "7q4m 2xkd 93fi", "--why", "case 5") == 0
    capsys.readouterr()
    assert urlward("who", "--reference", R9, "--why", "case 5") == 1
    assert capsys.readouterr() == ("", f"urlward: no event has the reference {R9}\n")
    assert [line["answer"] for line in asked(state)] == ["one", "one", "none", "error", "one", "none"]
    with pytest.raises(UrlwardError):
        urlward("who", "--reference", "R-9", "--why", "case 5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((A, "--at", WHEN, "--why", " "), "^why: "),
        ((A, "--why", "x"), "--at TIME goes with an address"),
        (("--why", "x"), "give an address"),
        ((A, "--at", WHEN, "--reference", R1, "--why", "x"), "give an address"),
        ((A, "--at", "2026-11-18T11:07:30", "--why", "x"), "^at: .* with its offset"),
        ((A, "--at", WHEN, "--why", "x", "--tolerance", "long"), "^tolerance: "),
        (("example.test", "--at", WHEN, "--why", "x"), "is not an address"),
    ],
)
def test_what_makes_no_sense(urlward: Run, state: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UrlwardError, match=message):
        urlward("who", *arguments)
    assert asked(state) == []


def test_addresses_times_and_tolerances() -> None:
    assert split_address("192.0.2.7") == ("192.0.2.7", None)
    assert split_address("192.0.2.7:65535") == ("192.0.2.7", 65_535)
    assert split_address("2001:DB8::7") == ("2001:db8::7", None)
    assert split_address("[2001:db8::7]:443") == ("2001:db8::7", 443)
    for wrong in (
        "",
        "192.0.2.7:",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "[::1",
        "192.0.2.0/24",
        "[::1]x5",
        "192.0.2.7:+443",
        "192.0.2.7:4_43",
        "192.0.2.7: 443",
    ):
        with pytest.raises(AssignmentError):
            split_address(wrong)
    assert [read_tolerance(text) for text in ("5s", "500ms", "1.5s", "2m", "7", "1h")] == [
        5000, 500, 1500, 120_000, 7000, 3_600_000,
    ]  # fmt: skip
    assert read_time("2026-11-18T12:07:30.250+01:00") == at(50) + 250


def test_import_status_and_who(urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"ip,from,to,subscriber\n{A},{at(0)},{at(100)},anna\nbad\n")
    assert (
        urlward(
            "assignments",
            "import",
            "csv",
            path,
            "--column",
            "address=ip",
            "--source",
            "crm",
            "--max-errors",
            "1",
        )
        == 0
    )
    assert capsys.readouterr().out.startswith(f"{path}: 2 rows, 1 not understood, ")
    assert urlward("assignments", "status") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(
        "oldest assignment 2026-11-18T11:06:40Z, each kept until 180 days after its end: "
    )
    assert out[1].startswith("crm: csv, 2 rows, 1 not understood, read up to 20")
    size = path.stat().st_size
    assert out[2].startswith(f"  {path}: read to byte {size} of {size}, last found 20")
    assert urlward("assignments", "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["name"] == "crm"
    assert urlward("who", *ASK) == 0
    assert "source crm: csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("last", "named"), [("leases4.csv", False), ("leases4.csv", True), ("leases4.csv.1", True)]
)
def test_import_of_kea_reads_what_its_cleanup_has_left(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], last: str, named: bool
) -> None:
    path, cleaned = tmp_path / last, tmp_path / "leases4.csv.2"
    header = "address,hwaddr,client_id,valid_lifetime,expire,state\n"
    cleaned.write_text(f"{header}{A},anna,,7200,{at(7200) // 1000},0\n")
    path.write_text(header)
    assert urlward("assignments", "import", "kea", path, *[cleaned] * named) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in out] == [f"{cleaned}: 1 rows", f"{path}: 0 rows"]
    assert urlward("who", *ASK) == 0


def test_who_has_a_fixed_prefix_since_years(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fixed.csv"
    path.write_text("address,subscriber,from,to\n203.0.113.0/28,fixed,2020-01-01T00:00:00Z,\n")
    now = time.time()
    for _ in range(2):
        assert urlward("assignments", "import", "csv", path) == 0
        records = configured(tmp_path / "urlward.toml")[1].records
        assert records is not None
        assert purge_configured(records, tmp_path / "state", now, ahead=3_600) == 0
    capsys.readouterr()
    assert urlward("who", "203.0.113.9", "--at", ms_text(int(now * 1000)), "--why", "case 5") == 0
    assert capsys.readouterr().out.splitlines()[1] == "fixed"
    # The last import is longer ago than the 180 days.
    assert purge_configured(records, tmp_path / "state", now + 181 * 86_400) == 1


def test_two_nodes_have_no_source_in_common_unless_they_say_so(
    postgresql_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both lease the same private address: whoever came last would be named for both, and alone."""
    (tmp_path / "url").write_text(postgresql_url)

    def run(node: str, *command: str, code: int = 0) -> str:
        config = tmp_path / f"{node}.toml"
        config.write_text(
            f'state = "{node}"\n[records.days]\nblocks = 30\noperations = 30\nassignments = 180\n'
            '[records.assignments]\nkind = "postgresql"\nurl_file = "url"\n'
        )
        with pytest.raises(SystemExit) as raised:
            cli.main([*command, "--config", str(config)])
        out, err = capsys.readouterr()
        assert raised.value.code == code, err
        return out + err

    leases = {}
    for node in ("gw1", "gw2"):
        leases[node] = tmp_path / f"{node}.csv"
        leases[node].write_text(f"address,from,to,subscriber\n{A},{at(0)},{at(100)},of-{node}\n")
    run("gw1", "assignments", "import", "csv", str(leases["gw1"]))
    for command in ("import", "follow"):
        said = run("gw2", "assignments", command, "csv", str(leases["gw2"]), code=2)
        assert said == (
            "urlward: source 'csv' is read by another node: give this one's another name with --source, or "
            "--source csv where it is the same server's\n"
        )
    assert "of-gw1" in run("gw1", "who", *ASK)
    run("gw2", "assignments", "import", "csv", str(leases["gw2"]), "--source", "of gw2")
    assert "ambiguous: 2 subscribers" in run("gw1", "who", *ASK, code=1)
    # The other one of a pair goes on with what this one read.
    run("gw2", "assignments", "import", "csv", str(leases["gw1"]), "--source", "csv")
    run("gw2", "assignments", "import", "csv", str(leases["gw1"]))


def test_formula(urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formula = ("formula", "100.64.0.0/24", "198.51.100.0/30", "--ports", "1008", "--source", "nat")
    assert urlward("assignments", *formula) == 0
    assert capsys.readouterr().out == "nat: 64 subscribers an address, 1008 ports each\n"
    assert urlward("who", "198.51.100.0:1024", "--at", WHEN, "--why", "x") == 0
    assert "100.64.0.0\n" in capsys.readouterr().out
    other = ("formula", "100.64.9.0/24", *formula[2:], "--from", "2026-11-18T11:07:00Z")
    with pytest.raises(AssignmentError, match=r"^nat: 100\.64\.0\.0/24 to .* is known, and meets it"):
        urlward("assignments", *other)
    assert urlward("assignments", *other, "--replace") == 0
    assert "nat: in place of 100.64.0.0/24 to " in capsys.readouterr().out
    assert urlward("assignments", "status") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "nat: deterministic",
        "  100.64.0.0/24 to 198.51.100.0/30, 1008 ports from 1024 until 2026-11-18T11:07:00Z",
        "  100.64.9.0/24 to 198.51.100.0/30, 1008 ports from 1024 from 2026-11-18T11:07:00Z",
    ]
    said = [line for line in asked(tmp_path / "state") if line["action"] == "formula"]
    assert [len(line["replaced"]) for line in said] == [0, 1]
    with pytest.raises(AssignmentError, match=r"^formula: "):
        urlward("assignments", "formula", "100.64.0.1/24", "198.51.100.0/30", "--ports", "5", "--source", "n")
    for when in ("--from", "--to"):
        with pytest.raises(AssignmentError, match=rf"^formula: {when}: '' is not a time"):
            urlward("assignments", *formula, when, "")
    with pytest.raises(AssignmentError, match=r"^source: a name of"):
        urlward("assignments", "formula", "100.64.0.0/24", "203.0.113.0/30", "--ports", "5", "--source", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--column", "address"), "is not FIELD=NAME"),
        (("--delimiter", "ab"), "^delimiter: "),
        (("--delimiter", '"'), "^delimiter: "),
        (("--delimiter", "\n"), "^delimiter: "),
        (("--source", "a" * 256), "^source: a name of 1 to 255 characters"),
        (("--zone", "Nowhere/City"), "^zone: "),
        (("--database", "/nonexistent"), "needed, a file with the database's URL"),
        (("--database", "/dev/zero"), "not a regular file: needed, a file with"),
    ],
)
def test_import_arguments(urlward: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(AssignmentError, match=message):
        urlward("assignments", "import", "csv", tmp_path / "a.csv", *arguments)


def test_follow(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"address,from,to,subscriber\n{A},{at(0)},{at(100)},anna\n")
    left = iter([True, True, False])

    def wait(_: float) -> bool:
        with path.open("a") as file:
            file.write(f"{A},{at(100)},{at(200)},berta\n")
        return next(left)

    monkeypatch.setattr(assignment_commands, "_wait", wait)
    assert urlward("assignments", "follow", "csv", path) == 0
    assert capsys.readouterr().out.splitlines() == [f"{path}: {n} rows, 0 not understood" for n in (1, 2, 3)]


def test_following_something_else_says_so(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nat.log"
    path.write_text("Nov 18 16:01:00 cgn-1 sshd[77]: closed\n")
    monkeypatch.setattr(assignment_commands, "_wait", lambda _: False)
    assert urlward("assignments", "follow", "cgn", path) == 0
    out = capsys.readouterr().out
    assert out == f"{path}: 0 rows, 0 not understood, nothing of the format cgn yet\n"


def test_radacct(urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(tmp_path / "radius.db")) as radius:
        radius.execute(
            "CREATE TABLE radacct (acctuniqueid TEXT, username TEXT, acctstarttime INTEGER,"
            " acctupdatetime INTEGER, acctstoptime INTEGER, framedipaddress TEXT)"
        )
        times = at(0) // 1000, at(9) // 1000
        radius.execute("INSERT INTO radacct VALUES ('u1', 'anna', ?, ?, NULL, ?)", (*times, A))
        radius.execute("INSERT INTO radacct VALUES ('u2', '', ?, NULL, NULL, ?)", (at(0) // 1000, A))
        radius.commit()
    url = tmp_path / "url"
    url.write_text(f"sqlite:///{tmp_path}/radius.db\n")
    with pytest.raises(AssignmentError, match=r"radius\.db: 1 of 2 rows not understood, allowed are 1%"):
        urlward("assignments", "import", "radacct", url)
    out, err = capsys.readouterr()
    assert out.startswith(f"sqlite:///{tmp_path}/radius.db: 2 rows, 1 not understood, ")
    assert err == f"sqlite:///{tmp_path}/radius.db: row 2: no subscriber, or no beginning\n"
    assert urlward("who", *ASK) == 1, "nothing of it was taken"
    assert urlward("assignments", "import", "radacct", url, "--max-errors", "1") == 0
    assert urlward("who", *ASK) == 0
    assert "no end is known, last said 2026-11-18T11:06:49Z" in capsys.readouterr().out


def test_following_radacct_goes_on_when_its_database_does(
    urlward: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(sqlite3.connect(tmp_path / "radius.db")) as radius:
        radius.execute(
            "CREATE TABLE radacct (acctuniqueid TEXT, username TEXT, acctstarttime INTEGER,"
            " acctupdatetime INTEGER, acctstoptime INTEGER, framedipaddress TEXT)"
        )
        radius.commit()
    url = tmp_path / "url"
    url.write_text(f"sqlite:///{tmp_path}/radius.db\n")
    steps = iter(["ALTER TABLE radacct RENAME TO moved", None, "ALTER TABLE moved RENAME TO radacct", ""])

    def wait(_: float) -> bool:
        step = next(steps)
        with closing(sqlite3.connect(tmp_path / "radius.db")) as radius:
            radius.execute(step or "SELECT 1")
        return step != ""

    monkeypatch.setattr(assignment_commands, "_wait", wait)
    caplog.set_level(logging.INFO)
    assert urlward("assignments", "follow", "radacct", url) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [f"sqlite:///{tmp_path}/radius.db: 0 rows, 0 not understood"] * 2
    assert caplog.messages[-1] == f"{url}: read on"
    (failed,) = (one.message for one in caplog.records if one.levelname == "ERROR")
    assert failed.endswith("; tried again each half a minute")


def test_import_says_which_rows_are_not_understood(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "address,subscriber,from\n198.51.100.7,anna,yesterday\n198.51.100.777,anna,1795000000\n"
        "198.51.100.7,,1795000000\n198.51.100.7\n" + "198.51.100.7,x,y\n" * 3
    )
    with pytest.raises(AssignmentError) as raised:
        urlward("assignments", "import", "csv", path)
    assert str(raised.value) == (
        f"{path}: 7 of 7 rows not understood, allowed are 1%: nothing of it is taken"
    )
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: 7 rows, 7 not understood, ")
    none = "an address, a number or a time that is none"
    assert err.splitlines() == [
        f"{path}:2: {none}", f"{path}:3: {none}", f"{path}:4: no subscriber",
        f"{path}:5: fewer columns than it needs", f"{path}:6: {none}", f"{path}: … and 2 more",
    ]  # fmt: skip
    path.write_text("address,subscriber,from\n198.51.100.7,anna,1795000000\n")
    assert urlward("assignments", "import", "csv", path) == 0
    path.write_text(path.read_text() + "198.51.100.7,anna\n")
    assert urlward("assignments", "import", "csv", path, "--max-errors", "1") == 0
    assert capsys.readouterr().err == f"{path}:3: fewer columns than it needs\n"


def test_who_reads_says_that_a_log_was_rotated_before_it_was_read_to_its_end(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, rotated = tmp_path / "a.log", tmp_path / "a.log.1"
    event = "2026-11-18T11:00:0{0}Z thunder FIXED-NAT-PORTS 100.64.0.{0}->198.51.100.{0}:1024-2047\n"

    def told() -> str:
        assert urlward("assignments", "import", "cgn", *(one for one in (rotated, log) if one.exists())) == 0
        return capsys.readouterr().err

    def told_by_follow(*writes: str) -> list[str]:
        left = iter(writes)

        def wait(_: float) -> bool:
            if (text := next(left, None)) is not None:
                log.unlink()
                log.write_text(text)
            return text is not None

        monkeypatch.setattr(assignment_commands, "_wait", wait)
        assert urlward("assignments", "follow", "cgn", log) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "the log before" in line]

    log.write_text(event.format(1))
    assert told() == ""
    # By its new name it is known to be read to its end, if nothing was written to it either.
    log.rename(rotated)
    log.write_text(event.format(2))
    assert told() == ""
    log.write_text(event.format(3))
    assert told().startswith(f"{log}: the log before this one was last read at 20")
    assert told() == ""
    # What is rotated while it is followed is read to its end, also where the new one has nothing yet.
    log.write_text(event.format(4))
    assert len(told_by_follow(event.format(5), "")) == 1
    assert told_by_follow(event.format(6)) == []


def test_a_refused_file_is_read_whole_when_it_is_read_in_the_right_way(
    urlward: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    good = [f"192.0.2.{n};{at(0)};{at(100)};s{n}" for n in range(5)]
    path.write_text("\n".join(["address;from;to;subscriber", *good, f"{A};{at(0)};{at(100)};"]) + "\n")
    arguments = ("import", "csv", path, "--delimiter", ";", "--source", "crm")
    with pytest.raises(AssignmentError, match=r"1 of 6 rows not understood, .*: nothing of it is taken$"):
        urlward("assignments", *arguments)
    assert urlward("who", "192.0.2.1", "--at", WHEN, "--why", "x") == 1
    assert urlward("assignments", *arguments, "--max-errors", "1") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{path}: 6 rows, 1 not understood, ")
    assert urlward("who", "192.0.2.1", "--at", WHEN, "--why", "x") == 0


@pytest.mark.parametrize(
    ("format_", "text", "reason"),
    [
        ("isc", "ia-na abc {\n}\n", "nothing of the format isc in it, 1 lines of something else"),
        (
            "detail",
            "Wed Nov 25 15:01:03 2026\nTimestamp = 5\n\n",
            "nothing of the format detail in it, 2 lines",
        ),
        (
            "detail",
            "Wed Nov 25 15:01:03 2026\n\tTimestamp = 5\n",
            "its 40 bytes are of a record of detail that is",
        ),
        ("cgn", "Nov 18 16:01:00 cgn-1 sshd[77]: closed\n", "nothing of the format cgn in it, 1 lines of"),
    ],
)
def test_a_file_of_something_else_is_an_error_each_time(
    urlward: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    format_: str,
    text: str,
    reason: str,
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(AssignmentError) as raised:
            urlward("assignments", "import", format_, path)
        assert str(raised.value).startswith(f"{path}: {reason}")
        if "something else" in reason:
            assert capsys.readouterr().err.startswith(f"{path}:1: not of the format {format_}\n")


def test_a_file_without_rows_is_none(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kea, isc, empty = tmp_path / "kea.csv", tmp_path / "dhcpd.leases", tmp_path / "empty"
    kea.write_text(
        "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n"
    )
    isc.write_text('# The format of this file\n\nauthoring-byte-order little-endian;\nserver-duid "x";\n')
    empty.touch()
    for format_, path in (("kea", kea), ("isc", isc), ("detail", empty)):
        assert urlward("assignments", "import", format_, path) == 0
        assert capsys.readouterr().out.startswith(f"{path}: 0 rows, 0 not understood")


def test_a_refused_import_is_not_what_an_answer_rests_on(
    urlward: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "a.csv", tmp_path / "b.csv"
    text = f"address,from,to,subscriber\n{A},{at(0)},{at(100)},anna\n"
    good.write_text(text)
    bads = text.encode("utf-16"), b"<html>\n", f"address,from,to,subscriber\n{A},x,y,z\n".encode()
    for content in bads[:2]:
        bad.write_bytes(content)
        with pytest.raises(AssignmentError):
            urlward("assignments", "import", "csv", bad)
    assert urlward("assignments", "status") == 0
    assert "b.csv" not in capsys.readouterr().out, "a first import that took nothing leaves no source"
    assert urlward("assignments", "import", "csv", good) == 0
    for content in bads:
        bad.write_bytes(content)
        with pytest.raises(AssignmentError):
            urlward("assignments", "import", "csv", bad)
    capsys.readouterr()
    assert urlward("who", *ASK) == 0
    assert f"  source csv: csv, last imported from {good}\n" in capsys.readouterr().out
    assert urlward("who", *ASK, "--json") == 0
    source = json.loads(capsys.readouterr().out)["candidates"][0]["source"]
    assert source == {"name": "csv", "format": "csv", "last_imported_from": str(good)}


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ("", "urlward.toml: "),
        ("[records.days]\nblocks = 30\noperations = 30\n", "urlward.toml:1: "),
    ],
)
@pytest.mark.parametrize("command", ["import", "follow"])
def test_nothing_is_taken_that_has_no_end(
    urlward: Run, tmp_path: Path, config: str, where: str, command: str
) -> None:
    leases = tmp_path / "leases.csv"
    leases.write_text("address,hwaddr\n")
    (tmp_path / "urlward.toml").write_text(config)
    with pytest.raises(ConfigError) as raised:
        urlward("assignments", command, "kea", leases)
    assert str(raised.value).endswith(
        f"/{where}records.days.assignments: needed, since who had an address when is a record of persons: a "
        "number of days after which it is deleted, such as assignments = 180 under [records.days]"
    )
    assert not (tmp_path / "state" / "assignments.db").exists()


def test_status_says_until_when(
    urlward: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert urlward("assignments", "status") == 0
    until = ms_text(at(100) + 180 * 86_400_000)
    assert capsys.readouterr().out.splitlines()[0] == (
        f"oldest assignment {ms_text(at(0))}, each kept until 180 days after its end: first {until}"
    )
    assert urlward("assignments", "status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["days"], shown["purged"]) == (180, until)
    (tmp_path / "urlward.toml").write_text("[records.days]\nblocks = 30\noperations = 30\n")
    assert urlward("assignments", "status") == 0
    assert ", kept for ever: records.days.assignments: needed, since" in capsys.readouterr().out
