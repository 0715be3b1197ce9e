import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from assignments.support import DAY, START, at, held, intervals, sighting, taken
from urlward.assignments.interval import AssignmentError, SightingKind, SightingSource
from urlward.assignments.schema import SPANS, cell_of, cells_at
from urlward.assignments.store import AssignmentStore, Changes, KeepingNode

A = "198.51.100.7"


@given(
    start=st.integers(0, 1 << 42),
    length=st.integers(1, SPANS[-1]),
    into=st.floats(0, 1, exclude_max=True),
    near=st.integers(0, 10**7),
)
def test_an_interval_is_in_a_cell_that_is_looked_at(start: int, length: int, into: float, near: int) -> None:
    moment = start + int(length * into)
    assert any(cell_of(start, start + length) in cells for cells in cells_at(moment, moment))
    assert any(cell_of(start, start + length) in c for c in cells_at(max(0, moment - near), moment + near))
    assert sum(map(len, cells_at(moment, moment))) <= 2 * len(SPANS)


def test_who_had_it_when(store: AssignmentStore) -> None:
    taken(
        store,
        sighting(A, 0, 100, "anna", SightingKind.WHOLE),
        sighting(A, 100, 5000, "berta", SightingKind.WHOLE),
        sighting(A, 9000, None, "carla"),
    )
    for seconds, expected in [(-1, []), (0, ["anna"]), (99.999, ["anna"]), (100, ["berta"]),
                              (5000, []), (8999, []), (9000, ["carla"]), (10**7, ["carla"])]:  # fmt: skip
        assert held(store, A, seconds) == expected, seconds
    assert held(store, "198.51.100.8", 50) == []


def test_ports_and_prefixes(store: AssignmentStore) -> None:
    taken(
        store,
        sighting(A, 0, 100, "anna", SightingKind.WHOLE, ports=(1024, 2047)),
        sighting(A, 0, 100, "berta", SightingKind.WHOLE, ports=(2048, 3071)),
        sighting("198.51.100.0/24", 0, 100, "carla", SightingKind.WHOLE),
        sighting("2001:db8:7::/56", 0, None, "dora"),
        sighting("2001:db8:7:1::5", 0, 100, "emma", SightingKind.WHOLE),
    )
    assert sorted(held(store, A, 5, 2047)) == ["anna", "carla"]
    assert sorted(held(store, A, 5, 2048)) == ["berta", "carla"]
    assert held(store, A, 5, 80) == ["carla"]
    assert sorted(held(store, A, 5)) == ["anna", "berta", "carla"]
    assert sorted(held(store, "2001:db8:7:1::5", 5)) == ["dora", "emma"]
    assert held(store, "2001:db8:7:ff::5", 5) == ["dora"]
    assert held(store, "2001:db8:7:100::5", 5) == []
    assert sorted(held(store, f"::ffff:{A}", 5, 2047)) == ["anna", "carla"]


def test_what_is_said_twice_is_there_once(store: AssignmentStore) -> None:
    for _ in range(2):
        taken(
            store,
            sighting(A, 0, 100, "anna", SightingKind.WHOLE),
            sighting(A, 0, 100, "berta", SightingKind.WHOLE),
        )
    assert sorted(held(store, A, 5)) == ["anna", "berta"]
    taken(store, sighting(A, 0, 100, "anna", SightingKind.WHOLE), name="another")
    assert sorted(held(store, A, 5)) == ["anna", "anna", "berta"]


def test_what_is_held_is_written_over(store: AssignmentStore) -> None:
    for n in range(4):
        taken(store, sighting(A, n * 50, n * 50 + 100, "anna"), sighting("192.0.2.1", n, None, f"s{n}"))
    assert intervals(store, A) == [("anna", 0, 250, "EXPIRY")]
    assert [row[0] for row in intervals(store, "192.0.2.1")] == ["s0", "s1", "s2", "s3"]


def test_a_source_keeps_its_format(sqlite_store: AssignmentStore) -> None:
    first = sqlite_store.source("one", "kea", "a.csv")
    assert sqlite_store.source("one", "kea", "b.csv").id == first.id
    assert sqlite_store.sources()[first.id].path == "a.csv", "nothing has come of the other"
    second = sqlite_store.source("one", "kea", "b.csv")
    sqlite_store.write(second, Changes(rows=1, skipped=1), START)
    assert sqlite_store.sources()[first.id].path == "a.csv"
    sqlite_store.write(second, Changes(rows=2, skipped=1), START)
    assert sqlite_store.sources()[first.id].path == "b.csv"
    with pytest.raises(AssignmentError, match="is of format kea"):
        sqlite_store.source("one", "isc", "a.leases")


def test_the_file_is_the_owners_alone(tmp_path: Path, sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna", SightingKind.WHOLE))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(AssignmentError, match="Is a directory"):
        AssignmentStore(tmp_path)
    (tmp_path / "text.db").write_text("no database\n" * 100)
    with pytest.raises(AssignmentError, match=r"text\.db: file is not a database"):
        AssignmentStore(tmp_path / "text.db")
    with pytest.raises(AssignmentError, match="not a postgresql:// URL") as raised:
        AssignmentStore("secret")
    assert "secret" not in str(raised.value)
    with pytest.raises(AssignmentError) as raised:
        AssignmentStore(f"postgresql://urlward:secret@/x?host={tmp_path}")
    assert "secret" not in str(raised.value)


times = st.integers(0, 20)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([A, "198.51.100.0/28", "203.0.113.1"]),
            times,
            st.integers(1, 10**7),
            st.sampled_from("abc"),
        ),
        max_size=12,
    ),
    moment=st.integers(0, 2 * 10**7),
)
@pytest.mark.ours
def test_against_a_list(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, str]], moment: int
) -> None:
    store = AssignmentStore(tmp_path_factory.mktemp("db") / "a.db")
    taken(
        store,
        *(sighting(n, start, start + length, who, SightingKind.WHOLE) for n, start, length, who in rows),
    )
    expected = {
        (start, length, who) for n, start, length, who in rows
        if n != "203.0.113.1" and start <= moment < start + length
    }  # fmt: skip
    found = store.find(A, None, at(moment), at(moment))
    assert {(one.start, one.end, one.subscriber) for one in found} == {
        (at(start), at(start + length), who) for start, length, who in expected
    }
    store.close()


def test_long_and_short_ones(sqlite_store: AssignmentStore) -> None:
    for n, size in enumerate(SPANS):
        seconds = size / 1000
        taken(sqlite_store, sighting(f"192.0.2.{n}", 0, seconds, "exact", SightingKind.WHOLE))
        taken(
            sqlite_store, sighting(f"192.0.2.{n}", seconds, seconds + DAY / 1000, "next", SightingKind.WHOLE)
        )
        if size < 10**12:
            assert held(sqlite_store, f"192.0.2.{n}", seconds - 0.001) == ["exact"]
            assert held(sqlite_store, f"192.0.2.{n}", seconds) == ["next"]


def test_what_goes_into_a_database_that_is_gone_is_no_success(tmp_path: Path) -> None:
    store = AssignmentStore(tmp_path / "assignments.db")
    taken(store, sighting(A, 0, 100, "anna", SightingKind.WHOLE))
    for file in tmp_path.glob("assignments.db*"):
        file.unlink()
    with pytest.raises(AssignmentError, match="deleted, moved or replaced"):
        taken(store, sighting(A, 100, 200, "berta", SightingKind.WHOLE))
    store.close()


def test_a_source_that_nothing_came_of_is_gone(store: AssignmentStore) -> None:
    with pytest.raises(AssignmentError, match="no good"), store.importing("one", "csv", "a.csv") as source:
        raise AssignmentError("no good")
    assert store.sources() == {}
    # Another reader of it goes on, and what it says has its source.
    store.write(source, Changes(rows=1), START)
    assert store.sources() == {source.id: replace(source, read=START)}
    with store.importing("one", "csv", "b.csv"):
        pass
    assert store.sources() == {source.id: replace(source, read=START)}


def test_a_source_that_two_nodes_begin_at_once_is_of_one_of_them(
    sqlite_store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that are set up alike start alike: neither finds one of the other's before it makes its own."""
    made = AssignmentStore.source

    def source(store: AssignmentStore, name: str, format_: str, path: str) -> SightingSource:
        monkeypatch.setattr(AssignmentStore, "source", made)
        begun.enter_context(store.importing(name, format_, path, KeepingNode("gw2", 7), takes_over=False))
        return made(store, name, format_, path)

    with ExitStack() as begun:
        monkeypatch.setattr(AssignmentStore, "source", source)
        mine = sqlite_store.importing("csv", "csv", "a.csv", KeepingNode("gw1", 7), takes_over=False)
        with pytest.raises(AssignmentError, match="is read by another node"):
            begun.enter_context(mine)


def test_a_server_waits_for_who_is_alone(postgresql: str) -> None:
    """What a large gap is brought together with is computed meanwhile."""
    options = "-c%20idle_in_transaction_session_timeout=60s"
    with AssignmentStore(f"postgresql://urlward@/postgres?host={postgresql}&options={options}") as store:
        source = store.source("alone", "csv", "/a")
        with store.alone(source.id), store.changing() as connection:
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
        with store.changing() as connection:
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
