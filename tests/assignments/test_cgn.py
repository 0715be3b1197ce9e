"""Logs of carrier-grade translators, in the layout of each vendor, invented."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assignments.support import read
from rows import each_row
from urlward.assignments.formats import CgnParser, ReadOptions
from urlward.assignments.interval import FOREVER, AssignmentError
from urlward.assignments.store import AssignmentStore

LOGS = Path(__file__).parents[1] / "data" / "records" / "cgn"
DAY = 86_400_000


def moment(clock: str) -> int:
    return round(datetime.fromisoformat(f"2026-11-18T{clock}+00:00").timestamp() * 1000)


def clock(ms: int) -> str:
    return "" if ms == FOREVER else datetime.fromtimestamp(ms / 1000, UTC).strftime("%T")


def blocks(store: AssignmentStore, address: str) -> list[tuple[str, tuple[int, int], str, str]]:
    """Subscriber, ports, and beginning and end as clock times."""
    found = store.find(address, None, moment("00:00:00") - DAY, moment("00:00:00") + 2 * DAY)
    return sorted((one.subscriber, one.ports, clock(one.start), clock(one.end)) for one in found)


def event(at: str, what: str, whose: int, epoch: int) -> str:
    """What Junos says of a block of ports."""
    return (
        f'<14>1 2026-11-18T{at}Z cgn-1 RT_NAT - RT_SRC_NAT_PBA_{what} [internal-ip="100.64.0.{whose}" '
        f'block-port-low="1024" block-port-high="2047" reflexive-ip="198.51.100.7" '
        f'epoch-time-64="{epoch:x}"]\n'
    )


EVENTS = [
    'RT_SRC_NAT_PBA_ALLOC [junos@2636.1.1.1.2.129 internal-ip="100.64.0.5" block-port-low="1024" '
    'block-port-high="2047" reflexive-ip="198.51.100.7"]',
    "RT_SRC_NAT_PBA_RELEASE: Subscriber 100.64.0.5 used [1/2], port block [1024-2047] from 198.51.100.7 x",
    "JSERVICES_NAT_PORT_BLOCK_ALLOC: 100.64.0.5 -> 198.51.100.7:1024-2047",
    "[UserbasedA - 100.64.0.5 - - 198.51.100.7 - 1024 2047 - -]",
    "%ASA-6-305014: Allocated TCP block of ports for translation from in:100.64.0.5 to "
    "out:198.51.100.7/1024-2047",
    "CEF:0|A10|CFW|6|CGN 106|x|5|proto=TCP src=100.64.0.5 sourceTranslatedAddress=198.51.100.7 "
    "sourceTranslatedPort=1024 cn3=2047",
    "FIXED-NAT-PORTS 100.64.0.5->198.51.100.7:1024-2047",
]

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


def test_a_block_that_was_released_before_its_beginning_was_written(
    store: AssignmentStore, tmp_path: Path
) -> None:
    """Its log tells both in whole seconds, and was written at others."""
    begun = moment("15:30:00") // 1000
    lines = [
        ("15:30:00.542", "ALLOC", 5, begun), ("15:30:00.618", "RELEASE", 5, begun),
        ("15:40:03", "ALLOC", 6, begun + 600), ("15:40:04", "RELEASE", 6, begun + 602),
        ("16:00:00.100", "ALLOC", 7, begun + 1800), ("16:20:00.300", "INTERIM", 7, begun + 1800),
        ("16:20:00.500", "RELEASE", 7, begun + 3000), ("16:30:00", "ALLOC", 8, begun + 3600),
    ]  # fmt: skip
    path = tmp_path / "log"
    path.write_text("".join(event(*told) for told in lines))
    read(store, "cgn", path)
    assert blocks(store, "198.51.100.7") == [
        ("100.64.0.5", (1024, 2047), "15:30:00", "15:30:00"),
        ("100.64.0.6", (1024, 2047), "15:40:00", "15:40:02"),
        ("100.64.0.7", (1024, 2047), "16:00:00", "16:20:00"),
        ("100.64.0.8", (1024, 2047), "16:30:00", ""),
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # One card's release behind another's next allocation.
        *(
            (
                [("15:00:00", "ALLOC", 5), ("15:30:00", "ALLOC", 6), (released, "RELEASE", 5)],
                [(5, "15:00:00", released, "TOLD"), (6, "15:30:00", "", "NONE")],
            )
            for released in ("15:29:58", "15:30:00")
        ),
        # What lies between was lost: whoever had it first has it no more, nor does the other one.
        (
            [("15:00:00", "ALLOC", 5), ("15:30:00", "RELEASE", 6),],
            [
                (5, "15:00:00", "15:00:01", "SAID"), (5, "15:00:01", "15:30:00", "SILENT"),
                (6, "15:00:00", "15:30:00", "BESIDE"),
            ],
        ),
        # But for who is there behind that.
        (
            [("15:00:00", "ALLOC", 5), ("15:35:00", "INTERIM", 5, "15:00:00"), ("15:30:00", "RELEASE", 6)],
            [(5, "15:00:00", "", "NONE"), (6, "15:00:00", "15:30:00", "BESIDE")],
        ),
        # Another allocation of the same one's, of which an interim log alone tells.
        (
            [("15:00:00", "ALLOC", 5), ("15:30:00", "INTERIM", 5, "15:20:00"), ("15:40:00", "RELEASE", 5)],
            [
                (5, "15:00:00", "15:00:01", "SAID"), (5, "15:00:01", "15:20:00", "SILENT"),
                (5, "15:20:00", "15:40:00", "TOLD"),
            ],
        ),
    ],
)  # fmt: skip
def test_a_block_of_which_not_all_is_told_in_order(
    sqlite_store: AssignmentStore, tmp_path: Path, lines: list[tuple[Any, ...]], expected: list[object]
) -> None:
    path = tmp_path / "log"
    with path.open("w") as log:
        for at, what, whose, *begun in lines:
            log.write(event(at, what, whose, moment(*begun or [at]) // 1000))
    read(sqlite_store, "cgn", path)
    found = sqlite_store.find("198.51.100.7", None, moment("00:00:00"), moment("23:59:59"))
    told = [
        (int(one.subscriber.rpartition(".")[2]), clock(one.start), clock(one.end), one.ending.name)
        for one in found
    ]
    assert sorted(told) == expected


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


@each_row(
    ("time", "clock"),
    [
        ("Nov 18 2026 15:30:00 UTC:", "15:30:00"),
        ("Nov 18 2026 15:30:00 CET:", "14:30:00"),
        ("Nov 18 2026 15:30:00 CGN", "14:30:00"),  # its name
        ("Nov 18 2026 15:30:00 +0530 cgn-1", "10:00:00"),
        ("2026 Nov 18 15:30:00.5 +05:30 cgn-1", "10:00:00.500"),
        ("2026-11-18T15:30:00,500+05:30 cgn-1", "10:00:00.500"),
        ("2026-11-18 15:30:00 +0530 cgn-1", "10:00:00"),
        ("2026/11/18 15:30:00 GMT cgn-1", "15:30:00"),
        ("2026-11-18T15:30:00Z 192.0.2.9 Nov 18 2026 15:39:00 UTC:", "15:39:00"),
        ("Nov 18 15:30:01 2026 Nov 18 15:30:00 cgn-1", "14:30:00"),
        ("Nov 18 2026 15:30:00 CEST:", "another zone than --zone"),
        ("Nov 18 2026 15:30:00 MEZ:", "14:30:00"),
        ("Nov 18 2026 15:30:00 MESZ:", "another zone than --zone"),
        ("2026-11-18T15:30:00 EST cgn-1", "another zone than --zone"),
        ("2026-11-18T15:30:00Z 192.0.2.9 Nov 18 2026 17:30:00:", "ahead of its collector's"),
    ],
)
def test_the_zone_that_a_time_says(time: str, clock: str) -> None:
    for event in EVENTS:
        parsed = CgnParser(ReadOptions(zone=ZoneInfo("Europe/Berlin"))).parse([f"{time} {event}"])
        if parsed.faults:
            assert clock in parsed.faults[0].reason, event
        else:
            ((*_, start, _, seen, _, _, _),) = parsed.sightings
            assert moment(clock) in (start, seen), event


def test_a_clock_that_keeps_to_one_offset() -> None:
    parser = CgnParser(ReadOptions(zone=ZoneInfo("Etc/GMT-1")))
    parsed = parser.parse([f"Nov 18 2026 15:30:00 {name}: {EVENTS[3]}" for name in ("CET", "CEST")])
    assert [one[4] for one in parsed.sightings] == [moment("14:30:00")]
    assert [fault.line for fault in parsed.faults] == [1]


def test_a_zone_s_name_tells_the_two_times_that_a_clock_shows() -> None:
    parser = CgnParser(ReadOptions(zone=ZoneInfo("Europe/Berlin")))
    for name, hour in (("CEST", 0), ("CET", 1)):
        (found,) = parser.parse([f"Oct 25 2026 02:30:00 {name}: {EVENTS[3]}"]).sightings
        assert found[4] == moment(f"{hour:02}:30:00") - 24 * DAY


@each_row(
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


TIMES = [
    "2026-11-18T15:30:00Z",
    "Nov 18 2026 15:30:00",
    "2026 Nov 18 15:30:00",
    "2026-11-18 15:30:00.123+00:00",
]


@each_row(
    "header",
    [
        "{} ", "{} cgn-1 ", "<14>1 {} cgn-1.example.net ", "<14>{} 192.0.2.1 ", "{} UTC cgn-1 ",
        "{} 192.0.2.1 thunder-1/part-1  ", "<189>123: {} ", "{} 2001:db8::1 ", "<166>:{} UTC: ",
        "Nov 18 15:30:01 collector <14>1 {} cgn-1 ", "2026-11-18T15:30:01Z 192.0.2.9 1 {} 192.0.2.1 ",
        "Nov 18 15:30:01 192.0.2.9 {} ", "Nov 18 15:30:01 192.0.2.9 {} cgn-1 ", "2026-11-18T15:30:01Z {} ",
        "2026-11-18 15:30:01\tLocal4.Info\t192.0.2.9\t{} ", "{} local7.notice cgn-1 ", "<134> 1 {} cgn-1 ",
        "{} src@cgn-1/192.0.2.9 ", "{} cgn-1 - - - - ", "<14>1 {} 192.0.2.9 - - -  ",
    ],
)  # fmt: skip
def test_headers_of_messages(header: str) -> None:
    for line in (header.format(time) + event for time in TIMES for event in EVENTS):
        parsed = CgnParser(ReadOptions()).parse([line])
        assert (parsed.rows, parsed.faults, len(parsed.sightings)) == (1, [], 1), line


@each_row(
    ("event", "tags"),
    [
        (EVENTS[0], ["RT_NAT - ", "RT_NAT: ", "- "]),
        (
            EVENTS[1],
            [
                "RT_NAT: ",
                "RT_NAT[2345]: ",
                "RT_NAT: %USER-6-",
                "node0.fpc1.pic0 RT_NAT: ",
                "fpc2 RT_NAT: ",
                "RT_NAT - - -  ",
            ],
        ),
        (
            EVENTS[2],
            [
                "(FPC Slot 2, PIC Slot 0) 2026-11-18 15:30:00: {service-1}[jservices-nat]: ",
                "{s}[n]:",
                "2026-11-18 15:30:00: mx-1{service-1}[jservices-nat]: ",
                "2026-11-18 15: 30:00: {service-1} [FWNAT]: mx-1 ",
            ],
        ),
        (EVENTS[3], ["- - NAT44 - ", "- - DSLITE - ", "NAT44 - ", "- - DS-LITE - "]),
        (EVENTS[4], [": ", "", ": - - - "]),
        (EVENTS[5], ["a10logd: [ACOS]<6> ", "[ACOS]<6> ", "a10logd 811 - -  "]),
        (EVENTS[6], ["a10logd: [ACOS]<6> ", "[CGN]<6> ", "a10logd - - -  [ACOS]<6> "]),
    ],
)
def test_tags_of_translators(event: str, tags: list[str]) -> None:
    for tag in tags:
        for host in ("", "cgn-1 ", "192.0.2.1 "):
            parsed = CgnParser(ReadOptions()).parse([f"<14>2026-11-18T15:30:00Z {host}{tag}{event}"])
            assert (parsed.faults, len(parsed.sightings)) == ([], 1), tag


@each_row(
    ("before", "counts"),
    [
        ("Nov 18 2026 15:30:00 asa-1: ", 1),
        ("Nov 18 15:30:00 192.0.2.1 Nov 18 2026 15:30:00 asa-1: ", 1),
        ("2026-11-18T15:30:00Z asa-1: ", 0),
        ("2026-11-18T15:30:00Z collector sshd: ", 0),
        ("2026-11-18T15:30:00Z collector sshd: Nov 18 2026 15:30:00 asa-1: ", 0),
        ("Nov 18 2026 15:30:00 collector sshd: ", 0),
    ],
)
def test_a_colon_behind_the_name_of_an_asa(before: str, counts: int) -> None:
    parsed = CgnParser(ReadOptions()).parse([before + EVENTS[4]])
    assert (parsed.rows, len(parsed.sightings)) == (1, counts)


@each_row(
    "before",
    [
        "2026-11-18T15:30:00Z cgn-1 sshd[811]: Invalid user ",
        "2026-11-18T15:30:00Z cgn-1 sshd[811]: ",
        "Nov 18 15:30:00 cgn-1 sshd: Invalid user 2026-11-18T15:30:00Z cgn-1 RT_NAT: ",
        "<38>1 2026-11-18T15:30:00Z cgn-1 sshd 811 - - ",
        "<38>1 2026-11-18T15:30:00Z cgn-1 webui 811 - - 2026-11-18T15:30:00Z cgn-1 RT_NAT - ",
        "2026-11-18T15:30:00Z cgn-1 kernel: [ 12.5] - - NAT44 - ",
        "2026-11-18T15:30:00Z cgn-1 nginx: GET / {service-1}[jservices-nat]: ",
        '2026-11-18T15:30:00Z asa-1 : %ASA-6-605004: Login denied from 203.0.113.5/22 to x for user "',
        "2026-11-18T15:30:00Z thunder-1 a10logd: [ACOS]<6> Login by ",
        '{"message": "2026-11-18T15:30:00Z ',
        "<38>1 2026-11-18T15:30:00Z cgn-1 sshd - - - ",
        "<38>1 2026-11-18T15:30:00Z - sshd 811 - - - - - - ",
        "2026-11-18 15:30:00\tAuth.Info\tcgn-1\tsshd: Invalid user ",
        "2026-11-18T15:30:00Z cgn-1 auth.info sshd: ",
        "Nov 18 15:30:00 192.0.2.1 sshd: Nov 18 2026 15:30:00 ",
    ],
)
def test_what_another_message_says_is_no_event(before: str) -> None:
    """It may be anybody's words: a name that somebody tried to log in with."""
    for event in EVENTS:
        begins = ("2026-11-18T15:29:00Z cgn-1 ", before, "2026-11-18T15:31:00Z cgn-1 ")
        parsed = CgnParser(ReadOptions()).parse([f"{begin}{event}" for begin in begins])
        assert [fault.line for fault in parsed.faults] == [1], event
        assert "within a message" in parsed.faults[0].reason, event
        assert len(parsed.sightings) == 2, event


@each_row(
    "piece",
    [
        "2026-11-18T15:30:00Z 1.2.3.4 ",
        "Nov 18 2026 15:30:00 ",
        "1 ",
        "<14>",
        " ",
        ": ",
        "1.2.3.4 ",
        "- ",
        "a-",
        "Nov ",
        "local7.info\t",
        "a@",
    ],
)
def test_a_long_line_takes_no_long_time(piece: str) -> None:
    """Of which each way to read it, one for each host in it, would be tried."""
    for event in EVENTS:
        assert not CgnParser(ReadOptions()).parse([f"{piece * 2_000}!{event}"]).sightings, event


@each_row("front", ["1", "-", "(x)", "1 - - "])
def test_many_blanks_take_no_long_time(front: str) -> None:
    """Of which each could be the last one behind a field, or the first one behind none."""
    for event in EVENTS:
        assert not CgnParser(ReadOptions()).parse([f"{front}{' ' * 200_000}!{event}"]).sightings, event


@each_row(
    ("event", "piece"),
    [
        ("%ASA-1-305014: ", "a"),
        ("", "%ASA-1-305014: "),
        ("RT_SRC_NAT_PBA_ALLOC ", "Subscriber a "),
        ("CEF:0|A10|a|b|CGN 106|a|b|", "a"),
        ("RT_SRC_NAT_PBA_ALLOC ", "a"),
        ("", "[UserbasedA "),
        ("", "ASP_NAT_PORT_BLOCK_ALLOC:"),
        ("", "ASP_NAT_PORT_BLOCK_ALLOC:->"),
    ],
)
def test_a_long_event_takes_no_long_time(event: str, piece: str) -> None:
    """Which would be looked through from each of its words, or letters."""
    assert not CgnParser(ReadOptions()).parse([f"{event}{piece * 100_000}"]).sightings


def test_a_time_of_a_card_behind_one_without_a_year() -> None:
    """With a blank in it."""
    line = "Nov 18 16:30:01 2026-11-18 15: 30:00: {s}[n]: " + EVENTS[2].replace("ALLOC", "RELEASE")
    (sighting,) = CgnParser(ReadOptions()).parse([line]).sightings
    assert sighting[5] == moment("15:30:00")


@pytest.mark.parametrize(
    ("header", "zone", "is_told"),
    [
        ("Nov 18 07:30:01", "America/Los_Angeles", True),
        ("Nov 18 16:30:01", "Europe/Berlin", True),
        ("2026-11-18T15:30:01Z", "Europe/Berlin", True),
        ("Nov 18 16:30:01", "UTC", False),
        ("Nov 18 15:30:01", "Europe/Berlin", False),
        ("Nov 18 14:30:01", "Europe/Berlin", False),
        ("Feb 29 15:30:01", "Europe/Berlin", False),
    ],
)
def test_a_time_in_utc_behind_one_of_the_zone(header: str, zone: str, *, is_told: bool) -> None:
    """As cards of Junos have theirs: it would be read hours off."""
    line = f"{header} mx-1 (FPC Slot 2, PIC Slot 0) 2026-11-18 15:30:00 [FWNAT]:{EVENTS[2]}"
    parsed = CgnParser(ReadOptions(zone=ZoneInfo(zone))).parse([line])
    assert ["in UTC" in fault.reason for fault in parsed.faults] == [True] * is_told


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
