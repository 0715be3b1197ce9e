import pytest

from assignments.support import START, at, held, intervals, sighting, taken
from urlward.assignments import merging
from urlward.assignments.interval import Sighting, SightingKind
from urlward.assignments.store import AssignmentStore

A = "192.0.2.7"
B, C = "192.0.2.8", "192.0.2.9"
HELD, ENDED, RELEASED, WHOLE, RESTARTED, _, _, STOPPED, _ = SightingKind


@pytest.mark.parametrize("batch", [1, 100])
def test_renewals_are_one_interval(sqlite_store: AssignmentStore, batch: int) -> None:
    taken(sqlite_store, *(sighting(A, n * 50, n * 50 + 100, "anna") for n in range(5)), batch=batch)
    assert intervals(sqlite_store, A) == [("anna", 0, 300, "EXPIRY")]


@pytest.mark.parametrize("batch", [1, 100])
def test_after_a_gap_it_is_another(sqlite_store: AssignmentStore, batch: int) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna"), sighting(A, 101, 200, "anna"), batch=batch)
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "EXPIRY"), ("anna", 101, 200, "EXPIRY")]


@pytest.mark.parametrize("batch", [1, 100])
def test_the_next_holder_ends_the_last(sqlite_store: AssignmentStore, batch: int) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna"),
        sighting(A, 50, 150, "berta"),
        sighting(A, 100, 200, "carla"),
        batch=batch,
    )
    assert intervals(sqlite_store, A) == [
        ("anna", 0, 50, "NEXT"),
        ("berta", 50, 100, "NEXT"),
        ("carla", 100, 200, "EXPIRY"),
    ]


def test_two_of_the_same_second_are_both_told(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna"), sighting(A, 0, 100, "berta"))
    assert intervals(sqlite_store, A) == [("anna", 0, 0.001, "NEXT"), ("berta", 0, 100, "EXPIRY")]


def test_what_is_told_late(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 100, 200, "berta"), sighting(A, 0, 150, "anna"))
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "NEXT"), ("berta", 100, 200, "EXPIRY")]


def test_one_without_an_end_that_is_told_late(sqlite_store: AssignmentStore) -> None:
    """An end that was told before it would be known."""
    taken(sqlite_store, sighting(A, 100, None, "berta"), sighting(A, 0, None, "anna"))
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "NEXT"), ("berta", 100, None, "NONE")]


@pytest.mark.parametrize("batch", [1, 100])
def test_what_the_same_subscriber_had_before_is_another(sqlite_store: AssignmentStore, batch: int) -> None:
    """Its end, and whoever came between, may be read behind it, or were before; what goes on goes on."""
    taken(sqlite_store, sighting(A, 100, None, "anna"))
    earlier = sighting(A, 0, None, "anna"), sighting(A, 0, 20, "anna", ENDED), sighting(A, 30, None, "berta")
    taken(sqlite_store, *earlier, sighting(A, -9, None, "anna"), batch=batch)
    assert intervals(sqlite_store, A) == [
        ("anna", -9, 0, "NEXT"),
        ("anna", 0, 20, "TOLD"),
        ("berta", 30, 100, "NEXT"),
        ("anna", 100, None, "NONE"),
    ]


@pytest.mark.parametrize("batch", [1, 100])
def test_what_is_read_late_has_its_end_all_the_same(store: AssignmentStore, batch: int) -> None:
    """Such as from the file of another server, whose reader lagged behind."""
    taken(
        store,
        sighting(A, 100, None, "carla"),
        sighting(A, 0, None, "anna"),
        sighting(A, 20, None, "berta"),
        sighting(A, 20, 50, "berta", ENDED),
        sighting(A, 60, None, "dora"),
        sighting(A, -50, None, "erna"),
        batch=batch,
    )
    assert intervals(store, A) == [
        ("erna", -50, 0, "NEXT"),
        ("anna", 0, 20, "NEXT"),
        ("berta", 20, 50, "TOLD"),
        ("dora", 60, 100, "NEXT"),
        ("carla", 100, None, "NONE"),
    ]


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        # The same, which an export had without an end before.
        (sighting(A, 0, 50, "anna", WHOLE), [("anna", 0, 50, "TOLD")]),
        (sighting(A, 20, 50, "berta", WHOLE), [("anna", 0, 20, "NEXT"), ("berta", 20, 50, "TOLD")]),
        (sighting(A, -9, -5, "anna", WHOLE), [("anna", -9, -5, "TOLD"), ("anna", 0, None, "NONE")]),
        (sighting(A, -9, 50, "berta", WHOLE), [("berta", -9, 50, "TOLD"), ("anna", 0, None, "NONE")]),
    ],
)
def test_an_interval_that_is_known_as_a_whole_ends_what_is_held(
    sqlite_store: AssignmentStore, whole: Sighting, expected: list[object]
) -> None:
    taken(sqlite_store, sighting(A, 0, None, "anna"))
    taken(sqlite_store, whole)
    assert intervals(sqlite_store, A) == expected


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("said", [ENDED, WHOLE])
@pytest.mark.parametrize("nexts", [None, 200])
def test_an_end_that_is_read_behind_the_next_ones_beginning(
    sqlite_store: AssignmentStore, nexts: int | None, said: SightingKind, batch: int
) -> None:
    """An export may have the newest first, and a server may tell an end late."""
    taken(sqlite_store, sighting(A, 50, None, "anna", session="s"))
    taken(
        sqlite_store,
        sighting(A, 100, nexts, "berta", WHOLE if nexts else HELD),
        # One before it, which ends as it begins.
        sighting(A, 0, 50, "anna", WHOLE, session="s"),
        sighting(A, 50, 60, "anna", said, session="s"),
        batch=batch,
    )
    assert intervals(sqlite_store, A) == [
        ("anna", 0, 50, "TOLD"),
        ("anna", 50, 60, "TOLD"),
        ("berta", 100, nexts, "TOLD" if nexts else "NONE"),
    ]


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize(
    "end",
    [
        # By its own account it is a second shorter.
        sighting(A, 51, 60, "anna", ENDED, session="s"),
        sighting(A, 50, 60, "", STOPPED, session="s"),
    ],
)
def test_a_session_that_ends_late_ends_with_all_that_it_had(
    sqlite_store: AssignmentStore, monkeypatch: pytest.MonkeyPatch, end: Sighting, batch: int
) -> None:
    """Known by its name, as are all of a batch at once."""
    taken(sqlite_store, *(sighting(one, 50, None, "anna", session="s") for one in (A, B, C)))
    monkeypatch.setattr(sqlite_store, "sessions", None)
    taken(
        sqlite_store,
        *(sighting(one, 100, None, "berta", session="t") for one in (A, B)),
        end,
        batch=batch,
    )
    berta = ("berta", 100, None, "NONE")
    for address, others in ((A, [berta]), (B, [berta]), (C, [])):
        assert intervals(sqlite_store, address) == [("anna", 50, 60, "TOLD"), *others]


@pytest.mark.parametrize("batch", [1, 100])
def test_what_two_collectors_have_is_said_once(sqlite_store: AssignmentStore, batch: int) -> None:
    """Also where one is late, and the same subscriber has it again."""
    first = [sighting(A, 0, None, "anna"), sighting(A, 0, 10, "anna", ENDED)]
    again = sighting(A, 20, None, "anna")
    taken(sqlite_store, *first, again, *first, batch=batch)
    assert intervals(sqlite_store, A) == [("anna", 0, 10, "TOLD"), ("anna", 20, None, "NONE")]


def test_a_shorter_lifetime_counts_from_its_renewal(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 1000, "anna"), sighting(A, 10, 20, "anna"))
    assert intervals(sqlite_store, A) == [("anna", 0, 20, "EXPIRY")]


def test_a_block_of_ports_that_grows_or_shrinks_is_another_from_then_on(
    sqlite_store: AssignmentStore,
) -> None:
    sizes = (1535, 2047, 1535)
    blocks = [sighting(A, 100 * n, None, "anna", ports=(1024, last)) for n, last in enumerate(sizes)]
    taken(sqlite_store, *blocks, sighting(A, 0, 300, "anna", ENDED, ports=(1024, 1535)))
    for port, ends in ((1500, ["NEXT", "NEXT", "TOLD"]), (1800, ["NEXT"])):
        assert [one.ending.name for one in sqlite_store.find(A, port, at(0), at(400))] == ends


def test_given_back_at_an_unknown_time(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna"), sighting(A, 0, 0, "anna", RELEASED))
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "RELEASED")]
    # The next holder says by when, and takes not away that it was before.
    taken(sqlite_store, sighting(A, 50, 150, "berta"))
    assert intervals(sqlite_store, A) == [("anna", 0, 50, "RELEASED"), ("berta", 50, 150, "EXPIRY")]


@pytest.mark.parametrize("batch", [1, 100])
def test_a_session_and_its_end(sqlite_store: AssignmentStore, batch: int) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna", session="n/1"),
        sighting("2001:db8:7::/56", 0, None, "anna", session="n/1"),
        sighting(A, -1, None, "anna", session="n/1", seen=50),
        # Without the prefix, which ends too.
        sighting(A, 0, 100, "anna", ENDED, session="n/1", seen=100),
        batch=batch,
    )
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "TOLD")]
    assert intervals(sqlite_store, "2001:db8:7:1::2") == [("anna", 0, 100, "TOLD")]


def test_an_end_that_names_all_addresses_is_told_once(sqlite_store: AssignmentStore) -> None:
    both = (A, "2001:db8:7::/56")
    taken(sqlite_store, *(sighting(one, 0, None, "anna", session="n/1") for one in both))
    taken(sqlite_store, *(sighting(one, 3, 100, "anna", ENDED, session="n/1", seen=100) for one in both))
    assert intervals(sqlite_store, "2001:db8:7:1::2") == [("anna", 0, 100, "TOLD")]


P = "2001:db8:7::/56"
IN_P = "2001:db8:7:1::2"


def ended(address: str, end: int, session: str, start: int | None = None) -> Sighting:
    """What an end says; without a start: nothing of when it began."""
    whole = sighting(address, start or 0, end, "anna", ENDED, session=session, seen=end)
    return whole if start is not None else (*whole[:4], 0, *whole[5:])


def test_a_session_whose_end_another_import_has(sqlite_store: AssignmentStore) -> None:
    taken(
        sqlite_store,
        *(sighting(one, 0, None, "anna", session="n/1") for one in (A, P)),
        *(sighting(one, 0, None, "anna", session="n/2") for one in ("192.0.2.9", "2001:db8:9::/56")),
    )
    taken(sqlite_store, ended(A, 100, "n/1"))
    assert intervals(sqlite_store, A) == intervals(sqlite_store, IN_P) == [("anna", 0, 100, "TOLD")]
    # Another session of theirs goes on.
    assert intervals(sqlite_store, "2001:db8:9::1") == [("anna", 0, None, "NONE")]


@pytest.mark.parametrize("start", [None, 40])
@pytest.mark.parametrize("batch", [1, 100])
def test_an_end_that_names_another_address(
    sqlite_store: AssignmentStore, batch: int, start: int | None
) -> None:
    both = [sighting(one, 0, None, "anna", session="n/1") for one in (A, P)]
    later = sighting("192.0.2.9", 200, None, "anna", session="n/1")
    taken(sqlite_store, *both, later, ended("192.0.2.8", 100, "n/1", start), batch=batch)
    assert intervals(sqlite_store, A) == intervals(sqlite_store, IN_P) == [("anna", 0, 100, "TOLD")]
    there = [("anna", start, 100, "TOLD")] if start else []
    assert intervals(sqlite_store, "192.0.2.8") == there
    # Nor does it end one by the same name that begins later, whose own end comes.
    assert intervals(sqlite_store, "192.0.2.9") == [("anna", 200, None, "NONE")]
    taken(sqlite_store, ended("192.0.2.8", 300, "n/1", start))
    assert intervals(sqlite_store, "192.0.2.9") == [("anna", 200, 300, "TOLD")]


@pytest.mark.parametrize("batch", [1, 100])
def test_a_name_of_a_session_that_is_used_again(sqlite_store: AssignmentStore, batch: int) -> None:
    taken(
        sqlite_store,
        *(sighting(one, 0, None, "anna", session="n/1") for one in (A, P)),
        *(ended(one, 100, "n/1") for one in (A, P)),
        sighting(P, 200, None, "anna", session="n/1"),
        ended(P, 300, "n/1"),
        # One of which the log has the end alone.
        ended(P, 500, "n/1", 400),
        batch=batch,
    )
    assert intervals(sqlite_store, A) == [("anna", 0, 100, "TOLD")]
    told = [("anna", start, start + 100, "TOLD") for start in (0, 200, 400)]
    assert intervals(sqlite_store, IN_P) == told


def test_a_late_end_of_an_earlier_session(sqlite_store: AssignmentStore) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna", session="n/1"),
        sighting(A, 100, None, "berta", session="n/2"),
        sighting(A, 0, 90, "anna", ENDED, session="n/1", seen=110),
    )
    assert ("berta", 100, None, "NONE") in intervals(sqlite_store, A)
    assert ("anna", 0, 90, "TOLD") in intervals(sqlite_store, A)


@pytest.mark.parametrize("batch", [1, 100])
def test_a_late_end_of_one_whose_name_is_used_again_on_the_address(
    sqlite_store: AssignmentStore, batch: int
) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna", session="n/1"),
        sighting(A, 100, None, "berta", session="n/2"),
        sighting(A, 200, None, "anna", session="n/1"),
        sighting(A, 0, 50, "", STOPPED, session="n/1"),
        batch=batch,
    )
    berta = ("berta", 100, 200, "NEXT")
    assert intervals(sqlite_store, A) == [("anna", 0, 50, "TOLD"), berta, ("anna", 200, None, "NONE")]


def test_an_end_without_a_beginning(sqlite_store: AssignmentStore) -> None:
    place = sighting(A, 0, 100, "anna", ENDED)
    taken(sqlite_store, (*place[:4], 0, *place[5:]))
    assert intervals(sqlite_store, A) == []
    assert sqlite_store.status()[0]["skipped"] == 1


@pytest.mark.parametrize("batch", [1, 100])
def test_who_keeps_the_sessions_restarts(sqlite_store: AssignmentStore, batch: int) -> None:
    restart = (0, "", 0, 65_535, *sighting(A, 50, 50, "")[4:7], "", "n/", int(RESTARTED))
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna", session="n/1"),
        sighting("192.0.2.8", 0, None, "berta", session="m/1"),
        restart,
        batch=batch,
    )
    assert intervals(sqlite_store, A) == [("anna", 0, 50, "NEXT")]
    assert intervals(sqlite_store, "192.0.2.8") == [("berta", 0, None, "NONE")]


def test_ports_are_places_of_their_own(sqlite_store: AssignmentStore) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, None, "anna", ports=(1024, 2047)),
        sighting(A, 5, None, "berta", ports=(2048, 3071)),
    )
    assert intervals(sqlite_store, A) == [("anna", 0, None, "NONE"), ("berta", 5, None, "NONE")]


def test_sources_do_not_end_each_others(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna"), name="one")
    taken(sqlite_store, sighting(A, 50, 150, "berta"), name="two")
    assert len(intervals(sqlite_store, A)) == 2
    assert intervals(sqlite_store, A)[0] == ("anna", 0, 100, "EXPIRY")


def test_a_session_that_is_said_later_to_have_begun_earlier_is_one(sqlite_store: AssignmentStore) -> None:
    """As is held of one that had got its address later, by version 5 of the tables."""
    taken(
        sqlite_store,
        sighting(A, 2500, None, "anna", session="s1"),
        sighting(A, 1800, None, "anna", seen=3000, session="s1"),
        sighting(A, 1800, 3100, "anna", SightingKind.ENDED, session="s1"),
        batch=1,
    )
    assert held(sqlite_store, A, 3050) == ["anna"]
    assert held(sqlite_store, A, 3200) == []


def test_names_of_sessions_are_not_kept_for_ever(
    sqlite_store: AssignmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_MOST_KEPT", 2)
    source = sqlite_store.source("test", "csv", "test.csv")
    merger = merging.Merger(sqlite_store, source.id, source.format)
    for number in range(9):
        merger.take([sighting(A, number, number + 1, "anna", ENDED, session=f"s{number}")])
        sqlite_store.write(source, merger.finished(), START)
    assert len(merger._looked_up) <= 2
    assert len(intervals(sqlite_store, A)) == 9
