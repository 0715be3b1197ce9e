import argparse
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from records.assignments.support import at, sighting, taken
from urlward.lists.audit import FILE, read_audit, verify
from urlward.lists.state import StateError
from urlward.records import assignment_commands
from urlward.records.assignment_commands import add_assignment_commands
from urlward.records.assignments.interval import AssignmentError, Said
from urlward.records.assignments.store import AssignmentStore
from urlward.records.who_commands import Seen, add_who_command, read_time, read_tolerance, split_address

A = "198.51.100.7"
WHEN = "2026-11-18T11:07:30Z"
ASK = (f"{A}:40213", "--at", WHEN, "--why", "case 5")

type Run = Callable[..., int]


@pytest.fixture
def urlward(tmp_path: Path) -> Run:
    def find_events(config: object, state: Path, reference: str) -> Sequence[Seen]:
        return {
            "R-1": [Seen(A, 40_213, at(50))],
            "R-2": [Seen("198.51.100.0/24", 0, at(50))],
            "R-3": [Seen(A, 0, at(50)), Seen(A, 0, at(5000))],
        }.get(reference, [])

    def run(command: str, *arguments: str | Path) -> int:
        commands = argparse.ArgumentParser().add_subparsers()

        def declare(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
            sub = commands.add_parser(name, help=help_text)
            sub.set_defaults(command=function)
            return sub

        add_who_command(declare, find_events)
        add_assignment_commands(declare)
        parsed = commands.choices[command].parse_args(
            [*map(str, arguments), "--state", str(tmp_path / "state")]
        )
        code: int = parsed.command(parsed)
        return code

    return run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    store = AssignmentStore(folder / "assignments.db")
    taken(store, sighting(A, 0, 100, "anna", Said.WHOLE), sighting(A, 100, 200, "berta", Said.WHOLE))
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
    (state / FILE).mkdir()
    with pytest.raises(StateError):
        urlward("who", *ASK)
    assert "anna" not in capsys.readouterr().out


def test_by_reference(urlward: Run, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward("who", "--reference", "R-1", "--why", "case 5") == 0
    assert capsys.readouterr().out.splitlines()[1] == "anna"
    assert asked(state)[0]["reference"] == "R-1"
    assert urlward("who", "--reference", "R-3", "--why", "case 5") == 1
    with pytest.raises(AssignmentError, match="does not have the client's whole address"):
        urlward("who", "--reference", "R-2", "--why", "case 5")
    with pytest.raises(AssignmentError, match="no event has the reference 'R-9'"):
        urlward("who", "--reference", "R-9", "--why", "case 5")
    assert [line["answer"] for line in asked(state)] == ["one", "one", "none", "error", "error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((A, "--at", WHEN, "--why", " "), "^why: "),
        ((A, "--why", "x"), "--at TIME goes with an address"),
        (("--why", "x"), "give an address"),
        ((A, "--at", WHEN, "--reference", "R", "--why", "x"), "give an address"),
        ((A, "--at", "2026-11-18T11:07:30", "--why", "x"), "^at: .* with its offset"),
        ((A, "--at", WHEN, "--why", "x", "--tolerance", "long"), "^tolerance: "),
        (("example.test", "--at", WHEN, "--why", "x"), "is not an address"),
    ],
)
def test_what_makes_no_sense(urlward: Run, state: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(AssignmentError, match=message):
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
    assert urlward("assignments", "import", "csv", path, "--column", "address=ip", "--source", "crm") == 0
    assert capsys.readouterr().out.startswith(f"{path}: 2 rows, 1 not understood, ")
    assert urlward("assignments", "status") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "oldest assignment 2026-11-18T11:06:40Z"
    assert out[1].startswith("crm: csv, 2 rows, 1 not understood, last read 20")
    assert out[2] == f"  {path}: read to byte {path.stat().st_size} of {path.stat().st_size}"
    assert urlward("assignments", "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["name"] == "crm"
    assert urlward("who", *ASK) == 0
    assert "source crm: csv" in capsys.readouterr().out


def test_formula(urlward: Run, capsys: pytest.CaptureFixture[str]) -> None:
    formula = ("formula", "100.64.0.0/24", "198.51.100.0/30", "--ports", "1008", "--source", "nat")
    assert urlward("assignments", *formula) == 0
    assert capsys.readouterr().out == "nat: 64 subscribers an address, 1008 ports each\n"
    assert urlward("who", "198.51.100.0:1024", "--at", WHEN, "--why", "x") == 0
    assert "100.64.0.0\n" in capsys.readouterr().out
    with pytest.raises(AssignmentError, match=r"^formula: "):
        urlward("assignments", "formula", "100.64.0.1/24", "198.51.100.0/30", "--ports", "5", "--source", "n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--column", "address"), "is not FIELD=NAME"),
        (("--delimiter", "ab"), "^delimiter: "),
        (("--zone", "Nowhere/City"), "^zone: "),
        (("--database", "/nonexistent"), "needed, a file with the database's URL"),
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

    def wait() -> bool:
        with path.open("a") as file:
            file.write(f"{A},{at(100)},{at(200)},berta\n")
        return next(left)

    monkeypatch.setattr(assignment_commands, "_wait", wait)
    assert urlward("assignments", "follow", "csv", path) == 0
    assert capsys.readouterr().out.splitlines() == [f"{path}: {n} rows, 0 not understood" for n in (1, 2, 3)]


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
    assert urlward("assignments", "import", "radacct", url) == 0
    assert capsys.readouterr().out == f"sqlite:///{tmp_path}/radius.db: 2 rows, 1 not understood\n"
    assert urlward("who", *ASK) == 0
    assert "no end is known, last said 2026-11-18T11:06:49Z" in capsys.readouterr().out
