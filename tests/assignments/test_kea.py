import shutil
import time
from pathlib import Path

import pytest

from assignments import kea_server
from assignments.kea_server import Client4, Client6, kea
from assignments.support import SECOND, at, intervals, read
from conftest import wait_for
from urlward.assignments.formats import ReadOptions
from urlward.assignments.interval import AssignmentError, Ending
from urlward.assignments.store import AssignmentStore

ANNA, BERTA = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
DUID = b"\0\3\0\1" + ANNA
HEADER4 = (
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,"
    "pool_id\n"
)
A = "192.0.2.10"


@pytest.fixture(scope="module")
def leases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what Kea wrote: anna and berta lease, anna renews, berta gives back; so on IPv6 anna."""
    if reason := kea_server.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kea")
    four, six = folder / "leases4.csv", folder / "leases6.csv"
    with kea(4, folder, four) as ports4, kea(6, folder, six) as ports6:
        client4, client6 = Client4(ports4), Client6(ports6)
        address, _ = client4.lease(ANNA)
        other, server = client4.lease(BERTA)
        lease = client6.lease(DUID)
        # Kea's clock has seconds.
        second = int(time.time()) + 1
        wait_for(lambda: int(time.time()) > second, "the second after the next")
        client4.renew(ANNA, address)
        client4.release(BERTA, other, server)
        client6.renew(DUID, lease)
        client6.release(DUID, lease)
        wait_for(lambda: len(four.read_text().splitlines()) == 5, "Kea to write IPv4 leases")
        wait_for(lambda: len(six.read_text().splitlines()) == 7, "Kea to write IPv6 leases")
        client4.socket.close()
        client6.socket.close()
    return folder


def test_leases_that_kea_wrote(leases: Path, store: AssignmentStore) -> None:
    done = read(store, "kea", leases / "leases4.csv")
    assert (done.rows, done.skipped) == (4, 0)
    now = int(time.time() * 1000)
    (anna,) = store.find("192.0.2.10", 40_213, now, now)
    assert (anna.subscriber, anna.ending) == ("02:00:00:00:00:01", Ending.EXPIRY)
    # The renewal is part of it.
    assert anna.end - anna.start == (3600 + anna.seen / SECOND - anna.start / SECOND) * SECOND
    assert anna.seen > anna.start
    (berta,) = store.find("192.0.2.11", None, now, now)
    assert (berta.subscriber, berta.ending) == ("02:00:00:00:00:02", Ending.RELEASED)
    assert store.find("192.0.2.10", None, anna.start - 1, anna.start - 1) == []


def test_delegated_prefixes_that_kea_wrote(leases: Path, store: AssignmentStore) -> None:
    done = read(store, "kea", leases / "leases6.csv")
    assert (done.rows, done.skipped) == (6, 0)
    now = int(time.time() * 1000)
    for address, network in (("2001:db8:1::10", "2001:db8:1::10"), ("2001:db8:2:ff::7", "2001:db8:2::/56")):
        (anna,) = store.find(address, None, now, now)
        assert (anna.network, anna.subscriber) == (network, "00:03:00:01:02:00:00:00:00:01")
        assert anna.ending == Ending.RELEASED
    assert store.find("2001:db8:2:100::7", None, now, now) == []


def test_cleaned_and_renamed_files(leases: Path, sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "leases4.csv"
    shutil.copy(leases / "leases4.csv", path)
    read(sqlite_store, "kea", path)
    before = intervals_of_all(sqlite_store)
    renamed = path.rename(tmp_path / "leases4.csv.1")
    assert read(sqlite_store, "kea", renamed).rows == 0
    # What a cleanup leaves: the last word on each lease.
    lines = (leases / "leases4.csv").read_text().splitlines(keepends=True)
    (tmp_path / "leases4.csv.completed").write_text(lines[0] + lines[3])
    assert read(sqlite_store, "kea", tmp_path / "leases4.csv.completed").rows == 1
    assert intervals_of_all(sqlite_store) == before


def intervals_of_all(store: AssignmentStore) -> list[object]:
    return [intervals(store, address) for address in ("192.0.2.10", "192.0.2.11")]


def line(start: int, lifetime: int = 100, who: str = "anna", state: int = 0, address: str = A) -> str:
    return f"{address},{who},,{lifetime},{at(start) // 1000 + lifetime},1,0,0,,{state},,0\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line(0), line(50), line(0, 100, "berta", 0, "192.0.2.11")], [("anna", 0, 150, "EXPIRY")]),
        ([line(0), line(0, state=2), line(0, 0)], [("anna", 0, 100, "TOLD")]),
        (
            [line(0), line(0, 0), line(60, who="berta")],
            [("anna", 0, 60, "RELEASED"), ("berta", 60, 160, "EXPIRY")],
        ),
        # Declined, since somebody else uses it: by whom its traffic is from then on, is not known.
        (
            [line(0), line(10, 86_400, "", state=1)],
            [("anna", 0, 10, "TOLD"), ("anna", 10, 100, "DECLINED")],
        ),
        ([line(0), line(0, 86_400, "", state=1)], [("anna", 0, 100, "DECLINED")]),
        ([line(0), line(200, 86_400, "", state=1), line(0)], [("anna", 0, 100, "EXPIRY")]),
        (
            [
                line(0),
                line(10, 200, "", state=1),
                line(10, 200, "", state=2),
                line(250),
                line(300, who="berta"),
            ],
            [
                ("anna", 0, 10, "TOLD"),
                ("anna", 10, 100, "DECLINED"),
                ("anna", 250, 300, "NEXT"),
                ("berta", 300, 400, "EXPIRY"),
            ],
        ),
        (
            [line(0, 0xFFFFFFFF), line(10, 50, "", state=1), line(60, who="berta")],
            [("anna", 0, 10, "TOLD"), ("anna", 10, 60, "DECLINED"), ("berta", 60, 160, "EXPIRY")],
        ),
        ([line(0, 0xFFFFFFFF)], [("anna", 0, None, "NONE")]),
        ([line(0), line(50, who="a&#x2cb")], [("anna", 0, 50, "NEXT"), ("a,b", 50, 150, "EXPIRY")]),
    ],
)
def test_states_and_lifetimes(
    sqlite_store: AssignmentStore, tmp_path: Path, lines: list[str], expected: list[object]
) -> None:
    path = tmp_path / "leases.csv"
    path.write_text(HEADER4 + "".join(lines))
    # A database's name of a state, in a dump of it, is none that is understood.
    path.write_text(path.read_text() + line(500, who="zoe").replace(",,0,,0", ",,declined,,0"))
    assert read(sqlite_store, "kea", path).skipped == 1
    assert intervals(sqlite_store, A) == expected


def test_another_column_names_the_subscriber(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "leases.csv"
    path.write_text(HEADER4 + line(0).replace(",0,,0\n", ",0,anna's line,0\n"))
    read(sqlite_store, "kea", path, ReadOptions({"subscriber": "user_context"}))
    assert intervals(sqlite_store, A) == [("anna's line", 0, 100, "EXPIRY")]
    with pytest.raises(AssignmentError, match="no column 'line'"):
        read(sqlite_store, "kea", path, ReadOptions({"subscriber": "line"}))


def test_a_name_that_a_lease_has_no_more_when_it_is_over(
    sqlite_store: AssignmentStore, tmp_path: Path
) -> None:
    """Kea empties the hostname of what it reclaims."""
    path = tmp_path / "leases.csv"

    def named(text: str) -> str:
        return text.replace(",0,0,,", ",0,0,desk-1,")

    path.write_text(
        HEADER4 + named(line(0)) + named(line(50)) + line(50, state=2) + named(line(200)) + line(260, state=2)
        + named(line(400)) + named(line(400, 0)) + line(400, 0, state=2) + named(line(600)) + line(600, 0)
    )  # fmt: skip
    assert read(sqlite_store, "kea", path, ReadOptions({"subscriber": "hostname"})).skipped == 0
    assert intervals(sqlite_store, A) == [
        ("desk-1", 0, 150, "TOLD"), ("desk-1", 200, 300, "EXPIRY"), ("desk-1", 400, 500, "RELEASED"),
        ("desk-1", 600, 700, "EXPIRY"),
    ]  # fmt: skip


def test_bad_lines_are_counted(sqlite_store: AssignmentStore, tmp_path: Path) -> None:
    path = tmp_path / "leases.csv"
    bad = [
        "nonsense\n",
        line(0).replace(A, "192.0.2.1000"),
        line(0).replace(",100,", ",x,"),
        line(-(2**33)),
        line(2**70),
        line(0, -(2**70)),
    ]
    path.write_text(HEADER4 + "".join(bad) + line(0))
    done = read(sqlite_store, "kea", path)
    assert (done.rows, done.skipped) == (7, 6)
    path.write_text("address,expire\n")
    with pytest.raises(AssignmentError, match=r"leases\.csv: not a lease file of Kea: no column"):
        read(sqlite_store, "kea", path)
