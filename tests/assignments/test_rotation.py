"""Logs that were rotated before they were read to their ends."""

import gzip
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path

import pytest

from assignments.support import DAY, START, at, sighting, taken
from conftest import in_turns
from urlward.assignments import importing, merging
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import Imported, follow, import_file
from urlward.assignments.interval import Ending, SightingKind
from urlward.assignments.retention import hold_assignments, purge_assignments
from urlward.assignments.store import AssignmentStore, Changes
from urlward.assignments.who import WhoAnswer, WhoQuestion, answer_fields, answer_lines, who
from urlward.regular import regular_fd

A, B, C = "198.51.100.7", "198.51.100.8", "198.51.100.9"
HEADER = "address,ports,from,subscriber,event\n"


def block(seconds: int, subscriber: str, event: str, address: str = A) -> str:
    return f"{address},1024-2047,{at(seconds)},{subscriber},{event}\n"


def record(status: str, seconds: int, user: str = "anna", took: int | None = None, **more: str) -> str:
    """One of accounting; of a Stop or update with how many seconds the session took so far."""
    fields = {"User-Name": user, "NAS-IP-Address": "192.0.2.1", "Acct-Session-Id": "s1"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    if status in ("Start", "Interim-Update", "Stop") and "Framed-IP-Address" not in fields:
        fields["Framed-IP-Address"] = A
    lines = [f"\t{name} = {value}\n" for name, value in fields.items() if value]
    lines += [f"\tAcct-Session-Time = {took}\n"] if took is not None else []
    moment = datetime.fromtimestamp(at(seconds) / 1000, UTC)
    return (
        f"{moment:%a %b %d %H:%M:%S %Y}\n\tAcct-Status-Type = {status}\n{''.join(lines)}"
        f"\tTimestamp = {at(seconds) // 1000}\n\n"
    )


class Log:
    """A log at a path, as it is written, rotated, and read into a store."""

    def __init__(self, store: AssignmentStore, path: Path, format_: str = "ports") -> None:
        self.store, self.path, self.format = store, path, format_
        self.path.write_text(self.header)

    @property
    def header(self) -> str:
        return HEADER if self.format == "ports" else ""

    def write(self, *events: str) -> None:
        with self.path.open("a") as file:
            file.write("".join(events))

    def rotate(self, name: str = "") -> Path:
        rotated = self.path.with_name(name or f"{self.path.name}.1")
        self.path.rename(rotated)
        self.path.write_text(self.header)
        return rotated

    def read(self, seconds: int, path: Path | None = None) -> Imported:
        path = path or self.path
        source = self.store.source(self.format, self.format, str(path))
        return import_file(self.store, source, path, ReadOptions(), lambda: at(seconds) / 1000)


def asked(store: AssignmentStore, seconds: float, address: str = A, tolerance: int = 0) -> WhoAnswer:
    return who(store, WhoQuestion(address, 1500, at(seconds), tolerance))


def told(store: AssignmentStore, seconds: float, address: str = A) -> tuple[str, list[str]]:
    answer = asked(store, seconds, address)
    return answer.verdict, sorted({one.interval.subscriber for one in answer.candidates})


def spans(store: AssignmentStore) -> list[tuple[float, float]]:
    """The gaps, in seconds."""
    return [((one.since - START) / 1000, (one.until - START) / 1000) for one in store.gaps()]


@pytest.fixture
def log(store: AssignmentStore, tmp_path: Path) -> Log:
    return Log(store, tmp_path / "log")


def test_who_may_have_ended_in_what_was_not_read_is_in_doubt_until_it_is(
    store: AssignmentStore, log: Log
) -> None:
    log.write(block(0, "anna", "alloc"), block(10, "berta", "alloc", B))
    log.read(100)
    log.write(block(200, "anna", "release"), block(250, "carla", "alloc"), block(300, "carla", "release"))
    log.write(block(350, "dora", "alloc"))
    rotated = log.rotate()
    log.write(block(900, "dora", "release"), block(950, "emil", "alloc"))
    log.write(block(960, "zoe", "alloc", "198.51.100.9"))
    assert log.read(1000).left == at(100)
    assert spans(store) == [(10, 900)]
    assert told(store, 9) == ("one", ["anna"])
    for seconds in (10, 100, 220, 400):
        assert told(store, seconds) == ("ambiguous", ["anna", "dora"])
    # Dora's end is in what is read, and her beginning need not be.
    assert told(store, 949) == ("ambiguous", ["anna"])
    assert told(store, 960) == ("one", ["emil"])
    assert told(store, 960, B) == ("ambiguous", ["berta"])
    # Another source is in no doubt, but nobody is where somebody may have been.
    taken(store, sighting("203.0.113.7", 100, 200, "fred", SightingKind.WHOLE))
    assert told(store, 150, "203.0.113.7") == ("one", ["fred"])
    assert asked(store, 199, "203.0.113.7", 5000).verdict == "ambiguous"
    nobody = asked(store, 300, "203.0.113.7")
    assert (nobody.verdict, nobody.candidates) == ("ambiguous", ())
    assert answer_lines(nobody)[1:] == [
        "ambiguous: nobody, or somebody that is not known",
        f"in doubt: ports's log {log.path} was rotated before it was read to its end: import the rotated"
        " file: 2026-11-18T11:06:50Z to 2026-11-18T11:21:40Z is missing",
    ]
    assert told(store, 5, "203.0.113.7") == ("none", [])
    fields = answer_fields(asked(store, 960, B))
    missing = {"path": str(log.path), "from": "2026-11-18T11:06:50Z", "to": "2026-11-18T11:21:40Z"}
    assert fields["missing"] == [{"source": "ports"} | missing]
    assert fields["candidates"][0]["end"] == "missed"
    assert next(one for one in store.status() if one["name"] == "ports")["missing"] == [missing]
    # Once that is read it is as if it had been read before.
    assert log.read(1100, rotated).rows == 4
    assert spans(store) == []
    for seconds, answer in (
        (220, ("none", [])), (260, ("one", ["carla"])), (320, ("none", [])), (400, ("one", ["dora"])),
        (920, ("none", [])), (960, ("one", ["emil"])),
    ):  # fmt: skip
        assert told(store, seconds) == answer
    assert told(store, 960, B) == ("one", ["berta"])


@pytest.mark.parametrize(
    ("after", "verdicts"),
    [
        # Of the same session, by when it began: it went on.
        ([record("Interim-Update", 900, took=900), record("Interim-Update", 1200, took=1200)], "one one"),
        ([record("Stop", 900, took=899)], "one none"),
        # Of another by its name.
        ([record("Interim-Update", 900, took=500)], "ambiguous one"),
        ([record("Stop", 900, took=500)], "ambiguous none"),
        # Of no session that began at a known time.
        ([record("Stop", 900, Framed_IP_Address="", User_Name="")], "ambiguous ambiguous"),
        ([record("Accounting-On", 900, Acct_Session_Id="", User_Name="")], "ambiguous ambiguous"),
        ([record("Start", 900, "berta", Acct_Session_Id="s2")], "ambiguous one"),
    ],
)
def test_a_session_that_is_told_of_later_went_on(
    sqlite_store: AssignmentStore, tmp_path: Path, after: list[str], verdicts: str
) -> None:
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(record("Start", 0))
    log.read(100)
    log.rotate().unlink()
    log.write(*after, record("Start", 1300, "zoe", Framed_IP_Address=B, Acct_Session_Id="z"))
    log.read(1400)
    sqlite_store.looked(sqlite_store.sources()[1], at(1400))
    found = [asked(sqlite_store, seconds) for seconds in (350, 1000)]
    shown = [
        "none" if not one.candidates and verdict == "none" else one.verdict
        for one, verdict in zip(found, verdicts.split(), strict=True)
    ]
    assert " ".join(shown) == verdicts


def test_what_is_the_same_subscribers_again(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    log.write(
        *(block(at, "anna", event) for at, event in ((200, "release"), (250, "alloc"), (260, "release")))
    )
    log.write(block(300, "berta", "alloc"))
    rotated = log.rotate()
    log.write(block(400, "berta", "release"), block(410, "anna", "alloc"))
    log.read(700)
    assert told(sqlite_store, 410) == ("one", ["anna"])
    log.read(800, rotated)
    assert told(sqlite_store, 150) == ("one", ["anna"])
    assert told(sqlite_store, 280) == ("none", [])
    assert told(sqlite_store, 350) == ("one", ["berta"])
    assert told(sqlite_store, 410) == ("one", ["anna"])


def test_what_is_the_same_subscribers_soon_after_a_rotation(store: AssignmentStore, tmp_path: Path) -> None:
    """An end in the rotated file is of what began before it, whatever is theirs in the next log."""
    log = Log(store, tmp_path / "log")
    log.write(block(50, "anna", "alloc"))
    log.read(100)
    log.write(block(200, "anna", "release"))
    rotated = log.rotate()
    log.write(block(900, "anna", "alloc"), block(9000, "anna", "release"))
    log.read(9100)
    log.read(9200, rotated)
    answers = [told(store, seconds) for seconds in (150, 500, 950, 9050)]
    assert answers == [("one", ["anna"]), ("none", []), ("one", ["anna"]), ("none", [])]


def test_without_a_port_somebody_may_have_had_another(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    taken(sqlite_store, sighting(A, 0, 900, "fred", SightingKind.WHOLE, ports=(1024, 2047)))
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc", B))
    log.read(100)
    rotated = log.rotate()
    with rotated.open("a") as file:
        file.write(f"{A},2048-3071,{at(200)},berta,alloc\n{A},2048-3071,{at(800)},berta,release\n")
    log.write(block(900, "anna", "release", B))
    log.read(1000)
    asks = WhoQuestion(A, 1500, at(500)), WhoQuestion(A, None, at(500))
    assert [who(sqlite_store, one).verdict for one in asks] == ["one", "ambiguous"]
    log.read(1100, rotated)
    assert [len(who(sqlite_store, one).candidates) for one in asks] == [1, 2]


def test_what_two_logs_tell_of_one_second(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(record("Start", 0, "zoe", Framed_IP_Address=B))
    log.read(100)
    berta, carla = {"Acct_Session_Id": "s2"}, {"Acct_Session_Id": "s3", "Framed_IP_Address": "192.0.2.9"}
    log.write(record("Start", 200), record("Start", 200, "berta", **berta), record("Stop", 200, took=0))
    log.write(record("Start", 300, "carla", **carla))
    rotated = log.rotate()
    # Sent again after a while: it says no less that it was at 300.
    log.write(record("Stop", 300, "carla", 0, **carla | {"Framed_IP_Address": ""}))
    log.write(record("Interim-Update", 500, "berta", 300, **berta))
    log.read(600)
    log.read(700, rotated)
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 450) == ("one", ["berta"])
    assert told(sqlite_store, 450, "192.0.2.9") == ("none", [])


def test_several_rotations_in_a_row(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"), block(7200, "anna", "release"))
    log.read(7300)
    log.write(block(14_000, "berta", "alloc"), block(19_000, "dora", "alloc", "198.51.100.9"))
    first = log.rotate("log.3")
    log.write(block(20_000, "carla", "alloc", B), block(28_000, "carla", "release", B))
    second = log.rotate("log.2")
    log.write(block(30_000, "emil", "alloc", B), block(38_000, "emil", "release", B))
    third = log.rotate("log.1")
    log.write(block(40_000, "berta", "release"))
    log.read(41_000)
    assert spans(sqlite_store) == [(7200, 40_000)]
    # The rest of the first tells nothing of the second and the third.
    log.read(42_000, first)
    assert spans(sqlite_store) == [(19_000, 40_000)]
    log.read(43_000, third)
    assert spans(sqlite_store) == [(19_000, 30_000)]
    assert told(sqlite_store, 19_500)[0] == "ambiguous"
    log.read(44_000, second)
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 15_000) == ("one", ["berta"])
    assert told(sqlite_store, 25_000, B) == ("one", ["carla"])


def test_what_was_read_by_other_names_before_is_not_missing(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    log.rotate("log.2").unlink()
    log.write(block(2000, "berta", "alloc", B), block(8000, "berta", "release", B))
    second = log.rotate("log.1")
    log.write(block(9000, "emil", "alloc", B))
    assert log.read(9100, second).left == at(100)
    assert log.read(9200).left == 0
    assert spans(sqlite_store) == [(0, 2000)]


def test_where_nothing_is_missing(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    assert (log.read(100).left, log.read(200).left) == (0, 0)
    # Copied and cut, and the copy read first.
    log.write(block(150, "berta", "alloc", B))
    copy = tmp_path / "log.1"
    copy.write_text(log.path.read_text())
    log.path.write_text(HEADER + block(300, "carla", "alloc", B))
    log.read(400, copy)
    assert log.read(400).left == 0
    # Rotated, and nothing was written to it after it was read.
    log.rotate("log-20261118")
    log.write(block(9000, "dora", "alloc", B))
    assert log.read(9100).left == 0
    assert spans(sqlite_store) == []


def test_nothing_is_missing_of_what_is_deleted_in_time(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """Each is read before it is rotated, and deleted later, as logrotate does."""
    log = Log(sqlite_store, tmp_path / "log")
    for hour in range(4):
        begun = hour * 3600
        log.write(block(begun, f"s{hour}", "alloc"), block(begun + 3000, f"s{hour}", "release"))
        assert log.read(begun + 3500).left == 0
        (tmp_path / "log.1").unlink(missing_ok=True)
        log.rotate()
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 4000) == ("one", ["s1"])


def test_a_log_beside_thousands_that_were_read_before(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked at once: all with all others took an hour for a year's."""
    log, count, asked_of = Log(sqlite_store, tmp_path / "log"), 200, []
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    source, (read,) = sqlite_store.source("ports", "ports", "log"), sqlite_store.positions(1)
    for number in range(count):
        other = replace(read, path=f"{read.path}-{20260101 + number}", begin=f"{number}")
        sqlite_store.write(source, Changes(position=other), at(100))
    root_of = importing._root
    monkeypatch.setattr(importing, "_root", lambda name: asked_of.append(name) or root_of(name))
    log.rotate()
    log.write(block(200, "anna", "release"))
    log.read(300)
    assert count < len(asked_of) < 20 * count


@pytest.mark.parametrize("name", ["log.1", "log-{}"])
def test_nothing_is_missing_in_quiet_nights(sqlite_store: AssignmentStore, tmp_path: Path, name: str) -> None:
    """Where rotated logs are read, each night, but for one beside them that was left out."""
    log = Log(sqlite_store, tmp_path / "log")
    for day in range(5):
        begun = day * 86_400
        log.write(block(begun, "anna", "alloc"), block(begun + 100, "anna", "release"))
        if (older := tmp_path / "log.1").exists():
            older.rename(tmp_path / "log.2")
        rotated = log.rotate(name.format(20261118 + day))
        if day != 3:
            assert log.read(begun + 80_000, rotated).left == (0 if day < 4 else at(2 * 86_400 + 80_000))
            assert log.read(begun + 80_000).left == 0
    assert spans(sqlite_store) == [(2 * 86_400 + 100, 4 * 86_400)]
    log.read(5 * 86_400, tmp_path / ("log.2" if name == "log.1" else name.format(20261121)))
    assert spans(sqlite_store) == []


def test_a_quiet_night_is_not_missing(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """Where what is beside the log says that there was no other."""
    log, night = Log(sqlite_store, tmp_path / "log"), 60_000
    for day in range(3):
        log.write(block(day * DAY // 1000, f"s{day}", "alloc"))
        log.read(day * DAY // 1000 + 600)
        log.write(block(day * DAY // 1000 + 900, f"s{day}", "release"))
        for number in range(day, 0, -1):
            (tmp_path / f"log.{number}").rename(tmp_path / f"log.{number + 1}")
        rotated = log.rotate()
        log.read(day * DAY // 1000 + night, rotated)
    assert spans(sqlite_store) == []
    # One between two that was never read is there.
    log.rotate("log.0").write_text(HEADER + block(300_000, "emil", "alloc", B))
    log.write(block(400_000, "emil", "release", B))
    log.read(400_100)
    assert spans(sqlite_store) == [(2 * DAY / 1000 + 900, 400_000)]


def test_logs_with_a_date_in_their_names(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    logs = [Log(sqlite_store, tmp_path / f"log-2026111{day}") for day in (8, 9)]
    logs[0].write(block(0, "anna", "alloc"))
    logs[0].read(40_000)
    logs[1].write(block(50_000, "berta", "alloc", B))
    assert logs[1].read(60_000).left == 0
    logs[1].write(block(70_000, "berta", "release", B))
    third = Log(sqlite_store, tmp_path / "log-20261120")
    third.write(block(80_000, "carla", "alloc", B))
    assert third.read(90_000).left == at(60_000)
    assert told(sqlite_store, 60_000, B)[0] == "ambiguous"
    logs[1].read(100_000)
    assert (told(sqlite_store, 60_000, B), spans(sqlite_store)) == (("one", ["berta"]), [])


def test_two_logs_of_one_source_in_one_folder(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    one, other = (Log(sqlite_store, tmp_path / f"nat-{number}") for number in (1, 2))
    one.write(block(0, "anna", "alloc"))
    one.read(100)
    other.write(block(50, "carla", "alloc", B), block(300, "carla", "release", B))
    other.read(350)
    one.write(block(200, "anna", "release"))
    rotated = one.rotate()
    one.write(block(400, "berta", "alloc"))
    one.read(500)
    assert spans(sqlite_store) == [(0, 400)]
    other.write(block(600, "carla", "alloc", B))
    other.read(700)
    assert spans(sqlite_store) == [(0, 400)]
    one.read(800, rotated)
    assert spans(sqlite_store) == []


def test_logs_of_two_servers_that_are_read_as_they_are_rotated(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """By the same names in a folder each; of both a day is left out, and that of one is read later."""
    logs, last, subscribers = [], [], ("anna", "berta", "carla")
    for folder, address in (("nas-1", A), ("nas-2", B)):
        (tmp_path / folder).mkdir()
        logs.append(Log(sqlite_store, tmp_path / folder / "log"))
        last.append(
            [block(day * DAY // 1000, whose, "alloc", address) for day, whose in enumerate(subscribers)]
        )
    for log, (first, *_) in zip(logs, last, strict=True):
        log.write(first)
        log.read(100, log.rotate())
    for log, (_, second, third) in zip(logs, last, strict=True):
        log.rotate("log.1").rename(log.path.with_name("log.3"))
        log.write(second)
        log.rotate("log.2")
        log.write(third)
        log.read(2 * DAY // 1000 + 100, log.rotate())
    assert len(spans(sqlite_store)) == 2
    for log, left, verdict in (logs[0], 1, "ambiguous"), (logs[1], 0, "one"):
        log.read(2 * DAY // 1000 + 200, log.path.with_name("log.2"))
        assert len(spans(sqlite_store)) == left
        assert told(sqlite_store, 1.5 * DAY / 1000, B)[0] == verdict


def test_who_follows_a_day_s_log_has_not_read_the_next_one_s(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path, other, now = tmp_path / "log-20261118", tmp_path / "log-20261119", 900
    path.write_text(HEADER + block(0, "anna", "alloc"))
    os.utime(path, (at(500) / 1000,) * 2)
    source = sqlite_store.source("ports", "ports", str(path))
    looks = follow(
        sqlite_store, source, path, ReadOptions(), clock=lambda: at(now) / 1000, wait=lambda _: True
    )
    next(looks)
    assert told(sqlite_store, 800) == ("one", ["anna"])
    other.write_text(HEADER + block(1000, "anna", "release"))
    os.utime(other, (at(1000) / 1000,) * 2)
    now = 2000
    next(looks)
    looks.close()
    assert [told(sqlite_store, seconds)[0] for seconds in (800, 1900)] == ["one", "ambiguous"]


@pytest.mark.parametrize("meanwhile", [0, 60])
def test_whoever_follows_leaves_no_gap_but_before_it_begins(
    sqlite_store: AssignmentStore, tmp_path: Path, meanwhile: int
) -> None:
    """Also where another log of the source is followed on."""
    log = Log(sqlite_store, tmp_path / "log")

    def followed(*steps: str) -> None:
        left = iter(steps)

        def wait(_: float) -> bool:
            if (event := next(left, None)) is not None:
                log.rotate()
                log.write(event)
            return event is not None

        source = sqlite_store.source("ports", "ports", str(log.path))
        for _ in follow(
            sqlite_store, source, log.path, ReadOptions(), clock=lambda: at(9000) / 1000, wait=wait
        ):
            pass

    log.write(block(0, "anna", "alloc"))
    followed(block(100, "anna", "release"), "")
    log.write(block(200, "berta", "alloc"))
    followed()
    assert spans(sqlite_store) == []
    log.write(block(300, "berta", "release"))
    log.rotate()
    log.write(block(400, "berta", "alloc"))
    sqlite_store.looked(sqlite_store.sources()[1], at(9000 + meanwhile))
    followed()
    assert spans(sqlite_store) == [(200, 400)]


def leases(format_: str, *some: tuple[str, str, int], goes_on: bool = False) -> str:
    """A server's file, of addresses, clients and when they last had them for two hours."""
    if format_ == "kea":
        rows = [f"{address},{who},,7200,{at(start) // 1000 + 7200},0\n" for address, who, start in some]
        return "".join(("address,hwaddr,client_id,valid_lifetime,expire,state\n" * (not goes_on), *rows))
    return "".join(
        f"lease {address} {{\n  starts epoch {at(start) // 1000};\n  ends epoch {at(start) // 1000 + 7200};\n"
        f"  binding state active;\n  hardware ethernet {who};\n}}\n"
        for address, who, start in some
    )


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_leases_between_two_imports_are_not_known_where_the_file_is_written_anew(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """By Kea's cleanup, or by dhcpd: of each address it has the last one."""
    log, gone, nobody = Log(store, tmp_path / "leases", format_), "198.51.100.9", "198.51.100.10"
    never_again = "198.51.100.11"
    log.path.write_text(leases(format_, (A, "anna", 0), (B, "berta", 0), (gone, "carla", 0)))
    with log.path.open("a") as file:
        file.write(leases(format_, (never_again, "erna", 0), goes_on=True))
    assert log.read(100).left == 0
    log.rotate("leases~")
    log.path.write_text(leases(format_, (B, "berta", 0), (A, "zoe", 3000)))
    assert log.read(3700).left == at(100)
    assert spans(store) == [(100, 3700)]
    with log.path.open("a") as file:
        file.write(leases(format_, (A, "anna", 5000), (gone, "dora", 5000), goes_on=True))
    assert log.read(5500).left == 0
    assert [told(store, seconds) for seconds in (50, 1000, 2999, 3500, 4000, 5400)] == [
        ("one", ["anna"]), ("ambiguous", ["anna"]), ("ambiguous", ["anna"]), ("one", ["zoe"]),
        ("one", ["zoe"]), ("one", ["anna"]),
    ]  # fmt: skip
    assert all(told(store, seconds, B) == ("one", ["berta"]) for seconds in (50, 1000, 3650, 5400))
    # Nor does whoever comes next make certain up to when she had it.
    assert [told(store, seconds, gone) for seconds in (50, 1000, 4000, 5400)] == [
        ("one", ["carla"]), ("ambiguous", ["carla"]), ("ambiguous", ["carla"]), ("one", ["dora"]),
    ]  # fmt: skip
    assert [told(store, seconds, nobody)[0] for seconds in (50, 1000, 4000)] == ["none", "ambiguous", "none"]
    assert " was written anew by its server, " in answer_lines(asked(store, 1000))[2]
    assert store.status()[0]["missing"] == []

    def wait(_: float) -> bool:
        if log.path.with_name("leases~").exists():
            log.path.with_name("leases~").unlink()
            log.rotate("before")
            log.path.write_text(leases(format_, (B, "berta", 5800)))
            return True
        return False

    source = store.source(format_, format_, str(log.path))
    for _ in follow(store, source, log.path, ReadOptions(), clock=lambda: at(6000) / 1000, wait=wait):
        pass
    assert told(store, 5900, B) == ("one", ["berta"])
    for before, left in ((4000, [(100, 3700)]), (8000, [])):
        purge_assignments(store, at(before))
        assert spans(store) == left
    assert told(store, 5900, B) == ("one", ["berta"])


def test_a_file_of_leases_that_was_written_anew_may_have_none(store: AssignmentStore, tmp_path: Path) -> None:
    """As that of a school at night, whose leases are all given back."""
    log = Log(store, tmp_path / "leases", "kea")
    log.path.write_text(leases("kea", (A, "anna", 0)))
    log.read(100)
    log.path.write_text(leases("kea"))
    assert log.read(3700).left == at(100)
    assert [told(store, seconds) for seconds in (50, 1000)] == [("one", ["anna"]), ("ambiguous", ["anna"])]
    log.path.write_text(leases("kea", (B, "berta", 3800)))
    log.read(3900)
    assert spans(store) == [(100, 3900)]
    assert [told(store, seconds) for seconds in (50, 1000)] == [("one", ["anna"]), ("ambiguous", ["anna"])]


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_who_has_a_lease_again_that_its_file_had_not_may_not_be_the_only_one_who_had_it(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """Servers give a client the address that it had before, whoever had it meanwhile."""
    log = Log(store, tmp_path / "leases", format_)
    for seconds, *some in ((100, (A, "anna", 0)), (3700, (B, "berta", 3600)), (4000, (B, "berta", 3900))):
        log.path.unlink()
        log.path.write_text(leases(format_, *some))
        log.read(seconds)
    with log.path.open("a") as file:
        file.write(leases(format_, (A, "anna", 5000), goes_on=True))
    log.read(5500)
    assert [told(store, seconds) for seconds in (50, 1000, 4500, 5400)] == [
        ("one", ["anna"]), ("ambiguous", ["anna"]), ("ambiguous", ["anna"]), ("one", ["anna"]),
    ]  # fmt: skip


def write_anew(path: Path, text: str) -> None:
    """As servers do: what had the path before has another."""
    path.rename(path.with_name("leases~"))
    path.write_text(text)


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_nobody_is_certain_where_reading_ended_before_what_was_written_anew(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """The file that had the path before may be read to its end by then."""
    path, seconds = tmp_path / "leases", 100
    path.write_text(leases(format_, (A, "anna", 0)))

    def wait(_: float) -> bool:
        nonlocal seconds
        seconds = 400
        write_anew(path, leases(format_, (A, "anna", 0)))
        return True

    def follow_once() -> Iterator[Imported]:
        source = store.source(format_, format_, str(path))
        return follow(store, source, path, ReadOptions(), clock=lambda: at(seconds) / 1000, wait=wait)

    looks = follow_once()
    for _ in range(2):
        next(looks)
    looks.close()
    (tmp_path / "leases~").unlink()
    path.write_text(leases(format_, (B, "berta", 3000)))
    seconds = 3700
    next(follow_once())
    assert [told(store, seconds) for seconds in (50, 1000, 3600)] == [
        ("one", ["anna"]), ("ambiguous", ["anna"]), ("ambiguous", ["anna"]),
    ]  # fmt: skip


def test_who_waits_for_a_file_of_leases_that_another_reads_meanwhile(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """What is missing is so from when that one read it last."""
    log = Log(sqlite_store, tmp_path / "leases", "kea")
    source = sqlite_store.source("kea", "kea", str(log.path))
    log.path.write_text(leases("kea", (A, "anna", 0)))
    log.read(100)
    write_anew(log.path, leases("kea", (B, "berta", 3000)))
    import_file(sqlite_store, source, log.path, ReadOptions(), lambda: at(3700) / 1000)
    assert spans(sqlite_store) == [(100, 3700)]


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_leases_are_read_up_to_now_where_the_file_is_written_anew_as_it_was(
    sqlite_store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    path, seconds = tmp_path / "leases", 100
    path.write_text(leases(format_, (A, "anna", 0)))

    def wait(_: float) -> bool:
        nonlocal seconds
        if seconds == 400:
            return False
        seconds = 400
        write_anew(path, leases(format_, (A, "anna", 0)))
        return True

    source = sqlite_store.source(format_, format_, str(path))
    for _ in follow(sqlite_store, source, path, ReadOptions(), clock=lambda: at(seconds) / 1000, wait=wait):
        pass
    assert told(sqlite_store, 350) == ("one", ["anna"])


def test_a_lease_that_was_given_back_is_in_doubt_from_when_its_file_was_read_last(
    store: AssignmentStore, tmp_path: Path
) -> None:
    """As it is written anew; whoever has it again afterwards may not be the only one who had it since."""
    log, again, gone = Log(store, tmp_path / "leases", "kea"), B, "198.51.100.9"
    given_back = leases("kea", *((address, "anna", 0) for address in (A, again, gone)))
    log.path.write_text(given_back + given_back.partition("\n")[2].replace(",7200,", ",0,"))
    log.read(100)
    log.rotate("leases~")
    log.path.write_text(leases("kea", (again, "anna", 3000), (A, "zoe", 3000)))
    assert log.read(3700).left == at(100)
    for address, then in ((A, ("one", ["zoe"])), (again, ("one", ["anna"])), (gone, ("ambiguous", ["anna"]))):
        assert [told(store, seconds, address) for seconds in (50, 99, 100, 2999, 3500)] == [
            *[("one", ["anna"])] * 2, *[("ambiguous", ["anna"])] * 2, then,
        ]  # fmt: skip
        endings = [asked(store, seconds, address).candidates[-1].interval.ending for seconds in (99, 100)]
        assert endings == [Ending.RELEASED, Ending.GIVEN_BACK]
    assert spans(store) == [(100, 3700)]
    purge_assignments(store, at(10_000))
    assert spans(store) == []


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_an_end_is_of_the_lease_that_it_says_and_not_of_one_that_had_expired(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """Of the second one nothing else was read."""
    log = Log(store, tmp_path / "leases", format_)
    log.path.write_text(leases(format_, (A, "anna", 0)))
    log.read(100)
    log.rotate("leases~")
    over = leases(format_, (A, "anna", 40_000))
    log.path.write_text(over.replace(",0\n", ",2\n").replace("active", "free"))
    log.read(50_000)
    assert [told(store, seconds) for seconds in (50, 3000, 20_000, 45_000, 48_000)] == [
        ("one", ["anna"]), ("ambiguous", ["anna"]), ("ambiguous", []), ("one", ["anna"]), ("ambiguous", []),
    ]  # fmt: skip


def test_files_of_leases_that_are_imported_together_lack_nothing(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """However long the first of them takes."""
    log, then = Log(sqlite_store, tmp_path / "leases", "kea"), tmp_path / "leases.2"
    then.write_text(leases("kea", (A, "anna", 0)))
    log.path.write_text(leases("kea", (B, "berta", 0)))
    source = sqlite_store.source("kea", "kea", str(log.path))
    seconds = iter(range(100, 200, 10))
    for path in (then, log.path):
        import_file(
            sqlite_store, source, path, ReadOptions(), lambda: at(next(seconds)) / 1000, begun=at(100) / 1000
        )
        source = sqlite_store.source("kea", "kea", str(log.path))
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 150) == ("one", ["anna"])


@pytest.mark.parametrize("ends", ["Stop", "another", ""])
def test_what_a_session_had_before_the_next_log_is_in_doubt_until_the_rotated_one_is_read(
    store: AssignmentStore, tmp_path: Path, ends: str
) -> None:
    """Behind the gap is told when it began, and not with which address."""
    log = Log(store, tmp_path / "log", "detail")
    log.write(record("Start", 0, Framed_IP_Address="203.0.113.9"))
    log.read(100)
    berta = {"user": "berta", "Acct_Session_Id": "s2"}
    log.write(record("Start", 200, Framed_IP_Address=B, **berta))
    log.write(record("Interim-Update", 400, took=200, Framed_IP_Address=B, **berta))
    log.write(record("Interim-Update", 600, took=400, Framed_IP_Address=A, **berta))
    log.write(record("Interim-Update", 700, took=500, Framed_IP_Address=A, **berta))
    rotated = log.rotate()
    log.write(record("Interim-Update", 900, took=700, Framed_IP_Address=A, **berta))
    if ends == "Stop":
        log.write(record("Stop", 1000, took=800, Framed_IP_Address=A, **berta))
    elif ends:
        log.write(record("Start", 1000, "carla", Framed_IP_Address=A, Acct_Session_Id="s3"))
    log.read(1100)
    assert [told(store, seconds) for seconds in (300, 650, 899)] == [("ambiguous", ["berta"])] * 3
    if ends == "Stop":
        assert told(store, 900) == told(store, 950) == ("one", ["berta"])
    log.read(1200, rotated)
    log.read(1300)
    assert spans(store) == []
    assert [told(store, seconds, B) for seconds in (300, 500, 650)] == [
        ("one", ["berta"]), ("ambiguous", ["berta"]), ("none", []),
    ]  # fmt: skip
    verdicts = [told(store, seconds)[0] for seconds in (300, 500, 650, 900)]
    assert verdicts == ["none", "ambiguous", "one", "one"]
    assert told(store, 1050)[1] == {"Stop": [], "another": ["carla"], "": ["berta"]}[ends]


type Told = tuple[str, int, str, str]
"""Of accounting: status, seconds, user and address."""


@pytest.mark.parametrize(
    ("before", "rotated", "behind", "answers"),
    [
        # What is told behind the gap is not what it had in it, and what is told in it is not had behind.
        (
            [("Start", 0, "zoe", "203.0.113.8")],
            [("Start", 200, "anna", A), ("Start", 300, "berta", B), ("Interim-Update", 600, "berta", B)],
            [("Interim-Update", 900, "anna", C), ("Interim-Update", 910, "berta", A),
             ("Interim-Update", 1200, "berta", A), ("Stop", 1300, "berta", "")],
            [(A, 250, "?anna"), (A, 400, "?anna"), (B, 400, "berta"), (C, 300, "?anna")],
        ),
        # It had another before, and had that again behind.
        (
            [("Start", 0, "anna", A)],
            [("Interim-Update", 300, "anna", B), ("Start", 400, "berta", A), ("Stop", 600, "berta", A)],
            [("Interim-Update", 900, "anna", A), ("Stop", 1000, "anna", A)],
            [(A, 200, "?anna"), (A, 500, "?anna berta"), (A, 1100, ""), (B, 100, "?anna"), (B, 500, "?anna"),
             (B, 1100, "")],
        ),
        # It had another for a while in the gap alone.
        (
            [("Start", 0, "zoe", "203.0.113.8")],
            [("Start", 200, "anna", A), ("Interim-Update", 300, "anna", B),
             ("Interim-Update", 400, "anna", A)],
            [("Interim-Update", 900, "anna", A)],
            [(B, 250, "?anna"), (B, 350, "?anna"), (B, 450, ""), (A, 250, "?anna")],
        ),
        # Its old one is another's behind the gap, or was in it and is its own again.
        (
            [("Start", 0, "zoe", "203.0.113.8")],
            [("Start", 200, "anna", A)],
            [("Interim-Update", 900, "anna", B), ("Start", 1000, "berta", A), ("Stop", 1200, "anna", B)],
            [(A, 500, "?anna"), (A, 1100, "berta"), (B, 1250, "")],
        ),
        (
            [("Start", 0, "anna", A)],
            [("Interim-Update", 300, "anna", B), ("Start", 400, "berta", A), ("Stop", 600, "berta", "")],
            [("Interim-Update", 900, "anna", A)],
            [(A, 500, "?anna berta"), (A, 950, "anna"), (B, 950, "")],
        ),
        # It had another before, and others in turn in the gap and behind.
        (
            [("Start", 0, "anna", A)],
            [("Interim-Update", 300, "anna", B), ("Interim-Update", 400, "anna", B)],
            [("Interim-Update", 900, "anna", C), ("Stop", 1000, "anna", C)],
            [(A, 200, "?anna"), (A, 500, ""), (A, 950, ""), (B, 200, "?anna"), (B, 1100, ""),
             (C, 500, "?anna"), (C, 950, "anna")],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("few", [False, True])
def test_a_session_that_moved_in_a_gap_is_named_for_certain_where_it_was_told_alone(
    sqlite_store: AssignmentStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    few: bool,
    before: list[Told],
    rotated: list[Told],
    behind: list[Told],
    answers: list[tuple[str, int, str]],
) -> None:
    if few:  # as of more addresses than are kept in memory
        monkeypatch.setattr(merging, "_MOST_KEPT", 0)
        monkeypatch.setattr(importing, "_BLOCK", 100)
    begun: dict[str, int] = {}

    def records(some: list[Told]) -> list[str]:
        return [
            record(
                status,
                seconds,
                user,
                seconds - begun.setdefault(user, seconds) if status != "Start" else None,
                Acct_Session_Id=user,
                Framed_IP_Address=address,
            )
            for status, seconds, user, address in some
            if status != "Start" or begun.setdefault(user, seconds) == seconds
        ]

    log = Log(sqlite_store, tmp_path / "log", "detail")
    log.write(
        *records(before), record("Start", 90, "emil", Acct_Session_Id="e", Framed_IP_Address="203.0.113.9")
    )
    log.read(100)
    log.write(*records(rotated))
    path = log.rotate()
    log.write(*records(behind), record("Stop", 1400, "emil", 1310, Acct_Session_Id="e", Framed_IP_Address=""))
    log.read(1500)
    log.read(1600, path)
    for address, seconds, expected in answers:
        verdict, names = told(sqlite_store, seconds, address)
        assert ("?" * (verdict == "ambiguous") + " ".join(names)) == expected, (address, seconds)


def followed_once(store: AssignmentStore, path: Path, seconds: int) -> list[Imported]:
    """What a `follow` that begins reads of Kea's leases; it ends where it would wait."""
    source = store.source("kea", "kea", str(path))
    some = follow(store, source, path, ReadOptions(), clock=lambda: at(seconds) / 1000, wait=lambda _: False)
    return [replace(one) for one in some]


@pytest.mark.parametrize("cleaned", [(".2",), (".1", ".2"), (".1", ".completed")])
def test_what_kea_has_cleaned_is_read_before_what_it_writes(
    store: AssignmentStore, tmp_path: Path, cleaned: tuple[str, ...]
) -> None:
    """What is unchanged since is in that alone; where the cleanup goes on, also in what is being cleaned."""
    path, gone, kept = tmp_path / "leases4.csv", "198.51.100.9", "198.51.100.10"
    path.write_text(leases("kea", (A, "anna", 0), (B, "berta", 0), (gone, "carla", 0)))
    assert [one.left for one in followed_once(store, path, 100)] == [0]
    path.unlink()
    for added, address in zip(cleaned, (A, kept), strict=False):
        (tmp_path / f"leases4.csv{added}").write_text(leases("kea", (address, "anna", 3500)))
    path.write_text(leases("kea", (B, "berta", 3600)))
    assert [one.left for one in followed_once(store, path, 3700)] == [at(100), *[0] * len(cleaned)]
    assert spans(store) == [(100, 3700)]
    assert [told(store, seconds) for seconds in (50, 1000, 3650)] == [("one", ["anna"])] * 3
    assert told(store, 3650, gone) == ("ambiguous", ["carla"])
    assert told(store, 3650, kept) == (("one", ["anna"]) if cleaned[1:] else ("ambiguous", []))
    # Nothing is missing where the file is read on, by whatever name, before what was written behind it.
    (tmp_path / f"leases4.csv{cleaned[-1]}").rename(tmp_path / "leases4.csv.2")
    path.rename(tmp_path / "leases4.csv.1")
    path.write_text(leases("kea", (gone, "dora", 3800)))
    assert [one.left for one in followed_once(store, path, 3900)] == [0, 0]
    assert spans(store) == [(100, 3700)]
    assert told(store, 3850, gone) == ("one", ["dora"])


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_a_file_that_grows_is_not_read_from_its_beginning_with_each_row(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    path, source = tmp_path / "leases", sqlite_store.source(format_, format_, "leases")
    path.write_text(leases(format_, *((f"10.0.{number}.1", f"u{number}", 0) for number in range(250))))
    asked, pread = list[int](), os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        found = pread(fd, size, offset)
        asked.append(len(found))
        return found

    def wait(_: float) -> bool:
        os.utime(path, (at(len(asked)) / 1000,) * 2)
        with path.open("a") as file:
            file.write(leases(format_, (A, "anna", 100), goes_on=True))
        monkeypatch.setattr(os, "pread", counting)
        return True

    looks = follow(sqlite_store, source, path, ReadOptions(), clock=lambda: at(900) / 1000, wait=wait)
    next(looks)
    next(looks)  # all of it once more, for what is noted of it
    asked.clear()
    next(looks)
    looks.close()
    assert 0 < sum(asked) < path.stat().st_size / 3


@pytest.mark.parametrize("format_", ["kea", "isc"])
def test_nobody_is_certain_by_leases_until_what_is_written_now_is_read(
    sqlite_store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """That may fail for a while, or be ended."""
    path = tmp_path / "leases"
    path.write_text(leases(format_, (A, "anna", 0)))
    source = sqlite_store.source(format_, format_, str(path))
    seconds = 100

    def wait(_: float) -> bool:
        nonlocal seconds
        seconds += 300
        path.rename(tmp_path / "leases.1")
        path.write_text(leases(format_, (A, "berta", 300)))
        return seconds == 400

    def read_until(wait: Callable[[float], bool]) -> list[tuple[str, list[str]]]:
        some = follow(sqlite_store, source, path, ReadOptions(), clock=lambda: at(seconds) / 1000, wait=wait)
        return [told(sqlite_store, seconds - 50) for _ in some]

    assert read_until(wait) == [("one", ["anna"]), ("ambiguous", ["anna"]), ("one", ["berta"])]
    # What Kea has cleaned need not have a lease.
    (tmp_path / "leases.2").write_text(leases(format_))
    path.write_text(leases(format_, (A, "carla", 500)))
    seconds = 600
    shown = read_until(lambda _: False)
    assert ("one", ["berta"]) not in shown
    assert shown[-1] == ("one", ["carla"])


def test_a_cleanup_may_end_while_what_it_has_left_is_read(
    sqlite_store: AssignmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cleaned = tmp_path / "leases4.csv", tmp_path / "leases4.csv.1"
    path.write_text(leases("kea", (B, "berta", 50)))
    cleaned.write_text(leases("kea", (A, "anna", 0)))
    opened: list[Path] = []

    def opening(one: Path) -> int:
        opened.append(one)
        if one == cleaned and opened.count(one) == 2:
            cleaned.rename(tmp_path / "leases4.csv.2")
        return regular_fd(one)

    monkeypatch.setattr(importing, "regular_fd", opening)
    assert sum(one.rows for one in followed_once(sqlite_store, path, 100)) == 2
    assert told(sqlite_store, 90) == ("one", ["anna"])


def test_what_a_cleanup_has_left_is_tried_again(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """Else it would be passed over, and who had an address all along would be nobody."""
    path, cleaned = tmp_path / "leases4.csv", tmp_path / "leases4.csv.1"
    path.write_text(leases("kea", (B, "berta", 50)))
    path.with_name("leases4.csv.2").write_text(leases("kea", (C, "carla", 0)))
    cleaned.write_bytes(b"\x1f\x8b")
    source = sqlite_store.source("kea", "kea", str(path))

    def wait(_: float) -> bool:
        is_first = cleaned.stat().st_size == 2
        cleaned.write_text(leases("kea", (A, "anna", 0)))
        return is_first

    for _ in follow(sqlite_store, source, path, ReadOptions(), clock=lambda: at(100) / 1000, wait=wait):
        pass
    assert [told(sqlite_store, 90, one) for one in (A, B, C)] == [
        ("one", ["anna"]), ("one", ["berta"]), ("one", ["carla"]),
    ]  # fmt: skip


def test_what_kea_has_cleaned_is_not_what_began_alike(store: AssignmentStore, tmp_path: Path) -> None:
    """The first address of both has the same lease still."""
    path = tmp_path / "leases4.csv"
    path.write_text(leases("kea", (A, "anna", 0)))
    followed_once(store, path, 100)
    path.write_text(leases("kea", (gone := "198.51.100.9", "carla", 200)))
    followed_once(store, path, 300)
    (tmp_path / "leases4.csv.2").write_text(leases("kea", (A, "anna", 0), (B, "berta", 400)))
    path.write_text(leases("kea", (B, "berta", 4000)))
    assert [one.left for one in followed_once(store, path, 4100)] == [at(300), 0]
    assert [told(store, 4050, address) for address in (A, B, gone)] == [
        ("one", ["anna"]), ("one", ["berta"]), ("ambiguous", ["carla"]),
    ]  # fmt: skip


def test_what_kea_has_cleaned_is_not_read_behind_what_it_wrote_since(
    store: AssignmentStore, tmp_path: Path
) -> None:
    """A lease that is over by that would begin anew."""
    path = tmp_path / "leases4.csv"
    path.write_text(leases("kea", (A, "anna", 0), (B, "berta", 0)))
    over = leases("kea", (A, "", 600), goes_on=True).replace(",0\n", ",1\n")

    def wait(_: float) -> bool:
        if path.with_name("leases4.csv.2").exists():
            return False
        path.rename(tmp_path / "leases4.csv.2")
        path.write_text(leases("kea", (B, "berta", 500)) + over)
        return True

    source = store.source("kea", "kea", str(path))
    for _ in follow(store, source, path, ReadOptions(), clock=lambda: at(900) / 1000, wait=wait):
        pass
    # As a cleanup leaves it, in another order.
    (tmp_path / "leases4.csv.2").write_text(leases("kea", (B, "berta", 0), (A, "anna", 0)))
    assert [one.left for one in followed_once(store, path, 1000)] == [0]
    assert spans(store) == []
    assert [told(store, seconds) for seconds in (500, 700)] == [("one", ["anna"]), ("ambiguous", ["anna"])]


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_log_that_comes_and_goes_between_two_looks_is_missing(
    sqlite_store: AssignmentStore, tmp_path: Path, is_quiet: bool
) -> None:
    """As while the database is down for longer than a log lasts; also before the next one has anything."""
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    rotated: list[Path] = []
    os.utime(log.path, (at(1) / 1000,) * 2)

    def wait(_: float) -> bool:
        if rotated:
            return False
        log.rotate("log.2")
        log.write(block(100, "anna", "release"))
        rotated.append(log.rotate())
        log.write("" if is_quiet else block(300, "berta", "alloc"))
        return True

    source = sqlite_store.source("ports", "ports", str(log.path))
    looks = [
        *follow(
            sqlite_store,
            source,
            log.path,
            ReadOptions(),
            clock=lambda: at(400 if rotated else 1) / 1000,
            wait=wait,
        )
    ]
    assert [bool(look.left) for look in looks] == [False, False, True]
    assert spans(sqlite_store) == ([] if is_quiet else [(0, 300)])
    assert told(sqlite_store, 200) == ("ambiguous", ["anna"])
    log.read(500, *rotated)
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 200) == ("none", [])


def test_a_path_of_two_nodes(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """What each has there is another log."""
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    one = log.path.read_text()
    log.path.write_text(HEADER + block(50, "berta", "alloc", B))
    log.read(200)
    log.path.write_text(one + block(250, "anna", "release"))
    log.read(300)
    assert spans(sqlite_store) == []


def test_it_is_forgotten_with_the_last_that_it_touches(store: AssignmentStore, log: Log) -> None:
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    log.rotate().unlink()
    log.write(block(900, "anna", "release"), block(1000, "berta", "alloc"))
    log.read(1100)
    purge_assignments(store, at(850))
    assert spans(store) == [(0, 900)]
    hold_assignments(store, "REF", at(0) + 99 * DAY, [(A, 1500, at(500))])
    question = WhoQuestion(A, 1500, at(500))
    before = who(store, question)
    assert before.verdict == "ambiguous"
    purge_assignments(store, at(0) + 50 * DAY, at(0) + 50 * DAY)
    assert who(store, question) == before
    purge_assignments(store, at(0) + 50 * DAY, at(0) + 100 * DAY)
    purge_assignments(store, at(0) + 50 * DAY, at(0) + 100 * DAY)
    assert spans(store) == []


@pytest.mark.parametrize(
    ("format_", "begun", "ended"),
    [
        ("ports", [block(50, "anna", "alloc"), block(9000, "berta", "alloc")], block(60, "anna", "release")),
        (
            "detail",
            [record("Start", 50), record("Start", 9000, "berta", Acct_Session_Id="s2")],
            record("Stop", 60, took=10),
        ),
        # No attribute but the session's name has to be in it.
        (
            "detail",
            [record("Start", 50), record("Start", 9000, "berta", Acct_Session_Id="s2")],
            record("Stop", 60, Framed_IP_Address=""),
        ),
    ],
)
def test_an_end_that_a_later_import_reads_behind_the_next_one_s_beginning(
    store: AssignmentStore, tmp_path: Path, format_: str, begun: list[str], ended: str
) -> None:
    log = Log(store, tmp_path / "log", format_)
    log.write(*begun)
    log.read(9100)
    assert told(store, 8000) == ("one" if format_ == "ports" else "ambiguous", ["anna"])
    log.write(ended)
    log.read(9200)
    assert told(store, 55) == ("one", ["anna"])
    assert told(store, 8000) == ("none", [])
    assert told(store, 9000) == ("one", ["berta"])


@pytest.mark.parametrize(("format_", "took"), [("ports", None), ("detail", None), ("detail", 130)])
def test_who_has_no_end_in_a_log_that_is_read_after_the_next_one_has_that_of_the_next(
    sqlite_store: AssignmentStore, tmp_path: Path, format_: str, took: int | None
) -> None:
    log = Log(sqlite_store, tmp_path / "log", format_)
    if format_ == "ports":
        events = [block(one, *more) for one, *more in ((50, "anna", "alloc"), (60, "anna", "release"))]
        events += [
            block(70, "berta", "alloc"),
            block(200, "berta", "release"),
            block(300, "carla", "alloc", B),
        ]
    else:
        berta, carla = {"Acct_Session_Id": "s2"}, {"Acct_Session_Id": "s3", "Framed_IP_Address": B}
        events = [record("Start", 50), record("Stop", 60, took=10), record("Start", 70, "berta", **berta)]
        events += [record("Stop", 200, "berta", took, **berta), record("Start", 300, "carla", **carla)]
    log.write(*events[:3])
    rotated = log.rotate()
    log.write(*events[3:])
    log.read(400)
    log.read(400, rotated)
    assert told(sqlite_store, 55) == ("one", ["anna"])
    assert told(sqlite_store, 65) == ("none", [])
    assert told(sqlite_store, 250) == ("none", [])


@pytest.mark.parametrize("format_", ["ports", "detail"])
def test_what_had_ended_is_not_held_by_a_log_that_tells_it_again(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    """Such as another collector's, or an archive's, that has not its end."""
    log = Log(store, tmp_path / "log", format_)
    if format_ == "ports":
        events = [block(50, "anna", "alloc"), block(200, "anna", "release"), block(220, "berta", "alloc")]
        events += [block(900, "carla", "alloc"), block(1000, "carla", "release")]
        events += [block(1000, "dora", event, B) for event in ("alloc", "release")]
        missing = block(300, "berta", "release")
    else:
        berta, carla = {"Acct_Session_Id": "s2"}, {"Acct_Session_Id": "s3"}
        events = [record("Start", 50), record("Stop", 200, took=150), record("Start", 220, "berta", **berta)]
        events += [record("Start", 900, "carla", **carla), record("Stop", 1000, "carla", 100, **carla)]
        dora = {"Acct_Session_Id": "s4", "Framed_IP_Address": B}
        events += [record("Start", 1000, "dora", **dora), record("Stop", 1000, "dora", 0, **dora)]
        missing = record("Stop", 300, "berta", 80, **berta)
    log.write(*events)
    log.read(2000)
    logs = {
        "a": events[:1],
        "b": [events[2], events[0]],
        "c": [events[3], missing],
        "d": [events[2], missing],
        "e": events[5:6],
    }
    for name, told_again in logs.items():
        again = tmp_path / name
        again.write_text(log.header + "".join(told_again))
        log.read(2100, again)
        assert told(store, 100) == ("one", ["anna"])
        assert told(store, 950) == ("one", ["carla"])
        for seconds in (210, 1500):
            assert told(store, seconds) == ("none", [])
    assert told(store, 1500, B) == ("none", [])
    assert told(store, 250) == ("one", ["berta"])
    assert told(store, 400) == ("none", [])


def test_a_copy_of_what_a_log_had_first_hides_nothing_of_what_was_read_since(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log", "detail")
    log.write(record("Start", 0))
    log.read(100)
    copy = tmp_path / "copy"
    copy.write_text(log.path.read_text())
    log.write(record("Interim-Update", 150, took=150), record("Stop", 200, took=200))
    log.read(300)
    log.read(400, copy)
    again = tmp_path / "again"
    again.write_text(record("Interim-Update", 150, took=150))
    log.read(400, again)
    sqlite_store.looked(sqlite_store.sources()[1], at(400))
    assert told(sqlite_store, 350) == ("none", [])


def test_what_is_told_again_once_its_end_is_deleted_is_in_doubt(
    store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(store, tmp_path / "log")
    log.write(*(block(seconds, "anna", event) for seconds, event in ((0, "alloc"), (200, "release"))))
    log.write(block(260, "anna", "alloc"), block(280, "anna", "release"))
    log.write(block(300, "berta", "alloc", B))
    log.read(400)
    purge_assignments(store, at(250))
    again = tmp_path / "again"
    again.write_text(HEADER + block(0, "anna", "alloc"))
    log.read(500, again)
    assert told(store, 250) == ("ambiguous", ["anna"])
    assert told(store, 300, B) == ("one", ["berta"])
    # Nor has what is told behind it, and is known to have ended, begun anew.
    again.write_text(HEADER + block(260, "anna", "alloc"))
    log.read(500, again)
    assert [told(store, seconds) for seconds in (250, 270, 300)] == [
        ("ambiguous", ["anna"]), ("one", ["anna"]), ("ambiguous", []),
    ]  # fmt: skip


@pytest.mark.parametrize("format_", ["ports", "detail"])
def test_who_is_followed_without_an_end_in_what_is_read_late_is_kept(
    store: AssignmentStore, tmp_path: Path, format_: str
) -> None:
    def begins(seconds: int, user: str, address: str = A) -> str:
        if format_ == "ports":
            return block(seconds, user, "alloc", address)
        return record("Start", seconds, user, Framed_IP_Address=address, Acct_Session_Id=f"of-{user}")

    log = Log(store, tmp_path / "log", format_)
    log.write(begins(0, "zoe", B))
    log.read(100)
    log.write(begins(200, "anna"), begins(300, "berta"), begins(400, "carla"))
    rotated = log.rotate()
    log.write(begins(900, "emil", B))
    log.read(1000)
    assert log.read(1000, rotated).rows == 3
    followed = "one" if format_ == "ports" else "ambiguous"
    assert [told(store, seconds) for seconds in (250, 350, 450)] == [
        (followed, ["anna"]), (followed, ["berta"]), ("one", ["carla"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rotated", "after", "had"),
    [
        # An end is found though its subscriber has the same ports again; another's beginning ends what is
        # said to go on; an end that is read first is that of who began last.
        ([(200, "anna", "release")], [(400, "anna", "alloc"), (9000, "anna", "release")], "anna -- anna"),
        ([(200, "berta", "alloc"), (300, "berta", "release")], [(400, "carla", "alloc")], "anna -- carla"),
        (
            [(200, "anna", "alloc")],
            [(300, "anna", "release"), (400, "anna", "alloc"), (9000, "carla", "alloc")],
            "anna -- anna",
        ),
    ],
)
def test_what_a_gap_had_is_told_from_what_was_known_of_both_its_sides(
    store: AssignmentStore,
    log: Log,
    rotated: list[tuple[int, str, str]],
    after: list[tuple[int, str, str]],
    had: str,
) -> None:
    log.write(block(0, "anna", "alloc"))
    log.read(100)
    log.write(*(block(*event) for event in rotated))
    path = log.rotate()
    log.write(*(block(*event) for event in after), block(9100, "zoe", "alloc", B))
    log.read(9200)
    log.read(9200, path)
    assert " ".join("".join(told(store, seconds)[1]) or "--" for seconds in (150, 350, 450)) == had
    assert "ambiguous" not in {told(store, seconds)[0] for seconds in (150, 350, 450)}


@pytest.mark.parametrize(
    "events",
    [
        # Its end is before its beginning; the next one's is; it is told again; it began anew before its end.
        [(200, "anna", "release"), (50, "anna", "alloc"), (300, "anna", "alloc")],
        [(50, "anna", "alloc"), (200, "anna", "release"), (400, "berta", "release"), (300, "berta", "alloc")],
        [*((50 + 125 * n, "anna", ("alloc", "release")[n % 2]) for n in range(4)), (50, "anna", "alloc")],
        [(50, "anna", "alloc"), (300, "anna", "alloc"), (200, "anna", "release")],
    ],
)
def test_what_a_log_tells_out_of_order_names_nobody_wrongly(
    sqlite_store: AssignmentStore, tmp_path: Path, events: list[tuple[int, str, str]]
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(*(block(*event) for event in events), block(900, "zoe", "alloc", B))
    log.read(1000)
    begun = {(user, seconds) for seconds, user, event in events if event == "alloc"}
    ended = {(user, seconds) for seconds, user, event in events if event == "release"}
    for seconds in (100, 250, 350, 450):
        had = {
            user
            for user, start in begun
            if start < seconds and not any(who == user and start < end < seconds for who, end in ended)
        }
        verdict, found = told(sqlite_store, seconds)
        assert verdict == "ambiguous" or set(found) == had


@pytest.mark.parametrize(
    ("events", "read"),
    [
        ("anna 0 berta 100 berta 200 anna 400", 0),
        # The beginnings are read by one import, and an end by another.
        ("anna 0 berta 100 anna 400 berta 500", 2),
        # One subscriber has it for two destinations.
        ("anna 0 anna 50 anna 90 berta 100 berta 200 anna 400", 0),
    ],
)
def test_a_port_is_several_subscribers_at_once(
    store: AssignmentStore, log: Log, events: str, read: int
) -> None:
    begun: set[str] = set()
    lines = []
    for user, seconds in batched(events.split(), 2):
        is_end = user in begun and seconds != "50"
        lines.append(block(int(seconds), user, "release" if is_end else "alloc"))
        begun.add(user)
    log.write(*lines[:read])
    log.read(150)
    log.write(*lines[read:], block(900, "zoe", "alloc", B))
    log.read(1000)
    assert told(store, 20) == ("one", ["anna"])
    assert told(store, 150) == ("ambiguous", ["anna", "berta"])
    assert told(store, 350)[0] == "ambiguous"
    assert told(store, 450) == (("one", ["berta"]) if read else ("none", []))


def test_what_begins_again_within_a_second_is_not_told_again_where_a_log_goes_on(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    events = [block(50, "anna", "alloc"), block(50, "anna", "release"), block(50, "anna", "alloc")]
    log.write(*events[:2])
    log.read(60)
    log.write(*events[2:], block(900, "berta", "alloc", B))
    log.read(1000)
    assert told(sqlite_store, 500) == ("one", ["anna"])


def test_another_log_beside_does_not_follow_the_one_that_is_read(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Such as another collector's, of which all files are read first."""
    log, other = (Log(sqlite_store, tmp_path / name) for name in ("a.log", "b.log"))
    log.write(block(50, "anna", "alloc"))
    os.utime(log.path, (at(70) / 1000, at(70) / 1000))
    other.write(block(300, "carla", "alloc", B))
    other.read(400)
    log.read(400)
    assert told(sqlite_store, 250) == ("one", ["anna"])


def test_a_log_between_two_of_which_the_older_is_read_last_is_missing(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"))
    oldest = log.rotate("log.2")
    log.write(block(100, "anna", "release"), block(500, "anna", "alloc"))
    between = log.rotate("log.1")
    log.write(block(600, "zoe", "alloc", B))
    log.read(700)
    log.read(700, oldest)
    log.write(block(800, "anna", "release"))
    log.read(900)
    assert told(sqlite_store, 300)[0] == "ambiguous"
    log.read(900, between)
    assert [told(sqlite_store, seconds) for seconds in (50, 300, 550)] == [
        ("one", ["anna"]), ("none", []), ("one", ["anna"]),
    ]  # fmt: skip
    assert spans(sqlite_store) == []


def test_a_log_that_begins_in_the_second_in_which_the_one_before_it_ended_is_missing(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(100, "berta", "alloc"))
    oldest = log.rotate("log.2")
    log.write(block(100, "zoe", "alloc", B), block(200, "berta", "release"), block(300, "anna", "alloc"))
    between = log.rotate("log.1")
    log.write(block(500, "carla", "alloc"))
    log.read(700, oldest)
    log.read(700)
    assert told(sqlite_store, 350)[0] == "ambiguous"
    log.read(800, between)
    assert told(sqlite_store, 350) == ("one", ["anna"])
    assert spans(sqlite_store) == []


class History:
    """Whoever had a block of ports or an address, as translators and servers tell of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.held: dict[str, list[tuple[int, int, str]]] = {A: [], B: []}
        """Beginning, end and subscriber, by address: A's are in a translator's log, B's in accounting."""
        self.lines: dict[str, list[tuple[int, str]]] = {"ports": [], "detail": []}
        for address, format_ in ((A, "ports"), (B, "detail")):
            begun, number = rng.randrange(50), 0
            while begun < 60_000:
                ended, user = begun + rng.choice([0, 5, 3000, 9000]), rng.choice(["anna", "berta", "carla"])
                self.held[address].append((begun, ended, user))
                tell = self._block if format_ == "ports" else self._session
                self.lines[format_] += tell(begun, ended, user, f"s{number % 2}")
                begun, number = ended + rng.choice([1, 2, 1000, 3000]), number + 1

    def _block(self, begun: int, ended: int, user: str, _: str) -> list[tuple[int, str]]:
        return [(begun, block(begun, user, "alloc")), (ended, block(ended, user, "release"))]

    def _session(self, begun: int, ended: int, user: str, name: str) -> list[tuple[int, str]]:
        def told(status: str, seconds: int, address: str = B) -> tuple[int, str]:
            more = {"Acct_Session_Id": name, "Framed_IP_Address": address}
            return seconds, record(
                status, seconds, user, seconds - begun if seconds > begun else None, **more
            )

        updates = [told("Interim-Update", seconds) for seconds in range(begun + 2500, ended, 2500)]
        # No attribute but the session's name has to be in it.
        return [told("Start", begun), *updates, told("Stop", ended, self.rng.choice([B, ""]))]

    def written(self, format_: str, since: int, until: int) -> str:
        return "".join(line for seconds, line in self.lines[format_] if since <= seconds < until)

    def holders(self, address: str, seconds: int) -> set[str]:
        return {user for begun, ended, user in self.held[address] if begun <= seconds <= ended}


@pytest.mark.parametrize("seed", [*in_turns(0, 1, 2, 3), 103, 111])
def test_no_history_has_who_name_anybody_wrongly(
    sqlite_store: AssignmentStore, tmp_path: Path, seed: int
) -> None:
    """It is rotated at any time, and the rotated file read before the next one, later, or never."""
    rng = random.Random(seed)
    history = History(rng)
    (tmp_path / "rotated").mkdir()
    (tmp_path / "whole").mkdir()
    doubted = 0
    with AssignmentStore(tmp_path / "whole.db") as whole:
        logs = {one: Log(sqlite_store, tmp_path / "rotated" / one, one) for one in history.lines}
        wholes = {one: Log(whole, tmp_path / "whole" / one, one) for one in history.lines}
        now, read, rotated_at = 0, dict.fromkeys(logs, 0), dict.fromkeys(logs, 0)
        left: list[tuple[Log, Path, str]] = []
        for step in range(12):
            now += rng.choice([20, 4000, 9000])
            for name, log in logs.items():
                wholes[name].write(history.written(name, read[name], now))
                wholes[name].read(now)
                at_ = rng.randint(read[name], now)
                if at_ - rotated_at[name] > 3600:
                    rotated_at[name] = at_
                    log.write(history.written(name, read[name], at_))
                    read[name] = at_
                    rotated = log.rotate(f"{name}.{100 - step}")
                    os.utime(rotated, (at(at_) / 1000, at(at_) / 1000))
                    left.append((log, rotated, rng.choice(["first", "later", "never"])))
                log.write(history.written(name, read[name], now))
                read[name] = now
                for when in ("first", "now", "later"):
                    if when == "now":
                        log.read(now)
                    for one in [one for one in left if one[0] is log and one[2] == when]:
                        if when == "first" or rng.random() < 0.5:
                            left.remove(one)
                            log.read(now, one[1])
            for _ in range(40):
                seconds, address = rng.randrange(max(now - 15_000, 0), now), rng.choice([A, B])
                answer, before = asked(sqlite_store, seconds, address), asked(whole, seconds, address)
                doubted += answer.verdict != before.verdict
                if answer.verdict == "one":
                    assert {answer.candidates[0].interval.subscriber} == history.holders(address, seconds)
                unread = any(one.interval.ending == Ending.UNREAD for one in answer.candidates)
                if not left and not unread and not sqlite_store.gaps():
                    assert told(sqlite_store, seconds, address) == told(whole, seconds, address)
    assert doubted


@pytest.mark.parametrize("begins", [2000, 903])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_log_that_is_packed_before_it_was_read_is_missing(
    sqlite_store: AssignmentStore, tmp_path: Path, begins: int, is_read: bool
) -> None:
    """Its name and the time of its last row are all that is known of it."""
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(10, "anna", "alloc"))
    log.read(600, log.rotate())
    log.write(block(700, "anna", "release"), block(720, "berta", "alloc"), block(900, "berta", "release"))
    second = log.rotate("log.2")
    if is_read:
        log.read(1000, second)
    text = second.read_text()
    (tmp_path / "log.3.gz").write_bytes(gzip.compress(text.encode()))
    os.utime(tmp_path / "log.3.gz", (at(905) / 1000,) * 2)
    second.unlink()
    log.write(block(begins, "carla", "alloc"))
    log.read(2100, log.rotate())
    assert spans(sqlite_store) == ([] if is_read else [(10, begins)])
    assert told(sqlite_store, 800) == (("one", ["berta"]) if is_read else ("ambiguous", ["anna"]))
    second.write_text(text)
    log.read(2200, second)
    assert spans(sqlite_store) == []
    assert told(sqlite_store, 800) == ("one", ["berta"])


def update(seconds: int, user: str = "anna", begun: int = 0, **more: str) -> str:
    return record("Interim-Update", seconds, user, seconds - begun, **more)


def restarted(seconds: int) -> str:
    return record("Accounting-On", seconds, "", Acct_Session_Id="")


LOST = {
    "a Stop": ([record("Start", 0), update(600), record("Start", 3000, "berta", Acct_Session_Id="s2")], []),
    "by a restart": ([record("Start", 0), update(600), restarted(3000)], []),
    "read apart": ([record("Start", 0), update(600)], [restarted(3000), restarted(5000)]),
    "by two, of whom one lacks it": (
        [record("Start", 0), record("Start", 3000, "berta", Acct_Session_Id="s2")],
        [update(600), record("Start", 3000, "berta", Acct_Session_Id="s2")],
    ),
    "by two, of whom one has its beginning": (
        [record("Start", 0), update(600), record("Start", 3000, "berta", Acct_Session_Id="s2")],
        [update(300), record("Start", 3000, "berta", Acct_Session_Id="s2")],
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_whose_end_is_lost_is_certain_up_to_when_it_was_said_last(
    sqlite_store: AssignmentStore, tmp_path: Path, name: str
) -> None:
    for number, records in enumerate(LOST[name]):
        log = Log(sqlite_store, tmp_path / f"{number}", "detail")
        log.write(*records)
        log.read(9000)
    assert [told(sqlite_store, seconds) for seconds in (300, 600, 600.5)] == [("one", ["anna"])] * 3
    for seconds in (602, 2900):
        answer = asked(sqlite_store, seconds)
        assert (answer.verdict, answer_fields(answer)["candidates"][0]["end"]) == ("ambiguous", "silent")
    assert told(sqlite_store, 3100)[1] == (["berta"] if "restart" not in name and "apart" not in name else [])


def test_an_end_behind_the_next_one_s_beginning_is_none_that_is_lost(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """As where a session goes on at another server, which says so first."""
    log = Log(sqlite_store, tmp_path / "log", "detail")
    log.write(record("Start", 0), record("Start", 495, NAS_IP_Address="192.0.2.2"))
    log.write(record("Stop", 500, "", took=500))
    # Nor is anything where it was said up to then.
    log.write(update(600, begun=495, NAS_IP_Address="192.0.2.2"))
    log.write(record("Start", 600, "berta", Acct_Session_Id="s2"))
    log.read(9000)
    assert [told(sqlite_store, seconds) for seconds in (300, 598)] == [("one", ["anna"])] * 2


def test_of_what_tells_no_ends_the_next_beginning_is_one(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "log")
    log.write(block(0, "anna", "alloc"), block(3000, "berta", "alloc"))
    log.read(9000)
    assert told(sqlite_store, 2900) == ("one", ["anna"])
    cgn = Log(sqlite_store, tmp_path / "cgn", "cgn")
    line = "2026-11-18T{}:00Z cgn-1 NAT-TCP-{}: 100.64.0.{}->203.0.113.7:1024-2047\n"
    cgn.write(line.format("12:00", "A", 1), line.format("12:10", "A", 1), line.format("13:00", "A", 2))
    cgn.read(9000)
    shown = [told(sqlite_store, seconds, "203.0.113.7") for seconds in (3500, 5000)]
    assert shown == [("one", ["100.64.0.1"]), ("ambiguous", ["100.64.0.1"])]


@pytest.mark.parametrize("has_updates", [True, False])
def test_a_session_that_falls_silent_may_be_over(
    sqlite_store: AssignmentStore, tmp_path: Path, *, has_updates: bool
) -> None:
    log = Log(sqlite_store, tmp_path / "log", "detail")
    log.write(record("Start", 0), update(600) * has_updates)
    other = {"Framed_IP_Address": B, "Acct_Session_Id": "s9"}
    log.write(record("Start", 600 + 24 * 3600, "berta", **other))
    log.read(600 + 24 * 3600)
    assert told(sqlite_store, 9000) == ("one", ["anna"])
    log.write(update(600 + 25 * 3600, "berta", 600 + 24 * 3600, **other))
    log.read(600 + 25 * 3600)
    assert told(sqlite_store, 500) == ("one", ["anna"])
    assert told(sqlite_store, 9000)[0] == ("ambiguous" if has_updates else "one")
    log.write(record("Stop", 700 + 25 * 3600, took=700 + 25 * 3600))
    log.read(800 + 25 * 3600)
    assert told(sqlite_store, 9000) == ("one", ["anna"])
