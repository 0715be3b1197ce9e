from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from assignments.support import DAY, at, held, intervals, read
from urlward.assignments.formats import MOST, ColumnsParser, ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.interval import AssignmentError, SightingKind, ms_text, to_ms
from urlward.assignments.schema import assignments
from urlward.assignments.store import AssignmentStore, KeepingNode
from urlward.assignments.who import WhoQuestion, who

A = "198.51.100.7"


def test_whole_intervals(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "\ufeffAddress,From,To,Subscriber\r\n"
        f'{A},{ms_text(at(0))},{ms_text(at(100))},"anna, of ""here"""\r\n'
        f"{A},{at(100)},{at(200.5)},berta\r\n"
        f"{A},{at(300)},,carla\r\n"
    )
    assert read(store, "csv", path).rows == 3
    assert intervals(store, A) == [
        ('anna, of "here"', 0, 100, "TOLD"),
        ("berta", 100, 200.5, "TOLD"),
        ("carla", 300, None, "NONE"),
    ]


def test_what_was_over_within_a_second_was_there(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "sessions.csv"
    path.write_text(f"address,from,to,subscriber\n{A},{at(5) // 1000},{at(5) // 1000},anna\n")
    assert read(store, "csv", path).skipped == 0
    assert held(store, A, 5) == ["anna"]
    assert held(store, A, 6) == []


def test_names_that_begin_alike_are_two(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 300
    path.write_text(
        f"address,from,to,subscriber\n{A},{at(0)},{at(9)},{long}1\n{A},{at(0)},{at(9)},{long}2\n"
        f"{A},{at(20)},{at(29)},{long}1\n"
    )
    assert read(store, "csv", path).skipped == 0
    one, two = held(store, A, 5)
    assert one != two
    assert len(one) == len(two) == MOST
    assert held(store, A, 25) in ([one], [two])


def test_blocks_of_ports_with_events(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "nat.log"
    path.write_text(
        f"{at(0) // 1000};ALLOCATE;100.64.0.5;{A};1024-2047\n"
        f"{at(5) // 1000};allocate;100.64.0.6;{A};2048-3071\n"
        f"{at(50) // 1000};release;100.64.0.5;{A};1024-2047\n"
        f"{at(60) // 1000};unheard-of;100.64.0.5;{A};1024-2047\n"
    )
    columns = {"from": "1", "event": "2", "subscriber": "3", "address": "4", "ports": "5"}
    done = read(store, "ports", path, ReadOptions(columns, ";"))
    assert (done.rows, done.skipped) == (4, 1)
    assert held(store, A, 49, 2000) == ["100.64.0.5"]
    assert held(store, A, 50, 2000) == []
    assert held(store, A, 50, 2048) == ["100.64.0.6"]


@pytest.mark.parametrize(
    ("add", "delete"), [("ADD", "DELETE"), ("4", "5"), ("old", "del"), ("create", "DEL44")]
)
def test_the_same_port_of_another_protocol(
    sqlite_store: AssignmentStore, tmp_path: Path, add: str, delete: str
) -> None:
    """As collectors of NetFlow and IPFIX write each translation."""
    path = tmp_path / "nel.csv"
    rows = [
        (0, add, "TCP", 5), (100, add, "UDP", 6), (130, delete, "17", 6), (200, add, "UDP", 5),
        (230, delete, "UDP", 5), (600, delete, "6", 5), (700, add, "0", 7), (800, add, "unheard-of", 8),
    ]  # fmt: skip
    path.write_text(
        "ts,evt,pr,sa,xsa,xsp\n"
        + "".join(f"{at(t)},{event},{pr},100.64.0.{host},{A},40000\n" for t, event, pr, host in rows)
    )
    columns = {"from": "ts", "event": "evt", "protocol": "pr", "subscriber": "sa"}
    done = read(sqlite_store, "ports", path, ReadOptions(columns | {"address": "xsa", "first_port": "xsp"}))
    assert (done.rows, done.skipped) == (8, 1)
    assert intervals(sqlite_store, A) == [
        ("100.64.0.5", 0, 600, "TOLD"), ("100.64.0.7", 700, None, "NONE")
    ]  # fmt: skip


def test_columns_by_other_names(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ip\twho\tbegin\tlow\thigh\n198.51.100.7\tanna\t2026-11-18 12:00:00\t10\t20\n")
    columns = {
        "address": "IP",
        "subscriber": "who",
        "from": "begin",
        "first_port": "low",
        "last_port": "high",
    }
    options = ReadOptions(columns, "\t", ZoneInfo("Europe/Berlin"))
    assert read(sqlite_store, "csv", path, options).skipped == 0
    (one,) = sqlite_store.find(A, 15, at(10**6), at(10**6))
    assert (ms_text(one.start), one.ports) == ("2026-11-18T11:00:00Z", (10, 20))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"address": "1", "subscriber": "name"}, "all by name, or all by number"),
        ({"addres": "ip"}, "'addres' is none of address, subscriber"),
        ({"address": "nothing"}, "no column is called 'nothing'"),
        ({}, "no column 'address', 'subscriber', 'from': say which"),
        ({"address": "1", "subscriber": "2"}, "no column 'from'"),
        ({"address": "1", "subscriber": "2", "from": "3", "last_port": "4"}, "no column 'first_port'"),
        ({"address": "1", "subscriber": "2", "from": "0"}, "the first one has the number 1"),
        ({"address": "ip", "subscriber": "who", "from": "twice"}, "two are called 'twice', which"),
    ],
)
def test_columns_that_are_not_there(
    sqlite_store: AssignmentStore, tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ip,who,twice,Twice\n192.0.2.1,anna\n")
    with pytest.raises(AssignmentError, match=message):
        read(sqlite_store, "csv", path, ReadOptions(columns))


BAD = [
    "nonsense",
    "192.0.2.999,1795000000,1795000001,anna",
    "192.0.2.1,yesterday,1795000001,anna",
    "192.0.2.1,1795000002,1795000001,anna",
    "192.0.2.1,1795000000,1795000001,",
    "192.0.2.1,99999999999999999,,anna",
    "192.0.2.1,1795000000,,Smith, Anna",
]


def test_bad_rows_are_counted(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("address,from,to,subscriber\n" + "\n".join(BAD) + "\n\n")
    done = read(sqlite_store, "csv", path)
    assert (done.rows, done.skipped) == (len(BAD), len(BAD))


@pytest.mark.parametrize("name", ["an\rna", "a" * 140_000])
def test_a_row_that_is_no_csv_keeps_no_other_from_being_read(
    sqlite_store: AssignmentStore, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.csv"
    row = f"{A},1795000000,1795000001,".encode()
    path.write_bytes(b"address,from,to,subscriber\n" + row + name.encode() + b"\n" + row + b"berta\n")
    done = read(sqlite_store, "csv", path)
    assert (done.rows, done.skipped) == (2, 1)
    assert [one[0] for one in intervals(sqlite_store, A)] == ["berta"]


def test_a_name_with_a_quote_ends_nobody_elses_row(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"192.0.2.{n},{at(0)},{at(100)},customer-{n}" for n in range(1, 9)]
    rows[2] = f'192.0.2.3,{at(0)},{at(100)},"mallory'
    rows[5] = f'192.0.2.6,{at(0)},{at(100)},"also'
    path.write_text("\n".join(["address,from,to,subscriber", *rows, ""]))
    done = read(sqlite_store, "csv", path)
    assert (done.rows, done.skipped, [line for line, _ in done.faults]) == (8, 2, [4, 7])
    for n in (1, 2, 4, 5, 7, 8):
        assert [one[0] for one in intervals(sqlite_store, f"192.0.2.{n}")] == [f"customer-{n}"]


def test_a_row_that_is_not_ended_waits(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"address,from,to,subscriber\n{A},{at(0)},{at(100)},customer-12")
    done = read(sqlite_store, "csv", path)
    assert (done.rows, done.pending) == (0, len(f"{A},{at(0)},{at(100)},customer-12"))
    with path.open("a") as file:
        file.write("345\n")
    assert read(sqlite_store, "csv", path).rows == 1
    assert intervals(sqlite_store, A) == [("customer-12345", 0, 100, "TOLD")]


def test_a_first_line_that_is_no_csv(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"address,from,to,subscriber\r192.0.2.1,1795000000,1795000001,anna\r")
    with pytest.raises(AssignmentError, match="names no columns: not CSV"):
        read(sqlite_store, "csv", path)


@pytest.mark.parametrize("ports", ["80_90", "-80", "90-80", "80-9_0", "65536", ""])
def test_ports_that_are_none(ports: str) -> None:
    parser = ColumnsParser(ReadOptions(zone=UTC))
    parser.begin("address,from,to,subscriber,ports")
    assert parser.parse([f"198.51.100.7,1795000000,1795000001,anna,{ports}"]).skipped == 1


@given(rows=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_any_text_is_counted(rows: list[str]) -> None:
    parser = ColumnsParser(ReadOptions(zone=UTC))
    parser.begin("address,from,to,subscriber,ports,event")
    parsed = parser.parse(rows)
    assert parsed.rows == len(parsed.sightings) + parsed.skipped
    assert all(
        sighting[9] in (SightingKind.HELD, SightingKind.ENDED, SightingKind.WHOLE)
        for sighting in parsed.sightings
    )


ODD = (
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59", "9999-12-31", "0001-01-01", "0000-00-00", "2026-11-24T23:59:60Z", "2248-12-31",
    "1e999", "9" * 25, "0x" + "f" * 26, "-1", "inf",
)  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Asia/Manila", "America/New_York", "Europe/Berlin"])
@pytest.mark.parametrize("time", ODD)
def test_a_time_out_of_all_reason_is_one_row_not_understood(
    sqlite_store: AssignmentStore, tmp_path: Path, time: str, zone: str
) -> None:
    path = tmp_path / "a.csv"
    good = "2026-11-24T12:00:00"
    rows = [f"{A},{time},,anna", f"{A},{good},{time},anna", f"{A},{good}+14:00,,berta"]
    path.write_text("address,from,to,subscriber\n" + "".join(f"{row}\n" for row in rows))
    done = read(sqlite_store, "csv", path, ReadOptions(zone=ZoneInfo(zone)))
    assert done.rows == 3
    # As an end some are what databases write for none.
    assert [line for line, _ in done.faults] == ([2] if time.startswith("9999-") else [2, 3])
    assert all(reason for _, reason in done.faults)


def test_a_byte_order_mark_before_numbered_columns(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{A},2026-11-24T12:00:00Z,anna\n".encode())
    done = read(sqlite_store, "csv", path, ReadOptions({"address": "1", "from": "2", "subscriber": "3"}))
    assert (done.rows, done.skipped) == (1, 0)


@pytest.mark.parametrize("never", ["9999-12-31", "2999-12-31 23:59:59", "2099-12-31"])
def test_an_end_that_databases_write_for_none(
    sqlite_store: AssignmentStore, tmp_path: Path, never: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"address,subscriber,from,to\n{A},anna,{at(0)},{never}\n")
    assert read(sqlite_store, "csv", path).skipped == 0
    assert intervals(sqlite_store, A) == [("anna", 0, None, "NONE")]


def test_an_address_with_the_length_of_its_network_is_not_all_of_that(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    networks = [f"{A}/24", "192.0.2.7/32", "192.0.2.64/26", "2001:db8::1/64", "2001:DB8:1:0::/64"]
    path.write_text(
        "address,subscriber,from\n" + "".join(f"{one},u{n},{at(n)}\n" for n, one in enumerate(networks))
    )
    assert (read(sqlite_store, "csv", path).rows, read(sqlite_store, "csv", path).rows) == (5, 0)
    assert [
        held(sqlite_store, one, 9) for one in (A, "198.51.100.9", "192.0.2.7", "192.0.2.70", "2001:db8::1")
    ] == [[], [], ["u1"], ["u2"], []]
    assert held(sqlite_store, "2001:db8:1::5", 9) == ["u4"]


def test_a_day_or_a_minute_is_some_time_in_it(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """Also where the file is read again as others have come; one far away is none."""
    path, lines = tmp_path / "a.csv", [
        f"{A},anna,2026-11-01,", f"{A},berta,2026-11-20,", "192.0.2.1,anna,2026-11-01 10:00,2026-11-20",
        "192.0.2.1,berta,2026-11-25 14:30,2099-12-31",
    ]  # fmt: skip
    for count in (2, 4):
        path.write_text("address,subscriber,from,to\n" + "".join(f"{line}\n" for line in lines[:count]))
        assert read(sqlite_store, "csv", path).skipped == 0
    source, now = sqlite_store.sources()[1], at(30 * DAY / 1000)
    import_file(sqlite_store, source, path, ReadOptions(), lambda: now / 1000)

    def named(address: str, *times: str) -> list[str]:
        found = [who(sqlite_store, WhoQuestion(address, None, to_ms(f"2026-11-{one}Z"))) for one in times]
        return [
            "?" * (one.verdict == "ambiguous")
            + " ".join(sorted({each.interval.subscriber for each in one.candidates}))
            for one in found
        ]

    assert named(A, "01T05:00:00", "02T00:00:00", "20T00:00:30", "20T23:59:00", "21T00:00:00") == [
        "?anna", "anna", "?anna berta", "?anna berta", "berta",
    ]  # fmt: skip
    assert named("192.0.2.1", "01T10:00:30", "19T23:00:00", "20T12:00:00", "21T00:00:00") == [
        "?anna", "anna", "?anna", "",
    ]  # fmt: skip
    assert named("192.0.2.1", "25T14:29:59", "25T14:30:30", "25T14:31:00") == ["", "?berta", "berta"]
    with sqlite_store.reading() as connection:
        assert (connection.scalar(select(func.max(assignments.c.end))) or now) < now


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_time_in_a_day_may_be_before_or_behind_another_s_beginning_in_it(
    sqlite_store: AssignmentStore, tmp_path: Path, order: tuple[int, ...]
) -> None:
    path, lines = tmp_path / "a.csv", ["anna,2026-11-01", "berta,2026-11-20", "carla,2026-11-20T09:00:00Z"]
    path.write_text("address,subscriber,from\n" + "".join(f"{A},{lines[one]}\n" for one in order))
    for _ in range(2):
        path.write_text(path.read_text() + f"192.0.2.1,anna,{at(0)}\n")
        read(sqlite_store, "csv", path)
        for when in ("2026-11-20T12:00:00Z", "2026-11-22T00:00:00Z"):
            answer = who(sqlite_store, WhoQuestion(A, None, to_ms(when)))
            assert answer.verdict == "ambiguous"
            assert {"berta", "carla"} <= {one.interval.subscriber for one in answer.candidates}


def test_days_of_long_ago_are_not_kept(store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    days = [*(f"{year}-03-01" for year in range(1991, 2026)), "2026-11-01"]
    path.write_text(
        "address,subscriber,from\n" + "".join(f"192.0.2.{n},u{n},{day}\n" for n, day in enumerate(days))
    )
    with store.importing("csv", "csv", str(path), KeepingNode("", 180)) as source:
        import_file(store, source, path, ReadOptions(), lambda: at(DAY / 1000) / 1000)
    with store.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(assignments)) == 1
    assert held(store, "192.0.2.3", 0) == ["u3"]


def test_an_export_in_any_order_of_times(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{A},carla,{at(71)}", f"{A},carla,{at(2973)}", f"{A},anna,{at(2971)}", f"{A},berta,{at(2972)}"]
    for some in (rows[:1], rows[1:]):
        path.write_text("address,subscriber,from\n" + "".join(f"{row}\n" for row in some))
        assert read(sqlite_store, "csv", path).rows == len(some)
    assert "carla" in held(sqlite_store, A, 2976)
