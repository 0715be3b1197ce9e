from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, update

from assignments.support import at, sighting, taken
from rows import each_row
from urlward.assignments.deterministic import Formula, add_formula, computed, known_formulas
from urlward.assignments.formats import DETERMINISTIC
from urlward.assignments.interval import FOREVER, AssignmentError, SightingKind, ms_text
from urlward.assignments.retention import hold_assignments, purge_assignments
from urlward.assignments.schema import current
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, answer_fields, answer_lines, who

A = "198.51.100.7"
INSIDE, OUTSIDE = IPv4Network("100.64.0.0/24"), IPv4Network("198.51.100.0/30")


def test_one(store: AssignmentStore) -> None:
    taken(store, sighting(A, 0, 100, "anna", SightingKind.WHOLE))
    answer = who(store, WhoQuestion(A, 40_213, at(50)))
    assert answer.verdict == "one"
    assert answer_lines(answer) == [
        "198.51.100.7 port 40213 at 2026-11-18T11:07:30Z, clocks may be 0 s apart",
        "anna",
        "  198.51.100.7 from 2026-11-18T11:06:40Z until 2026-11-18T11:08:20Z (as the source says)",
        "  source test: csv, last imported from test.csv",
    ]


def test_none_and_several(sqlite_store: AssignmentStore) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, 100, "anna", SightingKind.WHOLE),
        sighting(A, 100, 200, "berta", SightingKind.WHOLE),
    )
    assert who(sqlite_store, WhoQuestion(A, None, at(201))).verdict == "none"
    assert who(sqlite_store, WhoQuestion(A, None, at(99))).verdict == "one"
    near = who(sqlite_store, WhoQuestion(A, None, at(99), 5000))
    assert (near.verdict, [one.interval.subscriber for one in near.candidates]) == (
        "ambiguous",
        ["anna", "berta"],
    )
    assert "ambiguous: 2 subscribers" in answer_lines(near)
    fields = answer_fields(near)
    assert (fields["answer"], fields["tolerance"], len(fields["candidates"])) == ("ambiguous", 5.0, 2)


@pytest.mark.parametrize("end", [100, None])
@pytest.mark.parametrize("begun", [0, 100])
def test_within_a_second_it_may_have_been_either_s(
    sqlite_store: AssignmentStore, begun: float, end: float | None
) -> None:
    """Logs write whole seconds, and blocks of ports are given out again at once."""
    taken(
        sqlite_store,
        sighting(A, begun, None, "anna"),
        *([sighting(A, begun, end, "anna", SightingKind.ENDED)] if end else []),
        sighting(A, 100, None, "berta"),
    )
    for seconds in (100.4, 100.999):
        answer = who(sqlite_store, WhoQuestion(A, None, at(seconds)))
        assert answer.verdict == "ambiguous"
        assert {one.interval.subscriber for one in answer.candidates} == {"anna", "berta"}
    answer = who(sqlite_store, WhoQuestion(A, None, at(101)))
    assert [one.interval.subscriber for one in answer.candidates] == ["berta"]


def test_who_declined_an_address_is_not_the_one_for_certain(sqlite_store: AssignmentStore) -> None:
    taken(
        sqlite_store,
        sighting(A, 0, 100, "anna"),
        sighting(A, 10, 200, "", SightingKind.DECLINED),
    )
    assert who(sqlite_store, WhoQuestion(A, None, at(9))).verdict == "one"
    answer = who(sqlite_store, WhoQuestion(A, None, at(50)))
    assert (answer.verdict, answer_fields(answer)["candidates"][0]["end"]) == ("ambiguous", "declined")
    assert "ambiguous: one subscriber, or nobody" in answer_lines(answer)
    assert who(sqlite_store, WhoQuestion(A, None, at(150))).verdict == "none"


@pytest.mark.parametrize("end", [None, 2000])
def test_what_its_source_may_have_ended_since_is_in_doubt(
    sqlite_store: AssignmentStore, end: float | None
) -> None:
    """It was last read at the start."""
    taken(sqlite_store, sighting(A, 0, end, "anna"))
    assert who(sqlite_store, WhoQuestion(A, None, at(0))).verdict == "one"
    answer = who(sqlite_store, WhoQuestion(A, None, at(1)))
    assert (answer.verdict, answer_fields(answer)["candidates"][0]["end"]) == ("ambiguous", "unread")
    # Whoever has it since may have had it by either clock.
    assert who(sqlite_store, WhoQuestion(A, None, at(0), 1000)).verdict == "ambiguous"
    taken(sqlite_store, sighting(A, 0, end, "anna"), now=at(300))
    assert who(sqlite_store, WhoQuestion(A, None, at(1))).verdict == "one"


@pytest.mark.parametrize("said", [SightingKind.ENDED, SightingKind.WHOLE])
@pytest.mark.parametrize(("start", "session"), [(50, ""), (51, "s"), (53, "s")])
def test_what_has_an_end_of_its_own_that_a_later_import_has_read(
    store: AssignmentStore, start: int, session: str, said: SightingKind
) -> None:
    """Nobody is known to have had it between that and the next one's beginning, also while that is held."""
    taken(store, sighting(A, 50, None, "anna", session=session), sighting(A, 9000, None, "berta"))
    question = WhoQuestion(A, None, at(8000))
    assert who(store, question).verdict == "one"
    taken(store, sighting(A, start, 60, "anna", said, session=session))
    assert who(store, WhoQuestion(A, None, at(55))).verdict == "one"
    before = who(store, question)
    assert (before.verdict, before.candidates) == ("none", ())
    hold_assignments(store, "REF", at(900 * 86_400), [(A, 0, question.at)])
    purge_assignments(store, at(200 * 86_400), at(380 * 86_400))
    assert who(store, question) == before


def test_own_ends_of_many_are_looked_up_at_once(store: AssignmentStore) -> None:
    ports = [(first, first + 299) for first in range(1024, 60_000, 300)]
    taken(
        store,
        *(sighting(A, n, None, "anna", ports=some, session=f"a{n}") for n, some in enumerate(ports)),
        *(sighting(A, 9000, None, "berta", ports=some) for some in ports),
        batch=1000,
    )
    taken(store, sighting(A, 7, 60, "anna", SightingKind.WHOLE, ports=(3124, 3423), session="a7"))
    asked: list[object] = []
    event.listen(store.engine, "before_cursor_execute", lambda *statement: asked.append(statement))
    answer = who(store, WhoQuestion(A, None, at(8000)))
    assert {one.interval.session for one in answer.candidates} == {f"a{n}" for n in range(len(ports))} - {
        "a7"
    }
    assert len(asked) < 20


def test_what_a_newer_release_has_written_is_in_doubt(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna"))
    with sqlite_store.changing() as connection:
        connection.execute(update(current).values(ending=99))
    answer = who(sqlite_store, WhoQuestion(A, None, at(50)))
    assert (answer.verdict, answer_fields(answer)["candidates"][0]["end"]) == ("ambiguous", "newer")


def test_two_sources_that_agree_are_one_answer(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 0, 100, "anna", SightingKind.WHOLE), name="one")
    taken(sqlite_store, sighting(A, 10, None, "anna"), name="two")
    answer = who(sqlite_store, WhoQuestion(A, None, at(50)))
    assert (answer.verdict, len(answer.candidates)) == ("one", 2)
    assert [one.interval.source.name for one in answer.candidates] == ["one", "two"]
    assert answer_fields(answer)["candidates"][1]["to"] is None


def test_through_a_translator(store: AssignmentStore) -> None:
    taken(store, sighting(A, 0, None, "100.64.0.9", ports=(1024, 2047)), name="nat")
    taken(store, sighting("100.64.0.9", 10, 100, "anna", SightingKind.WHOLE), name="leases")
    answer = who(store, WhoQuestion(A, 1500, at(50)))
    (one,) = answer.candidates
    assert (one.interval.subscriber, one.interval.source.name) == ("anna", "leases")
    assert one.via is not None
    assert (one.via.subscriber, one.via.source.name) == ("100.64.0.9", "nat")
    assert any("behind a translator" in line for line in answer_lines(answer))
    assert answer_fields(answer)["candidates"][0]["via"]["subscriber"] == "100.64.0.9"
    # Where nobody is known to have had the inner address, that is the answer.
    (inner,) = who(store, WhoQuestion(A, 1500, at(5))).candidates
    assert (inner.interval.subscriber, inner.via) == ("100.64.0.9", None)


def test_a_formula(store: AssignmentStore) -> None:
    source = store.source("nat", DETERMINISTIC, "")
    add_formula(store, source, Formula(INSIDE, OUTSIDE, 1008, 1024, at(0), at(100)))
    (one,) = who(store, WhoQuestion("198.51.100.1", 1024 + 1008, at(50))).candidates
    assert (one.interval.subscriber, one.interval.ports) == ("100.64.0.65", (2032, 3039))
    assert who(store, WhoQuestion("198.51.100.1", 1024, at(100))).verdict == "none"
    assert who(store, WhoQuestion("198.51.100.1", 80, at(50))).verdict == "none"
    assert who(store, WhoQuestion("198.51.100.4", 2000, at(50))).verdict == "none"
    assert len(who(store, WhoQuestion("198.51.100.1", None, at(50))).candidates) == 64
    assert computed(store, "2001:db8::1", 5, at(50), at(50)) == []
    add_formula(store, source, Formula(INSIDE, OUTSIDE, 504, start=at(100)))
    assert who(store, WhoQuestion("198.51.100.1", 1024, at(500))).candidates[0].interval.end == FOREVER


def test_formulas_of_one_translator_add_up(store: AssignmentStore) -> None:
    source = store.source("nat", DETERMINISTIC, "")
    other = IPv4Network("100.64.9.0/24")

    def inner(seconds: float, address: str = "198.51.100.0") -> list[str]:
        answer = who(store, WhoQuestion(address, 1024, at(seconds)))
        return [one.interval.subscriber for one in answer.candidates]

    first = Formula(INSIDE, OUTSIDE, 1008, 1024, at(0), at(100))
    add_formula(store, source, first)
    # Adjoining, disjoint, and of other addresses at the same time; said twice is said once.
    add_formula(store, source, Formula(other, OUTSIDE, 1008, 1024, at(100), at(200)))
    add_formula(store, source, Formula(other, OUTSIDE, 1008, 1024, at(300), at(400)))
    add_formula(store, source, Formula(other, IPv4Network("198.51.100.4/30"), 1008, 1024, at(0), at(100)))
    assert add_formula(store, source, first) == []
    assert [inner(n) for n in (50, 150, 250, 350)] == [["100.64.0.0"], ["100.64.9.0"], [], ["100.64.9.0"]]
    assert inner(50, "198.51.100.4") == ["100.64.9.0"]
    before = known_formulas(store)
    told: list[object] = []
    for meets in (
        Formula(other, OUTSIDE, 1008, 1024, at(99), at(101)),
        Formula(other, IPv4Network("198.51.100.0/29"), 1008, 1024, at(50)),
        Formula(INSIDE, OUTSIDE, 504, 1024, at(0), at(100)),
    ):
        with pytest.raises(AssignmentError, match=r"^nat: 100\.64\..* is known, and meets it: give other"):
            add_formula(store, source, meets, told=told.append)
    assert (known_formulas(store), told) == (before, [])


def test_a_formula_that_was_wrong_is_replaced_in_its_time_alone(store: AssignmentStore) -> None:
    source = store.source("nat", DETERMINISTIC, "")
    other = IPv4Network("100.64.9.0/24")
    always, told = Formula(INSIDE, OUTSIDE, 1008), list[list[Formula]]()
    add_formula(store, source, always)
    between = Formula(other, OUTSIDE, 1008, 1024, at(100), at(200))
    assert add_formula(store, source, between, replace=True, told=told.append) == [always]
    assert told == [[always]]
    found = [
        who(store, WhoQuestion("198.51.100.0", 1024, at(n))).candidates[0].interval
        for n in (99, 100, 199, 200)
    ]
    assert [one.subscriber for one in found] == ["100.64.0.0", "100.64.9.0", "100.64.9.0", "100.64.0.0"]
    assert [one.source.path for one in found[:2]] == [
        "100.64.0.0/24 to 198.51.100.0/30", "100.64.9.0/24 to 198.51.100.0/30",
    ]  # fmt: skip
    part = Formula(IPv4Network("100.64.0.0/26"), IPv4Network("198.51.100.0/32"), 1008)
    with pytest.raises(AssignmentError, match="is of more addresses than what is to replace it"):
        add_formula(store, source, part, replace=True)
    with pytest.raises(AssignmentError, match="ends before it begins"):
        Formula(INSIDE, OUTSIDE, 1008, 1024, at(5), at(5))


@given(
    ports=st.integers(1, 8000),
    first=st.integers(1, 20_000),
    port=st.integers(1, 65_535),
    index=st.integers(0, 3),
)
def test_each_port_is_of_one_at_most(ports: int, first: int, port: int, index: int) -> None:
    try:
        formula = Formula(IPv4Network("100.64.0.0/29"), OUTSIDE, ports, first)
    except AssignmentError:
        return
    address = str(OUTSIDE[index])
    found = formula.insiders(address, port)
    every = [one for one in formula.insiders(address, None) if one[1] <= port <= one[2]]
    assert found == every
    assert len(found) <= 1


@each_row(("ports", "first"), [(2000, 1024), (0, 1024), (70_000, 1024), (5, 0), (100, 65_500)])
def test_a_formula_without_place_for_all(ports: int, first: int) -> None:
    with pytest.raises(AssignmentError):
        Formula(INSIDE, OUTSIDE, ports, first)


def test_what_is_no_address(sqlite_store: AssignmentStore) -> None:
    with pytest.raises(AssignmentError, match="is not an address"):
        who(sqlite_store, WhoQuestion("example.test", None, at(0)))


def test_nobody_of_a_time_that_is_not_read_yet(sqlite_store: AssignmentStore) -> None:
    taken(sqlite_store, sighting(A, 10, 20, "anna", SightingKind.WHOLE), now=at(100))
    read, later = (who(sqlite_store, WhoQuestion(A, None, at(seconds))) for seconds in (90, 110))
    assert (read.verdict, read.unread, answer_fields(read)["unread"]) == ("none", (), [])
    assert (later.verdict, later.unread) == ("none", (("test", at(100)),))
    assert answer_fields(later)["unread"] == [{"source": "test", "to": ms_text(at(100))}]
    assert answer_lines(later)[2] == f"  source test is read up to {ms_text(at(100))} alone"
