from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assignments.support import at, intervals, read
from urlward.assignments.formats import IscParser, ReadOptions
from urlward.assignments.store import AssignmentStore

A = "192.0.2.7"


def when(seconds: int) -> str:
    return datetime.fromtimestamp(at(seconds) / 1000, UTC).strftime("%w %Y/%m/%d %H:%M:%S")


def lease(start: int, end: str, state: str = "active", who: str = "02:00:00:00:00:01", more: str = "") -> str:
    return (
        f"lease {A} {{\n  starts {when(start)};\n  ends {end};\n  cltt {when(start)};\n"
        f"  binding state {state};\n  next binding state free;\n  rewind binding state free;\n"
        f'  hardware ethernet {who};\n  uid "\\001\\002";\n{more}  client-hostname "anna; {{";\n}}\n'
    )


HEAD = "# All times in this file are in UTC (GMT).\nauthoring-byte-order little-endian;\n\n"
MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize("over", ["free", "backup"])
def test_leases(store: AssignmentStore, tmp_path: Path, over: str) -> None:
    path = tmp_path / "dhcpd.leases"
    path.write_text(
        HEAD
        + lease(0, when(100))
        + 'server-duid "\\000\\001";\n'
        + lease(50, when(150))
        + lease(50, when(120), over)
        + lease(200, when(300), who=OTHER)
        + lease(200, when(300), "abandoned", who=OTHER)
    )
    done = read(store, "isc", path)
    assert (done.rows, done.skipped) == (5, 0)
    assert intervals(store, A) == [(MAC, 0, 120, "TOLD"), (OTHER, 200, 300, "DECLINED")]


@pytest.mark.parametrize("over", ["free", "backup"])
def test_what_was_offered_and_not_taken_is_nobodys(
    sqlite_store: AssignmentStore, tmp_path: Path, over: str
) -> None:
    """dhcpd writes it down like a lease that is over, as failover peers even out their pools."""
    path = tmp_path / "dhcpd.leases"
    offered = lease(200, when(307), over, who=OTHER)
    path.write_text(offered)
    assert read(sqlite_store, "isc", path).rows == 1
    path.write_text(
        offered
        + lease(400, when(1000))
        + lease(400, when(500), over)
        + lease(590, when(500), over)
        + lease(600, when(720), over, who=OTHER)
        + lease(610, when(720), over)
    )
    assert read(sqlite_store, "isc", path).skipped == 0
    assert intervals(sqlite_store, A) == [(MAC, 400, 500, "TOLD")]


def test_an_address_that_was_abandoned_is_nobodys_for_certain(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path = tmp_path / "dhcpd.leases"
    nobodys = lease(0, when(86_500), "abandoned").replace(f"  hardware ethernet {MAC};\n", "")
    path.write_text(lease(0, when(100)) + nobodys.replace('  uid "\\001\\002";\n', ""))
    assert read(sqlite_store, "isc", path).skipped == 0
    assert intervals(sqlite_store, A) == [(MAC, 0, 100, "DECLINED")]
    old = (
        lease(200, when(300))
        + f"lease {A} {{\n  starts {when(200)};\n  ends {when(210)};\n  abandoned;\n}}\n"
    )
    path.write_text(old)
    assert read(sqlite_store, "isc", path).skipped == 0
    assert intervals(sqlite_store, A)[1:] == [(MAC, 200, 300, "DECLINED")]


def test_local_times_and_no_end(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "dhcpd.leases"
    path.write_text(lease(0, "never").replace(when(0), f"epoch {at(7) // 1000}; # Wed Nov 18"))
    read(sqlite_store, "isc", path)
    assert intervals(sqlite_store, A) == [(MAC, 7, None, "NONE")]


@pytest.mark.parametrize(
    "end", [f"epoch {2**70}; # x", "5 9999/12/31 23:59:59", "5 2026/11/24 24:00:00", "0 0000/00/00 00:00:00"]
)
def test_a_time_out_of_all_reason_is_one_lease_not_understood(
    sqlite_store: AssignmentStore, tmp_path: Path, end: str
) -> None:
    path = tmp_path / "dhcpd.leases"
    path.write_text(lease(0, end) + lease(10, when(20)))
    done = read(sqlite_store, "isc", path)
    assert (done.rows, done.skipped) == (2, 1)
    assert intervals(sqlite_store, A) == [(MAC, 10, 20, "EXPIRY")]


@pytest.mark.parametrize("start", ["epoch ; # x", "epoch x; # x", "epoch 1 2; # x", "never", "epoch 0; # x"])
def test_a_beginning_that_is_none_is_one_lease_not_understood(
    sqlite_store: AssignmentStore, tmp_path: Path, start: str
) -> None:
    path = tmp_path / "dhcpd.leases"
    odd = lease(0, when(10)).replace(f"starts {when(0)};", f"starts {start};")
    assert start in odd
    path.write_text(odd + lease(10, when(20)))
    done = read(sqlite_store, "isc", path)
    assert (done.rows, done.skipped) == (2, 1)
    assert intervals(sqlite_store, A) == [(MAC, 10, 20, "EXPIRY")]


def test_an_active_lease_of_nobody_is_counted(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "dhcpd.leases"
    unnamed, free = (
        lease(0, when(10), state)
        .replace(f"  hardware ethernet {MAC};\n", "")
        .replace('  uid "\\001\\002";\n', "")
        for state in ("active", "free")
    )
    path.write_text(unnamed + lease(10, when(20)) + free)
    done = read(sqlite_store, "isc", path)
    assert (done.rows, done.skipped) == (3, 1)
    assert "no subscriber" in done.faults[0][1]
    assert intervals(sqlite_store, A) == [(MAC, 10, 20, "EXPIRY")]


def test_what_an_option_says_is_the_subscriber(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "dhcpd.leases"
    path.write_text(lease(0, when(100), more='  option agent.circuit-id "line 5";\n'))
    read(sqlite_store, "isc", path, ReadOptions({"subscriber": "agent.circuit-id"}))
    assert intervals(sqlite_store, A)[0][0] == "line 5"


@pytest.mark.parametrize("over", ["free", "released"])
def test_what_an_option_said_is_not_in_a_lease_that_is_over(
    sqlite_store: AssignmentStore, tmp_path: Path, over: str
) -> None:
    path = tmp_path / "dhcpd.leases"
    options = ReadOptions({"subscriber": "agent.circuit-id"})
    line, other = (f'  option agent.circuit-id "line {number}";\n' for number in (5, 6))
    path.write_text(
        lease(0, when(1000), more=line) + lease(500, when(1500), more=line) + lease(500, when(700), over)
        + lease(800, when(1800), who=OTHER, more=other) + lease(800, when(1800), over, who=OTHER)
        + lease(2000, when(3000), over) + lease(4000, when(5000), more=line) + lease(3500, when(4500), over)
    )  # fmt: skip
    assert read(sqlite_store, "isc", path, options).skipped == 0
    assert intervals(sqlite_store, A) == [
        ("line 5", 0, 700, "TOLD"), ("line 6", 800, 1800, "TOLD"), ("line 5", 4000, 5000, "EXPIRY")
    ]  # fmt: skip


def test_a_lease_that_is_not_all_there_is_read_later(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "dhcpd.leases"
    whole = HEAD + lease(0, when(100)) + lease(50, when(150))
    path.write_text(whole[:-30])
    assert read(sqlite_store, "isc", path).rows == 1
    path.write_text(whole)
    assert read(sqlite_store, "isc", path).rows == 1
    assert intervals(sqlite_store, A) == [(MAC, 0, 150, "EXPIRY")]


def test_a_long_line_takes_no_long_time() -> None:
    """Each of whose blanks could be where a line of something else begins."""
    assert IscParser(ReadOptions()).parse([" " * 100_000 + "x"]).other == [0]


@given(text=st.text(st.sampled_from("lease 192.0.2.7 {\n starts; ends never } epoch 5")))
def test_any_text_is_counted_or_passed_over(text: str) -> None:
    parsed = IscParser(ReadOptions()).parse(text.split("\n"))
    assert parsed.rows >= parsed.skipped
