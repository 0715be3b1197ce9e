import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assignments import radius_server
from assignments.radius_server import Radius, radius
from assignments.support import at, held, intervals, read
from assignments.test_rotation import B, Log, told
from assignments.test_rotation import record as written
from urlward.assignments.formats import DetailParser, ReadOptions
from urlward.assignments.interval import AssignmentError, Ending
from urlward.assignments.radacct import import_radacct, shown_url
from urlward.assignments.store import AssignmentStore
from urlward.records.sql import without_secrets

A = "198.51.100.7"
PREFIXES = "Framed-IPv6-Prefix = 2001:db8:1:7::/64, Delegated-IPv6-Prefix = 2001:db8:7::/56"


def request(status: str, user: str, session: str, address: str, more: str = "") -> str:
    return (
        f'Acct-Status-Type = {status}, User-Name = "{user}", Acct-Session-Id = "{session}", '
        f"NAS-IP-Address = 192.0.2.1, Framed-IP-Address = {address}" + (f", {more}" if more else "")
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radius]:
    """FreeRADIUS, when it has written of a session with prefixes, of one without an end, and of the next."""
    if reason := radius_server.missing():
        pytest.skip(reason)
    with radius(tmp_path_factory.mktemp("radius")) as server:
        server.account(
            request("Start", "anna", "s1", A, PREFIXES),
            request("Interim-Update", "anna", "s1", A, "Acct-Session-Time = 1"),
            # Its end names one address of the three.
            request("Stop", "anna", "s1", A, "Acct-Session-Time = 1"),
            request("Start", 'b\\"erta', "s2", "198.51.100.8"),
            request("Start", "carla", "s3", "198.51.100.8"),
        )
        yield server


def test_what_freeradius_wrote(server: Radius, store: AssignmentStore) -> None:
    done = read(store, "detail", server.detail)
    assert (done.rows, done.skipped, done.offset) == (5, 0, server.detail.stat().st_size)
    long = 86_400_000
    now = int(time.time() * 1000)
    for address, network in (
        (A, A),
        ("2001:db8:1:7::9", "2001:db8:1:7::/64"),
        ("2001:db8:7:9::9", "2001:db8:7::/56"),
    ):
        (anna,) = store.find(address, None, now - long, now + long)
        assert (anna.subscriber, anna.session, anna.network) == ("anna", "192.0.2.1/s1", network)
        assert anna.ending == Ending.TOLD
    berta, carla = store.find("198.51.100.8", None, now - long, now + long)
    assert (berta.subscriber, berta.ending) == ('b"erta', Ending.NEXT)
    assert (carla.subscriber, carla.ending) == ("carla", Ending.NONE)
    assert read(store, "detail", server.detail).rows == 0


def test_the_table_that_freeradius_wrote(server: Radius, store: AssignmentStore) -> None:
    source = store.source("radacct", "radacct", shown_url(server.url))
    now = time.time()
    done = import_radacct(store, source, server.url, ReadOptions(), now)
    assert (done.rows, done.skipped) == (3, 0)
    ms, long = int(now * 1000), 86_400_000
    (anna,) = store.find(A, None, ms - long, ms + long)
    assert (anna.subscriber, anna.ending, anna.source.path) == ("anna", Ending.TOLD, server.url)
    before = store.find("198.51.100.8", None, ms - long, ms + long)
    assert [one.subscriber for one in before][-1] == "carla"
    # What changed lately is looked at again, and says nothing new.
    again = import_radacct(store, source, server.url, ReadOptions(), now)
    assert again.resumed == done.offset > 0
    assert store.find(A, None, ms - long, ms + long) == [anna]
    other = store.source("other", "radacct", "")
    with pytest.raises(AssignmentError, match="radacct has no column 'line'"):
        import_radacct(store, other, server.url, ReadOptions({"subscriber": "line"}), now)


def test_a_database_that_is_not_there(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    source = sqlite_store.source("radacct", "radacct", "")
    with pytest.raises(AssignmentError) as raised:
        import_radacct(
            sqlite_store, source, f"postgresql+psycopg://u:secret@/x?host={tmp_path}", ReadOptions(), 0
        )
    assert "secret" not in str(raised.value)
    with pytest.raises(AssignmentError, match="not a database's URL"):
        shown_url("nothing")


def radacct_in(folder: Path, number: str = "") -> tuple[str, sqlite3.Connection]:
    """A server's table with times in seconds, and a column of numbers where asked for: its URL, and a
    connection to fill it."""
    radius = sqlite3.connect(folder / "radius.db", isolation_level=None)
    radius.execute(
        "CREATE TABLE radacct (acctuniqueid TEXT, username TEXT, acctstarttime INTEGER,"
        f" acctupdatetime INTEGER, acctstoptime INTEGER, framedipaddress TEXT{number})"
    )
    return f"sqlite:///{folder}/radius.db", radius


def test_a_session_of_a_wrong_clock_hides_none_that_follow(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    url, radius = radacct_in(tmp_path)
    source = sqlite_store.source("radacct", "radacct", url)

    def session(name: str, start: int, address: str) -> None:
        radius.execute(
            "INSERT INTO radacct VALUES (?, ?, ?, NULL, ?, ?)", (name, name, start, start + 60, address)
        )

    def took(seconds: float) -> int:
        return import_radacct(sqlite_store, source, url, ReadOptions(), at(seconds) / 1000).rows

    session("ahead", at(10 * 365 * 86_400) // 1000, "192.0.2.1")
    session("anna", at(0) // 1000, "192.0.2.2")
    assert took(1000) == 2
    session("berta", at(3600) // 1000, "192.0.2.3")
    assert took(4000) == 2, "the one that is to come is looked at again"
    radius.close()
    assert held(sqlite_store, "192.0.2.3", 3610) == ["berta"]
    assert held(sqlite_store, "192.0.2.2", 10) == ["anna"]


PREFIX, INSIDE = "2001:db8:0:7::/64", "2001:db8:0:7::5"
UPDATE = "Interim-Update"


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize(
    ("records", "answers"),
    [
        # Another address: up to when it was told last, and from when the new one is.
        (
            [("Start", 0, "anna", A), (UPDATE, 300, "anna", A), (UPDATE, 600, "anna", B),
             (UPDATE, 601, "anna", B), (UPDATE, 300, "anna", A), ("Stop", 900, "anna", B)],
            [(A, 299, "anna"), (A, 400, "?anna"), (A, 700, ""), (B, 299, ""), (B, 400, "?anna"),
             (B, 650, "anna"),
             (B, 950, "")],
        ),
        # And told by the end alone.
        (
            [("Start", 0, "anna", A), (UPDATE, 300, "anna", A), ("Stop", 900, "anna", B)],
            [(A, 299, "anna"), (A, 400, "?anna"), (B, 299, ""), (B, 400, "?anna"), (B, 950, "")],
        ),
        # Each gets the other's.
        (
            [("Start", 0, "anna", A), ("Start", 10, "berta", B), (UPDATE, 600, "anna", "192.0.2.9"),
             (UPDATE, 601, "berta", A), (UPDATE, 602, "anna", B), ("Stop", 900, "anna", B)],
            [(A, 5, "?anna"), (A, 300, "?anna berta"), (A, 700, "berta"), (B, 300, "?berta"),
             (B, 700, "anna")],
        ),
        # A prefix that is told later, of which somebody else had said so, and nothing since.
        (
            [("Start", 0, "anna", A), ("Start", 100, "carla", PREFIX), (UPDATE, 200, "carla", PREFIX),
             (UPDATE, 600, "anna", PREFIX), (UPDATE, 900, "anna", PREFIX)],
            [(INSIDE, 50, "?anna"), (INSIDE, 150, "?anna carla"), (INSIDE, 700, "anna"), (A, 800, "anna")],
        ),
        # And it gets that again.
        (
            [("Start", 0, "anna", A), ("Start", 400, "berta", A), ("Stop", 500, "berta", A),
             (UPDATE, 600, "anna", B), (UPDATE, 900, "anna", A), ("Stop", 1000, "anna", A)],
            [(A, 450, "berta"), (A, 550, ""), (A, 700, "?anna"), (A, 950, "anna"), (B, 550, "?anna"),
             (B, 700, "?anna")],
        ),
        # What was told before is told again.
        (
            [("Start", 0, "anna", A), (UPDATE, 300, "anna", A), (UPDATE, 600, "anna", B),
             (UPDATE, 900, "anna", B), (UPDATE, 600, "anna", B)],
            [(A, 200, "anna"), (B, 200, ""), (B, 400, "?anna"), (B, 700, "anna")],
        ),
        # Its old one is another's before it is told to have a new one.
        (
            [("Start", 0, "anna", A), ("Start", 400, "berta", A), (UPDATE, 600, "anna", B),
             (UPDATE, 900, "anna", B)],
            [(A, 500, "berta"), (B, 100, "?anna"), (B, 500, "?anna"), (B, 700, "anna")],
        ),
        # All that the first record of a session tells it had before, but for what was another's.
        (
            [(UPDATE, 600, "anna", A), ("Start", 100, "berta", B), (UPDATE, 650, "berta", B),
             (UPDATE, 700, "carla", B), (UPDATE, 900, "carla", B)],
            [(A, 300, "anna"), (B, 600, "berta"), (B, 649, "berta"), (B, 660, "?berta carla"),
             (B, 800, "carla")],
        ),
    ],
)  # fmt: skip
def test_addresses_that_change_within_a_session(
    sqlite_store: AssignmentStore,
    tmp_path: Path,
    records: list[tuple[str, int, str, str]],
    answers: list[tuple[str, int, str]],
    every: int,
) -> None:
    """All that a record says is when its session began, as networks without wires have it."""
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    for number, (status, seconds, user, address) in enumerate(records, 1):
        more = {"Framed_IP_Address": address} if address != PREFIX else {}
        more |= {"Framed_IP_Address": "", "Delegated_IPv6_Prefix": PREFIX} if address == PREFIX else {}
        begun = min((each[1] for each in records if each[0] == "Start" and each[2] == user), default=0)
        took = None if status == "Start" else seconds - begun
        log.write(written(status, seconds, user, took, Acct_Session_Id=user, **more))
        if number % every == 0:
            log.read(seconds + 1)
    log.read(2000)
    for address, seconds, expected in answers:
        verdict, names = told(sqlite_store, seconds, address)
        assert ("?" * (verdict == "ambiguous") + " ".join(names)) == expected, (address, seconds)


@pytest.mark.parametrize("next_began", [False, True])
@pytest.mark.parametrize(
    ("stop", "subscriber", "named"),
    [
        ({"User_Name": ""}, "User-Name", "anna"),
        ({"User_Name": "", "Framed_IP_Address": ""}, "User-Name", "anna"),
        ({"User_Name": "", "Calling_Station_Id": "02-00-00-00-00-01"}, "User-Name", "anna"),
        ({}, "ADSL-Agent-Circuit-Id", "line 5"),
    ],
)
def test_a_stop_has_the_name_of_its_session(
    sqlite_store: AssignmentStore,
    tmp_path: Path,
    stop: dict[str, str],
    subscriber: str,
    named: str,
    *,
    next_began: bool,
) -> None:
    """Its own it need not have, nor that which names subscribers here."""
    path = tmp_path / "detail"
    following = written("Start", 600, "berta", Acct_Session_Id="s2", ADSL_Agent_Circuit_Id='"line 6"')
    path.write_text(
        written("Start", 0, ADSL_Agent_Circuit_Id='"line 5"')
        + following * next_began
        + written("Stop", 500, took=500, **stop)
    )
    assert read(sqlite_store, "detail", path, ReadOptions({"subscriber": subscriber})).skipped == 0
    assert intervals(sqlite_store, A)[:1] == [(named, 0, 500, "TOLD")]
    assert len(intervals(sqlite_store, A)) == 1 + next_began


@pytest.mark.parametrize("in_between", [None, 301, 303])
def test_an_update_that_a_server_had_no_answer_for(
    sqlite_store: AssignmentStore, tmp_path: Path, in_between: int | None
) -> None:
    """It is sent again behind its session's Stop, by a server that does not say how late: its session is over
    all the same, whenever that was read, and the next one's goes on. One of the same name that begins later
    is another."""
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    written_so = {
        0: written("Start", 0, took=None), 300: written("Stop", 300, took=300),
        302: written("Start", 302, "berta", Acct_Session_Id="s2"), 305: written(UPDATE, 305, took=298),
    }  # fmt: skip
    for seconds, record in written_so.items():
        if in_between is not None and seconds > in_between:
            log.read(seconds)
        log.write(record)
    log.read(310)
    assert intervals(sqlite_store, A) == [("anna", 0, 300, "TOLD"), ("berta", 302, None, "NONE")]
    log.write(written("Stop", 900, "berta", Acct_Session_Id="s2"), written(UPDATE, 1500, took=200))
    log.read(1600)
    assert intervals(sqlite_store, A)[1:] == [("berta", 302, 900, "TOLD"), ("anna", 1300, None, "NONE")]


@pytest.mark.parametrize("is_read_apart", [False, True])
def test_a_late_update_of_a_session_without_a_stop(
    sqlite_store: AssignmentStore, tmp_path: Path, *, is_read_apart: bool
) -> None:
    """It is of a time before the next one's session began on its address."""
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(written("Start", 0), written("Start", 302, "berta", Acct_Session_Id="s2"))
    if is_read_apart:
        log.read(303)
    log.write(written(UPDATE, 305, took=298))
    log.read(310)
    assert intervals(sqlite_store, A) == [
        ("anna", 0, 1, "SAID"), ("anna", 1, 302, "SILENT"), ("berta", 302, None, "NONE"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_read_apart", [False, True])
def test_an_end_that_a_server_had_no_answer_for(
    sqlite_store: AssignmentStore, tmp_path: Path, *, is_read_apart: bool
) -> None:
    """It is told again by a server that does not say how late, whenever the end was read."""
    log = Log(sqlite_store, tmp_path / "detail", "detail")
    log.write(written("Start", 0), written("Stop", 300, took=300))
    if is_read_apart:
        log.read(301)
    log.write(written("Start", 302, "berta", Acct_Session_Id="s2"), written("Stop", 310, took=300))
    log.read(320)
    assert intervals(sqlite_store, A) == [("anna", 0, 300, "TOLD"), ("berta", 302, None, "NONE")]


def test_a_late_update_by_a_name_that_is_given_again(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """It hides nothing of the session that has the name now, though that has not lasted as long."""
    path = tmp_path / "detail"
    path.write_text(
        written("Start", 0)
        + written("Stop", 950, took=950)
        + written("Start", 1010)
        + written(UPDATE, 1100, took=900)
        + written(UPDATE, 1310, took=300, Framed_IP_Address=B)
    )
    read(sqlite_store, "detail", path, ReadOptions())
    assert intervals(sqlite_store, B)[-1:] == [("anna", 1310, None, "NONE")]


def test_a_late_update_of_a_session_that_has_another_address(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """It had the one of then twice; an update of now may be read within the same second. What is counted anew
    is another session's."""
    path, third = tmp_path / "detail", "192.0.2.9"
    told_at = [(0, A, 0), (300, A, 300), (600, B, 600), (900, A, 900), (1200, B, 1200), (1260, A, 900),
               (1500, A, 900), (1500, third, 1500), (1503, A, 900), (1900, A, 300)]  # fmt: skip
    path.write_text(
        "".join(written(UPDATE, seconds, took=took, Framed_IP_Address=ip) for seconds, ip, took in told_at)
    )
    read(sqlite_store, "detail", path, ReadOptions())
    doubts = [("anna", since, since + 300, "MOVED") for since in (300, 600, 900)]
    assert intervals(sqlite_store, A) == [("anna", 0, 300, "TOLD"), *doubts, ("anna", 1600, None, "NONE")]
    assert intervals(sqlite_store, B) == [*doubts, ("anna", 1200, 1500, "MOVED")]
    assert intervals(sqlite_store, third) == [("anna", 1200, 1500, "MOVED"), ("anna", 1500, None, "NONE")]


def test_an_address_that_changes_in_a_row_of_the_table(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    url, radius = radacct_in(tmp_path)
    source = sqlite_store.source("radacct", "radacct", url)
    radius.execute("INSERT INTO radacct VALUES ('s1', 'anna', ?, ?, NULL, ?)", (*[at(0) // 1000] * 2, A))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(100) / 1000)
    radius.execute("UPDATE radacct SET acctupdatetime = ?, framedipaddress = ?", (at(600) // 1000, B))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(700) / 1000)
    radius.close()
    assert told(sqlite_store, 300) == ("ambiguous", ["anna"])
    assert told(sqlite_store, 650) == ("none", [])
    assert told(sqlite_store, 300, B) == ("ambiguous", ["anna"])
    assert told(sqlite_store, 650, B) == ("one", ["anna"])


def test_a_session_that_goes_on_behind_an_end_that_was_none(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """As in MySQL, when a part of its server restarts; an update that is told late behind a Stop is none."""
    url, radius = radacct_in(tmp_path, ", acctsessiontime INTEGER")
    source = sqlite_store.source("radacct", "radacct", url)
    row = "INSERT INTO radacct VALUES (?, ?, ?, NULL, NULL, ?, 0)"
    radius.executemany(row, [("s1", "anna", at(0) // 1000, A), ("s2", "berta", at(0) // 1000, B)])
    import_radacct(sqlite_store, source, url, ReadOptions(), at(100) / 1000)
    radius.execute("UPDATE radacct SET acctstoptime = ?, acctsessiontime = 300", (at(300) // 1000,))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(310) / 1000)
    update = "UPDATE radacct SET acctupdatetime = ?, acctsessiontime = ? WHERE acctuniqueid = ?"
    radius.executemany(update, [(at(600) // 1000, 600, "s1"), (at(305) // 1000, 298, "s2")])
    import_radacct(sqlite_store, source, url, ReadOptions(), at(610) / 1000)
    assert [held(sqlite_store, address, 605) for address in (A, B)] == [["anna"], []]
    radius.execute("UPDATE radacct SET acctstoptime = ? WHERE username = 'anna'", (at(900) // 1000,))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(1000) / 1000)
    radius.close()
    assert [told(sqlite_store, seconds) for seconds in (450, 899, 950)] == [
        ("one", ["anna"]), ("one", ["anna"]), ("none", [])
    ]  # fmt: skip


def test_a_session_that_is_read_as_it_is_over_ends_the_one_before(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Whose own end is lost."""
    url, radius = radacct_in(tmp_path)
    source = sqlite_store.source("radacct", "radacct", url)
    rows = [("s1", "anna", 1000, 5000, None), ("s2", "berta", 6000, None, 6700)]
    for *who, start, seen, stop in rows:
        times = [at(one) // 1000 if one else None for one in (start, seen, stop)]
        radius.execute("INSERT INTO radacct VALUES (?, ?, ?, ?, ?, ?)", (*who, *times, A))
    radius.close()
    import_radacct(sqlite_store, source, url, ReadOptions(), at(9000) / 1000)
    shown = [told(sqlite_store, seconds) for seconds in (4000, 5500, 6500, 7000)]
    assert shown == [("one", ["anna"]), ("ambiguous", ["anna"]), ("one", ["berta"]), ("none", [])]


@pytest.mark.parametrize("cause", ["NAS-Reboot", "NAS reboot", ""])
@pytest.mark.parametrize("seen", [None, 300])
def test_what_a_restart_has_ended_may_have_ended_before(
    sqlite_store: AssignmentStore, tmp_path: Path, seen: int | None, cause: str
) -> None:
    url, radius = radacct_in(tmp_path, ", acctterminatecause TEXT")
    source = sqlite_store.source("radacct", "radacct", url)
    times = (at(0) // 1000, at(seen) // 1000 if seen else None)
    radius.execute("INSERT INTO radacct VALUES ('s1', 'anna', ?, ?, NULL, ?, NULL)", (*times, A))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(400) / 1000)
    ended = "UPDATE radacct SET acctstoptime = ?, acctterminatecause = ?"
    radius.execute(ended, (at(900) // 1000, cause))
    radius.close()
    import_radacct(sqlite_store, source, url, ReadOptions(), at(1000) / 1000)
    verdicts = [told(sqlite_store, seconds)[0] for seconds in (200, 800, 950)]
    assert verdicts == ["one" if seen else "ambiguous", "ambiguous", "none"]


def test_what_a_restart_has_ended_late_is_not_before_who_came_since(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """As FreeRADIUS ends all rows that are open, hours after a Stop was lost."""
    url, radius = radacct_in(tmp_path, ", acctterminatecause TEXT")
    source = sqlite_store.source("radacct", "radacct", url)
    rows = [("anna", 1000, 5000, 20_000, ""), ("berta", 6000, None, 6700, "User-Request")]
    for who, start, seen, stop, cause in [*rows, ("carla", 7000, None, 8000, "Lost-Carrier")]:
        times = [at(one) // 1000 if one else None for one in (start, seen, stop)]
        radius.execute("INSERT INTO radacct VALUES (?, ?, ?, ?, ?, ?, ?)", (who, who, *times, A, cause))
    radius.close()
    import_radacct(sqlite_store, source, url, ReadOptions(), at(30_000) / 1000)
    assert [told(sqlite_store, seconds) for seconds in (4000, 6500, 7500, 9000)] == [
        ("one", ["anna"]), ("one", ["berta"]), ("one", ["carla"]),
        ("ambiguous", ["anna"]),
    ]  # fmt: skip


def test_an_end_that_empties_the_addresses_of_its_row(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    """As FreeRADIUS's queries do where it names none."""
    url, radius = radacct_in(tmp_path)
    source = sqlite_store.source("radacct", "radacct", url)
    radius.execute("INSERT INTO radacct VALUES ('s1', 'anna', ?, NULL, NULL, ?)", (at(0) // 1000, A))
    import_radacct(sqlite_store, source, url, ReadOptions(), at(100) / 1000)
    radius.execute("UPDATE radacct SET acctstoptime = ?, framedipaddress = NULL", (at(600) // 1000,))
    for seconds in (700, 5000):
        import_radacct(sqlite_store, source, url, ReadOptions(), at(seconds) / 1000)
        assert intervals(sqlite_store, A) == [("anna", 0, 600, "TOLD")]
    radius.close()


def test_such_an_end_in_an_hour_that_the_clock_showed_twice(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    url, radius = radacct_in(tmp_path)
    source = sqlite_store.source("radacct", "radacct", url)
    options = ReadOptions(zone=ZoneInfo("Europe/Berlin"))
    radius.execute("INSERT INTO radacct VALUES ('s1', 'anna', '2026-10-25 01:00:00', NULL, NULL, ?)", (A,))
    import_radacct(sqlite_store, source, url, options, 1_792_900_000)
    radius.execute("UPDATE radacct SET acctstoptime = '2026-10-25 02:30:00', framedipaddress = NULL")
    radius.close()
    import_radacct(sqlite_store, source, url, options, 1_793_000_000)
    spans = [(one.end - one.start, one.ending.name) for one in sqlite_store.find(A, None, 0, at(0))]
    assert spans == [(5_400_000, "TOLD"), (3_600_000, "DOUBT")]


def test_a_view_whose_rows_lack_numbers(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    url, radius = radacct_in(tmp_path, ", radacctid INTEGER")
    source = sqlite_store.source("radacct", "radacct", url)
    radius.execute("INSERT INTO radacct VALUES ('s1', 'anna', ?, NULL, NULL, ?, NULL)", (at(0) // 1000, A))
    radius.close()
    import_radacct(sqlite_store, source, url, ReadOptions(), at(100) / 1000)
    assert held(sqlite_store, A, 50) == ["anna"]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_a_table_is_read_on_whatever_the_zone_of_its_database(
    sqlite_store: AssignmentStore, postgresql: str, kind: str
) -> None:
    zone = "America/Los_Angeles"
    url = f"postgresql+psycopg://urlward@/postgres?host={postgresql}&options=-c TimeZone={zone}"
    source = sqlite_store.source("radacct", "radacct", url)
    options = ReadOptions() if kind == "timestamptz" else ReadOptions(zone=ZoneInfo(zone))
    times = ", ".join(f"{name} {kind}" for name in ("acctstarttime", "acctupdatetime", "acctstoptime"))
    with psycopg.connect(
        host=postgresql, user="urlward", dbname="postgres", autocommit=True, options=f"-c TimeZone={zone}"
    ) as radius:
        radius.execute("DROP TABLE IF EXISTS radacct")
        radius.execute(
            f"CREATE TABLE radacct (acctuniqueid text, username text, {times}, framedipaddress inet)"
        )
        for hour, user in enumerate(("anna", "berta", "carla")):
            begun = datetime.fromtimestamp(at(hour * 3600) / 1000, UTC)
            radius.execute("UPDATE radacct SET acctstoptime = %s WHERE acctstoptime IS NULL", (begun,))
            radius.execute("INSERT INTO radacct VALUES (%s, %s, %s, NULL, NULL, %s)", (user, user, begun, A))
            done = import_radacct(sqlite_store, source, url, options, at(hour * 3600 + 120) / 1000)
            assert done.rows == hour + 1
            assert held(sqlite_store, A, hour * 3600 + 60) == [user]


@pytest.mark.parametrize("name", [None, ""])
def test_sessions_without_a_name_are_not_one(
    sqlite_store: AssignmentStore, tmp_path: Path, name: str | None
) -> None:
    url, radius = radacct_in(tmp_path)
    for user, address, stop in (("anna", "192.0.2.1", None), ("berta", "192.0.2.2", at(100) // 1000)):
        row = (name, user, at(0) // 1000, None, stop, address)
        radius.execute("INSERT INTO radacct VALUES (?, ?, ?, ?, ?, ?)", row)
    radius.close()
    source = sqlite_store.source("radacct", "radacct", url)
    import_radacct(sqlite_store, source, url, ReadOptions(), at(1000) / 1000)
    assert [held(sqlite_store, f"192.0.2.{n}", 500) for n in (1, 2)] == [["anna"], []]


@pytest.mark.parametrize("followed", [False, True])
def test_an_end_that_is_told_late_is_found(store: AssignmentStore, tmp_path: Path, *, followed: bool) -> None:
    """By a server that had no answer for a while, after what came later was read, on the same address too."""
    url, radius = radacct_in(tmp_path)
    source = store.source("radacct", "radacct", url)
    for number, name in enumerate(("anna", "berta", "carla")):
        radius.execute(
            "INSERT INTO radacct VALUES (?, ?, ?, NULL, NULL, ?)",
            (name, name, at(number * 500) // 1000, f"192.0.2.{number}"),
        )
    if followed:
        radius.execute(
            "INSERT INTO radacct VALUES ('emil', 'emil', ?, NULL, NULL, '192.0.2.0')", (at(700) // 1000,)
        )
    import_radacct(store, source, url, ReadOptions(), at(1000) / 1000)
    radius.execute("UPDATE radacct SET acctstoptime = ? WHERE username = 'anna'", (at(600) // 1000,))
    assert import_radacct(store, source, url, ReadOptions(), at(5000) / 1000).rows == 2
    radius.close()
    assert intervals(store, "192.0.2.0") == [
        ("anna", 0, 600, "TOLD"), *([("emil", 700, None, "NONE")] if followed else [])
    ]  # fmt: skip
    assert intervals(store, "192.0.2.1") == [("berta", 500, None, "NONE")]


def test_sessions_that_are_told_late_are_found(store: AssignmentStore, tmp_path: Path) -> None:
    """By a server that had no answer, or whose clock is behind that of another."""
    url, radius = radacct_in(tmp_path, ", radacctid INTEGER PRIMARY KEY")
    source = store.source("radacct", "radacct", url)

    def session(name: str, start: int, stop: int | None, address: str) -> None:
        times = at(start) // 1000, None, at(stop) // 1000 if stop else None
        radius.execute("INSERT INTO radacct VALUES (?, ?, ?, ?, ?, ?, NULL)", (name, name, *times, address))

    session("anna", 0, 300, "192.0.2.1")
    session("other", 950, None, "192.0.2.9")
    import_radacct(store, source, url, ReadOptions(), at(1000) / 1000)
    session("berta", 400, 700, "192.0.2.1")
    session("carla", 500, None, "192.0.2.2")
    assert import_radacct(store, source, url, ReadOptions(), at(1030) / 1000).rows == 3
    assert import_radacct(store, source, url, ReadOptions(), at(1060) / 1000).rows == 1
    radius.close()
    assert [told(store, 550, f"192.0.2.{n}") for n in (1, 2)] == [("one", ["berta"]), ("one", ["carla"])]


def record(status: str, seconds: int, user: str = "anna", session: str = "s1", **more: str) -> str:
    fields = {
        "Acct-Status-Type": status,
        "User-Name": f'"{user}"' if user else "",
        "Acct-Session-Id": f'"{session}"',
        "NAS-IP-Address": "192.0.2.1",
        "Framed-IP-Address": A,
        **{name.replace("_", "-"): value for name, value in more.items()},
        "Timestamp": str(at(seconds) // 1000),
    }
    lines = [f"\t{name} = {value}\n" for name, value in fields.items() if value]
    return "Wed Nov 25 15:01:03 2026\n" + "".join(lines) + "\n"


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record("Start", 0), record("Stop", 100)], [("anna", 0, 100, "TOLD")]),
        ([record("Stop", 100, Acct_Session_Time="60")], [("anna", 40, 100, "TOLD")]),
        # What is longer than all time, or less than none, says nothing of the beginning.
        (
            [record("Start", 0), record("Stop", 100, Acct_Session_Time=str(2**32 - 1))],
            [("anna", 0, 100, "TOLD")],
        ),
        ([record("Interim-Update", 0, Acct_Session_Time=str(-(2**70)))], [("anna", 0, None, "NONE")]),
        # An end need not name what the session had.
        ([record("Start", 0), record("Stop", 100, Framed_IP_Address="")], [("anna", 0, 100, "TOLD")]),
        (
            [record("Start", 0), record("Stop", 100, session="s", Framed_IP_Address="")],
            [("anna", 0, None, "NONE")],
        ),
        ([record("Stop", 100, Framed_IP_Address=""), record("Start", 200)], [("anna", 200, None, "NONE")]),
        ([record("Interim-Update", 100, Acct_Session_Time="60")], [("anna", 40, None, "NONE")]),
        ([record("Start", 10, Acct_Delay_Time="10")], [("anna", 0, None, "NONE")]),
        # Its server may have been down since it said so last.
        (
            [record("Start", 0), record("Accounting-On", 50, user="")],
            [("anna", 0, 1, "SAID"), ("anna", 1, 50, "SILENT")],
        ),
        # It says so before it is down, and may say again that it is up.
        (
            [record("Start", 0), record("Accounting-Off", 50, user=""), record("Accounting-On", 50, user="")],
            [("anna", 0, 50, "RESTARTED")],
        ),
        (
            [record("Accounting-Off", 50, user=""), record(UPDATE, 60, Acct_Delay_Time="30")],
            [("anna", 30, 50, "RESTARTED")],
        ),
        # But whoever was another's before, or had no update for long, was not there any more.
        (
            [
                record("Start", 0),
                record("Start", 40, user="berta", session="s2"),
                record("Accounting-Off", 50, user=""),
            ],
            [("anna", 0, 1, "SAID"), ("anna", 1, 40, "SILENT"), ("berta", 40, 50, "RESTARTED")],
        ),
        (
            [
                record("Start", 0),
                record(UPDATE, 300, Acct_Session_Time="300"),
                record("Accounting-Off", 90_300, user=""),
            ],
            [("anna", 0, 301, "SAID"), ("anna", 301, 90_300, "SILENT")],
        ),
        # Its own end was under way.
        *(
            (
                [record("Start", 0), record(f"Accounting-{word}", 50, user=""), record("Stop", 60, **late)],
                [("anna", 0, 30, "TOLD")],
            )
            for word in ("On", "Off")
            for late in ({"Acct_Delay_Time": "30"}, {"Acct_Delay_Time": "30", "Framed_IP_Address": ""})
        ),
        # Within a second; the second one was sent again.
        ([record("Start", 0), record("Stop", 0, Framed_IP_Address="")], [("anna", 0, 0.001, "TOLD")]),
        (
            [record("Start", 0), record("Stop", 0, Framed_IP_Address=""), record("Start", 0)],
            [("anna", 0, 0.001, "TOLD")],
        ),
        ([record("Start", 0), record("Stop", 0), record("Start", 0)], [("anna", 0, 0.001, "TOLD")]),
        # It is that of one server, not of those whose names begin so.
        (
            [
                record("Start", 0, NAS_IP_Address="", NAS_Identifier='"bras/1"'),
                record("Accounting-On", 50, user="", NAS_IP_Address="", NAS_Identifier='"bras"'),
            ],
            [("anna", 0, None, "NONE")],
        ),
        # Sent again where no answer came, or told by two collectors.
        (
            [
                record("Start", 0),
                record("Interim-Update", 50),
                record("Stop", 100),
                record("Interim-Update", 110, Acct_Delay_Time="20"),
            ],
            [("anna", 0, 100, "TOLD")],
        ),
        (
            [
                record("Start", 0),
                record("Stop", 100),
                record("Start", 110, user="berta", session="s2"),
                record("Stop", 120, user="berta", session="s2"),
                record("Start", 0),
                record("Stop", 100),
            ],
            [("anna", 0, 100, "TOLD"), ("berta", 110, 120, "TOLD")],
        ),
        # By a server that does not say how late: a beginning behind its own end, and an end.
        (
            [
                record("Start", 0),
                record("Stop", 3),
                record("Start", 4, user="berta", session="s2"),
                record("Start", 5),
            ],
            [("anna", 0, 3, "TOLD"), ("berta", 4, None, "NONE")],
        ),
        # One of a service, beside it.
        (
            [
                record("Start", 0),
                record("Start", 1, session="s1-service"),
                record("Stop", 50, session="s1-service", Acct_Session_Time="49"),
                record("Stop", 100, Framed_IP_Address=""),
            ],
            [("anna", 0, 100, "TOLD"), ("anna", 1, 50, "TOLD")],
        ),
        # Names are given again.
        (
            [record("Start", 0), record("Accounting-On", 30, user=""), record("Start", 40)],
            [("anna", 0, 1, "SAID"), ("anna", 1, 30, "SILENT"), ("anna", 40, None, "NONE")],
        ),
        # It was another by the same name, after all.
        (
            [
                record("Start", 0),
                record("Stop", 3),
                record("Start", 5),
                record(UPDATE, 65, Acct_Session_Time="60"),
            ],
            [("anna", 0, 3, "TOLD"), ("anna", 5, None, "NONE")],
        ),
        (
            [
                record("Start", 0),
                record("Stop", 100, Acct_Session_Time="100"),
                record("Stop", 110, Acct_Session_Time="100"),
            ],
            [("anna", 0, 100, "TOLD")],
        ),
        (
            [
                record("Start", 0, Framed_IP_Address=B),
                record(UPDATE, 300, Acct_Session_Time="300"),
                record("Stop", 500, Acct_Session_Time="500"),
                record("Stop", 510, Acct_Session_Time="500"),
            ],
            [("anna", 0, 300, "MOVED"), ("anna", 300, 500, "TOLD")],
        ),
        # An update, of what the session had before it had another address.
        (
            [
                record("Start", 0),
                record(UPDATE, 300, Acct_Session_Time="300"),
                record(UPDATE, 500, Acct_Session_Time="500", Framed_IP_Address=B),
                record("Start", 505, user="berta", session="s2"),
                record(UPDATE, 510, Acct_Session_Time="300"),
            ],
            [("anna", 0, 300, "TOLD"), ("anna", 300, 500, "MOVED"), ("berta", 505, None, "NONE")],
        ),
        ([record("Start", 0, Framed_IP_Address="255.255.255.254")], []),
        # It is taken away already.
        (
            [record("Start", 0), record("Stop", 100, Framed_IP_Address="0.0.0.0")],
            [("anna", 0, 100, "TOLD")],
        ),
        ([record("Start", 0, user="a\\303\\244\\\\n")], [("aä\\n", 0, None, "NONE")]),
        ([record("Start", 0, user="", Calling_Station_Id='"02-00"')], [("02-00", 0, None, "NONE")]),
    ],
)
def test_requests(
    sqlite_store: AssignmentStore, tmp_path: Path, records: list[str], expected: list[object]
) -> None:
    path = tmp_path / "detail"
    path.write_text("".join(records))
    assert read(sqlite_store, "detail", path).skipped == 0
    assert intervals(sqlite_store, A) == expected


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("sslpassword=hunter2&sslmode=require", "sslmode=require"),
        ("passfile=/etc/pass&options=-c%20x=hunter2", "passfile="),
        ("password=hunter2&password=hunter2", "***"),
    ],
)
def test_a_database_url_is_shown_without_secrets(
    sqlite_store: AssignmentStore, tmp_path: Path, query: str, shown: str
) -> None:
    url = f"postgresql+psycopg://u:hunter2@/x?host={tmp_path}&{query}"
    assert "hunter2" not in shown_url(url)
    assert shown in shown_url(url)
    source = sqlite_store.source("radacct", "radacct", "")
    with pytest.raises(AssignmentError) as raised:
        import_radacct(sqlite_store, source, url, ReadOptions(), 0)
    assert "hunter2" not in str(raised.value)


def test_what_a_driver_says_is_told_without_secrets() -> None:
    url = "postgresql://u:first@h/x?password=second&sslmode=require"
    said = "with first and second, require"
    assert without_secrets(said, url) == "with *** and ***, require"


def test_records_indented_by_spaces(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "detail"
    path.write_text((record("Start", 0) + record("Stop", 100)).replace("\t", "        "))
    done = read(sqlite_store, "detail", path)
    assert (done.rows, done.skipped) == (2, 0)
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "TOLD")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["x", "\tTimestamp = 5"], "no Acct-Status-Type"),
        # Such as of a name with a line break in it, as others than FreeRADIUS write it: half is another's.
        (["x", *record("Start", 0, user="an\na").rstrip().splitlines()], "a quote that does not end"),
    ],
)
def test_faults_say_what_is_wrong(lines: list[str], reason: str) -> None:
    parsed = DetailParser(ReadOptions()).parse([*lines, ""])
    assert [fault.reason for fault in parsed.faults] == [reason]


def test_a_request_that_is_not_all_there_is_read_later(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "detail"
    whole = record("Start", 0) + record("Stop", 100)
    path.write_text(whole[:-40])
    assert read(sqlite_store, "detail", path).rows == 1
    path.write_text(whole)
    done = read(sqlite_store, "detail", path)
    assert (done.rows, done.resumed) == (1, len(record("Start", 0)))
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "TOLD")]


@settings(max_examples=60)
@given(text=st.text(st.sampled_from('\t =\n"\\0129anFramed-IP-Address Timestamp Start Acct-Status-Type')))
def test_any_text_is_counted_or_passed_over(text: str) -> None:
    parsed = DetailParser(ReadOptions()).parse(text.split("\n"))
    assert parsed.skipped <= parsed.rows
