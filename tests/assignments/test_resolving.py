"""Whatever the order in which logs are read, and in however many imports: `who` gives the same answers."""

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
from sqlalchemy import event

from assignments.support import DAY, at
from assignments.test_rotation import Log, asked, block, record
from conftest import in_turns
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.retention import purge_assignments
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, who

ADDRESSES = ["198.51.100.7", "198.51.100.8"]
PREFIX, INSIDE = "2001:db8:0:7::/64", "2001:db8:0:7::5"
LAST = 20_000

type Line = tuple[int, str]
"""Seconds, and what is written then."""


def accounting(rng: random.Random) -> list[Line]:
    """Sessions, some of which have a prefix too, lose their Stops or are ended by their server's restart."""
    lines: list[Line] = []
    free = dict.fromkeys([*ADDRESSES, PREFIX], 0)
    restarts, number, now = [rng.randrange(5000, 15_000)], 0, rng.randrange(50)

    def write(status: str, seconds: int, user: str, name: str, began: int, *addresses: str) -> None:
        fields = {"Acct_Session_Id": name, "Framed_IP_Address": addresses[0] if addresses else ""}
        fields |= {"Framed_IPv6_Prefix": addresses[1]} if addresses[1:] else {}
        took = seconds - began if status != "Start" else None
        lines.append((seconds, record(status, seconds, user, took, **fields)))
        if rng.random() < 0.1:  # told again, by a server that says how late
            lines.append((seconds + 7, record(status, seconds, user, took, **fields)))

    while now < LAST:
        if there := [one for one in ADDRESSES if free[one] <= now]:
            number += 1
            user, name, begun = rng.choice(["anna", "berta", "carla"]), f"s{number}", now
            ended = begun + rng.choice([20, 900, 4000])
            restart = next((one for one in restarts if begun < one <= ended), None)
            has = [rng.choice(there)]
            has += [PREFIX] if free[PREFIX] <= now and rng.random() < 0.6 else []
            free |= dict.fromkeys(has, (restart or ended) + rng.choice([0, 5]))
            write("Start", begun, user, name, begun, *has)
            for seconds in range(begun + 300, restart or ended, 300):
                write("Interim-Update", seconds, user, name, begun, *has)
            if restart is None and rng.random() < 0.9:
                write("Stop", ended, user, name, begun, *(has if rng.random() < 0.7 else ()))
        now += rng.choice([1, 5, 400])
    lines += [(one, record("Accounting-On", one, "", Acct_Session_Id="")) for one in restarts]
    return sorted(lines, key=lambda line: line[0])


def blocks(rng: random.Random) -> list[Line]:
    """Blocks of ports of a translator."""
    lines: list[Line] = []
    for address in ADDRESSES:
        now = rng.randrange(50)
        while now < LAST:
            user, ended = rng.choice(["anna", "berta", "carla"]), now + rng.choice([5, 900, 4000])
            lines.append((now, block(now, user, "alloc", address)))
            if rng.random() < 0.9:
                lines.append((ended, block(ended, user, "release", address)))
            now = ended + rng.choice([1, 5, 400])
    return sorted(lines, key=lambda line: line[0])


def answers(store: AssignmentStore, moments: list[tuple[str, int]]) -> list[tuple[str, list[str]]]:
    found = []
    for address, seconds in moments:
        answer = who(store, WhoQuestion(address, 1500, at(seconds)))
        found.append((answer.verdict, sorted({one.interval.subscriber for one in answer.candidates})))
    return found


@pytest.mark.parametrize("format_", ["detail", "ports"])
@pytest.mark.parametrize("seed", in_turns(*range(8)))
def test_any_order_of_imports_gives_the_same_answers(
    made_in_file: Path, tmp_path: Path, seed: int, format_: str
) -> None:
    rng = random.Random(seed)
    lines = (accounting if format_ == "detail" else blocks)(rng)
    header = "" if format_ == "detail" else "address,ports,from,subscriber,event\n"
    cuts = [0, *sorted(rng.sample(range(1, len(lines)), 3)), len(lines)]
    files = [lines[since:until] for since, until in itertools.pairwise(cuts)]
    moments = [(rng.choice([*ADDRESSES, INSIDE]), rng.randrange(LAST)) for _ in range(60)]
    orders = [list(range(4)), *map(list, rng.sample([*itertools.permutations(range(4))][1:], 4))]
    given = []
    for order in orders:
        folder = tmp_path / "".join(map(str, order))
        folder.mkdir()
        with AssignmentStore(Path(shutil.copy(made_in_file, folder / "a.db"))) as store:
            # Those that are not read yet are there: what is missing is known.
            for one, some in enumerate(files):
                path = folder / f"log-2026111{one}"
                path.write_text(header + "".join(text for _, text in some))
                os.utime(path, (at(some[-1][0]) / 1000,) * 2)
            for one in order:
                path = folder / f"log-2026111{one}"
                source = store.source(format_, format_, str(path))
                import_file(store, source, path, ReadOptions(), lambda: at(LAST + 9000) / 1000)
            assert store.gaps() == []
            store.looked(source, at(LAST + 9000))
            given.append(answers(store, moments))
    for order, one in zip(orders, given, strict=True):
        different = [each for each in zip(moments, given[0], one, strict=True) if each[1] != each[2]]
        assert (order, different) == (order, [])


def named(store: AssignmentStore, *moments: int) -> list[tuple[str, list[str]]]:
    """Verdict, and subscribers, at each."""
    found = [asked(store, seconds) for seconds in moments]
    return [(one.verdict, sorted({each.interval.subscriber for each in one.candidates})) for one in found]


def other(seconds: int, took: int | None = None) -> str:
    """Something said of somebody elsewhere, by which it is known up to when a log tells."""
    status = "Start" if took is None else "Interim-Update"
    return record(status, seconds, "dora", took, Acct_Session_Id="d1", Framed_IP_Address="198.51.100.99")


def told(status: str, seconds: int, user: str, took: int | None = None, **more: str) -> str:
    return record(status, seconds, user, took, Acct_Session_Id=user, **more)


NOBODY = ("none", [])


def test_what_is_added_to_a_log_behind_what_followed_it(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(other(100), other(900, 800))
    log.read(1000)
    before = log.rotate()
    log.write(
        other(1000, 900), told("Start", 1100, "berta"), told("Stop", 1500, "berta", 400), other(3000, 2900)
    )
    log.read(3100)
    with before.open("a") as file:  # whoever writes opens it anew some time later
        file.write(told("Start", 950, "anna") + other(960, 860))
    log.read(3200, before)
    assert named(sqlite_store, 1200, 1700) == [("one", ["berta"]), NOBODY]


@pytest.mark.parametrize("later", [5000, 50_000])
def test_who_came_next_is_found_behind_what_ended_nobody(
    sqlite_store: AssignmentStore, tmp_path: Path, later: int
) -> None:
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    stop = told("Stop", 1801, "carla", 101)  # read behind the next one's beginning
    log.write(other(100), told("Start", 1700, "carla"), told("Start", 1800, "anna"), stop, other(1900, 1800))
    before = log.rotate()
    log.write(other(2000, 1900), told("Start", later, "berta"), told("Stop", later + 500, "berta", 500))
    log.write(other(later + 4000, later + 3900))
    log.read(later + 4100)
    log.read(later + 4100, before)
    assert named(sqlite_store, 1850, later - 100, later + 100) == [
        ("one", ["anna"]), ("one", ["anna"]), ("one", ["berta"]),
    ]  # fmt: skip
    assert named(sqlite_store, later + 600, later + 3000) == [NOBODY, NOBODY]


def test_a_beginning_that_was_told_late_goes_with_its_end(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    day = DAY // 1000
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    start = told("Start", 1805, "anna", Acct_Delay_Time="5")
    log.write(
        other(100), other(1804, 1704), start, told("Stop", 2500, "anna", 700), other(3 * day, 3 * day - 100)
    )
    log.read(3 * day + 100)
    assert named(sqlite_store, 2000, 3000) == [("one", ["anna"]), NOBODY]
    purge_assignments(sqlite_store, at(2600))
    assert named(sqlite_store, 3000, day) == [NOBODY, NOBODY]


def test_nobody_is_named_for_certain_whose_end_may_be_deleted(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    day = DAY // 1000
    for name, *stop in (("one", told("Stop", 2500, "anna", 700)), ("two",)):
        (tmp_path / name).mkdir()
        log = Log(sqlite_store, tmp_path / name / "detail", "detail")
        log.write(other(100), told("Start", 1800, "anna"), *stop, other(3 * day, 3 * day - 100))
        log.read(3 * day + 100)
    assert named(sqlite_store, 2000, 3000) == [("one", ["anna"]), NOBODY]
    purge_assignments(sqlite_store, at(2600))
    assert named(sqlite_store, 3000, day) == [("ambiguous", ["anna"])] * 2


def test_a_session_began_as_its_start_says_though_its_servers_clock_is_set(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        log = Log(sqlite_store, tmp_path / name / "detail", "detail")
        log.write(told("Start", 900, "anna"), told("Interim-Update", 3000, "anna", 2500))
        log.read(3100)
    log.write(told("Stop", 4000, "anna", 3500))
    log.read(4100)
    assert named(sqlite_store, 700, 2000, 3500, 4100) == [NOBODY, *[("one", ["anna"])] * 2, NOBODY]


def test_what_is_told_late_is_looked_for_at_once(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    asked_for: list[str] = []
    event.listen(sqlite_store.engine, "before_cursor_execute", lambda *args: asked_for.append(args[2]))
    counts = []
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(other(50_000), told("Start", 50_000, "zoe"))
    for number in range(60):
        late = {"Acct_Session_Id": f"s{number}", "Acct_Delay_Time": str(50_001 - 20 * number)}
        log.write(record("Start", 50_001, f"user-{number}", **late))
        log.read(51_000)
        asked_for.clear()
        assert named(sqlite_store, 49_000) == [("one", [f"user-{number}"])]
        counts.append(len(asked_for))
    assert counts[59] <= counts[9]


def read_apart(store: AssignmentStore, folder: Path, *logs: list[str]) -> None:
    """Read what several collectors have."""
    for number, events in enumerate(logs):
        (folder / str(number)).mkdir()
        log = Log(store, folder / str(number) / "detail", "detail")
        log.write(*events)
        log.read(LAST)


def test_an_end_is_of_the_session_that_began_as_it_says(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Where names begin anew: another's later one, whose beginning another collector has alone."""
    other_place = {"Framed_IP_Address": "198.51.100.99"}
    anna, berta = record("Start", 900), record("Start", 4200, "berta", **other_place)
    stop = record("Stop", 6700, "berta", 2500, Framed_IP_Address="0.0.0.0")
    read_apart(sqlite_store, tmp_path, [anna, stop], [record("Stop", 3400, took=2500), berta, stop])
    assert named(sqlite_store, 1000, 5000) == [("one", ["anna"]), NOBODY]


def test_a_restart_is_between_two_sessions_of_one_name(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    restart = record("Accounting-On", 2700, "", Acct_Session_Id="")
    update, start = record("Interim-Update", 2600, took=600), record("Start", 3900)
    read_apart(
        sqlite_store, tmp_path, [record("Start", 2000), update, restart, start, other(5000)], [update, start]
    )
    assert named(sqlite_store, 2500, 3000, 4000) == [("one", ["anna"]), NOBODY, ("one", ["anna"])]


def test_what_is_told_twice_in_a_row_is_told_once(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    prefix = {"Framed_IP_Address": "198.51.100.99", "Framed_IPv6_Prefix": "2001:db8:0:7::/64"}
    again = record("Interim-Update", 930, took=5, Acct_Delay_Time="20", **prefix)
    start = record("Start", 905, Framed_IP_Address="198.51.100.99")
    restart = record("Accounting-On", 1070, "", Acct_Session_Id="")
    read_apart(
        sqlite_store, tmp_path, [start, record("Interim-Update", 910, took=5, **prefix), again, restart]
    )
    assert asked(sqlite_store, 910, INSIDE).verdict == "one"
    # Its own is lost.
    assert {one.interval.ending.name for one in asked(sqlite_store, 1000, INSIDE).candidates} == {"SILENT"}


def test_a_block_that_ended_in_what_was_not_read_before_its_next_end(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """The middle one of three logs is read last, and was not there before."""
    logs = [
        [block(100, "anna", "alloc")],
        [block(500, "anna", "release"), block(900, "anna", "alloc")],
        [block(1000, "anna", "release"), block(1100, "berta", "alloc")],
    ]
    for number in (0, 2, 1):
        log = Log(sqlite_store, tmp_path / f"log-2026111{number}")
        log.write(*logs[number])
        log.read(LAST)
    assert named(sqlite_store, 300, 700) == [("one", ["anna"]), ("ambiguous", ["anna"])]


def test_ends_without_their_beginnings_are_looked_for_at_once(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """As where two collectors have a part of a translator's log each."""
    asked_for: list[str] = []
    event.listen(sqlite_store.engine, "before_cursor_execute", lambda *args: asked_for.append(args[2]))
    begins, ends = (Log(sqlite_store, tmp_path / name) for name in ("begins", "ends"))
    counts = []
    for number in range(40):
        begins.write(block(100 * number, f"user-{number}", "alloc"))
        ends.write(block(100 * number + 60, f"user-{number}", "release"))
        for log in (begins, ends):
            log.read(9000)
        asked_for.clear()
        assert named(sqlite_store, 30, 80) == [("one", ["user-0"]), NOBODY]
        counts.append(len(asked_for))
    assert counts[39] <= counts[9] + 2


def test_an_end_is_not_of_one_of_the_same_name_before_a_restart(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Of the same user on the same address; the restart is in a log that is read last."""
    restart = record("Accounting-On", 1500, "", Acct_Session_Id="")
    logs = (
        [record("Start", 100)],
        [restart, record("Start", 1980)],
        [record("Stop", 2000, took=20), other(2100)],
    )
    for number in (0, 2, 1):
        log = Log(sqlite_store, tmp_path / f"detail-2026111{number}", "detail")
        log.write(*logs[number])
        log.read(LAST)
    assert named(sqlite_store, 1000, 1700, 1990) == [("ambiguous", ["anna"]), NOBODY, ("one", ["anna"])]


def test_an_end_in_the_second_in_which_the_next_begins_is_of_the_one_before(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    logs = (
        [block(2969, "anna", "release")],
        [block(2569, "anna", "release"), block(2569, "anna", "alloc")],
        [block(69, "anna", "alloc")],
    )
    for number, events in enumerate(logs):
        log = Log(sqlite_store, tmp_path / f"log-2026111{9 - number}")
        log.write(*events)
        log.read(LAST)
    assert named(sqlite_store, 1000, 2700) == [("one", ["anna"])] * 2
