"""Logs of carrier-grade translators, in the layout of each vendor, invented."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assignments.support import read
from urlward.assignments.formats import CgnParser, ReadOptions
from urlward.assignments.interval import FOREVER, AssignmentError
from urlward.assignments.store import AssignmentStore

LOGS = Path(__file__).parents[1] / "data" / "records" / "cgn"
DAY = 86_400_000


def moment(clock: str) -> int:
    return round(datetime.fromisoformat(f"2026-11-18T{clock}+00:00").timestamp() * 1000)


def blocks(store: AssignmentStore, address: str) -> list[tuple[str, tuple[int, int], str, str]]:
    """Subscriber, ports, and beginning and end as clock times."""

    def clock(ms: int) -> str:
        return "" if ms == FOREVER else datetime.fromtimestamp(ms / 1000, UTC).strftime("%T")

    found = store.find(address, None, moment("00:00:00") - DAY, moment("00:00:00") + 2 * DAY)
    return sorted((one.subscriber, one.ports, clock(one.start), clock(one.end)) for one in found)


COUNTS = [
    # file, rows, not understood: line and reason, other lines
    ("juniper.log", 10, [(11, "no block-port-high")], 2),
    ("cisco.log", 9, [(6, "fewer fields than such an event has"), (11, "no time with a year")], 4),
    ("a10.log", 6, [(10, "an event of a translator that is not known here")], 4),
]


@pytest.mark.parametrize(("name", "rows", "faults", "other"), COUNTS)
def test_counts_of_the_samples(
    sqlite_store: AssignmentStore, name: str, rows: int, faults: list[tuple[int, str]], other: int
) -> None:
    done = read(sqlite_store, "cgn", LOGS / name)
    assert (done.rows, done.skipped, done.faulty, done.other) == (rows, len(faults), len(faults), other)
    assert [line for line, _ in done.faults] == [line for line, _ in faults]
    for (_, told), (_, reason) in zip(done.faults, faults, strict=True):
        assert told.startswith(reason)


def test_blocks_of_junos(store: AssignmentStore) -> None:
    read(store, "cgn", LOGS / "juniper.log")
    assert blocks(store, "198.51.100.7") == [
        ("100.64.0.5", (48640, 48895), "15:06:41", "15:41:46"),
        ("100.64.0.6", (48896, 49151), "15:06:50", ""),
    ]
    assert blocks(store, "198.51.100.8") == [("100.64.0.9", (24064, 24191), "15:50:00", "15:51:00")]
    assert blocks(store, "198.51.100.9") == [
        ("100.64.0.10", (1100, 1149), "15:55:59", "15:57:00"),
        ("2001:db8::1", (1050, 1099), "15:55:00", ""),
    ]


def test_blocks_of_ios_xr_and_asa(store: AssignmentStore) -> None:
    read(store, "cgn", LOGS / "cisco.log")
    assert blocks(store, "198.51.100.7") == [
        ("100.64.0.5", (2048, 3071), "15:06:41", "15:20:00"),
        ("100.64.0.6", (3072, 4095), "15:06:41", ""),
    ]
    assert blocks(store, "198.51.100.8") == [("2001:db8::7", (1024, 2047), "15:30:00", "")]
    assert blocks(store, "198.51.100.20") == [("100.64.1.5", (1024, 1535), "15:40:00", "15:50:00")]


def test_blocks_of_acos(store: AssignmentStore) -> None:
    read(store, "cgn", LOGS / "a10.log")
    assert blocks(store, "198.51.100.7") == [("100.64.0.5", (22016, 22271), "15:06:41", "15:20:00")]
    assert blocks(store, "198.51.100.8") == [("100.64.0.9", (3000, 4000), "15:30:00", "")]
    assert blocks(store, "198.51.100.9") == [("100.64.0.10", (10000, 10063), "15:31:00", "15:34:00")]


def test_the_zone_is_of_times_that_do_not_say_theirs() -> None:
    line = "1 2026 Nov 18 15:06:41 192.0.2.1 - - NAT44 - [UserbasedA - 100.64.0.5 - - 198.51.100.7 - 1 2 - -]"
    (found,) = CgnParser(ReadOptions(zone=ZoneInfo("Europe/Berlin"))).parse([line]).sightings
    assert found[4] == moment("14:06:41")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2026-11-18T15:30:00Z x FIXED-NAT-PORTS 100.64.0.9->198.51.100.8:4000-3000", "ports that"),
        ("2026-11-18T15:30:00Z x FIXED-NAT-PORTS 100.64.0.999->198.51.100.8:1-2", "an address, a number"),
        ('RT_SRC_NAT_PBA_ALLOC [internal-ip="100.64.0.9"]', "no reflexive-ip"),
        ("RT_SRC_NAT_PBA_ALLOC: said in another way", "no internal-ip"),
    ],
)
def test_events_that_are_not_understood(line: str, reason: str) -> None:
    parsed = CgnParser(ReadOptions()).parse(["", line])
    ((number, told),) = parsed.faults
    assert (parsed.rows, parsed.sightings, number) == (1, [], 1)
    assert told.startswith(reason)
    assert "100.64" not in told


def test_no_columns() -> None:
    with pytest.raises(AssignmentError, match="'subscriber' is none of"):
        CgnParser(ReadOptions({"subscriber": "x"}))


_PIECES = st.sampled_from(
    [
        "RT_SRC_NAT_PBA_ALLOC", " [", 'internal-ip="', "100.64.0.5", '"', "]", " -> ", "[UserbasedA ", " - ",
        "1-2", ":", "%ASA-6-305014: ", "TCP block of ports for translation from in:", " to out:", "/",
        "NAT-TCP-N: ", "0x", "CEF:0|A10|CFW|6|CGN 106|x|5|", "src=", "cn3=", "2026-11-18T15:30:00Z",
        "2026 Nov 99 99:99:99", "epoch ",
    ]
)  # fmt: skip


@given(st.lists(st.lists(_PIECES, max_size=12).map("".join), max_size=4))
def test_any_lines_are_counted_or_passed_over(lines: list[str]) -> None:
    parsed = CgnParser(ReadOptions()).parse(lines)
    assert parsed.rows == len(parsed.sightings) + parsed.skipped
